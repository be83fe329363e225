"""Serve many clients over streamable HTTP."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from ...files import check_home
from ...settings import PORTS, PREFIX, Settings, SettingsError, one_spelling, parts_of
from ...surface.notices import MOST_SESSIONS
from ...surface.server import AnalyticsServer
from ...surface.tools import TOKEN_TOOLS
from ..leaving import in_order
from ..saying import say
from .closing import Closing
from .connections import Connection, Most, Unaccepted, raised
from .guard import METADATA, PATH, Guard
from .identity import READ, TOKENS, Identity, IssuedTokens, LocalCredential
from .sessions import Sessions

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MOST_REQUESTS = 768  # above what connections keep to, so that none is refused for another's sake
_LAST_WORDS_WITHIN = 2  # seconds for what is being answered when the server ends
_CUT_OFF_WITHIN = 1  # seconds more for what is cut off then, and another for all else


def serve_http(settings: Settings, upstream: Callable[..., Any] | None, address: str) -> int:
    """Serve until a signal comes.

    Args:
        address: `HOST:PORT`; beyond this machine only with an issuer of access tokens.

    Raises:
        SettingsError: when the address or the settings do not fit together.
        AnalyticsError: when the data directory cannot be ours.
    """
    host, port = parsed(address)
    if settings.oauth_issuer is None and host not in _LOOPBACK:
        raise SettingsError(
            f"Serving {host} needs callers with access tokens: set {PREFIX}OAUTH_ISSUER, {PREFIX}OAUTH_KEYS_URL and "
            f"{PREFIX}PUBLIC_URL, or listen on 127.0.0.1."
        )
    check_home(settings.home)  # in which those of issued tokens get directories of their own
    identity: Identity
    if settings.oauth_issuer is None:
        local = LocalCredential(settings.home)
        identity = local
        told = f"Send `Authorization: Bearer` with the content of {local.path}."
    else:
        identity = IssuedTokens(settings)
        told = f"Callers need an access token of {settings.oauth_issuer}."
    app = Closing(application(settings, upstream, identity, host, port))
    Connection.most = Most.within(raised())
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=Connection.most.waiting,
        limit_concurrency=_MOST_REQUESTS,
        timeout_graceful_shutdown=_LAST_WORDS_WITHIN + _CUT_OFF_WITHIN,
    )
    gc.freeze()
    gc.enable()
    _Server(config, f"Serving http://{_in_address(host)}:{port}{PATH}. {told}", app).run()
    return 0


class _Server(uvicorn.Server):
    """One that says where once it listens, and ends as the others do."""

    def __init__(self, config: uvicorn.Config, told: str, closing: Closing) -> None:
        super().__init__(config)
        self._told = told
        self._closing = closing

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        within = _LAST_WORDS_WITHIN + _CUT_OFF_WITHIN + 1
        await in_order(partial(self._listen, sockets), self._stop, within, dies=True)

    async def _listen(self, sockets: list[socket.socket] | None) -> None:
        asyncio.get_running_loop().set_exception_handler(Unaccepted())
        await _try_out(self.config.host, self.config.port)  # before the log tells of a server
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        say(self._told)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.end()
        asyncio.get_running_loop().call_later(_LAST_WORDS_WITHIN, self._closing.close)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are heard already

    def _stop(self, number: int) -> None:
        # Not by `handle_exit`: a library of the protocol's has replaced it by one that cuts off every stream.
        if self.should_exit and number == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


async def _try_out(host: str, port: int) -> None:
    """Take an address and give it back, as uvicorn would only log why it cannot be had.

    Raises:
        SettingsError: with the reason.
    """
    loop = asyncio.get_running_loop()
    try:
        (await loop.create_server(asyncio.Protocol, host, port, start_serving=False)).close()
    except (OSError, UnicodeError) as error:  # of a host that no name can have
        number = None if isinstance(error, (socket.gaierror, UnicodeError)) else error.errno
        why = os.strerror(number) if number else "nobody knows that host"
        raise SettingsError(f"--http {_in_address(host)}:{port} cannot be served: {why}.") from None


def application(
    settings: Settings, upstream: Callable[..., Any] | None, identity: Identity, host: str, port: int
) -> Guard:
    """The whole ASGI application: the guard around the protocol around the server."""
    names = {_in_address(host), *(("localhost",) if host in _LOOPBACK else ())}
    addresses = {f"http://{name}:{port}" for name in names}
    metadata, metadata_url = None, ""
    if settings.public_url is not None and settings.oauth_issuer is not None:
        public = urlsplit(settings.public_url)
        addresses.add(f"{public.scheme}://{public.netloc}")
        metadata_url = f"{public.scheme}://{public.netloc}{METADATA}"
        metadata = {
            "resource": settings.public_url,
            "authorization_servers": [settings.oauth_issuer],
            "scopes_supported": [READ, TOKENS],
            "bearer_methods_supported": ["header"],
        }
    origins = {spelled for address in addresses for spelled in _spellings(address)}
    hosts = {origin.partition("://")[2] for origin in origins}
    server = AnalyticsServer(settings, upstream, over_http=True)
    inner = server.streamable_http_app(
        streamable_http_path=PATH,
        max_sessions=2 * MOST_SESSIONS,  # whoever opens one too many ends another
        # The guard has judged size, host and origin by then, and more strictly than the SDK would.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    protocol = Sessions(server.session_manager.handle_request)
    return Guard(inner, protocol, identity, hosts, origins, metadata, metadata_url, TOKEN_TOOLS)


def _spellings(address: str) -> set[str]:
    """An address as clients send it: in lower case, with and without the port that goes without saying."""
    bare = one_spelling(address)
    parts = urlsplit(bare)
    return {bare} if parts.port else {bare, f"{bare}:{PORTS[parts.scheme]}"}


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def parsed(address: str) -> tuple[str, int]:
    """The host and port of `HOST:PORT`.

    Raises:
        SettingsError: when it is not one.
    """
    parts = parts_of(f"//{address}")
    if parts is not None and parts.hostname and parts.port and parts.netloc == address and "@" not in address:
        return parts.hostname, parts.port
    raise SettingsError("--http needs HOST:PORT, like 127.0.0.1:8080.")
