"""Whether the first line of a file about people is a header, and which of its columns holds the people."""

import re
from collections.abc import Sequence

_WHOSE = "(?:sourcegraph|instance|company|business|work|user|member|account|person|people|employee|seat|licen[cs]ed?)*"
_PEOPLE = {  # what a column of people is called, however its words are joined; the first that a header has is taken
    "mail": f"{_WHOSE}e?mails?(?:address(?:es)?)?",
    "username": f"{_WHOSE}(?:user|login)names?|{_WHOSE}logins?",
    "id": "(?:sourcegraph|instance)*userids?",
    "person": "(?:licen[cs]ed)?(?:users?|persons?|people|members?|seats?|accounts?)|(?:full|display)?names?|ids?",
}
_WORDS = re.compile(  # and what the other columns are called, in any order
    "(?:sourcegraph|instance|company|business|work|users?|members?|accounts?|persons?|people|employees?|seats?|staff|"
    "licen[cs]e(?:es?|d|s)?|e?mails?|address(?:es)?|names?|logins?|ids?|full|display|first|last|teams?|groups?|squads?|"
    "departments?|dept|division|unit|org(?:ani[sz]ation)?|plan|role|title|location|country|status|managers?)+"
)
_MAYBE = "it may be a header or a person; call the column email, username or user id, or put the person elsewhere"
_UNCLEAR = "it does not tell which column holds the people; keep one that is called email, username or user id"


class UnclearError(ValueError):
    """A first line that is a header or a person, nobody can tell which; or a header that does not say who is who."""


def column_of_people(first: Sequence[str], below: Sequence[Sequence[str]], *, teams: bool) -> int | None:
    """Which column holds the people, by a first line that is a header; None where it is none.

    Args:
        below: the other lines.
        teams: whether a person and a team are listed; else seats.

    Raises:
        UnclearError: with the reason, where a guess could be wrong.
    """
    if len(first) == 1 and re.search("[;\t]", first[0]):
        raise UnclearError("its columns are not separated by commas")
    if any("@" in cell for cell in first) or first[0].isdecimal():
        return None
    kinds = [_kind(cell) for cell in first]
    known = [kind for kind in _PEOPLE if kind in kinds]
    of_mail = "mail" in kinds and _has_mail(kinds.index("mail"), below)
    if kinds[0] not in _PEOPLE and "" in kinds and not of_mail:
        if _may_be_header(first, kinds, below, teams=teams):
            raise UnclearError(_MAYBE)
        return None
    at = kinds.index(known[0]) if known else 0
    twice = sum(kind in _PEOPLE for kind in kinds) > 1 if teams else kinds.count(kinds[at]) > 1
    elsewhere = known == ["person"] and any(_has_mail(n, below) for n in range(len(first)) if n != at)
    if not known or twice or elsewhere:
        raise UnclearError(_UNCLEAR + (", and one that is called team" if teams else ""))
    return at


def says_mail(header: str) -> bool:
    """Whether a header says that its column holds e-mails."""
    return _kind(header) == "mail"


def _kind(cell: str) -> str:
    """How a column that is called so knows people: a key of `_PEOPLE`; `other` if it does not, nothing if none is."""
    letters = re.sub(r"[\W_]", "", cell).casefold()
    kind = next((kind for kind, words in _PEOPLE.items() if re.fullmatch(words, letters)), "")
    return kind or ("other" if _WORDS.fullmatch(letters) else "")


def _has_mail(column: int, below: Sequence[Sequence[str]]) -> bool:
    """Whether a column holds an e-mail in any line."""
    return any("@" in row[column] for row in below if column < len(row))


def _may_be_header(first: Sequence[str], kinds: Sequence[str], below: Sequence[Sequence[str]], *, teams: bool) -> bool:
    """Whether a first line of which not every word is known may be a header all the same.

    Beside a team, a person may be called in any way, and one that nobody is makes no figure wrong; a seat would.
    """
    if kinds[0]:
        return True
    if teams:
        return _calls_teams(first, below) or "id" in kinds
    return any(kind in _PEOPLE for kind in kinds) or _unlike(first[0], *(row[0] for row in below))


def _calls_teams(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether a first line may call the teams so: it alone says Team."""
    return [cell.casefold() for cell in first[1:]] == ["team"] and all(row[1:] != first[1:] for row in below)


def _unlike(first: str, *others: str) -> bool:
    """Whether a first cell may be a header: the only one without an @, or without digits, or with a blank."""
    blank = " " in first and not any(" " in other for other in others)
    alone = all("@" in other for other in others) or all(other.isdecimal() for other in others)
    return bool(others) and (blank or alone)
