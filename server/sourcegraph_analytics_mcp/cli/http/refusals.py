"""What the log says of requests that are refused: why, and how many, never what they held."""

import logging
import time

_APART = 60.0  # seconds between two lines of one reason, so that nobody fills the disk with them
_log = logging.getLogger(__name__)


class Refusals:
    """Counts refusals by status and reason; the first of each is logged, the others summed up once a minute."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str], int] = {}
        self._logged: dict[tuple[int, str], float] = {}

    def tell(self, status: int, reason: str) -> None:
        """Count one.

        Args:
            reason: one word of a few, never from the request.
        """
        kind = (status, reason)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        now = time.monotonic()
        if now - self._logged.get(kind, float("-inf")) < _APART:
            return
        self._logged[kind] = now
        _log.info("refused status=%d reason=%s count=%d", status, reason, self._counts.pop(kind))
