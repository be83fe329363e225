"""The real command in a process of its own, spoken to in raw lines."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .commands import Command

COMMAND = (sys.executable, "-m", "sourcegraph_analytics_mcp")
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Raw:
    """Lines out, lines in; every line that comes must be one JSON message."""

    def __init__(self, process: "Command | subprocess.Popen[bytes]", revision: str) -> None:
        self.process = process
        self.revision = revision
        self._last = 0
        self.notified: list[str] = []

    def send(self, method: str, params: Mapping[str, Any] | None = None, *, answered: bool = True) -> int:
        body = dict(params or {})
        if self.revision == "2026-07-28":
            body["_meta"] = META
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": body}
        if answered:
            self._last += 1
            message["id"] = self._last
        self.write(json.dumps(message).encode() + b"\n")
        return self._last

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def answer(self, number: int | str | None) -> Any:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            message = json.loads(line)
            assert message["jsonrpc"] == "2.0"
            if message.get("id") == number and "method" not in message:
                return message
            self.notified.append(message.get("method", ""))
        raise AssertionError("the server closed its output")

    def next_answer(self) -> Any:
        """The next answer, whichever request it is for."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            message = json.loads(line)
            if "id" in message and "method" not in message:
                return message
        raise AssertionError("the server closed its output")

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        answer = self.answer(self.send(method, params))
        assert "result" in answer, answer
        return answer["result"]

    def handshake(self) -> Any:
        if self.revision == "2026-07-28":
            return self.ask("server/discover")
        about = {"protocolVersion": self.revision, "capabilities": {}, "clientInfo": {"name": "raw", "version": "0"}}
        result = self.ask("initialize", about)
        self.send("notifications/initialized", answered=False)
        return result


@contextmanager
def spawned(
    home: Path,
    *arguments: str,
    revision: str = "2026-07-28",
    command: Sequence[str] | None = None,
    lifetime: float = 60,
    log: int | None = None,
    **settings: Any,
) -> Iterator[Raw]:
    """Start the command with a home of its own; it is killed at the end, or after `lifetime` seconds.

    Args:
        command: what to start anew, such as `COMMAND`; without it the command is forked.
        log: a descriptor for its stderr, instead of a file in the home.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SRC_ANALYTICS_")}
    environment |= {"HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
    environment |= {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    environment |= {f"SRC_ANALYTICS_{name.upper()}": value for name, value in settings.items()}
    with (home / "stderr").open("wb") as errors:
        sink = errors.fileno() if log is None else log
        process = _started(command, arguments, environment, sink)
        too_long = threading.Timer(lifetime, process.kill)  # so that an answer that never comes fails the test
        too_long.start()
        try:
            yield Raw(process, revision)
        finally:
            too_long.cancel()
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _started(
    command: Sequence[str] | None, arguments: Sequence[str], environment: dict[str, str], log: int
) -> "Command | subprocess.Popen[bytes]":
    if command is None:
        return Command(arguments, environment, log)
    return subprocess.Popen(
        [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
    )
