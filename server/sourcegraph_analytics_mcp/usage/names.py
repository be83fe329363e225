"""Who somebody is within the days asked about: every name there means the person, the latest is shown, as is its team.

Only these days count, so that an answer does not change with whatever else the export holds that it comes from.
"""

from collections.abc import Sequence

from ..exports.identities import PERSON
from .periods import Range
from .question import Question
from .source import Source, Statement, Terms, asked_about

_NO_DAY = "DATE '0001-01-01'"  # before any that an export may hold


def latest(value: str, day: str) -> str:
    """SQL: a value as of the last day that has one; of one day the greatest. Rows without a day come first."""
    return f"arg_max({value}, row(coalesce({day}, {_NO_DAY}), {value}))"


def labelled_late(question: Question) -> bool:
    """Whether only the people of the page need a name to show: nothing is chosen, ordered or compared by names."""
    by_name = question.users or question.teams or "team" in question.group_by or question.order_by == "user"
    return "user" in question.group_by and not question.compare and not by_name


def labels(question: Question) -> list[str]:
    """The columns of names that rows come with."""
    return ["user_label"] if "user" in question.group_by and not labelled_late(question) else []


def asked_for_names(question: Question) -> bool:
    """Whether it takes to know who somebody is, besides counting them."""
    return question.about_people and not labelled_late(question)


def labelled(question: Question, source: Source) -> str:
    """The page with its people's names, which are looked up for these alone."""
    return (
        f"SELECT page.*, user_label FROM page LEFT JOIN (SELECT {PERSON}, {_label(source)} AS user_label "
        f"FROM {_known(question, [source])} AS k WHERE {PERSON} IN (SELECT g_user FROM page) "
        f"GROUP BY 1) AS named ON named.{PERSON} = page.g_user"
    )


def people(question: Question, sources: Sequence[Source], terms: Terms, statement: Statement) -> str:
    """One line per person, the same for all ranges: a name to show, a team, and whether the person is meant."""
    if not asked_for_names(question):
        return ""
    team, meant, lookup, join = "", "", "", ""
    if question.about_teams:
        statement.parameters += [list(terms.team_keys), list(terms.team_names)]
        lookup = "team_of AS (SELECT unnest(?::VARCHAR[]) AS person, unnest(?::VARCHAR[]) AS team), "
        columns = ("email", "handle", PERSON)
        join = "".join(f" LEFT JOIN team_of AS by_{c} ON by_{c}.person = folded(k.{c})" for c in columns)
        team = f", {latest('coalesce(' + ', '.join(f'by_{c}.team' for c in columns) + ')', 'k.seen')} AS team"
    if question.users:
        statement.parameters += [list(question.users)] * 3
        tested = " OR ".join(f"list_contains(?, folded(k.{c}))" for c in (PERSON, "email", "handle"))
        meant = f", bool_or(coalesce({tested}, false)) AS meant"
    return (
        f"{lookup}people AS (SELECT k.{PERSON}, {_label(sources[-1])} AS user_label{meant}{team} "
        f"FROM {_known(question, sources)} AS k{join} GROUP BY 1), "
    )


def _known(question: Question, sources: Sequence[Source]) -> str:
    """What people are called in the rows asked about, and until when."""
    rows = asked_about(question, sources, called)
    return f"(SELECT {PERSON}, email, handle, max(seen) AS seen FROM {rows} GROUP BY ALL)"


def called(source: Source, days: Range) -> str:
    """What a person is called in a row (`email`, `handle`), and its day (`seen`); without days the end of the range."""
    email, handle = (name if name in source.columns else "NULL::VARCHAR" for name in ("user_email", "username"))
    day = source.time or (f"DATE '{days.end}'" if days.end else _NO_DAY)
    return f"{PERSON}, {email} AS email, {handle} AS handle, {day} AS seen"


def _label(source: Source) -> str:
    """The name to show of a person's rows `k`."""
    email, handle = latest("k.email", "k.seen"), latest("k.handle", "k.seen")
    return f"coalesce({email}, {handle}, k.{PERSON})" if source.named else f"k.{PERSON}"
