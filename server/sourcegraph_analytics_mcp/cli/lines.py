"""The client's lines: bounded, strictly UTF-8, and answered when they cannot be taken.

The SDK reads lines of any length, replaces bytes that are no UTF-8 and so acts on changed text, and never answers what
it drops (measured on 2.3.0); its transport takes other streams, which are these.
"""

import json
import logging
import os
import re
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from .descriptors import read, write
from .unanswered import Unanswered
from .worker import Worker

LONGEST = 1 << 20  # bytes of one message
_ID = rb'"id"\s*:\s*(0|[1-9]\d{0,17}|"[\w.:-]{1,100}")\s*'  # never more than JSON allows, as it is read again
_AT_FRONT = re.compile(rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*' + _ID + rb"[,}]")
_AT_END = re.compile(rb'"\s*,\s*' + _ID + rb"\}\s*\Z")
_SEEN = 1024  # bytes looked at for the id at either end
_READ = 1 << 16  # bytes, what a pipe holds
_LAST_ANSWERS_WITHIN = 0.5  # seconds after the end of the input
_log = logging.getLogger(__name__)


class Output:
    """Whole lines out, one at a time; in the form of the text file that the SDK writes to."""

    def __init__(self, file: BinaryIO, unanswered: Unanswered) -> None:
        self._file = file
        self._unanswered = unanswered
        self._writer = Worker("write")
        self._line = ""

    async def write(self, text: str) -> None:
        self._line += text

    async def flush(self) -> None:
        line, self._line = self._line, ""
        await self.send(line.encode("utf-8", "replace"))

    async def send(self, line: bytes) -> None:
        await self._writer.run(partial(write, self._file.fileno(), line))
        self._unanswered.went(line)


class Input:
    """The client's lines as text; in the form of the text file that the SDK reads.

    Args:
        output: where lines that cannot be taken are answered.
        on_end: called when the client closes its side.
    """

    def __init__(self, file: BinaryIO, output: Output, unanswered: Unanswered, on_end: Callable[[], None]) -> None:
        self._file = file
        self._unanswered = unanswered
        self._there = bytearray()  # what has come and is in no line yet
        self._reader = Worker("read")
        self._output = output
        self._on_end = on_end

    def __aiter__(self) -> "Input":
        return self

    async def __anext__(self) -> str:
        while True:
            line = await self._line(LONGEST + 1)
            if not line:
                await self._unanswered.wait(_LAST_ANSWERS_WITHIN)
                self._on_end()
                raise StopAsyncIteration
            if len(line) > LONGEST:
                end = await self._skip(line)
                await self._refuse(line, end, f"The message is longer than {LONGEST:,} bytes.")
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError:
                await self._refuse(line, line, "The message is not valid UTF-8.")
                continue
            message = _message(text)
            if message is not None or b'"method"' not in line or not _number(line, line):
                self._unanswered.came(message)
                return text
            await self._refuse(line, line, "The message is no JSON-RPC, or nested too deeply.")

    async def _line(self, most: int) -> bytes:
        """A line with its end, or so many bytes of it; what is left where the input ends."""
        looked = 0
        while (end := self._there.find(b"\n", looked)) < 0 and len(self._there) < most:
            looked = len(self._there)
            more = await self._more()
            if not more:
                break
            self._there += more
        size = min(most, len(self._there) if end < 0 else end + 1)
        line = bytes(self._there[:size])
        del self._there[:size]
        return line

    async def _more(self) -> bytes:
        try:
            return await self._reader.run(partial(read, self._file.fileno(), _READ))
        except OSError as error:  # such as that of a terminal that was closed, or of a client that did not read all
            _log.warning("The input ended: %s", error.strerror)
            return b""

    async def _skip(self, end: bytes) -> bytes:
        """Read to the end of an overlong line; its last bytes."""
        while not end.endswith(b"\n"):
            more = await self._line(LONGEST)
            if not more:
                break
            end = end[-_SEEN:] + more
        return end[-_SEEN:]

    async def _refuse(self, start: bytes, end: bytes, message: str) -> None:
        error = {"code": -32600, "message": f"{message} It was dropped."}
        answer = {"jsonrpc": "2.0", "id": json.loads(_number(start, end) or b"null"), "error": error}
        await self._output.send(json.dumps(answer).encode() + b"\n")


def _number(start: bytes, end: bytes) -> bytes | None:
    """The id of a request as it is spelled, where it is the second or the last thing in a message."""
    found = _AT_FRONT.match(start[:_SEEN]) or _AT_END.search(end[-_SEEN:])
    return found[1] if found else None


def _message(text: str) -> object | None:
    """What message the SDK will take it for, if for one (2 microseconds)."""
    try:
        return jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError:
        return None


def standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """The client's two pipes, taken over: what else reads stdin finds nothing, what else prints goes to stderr."""
    source = os.fdopen(os.dup(0), "rb", buffering=0, closefd=False)  # which end with the process
    sink = os.fdopen(os.dup(1), "wb", buffering=0, closefd=False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink
