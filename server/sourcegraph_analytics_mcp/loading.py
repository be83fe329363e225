"""Load no more than is used: what a dependency imports on the chance that it is there."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Let modules look absent to whoever tries to import them meanwhile, unless they are loaded already.

    The SDK logs through rich where it finds it, which boxes every traceback, and its server-sent events patch uvicorn,
    which costs 20 ms of the start (measured); neither is used over stdio.
    """
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment] # the import system's own way to say "not there"
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
