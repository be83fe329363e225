"""The engine processes of a server, as the system shows them."""

import os
import re
from contextlib import suppress
from pathlib import Path

import anyio.lowlevel


def engines(server: int | None = None) -> list[int]:
    """Those of one process (without a number, of this): forked from its fork server, and still with anything open."""
    return [engine for forking in fork_servers(server) for engine in _children(forking) if _holds(engine)]


def fork_servers(server: int | None = None) -> list[int]:
    """What they are forked from."""
    found = []
    for child in _children(server or os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found += [child] if "forkserver.py" in Path(f"/proc/{child}/cmdline").read_text() else []
    return found


async def an_engine() -> int:
    """The first there is, once there is one."""
    while not (found := engines()):
        await anyio.lowlevel.checkpoint()
    return found[0]


def a_query(server: int) -> int:
    """The engine of a query that has begun, once there is one: it may not write to files any more."""
    while True:
        for engine in engines(server):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                if re.search(r"Max file size +0 +0 ", Path(f"/proc/{engine}/limits").read_text()):
                    return engine


def _children(process: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found += map(int, thread.read_text().split())
    return found


def _holds(process: int) -> bool:
    """Whether a process has anything open; the last that the system takes from one that ends is its number."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return any(Path(f"/proc/{process}/fd").iterdir())
    return False
