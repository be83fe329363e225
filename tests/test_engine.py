"""The engine's processes may die at any moment; whoever waits for one is told, and the next call has another."""

import errno
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import duckdb
import pytest
from mcp import Client

from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.exports.engine import forks as forking
from sourcegraph_analytics_mcp.exports.engine import forkserver, limits, process, questions
from sourcegraph_analytics_mcp.exports.engine.forks import Forks, forks
from sourcegraph_analytics_mcp.exports.engine.ingest import Ingest
from sourcegraph_analytics_mcp.exports.engine.native import disk_refusal
from sourcegraph_analytics_mcp.exports.engine.questions import Questions
from sourcegraph_analytics_mcp.exports.engine.syncing import Syncing
from sourcegraph_analytics_mcp.exports.store import Store
from sourcegraph_analytics_mcp.settings import Settings
from support.client import call, connected, refused, text
from support.engines import an_engine, engines, fork_servers
from support.statements import BOMBS
from support.threads import all_threads_taken
from support.upstreams import Exchange, Served, scripted_upstream

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
BODY = b"Instance user ID,Searches\n" + b"1,2\n" * 1000


async def half(exchange: Exchange) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    await exchange.send(head + BODY[:2000])


async def test_a_conversion_whose_process_dies_is_begun_again(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await half(exchange)
        os.kill(await an_engine(), signal.SIGKILL)
        await exchange.send(BODY[2000:])

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert export["row_count"] == 1000
    assert len(fake.exchanges) == 1


async def test_the_process_of_a_cut_report_has_ended_before_its_files_go(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on writing into the next attempt."""
    writing: list[list[int]] = []
    remove = shutil.rmtree

    def rmtree(path: Any, *arguments: Any, **more: Any) -> None:
        if Path(path).name == "parts":
            writing.append(engines())
        remove(path, *arguments, **more)

    async def answer(exchange: Exchange) -> None:
        await (half(exchange) if exchange.number == 1 else exchange.answer(BODY))

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert (export["row_count"], writing) == (1000, [[]])


@pytest.mark.long
@pytest.mark.parametrize(
    "above",
    ["language=xx", "instance_user_id=7", "timestamp_date=2026-11-20", "a [1]", "*", "it's", "n\udcff"],
    ids=["a column", "a count of people", "a day", "brackets", "a star", "a quote", "no UTF-8"],
)
async def test_the_path_of_the_data_directory_says_nothing_about_the_data(
    make_settings: Make, tmp_path: Path, above: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(
            b"Instance user ID,User Email,Timestamp Date,Client Name,Language,Searches\n"
            b"1,a@x,2026-11-18,VSCode.cody,Go,3\n2,b@x,2026-11-19,VSCode.cody,SQL,4\n"
        )

    shown = []
    for identities in ("names", "pseudonyms"):
        home = tmp_path / above / identities
        async with scripted_upstream(answer) as fake:
            settings = make_settings(fake.url, data_dir=home, identities=identities)
            async with connected(settings) as client:
                export = (await call(client, "export_csv"))["export"]
                asked = {"metrics": ["active_users", "searches"], "group_by": ["day", "language"]}
                found = await call(client, "query_usage", **asked, start_date="2026-11-18", end_date="2026-11-19")
                sql = "SELECT count(DISTINCT instance_user_id), min(timestamp_date), min(language) FROM usage"
                queried = await call(client, "query_export", export_id=export["id"], sql=sql)
                names = await call(client, "query_export", export_id=export["id"], sql="SELECT * FROM usage LIMIT 1")
        assert export["active_users"] == 2
        assert found["rows"] == [["2026-11-18", "Go", 1, 3], ["2026-11-19", "SQL", 1, 4]]
        assert queried["rows"] == [[2, "2026-11-18", "Go"]]
        shown.append(len(names["columns"]))
    assert shown == [6, 5]


@pytest.mark.long
async def test_an_answer_that_is_too_large_is_said_and_the_next_question_is_answered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"metrics": ["searches"], "period": "all_time"}
    async with connected(settings) as client:
        before = await call(client, "query_usage", **asked)
        with monkeypatch.context() as small:
            small.setattr(process, "_LONGEST_ANSWER", 1000)
            figures = ["searches", "chat_events", "command_events", "completion_suggestions", "active_users"]
            error = await refused(
                client, "query_usage", metrics=figures, period="all_time", group_by=["user", "day"], limit=1000
            )
        after = await call(client, "query_usage", **asked)
    assert (error["code"], "Ask for less" in error["next_step"]) == ("result_too_large", True)
    assert after["totals"] == before["totals"]


@pytest.mark.parametrize("left", ["another version", "half of one", "nothing"])
async def test_a_server_that_was_upgraded_while_it_ran_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: str
) -> None:
    """Its fork server would be of another version, and what goes wrong between the two no fault of the report's."""
    installed = tmp_path / "sourcegraph_analytics_mcp-9999.dist-info"
    installed.mkdir()
    monkeypatch.setattr(process, "forks", Forks())
    async with connected(settings) as client:
        if left == "another version":
            name = "sourcegraph-analytics-mcp"
            (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9999\n")
        if left == "nothing":
            monkeypatch.setattr(forking, "_PACKAGE", "sourcegraph-analytics-mcp-that-was-removed")
        monkeypatch.syspath_prepend(str(tmp_path))
        error = await refused(client, "export_csv", granularity="by_user")
    assert (error["code"], error["next_step"]) == ("internal", "Restart it.")
    assert "replaced by another version" in error["message"]


@pytest.mark.parametrize("interpreter", ["nothing", "one that ends at once"])
async def test_an_export_without_an_engine_fails_and_leaves_nothing(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interpreter: str
) -> None:
    if interpreter != "nothing":
        (tmp_path / "nothing").symlink_to(shutil.which("false") or "")

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(BODY)

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        async with connected(settings) as client:
            with monkeypatch.context() as without:
                without.setattr(process, "forks", Forks())
                without.setattr(sys, "executable", str(tmp_path / "nothing"))
                error = await refused(client, "export_csv", granularity="by_user")
            assert list((settings.home / "staging").iterdir()) == []
            assert (await call(client, "export_csv", granularity="by_user"))["export"]["row_count"] == 1000
    assert str(tmp_path) not in json.dumps(error)
    assert (error["code"], error["retryable"]) == ("busy", True)


ENGINES = pytest.mark.parametrize(
    ("tool", "asked"),
    [
        ("export_csv", {"granularity": "by_user_month"}),
        ("query_usage", {"metrics": ["searches"], "period": "all_time"}),
        ("query_export", {"sql": "SELECT 1"}),
    ],
)


@ENGINES
async def test_where_the_system_forks_no_more_it_is_busy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tool: str, asked: dict[str, Any]
) -> None:
    """The fork server is a thread here, so that its system can be made to refuse."""

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
    control, theirs = socket.socketpair()
    monkeypatch.setattr(os, "fork", refuse)
    listening = threading.Thread(target=forkserver.listen, args=(theirs, pytest.fail))
    listening.start()
    monkeypatch.setattr(process, "forks", Forks(control))
    async with connected(settings) as client:
        error = await refused(client, tool, **asked, **({"export_id": export} if tool == "query_export" else {}))
    control.close()
    listening.join(20)
    assert not listening.is_alive()
    assert (error["code"], error["retryable"]) == ("busy", True)
    assert "cannot be started" in error["message"]


@pytest.mark.parametrize(("tool", "asked"), [
    ("export_csv", {"granularity": "by_user_month"}),
    ("query_usage", {"metrics": ["searches"], "period": "all_time"}),
])  # fmt: skip
async def test_where_an_engine_can_start_no_thread_it_is_busy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tool: str, asked: dict[str, Any]
) -> None:
    """A thread has as much room as a stack may take, which is more than an engine has."""
    before = resource.getrlimit(resource.RLIMIT_STACK)
    own = Forks()
    monkeypatch.setattr(process, "forks", own)
    resource.setrlimit(resource.RLIMIT_STACK, (4 << 30, before[1]))
    try:
        with own.used():
            async with connected(settings) as client:
                error = await refused(client, tool, **asked)
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, before)
    assert (error["code"], error["retryable"]) == ("busy", True)
    assert list((settings.home / "staging").iterdir()) == []


