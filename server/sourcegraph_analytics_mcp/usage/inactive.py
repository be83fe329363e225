"""Who was here before and is not any more, and which seats were never used: from two coarse reports."""

import csv
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from ..errors import AnalyticsError
from ..exports.engine.questions import Questions
from ..exports.identities import NAMES
from ..exports.models import Export
from ..upstream.models import ReportRequest
from .notes import Coverage
from .periods import Range
from .question import SHORT, Need

GetData = Callable[[Need], Awaitable[Export]]
GetRegistry = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Inactive:
    """People and seats without activity in the last days.

    Args:
        lapsed: user label, user id, and the day (or month) of the last activity; the longest gone first.
        never_seen: seats of the operator's list that no activity belongs to; None without a list.
        seen: people with any activity at all, service accounts left out.
        service_accounts: how many were left out; None where upstream does not tell who they are.
        without_seat: how many of the lapsed are not on the operator's seat list.
        covered: which of the last days have data; None where they are too many to be told.
    """

    start: date
    end: date
    lapsed: tuple[tuple[str, str, str], ...]
    never_seen: tuple[str, ...] | None
    seen: int
    service_accounts: int | None
    without_seat: int
    covered: Coverage | None
    by_month: bool
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
    ever = await data(_need(instance, "by_user_month", Range(None, None, over=False)))
    shown = questions.pseudonyms.of if questions.pseudonyms else str
    label = (lambda row: str(row["id"])) if questions.pseudonyms else _label
    services = _service_accounts(await registry(), shown)
    active = {row["id"] for row in await questions.ask({"t": recent.parts}, _recent_sql(recent, window))}
    ever_seen = await questions.ask({"t": ever.parts}, _ever_sql(ever))
    if ever_seen and not active:
        raise _silence(window)
    everybody = [row for row in ever_seen if row["id"] not in (services or ())]
    by_month = "timestamp_month" in {field.name for field in ever.fields}
    gone = sorted((row for row in everybody if row["id"] not in active), key=lambda row: (row["last"], row["id"]))
    # A user id's pseudonym depends on its case; e-mails and usernames are compared in lower case.
    held = {seat: {shown(seat.lower()), shown(seat)} for seat in seats or ()}
    holders = set[str]().union(*held.values())
    seen_as = set[str]().union(*map(_names, ever_seen))
    return Inactive(
        start=window.start or today,
        end=today,
        lapsed=tuple((label(row), row["id"], row["last"][: 7 if by_month else 10]) for row in gone),
        never_seen=None
        if seats is None
        else tuple(
            shown(seat.lower()) if questions.pseudonyms else seat for seat in held if held[seat].isdisjoint(seen_as)
        ),
        seen=len(everybody),
        service_accounts=None if services is None else len(services),
        without_seat=sum(holders.isdisjoint(_names(row)) for row in gone) if seats is not None else 0,
        covered=await _covered(recent, window, questions),
        by_month=by_month,
        exports=(recent, ever),
    )


def _need(instance: str, granularity: Any, days: Range) -> Need:
    request = ReportRequest(instance_url=instance, granularity=granularity, start_date=days.start, end_date=days.end)
    return Need(request, (days,), granularity)


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
    email = "max(user_email)" if "user_email" in names else "NULL"
    handle = "max(username)" if "username" in names else "NULL"
    called = ", ".join(f"list(DISTINCT lower({name}))" for name in NAMES if name in names) or "[NULL]"
    return (
        f"SELECT instance_user_id AS id, {email} AS email, {handle} AS handle, flatten([{called}]) AS called, "
        f"coalesce(CAST(max({_time(export)}) AS VARCHAR), '') AS last "
        "FROM t WHERE instance_user_id IS NOT NULL GROUP BY 1"
    )


def _label(row: dict[str, Any]) -> str:
    return str(row["email"] or row["handle"] or row["id"])


def _names(row: dict[str, Any]) -> set[str]:
    """Every name that somebody ever had, in lower case; e-mails and usernames change."""
    return {str(row["id"]).lower(), *filter(None, row["called"])}


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
