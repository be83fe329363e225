"""Exports being made: one download per question, shared by everybody who asks it, whoever waits for it."""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO, cast

import anyio
from anyio.abc import TaskGroup

from ..disk import Disk, in_thread, surely
from ..errors import UNFORESEEN, AnalyticsError, unforeseen
from ..files import disk_error
from ..upstream.analytics import Analytics
from ..upstream.http import Answer
from ..upstream.models import ReportRequest
from .columns import Field
from .engine.conversion import Ingestion, ingestion
from .missing import under_way, unknown
from .models import Export
from .staging import Staging
from .store import Store
from .wishes import Wish

_SAMPLE = 4 << 20  # bytes
_SHRINKS = 4  # times at least, by gzip: a report of random figures (measured)
_UNTOLD_FOR = 600.0  # seconds; who asks later is better served by another try
_MOST_UNTOLD = 16
_log = logging.getLogger(__name__)


@dataclass
class Download:
    """One export on its way.

    Args:
        received: bytes so far.
        fraction: of the bytes on the wire, where upstream says how many there are.
        begun, ended: when it began and was done, monotonic seconds.
    """

    id: str
    request: ReportRequest
    started_at: datetime
    received: int = 0
    sample: int = 0
    sample_rows: int = 0
    fraction: float | None = None
    waiting: int = 0
    left_running: bool = False
    export: Export | None = None
    error: AnalyticsError | None = None
    begun: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def rows(self) -> int:
        """About how many lines there are in what was received, judged by its beginning."""
        return self.received * self.sample_rows // max(self.sample, 1)

    def begin(self) -> None:
        """Begin to receive, from nothing."""
        self.received = self.sample = self.sample_rows = 0

    def receive(self, piece: bytes, fraction: float | None) -> None:
        """Note what has come; counting the lines of everything would cost a tenth of a download's CPU time."""
        self.received += len(piece)
        self.fraction = fraction
        if self.sample < _SAMPLE:
            self.sample += len(piece)
            self.sample_rows += piece.count(b"\n")

    def result(self) -> Export | None:
        """The export, None while it is running.

        Raises:
            AnalyticsError: what the download failed with.
        """
        if self.error is not None:
            raise self.error
        return self.export


