"""What stands before the protocol: who calls, from where, and how much a request may be."""

import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import anyio
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser

from .identity import READ, SKEW, TOKENS, Identity, NotAccepted
from .refusals import Refusals

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PATH = "/mcp"
METADATA = f"/.well-known/oauth-protected-resource{PATH}"
LARGEST_BODY = 1 << 20
_LARGEST_KEPT = 1 << 16  # of what opens a stream or a session, as long as which up to twenty times as much is kept
_NONE: list[bytes] = []
_log = logging.getLogger(__name__)


class Guard:
    """An ASGI application around the protocol's.

    Args:
        app: the protocol's application, for its start and end and for paths that nobody serves.
        protocol: what answers requests of the protocol.
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
        protocol: App,
        identity: Identity,
        hosts: Iterable[str],
        origins: Iterable[str],
        metadata: dict[str, Any] | None,
        metadata_url: str,
        token_tools: Iterable[str],
    ) -> None:
        self._app = app
        self._protocol = protocol
        self._identity = identity
        self._hosts = frozenset(host.encode() for host in hosts)
        self._origins = frozenset(origin.encode() for origin in origins)
        self._metadata = metadata
        self._metadata_url = metadata_url
        self._token_tools = frozenset(name.encode() for name in token_tools)
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                self._refusals.end()
            return
        headers = Headers(scope["headers"])
        refused = self._misplaced(scope["path"], headers)
        if refused is not None:
            status, reason, text = refused
            self._refusals.tell(status, reason)
            await answer(send, status, text)
        elif scope["path"] == METADATA and self._metadata is not None and scope["method"] in ("GET", "HEAD"):
            await answer(send, 200, json.dumps(self._metadata), "application/json")
        elif (user := await self._user(headers)) is None:
            await self._challenge(send, 401, "invalid_token" if headers.of(b"authorization") else None, (READ,))
        elif not set(needed := self._needed(headers)).issubset(user.scopes):
            self._refusals.tell(403, "InsufficientScope")
            await self._challenge(send, 403, "insufficient_scope", needed)
        else:
            await self._pass_on(user, scope, receive, send)

    def _misplaced(self, path: str, headers: "Headers") -> tuple[int, str, str] | None:
        """The status, a word for the log and the text for a request that nobody may send."""
        if not path.startswith("/"):
            return 400, "WholeAddress", "Send the path alone."
        hosts = headers.of(b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, "OtherHost", "This server does not serve that host."
        if not self._origins.issuperset(headers.of(b"origin")):
            return 403, "OtherOrigin", "This server does not serve that origin."
        if headers.of(b"content-length") and headers.of(b"transfer-encoding"):
            return 400, "LengthAndChunks", "Send a length or chunks, not both."
        if any(coding.strip().lower() != b"identity" for coding in headers.of(b"content-encoding")):
            return 415, "ContentEncoding", "Send the body as it is, without Content-Encoding."
        return None

    async def _user(self, headers: "Headers") -> AuthenticatedUser | None:
        given = headers.of(b"authorization")
        try:
            if len(given) != 1 or given[0][:7].lower() != b"bearer ":
                raise NotAccepted("NoBearerToken")
            return AuthenticatedUser(await self._identity.of(given[0][7:].strip().decode("latin-1")))
        except NotAccepted as why:
            self._refusals.tell(401, str(why))
            return None

    def _needed(self, headers: "Headers") -> tuple[str, ...]:
        """The scopes of a request, by the tool that the newest revision names in a header (the rest ask later)."""
        named = any(name in self._token_tools for name in headers.of(b"mcp-name"))
        return (READ, TOKENS) if named else (READ,)

    async def _challenge(self, send: Send, status: int, error: str | None, needed: tuple[str, ...]) -> None:
        parts = [f'error="{error}"'] if error else []
        parts.append(f'scope="{" ".join(needed)}"')
        if self._metadata is not None:
            parts.append(f'resource_metadata="{self._metadata_url}"')
        body = json.dumps({"error": error or "unauthorized"})
        await answer(
            send, status, body, "application/json", (b"www-authenticate", f"Bearer {', '.join(parts)}".encode())
        )

    async def _pass_on(self, user: AuthenticatedUser, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _whole(receive)
        except EOFError:
            return  # there is nobody to answer
        if body is None or not _kept_briefly(scope["method"], body):
            self._refusals.tell(413, "TooLarge")
            allowed = f"{LARGEST_BODY >> 10:,} KiB, and {_LARGEST_KEPT >> 10} KiB where it is no call of a tool"
            await answer(send, 413, f"A request may have {allowed}.")
            return
        scope["user"] = user
        scope["body"] = body  # for who answers when this is cut off
        known = auth_context_var.set(user)
        try:
            await self._answered(user, scope, _again(body, receive), send)
        except Exception:  # noqa: BLE001 - a bug must not show its insides
            reference = secrets.token_hex(4)
            _log.exception("A request failed in a way nobody foresaw, reference %s", reference)
            await answer(send, 500, f"The request failed; the server's log has more under {reference}.")
        finally:
            auth_context_var.reset(known)

    async def _answered(self, user: AuthenticatedUser, scope: Scope, receive: Receive, send: Send) -> None:
        """Have it answered; a stream without an end of its own ends when its caller's token does."""
        inner, until = self._protocol if scope["path"] == PATH else self._app, user.access_token.expires_at
        if until is None or not stands(scope):
            await inner(scope, receive, send)
            return
        begun = False

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        with anyio.move_on_after(until + SKEW - time.time()) as accepted:
            await inner(scope, receive, noting)
        if accepted.cancelled_caught and begun:
            await send({"type": "http.response.body", "body": b""})
        elif accepted.cancelled_caught:
            await self._challenge(send, 401, "invalid_token", (READ,))


class Headers:
    """The headers of a request by name, every value of each.

    Args:
        pairs: names in lower case, and values.
    """

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def of(self, name: bytes) -> list[bytes]:
        """The values under a name; none if there is no such header."""
        return self._values.get(name, _NONE)


def stands(scope: Scope) -> bool:
    """Whether a request opens a stream of announcements; the newest revision has its method in a header, too."""
    return scope["method"] == "GET" or b"subscriptions/listen" in Headers(scope["headers"]).of(b"mcp-method")


async def _whole(receive: Receive) -> bytes | None:
    """The body of a request, None when it is too large; so that one who leaves meanwhile has begun nothing.

    Raises:
        EOFError: when the client leaves first.
    """
    body = bytearray()  # which grows in place: a megabyte may come a byte at a time
    while len(body) <= LARGEST_BODY:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise EOFError
        body += message["body"]
        if not message["more_body"]:
            return bytes(body) if len(body) <= LARGEST_BODY else None
    return None


def _kept_briefly(method: str, body: bytes) -> bool:
    """Whether a request is small, or a call of a tool, which is over soon."""
    if len(body) <= _LARGEST_KEPT or method != "POST":
        return len(body) <= _LARGEST_KEPT
    try:
        message = json.loads(body)
    except RecursionError:
        return True  # the protocol cannot read it either
    except ValueError:
        return False
    return isinstance(message, dict) and message.get("method") == "tools/call"


def _again(body: bytes, receive: Receive) -> Receive:
    """A receiver that gives a body that was received before, and then what comes."""
    given = False

    async def receiver() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiver


async def answer(
    send: Send, status: int, body: str, kind: str = "text/plain; charset=utf-8", *more: tuple[bytes, bytes]
) -> None:
    """Send a whole answer.

    Args:
        kind: of the body, a media type.
        more: headers.
    """
    data = body.encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(data)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
