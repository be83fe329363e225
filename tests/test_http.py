"""`serve --http`: who may call, from where, and that callers do not meet. A real process, raw requests, real tokens."""

import base64
import hashlib
import hmac
import json
import os
import resource
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from sourcegraph_analytics_mcp.cli.main import run
from sourcegraph_analytics_mcp.demo.upstream import DEMO_INSTANCE
from sourcegraph_analytics_mcp.surface.tools import TOOLS
from support.campaign import named
from support.commands import Command
from support.engines import a_query, fork_servers
from support.issuer import ISSUER, KEY, SHARED, published, token
from support.statements import BOMBS
from support.stdio import COMMAND
from support.upstreams import Exchange, scripted_upstream
from support.upstreams import Served as Upstream

STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PREFIX = "io.modelcontextprotocol"
META = {
    f"{PREFIX}/protocolVersion": "2026-07-28",
    f"{PREFIX}/clientInfo": {"name": "test", "version": "0"},
    f"{PREFIX}/clientCapabilities": {},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def message(answer: httpx2.Response) -> Any:
    """The message of an answer; one that takes long comes as the last event of a stream."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.json()
    return json.loads([line for line in answer.text.splitlines() if line.startswith("data: ")][-1][6:])


class Served:
    """A server process and how to speak to it."""

    def __init__(self, home: Path, *flags: str, **settings: str) -> None:
        self.port = free_port()
        self.home = home / "demo" if "--demo" in flags else home
        environ = {f"SRC_ANALYTICS_{name.upper()}": value for name, value in settings.items()}
        environ |= {"SRC_ANALYTICS_DATA_DIR": str(home), "PATH": os.environ["PATH"]}
        self.process = Command([*flags, "serve", "--http", f"127.0.0.1:{self.port}"], environ)
        assert self.process.stderr is not None
        self.log: list[str] = []
        self._heard = threading.Condition()
        self._over = False
        self.reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self.reader.start()
        assert self.hears(lambda line: "Uvicorn running" in line), "".join(self.log)

    def _read(self, lines: Any) -> None:
        for line in lines:
            with self._heard:
                self.log.append(line)
                self._heard.notify_all()
        with self._heard:
            self._over = True
            self._heard.notify_all()

    def hears(self, what: Callable[[str], bool], times: int = 1) -> list[str]:
        """The lines of the log that are so, once there are that many."""

        def found() -> list[str]:
            return [line for line in self.log if what(line)]

        with self._heard:
            return found() if self._heard.wait_for(lambda: self._over or len(found()) >= times, 30) else []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def credential(self) -> str:
        return (self.home / "http-credential").read_text()

    def post(
        self,
        tool: str,
        arguments: dict[str, Any],
        token: str | None,
        more: dict[str, Any] | None = None,
        **headers: str,
    ) -> httpx2.Response:
        """Call a tool as the newest revision does; `more` are parameters besides."""
        params = {"name": tool, "arguments": arguments, "_meta": META} | (more or {})
        return self.send(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode(),
            [
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", tool),
                *([("authorization", f"Bearer {token}")] if token is not None else []),
                *((name.replace("_", "-"), value) for name, value in headers.items()),
            ],
        )

    def send(self, body: bytes, headers: list[tuple[str, str]], path: str = "/mcp") -> httpx2.Response:
        usual = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")]
        return httpx2.post(f"http://127.0.0.1:{self.port}{path}", content=body, headers=[*usual, *headers], timeout=30)

    def result(self, tool: str, arguments: dict[str, Any], token: str, more: dict[str, Any] | None = None) -> Any:
        answer = self.post(tool, arguments, token, more)
        assert answer.status_code == 200, answer.text
        return message(answer)["result"]

    def end(self) -> int:
        self.process.terminate()
        status = self.process.wait(10)
        self.reader.join(10)
        return status


@contextmanager
def served(home: Path, **settings: str) -> Iterator[Served]:
    server = Served(home, "--demo", **settings)
    try:
        yield server
    finally:
        server.end()
    assert not [line for line in server.log if "Traceback" in line or " ERROR " in line]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("local")) as server:
        yield server


@pytest.fixture(scope="module")
def issuer() -> Iterator[dict[str, str]]:
    """An issuer's published keys: the settings of servers that accept its tokens."""
    with published() as settings:
        yield settings


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory, issuer: dict[str, str]) -> Iterator[Served]:
    """A server whose callers hold tokens of an issuer."""
    with served(tmp_path_factory.mktemp("issued"), exports_per_hour="2", **issuer) as server:
        yield server


