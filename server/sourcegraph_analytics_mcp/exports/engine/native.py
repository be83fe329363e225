"""The engine's native module, without what the package `duckdb` imports around it: 25 ms instead of 90 (measured)."""

import errno
import os
from collections.abc import Iterable

from ...files import NO_ROOM

try:
    import _duckdb as duckdb
except ImportError:  # pragma: no cover - should the engine ever keep it elsewhere, its package has the same names
    import duckdb  # type: ignore[no-redef]

__all__ = ["disk_refusal", "duckdb", "identifier", "rows_in", "text"]


def text(literal: str) -> str:
    """A text as SQL spells it."""
    return "'" + literal.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as SQL spells it."""
    return '"' + name.replace('"', '""') + '"'


def rows_in(files: Iterable[object]) -> str:
    """SQL for the rows of some Parquet files, with the columns that are in them.

    Args:
        files: by their names in the directory that the process works in: the engine takes `*` and `[` for patterns, and
            no name that is not UTF-8.
    """
    listed = ", ".join(text(str(file)) for file in files)
    return f"read_parquet([{listed}], hive_partitioning = false)"  # else a directory `language=de` would be the column


def disk_refusal(error: Exception) -> OSError | None:
    """What the disk refused to take, by the words of the engine (measured); None for an error about something else."""
    said = str(error)
    if "failed to offload data block" in said:  # what is too much for memory is too much for the disk, too
        return OSError(errno.ENOSPC, "the engine has no room")
    refused = next((code for code in NO_ROOM if os.strerror(code) in said), None)
    if refused is None and "Could not write file" in said:
        refused = errno.EIO
    return None if refused is None else OSError(refused, "the engine cannot write")
