"""Whether people are shown by name or by pseudonym: one keyed name per person, the same everywhere in an installation.

With pseudonyms no user id, e-mail or username leaves the store: questions and SQL see masked columns, rows and CSV are
masked as they are read. It is pseudonymisation, not anonymity: who has the key and a list of people can look them up.
"""

import hashlib
import secrets
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ..errors import AnalyticsError
from ..files import disk_error, make_private, within_home
from .columns import BY_NAME

PERSON = "instance_user_id"
NAMES = ("user_email", "username")
HIDDEN = "(hidden)"  # what stands where something may name somebody
_SHOWN = 20  # hex digits of a pseudonym: 80 bits


class Pseudonyms:
    """Keyed pseudonyms.

    Args:
        folder: where the key is kept, apart from the exports; it is made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def key(self) -> str:
        """The installation's key, 64 hex digits.

        Raises:
            AnalyticsError: when it can neither be read nor made.
        """
        try:
            return self._read_or_make()
        except OSError as error:
            raise disk_error(error) from None

    def of(self, name: str) -> str:
        """The pseudonym of a user id; or of an e-mail or username as `Questions.folded` has it."""
        if not name:
            return ""
        inner = _digest(f"{self.key}:{name}")
        return "person-" + _digest(self.key + inner)[:_SHOWN]

    def _read_or_make(self) -> str:
        path = self._folder / "pseudonyms"
        if not path.exists():
            within_home(self._folder)
            make_private(path, secrets.token_hex(32))
        key = path.read_text().strip()
        if len(key) != 64 or path.stat().st_mode & 0o077:
            raise AnalyticsError(
                "store_corrupt",
                "The key of the pseudonyms is damaged, or others can read it.",
                "Restore keys/pseudonyms in the data directory with mode 0600; without it people get new pseudonyms.",
            )
        return key


def masked_columns(names: Sequence[str], key: str) -> list[str]:
    """The SQL of a table's columns with people masked; columns nobody documented, which may name them, are left out."""
    return [_masked(name, key) if name in (PERSON, *NAMES) else f'"{name}"' for name in names if name in BY_NAME]


def hidden(name: str) -> bool:
    """Whether a column is absent from what SQL and rows may see."""
    return name in NAMES or name not in BY_NAME


def _masked(name: str, key: str) -> str:
    value = f'"{name}"' if name == PERSON else f'folded("{name}")'
    digest = f"sha256('{key}' || sha256('{key}:' || {value}))"
    return f"CASE WHEN {value} IS NOT NULL THEN 'person-' || left({digest}, {_SHOWN}) END AS \"{name}\""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