def test_the_local_credential_opens_the_server_and_nothing_else_does(local: Served) -> None:
    assert local.result("list_exports", {}, local.credential)["structuredContent"]["exports"] == []
    assert (local.home / "http-credential").stat().st_mode & 0o777 == 0o600
    for wrong in (None, "x", "%E9", local.credential[:-1], local.credential + "x"):
        refused = local.post("list_exports", {}, wrong)
        assert refused.status_code == 401
        assert 'scope="analytics:read"' in refused.headers["www-authenticate"]
    twice = local.post("list_exports", {}, local.credential, Authorization=f"Bearer {local.credential}")
    assert twice.status_code == 401
    assert local.send(b"{}", [], path=f"/mcp?access_token={local.credential}").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1:{port}@evil.example"}, 421),
        ({"host": "localhost:1"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:{port}@evil.example"}, 403),
        ({"origin": "https://127.0.0.1:{port}"}, 403),
        ({"content-encoding": "gzip"}, 415),
        ({"host": "evil.example", "x-forwarded-host": "127.0.0.1:{port}"}, 421),
        ({"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "forwarded": "host=evil.example"}, 200),
        ({"origin": "http://127.0.0.1:{port}"}, 200),
        ({"host": "localhost:{port}"}, 200),
    ],
)
def test_hosts_origins_and_codings(local: Served, headers: dict[str, str], status: int) -> None:
    placed = {name: value.format(port=local.port) for name, value in headers.items()}
    assert local.post("list_exports", {}, local.credential, None, **placed).status_code == status


def test_a_host_that_is_not_served_is_refused_before_anybody_is_asked_who_they_are(local: Served) -> None:
    answer = local.post("list_exports", {}, None, host="evil.example")
    assert answer.status_code == 421
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "status"), [({"host": "evil.example"}, 421), ({"origin": "http://evil.example"}, 403)]
)
def test_no_other_host_or_origin_reaches_an_older_session(
    local: Served, method: str, headers: dict[str, str], status: int
) -> None:
    """Whatever it knows, as the SDK itself looks at neither here."""
    known = {
        "authorization": f"Bearer {local.credential}", "accept": "application/json, text/event-stream",
        "content-type": "application/json", "mcp-protocol-version": "2025-11-25",
    }  # fmt: skip
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    made = httpx2.post(local.url, json=asking("initialize", **about), headers=known)
    session = known | {"mcp-session-id": made.headers["mcp-session-id"]}
    body = json.dumps(asking("tools/list")) if method == "POST" else ""
    assert httpx2.request(method, local.url, content=body, headers=session | headers).status_code == status
    still = httpx2.post(local.url, json=asking("tools/list"), headers=session)
    assert still.status_code == 200


def test_a_request_is_bounded(local: Served) -> None:
    padded = {"_meta": META | {"padding": "x" * (1 << 20)}}
    assert local.post("list_exports", {}, local.credential, padded).status_code == 413


@pytest.mark.parametrize("padding", [0, 70_000], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["a call", "an older call", "listen", "initialize", "initialize again", "get", "junk"])
@pytest.mark.long
def test_only_a_call_may_be_large(local: Served, kind: str, padding: int) -> None:
    """As the others open streams and sessions, for which much is kept for as long as they are there."""
    known = {"authorization": f"Bearer {local.credential}", "accept": "application/json, text/event-stream"}
    older, newer = {"mcp-protocol-version": "2025-11-25"}, {"mcp-protocol-version": "2026-07-28"}
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    made = httpx2.post(local.url, json=asking("initialize", **about), headers=known | older)
    session = older | {"mcp-session-id": made.headers["mcp-session-id"]}
    padded: dict[str, Any] = {"_meta": META | {"padding": "x" * padding}}
    call: dict[str, Any] = {"name": "list_exports", "arguments": {}}
    sent: dict[str, tuple[dict[str, str], Any]] = {
        "a call": (newer | {"mcp-name": call["name"]}, asking("tools/call", **call, **padded)),
        "an older call": (session, asking("tools/call", **call, **padded)),
        "listen": (newer, asking("subscriptions/listen", notifications={"resourcesListChanged": True}, **padded)),
        "initialize": (older, asking("initialize", **about, **padded)),
        "initialize again": (session, asking("initialize", **about, **padded)),
        "get": (session, asking("tools/call", **call, **padded) if padding else ""),
        "junk": (newer, "x" * padding),
    }  # fmt: skip
    headers, body = sent[kind]
    named = {"mcp-method": body["method"]} if "mcp-name" in headers or kind == "listen" else {}
    with httpx2.stream(
        "GET" if kind == "get" else "POST", local.url, content=body if isinstance(body, str) else json.dumps(body),
        headers={"content-type": "application/json"} | known | headers | named, timeout=30,
    ) as answer:  # fmt: skip
        refused = "call" not in kind and padding
        assert answer.status_code == (413 if refused else 400 if kind == "junk" else 200)
        if refused:
            assert answer.read() == b"A request may have 1,024 KiB, and 64 KiB where it is no call of a tool."


def asking(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


_METADATA = "/.well-known/oauth-protected-resource/mcp"


@pytest.mark.parametrize("kind", ["local", "issued"])
def test_without_a_credential_nothing_is_answered_but_the_metadata(request: pytest.FixtureRequest, kind: str) -> None:
    server: Served = request.getfixturevalue(kind)
    right = server.credential if kind == "local" else token()
    paths = (
        "/", "/mcp", "/mcp/", "/MCP", "/mcp/x", "//mcp", "/%6dcp", "/mcp;x", "/.well-known/../mcp", "/health", "/docs",
        "/sse", "/messages/", "/.well-known/oauth-protected-resource", _METADATA, f"/mcp?access_token={right}",
    )  # fmt: skip
    for path in paths:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"):
            connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
            connection.request(method, path, body=f'{{"access_token": "{right}"}}')
            answer = connection.getresponse()
            told = answer.getheader("WWW-Authenticate")
            connection.close()
            if kind == "issued" and path == _METADATA and method in ("GET", "HEAD"):
                assert answer.status == 200
                continue
            assert (answer.status, method, path) == (401, method, path)
            assert told is not None
            assert 'scope="analytics:read"' in told
            assert ("resource_metadata=" in told) is (kind == "issued")
    assert right not in "".join(server.log)


@pytest.mark.parametrize(
    ("scope", "read", "tokens"),
    [("", 403, 403), ("analytics:tokens", 403, 403), ("other", 403, 403), ("analytics:read", 200, 403),
     ("analytics:read analytics:tokens", 200, 200)],
)  # fmt: skip
@pytest.mark.long
def test_each_tool_needs_its_scopes(issued: Served, scope: str, read: int, tokens: int) -> None:
    for tool in TOOLS:
        who = token(f"matrix {tool.name}", scope=scope)
        answer = issued.post(tool.name, {"nobody knows": 1}, who)
        managed = tool.name.endswith(("_token", "_tokens"))
        assert (tool.name, answer.status_code) == (tool.name, tokens if managed else read)
        if answer.status_code == 403:
            needed = "analytics:read analytics:tokens" if managed else "analytics:read"
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
            assert f'scope="{needed}"' in answer.headers["www-authenticate"]
        else:
            assert "there is no argument" in answer.text


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("{" + ",".join(f'"k{number}":0' for number in range(70_000)) + "}", 200),
        ("{" + '"limit":1,' * 90_000 + '"limit":2}', 200),
        ("{" + '"":0,' * 1_000_000 + '"":0}', 413),
        ('{"limit":' + "[" * 50_000 + "]" * 50_000 + "}", 400),
        ('{"limit":' + "[" * 100 + "]" * 100 + "}", 200),
    ],
    ids=["many", "doubled", "a million", "deep", "less deep"],
)
def test_odd_bodies_are_answered_or_refused(local: Served, arguments: str, status: int) -> None:
    params = {"name": "list_exports", "arguments": 0, "_meta": META}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    known = {"authorization": f"Bearer {local.credential}", "mcp-protocol-version": "2026-07-28"}
    named = {"mcp-method": "tools/call", "mcp-name": "list_exports"}
    before = resident(local.process.pid)
    answer = local.send(body.replace(": 0", f": {arguments}").encode(), list((known | named).items()))
    assert answer.status_code == status
    assert len(answer.content) < 10_000
    assert resident(local.process.pid) - before < 48 << 20
    assert local.result("list_exports", {}, local.credential)["isError"] is False


