"""The real command serving HTTP, and raw requests to it in both protocol eras."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

ERAS = ("2026-07-28", "2025-11-25")
FREE = {"calls_per_minute": 10**9, "queries_per_minute": 10**9, "exports_per_hour": 10**9}  # no shares
_CLIENT = {"name": "crowd", "version": "0"}
META = {
    "io.modelcontextprotocol/protocolVersion": ERAS[0],
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Site:
    """A server process that listens, its credential and its log."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, home: Path) -> None:
        self.process = process
        self.port = port
        self.home = home
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._listening = threading.Event()
        self._reader.start()
        if not self._listening.wait(30) or process.poll() is not None:
            raise RuntimeError("".join(self.log))
        own = home / "http-credential"
        self.credential = own.read_text() if own.exists() else ""  # that of an issuer is given later

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if "Uvicorn running" in line:
                self._listening.set()
        self._listening.set()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self._reader.join()

    @property
    def memory(self) -> float:
        """MB resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def request(self, method: str, params: dict[str, Any], more: dict[str, str], number: Any = 1) -> bytes:
        """One whole HTTP request; without a number it is a notification."""
        message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if number is None else {"id": number})
        body = json.dumps(message).encode()
        headers = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {self.credential}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Content-Length": str(len(body)),
        } | more
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body

    @asynccontextmanager
    async def client(self, era: str = ERAS[0]) -> AsyncIterator["Client"]:
        """A client after its handshake, on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        client = Client(self, era, reader, writer)
        try:
            if era != ERAS[0]:
                about = {"protocolVersion": era, "capabilities": {}, "clientInfo": _CLIENT}
                await client.send("initialize", about)
                head, _ = await client.receive()
                client.headers["Mcp-Session-Id"] = head.split("mcp-session-id: ")[1].split("\r\n")[0]
                await client.send("notifications/initialized", {}, None)
                await client.receive()
            yield client
        finally:
            writer.transport.abort()


class Client:
    """One connection that speaks one era."""

    def __init__(self, site: Site, era: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.site = site
        self.era = era
        self.headers = {"MCP-Protocol-Version": era}
        self._reader = reader
        self.writer = writer

    async def send(self, method: str, params: dict[str, Any], number: Any = 1, **meta: Any) -> None:
        """Send one request; `meta` is more of its `_meta`."""
        headers = dict(self.headers)
        if self.era == ERAS[0]:
            headers["Mcp-Method"] = method
            if named := params.get("name") or params.get("uri"):
                headers["Mcp-Name"] = str(named)
        kept = (META if self.era == ERAS[0] else {}) | meta
        self.writer.write(self.site.request(method, params | ({"_meta": kept} if kept else {}), headers, number))
        await self.writer.drain()

    async def receive(self) -> tuple[str, bytes]:
        """The head, in lower case, and the body of the next answer."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if "content-length:" in head:
            return head, await self._reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return head, body

    async def ask(self, method: str, params: dict[str, Any], number: Any = 1, **meta: Any) -> Any:
        """Send one request; its result.

        Raises:
            RuntimeError: when it is not answered with one.
        """
        await self.send(method, params, number, **meta)
        head, body = await self.receive()
        if not head.startswith("http/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0]} {body[:200]!r}")
        text = body.decode()
        if "text/event-stream" in head:
            text = [line for line in text.splitlines() if line.startswith("data: ")][-1].removeprefix("data: ")
        message = json.loads(text)
        if "result" not in message:
            raise RuntimeError(text[:300])
        return message["result"]

    async def call(self, tool: str, number: Any = 1, **given: Any) -> Any:
        """Call a tool; its result."""
        return await self.ask("tools/call", {"name": tool, "arguments": given}, number)


@contextmanager
def site(home: Path, *flags: str, **settings: Any) -> Iterator[Site]:
    """Start the command over HTTP with a home of its own, and end it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SRC_ANALYTICS_")}
    environment |= {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring", "HOME": str(home)}
    environment |= {"SRC_ANALYTICS_DATA_DIR": str(home / "data")}
    environment |= {f"SRC_ANALYTICS_{name.upper()}": str(value) for name, value in settings.items()}
    command = (sys.executable, "-m", "sourcegraph_analytics_mcp", *flags, "serve", "--http", f"127.0.0.1:{port}")
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        running = Site(process, port, home / "data" / ("demo" if "--demo" in flags else ""))
    except BaseException:
        process.kill()
        raise
    try:
        yield running
    finally:
        running.end()
