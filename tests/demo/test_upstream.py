"""The embedded upstream answers as the documentation says, and lets in only whom it should."""

import csv
import gzip
import io
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.demo.upstream import (
    DEMO_COOKIE,
    DEMO_INSTANCE,
    DEMO_TOKEN,
    IssuedToken,
    Received,
    TokenDesk,
    Upstream,
)

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 6, 17, 12, 30, 5, 999, tzinfo=UTC)
TOKENS = "/api/service-access-tokens"
REPORT = "/api/reports/by-user-client-date"
WITH_BEARER = [REPORT, "/api/reports/user-registry", "/api/credits"]
SIGNED_IN = {"Cookie": f"theme=dark; cas={DEMO_COOKIE}"}
BEARER = {"Authorization": f"Bearer {DEMO_TOKEN}"}
HERE = {"instanceURL": DEMO_INSTANCE}


@dataclass
class Clock:
    """A clock that tests turn by hand."""

    now: datetime = field(default=NOW)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def tiny() -> Company:
    return Company.made_up(NOW.date(), people=30, days=60)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(tiny: Company, clock: Clock) -> Starlette:
    return Upstream(tiny, clock).app()


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(app) as client:
        yield client


def connected(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://upstream")


def ledger(app: Starlette) -> list[Received]:
    found: list[Received] = app.state.ledger
    return found


def desk(app: Starlette) -> TokenDesk:
    found: TokenDesk = app.state.desk
    return found


async def created(client: httpx.AsyncClient, **body: str) -> dict[str, Any]:
    response = await client.post(TOKENS, json=body, headers=SIGNED_IN)
    assert response.status_code == 201
    token: dict[str, Any] = response.json()
    return token


async def listed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = (await client.get(TOKENS, headers=SIGNED_IN)).json()["tokens"]
    return tokens


@pytest.mark.parametrize(("method", "path"), [("GET", TOKENS), ("POST", TOKENS), ("DELETE", f"{TOKENS}/x")])
@pytest.mark.parametrize("headers", [{}, BEARER, {"Cookie": "cas=wrong"}, {"Cookie": f"other={DEMO_COOKIE}"}], ids=str)
async def test_tokens_need_the_cookie(
    client: httpx.AsyncClient, app: Starlette, method: str, path: str, headers: dict[str, str]
) -> None:
    before = list(desk(app).tokens)
    response = await client.request(method, path, headers=headers)
    assert response.status_code == 401
    assert desk(app).tokens == before


async def test_the_cookie_may_have_another_name(tiny: Company, clock: Clock) -> None:
    app = Upstream(tiny, clock, cookie="value", cookie_name="accounts_session_v2").app()
    async with connected(app) as client:
        assert (await client.get(TOKENS, headers={"Cookie": "accounts_session_v2=value"})).status_code == 200
        assert (await client.get(TOKENS, headers=SIGNED_IN)).status_code == 401


@pytest.mark.parametrize("path", WITH_BEARER)
@pytest.mark.parametrize(
    "headers",
    [{}, SIGNED_IN, {"Authorization": DEMO_TOKEN}, {"Authorization": "Bearer "}, {"Authorization": "Bearer unknown"},
     {"Authorization": f"Basic {DEMO_TOKEN}"}],
)  # fmt: skip
async def test_usage_needs_a_live_secret(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> None:
    assert (await client.get(path, params=HERE, headers=headers)).status_code == 401


@pytest.mark.parametrize("path", WITH_BEARER)
@pytest.mark.parametrize(("params", "status"), [({}, 400), ({"instanceURL": "other.example"}, 403), (HERE, 200)])
async def test_usage_is_of_the_one_instance(
    client: httpx.AsyncClient, path: str, params: dict[str, str], status: int
) -> None:
    assert (await client.get(path, params=params, headers=BEARER)).status_code == status


@pytest.mark.parametrize(
    "wrong",
    [{"granularity": "by_day"}, {"granularity": ""}, {"startDate": "2026-6-1"}, {"endDate": "2026-02-30"},
     {"startDate": ""}, {"endDate": "20260601"}, {"startDate": "2026-06-01T00:00:00Z"}],
    ids=str,
)  # fmt: skip
async def test_a_malformed_question_is_refused(client: httpx.AsyncClient, wrong: dict[str, str]) -> None:
    response = await client.get(REPORT, params=HERE | wrong, headers=BEARER)
    assert response.status_code == 400
    assert response.json()["error"]


async def test_a_report_is_the_companys_csv(client: httpx.AsyncClient, tiny: Company) -> None:
    asked = HERE | {"granularity": "by_user_day", "startDate": "2026-06-01", "endDate": "2026-06-12"}
    response = await client.get(REPORT, params=asked, headers=BEARER)
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.text == "".join(tiny.report("by_user_day", date(2026, 6, 1), date(2026, 6, 12)))
    days = {row["Timestamp Date"] for row in csv.DictReader(io.StringIO(response.text))}
    assert {"2026-06-01", "2026-06-12"} <= days
    assert all("2026-06-01" <= day <= "2026-06-12" for day in days)


async def test_without_a_granularity_the_report_is_the_finest_of_all_time(
    client: httpx.AsyncClient, tiny: Company
) -> None:
    response = await client.get(REPORT, params=HERE, headers=BEARER)
    assert response.text == "".join(tiny.report("by_user_day_client_language"))


async def test_a_report_is_compressed_only_for_those_who_can_read_it(client: httpx.AsyncClient, tiny: Company) -> None:
    async def raw(encoding: str) -> tuple[httpx.Response, bytes]:
        headers = BEARER | {"Accept-Encoding": encoding}
        async with client.stream("GET", REPORT, params=HERE, headers=headers) as response:
            return response, b"".join([piece async for piece in response.aiter_raw()])

    plain, text = await raw("identity")
    packed, data = await raw("gzip")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-length" not in packed.headers
    assert gzip.decompress(data) == text == "".join(tiny.report("by_user_day_client_language")).encode()


async def test_the_registry_and_the_credits_are_the_companys(client: httpx.AsyncClient, tiny: Company) -> None:
    registry = await client.get("/api/reports/user-registry", params=HERE, headers=BEARER)
    assert (registry.headers["content-type"], registry.text) == ("text/csv; charset=utf-8", tiny.user_registry())
    recent = await client.get("/api/credits", params=HERE | {"startDate": "2026-06-01"}, headers=BEARER)
    assert recent.json() == tiny.credits(date(2026, 6, 1))
    assert (await client.get("/api/credits", params=HERE | {"endDate": "soon"}, headers=BEARER)).status_code == 400


async def test_it_starts_with_a_live_an_expired_and_an_unnamed_token(client: httpx.AsyncClient) -> None:
    live, unnamed, expired = await listed(client)
    assert (live["displayName"], live["isExpired"]) == ("demo", False)
    assert "displayName" not in unnamed
    assert (unnamed["isExpired"], expired["isExpired"]) == (False, True)
    assert all("secret" not in token for token in (live, unnamed, expired))


async def test_the_first_tokens_can_be_given(tiny: Company, clock: Clock) -> None:
    given = IssuedToken("one", "given-secret", NOW - timedelta(days=1))
    async with connected(Upstream(tiny, clock, tokens=[given]).app()) as client:
        assert await listed(client) == [{"id": "one", "createdAt": "2026-06-16T12:30:05Z", "isExpired": False}]
        await client.delete(f"{TOKENS}/one", headers=SIGNED_IN)
    assert not given.revoked


async def test_a_new_token_has_the_documented_shape(client: httpx.AsyncClient) -> None:
    bare = await created(client)
    assert set(bare) == {"id", "secret", "createdAt"}
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", bare["id"])
    assert re.fullmatch(r"sams_at_[\w-]{43}\.[\w-]{22}", bare["secret"], re.ASCII)
    assert bare["createdAt"] == "2026-06-17T12:30:05Z"
    full = await created(client, displayName="Zoë's job", expiresAt="2026-07-01T02:00:00+02:00")
    assert (full["displayName"], full["expiresAt"]) == ("Zoë's job", "2026-07-01T00:00:00Z")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b"null", b'"x"', b'{"name": "x"}', b'{"displayName": 5}', b'{"displayName": null}',
     b'{"displayName": "\\ud800"}', b'{"displayName": ["x"]}', b'{"expiresAt": ""}', b'{"expiresAt": 1}',
     b'{"expiresAt": "2026-07-01"}', b'{"expiresAt": "2026-07-01T00:00:00"}', b'{"expiresAt": "2026-13-01T00:00:00Z"}',
     b'{"expiresAt": "0001-01-01T00:00:00+02:00"}'],
    ids=str,
)  # fmt: skip
async def test_a_malformed_request_for_a_token_is_refused(
    client: httpx.AsyncClient, app: Starlette, body: bytes
) -> None:
    response = await client.post(TOKENS, content=body, headers=SIGNED_IN)
    assert response.status_code == 400
    assert response.json()["error"]
    assert len(desk(app).tokens) == 3


