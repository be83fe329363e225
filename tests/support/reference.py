"""What an analyst would get: figures by plain Python over single rows, sharing no code with the answers it judges."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from unicodedata import normalize

from sourcegraph_analytics_mcp.demo.company import COUNTS, Activity, Person

SUMS = {
    "searches": "searches",
    "code_navigation_events": "code_navigation",
    "code_insight_views": "insight_views",
    "chat_events": "chats",
    "command_events": "commands",
    "completion_suggestions": "suggestions",
    "completion_acceptances": "acceptances",
    "accepted_characters": "accepted_characters",
    "characters_written_by_cody": "cody_characters",
    "characters_written": "characters",
    "autoedit_suggestions": "autoedits_suggested",
    "autoedit_acceptances": "autoedits_accepted",
    "lines_changed_by_chats_and_commands": "chat_lines",
    "lines_changed_by_completions_and_autoedits": "completion_lines",
}
RATES = {
    "completion_acceptance_rate": ("acceptances", "suggestions", 1),
    "percent_code_written_by_cody": ("cody_characters", "characters", 100),
    "autoedit_acceptance_rate": ("autoedits_accepted", "autoedits_suggested", 1),
}
MINUTES = {"searches": 5, "chats": 5, "commands": 5, "acceptances": 2, "autoedits_accepted": 2}
COUNTED = ("active_users", "billable_users", "average_daily_active_users", "active_days")
DATES = ("first_active_date", "last_active_date")
METRICS = (*SUMS, *RATES, *COUNTED, *DATES, "hours_saved")
TIME = ("day", "week", "month", "quarter")
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Asked:
    """A question with its days resolved; `start` is None where it is open, `length` the days it stands for."""

    metrics: Sequence[str]
    group_by: Sequence[str]
    start: date | None
    end: date
    today: date
    calendar_months: int | None = None
    compare: bool = False
    length: int | None = None
    users: Sequence[str] = ()
    teams: Sequence[str] = ()
    clients: Sequence[str] = ()
    languages: Sequence[str] = ()

    @property
    def over(self) -> bool:
        return self.end < self.today and not (self.calendar_months and self.end == self.today)


@dataclass
class Expected:
    """Every group's figures by its key, and the totals; of the time buckets with data how many have no group."""

    groups: dict[tuple[Any, ...], list[Any]] = field(default_factory=dict)
    totals: list[Any] = field(default_factory=list)
    silent: int = 0
    recorded: int = 0


Shown = Callable[[Person], tuple[str, str]]  # the e-mail and the username that upstream shows, blank if none


@dataclass
class Names:
    """By user id, of the days asked about alone: every name, the one to show, and the team."""

    every: dict[str, set[str]]
    label: dict[str, str]
    team: dict[str, str]


def names(asked: Asked, rows: Iterable[Activity], team_of: Mapping[str, str], shown: Shown) -> Names:
    """Who is called what: everybody by the latest e-mail, else the latest username; in the team of the latest name."""
    first, found = since(asked), Names({}, {}, {})
    usernames: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row.day):
        if (first is None or row.day >= first) and row.day <= asked.end:
            user, (email, username) = row.person.id, shown(row.person)
            called = [spelling(name) for name in (email, username, user) if name]
            found.every.setdefault(user, set()).update(called)
            found.team.update([(user, team_of[name]) for name in called if name in team_of][:1])
            usernames.update({user: username} if username else {})
            found.label.update({user: email} if email else {})
    found.label = {user: found.label.get(user) or usernames.get(user) or user for user in found.every}
    return found


def since(asked: Asked) -> date | None:
    """The first day that the question is about, what it compares with included; None where it is open."""
    time = next((d for d in TIME if d in asked.group_by), None)
    return before(asked, time)[0] if asked.compare and asked.start else asked.start


