"""What is often pasted in place of a secret, or a secret in place of something else."""

import os
import re
from pathlib import Path

COOKIE = "cas"  # the session's, as upstream names it where no setting does
_VARIABLE = r"SRC_ANALYTICS_\w*|[A-Z_][A-Z0-9_]*"
_QUOTES = "\"'`"


def refuse_more_than_a_value(given: str, cookie: str = COOKIE) -> None:
    """Refuse what would be sent, and masked, as if it were all a secret.

    Args:
        given: without blanks around it.
        cookie: the name of the session cookie.

    Raises:
        ValueError: for a line of a settings file or of a request, for quotes, and for a path.
    """
    if given.startswith("SRC_ANALYTICS_") or _named(given, cookie):
        raise ValueError("it begins with a name, as a line of a settings file; set the value alone")
    if _quoted(given):
        raise ValueError("it stands in quotes; leave them out")
    if _is_path(given):
        raise ValueError("it is the path of a file; set what is in that")


def secret_of(given: str, cookie: str = COOKIE) -> str:
    """What is secret of a value that may be refused: no name before it, no quotes, and nothing of a path."""
    if name := _named(given, cookie):
        given = given[name.end() :].strip()
    elif given.startswith("SRC_ANALYTICS_") or _is_path(given):
        return ""
    return given[1:-1] if _quoted(given) else given


def _named(given: str, cookie: str) -> re.Match[str] | None:
    """The name and its sign, unlike Base64, which may end with those."""
    names = rf"{_VARIABLE}|(?i:{COOKIE}|{re.escape(cookie)})"
    return re.match(rf"(?i:cookie:)\s*(?:(?:{names})=)?|(?:{names})=(?!=*\Z)", given)


def _quoted(given: str) -> bool:
    return len(given) > 1 and given[0] == given[-1] and given[0] in _QUOTES


def _is_path(given: str) -> bool:
    """Whether it begins as a path does and what it names, or would be in, is there; Base64 may begin with a slash."""
    if given.startswith("~/"):
        return True
    folder = Path(given).parent
    return given.startswith("/") and (os.path.lexists(given) or (folder != folder.parent and os.path.lexists(folder)))


def said_back(path: Path) -> str:
    """What an error may say of the whole path in a setting: of what is not there no name, as that may be a secret."""
    if os.path.lexists(path):
        return str(path)
    nearest = next(folder for folder in path.parents if os.path.lexists(folder))
    return f"nothing of that name can be found in {nearest}"


def is_token(text: str) -> bool:
    """Whether a text begins as upstream's tokens do."""
    return text.strip().startswith("sams_at_")
