"""The end of this process, whatever it runs: which signals ask for it, and that nothing is left behind.

While it loads, a signal ends it on the spot; while a person is asked, the question; else it cuts off the work, which is
put away within some seconds or given up.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from ..at_leave import leave_nothing
from .signals import signals

T = TypeVar("T")
_PUT_AWAY_WITHIN = 3.0  # seconds
_THREADS_END_WITHIN = 0.5  # seconds after the last work
_leaving = False  # which takes its time, too


class Interrupted(KeyboardInterrupt):
    """A signal that came while a person was asked.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def asking() -> Iterator[None]:
    """Have signals end a question, which keeps the event loop from hearing them: they raise `Interrupted`."""

    def raising(number: int, _: object) -> NoReturn:
        raise Interrupted(number)

    before = {number: signal.signal(number, raising) for number in signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Do work in an event loop of its own; signals end it in order."""
    import anyio

    return anyio.run(in_order, work)


async def in_order(
    work: Callable[[], Awaitable[T]],
    stop: Callable[[int], object] | None = None,
    within: float = _PUT_AWAY_WITHIN,
    *,
    dies: bool = False,
) -> T:
    """Do work; a signal stops it, and the process ends when that is done or has taken too long.

    Args:
        stop: called with the number of each signal; without it the work is cut off.
        within: seconds for the work to stop.
        dies: as for `leave`.
    """
    import asyncio

    import anyio

    loop = asyncio.get_running_loop()
    loop.shutdown_default_executor = _at_once  # type: ignore[method-assign]
    before = {number: signal.getsignal(number) for number in (*signals(), signal.SIGALRM)}
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        """In the midst of whatever runs, were it a write that nobody reads, which would keep the loop from hearing."""
        if not heard:
            heard.append(number)
            signal.signal(signal.SIGALRM, lambda *_: leave(number, dies=dies))
            signal.setitimer(signal.ITIMER_REAL, within)

    def hear_in_loop(number: int) -> None:
        hear(number, None)  # which a question does not let through
        stop(number) if stop else scope.cancel()

    with anyio.CancelScope() as scope:
        for number in signals():
            loop.add_signal_handler(number, hear_in_loop, number)
            signal.signal(number, hear)
        try:
            return await work()
        finally:
            if heard:
                leave(heard[0], dies=dies)
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
            if heard:  # right then
                leave(heard[0], dies=dies)
    raise AssertionError("nothing but a signal cuts it off")


async def _at_once(*_: object, **__: object) -> None:
    """What an event loop does at its end about threads that look names up: it would wait for them, answered or not."""


def leave(number: int, *, dies: bool = False) -> NoReturn:
    """End this process at once, because of a signal or, with 0, by itself; nothing is left behind.

    Args:
        dies: of SIGTERM itself, which those who manage services take for an end in order, and no status for one.
    """
    try:
        _put_away()
    finally:  # whatever went wrong
        if dies and number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)  # which the first process of a container outlives
        os._exit(128 + number if number else 0)  # as shells have it


def end(status: int) -> NoReturn:
    """End this process when all has been said: soon also where a thread was left behind, as a keyring may ask for ever.

    Args:
        status: the exit status.
    """
    until = time.monotonic() + _THREADS_END_WITHIN
    others = [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    for thread in others:
        thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in others):  # which the interpreter would wait for
        try:
            _put_away()
        finally:
            os._exit(status)
    sys.exit(status)


def _put_away() -> None:
    """Leave nothing running or half made, and write the last lines of the log; once."""
    global _leaving
    if _leaving:
        return
    _leaving = True
    from .log import flush_log

    leave_nothing()
    flush_log()
