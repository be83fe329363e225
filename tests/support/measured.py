"""The interpreter of `campaigns/coverage.py`: runs a program as `python` would, and tells what was executed.

Every process of a measured run is started through it, with whatever flags and environment the code gives: it sends what
it has executed whenever it may be about to be killed, over a socket that was open before the program's own limits.
"""

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dis import findlinestarts
from functools import cache
from opcode import opmap
from types import CodeType, FrameType
from typing import IO, Any, NoReturn

_FORKING = "forkserver.py"
_KILLED_WITHIN = 2.0  # seconds
_NOP, _RESUME = opmap["NOP"], opmap["RESUME"]

Arcs = set[tuple[int, int]]


class Tracer:
    """Which line followed which, in the files of one package, as coverage.py counts it.

    Each frame keeps its own last line: Python 3.11 enters the frame of a coroutine that is cancelled without telling
    (no `call` event), after which the stack of frames that coverage.py's own tracers keep is wrong.
    """

    def __init__(self, package: str) -> None:
        files: dict[str, Arcs | None] = {}
        self._files = files

        def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
            try:
                arcs = files[frame.f_code.co_filename]
            except KeyError:
                name = frame.f_code.co_filename
                arcs = files[name] = set() if name.startswith(package + os.sep) else None
            if arcs is None:
                return None
            return frame.f_trace or _watched(frame, arcs)  # a coroutine that goes on has been watched before

        self.trace = trace

    def executed(self) -> dict[str, Arcs]:
        return {name: set(arcs) for name, arcs in list(self._files.items()) if arcs}


def _watched(frame: FrameType, arcs: Arcs) -> Callable[..., Any]:
    start, code = -frame.f_code.co_firstlineno, frame.f_code.co_code
    last = start

    def watch(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal last
        if event == "line" and not _is_only_passed(frame, code):
            arcs.add((last, frame.f_lineno))
            last = frame.f_lineno
        elif event == "return":
            after = frame.f_lasti + 2
            if after >= len(code) or code[after] != _RESUME:  # else it only waits
                arcs.add((last, start))
        return watch

    return watch


def _is_only_passed(frame: FrameType, code: bytes) -> bool:
    """Whether this line only stands for a leap: Python 3.11 names the last of a `with` when an `if` there leaps out."""
    return code[frame.f_lasti] == _NOP and frame.f_lasti not in _starts(frame.f_code)


@cache
def _starts(code: CodeType) -> set[int]:
    return {offset for offset, _ in findlinestarts(code)}


class Measurement:
    """What this process has executed, and the campaign's ear."""

    def __init__(self, listener: str, package: str) -> None:
        self._listener = listener
        self._told: dict[str, Arcs] = {}
        self.connect()
        self._tracer = Tracer(package)
        threading.settrace(self._tracer.trace)
        sys.settrace(self._tracer.trace)

    def connect(self) -> None:
        """Have a line of its own to the campaign's ear, which a fork needs, too."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(self._listener)

    def send(self) -> None:
        """What has been executed since the last time."""
        executed = self._tracer.executed()
        fresh = {name: list(arcs - self._told.get(name, set())) for name, arcs in executed.items()}
        self._told = executed
        if any(fresh.values()):
            self._socket.sendall(json.dumps(fresh).encode() + b"\n")


class _Held:
    """An engine's output, held back until what led to it has been sent: its process is killed once it has answered."""

    def __init__(self, file: IO[str], measurement: Measurement) -> None:
        self._file = file
        self._measurement = measurement
        self._text = ""

    def write(self, text: str) -> None:
        self._text += text

    def flush(self) -> None:
        """Later, when the process waits or ends."""

    def release(self) -> None:
        self._measurement.send()
        self._file.write(self._text)
        self._file.flush()
        self._text = ""


def _hold_answers(measurement: Measurement) -> list[_Held]:
    """Give what this process opens on its pipes an output that waits for the measurement."""
    opened, held = os.fdopen, list[_Held]()

    def lines(file: IO[str]) -> Iterator[str]:
        while True:
            for output in held:
                output.release()
            line = file.readline()
            if not line:
                return
            yield line

    def fdopen(number: int, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = opened(number, mode, *rest, **more)
        if mode == "r":
            return lines(file)
        held.append(_Held(file, measurement))
        return held[-1]

    os.fdopen = fdopen  # type: ignore[assignment]
    return held


def _measure_forks(measurement: Measurement) -> None:
    """Let every engine that this process forks tell what it has executed, before its answers and at its end."""

    def forked() -> None:
        measurement.connect()
        held, leave = _hold_answers(measurement), os._exit

        def leave_measured(status: int) -> NoReturn:
            for output in held:
                output.release()
            measurement.send()
            leave(status)

        os._exit = leave_measured

    os.register_at_fork(after_in_child=forked)


def _send_at_every_end(measurement: Measurement) -> None:
    """However this process ends, but for a kill by somebody who does not know it."""
    leave = os._exit

    def leave_measured(status: int) -> NoReturn:
        measurement.send()
        leave(status)

    def killed(*_: object) -> None:
        measurement.send()
        os.kill(os.getpid(), signal.SIGKILL)

    def ended(number: int, _: object) -> None:
        measurement.send()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    os._exit = leave_measured
    signal.signal(signal.SIGUSR1, killed)
    signal.signal(signal.SIGTERM, ended)  # where the program leaves it, or gives it back, to the default
    atexit.register(measurement.send)


def _kill_measured() -> None:
    """A kill lets a measured process send what it has; then it is killed all the same."""
    kill = subprocess.Popen.kill

    def tell_and_kill(process: "subprocess.Popen[Any]") -> None:
        if process.poll() is None and not any(str(part).endswith(_FORKING) for part in process.args):  # type: ignore[union-attr]
            process.send_signal(signal.SIGUSR1)
            ended_by_itself(process.pid)
        kill(process)

    def ended_by_itself(pid: int) -> None:
        deadline = time.monotonic() + _KILLED_WITHIN
        with suppress(ChildProcessError):  # it has been waited for already
            while time.monotonic() < deadline and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                time.sleep(0.001)

    subprocess.Popen.kill = tell_and_kill  # type: ignore[method-assign, assignment]


def _run(arguments: list[str]) -> None:
    match arguments:
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            sys.path[0] = os.getcwd()  # noqa: PTH109
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *rest]:
            sys.argv, sys.path[0] = ["-c", *rest], ""
            exec(code, {"__name__": "__main__"})  # noqa: S102
        case [script, *rest]:
            sys.argv = [script, *rest]
            runpy.run_path(script, run_name="__main__")


def main() -> None:
    """Measure one program: `measured.py '{"listener", "package", "interpreter"}' program arguments`."""
    given, arguments = json.loads(sys.argv[1]), sys.argv[2:]
    sys.executable = given["interpreter"]
    measurement = Measurement(given["listener"], given["package"])
    if arguments[0].endswith(_FORKING):
        _measure_forks(measurement)
        atexit.register(measurement.send)
    else:
        _send_at_every_end(measurement)
        _kill_measured()
    _run(arguments)


if __name__ == "__main__":
    main()
