"""Start, talk to and end the engine's processes; the server side of `child.py`."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any, cast

import anyio
import anyio.to_thread
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from ...errors import AnalyticsError
from ...upstream.models import Granularity

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
            AnalyticsError: when the process says that the data is at fault.
        """
        try:
            line = await self._output.receive_until(b"\n", _LONGEST_ANSWER)
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise EngineFailed("the engine's process has ended") from None
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise AnalyticsError(**answer["error"])
        if "crash" in answer:
            raise EngineFailed(f"the engine failed with {answer['crash']}")
        return answer

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.aclose()


async def start_child() -> Child:
    """Start an engine process: no environment, no site, no inherited files but its three pipes."""
    path = [_PACKAGE_ROOT, *(p for p in sys.path if p and p != _PACKAGE_ROOT)]
    process = await anyio.open_process(
        [sys.executable, "-I", "-S", str(_SCRIPT), json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("SRC_ANALYTICS_LOG_LEVEL") == "DEBUG" else subprocess.DEVNULL,
        env={"PYTHONUTF8": "1", **{k: v for k, v in os.environ.items() if k in ("LD_LIBRARY_PATH", "SYSTEMROOT")}},
    )
    return Child(process)


class Ingestion:
    """A conversion that follows a download."""

    _STEP = 1 << 20  # bytes; the child hears of every whole mebibyte

    def __init__(self, child: Child) -> None:
        self._child = child
        self._told = 0

    async def grown(self, size: int) -> None:
        """Say that the file now has `size` bytes."""
        if size - self._told >= self._STEP:
            self._told = size
            await self._tell({"size": size})

    async def finish(self, size: int) -> dict[str, Any]:
        """Say that the file is whole and return its description.

        Raises:
            AnalyticsError: when it is not a strict report.
        """
        await self._tell({"end": size})
        while True:
            answer = await self._hear()
            if "done" in answer:
                return cast(dict[str, Any], answer["done"])

    async def _tell(self, message: dict[str, Any]) -> None:
        try:
            await self._child.tell(message)
        except EngineFailed:
            while True:  # its last words say why
                await self._hear()

    async def _hear(self) -> dict[str, Any]:
        try:
            return await self._child.hear()
        except EngineFailed as failed:
            raise unreadable() from failed


def unreadable() -> AnalyticsError:
    """The engine could not convert a file that is well-formed as far as we can tell."""
    return AnalyticsError(
        "upstream_bad_csv",
        "The report could not be converted.",
        "Nothing was kept. Try again; if it stays so, report it.",
    )


@asynccontextmanager
async def ingestion(source: Path, parts: Path, granularity: Granularity) -> AsyncIterator[Ingestion]:
    """Run a conversion beside a download; leaving the block ends its process."""
    child = await start_child()
    try:
        await child.tell({"do": "ingest", "source": str(source), "parts": str(parts), "granularity": granularity})
        yield Ingestion(child)
    finally:
        await child.end()


class Sandbox:
    """Runs queries that nobody vouches for, each in a process and on a copy of its own.

    Args:
        scratch: directory for the copies.
        seconds: after which a query's process is killed.
        memory_mb: what the engine may use for one query.
    """

    _AT_ONCE, _WAITING = 2, 8

    def __init__(self, scratch: Path, seconds: float, memory_mb: int) -> None:
        self._scratch = scratch
        self._seconds = seconds
        self._memory_mb = memory_mb
        self._places = anyio.CapacityLimiter(self._AT_ONCE)

    async def run(self, files: Sequence[Path], columns: Sequence[str], sql: str, limit: int) -> dict[str, Any]:
        """Run one query over the rows in some Parquet files, visible as the table `usage`.

        Raises:
            AnalyticsError: `sql_rejected`, `sql_timeout`, `sql_memory`, `sql_failed`, or `busy`.
        """
        if self._places.statistics().tasks_waiting >= self._WAITING:
            raise AnalyticsError(
                "busy", "Too many queries run at once.", "Call again in a few seconds.", retryable=True
            )
        async with self._places:
            folder = await anyio.to_thread.run_sync(_copy, self._scratch, files)
            try:
                return await self._answer(folder, [file.name for file in files], columns, sql, limit)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))

    async def _answer(
        self, folder: Path, names: Sequence[str], columns: Sequence[str], sql: str, limit: int
    ) -> dict[str, Any]:
        request = {
            "do": "sandbox",
            "files": [str(folder / name) for name in names],
            "columns": list(columns),
            "sql": sql,
            "limit": limit,
            "memory_mb": self._memory_mb,
        }
        child = await start_child()
        try:
            with anyio.fail_after(self._seconds):
                await child.tell(request)
                answer = (await child.hear())["done"]
        except TimeoutError:
            message = f"The query was stopped after {self._seconds:g} seconds."
            raise AnalyticsError("sql_timeout", message, "Aggregate more, or ask query_usage.") from None
        except EngineFailed:
            message = "The query ended its process, most likely for lack of memory."
            raise AnalyticsError("sql_memory", message, "Aggregate more, or ask query_usage.") from None
        finally:
            await child.end()
        if "failed" in answer:
            raise AnalyticsError(answer["failed"], f"The query failed: {answer['message']}.", _hint(answer, columns))
        return cast(dict[str, Any], answer)


def _hint(answer: dict[str, Any], columns: Sequence[str]) -> str:
    match answer["failed"]:
        case "sql_failed":
            return f"Columns of usage: {', '.join(columns)}."
        case "sql_memory":
            return "Aggregate more, select fewer columns, or ask query_usage."
        case _:
            return "Send one SELECT over the table usage; nothing else is there."


def _copy(scratch: Path, files: Sequence[Path]) -> Path:
    """A copy that a query may damage without harm."""
    folder = scratch / f"query-{token_hex(8)}"
    folder.mkdir(mode=0o700)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder


class Questions:
    """A warm engine process that answers our own statements, one at a time.

    Args:
        scratch: directory for what does not fit into memory.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._child: Child | None = None
        self._lock = anyio.Lock()

    async def ask(
        self,
        tables: Mapping[str, Sequence[Path]],
        sql: str,
        parameters: Sequence[Any] = (),
        *,
        within: float = math.inf,
    ) -> list[dict[str, Any]]:
        """Run one statement over Parquet files, each list of them visible as a table.

        Args:
            within: seconds; the process is killed at the end of them.

        Raises:
            AnalyticsError: `internal` when the engine fails, `sql_timeout` after `within`.
        """
        request = {
            "do": "query",
            "tables": {name: [str(file) for file in files] for name, files in tables.items()},
            "sql": sql,
            "parameters": list(parameters),
            "scratch": str(self._scratch),
        }
        async with self._lock:
            answer = await self._exchange(request, within)
        return [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]

    async def _exchange(self, request: dict[str, Any], within: float) -> dict[str, Any]:
        finished = False
        try:
            with anyio.fail_after(None if within == math.inf else within):
                if self._child is None or not self._child.alive:
                    self._child = await start_child()
                await self._child.tell(request)
                answer = await self._child.hear()
                finished = True
                return cast(dict[str, Any], answer["done"])
        except EngineFailed as failed:
            raise AnalyticsError(
                "internal", "The data engine failed.", "Try again; if it stays so, report it."
            ) from failed
        except TimeoutError:
            raise AnalyticsError("sql_timeout", "The question took too long.", "Ask about fewer days.") from None
        finally:
            if not finished:  # a half-done conversation cannot be continued
                await self.aclose()

    async def aclose(self) -> None:
        """End the process; the next question starts another."""
        child, self._child = self._child, None
        if child is not None:
            await child.end()
