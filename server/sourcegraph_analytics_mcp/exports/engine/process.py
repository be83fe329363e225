"""Start an engine process and talk to it line by line; the server side of `child.py`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from ...errors import AnalyticsError

_SCRIPT = Path(__file__).with_name("child.py")
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_LONGEST_ANSWER = 64 << 20  # bytes


class EngineFailed(Exception):
    """The engine's process died or could not do what it was told."""


class Child:
    """One engine process and the line-wise conversation with it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._input = process.stdin
        self._output = BufferedByteReceiveStream(process.stdout)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Send one line.

        Raises:
            EngineFailed: when the process has gone.
        """
        try:
            await self._input.send(json.dumps(message).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            raise EngineFailed("the engine's process has ended") from None

    async def hear(self) -> dict[str, Any]:
        """Receive one line.

        Raises:
            EngineFailed: when the process has gone.
            AnalyticsError: when the process says that the data is at fault; `result_too_large` for a line of more than
                64 MiB, after which nothing more can be heard.
        """
        try:
            line = await self._output.receive_until(b"\n", _LONGEST_ANSWER)
        except anyio.DelimiterNotFound:
            raise too_much() from None
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise EngineFailed("the engine's process has ended") from None
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AnalyticsError(**answer["error"])
        if "crash" in answer:
            raise EngineFailed(f"the engine failed: {answer['crash']}")
        return answer

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.aclose()


def too_much() -> AnalyticsError:
    """What was asked for is more than an answer can ever show."""
    message = f"What was asked for is more than {_LONGEST_ANSWER >> 20} MB of figures and names."
    step = "Ask for less at once: fewer days, fewer groups, a filter; or export_csv, whose rows stay on disk."
    return AnalyticsError("result_too_large", message, step)


async def start_child() -> Child:
    """Start an engine process: no environment, no site, no inherited files but its three pipes.

    Raises:
        AnalyticsError: `busy` when the system does not start it.
    """
    try:
        with anyio.CancelScope(shield=True):  # a start that is cut off leaves a process that nobody waits for
            process = await _process()
    except OSError as error:
        message = "The data engine's process cannot be started."
        step = "Try again; if it stays so, check that this machine has memory and processes left."
        raise AnalyticsError("busy", message, step, retryable=True) from error
    return Child(process)


async def _process() -> Process:
    path = [_PACKAGE_ROOT, *(p for p in sys.path if p and p != _PACKAGE_ROOT)]
    return await anyio.open_process(
        [sys.executable, "-I", "-S", str(_SCRIPT), json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what it has to say of an error comes as an answer
        env={"PYTHONUTF8": "1", **{k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}},
    )