async def test_a_token_lives_until_it_is_revoked(client: httpx.AsyncClient) -> None:
    token = await created(client, displayName="job")
    bearer = {"Authorization": f"Bearer {token['secret']}"}
    assert (await client.get("/api/credits", params=HERE, headers=bearer)).status_code == 200
    newest, *_ = await listed(client)
    assert newest == {key: token[key] for key in ("id", "displayName", "createdAt")} | {"isExpired": False}

    revoked = await client.delete(f"{TOKENS}/{token['id']}", headers=SIGNED_IN)
    assert (revoked.status_code, revoked.content) == (204, b"")
    assert (await listed(client))[0] == newest | {"isExpired": True}
    assert (await client.get("/api/credits", params=HERE, headers=bearer)).status_code == 401
    assert (await client.delete(f"{TOKENS}/{token['id']}", headers=SIGNED_IN)).status_code == 204


async def test_a_token_lives_until_it_expires(client: httpx.AsyncClient, clock: Clock) -> None:
    token = await created(client, expiresAt="2026-06-18T00:00:00Z")
    bearer = {"Authorization": f"Bearer {token['secret']}"}
    clock.now = datetime(2026, 6, 17, 23, 59, 59, tzinfo=UTC)
    assert (await client.get("/api/credits", params=HERE, headers=bearer)).status_code == 200
    clock.now = datetime(2026, 6, 18, tzinfo=UTC)
    assert (await client.get("/api/credits", params=HERE, headers=bearer)).status_code == 401
    assert (await listed(client))[0]["isExpired"]


