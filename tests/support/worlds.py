"""Made-up data, schema drift and questions from a seed, and whether the server's answers agree with the reference."""

import csv
import io
import random
import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from math import isclose
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mcp import Client

from sourcegraph_analytics_mcp.demo.company import COUNTS, Activity, Company, Person
from sourcegraph_analytics_mcp.demo.reports import report
from sourcegraph_analytics_mcp.settings import Settings
from support import reference
from support.client import connected, text
from support.reference import Asked
from support.upstreams import Exchange, scripted_upstream

TODAY = datetime.now(UTC).date()
DAY = timedelta(days=1)
_ANCHORS = (  # what dates get wrong: leap days, ISO week 53, year ends, today
    date(2024, 2, 20), date(2020, 12, 20), date(2023, 12, 18), date(2021, 12, 27), date(2025, 2, 25),
    TODAY - 45 * DAY, TODAY - 100 * DAY, TODAY - 20 * DAY,
)  # fmt: skip
_CLIENTS = ("VSCode.cody", "JetBrains.cody", "server.web", "Neo|vim", "")
_LANGUAGES = ("Go", "C++", "ΤύΠΟΣ", "go\u0301", "")
_TEAMS = ("Platform", "ΟΔΟΣ", "Süd")
_SPELLINGS = {
    "Instance user ID": ("instance_user_id", "User ID", "INSTANCE USER ID"),
    "User Email": ("Email", "user_email"),
    "Timestamp Date": ("Date", "timestamp date", "Timestamp Date (or Month)"),
    "Timestamp Month": ("Month", "Timestamp Date (or Month)"),
    "Searches": ("searches", " Searches "),
    "Combined Completion Suggestions": ("Completion suggestions", "combined_completion_suggestions"),
    "Auto-edit accepted events": ("autoedit accepted events",),
    "Client Name": ("Client", "client_name"),
}
_HEADERS = {  # of what each metric rests on
    **{metric: (metric,) for metric in reference.SUMS},
    "completion_acceptance_rate": ("completion_acceptances", "completion_suggestions"),
    "percent_code_written_by_cody": ("characters_written_by_cody", "characters_written"),
    "autoedit_acceptance_rate": ("autoedit_acceptances", "autoedit_suggestions"),
    "hours_saved": ("searches", "chat_events", "command_events", "completion_acceptances", "autoedit_acceptances"),
}
_COLUMN_OF = {
    "searches": "Searches", "code_navigation_events": "Code Navigation Events",
    "code_insight_views": "Code Insight Views", "chat_events": "Chat Events", "command_events": "Command Events",
    "completion_suggestions": "Combined Completion Suggestions",
    "completion_acceptances": "Combined Completion Acceptances", "accepted_characters": "Total Accepted Char Count",
    "characters_written_by_cody": "Total Characters Written by Cody", "characters_written": "Total Characters Written",
    "autoedit_suggestions": "Auto-edit suggested events", "autoedit_acceptances": "Auto-edit accepted events",
    "lines_changed_by_chats_and_commands": "Lines changed by chats and commands",
    "lines_changed_by_completions_and_autoedits": "Lines changed by completions and auto-edits",
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """A company's data and the way its upstream words it; `team_of` is the operator's list, by spellings of names."""

    company: Company
    team_of: dict[str, str]
    missing: frozenset[str]
    renamed: dict[str, str]
    order: int
    extra: bool

    @classmethod
    def made(cls, rng: random.Random) -> "World":
        people = tuple(_person(number, rng) for number in range(rng.choice((1, 3, 8, 15))))
        first = rng.choice(_ANCHORS)
        days = [first + n * DAY for n in range(rng.choice((1, 9, 40, 75))) if first + n * DAY <= TODAY]
        later = {p.id: (rng.choice(days), _renamed(p, people, rng)) for p in people if days and rng.random() < 0.2}
        rows = [
            row for day in days for p in people if rng.random() < 0.4
            for row in _activities(later[p.id][1] if p.id in later and day >= later[p.id][0] else p, day, rng)
        ]  # fmt: skip
        if rng.random() < 0.2:  # which is no activity until it is tomorrow
            rows += [row for p in people[:2] for row in _activities(p, TODAY + DAY, rng)]
        if rng.random() < 0.05:
            rows = []
        columns = (*_COLUMN_OF.values(), "User Email", "Username", "Active Sourcegraph User", "Client Name", "Language")
        dropped = rng.sample(columns, rng.choice((1, 2, 5))) if rng.random() < 0.25 else []
        emails = [p.email for p in (*people, *(new for _, new in later.values())) if p.email]
        # Without days, a name that went from one to another would put its people into either team.
        teams = _TEAMS if len(set(emails)) == len(emails) else _TEAMS[:1]
        team_of: dict[str, str] = {}
        for person in (p for p in people if rng.random() < 0.7):
            team = rng.choice(teams)
            either = [person, later.get(person.id, (None, person))[1]]
            for listed in rng.choice((either, either[:1], either[1:])):  # by whichever name upstream shows
                team_of.setdefault(reference.spelling(_label(listed, dropped)), team)
        return cls(
            company=Company(TODAY, people, tuple(rows), ()),
            team_of=team_of,
            missing=frozenset(dropped),
            renamed={k: rng.choice(v) for k, v in _SPELLINGS.items() if rng.random() < 0.25},
            order=rng.randrange(1 << 30) if rng.random() < 0.4 else 0,
            extra=rng.random() < 0.3,
        )

    def report(self, granularity: str, start: date | None, end: date | None) -> bytes:
        """The report as upstream would send it today, whatever happened to its columns."""
        header, *rows = csv.reader(io.StringIO("".join(report(self.company, granularity, start, end)), newline=""))
        places = [index for index, name in enumerate(header) if name not in self.missing]
        if self.order:
            random.Random(self.order).shuffle(places)
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\r\n" if self.order % 2 else "\n")
        more = ["Fresh, column"] if self.extra else []
        writer.writerow([self.renamed.get(header[index], header[index]) for index in places] + more)
        for number, row in enumerate(rows):
            writer.writerow([row[index] for index in places] + [f'"{number},\n' for _ in more])
        return out.getvalue().encode()

    def shown(self, person: Person) -> tuple[str, str]:
        """The e-mail and the username that upstream shows."""
        return _shown(person, self.missing)

    def teams_csv(self) -> str:
        out = io.StringIO()
        csv.writer(out).writerows([("user", "team"), *self.team_of.items()])
        return out.getvalue()


def _shown(person: Person, missing: Collection[str]) -> tuple[str, str]:
    return "" if "User Email" in missing else person.email, "" if "Username" in missing else person.username


def _label(person: Person, missing: Collection[str]) -> str:
    email, username = _shown(person, missing)
    return email or username or person.id


def _renamed(person: Person, people: Sequence[Person], rng: random.Random) -> Person:
    """The same person under another name, which may be one that somebody else has or had."""
    email = rng.choice((f"Other{person.id}@Example.com", rng.choice(people).email, ""))
    return replace(person, email=email, username=person.username if rng.random() < 0.7 else f"a {person.id}")


def _person(number: int, rng: random.Random) -> Person:
    email = f"Person{number}@Example.com" if rng.random() < 0.7 else ""
    return Person(f"{number:03}", email, f"İuser {number}, E\u0301Σ" if rng.random() < 0.8 else "", None)


def _activities(person: Person, day: date, rng: random.Random) -> list[Activity]:
    where = {(rng.choice(_CLIENTS), rng.choice(_LANGUAGES)) for _ in range(rng.choice((1, 1, 2, 4)))}
    return [Activity(person, day, c, lang, rng.random() < 0.8, _counts(lang, rng)) for c, lang in sorted(where)]


def _counts(language: str, rng: random.Random) -> tuple[int | None, ...]:
    """Blank, zero or a number; searches, chats and their like come without a language, as they really do."""
    coded = ("suggestions", "acceptances", "autoedits_suggested", "autoedits_accepted", "characters", "cody_characters")
    return tuple(
        None if rng.random() < 0.4 or (language and name not in coded) else rng.choice((0, 1, 7, rng.randrange(5000)))
        for name in COUNTS
    )


def question(world: World, rng: random.Random) -> tuple[dict[str, Any], Asked]:
    """A question as arguments, and the same worked out by hand."""
    arguments: dict[str, Any] = {"metrics": rng.sample(reference.METRICS, rng.choice((1, 1, 2, 4)))}
    dimensions = ("day", "week", "month", "quarter", "user", "team", "client", "language")
    arguments["group_by"] = rng.sample(dimensions, rng.choice((0, 1, 1, 1, 2, 3)))
    if rng.random() < 0.35:
        arguments["compare_to_previous"] = True
    _filter(arguments, world, rng)
    start, end, months, over = _days(arguments, world, rng)
    asked = Asked(
        arguments["metrics"], arguments["group_by"], start, end, TODAY, months,
        compare="compare_to_previous" in arguments, length=7 if arguments.get("period") == "this_week" else None,
        **{name: arguments.get(name, ()) for name in ("users", "teams", "clients", "languages")},
    )  # fmt: skip
    assert asked.over == over
    if rng.random() < 0.2:
        columns = [*arguments["group_by"], *arguments["metrics"]]
        if asked.compare:
            columns += [f"change_{m}" for m in arguments["metrics"]]
        arguments["order_by"] = rng.choice(columns)
        arguments["descending"] = rng.random() < 0.5
    arguments["limit"] = rng.choice((1000, 1000, 3))
    return arguments, asked


def _filter(arguments: dict[str, Any], world: World, rng: random.Random) -> None:
    if rng.random() < 0.2:
        people = rng.sample(world.company.people, min(2, len(world.company.people)))
        called = {p.id: [n for n in (p.id, p.email, p.username.upper()) if n] for p in people}
        for row in world.company.activities:
            called.setdefault(row.person.id, []).extend({row.person.email} - {"", *called.get(row.person.id, [])})
        arguments["users"] = [rng.choice(called[p.id]) for p in people]
    if rng.random() < 0.15:
        teams = [*dict.fromkeys(world.team_of.values()), "(no team)", *(_TEAMS if rng.random() < 0.2 else ())]
        arguments["teams"] = rng.sample(teams, 1)
    if rng.random() < 0.15:
        arguments["clients"] = rng.sample([c or "(blank)" for c in _CLIENTS], rng.choice((1, 2)))
    if rng.random() < 0.15:
        arguments["languages"] = [(rng.choice(_LANGUAGES) or "(Blank)").lower()]


def _days(arguments: dict[str, Any], world: World, rng: random.Random) -> tuple[date | None, date, int | None, bool]:
    if rng.random() < 0.3:
        return _period(arguments, rng)
    days = [row.day for row in world.company.activities] or [TODAY - 5 * DAY]
    span = (max(days) - min(days)).days
    picks = [min(min(days) + rng.randrange(-5, span + 9) * DAY, TODAY) for _ in range(2)]
    start, end = sorted(picks)
    match rng.randrange(8):
        case 0:
            end = start
        case 1:
            start, end = start.replace(day=1), reference.bucket_end("month", end.replace(day=1))
        case 2:
            end = TODAY + 9 * DAY
        case 3:
            arguments["end_date"] = end.isoformat()
            return None, end, None, end < TODAY
        case 4:
            arguments["start_date"] = start.isoformat()
            return start, TODAY, None, False
    arguments |= {"start_date": start.isoformat(), "end_date": end.isoformat()}
    months = _whole_months(start, end)
    end = min(end, TODAY)
    return start, end, months, end < TODAY


def _whole_months(start: date, end: date) -> int | None:
    """How many calendar months these days are, by walking; None where they cut one off."""
    month, count = start, 0
    while month <= end and month == reference.bucket_start("month", month):
        month, count = reference.bucket_end("month", month) + DAY, count + 1
    return count if count and month == end + DAY and end.year <= TODAY.year else None


def _period(arguments: dict[str, Any], rng: random.Random) -> tuple[date | None, date, int | None, bool]:
    period = rng.choice(
        ("yesterday", "this_week", "last_week", "last_7_days", "last_30_days", "last_90_days", "this_month",
         "last_month", "this_quarter", "last_quarter", "this_year", "last_year", "all_time")
    )  # fmt: skip
    arguments["period"] = period
    if period == "all_time":
        return None, TODAY, None, False
    if period.endswith("days"):
        return TODAY - int(period.split("_")[1]) * DAY, TODAY - DAY, None, True
    if period == "yesterday":
        return TODAY - DAY, TODAY - DAY, None, True
    unit = period.split("_")[1]
    if unit == "week":
        monday = reference.bucket_start("week", TODAY)
        return (monday, TODAY, None, False) if period == "this_week" else (monday - 7 * DAY, monday - DAY, None, True)
    months = {"month": 1, "quarter": 3, "year": 12}[unit]
    first = TODAY.replace(month=1, day=1) if unit == "year" else reference.bucket_start(unit, TODAY)
    if period.startswith("this"):
        return first, TODAY, months, False
    last = first - DAY
    return (last.replace(month=1, day=1) if unit == "year" else reference.bucket_start(unit, last)), last, months, True


def refusal(world: World, asked: Asked) -> set[str]:
    """The codes with which the question must be refused; none if it must be answered."""
    times = [d for d in asked.group_by if d in reference.TIME]
    if asked.compare and (len(times) > 1 or (asked.start is None and not times)):
        return {"invalid_argument"}
    codes: set[str] = set()
    if not set(asked.teams) <= {*world.team_of.values(), "(no team)"}:
        codes.add("invalid_argument")
    needed = {_COLUMN_OF[name] for metric in asked.metrics for name in _HEADERS.get(metric, ())}
    needed |= {"Active Sourcegraph User"} if "billable_users" in asked.metrics else set()
    needed |= {"Client Name"} if "client" in asked.group_by or asked.clients else set()
    needed |= {"Language"} if "language" in asked.group_by or asked.languages else set()
    if needed & world.missing:
        codes.add("unsupported")
    return codes


def perhaps_refused(world: World, asked: Asked) -> set[str]:
    """The codes with which it may be refused, because of what the days asked about hold."""
    first = reference.since(asked)
    rows = [r for r in world.company.activities if (not first or r.day >= first) and r.day <= asked.end]
    known = reference.names(asked, rows, world.team_of, world.shown)
    now = [r for r in rows if not asked.start or r.day >= asked.start]
    codes: set[str] = set()
    for name, values in (("client", asked.clients), ("language", asked.languages)):
        if rows and not reference.spellings(values) <= reference.spellings(getattr(r, name) or "(blank)" for r in rows):
            codes.add("invalid_argument")
    if rows and not reference.spellings(asked.users) <= set().union(*known.every.values()):
        codes.add("invalid_argument")
    if asked.languages or "language" in asked.group_by:
        for column in {name for m in asked.metrics for name in _HEADERS.get(m, ())}:
            whatever = replace(asked, languages=())
            asked_about = [r for r in now if reference.picked(whatever, r, known)]
            counted = [r for r in asked_about if r.counts[COUNTS.index(reference.SUMS[column])]]
            if counted and not any(r.language for r in counted):
                codes.add("unsupported")
    return codes


class Disagreement(AssertionError):
    """An answer that is not the reference's."""


def judge(world: World, arguments: dict[str, Any], asked: Asked, result: Any) -> bool:
    """Compare an answer with the reference; whether figures were given.

    Raises:
        Disagreement: with the arguments and both sides.
    """
    must, may = refusal(world, asked), set() if refusal(world, asked) else perhaps_refused(world, asked)
    if result.is_error:
        code = result.structured_content["error"]["code"]
        if code not in must | may:
            raise Disagreement(f"refused with {text(result)}: {arguments}")
        return False
    if must:
        raise Disagreement(f"not refused with {must}: {arguments}")
    wanted = reference.expected(asked, world.company.activities, world.team_of, world.shown)
    answer = result.structured_content
    _same_row(wanted.totals, _totals(answer, asked), arguments, "totals")
    _same_silence(arguments, wanted, answer["notes"])
    if asked.group_by:
        _same_groups(asked, arguments, wanted, answer)
    return True


def _same_silence(arguments: dict[str, Any], wanted: reference.Expected, notes: Sequence[str]) -> None:
    """It is said how many time buckets of those with data have no row, and only where there are any."""
    said = [
        re.search(r"is there: ([\d,]+) .*, of ([\d,]+) with data\.", n) for n in notes if n.startswith("Without a row")
    ]
    counts = [tuple(int(count.replace(",", "")) for count in found.groups()) for found in said if found]
    if len(said) != len(counts) or counts != ([(wanted.silent, wanted.recorded)] if wanted.silent else []):
        raise Disagreement(f"{notes} instead of {wanted.silent} buckets of {wanted.recorded}: {arguments}")


def _totals(answer: dict[str, Any], asked: Asked) -> list[Any]:
    """The totals, without the comparison that time buckets have and totals have not."""
    totals: list[Any] = answer["totals"]
    return totals[::4] if asked.compare and any(d in reference.TIME for d in asked.group_by) else totals


def _same_groups(asked: Asked, arguments: dict[str, Any], wanted: reference.Expected, answer: dict[str, Any]) -> None:
    width = len(asked.group_by) + ("user" in asked.group_by)
    named = {_name(asked.group_by, key): figures for key, figures in wanted.groups.items()}
    shown = {tuple(row[:width]): row[width:] for row in answer["rows"]}
    if _perhaps_coarse(asked):
        named, shown = _unlabelled(asked, named), _unlabelled(asked, shown)
    if answer["row_count"] != len(named) or len(answer["rows"]) != min(arguments["limit"], len(named)):
        raise Disagreement(f"{answer['row_count']} groups instead of {len(named)}: {arguments}")
    for key, figures in shown.items():
        if key not in named:
            raise Disagreement(f"there is no group {key}: {arguments}")
        _same_row(named[key], figures, arguments, str(key))
    _right_page(asked, arguments, named, list(shown))


def _perhaps_coarse(asked: Asked) -> bool:
    """Whether figures without days may be asked for, in which this upstream names people in no order."""
    first = reference.since(asked)
    return first is None or (asked.end - first).days >= 100


def _unlabelled(asked: Asked, groups: dict[tuple[Any, ...], Any]) -> dict[tuple[Any, ...], Any]:
    """The groups of people by their user ids alone."""
    place = _places(asked).get("user")
    return groups if place is None else {(*key[:place], "", *key[place + 1 :]): group for key, group in groups.items()}


def _right_page(asked: Asked, arguments: dict[str, Any], named: dict[Any, list[Any]], shown: Sequence[Any]) -> None:
    """The rows shown are the ones that the order puts first."""
    by_time = [d for d in asked.group_by if d in reference.TIME]
    order = arguments.get("order_by")
    if order == "user" and _perhaps_coarse(asked):
        return
    if order is None and by_time:
        values, found = _page_by_time(asked, arguments, named), [(*_times(asked, k), named[k][0]) for k in shown]
        values, found = ([cell for row in rows for cell in row] for rows in (values, found))
    else:
        pick = _picker(asked, order or asked.metrics[0])
        every = [pick(key, figures) for key, figures in named.items()]
        down = arguments.get("descending", True)
        there, blank = sorted((v for v in every if v is not None), reverse=down), [None for v in every if v is None]
        did = (order or asked.metrics[0]).removeprefix("previous_") in (*reference.SUMS, "hours_saved")
        values = ([*blank, *there] if did and not down else [*there, *blank])[: arguments["limit"]]
        found = [pick(key, named[key]) for key in shown]
    if not all(same(a, b) for a, b in zip(values, found, strict=True)):
        raise Disagreement(f"order {found} instead of {values}: {arguments}")


def _page_by_time(asked: Asked, arguments: dict[str, Any], named: dict[Any, list[Any]]) -> list[tuple[Any, ...]]:
    """The time buckets and the first figure of each row: the latest buckets, in each the largest figure first."""
    rows = [(*_times(asked, key), figures[0]) for key, figures in named.items()]
    down = arguments.get("descending", True)
    rows.sort(key=lambda row: (row[-1] is not None, row[-1] or 0) if not isinstance(row[-1], date) else (True, row[-1]))
    rows.reverse()
    rows.sort(key=lambda row: row[:-1], reverse=down)
    page = rows[: arguments["limit"]]
    return page if "descending" in arguments else sorted(page, key=lambda row: row[:-1])


def _times(asked: Asked, key: Any) -> tuple[Any, ...]:
    return tuple(key[place] for name, place in _places(asked).items() if name in reference.TIME)


def _places(asked: Asked) -> dict[str, int]:
    places: dict[str, int] = {}
    for dimension in asked.group_by:
        places[dimension] = len(places) + ("user" in places)
    return places


def _picker(asked: Asked, order: str) -> Callable[[Any, list[Any]], Any]:
    if order in asked.group_by:
        place = _places(asked)[order]
        return lambda key, figures: key[place]
    names = [
        f"{p}{m}"
        for m in asked.metrics
        for p in (("", "previous_", "change_", "relative_change_") if asked.compare else ("",))
    ]
    return lambda key, figures: figures[names.index(order)]


def _name(group_by: Sequence[str], key: Sequence[Any]) -> tuple[Any, ...]:
    cells: list[Any] = []
    for dimension, value in zip(group_by, key, strict=True):
        if dimension == "user":
            cells += value
        else:
            cells.append(reference.name_of(dimension, value) if dimension in reference.TIME else value)
    return tuple(cells)


def _same_row(wanted: Sequence[Any], found: Sequence[Any], arguments: dict[str, Any], what: str) -> None:
    if len(wanted) != len(found) or not all(same(a, b) for a, b in zip(wanted, found, strict=True)):
        raise Disagreement(f"{what}: {list(found)} instead of {list(wanted)}: {arguments}")


def same(wanted: Any, found: Any) -> bool:
    """Counts and names exactly; fractions to nine digits."""
    wanted, found = (value.isoformat() if isinstance(value, date) else value for value in (wanted, found))
    if isinstance(wanted, int | float) and isinstance(found, int | float) and float in (type(wanted), type(found)):
        return isclose(wanted, found, rel_tol=1e-9, abs_tol=1e-12)
    return type(wanted) is type(found) and bool(wanted == found)


@asynccontextmanager
async def served(
    world: World, make_settings: Callable[..., Settings], folder: Path
) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client of a server whose upstream is this world; with the requests that upstream got."""
    requests: list[str] = []

    async def answer(exchange: Exchange) -> None:
        url = urlsplit(exchange.target)
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        requests.append(exchange.target)
        start, end = (date.fromisoformat(asked[k]) if k in asked else None for k in ("startDate", "endDate"))
        await exchange.answer(world.report(asked["granularity"], start, end))

    teams = folder / "teams.csv"
    teams.write_text(world.teams_csv(), encoding="utf-8")
    async with scripted_upstream(answer) as upstream:
        settings = make_settings(upstream.url, teams_file=teams, data_dir=folder / "data")
        async with connected(settings) as client:
            yield client, requests
