"""Which columns of a list hold the people and their groups, and whether its first line is a header that says so."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from .listed import APART, ListError, Row

_WHOSE = (
    "sourcegraph|instance|company|corporate|business|work|primary|official|users?|members?|accounts?|persons?|people|"
    "employees?|seats?|licen[cs]ed?|assigned|assignees?|login|github(?:com)?|ghe|gitlab|okta|slack|google|microsoft|"
    "azure|entra|ldap|saml|sso"
)
_GROUPS = "groups?|squads?|tribes?|chapters?|guilds?|departments?|dept|divisions?|units?|org(?:ani[sz]ation)?(?:al)?"
_OF = f"(?:{_WHOSE})*"
_PEOPLE = {  # what a column of people is called, however its words are joined; the first that a header has is taken
    "mail": f"{_OF}(?:e?mails?|courriels?)(?:address(?:es)?|adresses?|ids?)?|adressee?mail|primarysmtpaddress",
    "principal": f"{_OF}principalnames?|upns?",
    "username": f"{_OF}(?:usernames?|loginnames?|logins?(?:ids?)?|handles?|uids?)|sam(?:account)?(?:names?)?|"
    "benutzername",
    "id": "(?:sourcegraph|instance)*userids?",
    "person": "(?:licen[cs]ed|sourcegraph)*(?:users?|persons?|people|members?|seats?|accounts?)|"
    "(?:full|display)?names?|ids?|e?mails?(?:or)?usernames?|usernames?(?:or)?e?mails?",
    "holder": "employees?|assignees?|assigned(?:to|users?)|contacts?|licensees?|(?:seat|licen[cs]e)(?:holder|owner)s?",
}
_OTHERS = {  # and what the other columns are called
    "team": f"{_OF}teams?(?:names?)?",
    "group": f"(?:{_WHOSE}|{_GROUPS})*(?:{_GROUPS}|costcent(?:er|re)s?)(?:paths?|names?|codes?)?",
    "private": "(?:first|last|given|middle|family|sur)+names?|(?:line)?managers?(?:names?|e?mails?|ids?)?|reportsto",
    "other": f"(?:{_WHOSE}|{_GROUPS}|staff|licen[cs]es?|e?mails?|address(?:es)?|names?|logins?|ids?|teams?|personal|"
    "second(?:ary)?|recovery|plan|role|title|location|city|country|office|status|state|type|tier|notes?|phone|date|"
    "created|joined|seen|at|on)+",
}
_KINDS = {kind: re.compile(words) for kind, words in (_PEOPLE | _OTHERS).items()}
_NO_TEAMS = {*_PEOPLE, "private"}  # of whom a file of teams would make teams
_NEVER_BESIDE = {*_PEOPLE, "team", "group"}  # what beside an unknown word may make a header of it
_LONGEST = 60  # characters of a header; no name of a column that is known has more
_MAYBE = "it may be a header or a person; call the column email, username or user id, or put the person elsewhere"
_NO_PEOPLE = (
    "it does not tell which column holds the people; begin with a line that calls one, and no other, email, username "
    "or user id"
)
_NO_GROUPS = "it does not tell which column holds the teams; begin with a line that calls one, and no other, team"


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a list hold.

    Args:
        first: the first row.
        kinds: what it calls them, "" where that is not known; empty where it is no header.
        people: those of people, the best first; the others stand in where it is blank.
        mail: the one that holds nothing but e-mails.
    """

    first: Row
    kinds: tuple[str, ...]
    people: tuple[int, ...]
    mail: int | None = None

    @property
    def width(self) -> int:
        """How many cells a row of a person and a team may have."""
        return max(len(self.kinds), 2)

    def group(self) -> int:
        """The column of teams: that called team, else so in another word, else the one beside the people of two.

        Raises:
            ListError: where the list does not tell.
        """
        for kind in ("team", "group"):
            if kind in self.kinds:
                return _only([n for n, other in enumerate(self.kinds) if other == kind], self.first, _NO_GROUPS)
        beside = [n for n in range(2) if n not in self.people and self._may_be_teams(n)]
        return _only(beside if self.width == 2 else [], self.first, _NO_GROUPS)

    def _may_be_teams(self, column: int) -> bool:
        if not self.kinds:
            return column > self.people[0]  # what stands in front may be people, too
        return self.first.cells[column : column + 1] != ("",) and _NO_TEAMS.isdisjoint(self.kinds[column : column + 1])