@ENGINES
async def test_a_call_for_which_no_file_can_be_opened_is_busy(
    settings: Settings, tool: str, asked: dict[str, Any]
) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)  # the lowest that is
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            given = {"export_id": export} if tool == "query_export" else {}
            result = await client.call_tool(tool, asked | given)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert result.structured_content is not None
    error = result.structured_content["error"]
    assert (error["code"], error["retryable"]) == ("busy", True)


@pytest.mark.long
async def test_a_query_that_ends_while_there_are_no_threads_leaves_nothing(
    make_settings: Make, upstream: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(upstream.url, sql_timeout=1)
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
        while engines():
            await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as tasks:
            failed: list[dict[str, Any]] = []

            async def ask() -> None:
                failed.append(await refused(client, "query_export", export_id=export, sql=BOMBS[0]))
                released.set()

            tasks.start_soon(ask)
            released = threading.Event()
            await an_engine()
            await all_threads_taken(tasks, released, monkeypatch)
        assert (failed[0]["code"], engines()) == ("sql_timeout", [])
        assert list((settings.home / "staging").iterdir()) == []


@ENGINES
@pytest.mark.long
async def test_a_fork_server_that_was_stopped_gives_way_to_another(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tool: str, asked: dict[str, Any]
) -> None:
    monkeypatch.setattr(forking, "_OBEYS_WITHIN", 0.1)
    others, own = fork_servers(), Forks()
    monkeypatch.setattr(process, "forks", own)
    with own.used(), anyio.fail_after(30):
        async with connected(settings) as client:
            export = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
            (stopped,) = set(fork_servers()) - set(others)
            os.kill(stopped, signal.SIGSTOP)
            await call(client, tool, **asked, **({"export_id": export} if tool == "query_export" else {}))
            assert stopped not in fork_servers()


@pytest.mark.long
async def test_a_fork_server_may_take_its_time_to_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forking, "_OBEYS_WITHIN", 0.001)
    own = Forks()
    monkeypatch.setattr(process, "forks", own)
    with own.used():
        engine = await process.start_child()
        assert own.patience == 0.001
        monkeypatch.undo()
        await engine.end()
    assert "does not obey" not in caplog.text


