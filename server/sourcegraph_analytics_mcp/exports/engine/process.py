"""Start an engine process and talk to it line by line; the server side of `child.py`."""

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import SocketAttribute, UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from ...errors import AnalyticsError, used_up
from .forks import Forked, Replaced, forks
from .forkserver import NOT_STARTED

_LONGEST_ANSWER = 64 << 20  # bytes


class EngineFailed(Exception):
    """The engine's process died or could not do what it was told."""


class Child:
    """One engine process and the line-wise conversation with it."""

    def __init__(self, forked: Forked, stream: UNIXSocketStream) -> None:
        self._hold(forked, stream)

    def _hold(self, forked: Forked, stream: UNIXSocketStream) -> None:
        self._forked = forked
        self._stream = stream
        self._socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - no model of Django's
        self._output = BufferedByteReceiveStream(stream)

    @property
    def alive(self) -> bool:
        """Whether its end of the conversation is open; between two questions it says nothing by itself."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    async def begun(self) -> None:
        """Wait until the process has begun; where nobody says so in time, have one of another fork server instead.

        Raises:
            AnalyticsError: as `order_child`, and `busy` where nobody says so of that either.
        """
        if await self._has_begun():
            return
        await self.end()
        self._hold(*await _ordered())
        if not await self._has_begun():
            raise AnalyticsError(**NOT_STARTED)

    async def _has_begun(self) -> bool:
        begun = False
        with anyio.move_on_after(forks.patience), suppress(EngineFailed):
            await self.hear()
            begun = True
        if begun:
            forks.obeyed(self._forked)
        else:
            await forks.dismiss(self._forked)
        return begun

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Send one line.

        Raises:
            EngineFailed: when the process has gone.
            AnalyticsError: when it has, and its last words say why.
        """
        try:
            await self._stream.send(json.dumps(message).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await self.hear()

    async def hear(self) -> dict[str, Any]:
        """Receive one line.

        Raises:
            EngineFailed: when the process has gone.
            AnalyticsError: when the process says that the data is at fault; `result_too_large` for a line of more than
                64 MiB, after which nothing more can be heard.
        """
        try:
            line = await self._output.receive_until(b"\n", _LONGEST_ANSWER)
        except anyio.DelimiterNotFound:
            raise too_much() from None
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise EngineFailed("the engine's process has ended") from None
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AnalyticsError(**answer["error"])
        if "crash" in answer:
            raise EngineFailed(f"the engine failed: {answer['crash']}")
        return answer

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        with anyio.CancelScope(shield=True):
            await forks.end(self._forked)
            await self._stream.aclose()


def too_much() -> AnalyticsError:
    """What was asked for is more than an answer can ever show."""
    message = f"What was asked for is more than {_LONGEST_ANSWER >> 20} MB of figures and names."
    step = "Ask for less at once: fewer days, fewer groups, a filter; or export_csv, whose rows stay on disk."
    return AnalyticsError("result_too_large", message, step)


async def order_child() -> Child:
    """Have an engine process started, whose `begun` must be awaited before anything else.

    It has no environment, no site, no inherited files but its end of the conversation.

    Raises:
        AnalyticsError: `busy` when the system does not start it, `internal` when an upgrade has replaced its files.
    """
    return Child(*await _ordered())


async def start_child() -> Child:
    """Start an engine process and wait until it has begun.

    Raises:
        AnalyticsError: as `order_child`.
    """
    child = await order_child()
    try:
        await child.begun()
    except BaseException:
        await child.end()
        raise
    return child


async def _ordered() -> tuple[Forked, UNIXSocketStream]:
    try:
        with anyio.CancelScope(shield=True):
            forked = await forks.fork()
            stream = await UNIXSocketStream.from_socket(forked.conversation)
    except OSError as error:
        raise _not_started(error) from error
    return forked, stream


def _not_started(error: OSError) -> AnalyticsError:
    if isinstance(error, Replaced):
        message = "This server's files were replaced by another version while it ran."
        return AnalyticsError("internal", message, "Restart it.")
    return used_up(error) or AnalyticsError(**NOT_STARTED)
