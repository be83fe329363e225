"""Connections that cannot be held open: a slow head is cut off, and the longest waiting gives way to newer ones."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD_WITHIN = 10.0  # seconds from a request's first byte, or the connection, to the end of its head
_MOST_WAITING = 256


class Connection(H11Protocol):
    """One connection; uvicorn bounds the time between requests, this the time within one."""

    _waiting: "dict[Connection, None]" = {}  # noqa: RUF012 - of the whole process, in order of age
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._wait()
        else:
            self._done_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(_HEAD_WITHIN, self._give_up)
            self._waiting[self] = None
            if len(self._waiting) > _MOST_WAITING:
                next(iter(self._waiting))._give_up()

    def _done_waiting(self) -> None:
        self._waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._done_waiting()
        self.transport.abort()
