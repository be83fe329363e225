"""Refuse, with the reason, what the data cannot answer: missing columns, unknown names, unrecorded languages."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import AnalyticsError, invalid
from ..exports.columns import DOCUMENTED
from ..exports.engine.questions import Questions
from ..exports.identities import PERSON
from ..exports.models import Export
from .metrics import Minutes
from .names import KINDS, called, in_no_team, kind, spelled
from .people import BLANK, NO_TEAM, Teams
from .question import Question
from .source import Source, Terms, asked_about
from .sql import build

Tables = Mapping[str, Sequence[Path]]
_MOST_LISTED = 15
_COUNTS = {column.name for column in DOCUMENTED if column.kind == "count"}
_BY_LANGUAGE = ("completion_", "accepted_", "autoedit_")  # begins the columns that mostly have a language


class Checks:
    """What is checked against the data before a question is answered.

    Args:
        shown: makes a name from the data, or from whoever asks, fit for a sentence.
    """

    def __init__(
        self, questions: Questions, minutes: Minutes, teams: Teams | None, shown: Callable[[str], str]
    ) -> None:
        self._questions = questions
        self._minutes = minutes
        self._teams = teams
        self._shown = shown

    async def before_data(self, question: Question) -> Question:
        """The question with its teams as the operator spells them; what no data could answer is refused."""
        if ("team" in question.group_by or question.teams) and self._teams is None:
            raise invalid("No teams are known.", "The operator can give them as SRC_ANALYTICS_TEAMS_FILE.")
        if not question.teams or self._teams is None:
            return question
        return replace(question, teams=await self._spelled(question.teams, [*self._teams.names, NO_TEAM], "team"))

    async def values(self, question: Question, sources: Sequence[Source], tables: Tables) -> Question:
        """The question with its clients and languages as the data spell them, and its users as names are compared.

        A filter that nothing matches in the days asked about is refused with what there is, whatever else is kept.
        Where nothing at all is recorded in these days, the answer says so.
        """
        spelled = {}
        for values, column, what in (
            (question.clients, "client_name", "client"),
            (question.languages, "language", "language"),
        ):
            there: list[str] = []
            if values:
                sql = f"SELECT DISTINCT {column} AS v FROM {asked_about(question, sources, column)} ORDER BY 1"
                rows = await self._questions.ask(tables, sql)
                there = [BLANK if row["v"] is None else row["v"] for row in rows]
            spelled[what] = await self._spelled(values, there, what) if there else values
        users = await self._users(question, sources, tables) if question.users else ()
        return replace(question, clients=spelled["client"], languages=spelled["language"], users=users)

    async def _spelled(self, values: Sequence[str], there: Sequence[str], what: str) -> tuple[str, ...]:
        """Which of the names that are there are meant."""
        folded = await self._questions.folded([*values, *there])
        known: dict[str, list[str]] = {}
        for value in there:
            known.setdefault(folded[value], []).append(value)
        missing = next((value for value in values if folded[value] not in known), None)
        if missing is None:
            return tuple(name for value in values for name in known[folded[value]])
        near = [name for key in difflib.get_close_matches(folded[missing], known, n=3) for name in known[key]]
        listed = list(dict.fromkeys([*near, *there]))
        where = "" if what == "team" else " in the data of this range"
        raise invalid(
            f"There is no {what} '{self._shown(missing)}'{where}.", f"There are: {self._listed(listed) or 'none'}."
        )

    async def _users(self, question: Question, sources: Sequence[Source], tables: Tables) -> tuple[str, ...]:
        """The users named, as names are compared."""
        users = [*(await self._questions.folded(question.users)).values()]
        sql = f"SELECT DISTINCT name FROM {spelled(question, sources)} WHERE list_contains($users, name)"
        there = {row["name"] for row in await self._questions.ask(tables, sql, {"users": users})}
        missing = [user for user in users if user not in there]
        if missing:
            named = ", ".join(f"count({k}) > 0 AS {k}" for k in KINDS)
            sql = f"SELECT count(*) AS rows, count({PERSON}) AS whose, {named} FROM "
            (data,) = await self._questions.ask(tables, sql + asked_about(question, sources, called))
            if data["rows"] > data["whose"]:
                missing = [user for user in missing if user != BLANK]
            if missing and data["rows"]:
                raise self._absent(missing, len(users), data)
        return tuple(users)

    def _absent(self, missing: Sequence[str], named: int, data: Mapping[str, Any]) -> AnalyticsError:
        """What is said of users that are not in the data, which may have nobody's name of a kind."""
        why, names = "they did nothing in it, or are called otherwise", "their pseudonyms (person-…)"
        if self._questions.pseudonyms is None:
            kinds = set(map(kind, missing))
            if lacking := [k for k in KINDS if k in kinds and not data[k]]:
                others = f"; the others: {why}" if kinds.difference(lacking) else ""
                no_id = ", and no such user id" if "handle" in lacking else ""
                why = f"it has nobody's {_any_of([KINDS[k] for k in lacking])}{no_id}{others}"
            names = _any_of(["user id", *(KINDS[k] for k in KINDS if data[k])])
        return invalid(
            f"{len(missing)} of the {named} users named are not in the data of this range: {why}.",
            f"Name them by {names}; group_by user shows who is there.",
        )

    async def teams(
        self, question: Question, sources: Sequence[Source], tables: Tables, terms: Terms, totals: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """Say which teams have no row, and where teams cannot be told, as the data lack the names that the file has.

        Args:
            totals: the row of totals of the answer.
        """
        if not question.about_teams:
            return ()
        statement = in_no_team(question, sources, terms)
        (found,) = await self._questions.ask(tables, statement.sql, statement.parameters)
        return (*self._rowless(question, totals), *(_lost(found) if found["people"] else ()))

    def _rowless(self, question: Question, totals: Mapping[str, Any]) -> Iterator[str]:
        """Name the teams without a row, so that nobody takes the last of the rows for the team that did least."""
        there = totals.get("teams")
        known = question.teams or (self._teams.names if self._teams else ())
        absent = [team for team in dict.fromkeys(known) if team not in there] if there and not question.users else ()
        if absent:
            yield f"No row for teams of which nothing of what is asked is found: {self._listed(absent)}."

    def _listed(self, names: Sequence[str]) -> str:
        """The first of some names, fit for a sentence, and how many more there are."""
        more = f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
        return ", ".join(map(self._shown, names[:_MOST_LISTED])) + more

    def by_language(self, question: Question) -> tuple[str, ...]:
        """The columns of which it must be known how much comes without a language."""
        if "language" not in question.group_by and not question.languages:
            return ()
        return tuple(sorted({c for m in question.metrics for c in m.columns(self._minutes)} & _COUNTS))

    async def unsplit(
        self, names: Sequence[str], question: Question, sources: Sequence[Source], terms: Terms, tables: Tables
    ) -> dict[str, Any]:
        """Their sums over all that is asked about in any language, and what of them has none."""
        whole = replace(question, languages=(), order_by=None, limit=1)  # of the same days, so of the same people
        statement = build(whole, sources, terms, names)
        return (await self._questions.ask(tables, statement.sql, statement.parameters))[0]


def _any_of(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _lost(found: Mapping[str, Any]) -> Iterator[str]:
    """Why some may be in no team though they are listed; from `in_no_team`."""
    if not any(found[f"any_{k}"] for k in KINDS):
        yield (
            "Nobody in this data has an e-mail or username, so people are put into teams by user id alone; who is "
            "not listed by it in SRC_ANALYTICS_TEAMS_FILE is in no team."
        )
        return
    for k, word in KINDS.items():
        if found[f"without_{k}"] and found[f"lost_{k}"]:
            whose = "lacks the {} of some people" if found[f"any_{k}"] else "has nobody's {}"
            yield (
                f"This data {whose.format(word)}, so who is listed by that in SRC_ANALYTICS_TEAMS_FILE may count as "
                "in no team."
            )


def languages(question: Question, names: Sequence[str], sums: Mapping[str, Any], minutes: Minutes) -> Iterator[str]:
    """Say what is only in part recorded by language.

    Args:
        names: from `Checks.by_language`.
        sums: `all_…` and `blank_…` of each.

    Raises:
        AnalyticsError: `unsupported` where nothing of it is.
    """
    meant = BLANK in question.languages
    if not names and not meant and (question.languages or "language" in question.group_by):
        shown = "shown as blank" if "language" in question.group_by and not question.languages else "left out"
        yield f"Activity without a language is {shown}."
    for name in names:
        total, blank = sums[f"all_{name}"] or 0, sums[f"blank_{name}"] or 0
        if total and blank == total and not meant:
            raise _unrecorded(question, name, minutes)
        if blank:
            yield f"{_share(blank, total)} of {name} has no language recorded."


def _share(part: int, whole: int) -> str:
    """A part in percent, never all or nothing where it is neither; of counts below zero there is no such share."""
    if not 0 < part <= whole:
        return "Some"
    if part * 100 < whole:
        return "Less than 1%"
    return "Over 99%" if whole * 99 < part * 100 < whole * 100 else f"{part / whole:.0%}"


def _unrecorded(question: Question, column: str, minutes: Minutes) -> AnalyticsError:
    """What is said where nothing of a column has a language: which metric it is that cannot be given, and why."""
    metric = next(m for m in question.metrics if column in m.columns(minutes))
    single = metric.columns(minutes) == (column,)
    narrowed = " among what is asked about" if question.users or question.teams or question.clients else ""
    other = "" if column.startswith(_BY_LANGUAGE) else ", or for completions and auto-edits by language"
    why = f"{metric.name if single else column} is not recorded by language in this data{narrowed}"
    return AnalyticsError(
        "unsupported",
        f"{why}." if single else f"{metric.name} cannot be given by language: {why}.",
        f"Ask for {metric.name} without language{other}.",
    )


def check_columns(question: Question, export: Export, minutes: Minutes) -> None:
    have = export.names
    for metric in question.metrics:
        missing = [column for column in metric.columns(minutes) if column not in have]
        if missing:
            raise AnalyticsError(
                "unsupported",
                f"{metric.name} cannot be given: the data has no column {missing[0]}.",
                "Ask for another metric; analytics://metrics says what each needs.",
            )
    for dimension, filtered, column in (
        ("client", question.clients, "client_name"),
        ("language", question.languages, "language"),
    ):
        if (filtered or dimension in question.group_by) and column not in have:
            raise AnalyticsError("unsupported", f"The data has no column {column}.", f"Ask without {dimension}.")
