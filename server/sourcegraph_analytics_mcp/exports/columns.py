"""Which columns an export has, how upstream may spell them, and what kind of value each holds.

The list and its order are those of Sourcegraph's Analytics documentation; a new column is one entry here.
"""

import re
from collections.abc import Container, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import AnalyticsError

if TYPE_CHECKING:  # conversions load this module, and should not load pydantic for a name (60 ms, measured)
    from ..upstream.models import Granularity

Kind = Literal["text", "flag", "day", "month", "count", "ratio"]


SQL_TYPES: dict[Kind, str] = {
    "text": "VARCHAR", "flag": "BOOLEAN", "day": "DATE", "month": "DATE", "count": "BIGINT", "ratio": "DOUBLE",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A documented column: its name in SQL, its header, the kind of its values, other spellings it may come under."""

    name: str
    header: str
    kind: Kind
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A column of one export, in file order: the header as it came, and what it is here."""

    header: str
    name: str
    kind: Kind
    known: bool = True


DOCUMENTED: tuple[Column, ...] = (
    Column("instance_user_id", "Instance user ID", "text", ("User ID", "Instance user")),
    Column("user_email", "User Email", "text", ("Email",)),
    Column("username", "Username", "text", ("User name",)),
    Column("active_sourcegraph_user", "Active Sourcegraph User", "flag", ("Billable", "Active user")),
    Column("client_name", "Client Name", "text", ("Client",)),
    Column("timestamp_date", "Timestamp Date", "day", ("Date", "Day")),
    Column("timestamp_month", "Timestamp Month", "month", ("Month", "Timestamp Date (or Month)")),
    Column("language", "Language", "text", ("Programming language",)),
    Column("searches", "Searches", "count"),
    Column("code_navigation_events", "Code Navigation Events", "count", ("Code navigations",)),
    Column("code_insight_views", "Code Insight Views", "count", ("Code insights views",)),
    Column("chat_events", "Chat Events", "count", ("Chats",)),
    Column("command_events", "Command Events", "count", ("Commands",)),
    Column("completion_suggestions", "Combined Completion Suggestions", "count", ("Completion suggestions",)),
    Column("completion_acceptances", "Combined Completion Acceptances", "count", ("Completion acceptances",)),
    Column("accepted_char_count", "Total Accepted Char Count", "count", ("Accepted characters",)),
    Column("combined_car", "Combined CAR", "ratio"),
    Column("weighted_car", "Weighted CAR", "ratio"),
    Column("characters_written_by_cody", "Total Characters Written by Cody", "count", ("Characters written by Cody",)),
    Column("characters_written", "Total Characters Written", "count", ("Characters written",)),
    Column("percentage_of_code_written_by_cody", "Percentage of Code Written by Cody", "ratio"),
    Column("autoedit_suggestions", "Auto-edit suggested events", "count", ("Auto-edit suggestions",)),
    Column("autoedit_acceptances", "Auto-edit accepted events", "count", ("Auto-edit acceptances",)),
    Column("autoedit_acceptance_rate", "Auto-edit acceptance rate", "ratio"),
    Column("lines_changed_by_chats_and_commands", "Lines changed by chats and commands", "count"),
    Column("lines_changed_by_completions_and_autoedits", "Lines changed by completions and auto-edits", "count"),
)
BY_NAME = {column.name: column for column in DOCUMENTED}

# The columns that only some grains have; every other documented column is in all of them.
GRAIN_COLUMNS: "dict[Granularity, frozenset[str]]" = {
    "by_user": frozenset(),
    "by_user_month": frozenset({"timestamp_month"}),
    "by_user_day": frozenset({"timestamp_date"}),
    "by_user_day_client_language": frozenset({"timestamp_date", "client_name", "language"}),
}
_SOMETIMES = frozenset().union(*GRAIN_COLUMNS.values())
_TIME = ("timestamp_date", "timestamp_month")
_MOST_COLUMNS, _LONGEST_HEADER = 512, 1024


def expected(granularity: "Granularity") -> tuple[Column, ...]:
    """The documented columns of a grain."""
    return tuple(c for c in DOCUMENTED if c.name not in _SOMETIMES or c.name in GRAIN_COLUMNS[granularity])


def required(granularity: "Granularity") -> frozenset[str]:
    """The columns without which an export of that grain means nothing: who, and when."""
    return frozenset({"instance_user_id"}) | GRAIN_COLUMNS[granularity].intersection(_TIME)


def time_column(names: Container[str]) -> str | None:
    """The column that tells when, of those there are by name; None where none does."""
    return next((name for name in _TIME if name in names), None)


def key_columns(granularity: "Granularity") -> tuple[str, ...]:
    """What no two rows of a grain have in common."""
    return ("instance_user_id", *(c.name for c in DOCUMENTED if c.name in GRAIN_COLUMNS[granularity]))


def _folded(header: str) -> str:
    return re.sub(r"[^a-z0-9]", "", header.lower())


_DOCUMENTED = {_folded(s): c for c in DOCUMENTED for s in (c.header, c.name)}
_SPELLINGS = {_folded(s): c for c in DOCUMENTED for s in c.also} | _DOCUMENTED
# By grain, the folded headers that tell when, the best first; two as good as each other cannot be told apart.
_DAYS = ({"timestampdate"}, {"timestampdateormonth", "date", "day"})
_TIME_HEADERS: "dict[Granularity, tuple[set[str], ...]]" = {
    "by_user": (),
    "by_user_month": ({"timestampmonth"}, {"month", "timestampdateormonth"}, {"timestampdate"}, {"date", "day"}),
    "by_user_day": _DAYS,
    "by_user_day_client_language": _DAYS,
}


def recognise(headers: Sequence[str], granularity: "Granularity") -> tuple[Field, ...]:
    """Map the headers of a file to fields, in file order; unknown ones are kept as text.

    Raises:
        AnalyticsError: `upstream_schema_changed` for duplicate, missing or absurd headers.
    """
    if len(headers) > _MOST_COLUMNS or any(len(h) > _LONGEST_HEADER for h in headers):
        raise changed("The report has too many columns, or a column name of absurd length.")
    stripped = [header.strip() for header in headers]
    folded = {_folded(header) for header in stripped}
    there = {_DOCUMENTED[f].name for f in folded if f in _DOCUMENTED}
    times = next((best & folded for best in _TIME_HEADERS[granularity] if best & folded), set())
    fields = tuple(_field(header, position, granularity, there, times) for position, header in enumerate(stripped, 1))
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        raise changed("Two columns of the report have the same name.")
    missing = required(granularity) - set(names)
    if missing:
        titles = ", ".join(sorted(BY_NAME[name].header for name in missing))
        raise changed(f"The report lacks a column that is always needed: {titles}.")
    return fields


def _field(header: str, position: int, granularity: "Granularity", there: Set[str], times: Set[str]) -> Field:
    """The field of one header; another spelling counts only where the documented one is not `there`."""
    folded = _folded(header)
    column = _SPELLINGS.get(folded)
    if column is not None and column.name in _TIME:  # a report of a grain is told by one time, or by none
        month = granularity == "by_user_month"
        column = BY_NAME["timestamp_month" if month else "timestamp_date"] if folded in times else None
    elif column is not None and folded not in _DOCUMENTED and column.name in there:
        column = None
    if column is None:
        return Field(header, _invented(header, position), "text", known=False)
    return Field(header, column.name, column.kind)


def _invented(header: str, position: int) -> str:
    """A safe SQL name for a column nobody documented."""
    name = re.sub(r"[^a-z0-9]+", "_", header.lower()).strip("_")[:60]
    plain = name[:1].isalpha() and name not in BY_NAME
    return name if plain else f"column_{position}_{name}".rstrip("_")


def changed(message: str) -> AnalyticsError:
    """The error of a report whose columns are not those that are known."""
    return AnalyticsError(
        "upstream_schema_changed", message, "Nothing was kept. Update this server, or report the change of format."
    )
