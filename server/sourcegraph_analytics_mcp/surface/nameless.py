"""What may be shown of what people or upstream have written, where people are shown by pseudonym: what names nobody."""

import re
from typing import Any

from ..exports.identities import HIDDEN

_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^A-Za-z_-]+")
# What a number may be called, by the last word: whatever is not called so may be somebody's.
_FIGURES = frozenset({
    "active", "adjusted", "allocated", "allocation", "allocations", "amount", "available", "average", "avg",
    "balance", "billable", "completions", "consumed", "consumption", "cost", "count", "counts", "credit", "credits",
    "day", "days", "granted", "hour", "hours", "inactive", "left", "licensed", "limit", "max", "mean", "median",
    "min", "minutes", "month", "months", "overage", "paid", "percent", "percentage", "purchased", "quarter",
    "quota", "rate", "ratio", "remaining", "requests", "seat", "seats", "spend", "spent", "sum", "total", "totals",
    "units", "unused", "usage", "used", "week", "weeks", "year", "years",
})  # fmt: skip
# What else a field may be called; any other key may be a username.
_WORDS = _FIGURES | frozenset({
    "account", "at", "billing", "bucket", "buckets", "by", "category", "code", "cody", "completion", "created",
    "currency", "current", "cycle", "daily", "data", "date", "description", "email", "end", "ends", "entitlement",
    "expires", "expiry", "feature", "from", "group", "has", "id", "ids", "instance", "is", "items", "kind", "label",
    "last", "list", "login", "member", "members", "model", "monthly", "name", "next", "note", "notes", "of", "on",
    "org", "organization", "over", "owner", "page", "people", "per", "period", "person", "plan", "previous",
    "product", "request", "reset", "result", "results", "service", "source", "start", "starts", "state", "status",
    "team", "tier", "time", "timestamp", "to", "top", "trial", "type", "unit", "until", "updated", "url", "use",
    "user", "username", "users", "value", "version", "yearly",
})  # fmt: skip
_PLURAL = re.compile(r"people|(?!ids).*s")
_MOMENT = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?)?\Z", re.ASCII)
_OF_PEOPLE = re.compile(r"by|.*(user|owner|member|person|people|mail|login)", re.IGNORECASE)

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
    return _shown(value, "", _Hidden())


class _Hidden(dict[str, str]):
    """What each hidden key is shown as: one key is one field, in whichever object of a document it stands."""

    def __missing__(self, key: str) -> str:
        self[key] = f"{HIDDEN} {len(self) + 1}" if self else HIDDEN
        return self[key]


def _shown(value: Any, key: str, hidden: _Hidden, *, figure: bool = False) -> Any:
    """A value as far as it may be shown.

    Args:
        key: what it is the value of; an object that maps people to something has names for keys.
        figure: whether that is shown and says that a number counts or measures; in a list nothing says so.
    """
    if isinstance(value, dict):
        return _fields(value, hidden, of_people=bool(_OF_PEOPLE.match(key)))
    if isinstance(value, list):
        return [_shown(item, "", hidden) for item in value]
    if value is None or isinstance(value, bool):
        return value
    harmless = _MOMENT.match(value) if isinstance(value, str) else figure
    return value if harmless else HIDDEN


def _fields(value: dict[str, Any], hidden: _Hidden, *, of_people: bool) -> dict[str, Any]:
    fields = {}
    for key, item in value.items():
        named = of_people or not _WORDS.issuperset(part.lower() for part in _PART.findall(key))
        name, figure = (hidden[key], False) if named else (key, _is_figure(key))
        fields[name] = _shown(item, key, hidden, figure=figure)
    return fields


def _is_figure(key: str) -> bool:
    """Whether a number of that name counts or measures: `consumed`, `active_users`, `credits_per_user`."""
    *before, last = [word.lower() for word in _PART.findall(key)] or [""]
    several = not _FIGURES.isdisjoint(before[-1:]) and _PLURAL.fullmatch(last)
    return last in _FIGURES or bool(several) or "per" in before[1:]
