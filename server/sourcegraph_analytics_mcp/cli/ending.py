"""How a command ends whatever its standard streams are (closed, full, read by nobody), or without what it needs."""

import errno
import io
import os
import signal
import sys

from ..errors import no_thread
from .leaving import Interrupted

_UNREAD = 141
_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def take_streams() -> None:
    """Have all three streams, each taking any text; in place of a closed one nothing is read or written."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which the next file or socket would get else
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
        stream = getattr(sys, name)
        if number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def status_of(error: BaseException) -> int | None:
    """The exit status for an interrupt, or for no threads or output that could not be written; None for the rest.

    What is not the user's own doing is said on stderr.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, KeyboardInterrupt):
        return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)  # as shells have it
    if no_thread(error):
        print("The system has no more threads for this command: raise the limits that it runs under.", file=sys.stderr)  # noqa: T201
        return 1
    if not isinstance(error, BrokenPipeError) and not (isinstance(error, OSError) and error.errno in _UNWRITTEN):
        return None
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # for what is still to be written when the process ends
    os.close(nothing)
    if isinstance(error, BrokenPipeError):
        return _UNREAD
    print(f"The output could not be written: {error.strerror}.", file=sys.stderr)  # noqa: T201
    return 1
