"""Which signals end this process, and their work while it loads; it imports nothing that takes a while."""

import os
import signal


def signals() -> tuple[signal.Signals, ...]:
    """Those that end this process, but for those that whoever started it has said to ignore (`nohup`, `&`)."""
    every = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return tuple(number for number in every if signal.getsignal(number) != signal.SIG_IGN)


def end_at_once() -> None:
    """Have signals end this process on the spot while nothing is under way; some imports make errors of exceptions."""
    for number in signals():
        signal.signal(number, lambda sent, _: os._exit(128 + sent))
