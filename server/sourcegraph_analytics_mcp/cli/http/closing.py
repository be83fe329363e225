"""The end of the answers that are under way when the server ends: whoever reads one is told that it is over."""

import json
from typing import Any

import anyio
from mcp_types import INTERNAL_ERROR

from .guard import App, Headers, Receive, Scope, Send, answer

_UNKNOWN = (
    "The server is ending, and whether the call was done is not known. Once it is back, look with list_tokens or "
    "list_exports at what there is, or, where the call changes nothing, call again."
)
_UNANSWERED = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": INTERNAL_ERROR, "message": _UNKNOWN}})


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
        for scope, stands in self._under_way.items():
            if stands:
                scope.cancel()

    def close(self) -> None:
        """End what is under way."""
        for scope in self._under_way:
            scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        begun = ended = False

        async def noting(message: Any) -> None:
            nonlocal begun, ended
            begun = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        with anyio.CancelScope() as one:
            self._under_way[one] = _stands(scope)
            try:
                await self._inner(scope, receive, noting)
            finally:
                del self._under_way[one]
        if self._ending and not begun:
            await answer(send, 503, _UNANSWERED, "application/json")
        elif self._ending and not ended:  # else it would look broken, here and there
            await send({"type": "http.response.body", "body": b""})


def _stands(scope: Scope) -> bool:
    """Whether a request opens a stream of announcements; the newest revision has its method in a header, too."""
    return scope["method"] == "GET" or b"subscriptions/listen" in Headers(scope["headers"]).of(b"mcp-method")
