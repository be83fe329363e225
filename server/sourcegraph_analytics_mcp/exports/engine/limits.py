"""What the operating system lets an engine's process have."""

import os
import resource
import sys
from contextlib import suppress

_ADDRESS_SPACE = 3 << 30  # bytes; for what the engine allocates outside its own limit


def confine() -> None:
    """Set the limits of the operating system, as far as it takes them; what is written is for this user alone."""
    os.umask(0o077)
    linux = sys.platform == "linux"
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
        *([(resource.RLIMIT_AS, _ADDRESS_SPACE)] if linux else []),  # others refuse it or do not hold to it
    ):
        with suppress(*(() if linux else (ValueError, OSError))):
            lower(limit, most)


def lower(limit: int, most: int) -> None:
    """Let this process have no more than so much of something, or what it may have anyway where that is less.

    Args:
        limit: one of those of the module `resource`.

    Raises:
        ValueError: when the system refuses it.
    """
    hard = resource.getrlimit(limit)[1]
    within = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (within, within))
