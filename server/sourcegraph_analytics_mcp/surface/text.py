"""Make text from strangers safe to show: the one place every cell, name and header goes through.

Nothing is deleted, so that two different names never become equal; what cannot be seen is spelled out.
"""

import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from math import floor, log10
from typing import Any

MAX_CELL = 200  # characters of one cell in a table
_LONGEST_NAME = 500  # characters of one name in data
MAX_ROWS = 40_000  # characters of all rows of an answer; clients put longer ones into files, or drop them
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_LOOKS_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\u180b\u180c\u180d\u180e")
_MARKDOWN = re.compile(r"([\\`*\[\]<>|]|(?<=http):(?=//)|(?<=https):(?=//)|(?<=\bwww)\.)", re.IGNORECASE)
_SPELLED = re.compile(r"\\(u\{[0-9A-F]{1,6}\})", re.IGNORECASE)  # which text may hold of its own
_JOINERS = {"\u200d", "\ufe0f"}  # what emoji sequences are made of; fine behind a symbol


def safe(text: str) -> str:
    """Spell out what cannot be seen in a value, once: two values never look the same, and each can be told again."""
    return visible(_SPELLED.sub(r"\\u{005C}\1", text) if "\\u{" in text else text)


def visible(text: str) -> str:
    """Spell out control, bidirectional, invisible and unencodable characters as `\\u{202E}`.

    Text of ours that may hold values made safe already stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    before = ""
    for char in text:
        joins = char in _JOINERS and unicodedata.category(before or " ") in ("So", "Sk")
        hidden = unicodedata.category(char) in _UNSEEN or char in _LOOKS_BLANK or "\ufe00" <= char <= "\ufe0f"
        shown.append(f"\\u{{{ord(char):04X}}}" if hidden and not joins else char)
        before = before if joins else char
    return "".join(shown)


def safe_data(value: Any, spell: Callable[[str], str] = safe) -> Any:
    """The same for everything inside a JSON-like value, keys included."""
    if isinstance(value, str):
        return spell(value)
    if isinstance(value, dict):
        return {spell(str(key)): safe_data(item, spell) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [safe_data(item, spell) for item in value]
    return value


def told(value: object) -> str:
    """One value as text in which everything can be seen; lists and objects as JSON, as data has them."""
    return json.dumps(safe_data(value), ensure_ascii=False) if isinstance(value, list | dict) else safe(str(value))


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
    lines = [f"| {' | '.join(cell(header, widest) for header in headers)} |", f"|{'|'.join('---' for _ in headers)}|"]
    lines += [f"| {' | '.join(cell(value, widest) for value in row)} |" for row in rows]
    return "\n".join(lines)


def narrow(value: Any, widest: int) -> Any:
    """A value that text and data can both hold; one that is longer than a cell may be is text, and cut."""
    if len(told(value)) <= widest:
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    fits = bisect_right(range(min(len(text), widest)), widest - 1, key=lambda count: len(safe(text[:count])))
    return f"{text[: fits - 1]}…"


def short(value: Any) -> Any:
    """A value of which a name that is endless is cut, so that it leaves room for others."""
    longer = isinstance(value, str) and len(value) > _LONGEST_NAME
    return f"{value[: _LONGEST_NAME - 1]}…" if longer else value


def fitting(rows: Iterable[Sequence[object]], widest: int = MAX_CELL) -> int:
    """How many of these rows an answer can hold, as text and as data."""
    length = count = 0
    for row in rows:
        shown = sum(len(cell(value, widest)) + 3 for value in row)
        length += max(shown, len(json.dumps(safe_data(list(row)), ensure_ascii=False, default=str)))
        if length > MAX_ROWS:
            break
        count += 1
    return count


def cut(length: int, unit: str = "row") -> str:
    """What to say of rows that were left out because an answer cannot hold them."""
    return f"Only {plural(length, unit)} fit into an answer; ask for fewer columns or groups, or filter."


def size(count: int) -> str:
    """Bytes in words."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


_FORMULA = tuple("=+-@\t\r\n\0＝＋－＠")


def formula_safe(text: str) -> str:
    """A text cell that no spreadsheet takes for a formula: a leading `'` in front of what could start one."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
