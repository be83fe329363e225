"""Wait for a download as long as clients do, saying how far it is, and keep what it brought while it is needed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from ..disk import in_thread
from ..errors import AnalyticsError
from ..exports.downloads import Download
from ..exports.models import Export
from .app import App
from .call import Call
from .text import plural, size

_LOOK_EVERY = 0.25  # seconds
_WHOLE = 100.0  # of a download, in per cent


async def wait_for(app: App, download: Download, call: Call, parts: int = 1) -> Export | None:
    """The export, or None where it goes on in the background as the call's time is up, whatever that was spent on.

    Args:
        parts: how many downloads the call may take from this one on.

    Raises:
        AnalyticsError: what the download failed with.
    """

    async def report() -> None:
        while True:
            await anyio.sleep(_LOOK_EVERY)
            known = None if download.fraction is None else round(download.fraction * 100, 1)
            done, total = (_arrived(app, download), None) if known is None else (known, _WHOLE)
            far = "" if app.masked else f"{size(download.received)}, "
            await call.progress(done, total, f"{far}about {plural(max(download.rows - 1, 0), 'row')}", parts=parts)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(report)
        try:
            await app.downloads.wait(download, call.left_of(app.settings.answer_within))
        finally:
            tasks.cancel_scope.cancel()
    call.pass_by(_arrived(app, download) if download.fraction is None else _WHOLE)
    return download.result()


def _arrived(app: App, download: Download) -> int:
    return download.rows if app.masked else download.received


@asynccontextmanager
async def reading(app: App) -> AsyncIterator[None]:
    """Lose no export of a call that needs several; when it is done, the store is within its limits again."""
    leave = await in_thread(app.store.readers.enter)
    try:
        yield
    finally:
        leave()
        with anyio.CancelScope(shield=True), suppress(AnalyticsError):  # logged by then; the call has its answer
            if await in_thread(app.store.settle):
                await app.notices.exports_changed()


async def prepare(app: App) -> None:
    """Prepare the store for what is new, and announce what went for it.

    Raises:
        AnalyticsError: `store_full` or `store_corrupt` when the data directory cannot be used.
    """
    if await in_thread(app.store.prepare):
        await app.notices.exports_changed()
