"""The log's line for a call: what was called, how it ended, how long it took and how much came back; no content."""

import logging
import time
from collections.abc import Callable, Iterable

from .text import safe

_log = logging.getLogger(__name__)


class Event:
    """One call, from its beginning until it is logged.

    Args:
        what: what is called, in words of ours.
        who: gives the name of whoever calls for the log, None where there is but one.
        number: the request's id, as the client chose it.
    """

    def __init__(self, what: str, who: Callable[[], str] | None, number: object = None) -> None:
        self._what = what
        self._who = who
        self._number = number
        self._begun = time.monotonic()
        self.outcome = "cancelled"
        self.rows = 0
        self.texts: Iterable[str] = ()  # what came back

    def log(self) -> None:
        """Write the line."""
        if not _log.isEnabledFor(logging.INFO):
            return
        elapsed = (time.monotonic() - self._begun) * 1000
        held = sum(len(text.encode("utf-8", "replace")) for text in self.texts)
        more = [] if self._who is None else [f"caller={self._who()}"]
        more += [] if self._number is None else [f"id={safe(str(self._number))[:40]}"]
        _log.info(
            "call %s outcome=%s ms=%.0f rows=%d bytes=%d %s",
            self._what, self.outcome, elapsed, self.rows, held, " ".join(more),
        )  # fmt: skip
