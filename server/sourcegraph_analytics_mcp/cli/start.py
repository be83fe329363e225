"""What serving begins with: files that are read once, and the upstream to ask."""

from collections.abc import Callable
from typing import Any

from ..settings import Settings


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
    from ..access.secret_file import read_secret_file
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
