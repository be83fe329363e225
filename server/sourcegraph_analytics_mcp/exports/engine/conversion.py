"""Convert a download while it arrives, in a process of its own."""

import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

from ...disk import in_thread
from ...errors import AnalyticsError
from ...files import private_folder
from ...upstream.models import Granularity
from .process import Child, EngineFailed, order_child

_log = logging.getLogger(__name__)


class Ingestion:
    """A conversion that follows a download. Should its process die, another begins again.

    Args:
        source: the CSV file.
        parts: where the Parquet parts go, beside it; it exists.
    """

    _STEP = 1 << 20  # bytes; the child hears of every whole mebibyte

    def __init__(self, source: Path, parts: Path, granularity: Granularity) -> None:
        self._parts = parts
        place = str(source.parent.absolute())
        self._order = {
            "do": "ingest", "place": place, "source": source.name, "parts": parts.name, "granularity": granularity
        }  # fmt: skip
        self._child: Child | None = None
        self._ordered = False
        self._told = 0

    async def start(self) -> None:
        """Have a process started that waits for its order; it begins while upstream makes the report."""
        self._child = await order_child()
        self._ordered = False

    async def clear(self) -> None:
        """Leave nothing of an attempt before: first its process goes, which would go on writing, then what it wrote."""
        if self._ordered:
            await self.end()
            await in_thread(_emptied, self._parts)
            await self.start()

    async def begin(self) -> None:
        """Begin with a file that is there and has nothing in it yet.

        Raises:
            AnalyticsError: when the system did not start the process.
        """
        self._ordered = True
        self._told = 0
        assert self._child is not None
        await self._child.begun()
        with suppress(EngineFailed):  # noticed when the file is whole
            await self._child.tell(self._order)

    async def end(self) -> None:
        """End the process, whatever it does."""
        if self._child is not None:
            await self._child.end()

    async def grown(self, size: int) -> None:
        """Say that the file now has `size` bytes.

        Raises:
            AnalyticsError: when what came so far is not a strict report.
        """
        if size - self._told >= self._STEP:
            self._told = size
            assert self._child is not None
            with suppress(EngineFailed):
                await self._child.tell({"size": size})

    async def finish(self, size: int) -> dict[str, Any]:
        """Say that the file is whole and return its description.

        Raises:
            AnalyticsError: when it is not a strict report, or cannot be converted.
        """
        try:
            return await self._finish(size)
        except EngineFailed as failed:
            _log.warning("A conversion is begun again: %s", failed)
        await self.clear()
        await self.begin()
        try:
            return await self._finish(size)
        except EngineFailed as failed:
            _log.warning("A conversion ended: %s", failed)
            raise unreadable() from failed

    async def _finish(self, size: int) -> dict[str, Any]:
        assert self._child is not None
        await self._child.tell({"end": size})
        return cast(dict[str, Any], (await self._child.hear())["done"])


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    private_folder(folder)


def unreadable() -> AnalyticsError:
    """The engine could not convert a file that is well-formed as far as we can tell."""
    return AnalyticsError(
        "upstream_bad_csv",
        "The report could not be converted.",
        "Nothing was kept. Try again; if it stays so, report it.",
    )


@asynccontextmanager
async def ingestion(source: Path, parts: Path, granularity: Granularity) -> AsyncIterator[Ingestion]:
    """Have a process ready to convert a download; leaving the block ends it."""
    conversion = Ingestion(source, parts, granularity)
    try:
        await conversion.start()
        yield conversion
    finally:
        await conversion.end()
