"""The embedded upstream: every endpoint of the Analytics API with the documented shapes, for demo and tests."""

import json
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..settings import DEMO_TOKEN_ID
from .company import Company
from .reports import GRANULARITIES

DEMO_INSTANCE = "demo.sourcegraph.example"
DEMO_COOKIE = "demo-session"
DEMO_TOKEN = "_".join(("sams", "at", "demo")) + "-0123456789.made-up"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(slots=True)
class IssuedToken:
    """A token as upstream knows it."""

    id: str
    secret: str
    created_at: datetime
    display_name: str | None = None
    expires_at: datetime | None = None
    revoked: bool = False


@dataclass(slots=True)
class TokenDesk:
    """Upstream's tokens, oldest first."""

    clock: Callable[[], datetime]
    tokens: list[IssuedToken] = field(default_factory=list)

    def issue(self, display_name: str | None = None, expires_at: datetime | None = None) -> IssuedToken:
        """A new token; its secret has a dot inside, as real ones do."""
        token = IssuedToken(str(uuid.uuid4()), _secret(), self.clock(), display_name, expires_at)
        self.tokens.append(token)
        return token

    def revoke(self, token_id: str) -> bool:
        """Mark a token as expired for good; false when there is none of that id."""
        found = [token for token in self.tokens if token.id == token_id]
        for token in found:
            token.revoked = True
        return bool(found)

    def expired(self, token: IssuedToken) -> bool:
        """Whether it ran out or was revoked: upstream does not tell them apart."""
        return token.revoked or (token.expires_at is not None and token.expires_at <= self.clock())

    def is_live(self, secret: str) -> bool:
        """Whether a request with this secret is let in."""
        return any(token.secret == secret and not self.expired(token) for token in self.tokens)


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came, for tests to look at."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Recording:
    """Notes every HTTP request before anything can refuse it."""

    app: ASGIApp
    ledger: list[Received]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            query = tuple(request.query_params.multi_items())
            self.ledger.append(Received(request.method, request.url.path, query, dict(request.headers)))
        await self.app(scope, receive, send)


class _Refused(Exception):
    """A request that is answered by an error."""

    def __init__(self, status: int, message: str) -> None:
        self.response = JSONResponse({"error": message}, status_code=status)


