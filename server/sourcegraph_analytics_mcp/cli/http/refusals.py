"""What the log says of requests that are refused: why, and how many, never what they held."""

import asyncio
import logging
from collections import Counter

_APART = 60.0  # seconds between two lines of one reason, so that nobody fills the disk with them
_log = logging.getLogger(__name__)
_Kind = tuple[int, str]


class Refusals:
    """Counts refusals by status and reason; the first of each is logged, the others summed up once a minute."""

    def __init__(self) -> None:
        self._untold: Counter[_Kind] = Counter()
        self._minutes: dict[_Kind, asyncio.TimerHandle] = {}  # since a line of that kind

    def tell(self, status: int, reason: str) -> None:
        """Count one.

        Args:
            reason: one word of a few, never from the request.
        """
        kind = (status, reason)
        self._untold[kind] += 1
        if kind not in self._minutes:
            self._minute_over(kind)

    def end(self) -> None:
        """Say what is untold, as there is no next minute."""
        for minute in self._minutes.values():
            minute.cancel()
        self._minutes.clear()
        for kind in [*self._untold]:
            self._say(kind)

    def _minute_over(self, kind: _Kind) -> None:
        self._minutes.pop(kind, None)
        if kind in self._untold:
            self._say(kind)
            self._minutes[kind] = asyncio.get_running_loop().call_later(_APART, self._minute_over, kind)

    def _say(self, kind: _Kind) -> None:
        _log.info("refused status=%d reason=%s count=%d", *kind, self._untold.pop(kind))
