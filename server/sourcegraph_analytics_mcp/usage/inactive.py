"""Who was here before and is not any more, and which seats were never used: from two coarse reports."""

import csv
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from ..errors import AnalyticsError
from ..exports.engine.questions import Questions
from ..exports.identities import NAMES
from ..exports.models import Export
from ..upstream.models import ReportRequest
from .names import latest
from .notes import Coverage
from .periods import Range
from .question import SHORT, Need

GetData = Callable[[Need], Awaitable[Export]]
GetRegistry = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Inactive:
    """People and seats without activity in the last days.

    Args:
        lapsed: user label, user id, and the month of the last activity; the longest gone first.
        never_seen: seats of the operator's list that no activity belongs to; None without a list, and where that cannot
            be told.
        seen: people with any activity at all, service accounts left out.
        unmatched: how many of them are called like no seat; None without a list.
        service_accounts: how many were left out; None where upstream does not tell who they are.
        without_seat: how many of the lapsed are called like no seat; 0 where seats cannot be told.
        covered: which of the last days have data; None where they are too many to be told.
    """

    start: date
    end: date
    lapsed: tuple[tuple[str, str, str], ...]
    never_seen: tuple[str, ...] | None
    seen: int
    unmatched: int | None
    service_accounts: int | None
    without_seat: int
    covered: Coverage | None
    exports: tuple[Export, ...]


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

    Raises:
        AnalyticsError: `unsupported` where nobody at all was active, which is more likely a gap in the data.
    """
    window = Range(today - timedelta(days=days - 1), today, over=False)
    recent = await data(_need(instance, "by_user_day" if days <= SHORT else "by_user", window))
    ever = await data(replace(_need(instance, "by_user_month", Range(None, None, over=False)), alone=True))
    shown = questions.pseudonyms.of if questions.pseudonyms else str
    label = (lambda row: str(row["id"])) if questions.pseudonyms else _label
    services = _service_accounts(await registry(), shown)
    active = {row["id"] for row in await questions.ask({"t": recent.parts}, _recent_sql(recent, window))}
    ever_seen = await questions.ask({"t": ever.parts}, _ever_sql(ever))
    if ever_seen and not active:
        raise _silence(window)
    everybody = [row for row in ever_seen if row["id"] not in (services or ())]
    gone = sorted((row for row in everybody if row["id"] not in active), key=lambda row: (row["last"], row["id"]))
    held = _held(seats or (), shown)
    holders = set[str]().union(*held.values())
    # Seats that nobody can be found by are not unused, but unknown.
    told = seats is not None and any(row["called"] or not holders.isdisjoint(_names(row)) for row in ever_seen)
    seen_as = set[str]().union(*map(_names, ever_seen))
    unused = [seat for seat in held if held[seat].isdisjoint(seen_as)]
    return Inactive(
        start=window.start or today,
        end=today,
        lapsed=tuple((label(row), row["id"], row["last"]) for row in gone),
        never_seen=tuple(shown(s.lower()) if questions.pseudonyms else s for s in unused) if told else None,
        seen=len(everybody),
        unmatched=None if seats is None else sum(holders.isdisjoint(_names(row)) for row in everybody),
        service_accounts=None if services is None else len(services),
        without_seat=sum(holders.isdisjoint(_names(row)) for row in gone) if told else 0,
        covered=await _covered(recent, window, questions),
        exports=(recent, ever),
    )


def _held(seats: tuple[str, ...], shown: Callable[[str], str]) -> dict[str, set[str]]:
    """How each seat may be written in the data: a pseudonym depends on the case of an id, names are in lower case."""
    return {seat: {shown(seat.lower()), shown(seat)} for seat in seats}


def _need(instance: str, granularity: Any, days: Range) -> Need:
    request = ReportRequest(instance_url=instance, granularity=granularity, start_date=days.start, end_date=days.end)
    return Need(request, (days,))


def _time(export: Export) -> str | None:
    names = {field.name for field in export.fields}
    return next((name for name in ("timestamp_date", "timestamp_month") if name in names), None)


def _since(export: Export, window: Range) -> str:
    """The condition that a row lies in the last days; what is dated after today does, too."""
    time = _time(export)
    recent = f"{time} >= DATE '{window.start}'" if time else "true"
    return f"instance_user_id IS NOT NULL AND {recent}"


def _recent_sql(export: Export, window: Range) -> str:
    return f"SELECT DISTINCT instance_user_id AS id FROM t WHERE {_since(export, window)}"


async def _covered(export: Export, window: Range, questions: Questions) -> Coverage | None:
    """Which of the last days have data; None where the data has no days."""
    time = _time(export)
    if time != "timestamp_date":
        return None
    sql = f"SELECT min({time}) AS first, max({time}) AS last, count(DISTINCT {time}) AS days FROM t "
    row = (
        await questions.ask(
            {"t": export.parts}, f"{sql} WHERE {_since(export, window)} AND {time} <= DATE '{window.end}'"
        )
    )[0]
    first, last = (date.fromisoformat(d) if d else None for d in (row["first"], row["last"]))
    return Coverage(first, last, row["days"], "day")


def _silence(window: Range) -> AnalyticsError:
    return AnalyticsError(
        "unsupported",
        f"Nobody at all is recorded as active from {window.start} to {window.end}: upstream's data may end before.",
        "Send more days; query_usage with active_users by day shows where the data end.",
    )


def _ever_sql(export: Export) -> str:
    names = {field.name for field in export.fields}
    email, handle = (latest(name, "timestamp_month") if name in names else "NULL" for name in NAMES)
    called = ", ".join(f"list(DISTINCT lower({name}))" for name in NAMES if name in names) or "[NULL]"
    return (
        f"SELECT instance_user_id AS id, {email} AS email, {handle} AS handle, "
        f"list_filter(flatten([{called}]), lambda name: name IS NOT NULL) AS called, "
        "coalesce(strftime(max(timestamp_month), '%Y-%m'), '') AS last "
        "FROM t WHERE instance_user_id IS NOT NULL GROUP BY 1"
    )


def _label(row: dict[str, Any]) -> str:
    return str(row["email"] or row["handle"] or row["id"])


def _names(row: dict[str, Any]) -> set[str]:
    """Every name that somebody ever had, in lower case; e-mails and usernames change."""
    return {str(row["id"]).lower(), *row["called"]}


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
    return {shown(row["Instance user ID"]) for row in flagged}
