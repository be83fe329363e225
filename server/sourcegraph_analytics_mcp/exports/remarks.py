"""The sentences about an export's data that are kept with it: how each is written, and what it is about."""

import re
from collections.abc import Mapping, Sequence

_MOST_NAMED = 20
_UNKNOWN = "Columns that are not documented"
_ABOUT_COLUMNS = (_UNKNOWN, "Columns that are documented but missing")
_CELLS = re.compile(r"[\d,]+ cells? of (\w+) ")


def missing(headers: Sequence[str]) -> str:
    """Documented columns that the file does not have."""
    return f"{_ABOUT_COLUMNS[1]}: {', '.join(headers)}."


def unknown(names: Sequence[str]) -> str:
    """Columns of the file that nobody documented, by the names they are kept under."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{_UNKNOWN}, kept as text: {', '.join(names[:_MOST_NAMED])}{more}."


def unknown_unnamed(count: int) -> str:
    """The same where names are hidden."""
    return f"{_UNKNOWN}: {count:,}; they are hidden here, as their names and cells may name people."


def rows(*, nameless: int, dayless: int, repeats: int, key: Sequence[str]) -> list[str]:
    """Rows that count otherwise than a reader expects.

    Args:
        nameless: rows without a user id.
        dayless: rows without a day that can be read.
        repeats: rows whose key another row has.
        key: headers of the columns that no two rows should have in common.
    """
    said = []
    if nameless:
        said.append(_counted(nameless, "row has", "rows have", "no Instance user ID; {} for no person", "count"))
    if dayless:
        said.append(
            _counted(dayless, "row has", "rows have", "no day that can be read; {} in no range but all time", "count")
        )
    if repeats:
        of = f"the {', '.join(key)} of another row; all of them are counted."
        said.append(f"{repeats:,} {'row repeats' if repeats == 1 else 'rows repeat'} {of}")
    return said


def cells(unparsed: Mapping[str, int]) -> list[str]:
    """Cells that are no values of their column's kind: how many, by column."""
    what = "not a value of its kind; {} as blank"
    return [
        _counted(count, f"cell of {name} is", f"cells of {name} are", what, "count")
        for name, count in sorted(unparsed.items())
    ]


def characters(*, invalid: int, controls: int) -> list[str]:
    """Characters that are shown otherwise: bytes that are no UTF-8, and control characters."""
    said = []
    if invalid:
        said.append(_counted(invalid, "character is", "characters are", "not valid UTF-8; shown as \ufffd"))
    if controls:
        what = "in the data; shown as visible escapes"
        said.append(_counted(controls, "control character is", "control characters are", what))
    return said


def about_columns(remark: str) -> bool:
    """Whether it tells which columns there are, not how to read the figures."""
    return remark.startswith(_ABOUT_COLUMNS)


def names_columns(remark: str) -> bool:
    """Whether it holds names of columns that nobody documented."""
    return remark.startswith(_UNKNOWN)


def column(remark: str) -> str | None:
    """The column whose cells it counts; None where it is of the whole."""
    found = _CELLS.match(remark)
    return found and found[1]


def _counted(count: int, one: str, many: str, what: str, verb: str = "") -> str:
    """`1 row has …; it counts …`, `2 rows have …; they count …`."""
    they = f"it {verb}s" if count == 1 else f"they {verb}"
    return f"{count:,} {one if count == 1 else many} {what.format(they)}."
