"""A made-up company: who works there, and what each did on which day, the same for the same seed and day.

It is skewed like the real thing: weekends and holidays, adoption that grows, a few power users, people who stopped or
joined late, seats nobody ever used, cells that are blank because nothing was recorded.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, overload

COUNTS = (
    "searches", "code_navigation", "insight_views", "chats", "commands", "suggestions", "acceptances",
    "accepted_characters", "cody_characters", "characters", "autoedits_suggested", "autoedits_accepted",
    "chat_lines", "completion_lines",
)  # fmt: skip
Counts = tuple[int | None, ...]

_TEAMS = {
    "Platform": ("Go", "Python", "YAML"),
    "Payments": ("Java", "Kotlin", "SQL"),
    "Storefront": ("TypeScript", "CSS", "HTML"),
    "Mobile": ("Swift", "Kotlin", "TypeScript"),
    "Data": ("Python", "SQL", "Markdown"),
    "Search": ("Rust", "Go", "Python"),
    "Security": ("Go", "Python", "C++"),
    "Developer Experience": ("TypeScript", "Go", "Markdown"),
}
_EDITORS = ("VSCode.cody", "VSCode.cody", "VSCode.cody", "JetBrains.cody", "JetBrains.cody", "VisualStudio.cody",
            "Neovim.cody")  # fmt: skip
_GIVEN = ("Ada", "Bela", "Ciro", "Dana", "Edda", "Finn", "Gala", "Hugo", "Ines", "Jona", "Kaja", "Leif", "Mira", "Nilo",
          "Olga", "Pavo", "Runa", "Sami", "Tove", "Udo", "Vera", "Wanda", "Ximo", "Ylva", "Zeno")  # fmt: skip
_FAMILY = (
    "Arnvik", "Bexley", "Cordana", "D'Arvo", "Eskel", "Fønhus", "Garrow", "Hallén", "Ivarra", "Joukova",
    "Kestel", "Lindqvar", "Möhren", "Nakaro", "Orsen", "Pellard", "Quistad", "Rovelli", "Sandrel", "Tamura",
)  # fmt: skip
_PLAIN = str.maketrans("øéö", "oeo", "'")
_HOLIDAYS = {(1, 1), (5, 1), (7, 4), (12, 24), (12, 25), (12, 26), (12, 31)}
_NEW_WEB_CLIENT = range(170, 231)  # days ago: the web client changed its name, little by little
_AUTO_EDIT = 150  # days ago: auto-edit arrived


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account."""

    id: str
    email: str
    username: str
    team: str | None
    service_account: bool = False
    site_admin: bool = False


@dataclass(frozen=True, slots=True)
class Activity:
    """One row of the finest grain; `shown` is how many characters completions presented, which is never exported."""

    person: Person
    day: date
    client: str
    language: str
    active: bool
    counts: Counts
    shown: int = 0
    shown_accepted: int = 0


@dataclass(frozen=True, slots=True)
class _Habits:
    """How one account works: days ago it joined, stopped and took up Cody, and how much it does."""

    joined: int
    stopped: int = 0
    cody_since: int = 0
    presence: float = 0.98
    at_rest: float = 0.98
    energy: float = 1.5
    taste: float = 0.0
    editors: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


class _Later(Sequence[Activity]):
    """Rows that are made when somebody first looks at them: it takes most of a second, and tokens need none."""

    def __init__(self, make: Callable[[], Sequence[Activity]]) -> None:
        self._make = make

    @cached_property
    def _rows(self) -> Sequence[Activity]:
        return self._make()

    @overload
    def __getitem__(self, index: int) -> Activity: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Activity]: ...
    def __getitem__(self, index: int | slice) -> Activity | Sequence[Activity]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Activity]:
        return iter(self._rows)


