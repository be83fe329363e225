"""Who was here before and is not any more, and which seats were never used: from two coarse reports."""

import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from ..errors import AnalyticsError
from ..exports.engine.questions import Questions
from ..exports.identities import NAMES, PERSON
from ..exports.models import Export
from ..upstream.models import ReportRequest
from .coverage import Coverage, covered
from .names import latest
from .periods import Range, add_months
from .question import SHORT, Need
from .source import Source, within

GetData = Callable[[Need, datetime | None], Awaitable[Export]]
GetRegistry = Callable[[], Awaitable[str | None]]
_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inactive:
    """People and seats without activity in the last days.

    Args:
        lapsed: user label, user id, and the month of the last activity; the longest gone first.
        seen: people with any activity at all, service accounts left out.
        unmatched: how many of them are called like no seat; None without a list.
        service_accounts: how many were left out; None where upstream does not tell who they are.
        undated: how many of the lapsed have rows without a day that can be read, so that they may be active.
        covered: which of the last days have data; None where they are too many to be told.
    """

    start: date
    end: date
    lapsed: tuple[tuple[str, str, str], ...]
    seats: "Seats"
    seen: int
    unmatched: int | None
    service_accounts: int | None
    undated: int
    covered: Coverage | None
    exports: tuple[Export, ...]


@dataclass(frozen=True, slots=True)
class Seats:
    """What the lapsed and the operator's list say of seats.

    Args:
        listed: how many seats the list has; None without one.
        never_seen: seats that no activity belongs to; None without any listed, and where that cannot be told.
        freed: seats never seen or held by lapsed people alone; where seats cannot be told, as many as lapsed.
        without: how many of the lapsed are called like no seat; 0 where seats cannot be told.
        in_use: how many of the lapsed hold seats that others use, too.
        joint: whether several of the lapsed hold one seat.
    """

    listed: int | None
    never_seen: tuple[str, ...] | None
    freed: int
    without: int = 0
    in_use: int = 0
    joint: bool = False


async def find_inactive(
    instance: str,
    days: int,
    today: date,
    seats: tuple[str, ...] | None,
    questions: Questions,
    data: GetData,
    registry: GetRegistry,
) -> Inactive:
    """Compare everybody ever seen with those active in the last `days` days, today included.

    Args:
        data: an export that meets a need and, where a moment is given, is not older.

    Raises:
        AnalyticsError: `unsupported` where nobody at all was active, which is more likely a gap in the data.
    """
    everybody_ever, lately = needs(instance, days, today)
    (window,) = lately.ranges
    whole = _first_whole_month(window)
    ever = await data(everybody_ever, None)
    # Who came back since an older report is known by a month that lies in the window, or else by a newer report.
    since = None if whole <= today else ever.created_at
    recent = await data(lately, since)
    shown = questions.pseudonyms.of if questions.pseudonyms else str
    label = (lambda row: str(row["id"])) if questions.pseudonyms else _label
    services = _service_accounts(await registry(), shown)
    (until_now,) = everybody_ever.ranges
    ever_seen = await questions.ask({"t": ever.parts}, _people_sql(Source.of("t", ever), until_now))
    source, tables = Source.of("t", recent), {"t": recent.parts}
    lately_seen = await questions.ask(tables, _ids_sql(source, window))
    active = {row["id"] for row in lately_seen if row["active"]}
    if new := {row["id"] for row in lately_seen} - {row["id"] for row in ever_seen}:
        sql = _people_sql(source, until_now, f"list_contains($ids, {PERSON})")
        ever_seen += await questions.ask(tables, sql, {"ids": list(new)})
    active |= {row["id"] for row in ever_seen if row["last"] >= f"{whole:%Y-%m}"}
    if ever_seen and not active:
        raise _silence(window)
    undated = {row["id"] for row in (*ever_seen, *lately_seen) if row["undated"]}
    everybody = [row for row in ever_seen if row["id"] not in (services or ())]
    gone = sorted((row for row in everybody if row["id"] not in active), key=lambda row: (row["last"], row["id"]))
    held = await _held(seats or (), questions)
    holders = _all(held.values())
    seen = await covered(questions, tables, source, window)
    return Inactive(
        start=window.start or today,
        end=today,
        lapsed=tuple((label(row), row["id"], row["last"]) for row in gone),
        seats=_seats(None if seats is None else held, ever_seen, gone),
        seen=len(everybody),
        unmatched=None if seats is None else sum(holders.isdisjoint(_names(row)) for row in everybody),
        service_accounts=None if services is None else len(ever_seen) - len(everybody),
        undated=sum(row["id"] in undated for row in gone),
        covered=seen if seen and seen.unit == "day" else None,
        exports=(recent, ever),
    )


