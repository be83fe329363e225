"""Put our own statements to a warm engine process."""

import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import anyio

from ...disk import in_thread, surely
from ...errors import AnalyticsError
from ...files import Held, disk_error
from ..identities import Pseudonyms
from ..missing import deleted, gone
from .process import Child, EngineFailed, start_child

_log = logging.getLogger(__name__)
_LONGEST = 300.0  # seconds for a statement of ours: 10 M rows take 0.4 (measured); one that was stopped never answers


class Questions:
    """A warm engine process that answers our own statements, one at a time.

    Args:
        scratch: directory in which each process has a place for what does not fit into memory; it lies in the data
            directory.
        pseudonyms: if given, the tables show people by these alone.
    """

    def __init__(self, scratch: Path, pseudonyms: Pseudonyms | None = None) -> None:
        self._scratch = scratch
        self._home = scratch.parent.absolute()
        self.pseudonyms = pseudonyms
        self._child: Child | None = None
        self._place: Held | None = None  # the child's, which may hold anything that it read
        self._lock = anyio.Lock()

    async def ask(
        self, tables: Mapping[str, Sequence[Path]], sql: str, parameters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Run one statement over Parquet files, each list of them visible as a table.

        Args:
            parameters: what each `$name` of the statement stands for; all of them and no other.

        Raises:
            AnalyticsError: `not_found` when the files were deleted meanwhile, `internal` when the engine fails,
                `store_full` or `store_corrupt` when the disk refuses.
        """
        request = {
            "do": "query",
            "place": str(self._home),
            "tables": {name: [self.name(file) for file in files] for name, files in tables.items()},
            "sql": sql,
            "parameters": dict(parameters or {}),
            "mask": self.pseudonyms.key if self.pseudonyms else None,
        }
        try:
            async with self._lock:
                answer = await self._exchange(request)
        except EngineFailed as failed:
            _log.warning("A question ended: %s", failed)
            raise (deleted() if gone(chain(*tables.values())) else _failed()) from failed
        return [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]

    async def folded(self, names: Sequence[str]) -> dict[str, str]:
        """What each name is when it is compared, as SQL has it by `folded(…)`; Python's own way differs in places.

        Raises:
            AnalyticsError: as `ask`.
        """
        sql = "SELECT name, folded(name) AS folded FROM (SELECT unnest($names::VARCHAR[]) AS name)"
        return {row["name"]: row["folded"] for row in await self.ask({}, sql, {"names": list(names)})}

    async def written(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """How each name that the operator gives may stand in the tables when it is compared, the way it is shown first.

        Several by pseudonym: that of a user id depends on its case.

        Raises:
            AnalyticsError: as `ask`.
        """
        folded = await self.folded(names) if names else {}
        if self.pseudonyms is None:
            return {name: (folded[name],) for name in names}
        of = self.pseudonyms.of
        return {name: (of(folded[name]), of(name)) for name in names}

    def name(self, file: Path) -> str:
        """What a statement calls a file in the data directory."""
        return str(file.absolute().relative_to(self._home))

    async def _begun(self) -> Child:
        """The process that is there, else a new one."""
        if self._child is None or not self._child.alive:
            await self.aclose()
            try:
                self._place = await in_thread(Held.within, self._scratch, "engine")
            except OSError as error:
                raise disk_error(error) from None
            self._child = await start_child()
        return self._child

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        finished = False
        try:
            child = await self._begun()
            assert self._place is not None
            with anyio.fail_after(_LONGEST):
                await child.tell(request | {"scratch": self.name(self._place.folder)})
                answer = await child.hear()
            finished = True
            return cast(dict[str, Any], answer["done"])
        except TimeoutError:
            raise EngineFailed(f"the engine has not answered in {_LONGEST:g} seconds") from None
        finally:
            if not finished:  # a half-done conversation cannot be continued
                await self.aclose()

    async def aclose(self) -> None:
        """End the process, and what it has on the disk with it; the next question starts another."""
        child, self._child = self._child, None
        place, self._place = self._place, None
        with anyio.CancelScope(shield=True):
            if child is not None:
                await child.end()
            if place is not None:
                await surely(place.close)


def _failed() -> AnalyticsError:
    return AnalyticsError("internal", "The data engine failed.", "Try again; if it stays so, report it.")
