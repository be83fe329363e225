"""Upstream's client over a real socket: how often it asks in any trouble, and which answers it does not take."""

import gzip
import json
import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.upstream.analytics import Analytics, Report
from sourcegraph_analytics_mcp.upstream.http import Http
from sourcegraph_analytics_mcp.upstream.models import ReportRequest, TokenRequest
from sourcegraph_analytics_mcp.upstream.policy import CALLS, Call, Failed, backoff
from support.client import connected, refused
from support.upstreams import Exchange, scripted_upstream

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
JSON = "application/json"

# The most requests of a report, credits, a list, a create and a revoke, by trouble: section 3 of the specification.
TABLE: dict[str, tuple[int, int, int, int, int]] = {
    "reset": (3, 3, 3, 1, 3), "silence": (2, 3, 3, 1, 3), "cut": (3, 3, 3, 1, 1), "html": (1, 1, 1, 1, 1),
    "302 Found": (1, 1, 1, 1, 1), "400 Bad Request": (1, 1, 1, 1, 1), "401 Unauthorized": (1, 1, 1, 1, 1),
    "403 Forbidden": (1, 1, 1, 1, 1), "404 Not Found": (1, 1, 1, 1, 1), "408 Request Timeout": (3, 3, 3, 1, 3),
    "409 Conflict": (1, 1, 1, 1, 1), "425 Too Early": (3, 3, 3, 1, 3), "429 Too Many Requests": (3, 3, 3, 1, 2),
    "500 Internal Server Error": (2, 3, 3, 1, 3), "501 Not Implemented": (1, 1, 1, 1, 1),
    "502 Bad Gateway": (4, 4, 4, 1, 3), "503 Service Unavailable": (4, 4, 4, 1, 3), "524 Late": (4, 4, 4, 1, 3),
    "525 Edge": (1, 1, 1, 1, 1), "599 Odd": (2, 2, 2, 1, 2),
}  # fmt: skip
UNSENT = (4, 4, 4, 2, 3)


class Known:
    """Two credentials."""

    def cookie(self) -> tuple[str, str]:
        return "cas", "c"

    async def bearer(self) -> str:
        return "b"


async def everything(report: Report) -> int:
    return sum([len(piece) async for piece in report.body])


async def ask(settings: Settings, asked: Call) -> Any:
    """Make one call, whose client has made none before."""
    http = Http(settings)
    analytics = Analytics(http, Known())
    try:
        match asked:
            case "report":
                return await analytics.report(ReportRequest(instance_url="a.example"), 1 << 30, everything)
            case "read":
                return await analytics.credits("a.example", None, None)
            case "list":
                return await analytics.list_tokens()
            case "create":
                return await analytics.create_token(TokenRequest(display_name="job"))
            case "revoke":
                return await analytics.revoke_token("1")
    finally:
        await http.aclose()


async def troubled(exchange: Exchange, trouble: str) -> None:
    """Answer in one of the ways of the table."""
    match trouble:
        case "reset":
            return
        case "silence":
            await exchange.stream.receive()
        case "cut":
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nInstance user ID")
        case "html":
            await exchange.answer(b"<html>")
        case status:
            await exchange.answer(b"", status)


@pytest.mark.parametrize("asked", CALLS)
async def test_each_trouble_is_met_as_often_as_the_table_says(make_settings: Make, asked: Call) -> None:
    trouble, sent = "", dict.fromkeys(TABLE, 0)

    async def answer(exchange: Exchange) -> None:
        sent[trouble] += 1
        await troubled(exchange, trouble)

    async with scripted_upstream(answer) as fake:
        for trouble in TABLE:
            patience = 0.1 if trouble == "silence" else 5
            with pytest.raises((Failed, AnalyticsError)):
                await ask(make_settings(fake.url, retry_base_delay=0, read_timeout=patience), asked)
    assert sent == {trouble: most[CALLS.index(asked)] for trouble, most in TABLE.items()}


@pytest.mark.parametrize("asked", CALLS)
async def test_a_connection_that_fails_is_tried_as_often_as_the_table_says(make_settings: Make, asked: Call) -> None:
    connections = 0

    async def hang_up(stream: anyio.abc.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await stream.aclose()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, hang_up)
        url = f"https://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        with pytest.raises((Failed, AnalyticsError), match="cannot be reached"):
            await ask(make_settings(url, retry_base_delay=0), asked)
        tasks.cancel_scope.cancel()
    assert connections == UNSENT[CALLS.index(asked)]


@pytest.mark.parametrize("trouble", ["reset", "silence", "cut", "no secret", *(t for t in TABLE if t[0] in "345")])
async def test_a_create_that_ends_in_any_way_leaves_no_live_token(make_settings: Make, trouble: str) -> None:
    """Whatever the answer says, a token that the list then shows as ours has a secret that nobody knows."""
    made = {"id": "orphan", "displayName": "job", "createdAt": "2999-01-01T00:00:00Z", "isExpired": False}
    tokens: list[dict[str, Any]] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(json.dumps({"tokens": tokens}).encode(), content_type=JSON)
        elif exchange.method == "DELETE":
            tokens[0]["isExpired"] = True
            await exchange.answer(status="204 No Content")
        else:
            tokens.append(made)
            if trouble == "no secret":
                await exchange.answer(json.dumps(made).encode(), "201 Created", JSON)
            else:
                await troubled(exchange, trouble)

    patience = 1 if trouble == "silence" else 5
    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, retry_base_delay=0, read_timeout=patience)
        async with connected(settings) as client:
            await refused(client, "create_token", display_name="job")
    methods = [exchange.method for exchange in fake.exchanges]
    assert methods.count("POST") == 1
    never = ("400", "401", "403", "404", "429", "501", "525")  # those mean that nothing was done
    assert tokens[0]["isExpired"] is not trouble.startswith(never)


