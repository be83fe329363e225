"""Prove a body complete: the one place that decodes what upstream sends and refuses what was cut.

httpx passes a gzip stream that was cut as if it were whole (measured on 0.28.1), so the raw bytes are decoded here.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from .policy import Call, bomb, broken, misread, silent, too_large

_PIECE = 1 << 20  # bytes; one compressed read never grows to more than this at once
_SLOWEST = 1024  # bytes a second
_RATIO, _RATIO_FROM = 200, 10 << 20  # a body that inflates beyond this is a bomb, not a report


class Gunzip:
    """Inflate gzip members one after the other, and know whether the last one ended."""

    def __init__(self) -> None:
        from isal import isal_zlib  # zlib's interface in a third of its time (measured); loaded when gzip comes

        self._damaged: Any = isal_zlib.error
        self._begin: Callable[[], Any] = partial(isal_zlib.decompressobj, wbits=31)
        self._member = self._begin()
        self._fresh = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        more = bool(data)
        while more:
            try:
                piece = self._member.decompress(data, _PIECE)
            except self._damaged:
                raise broken("Upstream's compressed answer is damaged.") from None
            yield piece
            self._fresh = False
            data = self._member.unconsumed_tail
            more = bool(data) or len(piece) == _PIECE  # a full piece may hide output that is still inside
            if self._member.eof:
                data, self._member, self._fresh = self._member.unused_data, self._begin(), True
                more = bool(data)

    def finish(self) -> None:
        if not self._fresh:
            raise broken("Upstream's compressed answer was cut short.")


async def steady(raw: AsyncIterator[bytes], window: float) -> AsyncIterator[bytes]:
    """Pass a body on while it comes faster than a drip, which a timeout between two reads never notices.

    Args:
        window: seconds over which the slowest rate that is accepted is averaged.

    Raises:
        Failed: `silent` below a kibibyte a second.
    """
    begun, received = time.monotonic(), 0
    async for data in raw:
        received += len(data)
        elapsed = time.monotonic() - begun
        if elapsed > window:
            if received < _SLOWEST * elapsed:
                raise silent("upstream_timeout", "The answer comes too slowly to be a report.")
            begun, received = time.monotonic(), 0
        yield data


async def decoded(raw: AsyncIterator[bytes], encoding: str, limit: int, call: Call) -> AsyncIterator[bytes]:
    """Yield the decoded body of an answer; returning means that its end was proved as far as the encoding can.

    Args:
        raw: the body as received.
        encoding: the Content-Encoding header, empty for none.
        limit: the most decoded bytes that are accepted.
        call: what was asked, which decides what to do about more.

    Raises:
        Failed: `broken` for a cut or damaged stream, `misread` for an unknown encoding, `too_large` over the limit.
    """
    if encoding not in ("", "identity", "gzip"):
        raise misread("Upstream uses a compression that was not asked for.", "upstream_incomplete")
    inflate = Gunzip() if encoding == "gzip" else None
    received = total = 0
    async for data in raw:
        received += len(data)
        for piece in inflate.feed(data) if inflate else (data,):
            total += len(piece)
            if total > _RATIO_FROM and total > _RATIO * received:
                raise bomb(_RATIO)
            if total > limit:
                raise too_large(call, limit)
            yield piece
    if inflate:
        inflate.finish()
