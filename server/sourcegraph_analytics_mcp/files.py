"""Files and directories that belong to this user alone, written whole or not at all."""

import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from .errors import AnalyticsError, used_up

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is full, or a file may not grow
UNFIT = (errno.EPERM, errno.ELOOP, errno.EROFS, errno.ENOTEMPTY)  # nothing can be kept in a directory as this one is
DOOMED = "deleted-"  # begins the name of what was moved away to be removed
MAKE_ROOM = "Free disk space, or delete exports (delete_export), then call again."
_log = logging.getLogger(__name__)
# What lies in a data directory: what we put there, beside it for a moment, and what file systems add by themselves.
_OWN = (
    r"\.gitignore|\.reading|callers|creates|demo|exports|http-credential|keys|scratch|secrets|staging"
    r"|tokens\.(json|lock|damaged-[0-9a-f]{8}\.json)"
)
_ADDED = r"lost\+found|\._.*|\.DS_Store|\.nfs.*|\.snapshots?|\.Trash.*|\.fseventsd|\.Spotlight-V100"
_OURS = re.compile(rf"{_OWN}|\.({_OWN})\.(lock|[0-9a-f]{{8}})|{_ADDED}")
_USED = frozenset({".reading", "http-credential", "tokens.lock"})  # one is there once an own home has kept anything
_KEPT_IN = frozenset({"callers", "exports", "keys", "scratch", "staging"})  # one is there once anybody's has
_IGNORES_ALL = "*\n"
_held: "set[Held]" = set()  # by this process


def private_folder(folder: Path) -> None:
    """Make a directory private to this user, whatever the umask, and say so where it was open to others.

    Raises:
        OSError: for a link or a file in its place, and for a directory of another user or of all users.
    """
    _narrow(folder, _made(folder))


def private_home(home: Path) -> None:
    """Make the data directory, of which nothing gets into a repository that it lies in.

    Raises:
        OSError: as `private_folder`, and for a directory that holds what is not ours, which is left as it is.
    """
    mode = _made(home)
    if _is_of_others(home):
        raise OSError(errno.ENOTEMPTY, "not a directory of our own")
    _narrow(home, mode)
    if not (home / ".gitignore").exists():
        write_private(home / ".gitignore", _IGNORES_ALL)


def within_home(folder: Path) -> None:
    """Make a directory that lies in the data directory, and that first.

    Raises:
        OSError: as `private_home`.
    """
    private_home(folder.parent)
    private_folder(folder)


def check_home(home: Path) -> None:
    """See that a data directory may become ours; one that cannot be looked at is left to whoever needs it.

    Raises:
        AnalyticsError: `store_corrupt` where it holds what is not ours.
    """
    with suppress(OSError):
        if _is_of_others(home):
            raise disk_error(OSError(errno.ENOTEMPTY, "not a directory of our own"))


