"""Answer questions about usage in figures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ...errors import AnalyticsError, invalid
from ...exports.models import Export
from ...exports.numbers import in_json
from ...exports.wishes import Wish
from ...upstream.models import ReportRequest
from ...usage.answers import Answer as Found
from ...usage.answers import Column, columns_of
from ...usage.metrics import BY_NAME
from ...usage.people import BLANK
from ...usage.periods import Period, resolve
from ...usage.question import TIME, Dimension, Question
from ..app import App
from ..call import Call
from ..text import cell, cut, figure, fitting, iso, plural, short, size, table
from ..tool import Answer, Arguments, Day, Figure, Hints, Reply, tool
from ..waiting import prepare, reading, wait_for
from ..words import either, folded, nearest
from .exports import Instance

_TITLES = {metric.name: metric.title for metric in BY_NAME.values()}
_ACTIVE_BY = {  # active users as others call them
    "dau": "day", "daily_active_users": "day", "wau": "week", "weekly_active_users": "week", "mau": "month",
    "monthly_active_users": "month",
}  # fmt: skip


def _metric(name: str) -> str:
    word = folded(name)
    if word in BY_NAME:
        return word
    if word.startswith("weighted_"):
        raise ValueError("it cannot be recomputed, as its weights are not exported; ask for completion_acceptance_rate")
    if word in _ACTIVE_BY:
        average = ", or for average_daily_active_users" if _ACTIVE_BY[word] == "day" else ""
        raise ValueError(f"ask for active_users with group_by {_ACTIVE_BY[word]}{average}")
    near = nearest(name, _TITLES)
    hint = f" (did you mean {either(near)}?)" if near else f"; send one of: {', '.join(BY_NAME)}"
    raise ValueError(f"there is no such metric{hint}")


def _spelled(word: object) -> object:
    return folded(word) if isinstance(word, str) else word


def _period(word: object) -> object:
    words = get_args(Period)
    if isinstance(word, str) and folded(word) not in words:
        today = datetime.now(UTC).date()
        raise ValueError(f"send one of {', '.join(words)}; for other days start_date and end_date (today: {today} UTC)")
    return _spelled(word)


MetricName = Annotated[str, AfterValidator(_metric), WithJsonSchema({"type": "string", "enum": [*BY_NAME]})]
PeriodWord = Annotated[Period, BeforeValidator(_period)]
Group = Annotated[Dimension, BeforeValidator(_spelled)]
ColumnName = Annotated[str, Field(max_length=80), BeforeValidator(_spelled)]
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=100)]
_LARGE = 1e6  # from here on ten digits are fewer than a text shows
_BARS = "▁▂▃▄▅▆▇█"


class QuestionArguments(Arguments):
    """What is asked."""

    metrics: Annotated[list[MetricName], Field(min_length=1, max_length=8, description="Figures wanted")]
    group_by: Annotated[list[Group], Field(max_length=3, description="Up to 3 groups")] = []  # noqa: RUF012 - pydantic copies defaults
    period: Annotated[PeriodWord | None, Field(description="Default last_30_days, ending yesterday")] = None
    start_date: Annotated[Day | None, Field(description="Instead of period")] = None
    end_date: Annotated[Day | None, Field(description="Last day, inclusive")] = None
    users: Annotated[Names, Field(description="Only these ids, e-mails or usernames")] = []  # noqa: RUF012 - pydantic copies defaults
    teams: Annotated[Names, Field(description="Only these")] = []  # noqa: RUF012 - pydantic copies defaults
    clients: Annotated[Names, Field(description="Only these, e.g. VSCode.cody")] = []  # noqa: RUF012 - pydantic copies defaults
    languages: Annotated[Names, Field(description="Only these")] = []  # noqa: RUF012 - pydantic copies defaults
    compare_to_previous: Annotated[
        bool, Field(description="Add the period before (by time: the bucket before) and the change")
    ] = False
    order_by: Annotated[ColumnName | None, Field(description="A column of the answer")] = None
    descending: Annotated[bool | None, Field(description="Direction of the order")] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="Most rows; totals are over all")] = 50
    instance_url: Instance = None
    refresh: Annotated[bool, Field(description="Download again")] = False


class TableAnswer(Answer):
    columns: list[dict[str, str]]
    rows: list[list[Figure]]
    row_count: int
    truncated: bool
    start_date: date | None
    end_date: date | None
    as_of: str
    export_ids: list[str]
    notes: list[str]


class UsageAnswer(TableAnswer):
    totals: list[Figure]


@tool(title="Query usage", answer=UsageAnswer, hints=Hints(read_only=True, idempotent=True))
async def query_usage(app: App, arguments: QuestionArguments, call: Call) -> Reply:
    """Answer a question about usage in one call: metrics by time, person, team, client or language. Fetches the data it
    needs. Rates are 0-1. Definitions: analytics://metrics."""
    found = _cut(await _found(app, arguments, call))
    return Reply(_text(found), _data(found), rows=len(found.rows))


