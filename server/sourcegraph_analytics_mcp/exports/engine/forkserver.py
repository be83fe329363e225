"""The process that every engine process is forked from: it has imported what they need, reads no data, and waits.

Started by `forks.py` as a script with an empty environment and a socket as its input, where it hears numbers: with a
descriptor, the engine's end of its conversation, it forks an engine that is called so, and says there that it has, or
why not; without one it ends it. It keeps nothing open of an engine, whose conversation ends when the engine is gone,
and not before. When nobody gives it orders any more it ends, and all engines with it.
"""

import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

NUMBER = 8  # bytes of one
STARTED = {"started": True}
NOT_STARTED: dict[str, Any] = {
    "code": "busy",
    "message": "The data engine's process cannot be started.",
    "next_step": "Try again; if it stays so, check that this machine has memory and processes left.",
    "retryable": True,
}
# A terminal and some supervisors send these to every process; how work ends is the server's to say.
_LEFT_TO_THE_SERVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen(control: socket.socket, become_engine: Callable[[int], None]) -> None:
    """Follow orders until nobody gives any, then end what is left."""
    engines: dict[bytes, int] = {}
    while order := _received(control):
        number, conversations = order
        if not conversations:  # it is to end
            _end([engines.pop(number)] if number in engines else [])
        for conversation in conversations:
            if pid := _fork(conversation, become_engine):
                engines[number] = pid
            os.close(conversation)  # else it would not end with the engine
    _end(engines.values())


def _received(control: socket.socket) -> tuple[bytes, list[int]] | None:
    """The engine's number and what comes with it; None when nobody gives orders any more."""
    number, descriptors, _, _ = socket.recv_fds(control, NUMBER, 1)
    return (number, descriptors) if number else None


def _fork(conversation: int, become_engine: Callable[[int], None]) -> int | None:
    """Fork an engine that holds its conversation, in place of the orders, and nothing else; None where that fails."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        _say(conversation, {"error": NOT_STARTED})
        return None
    if pid:
        _say(conversation, STARTED)
        return pid
    try:
        os.dup2(conversation, 0)
        os.close(conversation)
        become_engine(parent)
    finally:
        os._exit(0)  # whatever happened: this is no second fork server


def _say(conversation: int, line: dict[str, Any]) -> None:
    with suppress(OSError):  # nobody may listen any more
        os.write(conversation, json.dumps(line).encode() + b"\n")


def _end(engines: Collection[int]) -> None:
    """Kill engines, which may have ended by themselves: until they are waited for their numbers are nobody else's."""
    for pid in engines:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in engines:
        os.waitpid(pid, 0)


def main() -> None:
    """Import what engines need, then listen."""
    sys.path[:] = json.loads(sys.argv[1])
    for number in _LEFT_TO_THE_SERVER:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as it may be inherited, no engine waits to be waited for
    from sourcegraph_analytics_mcp.exports.engine import child, limits, opened

    limits.confine()
    opened.open_ahead()
    gc.collect()
    gc.freeze()  # else the first collection in an engine copies every page of what it shares with this process
    listen(socket.socket(fileno=0), child.main)


if __name__ == "__main__":
    main()
