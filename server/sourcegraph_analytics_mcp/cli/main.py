"""The command line: what to run, with which settings, against which upstream."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from ..settings import Settings, SettingsError
from .ending import status_of, take_streams
from .saying import say, say_the_unforeseen
from .start import serve

_NAME = "sourcegraph-analytics-mcp"


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit status is 0 for success, 1 for a failure that was explained, 2 for bad usage.

    After a signal it is 128 and the number of that, and 141 where nobody reads the output any more.
    """
    os.umask(0o077)  # whatever this process writes is for this user alone
    _leave_no_core()
    take_streams()
    say_the_unforeseen()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where its failure can be told
    except SettingsError as error:
        say(str(error))
        return 2
    except (KeyboardInterrupt, OSError, RuntimeError, BaseExceptionGroup) as error:
        status = status_of(error)
        if status is None:
            raise
        return status


def _run(arguments: Sequence[str]) -> int:
    if not arguments or set(arguments) <= {"--demo", "--read-only"}:  # what clients start; no parser needed
        flags = {flag.removeprefix("--").replace("-", "_"): True for flag in arguments}
        return serve(Settings.from_env(os.environ, **flags))
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"{_NAME} {version(_NAME)}")  # noqa: T201
        return 0
    from .commands import dispatch

    return dispatch(arguments)


def _leave_no_core() -> None:
    """Have no memory written to the disk when this process crashes, as there are secrets in it."""
    with suppress(ValueError, OSError):  # some systems take no limit
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