def expected(asked: Asked, rows: Iterable[Activity], team_of: Mapping[str, str], shown: Shown) -> Expected:
    """Work the question out row by row.

    Args:
        team_of: the operator's list, by the one spelling of a name.
    """
    rows = list(rows)
    known = names(asked, rows, team_of, shown)
    meant = [row for row in rows if picked(asked, row, known)]
    start = asked.start or min((row.day for row in rows if row.day <= asked.end), default=asked.today)
    now = [row for row in meant if (asked.start is None or row.day >= asked.start) and row.day <= asked.end]
    time = next((d for d in TIME if d in asked.group_by), None)

    def key(row: Activity, shift: bool = False) -> tuple[Any, ...]:
        return tuple(_part(d, row, known, shift) for d in asked.group_by)

    groups = _grouped(now, key)
    buckets = {
        _buckets(asked, row) for row in rows if (not asked.start or row.day >= asked.start) and row.day <= asked.end
    }
    found = Expected(silent=len(buckets - {_buckets(asked, row) for row in now}) if time else 0, recorded=len(buckets))
    if not asked.compare:
        for k, members in groups.items():
            length = _bucket_days(asked, k, start, asked.end) if time else (asked.end - start).days + 1
            found.groups[k] = [figure(m, members, length) for m in asked.metrics]
        found.totals = [figure(m, now, (asked.end - start).days + 1) for m in asked.metrics]
        return found
    first, last = before(asked, time) if asked.start else (start, asked.end)
    if time is None:
        old = [row for row in meant if first <= row.day <= last]
        was, lengths = _grouped(old, key), ((last - first).days + 1, (asked.end - start).days + 1)
        for k in {**groups, **was}:
            found.groups[k] = _compared(asked, groups.get(k, []), was.get(k, []), lengths, fair=asked.over)
        found.totals = _compared(asked, now, old, lengths, fair=asked.over)
        return found
    was = _grouped([row for row in meant if first <= row.day <= asked.end], lambda row: key(row, True))
    place = asked.group_by.index(time)
    for k in {**groups, **{k: old for k, old in was.items() if k[place] <= asked.end}}:
        bucket = k[place]
        previous = bucket_start(time, bucket - DAY)
        begun = asked.start is not None or bucket > start  # nothing comes before all data
        whole = begun and bucket >= start
        whole = whole and (bucket_end(time, bucket) <= asked.end) and bucket_end(time, bucket) < asked.today
        lengths = (
            (bucket_end(time, previous) - max(previous, first)).days + 1,
            _bucket_days(asked, k, start, asked.end),
        )
        found.groups[k] = _compared(asked, groups.get(k, []), was.get(k, []), lengths, fair=whole, known=begun)
    found.silent = len(buckets - {(k[place],) for k in found.groups})  # whoever fell to nothing in one has a row there
    found.totals = [figure(m, now, (asked.end - start).days + 1) for m in asked.metrics]
    return found


def before(asked: Asked, time: str | None) -> tuple[date, date]:
    """The days compared with: the calendar period before, as many days before, or the time bucket before."""
    assert asked.start is not None
    if time is not None:
        return bucket_start(time, bucket_start(time, asked.start) - DAY), asked.start - DAY
    if asked.calendar_months is None:
        length = asked.length or (asked.end - asked.start).days + 1
        return asked.start - length * DAY, asked.start - DAY
    first = asked.start
    for _ in range(asked.calendar_months):
        first = (first - DAY).replace(day=1)
    return first, asked.start - DAY


def figure(metric: str, rows: Sequence[Activity], days: int) -> Any:
    """One figure over some rows; None where nothing was recorded."""
    if metric in SUMS:
        return total(rows, SUMS[metric])
    if metric in RATES:
        over, under, times = RATES[metric]
        part, whole = total(rows, over), total(rows, under)
        return None if part is None or not whole else times * part / whole
    if metric == "hours_saved":
        sums = {name: total(rows, name) for name in MINUTES}
        if all(value is None for value in sums.values()):
            return None
        return sum(MINUTES[name] * (value or 0) for name, value in sums.items()) / 60
    if metric in DATES:
        return (min if metric.startswith("first") else max)((row.day for row in rows), default=None)
    if metric == "active_users":
        return len({row.person.id for row in rows})
    if metric == "billable_users":
        return len({row.person.id for row in rows if row.active})
    user_days = len({(row.person.id, row.day) for row in rows})
    return user_days if metric == "active_days" else user_days / days if days > 0 else None


