"""The operator's two files about people: who is in which team, and who holds a seat."""

import csv
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ..settings import Settings, SettingsError
from .headers import UnclearError, column_of_people, says_mail

NO_TEAM = "(no team)"
BLANK = "(blank)"  # what is shown, and taken as a filter, for rows without a language, client or user


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
        SettingsError: where the first line is not clear, or one has no person.
    """
    rows = _rows(path, setting)
    if not rows:
        return []
    (first_line, first), *below = rows
    try:
        column = column_of_people(first, [row for _, row in below], teams=setting == "TEAMS_FILE")
    except UnclearError as unclear:
        raise _wrong(setting, first_line, str(unclear)) from None
    at = column or 0
    people = []
    for line, row in rows if column is None else below:
        person = row[at] if at < len(row) else ""
        if not person or (at and says_mail(first[at]) and "@" not in person):
            raise _wrong(setting, line, "it has no e-mail or username in the column that the first line calls so")
        people.append((line, person, row[:at] + row[at + 1 :]))
    return people


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
