"""Answer a question: find or fetch the coarsest data that can, refuse what it cannot tell, and say what it rests on."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from ..disk import in_thread
from ..errors import AnalyticsError
from ..exports.engine.questions import Questions
from ..exports.identities import NAMES
from ..exports.models import Export
from ..exports.store import Store
from ..exports.wishes import Wish, Wishes
from ..upstream.models import ReportRequest
from .checks import Checks, check_columns, languages
from .coverage import Coverage, Silence, covered
from .metrics import Metric, Minutes
from .notes import notes
from .people import Teams
from .periods import Range
from .question import TIME, Dimension, Need, Question
from .source import Source, Terms
from .sql import build

Fetch = Callable[[ReportRequest, Wish], Awaitable[Export]]
_TITLES: dict[Dimension, str] = {
    "day": "Day", "week": "Week of (Monday)", "month": "Month", "quarter": "Quarter",
    "user": "User", "team": "Team", "client": "Client", "language": "Language",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer.

    Args:
        metric: what it shows, None for a group.
        in_percent: its title where a text shows its figures in percent, though they are ratios.
    """

    name: str
    title: str
    unit: str
    metric: Metric | None = None
    in_percent: str = ""

    @property
    def heading(self) -> str:
        """Its title in a text."""
        return self.in_percent or self.title


