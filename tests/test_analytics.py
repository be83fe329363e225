"""Upstream's client over a real socket: how often it asks in any trouble, and which answers it does not take."""

import gzip
import io
import json
import logging
import random
import ssl
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.streams.tls
import pytest

from sourcegraph_analytics_mcp.errors import AnalyticsError, Code
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.upstream import body, policy
from sourcegraph_analytics_mcp.upstream import http as sending
from sourcegraph_analytics_mcp.upstream.analytics import Analytics
from sourcegraph_analytics_mcp.upstream.http import Answer, Http
from sourcegraph_analytics_mcp.upstream.models import ReportRequest, TokenRequest
from sourcegraph_analytics_mcp.upstream.policy import CALLS, Call, Failed, Outcome, RetryBudget, backoff
from support.certificates import self_signed
from support.client import connected, refused
from support.upstreams import Exchange, scripted_upstream

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
JSON = "application/json"

# The most requests of a report, credits, a list, a create and a revoke, by trouble: section 3 of the specification.
TABLE: dict[str, tuple[int, int, int, int, int]] = {
    "reset": (3, 3, 3, 1, 3), "silence": (2, 1, 1, 1, 1), "cut": (3, 3, 3, 1, 1), "html": (1, 1, 1, 1, 1),
    "302 Found": (1, 1, 1, 1, 1), "400 Bad Request": (1, 1, 1, 1, 1), "401 Unauthorized": (1, 1, 1, 1, 1),
    "403 Forbidden": (1, 1, 1, 1, 1), "404 Not Found": (1, 1, 1, 1, 1), "408 Request Timeout": (3, 3, 3, 1, 3),
    "409 Conflict": (1, 1, 1, 1, 1), "425 Too Early": (3, 3, 3, 1, 3), "429 Too Many Requests": (3, 3, 3, 1, 2),
    "500 Internal Server Error": (2, 3, 3, 1, 3), "501 Not Implemented": (1, 1, 1, 1, 1),
    "502 Bad Gateway": (4, 4, 4, 1, 3), "503 Service Unavailable": (4, 4, 4, 1, 3), "524 Late": (4, 4, 4, 1, 3),
    "525 Edge": (1, 1, 1, 1, 1), "599 Odd": (2, 2, 2, 1, 2), "bomb": (1, 1, 1, 1, 1),
}  # fmt: skip
UNSENT = (4, 4, 4, 2, 3)
BOMB = gzip.compress(b"Instance user ID,Searches\n" + b"1" * (12 << 20))

# What each status means, those at the edges too: the trouble it is met like, and the codes for reports and for tokens.
MEANT: list[tuple[tuple[int, ...], Outcome, str, Code, Code]] = [
    ((203, 206, 299, 304), "misread", "html", "upstream_not_csv", "upstream_not_csv"),
    ((300, 301, 303, 305, 399), "redirect", "302 Found", "upstream_redirect", "session_expired"),
    ((400, 402, 406, 407, 411, 422, 424, 426, 428, 430, 499), "refused", "400 Bad Request", "invalid_argument",
     "invalid_argument"),
    ((401,), "refused", "400 Bad Request", "auth_rejected", "session_expired"),
    ((403,), "refused", "400 Bad Request", "instance_denied", "forbidden"),
    ((404,), "refused", "400 Bad Request", "instance_denied", "unsupported"),
    ((405,), "refused", "400 Bad Request", "invalid_argument", "unsupported"),
    ((410,), "refused", "400 Bad Request", "unsupported", "unsupported"),
    ((409,), "conflict", "409 Conflict", "invalid_argument", "invalid_argument"),
    ((408, 425), "busy", "408 Request Timeout", "upstream_unavailable", "upstream_unavailable"),
    ((429,), "asked_to_wait", "429 Too Many Requests", "rate_limited", "rate_limited"),
    ((500,), "failing", "500 Internal Server Error", "upstream_unavailable", "upstream_unavailable"),
    ((502, 503, 504, 520, 521, 522, 523, 524), "gateway", "502 Bad Gateway", "upstream_unavailable",
     "upstream_unavailable"),
    ((501, 505, 525, 526), "refused", "501 Not Implemented", "upstream_unavailable", "upstream_unavailable"),
    ((506, 519, 527, 599), "odd", "599 Odd", "upstream_unavailable", "upstream_unavailable"),
]  # fmt: skip
AGAIN = ("rate_limited", "upstream_unavailable")  # what the same call may meet with success later
# What a status leaves open, by code; for reports and for tokens where that is not the same.
NEXT: dict[str, tuple[str, str]] = {
    "upstream_not_csv": ("Try again later", "Try again later"), "upstream_redirect": ("SRC_ANALYTICS_URL", ""),
    "session_expired": ("", "SRC_ANALYTICS_CAS_COOKIE"), "invalid_argument": ("granularity and dates", "display name"),
    "auth_rejected": ("create_token", ""), "instance_denied": ("admin there", ""), "forbidden": ("", "admin"),
    "unsupported": ("Update this server", "/access-tokens"), "rate_limited": ("few minutes",) * 2,
    "upstream_unavailable": ("Try again later",) * 2,
}  # fmt: skip