def needs(instance: str, days: int, today: date) -> tuple[Need, Need]:
    """The reports that it takes: everybody ever seen, and who was active in the last days, today included."""
    window = Range(today - timedelta(days=days - 1), today, over=False)
    ever = replace(_need(instance, "by_user_month", Range(None, today, over=False)), alone=True)
    recent = _need(instance, "by_user_day" if days <= SHORT else "by_user", window)
    return ever, replace(recent, columns=frozenset(NAMES))


def _first_whole_month(window: Range) -> date:
    """The first day of the first month that begins in the last days; today's month is one, though it goes on."""
    start = window.start or date.min
    return start if start.day == 1 else add_months(start.replace(day=1), 1)


async def _held(seats: Sequence[str], questions: Questions) -> dict[str, set[str]]:
    """How each seat may be written in the data, by how it is shown."""
    written = await questions.written(seats)
    return {ways[0] if questions.pseudonyms else seat: set(ways) for seat, ways in written.items()}


def _seats(held: dict[str, set[str]] | None, ever_seen: Sequence[_Row], gone: Sequence[_Row]) -> Seats:
    """What becomes of the seats of a list; a seat is in use as long as one who holds it did not lapse."""
    if not held:
        return Seats(None if held is None else 0, None, len(gone))
    holders = _all(held.values())
    # Seats that nobody can be found by are not unused, but unknown.
    if not any(row["called"] or not holders.isdisjoint(_names(row)) for row in ever_seen):
        return Seats(len(held), None, len(gone))
    lapsed = {row["id"] for row in gone}
    seen_as = _all(map(_names, ever_seen))
    used = _all(_names(row) for row in ever_seen if row["id"] not in lapsed)
    unused = [seat for seat in held if held[seat].isdisjoint(seen_as)]
    free = [seat for seat in held if held[seat].isdisjoint(used)]
    in_free = _all(held[seat] for seat in free)
    without = sum(holders.isdisjoint(_names(row)) for row in gone)
    leaving = sum(not in_free.isdisjoint(_names(row)) for row in gone)
    return Seats(
        listed=len(held),
        never_seen=tuple(unused),
        freed=len(free),
        without=without,
        in_use=len(gone) - without - leaving,
        joint=leaving > len(free) - len(unused),
    )


def _all(sets: Iterable[set[str]]) -> set[str]:
    return set[str]().union(*sets)


def _need(instance: str, granularity: Any, days: Range) -> Need:
    request = ReportRequest(instance_url=instance, granularity=granularity, start_date=days.start, end_date=days.end)
    return Need(request, (days,))


def _ids_sql(source: Source, days: Range) -> str:
    """Who has rows in some days (`active`), or without a day (`undated`)."""
    there, dayless = within(source, days), f"{source.time} IS NULL" if source.time else "false"
    return (
        f"SELECT {PERSON} AS id, bool_or(coalesce({there}, false)) AS active, bool_or({dayless}) AS undated "
        f"FROM t WHERE {PERSON} IS NOT NULL AND ({there} OR {dayless}) GROUP BY 1"
    )


def _silence(window: Range) -> AnalyticsError:
    return AnalyticsError(
        "unsupported",
        f"Nobody at all is recorded as active from {window.start} to {window.end}: upstream's data may end before.",
        "Send more days; query_usage with last_active_date and period all_time says where the data end.",
    )


def _people_sql(source: Source, days: Range, chosen: str = "true") -> str:
    """Everybody in some days: the latest names, every name as it is compared, and the last month with activity."""
    day = source.time or "NULL::DATE"
    email, handle = (latest(name, day) if name in source.columns else "NULL" for name in NAMES)
    called = ", ".join(f"list(DISTINCT folded({name}))" for name in NAMES if name in source.columns) or "[NULL]"
    return (
        f"SELECT {PERSON} AS id, folded({PERSON}) AS folded_id, {email} AS email, {handle} AS handle, "
        f"list_filter(flatten([{called}]), lambda name: name IS NOT NULL) AS called, "
        f"coalesce(strftime(max({day}), '%Y-%m'), '') AS last, bool_or({day} IS NULL) AS undated "
        f"FROM t WHERE {PERSON} IS NOT NULL AND {within(source, days)} AND {chosen} GROUP BY 1"
    )


def _label(row: _Row) -> str:
    return str(row["email"] or row["handle"] or row["id"])


def _names(row: _Row) -> set[str]:
    """Every name that somebody ever had, as names are compared; e-mails and usernames change."""
    return {row["folded_id"], *row["called"]}


def _service_accounts(registry: str | None, shown: Callable[[str], str]) -> set[str] | None:
    """The ids that the user registry calls service accounts; None where it does not say."""
    if registry is None:
        return None
    try:
        rows = csv.DictReader(io.StringIO(registry, newline=""), strict=True)
        if not {"Instance user ID", "Service Account"} <= set(rows.fieldnames or ()):
            return None
        flagged = [row for row in rows if (row["Service Account"] or "").strip().lower() == "true"]
    except csv.Error:
        return None
    return {shown(row["Instance user ID"]) for row in flagged if row["Instance user ID"]}
