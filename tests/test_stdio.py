"""The command as clients start it: both protocol eras, a pure stdout, prompt and clean ends."""

import asyncio
import fcntl
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import pytest
from mcp_types import JSONRPCNotification, JSONRPCRequest

from sourcegraph_analytics_mcp.cli.lines import Input, Output
from sourcegraph_analytics_mcp.cli.unanswered import Unanswered
from sourcegraph_analytics_mcp.demo.upstream import DEMO_COOKIE, DEMO_INSTANCE, DEMO_TOKEN
from support.client import REVISIONS
from support.commands import finished
from support.engines import a_query, engines, fork_servers
from support.statements import BOMBS
from support.stdio import COMMAND, META, Raw, spawned
from support.upstreams import Served


def settings_for(upstream: Served, home: Path) -> dict[str, Any]:
    return {
        "url": upstream.url,
        "instance": DEMO_INSTANCE,
        "access_token": DEMO_TOKEN,
        "data_dir": str(home / "kept"),
        "log_level": "DEBUG",
    }


def ended(raw: Raw) -> None:
    """Close the input; the last lines of the log are written before the end."""
    assert raw.process.stdin is not None
    raw.process.stdin.close()
    assert raw.process.wait(5) == 0


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_demo_answers_over_stdio(tmp_path: Path, revision: str) -> None:
    with spawned(tmp_path, "--demo", revision=revision) as raw:
        raw.handshake()
        assert len(raw.ask("tools/list")["tools"]) >= 8
        exported = raw.ask("tools/call", {"name": "export_csv", "arguments": {"granularity": "by_user"}})
        export = exported["structuredContent"]["export"]
        assert export["row_count"] > 150
        summary = raw.ask("resources/read", {"uri": export["summary_uri"]})["contents"][0]["text"]
        assert "## Totals" in summary
        assert raw.process.stdin is not None
        raw.process.stdin.close()
        assert raw.process.wait(5) == 0


@pytest.mark.parametrize("revision", REVISIONS[:-1])
@pytest.mark.long
def test_earlier_revisions_hear_that_the_list_has_changed(tmp_path: Path, revision: str) -> None:
    with spawned(tmp_path, "--demo", revision=revision) as raw:
        assert raw.handshake()["capabilities"]["resources"]["listChanged"] is True
        raw.ask("tools/call", {"name": "export_csv", "arguments": {"granularity": "by_user"}})
        raw.ask("tools/list")
        assert "notifications/resources/list_changed" in raw.notified


def test_the_log_has_one_line_per_call_and_no_content(tmp_path: Path, upstream: Served) -> None:
    with spawned(tmp_path, **settings_for(upstream, tmp_path)) as raw:
        raw.handshake()
        done = raw.ask("tools/call", {"name": "export_csv", "arguments": {"granularity": "by_user"}})
        raw.ask("tools/call", {"name": "list_tokens", "arguments": {}})
        uri = done["structuredContent"]["export"]["summary_uri"]
        summary = raw.ask("resources/read", {"uri": uri})["contents"][0]["text"]
        raw.answer(raw.send("resources/read", {"uri": f"{uri}x"}))
        asked = raw.ask("prompts/get", {"name": "monthly_adoption_report"})["messages"][0]["content"]["text"]
        ended(raw)
    log = (tmp_path / "stderr").read_text()
    calls = [line.split(" call ")[1] for line in log.splitlines() if " call " in line]
    assert [re.sub(r"ms=\d+ ", "", line) for line in calls] == [
        f"tool=export_csv outcome=ok rows=40 bytes={len(done['content'][0]['text'].encode())} id=2",
        "tool=list_tokens outcome=auth_missing rows=0 bytes=0 id=3",
        f"method=resources/read outcome=ok rows=0 bytes={len(summary.encode())} id=4",
        "method=resources/read outcome=refused rows=0 bytes=0 id=5",
        f"method=prompts/get outcome=ok rows=0 bytes={len(asked.encode())} id=6",
    ]
    assert DEMO_TOKEN not in log
    for person in upstream.company.people:
        assert person.email not in log
        assert person.username not in log


