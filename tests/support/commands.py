"""The command in a process of its own, forked from one that has imported it, which is nearly all of a start's work.

Settings are read, and everything else happens, after the fork; the interpreter ends as it always does. Tests about how
the command starts, is installed or takes its streams start it anew (`COMMAND`).
"""

import atexit
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from io import BufferedReader, BufferedWriter
from pathlib import Path

_SCRIPT = Path(__file__).with_name("prefork.py")
_NUMBER = struct.Struct("i")


class Command:
    """`sourcegraph-analytics-mcp` with these arguments, environment and streams; of `subprocess.Popen` what is needed.

    Args:
        stderr: a descriptor to write to, or None for a pipe to read from.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], stderr: int | None = None) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        ours_err, theirs_err = os.pipe() if stderr is None else (None, os.dup(stderr))
        self._told, told = os.pipe()
        theirs = [theirs_in, theirs_out, theirs_err, told]
        order = {"arguments": list(arguments), "environment": dict(environment), "directory": str(Path.cwd())}
        socket.send_fds(_prefork(), [json.dumps(order).encode()], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        self.stdin: BufferedWriter = os.fdopen(ours_in, "wb", buffering=-1)
        self.stdout: BufferedReader = os.fdopen(ours_out, "rb")
        self.stderr = None if ours_err is None else os.fdopen(ours_err, encoding="utf-8")
        self.pid = self._number()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, as a negative number after a signal; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Args:
            timeout: in seconds.

        Raises:
            subprocess.TimeoutExpired: when it goes on.
        """
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("sourcegraph-analytics-mcp", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended this moment
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(self._number())
            os.close(self._told)
        return self.returncode

    def _number(self) -> int:
        return int(_NUMBER.unpack(os.read(self._told, _NUMBER.size))[0])


def finished(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end without anything to read; what it says is little."""
    command = Command(arguments, environment)
    too_long = threading.Timer(60, command.kill)
    too_long.start()
    command.stdin.close()
    assert command.stderr is not None
    with command.stdout, command.stderr:
        said, complained = command.stdout.read().decode(), command.stderr.read()
    status = command.wait()
    too_long.cancel()
    return subprocess.CompletedProcess(arguments, status, said, complained)


@cache
def _prefork() -> socket.socket:
    """Where the process that forks them takes orders; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        forking = subprocess.Popen([sys.executable, str(_SCRIPT)], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
    atexit.register(forking.wait)
    atexit.register(ours.close)  # the last that is registered is the first that is done
    return ours
