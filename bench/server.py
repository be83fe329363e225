"""The server as a client starts it, spoken to in lines; and what the kernel knows of its memory."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "sourcegraph_analytics_mcp")


class Server:
    """A running server after its handshake."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._last = 0

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Send one request and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._last += 1
        message = {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        while True:
            answer = json.loads(self.process.stdout.readline())
            if answer.get("id") == self._last:
                return answer["result"]

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


@contextmanager
def running(home: Path, settings: Mapping[str, str], command: tuple[str, ...] = COMMAND) -> Iterator[Server]:
    """Start a server, shake hands, and end it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SRC_ANALYTICS_")}
    environment |= {"SRC_ANALYTICS_" + name.upper(): value for name, value in settings.items()}
    environment |= {"HOME": str(home), "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
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
