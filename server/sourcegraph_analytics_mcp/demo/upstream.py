"""The embedded upstream: every endpoint of the Analytics API with the documented shapes, for demo and tests."""

import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from .company import Company
from .reports import GRANULARITIES, credits_of, registry, report

DEMO_INSTANCE = "demo.sourcegraph.example"
DEMO_COOKIE = "demo-session"
DEMO_TOKEN = "_".join(("sams", "at", "demo")) + "-0123456789.made-up"


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
        secret = f"sams_at_{secrets.token_urlsafe(32)}.{secrets.token_urlsafe(16)}"
        token = IssuedToken(str(uuid.uuid4()), secret, self.clock(), display_name, expires_at)
        self.tokens.append(token)
        return token

    def expired(self, token: IssuedToken) -> bool:
        return token.revoked or (token.expires_at is not None and token.expires_at <= self.clock())

    def accepts(self, secret: str) -> bool:
        return any(token.secret == secret and not self.expired(token) for token in self.tokens)


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came, for tests to look at."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.response = JSONResponse({"error": message}, status_code=status)


class Upstream:
    """The application's state and endpoints.

    Args:
        cookie, cookie_name: what the browser would send.
        instance: the one instance the tokens can see.
    """

    def __init__(
        self,
        company: Company,
        clock: Callable[[], datetime],
        *,
        cookie: str = DEMO_COOKIE,
        cookie_name: str = "cas",
        instance: str = DEMO_INSTANCE,
    ) -> None:
        self.company = company
        self.desk = TokenDesk(clock)
        self.ledger: list[Received] = []
        self._cookie = (cookie_name, cookie)
        self._instance = instance
        self.restart()

    def restart(self) -> None:
        """Forget what was asked, and have the first three tokens again."""
        now = self.desk.clock()
        self.ledger.clear()
        self.desk.tokens[:] = [
            IssuedToken(str(uuid.UUID(int=1)), "old", now - timedelta(days=200), "laptop", now - timedelta(days=110)),
            IssuedToken(str(uuid.UUID(int=2)), "unnamed", now - timedelta(days=90)),
            IssuedToken(str(uuid.UUID(int=3)), DEMO_TOKEN, now - timedelta(days=9), "demo", now + timedelta(days=81)),
        ]

    def app(self) -> Starlette:
        """The ASGI application."""
        tokens = "/api/service-access-tokens"
        return Starlette(
            routes=[
                Route(tokens, self._guarded(self._list), methods=["GET"]),
                Route(tokens, self._guarded(self._create), methods=["POST"]),
                Route(tokens + "/{id}", self._guarded(self._revoke), methods=["DELETE"]),
                Route("/api/reports/by-user-client-date", self._guarded(self._report)),
                Route("/api/reports/user-registry", self._guarded(self._registry)),
                Route("/api/credits", self._guarded(self._credits)),
            ],
            middleware=[Middleware(GZipMiddleware, compresslevel=1)],
        )

    def _guarded(self, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            query = tuple(request.query_params.multi_items())
            self.ledger.append(Received(request.method, request.url.path, query, dict(request.headers)))
            try:
                answer: Response = await endpoint(request)
            except _Refused as refused:
                return refused.response
            return answer

        return handle

    async def _list(self, request: Request) -> Response:
        self._signed_in(request)
        listed = [self._described(token) | {"isExpired": self.desk.expired(token)} for token in self.desk.tokens]
        return JSONResponse({"tokens": listed[::-1]})

    async def _create(self, request: Request) -> Response:
        self._signed_in(request)
        body = await request.json()
        if not isinstance(body, dict) or not set(body) <= {"displayName", "expiresAt"}:
            raise _Refused(400, "malformed body")
        expires = body.get("expiresAt")
        try:
            moment = datetime.strptime(expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) if expires else None
        except (TypeError, ValueError):
            raise _Refused(400, "malformed expiresAt") from None
        token = self.desk.issue(body.get("displayName"), moment)
        return JSONResponse(self._described(token) | {"secret": token.secret}, status_code=201)

    async def _revoke(self, request: Request) -> Response:
        self._signed_in(request)
        for token in self.desk.tokens:
            if token.id == request.path_params["id"]:
                token.revoked = True
                return Response(status_code=204)
        raise _Refused(404, "no such token")

    async def _report(self, request: Request) -> Response:
        self._authorised(request)
        granularity = request.query_params.get("granularity", GRANULARITIES[-1])
        if granularity not in GRANULARITIES:
            raise _Refused(400, "unknown granularity")
        start, end = _day(request, "startDate"), _day(request, "endDate")
        return StreamingResponse(report(self.company, granularity, start, end), media_type="text/csv")

    async def _registry(self, request: Request) -> Response:
        self._authorised(request)
        return PlainTextResponse(registry(self.company), media_type="text/csv")

    async def _credits(self, request: Request) -> Response:
        self._authorised(request)
        _day(request, "startDate"), _day(request, "endDate")
        return JSONResponse(credits_of(self.company))

    def _signed_in(self, request: Request) -> None:
        name, value = self._cookie
        if request.cookies.get(name) != value:
            raise _Refused(401, "not signed in")

    def _authorised(self, request: Request) -> None:
        secret = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not self.desk.accepts(secret):
            raise _Refused(401, "invalid token")
        instance = request.query_params.get("instanceURL")
        if instance != self._instance:
            raise _Refused(400 if instance is None else 403, "unknown instance")

    def _described(self, token: IssuedToken) -> dict[str, Any]:
        given = {"displayName": token.display_name, "expiresAt": token.expires_at and _time(token.expires_at)}
        kept = {key: value for key, value in given.items() if value is not None}
        return {"id": token.id, "createdAt": _time(token.created_at)} | kept


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _day(request: Request, key: str) -> date | None:
    text = request.query_params.get(key)
    if text is None:
        return None
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise _Refused(400, f"malformed {key}")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _Refused(400, f"malformed {key}") from None