def columns_of(rows: Sequence[Row]) -> Columns:
    """Which columns hold the people, by what the first row calls them and by where e-mails are.

    Args:
        rows: at least one.

    Raises:
        ListError: where a guess could be wrong.
    """
    first, *below = rows
    kinds = tuple(map(_kind, first.cells))
    mails = _of_mails(below)
    if not _is_header(first, kinds, below, mails):
        return Columns(first, (), (_without_header(rows),))
    people = _named(first, kinds, mails)
    if people:
        return Columns(first, kinds, people, people[0] if kinds[people[0]] == "mail" else None)
    column = _of_anybody(first, kinds, below, mails)
    named = column < len(kinds) and kinds[column] == "person"
    return Columns(first, kinds, (column,), None if named else column)


def is_mail(cell: str) -> bool:
    """Whether it is an e-mail and nothing else."""
    return "@" in cell and re.fullmatch(r"[^\s@:;|<>]+@[^\s@:;|<>]+", cell) is not None


def _kind(cell: str) -> str:
    """What a column that is called so holds: a key of `_KINDS`, or "" where its words are not known."""
    words = re.sub(r"\s*[(\[][^)\]]*[)\]]$", "", cell)  # Email Address [Required]
    letters = re.sub(r"[\W_]", "", unicodedata.normalize("NFKD", words)).casefold()
    if len(letters) > _LONGEST or APART.search(cell):
        return ""
    return next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(letters)), "")


def _of_mails(rows: Sequence[Row]) -> list[int]:
    """The columns in which there is an e-mail."""
    return sorted({n for row in rows for n, cell in enumerate(row.cells) if is_mail(cell)})


def _is_header(first: Row, kinds: Sequence[str], below: Sequence[Row], mails: Sequence[int]) -> bool:
    """Whether a first row calls the columns something, rather than being a person.

    Raises:
        ListError: where nobody can tell.
    """
    if any(map(is_mail, first.cells)):
        return False
    called = [kind for cell, kind in zip(first.cells, kinds, strict=True) if cell]
    if any(kind in _PEOPLE and n in mails for n, kind in enumerate(kinds)):
        return True
    if first.cells[0].isdecimal():
        return False
    if called[0] in _PEOPLE or (all(called) and not _PEOPLE.keys().isdisjoint(called)):
        return True
    if _recurs(first, below):
        return False
    if all(called):
        raise ListError(_NO_PEOPLE, first.line)
    if called[0] or not _NEVER_BESIDE.isdisjoint(called) or _unlike(first.cells[0], [row.cell(0) for row in below]):
        raise ListError(_MAYBE, first.line)
    return False


def _recurs(first: Row, below: Sequence[Row]) -> bool:
    """Whether another row has a cell in common with the first, which no header has: so it is not the header's twin."""
    return any(
        cell and cell == row.cell(n) for row in below if row.cells != first.cells for n, cell in enumerate(first.cells)
    )


def _unlike(first: str, others: Sequence[str]) -> bool:
    """Whether a first cell may be a header: the only one that is no e-mail, or no number, or has a blank."""
    blank = " " in first and not any(" " in other for other in others)
    return bool(others) and (blank or all(map(is_mail, others)) or all(other.isdecimal() for other in others))


def _without_header(rows: Sequence[Row]) -> int:
    """The column of people where none is called so: the first, or the only one with an e-mail in every row."""
    mails = _of_mails(rows)
    if not mails or 0 in mails:
        return 0
    return _only([n for n in mails if all(is_mail(row.cell(n)) for row in rows)], rows[0], _NO_PEOPLE)


def _named(first: Row, kinds: Sequence[str], mails: Sequence[int]) -> tuple[int, ...]:
    """The columns of e-mails, usernames and user ids, the best first; of two of a kind, that which has e-mails."""
    found: list[int] = []
    for kind in ("mail", "principal", "username", "id"):
        named = [n for n, other in enumerate(kinds) if other == kind]
        several = len(named) > 1
        best = [n for n in named if n in mails] if several else named
        if several and not found:
            _only(best, first, _NO_PEOPLE)
        found += best if len(best) == 1 else []
    return tuple(found)


def _of_anybody(first: Row, kinds: Sequence[str], below: Sequence[Row], mails: Sequence[int]) -> int:
    """The column of people of a header that calls none by what it holds.

    It is the one of e-mails, in whatever way it is called unless that is a manager's or the like; without e-mails the
    one called user, name or the like, which may be anything beside a column that is called in an unknown way.
    """
    kind_of = dict(enumerate(kinds))
    if mails:
        return _only([n for n in mails if kind_of.get(n, "") in ("", "person", "holder")], first, _NO_PEOPLE)
    width = max(len(row.cells) for row in (first, *below))
    unknown = any(
        kind_of.get(n, "") in ("", "holder") and any(row.cell(n) for row in (first, *below)) for n in range(width)
    )
    return _only([n for n, kind in kind_of.items() if kind == "person" and not unknown], first, _NO_PEOPLE)


def _only(found: Sequence[int], first: Row, reason: str) -> int:
    if len(found) != 1:
        raise ListError(reason, first.line)
    return found[0]