def total(rows: Iterable[Activity], name: str) -> int | None:
    values = [value for row in rows if (value := row.counts[COUNTS.index(name)]) is not None]
    return sum(values) if values else None


def bucket_start(unit: str, day: date) -> date:
    year, week, _ = day.isocalendar()
    return {
        "day": day,
        "week": date.fromisocalendar(year, week, 1),
        "month": date(day.year, day.month, 1),
        "quarter": date(day.year, {1: 1, 2: 4, 3: 7, 4: 10}[(day.month + 2) // 3], 1),
    }[unit]


def bucket_end(unit: str, first: date) -> date:
    """The last day of a bucket, found by walking."""
    day = first
    while bucket_start(unit, day + DAY) == first:
        day += DAY
    return day


def name_of(unit: str, first: date) -> str:
    """A bucket as answers call it."""
    if unit == "month":
        return f"{first.year:04}-{first.month:02}"
    return f"{first.year:04}-Q{(first.month + 2) // 3}" if unit == "quarter" else first.isoformat()


def picked(asked: Asked, row: Activity, known: Names) -> bool:
    user = row.person.id
    return (
        (not asked.users or bool(known.every.get(user, set()) & spellings(asked.users)))
        and (not asked.teams or spelling(known.team.get(user, "(no team)")) in spellings(asked.teams))
        and (not asked.clients or spelling(row.client or "(blank)") in spellings(asked.clients))
        and (not asked.languages or spelling(row.language or "(blank)") in spellings(asked.languages))
    )


def spelling(name: str) -> str:
    """One spelling of all that are the same name: accents put on their letters, each letter small in one way."""
    letters = {"Σ": "σ", "ς": "σ", "İ": "i"}
    return "".join(letters.get(letter) or letter.lower() for letter in normalize("NFC", name))


def spellings(names: Iterable[str]) -> set[str]:
    return {spelling(name) for name in names}


def _part(dimension: str, row: Activity, known: Names, shift: bool) -> Any:
    if dimension in TIME:
        first = bucket_start(dimension, row.day)
        return bucket_end(dimension, first) + DAY if shift else first
    return {
        "user": (known.label.get(row.person.id), row.person.id),
        "team": known.team.get(row.person.id, "(no team)"),
        "client": row.client or None,
        "language": row.language or None,
    }[dimension]


def _buckets(asked: Asked, row: Activity) -> tuple[date, ...]:
    return tuple(bucket_start(d, row.day) for d in asked.group_by if d in TIME)


def _grouped(rows: Iterable[Activity], key: Callable[[Activity], tuple[Any, ...]]) -> dict[tuple[Any, ...], list[Any]]:
    groups: dict[tuple[Any, ...], list[Activity]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _bucket_days(asked: Asked, key: tuple[Any, ...], start: date, end: date) -> int:
    """The days of the range that lie in every time bucket of a group."""
    buckets: list[tuple[str, date]] = [(d, first) for d, first in zip(asked.group_by, key, strict=True) if d in TIME]
    return (min(end, *(bucket_end(*b) for b in buckets)) - max(start, *(first for _, first in buckets))).days + 1


def _compared(
    asked: Asked,
    now: Sequence[Activity],
    old: Sequence[Activity],
    days: tuple[int, int],
    *,
    fair: bool,
    known: bool = True,
) -> list[Any]:
    """Each metric, what it was (where that is known), the change and the relative change."""
    cells: list[Any] = []
    for metric in asked.metrics:
        was, is_ = figure(metric, old, days[0]) if known else None, figure(metric, now, days[1])
        change = ratio = None
        if fair and metric not in DATES:
            adds_up = metric in SUMS or metric == "hours_saved"
            left, right = ((is_ or 0), (was or 0)) if adds_up else (is_, was)
            change = None if left is None or right is None else left - right
            ratio = None if change is None or not was else change / was
        cells += [is_, was, change, ratio]
    return cells
