"""The operator's two files about people: who is in which team, and who holds a seat."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..settings import Settings, SettingsError
from .headers import Columns, columns_of, has_mail
from .listed import APART, NO_COMMAS, ListError, Row, read_rows

NO_TEAM = "(no team)"
_QUOTES = "put quotes around a cell that has a comma, or call every column in a first line"
_HEADER_OR_PERSON = "it may be the header again, or somebody: leave it out, or call the column by another name"
_MAIL = re.compile(r"""(?![='])[^\s@:;|<>"`]+@[^\s!-,/:-@[-^`{-~]+(?<!\.)""")
_FOREIGN = re.compile(r"""[<>":]|^['`=#]""")  # signs that no username has, some of them where they stand
BLANK = "(blank)"  # what is shown, and taken as a filter, for rows without a language, client or user


@dataclass(frozen=True, slots=True)
class Teams:
    """Which team each person is in.

    Args:
        of: by e-mail, username or user id as the operator spells them; the pseudonym of a user id depends on its case.
        ids: those of them that the file calls user ids.
    """

    of: dict[str, str]
    ids: set[str] = field(default_factory=set)

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
    """Read `SRC_ANALYTICS_TEAMS_FILE`: a person and a team in each line, with or without a header.

    Raises:
        SettingsError: with the line that is wrong.
    """
    teams, listed = Teams({}), dict[str, str]()
    with _naming("TEAMS_FILE"):
        rows = read_rows(path)
        if not rows:
            return teams
        columns = columns_of(rows)
        group = columns.group()
        for row, column, person in _people(rows, columns):
            team = row.cell(group)
            if len(row.cells) > columns.width:
                raise ListError(f"it has {len(row.cells)} cells for {columns.width} columns; {_QUOTES}", row.line)
            if not team:
                raise ListError("it has a person, but no team", row.line)
            if listed.setdefault(_spelled(person), team) != team:
                raise ListError("this person is in another team already", row.line)
            teams.of[person] = team
            if columns.kinds[column : column + 1] == ("id",):
                teams.ids.add(person)
    return teams


def read_seats(path: Path) -> tuple[str, ...]:
    """Read `SRC_ANALYTICS_SEATS_FILE`: a licensed e-mail, username or user id in each line, with or without a header.

    Raises:
        SettingsError: with the line that is wrong.
    """
    found: dict[str, str] = {}
    with _naming("SEATS_FILE"):
        rows = read_rows(path)
        for row, _, seat in _people(rows, columns_of(rows)) if rows else ():
            if _spelled(seat) in found:
                raise ListError("this seat is listed twice", row.line)
            found[_spelled(seat)] = seat
    return tuple(found.values())


def _people(rows: Sequence[Row], columns: Columns) -> Iterator[tuple[Row, int, str]]:
    """Each row but the header, which may come again, with the column of its person, and the person.

    That is the e-mail, else the username, else the user id, as far as the header names their columns.
    """
    for row in rows:
        if not columns.kinds or not row.repeats(columns.first):
            column = next((column for column in columns.people if row.cell(column)), None)
            if column is None:
                raise ListError("it has no e-mail, username or user id in the column of people", row.line)
            if wrong := _wrong(row.cell(column), mail=column == columns.mail):
                raise ListError(wrong, row.line)
            yield row, column, row.cell(column)
        elif columns.mail is None and len(row.cells) == 1 and row.cells != columns.first.cells:
            raise ListError(_HEADER_OR_PERSON, row.line)


def _wrong(person: str, *, mail: bool) -> str:
    """Why nobody can be called so, where only an e-mail may stand or any name; "" where somebody can."""
    if APART.search(person):
        return NO_COMMAS
    if has_mail(person) and not _is_mail(person):
        return "its person is not one e-mail alone: leave out names, brackets, quotes, mailto: and further e-mails"
    if mail and not _is_mail(person):
        return "it has no e-mail in the column of e-mails; call one that holds usernames, too, username"
    if _FOREIGN.search(person) or _encloses(person[0]) or not person.isprintable():
        return (
            "it needs the e-mail, username or user id alone, without quotes or other signs that none of them has; "
            "leave out comments and totals"
        )
    return ""


def _is_mail(cell: str) -> bool:
    """Whether it is an e-mail and nothing else."""
    return _MAIL.fullmatch(cell) is not None and not any(map(_encloses, cell))


def _encloses(sign: str) -> bool:
    """Whether it is a bracket, or a quote that is not straight."""
    return unicodedata.category(sign) in ("Ps", "Pe", "Pi", "Pf")


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    try:
        yield
    except ListError as error:
        raise SettingsError(f"SRC_ANALYTICS_{setting}{error}") from None


def _spelled(name: str) -> str:
    """One key for all spellings that are compared as one, as `folded` in the engine, which is not started yet."""
    return unicodedata.normalize("NFC", name).replace("İ", "i").lower().replace("ς", "σ")
