"""Short work on the disk, in the loop while the disk is quick and in a thread once it is not."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread

T = TypeVar("T")
_SLOW = 0.05  # seconds; other calls wait meanwhile


class Disk:
    """Runs short work on the disk in the loop (a thread costs 0.1 ms) until the disk proves slow."""

    def __init__(self) -> None:
        self._slow = False

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do the work and return what it returns."""
        if self._slow:
            return await anyio.to_thread.run_sync(work, *arguments)
        begun = time.monotonic()
        try:
            return work(*arguments)
        finally:
            self._slow = time.monotonic() - begun > _SLOW
