"""The command line: what to run, with which settings, against which upstream."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..settings import Settings, SettingsError
from .ending import status_of, take_streams
from .saying import say, say_the_unforeseen

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
    with suppress(ImportError, ValueError, OSError):  # there is none on Windows; some systems take no limit
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def serve(settings: Settings) -> int:
    """Serve one client over stdio."""
    import gc
    from functools import partial

    from ..loading import without

    with without("uvicorn"):
        from ..surface.server import AnalyticsServer
    from .leaving import run as run_in_order
    from .log import configure_log, log_the_unforeseen
    from .stdio import serve_stdio

    check_files(settings)
    configure_log(settings)
    log_the_unforeseen()
    settings, upstream = with_upstream(settings)
    server = AnalyticsServer(settings, upstream)
    gc.freeze()
    gc.enable()
    run_in_order(partial(serve_stdio, server))
    return 0


def check_files(settings: Settings) -> None:
    """Read the files that settings name once, so that a wrong one stops the start.

    Raises:
        SettingsError: naming the setting, and the line where there is one.
    """
    from ..access.credentials import read_secret_file
    from ..usage.people import read_people

    _ = settings.home  # which not every user has
    if settings.access_token_file is not None:
        read_secret_file(settings.access_token_file)
    read_people(settings)
    if settings.callers_file is not None:
        from ..surface.grants import read_grants

        read_grants(settings)


def with_upstream(settings: Settings) -> tuple[Settings, Callable[..., Any] | None]:
    """The settings and upstream to serve: the real one, or with `demo` the embedded one and its credentials.

    Raises:
        SettingsError: when the proxy before an address that will be asked cannot be used.
    """
    from ..upstream.proxies import proxy_for

    for address in filter(None, (settings.oauth_keys_url, None if settings.demo else settings.url)):
        proxy_for(address)
    if not settings.demo:
        return settings, None
    from ..demo.embedded import demo_settings, embedded_upstream

    return demo_settings(settings), embedded_upstream()
