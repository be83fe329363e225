"""Where exports are made, and what is left there by makers who died."""

import fcntl
import os
import shutil
import time
from pathlib import Path

from ..files import DOOMED, Held, disk_error, write_private

_PROBE = "x" * 4096  # a block, as some file systems keep less beside a file's name


class Staging(Held):
    """A directory in which one export is being made."""

    def __init__(self, folder: Path) -> None:
        self.id = folder.name
        self.csv = folder / "export.csv"
        self.parts = folder / "parts"
        super().__init__(folder, self.parts)


def try_out(staging: Staging) -> None:
    """Prove that an export could be written there, and give the place up.

    Raises:
        AnalyticsError: `store_full` or `store_corrupt` when the disk refuses.
    """
    try:
        write_private(staging.csv, _PROBE)
    except OSError as error:
        raise disk_error(error) from error
    finally:
        staging.close()


def remove_abandoned(place: Path) -> None:
    """Remove the directories in a place whose maker no longer holds its lock.

    Raises:
        OSError: when the place cannot be looked at.
    """
    for entry in list(os.scandir(place)):
        folder = Path(entry.path)
        if entry.name.startswith(DOOMED) or _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def unchanged_for(folder: Path) -> float:
    """Seconds since a directory changed; none where it has gone."""
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:
        return 0.0


def _abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return unchanged_for(folder) > 60  # its maker may be between two steps
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
