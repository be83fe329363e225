"""What is often pasted in place of a secret, or a secret in place of something else."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

COOKIE = "cas"  # the session's, as upstream names it where no setting does
_COOKIES = (
    rf"{COOKIE}|accounts_session_v2|__(?:host|secure)-[\w-]+"  # what upstream has called it, and browsers' prefixes
)
_VARIABLE = r"[A-Z_][A-Z0-9_]*"
_HEADERS = r"(?i:(?:set-)?cookie|bearer):"
_QUOTES = "\"'`"
_WORD = r"(?:[a-z]+|[A-Z]+|[A-Z]?[a-z]{2,}(?:[A-Z][a-z]{2,})*)\d{0,2}|\d{1,2}"
_NAME = re.compile(rf"(?:__(?:Host|Secure)-)?_?(?:{_WORD})(?:[-_](?:{_WORD}))*")
_LONGEST_NAME, _LONGEST_WORD = 48, 16  # characters


def _cookie_name(given: str) -> str:
    """A cookie's name, which is told to the model, unlike the value that may stand there by mistake.

    Raises:
        ValueError: for what is not like a few words.
    """
    given = given.strip()
    words = re.split("[-_]", given)
    if len(given) > _LONGEST_NAME or max(map(len, words)) > _LONGEST_WORD or not _NAME.fullmatch(given):
        raise ValueError("it must be the name of a cookie, like cas; the value belongs in SRC_ANALYTICS_CAS_COOKIE")
    return given


CookieName = Annotated[str, AfterValidator(_cookie_name)]


def refuse_more_than_a_value(given: str, cookie: str = COOKIE) -> None:
    """Refuse what would be sent, and masked, as if it were all a secret.

    Args:
        given: without blanks around it.
        cookie: the name of the session cookie.

    Raises:
        ValueError: for a line of a settings file or of a request, for quotes, and for a path.
    """
    if _is_setting(given) or _named(given, cookie):
        raise ValueError("it begins with a name, as a line of a settings file; set the value alone")
    if _quoted(given):
        raise ValueError("it stands in quotes; leave them out")
    if _is_path(given):
        raise ValueError("it is the path of a file; set what is in that")


def secret_of(given: str, cookie: str = COOKIE) -> str:
    """What is secret of a value that may be refused: no name before it, no quotes, and nothing of a path."""
    if name := _named(given, cookie):
        given = given[name.end() :].strip()
    elif _is_setting(given) or _is_path(given):
        return ""
    return given.strip(_QUOTES) if _quoted(given) else given


def _is_setting(given: str) -> bool:
    return given.upper().startswith("SRC_ANALYTICS_")


def _named(given: str, cookie: str) -> re.Match[str] | None:
    """The name and its sign, unlike Base64, which may end with those."""
    names = rf"(?i:src_analytics_\w*|{_COOKIES}|{re.escape(cookie)})"
    sign = rf"(?:{names}\s*[=:]|{_VARIABLE}=)"
    return re.match(rf"{_HEADERS}\s*{sign}?|{sign}(?!=*\Z)", given)


def _quoted(given: str) -> bool:
    """Whether quotes stand around it, or one of a pair that was not pasted whole."""
    return given.startswith(tuple(_QUOTES)) or given.endswith('"')


def _is_path(given: str) -> bool:
    """Whether it begins as a path does and what it names, or would be in, is there; Base64 may begin with a slash."""
    if re.match(r"(?:~[\w-]*|\.{1,2}|\$\w+|\$\{\w+\})/|(?i:file):/", given):
        return True
    folder = Path(given).parent
    return given.startswith("/") and (os.path.lexists(given) or (folder != folder.parent and os.path.lexists(folder)))


def said_back(path: Path) -> str:
    """What an error may say of the whole path in a setting: of what is not there no name, as that may be a secret."""
    problem = "nothing of that name can be found in"
    try:
        path.lstat()
    except PermissionError:
        problem = "this user may not look into"
    except (OSError, ValueError):
        pass
    else:
        return str(path)
    return f"{problem} {next(folder for folder in path.parents if os.path.lexists(folder))}"


def is_token(text: str) -> bool:
    """Whether a text begins as upstream's tokens do."""
    return text.strip().startswith("sams_at_")
