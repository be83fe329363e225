"""What was asked for and is not settled: one small file per create, so that a crash in between loses no token.

A file is locked while its process lives; one that can be locked by another was left by a crash.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_hex

from ..errors import AnalyticsError
from ..files import private_folder, private_home, sync
from ..settings import one_spelling


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A create that is not over, or whose process died before it was: what to look for, and its file."""

    display_name: str | None
    asked_at: datetime
    before: frozenset[str]
    file: Path

    def settle(self) -> None:
        """Forget it."""
        self.file.unlink(missing_ok=True)


class Journal:
    """The creates of one upstream that are on their way.

    Args:
        folder: where the files are kept; made when first needed.
        url: upstream's address; what was asked of another one is left alone.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url

    @contextmanager
    def entry(self, display_name: str | None, asked_at: datetime, before: frozenset[str]) -> Iterator[Unsettled]:
        """Remember a create until the block is over; a crash leaves the entry, and so does an end nobody could know.

        Raises:
            OSError: when it is not whole on the disk, before anything is asked.
        """
        private_home(self._folder.parent)
        private_folder(self._folder)
        content = {"url": self._url, "name": display_name, "asked_at": asked_at.isoformat(), "before": sorted(before)}
        descriptor, path = self._locked()
        try:
            self._write(descriptor, path, json.dumps(content).encode())
            yield Unsettled(display_name, asked_at, before, path)
        except AnalyticsError as error:
            if error.code not in ("ambiguous", "unverified"):
                path.unlink(missing_ok=True)
            raise
        else:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def left_by_a_crash(self) -> list[Unsettled]:
        """The creates that nobody is working on any more."""
        found: list[Unsettled] = []
        for path in sorted(self._folder.glob("*.json")):
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                entry = self._read(path, file.read())
                if entry is not None:
                    found.append(entry)
        return found

    def under_way(self, display_name: str | None) -> int:
        """How many creates of a name somebody is working on, in this process or another."""
        return sum(self._held(path, display_name) for path in self._folder.glob("*.json"))

    def _held(self, path: Path, display_name: str | None) -> bool:
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                entry = self._entry(path, file.read())
                return entry is not None and entry.display_name == display_name
        return False

    def _write(self, descriptor: int, path: Path, content: bytes) -> None:
        """Bring a note to the disk whole, or leave none."""
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(descriptor)
            sync(self._folder)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def _locked(self) -> tuple[int, Path]:
        """A new file with its lock; again where a sweep took it before it was locked."""
        while True:
            path = self._folder / f"{token_hex(8)}.json"
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return descriptor, path
            os.close(descriptor)

    def _read(self, path: Path, content: bytes) -> Unsettled | None:
        try:
            return self._entry(path, content)
        except (ValueError, KeyError, TypeError):  # cut while it was written, so nothing had been asked yet
            path.unlink(missing_ok=True)
            return None

    def _entry(self, path: Path, content: bytes) -> Unsettled | None:
        """What a note says; None where it is of another upstream.

        Raises:
            ValueError, KeyError, TypeError: when it is no whole note.
        """
        entry = json.loads(content)
        if one_spelling(str(entry["url"])) != self._url:
            return None
        asked_at = datetime.fromisoformat(entry["asked_at"])
        return Unsettled(entry["name"], asked_at, frozenset(entry["before"]), path)