class Known:
    """Two credentials."""

    def cookie(self) -> tuple[str, str]:
        return "cas", "c"

    async def bearer(self) -> str:
        return "b"

    def taken(self, secret: str) -> None:
        assert secret == "b"

    def refused(self, secret: str, error: AnalyticsError) -> AnalyticsError:
        assert secret == "b"
        return error


async def everything(report: Answer) -> int:
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
        case "bomb":
            await exchange.answer(BOMB, extra="Content-Encoding: gzip\r\n")
        case status:
            await exchange.answer(b"", status)


@pytest.mark.parametrize("asked", CALLS)
@pytest.mark.long
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


# What an answer without a status of trouble comes to: the outcome, the code, whether to call again, words of both.
BODIES: dict[str, tuple[Outcome, Code, bool, str, str]] = {
    "reset": ("silent", "upstream_unavailable", True, "without an answer", "Try again later"),
    "silence": ("late", "upstream_timeout", True, "did not answer in 0.02 seconds", "Try again later"),
    "cut": ("broken", "upstream_incomplete", True, "ended before", "Nothing was kept"),
    "bomb": ("too_large", "upstream_too_large", False, "over 200 times", "support"),
}


@pytest.mark.parametrize("trouble", BODIES)
async def test_an_answer_that_fails_says_how_and_what_to_do(make_settings: Make, trouble: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await troubled(exchange, trouble)

    outcome, *said = BODIES[trouble]
    async with scripted_upstream(answer) as fake:
        patience = 0.02 if trouble == "silence" else 5
        for asked in CALLS:
            error = await failure(make_settings(fake.url, retry_base_delay=0, read_timeout=patience), asked, outcome)
            assert [error.code, error.retryable] == said[:2]
            assert str(said[2]) in error.message
            assert str(said[3]) in error.next_step


@pytest.mark.parametrize("asked", CALLS)
@pytest.mark.long
async def test_each_status_means_what_the_table_says(make_settings: Make, asked: Call) -> None:
    status = 0

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"", f"{status} Said")

    of_tokens = asked in ("list", "create", "revoke")
    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, retry_base_delay=0)
        for statuses, outcome, trouble, of_report, of_token in MEANT:
            for status in statuses:
                sent = len(fake.exchanges)
                error = await failure(settings, asked, outcome)
                code = of_token if of_tokens else of_report
                assert (error.code, error.retryable) == (code, code in AGAIN), status
                assert NEXT[code][of_tokens] in error.next_step, status
                assert len(fake.exchanges) - sent == TABLE[trouble][CALLS.index(asked)], status
                if status not in (401, 403, 405, 410, 429) and (status != 404 or not of_tokens):
                    assert f"status {status}" in error.message


