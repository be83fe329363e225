"""Where the secrets of tokens we made are kept: the system's keyring, or private files where there is none.

An index beside the exports remembers which tokens there are and where each secret is; it holds no secret.
"""

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, TypeAdapter

from ..disk import in_thread, surely
from ..errors import AnalyticsError, used_up
from ..files import MAKE_ROOM, UNFIT, disk_error, homes, no_room, private_folder, private_home, write_private
from ..settings import one_spelling
from ..upstream.models import Moment, NewToken

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")
Place = Literal["keyring", "file"]
Removed = Literal["removed", "absent", "stays"]
_log = logging.getLogger(__name__)
_SERVICE = "sourcegraph-analytics-mcp"
_USELESS = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")  # keep nothing, or in the clear
_PATIENCE = 10.0  # seconds for another process to have done with the index
_LOOK_AGAIN = 0.05  # seconds


class StoredToken(BaseModel):
    """A token whose secret we keep."""

    model_config = ConfigDict(frozen=True)

    id: str
    url: Annotated[str, AfterValidator(one_spelling)]
    display_name: str | None
    created_at: Moment
    expires_at: Moment | None
    fingerprint: str
    place: Place

    @property
    def live(self) -> bool:
        return self.expires_at is None or self.expires_at > datetime.now(UTC)


_INDEX = TypeAdapter(list[StoredToken])


