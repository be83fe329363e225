"""Sessions of older clients: there is room for so many, and when it is full the caller with the most gives way."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ...surface.callers import caller
from ...surface.crowding import of_whoever_has_most
from ...surface.notices import MOST_SESSIONS
from .guard import App, Receive, Scope, Send

_ID = b"mcp-session-id"
_KEPT = b"mcp-protocol-version"  # of the headers, what another request of the session needs too


@dataclass(frozen=True)
class _Opened:
    """Whose session it is, and the request that ends it."""

    caller: str
    ending: Scope


class Sessions:
    """An ASGI application around the protocol's that knows the sessions it opens.

    Args:
        protocol: what answers requests of the protocol.
    """

    def __init__(self, protocol: App) -> None:
        self._protocol = protocol
        self._opened: OrderedDict[bytes, _Opened] = OrderedDict()  # the one used longest ago first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                for name, session in message["headers"]:
                    if name == _ID:
                        await self._note(session, scope)
            await send(message)

        scope["caller"] = caller()  # for the connection, which may be one of too many
        await self._protocol(scope, receive, noting)

    async def _note(self, session: bytes, scope: Scope) -> None:
        """Keep in mind that a session was used, or has ended."""
        if scope["method"] == "DELETE":
            self._opened.pop(session, None)
            return
        if session not in self._opened:
            kept = [(name, value) for name, value in scope["headers"] if name == _KEPT]
            ending = {**scope, "method": "DELETE", "headers": [*kept, (_ID, session)], "body": b""}
            self._opened[session] = _Opened(caller(), ending)
        self._opened.move_to_end(session)
        while len(self._opened) > MOST_SESSIONS:
            await self._end_one()

    async def _end_one(self) -> None:
        """End the session that the caller with the most used longest ago; it may have ended unnoticed by then."""
        session = of_whoever_has_most(self._opened, lambda name: self._opened[name].caller)[0]
        await self._protocol(self._opened.pop(session).ending, _nothing, _unheard)


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _unheard(message: Any) -> None:
    pass
