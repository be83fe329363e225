"""Convert a download while it arrives, in a process of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from ...errors import AnalyticsError
from ...upstream.models import Granularity
from .process import Child, EngineFailed, start_child


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
