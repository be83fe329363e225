"""Have engine processes forked, and ended, by one that has imported the engine; the other side of `forkserver.py`.

A fork takes 5 ms where a start of Python and the engine takes 75 (measured); this process never holds the engine.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import anyio
import anyio.to_thread

from .forkserver import NUMBER

_SCRIPT = Path(__file__).with_name("forkserver.py")
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_ENDS_WITHIN = 0.5  # seconds


@dataclass
class Forked:
    """An engine: what its fork server calls it, and what can be read to its end once it is gone (None afterwards)."""

    number: bytes
    gone: int | None


class Forks:
    """The fork server of this process, started when first needed, and once more should it have died.

    Args:
        control: where a fork server that is there takes orders.
    """

    def __init__(self, control: socket.socket | None = None) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._control = control
        self._process: subprocess.Popen[bytes] | None = None
        self._users = 0

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

    async def fork(self, conversation: socket.socket) -> Forked:
        """Fork an engine that holds this end of a conversation.

        Raises:
            OSError: when the system starts no process.
        """
        gone, buried = os.pipe()
        forked = Forked(next(self._numbers).to_bytes(NUMBER, "big"), gone)
        try:
            with anyio.CancelScope(shield=True):  # a start that is cut off leaves a process that nobody waits for
                await anyio.to_thread.run_sync(self._fork, forked.number, [conversation.fileno(), buried])
        except OSError:
            os.close(gone)
            raise
        finally:
            os.close(buried)
        return forked

    async def end(self, forked: Forked) -> None:
        """Kill an engine and wait until it is gone, as it is with its fork server."""
        if forked.gone is not None:
            with suppress(ConnectionError):
                self._order(forked.number, [])
            await anyio.wait_readable(forked.gone)
            os.close(forked.gone)
            forked.gone = None

    def _fork(self, number: bytes, descriptors: list[int]) -> None:
        with self._lock:
            try:
                self._order(number, descriptors)
            except ConnectionError:
                self._close()
                self._start()
                self._order(number, descriptors)

    def _order(self, number: bytes, descriptors: list[int]) -> None:
        if self._control is None:
            raise BrokenPipeError
        socket.send_fds(self._control, [number], descriptors)

    def _start(self) -> None:
        """No environment, no site, no inherited files but the socket for its orders."""
        path = [_PACKAGE_ROOT, *(p for p in sys.path if p and p != _PACKAGE_ROOT)]
        self._control, theirs = socket.socketpair()
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
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            _end(self._process)
            self._process = None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process end by itself, and kill it if it does not, as one that was stopped."""
    for last_resort in (process.poll, process.kill):
        last_resort()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDS_WITHIN)


forks = Forks()
