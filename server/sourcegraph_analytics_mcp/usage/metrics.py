"""The catalogue of metrics: what each figure is called, means, needs, and how it is computed from sums.

Definitions follow Sourcegraph's Analytics documentation. The tools' enums, the resource `analytics://metrics`, the
README and the SQL all read this one list; a new metric is one entry here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["people", "days", "events", "characters", "lines", "ratio", "percent", "hours", "people per day", "date"]


@dataclass(frozen=True, slots=True)
class Minutes:
    """Minutes saved per action: Sourcegraph's documented assumptions, and 0 for what has none until it is set."""

    searches: float = 5
    chats: float = 5
    commands: float = 5
    completions: float = 2
    autoedits: float = 2
    code_navigation: float = 0

    @property
    def words(self) -> str:
        """The assumptions as a reader must know them."""
        parts = (
            ("search", self.searches), ("chat", self.chats), ("command", self.commands),
            ("accepted completion", self.completions), ("accepted auto-edit", self.autoedits),
            ("code navigation", self.code_navigation),
        )  # fmt: skip
        return "Minutes counted per action: " + ", ".join(f"{name} {value:g}" for name, value in parts) + "."


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Args:
        needs: the export columns without which it cannot be given.
        sql: an aggregate over rows of usage; `{days}` is the number of calendar days of the group.
        additive: whether figures of parts may be added up to the whole.
        adds_over: the groups of which they may, where it is not additive, as none has something in common with others.
        explained: whether answers say its definition, as a reader may take it for something else by its title.
    """

    name: str
    title: str
    unit: Unit
    definition: str
    needs: tuple[str, ...]
    sql: str
    additive: bool = False
    explained: bool = False
    adds_over: tuple[str, ...] = ()

    def adds_up_over(self, groups: Collection[str]) -> bool:
        """Whether figures of such groups add up to the whole, or are none that anybody adds up."""
        return self.additive or self.unit == "date" or set(self.adds_over).issuperset(groups)

    def described(self, minutes: Minutes) -> str:
        """The definition; of hours saved with the operator's assumptions where they are not the documented ones."""
        if self.name != "hours_saved" or minutes == Minutes():
            return self.definition
        return f"Actions x minutes, added up, / 60. {minutes.words}"

    def filled(self, minutes: Minutes, days: str) -> str:
        """The SQL with its numbers put in; `days` is an SQL expression."""
        navigation = minutes.code_navigation
        return self.sql.format(
            days=days, searches=minutes.searches, chats=minutes.chats, commands=minutes.commands,
            completions=minutes.completions, autoedits=minutes.autoedits,
            navigation=f" + {navigation} * coalesce(sum(code_navigation_events), 0)" if navigation else "",
            recorded=", sum(code_navigation_events)" if navigation else "",
        )  # fmt: skip

    def columns(self, minutes: Minutes) -> tuple[str, ...]:
        """The columns it needs under these assumptions."""
        extra = ("code_navigation_events",) if self.name == "hours_saved" and minutes.code_navigation else ()
        return (*self.needs, *extra)


def _sum(name: str, title: str, unit: Unit, definition: str, column: str = "") -> Metric:
    column = column or name
    return Metric(name, title, unit, definition, (column,), f"sum({column})", additive=True)


def _share(over: str, under: str, times: int = 1) -> str:
    """A ratio of sums; blank, not 0, where nothing was offered."""
    factor = f"{times}.0 * " if times != 1 else "1.0 * "
    return f"{factor}sum({over}) / nullif(sum({under}), 0)"


_USER = "instance_user_id"
_DAY = "timestamp_date"
_PEOPLE = ("user", "team")  # everybody is in one of these
_USER_DAYS = f"count(DISTINCT CASE WHEN {_USER} IS NOT NULL AND {_DAY} IS NOT NULL THEN ({_USER}, {_DAY}) END)"