@pytest.mark.parametrize("asked", CALLS)
async def test_a_redirect_to_a_login_asks_for_the_credential_and_shows_nothing_of_where_it_leads(
    make_settings: Make, asked: Call
) -> None:
    logins = [
        "/login", "/login?return=%2Fcanary", "https://sso.canary.example/Sign-In/", "//canary.example/users/sign_in",
        "/oauth2/authorize?state=canary", "login.html", "/.auth/login/aad",
    ]  # fmt: skip
    others = ["", "/", "/canary?to=/login", "/blogging-in", "/authors/canary", "https://[canary/login", "/loginess"]
    code = {True: "auth_rejected", False: "upstream_redirect"}
    of_tokens = asked in ("list", "create", "revoke")
    location = ""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"", "302 Found", extra=f"Location: {location}\r\n")

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        for location in (*logins, *others):
            error = await failure(settings, asked, "redirect")
            assert error.code == ("session_expired" if of_tokens else code[location in logins]), location
            assert "canary" not in error.text
            if of_tokens:
                assert "SRC_ANALYTICS_CAS_COOKIE" in error.next_step
                assert "/access-tokens" in error.next_step
        assert len(fake.exchanges) == len(logins) + len(others)


async def failure(settings: Settings, asked: Call, outcome: Outcome) -> AnalyticsError:
    """The error of a call that must fail, with this outcome where the call tells it."""
    with pytest.raises((Failed, AnalyticsError)) as caught:
        await ask(settings, asked)
    if isinstance(caught.value, AnalyticsError):
        return caught.value
    assert isinstance(caught.value, Failed)
    assert caught.value.outcome == outcome
    assert str(caught.value) == caught.value.error.text
    return caught.value.error


@pytest.mark.parametrize("asked", CALLS)
@pytest.mark.long
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
        error = await failure(make_settings(url, retry_base_delay=0), asked, "unsent")
        tasks.cancel_scope.cancel()
    assert connections == UNSENT[CALLS.index(asked)]
    assert (error.code, error.retryable) == ("upstream_unavailable", True)
    assert "cannot be reached" in error.message
    assert "HTTPS_PROXY" in error.next_step


@pytest.mark.parametrize("asked", CALLS)
async def test_a_certificate_that_nobody_vouches_for_is_looked_at_once(
    make_settings: Make, tmp_path: Path, asked: Call
) -> None:
    connections = 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))

    async def greet(stream: anyio.abc.SocketStream) -> None:
        nonlocal connections
        connections += 1
        with suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
            await anyio.streams.tls.TLSStream.wrap(stream, server_side=True, ssl_context=context)
        await stream.aclose()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, greet)
        url = f"https://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        error = await failure(make_settings(url, retry_base_delay=0), asked, "certificate")
        tasks.cancel_scope.cancel()
    assert "certificate of 127.0.0.1" in error.message
    assert (error.code, error.retryable, connections) == ("upstream_unavailable", False, 1)
    assert "SSL_CERT_FILE" in error.next_step


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


@pytest.mark.parametrize(
    ("status", "asks", "waits"),
    [("429 Too Many Requests", "60", [60, 60]), ("429 Too Many Requests", "61", []),
     ("408 Request Timeout", "1", [1, 1]), ("425 Too Early", " 0 ", [0, 0]),
     ("500 Internal Server Error", "7", [7]), ("503 Busy", "08", [8, 8, 8]),
     ("503 Busy", "60", [60, 60]), ("503 Busy", "40", [40, 40, 40]), ("503 Busy", "41", [41, 41]),
     ("429 Too Many Requests", "Wed, 21 Oct 2015 07:28:00 -0000", [0, 0])],
)  # fmt: skip
async def test_a_wait_that_upstream_asks_for_is_kept_to(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch, status: str, asks: str, waits: list[float]
) -> None:
    waited: list[float] = []

    async def busy(exchange: Exchange) -> None:
        await exchange.answer(b"", status, extra=f"Retry-After: {asks}\r\n")

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    async with scripted_upstream(busy) as fake:
        monkeypatch.setattr(anyio, "sleep", wait)
        with pytest.raises(AnalyticsError) as caught:
            await ask(make_settings(fake.url), "report")
    assert waited == waits
    if status.startswith("429"):
        again = float(asks) if asks.isdigit() else 0
        assert (caught.value.retry_after_seconds, caught.value.retryable) == (again, True)
        assert (f"Wait {asks} seconds" if again else "a few minutes") in caught.value.next_step


