"""What a connection receives around a body: how much comes before it, and whether anything comes behind its end.

httpx hands over as much as Content-Length says and drops the rest (measured on 0.28.1): a report cut to a wrong length
would look whole.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio

from .policy import Failed, broken, silent

_LARGEST_HEAD = 64 << 10  # bytes, with all interim answers
_MOST_HEADERS = 1000
_LINGER = 0.05  # seconds for an upstream that does not end the connection behind its answer, as it was told to
_END_OF_HEAD = re.compile(rb"\n\r?\n\Z")
_OPENED = (".connect_tcp.complete", ".start_tls.complete")


class Wire:
    """The connection of one request, as httpcore's trace shows it.

    Args:
        lost: the exceptions of a connection that breaks.
    """

    def __init__(self, lost: type[Exception]) -> None:
        self._lost = lost
        self._read: Callable[..., Awaitable[bytes]]
        self._in_head = True
        self._head = 0  # bytes received before the head was whole
        self._last = b""  # what the last read gave
        self._begins = False  # whether that is of the head, or its end and the begin of the body
        self._before = b""  # the last bytes of the head that came before it
        self._given = 0  # bytes of the body since then

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Follow a request; TLS and a proxy's tunnel read by a stream of their own."""
        if event.endswith(_OPENED):
            stream = info["return_value"]
            self._read, stream.read = stream.read, self._receive
            self._in_head, self._head, self._last = True, 0, b""
        elif event == "http11.receive_response_headers.complete":
            self._in_head = False

    async def _receive(self, most: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's name
        if self._in_head and self._head > _LARGEST_HEAD:
            raise _absurd()
        data = await self._read(most, timeout)
        self._begins, self._before = self._in_head, self._last[-3:]
        self._last, self._given = data, 0
        self._head += len(data) if self._in_head else 0
        return data

    async def ended(self, raw: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
        """Pass a body on whose head says how long it is.

        Raises:
            Failed: `broken` where more comes than that.
        """
        left = length
        async for data in raw:
            left -= len(data)
            self._given += len(data)
            if left == 0 and (self._more_came(data) or await self._more_comes()):
                raise broken("Upstream sent more than the length that it announced.")
            yield data

    def _more_came(self, end: bytes) -> bool:
        """Whether the last read held more than the end of the head and this end of the body."""
        begin = self._last[: len(self._last) - self._given]
        head = self._begins and _END_OF_HEAD.search(self._before + begin)
        return not self._last.endswith(end) or bool(begin and not head)

    async def _more_comes(self) -> bool:
        with anyio.move_on_after(_LINGER):
            try:
                return await self._read(1, None) != b""
            except self._lost:
                pass
        return False


def refuse_absurd(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse the head of an answer that no server means.

    Raises:
        Failed: `silent`.
    """
    if len(headers) > _MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > _LARGEST_HEAD:
        raise _absurd()


def _absurd() -> Failed:
    return silent("upstream_unavailable", "The head of upstream's answer is larger than that of any answer.")
