"""The one redactor: masks the secrets we know, letter by letter, and whatever looks like a token of upstream's.

Real tokens hold a dot after `sams_at_` (documented examples): a mask of word characters would leak their second half.
"""

import re
from collections.abc import Collection
from typing import Any

_TOKEN = re.compile(r"sams_at_[A-Za-z0-9._~+/=-]+")
_MASK = "[secret]"


class Redactor:
    """Masks secrets in what leaves.

    Args:
        known: the secrets in use; they may grow meanwhile.
    """

    def __init__(self, known: Collection[str]) -> None:
        self._known = known
        self._pieces: tuple[str, ...] = ()

    def text(self, text: str) -> str:
        """The text with every secret masked."""
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, _MASK)
        return _TOKEN.sub(_MASK, text) if "sams_at_" in text else text

    def data(self, value: Any) -> Any:
        """The same for everything inside a JSON-like value; one without secrets is only looked at."""
        spelled = repr(value)
        return self._masked(value) if any(sign in spelled for sign in self._signs()) else value

    def _signs(self) -> tuple[str, ...]:
        """What every spelling of a value with a secret in it holds: pieces that no spelling escapes."""
        if len(self._pieces) != len(self._known) + 1:
            self._pieces = ("sams_at_", *(max(re.split(r"['\"\\]", secret), key=len) for secret in self._known))
        return self._pieces

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self._masked(item) for key, item in value.items()}
        return [self._masked(item) for item in value] if isinstance(value, list) else value
