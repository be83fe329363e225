"""The engine, opened once before there is any data: each fork begins with it instead of spending 30 ms on its own."""

from pathlib import Path
from typing import Any

from .native import duckdb

_CONFIG: dict[str, bool | int | float | str | list[str]] = {"python_enable_replacements": "false"}
_ALONE = {"threads": "1", "async_threads": "0"}  # no thread of the engine's but the one that asks
_THREADS = Path("/proc/self/task")

_ready: Any = None


def open_ahead() -> None:
    """Open an engine that what is forked from this process begins with.

    None where it cannot be seen that the engine has started no thread: a fork would be left with what that one held.
    """
    global _ready
    try:
        opened = duckdb.connect(":memory:", config=_CONFIG | _ALONE)
        alone = len(list(_THREADS.iterdir())) == 1
    except (duckdb.Error, OSError):  # DuckDB 1.5 has no `async_threads`; only Linux has a list of threads
        return
    if alone:
        _ready = opened
    else:
        opened.close()


def connection() -> Any:
    """A connection to an engine without any data: the one that was opened ahead, else one of its own."""
    return duckdb.connect(":memory:", config=_CONFIG) if _ready is None else _ready.cursor()
