"""What is one call to whoever asks though it takes several: told to call again, it goes on with what it waited for."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..errors import AnalyticsError
from ..upstream.models import ReportRequest
from .models import Export

_FORGOTTEN_AFTER = 3600.0  # seconds without a word; data refresh every hour
_MOST = 64


@dataclass
class Wish:
    """A wish for data.

    Args:
        reports: what it takes.
        new: whether only data downloaded for it will do; else any of this hour do, too.
        since: when it was first wished for.
        exports: ids of those begun, joined or found for it, which do in whatever hour.
        heard: when its last call ended, monotonic seconds.
    """

    reports: tuple[ReportRequest, ...]
    new: bool
    since: datetime
    exports: set[str] = field(default_factory=set)
    heard: float = 0.0


class Wishes:
    """Who was told to call again, by the reports that it takes and whether they are to be new."""

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[ReportRequest, ...], bool], Wish] = {}

    @contextmanager
    def of(self, reports: Sequence[ReportRequest], *, new: bool) -> Iterator[Wish]:
        """The wish that a call makes or repeats; kept where the call ends in `busy`, which is to be repeated."""
        wish = self.take(reports, new=new)
        try:
            yield wish
        except AnalyticsError as error:
            if error.code == "busy":
                self.keep(wish)
            raise

    def take(self, reports: Sequence[ReportRequest], *, new: bool) -> Wish:
        """The wish that a call makes or repeats; it ends with the call, however that ends, unless it is kept."""
        wish = self._kept.pop((tuple(reports), new), None)
        if wish is None or time.monotonic() - wish.heard > _FORGOTTEN_AFTER:
            return Wish(tuple(reports), new, datetime.now(UTC))
        return wish

    def keep(self, wish: Wish) -> None:
        """Its call ends, and was told to call again."""
        wish.heard = time.monotonic()
        key = (wish.reports, wish.new)
        self._kept.pop(key, None)
        self._kept[key] = wish
        if len(self._kept) > _MOST:
            del self._kept[next(iter(self._kept))]  # longest not heard of

    def answered(self, reports: Sequence[ReportRequest], exports: Collection[Export]) -> None:
        """Any call was answered: who has seen data of a wish, or newer ones, wants newer ones yet by the next."""
        for new in (False, True):
            wish = self._kept.get((tuple(reports), new))
            if wish and any(export.id in wish.exports or export.created_at >= wish.since for export in exports):
                del self._kept[wish.reports, new]
