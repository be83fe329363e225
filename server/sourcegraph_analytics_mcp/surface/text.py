"""Text from strangers as Markdown that does nothing, and as much of it as an answer may hold."""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import accumulate, takewhile
from math import floor, log10
from typing import Any

from ..spelling import safe_data, told

MAX_CELL = 200  # characters of one cell in a table
_LONGEST_NAME = 500  # characters of one name in data
MAX_ROWS = 40_000  # characters of all rows of an answer; clients put longer ones into files, or drop them
_MARKDOWN = re.compile(r"([\\`*\[\]<>|]|(?<=http):(?=//)|(?<=https):(?=//)|(?<=\bwww)\.)", re.IGNORECASE)


def cell(value: object, widest: int = MAX_CELL) -> str:
    """One value as a Markdown table cell: cut to a length, nothing in it is markup or a link."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) >= 1 else f"{value:.4g}"
    text = told(value)
    if len(text) > widest:
        text = f"{text[: widest - 1]}…"
    return escaped(text)


def escaped(text: str) -> str:
    """Text of which nothing is markup or a link."""
    return _MARKDOWN.sub(r"\\\1", text)


def figure(value: object, unit: str) -> object:
    """A metric's value for a table: ratios and percentages as such, everything else as `cell` shows it.

    `points` is a difference of percentages, already in percent.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    match unit:
        case "points":
            return f"{_decimal(value, '+')} points"
        case "ratio":
            return f"{_decimal(value * 100)}%"
        case "percent":
            return f"{_decimal(value)}%"
        case "hours" | "people per day":
            return _decimal(value, ",")
        case _:
            return value


def _decimal(value: float, style: str = "") -> str:
    """A number with one decimal, or as many as it takes that a little is not shown as nothing."""
    shown = f"{value:{style}.1f}"
    if not value or shown.strip("+-") != "0.0":
        return shown
    return f"{value:{style}.{1 - floor(log10(abs(value)))}f}"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], widest: int = MAX_CELL) -> str:
    """A compact Markdown table; headers are cells too."""
    lines = [heading([cell(header, widest) for header in headers])]
    lines += [line([cell(value, widest) for value in row]) for row in rows]
    return "\n".join(lines)


def heading(cells: Sequence[str]) -> str:
    """How a table begins: its headers, and what tells Markdown that they are."""
    return f"{line(cells)}\n|{'|'.join('---' for _ in cells)}|"


def line(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def short(value: Any) -> Any:
    """A value of which a name that is endless is cut, so that it leaves room for others."""
    longer = isinstance(value, str) and len(value) > _LONGEST_NAME
    return f"{value[: _LONGEST_NAME - 1]}…" if longer else value


def fitting(rows: Iterable[Sequence[object]], widest: int = MAX_CELL) -> int:
    """How many of these rows an answer can hold, as text and as data."""
    return within(_length(row, widest) for row in rows)


def _length(row: Sequence[object], widest: int) -> int:
    shown = sum(len(cell(value, widest)) + 3 for value in row)
    return max(shown, len(json.dumps(safe_data(list(row)), ensure_ascii=False, default=str)))


def within(lengths: Iterable[int], room: int = MAX_ROWS) -> int:
    """How many of these, from the first, there is room for; all in characters."""
    return sum(1 for _ in takewhile(lambda length: length <= room, accumulate(lengths)))


def cut(length: int) -> str:
    """What to say of rows that were left out because an answer cannot hold them."""
    return f"Only {plural(length, 'row')} fit into an answer; ask for fewer columns or groups, or filter."


def size(count: int) -> str:
    """Bytes in words."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def iso(moment: datetime) -> str:
    """A moment as data, in UTC to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


_FORMULA = tuple("=+-@\t\r\n\0＝＋－＠")


def formula_safe(text: str) -> str:
    """A text cell that no spreadsheet takes for a formula: a leading `'` in front of what could start one."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
