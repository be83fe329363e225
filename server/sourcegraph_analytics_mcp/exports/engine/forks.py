"""Have engine processes forked, and ended, by one that has imported the engine; the other side of `forkserver.py`.

A fork takes 5 ms where a start of Python and the engine takes 75 (measured); this process never holds the engine.
An order is not waited for: the first line of the conversation says that it was followed.

Who ends whom: the fork server its engines, when it is told to or nobody can tell it any more; this process the fork
server, when nobody uses it any more, when it does not obey, being stopped or stuck, and when this process leaves; the
system an engine whose fork server has died (on Linux; elsewhere the end of its conversation does, between two
questions). Whoever speaks to what has died hears the end of the conversation, and the next order starts another.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path

import anyio

from ...disk import in_thread, surely
from ...errors import used_up
from .forkserver import NUMBER

_SCRIPT = Path(__file__).with_name("forkserver.py")
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_PACKAGE = "sourcegraph-analytics-mcp"
_VERSION = version(_PACKAGE)
_ENDS_WITHIN = 0.5  # seconds
_OBEYS_WITHIN = 5.0  # seconds; one that does not has been stopped, or cannot go on
_STARTS_WITHIN = 20.0  # seconds; it imports the engine first, on a slow disk, too
_log = logging.getLogger(__name__)


class Replaced(OSError):
    """The files that a fork server would be started from are gone, or of another version than this process."""


@dataclass(frozen=True)
class Forked:
    """An engine: its number, our end of the conversation, which ends when it is gone, and what it was forked from."""

    number: bytes
    conversation: socket.socket
    server: subprocess.Popen[bytes] | None


class Forks:
    """The fork server of this process, started when first needed, and once more should it have died.

    Args:
        control: where a fork server that is there takes orders.

    Attributes:
        patience: seconds in which the fork server has to do what it is told; more until it is known to have started.
    """

    def __init__(self, control: socket.socket | None = None) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._control = control
        self._process: subprocess.Popen[bytes] | None = None
        self._users = 0
        self.patience = _OBEYS_WITHIN

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep what has been started meanwhile; when the last user leaves it ends."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._close()

    async def fork(self) -> Forked:
        """Order an engine; cut off, this leaves a process that nobody waits for.

        Raises:
            OSError: when the system starts no process; `Replaced` when none of this version can be started.
        """
        return await in_thread(self._fork, limiter=_at_once())

    def obeyed(self, forked: Forked) -> None:
        """Take note that an engine was forked as ordered."""
        if self._process is forked.server:
            self.patience = _OBEYS_WITHIN

    async def dismiss(self, forked: Forked) -> None:
        """End the fork server that an engine was ordered of, and all its engines; the next order starts another."""
        await in_thread(self._dismiss, forked, limiter=_at_once())

    def leave(self) -> None:
        """End the fork server because this process ends at once: whoever uses it, and whatever threads wait for."""
        self._close()

    async def end(self, forked: Forked) -> None:
        """Kill an engine and wait until it is gone.

        The whole fork server goes where it does not see to that; what is still there then is waited for no longer.
        """
        if forked.conversation.fileno() < 0:
            return
        for so in (self._kill, self._dismiss):
            await surely(so, forked, limiter=_at_once())
            with anyio.move_on_after(self.patience):
                await _gone(forked.conversation)
                break
        forked.conversation.close()

    def _fork(self) -> Forked:
        number = next(self._numbers).to_bytes(NUMBER, "big")
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                try:
                    self._order(number, [theirs.fileno()])
                except (ConnectionError, TimeoutError):
                    self._close()
                    self._start()
                    self._order(number, [theirs.fileno()])
                return Forked(number, ours, self._process)
        except BaseException:
            ours.close()
            raise

    def _kill(self, forked: Forked) -> None:
        with self._lock, suppress(OSError):  # what does not hear it is dismissed
            self._order(forked.number, [])

    def _dismiss(self, forked: Forked) -> None:
        with self._lock:
            if self._process is forked.server:
                _log.warning("A fork server that does not obey is ended, and all its engines with it")
                self._close()

    def _order(self, number: bytes, descriptors: list[int]) -> None:
        if self._control is None:
            raise BrokenPipeError
        self._control.settimeout(_OBEYS_WITHIN)
        socket.send_fds(self._control, [number], descriptors)

    def _start(self) -> None:
        """No environment, no site, no inherited files but the socket for its orders."""
        if _installed() != _VERSION:  # by an upgrade since; the two need not understand each other
            raise Replaced
        path = [_PACKAGE_ROOT, *(p for p in sys.path if p and p != _PACKAGE_ROOT)]
        self._control, theirs = socket.socketpair()
        self.patience = _STARTS_WITHIN
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SCRIPT), json.dumps(path)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what engines have to say of an error comes as an answer
                env={"PYTHONUTF8": "1", **{k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}},
            )

    def _close(self) -> None:
        """End the fork server, and all engines with it."""
        control, self._control = self._control, None
        if control is not None:
            control.close()
        if (process := self._process) is not None:
            _end(process)
            self._process = None  # not before: who leaves meanwhile has to see to it, too


def _installed() -> str | None:
    """The version whose files are there; None where there is none, or not all of one, as while it is upgraded.

    Raises:
        OSError, MemoryError: where the system has no more of what it takes to tell.
    """
    try:
        return version(_PACKAGE)
    except Exception as error:  # what half a description leads to differs between versions of Python
        if used_up(error) is not None:
            raise
        return None


def _at_once() -> anyio.CapacityLimiter:
    """What lets a thread begin though all others are taken: no query may go on until a slow disk has done its work."""
    return anyio.CapacityLimiter(1)


async def _gone(conversation: socket.socket) -> None:
    """Wait until nobody holds the other end, whatever was still said there."""
    with suppress(ConnectionError):
        while True:
            await anyio.wait_readable(conversation)
            if not conversation.recv(1 << 16, socket.MSG_DONTWAIT):
                return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process end by itself, and kill it if it does not, as one that was stopped."""
    for last_resort in (process.poll, process.kill):
        last_resort()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDS_WITHIN)


forks = Forks()
