"""Which columns of a list hold the people and their groups, and whether its first line is a header that says so."""

import re
import unicodedata
from collections.abc import Sequence, Set
from dataclasses import dataclass

from .listed import APART, NO_COMMAS, ListError, Row

_WHOSE = (
    "sourcegraph|instance|company|corporate|business|work|primary|official|users?|members?|accounts?|persons?|people|"
    "employees?|seats?|licen[cs]ed?|assigned|assignees?|login|github(?:com)?|ghe|gitlab|okta|slack|google|microsoft|"
    "azure|entra|ldap|saml|sso"
)
_GROUPS = "groups?|squads?|tribes?|chapters?|guilds?|departments?|dept|divisions?|units?|org(?:ani[sz]ation)?(?:al)?"
_OF = f"(?:{_WHOSE})*"
_PEOPLE = {  # what a column of people is called, however its words are joined; the first that a header has is taken
    "mail": f"{_OF}(?:e?mails?|courriels?)(?:address(?:es)?|adresses?|ids?)?1?(?:value)?|adressee?mail|"
    "primarysmtpaddress",
    "principal": f"{_OF}principalnames?|upns?",
    "username": f"{_OF}(?:usernames?|loginnames?|logins?(?:ids?)?|handles?|uids?)|sam(?:account)?(?:names?)?|"
    "benutzername",
    "id": "(?:sourcegraph|instance)*userids?",
    "person": "(?:licen[cs]ed|sourcegraph)*(?:users?|persons?|people|members?|seats?|accounts?)|"
    "(?:full|display)?names?|ids?|e?mails?(?:or)?usernames?|usernames?(?:or)?e?mails?",
    "holder": "employees?|assignees?|assigned(?:to|users?)|licensees?|(?:seat|licen[cs]e)(?:holder|owner)s?",
}
_OTHERS = {  # and what the other columns are called
    "team": f"{_OF}teams?(?:names?)?",
    "group": f"(?:{_WHOSE}|{_GROUPS})*(?:{_GROUPS}|costcent(?:er|re)s?)(?:paths?|names?|codes?)?",
    "private": "(?:first|last|given|middle|family|sur)+names?|(?:line)?managers?(?:names?|e?mails?|ids?)?|reportsto",
    "note": "notes?|comments?|remarks?|descriptions?",
    "other": f"(?:{_WHOSE}|{_GROUPS}|staff|licen[cs]es?|e?mails?|address(?:es)?|names?|logins?|ids?|teams?|personal|"
    "second(?:ary)?|recovery|slug|plan|role|title|location|city|country|office|status|state|type|tier|phone|date|"
    "created|joined|seen|last|at|on)+",
}
_KINDS = {kind: re.compile(words) for kind, words in (_PEOPLE | _OTHERS).items()}
_WHO = ("mail", "principal", "username", "id")  # those that say by what, the best first
_NO_TEAMS = {*_PEOPLE, "private"}  # of whom a file of teams would make teams
_LONGEST = 60  # characters of a header; no name of a column that is known has more
_MOST_NAMED = 4  # columns in a sentence
_MAIL = re.compile(r"[^\s<>@,;]@[^\s<>@,;]")
_ADDRESS = re.compile(r"[^\s@()\[\]]+@[^\s@()\[\]]+\.[^\s@()\[\]]+")  # nothing else, though it spell what a header does
_NO_PEOPLE = (
    "it does not tell which column holds the people{}; in a header call one, and no other, email, username or user id; "
    "above a person put such a header"
)
_NO_GROUPS = (
    "it does not tell which column holds the teams{}; in a header call one, and no other, team; above a person put "
    "such a header"
)


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of a list hold.

    Args:
        first: the first row.
        kinds: what it calls them, "" where that is not known; empty where it is no header.
        people: those of people, the best first; the others stand in where it is blank.
        mail: the one of people that holds nothing but e-mails.
        mails: all those of e-mails.
    """

    first: Row
    kinds: tuple[str, ...]
    people: tuple[int, ...]
    mail: int | None
    mails: Set[int]

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
        if column in self.mails:
            return False
        if not self.kinds:
            return column > self.people[0]  # what stands in front may be people, too
        return self.first.cells[column : column + 1] != ("",) and _NO_TEAMS.isdisjoint(self.kinds[column : column + 1])


def columns_of(rows: Sequence[Row]) -> Columns:
    """Which columns hold the people: those that the first row calls so, or where it has an e-mail, that one's.

    A first row is a header unless it has an e-mail, and a header names the people; all else would be a guess.

    Args:
        rows: at least one.

    Raises:
        ListError: where the list does not tell.
    """
    first, *others = rows
    kinds = tuple(map(_kind, first.cells))
    if own := [n for n, cell in enumerate(first.cells) if has_mail(cell) and not (kinds[n] and _may_be_a_word(cell))]:
        column = 0 if 0 in own else _only(own, first, _NO_PEOPLE)
        return Columns(first, (), (column,), column, _of_mails(rows))
    below = [row for row in others if not row.repeats(first)]
    mails = _of_mails(below)
    people = _named(first, kinds, mails) or (_of_anybody(first, kinds, below, mails),)
    return Columns(first, kinds, people, people[0] if kinds[people[0]] in ("mail", "holder") else None, mails)


def has_mail(cell: str) -> bool:
    """Whether there is an e-mail in it, which may have a name or another e-mail beside it."""
    return _MAIL.search(cell) is not None and not APART.search(cell)


def _may_be_a_word(cell: str) -> bool:
    """Whether it is no e-mail of somebody's, or not that alone: E@mail, or Email (name@example.com)."""
    return _ADDRESS.fullmatch(cell) is None