@pytest.mark.long
def test_the_log_says_where_the_engine_failed_and_nothing_that_it_said(tmp_path: Path, upstream: Served) -> None:
    """What the engine says of data that it cannot read is where they lie."""
    kept = tmp_path / "kept by anybody@example.com"
    with spawned(tmp_path, **settings_for(upstream, tmp_path) | {"data_dir": str(kept)}) as raw:
        raw.handshake()
        done = raw.ask("tools/call", {"name": "export_csv", "arguments": {"granularity": "by_user_day"}})
        export = done["structuredContent"]["export"]
        (kept / "exports" / export["id"] / "parts" / "00000.parquet").write_bytes(b"no parquet")
        asked = {"metrics": ["searches"], "period": "all_time"}
        answer = raw.ask("tools/call", {"name": "query_usage", "arguments": asked})
        assert answer["structuredContent"]["error"]["code"] == "internal"
        ended(raw)
    log = (tmp_path / "stderr").read_text()
    assert re.search(r"WARNING \S+ A question ended: the engine failed: \w+Exception at child.py:\d+ > ", log)
    assert [line for line in log.splitlines() if not re.match(r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ ", line)] == []
    assert "anybody" not in log


def running_query(raw: Raw) -> int:
    """The process of a long query that has begun."""
    raw.handshake()
    done = raw.ask("tools/call", {"name": "export_csv", "arguments": {"granularity": "by_user"}})
    raw.ask("tools/call", {"name": "query_usage", "arguments": {"metrics": ["searches"]}})  # by another engine
    asked = {"export_id": done["structuredContent"]["export"]["id"], "sql": BOMBS[0]}
    raw.send("tools/call", {"name": "query_export", "arguments": asked})
    return a_query(raw.process.pid)


@pytest.mark.long
def test_a_query_does_not_outlive_a_server_that_is_killed(tmp_path: Path, upstream: Served) -> None:
    with spawned(tmp_path, **settings_for(upstream, tmp_path), sql_timeout="50") as raw:
        query = os.pidfd_open(running_query(raw))
        try:
            raw.process.kill()
            assert select.select([query], [], [], 2)[0] == [query]  # it is readable once the process has ended
        finally:
            os.close(query)


@pytest.mark.parametrize("sent", [None, signal.SIGTERM], ids=["end of input", "a signal"])
@pytest.mark.long
def test_a_query_does_not_outlive_a_server_whose_fork_server_was_stopped(
    tmp_path: Path, upstream: Served, sent: signal.Signals | None
) -> None:
    with spawned(tmp_path, **settings_for(upstream, tmp_path), sql_timeout="50") as raw, ExitStack() as watched:
        left = [running_query(raw), *fork_servers(raw.process.pid)]
        for number, process in enumerate(left):
            left[number] = os.pidfd_open(process)
            watched.callback(os.close, left[number])
        signal.pidfd_send_signal(left[1], signal.SIGSTOP)
        if sent is None:
            assert raw.process.stdin is not None
            raw.process.stdin.close()
        else:
            raw.process.send_signal(sent)
        assert raw.process.wait(8) == (128 + sent if sent else 0)
        for process in left:
            assert select.select([process], [], [], 2)[0] == [process]


@pytest.mark.long
def test_nothing_is_printed_at_the_end_however_strict_python_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    with spawned(tmp_path, "--demo", command=COMMAND, log_level="ERROR") as raw:
        assert raw.process.stdin is not None
        raw.process.stdin.close()
        assert raw.process.wait(8) == 0
    assert (tmp_path / "stderr").read_text() == ""


@pytest.mark.long
def test_a_query_knows_no_secret_and_has_nothing_open_but_its_copy(tmp_path: Path, upstream: Served) -> None:
    secrets = {"access_token": DEMO_TOKEN, "cas_cookie": DEMO_COOKIE}
    with spawned(tmp_path, command=COMMAND, **settings_for(upstream, tmp_path) | secrets, sql_timeout="50") as raw:
        query = Path(f"/proc/{running_query(raw)}")
        opened = {file.name: str(file.readlink()) for file in (query / "fd").iterdir()}
        told = (query / "environ").read_text() + (query / "cmdline").read_text()
        server = Path(f"/proc/{raw.process.pid}/environ").read_text()
    assert all(secret in server and secret not in told for secret in secrets.values())
    assert "SRC_ANALYTICS" not in told
    assert str(tmp_path) not in told
    conversation, copies = re.escape(opened["0"]), re.escape(str(tmp_path / "kept" / "staging" / "query-"))
    expected = re.compile(rf"{conversation}|/dev/null|{copies}\w+/\d+\.parquet")
    if Path(sys.executable).read_bytes().startswith(b"#!"):  # coverage is measured: it tells a listener
        (listener,) = {link for link in opened.values() if link.startswith("socket:")} - {opened["0"]}
        opened = {name: link for name, link in opened.items() if link != listener}
    assert conversation.startswith("socket:")
    assert {"0", "1", "2"} < set(opened)
    assert [link for link in opened.values() if not expected.fullmatch(link)] == []


@pytest.mark.parametrize(("limit", "most"), [(resource.RLIMIT_AS, 1 << 30), (resource.RLIMIT_NOFILE, 200)])
@pytest.mark.long
def test_an_engine_works_where_less_is_allowed_than_it_may_have(tmp_path: Path, limit: int, most: int) -> None:
    with spawned(tmp_path, "--demo") as raw:
        resource.prlimit(raw.process.pid, limit, (most, most))
        raw.handshake()
        made = raw.ask("tools/call", {"name": "export_csv", "arguments": {"granularity": "by_user"}})
        asked = {"export_id": made["structuredContent"]["export"]["id"], "sql": "SELECT count(*) FROM usage"}
        for question in (
            {"name": "query_usage", "arguments": {"metrics": ["searches"]}},
            {"name": "query_export", "arguments": asked},
        ):
            assert not raw.ask("tools/call", question)["isError"]


_LARGE_STACKS = ("sh", "-c", 'ulimit -S -s 1048576; exec "$@"', "sh", *COMMAND)  # of a gibibyte each


@pytest.mark.long
def test_where_the_system_has_no_more_threads_calls_are_busy_and_it_goes_on(tmp_path: Path) -> None:
    with spawned(tmp_path, "--demo") as raw:
        raw.handshake()
        made = raw.ask("tools/call", {"name": "export_csv", "arguments": {"granularity": "by_user"}})
        export = made["structuredContent"]["export"]["id"]
        ended(raw)
    asked = [
        {"name": "query_export", "arguments": {"export_id": export, "sql": "SELECT count(*) FROM usage"}},
        {"name": "export_csv", "arguments": {"granularity": "by_user_day"}},
        {"name": "query_usage", "arguments": {"metrics": ["searches"]}},
        {"name": "list_tokens", "arguments": {}},
    ]
    (tmp_path / "data").rename(tmp_path / "put aside")  # else there would be a thread that has swept it
    with spawned(tmp_path, "--demo", command=_LARGE_STACKS) as raw:
        raw.handshake()
        (tmp_path / "put aside").rename(tmp_path / "data")
        used = int(Path(f"/proc/{raw.process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.prlimit(raw.process.pid, resource.RLIMIT_AS, (used + (512 << 20), resource.RLIM_INFINITY))
        numbers = {raw.send("tools/call", each) for each in asked}
        answers = [raw.next_answer() for _ in asked]
        assert {answer["id"] for answer in answers} == numbers
        errors = [answer["result"]["structuredContent"]["error"] for answer in answers]
        assert [(error["code"], error["retryable"]) for error in errors] == [("busy", True)] * len(asked)
        unread = raw.answer(raw.send("resources/read", {"uri": "analytics://exports"}))["error"]
        assert unread["message"].startswith("[busy] ")
        raw.write(b'{"jsonrpc":"2.0","id":0,"method":"%s"}\n' % (b"x" * 1_100_000))
        assert "longer than 1,048,576 bytes" in raw.answer(0)["error"]["message"]
        resource.prlimit(raw.process.pid, resource.RLIMIT_AS, (hard, hard))
        assert [raw.ask("tools/call", each)["isError"] for each in asked] == [False] * len(asked)


@pytest.mark.long
def test_it_ends_with_the_input_where_the_system_has_no_more_threads(tmp_path: Path) -> None:
    with spawned(tmp_path, "--demo", command=_LARGE_STACKS) as raw:
        raw.handshake()
        resource.prlimit(raw.process.pid, resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
        assert raw.ask("tools/call", {"name": "list_tokens", "arguments": {}})["isError"]
        assert raw.process.stdin is not None
        raw.process.stdin.close()
        assert raw.process.wait(2) == 0


@pytest.mark.parametrize("arguments", [["--demo"], ["token", "list"]])
@pytest.mark.long
def test_a_start_for_which_the_system_has_no_threads_ends_with_a_sentence(tmp_path: Path, arguments: list[str]) -> None:
    limited = ("sh", "-c", 'ulimit -S -s 1048576 && ulimit -v 1048576 && exec "$@"', "sh", *COMMAND, *arguments)
    done = subprocess.run(limited, env={"HOME": str(tmp_path)}, input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "The system has no more threads for this command: raise the limits that it runs under.\n"


def test_a_thread_that_waits_keeps_no_process_alive() -> None:
    code = (
        "import anyio, os; from sourcegraph_analytics_mcp.cli.worker import Worker\n"
        "async def main():\n"
        "    with anyio.move_on_after(0.01):\n"
        "        await Worker('read').run(lambda: os.read(0, 1))\n"
        "anyio.run(main)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.fixture
def unread() -> Iterator[tuple[BinaryIO, int]]:
    """A pipe that holds a page: the end to read, and the end that the server writes its log to."""
    source, sink = os.pipe()
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(source, "rb") as file, os.fdopen(sink, "wb"):
        yield file, sink


def numbers(lines: Iterable[bytes]) -> list[int]:
    return [int(line.rsplit(b" id=")[1]) for line in lines if b" call tool=" in line]


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.long
def test_a_log_that_nobody_reads_holds_up_nothing_and_says_later_what_it_lost(
    tmp_path: Path, unread: tuple[BinaryIO, int], *, blocking: bool
) -> None:
    file, sink = unread
    os.set_blocking(sink, blocking)
    call = {"name": "list_exports", "arguments": {"limit": 1}}
    with spawned(tmp_path, "--demo", log=sink, log_level="INFO") as raw:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), sink)  # so that the log ends with the server
        raw.handshake()
        for _ in range(1200):
            assert "result" in raw.answer(raw.send("tools/call", call))
        read = [file.readline()]
        while b"were dropped" not in read[-1] and len(read) < 1150:
            read.append(file.readline())
            if len(read) == 1000:  # the queue is short again, and takes what is told to it
                raw.ask("tools/call", call)
        assert b"were dropped" in read[-1]
        before, lost = numbers(read), int(read[-1].split(b" lines of the log")[0].split()[-1])
        after = numbers([file.readline()])[0]
    assert before == list(range(2, len(before) + 2))
    assert (len(before) > 1000, lost > 50, after) == (True, True, len(before) + lost + 2)


@pytest.mark.parametrize("sent", [None, signal.SIGTERM])
@pytest.mark.long
def test_it_ends_promptly_though_nobody_reads_its_log(
    tmp_path: Path, unread: tuple[BinaryIO, int], sent: signal.Signals | None
) -> None:
    with spawned(tmp_path, "--demo", log=unread[1], log_level="INFO") as raw:
        raw.handshake()
        for _ in range(100):
            raw.ask("tools/call", {"name": "list_exports", "arguments": {}})
        assert raw.process.stdin is not None
        raw.process.stdin.close() if sent is None else raw.process.send_signal(sent)
        assert raw.process.wait(5) == (128 + sent if sent else 0)


@pytest.mark.long
def test_a_log_that_cannot_be_written_for_a_while_goes_on_later(tmp_path: Path) -> None:
    call = {"name": "list_exports", "arguments": {"limit": 1}}
    with spawned(tmp_path, "--demo", log_level="INFO") as raw:
        raw.handshake()
        before = resource.prlimit(raw.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for _ in range(300):  # more than are written at once
            raw.ask("tools/call", call)
        resource.prlimit(raw.process.pid, resource.RLIMIT_FSIZE, before)
        raw.ask("tools/call", call)
        ended(raw)
    found = numbers((tmp_path / "stderr").read_bytes().splitlines())
    assert found[-1] == 302
    assert len(found) < 301


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("busy", [False, True])
def test_a_signal_ends_it_cleanly(tmp_path: Path, upstream: Served, sent: signal.Signals, busy: bool) -> None:
    with spawned(tmp_path, **settings_for(upstream, tmp_path)) as raw:
        raw.handshake()
        if busy:
            raw.send("tools/call", {"name": "export_csv", "arguments": {}})
            wait_for_engine(raw)
        children = [*fork_servers(raw.process.pid), *engines(raw.process.pid)]
        raw.process.send_signal(sent)
        assert raw.process.wait(5) == 128 + sent
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    staging = tmp_path / "kept" / "staging"
    assert not staging.exists() or list(staging.iterdir()) == []


def test_end_of_input_ends_it_while_an_export_runs(tmp_path: Path, upstream: Served) -> None:
    with spawned(tmp_path, **settings_for(upstream, tmp_path)) as raw:
        raw.handshake()
        raw.send("tools/call", {"name": "export_csv", "arguments": {}})
        wait_for_engine(raw)
        assert raw.process.stdin is not None
        raw.process.stdin.close()
        assert raw.process.wait(2) == 0
    assert list((tmp_path / "kept" / "staging").iterdir()) == []


@pytest.mark.parametrize("piped", [True, False], ids=["a pipe", "a plain file"])
@pytest.mark.long
def test_what_was_asked_before_the_end_of_the_input_is_answered(tmp_path: Path, *, piped: bool) -> None:
    numbers = [*range(20), "last"]
    asked = [{"jsonrpc": "2.0", "id": number, "method": "tools/list", "params": {"_meta": META}} for number in numbers]
    lines = "".join(f"{json.dumps(request)}\n" for request in asked)
    (tmp_path / "asked").write_text(lines)
    command, environment = [*COMMAND, "--demo"], {"HOME": str(tmp_path)}
    with (tmp_path / "asked").open() as file:
        given: dict[str, Any] = {"input": lines} if piped else {"stdin": file}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True, **given)
    assert sorted(str(json.loads(line)["id"]) for line in done.stdout.splitlines()) == sorted(map(str, numbers))


@pytest.mark.long
def test_an_endless_file_holds_up_neither_an_answer_nor_the_end(tmp_path: Path) -> None:
    with (tmp_path / "asked").open("w+") as file:
        json.dump({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}, file)
        file.write("\n")
        file.truncate(1 << 36)
        file.seek(0)
        with started(tmp_path, file, subprocess.PIPE) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["id"] == 1
            process.terminate()
            assert process.wait(5) == 128 + signal.SIGTERM


@pytest.mark.long
def test_output_that_does_not_block_is_written_whole(tmp_path: Path) -> None:
    source, sink = os.pipe()
    fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(sink, False)
    with os.fdopen(source, "rb") as file, started(tmp_path, subprocess.PIPE, sink) as process:
        os.close(sink)
        raw = Raw(process, "2026-07-28")
        numbers = [raw.send("tools/list") for _ in range(20)]  # each answer is longer than there is room for
        assert sorted(json.loads(file.readline())["id"] for _ in numbers) == numbers
        ended(raw)


@pytest.mark.long
def test_a_client_that_closes_its_socket_without_reading_all_ends_it_cleanly(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"what is never read")
    with theirs, started(tmp_path, theirs, subprocess.PIPE) as process:
        ours.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}).encode())
        ours.send(b"\n")
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["id"] == 1
        ours.close()
        assert process.wait(5) == 0


@contextmanager
def started(home: Path, stdin: Any, stdout: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """The demo with these streams; it is killed at the end, or after 20 seconds, so that a test fails and ends."""
    streams = {"stdin": stdin, "stdout": stdout}
    with subprocess.Popen([*COMMAND, "--demo"], env={"HOME": str(home)}, **streams) as process:
        too_long = threading.Timer(20, process.kill)
        too_long.start()
        try:
            yield process
        finally:
            too_long.cancel()
            process.kill()


@pytest.mark.anyio
@pytest.mark.parametrize("blocking", [True, False])
async def test_another_reader_of_the_input_that_is_faster_holds_up_nothing(*, blocking: bool) -> None:
    source, sink = os.pipe()
    os.set_blocking(source, blocking)
    faster = os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_NONBLOCK)

    def take() -> None:
        with suppress(BlockingIOError):  # this time it was not faster
            os.read(faster, 1)

    asyncio.get_running_loop().add_reader(faster, take)
    with os.fdopen(source, "rb", buffering=0) as file, os.fdopen(sink, "wb", buffering=0) as given:
        too_late = threading.Timer(10, given.close)  # so that what is held up fails
        too_late.start()
        lines = Input(file, Output(given, Unanswered()), Unanswered(), lambda: None)
        line = asyncio.ensure_future(anext(lines))
        for _ in range(100):
            for _ in range(10):  # by then who waits is waiting, or reads where there is nothing any more
                await asyncio.sleep(0)
            given.write(b" ")
            while select.select([source], [], [], 0)[0]:
                await asyncio.sleep(0)
        asyncio.get_running_loop().remove_reader(faster)
        given.write(b"[]\n")
        assert (await line).strip() == "[]"
        assert os.get_blocking(source) == blocking  # which others may rely on
        too_late.cancel()
    os.close(faster)


@pytest.mark.anyio
async def test_what_has_no_answer_to_wait_for_is_not_waited_for() -> None:
    unanswered = Unanswered()
    for number, method in enumerate(("tools/call", "tools/list", "subscriptions/listen")):
        unanswered.came(JSONRPCRequest(jsonrpc="2.0", id=number, method=method))
    unanswered.came(JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params={"requestId": 0}))
    for odd in (None, {"requestId": [1]}, {"requestId": 7}):
        unanswered.came(JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=odd))
    unanswered.went(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')  # a request of the server's own is no answer
    with anyio.fail_after(20):
        await unanswered.wait(0.01)
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await unanswered.wait(60)
        unanswered.went(b'{"jsonrpc":"2.0","id":1,"result":{"id":7}}')
        await unanswered.wait(60)


def wait_for_engine(raw: Raw) -> None:
    while not engines(raw.process.pid):
        raw.ask("ping") if raw.revision != "2026-07-28" else raw.ask("tools/list")


def test_what_is_no_message_is_dropped_and_the_rest_is_answered(tmp_path: Path) -> None:
    with spawned(tmp_path, "--demo") as raw:
        raw.handshake()
        for line in (b"not json\n", b"[]\n", b"\xff\xfe\n", b'{"jsonrpc": "2.0"}\n', b"[" * 10_000 + b"\n"):
            raw.write(line)
            assert raw.ask("tools/list")["tools"]


@pytest.mark.parametrize("odd", [b"[" * 1000 + b"]" * 1000, b'"\\ud800"', b"1,,"], ids=["deep", "surrogate", "no JSON"])
def test_a_request_that_cannot_be_read_is_answered(tmp_path: Path, odd: bytes) -> None:
    with spawned(tmp_path, "--demo") as raw:
        raw.handshake()
        raw.write(b'{"jsonrpc":"2.0","id":71,"method":"tools/call","params":{"name":"x","arguments":{"a":%s}}}\n' % odd)
        assert "nested too deeply" in raw.answer(71)["error"]["message"]
        raw.write(b'{"jsonrpc":"2.0","id":72,"result":%s}\n' % odd)  # an answer, which nobody answers
        number = raw.send("tools/list")
        assert raw.next_answer()["id"] == number


_ODD_IDS = [b"007", b"-0", b"-1", b"1.5", b"1e5", b"9" * 30, b"9" * 5000, b'"a\\"b"', b'"\\ud800"', b"00", b"1_0"]


def test_an_odd_id_ends_nothing_wherever_it_stands(tmp_path: Path) -> None:
    with spawned(tmp_path, "--demo") as raw:
        raw.handshake()
        for odd in _ODD_IDS:
            raw.write(b'{"jsonrpc":"2.0","id":%s,"method":"ping"}\n' % odd)
            raw.write(b'{"jsonrpc":"2.0","method":"ping","params":{"a":1,,"b":"c"},"x":"y","id":%s}\n' % odd)
            assert raw.ask("tools/list")["tools"], odd
        raw.write(b'{"jsonrpc":"2.0","id":007,"method":"%s"}\n' % (b"x" * 1_100_000))
        assert "longer than 1,048,576 bytes" in raw.answer(None)["error"]["message"]


def most_resident(raw: Raw) -> int:
    """Memory in use at the most so far, in bytes."""
    status = Path(f"/proc/{raw.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


@pytest.mark.parametrize("size", [1_100_000, 60_000_000])
@pytest.mark.long
def test_an_overlong_line_is_answered_and_costs_no_memory(tmp_path: Path, size: int) -> None:
    padding = b"x" * size
    with spawned(tmp_path, "--demo", lifetime=30) as raw:
        raw.handshake()
        raw.ask("tools/list")
        before = most_resident(raw)
        for line, number in (
            (b'{"jsonrpc": "2.0", "id": 71, "method": "tools/call", "params": {"x": "%s"}}' % padding, 71),
            (b'{"method":"tools/call","params":{"x":"%s"},"jsonrpc":"2.0","id":"a-1"}' % padding, "a-1"),
            (padding, None),
        ):
            raw.write(line + b"\n")
            error = raw.answer(number)["error"]
            assert "longer than 1,048,576 bytes" in error["message"]
        assert raw.ask("tools/list")["tools"]
        assert most_resident(raw) - before < 16 << 20


@pytest.mark.long
def test_many_and_doubled_keys_are_answered_and_cost_little_memory(tmp_path: Path) -> None:
    many = ",".join(f'"k{number}":0' for number in range(70_000))
    doubled = '"limit":1,' * 90_000 + '"limit":2'
    with spawned(tmp_path, "--demo", lifetime=30) as raw:
        raw.handshake()
        raw.ask("tools/list")
        before = most_resident(raw)
        for given, says in ((many, "there is no argument"), (doubled, "No exports")):
            message = {"name": "list_exports", "arguments": {}, "_meta": META}
            line = json.dumps({"jsonrpc": "2.0", "id": 71, "method": "tools/call", "params": message})
            raw.write(line.replace('"arguments": {}', f'"arguments": {{{given}}}').encode() + b"\n")
            told = raw.answer(71)["result"]["content"][0]["text"]
            assert says in told
            assert len(told) <= 2000
        assert raw.ask("tools/list")["tools"]
        assert most_resident(raw) - before < 48 << 20


def test_an_overlong_line_that_never_ends_is_answered_too(tmp_path: Path) -> None:
    with spawned(tmp_path, "--demo") as raw:
        raw.handshake()
        raw.write(b'{"jsonrpc": "2.0", "id": 71, "method": "' + b"x" * 1_100_000)
        assert raw.process.stdin is not None
        raw.process.stdin.close()
        assert "longer than 1,048,576 bytes" in raw.answer(71)["error"]["message"]
        assert raw.process.wait(5) == 0


def test_changed_text_is_not_acted_on(tmp_path: Path, upstream: Served) -> None:
    with spawned(tmp_path, **settings_for(upstream, tmp_path)) as raw:
        raw.handshake()
        line = json.dumps(
            {"jsonrpc": "2.0", "id": 9, "method": "tools/call"}
            | {"params": {"name": "get_credits", "arguments": {"instance_url": "a@b.example"}, "_meta": META}}
        ).encode()
        raw.write(line.replace(b"@", b"\xff") + b"\n")
        assert "not valid UTF-8" in raw.answer(9)["error"]["message"]
        assert raw.ask("tools/list")["tools"]
    assert upstream.sent("GET") == []


@pytest.mark.anyio
async def test_a_line_that_cannot_be_encoded_is_written_all_the_same() -> None:
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as there, os.fdopen(sink, "wb") as file:
        output = Output(file, Unanswered())
        await output.write("half a pair \ud800")
        await output.write("\n")
        await output.flush()
        assert there.readline() == b"half a pair ?\n"


@pytest.mark.long
def test_what_else_prints_goes_to_stderr_and_what_else_reads_finds_nothing() -> None:
    code = (
        "import os, sys; from sourcegraph_analytics_mcp.cli.lines import standard_streams\n"
        "source, sink = standard_streams(); print('printed', sys.stdin.read(), flush=True); os.write(1, b'written')\n"
        "sink.write(b'said ' + source.readline()); sink.flush()"
    )
    ended = subprocess.run([sys.executable, "-c", code], input=b"asked", capture_output=True, timeout=20, check=True)
    assert ended.stdout == b"said asked"
    assert ended.stderr == b"printed \nwritten"


@pytest.mark.long
def test_500_calls_at_once_are_all_answered(tmp_path: Path) -> None:
    with spawned(tmp_path, "--demo", lifetime=180) as raw:
        raw.handshake()
        raw.ask("tools/call", {"name": "export_csv", "arguments": {"granularity": "by_user"}})
        calls = [
            ("list_exports", {}),
            ("query_usage", {"metrics": ["searches"], "period": "all_time"}),
            ("export_csv", {"granularity": "by_user"}),
            ("query_usage", {"metrics": ["nothing"]}),
            ("check_connection", {}),
        ]
        numbers = {
            raw.send("tools/call", {"name": calls[n % 5][0], "arguments": calls[n % 5][1]}): n % 5 for n in range(500)
        }
        failed = dict.fromkeys(range(5), 0)
        for _ in range(500):
            message = raw.next_answer()
            failed[numbers.pop(message["id"])] += message["result"]["isError"]
    assert not numbers
    assert failed == {0: 0, 1: 0, 2: 0, 3: 100, 4: 0}


def test_one_id_twice_at_once_confuses_nothing(tmp_path: Path) -> None:
    with spawned(tmp_path, "--demo") as raw:
        raw.handshake()
        for tool, given in (("list_exports", {}), ("query_usage", {"metrics": ["nothing"]})):
            params = {"name": tool, "arguments": given, "_meta": META}
            message = {"jsonrpc": "2.0", "id": "twin", "method": "tools/call", "params": params}
            raw.write(json.dumps(message).encode() + b"\n")
        found = [raw.next_answer() for _ in range(2)]
        assert {message["id"] for message in found} == {"twin"}
        assert all("result" in message or "error" in message for message in found)
        assert raw.ask("tools/list")["tools"]


@pytest.mark.long
def test_a_client_that_stops_reading_does_not_keep_it_alive(tmp_path: Path) -> None:
    with spawned(tmp_path, "--demo") as raw:
        raw.handshake()
        raw.ask("tools/list")
        before = most_resident(raw)
        for _ in range(500):  # far more than the pipe holds
            raw.send("tools/list")
            raw.send("tools/call", {"name": "list_exports", "arguments": {}})
        assert most_resident(raw) - before < 96 << 20
        assert raw.process.stdin is not None
        raw.process.stdin.close()
        assert raw.process.wait(8) == 0  # measured: 1.1 seconds


@pytest.mark.parametrize(
    ("variable", "value"),
    [("URL", "http://evil.example"), ("RETENTION_DAYS", "soon"), ("DEMOO", "1"), ("ACCESS_TOKEN", "a token of words"),
     ("INSTANCE", "https://x/y"), ("LOG_LEVEL", "LOUD"), ("CAS_COOKIE", "a cookie of\ntwo lines")],
)  # fmt: skip
@pytest.mark.long
def test_a_wrong_setting_stops_the_start_with_one_sentence(tmp_path: Path, variable: str, value: str) -> None:
    environment = {"HOME": str(tmp_path), f"SRC_ANALYTICS_{variable}": value}
    ended = subprocess.run(COMMAND, env=environment, capture_output=True, timeout=20, check=False)
    message = ended.stderr.decode().strip()
    assert ended.returncode == 2
    assert ended.stdout == b""
    assert f"SRC_ANALYTICS_{variable}" in message
    assert len(message.splitlines()) == 1
    assert value not in message or variable == "DEMOO"


@pytest.mark.long
@pytest.mark.parametrize("more", [{"PYTHONWARNINGS": "default"}, {"PYTHONDEVMODE": "1"}, {"PYTHONVERBOSE": "1"}])
def test_nothing_but_messages_is_on_stdout(tmp_path: Path, more: dict[str, str]) -> None:
    """Whatever the interpreter has to say, with a setting that is wrong, and without a network."""
    offline = {
        "SRC_ANALYTICS_URL": "http://127.0.0.1:9",
        "SRC_ANALYTICS_ACCESS_TOKEN": "a-made-up-one",
        "HOME": str(tmp_path),
    }
    offline |= {"SRC_ANALYTICS_INSTANCE": "a.example", "SRC_ANALYTICS_RETRY_BASE_DELAY": "0.01"}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("tools/list", {}),
        ("tools/call", {"name": "get_credits", "arguments": {}}),
        ("x\ny", {"name": "print"}),
    ]
    lines = [
        json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": META}})
        for number, (method, params) in enumerate(asked)
    ]
    for wrong, answers in (({}, {0, 1, 2}), ({"SRC_ANALYTICS_LOG_LEVEL": "LOUD"}, set())):
        with subprocess.Popen(
            COMMAND,
            env=offline | more | wrong,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if answers:
                process.stdin.write("\n".join(["no message", *lines, ""]).encode())
                process.stdin.flush()
            told = [json.loads(process.stdout.readline()) for _ in answers]
            process.stdin.close()
            told += [json.loads(line) for line in process.stdout]
        assert {message["id"] for message in told} == answers
        assert all(message["jsonrpc"] == "2.0" for message in told)


@pytest.mark.long
def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sams_at_file.token\n")
    token.chmod(0o644)
    environment = {"HOME": str(tmp_path), "SRC_ANALYTICS_ACCESS_TOKEN_FILE": str(token)}
    ended = subprocess.run(COMMAND, env=environment, capture_output=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert b"chmod 600" in ended.stderr
    assert b"sams_at_" not in ended.stderr


def test_tokens_can_be_managed_from_a_terminal(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}

    def run(*arguments: str) -> str:
        ended = finished("--demo", *arguments, **environment)
        ended.check_returncode()
        return ended.stdout

    assert "3 tokens" in run("token", "list")
    assert "created" in run("token", "create", "--name", "terminal")
    index = json.loads(next(tmp_path.rglob("tokens.json")).read_text())
    assert run("token", "reveal", index[0]["id"]).startswith("sams_at_")
    assert "confirms it" in run("token", "revoke", "00000000-0000-0000-0000-000000000002", "--yes")
    assert "Exports work" in run("doctor")
    assert '"args"' in run("install", "cursor")


@pytest.mark.long
def test_the_walkthrough_shows_every_step_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "COLUMNS": "100", "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    done = finished("demo", **environment)
    shown = done.stdout
    assert done.returncode == 0, done.stderr
    steps = ("Create an access token", "Export the usage", "How did Cody adoption", "Which languages",
             "Who has not been", "drawn from one answer", "Revoke the token again")  # fmt: skip
    assert [step for step in steps if step not in shown] == []
    assert len([line for line in shown.splitlines() if line.startswith("20") and "█" in line]) >= 12
    assert "the token list confirms it" in " ".join(shown.split())
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("result", [{}, {"action": "perhaps"}, {"action": "accept", "content": {"confirm": {}}}])
def test_an_answer_to_a_dialog_that_is_none_revokes_nothing(tmp_path: Path, result: dict[str, Any]) -> None:
    with spawned(tmp_path, "--demo", revision="2025-11-25") as raw:
        about = {"capabilities": {"elicitation": {}}, "clientInfo": {"name": "raw", "version": "0"}}
        raw.ask("initialize", about | {"protocolVersion": raw.revision})
        raw.send("notifications/initialized", answered=False)
        token = raw.ask("tools/call", {"name": "list_tokens", "arguments": {}})["structuredContent"]["tokens"][0]["id"]
        given = {"token_id": token, "confirm": True}
        number = raw.send("tools/call", {"name": "revoke_token", "arguments": given})
        assert raw.process.stdout is not None
        asked = json.loads(raw.process.stdout.readline())
        assert asked["method"] == "elicitation/create"
        raw.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode() + b"\n")
        error = raw.answer(number)["result"]["structuredContent"]["error"]
        tokens = raw.ask("tools/call", {"name": "list_tokens", "arguments": {}})["structuredContent"]["tokens"]
    assert error["code"] == "cancelled"
    assert not next(one for one in tokens if one["id"] == token)["is_expired"]
