"""The end of the answers that are under way when the server ends: whoever reads one is told that it is over."""

import json
from collections.abc import Iterable
from typing import Any

import anyio
from mcp_types import INTERNAL_ERROR

from .guard import App, Headers, Receive, Scope, Send, answer, stands

_UNKNOWN = (
    "The server is ending, and whether the call was done is not known. Once it is back, look with list_tokens or "
    "list_exports at what there is, or, where the call changes nothing, call again."
)


class Closing:
    """An ASGI application around another that can be closed.

    Args:
        inner: what answers requests.
    """

    def __init__(self, inner: App) -> None:
        self._inner = inner
        self._ending = False
        self._under_way: dict[anyio.CancelScope, bool] = {}  # and whether it stands until somebody ends it

    def end(self) -> None:
        """End the streams that have no end of their own; calls go on until `close`."""
        self._ending = True
        for scope, lasts in self._under_way.items():
            if lasts:
                scope.cancel()

    def close(self) -> None:
        """End what is under way."""
        for scope in self._under_way:
            scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        head: Iterable[tuple[bytes, bytes]] | None = None  # of an answer that has begun
        ended = False
        lasts = stands(scope)

        async def noting(message: Any) -> None:
            nonlocal head, ended
            if message["type"] == "http.response.start":
                head = message["headers"]
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        with anyio.CancelScope() as one:
            self._under_way[one] = lasts
            try:
                await self._inner(scope, receive, noting)
            finally:
                del self._under_way[one]
                body = scope.pop("body", b"")  # the guard's; a connection that waits for its next request keeps none
        if not self._ending or ended:
            return
        if head is None:
            await answer(send, 503, _unanswered(_id(body)), "application/json")
        else:  # without an end it would look broken, here and there
            await send({"type": "http.response.body", "body": b"" if lasts else _last_event(head, body)})


def _last_event(head: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """What a stream still has to say to whoever waits for the answer to a request in it."""
    streams = any(kind.startswith(b"text/event-stream") for kind in Headers(head).of(b"content-type"))
    if not streams or (asked := _id(body)) is None:
        return b""
    return f"event: message\r\ndata: {_unanswered(asked)}\r\n\r\n".encode()


def _unanswered(asked: str | int | None) -> str:
    error = {"code": INTERNAL_ERROR, "message": _UNKNOWN}
    return json.dumps({"jsonrpc": "2.0", "id": asked, "error": error})


def _id(body: bytes) -> str | int | None:
    """The id of the request in a body; None where it has none."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    asked = message.get("id") if isinstance(message, dict) and "method" in message else None
    return asked if isinstance(asked, str | int) else None
