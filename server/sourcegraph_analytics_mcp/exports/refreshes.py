"""What "download again" means when an answer takes several calls: one wish, which lasts while its downloads go on."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..upstream.models import ReportRequest
from .models import Export

_FORGOTTEN_AFTER = 3600.0  # seconds without a word; data refresh every hour
_MOST = 64


@dataclass
class Wish:
    """A wish for new data.

    Args:
        reports: what is to be downloaded again.
        since: when it was first wished for.
        downloads: ids of those begun or joined for it, which are those of their exports; no other export grants it.
        heard: when its last call ended, monotonic seconds.
    """

    reports: tuple[ReportRequest, ...]
    since: datetime
    downloads: set[str] = field(default_factory=set)
    heard: float = 0.0


class Refreshes:
    """Who asked for new data and was told to call again, by the reports that it takes."""

    def __init__(self) -> None:
        self._wishes: dict[tuple[ReportRequest, ...], Wish] = {}

    def take(self, reports: Sequence[ReportRequest]) -> Wish:
        """The wish that a call makes or repeats; it ends with the call, however that ends, unless it is kept."""
        wish = self._wishes.pop(tuple(reports), None)
        if wish is None or time.monotonic() - wish.heard > _FORGOTTEN_AFTER:
            return Wish(tuple(reports), datetime.now(UTC))
        return wish

    def keep(self, wish: Wish) -> None:
        """Its call ends, and was told to call again."""
        wish.heard = time.monotonic()
        self._wishes.pop(wish.reports, None)
        self._wishes[wish.reports] = wish
        if len(self._wishes) > _MOST:
            del self._wishes[next(iter(self._wishes))]  # longest not heard of

    def answered(self, reports: Sequence[ReportRequest], exports: Collection[Export]) -> None:
        """Any call was answered: who has seen data of a wish, or newer ones, wants newer ones yet by the next."""
        wish = self._wishes.get(tuple(reports))
        if wish and any(export.id in wish.downloads or export.created_at >= wish.since for export in exports):
            del self._wishes[wish.reports]
