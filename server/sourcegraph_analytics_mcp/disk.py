"""Work that may take long, in a thread; short work on the disk in the loop while the disk is quick."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from .errors import used_up

T = TypeVar("T")
_SLOW = 0.05  # seconds; other calls wait meanwhile


async def in_thread(
    work: Callable[..., T], *arguments: Any, limiter: anyio.CapacityLimiter | None = None, leave: bool = False
) -> T:
    """Do work in a thread and return what it returns.

    Args:
        limiter: of threads at once, in place of the usual one.
        leave: whether who is cancelled leaves the thread to itself, and does not wait for it.

    Raises:
        AnalyticsError: `busy` when the system has no more threads; then nothing was done.
    """
    try:
        return await anyio.to_thread.run_sync(work, *arguments, limiter=limiter, abandon_on_cancel=leave)
    except RuntimeError as error:
        if (busy := used_up(error)) is None:
            raise
        raise busy from error


async def surely(work: Callable[..., T], *arguments: Any, limiter: anyio.CapacityLimiter | None = None) -> T:
    """Do what must not be left undone: in a thread, and where there are no more of them in the loop, which waits.

    So it is for work that ends by itself, not for what may ask somebody.

    Args:
        limiter: of threads at once, in place of the usual one.
    """
    begun = False

    def begin() -> T:
        nonlocal begun
        begun = True
        return work(*arguments)

    try:
        return await anyio.to_thread.run_sync(begin, limiter=limiter)
    except RuntimeError:
        if begun:
            raise
        return work(*arguments)


class Disk:
    """Runs short work on the disk in the loop (a thread costs 0.1 ms) until the disk proves slow."""

    def __init__(self) -> None:
        self._slow = False

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do the work and return what it returns."""
        if self._slow:
            return await in_thread(work, *arguments)
        begun = time.monotonic()
        try:
            return work(*arguments)
        finally:
            self._slow = time.monotonic() - begun > _SLOW