@pytest.mark.long
async def test_a_fork_server_that_dies_is_started_again(settings: Settings) -> None:
    """What was forked from it has gone, too."""
    asked = {"metrics": ["searches"], "period": "all_time"}
    async with connected(settings) as client:
        before = await call(client, "query_usage", **asked)
        first, engine = fork_servers(), os.pidfd_open(await an_engine())
        try:
            os.kill(first[0], signal.SIGKILL)
            assert select.select([engine], [], [], 20)[0] == [engine]
        finally:
            os.close(engine)
        after = await call(client, "query_usage", **asked)
        assert fork_servers() != first
    assert after["totals"] == before["totals"]


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_fork_server_ends_with_its_last_user(stopped: bool) -> None:
    others = fork_servers()
    own = Forks()
    with own.used():
        with own.used():
            await own.fork()
        with anyio.fail_after(30):
            while not (started := set(fork_servers()) - set(others)):  # the system names it a bit later
                await anyio.lowlevel.checkpoint()
        if stopped:
            os.kill(started.pop(), signal.SIGSTOP)
    assert fork_servers() == others


ASKED: dict[str, Any] = {"do": "query", "place": "/", "scratch": "tmp", "tables": {}, "parameters": {}, "mask": None}


async def answered(engine: process.Child) -> Any:
    await engine.tell(ASKED | {"sql": "SELECT 1 + 1"})
    return (await engine.hear())["done"]["rows"]


async def one_and_one() -> Any:
    engine = await process.start_child()
    try:
        return await answered(engine)
    finally:
        await engine.end()


async def test_an_engine_is_gone_once_it_has_been_ended() -> None:
    for _ in range(20):
        forked = await forks.fork()
        engine = await an_engine()
        for _ in range(2):  # once more does no harm
            await forks.end(forked)
            assert engine not in engines()


async def test_an_engine_is_gone_once_it_has_been_ended_though_it_had_more_to_say() -> None:
    forked = await forks.fork()
    engine = await an_engine()
    await anyio.wait_readable(forked.conversation)
    assert json.loads(forked.conversation.recv(100)) == forkserver.STARTED
    forked.conversation.sendall(json.dumps(ASKED | {"sql": "SELECT repeat('x', 9000000)"}).encode() + b"\n")
    await anyio.wait_readable(forked.conversation)
    await forks.end(forked)
    assert engine not in engines()


@pytest.mark.long
async def test_a_fork_server_that_was_stopped_is_ended_where_an_engine_has_to_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forking, "_OBEYS_WITHIN", 0.1)
    others = fork_servers()
    own = Forks()
    with own.used():
        forked = await own.fork()
        engine = await an_engine()
        own.obeyed(forked)
        (stopped,) = set(fork_servers()) - set(others)
        os.kill(stopped, signal.SIGSTOP)
        await own.end(forked)
        assert (engine in engines(), stopped in fork_servers()) == (False, False)
        await own.end(await own.fork())
    assert "and all its engines with it" in caplog.text


@pytest.mark.long
async def test_a_fork_server_that_takes_no_orders_gives_way_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "_OBEYS_WITHIN", 0.1)
    control, unread = socket.socketpair()
    control.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            control.send(bytes(forkserver.NUMBER))
    own = Forks(control)
    with unread, own.used():
        monkeypatch.setattr(process, "forks", own)
        assert await one_and_one() == [[2]]


