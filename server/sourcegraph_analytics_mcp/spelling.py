"""How values from strangers are spelled, so that all of each can be seen; the same text measures, cuts and shows one.

Nothing is deleted, so that two different names never become equal; what cannot be seen is spelled out.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_LOOKS_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\u180b\u180c\u180d\u180e")
_SPELLED = re.compile(r"\\(u\{[0-9A-F]{1,6}\})", re.IGNORECASE)  # which text may hold of its own
_JOINERS = {"\u200d", "\ufe0f"}  # what emoji sequences are made of; fine behind a symbol


def safe(text: str) -> str:
    """Spell out what cannot be seen in a value, once: two values never look the same, and each can be told again."""
    return visible(_SPELLED.sub(r"\\u{005C}\1", text) if "\\u{" in text else text)


def visible(text: str) -> str:
    """Spell out control, bidirectional, invisible and unencodable characters as `\\u{202E}`.

    Text of ours that may hold values made safe already stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    before = ""
    for char in text:
        joins = char in _JOINERS and unicodedata.category(before or " ") in ("So", "Sk")
        hidden = unicodedata.category(char) in _UNSEEN or char in _LOOKS_BLANK or "\ufe00" <= char <= "\ufe0f"
        shown.append(f"\\u{{{ord(char):04X}}}" if hidden and not joins else char)
        before = before if joins else char
    return "".join(shown)


def safe_data(value: Any, spell: Callable[[str], str] = safe) -> Any:
    """The same for everything inside a JSON-like value, keys included."""
    if isinstance(value, str):
        return spell(value)
    if isinstance(value, dict):
        return {spell(str(key)): safe_data(item, spell) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [safe_data(item, spell) for item in value]
    return value


def told(value: object, spell: Callable[[str], str] = safe) -> str:
    """One value as text in which everything can be seen: nothing as no text, all that is no text itself as JSON."""
    if isinstance(value, str):
        return spell(value)
    if value is None or isinstance(value, int | float | list | dict):
        return "" if value is None else "".join(pieces(value, spell))
    return spell(str(value))


def pieces(value: Any, spell: Callable[[str], str] = safe) -> Iterator[str]:
    """The JSON of a value, bit by bit, so that of an endless one nobody need make all; `NaN` is a bit of its own."""
    match value:
        case dict():
            yield "{"
            for number, (key, item) in enumerate(value.items()):
                yield f"{', ' if number else ''}{_quoted(spell(str(key)))}: "
                yield from pieces(item, spell)
            yield "}"
        case list() | tuple():
            yield "["
            for number, item in enumerate(value):
                yield ", " if number else ""
                yield from pieces(item, spell)
            yield "]"
        case None | bool() | int() | float():
            yield json.dumps(value)
        case _:
            yield _quoted(spell(str(value)))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