def _cut(found: Found) -> Found:
    """As many rows as an answer can hold, and what is to be said of those that are left out."""
    rows, turned = tuple(tuple(map(short, row)) for row in found.rows), found.question.turned
    rows = found.in_time(rows, latest_first=True) if turned else rows  # the latest stay, of each bucket the largest
    count = fitting(rows)
    found = replace(found, rows=found.in_time(rows[:count]) if turned else rows[:count])
    said = [*_cut_bucket(found), *([cut(count)] if count < len(rows) else [])]
    return replace(found, notes=(*found.notes, *said))


def _cut_bucket(found: Found) -> Iterator[str]:
    """Say of which time bucket only a part is shown, which can be the one at the end of a page."""
    for bucket, shown in Counter(map(found.bucket, found.rows)).items():
        if shown < (there := found.in_bucket.get(bucket, 0)):
            name = ", ".join(str(value or BLANK) for value in bucket)
            largest = found.question.metrics[0].title
            yield f"Of {name} only {shown:,} of {plural(there, 'row')} are shown, those with the highest {largest}."


async def _found(app: App, arguments: QuestionArguments, call: Call) -> Found:
    """The answer to a question, as figures."""
    today = datetime.now(UTC).date()
    question = Question(
        instance_url=app.settings.resolve_instance(arguments.instance_url),
        metrics=tuple(BY_NAME[name] for name in arguments.metrics),
        group_by=tuple(arguments.group_by),
        range=resolve(arguments.period, arguments.start_date, arguments.end_date, today),
        users=tuple(arguments.users),
        teams=tuple(arguments.teams),
        clients=tuple(arguments.clients),
        languages=tuple(arguments.languages),
        compare=arguments.compare_to_previous,
        order_by=arguments.order_by,
        descending=arguments.descending,
        limit=arguments.limit,
    )
    _check_order(question)
    async with reading(app):
        return await app.answers.ask(question, fetching(app, call), today, refresh=arguments.refresh)


def _check_order(question: Question) -> None:
    known = [column.name for column in columns_of(question)]
    if question.order_by is not None and question.order_by not in known:
        raise invalid("order_by is not a column of this answer.", f"It can be one of: {', '.join(known)}.")


def fetching(app: App, call: Call) -> Any:
    """How an answer gets data that is not kept: a shared download, waited for as long as clients wait."""

    async def fetch(request: ReportRequest, wish: Wish) -> Export:
        await prepare(app)
        download = app.downloads.start(request, wish)
        there = len(wish.exports - {download.id})
        export = await wait_for(app, download, call, max(len(wish.reports) - there, 1))
        if export is None:
            held = "" if app.masked else f", {size(download.received)}"
            far = f"{plural(max(download.rows - 1, 0), 'row')}{held} so far"
            raise AnalyticsError(
                "busy",
                f"The data for this is still being downloaded ({far}).",
                "Call again with the same arguments; the download goes on meanwhile.",
                retryable=True,
                retry_after_seconds=5,
            )
        return export

    return fetch


