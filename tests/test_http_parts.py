"""What serving over HTTP is made of, each part alone: connections, the guard, who calls, and their parts."""

import base64
import errno
import gc
import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import h11
import httpx2
import jwt
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from mcp import Client, MCPError
from mcp.server.auth.provider import AccessToken

from sourcegraph_analytics_mcp.cli.http import connections, identity, refusals
from sourcegraph_analytics_mcp.cli.http import sessions as cli_sessions
from sourcegraph_analytics_mcp.cli.http.guard import Guard
from sourcegraph_analytics_mcp.cli.http.identity import IssuedTokens, LocalCredential, NotAccepted
from sourcegraph_analytics_mcp.cli.http.serving import application
from sourcegraph_analytics_mcp.cli.main import run
from sourcegraph_analytics_mcp.demo.upstream import DEMO_INSTANCE
from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.exports.store import Store
from sourcegraph_analytics_mcp.files import private_home
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface import callers
from sourcegraph_analytics_mcp.surface import notices as surface_notices
from sourcegraph_analytics_mcp.surface.app import sweep_callers
from sourcegraph_analytics_mcp.surface.callers import Callers
from sourcegraph_analytics_mcp.surface.notices import EXPORTS_URI, Notices
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from support.client import call, calling, connected, read, refused
from support.upstreams import Served

pytestmark = pytest.mark.anyio
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = {"public_url": "https://mcp.example/mcp", "oauth_issuer": "https://issuer.example"}


# Connections


@contextmanager
def listening(monkeypatch: pytest.MonkeyPatch, app: Any, lifespan: Any = "off", **limits: Any) -> Iterator[int]:
    """Serve an application with our connections; the port."""
    for name, value in limits.items():
        monkeypatch.setattr(connections, name, value)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=connections.Connection, log_level="error", lifespan=lifespan))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


async def large(scope: Any, receive: Any, send: Any) -> None:
    """Answers with 40 MB in pieces, once the request is whole."""
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for left in reversed(range(40)):
        await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": left > 0})


async def small(scope: Any, receive: Any, send: Any) -> None:
    """Answers once the request is whole."""
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


HEAD = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"


@pytest.mark.parametrize("sent", ["", "POST / HT", HEAD, f"GET / HTTP/1.1\r\nHost: a\r\n\r\n{HEAD}"])
def test_whoever_sends_too_slowly_is_cut_off(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    within = {h11.IDLE: 0.1, h11.SEND_BODY: 0.1}
    with (
        listening(monkeypatch, small, _WITHIN=within) as port,
        socket.create_connection(("127.0.0.1", port), 3) as slow,
    ):
        slow.sendall(sent.encode())
        with suppress(ConnectionResetError):
            while slow.recv(100):
                pass


def test_whoever_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        listening(monkeypatch, large, _READ_WITHIN=0.1) as port,
        socket.create_connection(("127.0.0.1", port), 5) as deaf,
        socket.create_connection(("127.0.0.1", port), 5) as reader,
    ):
        for connection in (deaf, reader):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = 0
        while piece := reader.recv(1 << 20):
            received += len(piece)
        assert received > 40_000_000
        ended = select.poll()
        ended.register(deaf, select.POLLHUP | select.POLLERR)
        assert ended.poll(5000)


@pytest.mark.long
def test_whoever_reads_slowly_gets_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one_piece(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 30_000_000})

    with (
        listening(monkeypatch, one_piece, _READ_WITHIN=0.3) as port,
        socket.create_connection(("127.0.0.1", port), 5) as slow,
    ):
        slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received, pause = 0, threading.Event()
        while piece := slow.recv(1_000_000):
            received += len(piece)
            pause.wait(0.02)
        assert received > 30_000_000


def test_an_occupied_port_ends_the_start_and_the_collector_runs_while_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SRC_ANALYTICS_DATA_DIR", str(tmp_path))
    gc.disable()  # as the command does while it loads
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            assert run(["--demo", "serve", "--http", address]) == 2
        assert capfd.readouterr().err == f"--http {address} cannot be served: Address already in use.\n"
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_a_host_that_no_name_can_have_ends_the_start(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "DATA_DIR": str(tmp_path),
        "PUBLIC_URL": "https://here.example/mcp",
        "OAUTH_ISSUER": "https://issuer.example",
        "OAUTH_KEYS_URL": "https://issuer.example/keys",
    }.items():
        monkeypatch.setenv(f"SRC_ANALYTICS_{name}", value)
    try:
        assert run(["--demo", "serve", "--http", f"{host}:8080"]) == 2
        assert capfd.readouterr().err == f"--http {host}:8080 cannot be served: nobody knows that host.\n"
    finally:
        gc.unfreeze()


# Who calls


class Issuer:
    """Publishes keys; counts who reads them, and answers what it is told to."""

    def __init__(self) -> None:
        self.reads = 0
        self.status = 200
        self.kid = "k1"
        self.may_answer = threading.Event()
        self.may_answer.set()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.reads += 1
        self.may_answer.wait(5)
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key())) | {"kid": self.kid, "use": "sig"}
        body = json.dumps({"keys": [key]}).encode()
        handler.send_response(self.status)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def issuer() -> Iterator[tuple[Issuer, IssuedTokens]]:
    """An issuer, and who accepts its tokens."""
    keys = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    given = PUBLIC | {"oauth_keys_url": f"http://127.0.0.1:{server.server_port}/keys"}
    try:
        yield keys, IssuedTokens(Settings.from_env({f"SRC_ANALYTICS_{k.upper()}": v for k, v in given.items()}))
    finally:
        keys.may_answer.set()
        server.shutdown()
        thread.join()
        server.server_close()