def resident(pid: int) -> int:
    """Memory in use at the most so far, in bytes."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) << 10


@pytest.mark.parametrize(
    "head",
    [
        "POST /mcp HTTP/1.1|Host: {host}|Content-Length: 4|Transfer-Encoding: chunked||0||",
        "POST /mcp HTTP/1.1|Host: {host}|Content-Length: 4|Content-Length: 5||null",
        "POST /mcp HTTP/1.1|Host: {host}|Transfer-Encoding: gzip, chunked||0||",
        "POST /mcp HTTP/1.1|Host: {host}|X: a| b||",
        "POST /mcp HTTP/1.1|Host: {host}\nX: a||",
        "POST /mcp HTTP/1.1|Host: {host}\n\n",
        "POST /mcp HTTP/1.1|Host: {host}|X : a||",
        "POST /mcp HTTP/1.1|Host: {host}|Host: {host}||",
        "POST http://{host}/mcp HTTP/1.1|Host: {host}||",
        "OPTIONS * HTTP/1.1|Host: {host}||",
        "GET /mcp HTTP/1.1|Host: a||GET /mcp HTTP/1.1|Host: {host}\n\n",  # the second of two
    ],
)
def test_a_request_cannot_be_smuggled(local: Served, head: str) -> None:
    with socket.create_connection(("127.0.0.1", local.port), 5) as raw:
        raw.sendall(head.format(host=f"127.0.0.1:{local.port}").replace("|", "\r\n").encode())
        answer = b""
        while b"HTTP/1.1 400" not in answer and (piece := raw.recv(1000)):
            answer += piece
        assert b"HTTP/1.1 400" in answer


@pytest.mark.parametrize("begun", ["POST /mcp HT", "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"])
@pytest.mark.long
def test_whoever_holds_connections_open_gives_way(local: Served, begun: str) -> None:
    with ExitStack() as held:
        for _ in range(800):  # more than are served at once
            connection = held.enter_context(socket.create_connection(("127.0.0.1", local.port)))
            connection.sendall(begun.encode())
            if "Length" in begun:
                assert connection.recv(12) == b"HTTP/1.1 421"
        for _ in range(3):
            assert local.result("list_exports", {}, local.credential)["isError"] is False


@pytest.mark.long
def test_connections_leave_the_files_that_all_else_needs(tmp_path: Path) -> None:
    """As many as the system allows by default on macOS; nobody needs a credential to take them."""
    limited = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *COMMAND)
    environ = {"SRC_ANALYTICS_DATA_DIR": str(tmp_path / "data"), "PATH": os.environ["PATH"]}
    port, log = free_port(), tmp_path / "log"
    command = [*limited, "--demo", "serve", "--http", f"127.0.0.1:{port}"]
    with log.open("wb") as told, subprocess.Popen(command, env=environ, stderr=told) as process, ExitStack() as held:
        held.callback(process.terminate)
        while "Serving" not in log.read_text():
            assert process.poll() is None
        for _ in range(400):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        assert httpx2.get(f"http://127.0.0.1:{port}/mcp", timeout=20).status_code == 401
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 220
    assert "WARNING" not in log.read_text()
    assert "ERROR" not in log.read_text()


@pytest.mark.long
def test_a_server_of_many_takes_as_many_files_as_it_may(tmp_path: Path) -> None:
    limited = ("sh", "-c", 'ulimit -S -n 64; ulimit -H -n 2000; exec "$@"', "sh", *COMMAND)
    environ = {"SRC_ANALYTICS_DATA_DIR": str(tmp_path / "data"), "PATH": os.environ["PATH"]}
    port, log = free_port(), tmp_path / "log"
    command = [*limited, "--demo", "serve", "--http", f"127.0.0.1:{port}"]
    with log.open("wb") as told, subprocess.Popen(command, env=environ, stderr=told) as process:
        while "Serving" not in log.read_text():
            assert process.poll() is None
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        process.terminate()
    assert limits == (2000, 2000)


@pytest.mark.long
def test_connections_that_cannot_be_taken_are_said_once(tmp_path: Path) -> None:
    with served(tmp_path) as server, ExitStack() as held:
        before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        for _ in range(20):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
        said = server.hears(lambda line: " WARNING " in line or " ERROR " in line)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
        assert server.post("list_exports", {}, server.credential).status_code == 200
    assert "no more open files" in said[0]
    assert len([line for line in server.log if " WARNING " in line or " ERROR " in line]) == 1


def test_a_client_that_leaves_before_its_request_is_whole_has_begun_nothing(local: Served) -> None:
    """Nor does it leave a traceback: the log of the whole module has none."""
    for era in ("2026-07-28", "2025-11-25"):
        with socket.create_connection(("127.0.0.1", local.port)) as raw:
            raw.sendall(
                f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{local.port}\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {local.credential}\r\nMCP-Protocol-Version: {era}\r\n"
                'Accept: application/json, text/event-stream\r\nContent-Length: 99\r\n\r\n{"jsonrpc"'.encode()
            )
    local.result("list_exports", {}, local.credential)


@pytest.mark.parametrize("begin", ["POST /mcp", "POST /else", "HEAD /mcp"])
def test_chunks_that_are_none_are_refused_and_leave_no_traceback(local: Served, begin: str) -> None:
    head = (
        f"{begin} HTTP/1.1\r\nHost: 127.0.0.1:{local.port}\r\nAuthorization: Bearer {local.credential}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", local.port)) as raw:
        raw.sendall(f"{head}-1\r\n".encode())
        assert raw.recv(12) == b"HTTP/1.1 400"
    with socket.create_connection(("127.0.0.1", local.port)) as raw:
        raw.sendall(head.replace("Bearer", "Basic").encode())
        assert raw.recv(12) == b"HTTP/1.1 401"
        raw.sendall(b"-1\r\n")  # when there is an answer already
        with suppress(ConnectionResetError):
            while raw.recv(1000):
                pass
    local.result("list_exports", {}, local.credential)


def chunks(*pieces: bytes) -> Iterator[bytes]:
    yield from pieces


def test_chunks_count_too(local: Served) -> None:
    known = {"authorization": f"Bearer {local.credential}", "content-type": "application/json"}
    padded = asking("tools/call", name="list_exports", arguments={}, _meta=META | {"padding": "x" * (1 << 20)})
    body = json.dumps(padded).encode()
    large = chunks(*(body[at : at + 1000] for at in range(0, len(body), 1000)))
    assert httpx2.post(local.url, content=large, headers=known).status_code == 413
    body = json.dumps(asking("tools/list", _meta=META)).encode()
    more = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28"}
    small = chunks(*(body[at : at + 1] for at in range(len(body))))
    answer = httpx2.post(local.url, content=small, headers=known | more | {"mcp-method": "tools/list"})
    assert answer.status_code == 200


@pytest.mark.long
def test_two_servers_share_callers_exports_and_questions(
    tmp_path: Path, issuer: dict[str, str], upstream: Upstream
) -> None:
    """What one has downloaded, the other shows; what one asks, the other takes the answer to."""
    more = named(upstream.url, tmp_path, state_key="s" * 32, log_level="INFO") | issuer
    with ThreadPoolExecutor() as starting:
        pair = list(starting.map(lambda _: Served(tmp_path, **more), range(2)))
    try:
        alice = token(scope="analytics:read analytics:tokens")
        kept = pair[0].result("export_csv", {"granularity": "by_user"}, alice)["structuredContent"]["export"]["id"]
        shown = pair[1].result("list_exports", {}, alice)["structuredContent"]["exports"]
        assert [export["id"] for export in shown] == [kept]

        person: dict[str, Any] = {"_meta": META | {f"{PREFIX}/clientCapabilities": {"elicitation": {}}}}
        active = next(one for one in upstream.desk.tokens if not upstream.desk.expired(one))
        given = {"token_id": active.id}
        question = pair[0].result("revoke_token", given, alice, person)
        assert question["resultType"] == "input_required"
        confirmed = {"confirmation": {"action": "accept", "content": {"confirm": True}}}
        answer = person | {"inputResponses": confirmed, "requestState": question["requestState"]}
        for other in ({"token_id": "another"}, given):
            stolen = token("eve", scope="analytics:read analytics:tokens") if other is given else alice
            assert "error" in message(pair[1].post("revoke_token", other, stolen, answer))
        revoked = pair[1].result("revoke_token", given, alice, answer)
        assert revoked["structuredContent"] == {"token_id": active.id, "outcome": "revoked", "verified": True}
    finally:
        for server in pair:
            server.end()


@pytest.mark.long
def test_a_confirmation_is_for_what_was_asked_and_does_nothing_twice(local: Served) -> None:
    """The state is sealed by the SDK; a yes that is sent again finds the token revoked."""
    person: dict[str, Any] = {"_meta": META | {f"{PREFIX}/clientCapabilities": {"elicitation": {}}}}
    listed = local.result("list_tokens", {}, local.credential)["structuredContent"]["tokens"]
    given = {"token_id": next(one["id"] for one in listed if one["display_name"] is None)}
    state = local.result("revoke_token", given, local.credential, person)["requestState"]
    yes = {"confirmation": {"action": "accept", "content": {"confirm": True}}}

    def answer(given: dict[str, Any], state: str) -> Any:
        return local.post(
            "revoke_token", given, local.credential, person | {"inputResponses": yes, "requestState": state}
        )

    for at in range(0, len(state), 7):
        other = "A" if state[at] != "A" else "B"
        assert "error" in message(answer(given, state[:at] + other + state[at + 1 :]))
    for forged in ("", "confirmation", state[:-1], state + "A", state * 2):
        told = message(answer(given, forged))
        assert "error" in told or told["result"]["resultType"] == "input_required"
    assert "error" in message(answer({"token_id": listed[0]["id"]}, state))
    assert "error" in message(answer(given | {"confirm": True}, state))
    again = local.result("list_tokens", {}, local.credential)["structuredContent"]["tokens"]
    assert again == listed
    outcomes = [message(answer(given, state))["result"]["structuredContent"]["outcome"] for _ in range(2)]
    assert outcomes == ["revoked", "already_expired"]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_an_sdk_client_works_in_both_eras(local: Served, mode: Any) -> None:
    headers = {"Authorization": f"Bearer {local.credential}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(local.url, http_client=http)
        async with Client(transport, mode=mode) as client:
            assert len((await client.list_tools()).tools) == 11
            if mode == "legacy":  # where there is a handshake
                resources = client.server_capabilities.resources
                assert resources is not None
                assert resources.list_changed
            answer = await client.call_tool("query_usage", {"metrics": ["active_users"]})
            assert not answer.is_error
            assert answer.structured_content is not None
            assert answer.structured_content["rows"][0][0] > 0
            assert (await client.read_resource("analytics://exports")).contents


@pytest.mark.parametrize(
    "refused",
    [
        token(exp=int(time.time()) - 120),
        token(nbf=int(time.time()) + 600),
        token(aud="https://other.example/mcp"),
        token(aud="https://analytics-mcp.example/mcp/"),
        token(aud=None),
        token(iss="https://other.example"),
        token(sub=None),
        token(key=STRANGER),
        token(key="", algorithm="none"),
        token(key="k" * 64, algorithm="HS256"),
        "a.b.c",
        "x" * 20_000,
    ],
)
def test_tokens_of_others_are_refused(issued: Served, refused: str) -> None:
    answer = issued.post("list_exports", {}, refused)
    assert answer.status_code == 401
    assert "oauth-protected-resource" in answer.headers["www-authenticate"]
    assert issued.post("list_exports", {}, token()).status_code == 200


def forged(secret: bytes) -> str:
    """A token that is signed with a shared secret, although its key is one that is published."""
    claims = token().split(".")[1]
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"k1","typ":"JWT"}').decode()
    signature = hmac.digest(secret, f"{header}.{claims}".encode(), "sha256")
    return f"{header}.{claims}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def public(encoding: Encoding, form: PublicFormat) -> bytes:
    """The issuer's public key as whoever forges might have it."""
    return KEY.public_key().public_bytes(encoding, form)


