"""The requests that have come and are not answered yet, which whoever closes the input still waits for."""

import json
import re
from typing import Any

import anyio
from mcp_types import JSONRPCNotification, JSONRPCRequest

_ANSWER = re.compile(rb'\{"jsonrpc":"2\.0","id":(-?\d+|"(?:[^"\\]|\\.)*"),"(?:result|error)":')  # as the SDK spells it
_ENDLESS = "subscriptions/listen"  # is answered when it ends


class Unanswered:
    """Told of every message that comes and of every line that goes."""

    def __init__(self) -> None:
        self._ids: set[Any] = set()
        self._none = anyio.Event()

    def came(self, message: object) -> None:
        """A message was read, which the SDK will read, too."""
        if isinstance(message, JSONRPCRequest) and message.method != _ENDLESS:
            self._ids.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._over((message.params or {}).get("requestId"))

    def went(self, line: bytes) -> None:
        """A line was written."""
        if found := _ANSWER.match(line):
            self._over(json.loads(found[1]))

    async def wait(self, seconds: float) -> None:
        """Wait until there is none, but not for longer than so many seconds."""
        if self._ids:
            self._none = anyio.Event()
            with anyio.move_on_after(seconds):
                await self._none.wait()

    def _over(self, number: object) -> None:
        if isinstance(number, int | str):
            self._ids.discard(number)
        if not self._ids:
            self._none.set()
