"""Who somebody is within the days asked about: every name there means the person, the latest is shown, as is its team.

Only these days count, so that an answer does not change with whatever else the export holds that it comes from.
"""

from collections.abc import Sequence

from ..exports.identities import PERSON
from .periods import Range
from .question import Question
from .source import Source, Statement, Terms, asked_about

KINDS = {"email": "e-mail", "handle": "username"}  # of names besides the user id, which everybody has
_CALLED = (*KINDS, PERSON)  # in a row of `called`, the first that is in a team counts
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


def people(question: Question, sources: Sequence[Source]) -> str:
    """One line per person, the same for all ranges: a name to show, a team, and whether the person is meant."""
    if not asked_for_names(question):
        return ""
    team, meant, lookup, join = "", "", "", ""
    if question.about_teams:
        lookup = "team_of AS (SELECT unnest($members::VARCHAR[]) AS person, unnest($team_of::VARCHAR[]) AS team), "
        join = "".join(f" LEFT JOIN team_of AS by_{c} ON by_{c}.person = folded(k.{c})" for c in _CALLED)
        team = f", {latest('coalesce(' + ', '.join(f'by_{c}.team' for c in _CALLED) + ')', 'k.seen')} AS team"
    if question.users:
        tested = " OR ".join(f"list_contains($users, folded(k.{c}))" for c in _CALLED)
        meant = f", bool_or(coalesce({tested}, false)) AS meant"
    return (
        f"{lookup}people AS (SELECT k.{PERSON}, {_label(sources[-1])} AS user_label{meant}{team} "
        f"FROM {_known(question, sources)} AS k{join} GROUP BY 1), "
    )


def kind(name: str) -> str:
    """Which of `KINDS` a name is where nothing says that it is a user id; upstream has no @ in usernames."""
    return "email" if "@" in name else "handle"


def spelled(question: Question, sources: Sequence[Source]) -> str:
    """Every `name` of each person in the days asked about, as names are compared, as a table of SQL."""
    names = ", ".join(f"folded({column})" for column in _CALLED)
    return f"(SELECT DISTINCT {PERSON}, unnest([{names}]) AS name FROM {_known(question, sources)})"


def in_no_team(question: Question, sources: Sequence[Source], terms: Terms) -> Statement:
    """What may be why people are in no team, in one row.

    `people` are in none. For each of `KINDS`: whether the data have any (`any_…`), how many of these people have none
    (`without_…`), and how many are listed by such a name, or by what may be one, but not found by it (`lost_…`).
    """
    listed = [
        (key, n, PERSON if name in terms.ids else kind(name))
        for n, (name, keys) in enumerate(terms.written.items())
        for key in keys
    ]
    counted = ", ".join(
        f"coalesce(sum({k}), 0) > 0 AS any_{k}, count_if({k} = 0 AND NOT member) AS without_{k}, "
        f"(SELECT count(*) FROM lost WHERE kind = '{k}') AS lost_{k}"
        for k in KINDS
    )
    return Statement(
        "WITH listed AS (SELECT unnest($names::VARCHAR[]) AS name, unnest($entries::INTEGER[]) AS entry, "
        f"unnest($kinds::VARCHAR[]) AS kind), "
        f"spelled AS MATERIALIZED (FROM {spelled(question, sources)} WHERE {PERSON} IS NOT NULL), "
        f"members AS (SELECT DISTINCT {PERSON} FROM spelled SEMI JOIN listed USING (name)), "
        "found AS (SELECT DISTINCT entry FROM listed SEMI JOIN spelled USING (name)), "
        "lost AS (SELECT DISTINCT entry, kind FROM listed ANTI JOIN found USING (entry)), "
        f"people AS (SELECT {PERSON}, {', '.join(f'count({k}) AS {k}' for k in KINDS)}, "
        f"{PERSON} IN (FROM members) AS member FROM {_known(question, sources)} WHERE {PERSON} IS NOT NULL GROUP BY 1) "
        f"SELECT count_if(NOT member) AS people, {counted} FROM people",
        {what: [row[n] for row in listed] for n, what in enumerate(("names", "entries", "kinds"))},
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
