"""What "download again" means when an answer takes several calls: one wish, which lasts until it is answered."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..upstream.models import ReportRequest

_FORGOTTEN_AFTER = 3600.0  # seconds without a word; data refresh every hour
_MOST = 64


@dataclass
class _Wish:
    since: datetime
    heard: float


class Refreshes:
    """Who asked for new data and has no answer yet, by the reports that it takes."""

    def __init__(self) -> None:
        self._wishes: dict[tuple[ReportRequest, ...], _Wish] = {}

    def since(self, reports: Sequence[ReportRequest]) -> datetime:
        """What these reports must not be older than: when they were first wished for."""
        now = time.monotonic()
        wish = self._wishes.pop(tuple(reports), None)
        if wish is None or now - wish.heard > _FORGOTTEN_AFTER:
            wish = _Wish(datetime.now(UTC), now)
        wish.heard = now
        self._wishes[tuple(reports)] = wish
        if len(self._wishes) > _MOST:
            del self._wishes[next(iter(self._wishes))]  # longest not heard of
        return wish.since

    def answered(self, reports: Sequence[ReportRequest]) -> None:
        """Who asks again from now on wants newer ones."""
        self._wishes.pop(tuple(reports), None)
