"""Read the CSV of an export: a page of its rows as they came, or all of it made safe for spreadsheets."""

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence

from .columns import Field
from .identities import PERSON, Pseudonyms, hidden
from .models import Export


class Shown:
    """What of a file's rows may be shown: everything, or with people by pseudonym and without what would name them."""

    def __init__(self, fields: Sequence[Field], pseudonyms: Pseudonyms | None) -> None:
        self._pseudonyms = pseudonyms
        self._places = [i for i, field in enumerate(fields) if pseudonyms is None or not hidden(field.name)]
        self._fields = fields
        self.headers = [fields[i].header for i in self._places]
        self.text = [fields[i].kind == "text" for i in self._places]
        self.words = "as they came" if pseudonyms is None else "people by pseudonym"

    def row(self, cells: Sequence[str]) -> list[str]:
        if self._pseudonyms is None:
            return list(cells)
        of = self._pseudonyms.of
        return [of(cells[i]) if self._fields[i].name == PERSON else cells[i] for i in self._places]


def page(export: Export, offset: int, limit: int) -> list[list[str]]:
    """Rows `offset` to `offset + limit` in file order, from 0, cells as they came.

    Reading starts at the segment that holds the first row, so a page costs the same anywhere in a file.
    """
    first, begin = 0, 0
    for at, rows in export.segments:
        if first + rows > offset:
            begin = at
            break
        first += rows
    else:
        return []
    with export.csv.open("rb") as file:
        file.seek(begin)
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
        rows_there = (row for row in csv.reader(text) if row)
        return list(itertools.islice(rows_there, offset - first, offset - first + limit))


def guarded(export: Export, shown: Shown, guard: Callable[[str], str]) -> Iterator[str]:
    """The whole CSV again as far as it may be shown, every text cell through `guard` and all quoted, in pieces."""
    with export.csv.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = (row for row in csv.reader(file) if row)
        buffer = io.StringIO()
        writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        next(rows, None)
        writer.writerow([guard(name) for name in shown.headers])
        for row in map(shown.row, rows):
            writer.writerow([guard(cell) if text else cell for cell, text in zip(row, shown.text, strict=True)])
            if buffer.tell() > 1 << 16:
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
        yield buffer.getvalue()
