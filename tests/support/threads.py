"""A system that has no more threads."""

import asyncio
import threading
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest


async def all_threads_taken(tasks: Any, released: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no thread started any more, and those that are there wait to be released."""
    none = anyio.Event()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def take() -> None:
        try:
            await anyio.to_thread.run_sync(released.wait, limiter=anyio.CapacityLimiter(1))
        except RuntimeError:
            none.set()

    monkeypatch.setattr(threading.Thread, "start", refuse)
    while not none.is_set():
        tasks.start_soon(take)
        await anyio.lowlevel.checkpoint()


def take_those_that_look_names_up(released: threading.Event) -> None:
    """The same for those of the loop; it can be closed only where threads can be started again."""
    loop = asyncio.get_running_loop()
    for _ in range(100):  # more than it may have
        try:
            loop.run_in_executor(None, released.wait)
        except RuntimeError:
            return
