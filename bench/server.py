"""The server as a client starts it, spoken to in lines; and what the kernel knows of its memory."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.demo.upstream import DEMO_INSTANCE, DEMO_TOKEN, Upstream

DEMO = {"instance": DEMO_INSTANCE, "access_token": DEMO_TOKEN, "log_level": "ERROR"}
COMMAND = (sys.executable, "-m", "sourcegraph_analytics_mcp")


class Server:
    """A running server after its handshake."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._last = 0
        self.answer: dict[str, Any] = {}

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Send one request and wait for its answer."""
        number = self.send(method, params)
        while self.hear() != number:
            pass
        return self.answer["result"]

    def send(self, method: str, params: dict[str, Any]) -> int:
        """Send one request; its number."""
        assert self.process.stdin is not None
        self._last += 1
        message = {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        return self._last

    def hear(self) -> int | None:
        """Wait for the next line, kept as `answer`; the number of the request it answers, None for a notice."""
        assert self.process.stdout is not None
        self.answer = json.loads(self.process.stdout.readline())
        number: int | None = self.answer.get("id")
        return number

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool that must succeed."""
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})
        if result.get("isError"):
            raise RuntimeError(result["content"][0]["text"])
        return result

    def memory(self) -> dict[str, float]:
        """MB: resident now and at most, of the server alone."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines if line.startswith(("VmRSS", "VmHWM")))
        return {name: int(value.split()[0]) / 1024 for name, value in found.items()}


class Engines:
    """Watches how much memory each engine process of a server takes, ten times a second."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._most = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def most(self) -> float:
        """MB resident of the largest engine so far; ends the watch."""
        self._ended.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            for engine in (e for forking in _children(self._server) for e in _children(forking)):
                with suppress(OSError):
                    pages = int(Path(f"/proc/{engine}/statm").read_text().split()[1])
                    self._most = max(self._most, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def _children(process: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, thread.read_text().split())
    return found


def environment(home: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What a server is started with: these settings and a home of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SRC_ANALYTICS_")}
    given = {"SRC_ANALYTICS_" + name.upper(): value for name, value in settings.items()}
    return kept | given | {"HOME": str(home), "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}


@contextmanager
def running(home: Path, settings: Mapping[str, str], command: tuple[str, ...] = COMMAND) -> Iterator[Server]:
    """Start a server, shake hands, and end it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(home, settings),
    )
    server = Server(process)
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "0"}}
    try:
        server.ask("initialize", about)
        yield server
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


@contextmanager
def upstream(*arguments: str) -> Iterator[str]:
    """The file server of `bench.upstream`; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.upstream", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(20)


@contextmanager
def demo() -> Iterator[tuple[str, list[int]]]:
    """The made-up company on a socket: its address, and the bytes of each body it sent, as they went over the wire."""
    sent: list[int] = []
    app = Upstream(Company.made_up(datetime.now(UTC).date()), lambda: datetime.now(UTC)).app()

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        sent.append(0)
        place = len(sent) - 1

        async def counted(message: Any) -> None:
            sent[place] += len(message.get("body", b""))
            await send(message)

        await app(scope, receive, counted)

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(counting, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", sent
    finally:
        server.should_exit = True
        thread.join()
