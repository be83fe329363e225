"""Read the CSV of an export: a page of its rows as they came, or all of it made safe for spreadsheets."""

import csv
import io
import itertools
from collections.abc import Callable, Iterator

from .models import Export


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


def guarded(export: Export, guard: Callable[[str], str]) -> Iterator[str]:
    """The whole CSV again, every text cell through `guard` and every cell quoted, in pieces."""
    kinds = [field.kind == "text" for field in export.fields]
    with export.csv.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = (row for row in csv.reader(file) if row)
        buffer = io.StringIO()
        writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        writer.writerow([guard(name) for name in next(rows, [])])
        for row in rows:
            writer.writerow([guard(cell) if text else cell for cell, text in zip(row, kinds, strict=True)])
            if buffer.tell() > 1 << 16:
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
        yield buffer.getvalue()