async def test_a_wait_that_is_longer_than_somebody_waits_is_handed_back(make_settings: Make) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.answer(b"", "429 Too Many Requests", extra="Retry-After: 59\r\n")

    async with scripted_upstream(busy) as fake:
        with anyio.fail_after(20):
            error = await failure(make_settings(fake.url), "list", "asked_to_wait")
    assert (error.code, error.retry_after_seconds, len(fake.exchanges)) == ("rate_limited", 59, 1)


@pytest.mark.parametrize(
    ("status", "code"),
    [("429 Slow", "rate_limited"), *((f"{n} Busy", "upstream_unavailable") for n in (408, 425, 500, 503, 599))],
)
@pytest.mark.parametrize(("asks", "told"), [("3600", 3600), ("9" * 12, 86_400)])
async def test_a_wait_that_is_not_waited_for_is_told(
    make_settings: Make, status: str, code: Code, asks: str, told: int
) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.answer(b"", status, extra=f"Retry-After: {asks}\r\n")

    async with scripted_upstream(busy) as fake, connected(make_settings(fake.url)) as client:
        for tool in ("list_tokens", "get_credits", "export_csv"):
            error = await refused(client, tool)
            assert (error["code"], error["retryable"], error["retry_after_seconds"]) == (code, True, told)
            assert error["next_step"] == f"Wait {told} seconds, then call again."
    assert len(fake.exchanges) == 3


SHORT = tuple(asked for asked in CALLS if asked != "report")


@pytest.mark.parametrize("asked", SHORT)
async def test_silence_is_borne_for_half_a_minute_where_somebody_waits(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch, asked: Call
) -> None:
    assert sending._FIRST_BYTE == 30
    monkeypatch.setattr(sending, "_FIRST_BYTE", 0.1)

    async def say_nothing(exchange: Exchange) -> None:
        await exchange.stream.receive()

    async with scripted_upstream(say_nothing) as fake:
        with anyio.fail_after(20):
            error = await failure(make_settings(fake.url, read_timeout=120), asked, "late")
    assert (error.code, error.retryable) == ("upstream_timeout", True)
    assert "did not answer in 0.1 seconds" in error.message


