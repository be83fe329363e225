"""The made-up company's reports as upstream words them: CSV at four granularities, the user registry, credits."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

from .company import COUNTS, Activity, Company, Person

GRANULARITIES = ("by_user", "by_user_month", "by_user_day", "by_user_day_client_language")
_WHO = ("Instance user ID", "User Email", "Username", "Active Sourcegraph User")
_WHERE: dict[str, tuple[str, ...]] = {
    "by_user": (),
    "by_user_month": ("Timestamp Month",),
    "by_user_day": ("Timestamp Date",),
    "by_user_day_client_language": ("Client Name", "Timestamp Date", "Language"),
}
_MEASURES = (
    "Searches", "Code Navigation Events", "Code Insight Views", "Chat Events", "Command Events",
    "Combined Completion Suggestions", "Combined Completion Acceptances", "Total Accepted Char Count", "Combined CAR",
    "Weighted CAR", "Total Characters Written by Cody", "Total Characters Written",
    "Percentage of Code Written by Cody", "Auto-edit suggested events", "Auto-edit accepted events",
    "Auto-edit acceptance rate", "Lines changed by chats and commands", "Lines changed by completions and auto-edits",
)  # fmt: skip
_PIECE = 64 << 10  # characters


def headers(granularity: str) -> tuple[str, ...]:
    """The columns of a granularity, in the documented order."""
    return (*_WHO, *_WHERE[granularity], *_MEASURES)


@dataclass(slots=True)
class _Row:
    """Activities added up: blank stays blank until something was recorded."""

    active: bool = False
    sums: list[int | None] = field(default_factory=lambda: [None] * len(COUNTS))
    shown: int = 0
    shown_accepted: int = 0

    def add(self, activity: Activity) -> None:
        self.active |= activity.active
        self.shown += activity.shown
        self.shown_accepted += activity.shown_accepted
        for index, count in enumerate(activity.counts):
            if count is not None:
                self.sums[index] = (self.sums[index] or 0) + count

    def cells(self) -> list[object]:
        count = dict(zip(COUNTS, self.sums, strict=True))
        return [
            count["searches"], count["code_navigation"], count["insight_views"], count["chats"], count["commands"],
            count["suggestions"], count["acceptances"], count["accepted_characters"],
            _ratio(count["acceptances"], count["suggestions"]), _ratio(self.shown_accepted, self.shown),
            count["cody_characters"], count["characters"], _ratio(count["cody_characters"], count["characters"], 100),
            count["autoedits_suggested"], count["autoedits_accepted"],
            _ratio(count["autoedits_accepted"], count["autoedits_suggested"]), count["chat_lines"],
            count["completion_lines"],
        ]  # fmt: skip


def _ratio(part: int | None, whole: int | None, times: int = 1) -> object:
    return None if not whole else round((part or 0) / whole * times, 4)


def _key(granularity: str, activity: Activity) -> tuple[str, ...]:
    day = activity.day.isoformat()
    match granularity:
        case "by_user":
            return ()
        case "by_user_month":
            return (day[:7],)
        case "by_user_day":
            return (day,)
        case _:
            return (activity.client, day, activity.language)


def report(company: Company, granularity: str, start: date | None, end: date | None) -> Iterator[str]:
    """A usage report as CSV text in pieces; bounds are inclusive."""
    rows: dict[tuple[Person, tuple[str, ...]], _Row] = {}
    for activity in company.activities:
        if (start is None or activity.day >= start) and (end is None or activity.day <= end):
            rows.setdefault((activity.person, _key(granularity, activity)), _Row()).add(activity)
    lines = (
        [person.id, person.email, person.username, str(row.active).lower(), *key, *row.cells()]
        for (person, key), row in rows.items()
    )
    return _csv([headers(granularity)], lines)


def registry(company: Company) -> str:
    """The user registry as CSV."""
    lines = ([p.id, str(p.service_account).lower(), str(p.site_admin).lower()] for p in company.people)
    return "".join(_csv([("Instance user ID", "Service Account", "Site Admin")], lines))


def credits_of(company: Company) -> list[dict[str, Any]]:
    """Credit buckets, a quarter each, newest first, in a plausible shape (the real one is not documented)."""
    if not company.activities:
        return []
    chats, buckets = _chats_by_quarter(company.activities), []
    quarter, first = _quarter(company.today), _quarter(company.activities[0].day)
    while quarter >= first:
        next_one = _quarter(quarter + timedelta(days=100))
        buckets.append(
            {
                "name": "Included credits",
                "activeFrom": quarter.isoformat(),
                "activeUntil": (next_one - timedelta(days=1)).isoformat(),
                "allocated": 50_000,
                "consumed": chats[quarter],
            }
        )
        quarter = _quarter(quarter - timedelta(days=1))
    return buckets


def _quarter(day: date) -> date:
    """The first day of its quarter."""
    return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)


@lru_cache(maxsize=1)
def _chats_by_quarter(activities: Sequence[Activity]) -> Counter[date]:
    """Chats in each quarter; counting them takes a tenth of a second, which every look at the connection would."""
    chats: Counter[date] = Counter()
    for activity in activities:
        chats[_quarter(activity.day)] += activity.counts[3] or 0
    return chats


def _csv(head: Iterable[Iterable[object]], lines: Iterable[Iterable[object]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows(head)
    for line in lines:
        writer.writerow(line)
        if buffer.tell() > _PIECE:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
