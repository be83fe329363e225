"""A keyring that works, in the memory of the process that uses it."""

import ctypes
import os
from pathlib import Path
from typing import ClassVar

from keyring.backend import KeyringBackend


class MemoryKeyring(KeyringBackend):
    kept: ClassVar[dict[tuple[str, str], str]] = {}
    priority = 5

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


class Hanging(MemoryKeyring):
    """One that asks a person who never answers, for what is of a token (that in `ABOUT`, if set); `ASKED` says when."""

    def get_password(self, service: str, username: str) -> str | None:
        _wait_for_ever(username)
        return super().get_password(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        _wait_for_ever(username)
        super().set_password(service, username, password)


def _wait_for_ever(username: str) -> None:
    """Wait outside of Python, where no signal is heard."""
    if username == os.environ.get("ABOUT", username) and not username.startswith("probe-"):
        Path(os.environ["ASKED"]).write_text("now")
        mutex = ctypes.create_string_buffer(64)
        while True:
            ctypes.CDLL(None).pthread_mutex_lock(mutex)
