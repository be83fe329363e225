"""The operator's two files about people: who is in which team, and who holds a seat."""

import csv
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ..settings import Settings, SettingsError

NO_TEAM = "(no team)"
BLANK = "(blank)"  # what is shown, and taken as a filter, for rows without a language, client or user
_HEADER = re.compile(  # words that a column of people is called by, in whatever way they are joined
    r"((e[\W_]?mail|mail|address|user|name|login|id|instance|person|people|member|account|seat|licen[cs]ed?|full|display|work)"
    r"(e?s)?[\W_]*)+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Teams:
    """Which team each person is in.

    Args:
        of: by e-mail, username or user id as the operator spells them; the pseudonym of a user id depends on its case.
    """

    of: dict[str, str]

    @property
    def names(self) -> list[str]:
        return sorted(set(self.of.values()))


@dataclass(frozen=True, slots=True)
class People:
    """What both files say, None where there is none; read once, so that all callers are answered by the same."""

    teams: Teams | None = None
    seats: tuple[str, ...] | None = None


def read_people(settings: Settings) -> People:
    """Read both files, where they are set.

    Raises:
        SettingsError: naming the setting, and the line that is wrong.
    """
    return People(
        None if settings.teams_file is None else read_teams(settings.teams_file),
        None if settings.seats_file is None else read_seats(settings.seats_file),
    )


def read_teams(path: Path) -> Teams:
    """Read `SRC_ANALYTICS_TEAMS_FILE`: two columns, a person and a team, with or without a header.

    Raises:
        SettingsError: with the line that is wrong.
    """
    teams, listed = Teams({}), dict[str, str]()
    for line, person, others in _listed(path, "TEAMS_FILE"):
        if len(others) != 1 or not others[0]:
            raise _wrong("TEAMS_FILE", line, "it needs a person and a team")
        if listed.setdefault(_spelled(person), others[0]) != others[0]:
            raise _wrong("TEAMS_FILE", line, "this person is in another team already")
        teams.of[person] = others[0]
    return teams


def read_seats(path: Path) -> tuple[str, ...]:
    """Read `SRC_ANALYTICS_SEATS_FILE`: licensed e-mails or usernames in the first column, or in that of the header.

    Raises:
        SettingsError: with the line that is wrong.
    """
    found: dict[str, str] = {}
    for line, seat, _ in _listed(path, "SEATS_FILE"):
        if _spelled(seat) in found:
            raise _wrong("SEATS_FILE", line, "this seat is listed twice")
        found[_spelled(seat)] = seat
    return tuple(found.values())


def _listed(path: Path, setting: str) -> list[tuple[int, str, list[str]]]:
    """Of each row below the header its line, the person, and what else stands there.

    Raises:
        SettingsError: where the first line may be a header or a person, or one has no person.
    """
    rows = _rows(path, setting)
    if not rows:
        return []
    (first_line, first), *below = rows
    column = _column(first)
    if column is None and _may_be_header(first, [row for _, row in below], setting):
        what = "it may be a header or a person; call the column email, username or user id, or put the person elsewhere"
        raise _wrong(setting, first_line, what)
    at = column or 0
    people = []
    for line, row in rows if column is None else below:
        person = row[at] if at < len(row) else ""
        if not person or (at and _says(first[at]) == "mail" and "@" not in person):
            raise _wrong(setting, line, "it has no e-mail or username in the column that the first line calls so")
        people.append((line, person, row[:at] + row[at + 1 :]))
    return people


def _column(first: list[str]) -> int | None:
    """Which column holds the people by a first row that is a header; None where it is none."""
    if any("@" in cell for cell in first):
        return None
    says = [_says(cell) for cell in first]
    known = _HEADER.fullmatch(first[0]) is not None
    if not known and "mail" not in says:
        return None
    return 0 if says[0] else next((says.index(word) for word in ("mail", "username", "login") if word in says), 0)


def _says(header: str) -> str:
    """What a header says that its column knows people by; nothing where it does not."""
    letters = re.sub(r"[\W_]", "", header).casefold()
    known = _HEADER.fullmatch(header) is not None
    return next((word for word in ("mail", "username", "login", "id") if known and word in letters), "")


def _calls_teams(first: list[str], below: list[list[str]]) -> bool:
    """Whether a first row that names nobody for sure may call the teams so: it alone says Team."""
    return [cell.casefold() for cell in first[1:]] == ["team"] and all(row[1:] != first[1:] for row in below)


def _unlike(first: str, *others: str) -> bool:
    """Whether a first cell may be a header: the only one without an @, or without digits, or with a blank."""
    blank = " " in first and not any(" " in other for other in others)
    alone = all("@" in other for other in others) or all(other.isdecimal() for other in others)
    return bool(others) and (blank or alone)


def _may_be_header(first: list[str], below: list[list[str]], setting: str) -> bool:
    """Whether a first row is no header for sure, and no person either.

    Beside a team, a person may be called in any way, and one that nobody is makes no figure wrong; a seat would.
    """
    if "@" in first[0] or first[0].isdecimal():
        return False
    seats = setting == "SEATS_FILE"
    return _calls_teams(first, below) or (seats and _unlike(first[0], *(row[0] for row in below)))


def _rows(path: Path, setting: str) -> list[tuple[int, list[str]]]:
    """The rows of a file that are not blank, each with its line, without blanks around their cells."""
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                if not cells[0]:
                    raise _wrong(setting, reader.line_num, "its first cell is blank")
                rows.append((reader.line_num, cells))
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"SRC_ANALYTICS_{setting} cannot be read: {path}.") from None
    except csv.Error:
        raise _wrong(setting, reader.line_num, "its quotes do not match") from None
    return rows


def _spelled(name: str) -> str:
    """One key for all spellings that may be compared as one; the engine, which does that, is not started yet."""
    return unicodedata.normalize("NFC", name).casefold()


def _wrong(setting: str, line: int, reason: str) -> SettingsError:
    return SettingsError(f"SRC_ANALYTICS_{setting}, line {line}: {reason}.")
