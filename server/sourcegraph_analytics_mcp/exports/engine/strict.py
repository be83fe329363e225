"""Read one segment of CSV the slow and exact way, with Python's own strict parser.

The engine reads clean segments by itself; whatever it refuses or counts differently comes here, and what this module
says is right. Cells that do not parse as their column's kind are blanked in the query copy and counted.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from .. import cells
from ..columns import Field, Kind

FIRST_YEAR, LAST_YEAR = 1990, 2199  # a day outside of these is a mistake, like a clock at zero

_TRUE, _FALSE = {"true", "t", "yes", "y", "1"}, {"false", "f", "no", "n", "0"}
# What the engine's own casts take, so that a cell means the same in a clean segment and in one that comes here.
_DIGITS = r"\d+(?:_\d+)*"
_NUMBER = re.compile(rf"\+?-?({_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS})(e[+-]?\d{{1,3}})?\Z", re.ASCII | re.IGNORECASE)
_TIME = r"(?:[T ](?:\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}(?::?\d{2})?)?)?)?"
_DAY = re.compile(rf"0*(\d{{4}})([-/ \\])(\d{{1,2}})\2(\d{{1,2}}){_TIME}\Z", re.ASCII)
_MONTH = re.compile(r"\d{4}-\d{2}\Z", re.ASCII)


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
    """What a segment held: rows, and cells that did not parse by column.

    Args:
        invalid_utf8: characters that were not.
        controls: control characters besides line ends and tabs.
        check: length and CRC-32 of its bytes, and CRC-32 of the Parquet part made of it.
    """

    rows: int = 0
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
        writer.writerow([_cell(cell, f, found.unparsed) for cell, f in zip(record, fields, strict=True)])
    return found


@lru_cache(maxsize=4096)
def value_of(text: str, kind: Kind) -> str | None:
    """A cell as the value it stands for, in canonical spelling; None where it is no value of its column's kind."""
    if kind == "text":
        return text
    return _PARSERS[kind](text.strip()) if text.strip() else ""  # blanks, which the engine refuses


def _cell(text: str, column: Field, unparsed: Counter[str]) -> str:
    value = value_of(text, column.kind)
    if value is None:
        unparsed[column.name] += 1
        return ""
    return value


def _count(text: str) -> str | None:
    if not _NUMBER.match(text):
        return None
    value = _number(text)
    if not math.isfinite(value) or value != int(value) or abs(value) >= 2**53:
        return None
    return str(int(value))


def _ratio(text: str) -> str | None:
    return str(_number(text)) if _NUMBER.match(text) and math.isfinite(_number(text)) else None


def _number(text: str) -> float:
    return float(text.removeprefix("+"))


def _flag(text: str) -> str | None:
    word = text.lower()
    return "true" if word in _TRUE else "false" if word in _FALSE else None


def _day(text: str) -> str | None:
    found = _DAY.match(text)
    try:
        day = date(int(found[1]), int(found[3]), int(found[4])) if found else None
    except ValueError:
        return None
    return day.isoformat() if day and FIRST_YEAR <= day.year <= LAST_YEAR else None


def _month(text: str) -> str | None:
    return _day(f"{text}-01") if _MONTH.match(text) else _day(text)


_PARSERS: dict[Kind, Callable[[str], str | None]] = {
    "count": _count,
    "ratio": _ratio,
    "flag": _flag,
    "day": _day,
    "month": _month,
}