def _kind(cell: str) -> str:
    """What a column that is called so holds: a key of `_KINDS`, or "" where its words are not known."""
    words = re.sub(r"[(\[][^()\[\]]*[)\]]$", "", cell)  # Email Address [Required]
    letters = re.sub(r"[\W_]", "", unicodedata.normalize("NFKD", words)).casefold()
    if len(letters) > _LONGEST or APART.search(cell):
        return ""
    return next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(letters)), "")


def _of_mails(rows: Sequence[Row]) -> set[int]:
    """The columns of e-mails: every cell that is not blank has one."""
    cells = [(n, has_mail(cell)) for row in rows for n, cell in enumerate(row.cells) if cell]
    return {n for n, mail in cells if mail}.difference(n for n, mail in cells if not mail)


def _named(first: Row, kinds: Sequence[str], mails: Set[int]) -> tuple[int, ...]:
    """The columns of e-mails, usernames and user ids, the best first; of two of a kind, that which has e-mails."""
    found: list[int] = []
    for kind in _WHO:
        named = [n for n, other in enumerate(kinds) if other == kind]
        several = len(named) > 1
        best = [n for n in named if n in mails] if several else named
        if several and not found:
            _only(best, first, _NO_PEOPLE)
        found += best if len(best) == 1 else []
    return tuple(found)


def _of_anybody(first: Row, kinds: Sequence[str], below: Sequence[Row], mails: Set[int]) -> int:
    """The column of people of a header that calls none by what it holds.

    It is the one called user, employee or the like that is one of e-mails; else the one called user, name or the like,
    unless those may be beside it: in a column that is called in an unknown way, or in another one of e-mails.
    """
    if APART.search(first.cells[0]):
        raise ListError(NO_COMMAS, first.line)
    kind_of = dict(enumerate(kinds))
    if sure := [n for n, kind in kind_of.items() if kind in ("person", "holder") and n in mails]:
        return _only(sure, first, _NO_PEOPLE)
    there = sorted({n for row in (first, *below) for n, cell in enumerate(row.cells) if cell})
    doubtful = [
        n for n in there if kind_of.get(n, "") in ("", "holder") or (n in mails and kind_of[n] in ("private", "other"))
    ]
    named = [n for n, kind in kind_of.items() if kind == "person"]
    if doubtful:
        raise _unclear(sorted([*named, *doubtful]), first, _NO_PEOPLE)
    return _only(named, first, _NO_PEOPLE)


def _only(found: Sequence[int], first: Row, reason: str) -> int:
    if len(found) != 1:
        raise _unclear(found, first, reason)
    return found[0]


def _unclear(found: Sequence[int], first: Row, reason: str) -> ListError:
    """The refusal of a list in which each of these columns may be meant."""
    *some, last = (str(n + 1) for n in found) if found else ("",)
    return ListError(reason.format(f", {', '.join(some)} or {last}" if 0 < len(some) < _MOST_NAMED else ""), first.line)