def _data(found: Found) -> UsageAnswer:
    return UsageAnswer(
        columns=[{"name": c.name, "title": c.title, "unit": c.unit} for c in found.columns],
        rows=[[_exact(value) for value in row] for row in found.rows],
        totals=[_exact(value) for value in found.totals],
        row_count=found.matched,
        truncated=len(found.rows) < found.matched,
        start_date=found.start,
        end_date=found.end,
        as_of=iso(found.as_of),
        export_ids=[export.id for export in found.exports],
        notes=list(found.notes),
    )


def _exact(value: Any) -> Any:
    """Rates to ten digits, which is more than the counts behind them carry; nothing before the point is lost."""
    if isinstance(value, float):
        return float(f"{value:.10g}") if abs(value) < _LARGE else round(value, 4)
    return in_json(value) if isinstance(value, int) else value


def _text(found: Found) -> str:
    parts = [_headline(found)]
    if found.question.group_by and found.rows:
        parts.append(_table(found))
        if len(found.rows) < found.matched:
            shown = "latest" if _latest(found) else "first"
            parts.append(f"Shown: the {shown} {len(found.rows)} of {found.matched:,} rows; the totals are over all.")
    parts.append("\n".join(f"- {note}" for note in found.notes))
    return "\n\n".join(parts)


def _latest(found: Found) -> bool:
    """Whether a page of the rows is the latest of them; of a single time bucket it is the first."""
    several = found.matched not in found.in_bucket.values()
    return found.question.by_time and found.question.descending is not False and several


def _headline(found: Found) -> str:
    figures = [column for column in found.columns if column.metric is not None]
    spoken = [
        f"{column.heading}: {_spoken(value, column)}"
        for column, value in zip(figures, found.totals, strict=True)
        if not found.question.buckets_compared or column.name in BY_NAME
    ]
    whole = "Total " if found.question.group_by else ""
    as_of = f"as of {found.as_of:%Y-%m-%d %H:%M} UTC"
    return f"{whole}{found.start or '…'} to {found.end} ({as_of}). {'; '.join(spoken)}."


def _spoken(value: Any, column: Column) -> str:
    if value is None:
        return "not comparable" if "change_" in column.name else "none recorded"
    return cell(_shown(value, column))


def _shown(value: Any, column: Column) -> object:
    """A figure as text; the change of a rate is in points, so that nobody takes it for a relative change."""
    if column.name.startswith("change_") and column.unit == "ratio" and value is not None:
        return figure(value * 100, "points")
    return figure(value, column.unit if column.metric else "text")


def _in_time(found: Found) -> bool:
    """Whether the rows are nothing but times, the earliest first, so that a trend can be read down them."""
    groups = found.question.group_by
    times = [[str(value or "") for value in row[: len(groups)]] for row in found.rows]
    return bool(groups) and all(d in TIME for d in groups) and times == sorted(times)


def _table(found: Found) -> str:
    shown = [index for index, column in enumerate(found.columns) if column.name != "user_id"]
    headers = [found.columns[index].heading for index in shown]
    groups = {index for index, column in enumerate(found.columns) if column.metric is None}
    rows = [
        [
            BLANK if row[index] is None and index in groups else _shown(row[index], found.columns[index])
            for index in shown
        ]
        for row in found.rows
    ]
    if _in_time(found):
        metrics, first = found.question.metrics, len(found.question.group_by)
        headers.append(f"Trend: {metrics[0].title}" if len(metrics) > 1 else "Trend")
        drawn = [None if None in row[:first] else row[first] for row in found.rows]  # rows without a time have no place
        for row, bar in zip(rows, _trend(drawn), strict=True):
            row.append(bar)
    return table(headers, rows)


def _trend(values: Sequence[Any]) -> list[str]:
    """One block character per value, from the lowest of them to the highest."""
    numbers = [value if isinstance(value, int | float) else None for value in values]
    there = [n for n in numbers if n is not None]
    if not there or min(there) == max(there):
        return ["" for _ in numbers]
    low, span = min(there), max(there) - min(there)
    return ["" if n is None else _BARS[min(int((n - low) / span * 8), 7)] for n in numbers]
