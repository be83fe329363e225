"""The real server in this process, spoken to in messages, so that every one that comes can be counted."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from support.stdio import META


class Wire:
    """One connection; what has come so far is in `received`, as JSON texts."""

    def __init__(self, read: Any, write: Any, revision: str) -> None:
        self._read = read
        self._write = write
        self._modern = revision == META["io.modelcontextprotocol/protocolVersion"]
        self._last = 0
        self.received: list[str] = []

    async def send(self, method: str, params: dict[str, Any], *, answered: bool = True) -> int:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": dict(params)}
        if self._modern:
            message["params"]["_meta"] = META
        if answered:
            self._last += 1
            message["id"] = self._last
        await self._write.send(SessionMessage(jsonrpc_message_adapter.validate_python(message)))
        return self._last

    async def answer(self, number: int) -> Any:
        """Receive until a request is answered."""
        while True:
            came = await self._read.receive()
            assert isinstance(came, SessionMessage)
            self.received.append(came.message.model_dump_json(by_alias=True, exclude_none=True))
            message = json.loads(self.received[-1])
            if message.get("id") == number and "method" not in message:
                return message

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        return await self.answer(await self.send(method, params))

    def answers(self, number: int) -> int:
        """How often a request was answered so far."""
        every = [json.loads(text) for text in self.received]
        return sum(m.get("id") == number and "method" not in m for m in every)


@asynccontextmanager
async def wired(settings: Settings, revision: str = "2026-07-28") -> AsyncIterator[Wire]:
    """A connection to a fresh server."""
    async with create_client_server_memory_streams() as ((read, write), server), anyio.create_task_group() as tasks:
        tasks.start_soon(AnalyticsServer(settings).serve, *server)
        wire = Wire(read, write, revision)
        if not wire._modern:
            about = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "raw", "version": "0"}}
            await wire.ask("initialize", about)
            await wire.send("notifications/initialized", {}, answered=False)
        yield wire
        await write.aclose()