async def test_revoking_what_is_not_there_is_not_found(client: httpx.AsyncClient, app: Starlette) -> None:
    before = await listed(client)
    assert (await client.delete(f"{TOKENS}/unknown", headers=SIGNED_IN)).status_code == 404
    assert await listed(client) == before


async def test_every_request_is_in_the_ledger(client: httpx.AsyncClient, app: Starlette) -> None:
    await client.get(REPORT, params={"instanceURL": "a b", "startDate": "x"})
    await client.get("/nowhere")
    await client.put(TOKENS, headers=SIGNED_IN)
    first, second, third = ledger(app)
    assert (first.method, first.path, first.query) == ("GET", REPORT, (("instanceURL", "a b"), ("startDate", "x")))
    assert (second.path, third.method) == ("/nowhere", "PUT")
    assert third.headers["cookie"] == SIGNED_IN["Cookie"]


async def test_a_restart_forgets_what_happened(tiny: Company, clock: Clock) -> None:
    upstream = Upstream(tiny, clock)
    async with connected(upstream.app()) as client:
        before = await listed(client)
        await created(client)
        await client.delete(f"{TOKENS}/{before[0]['id']}", headers=SIGNED_IN)
        upstream.restart()
        assert upstream.ledger == []
        assert await listed(client) == before


async def test_it_starts_and_stops_with_the_server_that_serves_it(app: Starlette) -> None:
    said: list[str] = []
    asked = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> dict[str, Any]:
        return {"type": next(asked)}

    async def send(message: Any) -> None:
        said.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert ledger(app) == []