async def test_engines_begin_and_end_while_all_threads_are_taken() -> None:
    threads = anyio.to_thread.current_default_thread_limiter()
    for _ in range(int(threads.available_tokens)):
        threads.acquire_on_behalf_of_nowait(object())
    try:
        with anyio.fail_after(10):
            await forks.end(await forks.fork())
        assert engines() == []
    finally:
        for borrower in threads.statistics().borrowers:
            threads.release_on_behalf_of(borrower)


@pytest.mark.long
async def test_a_fork_server_keeps_nothing_open_of_its_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else there could be only so many, and the one too much would end those of all callers."""
    others = fork_servers()
    own = Forks()
    monkeypatch.setattr(process, "forks", own)
    with own.used():
        assert await one_and_one() == [[2]]
        (server,) = set(fork_servers()) - set(others)
        resource.prlimit(server, resource.RLIMIT_NOFILE, (8, 256))
        began = [await process.start_child() for _ in range(8)]
        answers = [await answered(engine) for engine in began]
        for engine in began:
            await engine.end()
    assert answers == [[[2]]] * 8


@pytest.mark.long
async def test_a_fork_server_hears_what_has_ended_where_the_server_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a supervisor leaves that so to the server, and the server to its own."""
    own = Forks()
    monkeypatch.setattr(process, "forks", own)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with own.used():
            stays = await process.start_child()
            for _ in range(3):
                assert await one_and_one() == [[2]]
            assert await answered(stays) == [[2]]
            await stays.end()
    finally:
        signal.signal(signal.SIGCHLD, before)


ORPHAN = """
import os
from sourcegraph_analytics_mcp.exports.engine import child
parent = os.getpid()
if not os.fork():
    while os.getppid() == parent:
        pass
    child.main(parent)
"""


def test_an_engine_whose_parent_died_before_it_had_begun_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            subprocess.run([sys.executable, "-c", ORPHAN], stdin=theirs.fileno(), timeout=20, check=True)
        ours.settimeout(20)
        assert ours.recv(1) == b""


@pytest.mark.parametrize("left", [0, 1])
async def test_a_server_without_descriptors_is_busy(left: int) -> None:
    assert await one_and_one() == [[2]]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)  # the lowest that is
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, before[1]))
    try:
        with pytest.raises(AnalyticsError) as error:
            await process.start_child()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (error.value.code, error.value.retryable) == ("busy", True)


@pytest.mark.parametrize("left", range(6))
async def test_nor_is_one_said_to_be_replaced_that_has_no_fork_server_yet(
    left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Forks()
    monkeypatch.setattr(process, "forks", own)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)  # the lowest that is
    os.close(free)
    with own.used():
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, before[1]))
        try:
            with pytest.raises(AnalyticsError) as error:
                await process.start_child()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (error.value.code, error.value.retryable) == ("busy", True)


async def test_an_engine_that_ended_is_asked_why_by_whoever_speaks_to_it(tmp_path: Path) -> None:
    asked = {"do": "ingest", "place": str(tmp_path), "source": "none", "parts": "none", "granularity": "by_user"}
    began = await process.start_child()
    engine = os.pidfd_open(await an_engine())
    try:
        await began.tell(asked)
        assert select.select([engine], [], [], 20)[0] == [engine]
    finally:
        os.close(engine)
    with pytest.raises(AnalyticsError) as error:
        await began.tell({"end": 0})
    await began.end()
    assert error.value.code == "store_corrupt"


async def test_an_engine_that_died_before_it_heard_is_not_alive() -> None:
    began = await process.start_child()
    engine = await an_engine()
    assert began.alive
    os.kill(engine, signal.SIGSTOP)
    await began.tell({"do": "nothing"})
    os.kill(engine, signal.SIGKILL)
    with anyio.fail_after(30):
        while began.alive:
            await anyio.lowlevel.checkpoint()
    await began.end()