async def test_a_report_may_take_longer_to_begin_than_anything_else(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_FIRST_BYTE", 0.1)
    asked_for, over, rows = anyio.Event(), anyio.Event(), b"Instance user ID,Searches\n1,2\n"

    async def take_long(exchange: Exchange) -> None:
        if "reports" not in exchange.target:
            await exchange.stream.receive()
        asked_for.set()
        await over.wait()
        await exchange.answer(rows)

    async with scripted_upstream(take_long) as fake, anyio.create_task_group() as tasks:
        settings = make_settings(fake.url)

        async def get_report() -> None:
            assert await ask(settings, "report") == len(rows)

        tasks.start_soon(get_report)
        await asked_for.wait()
        await failure(settings, "list", "late")  # by then the report has waited for as long
        over.set()
    assert ["reports" in exchange.target for exchange in fake.exchanges] == [True, False]


@pytest.mark.long
@pytest.mark.parametrize("asked", SHORT)
async def test_an_answer_that_goes_on_for_ever_is_not_waited_for(make_settings: Make, asked: Call) -> None:
    async def go_on(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await exchange.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await anyio.sleep(0.05)

    async with scripted_upstream(go_on) as fake:
        with anyio.fail_after(20):
            error = await failure(make_settings(fake.url, connect_timeout=0.25, read_timeout=0.5), asked, "late")
    assert "not done after 1 seconds" in error.message
    assert len(fake.exchanges) == 1


@pytest.mark.parametrize("asks", ["9" * 400, "²", "-1", "", "soon", "Wed, 99 Oct 2015 07:28:00 GMT"])
async def test_a_wait_that_makes_no_sense_is_none(make_settings: Make, asks: str) -> None:
    async def busy(exchange: Exchange) -> None:
        head = f"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nRetry-After: {asks}\r\n\r\n"
        await exchange.send(head.encode("latin-1"))

    async with scripted_upstream(busy) as fake:
        error = await failure(make_settings(fake.url, retry_base_delay=0), "read", "asked_to_wait")
    assert (error.retry_after_seconds, len(fake.exchanges)) == (None, 3)


def test_waits_are_chosen_between_nothing_and_twice_as_much_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for choose, waits in ((min, [0] * 6), (max, [0.5, 1, 2, 16, 20, 20])):
        monkeypatch.setattr(random, "uniform", choose)
        assert [backoff(0.5, sent) for sent in (1, 2, 3, 6, 7, 30)] == waits


def test_a_retry_counts_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    clock.now = 100.0
    monkeypatch.setattr(policy, "time", clock)
    for spent, free in (([40.0] * 10, 0), ([39.9] * 10, 10), ([39.9] + [40.0] * 9, 1), ([39.9] * 4 + [100.0] * 6, 4)):
        budget = RetryBudget(deque(spent))
        assert [budget.take() for _ in range(11)] == [True] * free + [False] * (11 - free)


def test_waits_grow_to_a_limit_and_are_never_twice_the_same() -> None:
    waits = [[backoff(0.5, sent) for _ in range(50)] for sent in (1, 3, 30)]
    for some, most in zip(waits, (0.5, 2, 20), strict=True):
        assert len(set(some)) == 50
        assert most / 2 < max(some) <= most


async def test_a_body_that_inflates_beyond_reason_is_refused_long_before_the_limit(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(BOMB, extra="Content-Encoding: gzip\r\n")

    async with scripted_upstream(answer) as fake:
        with pytest.raises(AnalyticsError, match="upstream_too_large"):
            await ask(make_settings(fake.url), "report")
    assert len(fake.exchanges) == 1


def packed(size: int, wire: int = 0) -> bytes:
    """So many equal bytes as gzip; with `wire`, so long a name among them that this is what is sent."""

    def with_name(length: int) -> bytes:
        made = io.BytesIO()
        with gzip.GzipFile("n" * length, "wb", fileobj=made, mtime=0) as file:
            file.write(b"1" * size)
        return made.getvalue()

    return with_name(wire - len(with_name(1)) + 1 if wire else 1)


@pytest.mark.parametrize(
    ("sent", "limit", "says"),
    [
        (packed(10 << 20), 1 << 30, None),
        (packed((10 << 20) + 1), 1 << 30, "grows over 200 times"),
        (packed(11_000_000, 55_000), 1 << 30, None),
        (packed(11_000_000, 54_999), 1 << 30, "grows over 200 times"),
        (packed(3_000_000), 3_000_000, None),
        (packed(3_000_000), 2_999_999, "larger than 2,999,999 bytes"),
        (packed(50) + packed(50), 100, None),
        (packed(50) + packed(50), 99, "larger than 99 bytes"),
    ],
    ids=[
        "10 MiB",
        "a byte more",
        "200 times",
        "more",
        "the limit",
        "a byte over it",
        "two members",
        "over it together",
    ],
)
async def test_a_report_may_inflate_up_to_its_limit_and_beyond_10_mb_200_times(
    make_settings: Make, sent: bytes, limit: int, says: str | None
) -> None:
    received = bytearray()
    sizes: list[int] = []

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(sent, extra="Content-Encoding: gzip\r\n")

    async def receive(report: Answer) -> None:
        async for piece in report.body:
            received.extend(piece)
            sizes.append(len(piece))

    async with scripted_upstream(answer) as fake:
        http = Http(make_settings(fake.url))
        asked = Analytics(http, Known()).report(ReportRequest(instance_url="a.example"), limit, receive)
        if says is None:
            await asked
            assert received == gzip.decompress(sent)
        else:
            with pytest.raises(AnalyticsError, match=rf"upstream_too_large.*{says}"):
                await asked
        await http.aclose()
    assert max(sizes, default=0) == (50 if len(sent) < 200 else 1 << 20)  # never more at once


async def test_credits_that_are_too_large_lead_to_fewer_days(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b'"%s"' % (b"1" * (10 << 20)))

    async with scripted_upstream(answer) as fake:
        error = await failure(make_settings(fake.url), "read", "too_large")
    assert (error.code, error.next_step) == ("upstream_too_large", "Ask for fewer days.")


@pytest.mark.parametrize("size", [100, 99, 101])
async def test_a_plain_report_may_be_as_large_as_its_limit(make_settings: Make, size: int) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"1" * size)

    async with scripted_upstream(answer) as fake:
        http = Http(make_settings(fake.url))
        asked = Analytics(http, Known()).report(ReportRequest(instance_url="a.example"), 100, everything)
        if size <= 100:
            assert await asked == size
        else:
            with pytest.raises(AnalyticsError, match="upstream_too_large"):
                await asked
        await http.aclose()


@pytest.mark.parametrize(
    ("sent", "outcome", "code"),
    [
        (b"", "empty", "upstream_not_csv"),
        (zlib.compress(b"Instance user ID\n1\n"), "broken", "upstream_incomplete"),
        (packed(9) + packed(9)[:-1], "broken", "upstream_incomplete"),
    ],
    ids=["nothing", "another wrapper", "a second member that is cut"],
)
async def test_what_is_no_whole_gzip_is_no_report(
    make_settings: Make, sent: bytes, outcome: Outcome, code: Code
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(sent, extra="Content-Encoding: gzip\r\n")

    async with scripted_upstream(answer) as fake:
        error = await failure(make_settings(fake.url, retry_base_delay=0), "report", outcome)
    assert error.code == code


async def test_a_report_may_repeat_what_came_long_before(make_settings: Make) -> None:
    far = random.Random(1).randbytes(30_000).replace(b"<", b"x")

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(gzip.compress(b"1" + far + far), extra="Content-Encoding: gzip\r\n")

    async with scripted_upstream(answer) as fake:
        assert await ask(make_settings(fake.url), "report") == 60_001


class Clock:
    """A clock that somebody else turns."""

    now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("each_second", "window", "taken"),
    [
        ([1024] * 7, 2.5, True), ([1024, 1024, 1023], 2.5, False), ([1024] * 5 + [1023], 2.5, False),
        ([1, 1, 1], 3, True), ([1, 1, 1, 5000], 3, True), ([1, 1, 1, 1], 3, False), ([1024] * 3 + [1] * 2, 2.5, True),
        ([9000] * 3 + [1] * 3, 2.5, False),
    ],
)  # fmt: skip
async def test_a_drip_is_a_kibibyte_a_second_over_a_window(
    monkeypatch: pytest.MonkeyPatch, each_second: list[int], window: float, taken: bool
) -> None:
    clock = Clock()
    monkeypatch.setattr(body, "time", clock)

    async def raw() -> AsyncIterator[bytes]:
        for size in each_second:
            clock.now += 1
            yield b"x" * size

    async def passed() -> list[int]:
        return [len(data) async for data in body.steady(raw(), window)]

    if taken:
        assert await passed() == each_second
    else:
        with pytest.raises(Failed, match=r"upstream_timeout.*too slowly") as caught:
            await passed()
        assert caught.value.outcome == "late"


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


async def test_what_comes_behind_an_answer_answers_nothing(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n"
        end = b"\r\n0\r\n\r\n"
        await exchange.send(head + b"%d" % exchange.number + end + head + b"9" + end)
        await exchange.stream.receive()  # another request, or the end

    async with scripted_upstream(answer) as fake:
        http = Http(make_settings(fake.url))
        analytics = Analytics(http, Known())
        answers = [await analytics.credits("a.example", None, None) for _ in range(3)]
        await http.aclose()
    assert answers == [1, 2, 3]


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
        error = await failure(make_settings(fake.url), asked, "misread")
    assert (error.code, error.retryable, len(fake.exchanges)) == (code, False, 1)
    assert ("create_token" if code == "auth_rejected" else "SRC_ANALYTICS_CAS_COOKIE") in error.next_step
    assert "web page" in error.message


@pytest.mark.parametrize("asked", CALLS)
async def test_markup_that_is_no_web_page_asks_for_no_other_credential(make_settings: Make, asked: Call) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"<?xml version='1.0'?><Error>no</Error>", content_type="text/xml")

    async with scripted_upstream(answer) as fake:
        error = await failure(make_settings(fake.url), asked, "misread")
    assert (error.code, error.retryable, len(fake.exchanges)) == ("upstream_not_csv", False, 1)
    assert "markup" in error.message
    assert "Try again later" in error.next_step


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