def token(kid: str = "k1", **claims: Any) -> str:
    exp = int(time.time()) + 600
    body = {"iss": PUBLIC["oauth_issuer"], "aud": PUBLIC["public_url"], "sub": "alice", "exp": exp} | claims
    return jwt.encode(body, KEY, algorithm="RS256", headers={"kid": kid})


async def holder(accepted: IssuedTokens, token: str) -> AccessToken | None:
    try:
        return await accepted.of(token)
    except NotAccepted:
        return None


async def test_first_callers_wait_for_the_keys_that_one_of_them_fetches(issuer: tuple[Issuer, IssuedTokens]) -> None:
    keys, accepted = issuer
    keys.may_answer.clear()
    found: list[AccessToken | None] = []

    async def ask() -> None:
        found.append(await accepted.of(token()))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
        with anyio.fail_after(30):
            while not keys.reads:
                await anyio.lowlevel.checkpoint()
        keys.may_answer.set()
    assert [one.subject for one in found if one] == ["alice"] * 5
    assert keys.reads == 1


async def test_when_an_issued_token_ends_is_known(issuer: tuple[Issuer, IssuedTokens]) -> None:
    _, accepted = issuer
    ends = int(time.time()) + 7
    assert (await accepted.of(token(exp=ends))).expires_at == ends


async def test_an_issued_token_that_never_ends_has_an_end_to_count_to(issuer: tuple[Issuer, IssuedTokens]) -> None:
    """As a stream does until its caller's token ends."""
    _, accepted = issuer
    found = await accepted.of(token(exp=1 << 1024))
    assert found.expires_at is not None
    assert found.expires_at - time.time() > 1e9


async def test_an_unknown_key_is_looked_for_once_a_minute(issuer: tuple[Issuer, IssuedTokens]) -> None:
    keys, accepted = issuer
    for kid in ("k1", "other", "../k1", "another"):
        assert (await holder(accepted, token(kid)) is not None) == (kid == "k1")
    assert keys.reads == 1