async def test_an_engine_that_does_not_go_on_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"metrics": ["searches"], "period": "all_time"}
    async with connected(settings) as client:
        before = await call(client, "query_usage", **asked)
        stopped = await an_engine()
        os.kill(stopped, signal.SIGSTOP)
        monkeypatch.setattr(questions, "_LONGEST", 0.1)
        with anyio.fail_after(30):
            failed = await client.call_tool("query_usage", asked)
        monkeypatch.undo()
        assert "[internal]" in text(failed)
        assert stopped not in engines()
        assert (await call(client, "query_usage", **asked))["totals"] == before["totals"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_what_a_terminal_sends_to_all_processes_ends_no_engine(settings: Settings, sent: signal.Signals) -> None:
    asked = {"metrics": ["searches"], "period": "all_time"}
    async with connected(settings) as client:
        await call(client, "query_usage", **asked)
        there = (fork_servers(), await an_engine())
        for pid in (*there[0], there[1]):
            os.kill(pid, sent)
        await call(client, "query_usage", **asked)
        assert (fork_servers(), await an_engine()) == there


async def test_a_conversion_whose_processes_all_die_is_given_up(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(BODY)

    async def kill_every_engine() -> None:
        while True:
            with suppress(ProcessLookupError):
                os.kill(await an_engine(), signal.SIGKILL)
            await anyio.lowlevel.checkpoint()

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        async with connected(settings) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(kill_every_engine)
            error = await refused(client, "export_csv", granularity="by_user")
            tasks.cancel_scope.cancel()
        assert list((settings.home / "staging").iterdir()) == []
    assert error["code"] == "upstream_bad_csv"
    assert "could not be converted" in error["message"]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    ("rows", "room"),
    [(1000, 1000), (1, 100)],
    ids=["no room for the rows", "no room for what the engine makes of them"],
)
async def test_a_conversion_that_the_disk_refuses_says_so(make_settings: Make, rows: int, room: int) -> None:
    body = b"Instance user ID,Searches\n" + b"1,2\n" * rows

    async def answer(exchange: Exchange) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        await exchange.send(head + body[:20])
        resource.prlimit(await an_engine(), resource.RLIMIT_FSIZE, (room, room))  # bytes of a file
        await exchange.send(body[20:])

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        async with connected(settings) as client:
            error = await refused(client, "export_csv", granularity="by_user")
        assert list((settings.home / "staging").iterdir()) == []
    assert error["code"] == "store_full"


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ("failed to offload data block of size 256.0 KiB (0 bytes/0 bytes used).", errno.ENOSPC),
        ('Could not write all bytes to file "a": No space left on device', errno.ENOSPC),
        ('Could not write file "a": Input/output error', errno.EIO),
    ],
)
def test_what_the_disk_refuses_to_the_engine_is_the_disk_s(said: str, refused: int) -> None:
    found = disk_refusal(duckdb.IOException(said))
    assert found is not None
    assert (found.errno, said in str(found)) == (refused, False)


