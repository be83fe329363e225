"""The process that every engine process is forked from: it has imported what they need, reads no data, and waits.

Started by `forks.py` as a script with an empty environment and a socket as its input, where it hears numbers: with two
descriptors it forks an engine that is called so, the first being the engine's end of its conversation and the second
closed once it is gone; without any it ends it. When nobody holds the other end of that socket any more it ends, and all
engines with it.
"""

import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

NUMBER = 8  # bytes of one
NOT_STARTED: dict[str, Any] = {
    "code": "busy",
    "message": "The data engine's process cannot be started.",
    "next_step": "Try again; if it stays so, check that this machine has memory and processes left.",
    "retryable": True,
}
# A terminal and some supervisors send these to every process; how work ends is the server's to say.
_LEFT_TO_THE_SERVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class _Engine:
    pid: int
    buried: int  # the descriptor to close once it is gone


def listen(control: socket.socket, become_engine: Callable[[], None]) -> None:
    """Follow orders until nobody gives any, then end what is left."""
    engines: dict[bytes, _Engine] = {}
    while order := _received(control):
        number, descriptors = order
        if not descriptors:  # it is to end
            _end(engines.pop(number, None))
            continue
        conversation, buried = descriptors
        pid = _fork(conversation, [buried, *(engine.buried for engine in engines.values())], become_engine)
        os.close(conversation)
        if pid is None:
            os.close(buried)
        else:
            engines[number] = _Engine(pid, buried)
    for engine in engines.values():
        _end(engine)


def _received(control: socket.socket) -> tuple[bytes, list[int]] | None:
    """The engine's number and what comes with it; None when nobody gives orders any more."""
    number, descriptors, _, _ = socket.recv_fds(control, NUMBER, 2)
    return (number, descriptors) if number else None


def _fork(conversation: int, others: list[int], become_engine: Callable[[], None]) -> int | None:
    """Fork an engine that holds its conversation, in place of the orders, and nothing else; None where that fails."""
    try:
        pid = os.fork()
    except OSError:
        os.write(conversation, json.dumps({"error": NOT_STARTED}).encode() + b"\n")
        return None
    if pid:
        return pid
    try:
        os.dup2(conversation, 0)
        for descriptor in (conversation, *others):
            os.close(descriptor)
        become_engine()
    finally:
        os._exit(0)  # whatever happened: this is no second fork server


def _end(engine: _Engine | None) -> None:
    """Kill an engine, which may have ended by itself, and say when it is gone."""
    if engine is not None:
        with suppress(ProcessLookupError):
            os.kill(engine.pid, signal.SIGKILL)
        os.waitpid(engine.pid, 0)
        os.close(engine.buried)


def main() -> None:
    """Import what engines need, then listen."""
    sys.path[:] = json.loads(sys.argv[1])
    for number in _LEFT_TO_THE_SERVER:
        signal.signal(number, signal.SIG_IGN)
    from sourcegraph_analytics_mcp.exports.engine import child, opened

    child.confine()
    opened.open_ahead()
    gc.collect()
    gc.freeze()  # else the first collection in an engine copies every page of what it shares with this process
    listen(socket.socket(fileno=0), child.main)


if __name__ == "__main__":
    main()
