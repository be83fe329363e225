"""The store on disk: one directory per export, whole or absent.

    <home>/exports/<id>/{meta.json, export.csv, parts/*.parquet}
    <home>/staging/<id>/   being made; a kernel lock tells whether its maker lives
    <home>/staging/query-<any>/    a copy for a query that nobody vouches for, locked likewise
    <home>/staging/deleted-<any>/  on its way out
    <home>/scratch/<any>/  what an engine's process has no memory for, locked likewise
    <home>/.reading        locked by whoever reads several exports, so that no sweep takes one meanwhile

An export is made in staging, synced, and renamed into place; it is removed by renaming it out again. There is no
catalogue beside the directories, so there is none that could disagree with them.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from ..disk import Disk
from ..errors import AnalyticsError
from ..files import DOOMED, disk_error, private_folder, private_home, sync, within_home, write_private
from .missing import lost, unknown
from .models import Export
from .moments import age, ahead, hour
from .readers import Readers
from .staging import Staging, remove_abandoned, unchanged_for
from .wishes import Wish

_ROOM_FOR_UNKNOWN = 256 << 20  # bytes
_IN_USE = timedelta(hours=1)  # an older export answers no question that is asked now
_ID = re.compile(r"[0-9a-f]{32}\Z")


class Store:
    """The exports of one data directory. Several processes may use it at once.

    Args:
        home: the data directory; made, private to this user, when first needed.
        retention_days: older exports are deleted.
        max_bytes: beyond this the oldest exports are deleted.
        instances: whose exports are shown; none for any. The others are kept and swept all the same.
    """

    def __init__(self, home: Path, retention_days: float, max_bytes: int, instances: tuple[str, ...] = ()) -> None:
        self.home = home
        self._instances = instances
        self._exports = home / "exports"
        self.staging = home / "staging"
        self.scratch = home / "scratch"
        self._retention_days = retention_days
        self._max_bytes = max_bytes
        self._disk = Disk()
        self.readers = Readers(home)  # calls that need several exports at once
        self._spared = False  # whether the last sweep left something for their sake
        self.stuck = 0  # exports that the last sweep could not remove
        self._proved: set[str] = set()  # whose data this process has seen to be what was written
        self._proved_csv: set[str] = set()  # the same for their CSV
        self._known: dict[str, Export | None] = {}  # metadata never changes, so it is read once; None is unreadable

    @property
    def there(self) -> bool:
        """Whether anything was ever kept in it, as far as that can be told."""
        try:
            return self._exports.is_dir()
        except OSError:  # which whatever uses it says
            return True

    def prepare(self) -> bool:
        """Make the directories and remove what dead processes and time have left; whether exports went.

        Raises:
            AnalyticsError: `store_full` or `store_corrupt` when the directory cannot be used.
        """
        try:
            private_home(self.home)
            for folder in (self._exports, self.staging, self.scratch):
                private_folder(folder)
            for place in (self.staging, self.scratch):
                remove_abandoned(place)
        except OSError as error:
            raise disk_error(error) from error
        return self.sweep()

    def stage(self) -> Staging:
        """Begin an export under a fresh random id, in a prepared store."""
        try:
            return Staging(self.staging / secrets.token_hex(16))
        except OSError as error:
            raise disk_error(error) from error

    def room_for(self, size: int | None) -> None:
        """Check that a report fits before it is downloaded: once as it comes, and as much again for its conversion.

        Args:
            size: bytes that upstream announces, None when it does not say.

        Raises:
            AnalyticsError: `store_full`, saying how much is needed.
        """
        needed = _ROOM_FOR_UNKNOWN if size is None else 2 * size
        free = shutil.disk_usage(self.staging).free
        if free < needed:
            whose = "The export" if size is not None else "An export whose size is not known before"
            raise AnalyticsError(
                "store_full",
                f"{whose} needs about {-(-needed >> 20):,} MB, and {free >> 20:,} MB are free.",
                "Free disk space, delete exports (delete_export), or ask for fewer days.",
            )

    def commit(self, staging: Staging, export: Export) -> Export:
        """Make a staged export part of the store, in one rename; afterwards it survives a power cut."""
        try:
            write_private(staging.folder / "meta.json", export.model_dump_json(indent=1))
            for path in (staging.folder, *staging.folder.rglob("*")):
                sync(path)
            staging.folder.rename(self._exports / staging.id)
            (self._exports / staging.id / ".lock").unlink()
            sync(self._exports)
        except OSError as error:
            with suppress(AnalyticsError):  # what is not said to be kept is not there
                self._remove(staging.id)
            raise disk_error(error) from error
        self._proved.add(staging.id)
        self._proved_csv.add(staging.id)
        with suppress(AnalyticsError):  # logged by then; the export is kept all the same
            self.sweep(keep=staging.id)
        return self.get(staging.id)

    def exports(self) -> list[Export]:
        """Every export that is shown and whose metadata can be read, newest first; `get` says whether it is whole."""
        return [export for export in self._all() if self._shows(export)]

    def _all(self) -> list[Export]:
        found = [export for name in self._names() if (export := self._read(name)) is not None]
        return sorted(found, key=lambda export: (export.created_at, export.id), reverse=True)

    def _shows(self, export: Export) -> bool:
        return not self._instances or export.instance_url in self._instances

    def _by_age(self, now: datetime) -> list[Export]:
        """Every whole export, newest first, and last those that a clock made that was ahead."""
        return sorted(self._all(), key=lambda export: ahead(export, now))

    def fresh(self, upstream: str, wish: Wish, since: datetime | None = None) -> list[Export]:
        """Those of one upstream that are as good as new, newest first: of this hour, as its data refresh on the hour.

        What a clock made that was ahead is not: nobody knows when that was.

        Args:
            upstream: the address that they came from.
            wish: what they are for; those that it waited for are as good in whatever hour.
            since: for who wants newer ones: those made since then, in whatever hour.
        """
        now = datetime.now(UTC)
        recent = hour(now) if since is None else since

        def will_do(export: Export) -> bool:
            if since is not None and export.created_at < since:
                return False
            of_now = export.created_at >= recent and not ahead(export, now)
            return export.id in wish.exports or (of_now and not wish.new)

        return [e for e in self.exports() if e.upstream == upstream and will_do(e)]

    async def listed(self) -> list[Export]:
        """The same for who must not wait for a slow disk."""
        return await self._disk.run(self.exports)

    def get(self, export_id: str) -> Export:
        """Look one export up.

        Raises:
            AnalyticsError: `not_found`, or `store_corrupt` when its files are not whole.
        """
        export = self._read(export_id) if _ID.match(export_id) else None
        if export is None or not self._shows(export):
            raise unknown()
        if not export.whole or not self._unchanged(export):
            raise lost(export)
        return export

    def _unchanged(self, export: Export) -> bool:
        """Whether the data that questions read is what was written, checked once per process."""
        if export.id not in self._proved:
            try:
                same = all(
                    zlib.crc32(part.read_bytes()) == check[2]
                    for part, check in zip(export.parts, export.checks, strict=True)
                )
            except (OSError, ValueError):  # unreadable, or not a check for each part
                return False
            if same:
                self._proved.add(export.id)
        return export.id in self._proved

    def holds_what_was_sent(self, export: Export) -> bool:
        """Whether the CSV is what upstream sent, read once per process (a second for each gigabyte or two).

        Raises:
            OSError: when it cannot be read.
        """
        if export.id not in self._proved_csv:
            with export.csv.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == export.sha256:
                    self._proved_csv.add(export.id)
        return export.id in self._proved_csv

    def delete(self, export_id: str) -> bool:
        """Remove every copy of an export that is not hidden; whether there was one."""
        if not _ID.match(export_id):
            return False
        export = self._read(export_id)
        return (export is None or self._shows(export)) and self._remove(export_id)

    def _remove(self, export_id: str) -> bool:
        doomed = self.staging / f"{DOOMED}{secrets.token_hex(8)}"
        try:
            within_home(self.staging)
            (self._exports / export_id).rename(doomed)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_error(error) from error
        shutil.rmtree(doomed, ignore_errors=True)
        self._known.pop(export_id, None)
        return True

    def sweep(self, keep: str | None = None) -> bool:
        """Delete exports that are too old, then the oldest beyond the size limit; never the one named by `keep`, nor
        what a call may be reading. One that cannot be removed is counted, and stays.

        Returns:
            Whether any went.
        """
        with self.readers.nobody() as unread:
            doomed = [*self._doomed(keep, unread), *self._long_unreadable()]
            gone = [self._swept(name) for name in doomed]
        self.stuck = gone.count(None)
        return any(gone)

    def _doomed(self, keep: str | None, unread: bool) -> Iterator[str]:
        """The exports that are to go, newest first.

        Args:
            unread: whether nobody reads, so that the newest may go, too.
        """
        total = 0
        now = datetime.now(UTC)
        self._spared = False
        for export in self._by_age(now):
            too_old = age(export, now) / timedelta(days=1) > self._retention_days
            if export.id == keep or not (too_old or total + export.stored_bytes > self._max_bytes):
                total += export.stored_bytes
            elif not unread and now - export.created_at < _IN_USE:
                self._spared = True
                total += export.stored_bytes
            else:
                yield export.id

    def _long_unreadable(self) -> Iterator[str]:
        for name in self.unreadable():
            if unchanged_for(self._exports / name) / 86_400 > self._retention_days:  # its metadata say nothing
                yield name

    def _swept(self, name: str) -> bool | None:
        """Whether an export went; None for one that cannot be removed, which must not stop what is new."""
        try:
            return self._remove(name)
        except AnalyticsError:  # logged by then
            return None

    def settle(self) -> bool:
        """Sweep what was spared while it was read, but never the newest; whether any went."""
        newest = next(iter(self._by_age(datetime.now(UTC))), None) if self._spared else None
        return newest is not None and self.sweep(keep=newest.id)

    def leftovers(self) -> str | None:
        """What of deleted exports could not be removed, as a pattern within the data directory; None for nothing."""
        return f"{self.staging.name}/{DOOMED}*" if any(self.staging.glob(f"{DOOMED}*")) else None

    def unreadable(self) -> list[str]:
        """The directories of exports whose metadata are damaged or of a newer version; they are shown nowhere."""
        return [name for name in self._names() if self._read(name) is None]

    def _names(self) -> Iterator[str]:
        try:
            yield from (entry.name for entry in os.scandir(self._exports) if _ID.match(entry.name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise disk_error(error) from error

    def _read(self, name: str) -> Export | None:
        folder = self._exports / name
        with suppress(OSError):  # what cannot be looked at cannot be read
            if (folder / "meta.json").is_file():
                if name not in self._known:
                    self._known[name] = _parse(folder)
                return self._known[name]
        self._known.pop(name, None)
        return None


def _parse(folder: Path) -> Export | None:
    """The metadata of one export; None when it is damaged, elsewhere, of another export, or of a newer version.

    Raises:
        OSError: when it cannot be read, which may be so for a moment alone.
    """
    if folder.is_symlink():
        return None
    try:
        text = (folder / "meta.json").read_text(encoding="utf-8")
        export = Export.model_validate(json.loads(text) | {"folder": folder})
    except (ValueError, TypeError, ValidationError):
        return None
    return export if export.id == folder.name else None