def _made(folder: Path) -> int:
    """Make a directory unless it is there, and give its mode where it may be made private."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "not a directory of our own")
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, "not a directory of our own")
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:  # narrowing /tmp would harm everybody else
        raise OSError(errno.EPERM, "not a directory of our own")
    return found.st_mode


def _narrow(folder: Path, mode: int) -> None:
    if mode & 0o077:
        folder.chmod(0o700)
        _log.warning("A directory that was open to others (mode %03o) is now private", mode & 0o777)


def _is_of_others(home: Path) -> bool:
    """Whether a directory holds what is not ours, and nothing that shows that we have used it all the same.

    To narrow / or a home directory would shut others out, and to ignore a project all of which git knows would hide it.
    """
    names = {path.name for path in home.iterdir()}
    if all(map(_OURS.fullmatch, names)) or not _USED.isdisjoint(names):
        return False
    return _KEPT_IN.isdisjoint(names) or not _ignores_all(home)


def _ignores_all(home: Path) -> bool:
    try:
        return (home / ".gitignore").read_text(encoding="utf-8") == _IGNORES_ALL
    except (OSError, ValueError):
        return False


def homes(home: Path) -> list[Path]:
    """The data directories of an installation: the operator's own, and those in it of callers over HTTP.

    Raises:
        AnalyticsError: `store_corrupt` when the operator's cannot be looked into.
    """
    try:
        callers = sorted(one for one in (home / "callers").iterdir() if one.is_dir())  # and no .DS_Store
    except FileNotFoundError:
        callers = []
    except OSError as error:
        raise disk_error(error) from error
    return [home, *callers]


class Held:
    """A directory in which something is being made; its lock says that the maker is alive.

    Args:
        folder: where; it is made.
        inside: the directories in it, which are made, too.

    Raises:
        OSError: when the disk refuses; then nothing of it is left.
    """

    def __init__(self, folder: Path, *inside: Path) -> None:
        self.folder = folder
        self._lock = -1
        private_folder(folder)
        _held.add(self)
        try:
            unlocked = folder / ".lock-to-be"  # it gets its name locked, so that nobody can find it free
            self._lock = os.open(unlocked, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlocked.rename(folder / ".lock")
            for each in inside:
                private_folder(each)
        except OSError:
            self.close()
            raise

    @classmethod
    def within(cls, parent: Path, kind: str) -> Self:
        """A fresh one in a directory of the data directory; both are made.

        Args:
            kind: what the names of such directories begin with.

        Raises:
            OSError: when the disk refuses.
        """
        within_home(parent)
        return cls(parent / f"{kind}-{secrets.token_hex(8)}")

    def close(self) -> None:
        """Give up what is left of it; it is moved away first, so that nobody finishes what is being removed."""
        _held.discard(self)
        doomed = self.folder.with_name(f"{DOOMED}{secrets.token_hex(8)}")
        with suppress(OSError):
            self.folder.rename(doomed)
        for left in (doomed, self.folder):
            shutil.rmtree(left, ignore_errors=True)
        lock, self._lock = self._lock, -1
        with suppress(OSError):
            os.close(lock)


def give_up() -> None:
    """Give up all that this process holds, because it ends at once, whoever is making it."""
    for each in list(_held):
        each.close()


def write_private(path: Path, text: str) -> None:
    """Write a small file for this user alone, whole or not at all."""
    with _beside(path, text) as beside:
        beside.replace(path)


def make_private(path: Path, text: str) -> None:
    """The same for what is made once: where another process was first, its file stays."""
    with _beside(path, text) as beside:
        try:
            os.link(beside, path)
        except FileExistsError:
            pass
        except OSError:  # exFAT and some network mounts have no hard links, and say so in many ways
            _rename_first(beside, path)


def _rename_first(beside: Path, path: Path) -> None:
    """Put a file in place, unless one is there, while no other process does."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not path.exists():
            beside.rename(path)
    finally:
        os.close(descriptor)


@contextmanager
def _beside(path: Path, text: str) -> Iterator[Path]:
    """A private file beside another, synced, to be renamed or linked into place."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_room(error: BaseException | None) -> bool:
    """Whether the disk refused because it is full, or a file may not grow."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def disk_error(error: OSError) -> AnalyticsError:
    """What an error of the disk means to the user; paths and numbers stay out of it."""
    if (busy := used_up(error)) is not None:
        return busy
    _log.warning("The disk refused: errno %s", error.errno)
    if error.errno == errno.EFBIG:
        message = "A file would be larger than the system lets this server's files be."
        return AnalyticsError("store_full", message, "Raise that limit (ulimit -f) and start the server again.")
    if no_room(error):
        return AnalyticsError("store_full", "There is no room left on the disk.", MAKE_ROOM)
    if error.errno == errno.EPERM:
        return AnalyticsError(
            "store_corrupt",
            "The data directory, or one in it, belongs to another user, is shared by all, or cannot be made private.",
            "Set SRC_ANALYTICS_DATA_DIR to a directory that this user owns, or to one that is not there yet.",
        )
    if error.errno == errno.ENOTEMPTY:
        return AnalyticsError(
            "store_corrupt",
            "The data directory holds files that are not this server's, so it was left as it is.",
            "Set SRC_ANALYTICS_DATA_DIR to a directory that is empty or not there yet.",
        )
    if error.errno == errno.ELOOP:
        return AnalyticsError(
            "store_corrupt",
            "The data directory, or one in it, is a symbolic link.",
            "Set SRC_ANALYTICS_DATA_DIR to the directory itself.",
        )
    if error.errno == errno.EROFS:
        return AnalyticsError(
            "store_corrupt",
            "The file system that the data directory is on can only be read.",
            "Make it writable, or set SRC_ANALYTICS_DATA_DIR to a directory on another.",
        )
    return AnalyticsError(
        "store_corrupt",
        "The data directory cannot be used.",
        "Check that SRC_ANALYTICS_DATA_DIR is a directory that this user owns and can write to.",
    )
