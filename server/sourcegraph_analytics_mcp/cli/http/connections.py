"""Connections that cannot be held open: who is slow is cut off, and the longest waiting gives way to newer ones.

Streams wait for nothing that the client would send: when they are too many, the caller with the most gives way.
"""

import asyncio
import logging
import resource
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...surface.crowding import of_whoever_has_most

# Seconds: from the connection, or a request's first byte, to the end of its head; and from there to its end.
_WITHIN = {h11.IDLE: 10.0, h11.SEND_BODY: 30.0}
_READ_WITHIN = 30.0  # seconds in which some of an answer must be taken
_FILES = 4096  # open at once, many times what connections and all else take
_SAID_EVERY = 60.0  # seconds
_GRACE = 0.1  # seconds in which a new one's request is read, however many come with it
_AT_ONCE = struct.pack("ii", 1, 0)  # without waiting for the client to take what is on its way to it
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Most:
    """How many connections there may be.

    Args:
        usually: beyond, those that wait for their client give way soon.
        at_most: beyond, they do so at once.
        streams: answers under way, which may be without an end; the rest is for those who ask.
        waiting: taken from the system at once, before any gives way.
    """

    usually: int = 448
    at_most: int = 640
    streams: int = 512
    waiting: int = 64

    @classmethod
    def within(cls, files: int) -> Self:
        """What leaves room for all else, though up to three times `waiting` are taken before one has given way.

        Args:
            files: how many this process may have open.
        """
        most = min(cls.at_most, files * 5 // 8)
        return cls(most * 7 // 10, most, most * 8 // 10, min(256, max(1, files // 16)))


def raised() -> int:
    """Let this process have as many files open as it may, up to what it can need; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # recent macOS refuses some
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _FILES if soft == resource.RLIM_INFINITY else soft


class Unaccepted:
    """Says now and then that connections cannot be taken, where the loop would do so for each that waits."""

    def __init__(self) -> None:
        self._said = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not ("socket" in context and isinstance(context.get("exception"), OSError)):
            loop.default_exception_handler(context)
        elif loop.time() - self._said > _SAID_EVERY:
            self._said = loop.time()
            _log.warning("Connections cannot be taken: the system has no more open files for this server")


class Connection(H11Protocol):
    """One connection; uvicorn bounds the time between requests, this the time within one."""

    most = Most()
    _waiting: "dict[Connection, None]" = {}  # noqa: RUF012 - of the whole process, in order of age
    _timer: asyncio.TimerHandle | None = None
    _awaited: Any = None  # what the timer is for
    _unread: asyncio.TimerHandle | None = None

    @property
    def caller(self) -> str:
        """Whose request is being answered, where that is known."""
        return str(self.cycle.scope.get("caller", ""))

    @property
    def streams(self) -> bool:
        """Whether an answer has begun that has not ended."""
        return self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.made = self.loop.time()
        self._wait(h11.IDLE)
        if len(self.connections) > self.most.at_most:
            self._make_room()
        elif len(self.connections) > self.most.usually:
            self.loop.call_later(_GRACE, self._make_room)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        state = self.conn.their_state
        if state in _WITHIN and not self.transport.is_closing():
            self._wait(state)
        else:
            self._done_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:  # of a request that came with the one before
            self._wait(h11.SEND_BODY)
        elif self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._waiting[self] = None  # for the next request; until its first byte uvicorn has the time

    def handle_events(self) -> None:
        if self.conn.their_state is h11.IDLE:
            head = self.conn.trailing_data[0].partition(b"\r\n\r\n")[0]
            if _loose(head):
                self.send_400_response("Invalid HTTP request received.")
                return
        super().handle_events()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless there is an answer already; whoever works on one works for nobody."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # there is an answer, or it must have no body
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(_READ_WITHIN, self._look_at_reader, left)

    def _look_at_reader(self, left: int) -> None:
        if self.transport.get_write_buffer_size() < left:
            self._watch_reader()
        else:
            self._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def _wait(self, state: Any) -> None:
        if self._awaited is not state:
            self._done_waiting()
            self._awaited = state
            self._timer = self.loop.call_later(_WITHIN[state], self._give_up)
            self._waiting[self] = None

    def _done_waiting(self) -> None:
        self._waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._awaited = None

    def _make_room(self) -> None:
        if len(self.connections) <= self.most.usually:
            return
        streams = [one for one in self.connections if isinstance(one, Connection) and one.streams]
        if len(streams) > self.most.streams:
            _oldest_of_most(streams)._give_up()
        elif self._waiting:
            next(iter(self._waiting))._give_up()

    def _give_up(self) -> None:
        self._done_waiting()
        self.connections.discard(self)  # at once, so that the newer one is served
        own: socket.socket = self.transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()


def _oldest_of_most(streams: Iterable[Connection]) -> Connection:
    """The oldest connection of the caller with the most."""
    return min(of_whoever_has_most(streams, lambda one: one.caller), key=lambda one: one.made)


def _loose(head: bytes) -> bool:
    """Whether lines end in a way that servers read differently, or go on in the next."""
    return head.count(b"\n") != head.count(b"\r\n") or b"\n " in head or b"\n\t" in head
