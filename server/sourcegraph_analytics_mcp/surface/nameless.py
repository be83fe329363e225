"""What may be shown of a document that nobody documented, where people are shown by pseudonym: what can name nobody."""

import re
from typing import Any

_HIDDEN = "(hidden)"
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
_ID = re.compile(r"((?i:u?id)|.*([_-]id|I[dD]))s?\Z")


def nameless(value: Any, key: str = "") -> Any:
    """The numbers, booleans, dates and field names of a JSON-like value; everything else in it is spelled as hidden.

    Args:
        key: what it is the value of; an object that maps people to something has names for keys, an id may be a number.
    """
    if isinstance(value, dict):
        return _fields(value, keyed_by_people=bool(_OF_PEOPLE.match(key)))
    if isinstance(value, list):
        return [_in_list(item, key) for item in value]
    if value is None or isinstance(value, bool):
        return value
    harmless = _MOMENT.match(value) if isinstance(value, str) else not _ID.match(key)
    return value if harmless else _HIDDEN


def _in_list(item: Any, key: str) -> Any:
    """One of several; an object among them is a record, whose keys are fields whatever the list is of."""
    return _fields(item, keyed_by_people=False) if isinstance(item, dict) else nameless(item, key)


def _fields(value: dict[str, Any], *, keyed_by_people: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    unnamed = 0
    for key, item in value.items():
        name = key
        if keyed_by_people or not _WORDS.issuperset(part.lower() for part in _PART.findall(key)):
            unnamed += 1
            name = _HIDDEN if unnamed == 1 else f"(hidden {unnamed})"  # so that no figure takes another's place
        shown[name] = nameless(item, key)
    return shown
