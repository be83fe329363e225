"""What may be shown of what people or upstream have written, where people are shown by pseudonym: what names nobody."""

import re
from typing import Any

from ..exports.identities import HIDDEN

_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^A-Za-z_-]+")
# What a field may be called; any other key may be a username.
_WORDS = frozenset({
    "account", "active", "adjusted", "allocated", "allocation", "amount", "at", "available", "balance", "billing",
    "bucket", "buckets", "by", "category", "code", "cody", "completion", "completions", "consumed", "consumption",
    "count", "created", "credit", "credits", "currency", "current", "cycle", "daily", "data", "date", "day", "days",
    "description", "email", "end", "ends", "entitlement", "expires", "expiry", "feature", "from", "granted",
    "group", "has", "id", "ids", "instance", "is", "items", "kind", "label", "last", "left", "limit", "list",
    "login", "max", "member", "members", "min", "model", "month", "monthly", "name", "next", "note", "notes", "of",
    "on", "org", "organization", "over", "overage", "owner", "page", "paid", "people", "per", "percent", "period",
    "person", "plan", "previous", "product", "purchased", "quota", "rate", "remaining", "request", "requests",
    "reset", "result", "results", "seat", "seats", "service", "source", "spent", "start", "starts", "state",
    "status", "sum", "team", "tier", "time", "timestamp", "to", "top", "total", "totals", "trial", "type", "unit",
    "units", "until", "updated", "url", "usage", "use", "used", "user", "username", "users", "value", "version",
    "year", "yearly",
})  # fmt: skip
_MOMENT = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?)?\Z", re.ASCII)
_OF_PEOPLE = re.compile(r"by|.*(user|owner|member|person|people|mail|login)", re.IGNORECASE)
# Whose number may be somebody's: of these, and of whatever ends in an id.
_SOMEBODY = re.compile(
    r"user|owner|member|person|people|mail|login|account|approver|assignee|author(?!i)|contact|creator|customer|"
    r"developer|employee|engineer|holder|identi|request[eo]r|seat",
    re.IGNORECASE,
)
_ID = re.compile(r"(?!(pre|un)?paids?\Z|(in)?valid\Z).*(id|by)s?\Z")
_PLURAL = re.compile(r"people|.*s")
# What makes a number of people a figure, as the last word of its name.
_FIGURES = frozenset({
    "active", "adjusted", "allocated", "allocation", "amount", "available", "average", "avg", "balance", "billable",
    "consumed", "consumption", "cost", "count", "counts", "credit", "credits", "days", "granted", "hours", "inactive",
    "left", "licensed", "limit", "max", "mean", "median", "min", "overage", "paid", "percent", "percentage",
    "purchased", "quota", "rate", "ratio", "remaining", "seat", "seats", "spent", "sum", "total", "totals", "usage",
    "used",
})  # fmt: skip

_OURS = "sourcegraph-analytics-mcp"  # which a token is called by default, by `login` with the machine's name behind it


def nameless_token(name: str | None, sent: str | None = None) -> str | None:
    """The display name of a token as far as it may be shown; a machine's name may be that of its owner.

    Args:
        sent: the name that came with the call, which says nothing new.
    """
    if not name or name in (sent, _OURS):
        return name
    return f"{_OURS} on {HIDDEN}" if name.startswith(f"{_OURS} on ") else HIDDEN


def nameless(value: Any) -> Any:
    """The figures, booleans, dates and field names of a JSON-like value; everything else in it is spelled as hidden."""
    return _shown(value, "", _Hidden(), within=False)


class _Hidden(dict[str, str]):
    """What each hidden key is shown as: one key is one field, in whichever object of a document it stands."""

    def __missing__(self, key: str) -> str:
        self[key] = f"{HIDDEN} {len(self) + 1}" if self else HIDDEN
        return self[key]


def _shown(value: Any, key: str, hidden: _Hidden, *, within: bool) -> Any:
    """A value as far as it may be shown.

    Args:
        key: what it is the value of; an object that maps people to something has names for keys, a number may be an id.
        within: whether that is part of what describes one person, or of an id.
    """
    if isinstance(value, dict):
        keyed_by_people = bool(_OF_PEOPLE.match(key))
        return _fields(value, key, hidden, keyed_by_people=keyed_by_people, within=within or _is_one(key))
    if isinstance(value, list):
        return [_in_list(item, key, hidden, within=within) for item in value]
    if value is None or isinstance(value, bool):
        return value
    harmless = _MOMENT.match(value) if isinstance(value, str) else _is_figure(key, within=within)
    return value if harmless else HIDDEN


def _in_list(item: Any, key: str, hidden: _Hidden, *, within: bool) -> Any:
    """One of several: an object is a record, its keys are fields whatever the list is of; numbers of people are ids."""
    if isinstance(item, dict):
        return _fields(item, "", hidden, keyed_by_people=False, within=within)
    numbers = isinstance(item, int | float) and not isinstance(item, bool)
    return HIDDEN if numbers and (within or _is_of_people(key)) else _shown(item, key, hidden, within=within)


def _is_figure(key: str, *, within: bool) -> bool:
    """Whether a number of that name is one that counts or measures, and no number of somebody."""
    words = _words(key)
    if not words:
        return not within
    if _ID.fullmatch(words[-1]):
        return False
    if "per" in words:
        return True
    several = len(words) > 1 and bool(_PLURAL.fullmatch(words[-1])) and _is_of_people(words[-1])  # `active_users`
    return words[-1] in _FIGURES or several or not (within or _is_of_people(key))


def _words(key: str) -> list[str]:
    """The words of a field's name, without signs and without figures at its end."""
    return [word for part in _PART.findall(key) if (word := part.strip(" .:/0123456789").lower())]


def _is_of_people(key: str) -> bool:
    return bool(_SOMEBODY.search(key))


def _is_one(key: str) -> bool:
    """Whether an object of that name describes one person, or is an id, and maps no people to something."""
    words = _words(key)
    if not words or words[0] in ("by", "per"):
        return False
    return bool(_ID.fullmatch(words[-1])) or (_is_of_people(key) and not _PLURAL.fullmatch(words[-1]))


def _fields(value: dict[str, Any], of: str, hidden: _Hidden, *, keyed_by_people: bool, within: bool) -> dict[str, Any]:
    listed = within or _is_of_people(of)
    fields = {}
    for key, item in value.items():
        named = keyed_by_people or not _WORDS.issuperset(part.lower() for part in _PART.findall(key))
        part_of = listed if isinstance(item, list) else within
        fields[hidden[key] if named else key] = _shown(item, key, hidden, within=part_of)
    return fields