class Noted:
    """The engine, and what is asked of it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, asked: list[str]) -> None:
        self._connection = connection
        self._asked = asked

    def cursor(self) -> "Noted":
        return Noted(self._connection.cursor(), self._asked)

    def execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        self._asked.append(sql)
        return self._connection.execute(sql)


def ingested(folder: Path, granularity: Any, body: bytes, connection: Any) -> dict[str, Any]:
    """The description of a report that was converted here, in this process."""
    (folder / "export.csv").write_bytes(body)
    (folder / "parts").mkdir()
    ingest = Ingest(folder / "export.csv", folder / "parts", granularity, connection)
    ingest.advance(len(body))
    return ingest.finish()


BENT = [
    ("by_user_day", "Searches", "1.5"),
    ("by_user_day", "Searches", "-0.25"),
    ("by_user_day", "Searches", "9007199254740993"),
    ("by_user_day", "Searches", "-9007199254740993"),
    ("by_user_day", "Searches", "1e300"),
    ("by_user_day", "Searches", "inf"),
    ("by_user_day", "Searches", "nan"),
    ("by_user_day", "Searches", "0x10"),
    ("by_user_day", "Combined CAR", "nan"),
    ("by_user_day", "Combined CAR", "-inf"),
    ("by_user_day", "Combined CAR", "1e999"),
    ("by_user_day", "Timestamp Date", "0001-01-01"),
    ("by_user_day", "Timestamp Date", "1989-12-31"),
    ("by_user_day", "Timestamp Date", "2200-01-01"),
    ("by_user_day", "Timestamp Date", "99999-01-01"),
    ("by_user_day", "Timestamp Date", "infinity"),
    ("by_user_day", "Timestamp Date", "2026-01-05 (BC)"),
    ("by_user_month", "Timestamp Month", "0001-05"),
    ("by_user_month", "Timestamp Month", "2200-01-01"),
]


@pytest.mark.parametrize(("granularity", "column", "cell"), BENT)
def test_a_cell_that_the_engine_would_bend_counts_as_blank(
    tmp_path: Path, granularity: Any, column: str, cell: str
) -> None:
    when = "Timestamp Month" if granularity == "by_user_month" else "Timestamp Date"
    columns = ["Instance user ID", when, "Searches", "Combined CAR"]
    rows = [dict(zip(columns, (str(n), "2026-01-05", "7", "0.5"), strict=True)) for n in range(3)]
    rows[1][column] = cell
    lines = [columns, *([row[c] for c in columns] for row in rows)]
    body = "".join(",".join(line) + "\n" for line in lines).encode()
    connection = duckdb.connect()
    described = ingested(tmp_path, granularity, body, connection)
    name = column.lower().replace(" ", "_")
    assert {"kind": "cells", "count": 1, "column": name} in described["remarks"]
    kept = connection.execute(f"SELECT {name} IS NULL FROM '{tmp_path}/parts/*.parquet'").fetchall()
    assert kept == [(False,), (True,), (False,)]


@pytest.mark.parametrize("last", ["2", "n/a"])
@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ("Instance user ID,Searches\n\ufeffu1,1\nu1,", [("\ufeffu1",), ("u1",)]),
        ("Instance user ID\nu1\n\nu", [("u1",), ("u@",)]),
    ],
    ids=["a BOM", "a blank line"],
)
def test_a_row_means_the_same_beside_a_bad_cell(
    tmp_path: Path, body: str, rows: list[tuple[str, ...]], last: str
) -> None:
    connection = duckdb.connect()
    described = ingested(tmp_path, "by_user", f"{body}{last}\n".encode(), connection)
    assert described["row_count"] == 2
    kept = connection.execute(f"SELECT instance_user_id FROM '{tmp_path}/parts/*.parquet'").fetchall()
    assert kept == [(name.replace("@", last),) for (name,) in rows]


def test_a_report_that_became_shorter_on_the_disk_is_not_waited_for(tmp_path: Path) -> None:
    body = b"Instance user ID,Searches\n1,2\n"
    (tmp_path / "export.csv").write_bytes(body)
    (tmp_path / "parts").mkdir()
    ingest = Ingest(tmp_path / "export.csv", tmp_path / "parts", "by_user", duckdb.connect())
    ingest.advance(len(body) + 1)
    with pytest.raises(OSError, match="became shorter"):
        ingest.finish()


REPEATS = [
    (
        "by_user",
        "Instance user ID,Searches",
        ["1,5", "2,5", "1,5", ",5", ",5"],
        1,
    ),
    ("by_user_day", "Instance user ID,Timestamp Date,Searches", ["1,2026-01-05,5", "1,2026-01-06,5"], 0),
    (
        "by_user_day_client_language",
        "Instance user ID,Timestamp Date,Client Name,Language,Searches",
        [
            "1,2026-01-05,a,go,5",
            "1,2026-01-05,a,,5",
            "1,2026-01-05,a,go,6",
            "1,2026-01-05,a,go,7",
            "2,2026-01-05,a,go,5",
        ],
        2,
    ),
    (
        "by_user_day_client_language",  # a language that nobody sends tells no rows apart
        "Instance user ID,Timestamp Date,Client Name,Searches",
        ["1,2026-01-05,a,5", "1,2026-01-05,a,6"],
        0,
    ),
]


@pytest.mark.parametrize(("granularity", "header", "rows", "count"), REPEATS)
def test_rows_with_the_same_key_are_kept_and_said(
    tmp_path: Path, granularity: Any, header: str, rows: list[str], count: int
) -> None:
    described = ingested(tmp_path, granularity, "\n".join([header, *rows]).encode(), duckdb.connect())
    assert described["row_count"] == len(rows)
    repeats = [remark["count"] for remark in described["remarks"] if remark["kind"] == "repeats"]
    assert repeats == [count] * bool(count)


def test_each_attempt_at_a_segment_has_files_of_its_own(tmp_path: Path) -> None:
    """The engine may remove those of a failed one late, when the next has begun: rarely, so it is not waited for."""
    asked: list[str] = []
    body = b"Instance user ID,Searches\n1,not a number\n"
    connection: Any = Noted(duckdb.connect(), asked)
    assert ingested(tmp_path, "by_user", body, connection)["row_count"] == 1
    attempts = [re.findall(rf"'({tmp_path}[^']*)'", sql) for sql in asked if sql.startswith("COPY")]
    assert [len(files) for files in attempts] == [2, 2]
    assert set(attempts[0]).isdisjoint(attempts[1])


def test_a_file_that_cannot_be_synced_is_heard_of(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    syncing = Syncing()
    for name in ("there", "gone", "there"):
        syncing.soon(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        syncing.finish()


async def test_an_engine_is_told_nothing_but_its_work(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it leave an image of its memory, or take more of that and of files than it may."""
    limits = r"(?s)(?=.*Max core file size +0 +0 )(?=.*Max open files +256 +256 )(?=.*Max address space +(\d+) +\1 )"
    monkeypatch.setenv("SRC_ANALYTICS_ACCESS_TOKEN", "sams_at_planted.secret")
    seen: list[str] = []

    async def answer(exchange: Exchange) -> None:
        await half(exchange)
        engine = Path(f"/proc/{await an_engine()}")
        seen.extend((engine / name).read_text() for name in ("environ", "cmdline"))
        with anyio.fail_after(30):
            while not re.match(limits, (engine / "limits").read_text()):
                await anyio.lowlevel.checkpoint()
        await exchange.send(BODY[2000:])

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        await call(client, "export_csv", granularity="by_user")
    assert len(seen) == 2
    assert "sams_at_" not in "".join(seen)
    assert "SRC_ANALYTICS" not in "".join(seen)