async def test_keys_stay_in_use_while_the_issuer_fails(
    issuer: tuple[Issuer, IssuedTokens], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys, accepted = issuer
    monkeypatch.setattr(identity, "_KEYS_APART", -1.0)
    monkeypatch.setattr(identity, "_PATIENCE", 30)
    keys.status = 500
    assert await holder(accepted, token()) is None
    keys.status = 200
    assert await accepted.of(token()) is not None
    monkeypatch.setattr(identity, "_KEYS_FRESH", -1.0)
    keys.status = 500
    assert await accepted.of(token()) is not None
    assert keys.reads == 3
    assert caplog.text.count("keys cannot be read") == 2


async def test_a_known_key_is_used_while_the_issuer_hangs(
    issuer: tuple[Issuer, IssuedTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, accepted = issuer
    await accepted.of(token())
    monkeypatch.setattr(identity, "_KEYS_APART", -1.0)
    monkeypatch.setattr(identity, "_KEYS_FRESH", -1.0)
    monkeypatch.setattr(identity, "_PATIENCE", 0.05)
    keys.may_answer.clear()
    for _ in range(3):
        assert (await accepted.of(token())).subject == "alice"
    assert not accepted._beside.done()  # type: ignore[union-attr]  # the answer comes after five seconds
    keys.may_answer.set()


async def test_a_key_that_was_withdrawn_is_refused_at_the_first_use(
    issuer: tuple[Issuer, IssuedTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, accepted = issuer
    await accepted.of(token())
    monkeypatch.setattr(identity, "_KEYS_APART", -1.0)
    monkeypatch.setattr(identity, "_KEYS_FRESH", -1.0)
    monkeypatch.setattr(identity, "_PATIENCE", 30)
    keys.kid = "k2"
    assert await holder(accepted, token()) is None
    assert await holder(accepted, token("k2")) is not None


async def test_why_requests_are_refused_is_in_the_log_and_fills_no_disk(
    issuer: tuple[Issuer, IssuedTokens], caplog: pytest.LogCaptureFixture
) -> None:
    """Each reason once, and what else there was of it at the end."""
    caplog.set_level("INFO", logger="sourcegraph_analytics_mcp")
    guard = Guard(only_living, never, issuer[1], ["a"], [], None, "", [])
    wrong, other = token(aud="https://other.example/mcp"), {"host": "other.example"}
    sent: list[dict[str, str]] = [{}, other, *[{"authorization": f"Bearer {wrong}"}] * 4]
    sent += [{"authorization": f"Bearer {given}"} for given in (token(exp=1), token("k9"), token(sub=None), token())]
    async with started(guard) as client:
        answers = [await client.post("http://a/mcp", headers=headers) for headers in sent]
    assert [answer.status_code for answer in answers] == [401, 421, *[401] * 7, 403]
    assert said_of_refusals(caplog) == [
        "refused status=401 reason=NoBearerToken count=1",
        "refused status=421 reason=OtherHost count=1",
        "refused status=401 reason=InvalidAudienceError count=1",
        "refused status=401 reason=ExpiredSignatureError count=1",
        "refused status=401 reason=UnknownKey count=1",
        "refused status=401 reason=MissingRequiredClaimError count=1",
        "refused status=403 reason=InsufficientScope count=1",
        "refused status=401 reason=InvalidAudienceError count=3",
    ]


async def test_of_a_burst_the_log_says_the_rest_once_its_minute_is_over(
    issuer: tuple[Issuer, IssuedTokens], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(refusals, "_APART", 0.5)
    caplog.set_level("INFO", logger="sourcegraph_analytics_mcp")
    counts = Counts(6)
    monkeypatch.setattr(logging.getLogger(refusals.__name__), "handlers", [counts])
    guard = Guard(only_living, never, issuer[1], ["a"], [], None, "", [])
    async with started(guard) as client:
        for _ in range(6):
            await client.post("http://other.example/mcp")
        with anyio.fail_after(5):
            await counts.whole.wait()
    assert counts.seen[0] == 1
    assert len(counts.seen) < 6


class Counts(logging.Handler):
    """What the log's lines have counted.

    Args:
        total: what it is whole with.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        self._total = total
        self.seen: list[int] = []
        self.whole = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(int(record.getMessage().rpartition("=")[2]))
        if sum(self.seen) == self._total:
            self.whole.set()


async def never(*_: Any) -> None:
    raise AssertionError("it was let through")


async def only_living(scope: Any, receive: Any, send: Any) -> None:
    """An application that is started and ended, and asked for nothing."""
    for step in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{step}"
        await send({"type": f"lifespan.{step}.complete"})


def said_of_refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("refused ")]


def odd() -> Iterator[str]:
    """Tokens that are signed as they must be and odd all the same, and one that only nests."""
    yield from (token(exp=float("inf")), token(exp="soon"), token(scope=5), token(scp=[["a"]], scope=None))
    deep = b'{"alg":"RS256","kid":' + b"[" * 9000
    yield f"{base64.urlsafe_b64encode(deep).decode()}.e30.x"


@pytest.mark.parametrize("given", list(odd()))
async def test_odd_tokens_are_refused_or_have_no_scope(given: str, issuer: tuple[Issuer, IssuedTokens]) -> None:
    found = await holder(issuer[1], given)
    assert found is None or identity.READ not in found.scopes


@pytest.mark.parametrize("content", [b"short", b"\xff" * 43])
def test_a_damaged_credential_stops_the_start(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "http-credential").write_bytes(content)
    with pytest.raises(AnalyticsError, match=r"http-credential is damaged\. Delete it and start again\."):
        LocalCredential(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(AnalyticsError):
        LocalCredential(blocked)


def test_a_credential_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "http-credential").write_text("c" * 43)
    (tmp_path / "http-credential").chmod(0o644)
    assert LocalCredential(tmp_path).path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("refusal", [None, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS])
@pytest.mark.long
def test_the_first_starts_at_once_have_one_credential(
    refusal: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on exFAT and network mounts without hard links and modes.

    Each reads what it takes for its own; the last to be renamed into place would be nobody's but its own.
    """

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(refusal, "this file system has none")

    if refusal is not None:
        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr(os, "chmod", refuse)
    for number in range(30):
        home, together = tmp_path / str(number), threading.Barrier(6)
        private_home(home)

        def start(home: Path = home, together: threading.Barrier = together) -> str:
            together.wait(5)
            return LocalCredential(home)._secret

        with ThreadPoolExecutor(6) as threads:
            started = [threads.submit(start) for _ in range(6)]
        assert {one.result() for one in started} == {(home / "http-credential").read_text()}
        lock = [] if refusal is None else [".http-credential.lock"]
        assert sorted(path.name for path in home.iterdir()) == [".gitignore", *lock, "http-credential"]


# The guard


async def test_a_bug_shows_nothing_but_a_reference(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("inside")

    local = LocalCredential(tmp_path)
    guard = Guard(broken, broken, local, ["a"], [], None, "", [])
    headers = {"authorization": f"Bearer {local.path.read_text()}", "host": "a"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(guard)) as client:
        answer = await client.post("http://a/mcp", headers=headers, content=b"{}")
    assert answer.status_code == 500
    assert "inside" not in answer.text
    assert answer.text.split()[-1].rstrip(".") in caplog.text


@pytest.mark.parametrize(
    ("public", "port", "spelled"),
    [
        ("https://MCP.example:443/mcp", 8080, ["mcp.example", "mcp.example:443", "Mcp.Example:443"]),
        ("https://mcp.example/mcp", 8080, ["mcp.example", "mcp.example:443", "MCP.EXAMPLE", "127.0.0.1:8080"]),
        ("https://mcp.example:8443/mcp", 80, ["MCP.example:8443", "127.0.0.1", "127.0.0.1:80", "LocalHost"]),
    ],
)
async def test_a_host_is_served_however_it_is_spelled(
    public: str, port: int, spelled: list[str], make_settings: Callable[..., Settings], upstream: Served
) -> None:
    settings = make_settings(upstream.url, **PUBLIC | {"public_url": public}, oauth_keys_url="http://127.0.0.1:9/keys")
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}
    headers = {"authorization": "Bearer alice", "accept": "application/json, text/event-stream"}
    answers = {}
    async with started(application(settings, None, Named(), "127.0.0.1", port)) as client:
        for host in [*spelled, "mcp.example:80", "mcp.example:9", "other.example"]:
            named = headers | {"host": host, "origin": f"{'http' if '127' in host else 'https'}://{host.lower()}"}
            if "ocal" in host:
                del named["origin"]
            answers[host] = (await client.post("http://127.0.0.1/mcp", json=asked, headers=named)).status_code
    assert {host for host, status in answers.items() if status == 200} == set(spelled)
    assert {status for host, status in answers.items() if host not in spelled} == {421}


async def test_a_body_without_an_end_is_refused_once_it_is_too_large(tmp_path: Path) -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("it was let through")

    received, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += 1
        if received > 9:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"x" * 600_000, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    local = LocalCredential(tmp_path)
    headers = [(b"authorization", b"Bearer " + local.path.read_bytes()), (b"host", b"a")]
    guard = Guard(never, never, local, ["a"], [], None, "", [])
    await guard({"type": "http", "path": "/mcp", "headers": headers}, receive, send)
    assert (received, sent[0]["status"]) == (2, 413)


async def test_a_body_that_its_sender_leaves_begins_nothing(tmp_path: Path) -> None:
    """Though what has come of it could be taken for a request."""

    async def never(*_: Any) -> None:
        raise AssertionError("it was let through")

    came: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"{}", "more_body": True}, {"type": "http.disconnect"}]
    )
    sent = []

    async def receive() -> dict[str, Any]:
        return next(came)

    async def send(message: Any) -> None:
        sent.append(message)

    local = LocalCredential(tmp_path)
    headers = [(b"authorization", b"Bearer " + local.path.read_bytes()), (b"host", b"a")]
    guard = Guard(never, never, local, ["a"], [], None, "", [])
    await guard({"type": "http", "path": "/mcp", "headers": headers}, receive, send)
    assert sent == []


# Sessions


class Named:
    """Takes a token for the name of who holds it."""

    async def of(self, token: str) -> AccessToken:
        return AccessToken(token="t", client_id="c", scopes=["analytics:read"], subject=token)


@asynccontextmanager
async def started(app: Guard) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application between its start and its end."""
    tell, told = anyio.create_memory_object_stream[MutableMapping[str, Any]](1)
    say, said = anyio.create_memory_object_stream[MutableMapping[str, Any]](1)
    async with anyio.create_task_group() as tasks, tell, told, say, said:
        tasks.start_soon(lambda: app({"type": "lifespan"}, told.receive, say.send))
        for step in ("startup", "shutdown"):
            await tell.send({"type": f"lifespan.{step}"})
            assert await said.receive() == {"type": f"lifespan.{step}.complete"}
            if step == "startup":
                async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client:
                    yield client


class Sessions:
    """Sessions of several callers with one application."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def _send(self, who: str, method: str, session: str | None = None) -> httpx2.Response:
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {} if session else about}
        headers = {"authorization": f"Bearer {who}", "accept": "application/json, text/event-stream"}
        headers |= {"mcp-session-id": session} if session else {}
        return await self._client.post("http://127.0.0.1:9/mcp", json=message, headers=headers)

    async def open(self, who: str) -> tuple[str, str]:
        answer = await self._send(who, "initialize")
        assert answer.status_code == 200
        return who, answer.headers["mcp-session-id"]

    async def alive(self, who: str, session: str) -> bool:
        """Whether it is there; asking is using it."""
        answer = await self._send(who, "ping", session)
        assert answer.status_code in (200, 404)
        return answer.status_code == 200

    async def end(self, who: str, session: str) -> None:
        headers = {"authorization": f"Bearer {who}", "mcp-session-id": session}
        assert (await self._client.delete("http://127.0.0.1:9/mcp", headers=headers)).status_code == 200


@pytest.fixture
async def sessions(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sessions]:
    """With room for three."""
    monkeypatch.setattr(cli_sessions, "MOST_SESSIONS", 3)
    async with started(application(settings, None, Named(), "127.0.0.1", 9)) as client:
        yield Sessions(client)


async def test_when_sessions_are_too_many_the_caller_with_the_most_gives_way(sessions: Sessions) -> None:
    bobs = await sessions.open("bob")
    first, second = await sessions.open("alice"), await sessions.open("alice")
    assert await sessions.alive(*first)
    carols = await sessions.open("carol")
    assert [await sessions.alive(*one) for one in (bobs, first, second, carols)] == [True, True, False, True]


async def test_a_session_that_was_ended_takes_no_room(sessions: Sessions) -> None:
    first = await sessions.open("bob")
    await sessions.end(*await sessions.open("alice"))
    others = [await sessions.open(who) for who in ("bob", "alice")]
    assert [await sessions.alive(*one) for one in (first, *others)] == [True] * 3


async def test_a_session_of_another_is_neither_used_nor_ended_by_asking(sessions: Sessions) -> None:
    opened = [await sessions.open("alice") for _ in range(3)]
    assert not await sessions.alive("bob", opened[0][1])
    await sessions.open("bob")
    assert [await sessions.alive(*one) for one in opened] == [False, True, True]


class Streams:
    """Connections to one server on which an answer has begun."""

    def __init__(self, port: int, opened: ExitStack) -> None:
        self._port = port
        self._opened = opened

    def open(self, who: str, method: str, **params: Any) -> socket.socket:
        about = {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                 "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"},
                 "io.modelcontextprotocol/clientCapabilities": {}}  # fmt: skip
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": about}})
        opened = self._opened.enter_context(socket.create_connection(("127.0.0.1", self._port), 10))
        opened.sendall(
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:9\r\nAuthorization: Bearer {who}\r\n"
            "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
            f"MCP-Protocol-Version: 2026-07-28\r\nMCP-Method: {method}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        assert opened.recv(12) == b"HTTP/1.1 200"
        return opened

    def listen(self, who: str) -> socket.socket:
        return self.open(who, "subscriptions/listen", notifications={"resourcesListChanged": True})


def cut(stream: socket.socket, seconds: float = 0) -> bool:
    """Whether the server has ended it."""
    ended = select.poll()
    ended.register(stream, select.POLLHUP | select.POLLERR)
    return bool(ended.poll(seconds * 1000))


def test_when_streams_are_too_many_the_caller_with_the_most_gives_way(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application(settings, None, Named(), "127.0.0.1", 9)
    monkeypatch.setattr(connections.Connection, "most", connections.Most(3, 99, 3))
    with listening(monkeypatch, app, "on", _GRACE=0.3) as port, ExitStack() as opened:
        streams = Streams(port, opened)
        bobs = streams.listen("bob")
        alices = [streams.listen("alice") for _ in range(12)]
        for _ in range(3):
            streams.open("bob", "resources/list").close()
        for one in alices[:-4]:
            assert cut(one, 10)
        assert not cut(bobs)
        assert not cut(alices[-1])


class Brief(Named):
    """The same; what bob holds is accepted for two seconds, as the clocks may differ by."""

    async def of(self, token: str) -> AccessToken:
        expires = int(time.time()) - identity.SKEW + 2 if token == "bob" else None
        return (await super().of(token)).model_copy(update={"expires_at": expires})


@pytest.mark.long
def test_a_stream_ends_with_the_token_that_opened_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    app = application(settings, None, Brief(), "127.0.0.1", 9)
    with listening(monkeypatch, app, "on") as port, ExitStack() as opened:
        streams = Streams(port, opened)
        bobs, alices = streams.listen("bob"), streams.listen("alice")
        said = b""
        while not said.endswith(b"\r\n0\r\n\r\n"):  # in order
            said += (more := bobs.recv(1000))
            assert more
        alices.settimeout(0)
        with suppress(BlockingIOError):
            while heard := alices.recv(1000):
                assert not heard.endswith(b"\r\n0\r\n\r\n")
            raise AssertionError("her stream has ended, too")


# Callers


class Parts:
    """What a caller has open, as far as callers look at it."""

    def __init__(self) -> None:
        self.downloads = self.questions = self
        self.running: list[object] = []
        self.ended = False

    async def aclose(self) -> None:
        self.ended = True


class Opened:
    """Opens parts, and knows whose are open."""

    def __init__(self) -> None:
        self.open: dict[str, Any] = {}
        self.error: Exception | None = None

    @asynccontextmanager
    async def __call__(self, name: str) -> AsyncIterator[Any]:
        if self.error is not None:
            raise self.error
        self.open[name] = Parts()
        try:
            yield self.open[name]
        finally:
            del self.open[name]


@asynccontextmanager
async def some() -> AsyncIterator[tuple[Callers, Opened]]:
    opened = Opened()
    async with anyio.create_task_group() as tasks:
        yield Callers(opened, tasks), opened
        tasks.cancel_scope.cancel()


async def until(what: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not what():
            await anyio.lowlevel.checkpoint()


async def test_what_an_idle_caller_has_open_is_closed_but_not_under_a_call_or_a_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callers, "_IDLE", 0.02)
    async with some() as (known, opened):

        async def others_come_and_are_closed() -> None:
            for subject in ("bob", "carol"):  # one after the other, so that it is long since alice did anything
                with calling(subject):
                    (await known.enter())()
                await until(lambda: len(opened.open) <= 1)

        with calling("alice"):
            leave = await known.enter()
            parts = cast(Parts, known.app())
            await others_come_and_are_closed()
            assert list(opened.open.values()) == [parts]
            parts.running.append("a download")
            leave()
            await others_come_and_are_closed()
            assert list(opened.open.values()) == [parts]
            parts.running.clear()
            await until(lambda: not opened.open)
            with pytest.raises(RuntimeError):
                known.app()
            (await known.enter())()
            assert len(opened.open) == 1


async def test_engines_end_when_enough_others_have_called_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "_MOST_WARM", 1)
    monkeypatch.setattr(callers, "_LOOK_EVERY", 0.01)
    async with some() as (known, opened):
        for subject in ("alice", "bob", "carol"):
            with calling(subject):
                leave = await known.enter()
                if subject != "alice":  # who stays
                    leave()
        alice, bob, carol = opened.open.values()
        await until(lambda: bob.ended)
        assert not alice.ended
        assert not carol.ended


async def test_too_many_callers_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "_MOST_OPEN", 2)
    async with some() as (known, _):
        for subject in ("alice", "bob", "alice"):
            with calling(subject):
                await known.enter()
        with calling("carol"), pytest.raises(AnalyticsError, match="busy"):
            await known.enter()


async def test_among_too_many_callers_the_one_who_is_idle_for_the_longest_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callers, "_MOST_OPEN", 4)
    async with some() as (known, opened):
        for subject in ("alice", "bob", "carol", "dora"):
            with calling(subject):
                leave = await known.enter()
                if subject == "bob":
                    cast(Parts, known.app()).running.append("a download")
                if subject != "alice":  # who is still at work
                    leave()
        alice, bob, carol, dora = opened.open.values()
        with calling("erin"):
            (await known.enter())()
        await until(lambda: len(opened.open) == 4)
        assert list(opened.open.values())[:-1] == [alice, bob, dora]
        with calling("carol"):
            (await known.enter())()
            assert known.app() is not carol
        await until(lambda: len(opened.open) == 4)
        assert list(opened.open.values())[:2] == [alice, bob]


