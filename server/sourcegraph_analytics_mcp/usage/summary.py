"""One export in a few tables: totals, by month, top clients, top languages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from ..exports.engine.process import Questions
from ..exports.models import Export
from .metrics import BY_NAME, METRICS, Metric

_BY_MONTH = ("active_users", "searches", "chat_events", "completion_acceptances", "completion_acceptance_rate")
_BY_CLIENT = ("active_users", "searches", "chat_events", "completion_acceptances")
_BY_LANGUAGE = ("active_users", "completion_suggestions", "completion_acceptances", "completion_acceptance_rate")
_MOST_MONTHS, _TOP = 24, 5


@dataclass(frozen=True, slots=True)
class Breakdown:
    """One table of a summary; `groups` is how many there are in all, of which `rows` are the first."""

    title: str
    metrics: tuple[Metric, ...]
    rows: tuple[tuple[Any, ...], ...]
    groups: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What an export says, in figures over all of its rows."""

    totals: tuple[tuple[Metric, Any], ...]
    breakdowns: tuple[Breakdown, ...]


@dataclass(frozen=True, slots=True)
class Minutes:
    """Minutes saved per action, Sourcegraph's documented assumptions."""

    searches: float = 5
    chats: float = 5
    commands: float = 5
    completions: float = 2
    autoedits: float = 2

    def fill(self, sql: str, days: int) -> str:
        """A metric's SQL with its numbers put in."""
        return sql.format(
            days=days, searches=self.searches, chats=self.chats, commands=self.commands,
            completions=self.completions, autoedits=self.autoedits,
        )  # fmt: skip


def calendar_days(export: Export) -> int:
    """Days the export covers: as asked, ending with the day it was made, an open start being its first day."""
    start = export.start_date or export.first_day
    made = export.created_at.date()
    end = min(export.end_date, made) if export.end_date else made
    return max((end - start).days + 1, 0) if start else 0


async def summarise(export: Export, questions: Questions, minutes: Minutes) -> Summary:
    """Compute the summary of an export from its rows."""
    have = {field.name for field in export.fields}
    days = calendar_days(export)

    def usable(names: Sequence[str]) -> tuple[Metric, ...]:
        return tuple(BY_NAME[name] for name in names if set(BY_NAME[name].needs) <= have)

    async def ask(metrics: Sequence[Metric], group: str = "", order: str = "", limit: int = 1) -> list[dict[str, Any]]:
        columns = ", ".join(f'{minutes.fill(m.sql, days)} AS "{m.name}"' for m in metrics)
        if not group:
            return await questions.ask({"usage": export.parts}, f"SELECT {columns} FROM usage")
        sql = (
            f'SELECT {group} AS "group", count(*) OVER () AS "groups", {columns} FROM usage '
            f"WHERE {group} IS NOT NULL GROUP BY 1 ORDER BY {order} LIMIT {limit}"
        )
        return await questions.ask({"usage": export.parts}, sql)

    async def breakdown(title: str, names: Sequence[str], group: str, order: str, limit: int) -> Breakdown:
        metrics = usable(names)
        rows = await ask(metrics, group, order, limit)
        figures = tuple((_label(row["group"]), *(row[m.name] for m in metrics)) for row in rows)
        return Breakdown(title, metrics, figures, rows[0]["groups"] if rows else 0)

    chosen = usable([m.name for m in METRICS])
    total = (await ask(chosen))[0]
    time = next((name for name in ("timestamp_date", "timestamp_month") if name in have), None)
    tables = []
    if time:
        month = f"strftime({time}, '%Y-%m')"
        tables.append(await breakdown("By month", _BY_MONTH, month, "1 DESC", _MOST_MONTHS))
    top = '"active_users" DESC, 1'
    if "client_name" in have:
        tables.append(await breakdown("Top clients", _BY_CLIENT, "client_name", top, _TOP))
    if "language" in have:
        tables.append(await breakdown("Top languages", _BY_LANGUAGE, "language", top, _TOP))
    totals = tuple((metric, total[metric.name]) for metric in chosen if total[metric.name] is not None)
    return Summary(totals, tuple(tables))


def _label(group: Any) -> str:
    return group.isoformat() if isinstance(group, date) else str(group)
