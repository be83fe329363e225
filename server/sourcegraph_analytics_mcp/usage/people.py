"""The operator's two files about people: who is in which team, and who holds a seat."""

import csv
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..settings import SettingsError

NO_TEAM = "(no team)"
BLANK = "(blank)"  # what is shown, and taken as a filter, for rows without a language, client or user
_HEADERS = {"email", "e-mail", "user email", "username", "user", "user id", "instance user id", "person", "seat"}


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


def read_teams(path: Path) -> Teams:
    """Read `SRC_ANALYTICS_TEAMS_FILE`: two columns, a person and a team; a header line is optional.

    Raises:
        SettingsError: with the line that is wrong.
    """
    teams, listed = Teams({}), dict[str, str]()
    for line, row in _rows(path, "TEAMS_FILE"):
        if len(row) != 2 or not row[1].strip():
            raise _wrong("TEAMS_FILE", line, "it needs a person and a team")
        person, team = row[0].strip(), row[1].strip()
        if listed.setdefault(_spelled(person), team) != team:
            raise _wrong("TEAMS_FILE", line, "this person is in another team already")
        teams.of[person] = team
    return teams


def read_seats(path: Path) -> tuple[str, ...]:
    """Read `SRC_ANALYTICS_SEATS_FILE`: one licensed e-mail or username per line (first column); a header is optional.

    Raises:
        SettingsError: with the line that is wrong.
    """
    found: dict[str, str] = {}
    for line, row in _rows(path, "SEATS_FILE"):
        seat = row[0].strip()
        if _spelled(seat) in found:
            raise _wrong("SEATS_FILE", line, "this seat is listed twice")
        found[_spelled(seat)] = seat
    return tuple(found.values())


def _rows(path: Path, setting: str) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for number, row in enumerate(reader):
                if not any(cell.strip() for cell in row):
                    continue
                if number == 0 and row[0].strip().lower() in _HEADERS:
                    continue
                if not row[0].strip():
                    raise _wrong(setting, reader.line_num, "its first cell is blank")
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"SRC_ANALYTICS_{setting} cannot be read: {path}.") from None
    except csv.Error:
        raise _wrong(setting, reader.line_num, "its quotes do not match") from None


def _spelled(name: str) -> str:
    """One key for all spellings that may be compared as one; the engine, which does that, is not started yet."""
    return unicodedata.normalize("NFC", name).casefold()


def _wrong(setting: str, line: int, reason: str) -> SettingsError:
    return SettingsError(f"SRC_ANALYTICS_{setting}, line {line}: {reason}.")