METRICS: tuple[Metric, ...] = (
    Metric("active_users", "Active users", "people",
           "Distinct people with any activity in the range, service accounts included (list_inactive_users leaves "
           "them out). People of several groups count in each, once in the whole.",
           (_USER,), f"count(DISTINCT {_USER})", adds_over=_PEOPLE),
    Metric("billable_users", "Billable users", "people",
           "Distinct people with activity that is flagged as billable (Active Sourcegraph User).",
           (_USER, "active_sourcegraph_user"), f"count(DISTINCT {_USER}) FILTER (active_sourcegraph_user)",
           adds_over=_PEOPLE),
    Metric("average_daily_active_users", "Average daily users", "people per day",
           "Distinct people of each day, averaged over all calendar days of the range, weekends included.",
           (_USER, _DAY), f"{_USER_DAYS} * 1.0 / nullif({{days}}, 0)", explained=True,
           adds_over=_PEOPLE),
    Metric("active_days", "Active days", "days",
           "User-days: each person's distinct days with activity, added up over people.", (_USER, _DAY), _USER_DAYS,
           explained=True, adds_over=(*_PEOPLE, "day", "week", "month", "quarter")),
    _sum("searches", "Searches", "events", "Searches in the web interface, not by API."),
    _sum("code_navigation_events", "Code navigation", "events", "Find references, go to definition and the like."),
    _sum("code_insight_views", "Code insight views", "events", "Times a code insight was viewed."),
    _sum("chat_events", "Chats", "events", "Cody chats executed."),
    _sum("command_events", "Commands", "events", "Cody commands executed."),
    _sum("completion_suggestions", "Completions suggested", "events", "Completions offered by Cody."),
    _sum("completion_acceptances", "Completions accepted", "events", "Completions accepted."),
    Metric("completion_acceptance_rate", "Completion acceptance rate", "ratio",
           "Completions accepted / suggested, each summed first (Combined CAR), 0-1.",
           ("completion_acceptances", "completion_suggestions"),
           _share("completion_acceptances", "completion_suggestions")),
    _sum("accepted_characters", "Characters accepted", "characters",
         "Characters of accepted completions, full and partial.", "accepted_char_count"),
    _sum("characters_written_by_cody", "Characters written by Cody", "characters", "Code written by Cody."),
    _sum("characters_written", "Characters written", "characters", "Characters of code written, by Cody or by hand."),
    Metric("percent_code_written_by_cody", "Code written by Cody", "percent",
           "Characters written by Cody / characters written x 100, each summed first.",
           ("characters_written_by_cody", "characters_written"),
           _share("characters_written_by_cody", "characters_written", 100)),
    _sum("autoedit_suggestions", "Auto-edits suggested", "events", "Auto-edits offered."),
    _sum("autoedit_acceptances", "Auto-edits accepted", "events", "Auto-edits accepted."),
    Metric("autoedit_acceptance_rate", "Auto-edit acceptance rate", "ratio",
           "Auto-edits accepted / suggested, each summed first, 0-1.",
           ("autoedit_acceptances", "autoedit_suggestions"), _share("autoedit_acceptances", "autoedit_suggestions")),
    _sum("lines_changed_by_chats_and_commands", "Lines changed by chats and commands", "lines",
         "Lines of code changed by chats and commands."),
    _sum("lines_changed_by_completions_and_autoedits", "Lines changed by completions and auto-edits", "lines",
         "Lines of code changed by completions and auto-edits."),
    Metric("hours_saved", "Hours saved", "hours",
           "Searches, chats and commands x 5 minutes, accepted completions and auto-edits x 2 minutes, / 60 "
           "(Sourcegraph's documented assumptions).",
           ("searches", "chat_events", "command_events", "completion_acceptances", "autoedit_acceptances"),
           "CASE WHEN coalesce(sum(searches), sum(chat_events), sum(command_events), sum(completion_acceptances), "
           "sum(autoedit_acceptances){recorded}) IS NOT NULL THEN ("
           "{searches} * coalesce(sum(searches), 0) + {chats} * coalesce(sum(chat_events), 0) "
           "+ {commands} * coalesce(sum(command_events), 0) + {completions} * coalesce(sum(completion_acceptances), 0) "
           "+ {autoedits} * coalesce(sum(autoedit_acceptances), 0){navigation}) / 60.0 END", additive=True),
    Metric("first_active_date", "First active", "date", "First day with activity in the range.", (_USER, _DAY),
           f"min({_DAY})", explained=True),
    Metric("last_active_date", "Last active", "date", "Last day with activity in the range.", (_USER, _DAY),
           f"max({_DAY})", explained=True),
)  # fmt: skip
BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