async def test_parts_that_fail_to_open_fail_that_call_and_are_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with some() as (known, opened):
        with calling("alice"):
            opened.error = AnalyticsError("store_full", "There is no room.")
            with pytest.raises(AnalyticsError, match="store_full"):
                await known.enter()
            opened.error = None
            (await known.enter())()
            assert len(opened.open) == 1
    assert "A caller's parts ended" in caplog.text


async def test_parts_that_fail_to_close_take_nothing_from_who_has_others_by_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(callers, "_IDLE", 0.02)
    closing, may_fail = anyio.Event(), anyio.Event()

    @asynccontextmanager
    async def opened(name: str) -> AsyncIterator[Any]:
        yield Parts()
        if not closing.is_set():
            closing.set()
            await may_fail.wait()
            raise OSError

    async with anyio.create_task_group() as tasks:
        known = Callers(opened, tasks)
        with calling("alice"), anyio.fail_after(30):
            (await known.enter())()
            await closing.wait()
            await known.enter()
            others = known.app()
            may_fail.set()
            await until(lambda: "A caller's parts ended" in caplog.text)
            assert known.app() is others
        tasks.cancel_scope.cancel()


async def test_who_is_one_too_many_is_told_whatever_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "_MOST_OPEN", 0)
    settings = Settings.from_env({"SRC_ANALYTICS_DATA_DIR": str(tmp_path)})
    async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
        with pytest.raises(MCPError, match=r"^\[busy\] Too many people"):
            await client.list_resources()
        answer = await client.call_tool("list_exports", {})
    assert answer.structured_content is not None
    assert answer.structured_content["error"]["code"] == "busy"


