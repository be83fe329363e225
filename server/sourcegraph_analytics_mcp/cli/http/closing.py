"""The end of the answers that are under way when the server ends: whoever reads one is told that it is over."""

from typing import Any

import anyio

from .guard import App, Receive, Scope, Send


class Closing:
    """An ASGI application around another that can be closed.

    Args:
        inner: what answers requests.

    Attributes:
        ending: whether the server ends; some streams hear of it by themselves, and stop short.
    """

    def __init__(self, inner: App) -> None:
        self._inner = inner
        self.ending = False
        self._under_way: set[anyio.CancelScope] = set()

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
            self._under_way.add(one)
            try:
                await self._inner(scope, receive, noting)
            finally:
                self._under_way.discard(one)
        if self.ending and not begun:
            await send({"type": "http.response.start", "status": 503, "headers": []})
        if self.ending and not ended:  # else it would look broken, here and there
            await send({"type": "http.response.body", "body": b""})