async def test_many_calls_together_retry_no_more_than_ten_times(make_settings: Make) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.answer(b"", "503 Service Unavailable")

    async with scripted_upstream(fail) as fake:
        http = Http(make_settings(fake.url, retry_base_delay=0))
        analytics = Analytics(http, Known())

        async def one() -> None:
            with pytest.raises(AnalyticsError):
                await analytics.credits("a.example", None, None)

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(one)
        await http.aclose()
    assert len(fake.exchanges) == 6 + 10


async def test_a_wait_that_upstream_asks_for_is_kept_to(make_settings: Make) -> None:
    asked = [anyio.Event(), anyio.Event()]

    async def wait(exchange: Exchange) -> None:
        await exchange.answer(b"", "429 Too Many Requests", extra="Retry-After: 30\r\n")
        asked[exchange.number - 1].set()

    async with scripted_upstream(wait) as fake, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, make_settings(fake.url, retry_base_delay=0), "read")
        await asked[0].wait()
        with anyio.move_on_after(0.3):
            await asked[1].wait()
        tasks.cancel_scope.cancel()
    assert len(fake.exchanges) == 1


def test_waits_grow_to_a_limit_and_are_never_twice_the_same() -> None:
    waits = [[backoff(0.5, sent) for _ in range(50)] for sent in (1, 3, 30)]
    for some, most in zip(waits, (0.5, 2, 20), strict=True):
        assert len(set(some)) == 50
        assert most / 2 < max(some) <= most


async def test_a_body_that_inflates_beyond_reason_is_refused_long_before_the_limit(make_settings: Make) -> None:
    bomb = gzip.compress(b"Instance user ID,Searches\n" + b"1" * (12 << 20))

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(bomb, extra="Content-Encoding: gzip\r\n")

    async with scripted_upstream(answer) as fake:
        with pytest.raises(AnalyticsError, match="upstream_too_large"):
            await ask(make_settings(fake.url), "report")
    assert len(fake.exchanges) == 1


async def test_nothing_that_upstream_sets_is_sent_back(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b'{"tokens": []}', content_type=JSON, extra="Set-Cookie: cas=evil; Path=/\r\n")

    async with scripted_upstream(answer) as fake:
        http = Http(make_settings(fake.url))
        analytics = Analytics(http, Known())
        for _ in range(2):
            await analytics.list_tokens()
            await analytics.credits("a.example", None, None)
        await http.aclose()
    assert [exchange.headers.get("cookie") for exchange in fake.exchanges] == ["cas=c", None] * 2


async def test_libraries_log_neither_addresses_nor_headers(
    make_settings: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"{}", content_type=JSON)

    for name in ("", "httpx", "httpcore"):  # as if nobody had set anything yet
        caplog.set_level(logging.DEBUG, name)
    async with scripted_upstream(answer) as fake:
        await ask(make_settings(fake.url), "read")
    assert [record for record in caplog.records if record.name.startswith(("httpx", "httpcore"))] == []


@pytest.mark.parametrize(
    ("asked", "code"),
    [("report", "auth_rejected"), ("read", "auth_rejected"), ("list", "session_expired"), ("create", "session_expired"),
     ("revoke", "session_expired")],
)  # fmt: skip
@pytest.mark.parametrize("page", [b"<html>Sign in</html>", b"\xef\xbb\xbf\r\n <!DOCTYPE html>"])
async def test_a_login_page_is_no_answer_whatever_its_status(
    make_settings: Make, asked: Call, code: str, page: bytes
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(page, content_type="text/csv" if asked == "report" else JSON)

    async with scripted_upstream(answer) as fake:
        with pytest.raises((Failed, AnalyticsError), match=code):
            await ask(make_settings(fake.url), asked)
    assert len(fake.exchanges) == 1


async def test_credits_and_a_registry_that_nothing_ends_are_refused(make_settings: Make) -> None:
    async def endless(exchange: Exchange) -> None:
        body = b'{"a": 1}' if "credits" in exchange.target else b"Instance user ID\n1\n"
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)

    async with scripted_upstream(endless) as fake:
        http = Http(make_settings(fake.url, retry_base_delay=0))
        analytics = Analytics(http, Known())
        with pytest.raises(AnalyticsError, match="upstream_incomplete"):
            await analytics.credits("a.example", None, None)
        with pytest.raises(AnalyticsError, match="upstream_incomplete"):
            await analytics.user_registry("a.example")
        await http.aclose()


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        ("[" * 49 + "1" + "]" * 49, True),
        ("[" * 50 + "1" + "]" * 50, False),
        ('{"a":' * 90_000 + "1" + "}" * 90_000, False),
    ],
    ids=["deep", "too deep", "too deep to be read"],
)
async def test_credits_nested_too_deeply_are_refused(make_settings: Make, body: str, taken: bool) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body.encode(), content_type=JSON)

    async with scripted_upstream(answer) as fake:
        if taken:
            assert await ask(make_settings(fake.url), "read") == json.loads(body)
        else:
            with pytest.raises(AnalyticsError, match="nested too deeply"):
                await ask(make_settings(fake.url), "read")
