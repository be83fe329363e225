"""tools/call per second over HTTP: a closed loop of clients, one connection each, in both protocol eras."""

import asyncio
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from .server import COMMAND, environment

BARE = """
import hmac
import sys
import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings

class Verifier:
    async def verify_token(self, token):
        holder = AccessToken(token=token, client_id="local", scopes=["read"])
        return holder if hmac.compare_digest(token, sys.argv[2]) else None

url = f"http://127.0.0.1:{sys.argv[1]}"
auth = AuthSettings(issuer_url=url, resource_server_url=url, required_scopes=["read"])
options = {"auth": auth, "token_verifier": Verifier()} if sys.argv[2:] else {}
mcp = MCPServer("hello", version="1", log_level="WARNING", **options)
@mcp.tool()
async def hello(name: str = "x") -> str:
    return name
uvicorn.run(mcp.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False,
            server_header=False, proxy_headers=False, ws="none")
"""
ERAS = ("2026-07-28", "2025-11-25")
_CLIENT = {"name": "bench", "version": "0"}
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Target:
    """A server to load: its port, the tool to call, and the credential it wants."""

    def __init__(self, port: int, tool: str, credential: str | None) -> None:
        self.port = port
        self.tool = tool
        self.credential = credential

    def request(self, method: str, params: dict[str, Any], headers: dict[str, str], *, told: bool = False) -> bytes:
        """One HTTP request; `told` for a notification."""
        message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if told else {"id": 1})
        body = json.dumps(message).encode()
        usual = {
            "Host": f"127.0.0.1:{self.port}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Content-Length": str(len(body)),
        }
        usual |= {"Authorization": f"Bearer {self.credential}"} if self.credential else {}
        head = "".join(f"{name}: {value}\r\n" for name, value in (usual | headers).items())
        return f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body


async def compared(targets: Sequence[Target], era: str, clients: int, slices: int, seconds: float) -> list[list[float]]:
    """Calls a second of each target in each slice: so many clients that each wait for their answer, targets in turn.

    Slices are short, since a machine's speed may change within seconds: what is compared was measured side by side.
    """
    loads = [[await _Client.connected(target, era) for _ in range(clients)] for target in targets]
    rates: list[list[float]] = [[] for _ in targets]
    for number in range(-1, slices):  # the first one warms up
        for turn in range(len(targets)):
            which = (number + turn) % len(targets)
            rate = await _rate(loads[which], seconds)
            if number >= 0:
                rates[which].append(rate)
    for client in chain(*loads):
        client.writer.close()
    return rates


async def _rate(clients: list["_Client"], seconds: float) -> float:
    begun = time.perf_counter()
    counts = await asyncio.gather(*(client.calls(begun + seconds) for client in clients))
    return sum(counts) / (time.perf_counter() - begun)


class _Client:
    """One connection, ready to call."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        self.reader = reader
        self.writer = writer
        self.request = request

    @classmethod
    async def connected(cls, target: Target, era: str) -> "_Client":
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        call: dict[str, Any] = {"name": target.tool, "arguments": {}}
        headers = {"MCP-Protocol-Version": era}
        if era == ERAS[0]:
            call["_meta"] = _META
            headers |= {"Mcp-Method": "tools/call", "Mcp-Name": target.tool}
        else:
            about = {"protocolVersion": era, "capabilities": {}, "clientInfo": _CLIENT}
            head, _ = await _exchange(reader, writer, target.request("initialize", about, {}))
            headers["Mcp-Session-Id"] = head.split("mcp-session-id: ")[1].split("\r\n")[0]
            await _exchange(reader, writer, target.request("notifications/initialized", {}, headers, told=True))
        return cls(reader, writer, target.request("tools/call", call, headers))

    async def calls(self, end: float) -> int:
        """How many calls are answered until then, one after the other."""
        counted = 0
        while time.perf_counter() < end:
            head, body = await _exchange(self.reader, self.writer, self.request)
            if not head.startswith("HTTP/1.1 200") or b'"isError":false' not in body.replace(b" ", b""):
                raise RuntimeError(f"{head.splitlines()[0]} {body[:200]!r}")
            counted += 1
        return counted


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[str, bytes]:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if "content-length:" in head:
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        return head.replace("http/1.1", "HTTP/1.1"), await reader.readexactly(length)
    body = b""
    while (size := int(await reader.readuntil(b"\r\n"), 16)) or not await reader.readexactly(2):
        body += (await reader.readexactly(size + 2))[:-2]
    return head.replace("http/1.1", "HTTP/1.1"), body


@contextmanager
def servers(home: Path, settings: dict[str, str]) -> Iterator[tuple[Target, Target, Target]]:
    """Our server, a bare one, and a bare one with the SDK's own check of a bearer token, all listening."""
    script = home / "bare_http.py"
    script.write_text(BARE)
    ours, bare, checking = _free_port(), _free_port(), _free_port()
    settings = settings | {"data_dir": str(home / "http"), "calls_per_minute": "100000000"}
    commands = (
        [*COMMAND, "serve", "--http", f"127.0.0.1:{ours}"],
        [sys.executable, str(script), str(bare)],
        [sys.executable, str(script), str(checking), secret := secrets.token_urlsafe(32)],
    )
    (home / "http" / "exports").mkdir(mode=0o700, parents=True)  # as after the first export
    started = [subprocess.Popen(c, env=environment(home, settings), stderr=subprocess.DEVNULL) for c in commands]
    try:
        for port in (ours, bare, checking):
            _wait(port)
        credential = (home / "http" / "http-credential").read_text()
        yield Target(ours, "list_exports", credential), Target(bare, "hello", None), Target(checking, "hello", secret)
    finally:
        for process in started:
            process.terminate()
            process.wait(20)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the server does not listen")
