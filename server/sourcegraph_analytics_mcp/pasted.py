"""What is often pasted in place of a secret, or a secret in place of something else."""

import re

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


def is_token(text: str) -> bool:
    """Whether a text begins as upstream's tokens do."""
    return text.strip().startswith("sams_at_")