@pytest.mark.parametrize(
    "refused",
    [
        forged(public(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        forged(public(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip()),
        forged(public(Encoding.PEM, PublicFormat.PKCS1)),
        forged(public(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        token(key=SHARED, algorithm="HS256", kid="hs256"),
        token(algorithm="RS512"),
        token(algorithm="RS512", kid="rs512"),
        token(kid="rs512"),
        token(key="", algorithm="none"),
        token(key="", algorithm="none", kid="rs512"),
    ],
    ids=["PEM", "PEM without its end", "PKCS 1", "DER", "a published secret", "RS512", "RS512, a key for it",
         "RS256, a key for RS512", "none", "none, a key for RS512"],
)  # fmt: skip
@pytest.mark.long
def test_other_algorithms_are_refused(issued: Served, refused: str) -> None:
    assert issued.post("list_exports", {}, refused).status_code == 401


def test_the_log_says_who_called_without_a_name(issued: Served) -> None:
    for subject in ("frank", "grace", "frank"):
        issued.result("list_metrics", {}, token(subject))
    lines = issued.hears(lambda line: "tool=unknown" in line, 3)
    callers = [line.split(" caller=")[1].split()[0] for line in lines]
    assert callers[0] == callers[2] != callers[1]
    assert "frank" not in "".join(issued.log)


def test_pages_of_other_origins_are_told_nothing(issued: Served) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = httpx2.options(issued.url, headers=asked)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control") or name == "server"]


def test_the_metadata_name_the_issuer_without_a_token(issued: Served) -> None:
    answer = httpx2.get(f"http://127.0.0.1:{issued.port}/.well-known/oauth-protected-resource/mcp")
    assert answer.json()["authorization_servers"] == ["https://issuer.example"]
    assert answer.json()["resource"] == "https://analytics-mcp.example/mcp"


def test_scopes(issued: Served) -> None:
    assert issued.post("list_exports", {}, token(scope="other")).status_code == 403
    refused = issued.post("list_tokens", {}, token())
    assert refused.status_code == 403
    assert 'scope="analytics:read analytics:tokens"' in refused.headers["www-authenticate"]
    allowed = issued.result("list_tokens", {}, token("carol", scope="analytics:read analytics:tokens"))
    assert allowed["isError"] is False


@pytest.mark.long
def test_a_caller_learns_nothing_of_the_operator_s_tokens_and_folders(issued: Served) -> None:
    def told(name: str, scope: str) -> tuple[str, str]:
        """What is said of the cookie, and everything that is said."""
        who = token(name, scope=scope)
        checked = issued.result("check_connection", {}, who)
        kept = [issued.result(tool, {}, who) for tool in ("export_csv", "list_exports")]
        said = {check["name"]: check["detail"] for check in checked["structuredContent"]["checks"]}
        return said["session cookie"], json.dumps([checked, *kept])

    cookie, everything = told("frank", "analytics:read")
    assert cookie == "not looked at: your access does not cover tokens"
    assert str(issued.home) not in everything
    cookie, everything = told("grace", "analytics:read analytics:tokens")
    assert cookie.startswith("upstream accepts it; ")
    assert str(issued.home) not in everything
    made = issued.result("create_token", {}, token("grace", scope="analytics:read analytics:tokens"))
    place = made["structuredContent"]["secret_stored_in"]
    assert place == "a file only this server's user can read (the demo uses no keyring)"
    assert str(issued.home) not in json.dumps(made)


def test_an_older_client_without_the_scope_is_told(issued: Served) -> None:
    known = [("authorization", f"Bearer {token('dan')}"), ("mcp-protocol-version", "2025-11-25")]

    def ask(method: str, params: dict[str, Any], *session: tuple[str, str]) -> httpx2.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return issued.send(json.dumps(body).encode(), [*known, *session])

    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    session = ("mcp-session-id", ask("initialize", client).headers["mcp-session-id"])
    answer = ask("tools/call", {"name": "list_tokens", "arguments": {}}, session)
    assert "[forbidden]" in answer.text
    stolen = [("authorization", f"Bearer {token('eve')}"), ("mcp-protocol-version", "2025-11-25"), session]
    body = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
    assert issued.send(json.dumps(body).encode(), stolen).status_code == 404
    told = issued.hears(lambda line: "Rejecting request for session" in line)
    assert session[1][:8] in told[0]
    assert session[1] not in "".join(issued.log)


def everything_about(server: Served, export: str, who: str) -> list[str]:
    """What is answered wherever the id of an export can be given; the id itself is left out."""

    def ask(method: str, params: dict[str, Any], name: str = "") -> str:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": META}}
        known = {"authorization": f"Bearer {who}", "mcp-protocol-version": "2026-07-28", "mcp-method": method}
        answer = server.send(json.dumps(body).encode(), list((known | ({"mcp-name": name} if name else {})).items()))
        return f"{answer.status_code} {answer.text}"

    listed = json.loads(ask("tools/list", {})[4:])["result"]["tools"]
    taking = [tool for tool in listed if "export_id" in tool["inputSchema"]["properties"]]
    assert {tool["name"] for tool in taking} == {"query_export", "delete_export"}
    answers = []
    for tool in taking:
        given = {"export_id": export} | dict.fromkeys(tool["inputSchema"]["required"][1:], "SELECT 1")
        answers.append(ask("tools/call", {"name": tool["name"], "arguments": given}, tool["name"]))
    templates = json.loads(ask("resources/templates/list", {})[4:])["result"]["resourceTemplates"]
    of_one = [template["uriTemplate"] for template in templates if "{export_id}" in template["uriTemplate"]]
    assert len(of_one) == 3
    for template in of_one:
        uri = template.split("{?")[0].replace("{export_id}", export)
        answers.append(ask("resources/read", {"uri": uri}, uri))
        part = {
            "ref": {"type": "ref/resource", "uri": template},
            "argument": {"name": "export_id", "value": export[:9]},
        }
        answers.append(ask("completion/complete", part))
    return [answer.replace(export, "ID") for answer in (*answers, ask("resources/list", {}))]


def test_callers_do_not_see_each_others_exports(issued: Served) -> None:
    arguments = {"granularity": "by_user_month", "start_date": "2026-01-01", "end_date": "2026-02-28"}
    export = issued.result("export_csv", arguments, token("alice"))["structuredContent"]["export"]
    assert len(issued.result("list_exports", {}, token("alice"))["structuredContent"]["exports"]) == 1
    assert issued.result("list_exports", {}, token("bob"))["structuredContent"]["exports"] == []
    absent = [everything_about(issued, name, token("bob")) for name in (export["id"], "0" * 32)]
    assert absent[0] == absent[1]
    assert sum(answer.count("not_found") for answer in absent[0]) >= 5
    held = issued.result("query_export", {"export_id": export["id"], "sql": "SELECT 1"}, token("alice"))
    assert held["isError"] is False


@pytest.mark.long
def test_what_callers_who_do_not_come_back_have_left_goes_too(tmp_path: Path, issuer: dict[str, str]) -> None:
    with served(tmp_path, **issuer) as server:
        export = server.result("export_csv", {}, token("alice"))["structuredContent"]["export"]
    (folder,) = server.home.glob(f"callers/*/exports/{export['id']}")
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"created_at": "2020-01-01T00:00:00Z"}))
    with served(tmp_path, **issuer) as server:
        ends = time.monotonic() + 30
        while folder.exists() and time.monotonic() < ends:
            server.result("list_exports", {}, token("bob"))
    assert not folder.exists()


@pytest.mark.long
def test_one_caller_cannot_take_the_others_share(issued: Served) -> None:
    arguments = {"granularity": "by_user_month", "start_date": "2026-01-01", "end_date": "2026-01-31", "refresh": True}
    answers = [issued.result("export_csv", arguments, token("greedy")) for _ in range(3)]
    assert [answer["isError"] for answer in answers] == [False, False, True]
    error = answers[2]["structuredContent"]["error"]
    assert error["code"] == "busy"
    assert 3500 <= error["retry_after_seconds"] <= 3600
    assert issued.result("export_csv", arguments, token("modest"))["isError"] is False


@pytest.mark.anyio
@pytest.mark.long
async def test_callers_share_the_retries_of_a_minute(tmp_path: Path, issuer: dict[str, str]) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.answer(b"", "503 Service Unavailable")

    def ask_as_three(url: str) -> None:
        server = Served(tmp_path, **named(url, tmp_path, log_level="INFO") | issuer)
        try:
            for who in ("alice", "bob", "carol", "alice"):
                answer = server.result("get_credits", {}, token(who))
                assert answer["structuredContent"]["error"]["code"] == "upstream_unavailable"
        finally:
            server.end()

    async with scripted_upstream(fail) as fake:
        await anyio.to_thread.run_sync(ask_as_three, fake.url)
    assert len(fake.exchanges) == 4 + 10


ASKING = [tool.name for tool in TOOLS if "instance_url" in tool.arguments.model_fields]
NEEDED = {"query_usage": {"metrics": ["active_users"]}}


@pytest.fixture(scope="module")
def granted(
    tmp_path_factory: pytest.TempPathFactory, issuer: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[Served]:
    """A server whose operator says what each caller may use: alice asks about one instance, bob about another."""
    home = tmp_path_factory.mktemp("granted")
    entries = {
        "alice": {"instances": [DEMO_INSTANCE], "tools": ["*"]},
        "bob": {"instances": ["Bobs.example/"], "tools": [*ASKING, "list_tokens"]},
    }
    (home / "callers.json").write_text(json.dumps(entries))
    (home / "callers.json").chmod(0o600)
    more = named(request.getfixturevalue("served").url, home, callers_file=home / "callers.json", log_level="INFO")
    server = Served(home / "data", **more | issuer)
    try:
        yield server
    finally:
        server.end()
    assert not [line for line in server.log if "Traceback" in line or " ERROR " in line]


def ask(server: Served, who: str, method: str, named: str = "", /, **params: Any) -> Any:
    """What the newest revision answers to any request."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": META}}
    known = [("authorization", f"Bearer {token(who)}"), ("mcp-protocol-version", "2026-07-28")]
    headers = [*known, ("mcp-method", method), *([("mcp-name", named)] if named else [])]
    return message(server.send(json.dumps(body).encode(), headers))


@pytest.mark.parametrize("tool", ASKING)
@pytest.mark.long
def test_a_caller_asks_about_the_instances_granted_alone(granted: Served, upstream: Upstream, tool: str) -> None:
    given = NEEDED.get(tool, {})
    answer = granted.result(tool, given | {"instance_url": DEMO_INSTANCE}, token("bob"))
    assert answer["structuredContent"]["error"]["code"] == "forbidden"
    assert answer["structuredContent"]["error"]["next_step"].startswith("Use one of: bobs.example; ")
    assert upstream.ledger == []
    granted.result(tool, given, token("bob"))
    asked = {value for received in upstream.ledger for name, value in received.query if name == "instanceURL"}
    assert asked == {"bobs.example"}
    assert granted.result(tool, given | {"instance_url": DEMO_INSTANCE}, token("alice"))["isError"] is False


@pytest.mark.long
def test_a_caller_uses_the_tools_granted_alone(granted: Served, upstream: Upstream) -> None:
    lists = {who: ask(granted, who, "tools/list")["result"] for who in ("alice", "bob")}
    assert [tool["name"] for tool in lists["alice"]["tools"]] == [tool.name for tool in TOOLS]
    assert {tool["name"] for tool in lists["bob"]["tools"]} == {*ASKING, "list_tokens"}
    assert {one["cacheScope"] for one in lists.values()} == {"private"}
    prompts = {who: ask(granted, who, "prompts/list")["result"] for who in ("alice", "bob")}
    left_out = {prompt["name"] for prompt in prompts["alice"]["prompts"] if prompt not in prompts["bob"]["prompts"]}
    assert left_out >= {"token_rotation", "token_cleanup"}
    assert {one["cacheScope"] for one in prompts.values()} == {"private"}
    assert granted.post("list_tokens", {}, token("bob")).status_code == 403  # a grant is no scope
    scoped = token("bob", scope="analytics:read analytics:tokens")
    assert granted.result("list_tokens", {}, scoped)["isError"] is False
    assert "You may not use" in granted.post("revoke_token", {"token_id": "x", "confirm": True}, scoped).text
    refused = granted.result("query_export", {"export_id": "0" * 32, "sql": "SELECT 1"}, token("bob"))
    assert refused["structuredContent"]["error"]["message"] == "You may not use query_export here."
    line = granted.hears(lambda line: "tool=query_export outcome=forbidden" in line)[0]
    marked = hashlib.sha256(f"{ISSUER}\nbob".encode()).hexdigest()
    assert f" caller={marked[:12]} " in line
    assert "bob" not in "".join(granted.log)
    assert upstream.sent("DELETE") == upstream.sent("POST") == []


@pytest.mark.long
def test_an_older_client_is_held_to_the_same(granted: Served, upstream: Upstream) -> None:
    known = [("authorization", f"Bearer {token('bob')}"), ("mcp-protocol-version", "2025-11-25")]

    def send(method: str, params: dict[str, Any], *session: tuple[str, str]) -> httpx2.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return granted.send(json.dumps(body).encode(), [*known, *session])

    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    session = ("mcp-session-id", send("initialize", client).headers["mcp-session-id"])
    listed = send("tools/list", {}, session).text
    assert '"get_credits"' in listed
    assert '"query_export"' not in listed
    for name, given in (("list_exports", {}), ("get_credits", {"instance_url": DEMO_INSTANCE})):
        assert "[forbidden]" in send("tools/call", {"name": name, "arguments": given}, session).text
    assert upstream.ledger == []
    known[0] = ("authorization", f"Bearer {token('eve')}")
    assert "[forbidden] You are not among the callers" in send("initialize", client).text


@pytest.mark.parametrize(
    ("method", "name", "params"),
    [
        ("server/discover", "", {}),
        ("tools/list", "", {}),
        ("resources/list", "", {}),
        ("resources/read", "analytics://metrics", {"uri": "analytics://metrics"}),
        ("prompts/list", "", {}),
        ("prompts/get", "time_saved", {"name": "time_saved"}),
        ("completion/complete", "", {"ref": {"type": "ref/prompt", "name": "time_saved"},
                                     "argument": {"name": "instance_url", "value": ""}}),
    ],
)  # fmt: skip
def test_who_is_not_listed_may_nothing(granted: Served, method: str, name: str, params: dict[str, Any]) -> None:
    assert "result" in ask(granted, "bob", method, name, **params)
    error = ask(granted, "eve", method, name, **params)["error"]
    assert error["code"] == -32600
    assert error["message"] == "[forbidden] You are not among the callers of this server. Ask its operator to list you."
    assert granted.hears(lambda line: f"refused method={method} outcome=forbidden caller=" in line)
    assert "parts" not in "".join(granted.log)  # none were opened


def test_who_is_not_listed_calls_no_tool(granted: Served, upstream: Upstream) -> None:
    everything = token("eve", scope="analytics:read analytics:tokens")
    for tool in ("query_usage", "list_tokens", "check_connection", "nothing"):
        answer = granted.result(tool, NEEDED.get(tool, {}), everything)
        assert answer["structuredContent"]["error"]["code"] == "forbidden"
    assert upstream.ledger == []


def test_only_granted_instances_complete(granted: Served) -> None:
    argument = {"ref": {"type": "ref/prompt", "name": "time_saved"}, "argument": {"name": "instance_url", "value": ""}}
    for who, known in (("alice", DEMO_INSTANCE), ("bob", "bobs.example")):
        found = ask(granted, who, "completion/complete", **argument)["result"]
        assert found["completion"]["values"] == [known]


def test_it_ends_on_a_signal_and_logs_no_credential(tmp_path: Path) -> None:
    server = Served(tmp_path, "--demo", log_level="DEBUG")
    server.result("list_exports", {}, server.credential)
    credential = server.credential
    server.end()
    assert credential not in "".join(server.log)
    assert "tool=list_exports outcome=ok" in "".join(server.log)
    assert " caller=operator id=1" in "".join(server.log)
    assert "Finished server process" in server.log[-1]


@pytest.mark.long
def test_the_log_at_its_most_talkative_is_ours_and_holds_no_answer(tmp_path: Path) -> None:
    """Answers to older clients are streamed, by a library that would log each of them whole."""
    server = Served(tmp_path, "--demo", log_level="DEBUG")
    known = [("authorization", f"Bearer {server.credential}"), ("mcp-protocol-version", "2025-11-25")]

    def send(method: str, params: dict[str, Any], *session: tuple[str, str]) -> httpx2.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return server.send(json.dumps(body).encode(), [*known, *session])

    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    session = ("mcp-session-id", send("initialize", client).headers["mcp-session-id"])
    asked = {"name": "query_usage", "arguments": {"metrics": ["searches"], "group_by": ["user"], "limit": 3}}
    rows = message(send("tools/call", asked, session))["result"]["structuredContent"]["rows"]
    server.end()
    names = [cell for row in rows for cell in row if isinstance(cell, str) and "@" in cell]
    assert len(names) == 3
    assert [name for name in names if name in "".join(server.log)] == []
    below = [line.split()[2:4] for line in server.log if " DEBUG " in line or " INFO " in line]
    assert ["INFO", "sourcegraph_analytics_mcp.surface.events"] in below
    ours = ("sourcegraph_analytics_mcp", "uvicorn.error")
    assert [line for line in below if not line[1].startswith(ours)] == []


def test_an_interrupt_is_no_error(tmp_path: Path) -> None:
    server = Served(tmp_path, "--demo")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) == 128 + signal.SIGINT
    server.reader.join(10)
    assert not [line for line in server.log if "Traceback" in line or " ERROR " in line]


@pytest.mark.parametrize(
    ("sent", "status"), [((signal.SIGTERM, signal.SIGINT), -signal.SIGTERM), ((signal.SIGHUP,), 128 + signal.SIGHUP)]
)
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.long
def test_nothing_outlives_a_server_that_is_made_to_end(
    tmp_path: Path, sent: tuple[signal.Signals, ...], status: int, stopped: bool
) -> None:
    """Neither the query, nor what it was forked from though it was stopped, nor the query's copy of the data."""
    server = Served(tmp_path, "--demo", log_level="INFO", sql_timeout="50")
    made = server.result("export_csv", {"granularity": "by_user"}, server.credential)
    asked = {"export_id": made["structuredContent"]["export"]["id"], "sql": BOMBS[0]}
    asking = threading.Thread(target=unanswered, args=(server, asked))
    asking.start()
    with ExitStack() as watched:
        left = [os.pidfd_open(process) for process in (a_query(server.process.pid), *fork_servers(server.process.pid))]
        for process in left:
            watched.callback(os.close, process)
        if stopped:
            signal.pidfd_send_signal(left[1], signal.SIGSTOP)
        for number in sent:
            server.process.send_signal(number)
            assert server.hears(lambda line: "Shutting down" in line)
        assert server.process.wait(15) == status
        for process in left:
            assert select.select([process], [], [], 2)[0] == [process]
    server.end()
    asking.join(20)
    assert "Finished server process" in server.log[-1]
    assert list((server.home / "staging").iterdir()) == []


def unanswered(server: Served, asked: dict[str, Any]) -> None:
    with suppress(httpx2.HTTPError):
        server.post("query_export", asked, server.credential)


@pytest.mark.long
def test_a_server_that_was_started_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, "--demo", "serve", "--http"]
    environ = {"SRC_ANALYTICS_DATA_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
    with subprocess.Popen([*command, f"127.0.0.1:{free_port()}"], env=environ, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        too_long = threading.Timer(30, process.kill)
        too_long.start()
        assert any(line.startswith(b"Serving ") for line in process.stderr)
        process.send_signal(signal.SIGHUP)
        process.terminate()
        process.stderr.read()
        too_long.cancel()
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:8080", "192.0.2.1:80", "8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:1/x", "127.0.0.1:1?x", "[::1"],
)
def test_an_address_that_cannot_be_served_stops_the_start(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SRC_ANALYTICS_DATA_DIR", str(tmp_path))
    assert run(["--demo", "serve", "--http", address]) == 2
    assert "127.0.0.1" in capsys.readouterr().err


@pytest.mark.long
def test_where_it_serves_is_said_as_an_address_and_only_once_it_listens(tmp_path: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        address = f"[::1]:{taken.getsockname()[1]}"
        command = [*COMMAND, "--demo", "serve", "--http", address]
        environ = {"SRC_ANALYTICS_DATA_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
        in_vain = subprocess.run(command, env=environ, stderr=subprocess.PIPE, timeout=30, check=False)
    assert in_vain.returncode != 0
    assert b"Serving" not in in_vain.stderr
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        too_long = threading.Timer(30, process.kill)
        too_long.start()
        said = next((line for line in process.stderr if line.startswith(b"Serving ")), b"")
        process.terminate()
        process.stderr.read()
        too_long.cancel()
    assert said.startswith(f"Serving http://{address}/mcp. Send `Authorization: Bearer`".encode())
