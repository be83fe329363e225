"""Who is reading several exports at once, in whatever process: a lock of the kernel's, shared by all who read."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..files import private_home


class Readers:
    """The readers of one data directory; a lock ends with its process, so that nobody dead is waited for.

    Args:
        home: the data directory; made when somebody reads.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def enter(self) -> Callable[[], None]:
        """Be one of those who read, until the function that this returns is called; waits for a sweep to end."""
        with suppress(OSError):  # where nothing can be written, nothing is swept either
            private_home(self._home)
            lock = self._opened()
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_SH)
            return lambda: os.close(lock)
        return lambda: None

    @contextmanager
    def nobody(self) -> Iterator[bool]:
        """Whether nobody reads, which holds until the end of the block; no where that cannot be told."""
        try:
            lock = self._opened()
        except OSError:
            yield False
            return
        try:
            yield _alone(lock)
        finally:
            os.close(lock)

    def _opened(self) -> int:
        return os.open(self._home / ".reading", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
