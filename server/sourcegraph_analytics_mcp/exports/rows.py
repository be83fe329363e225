"""Read the CSV of an export: a page of its rows as they came, or all of it made safe for spreadsheets."""

import csv
import io
import itertools
import re
import zlib
from collections.abc import Callable, Sequence
from typing import BinaryIO

from .cells import records
from .columns import Field, Kind
from .identities import HIDDEN, PERSON, Pseudonyms, hidden
from .missing import damaged, lost
from .models import Export

_LOOKS: dict[Kind, re.Pattern[str]] = {  # what the engine reads, and a little more: no words
    "flag": re.compile(r"(t|true|f|false|y|yes|n|no|0|1|on|off)\Z", re.IGNORECASE),
    "day": re.compile(
        r"[0-9]{1,4}([-/.][0-9]{1,2}){1,2}([T ][0-9:.,]+)?( ?(Z|UTC|GMT|[+-][0-9:]+( [A-Z]{3,5})?))*\Z", re.IGNORECASE
    ),
    "count": re.compile(r"[-+]?[0-9_.]{1,400}(e[-+]?[0-9]{1,3})?\Z", re.IGNORECASE),
}
_LOOKS |= {"month": _LOOKS["day"], "ratio": _LOOKS["count"]}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z")


class Shown:
    """What of a file's rows may be shown: everything, or with people by pseudonym and without what would name them."""

    def __init__(self, fields: Sequence[Field], pseudonyms: Pseudonyms | None) -> None:
        self._pseudonyms = pseudonyms
        self._places = [i for i, field in enumerate(fields) if pseudonyms is None or not hidden(field.name)]
        self._fields = fields
        self.headers = [fields[i].header for i in self._places]
        self.numeric = [fields[i].kind in ("count", "ratio") for i in self._places]

    def row(self, cells: Sequence[str]) -> list[str]:
        if self._pseudonyms is None:
            return list(cells)
        of = self._pseudonyms.of
        shown = ((cells[i], self._fields[i]) for i in self._places)
        return [of(cell) if field.name == PERSON else _harmless(cell, field) for cell, field in shown]


def _harmless(cell: str, field: Field) -> str:
    """A cell of a column that names nobody: what does not look like its kind may do so all the same."""
    looks = _LOOKS.get(field.kind)
    return cell if looks is None or not cell.strip() or looks.match(cell.strip()) else HIDDEN


def page(export: Export, offset: int, limit: int) -> list[list[str]]:
    """Rows `offset` to `offset + limit` in file order, from 0, cells as they came.

    Reading starts at the segment that holds the first row, so a page costs the same anywhere in a file.

    Raises:
        AnalyticsError: `store_corrupt` when what is there is not what was written, `not_found` when it was deleted.
    """
    first, found = 0, list[list[str]]()
    with _opened(export) as file:
        for (at, rows), check in zip(export.segments, export.checks, strict=True):
            if first + rows > offset and len(found) < limit:
                text = _proved(file, at, check).decode("utf-8", errors="replace")
                begin = max(offset - first, 0)
                found += itertools.islice(records(text, strict=False), begin, begin + limit - len(found))
            first += rows
    return found


def _opened(export: Export) -> BinaryIO:
    try:
        return export.csv.open("rb")
    except OSError:
        raise lost(export) from None


def _proved(file: BinaryIO, at: int, check: tuple[int, int, int]) -> bytes:
    """One segment of a file, if it is what was written."""
    file.seek(at)
    data = file.read(check[0])
    if zlib.crc32(data) != check[1]:
        raise damaged()
    return data


def guarded(export: Export, shown: Shown, guard: Callable[[str], str]) -> str:
    """The whole CSV again as far as it may be shown, every cell but plain numbers through `guard` and all quoted.

    Raises:
        AnalyticsError: `store_corrupt` when what is there is not what was written.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow([guard(name) for name in shown.headers])
    for row in map(shown.row, page(export, 0, export.row_count)):
        cells = zip(row, shown.numeric, strict=True)
        writer.writerow([cell if numeric and _NUMBER.match(cell) else guard(cell) for cell, numeric in cells])
    return buffer.getvalue()
