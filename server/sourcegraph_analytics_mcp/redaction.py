"""The one redactor: masks the secrets we know, letter by letter, and whatever looks like a token of upstream's.

Real tokens hold a dot after `sams_at_` (documented examples): a mask of word characters would leak their second half.
Text may come escaped, with backslashes in front of letters, or cut: so neither hides a secret.
"""

import re
from collections.abc import Collection
from typing import Any

_TOKEN = re.compile(r"sams_at_(?:\\*[A-Za-z0-9._~+/=-])+")
_MASK = "[secret]"
_SHORTEST = 12  # characters; less of a secret's beginning may be anything
_ESCAPED = re.compile(r"[^A-Za-z0-9]")


class _Secret:
    """A secret, and how to find what a cut left of it, with or without backslashes."""

    def __init__(self, secret: str) -> None:
        head, self._tail = secret[:_SHORTEST], secret[_SHORTEST:]
        self._head = re.compile(r"\\*".join(map(re.escape, head)))
        self.sign = max(_ESCAPED.split(head), key=len)  # a piece of it that no spelling changes

    def masked(self, text: str) -> str:
        kept, at = "", 0
        while found := self._head.search(text, at):
            kept += text[at : found.start()] + _MASK
            at = self._end(text, found.end())
        return kept + text[at:]

    def _end(self, text: str, at: int) -> int:
        """Where the secret ends whose beginning ends there."""
        for letter in self._tail:
            there = at
            while letter != "\\" and text.startswith("\\", there):
                there += 1
            if not text.startswith(letter, there):
                break
            at = there + 1
        return at


class Redactor:
    """Masks secrets in what leaves.

    Args:
        known: the secrets in use; they may grow meanwhile.
    """

    def __init__(self, known: Collection[str]) -> None:
        self._known = known
        self._made: list[_Secret] = []

    def text(self, text: str) -> str:
        """The text with every secret masked."""
        for secret in self._secrets():
            if secret.sign in text:
                text = secret.masked(text)
        return _TOKEN.sub(_MASK, text) if "sams_at_" in text else text

    def data(self, value: Any) -> Any:
        """The same for everything inside a JSON-like value; one without secrets is only looked at."""
        spelled = repr(value)
        there = "sams_at_" in spelled or any(secret.sign in spelled for secret in self._secrets())
        return self._masked(value) if there else value

    def _secrets(self) -> list[_Secret]:
        if len(self._made) != len(self._known):
            self._made = [_Secret(secret) for secret in sorted(self._known, key=len, reverse=True)]
        return self._made

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self._masked(item) for key, item in value.items()}
        return [self._masked(item) for item in value] if isinstance(value, list) else value
