"""What stands before the protocol: who calls, from where, and how much a request may be."""

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import anyio
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser

from .identity import READ, TOKENS, Identity

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PATH = "/mcp"
METADATA = f"/.well-known/oauth-protected-resource{PATH}"
_BODY_WITHIN = 30.0  # seconds


class Guard:
    """An ASGI application around the protocol's.

    Args:
        app: the protocol's application.
        identity: decides who holds a bearer token.
        hosts: exact `Host` values that are served.
        origins: exact `Origin` values that are served; none sends no `Origin`.
        metadata: the protected resource metadata (RFC 9728), None without an issuer.
        metadata_url: where clients read it.
        token_tools: names of the tools that need the scope for tokens.
    """

    def __init__(
        self,
        app: App,
        identity: Identity,
        hosts: Iterable[str],
        origins: Iterable[str],
        metadata: dict[str, Any] | None,
        metadata_url: str,
        token_tools: Iterable[str],
    ) -> None:
        self._app = app
        self._identity = identity
        self._hosts = frozenset(host.encode() for host in hosts)
        self._origins = frozenset(origin.encode() for origin in origins)
        self._metadata = metadata
        self._metadata_url = metadata_url
        self._token_tools = frozenset(name.encode() for name in token_tools)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        refused = self._misplaced(headers)
        if refused is not None:
            await _answer(send, *refused)
        elif scope["path"] == METADATA and self._metadata is not None:
            await _answer(send, 200, json.dumps(self._metadata), "application/json")
        elif (user := await self._user(headers)) is None:
            await self._challenge(send, 401, "invalid_token" if _all(headers, b"authorization") else None)
        elif not self._enough(user.scopes, headers):
            await self._challenge(send, 403, "insufficient_scope")
        else:
            await self._pass_on(user, scope, receive, send)

    def _misplaced(self, headers: list[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        """The status and text for a request that nobody may send."""
        hosts, origins = _all(headers, b"host"), _all(headers, b"origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, "This server does not serve that host."
        if any(origin not in self._origins for origin in origins):
            return 403, "This server does not serve that origin."
        if _all(headers, b"content-length") and _all(headers, b"transfer-encoding"):
            return 400, "Send a length or chunks, not both."
        if any(coding.strip().lower() != b"identity" for coding in _all(headers, b"content-encoding")):
            return 415, "Send the body as it is, without Content-Encoding."
        return None

    async def _user(self, headers: list[tuple[bytes, bytes]]) -> AuthenticatedUser | None:
        given = _all(headers, b"authorization")
        if len(given) != 1 or given[0][:7].lower() != b"bearer ":
            return None
        token = await self._identity.of(given[0][7:].strip().decode("latin-1"))
        return None if token is None else AuthenticatedUser(token)

    def _enough(self, scopes: list[str], headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether the scopes suffice, by the tool that the newest revision names in a header (the rest ask later)."""
        named = any(name in self._token_tools for name in _all(headers, b"mcp-name"))
        return READ in scopes and (TOKENS in scopes or not named)

    async def _challenge(self, send: Send, status: int, error: str | None) -> None:
        scopes = READ if status == 401 else f"{READ} {TOKENS}"
        parts = [f'error="{error}"'] if error else []
        parts.append(f'scope="{scopes}"')
        if self._metadata is not None:
            parts.append(f'resource_metadata="{self._metadata_url}"')
        body = json.dumps({"error": error or "unauthorized"})
        await _answer(
            send, status, body, "application/json", (b"www-authenticate", f"Bearer {', '.join(parts)}".encode())
        )

    async def _pass_on(self, user: AuthenticatedUser, scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = user
        known = auth_context_var.set(user)
        try:
            await self._app(scope, _within(receive), send)
        finally:
            auth_context_var.reset(known)


def _within(receive: Receive) -> Receive:
    """A receiver that takes a body which is too slow in coming for a caller who has left."""
    deadline = anyio.current_time() + _BODY_WITHIN
    whole = False

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal whole
        if whole:
            return await receive()
        with anyio.move_on_at(deadline):
            message = await receive()
            whole = not message.get("more_body", False)
            return message
        whole = True
        return {"type": "http.disconnect"}

    return bounded


def _all(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


async def _answer(
    send: Send, status: int, body: str, kind: str = "text/plain; charset=utf-8", *more: tuple[bytes, bytes]
) -> None:
    data = body.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(data)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
