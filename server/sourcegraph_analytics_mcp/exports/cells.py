"""Read CSV with one limit on the length of a cell, in the server as in the engine's process."""

import csv
import io
from collections.abc import Iterator

_LONGEST = 2_000_000  # characters; the engine takes rows of as many bytes, so what is kept can be read (measured)
csv.field_size_limit(_LONGEST)


def records(text: str, *, strict: bool) -> Iterator[list[str]]:
    """The records of some CSV text, blank lines left out.

    Args:
        strict: whether quotes that do not match are an error.

    Raises:
        csv.Error: for a cell that is too long, and for what `strict` refuses.
    """
    return filter(None, csv.reader(io.StringIO(text, newline=""), strict=strict))
