"""A thread that is started with the server, so that none has to be had later, when the system may have no more."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """One thread that does one kind of work, in the order in which it is asked; it keeps no process alive.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._asked: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """Do the work and return what it returns; who is cut off leaves it to be done."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.put((answer, work))
        return await answer

    def _work(self) -> None:
        while True:
            answer, work = self._asked.get()
            done: Any = None
            failed: Exception | None = None
            try:
                done = work()
            except Exception as error:  # noqa: BLE001 - it is for who asked
                failed = error
            with suppress(RuntimeError):  # nobody waits any more: the loop has ended
                answer.get_loop().call_soon_threadsafe(_tell, answer, done, failed)


def _tell(answer: "asyncio.Future[Any]", done: object, failed: Exception | None) -> None:
    if answer.done():  # who asked was cut off
        return
    if failed is None:
        answer.set_result(done)
    else:
        answer.set_exception(failed)
