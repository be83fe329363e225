"""What may be shown of a document that nobody documented, where people are shown by pseudonym: what can name nobody."""

import re
from typing import Any

_HIDDEN = "(hidden)"
_FIELD = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}\Z")  # digits are of ids and usernames more often than of fields
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
        if keyed_by_people or not _FIELD.match(key):
            unnamed += 1
            name = _HIDDEN if unnamed == 1 else f"(hidden {unnamed})"  # so that no figure takes another's place
        shown[name] = nameless(item, key)
    return shown