@dataclass(frozen=True, slots=True)
class Answer:
    """Figures and what they rest on.

    Args:
        rows: one page of the groups, or the one row of totals where nothing is grouped.
        totals: the metric columns over everything, whatever page is shown.
        matched: how many groups there are in all.
        in_bucket: how many of them are in each time bucket of the page, where that is the order.
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
    in_bucket: Mapping[tuple[Any, ...], int]

    def bucket(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """The time bucket of a row, by name."""
        return tuple(value for column, value in zip(self.columns, row, strict=True) if column.name in TIME)

    def in_time(self, rows: Sequence[tuple[Any, ...]], *, latest_first: bool = False) -> tuple[tuple[Any, ...], ...]:
        """Rows in the order of their time buckets, those of each as they stand; first or last those without one."""
        named = [tuple(value or "" for value in self.bucket(row)) for row in rows]
        order = sorted(range(len(rows)), key=named.__getitem__, reverse=latest_first)
        return tuple(rows[index] for index in order)


class Answers:
    """Answers questions from what is kept, and fetches what is missing.

    Args:
        upstream: the address that the analytics come from; an export of another one answers nothing.
        minutes: assumptions of hours saved.
        teams: who is in which team; None where the operator gives no file.
        shown: makes a name from the data, or from whoever asks, fit for a sentence.
    """

    def __init__(
        self,
        store: Store,
        wishes: Wishes,
        questions: Questions,
        upstream: str,
        minutes: Minutes,
        teams: Teams | None,
        shown: Callable[[str], str],
    ) -> None:
        self._store = store
        self._wishes = wishes
        self._questions = questions
        self._upstream = upstream
        self._minutes = minutes
        self._teams = teams
        self._checks = Checks(questions, minutes, teams, shown)

    async def ask(self, question: Question, fetch: Fetch, today: date, *, refresh: bool = False) -> Answer:
        """Answer one question.

        Args:
            fetch: downloads a report for a wish, or joins the download that is running.

        Raises:
            AnalyticsError: when it makes no sense, the data cannot tell, or the data cannot be had.
        """
        question = question.checked()
        question = await self._checks.before_data(question)
        exports = await self._exports(question, fetch, today, refresh=refresh)
        for export in exports:
            check_columns(question, export, self._minutes)
        named = self._questions.pseudonyms is None
        sources = [Source.of(f"t{number}", export, named=named) for number, export in enumerate(exports)]
        tables = {source.table: export.parts for source, export in zip(sources, exports, strict=True)}
        now, before = sources[-1], sources[0] if question.compare else None
        question = await self._checks.values(question, sources, tables)
        split = self._checks.by_language(question)
        apart = split if question.languages else ()  # the filter hides what has no language, so it is asked apart
        terms = await self._terms(question, exports[-1].created_at.date())
        sums = await self._checks.unsplit(apart, question, sources, terms, tables) if apart else {}
        statement = build(question, sources, terms, () if apart else split)
        found = await self._questions.ask(tables, statement.sql, statement.parameters)
        teams = await self._checks.teams(question, sources, tables, terms, found[0])
        partly = tuple(languages(question, split, sums or found[0], self._minutes))
        seen = await self._coverage(question.range, exports[-1], now, tables)
        earlier = question.earlier
        seen_before = await self._coverage(earlier, exports[0], before, tables) if before and earlier else None
        silence = Silence.of(question, found[0])
        rows = found[0]["matched"] - 1
        said = (*notes(question, exports, (seen_before, seen), today, self._minutes, silence, rows), *partly, *teams)
        return _shaped(question, found, exports, seen, said, today)

    async def _terms(self, question: Question, made: date) -> Terms:
        teams = self._teams if self._teams and question.about_teams else Teams({})
        written = await self._questions.written(list(teams.of))
        team_of = {key: teams.of[name] for name in written for key in written[name]}
        return Terms(self._minutes, written, teams.ids, team_of, made)

    async def _exports(self, question: Question, fetch: Fetch, today: date, *, refresh: bool) -> list[Export]:
        """What a question rests on."""
        columns = frozenset(c for metric in question.metrics for c in metric.columns(self._minutes))
        columns |= frozenset(NAMES if question.about_people else ())
        needs = [replace(need, columns=columns) for need in question.needs]
        reports = [need.request for need in needs]
        with self._wishes.of(reports, new=refresh) as wish:
            exports = [await self.data(need, fetch, today, wish) for need in needs]
        self._wishes.answered(reports, exports)
        return exports

    async def data(self, need: Need, fetch: Fetch, today: date, wish: Wish, *, since: datetime | None = None) -> Export:
        """An export of this upstream that meets a need: the newest that is kept and will do, else a new one.

        Args:
            since: what must not be older; None for this hour.
        """
        kept = await in_thread(self._store.fresh, self._upstream, wish, since)
        enough = need.attainable(kept)
        for export in sorted(kept, key=need.lacks):
            if enough.met_by(export, today):
                with suppress(AnalyticsError):  # one that is damaged is downloaded again
                    whole = await in_thread(self._store.get, export.id)
                    wish.exports.add(whole.id)  # others may have to be waited for until the hour has turned
                    return whole
        return await fetch(need.download(today), wish)

    async def _coverage(self, days: Range, export: Export, source: Source, tables: dict[str, Any]) -> Coverage | None:
        """Which days of the range have data; None where the data has no time."""
        if source.time and _holds_just(export, days):
            return Coverage(export.first_day, export.last_day, export.days_with_data, source.unit)
        return await covered(self._questions, tables, source, days)


def _holds_just(export: Export, days: Range) -> bool:
    """Whether an export was made for these days and upstream sent no others, so that its own figures tell them."""
    asked = (export.start_date, export.end_date) == (days.start, days.end)
    return asked and not export.outside(days.start, days.end)


def _shaped(
    question: Question,
    found: list[dict[str, Any]],
    exports: Sequence[Export],
    seen: Coverage | None,
    said: tuple[str, ...],
    today: date,
) -> Answer:
    figures = tuple(_figure_columns(question))
    total, *groups = found
    rows = tuple((*_group_values(question, row), *(row[c.name] for c in figures)) for row in groups)
    totals = tuple(total[column.name] for column in figures)
    start = question.range.start or (seen.first if seen else exports[-1].first_day)
    answer = Answer(
        question=question,
        columns=columns_of(question),
        rows=rows if question.group_by else (totals,),
        totals=totals,
        matched=total["matched"] - 1 if question.group_by else 1,
        start=start,
        end=question.range.end or today,
        as_of=min(export.created_at for export in exports),
        exports=tuple(dict.fromkeys(exports)),
        notes=said,
        in_bucket={},
    )
    if question.by_time:
        sizes = {answer.bucket(row): group["in_bucket"] for row, group in zip(rows, groups, strict=True)}
        answer = replace(answer, in_bucket=sizes)
    return replace(answer, rows=answer.in_time(rows)) if question.turned else answer


def columns_of(question: Question) -> tuple[Column, ...]:
    """The columns of an answer: its groups, then its figures."""
    return (*_group_columns(question), *_figure_columns(question))


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
    several = len(question.metrics) > 1
    for metric in question.metrics:
        yield Column(metric.name, metric.title, metric.unit, metric)
        if question.compare:
            change, relative = "Change", "Relative change"
            if several:
                change, relative = (f"{metric.title}, {kind.lower()}" for kind in (change, relative))
            yield Column(f"previous_{metric.name}", f"{metric.title}, before", metric.unit, metric)
            yield Column(f"change_{metric.name}", change, "points" if metric.unit == "percent" else metric.unit, metric)
            yield Column(f"relative_change_{metric.name}", relative, "ratio", metric, in_percent=f"{change} %")