@dataclass(frozen=True, slots=True)
class Company:
    """People, what they did (by day, then person), and seats that were paid for and never used."""

    today: date
    people: tuple[Person, ...]
    activities: Sequence[Activity]
    unused_seats: tuple[str, ...]

    @classmethod
    @lru_cache(maxsize=1)
    def made_up(cls, today: date, *, seed: int = 20, people: int = 200, days: int = 400) -> "Company":
        """Make a company whose last day is `today`; the one that was asked for last is remembered."""
        rng = random.Random(seed)
        staff = tuple(_person(number, rng) for number in range(people))

        def rows() -> Sequence[Activity]:
            each = (_history(person, today, days, random.Random(f"{seed}/{person.id}")) for person in staff)
            return sorted(chain.from_iterable(each), key=lambda row: (row.day, row.person.id, row.client, row.language))

        unused = tuple(_email(rng.choice(_GIVEN), rng.choice(_FAMILY), people + n) for n in range(max(1, people // 16)))
        return cls(today, staff, _Later(rows), unused)

    def report(self, granularity: str, start: date | None = None, end: date | None = None) -> Iterator[str]:
        """A usage report as CSV text in pieces, added up when the first piece is asked for; inclusive bounds."""
        from .reports import report  # reports know the company, so the company meets them late

        yield from report(self, granularity, start, end)

    def user_registry(self) -> str:
        """Who is a service account, and who an administrator, as CSV."""
        from .reports import registry

        return registry(self)

    def credits(self, start: date | None = None, end: date | None = None) -> dict[str, Any]:
        """Credit buckets, newest first: a quarter each, kept when its active period touches the days asked for."""
        from .reports import credits_of

        buckets = credits_of(self)
        first, last = (start or date.min).isoformat(), (end or date.max).isoformat()
        return {"buckets": [b for b in buckets if b["activeUntil"] >= first and b["activeFrom"] <= last]}

    def teams_csv(self) -> str:
        """`email,team` of everybody who is in a team."""
        return "email,team\n" + "".join(f"{p.email},{p.team}\n" for p in self.people if p.team)

    def seats_csv(self) -> str:
        """`email` of every licensed seat, the never used ones included."""
        holders = [p.email for p in self.people if not p.service_account]
        return "email\n" + "".join(f"{email}\n" for email in (*holders, *self.unused_seats))


def _email(given: str, family: str, number: int) -> str:
    return f"{given}.{family}{number}@example.com".lower().translate(_PLAIN)


def _person(number: int, rng: random.Random) -> Person:
    given, family, team = rng.choice(_GIVEN), rng.choice(_FAMILY), rng.choice(tuple(_TEAMS))
    identity = str(1000 + number * 7)
    if number % 67 == 30:
        return Person(identity, f"bot{number}@example.com", f"build-bot-{number}", None, service_account=True)
    return Person(
        id=identity,
        email=_email(given, family, number),
        username=f"{given} {family}, {number}" if number % 41 == 7 else f"{given}{family}{number}",
        team=None if number % 20 == 4 else team,
        site_admin=number % 50 == 1,
    )


def _habits(person: Person, days: int, rng: random.Random) -> _Habits:
    if person.service_account:
        return _Habits(joined=days)
    joined = days if rng.random() < 0.75 else rng.randrange(min(20, days - 1), days)
    leaves = rng.random() < 0.17 and joined > 40
    return _Habits(
        joined=joined,
        stopped=rng.randrange(20, min(301, joined - 9)) if leaves else 0,
        cody_since=min(joined, int(days * rng.random() ** 0.8)) if rng.random() < 0.85 else 0,
        presence=rng.uniform(0.5, 0.98),
        at_rest=0.04,
        energy=min(rng.lognormvariate(0, 0.7), 8),
        taste=rng.uniform(0.18, 0.42),
        editors=tuple(dict.fromkeys(rng.choices(_EDITORS, k=2))),
        languages=(*_TEAMS.get(person.team or "", ("Go", "TypeScript", "Shell")), "Markdown", "YAML"),
    )


def _history(person: Person, today: date, days: int, rng: random.Random) -> Iterator[Activity]:
    habits = _habits(person, days, rng)
    for ago in range(min(habits.joined, days - 1), habits.stopped - 1, -1):
        day = today - timedelta(days=ago)
        at_rest = day.weekday() >= 5 or (day.month, day.day) in _HOLIDAYS
        if rng.random() < (habits.at_rest if at_rest else habits.presence):
            yield from _one_day(person, habits, day, ago, rng)


def _one_day(person: Person, habits: _Habits, day: date, ago: int, rng: random.Random) -> Iterator[Activity]:
    much = habits.energy * (0.4 if ago == 0 else 1.0)  # today is not over
    web = "server.svelte-web" if ago < rng.choice(_NEW_WEB_CLIENT) else "server.web"
    if person.service_account or rng.random() < 0.75:
        yield Activity(person, day, web, "", rng.random() > 0.04, _web(much, rng))
    elif rng.random() < 0.2:
        yield Activity(person, day, web, "", True, (None,) * len(COUNTS))  # billable, with nothing that has a column
    if habits.cody_since <= ago or rng.random() < 0.1:
        return
    for editor in habits.editors[: 1 + (rng.random() < 0.35)]:
        if any(chatted := _chatting(much, rng)):
            yield Activity(person, day, editor, "", True, chatted)
        for language in dict.fromkeys(rng.choices(habits.languages, (9, 6, 4, 2, 1), k=rng.choice((2, 3, 4, 5)))):
            counts, shown, taken = _coding(habits.taste, much, ago < _AUTO_EDIT, rng)
            yield Activity(person, day, editor, language, True, counts, shown, taken)


def _some(mean: float, chance: float, rng: random.Random) -> int | None:
    """A count that is often not recorded at all."""
    return 1 + int(rng.expovariate(1 / mean)) if rng.random() < chance else None


def _web(much: float, rng: random.Random) -> Counts:
    searched = (_some(6 * much, 0.9, rng), _some(9 * much, 0.7, rng), _some(2, 0.03, rng))
    return searched + (None,) * (len(COUNTS) - 3)


def _chatting(much: float, rng: random.Random) -> Counts:
    chats, commands = _some(3 * much, 0.7, rng), _some(1.5 * much, 0.3, rng)
    lines = int(((chats or 0) + (commands or 0)) * rng.uniform(0, 6)) or None
    return (None, _some(3 * much, 0.2, rng), None, chats, commands, *((None,) * 7), lines, None)


def _coding(taste: float, much: float, autoedit: bool, rng: random.Random) -> tuple[Counts, int, int]:
    """Counts of one editor and language, then the characters that completions presented and that were accepted."""
    suggested = 1 + int(rng.expovariate(1 / (25 * much)))
    accepted = min(suggested, max(0, round(suggested * rng.gauss(taste, 0.1))))
    by_cody = accepted * rng.randrange(20, 60)
    shown = by_cody + (suggested - accepted) * rng.randrange(20, 70)
    written = by_cody + int(rng.expovariate(1 / (900 * much)))
    edits = _some(5 * much, 0.45, rng) if autoedit else None
    taken = int(edits * taste) if edits else None
    lines = (accepted + (taken or 0)) * rng.randrange(1, 4) or None
    counts = (None, None, None, None, None, suggested, accepted or None, by_cody or None, by_cody or None,
              written or None, edits, taken, None, lines)  # fmt: skip
    return counts, shown, by_cody
