"""What is often pasted in place of a secret, or a secret in place of something else."""

import os
import re
from pathlib import Path

_ASSIGNED = re.compile(r"(SRC_ANALYTICS_\w*|[A-Z_][A-Z0-9_]*|cas)=(?!=*\Z)")  # unlike Base64, which may end with those
_QUOTES = "\"'`"


def refuse_more_than_a_value(given: str) -> None:
    """Refuse what would be sent, and masked, as if it were all a secret.

    Raises:
        ValueError: for a line of a settings file, and for quotes.
    """
    if given.startswith("SRC_ANALYTICS_") or _ASSIGNED.match(given):
        raise ValueError("it begins with a name, as a line of a settings file; set the value alone")
    if len(given) > 1 and given[0] == given[-1] and given[0] in _QUOTES:
        raise ValueError("it stands in quotes; leave them out")


def said_back(path: Path) -> str:
    """What an error may say of the whole path in a setting: of what is not there no name, as that may be a secret."""
    if os.path.lexists(path):
        return str(path)
    nearest = next(folder for folder in path.parents if os.path.lexists(folder))
    return f"nothing of that name can be found in {nearest}"


def is_token(text: str) -> bool:
    """Whether a text begins as upstream's tokens do."""
    return text.strip().startswith("sams_at_")