def fingerprint(secret: str) -> str:
    """The first 8 hex digits of the secret's SHA-256: enough to recognise it, useless to guess it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


class SecretStore:
    """The secrets of one upstream.

    Args:
        home: the data directory, for the index and the files.
        url: upstream's address; tokens of another one are left alone.
        keyring: whether the system's keyring may be used.
    """

    def __init__(self, home: Path, url: str, *, keyring: bool = True) -> None:
        self._home = home
        self._url = url
        self._may_use_keyring = keyring
        self._index = home / "tokens.json"
        self._folder = home / "secrets"

    def probe(self) -> Place:
        """Prove that a secret can be written, read and deleted and the index locked, and say where it would go.

        Raises:
            AnalyticsError: `secret_store_unavailable`, or `store_busy`.
        """
        name, value = f"probe-{token_hex(4)}", token_hex(16)
        place: Place = "keyring" if self._keyring() else "file"
        try:
            self._write(place, name, value)
            kept = self._read(place, name)
            self._remove(place, name)
            with self._locked():
                pass
        except AnalyticsError:
            raise
        except Exception as error:
            raise _unavailable(place, error) from error
        if kept != value:
            raise _unavailable(place)
        return place

    def save(self, token: NewToken, place: Place) -> StoredToken:
        """Keep a new token's secret, and read it back; of one that cannot be kept nothing is left.

        Raises:
            AnalyticsError: `secret_store_unavailable`, or `store_busy`.
        """
        secret = token.secret.get_secret_value()
        stored = StoredToken(
            id=token.id,
            url=self._url,
            display_name=token.display_name,
            created_at=token.created_at,
            expires_at=token.expires_at,
            fingerprint=fingerprint(secret),
            place=place,
        )
        try:
            self._write(place, token.id, secret)
            if self._read(place, token.id) != secret:
                raise ValueError("the secret was not kept")
            self._change_index(lambda every: [*(t for t in every if (t.id, t.url) != (token.id, self._url)), stored])
        except Exception as error:
            with suppress(Exception):
                self._remove(place, token.id)
            if isinstance(error, AnalyticsError):
                raise
            raise _unavailable(place, error) from error
        return stored

    def tokens(self) -> list[StoredToken]:
        """The tokens we keep for this upstream, oldest first."""
        return [token for token in self._every() if token.url == self._url]

    def kept(self) -> frozenset[str] | None:
        """The ids of the tokens we keep for this upstream at this moment; None where the index cannot tell."""
        try:
            return frozenset(token.id for token in self._listed() if token.url == self._url)
        except (OSError, ValueError):
            return None

    def with_callers(self) -> list["SecretStore"]:
        """This store, and those of the callers over HTTP whose data directories lie in its own.

        Raises:
            AnalyticsError: `store_corrupt` when the data directory cannot be looked into.
        """
        return [SecretStore(home, self._url, keyring=self._may_use_keyring) for home in homes(self._home)]

    def secret(self, token: StoredToken) -> SecretStr | None:
        """The secret of a token we keep; None where it has gone."""
        try:
            value = self._read(token.place, token.id)
        except Exception:  # noqa: BLE001 - keyring backends raise what they like; a locked one is an absent one
            return None
        return None if value is None else SecretStr(value)

    def remove(self, token: StoredToken) -> Removed:
        """Remove a secret, which may have gone before, and read whether it has; its entry in the index stays."""
        had = True
        try:
            with suppress(Exception):
                had = self._read(token.place, token.id) is not None
            with suppress(Exception):
                self._remove(token.place, token.id)
            if self._read(token.place, token.id) is not None:
                return "stays"
        except Exception as error:  # noqa: BLE001 - keyring backends raise what they like
            _log.warning("Whether the secret of a token has gone cannot be told: %s", type(error).__name__)
            return "stays"
        return "removed" if had else "absent"

    def drop(self, token_ids: Collection[str]) -> None:
        """Remove the entries of tokens from the index, in one change.

        Raises:
            AnalyticsError: `store_busy`.
            OSError: when the index cannot be locked or written.
        """
        self._change_index(lambda every: [t for t in every if t.id not in token_ids or t.url != self._url])

    def _every(self) -> list[StoredToken]:
        """The tokens in the index, whatever their upstream; none where it is damaged."""
        try:
            return self._listed()
        except (OSError, ValueError):
            return []

    def _listed(self) -> list[StoredToken]:
        """The same.

        Raises:
            ValueError: when the index is damaged.
            OSError: when it cannot be read.
        """
        if not self._index.exists():
            return []
        return _INDEX.validate_json(self._index.read_bytes())

    def _change_index(self, change: Callable[[list[StoredToken]], list[StoredToken]]) -> None:
        """Change what is in the index, while no other process does."""
        with self._locked():
            tokens = change(self._listed_or_set_aside())
            write_private(self._index, json.dumps([t.model_dump(mode="json") for t in tokens], indent=1))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the index; the lock goes with the process that holds it.

        Raises:
            AnalyticsError: `store_busy` when another process holds it for long.
            OSError: when it cannot be used.
        """
        private_home(self._home)
        descriptor = os.open(self._home / "tokens.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _listed_or_set_aside(self) -> list[StoredToken]:
        """The tokens in the index; one that is damaged is kept under another name, as it says where secrets are."""
        try:
            return self._listed()
        except ValueError:
            self._index.replace(damaged := self._index.with_name(f"tokens.damaged-{token_hex(4)}.json"))
            _log.warning("The index of tokens was damaged; it is kept as %s", damaged.name)
            return []

    def _write(self, place: Place, name: str, value: str) -> None:
        if place == "keyring":
            cast("KeyringBackend", self._keyring()).set_password(_SERVICE, name, value)
            return
        private_home(self._home)
        private_folder(self._folder)
        write_private(self._file(name), value)

    def _read(self, place: Place, name: str) -> str | None:
        if place == "keyring":
            return cast("KeyringBackend", self._keyring()).get_password(_SERVICE, name)
        try:
            return self._file(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _remove(self, place: Place, name: str) -> None:
        if place == "keyring":
            cast("KeyringBackend", self._keyring()).delete_password(_SERVICE, name)
        else:
            self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        """A file name that no token id can steer."""
        return self._folder / hashlib.sha256(name.encode()).hexdigest()[:32]

    def _keyring(self) -> "KeyringBackend | None":
        """The system's keyring; None for the backends that keep nothing or keep it readable."""
        if not self._may_use_keyring:
            return None
        import keyring
        from keyring.backends.chainer import ChainerBackend

        backend = keyring.get_keyring()
        used = backend.backends if isinstance(backend, ChainerBackend) else [backend]
        useless = any(type(one).__module__.startswith(_USELESS) for one in used)
        return None if useless or backend.priority < 1 else backend


async def changed(places: Collection[Place], work: Callable[..., T], *arguments: Any) -> T:
    """Change what is kept in some places, after upstream has changed.

    No loop waits for a keyring, which may ask somebody, or hang.

    Raises:
        AnalyticsError: `busy` where a keyring is among them and the system has no more threads; nothing was done then.
    """
    return await (in_thread if "keyring" in places else surely)(work, *arguments)


def _lock(descriptor: int) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise _busy() from None
            _log.debug("Another process holds the index of tokens; waiting for it")
            time.sleep(_LOOK_AGAIN)
        else:
            return


def _busy() -> AnalyticsError:
    return AnalyticsError(
        "store_busy",
        f"Another process has held the index of tokens for {_PATIENCE:g} seconds.",
        "Call again; if it stays so, end the process that holds tokens.lock in SRC_ANALYTICS_DATA_DIR.",
        retryable=True,
    )


def _unavailable(place: Place, error: Exception | None = None) -> AnalyticsError:
    if error is not None and (busy := used_up(error)) is not None:
        return busy
    if no_room(error):
        return AnalyticsError("secret_store_unavailable", "There is no room left on the disk for a secret.", MAKE_ROOM)
    if isinstance(error, OSError) and error.errno in UNFIT:
        told = disk_error(error)
        return AnalyticsError("secret_store_unavailable", told.message, told.next_step)
    keyring = "Unlock the system's keyring, or make" if place == "keyring" else "Make"
    message = "The place for secrets cannot be written and read."
    step = f"{keyring} SRC_ANALYTICS_DATA_DIR writable, then call again."
    return AnalyticsError("secret_store_unavailable", message, step)
