"""The engine processes of a server, as the system shows them."""

import os
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
