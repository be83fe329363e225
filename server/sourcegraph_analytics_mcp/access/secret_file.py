"""The operator's file that holds the access token."""

import stat
from pathlib import Path

from pydantic import SecretStr

from ..pasted import said_back
from ..settings import SettingsError, header_safe


def read_secret_file(path: Path, *, called: str | None = None) -> SecretStr:
    """Read a secret from a file that nobody else can read.

    Args:
        called: what errors call the file; its path if not given, as far as that is there.

    Raises:
        SettingsError: naming the file, never its content.
    """
    called = called or said_back(path)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"SRC_ANALYTICS_ACCESS_TOKEN_FILE cannot be read: {called}.") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"SRC_ANALYTICS_ACCESS_TOKEN_FILE can be read by others; run: chmod 600 {called}.")
    try:
        return SecretStr(header_safe(text))
    except ValueError as error:
        raise SettingsError(f"SRC_ANALYTICS_ACCESS_TOKEN_FILE cannot be used: {error}.") from None
