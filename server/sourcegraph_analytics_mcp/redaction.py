"""The one redactor: masks the secrets we know, letter by letter, and whatever looks like a token of upstream's.

Real tokens hold a dot after `sams_at_` (documented examples): a mask of word characters would leak their second half.
Text may come escaped, with backslashes in front of letters, as part of an address (`%2B`), or cut: none of it hides a
secret. What SQL makes of a secret, like its letters backwards, is nothing that could be known here.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

_TOKEN = re.compile(r"sams_at_(?:\\*[A-Za-z0-9._~+/=-])+")
_MASK = "[secret]"
SHORTEST = 12  # characters; less of a secret, or of its beginning, may be anything, and our own words are masked
_ESCAPED = re.compile(r"[^A-Za-z0-9]")
LEARNT: set[str] = set()  # every secret that this process came to know, for the log, which all callers share


class _Secret:
    """A secret, and how to find what a cut left of it, with or without backslashes and as addresses have it."""

    def __init__(self, secret: str) -> None:
        self._letters = [(letter, _in_addresses(letter)) for letter in secret]
        head = secret[:SHORTEST]
        self._head = re.compile(r"\\*".join(map(_spelled, head)))
        self.sign = max(_ESCAPED.split(head), key=len)  # a piece of it that no spelling changes

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where it stands, or what a cut left of it."""
        at = 0
        while found := self._head.search(text, at):
            at = max(self._end(text, found.start()), found.end())  # which ends whatever the two make of a letter
            yield found.start(), at

    def _end(self, text: str, at: int) -> int:
        """Where the secret ends, or what is left of it, that begins there."""
        ends = {at}  # several, as `%25` may be a sign of percent or three letters
        for letter, in_addresses in self._letters:
            after = {end for begin in ends for end in _after(text, begin, letter, in_addresses)}
            if not after:
                break
            ends = after
        return max(ends)


def _after(text: str, at: int, letter: str, in_addresses: Collection[str]) -> Iterator[int]:
    """Where a letter ends that may stand there, however it is spelled."""
    while letter != "\\" and text.startswith("\\", at):
        at += 1
    if text.startswith(letter, at):
        yield at + 1
    for spelling in in_addresses:
        if text[at : at + len(spelling)].upper() == spelling:
            yield at + len(spelling)


def _spelled(letter: str) -> str:
    """A pattern for a letter as it is, or as addresses have it."""
    if letter.isascii() and letter.isalnum():
        return letter
    return f"(?:{re.escape(letter)}|(?i:{'|'.join(_in_addresses(letter))}))"


def _in_addresses(letter: str) -> list[str]:
    """How addresses may have a letter; what is not ASCII by its bytes in either encoding that there is of old."""
    encoded = [letter.encode("utf-8", "surrogatepass")]
    encoded += [letter.encode("latin-1")] if "\x7f" < letter < "\u0100" else []
    return ["".join(f"%{byte:02X}" for byte in letter) for letter in encoded]


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """A text with one mask for what is covered by these; they may overlap, as secrets that begin alike do."""
    kept, at = "", 0
    for start, end in sorted(spans):
        if start >= at:
            kept += text[at:start] + _MASK
        at = max(at, end)
    return kept + text[at:]


def told_apart(names: Iterable[str], shown: Callable[[str], str]) -> dict[str, str]:
    """What each of some different names is shown as, with a number where two would be shown as the same."""
    told = {name: shown(name) for name in names}
    taken = {name for name, spelled in told.items() if name == spelled}
    used = Counter[str]()
    for name, spelled in told.items():
        if name == spelled:
            continue
        used[spelled] += 1
        while (numbered := spelled if used[spelled] == 1 else f"{spelled} {used[spelled]}") in taken:
            used[spelled] += 1
        taken.add(numbered)
        told[name] = numbered
    return told


class Redactor:
    """Masks secrets in what leaves.

    Args:
        known: the secrets in use; they may grow meanwhile.
    """

    def __init__(self, known: Collection[str]) -> None:
        self._known = known
        self._count = 0  # of the known that were made
        self._made: list[_Secret] = []

    def text(self, text: str) -> str:
        """The text with every secret masked."""
        spans = [span for secret in self._secrets() if secret.sign in text for span in secret.spans(text)]
        if "sams_at_" in text:
            spans += [token.span() for token in _TOKEN.finditer(text)]
        return _masked(text, spans)

    def data(self, value: Any) -> Any:
        """The same for everything inside a JSON-like value; one without secrets is only looked at."""
        if not self.suspects(repr(value)):
            return value
        return self._masked(value, told_apart(keys(value), self.text))

    def suspects(self, text: str) -> bool:
        """Whether there may be a secret in a text, however it is quoted or escaped; far faster than to mask pieces."""
        return "sams_at_" in text or any(secret.sign in text for secret in self._secrets())

    def _secrets(self) -> list[_Secret]:
        if self._count != len(self._known):
            known = tuple(self._known)  # which may grow under another thread
            plain = {text for text in map(unquote, known) if len(text) >= SHORTEST}  # of one that holds %2B
            self._made = [_Secret(secret) for secret in sorted({*known, *plain}, key=len, reverse=True)]
            self._count = len(known)
        return self._made

    def _masked(self, value: Any, told: Mapping[str, str]) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {told[key]: self._masked(item, told) for key, item in value.items()}
        return [self._masked(item, told) for item in value] if isinstance(value, list) else value


def keys(value: Any) -> Iterator[str]:
    """The keys of all objects inside a JSON-like value: one key is one field, in whichever of them it stands."""
    for item in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        yield from keys(item)
    if isinstance(value, dict):
        yield from value