def test_an_engine_goes_on_without_the_limits_that_a_system_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(limit: int, most: tuple[int, int]) -> None:
        asked.append(limit)
        raise ValueError("current limit exceeds maximum limit")  # as on macOS

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(resource, "setrlimit", refuse)
    before = os.umask(0o022)
    try:
        limits.confine()
    finally:
        assert os.umask(before) == 0o077
    assert asked == [resource.RLIMIT_CORE, resource.RLIMIT_NOFILE]


async def test_what_is_wrong_is_heard_before_the_whole_report_has_come(make_settings: Make) -> None:
    """The process refuses the header and ends while the download goes on."""
    refused_early = anyio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n" + b"Name,Searches\n")
        with anyio.fail_after(20):
            while not refused_early.is_set():
                await exchange.send(b"a,1\n" * 100_000)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "export_csv", granularity="by_user")
        refused_early.set()
    assert error["code"] == "upstream_schema_changed"


async def refused_meanwhile(
    client: Client, meanwhile: Callable[[int], Awaitable[None]], **asked: Any
) -> dict[str, Any]:
    """The error of a question that waits, its engine being stopped, while something else happens to that process."""
    failed: list[dict[str, Any]] = []
    told, tell = anyio.Event(), process.Child.tell

    async def ask() -> None:
        failed.append(await refused(client, "query_usage", **asked))

    async def heard(child: process.Child, message: dict[str, Any]) -> None:
        await tell(child, message)
        told.set()

    engine = await an_engine()
    os.kill(engine, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.Child, "tell", heard)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            with anyio.fail_after(30):
                await told.wait()
            await meanwhile(engine)
    return failed[0]


@pytest.mark.long
async def test_what_a_question_has_no_memory_for_ends_with_its_process(tmp_path: Path) -> None:
    """Cancelled, it has gone; after a crash of the server, at the next look at the store; alive, it stays."""
    store, another = (Store(tmp_path, 1, 1 << 30) for _ in range(2))
    too_much = "SELECT a FROM (SELECT range AS a, repeat('x', 200) AS b FROM range(40000000)) ORDER BY b, hash(a)"

    store.prepare()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Questions(store.scratch).ask, {}, too_much)
        with anyio.fail_after(60):
            while not (spilled := list(store.scratch.rglob("duckdb_temp*"))):
                await anyio.lowlevel.checkpoint()
        os.utime(place := spilled[0].parent, (0, 0))  # as if it had been asked long ago
        another.prepare()
        assert place.exists()
        tasks.cancel_scope.cancel()
    assert list(store.scratch.iterdir()) == []
    place.mkdir()
    for left in (".lock", spilled[0].name):
        (place / left).touch()
    another.prepare()
    assert list(store.scratch.iterdir()) == []


async def test_a_question_whose_process_dies_fails_and_the_next_has_another(settings: Settings) -> None:
    async def die(engine: int) -> None:
        os.kill(engine, signal.SIGKILL)

    asked = {"metrics": ["searches"], "period": "all_time"}
    async with connected(settings) as client:
        before = await call(client, "query_usage", **asked)
        assert (await refused_meanwhile(client, die, **asked))["code"] == "internal"
        after = await call(client, "query_usage", **asked)
    assert after["totals"] == before["totals"]


@pytest.mark.long
async def test_an_export_that_is_deleted_while_it_is_asked_has_gone_and_nothing_is_wrong(settings: Settings) -> None:
    asked = {"metrics": ["searches"], "period": "all_time"}
    async with connected(settings) as client:
        export = (await call(client, "query_usage", **asked))["export_ids"][0]

        async def delete(engine: int) -> None:
            await call(client, "delete_export", export_id=export)
            os.kill(engine, signal.SIGCONT)

        error = await refused_meanwhile(client, delete, **asked)
        assert (error["code"], error["retryable"]) == ("not_found", True)
        assert (await call(client, "query_usage", **asked))["export_ids"] != [export]


