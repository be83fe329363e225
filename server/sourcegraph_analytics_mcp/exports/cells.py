"""Read CSV with one limit on the length of a cell, in the server as in the engine's process."""

import csv
import io
import re
from collections.abc import Iterator

_LONGEST = 2_000_000  # characters; the engine takes rows of as many bytes, so what is kept can be read (measured)
csv.field_size_limit(_LONGEST)
_PADDED = re.compile(rb'(?:\A|[,\r\n]) +"|" +(?:[",\r\n]|\Z)')
_CELL = re.compile(r' *("[^"]*(?:""[^"]*)*") *(?=[,\r\n]|\Z)|[^,\r\n]+')


def records(text: str, *, strict: bool) -> Iterator[list[str]]:
    """The records of some CSV text, blank lines left out, as are spaces around the quotes of a cell.

    Args:
        strict: whether quotes that do not match are an error.

    Raises:
        csv.Error: for a cell that is too long, and for what `strict` refuses.
    """
    if padded(text.encode(errors="surrogatepass")):
        text = _CELL.sub(lambda cell: cell[1] or cell[0], text)
    return filter(None, csv.reader(io.StringIO(text, newline=""), strict=strict))


def padded(data: bytes) -> bool:
    """Whether some CSV may have spaces between commas and quotes, of which every parser thinks its own."""
    return (b' "' in data or b'" ' in data) and _PADDED.search(data) is not None
