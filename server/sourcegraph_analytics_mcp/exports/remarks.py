"""What is remarkable about an export's data: kept with it as figures, put into words when it is shown."""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .columns import BY_NAME, expected, key_columns

if TYPE_CHECKING:  # conversions load this module, and should not load pydantic for a name (60 ms, measured)
    from .models import Export

Kind = Literal["nameless", "dayless", "repeats", "cells", "invalid", "controls", "earlier"]
_MOST_NAMED = 20
_UNKNOWN = "Columns that are not documented"
_FORGOTTEN = (
    "kept this export, and what it noted of rows and cells is not known any more; export_csv with refresh downloads it "
    "again"
)


@dataclass(frozen=True, slots=True)
class Remark:
    """So many of something in an export that a reader of its figures must know of.

    Args:
        kind: rows without a user id (`nameless`), without a day that can be read (`dayless`), with the key of another
            row (`repeats`); `cells` that are no values of their column's kind; bytes that are no UTF-8 (`invalid`),
            control characters (`controls`); or that an `earlier` version kept it, and what it said is not known.
        column: whose cells are counted, "" for all other kinds.
    """

    kind: Kind
    count: int = 1
    column: str = ""


def about_columns(export: "Export", *, masked: bool) -> Iterator[str]:
    """Say which columns there are that nobody documented, and which are documented but missing.

    Args:
        masked: whether the names of the former are hidden.
    """
    if missing := [column.header for column in expected(export.granularity) if column.name not in export.names]:
        yield f"Columns that are documented but missing: {', '.join(missing)}."
    names = [field.name for field in export.fields if not field.known]
    if names and masked:
        yield f"{_UNKNOWN}: {len(names):,}; they are hidden here, as their names and cells may name people."
    elif names:
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        yield f"{_UNKNOWN}, kept as text: {', '.join(names[:_MOST_NAMED])}{more}."


def about_rows(export: "Export", columns: Container[str]) -> Iterator[str]:
    """Say how to read the figures: what is remarkable of rows, of when they are, and of the cells of some columns."""
    for remark in export.remarks:
        if not remark.column or remark.column in columns:
            yield _worded(remark, export)
    if export.outside(export.start_date, export.end_date):  # rows, CSV and SQL hold them
        days = f"{export.first_day} to {export.last_day}"
        yield f"Upstream sent data from {days}, which is more than the dates asked for."


def _worded(remark: Remark, export: "Export") -> str:
    """`1 row has …; it counts …`, `2 rows have …; they count …`."""
    key = ", ".join(BY_NAME[name].header for name in key_columns(export.granularity))
    it, column = "it counts" if remark.count == 1 else "they count", remark.column
    one, many, what = {
        "nameless": ("row has", "rows have", f"no Instance user ID; {it} for no person"),
        "dayless": ("row has", "rows have", f"no day that can be read; {it} in no range but all time"),
        "repeats": ("row repeats", "rows repeat", f"the {key} of another row; all of them are counted"),
        "cells": (f"cell of {column} is", f"cells of {column} are", f"not a value of its kind; {it} as blank"),
        "invalid": ("character is", "characters are", "not valid UTF-8; shown as \ufffd"),
        "controls": ("control character is", "control characters are", "in the data; shown as visible escapes"),
        "earlier": ("earlier version", "", _FORGOTTEN),
    }[remark.kind]
    return f"{remark.count:,} {one if remark.count == 1 else many} {what}."