async def test_data_that_the_engine_cannot_read_is_a_failure_and_no_figure(settings: Settings) -> None:
    async with connected(settings) as client:
        today = str(datetime.now(UTC).date())
        export = (await call(client, "export_csv", granularity="by_user", end_date=today))["export"]
        asked = {"metrics": ["searches"], "period": "all_time"}
        before = await call(client, "query_usage", **asked)
        part = Path(export["path"]).parent / "parts" / "00000.parquet"
        kept = part.read_bytes()
        part.write_bytes(b"no parquet")  # after this process has seen that it was whole
        error = await refused(client, "query_usage", **asked)
        part.write_bytes(kept)
        after = await call(client, "query_usage", **asked)
    assert error["code"] == "internal"
    assert str(settings.home) not in json.dumps(error)
    assert after["totals"] == before["totals"]


async def test_a_query_whose_process_dies_says_so(make_settings: Make, upstream: Served) -> None:
    failed: list[dict[str, Any]] = []
    async with connected(make_settings(upstream.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        while engines():
            await anyio.lowlevel.checkpoint()

        async def ask() -> None:
            failed.append(await refused(client, "query_export", export_id=export["id"], sql=BOMBS[0]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            os.kill(await an_engine(), signal.SIGKILL)
    assert failed[0]["code"] == "sql_failed"  # who ended it, and why, is not known


async def test_queries_beyond_those_that_wait_are_turned_away(make_settings: Make, upstream: Served) -> None:
    turned_away: list[dict[str, Any]] = []
    async with connected(make_settings(upstream.url, sql_timeout=60)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                result = await client.call_tool("query_export", {"export_id": export["id"], "sql": BOMBS[0]})
                turned_away.append((result.structured_content or {})["error"])
                tasks.cancel_scope.cancel()

            with anyio.fail_after(30):
                for _ in range(11):  # two run, eight wait
                    tasks.start_soon(ask)
                while not turned_away:
                    await anyio.lowlevel.checkpoint()
    assert [(error["code"], error["retryable"]) for error in turned_away] == [("busy", True)]


@pytest.mark.parametrize("begun", ["nothing", "a question", "a conversion"])
async def test_an_engine_ends_when_nobody_speaks_to_it_any_more(tmp_path: Path, begun: str) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "export.csv").write_bytes(BODY)
    request: dict[str, dict[str, Any]] = {
        "nothing": {},
        "a question": {"do": "query", "tables": {}, "sql": "SELECT 1 AS one", "parameters": {}, "mask": None},
        "a conversion": {"do": "ingest", "source": "export.csv", "granularity": "by_user"},
    }
    places = {"place": str(tmp_path), "parts": "parts", "scratch": "parts"}
    forked = await forks.fork()
    ours = forked.conversation
    if begun != "nothing":
        ours.sendall(json.dumps(request[begun] | places).encode() + b"\n")
    ours.shutdown(socket.SHUT_WR)
    ours.settimeout(20)
    with ours.makefile() as said:
        answers = [json.loads(line) for line in said]  # which ends when nobody holds the other end
    await forks.end(forked)
    done = [{"done": {"columns": ["one"], "rows": [[1]]}}] if begun == "a question" else []
    assert answers == [forkserver.STARTED, *done]


AHEAD = """
import sys, threading
from sourcegraph_analytics_mcp.exports.engine import opened
if sys.argv[1:]:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
opened.open_ahead()
opened.connection().execute("CREATE TABLE seen (n INTEGER)")
print(opened.connection().execute("SELECT count(*) FROM duckdb_tables()").fetchall())
"""


@pytest.mark.parametrize("another_thread", [[], ["another thread"]])
def test_engines_begin_with_one_that_was_opened_ahead_where_that_has_no_thread(another_thread: list[str]) -> None:
    """What a thread holds while another forks, the fork holds for ever."""
    command = [sys.executable, "-c", AHEAD, *another_thread]
    seen = subprocess.run(command, capture_output=True, timeout=20, check=True).stdout
    ahead = duckdb.__version__ >= "2" and not another_thread
    assert seen == (b"[(1,)]\n" if ahead else b"[(0,)]\n")


@pytest.mark.long
async def test_engines_forked_from_one_share_nothing_and_draw_lots_of_their_own(settings: Settings) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv"))["export"]["id"]
        draws = [await call(client, "query_export", export_id=export, sql="SELECT random() FROM usage") for _ in "12"]
        (forking,) = fork_servers()
    assert not {row[0] for row in draws[0]["rows"]} & {row[0] for row in draws[1]["rows"]}
    assert len(list(Path(f"/proc/{forking}/task").iterdir())) == 1
