"""The end of a server, over whichever transport: which signals ask for it, and that nothing is left behind."""

import os
import signal
from typing import NoReturn

from ..surface.app import leave_nothing
from .log import flush_log


def signals() -> tuple[signal.Signals, ...]:
    """Those that end a server; that of a closed terminal not where whoever started it has said so (`nohup`)."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if ignored else (signal.SIGHUP,)))


def put_away() -> None:
    """Leave nothing running or half made, however the server got here, and write the last lines of the log."""
    leave_nothing()
    flush_log()


def leave(number: int) -> NoReturn:
    """End this process at once, because of a signal or, with 0, by itself; nothing is left behind."""
    put_away()
    os._exit(128 + number if number else 0)  # as shells have it
