"""The lines of the operator's files about people, as cells."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..pasted import said_back

APART = re.compile(r"[;|\t]")  # what stands between cells in a list that is not separated by commas, and in nobody
NO_COMMAS = "its columns are not separated by commas: save it as CSV with commas"
_QUOTED = "behind a cell in quotes it has something else than a comma; leave that out, and double quotes in a cell"
_SEPARATOR = re.compile(r"sep=\S?")  # the first line of what Excel writes, which tells it how to read the others


class ListError(ValueError):
    """Why a list cannot be used: what follows the name of its setting in a sentence, without a word of the list."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(f"{'' if line is None else f', line {line}:'} {reason}.")


@dataclass(frozen=True, slots=True)
class Row:
    """A line that is not blank, without blanks around its cells and without blank cells behind them."""

    line: int
    cells: tuple[str, ...]

    def cell(self, column: int) -> str:
        return self.cells[column] if column < len(self.cells) else ""

    def repeats(self, header: "Row") -> bool:
        """Whether it is a header that comes again, in whatever case."""
        pairs = zip(self.cells, header.cells, strict=False)
        return len(self.cells) == len(header.cells) and all(a.casefold() == b.casefold() for a, b in pairs)


def read_rows(path: Path) -> list[Row]:
    """The rows of a list.

    Raises:
        ListError: where it cannot be read, or is no CSV in UTF-8.
    """
    rows = list(_rows(_text(path)))
    return rows[1:] if rows and _SEPARATOR.fullmatch(",".join(rows[0].cells)) else rows


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError:
        raise ListError(f"cannot be read: {said_back(path)}") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # which UTF-16 has
        raise ListError("is not UTF-8: save it as CSV UTF-8")
    return text


def _rows(text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        for fields in reader:
            cells = [_bare(field) for field in fields]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                yield Row(reader.line_num, tuple(cells))
    except csv.Error as error:
        line = next(islice(io.StringIO(text, newline=""), reader.line_num - 1, None))
        raise ListError(_malformed(str(error), line), reader.line_num) from None


def _malformed(error: str, line: str) -> str:
    """Why a line is no CSV, by what the reader says of it."""
    if "limit" in error:
        return "one of its cells is too long"
    if "expected after" not in error:
        return "its quotes do not match"
    return NO_COMMAS if re.search(rf'"\s*{APART.pattern}', line) else _QUOTED


def _bare(field: str) -> str:
    """A cell without the blanks and the signs that nobody sees around it, which come along when it is copied."""
    start, end = 0, len(field)
    while start < end and _unseen(field[start]):
        start += 1
    while start < end and _unseen(field[end - 1]):
        end -= 1
    return field[start:end]


def _unseen(sign: str) -> bool:
    return sign.isspace() or unicodedata.category(sign) == "Cf"
