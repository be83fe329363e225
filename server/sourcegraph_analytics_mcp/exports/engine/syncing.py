"""Bring files to the disk while others are still being made, so that the commit has little left to wait for."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ...files import sync


class Syncing:
    """Syncs files beside the work, one at a time.

    What fails is raised at the end: the system reports a lost write once, so it must not go unheard.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "sync")
        self._asked: list[Future[None]] = []

    def soon(self, path: Path) -> None:
        """Sync what is in a file by now."""
        self._asked.append(self._pool.submit(sync, path))

    def finish(self) -> None:
        """Wait for everything that was asked.

        Raises:
            OSError: when one of them failed.
        """
        self._pool.shutdown()
        for asked in self._asked:
            asked.result()
