"""The log's line for a call: what was called, how it ended, how long it took and how much came back; no content."""

import logging
import time
from collections.abc import Callable, Iterable

from ..exports.downloads import Download
from ..spelling import safe

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
        held = sum(len(text.encode("utf-8", "replace")) for text in self.texts)
        more = [] if self._number is None else [f"id={safe(str(self._number))[:40]}"]
        what = f"call {self._what}"
        _write(what, self.outcome, time.monotonic() - self._begun, self.rows, held, _by(self._who) + more)


def log_end(download: Download, who: Callable[[], str] | None) -> None:
    """Write the line of a download that went on when its call had its answer."""
    if download.left_running:
        failed = "cancelled" if download.error is None else download.error.code
        outcome, rows = (failed, 0) if download.export is None else ("ok", download.export.row_count)
        _write("download", outcome, download.ended - download.begun, rows, download.received, _by(who))


def _by(who: Callable[[], str] | None) -> list[str]:
    return [] if who is None else [f"caller={who()}"]


def _write(what: str, outcome: str, seconds: float, rows: int, held: int, more: list[str]) -> None:
    _log.info("%s outcome=%s ms=%.0f rows=%d bytes=%d %s", what, outcome, seconds * 1000, rows, held, " ".join(more))
