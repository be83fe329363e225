"""How the process ends on a signal, whatever it runs and whenever that comes: soon, in order, with nothing left."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp_types import JSONRPCError, jsonrpc_message_adapter

from sourcegraph_analytics_mcp.demo.upstream import DEMO_COOKIE, DEMO_INSTANCE, DEMO_TOKEN
from support.commands import Command, finished
from support.engines import fork_servers
from support.stdio import COMMAND, META, Raw
from support.upstreams import Served

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CREATE = {"name": "create_token", "arguments": {"display_name": "nightly"}}
LIST: dict[str, Any] = {"name": "list_tokens", "arguments": {}}
LISTEN = {"notifications": {"resourcesListChanged": True}}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def comes_to_wait(process: "Command | subprocess.Popen[bytes]", *within: str) -> None:
    """Wait until its main thread waits within such a function of the system."""
    waits, patience = Path(f"/proc/{process.pid}/wchan"), time.monotonic() + 60
    while not any(name in waits.read_text() for name in within):
        assert process.poll() is None
        assert time.monotonic() < patience


class Serving:
    """A server over HTTP, once it listens, and its log."""

    def __init__(self, environment: dict[str, str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/mcp"
        self.process = Command(["serve", "--http", f"127.0.0.1:{port}"], environment)
        self.log: list[str] = []
        listens = threading.Event()

        def read() -> None:
            assert self.process.stderr is not None
            for line in self.process.stderr:
                self.log.append(line)
                if line.startswith("Serving "):
                    listens.set()

        self._reader = threading.Thread(target=read)
        self._reader.start()
        assert listens.wait(20), self.log
        credential = next(Path(environment["SRC_ANALYTICS_DATA_DIR"]).rglob("http-credential")).read_text()
        self.headers = {
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {credential}",
        }

    def modern(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """A request of the newest revision."""
        named = {"mcp-name": params["name"]} if "name" in params else {}
        headers = {**self.headers, "mcp-protocol-version": "2026-07-28", "mcp-method": method, **named}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
        return {"headers": headers, "json": body}

    def older(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """A request of an older revision, in a session of its own."""
        headers = {**self.headers, "mcp-protocol-version": "2025-11-25"}
        client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
        opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client}
        opened = httpx2.post(self.url, headers=headers, json=opening, timeout=20)
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return {"headers": {**headers, "mcp-session-id": opened.headers["mcp-session-id"]}, "json": body}

    def told(self) -> str:
        """All of its log, once it has ended."""
        self._reader.join(10)
        return "".join(self.log)


@pytest.fixture
def environment(tmp_path: Path, upstream: Served) -> dict[str, str]:
    """Of a process whose data are its own."""
    return {
        "HOME": str(tmp_path),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "SRC_ANALYTICS_URL": upstream.url,
        "SRC_ANALYTICS_INSTANCE": DEMO_INSTANCE,
        "SRC_ANALYTICS_ACCESS_TOKEN": DEMO_TOKEN,
        "SRC_ANALYTICS_CAS_COOKIE": DEMO_COOKIE,
        "SRC_ANALYTICS_DATA_DIR": str(tmp_path / "data"),
    }


@contextmanager
def over_stdio(environment: dict[str, str]) -> Iterator[Command]:
    process = Command([], environment)
    Raw(process, "2026-07-28").send("tools/call", CREATE)
    yield process


@contextmanager
def at_the_terminal(environment: dict[str, str]) -> Iterator[Command]:
    yield Command(["token", "create", "--name", "nightly"], environment)


@contextmanager
def _over_http(environment: dict[str, str], form: Callable[[Serving, str, dict[str, Any]], Any]) -> Iterator[Command]:
    server = Serving(environment)

    def ask() -> None:
        with suppress(httpx2.HTTPError):
            httpx2.post(server.url, timeout=20, **form(server, "tools/call", CREATE))

    asking = threading.Thread(target=ask)
    asking.start()
    yield server.process
    asking.join()
    server.told()


def over_http(environment: dict[str, str]) -> Any:
    return _over_http(environment, Serving.modern)


def over_older_http(environment: dict[str, str]) -> Any:
    return _over_http(environment, Serving.older)


@pytest.mark.long
@pytest.mark.parametrize(
    ("way", "sent"),
    [
        (over_stdio, signal.SIGINT),
        *((at_the_terminal, sent) for sent in SIGNALS),
        *((over_http, sent) for sent in SIGNALS),
        (over_older_http, signal.SIGINT),
    ],
)
def test_no_end_waits_for_a_keyring_that_hangs_and_its_token_is_put_right_later(
    environment: dict[str, str],
    way: Callable[[dict[str, str]], Any],
    sent: signal.Signals,
    tmp_path: Path,
    upstream: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).parent)  # where the keyring is found
    os.mkfifo(tmp_path / "asked")
    before = [token.id for token in upstream.desk.tokens]
    hanging = {"PYTHON_KEYRING_BACKEND": "support.keyring_backend.Hanging", "ASKED": str(tmp_path / "asked")}
    with way(environment | hanging) as process:
        (tmp_path / "asked").read_text()  # when it is asked
        process.send_signal(sent)
        service = way in (over_http, over_older_http) and sent == signal.SIGTERM
        assert process.wait(5) == (-sent if service else 128 + sent)
    assert len(list((tmp_path / "data").rglob("creates/*.json"))) == 1
    made = [token for token in upstream.desk.tokens if token.id not in before]
    assert [token.revoked for token in made] == [False]
    later = finished("token", "list", **environment, COLUMNS="200")
    assert f"the token it had made ({made[0].id}) was revoked" in later.stdout
    assert [token.revoked for token in upstream.desk.tokens if token.id == made[0].id] == [True]


@pytest.mark.long
@pytest.mark.parametrize("sent", SIGNALS)
def test_no_end_waits_for_a_keyring_that_is_only_asked(
    environment: dict[str, str], tmp_path: Path, sent: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    working = {"PYTHON_KEYRING_BACKEND": "support.keyring_backend.MemoryKeyring"}
    made = finished("token", "create", **environment | working)
    (token,) = json.loads((tmp_path / "data" / "tokens.json").read_text())
    assert (made.returncode, token["place"]) == (0, "keyring")
    os.mkfifo(tmp_path / "asked")
    hanging = {"PYTHON_KEYRING_BACKEND": "support.keyring_backend.Hanging", "ASKED": str(tmp_path / "asked")}
    process = Command(["token", "reveal", token["id"]], environment | hanging)
    (tmp_path / "asked").read_text()  # when it is asked
    comes_to_wait(process, "poll", "futex")
    process.send_signal(sent)
    assert process.wait(5) == 128 + sent


@pytest.mark.long
@pytest.mark.parametrize("over_stdio", [True, False])
def test_no_end_waits_for_a_keyring_that_asks_about_an_old_token(
    environment: dict[str, str], over_stdio: bool, tmp_path: Path, upstream: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    working = {"PYTHON_KEYRING_BACKEND": "support.keyring_backend.MemoryKeyring"}
    finished("token", "create", **environment | working)
    (old,) = json.loads((tmp_path / "data" / "tokens.json").read_text())
    next(token for token in upstream.desk.tokens if token.id == old["id"]).revoked = True
    asked = tmp_path / "asked"
    environment |= {"ASKED": str(asked), "ABOUT": old["id"]}
    environment["PYTHON_KEYRING_BACKEND"] = "support.keyring_backend.Hanging"
    process = Command([] if over_stdio else ["token", "create", "--name", "nightly"], environment)
    if over_stdio:
        raw = Raw(process, "2026-07-28")
        told = json.dumps(raw.ask("tools/call", CREATE))
    process.stdin.close()
    ended = process.wait(8)
    if not over_stdio:
        told = process.stdout.read().decode()
    assert (ended, asked.read_text()) == (0, "now")
    assert "but the keyring has not answered in time" in told


@pytest.mark.long
@pytest.mark.parametrize("over_stdio", [True, False])
def test_no_end_waits_for_a_name_that_is_looked_up(environment: dict[str, str], over_stdio: bool) -> None:
    script = (
        "import socket, sys, threading\n"
        "def hanging(*_, **__):\n    sys.stderr.write('asked\\n')\n    threading.Event().wait(60)\n"
        "socket.getaddrinfo = hanging\n"
        "from sourcegraph_analytics_mcp.__main__ import main\nmain()"
    )
    settings = {"SRC_ANALYTICS_URL": "https://analytics.example", "SRC_ANALYTICS_CONNECT_TIMEOUT": "0.1"}
    command = [sys.executable, "-c", script, *([] if over_stdio else ["token", "list"])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment | settings, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        if over_stdio:
            Raw(process, "2026-07-28").send("tools/call", LIST)
        assert any(b"asked" in line for line in process.stderr)
        process.stdin.close()
        try:
            assert process.wait(8) == (0 if over_stdio else 1)
        finally:
            process.kill()


@pytest.mark.parametrize("sent", SIGNALS)
@pytest.mark.long
def test_a_signal_ends_the_demo_with_all_that_it_made(tmp_path: Path, sent: signal.Signals) -> None:
    process = Command(["demo"], {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)})
    with process.stdout:
        assert any(b"as CSV" in line for line in process.stdout)
        while not (children := fork_servers(process.pid)):
            assert process.poll() is None
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(sent)
        assert process.wait(5) == 128 + sent
    assert list(tmp_path.iterdir()) == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert process.stderr is not None
    assert process.stderr.read() == ""


@pytest.mark.parametrize("sent", SIGNALS)
@pytest.mark.parametrize("command", [["doctor"], ["token", "list"]])
@pytest.mark.long
def test_a_signal_ends_a_command_that_waits_for_upstream(
    environment: dict[str, str], command: list[str], sent: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = Command(command, environment | {"SRC_ANALYTICS_URL": url})
        silent.accept()
        process.send_signal(sent)
        assert process.wait(5) == 128 + sent
    assert process.stderr is not None
    assert process.stderr.read() == ""


@pytest.mark.parametrize("command", [[], ["serve", "--http", "127.0.0.1:0"], ["token", "list"], ["demo"]])
@pytest.mark.parametrize("loaded", ["pydantic._internal._config", "mcp_types.jsonrpc"])
def test_a_signal_ends_it_while_it_loads(tmp_path: Path, command: list[str], loaded: str) -> None:
    started = [COMMAND[0], "-X", "importtime", *COMMAND[1:], "--demo", *command]
    with subprocess.Popen(
        started, env={"HOME": str(tmp_path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        too_long = threading.Timer(20, process.kill)
        too_long.start()
        assert any(line.split()[-1:] == [loaded.encode()] for line in process.stderr)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(5) == 130
        too_long.cancel()
    assert b"Traceback" not in rest


@pytest.mark.parametrize("sent", SIGNALS)
def test_a_signal_at_a_hidden_prompt_leaves_the_terminal_as_it_was(tmp_path: Path, sent: signal.Signals) -> None:
    keyboard, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "login"], stdin=terminal, stdout=terminal, stderr=terminal, env={"HOME": str(tmp_path)},
        start_new_session=True,
    ) as process:  # fmt: skip
        too_long = threading.Timer(20, process.kill)
        too_long.start()
        shown = b""
        while b"(hidden): " not in shown:
            shown += os.read(keyboard, 1000)
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        for _ in range(5):  # one right before a read is not heard
            process.send_signal(sent)
            with suppress(subprocess.TimeoutExpired):
                assert process.wait(2) == 128 + sent
                break
        assert process.poll() is not None
        too_long.cancel()
    assert termios.tcgetattr(terminal)[3] & termios.ECHO
    os.close(keyboard)
    os.close(terminal)


@pytest.mark.parametrize("form", [Serving.modern, Serving.older])
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.long
def test_streams_end_with_the_server_and_no_error(
    environment: dict[str, str], form: Callable[[Serving, str, dict[str, Any]], Any], sent: signal.Signals
) -> None:
    server = Serving(environment | {"SRC_ANALYTICS_LOG_LEVEL": "INFO"})
    asked = form(server, "subscriptions/listen", LISTEN)
    if form is Serving.older:
        asked.pop("json")
    method = "POST" if "json" in asked else "GET"
    with httpx2.stream(method, server.url, timeout=20, **asked) as answer:
        server.process.send_signal(sent)
        assert "error" not in answer.read().decode()  # to an end that is one
        assert server.process.wait(5) == (-sent if sent == signal.SIGTERM else 128 + sent)
    assert " ERROR " not in server.told()
    assert "Finished server process" in server.log[-1]


@pytest.mark.parametrize("form", [Serving.modern, Serving.older])
@pytest.mark.parametrize("sent", SIGNALS)
@pytest.mark.long
def test_a_call_that_is_answered_soon_is_though_the_server_ends(
    environment: dict[str, str], form: Callable[[Serving, str, dict[str, Any]], Any], sent: signal.Signals
) -> None:
    """And though streams without an end of their own end at once."""
    with socket.create_server(("127.0.0.1", 0)) as late:
        server = Serving(environment | {"SRC_ANALYTICS_URL": f"http://127.0.0.1:{late.getsockname()[1]}"})
        listening = form(server, "subscriptions/listen", LISTEN)
        if form is Serving.older:
            listening.pop("json")
        answers: list[httpx2.Response] = []

        def ask() -> None:
            answers.append(httpx2.post(server.url, timeout=20, **form(server, "tools/call", LIST)))

        asking = threading.Thread(target=ask)
        asking.start()
        connection, _ = late.accept()
        with httpx2.stream("POST" if "json" in listening else "GET", server.url, timeout=20, **listening) as stream:
            server.process.send_signal(sent)
            stream.read()
        asking.join(0.7)  # a library would cut it off within half a second
        assert answers == []
        with connection:
            connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            asking.join()
        assert server.process.wait(5) == (-sent if sent == signal.SIGTERM else 128 + sent)
    assert " ERROR " not in server.told()
    assert [answer.status_code for answer in answers] == [200]
    assert "[session_expired]" in answers[0].text


@pytest.mark.long
def test_a_second_interrupt_waits_for_no_call(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = Serving(environment | {"SRC_ANALYTICS_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        cut: list[type[BaseException]] = []

        def ask() -> None:
            try:
                httpx2.post(server.url, timeout=20, **server.modern("tools/call", LIST))
            except httpx2.HTTPError as error:
                cut.append(type(error))

        asking = threading.Thread(target=ask)
        asking.start()
        silent.accept()
        listening = server.modern("subscriptions/listen", LISTEN)
        with httpx2.stream("POST", server.url, timeout=20, **listening) as stream:
            server.process.send_signal(signal.SIGINT)
            stream.read()  # once it is heard
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(5) == 128 + signal.SIGINT
        asking.join()
    server.told()
    assert cut == [httpx2.RemoteProtocolError]


@pytest.mark.parametrize("form", [Serving.modern, Serving.older])
@pytest.mark.long
def test_a_call_that_goes_on_ends_with_the_server_and_no_error(
    environment: dict[str, str], form: Callable[[Serving, str, dict[str, Any]], Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = Serving(environment | {"SRC_ANALYTICS_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        answers: list[httpx2.Response] = []

        def ask() -> None:
            answers.append(httpx2.post(server.url, timeout=20, **form(server, "tools/call", LIST)))

        asking = threading.Thread(target=ask)
        asking.start()
        silent.accept()
        server.process.terminate()
        assert server.process.wait(5) == -signal.SIGTERM
        asking.join()
    assert " ERROR " not in server.told()
    assert [answer.status_code for answer in answers] == [503 if form is Serving.modern else 200]
    if form is Serving.modern:
        assert answers[0].headers["content-type"] == "application/json"
        said = answers[0].text
    else:  # the stream of its answer has begun
        (said,) = re.findall("^event: message\\r\ndata: (.*)\\r\n\\r\n\\Z", answers[0].text, re.MULTILINE)
    refused = jsonrpc_message_adapter.validate_json(said, by_name=False)
    assert isinstance(refused, JSONRPCError)
    assert refused.id == 1
    assert "whether the call was done is not known" in refused.error.message


@pytest.mark.long
def test_a_command_that_was_started_to_outlive_a_signal_does(environment: dict[str, str]) -> None:
    """As shells start what goes on in the background."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        line = ["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *COMMAND, "token", "list"]
        with subprocess.Popen(line, env=environment | {"SRC_ANALYTICS_URL": url}) as process:
            silent.accept()
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 128 + signal.SIGTERM


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "number"),
    [(["--demo", "token", "list"], signal.SIGTERM), (["--demo", "doctor"], signal.SIGINT), (["demo"], signal.SIGHUP)],
)
def test_a_signal_ends_a_command_whose_output_nobody_reads(
    arguments: list[str], number: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    """It comes while the loop writes, and so cannot hear."""
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with suppress(BlockingIOError):
        while os.write(full, b"x"):
            pass
    os.set_blocking(full, True)
    process = subprocess.Popen(
        [*COMMAND, *arguments], env={**environment, "TMPDIR": str(tmp_path)}, stdin=subprocess.DEVNULL, stdout=full
    )
    os.close(full)
    comes_to_wait(process, "pipe_write")
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    os.close(unread)
    assert list(tmp_path.glob("sourcegraph-analytics-demo-*")) == []
