"""Answer a question: find or fetch the coarsest data that can, refuse what it cannot tell, and say what it rests on."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ..errors import AnalyticsError, invalid
from ..exports.engine.process import Questions
from ..exports.models import Export
from ..exports.store import Store
from ..upstream.models import ReportRequest
from .metrics import Metric, Minutes
from .people import NO_TEAM, Teams
from .question import TIME, Dimension, Need, Question, bucket_end, bucket_start
from .sql import Source, Terms, build, within

Fetch = Callable[[ReportRequest], Awaitable[Export]]
_TITLES: dict[Dimension, str] = {
    "day": "Day", "week": "Week of (Monday)", "month": "Month", "quarter": "Quarter",
    "user": "User", "team": "Team", "client": "Client", "language": "Language",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer; `metric` is what it shows, None for a group."""

    name: str
    title: str
    unit: str
    metric: Metric | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Figures and what they rest on.

    Args:
        rows: one page of the groups, or the one row of totals where nothing is grouped.
        totals: the metric columns over everything, whatever page is shown.
        matched: how many groups there are in all.
    """

    question: Question
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    totals: tuple[Any, ...]
    matched: int
    start: date | None
    end: date | None
    as_of: datetime
    exports: tuple[Export, ...]
    notes: tuple[str, ...]


class Answers:
    """Answers questions from what is kept, and fetches what is missing.

    Args:
        minutes: assumptions of hours saved.
        teams: who is in which team; None where the operator gives no file.
    """

    def __init__(self, store: Store, questions: Questions, minutes: Minutes, teams: Teams | None) -> None:
        self._store = store
        self._questions = questions
        self._minutes = minutes
        self._teams = teams

    async def ask(self, question: Question, fetch: Fetch, today: date, *, refresh: bool = False) -> Answer:
        """Answer one question.

        Args:
            fetch: downloads a report, or joins the download that is running.

        Raises:
            AnalyticsError: when it makes no sense, the data cannot tell, or the data cannot be had.
        """
        question = question.checked()
        if ("team" in question.group_by or question.teams) and self._teams is None:
            raise invalid("No teams are known.", "The operator can give them as SRC_ANALYTICS_TEAMS_FILE.")
        exports = [await self._data(need, fetch, today, refresh) for need in question.needs]
        for export in exports:
            _check_columns(question, export, self._minutes)
        sources = [_source(f"t{number}", export) for number, export in enumerate(exports)]
        tables = {source.table: export.parts for source, export in zip(sources, exports, strict=True)}
        now, before = sources[-1], sources[0] if question.compare else None
        await self._check_values(question, exports[-1], now, tables)
        partly = await self._check_languages(question, now, tables)
        statement = build(question, now, before, self._terms(today))
        found = await self._questions.ask(tables, statement.sql, statement.parameters)
        seen = await self._coverage(question, exports[-1], now, tables)
        notes = (*_notes(question, exports, seen, today, self._minutes), *partly)
        return _shaped(question, found, exports, seen, notes, today)

    def _terms(self, today: date) -> Terms:
        by_key = self._teams.by_key if self._teams else {}
        return Terms(self._minutes, tuple(by_key), tuple(by_key.values()), today)

    async def _data(self, need: Need, fetch: Fetch, today: date, refresh: bool) -> Export:
        """An export of this upstream hour that meets a need: the smallest that is kept, else a new one."""
        if not refresh:
            hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
            kept = self._store.exports()
            usable = [export for export in kept if export.created_at >= hour and need.met_by(export, today)]
            if usable:
                return self._store.get(min(usable, key=lambda export: export.row_count).id)
        return await fetch(need.request)

    async def _coverage(
        self, question: Question, export: Export, source: Source, tables: dict[str, Any]
    ) -> "Coverage | None":
        """Which days of the range have data; None where the data has no time."""
        if source.time is None:
            return None
        unit = "month" if source.time == "timestamp_month" else "day"
        if (export.start_date, export.end_date) == (question.range.start, question.range.end):
            return Coverage(export.first_day, export.last_day, export.days_with_data, unit)
        sql = (
            f"SELECT min({source.time}) AS first, max({source.time}) AS last, count(DISTINCT {source.time}) AS days "
            f"FROM {source.table} WHERE {within(source, question.range)}"
        )
        row = (await self._questions.ask(tables, sql))[0]
        first, last = (date.fromisoformat(d) if d else None for d in (row["first"], row["last"]))
        return Coverage(first, last, row["days"], unit)

    async def _check_values(self, question: Question, export: Export, source: Source, tables: dict[str, Any]) -> None:
        """Refuse a filter that nothing in the data matches, with what there is."""
        for values, column, what in (
            (question.clients, "client_name", "client"),
            (question.languages, "language", "language"),
        ):
            if values:
                sql = f"SELECT DISTINCT {column} AS v FROM {source.table} WHERE {column} IS NOT NULL ORDER BY 1"
                there = [row["v"] for row in await self._questions.ask(tables, sql)]
                _known(values, there, what)
        if question.teams and self._teams is not None:
            _known(question.teams, [*self._teams.names, NO_TEAM], "team")
        if question.users:
            await self._check_users(question.users, source, tables)

    async def _check_users(self, users: Sequence[str], source: Source, tables: dict[str, Any]) -> None:
        columns = [c for c in ("instance_user_id", "user_email", "username") if c in source.columns]
        any_of = " OR ".join(f"list_contains(?, lower({column}))" for column in columns)
        named = ", ".join(f"lower({column})" for column in columns)
        lowered = [user.lower() for user in users]
        sql = f"SELECT DISTINCT unnest([{named}]) AS v FROM {source.table} WHERE {any_of}"
        there = {row["v"] for row in await self._questions.ask(tables, sql, [lowered] * len(columns))}
        missing = sum(user not in there for user in lowered)
        if missing:
            raise invalid(
                f"{missing} of the {len(users)} users named are not in the data of this range.",
                "Name them by user id, e-mail or username; group_by user shows who is there.",
            )

    async def _check_languages(self, question: Question, source: Source, tables: dict[str, Any]) -> tuple[str, ...]:
        """Refuse to split by language what is not recorded by language; say so where it is only in part."""
        if "language" not in question.group_by and not question.languages:
            return ()
        names = sorted({c for m in question.metrics for c in m.columns(self._minutes)} & _COUNTS)
        if not names:
            return ("Activity without a language is shown as blank." if "language" in question.group_by else
                    "Activity without a language is left out.",)  # fmt: skip
        figures = ", ".join(f"sum({n}) AS {n}, sum({n}) FILTER (language IS NULL) AS blank_{n}" for n in names)
        sql = f"SELECT {figures} FROM {source.table} WHERE {within(source, question.range)}"
        row = (await self._questions.ask(tables, sql))[0]
        notes: list[str] = []
        for name in names:
            total, blank = row[name] or 0, row[f"blank_{name}"] or 0
            if total and blank == total:
                raise AnalyticsError(
                    "unsupported",
                    f"{name} is not recorded by language in this data.",
                    "Ask for it without language, or for completions and auto-edits by language.",
                )
            if blank:
                notes.append(f"{blank / total:.0%} of {name} has no language recorded.")
        return tuple(notes)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which days (or months) of a range have data."""

    first: date | None
    last: date | None
    count: int
    unit: str


