"""One export in a few tables: totals, by month, top clients, top languages."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from ..exports.columns import time_column
from ..exports.engine.questions import Questions
from ..exports.models import Export
from .metrics import BY_NAME, METRICS, Metric, Minutes
from .notes import partial_buckets
from .periods import Range
from .source import Source, within

_BY_MONTH = ("active_users", "searches", "chat_events", "completion_acceptances", "completion_acceptance_rate")
_BY_CLIENT = ("active_users", "searches", "chat_events", "completion_acceptances")
_BY_LANGUAGE = ("active_users", "completion_suggestions", "completion_acceptances", "completion_acceptance_rate")
_MOST_MONTHS, _TOP, _MOST_KEPT = 24, 5, 64
_COVERED_BY_THE_FIRST_LINE = ("first_active_date", "last_active_date")
_TOTALS = tuple(metric.name for metric in METRICS if metric.name not in _COVERED_BY_THE_FIRST_LINE)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """One table of a summary.

    Args:
        groups: how many there are in all, of which `rows` are the first.
        notes: what a reader must know of its rows.
    """

    title: str
    metrics: tuple[Metric, ...]
    rows: tuple[tuple[Any, ...], ...]
    groups: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """What an export says, in figures over all of its rows but those that are `left_out`."""

    totals: tuple[tuple[Metric, Any], ...]
    breakdowns: tuple[Breakdown, ...]
    minutes: Minutes


def days_of(export: Export) -> Range:
    """The days that a summary is of: as asked, ending with the day the export was made."""
    made = export.created_at.date()
    end = min(export.end_date or made, made)
    return Range(export.start_date, end, over=end < made)


def calendar_days(export: Export) -> int:
    """How many they are, an open start being the first day with data."""
    start, end = export.start_date or export.first_day, days_of(export).end
    return max((end - start).days + 1, 0) if start and end else 0


def left_out(export: Export) -> str:
    """When the rows are that upstream sent though they lie outside of these days; empty where none do."""
    days = days_of(export)
    return export.outside(days.start, days.end)


def _cut_months(export: Export, shown: Set[str]) -> Iterator[str]:
    """Say which of the months shown are not whole, also where they are not over."""
    days = days_of(export)
    start, end = (day if day and f"{day:%Y-%m}" in shown else None for day in (days.start, days.end))
    sure = "timestamp_date" in export.names  # upstream may give whole months though days are asked for
    return partial_buckets("month", replace(days, start=start, end=end, over=True), sure=sure)


class Summaries:
    """Summaries of exports, each computed once: exports never change."""

    def __init__(self, questions: Questions, minutes: Minutes) -> None:
        self._questions = questions
        self._minutes = minutes
        self._made: OrderedDict[str, Summary] = OrderedDict()

    async def of(self, export: Export) -> Summary:
        """The summary of an export, computed from its rows when it is first asked for."""
        if export.id not in self._made:
            self._made[export.id] = await self._summarise(export)
            while len(self._made) > _MOST_KEPT:
                self._made.popitem(last=False)
        return self._made[export.id]

    async def _summarise(self, export: Export) -> Summary:
        have = export.names
        chosen = self._usable(_TOTALS, have)
        total = (await self._ask(export, chosen))[0]
        tables = []
        if time := time_column(have):
            month = f"strftime({time}, '%Y-%m')"
            months = await self._breakdown(export, "By month", _BY_MONTH, month, "1 DESC", _MOST_MONTHS)
            tables.append(replace(months, notes=tuple(_cut_months(export, {row[0] for row in months.rows}))))
        for title, names, column in (
            ("Top clients", _BY_CLIENT, "client_name"),
            ("Top languages", _BY_LANGUAGE, "language"),
        ):
            if column in have:
                tables.append(await self._breakdown(export, title, names, column, '"active_users" DESC, 1', _TOP))
        totals = tuple((metric, total[metric.name]) for metric in chosen if total[metric.name] is not None)
        return Summary(totals, tuple(tables), self._minutes)

    async def _breakdown(
        self, export: Export, title: str, names: Sequence[str], group: str, order: str, limit: int
    ) -> Breakdown:
        metrics = self._usable(names, export.names)
        sql = f"AND {group} IS NOT NULL GROUP BY 1 ORDER BY {order} LIMIT {limit}"
        rows = await self._ask(export, metrics, f'{group} AS "group", count(*) OVER () AS "groups", ', sql)
        figures = tuple((row["group"], *(row[m.name] for m in metrics)) for row in rows)
        return Breakdown(title, metrics, figures, rows[0]["groups"] if rows else 0)

    async def _ask(self, export: Export, metrics: Sequence[Metric], first: str = "", rest: str = "") -> list[Any]:
        days = calendar_days(export)
        columns = ", ".join(f'{m.filled(self._minutes, str(days))} AS "{m.name}"' for m in metrics)
        rows = within(Source.of("usage", export), days_of(export))
        sql = f"SELECT {first}{columns} FROM usage WHERE {rows} {rest}"
        return await self._questions.ask({"usage": export.parts}, sql)

    def _usable(self, names: Sequence[str], have: frozenset[str]) -> tuple[Metric, ...]:
        return tuple(m for name in names if have.issuperset((m := BY_NAME[name]).columns(self._minutes)))