async def test_a_share_outlives_what_is_closed_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "_IDLE", 0.02)
    async with some() as (known, opened):
        with calling("alice"):
            leave = await known.enter()
            known.take("exports", 1, 3600)
            leave()
            await until(lambda: not opened.open)
            await known.enter()
            with pytest.raises(AnalyticsError, match="busy"):
                known.take("exports", 1, 3600)


async def test_one_caller_does_not_use_up_anothers_share() -> None:
    async with some() as (known, _):
        for subject in ("alice", "bob"):
            with calling(subject):
                known.take("calls", 1, 60)
                with pytest.raises(AnalyticsError, match="busy"):
                    known.take("calls", 1, 60)


@pytest.mark.long
async def test_calls_and_questions_have_a_share_each(make_settings: Callable[..., Settings], upstream: Served) -> None:
    settings = make_settings(upstream.url, calls_per_minute=4, queries_per_minute=1)
    async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
        await call(client, "query_usage", metrics=["searches"])
        question = await refused(client, "query_usage", metrics=["searches"])
        await call(client, "list_exports")
        await call(client, "list_exports")
        other = await refused(client, "list_exports")
    assert question["code"] == other["code"] == "busy"
    assert "more than 1 questions" in question["message"]
    assert "more than 4 calls" in other["message"]