_COUNTS = {
    "searches", "code_navigation_events", "code_insight_views", "chat_events", "command_events",
    "completion_suggestions", "completion_acceptances", "accepted_char_count", "characters_written_by_cody",
    "characters_written", "autoedit_suggestions", "autoedit_acceptances", "lines_changed_by_chats_and_commands",
    "lines_changed_by_completions_and_autoedits",
}  # fmt: skip


def _known(values: Sequence[str], there: Sequence[str], what: str) -> None:
    lowered = {value.lower() for value in there}
    missing = [value for value in values if value.lower() not in lowered]
    if missing:
        listed = ", ".join(there[:15]) or "none"
        raise invalid(f"There is no {what} {missing[0]!r} in this data.", f"There are: {listed}.")


def _check_columns(question: Question, export: Export, minutes: Minutes) -> None:
    have = {field.name for field in export.fields}
    for metric in question.metrics:
        missing = [column for column in metric.columns(minutes) if column not in have]
        if missing:
            raise AnalyticsError(
                "unsupported",
                f"{metric.name} cannot be given: the data has no column {missing[0]}.",
                "Ask for another metric; analytics://metrics says what each needs.",
            )
    for dimension, column in (("client", "client_name"), ("language", "language")):
        if dimension in question.group_by and column not in have:
            raise AnalyticsError("unsupported", f"The data has no column {column}.", "Leave that group out.")


def _source(table: str, export: Export) -> Source:
    columns = frozenset(field.name for field in export.fields)
    time = next((name for name in ("timestamp_date", "timestamp_month") if name in columns), None)
    return Source(table, time, columns, export.first_day)