class Upstream:
    """The application's state and endpoints.

    Args:
        cookie, cookie_name: what the browser would send.
        instance: the one instance the tokens can see.
        tokens: those it starts with; without them a live, an unnamed and an expired one.
    """

    def __init__(
        self,
        company: Company,
        clock: Callable[[], datetime],
        *,
        cookie: str = DEMO_COOKIE,
        cookie_name: str = "cas",
        instance: str = DEMO_INSTANCE,
        tokens: Sequence[IssuedToken] | None = None,
    ) -> None:
        self.company = company
        self.desk = TokenDesk(clock)
        self.ledger: list[Received] = []
        self._cookie = (cookie_name, cookie)
        self._instance = instance
        self._first = tuple(_first_tokens(clock()) if tokens is None else tokens)
        self.restart()

    def restart(self) -> None:
        """Forget what was asked, and have the first tokens again."""
        self.ledger.clear()
        self.desk.tokens[:] = [replace(token) for token in self._first]

    def app(self) -> Starlette:
        """The ASGI application, with the ledger and the desk in its state."""
        tokens = "/api/service-access-tokens"
        app = Starlette(
            routes=[
                Route(tokens, _answering(self._list), methods=["GET"]),
                Route(tokens, _answering(self._create), methods=["POST"]),
                Route(tokens + "/{id}", _answering(self._revoke), methods=["DELETE"]),
                Route("/api/reports/by-user-client-date", _answering(self._report)),
                Route("/api/reports/user-registry", _answering(self._registry)),
                Route("/api/credits", _answering(self._credits)),
            ],
            middleware=[Middleware(_Recording, ledger=self.ledger), Middleware(GZipMiddleware, compresslevel=1)],
        )
        app.state.ledger, app.state.desk = self.ledger, self.desk
        return app

    async def _list(self, request: Request) -> Response:
        self._signed_in(request)
        listed = [self._described(token) | {"isExpired": self.desk.expired(token)} for token in self.desk.tokens]
        return JSONResponse({"tokens": listed[::-1]})

    async def _create(self, request: Request) -> Response:
        self._signed_in(request)
        token = self.desk.issue(*_wanted(await request.body()))
        return JSONResponse(self._described(token) | {"secret": token.secret}, status_code=201)

    async def _revoke(self, request: Request) -> Response:
        self._signed_in(request)
        if not self.desk.revoke(request.path_params["id"]):
            raise _Refused(404, "no such token")
        return Response(status_code=204)

    async def _report(self, request: Request) -> Response:
        self._authorised(request)
        granularity = request.query_params.get("granularity", GRANULARITIES[-1])
        if granularity not in GRANULARITIES:
            raise _Refused(400, "unknown granularity")
        start, end = _day(request, "startDate"), _day(request, "endDate")
        return StreamingResponse(self.company.report(granularity, start, end), media_type="text/csv")

    async def _registry(self, request: Request) -> Response:
        self._authorised(request)
        return PlainTextResponse(self.company.user_registry(), media_type="text/csv")

    async def _credits(self, request: Request) -> Response:
        self._authorised(request)
        return JSONResponse(self.company.credits(_day(request, "startDate"), _day(request, "endDate")))

    def _signed_in(self, request: Request) -> None:
        name, value = self._cookie
        if request.cookies.get(name) != value:
            raise _Refused(401, "not signed in")

    def _authorised(self, request: Request) -> None:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.desk.is_live(secret):
            raise _Refused(401, "invalid token")
        instance = request.query_params.get("instanceURL")
        if instance != self._instance:
            raise _Refused(400 if instance is None else 403, "unknown instance")

    def _described(self, token: IssuedToken) -> dict[str, Any]:
        given = {"displayName": token.display_name, "expiresAt": token.expires_at and _time(token.expires_at)}
        kept = {key: value for key, value in given.items() if value is not None}
        return {"id": token.id, "createdAt": _time(token.created_at)} | kept


def _answering(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint, with its refusals as answers."""

    async def handle(request: Request) -> Response:
        try:
            return await endpoint(request)
        except _Refused as refused:
            return refused.response

    return handle


def _secret() -> str:
    return f"sams_at_{secrets.token_urlsafe(32)}.{secrets.token_urlsafe(16)}"


def _first_tokens(now: datetime) -> list[IssuedToken]:
    def ago(days: int) -> datetime:
        return now - timedelta(days=days)

    return [
        IssuedToken(str(uuid.UUID(int=1)), _secret(), ago(200), "laptop", ago(110)),
        IssuedToken(str(uuid.UUID(int=2)), _secret(), ago(90)),
        IssuedToken(DEMO_TOKEN_ID, DEMO_TOKEN, ago(9), "demo", ago(-81)),
    ]


def _wanted(body: bytes) -> tuple[str | None, datetime | None]:
    """The display name and the expiry that a request for a token asks for."""
    try:
        asked = json.loads(body)
        name, expires = asked.get("displayName"), asked.get("expiresAt")
        if not set(asked) <= {"displayName", "expiresAt"} or None in asked.values():
            raise ValueError(body)
        if name is not None:
            name.encode()  # a lone surrogate is no text
        return name, None if expires is None else _moment(expires)
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError):
        raise _Refused(400, "malformed body: an object with displayName and expiresAt, both optional") from None


def _moment(text: str) -> datetime:
    if not _MOMENT.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text).astimezone(UTC)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _day(request: Request, key: str) -> date | None:
    text = request.query_params.get(key)
    if text is None:
        return None
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise _Refused(400, f"malformed {key}")
