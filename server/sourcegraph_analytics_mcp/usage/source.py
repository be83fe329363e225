"""What a statement is made from: the rows of each range, and what is assumed of people and minutes."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from ..exports.columns import time_column
from ..exports.models import Export
from .metrics import Minutes
from .periods import Range
from .question import Question


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of one range: a table, the column that tells when (None for by_user), and which columns there are.

    Args:
        named: whether people are shown by e-mail or username; else by what stands for their user id.
    """

    table: str
    time: str | None
    columns: frozenset[str]
    first_day: date | None
    named: bool = True

    @property
    def unit(self) -> Literal["day", "month"]:
        """What its rows tell apart, where they have a time."""
        return "month" if self.time == "timestamp_month" else "day"

    @classmethod
    def of(cls, table: str, export: Export, *, named: bool = True) -> "Source":
        """The rows of an export under a name."""
        return cls(table, time_column(export.names), export.names, export.first_day, named)


Picked = str | Callable[[Source, Range], str]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL, and what each `$name` in it stands for."""

    sql: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a statement is built with besides the question.

    Args:
        minutes: assumptions of hours saved.
        written: how each who is listed in teams may stand in the data, by name as the operator spells it.
        ids: those of them who are listed by user id, as far as the file says so.
        team_of: the team of each of these ways.
        made: the day that the data was made.
    """

    minutes: Minutes
    written: Mapping[str, tuple[str, ...]]
    ids: Set[str]
    team_of: Mapping[str, str]
    made: date


def within(source: Source, days: Range) -> str:
    """The condition that a row lies in a range; a row without a day lies in none but all time."""
    if source.time is None:
        return "true"
    start = days.start.replace(day=1) if days.start and source.unit == "month" else days.start
    lower = f"{source.time} >= DATE '{start}'" if start else "true"
    upper = f"{source.time} <= DATE '{days.end}'" if days.end else "true"
    return f"{lower} AND {upper}" if days.start or days.over else f"coalesce({upper}, true)"


def asked_about(question: Question, sources: Sequence[Source], picked: Picked) -> str:
    """The rows in the range, and in the one that it is compared with, as a table of SQL.

    Args:
        sources: of each range its own, the earlier first; or one for all.
        picked: which columns; or what tells them of a source and a range.
    """
    of_each = sources if len(sources) > 1 else [sources[0]] * len(question.ranges)
    pairs = zip(of_each, question.ranges, strict=True)
    columns = picked if callable(picked) else lambda *_: picked
    rows = [f"SELECT {columns(s, r)} FROM {s.table} WHERE {within(s, r)}" for s, r in pairs]
    return f"({' UNION ALL '.join(rows)})"