def _shaped(
    question: Question,
    found: list[dict[str, Any]],
    exports: Sequence[Export],
    seen: Coverage | None,
    notes: tuple[str, ...],
    today: date,
) -> Answer:
    figures = tuple(_figure_columns(question))
    total, *groups = found
    if question.order_by is None and question.descending is None and set(TIME) & set(question.group_by):
        groups = groups[::-1]
    keys = tuple(_group_columns(question))
    rows = tuple((*_group_values(question, row), *(row[c.name] for c in figures)) for row in groups)
    totals = tuple(total[column.name] for column in figures)
    start = question.range.start or (seen.first if seen else exports[-1].first_day)
    return Answer(
        question=question,
        columns=(*keys, *figures),
        rows=rows if question.group_by else (totals,),
        totals=totals,
        matched=total["matched"] - 1 if question.group_by else 1,
        start=start,
        end=question.range.end or today,
        as_of=min(export.created_at for export in exports),
        exports=tuple(dict.fromkeys(exports)),
        notes=notes,
    )


def _group_columns(question: Question) -> Iterator[Column]:
    for dimension in question.group_by:
        yield Column(dimension, _TITLES[dimension], "date" if dimension in TIME else "text")
        if dimension == "user":
            yield Column("user_id", "User ID", "text")


def _group_values(question: Question, row: dict[str, Any]) -> Iterator[Any]:
    for dimension in question.group_by:
        value = row[f"g_{dimension}"]
        if dimension == "user":
            yield row["user_label"]
        yield time_label(dimension, value) if dimension in TIME and value else value


def time_label(dimension: Dimension, value: str) -> str:
    """A bucket by name: a day and a week's Monday as dates, `2026-11`, `2026-Q4`."""
    if dimension == "month":
        return value[:7]
    return f"{value[:4]}-Q{(int(value[5:7]) + 2) // 3}" if dimension == "quarter" else value[:10]


def _figure_columns(question: Question) -> Iterator[Column]:
    for metric in question.metrics:
        yield Column(metric.name, metric.title, metric.unit, metric)
        if question.compare:
            yield Column(f"previous_{metric.name}", f"{metric.title}, before", metric.unit, metric)
            yield Column(f"change_{metric.name}", "Change", metric.unit, metric)
            yield Column(f"relative_change_{metric.name}", "Change %", "ratio", metric)


def _notes(
    question: Question, exports: Sequence[Export], seen: Coverage | None, today: date, minutes: Minutes
) -> Iterator[str]:
    days = question.range
    yield _covered(question, seen, exports[-1].row_count)
    if days.clamped_from:
        yield f"The end {days.clamped_from} lies in the future; the range ends today, {today} (UTC)."
    if not days.over:
        yield f"Today, {today} (UTC), is not over; nor is this range."
    elif days.end == today - timedelta(days=1) and exports[-1].created_at.hour == 0:
        yield "Upstream refreshes hourly, so the last hour of yesterday may be missing."
    yield from _comparison(question)
    yield from _partial_buckets(question, today)
    if any(metric.name == "hours_saved" for metric in question.metrics):
        yield minutes.words
    people = [m for m in question.metrics if m.unit == "people"]
    if people and question.group_by:
        yield f"{people[0].title}: each group counts its own people; the total counts everybody once."
    for export in dict.fromkeys(exports):
        yield from (w for w in export.warnings if _concerns(w, question))


def _concerns(warning: str, question: Question) -> bool:
    """Whether a warning of the data matters to these metrics."""
    if "documented" in warning:
        return False
    return "cells of" not in warning or any(f" {c} " in warning for m in question.metrics for c in m.needs)


def _covered(question: Question, seen: Coverage | None, rows: int) -> str:
    asked = question.range.days
    if seen is None and rows:
        return "Days with data are not counted: the answer rests on figures by user, which have no days."
    if seen is None or seen.first is None:
        return "No activity is recorded in this range; that says nothing about days outside it."
    if seen.unit == "month":
        return f"Months with data: {seen.count}, {seen.first:%Y-%m} to {seen.last:%Y-%m}."
    of = f" of {asked}" if asked else ""
    return f"Days with data: {seen.count}{of}, {seen.first} to {seen.last}."


def _comparison(question: Question) -> Iterator[str]:
    earlier = question.earlier
    if earlier is None:
        return
    if question.buckets_compared:
        yield f"Each {question.time} is compared with the one before it; one that is not whole is not compared."
    else:
        yield f"Compared with {earlier.start} to {earlier.end}."
        if not question.range.over:
            yield "The range is not over, so changes are not comparable and left blank."


def _partial_buckets(question: Question, today: date) -> Iterator[str]:
    unit, days = question.time, question.range
    if unit is None or unit == "day" or days.start is None or days.end is None:
        return
    first, last = bucket_start(unit, days.start), bucket_start(unit, days.end)
    if first < days.start:
        yield f"The first {unit} is only counted from {days.start}."
    if days.over and bucket_end(unit, last) > days.end:
        yield f"The last {unit} is only counted until {days.end}."
