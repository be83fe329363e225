"""Read one segment of CSV the slow and exact way, with Python's own strict parser.

The engine reads clean segments by itself; whatever it refuses or counts differently comes here, and what this module
says is right about rows and cells. What a cell means is `parquet`'s to say, here as there.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .. import cells
from ..columns import Field


class BadCsv(Exception):
    """A segment that is not strict CSV.

    Args:
        row: the data row within the segment, from 1.
        reason: what is wrong with it, without its content.
    """

    def __init__(self, row: int, reason: str) -> None:
        self.row = row
        self.reason = reason
        super().__init__(reason)


@dataclass
class Read:
    """What a segment held: rows, and by column the cells that are blank and those that are no value of its kind.

    Args:
        invalid_utf8: characters that were not.
        controls: control characters besides line ends and tabs.
        check: length and CRC-32 of its bytes, and CRC-32 of the Parquet part made of it.
    """

    rows: int = 0
    blank: Counter[str] = field(default_factory=Counter)
    unparsed: Counter[str] = field(default_factory=Counter)
    invalid_utf8: int = 0
    check: tuple[int, int, int] = (0, 0, 0)
    controls: int = 0


def records(text: str) -> Iterator[list[str]]:
    """The records of some CSV text, blank lines left out.

    Raises:
        BadCsv: with the number of the record at fault.
    """
    done = 0
    try:
        for record in cells.records(text, strict=True):
            done += 1
            yield record
    except csv.Error as error:
        reason = "a cell is too long" if "field larger" in str(error) else "its quotes do not match"
        raise BadCsv(done + 1, reason) from None


def rewrite(data: bytes, fields: tuple[Field, ...], out: io.TextIOBase) -> Read:
    """Parse a segment strictly and write it as canonical CSV that the engine reads without doubt.

    Raises:
        BadCsv: for ragged rows, quotes that do not match, oversized cells.
    """
    text = data.decode("utf-8", errors="replace")
    found = Read(invalid_utf8=text.count("\ufffd") - data.count("\ufffd".encode()))
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for record in records(text):
        found.rows += 1
        if len(record) != len(fields):
            raise BadCsv(found.rows, f"it has {len(record)} cells instead of {len(fields)}")
        row = [cell if f.kind == "text" else cell.strip() for cell, f in zip(record, fields, strict=True)]
        found.blank.update(f.name for cell, f in zip(row, fields, strict=True) if not cell)
        writer.writerow(row)
    return found