class Downloads:
    """Makes exports in the background and keeps them.

    Args:
        upstream: the address that the analytics come from; an export of another one answers no request.
        on_change: awaited after an export has been added.
        on_end: called for each download that is done, however it ended.
        admit: called before a download begins; what it raises is said instead.
    """

    def __init__(
        self,
        analytics: Analytics,
        store: Store,
        upstream: str,
        max_export_bytes: int,
        tasks: TaskGroup,
        on_change: Callable[[], Awaitable[None]],
        on_end: Callable[[Download], None],
        admit: Callable[[], None],
    ) -> None:
        self._analytics = analytics
        self._store = store
        self._upstream = upstream
        self._limit = max_export_bytes
        self._tasks = tasks
        self._on_change = on_change
        self._on_end = on_end
        self._admit = admit
        self._running: dict[ReportRequest, Download] = {}
        self._untold: dict[ReportRequest, Download] = {}  # failed while nobody waited, oldest first

    @property
    def running(self) -> list[Download]:
        """Downloads that are not done, newest first."""
        return sorted(self._running.values(), key=lambda download: download.started_at, reverse=True)

    async def export(self, export_id: str) -> Export:
        """Look up an export that is kept.

        Raises:
            AnalyticsError: `busy` while it is running, `not_found`, or `store_corrupt` when its files are not whole.
        """
        self._check_ended(export_id)
        return await in_thread(self._store.get, export_id)

    async def delete(self, export_id: str) -> None:
        """Remove every copy of an export.

        Raises:
            AnalyticsError: `busy` while it is running, `not_found`, or `store_corrupt` when it cannot be removed.
        """
        self._check_ended(export_id)
        if not await in_thread(self._store.delete, export_id):
            raise unknown()

    def _check_ended(self, export_id: str) -> None:
        if any(download.id == export_id for download in self._running.values()):
            raise under_way()

    def kept(self, request: ReportRequest, wish: Wish) -> Export | None:
        """An export of the same request to this upstream that will do for a wish."""
        for export in self._store.fresh(self._upstream, wish):
            if export.request == request:
                with suppress(AnalyticsError, OSError):  # one that is damaged is downloaded again
                    whole = self._store.get(export.id)
                    if self._store.holds_what_was_sent(whole):
                        return whole
        return None

    def start(self, request: ReportRequest, wish: Wish) -> Download:
        """Begin a download, or join the one for the same request that is running, or has failed unheard.

        Args:
            wish: what it is for; the wish is granted by what the download brings, in whatever call.
        """
        download = self._running.get(request) or self._failed_unheard(request)
        if download is None:
            self._admit()
            staging = self._store.stage()
            download = self._running[request] = Download(staging.id, request, datetime.now(UTC))
            self._tasks.start_soon(self._run, download, staging)
        wish.exports.add(download.id)
        return download

    async def wait(self, download: Download, seconds: float) -> None:
        """Wait until a download is done, or for so long, after which it goes on by itself.

        A download that nobody waits for any more, and that nobody left running on purpose, is stopped at once.
        """
        download.waiting += 1
        try:
            with anyio.move_on_after(seconds):
                await download.done.wait()
        except anyio.get_cancelled_exc_class():
            if download.waiting == 1 and not download.left_running:
                download.scope.cancel()
                self._forget(download)  # who asks from now on must not join what is ending
            raise
        finally:
            download.waiting -= 1
        download.left_running |= not download.done.is_set()

    async def _run(self, download: Download, staging: Staging) -> None:
        try:
            with download.scope:
                download.export = await self._export(download, staging)
            if download.export is None:
                download.error = AnalyticsError("cancelled", "The export was cancelled.", "Nothing was kept.")
        except AnalyticsError as error:
            download.error = error
        except OSError as error:
            download.error = disk_error(error)
        except UNFORESEEN as error:  # a bug must not end the server
            download.error = unforeseen(error, "An export", "The export failed.")
        finally:
            with anyio.CancelScope(shield=True):
                await surely(staging.close)
            self._forget(download)
            download.ended = time.monotonic()
            self._keep_untold(download)
            self._on_end(download)
            download.done.set()
        if download.export is not None:
            await self._on_change()

    def _failed_unheard(self, request: ReportRequest) -> Download | None:
        """A download that failed in the background not long ago; given once, so that the next call tries again."""
        download = self._untold.pop(request, None)
        if download is None or download.error is None or (ago := time.monotonic() - download.ended) > _UNTOLD_FOR:
            return None
        download.error = _told_late(download.error, round(ago))
        return download

    def _keep_untold(self, download: Download) -> None:
        if download.error is None or not download.left_running or download.waiting:
            return
        self._untold[download.request] = download
        if len(self._untold) > _MOST_UNTOLD:
            del self._untold[next(iter(self._untold))]

    def _forget(self, download: Download) -> None:
        if self._running.get(download.request) is download:
            del self._running[download.request]

    async def _export(self, download: Download, staging: Staging) -> Export:
        async with ingestion(staging.csv, staging.parts, download.request.granularity) as conversion:

            async def receive(report: Answer) -> dict[str, object]:
                await conversion.clear()
                staging.csv.unlink(missing_ok=True)  # of an attempt before, whose room this one needs
                self._store.room_for(report.length and report.length * (_SHRINKS if report.packed else 1))
                return await _store_report(report, download, staging, conversion)

            facts = await self._analytics.report(download.request, self._limit, receive)
        stored = sum(path.stat().st_size for path in staging.folder.rglob("*") if path.is_file())
        export = Export.model_validate(
            {
                **download.request.model_dump(),
                **facts,
                "id": download.id,
                "upstream": self._upstream,
                "created_at": download.started_at,
                "stored_bytes": stored,
            }
        )
        return await in_thread(self._store.commit, staging, export)


def _told_late(error: AnalyticsError, ago: int) -> AnalyticsError:
    """The same failure after so many seconds, of which a wait has gone by."""
    when = f"That was in the background, {ago} second{'' if ago == 1 else 's'} ago:"
    wait = error.retry_after_seconds
    left = max(0, round(wait - ago)) if wait else 0
    what = "" if wait else f"{error.next_step} "  # which would be how long to wait
    step = f"wait {left} seconds, then call again." if left else "call again to try anew."
    return AnalyticsError(
        error.code, error.message, f"{what}{when} {step}", retryable=error.retryable, retry_after_seconds=left or None
    )


async def _store_report(
    report: Answer, download: Download, staging: Staging, conversion: Ingestion
) -> dict[str, object]:
    """Write a report's bytes as they come, with its conversion running beside; returns the description."""
    download.begin()
    disk = Disk()
    with _private_file(staging) as file:
        await conversion.begin()
        async for piece in report.body:
            await disk.run(_write_all, file.fileno(), piece)
            download.receive(piece, min(1.0, report.wire_bytes() / report.length) if report.length else None)
            await conversion.grown(download.received)
    facts = await conversion.finish(download.received)
    facts["fields"] = [Field(**f) for f in facts["fields"]]
    return facts


def _private_file(staging: Staging) -> BinaryIO:
    descriptor = os.open(staging.csv, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    return cast(BinaryIO, os.fdopen(descriptor, "wb", buffering=0))


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: the system may take less at once without an error."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