@pytest.mark.long
async def test_whatever_downloads_has_a_share_and_reading_has_that_of_calls(
    make_settings: Callable[..., Settings], upstream: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="sourcegraph_analytics_mcp")
    settings = make_settings(upstream.url, calls_per_minute=6, exports_per_hour=2)
    async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
        asked = {"metrics": ["searches"], "period": "all_time"}
        await call(client, "query_usage", **asked)
        await call(client, "query_usage", **asked)  # from what is kept
        await call(client, "query_usage", **asked, refresh=True)
        question = await refused(client, "query_usage", **asked, refresh=True)
        await read(client, "analytics://metrics")
        await read(client, "analytics://metrics")
        with pytest.raises(MCPError, match=r"^\[busy\] That is more than 6 calls"):
            await read(client, "analytics://metrics")
    assert question["code"] == "busy"
    assert "more than 2 exports" in question["message"]
    assert "refused method=resources/read outcome=busy caller=operator" in caplog.text
    assert len(upstream.sent("GET")) == 2


class Heard:
    """An older session, as far as announcements look at it."""

    def __init__(self, name: str, heard: list[str]) -> None:
        self.client_params = self
        self._name, self._heard = name, heard

    async def send_resource_list_changed(self) -> None:
        self._heard.append(self._name)

    async def send_resource_updated(self, uri: str) -> None:
        self._heard.append(f"{self._name}: {uri}")


