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
    r"((e[\W_]?mail|mail|address|user|name|login|id|instance|person|people|member|account|seat|licen[cs]ed?)"
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
    rows = _rows(path, "TEAMS_FILE")
    if rows and (_HEADER.fullmatch(rows[0][1][0]) or rows[0][1][1:] in (["Team"], ["team"])):
        del rows[0]
    for line, row in rows:
        if len(row) != 2 or not row[1]:
            raise _wrong("TEAMS_FILE", line, "it needs a person and a team")
        person, team = row
        if listed.setdefault(_spelled(person), team) != team:
            raise _wrong("TEAMS_FILE", line, "this person is in another team already")
        teams.of[person] = team
    return teams


def read_seats(path: Path) -> tuple[str, ...]:
    """Read `SRC_ANALYTICS_SEATS_FILE`: the first column holds licensed e-mails or usernames, with or without a header.

    Raises:
        SettingsError: with the line that is wrong.
    """
    found: dict[str, str] = {}
    seats = [(line, row[0]) for line, row in _rows(path, "SEATS_FILE")]
    if seats and _HEADER.fullmatch(seats[0][1]):
        del seats[0]
    elif len(seats) > 1 and _unlike(*(seat for _, seat in seats)):  # as a seat it would be one that nobody uses
        what = "it may be a header or a person; call the column email, username or user id, or put the person elsewhere"
        raise _wrong("SEATS_FILE", seats[0][0], what)
    for line, seat in seats:
        if _spelled(seat) in found:
            raise _wrong("SEATS_FILE", line, "this seat is listed twice")
        found[_spelled(seat)] = seat
    return tuple(found.values())


def _unlike(first: str, *others: str) -> bool:
    """Whether a first cell may be a header: the only one without an @, or without digits, or with a blank."""
    if "@" in first or first.isdecimal():
        return False
    blank = " " in first and not any(" " in other for other in others)
    return blank or all("@" in other for other in others) or all(other.isdecimal() for other in others)


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
