"""A made-up company: who works there, and what each did on which day, the same for the same seed and day.

It is skewed like the real thing: weekends and holidays, adoption that grows, a few power users, people who stopped or
joined late, seats nobody ever used, cells that are blank because nothing was recorded.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

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
           "Kestel", "Lindqvar", "Möhren", "Nakaro", "Orsen", "Pellard", "Quistad",
    "Rovelli", "Sandrel", "Tamura",
)  # fmt: skip
_HOLIDAYS = {(1, 1), (5, 1), (7, 4), (12, 24), (12, 25), (12, 26), (12, 31)}
_NEW_WEB_CLIENT = 200  # days ago: the web client changed its name
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
    """How one person works: days ago they joined, stopped and took up Cody, and how much they do."""

    joined: int
    stopped: int
    cody_since: int
    presence: float
    energy: float
    taste: float
    editor: str
    languages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Company:
    """People, what they did (by day, then person), and seats that were paid for and never used."""

    today: date
    people: tuple[Person, ...]
    activities: tuple[Activity, ...]
    unused_seats: tuple[str, ...]

    @classmethod
    def made_up(cls, today: date, *, seed: int = 20, people: int = 200, days: int = 400) -> "Company":
        """Make a company whose last day is `today`."""
        rng = random.Random(seed)
        staff = tuple(_person(number, rng) for number in range(people))
        rows = [row for person in staff for row in _history(person, today, days, random.Random(f"{seed}/{person.id}"))]
        rows.sort(key=lambda row: (row.day, row.person.id, row.client, row.language))
        unused = tuple(f"seat{number:02}@example.com" for number in range(1, max(2, people // 16)))
        return cls(today, staff, tuple(rows), unused)

    def teams_csv(self) -> str:
        """`email,team` of everybody who is in a team."""
        return "email,team\n" + "".join(f"{p.email},{p.team}\n" for p in self.people if p.team)

    def seats_csv(self) -> str:
        """`email` of every licensed seat, the never used ones included."""
        holders = [p.email for p in self.people if not p.service_account]
        return "email\n" + "".join(f"{email}\n" for email in (*holders, *self.unused_seats))


def _person(number: int, rng: random.Random) -> Person:
    given, family = rng.choice(_GIVEN), rng.choice(_FAMILY)
    handle = f"{given}.{family}".lower().replace("'", "").replace("ø", "o").replace("é", "e").replace("ö", "o")
    username = f"{given} {family}, {number}" if number % 41 == 7 else f"{given}{family}{number}"
    team = None if number % 19 == 4 else rng.choice(tuple(_TEAMS))
    return Person(
        id=str(1000 + number * 7),
        email=f"{handle}{number}@example.com",
        username=username,
        team=team,
        service_account=number % 67 == 30,
        site_admin=number % 50 == 1,
    )


def _habits(person: Person, days: int, rng: random.Random) -> _Habits:
    joined = days if rng.random() < 0.75 else rng.randrange(20, days)
    stopped = rng.randrange(20, 300) if rng.random() < 0.15 and joined > 320 else 0
    cody_since = min(joined, int(days * rng.random() ** 0.8)) if rng.random() < 0.85 else 0
    languages = _TEAMS.get(person.team or "", ("Go", "TypeScript", "Shell"))
    return _Habits(
        joined=joined,
        stopped=stopped,
        cody_since=cody_since,
        presence=rng.uniform(0.35, 0.9),
        energy=min(rng.lognormvariate(0, 0.6), 6),
        taste=rng.uniform(0.18, 0.42),
        editor=rng.choice(_EDITORS),
        languages=languages,
    )


def _history(person: Person, today: date, days: int, rng: random.Random) -> Iterator[Activity]:
    habits = _habits(person, days, rng)
    for ago in range(min(habits.joined, days - 1), habits.stopped - 1, -1):
        day = today - timedelta(days=ago)
        quiet = day.weekday() >= 5 or (day.month, day.day) in _HOLIDAYS
        if rng.random() > habits.presence * (0.06 if quiet else 1.0):
            continue
        yield from _one_day(person, habits, day, ago, rng)


def _one_day(person: Person, habits: _Habits, day: date, ago: int, rng: random.Random) -> Iterator[Activity]:
    web = "server.svelte-web" if ago < _NEW_WEB_CLIENT else "server.web"
    much = habits.energy * (0.4 if ago == 0 else 1.0)  # today is not over
    if rng.random() < 0.02:
        yield Activity(person, day, web, "", True, (None,) * len(COUNTS))  # billable, with nothing that has a column
    if person.service_account or rng.random() < 0.7:
        yield Activity(person, day, web, "", rng.random() > 0.04, _web(much, rng))
    if habits.cody_since > ago and rng.random() < 0.85:
        yield Activity(person, day, habits.editor, "", True, _chatting(much, rng))
        for language in habits.languages[: 1 + (rng.random() < 0.45) + (rng.random() < 0.1)]:
            yield _coding(person, habits, day, language, much, ago < _AUTO_EDIT, rng)


def _some(mean: float, chance: float, rng: random.Random) -> int | None:
    """A count that is often not recorded at all."""
    return 1 + int(rng.expovariate(1 / mean)) if rng.random() < chance else None


def _web(much: float, rng: random.Random) -> Counts:
    searched = (_some(6 * much, 0.9, rng), _some(9 * much, 0.7, rng), _some(2, 0.03, rng))
    return searched + (None,) * (len(COUNTS) - 3)


def _chatting(much: float, rng: random.Random) -> Counts:
    chats, commands = _some(4 * much, 0.7, rng), _some(2 * much, 0.3, rng)
    lines = int(((chats or 0) + (commands or 0)) * rng.uniform(0, 6)) or None
    return (None, _some(3 * much, 0.2, rng), None, chats, commands, *((None,) * 7), lines, None)


def _coding(
    person: Person, habits: _Habits, day: date, language: str, much: float, autoedit: bool, rng: random.Random
) -> Activity:
    suggested = 1 + int(rng.expovariate(1 / (40 * much)))
    accepted = sum(rng.random() < habits.taste for _ in range(min(suggested, 40))) * max(1, suggested // 40)
    accepted = min(accepted, suggested)
    length = rng.randrange(20, 60)
    written_by_cody = accepted * length
    written = written_by_cody + int(rng.expovariate(1 / (1500 * much)))
    edits = _some(8 * much, 0.6, rng) if autoedit else None
    taken = int(edits * habits.taste) if edits else None
    lines = (accepted + (taken or 0)) * rng.randrange(1, 4) or None
    counts = (None, None, None, None, None, suggested, accepted or None, written_by_cody or None,
              written_by_cody or None, written or None, edits, taken, None, lines)  # fmt: skip
    return Activity(person, day, habits.editor, language, True, counts, suggested * length, accepted * length)
