"""Run queries that nobody vouches for, each in a process and on a copy of its own; the server side of `sandbox.py`."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import anyio

from ...disk import in_thread, surely
from ...errors import AnalyticsError
from ...files import Held, disk_error
from ..missing import deleted, gone
from .process import EngineFailed, start_child
from .questions import Questions

_log = logging.getLogger(__name__)


class Sandbox:
    """Runs queries that nobody vouches for, each in a process and on a copy of its own.

    Args:
        copies: directory for them.
        seconds: after which a query's process is killed.
        memory_mb: what the engine may use for one query.
        questions: makes the copies where people are shown by pseudonym.
        shared: places that all callers of a server share, besides the two of each; None where there is one caller.
    """

    _AT_ONCE, _WAITING = 2, 8

    def __init__(
        self,
        copies: Path,
        seconds: float,
        memory_mb: int,
        questions: Questions,
        shared: anyio.CapacityLimiter | None = None,
    ) -> None:
        self._questions = questions
        self._copies = copies.absolute()
        self._seconds = seconds
        self._memory_mb = memory_mb
        self._places = anyio.CapacityLimiter(self._AT_ONCE)
        self._shared = shared or anyio.CapacityLimiter(self._AT_ONCE)

    async def run(
        self, files: Sequence[Path], columns: Sequence[str], sql: str, limit: int, widest: int, most: int
    ) -> dict[str, Any]:
        """Run one query over the rows in some Parquet files, visible as the table `usage`.

        Args:
            columns: those that may be seen.
            limit: rows.
            widest: characters of a cell; of a longer one come that many and one more.
            most: characters of all rows; of one that is longer comes the first row.

        Raises:
            AnalyticsError: `sql_rejected`, `sql_timeout`, `sql_memory`, `sql_failed`, `busy`, or `not_found` when the
                files were deleted meanwhile.
        """
        if self._places.statistics().tasks_waiting >= self._WAITING:
            raise AnalyticsError(
                "busy", "Too many queries run at once.", "Call again in a few seconds.", retryable=True
            )
        async with self._places, self._shared:
            try:
                place = await in_thread(Held.within, self._copies, "query")
            except OSError as error:
                raise disk_error(error) from None
            try:
                names = await self._copied(place.folder, files, columns)
                return await self._answer(place.folder, names, columns, sql, limit, widest, most)
            finally:
                with anyio.CancelScope(shield=True):
                    await surely(place.close)

    async def _copied(self, folder: Path, files: Sequence[Path], columns: Sequence[str]) -> list[str]:
        """Copy the data; where people are shown by pseudonym, only the columns that may be seen."""
        if self._questions.pseudonyms is None:
            try:
                for file in files:
                    await in_thread(shutil.copyfile, file, folder / file.name)
            except OSError as error:
                raise (deleted() if gone(files) else disk_error(error)) from None
            return [file.name for file in files]
        listed = ", ".join(f'"{name}"' for name in columns)
        target = self._questions.name(folder / "masked.parquet")
        await self._questions.ask({"t": files}, f"COPY (SELECT {listed} FROM t) TO '{target}' (FORMAT parquet)")
        return ["masked.parquet"]

    async def _answer(
        self, folder: Path, names: Sequence[str], columns: Sequence[str], sql: str, limit: int, widest: int, most: int
    ) -> dict[str, Any]:
        request = {
            "do": "sandbox",
            "place": str(folder),
            "files": list(names),
            "columns": list(columns),
            "sql": sql,
            "limit": limit,
            "widest": widest,
            "most": most,
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
        except EngineFailed as failed:
            _log.warning("A query ended: %s", failed)
            message = "The query ended its process, perhaps for lack of memory."
            raise AnalyticsError("sql_failed", message, "Write it in another way, or ask query_usage.") from None
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