@pytest.mark.parametrize("first", [True, False], ids=["who subscribed first", "who subscribed last"])
async def test_among_too_many_older_sessions_the_caller_with_the_most_gives_way(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surface_notices, "MOST_SESSIONS", 4)
    heard: list[str] = []
    notices = Notices(callers.caller)
    with calling("alice"):
        notices.remember(Heard("alice", heard))
    with calling("bob"):
        if first:
            notices.subscribe(Heard("bob, who subscribed", heard), EXPORTS_URI)
        for number in range(70):
            notices.remember(Heard(f"bob {number}", heard))
        if not first:
            notices.subscribe(Heard("bob, who subscribed", heard), EXPORTS_URI)
        await notices.exports_changed()
        bobs, heard[:] = heard[:], []
    with calling("alice"):
        await notices.exports_changed()
    assert set(bobs) == {"bob 68", "bob 69", "bob, who subscribed", f"bob, who subscribed: {EXPORTS_URI}"}
    assert heard == ["alice"]


async def test_who_has_subscribed_stays_among_a_callers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface_notices, "MOST_SESSIONS", 2)
    heard: list[str] = []
    notices = Notices()
    for name in ("first", "second"):
        notices.subscribe(Heard(name, heard), EXPORTS_URI)
    notices.remember(Heard("third", heard))
    await notices.exports_changed()
    assert {name for name in heard if ":" not in name} == {"first", "second"}
    heard.clear()
    notices.subscribe(Heard("fourth", heard), EXPORTS_URI)
    await notices.exports_changed()
    assert {name for name in heard if ":" not in name} == {"second", "fourth"}


async def test_a_callers_exports_are_announced_to_nobody_else() -> None:
    heard: list[str] = []
    notices = Notices(callers.caller)
    listeners = {subject: Heard(f"session of {subject}", heard) for subject in ("alice", "bob")}
    for subject, session in listeners.items():
        with calling(subject):
            notices.remember(session)
            notices.bus.subscribe(lambda event, who=subject: heard.append(f"{who}: {type(event).__name__}"))  # type: ignore[misc]
    async with anyio.create_task_group() as tasks:
        with calling("bob"):
            tasks.start_soon(notices.exports_changed)  # as downloads do, which go on when the request is answered
    assert heard == ["bob: ResourcesListChanged", "bob: ResourceUpdated", "session of bob"]


async def test_what_the_sweep_of_every_caller_removes_is_announced_to_whose_it_was(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    settings, heard = make_settings(upstream.url), list[str]()
    notices = Notices(callers.caller)
    for subject in ("alice", "bob"):
        with calling(subject):
            notices.remember(Heard(f"session of {subject}", heard))
            notices.bus.subscribe(lambda event, who=subject: heard.append(f"{who}: {type(event).__name__}"))  # type: ignore[misc]
            home = settings.home / "callers" / callers.caller()
        async with connected(settings.model_copy(update={"data_dir": home})) as client:
            meta = (
                Path((await call(client, "export_csv", granularity="by_user"))["export"]["path"]).parent / "meta.json"
            )
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"created_at": "2020-01-01T00:00:00Z"}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sweep_callers, settings, notices)
        with anyio.fail_after(30):
            while len(heard) < 3:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert not meta.exists()
    assert heard == ["bob: ResourcesListChanged", "bob: ResourceUpdated", "session of bob"]


async def test_an_export_of_an_instance_that_is_granted_no_longer_is_not_there(
    make_settings: Callable[..., Settings], upstream: Served, tmp_path: Path
) -> None:
    file = tmp_path / "callers.json"
    settings = make_settings(upstream.url, **PUBLIC, oauth_keys_url="http://127.0.0.1:9/keys", callers_file=file)
    uri, found = "", list[object]()
    for instance in (DEMO_INSTANCE, "other.example", "*"):
        file.write_text(json.dumps({"*": {"instances": [instance], "tools": ["*"]}}))
        file.chmod(0o600)
        with calling("bob"):
            async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
                if not uri:
                    uri = (await call(client, "export_csv", granularity="by_user"))["export"]["summary_uri"]
                listed = {str(resource.uri) for resource in (await client.list_resources()).resources}
                kept = (await call(client, "list_exports"))["exports"]
                with suppress(MCPError):
                    found.append(await read(client, f"{uri}/rows?limit=1"))
                found.append((uri in listed, len(kept)))
    (shown, first, second, again, third) = found
    assert (first, second, third) == ((True, 1), (False, 0), (True, 1))
    assert shown == again
    (home,) = (settings.home / "callers").iterdir()
    Store(home, 1e-9, 1 << 40, ("other.example",)).sweep()
    assert Store(home, 1, 1 << 40).exports() == []


async def test_the_token_that_the_operator_stored_serves_the_callers_and_is_shown_to_none(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    settings = make_settings(upstream.url, access_token="", **PUBLIC, oauth_keys_url="http://127.0.0.1:9/keys")
    async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
        with calling("bob"):
            assert (await refused(client, "export_csv"))["code"] == "auth_missing"
        made = (await call(client, "create_token"))["token"]
        with calling("bob"):
            assert (await call(client, "export_csv", granularity="by_user"))["export"]["row_count"]
            checked = await call(client, "check_connection")
            assert (await refused(client, "list_tokens"))["code"] == "forbidden"
        await call(client, "revoke_token", token_id=made["id"], confirm=True)
        with calling("bob"):
            assert (await refused(client, "get_credits"))["code"] == "auth_missing"
    said = {check["name"]: check["detail"] for check in checked["checks"]}
    assert said["access token"] == "from secret store; upstream accepts it"  # not whose, nor until when
    assert not [file for file in (settings.home / "callers").rglob("*") if file.name in ("tokens.json", "secrets")]


async def test_a_token_that_others_may_use_is_not_called_unused_and_a_revoke_warns(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    settings = make_settings(upstream.url, access_token="", **PUBLIC, oauth_keys_url="http://127.0.0.1:9/keys")
    tokens = ("analytics:read", "analytics:tokens")
    listed: dict[str, list[list[object]]] = {"bob": [], "carol": []}
    warned = []
    async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
        operators = (await call(client, "create_token", display_name="of all"))["token"]["id"]
        for who in ("bob", "carol"):
            with calling(who, scopes=tokens):
                listed[who].append([t["in_use"] for t in (await call(client, "list_tokens"))["tokens"]])
                own = (await call(client, "create_token", display_name=who))["token"]["id"]
                every = await call(client, "list_tokens")
                listed[who].append([t["in_use"] for t in every["tokens"]])
                warned += [(await refused(client, "revoke_token", token_id=one))["message"] for one in (operators, own)]
                assert any("may be used by others here" in note for note in every["notes"])
        seen = [t["in_use"] for t in (await call(client, "list_tokens"))["tokens"]]
    assert listed["bob"] == [[None, None, None, False], [True, None, None, None, False]]
    assert listed["carol"] == [[None, None, None, None, False], [True, None, None, None, None, False]]
    assert ["others here may use it" in warning for warning in warned] == [True, False] * 2
    assert seen == [False, False, True, False, False, False]  # the operator's own


@pytest.mark.parametrize(
    ("scopes", "granted", "more", "step"),
    [
        (["analytics:read", "analytics:tokens"], ["*"], {}, "Call create_token, or ask the operator of this server"),
        (["analytics:read", "analytics:tokens"], ["export_csv", "create_token"], {}, "Call create_token, or ask the"),
        (["analytics:read"], ["*"], {}, "Ask the operator of this server"),
        (["analytics:read", "analytics:tokens"], ["export_csv"], {}, "Ask the operator of this server"),
        (["analytics:read", "analytics:tokens"], ["*"], {"read_only": True}, "Ask the operator of this server"),
    ],
)
@pytest.mark.parametrize("token", ["", "sams_at_nobody.s-access-token"])
async def test_who_can_set_nothing_here_is_told_to_ask_the_operator(
    scopes: list[str], granted: list[str], more: dict[str, object], step: str, token: str,
    make_settings: Callable[..., Settings], upstream: Served, tmp_path: Path,
) -> None:  # fmt: skip
    grants = tmp_path / "callers.json"
    grants.touch(mode=0o600)
    grants.write_text(json.dumps({"*": {"instances": [DEMO_INSTANCE], "tools": granted}}))
    public = PUBLIC | {"oauth_keys_url": "http://127.0.0.1:9/keys", "callers_file": grants}
    settings = make_settings(upstream.url, access_token=token, cas_cookie="", instances=DEMO_INSTANCE, **public, **more)
    async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
        with calling("bob", scopes=scopes):
            errors = [await refused(client, "export_csv", granularity="by_user", refresh=True)]
            if "analytics:tokens" in scopes and "*" in granted:
                errors.append(await refused(client, "list_tokens"))
    told = [error["next_step"] for error in errors]
    assert told[0].startswith("Ask the operator of this server to set another" if token else step)
    assert told[1:] == ["Ask the operator of this server to set it."] * (len(told) - 1)
    assert not [said for said in told if "SRC_ANALYTICS_" in said or "login" in said]


@pytest.mark.long
async def test_callers_are_answered_by_the_teams_that_were_read_at_the_start(
    make_settings: Callable[..., Settings], upstream: Served, tmp_path: Path
) -> None:
    """Though a file was changed, spoiled or removed when somebody's parts are opened."""
    teams, seats = tmp_path / "teams.csv", tmp_path / "seats.csv"
    someone = upstream.upstream.company.people[0].email
    teams.write_text(f"{someone},Red\n")
    seats.write_text(f"{someone}\n")
    settings = make_settings(upstream.url, teams_file=teams, seats_file=seats)
    found = []
    async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
        for who, content in (("alice", None), ("bob", f"{someone},Blue\n"), ("carol", "a line without a team\n")):
            if content is not None:
                teams.write_text(content)
                seats.unlink(missing_ok=True)
            with calling(who):
                asked = {"metrics": ["active_users"], "group_by": ["team"], "period": "all_time"}
                by_team = (await call(client, "query_usage", **asked))["rows"]
                found.append((by_team, (await call(client, "list_inactive_users"))["never_seen"]))
    assert sorted(team for team, _ in found[0][0]) == ["(no team)", "Red"]
    assert found == found[:1] * 3


async def test_a_share_is_free_again_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with some() as (known, _):
        with calling("alice"):
            await known.enter()
            for _ in range(2):
                known.take("calls", 2, 60)
            with pytest.raises(AnalyticsError, match="busy"):
                known.take("calls", 2, 60)
            known.take("calls", 2, -1)  # the uses before are older than that
