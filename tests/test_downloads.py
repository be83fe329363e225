"""A body counts only when it is whole and a report: framing, encoding, content, and how often each is tried."""

import errno
import gzip
import json
import resource
import shutil
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute
from mcp import Client

from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from sourcegraph_analytics_mcp.upstream.document import fetch_document
from sourcegraph_analytics_mcp.upstream.policy import RetryBudget
from support.certificates import self_signed
from support.client import call, connected, read, refused
from support.upstreams import Exchange, scripted_upstream

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
CSV = b"Instance user ID,Searches\n1,2\n2,3\n"
PACKED = gzip.compress(CSV, mtime=0)
GZIP = "Content-Encoding: gzip\r\n"


async def outcome(make_settings: Make, *answers: bytes) -> tuple[dict[str, object] | None, int, bool]:
    """Export from an upstream that gives these raw answers in turn: the error, the requests sent, what was kept."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(answers[min(exchange.number, len(answers)) - 1])

    async with scripted_upstream(answer) as scripted:
        settings = make_settings(scripted.url)
        async with connected(settings) as client:
            result = await client.call_tool("export_csv", {"granularity": "by_user"})
            kept = (await call(client, "list_exports"))["exports"]
        assert list((settings.home / "staging").iterdir()) == []
    content = result.structured_content or {}
    if not result.is_error:
        assert content["export"]["row_count"] == 2
    return content.get("error"), len(scripted.exchanges), bool(kept)


def framed(body: bytes, extra: str = "", length: int | None = None, status: str = "200 OK") -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Type: text/csv\r\nContent-Length: {size}\r\n{extra}\r\n".encode() + body


def chunked(body: bytes, extra: str = "", end: bytes = b"0\r\n\r\n") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{extra}\r\n".encode()
    return head + f"{len(body):x}\r\n".encode() + body + b"\r\n" + end


@pytest.mark.parametrize(
    "whole",
    [
        framed(CSV), framed(PACKED, GZIP), chunked(CSV), chunked(PACKED, GZIP), framed(b"\xef\xbb\xbf" + CSV),
        framed(CSV.replace(b"\n", b"\r\n")), framed(CSV.strip()), framed(CSV + b"\n\n"),
        framed(gzip.compress(CSV[:20], mtime=0) + gzip.compress(CSV[20:], mtime=0), GZIP),
        framed(CSV, "Content-Encoding: identity\r\n"),
    ],
)  # fmt: skip
async def test_a_whole_body_is_kept_however_it_is_framed(make_settings: Make, whole: bytes) -> None:
    assert await outcome(make_settings, whole) == (None, 1, True)


@pytest.mark.parametrize("body", [CSV, CSV[:-4], b"", PACKED])
async def test_a_body_whose_end_nothing_marks_is_refused_whole_or_not(make_settings: Make, body: bytes) -> None:
    encoding = GZIP.encode() if body == PACKED else b""
    for version in (b"HTTP/1.1", b"HTTP/1.0"):
        error, requests, kept = await outcome(make_settings, version + b" 200 OK\r\n" + encoding + b"\r\n" + body)
        assert error is not None
        assert (error["code"], requests, kept) == ("upstream_incomplete", 1, False)


@pytest.mark.parametrize(
    "cut",
    [
        framed(CSV, length=len(CSV) + 1), framed(CSV[:-4], length=len(CSV)), chunked(CSV, end=b""),
        chunked(CSV, end=b"5\r\nab"), framed(PACKED[:-1], GZIP), framed(PACKED[:-8], GZIP), framed(PACKED[:15], GZIP),
        chunked(PACKED[:-9], GZIP), framed(PACKED[:-5] + b"\0" + PACKED[-4:], GZIP), framed(PACKED + b"junk", GZIP),
        framed(CSV, GZIP),
    ],
)  # fmt: skip
async def test_a_cut_or_damaged_body_is_refused_after_three_tries(make_settings: Make, cut: bytes) -> None:
    error, requests, kept = await outcome(make_settings, cut)
    assert error is not None
    assert (error["code"], error["retryable"], requests, kept) == ("upstream_incomplete", True, 3, False)


async def test_a_cut_body_is_fetched_again_from_its_first_byte(make_settings: Make) -> None:
    other = b"Instance user ID,Searches\n8,8\n9"
    assert await outcome(make_settings, framed(other, length=99), framed(CSV)) == (None, 2, True)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
async def test_an_encoding_nobody_asked_for_is_refused(make_settings: Make, encoding: str) -> None:
    error, requests, kept = await outcome(make_settings, framed(CSV, f"Content-Encoding: {encoding}\r\n"))
    assert error is not None
    assert (error["code"], requests, kept) == ("upstream_incomplete", 1, False)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": "no"}', "upstream_not_csv"), (b"[1, 2]", "upstream_not_csv"),
        (b"\n  <!doctype html><html>Sign in</html>", "auth_rejected"), (b"<?xml version='1.0'?>", "upstream_not_csv"),
        (b"\r\n" * 40_000 + CSV, "upstream_not_csv"),
        (b"Sorry, something went wrong", "upstream_schema_changed"), (b"a,b\n1,2\n", "upstream_schema_changed"),
        (b"Instance user ID,Searches,Searches\n1,2,3\n", "upstream_schema_changed"),
        (CSV + b"3\n", "upstream_bad_csv"), (CSV + b"3,4,5\n", "upstream_bad_csv"),
        (CSV + b'3,"4\n', "upstream_bad_csv"), (CSV + b'"3"x,4\n', "upstream_bad_csv"),
        (CSV + b"3," + b"9" * 2_100_000 + b"\n", "upstream_bad_csv"),
        (b"Instance user ID,Searches\r1,2\r3,4\r", "upstream_bad_csv"),
        (CSV.decode().encode("utf-16-be"), "upstream_bad_csv"), (CSV.decode().encode("utf-16-le"), "upstream_bad_csv"),
        (CSV.replace(b"\n", b"\r", 1), "upstream_bad_csv"),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_report_is_refused_at_once(make_settings: Make, body: bytes, code: str) -> None:
    error, requests, kept = await outcome(make_settings, framed(body))
    assert error is not None
    assert (error["code"], requests, kept) == (code, 1, False)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<?xml version='1.0'?><Error>no</Error>", "upstream_not_csv"), (b"<a>" * 400 + b"<html>", "upstream_not_csv"),
        (b"%PDF-1.7\n", "upstream_not_csv"), (b"\nPK\x03\x04\x14\x00", "upstream_not_csv"),
        (PACKED, "upstream_not_csv"), (b"\xef\xbb\xbf[]", "upstream_not_csv"),
        (b"<!-- ours --><HTML lang=en>", "auth_rejected"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?>\n<!DOCTYPE  html PUBLIC>", "auth_rejected"),
    ],
)  # fmt: skip
async def test_what_is_no_report_is_known_by_its_first_bytes(make_settings: Make, body: bytes, code: str) -> None:
    in_single_bytes = b"".join(b"1\r\n%c\r\n" % byte for byte in body[1:]) + b"0\r\n\r\n"
    for answer in (framed(body), chunked(body[:1], end=in_single_bytes)):
        error, requests, kept = await outcome(make_settings, answer)
        assert error is not None
        assert (error["code"], requests, kept) == (code, 1, False)


@pytest.mark.parametrize(("row", "cells"), [(b"9\n", 1), (b"9,9,9\n", 3)])
async def test_a_ragged_row_is_named_by_its_number(make_settings: Make, row: bytes, cells: int) -> None:
    error, _, _ = await outcome(make_settings, framed(CSV + row))
    assert error is not None
    assert f"data row {CSV.count(bytes([10]))}: it has {cells} cells instead of 2" in str(error["message"])


async def test_a_row_of_several_large_cells_is_a_row(make_settings: Make) -> None:
    cells = [b"x" * 1_000_000, b'"' + b'""' * 500_000 + b'"']

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(
            b"Instance user ID,User Email,Username,Searches\n1," + b",".join(cells) + b",2\n3,a,b,4\n"
        )

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert (export["row_count"], export["active_users"]) == (2, 2)


async def test_a_header_alone_is_a_report_without_rows(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"Instance user ID,Searches\n")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert (export["row_count"], export["active_users"], export["columns"]) == (0, 0, ["Instance user ID", "Searches"])


@pytest.mark.parametrize(
    ("status", "code", "requests"),
    [
        ("401 Unauthorized", "auth_rejected", 1), ("403 Forbidden", "instance_denied", 1),
        ("404 Not Found", "instance_denied", 1), ("400 Bad Request", "invalid_argument", 1),
        ("429 Too Many Requests", "rate_limited", 3), ("500 Internal Server Error", "upstream_unavailable", 2),
        ("503 Service Unavailable", "upstream_unavailable", 4), ("302 Found", "upstream_redirect", 1),
        ("501 Not Implemented", "upstream_unavailable", 1), ("204 No Content", "upstream_not_csv", 1),
    ],
)  # fmt: skip
async def test_each_status_is_tried_as_often_as_the_table_says(
    make_settings: Make, status: str, code: str, requests: int
) -> None:
    body = b"" if status.startswith("204") else b"Authorization: Bearer echoed"
    error, sent, kept = await outcome(make_settings, framed(body, "Location: http://127.0.0.1:1/\r\n", status=status))
    assert error is not None
    assert (error["code"], sent, kept) == (code, requests, False)
    assert "echoed" not in json.dumps(error)


async def test_a_long_wait_is_handed_back_instead_of_waited(make_settings: Make) -> None:
    answer = framed(b"", "Retry-After: 3600\r\n", status="429 Too Many Requests")
    error, sent, _ = await outcome(make_settings, answer)
    assert error is not None
    assert (error["code"], error["retry_after_seconds"], sent) == ("rate_limited", 3600, 1)


async def test_an_upstream_that_is_not_there_is_named(make_settings: Make) -> None:
    async with connected(make_settings("http://127.0.0.1:9")) as client:
        error = await refused(client, "export_csv")
    assert error["code"] == "upstream_unavailable"
    assert "127.0.0.1:9" in error["message"]


async def test_a_silent_upstream_times_out(make_settings: Make) -> None:
    async def say_nothing(exchange: Exchange) -> None:
        await exchange.stream.receive()

    async with scripted_upstream(say_nothing) as scripted:
        settings = make_settings(scripted.url, read_timeout=0.2)
        async with connected(settings) as client:
            error = await refused(client, "export_csv")
    assert error["code"] == "upstream_timeout"


@pytest.mark.long
async def test_a_drip_is_not_waited_for(make_settings: Make) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 900000\r\n\r\n")
        while True:
            await exchange.send(b"I")
            await anyio.sleep(0.02)

    async with (
        scripted_upstream(drip) as fake,
        connected(make_settings(fake.url, read_timeout="1", deadline="30")) as client,
    ):
        error = await refused(client, "export_csv")
        assert error["code"] == "upstream_timeout"
        assert "too slowly" in error["message"]
        assert (await call(client, "list_exports"))["exports"] == []


@pytest.mark.parametrize("body", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
async def test_an_empty_body_is_no_report_the_second_time_either(make_settings: Make, body: bytes) -> None:
    error, requests, kept = await outcome(make_settings, framed(body))
    assert error is not None
    assert (error["code"], requests, kept) == ("upstream_not_csv", 2, False)


async def test_an_empty_report_is_asked_for_once_more(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(CSV if exchange.number == 2 else b"")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        assert export["row_count"] == CSV.count(b"\n") - 1
        assert len(fake.exchanges) == 2


@pytest.mark.long
@pytest.mark.parametrize("endless", [b"HTTP/1.1 100 Continue\r\n\r\n", b"X"], ids=["interim answers", "one header"])
async def test_a_head_that_never_ends_is_not_waited_for(make_settings: Make, endless: bytes) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n" if endless == b"X" else b"")
        while True:
            await exchange.send(endless)
            await anyio.sleep(0.02)

    asked = {"read_timeout": "0.5", "connect_timeout": "0.5", "deadline": "30"}
    async with scripted_upstream(drip) as fake, connected(make_settings(fake.url, **asked)) as client:
        error = await refused(client, "export_csv")
        assert error["code"] == "upstream_timeout"
        assert "head" in error["message"]
        assert len(fake.exchanges) == 2


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("behind", [b"2", b"\n\n", b"3,4\n" * 100_000, b""], ids=["2", "blank", "rows", "another"])
@pytest.mark.parametrize("rows", [2, 40_000])
async def test_a_body_that_is_longer_than_announced_is_refused(
    make_settings: Make, rows: int, behind: bytes, late: bool
) -> None:
    body = b"Instance user ID,Searches\n" + b"1,2\n" * rows
    behind = behind or framed(body.replace(b"1,2", b"3,4"))

    async def answer(exchange: Exchange) -> None:
        if late:
            await exchange.send(framed(body))
            await anyio.lowlevel.checkpoint()
            await exchange.send(behind)
        else:
            await exchange.send(framed(body) + behind)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "export_csv", granularity="by_user")
        assert (error["code"], error["retryable"]) == ("upstream_incomplete", True)
        assert (await call(client, "list_exports"))["exports"] == []
    assert [exchange.headers["connection"] for exchange in fake.exchanges] == ["close"] * 3


async def test_a_body_is_whole_though_its_connection_is_reset_behind_it(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        at_once = struct.pack("ii", 1, 0)
        await exchange.send(framed(CSV))
        exchange.stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        await exchange.stream.aclose()

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        assert (export["row_count"], len(fake.exchanges)) == (2, 1)


@pytest.mark.long
async def test_a_body_is_whole_though_its_connection_stays_open(make_settings: Make) -> None:
    """However its head and body are cut in pieces, and whatever ends the lines of the head."""
    head, blank, _ = framed(CSV).partition(b"\r\n\r\n")
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9
    ways = (
        [head + blank + CSV], [head, blank[:3], blank[3:] + CSV], [head + blank, CSV],
        [head + b"\n\n" + CSV[:9], CSV[9:]], [hints, head + blank + CSV],
    )  # fmt: skip

    async def answer(exchange: Exchange) -> None:
        for piece in ways[exchange.number - 1]:
            await exchange.send(piece)
            await anyio.lowlevel.checkpoint()
        await exchange.stream.receive()

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        for _ in ways:
            export = (await call(client, "export_csv", granularity="by_user", refresh=True))["export"]
            assert export["row_count"] == 2
        assert len(fake.exchanges) == len(ways)


@pytest.mark.parametrize(
    ("begin", "more", "end"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10_000, framed(CSV)[17:]),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 70_000, b"\r\n" + framed(CSV)[17:]),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a\0b", b"\r\n" + framed(CSV)[17:]),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a\rb", b"\r\n" + framed(CSV)[17:]),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 70_000, b""), (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10_000, b""),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000, b""),
    ],
    ids=["many", "long", "nul", "return", "endless header", "endless headers", "endless interim answers"],
)  # fmt: skip
async def test_a_head_that_no_server_means_is_refused(
    make_settings: Make, begin: bytes, more: bytes, end: bytes
) -> None:
    sent = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(begin + more + end)
        while not end:
            await exchange.send(more)
            sent += len(more)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "export_csv", granularity="by_user")
        assert (error["code"], len(fake.exchanges)) == ("upstream_unavailable", 3)
    assert sent < 60 << 20  # it is not read on: what was sent waits in the sockets


@pytest.mark.parametrize(
    ("coding", "needed"), [("", "190,734,863,282"), ("Content-Encoding: gzip\r\n", "762,939,453,125")]
)
async def test_a_report_that_cannot_fit_is_refused_before_it_is_downloaded(
    make_settings: Make, coding: str, needed: str
) -> None:
    async def announce(exchange: Exchange) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n{coding}Content-Length: {10**17}\r\n\r\n"
        await exchange.send(head.encode() + b"Instance user ID,Searches\r\n")

    async with (
        scripted_upstream(announce) as fake,
        connected(make_settings(fake.url, max_export_bytes=str(10**18))) as client,
    ):
        error = await refused(client, "export_csv")
        assert error["code"] == "store_full"
        assert f"needs about {needed} MB" in error["message"]


async def test_a_second_attempt_has_the_room_of_the_first(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    body = CSV + b"1,2\n" * 50_000

    def just_enough(staging: Path) -> SimpleNamespace:
        taken = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
        return SimpleNamespace(free=2 * len(body) - taken)

    async def cut_once(exchange: Exchange) -> None:
        await exchange.send(framed(body if exchange.number > 1 else body[:-9], length=len(body)))

    monkeypatch.setattr(shutil, "disk_usage", just_enough)
    async with scripted_upstream(cut_once) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert (export["byte_count"], len(fake.exchanges)) == (len(body), 2)


async def test_control_characters_are_counted(make_settings: Make) -> None:
    body = b'Instance user ID,Username,Searches\r\n1,a\x00\x1b[2J,1\r\n2,"b\tc\nd\x7f",2\r\n'

    async def answer(exchange: Exchange) -> None:
        await exchange.send(framed(body))

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        assert "3 control characters are in the data; shown as visible escapes." in export["warnings"]


async def test_an_export_over_the_size_limit_leaves_nothing(make_settings: Make) -> None:
    async def bomb(exchange: Exchange) -> None:
        await exchange.answer(gzip.compress(CSV + b"1,2\n" * 1_000_000), extra=GZIP)

    async with scripted_upstream(bomb) as scripted:
        settings = make_settings(scripted.url, max_export_bytes=100_000)
        async with connected(settings) as client:
            error = await refused(client, "export_csv", granularity="by_user")
            by_month = await refused(client, "query_usage", metrics=["searches"], group_by=["month"])
            gone = await refused(client, "list_inactive_users")
        assert error["code"] == "upstream_too_large"
        assert "list_inactive_users and questions by month" in error["next_step"]
        assert "SRC_ANALYTICS_MAX_EXPORT_BYTES" in error["next_step"]
        assert error == by_month == gone
        assert list((settings.home / "staging").iterdir()) == []


async def test_cells_that_do_not_parse_are_counted_and_count_as_blank(make_settings: Make) -> None:
    cells = [b"1,5", b"2,1.5", b'3,"1,234"', b"4,nan", b"5,", b"6,0", b"7,12.0", b"8,=1"]
    body = b"Instance user ID,Searches\n" + b"\n".join(cells) + b"\n"

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        summary = (await client.read_resource(export["summary_uri"])).contents[0].model_dump()["text"]
    assert export["row_count"] == 8
    assert "4 cells of searches are not a value of its kind; they count as blank." in export["warnings"]
    assert "| Searches | 17 | events |" in summary


async def test_columns_may_be_reordered_renamed_missing_or_new(make_settings: Make) -> None:
    body = b"chat events,USERNAME,Deep Search!,User ID\n3,a,x,1\n4,b,y,1\n"

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        summary = (await client.read_resource(export["summary_uri"])).contents[0].model_dump()["text"]
    assert export["columns"] == ["chat events", "USERNAME", "Deep Search!", "User ID"]
    assert export["active_users"] == 1
    assert "| Chats | 7 | events |" in summary
    missing, unknown, repeated, _ = export["warnings"]
    assert "Searches" in missing
    assert "deep_search" in unknown
    assert repeated == "1 row repeats the Instance user ID of another row; all of them are counted."


@pytest.mark.long
async def test_a_cell_means_the_same_in_a_clean_report_and_beside_a_bad_one(make_settings: Make) -> None:
    odd = [b"2026-1-5", b"2026/01/05", b"2026-01-05T10:00:00Z", b"2026-01-05 10:00:00+02", b"0001-01-01", b"9999-12-31"]
    head = b"Instance user ID,Timestamp Date,Searches,Username\n"
    sql = "SELECT timestamp_date, searches, username FROM usage WHERE instance_user_id = '1'"
    found = []
    for day in odd:
        for beside in (b"", b"2,2026-01-05,many,x\n"):
            body = head + b'1,%s,1_0,"a\r\nb"\n3,2026-01-05,1,y\n' % day + beside

            async def answer(exchange: Exchange, body: bytes = body) -> None:
                await exchange.answer(body)

            async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
                export = (await call(client, "export_csv", granularity="by_user_day", refresh=True))["export"]
                found.append((await call(client, "query_export", export_id=export["id"], sql=sql))["rows"])
    assert found == [[["2026-01-05", 10, "a\\u{000D}\\u{000A}b"]]] * 8 + [[[None, 10, "a\\u{000D}\\u{000A}b"]]] * 4


ROW = b'%d,"' + (b"x" * 999 + b"\n") * 100 + b'",1\n'  # 100 kB; wherever it is cut, a cell with line breaks is


@pytest.mark.long
@pytest.mark.parametrize(
    ("rows", "blank_lines"), [(270, 0), (80, 3_000_000)], ids=["three segments", "a tail of blank lines"]
)
async def test_a_large_report_is_cut_between_rows(make_settings: Make, rows: int, blank_lines: int) -> None:
    body = b"Instance user ID,Username,Searches\n" + b"".join(ROW % n for n in range(rows)) + b"\n" * blank_lines

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        sql = "SELECT count(*), count(DISTINCT instance_user_id), sum(searches), min(length(username)) FROM usage"
        answered = await call(client, "query_export", export_id=export["id"], sql=sql)
    assert export["row_count"] == rows
    assert answered["rows"] == [[rows, rows, rows, 100_000]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"Instance user ID," + b",".join(b"c%d" % n for n in range(600)) + b"\n", "too many columns"),
        (b"Instance user ID," + b"c" * 2000 + b"\n", "absurd length"),
        (b'"Instance user ID"x,Searches\n1,2\n', "header line cannot be read"),
        (b"Instance user ID,\xff\xfe\n1,2\n", "header line cannot be read"),
        (b"Instance user ID," + b"x" * 10_000_000, "header line is too long"),
        (CSV + b'3,"' + b"x" * 22_000_000, "it is too long, or its quotes do not match"),
        (b"Instance user ID,a,b,c,d,e\n" + b",".join([b"\xff" * 1_000_000] * 6) + b"\n", "the same way twice"),
    ],
    ids=["columns", "name", "quotes", "encoding", "header", "row", "cells"],
)
async def test_what_no_report_looks_like_is_refused_with_the_reason(
    make_settings: Make, body: bytes, says: str
) -> None:
    error, _, kept = await outcome(make_settings, framed(body))
    assert error is not None
    assert says in str(error["message"])
    assert not kept


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        (["Searches", "SEARCHES "], "same name"), (["Searches", "searches"], "same name"),
        (["Deep Search", "deep-search"], "same name"), (["Email", "E-mail"], "same name"),
        ([f"c{n}" for n in range(512)], "too many columns"), (["c" * 65_536], "absurd length"),
    ],
    ids=["spaces", "case", "unknown ones", "another spelling", "513 columns", "64 KiB"],
)  # fmt: skip
async def test_headers_that_cannot_be_told_apart_or_are_absurd_are_a_change_of_schema(
    make_settings: Make, headers: list[str], says: str
) -> None:
    error, requests, kept = await outcome(
        make_settings, framed(",".join(["Instance user ID", *headers]).encode() + b"\n")
    )
    assert error is not None
    assert (error["code"], requests, kept) == ("upstream_schema_changed", 1, False)
    assert says in str(error["message"])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"User ID,Timestamp Month,Searches\n1,2026-11-01,2\n", "lacks a column that is always needed: Timestamp Date"),
        (b"User ID,Date,Searches\n1,11/25/2026,2\n2,11/26/2026,2\n", "No Timestamp Date of the report can be read."),
    ],
    ids=["a report by month", "days in another format"],
)
async def test_a_report_by_day_that_tells_no_day_is_a_change_of_schema(
    make_settings: Make, body: bytes, says: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "export_csv", granularity="by_user_day")
        assert (await call(client, "list_exports"))["exports"] == []
    assert error["code"] == "upstream_schema_changed"
    assert says in error["message"]


async def test_a_new_column_that_is_called_like_another_spelling_is_kept_as_one_that_nobody_documented(
    make_settings: Make,
) -> None:
    async def answer(exchange: Exchange) -> None:
        header = "Instance user ID,User Email,Timestamp Date,Timestamp Month,Day,User ID,Email,Searches"
        await exchange.answer(f"{header}\n1,a@example.com,2026-01-05,x,y,z,old,2\n".encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user_day"))["export"]
        names = "instance_user_id, user_email, timestamp_date, user_id, email, day, column_4_timestamp_month"
        found = await call(client, "query_export", export_id=export["id"], sql=f"SELECT {names} FROM usage")
    assert found["rows"] == [["1", "a@example.com", "2026-01-05", "z", "old", "y", "x"]]
    assert "kept as text: column_4_timestamp_month, day, user_id, email." in " ".join(export["warnings"])


async def test_a_cell_of_spaces_is_blank_whatever_its_column(make_settings: Make) -> None:
    head = b"Instance user ID,Active Sourcegraph User,Timestamp Date,Searches,Combined CAR\n"

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(head + b"1, ,2026-01-05,  ,\t\n2,yes, ,3,0.5\n")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user_day"))["export"]
        sql = (
            "SELECT count(active_sourcegraph_user), count(timestamp_date), sum(searches), sum(combined_car) FROM usage"
        )
        assert (await call(client, "query_export", export_id=export["id"], sql=sql))["rows"] == [[1, 1, 3, 0.5]]
    assert [warning for warning in export["warnings"] if " of its kind" in warning] == []


async def test_a_column_without_a_name_is_kept_as_one_that_nobody_documented(make_settings: Make) -> None:
    """A comma at the end of each line is no reason to refuse a year of figures, which it does not change."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"Instance user ID,Searches,, \n1,2,,x\n2,3,,y\n")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        sql = "SELECT sum(searches), min(column_4) FROM usage"
        assert (await call(client, "query_export", export_id=export["id"], sql=sql))["rows"] == [[5, "x"]]
    assert "Columns that are not documented, kept as text: column_3, column_4." in export["warnings"]


BAD_UTF8 = {"no UTF-8": b"\xff", "overlong": b"\xc0\xaf", "a surrogate": b"\xed\xa0\x80"}


@pytest.mark.parametrize("bad", BAD_UTF8)
async def test_bytes_that_are_no_utf8_are_kept_counted_and_shown_in_every_column(make_settings: Make, bad: str) -> None:
    whole = [b"7", b"a@b", b"2026-01-05", b"3", b"0.5", b"true", b"odd"]
    names = b"Instance user ID,User Email,Timestamp Date,Searches,Combined CAR,Active Sourcegraph User,Unknown"
    rows = [[*whole[:at], whole[at] + BAD_UTF8[bad], *whole[at + 1 :]] for at in range(len(whole))]
    body = names + b"\n" + b"".join(b",".join(row) + b"\n" for row in rows)

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user_day"))["export"]
        asked = {"export_id": export["id"], "sql": "SELECT * FROM usage"}
        shown = (await call(client, "query_export", **asked))["rows"]
        page = await read(client, f"{export['summary_uri']}/rows")
        totals = (await call(client, "query_usage", metrics=["searches"], period="all_time"))["totals"]
    seen = "\ufffd" * len(BAD_UTF8[bad])
    assert Path(export["path"]).read_bytes() == body
    assert f"{len(whole) * len(seen)} characters are not valid UTF-8; shown as \ufffd." in export["warnings"]
    assert (
        sum(seen in str(cell) for row in shown for cell in row) == 3
    )  # in text; what is no value of its kind is blank
    assert [sum(cell is None for cell in column) for column in zip(*shown, strict=True)] == [0, 0, 1, 1, 1, 1, 0]
    assert page.count(seen) == len(whole)
    assert totals == [3 * (len(whole) - 1)]


@pytest.mark.parametrize("odd", [b"\n\r\n" + CSV, b"\n" * 60_000 + CSV, CSV.replace(b"Searches", b'"Deep\nsearch"')])
async def test_blank_lines_before_the_header_and_line_breaks_in_it_are_no_fault(
    make_settings: Make, odd: bytes
) -> None:
    assert await outcome(make_settings, framed(odd)) == (None, 1, True)


async def test_characters_that_are_not_utf8_are_counted(make_settings: Make) -> None:
    body = b"Instance user ID,Username\n1,M\xfcller\n2,x\n"

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert "1 character is not valid UTF-8; shown as \ufffd." in export["warnings"]


async def test_months_and_days_that_do_not_exist_count_as_blank(make_settings: Make) -> None:
    monthly = b"Instance user ID,Timestamp Month\n1,2026-02\n1,2026-03-09\n1,2026-13\n1,soon\n"
    daily = b"Instance user ID,Timestamp Date\n1,2026-02-28\n1,2026-02-30\n"

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(monthly if "by_user_month" in exchange.target else daily)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        by_month = (await call(client, "export_csv", granularity="by_user_month"))["export"]
        by_day = (await call(client, "export_csv", granularity="by_user_day"))["export"]
        sql = "SELECT timestamp_month FROM usage WHERE timestamp_month IS NOT NULL ORDER BY 1"
        months = await call(client, "query_export", export_id=by_month["id"], sql=sql)
    assert months["rows"] == [["2026-02-01"], ["2026-03-01"]]
    assert "2 cells of timestamp_month are not a value of its kind; they count as blank." in by_month["warnings"]
    assert "1 cell of timestamp_date is not a value of its kind; it counts as blank." in by_day["warnings"]


@pytest.mark.parametrize(
    ("status", "code", "requests"),
    [("408 Request Timeout", "upstream_unavailable", 3), ("410 Gone", "unsupported", 1)],
)
async def test_a_timeout_of_upstreams_own_is_tried_again_and_what_is_gone_is_not(
    make_settings: Make, status: str, code: str, requests: int
) -> None:
    error, sent, _ = await outcome(make_settings, framed(b"", status=status))
    assert error is not None
    assert (error["code"], sent) == (code, requests)


@pytest.mark.parametrize(
    ("header", "handed_back"),
    [("Wed, 21 Oct 2099 07:28:00 GMT", True), ("Wed, 21 Oct 2015 07:28:00 -0000", False), ("soon", False)],
)
async def test_a_wait_until_a_date_is_understood_and_nonsense_is_not_waited_for(
    make_settings: Make, header: str, handed_back: bool
) -> None:
    answer = framed(b"", f"Retry-After: {header}\r\n", status="429 Too Many Requests")
    error, sent, _ = await outcome(make_settings, answer)
    assert error is not None
    assert sent == (1 if handed_back else 3)
    assert bool(error["retry_after_seconds"]) is handed_back


def test_retries_of_the_last_minute_count_and_older_ones_do_not() -> None:
    budget = RetryBudget(deque([time.monotonic() - 61] * 10))
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]


@pytest.mark.long
async def test_a_body_that_stops_coming_times_out(make_settings: Make) -> None:
    async def stop(exchange: Exchange) -> None:
        await exchange.send(framed(CSV, length=len(CSV) + 5))
        await exchange.stream.receive()

    async with scripted_upstream(stop) as fake, connected(make_settings(fake.url, read_timeout=1)) as client:
        error = await refused(client, "export_csv", granularity="by_user")
    assert error["code"] == "upstream_timeout"
    assert "stopped coming for 1 second" in error["message"]


async def test_a_request_has_a_deadline_with_all_its_retries(make_settings: Make) -> None:
    async def say_nothing(exchange: Exchange) -> None:
        await exchange.stream.receive()

    async with scripted_upstream(say_nothing) as fake, connected(make_settings(fake.url, deadline=0.2)) as client:
        error = await refused(client, "export_csv")
    assert (error["code"], error["retryable"]) == ("upstream_timeout", True)
    assert "after 0.2 seconds" in error["message"]


@pytest.mark.long
async def test_a_body_that_is_slow_and_steady_is_waited_for(make_settings: Make) -> None:
    body = b"Instance user ID,Searches\n" + b"1,2\n" * 4000

    async def trickle(exchange: Exchange) -> None:
        await exchange.send(framed(b"", length=len(body)))
        for at in range(0, len(body), 4000):
            await exchange.send(body[at : at + 4000])
            await anyio.sleep(0.25)

    async with scripted_upstream(trickle) as fake, connected(make_settings(fake.url, read_timeout=1)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert export["row_count"] == 4000


@pytest.mark.long
async def test_a_pause_that_is_allowed_is_waited_for_whatever_comes_after_it(make_settings: Make) -> None:
    body = b"Instance user ID,Searches\n1,2\n"  # less than anything but a drip would bring meanwhile

    async def pause(exchange: Exchange) -> None:
        await exchange.send(framed(body[:5], length=len(body)))
        await anyio.sleep(2.5)  # more than half of what is allowed, also after an engine has been waited for
        await exchange.send(body[5:])

    async with scripted_upstream(pause) as fake, connected(make_settings(fake.url, read_timeout=3)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert (export["row_count"], len(fake.exchanges)) == (1, 1)


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(make_settings: Make, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    greeted: list[bool] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
            greeted.append(bool(secured.recv(1)))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        async with connected(make_settings(url, connect_timeout="3")) as client:
            error = await refused(client, "export_csv")
        await anyio.to_thread.run_sync(thread.join)
    assert error["code"] == "upstream_unavailable"
    assert "certificate of 127.0.0.1" in error["message"]
    assert not any(greeted)


async def test_a_disk_that_is_full_is_said_and_nothing_is_left(make_settings: Make) -> None:
    body = b"Instance user ID,Username\n" + b"1,%s\n" % (b"x" * 1000) * 8000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, hard))  # the system refuses a longer file
    try:
        error, _, kept = await outcome(make_settings, framed(body))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error is not None
    assert (error["code"], kept) == ("store_full", False)


@pytest.mark.parametrize("kind", [KeyError, SystemExit, KeyboardInterrupt, RecursionError])
async def test_a_bug_ends_neither_the_server_nor_the_next_call(make_settings: Make, kind: type[BaseException]) -> None:
    async def broken(*_: Any) -> None:
        raise kind("nobody foresaw this")

    server = AnalyticsServer(make_settings("http://127.0.0.1:9"), broken)
    async with Client(server, mode="2026-07-28") as client:
        export = await refused(client, "export_csv")
        buckets = await refused(client, "get_credits")
        assert (await call(client, "list_exports"))["exports"] == []
    assert (export["code"], buckets["code"]) == ("internal", "internal")
    assert "nobody foresaw" not in json.dumps([export, buckets])


@pytest.mark.parametrize(
    "error", [OSError(errno.ENFILE, "planted"), RuntimeError("can't start new thread"), MemoryError()], ids=repr
)
async def test_what_the_system_has_no_more_of_is_busy_whoever_needed_it(make_settings: Make, error: Exception) -> None:
    async def broken(*_: Any) -> None:
        raise error

    async with Client(AnalyticsServer(make_settings("http://127.0.0.1:9"), broken), mode="2026-07-28") as client:
        told = [await refused(client, tool) for tool in ("export_csv", "get_credits")]
    assert [(one["code"], one["retryable"]) for one in told] == [("busy", True)] * 2


async def test_a_document_is_asked_for_under_our_name_and_without_a_credential(make_settings: Make) -> None:
    asked: list[dict[str, str]] = []

    async def send(exchange: Exchange) -> None:
        asked.append(exchange.headers)
        await exchange.answer(b"{}")

    async with scripted_upstream(send) as fake:
        assert await fetch_document(make_settings(fake.url), f"{fake.url}/keys") == b"{}"
    (headers,) = asked
    assert headers["user-agent"] == "sourcegraph-analytics-mcp"
    assert {"authorization", "cookie"} & {*headers} == set()


@pytest.mark.parametrize(
    "answer",
    [framed(b"x", status="404 Not Found"), framed(b"x" * ((1 << 20) + 1)), framed(b"cut", length=99), b""],
    ids=["not there", "too large", "cut", "nothing"],
)
async def test_a_document_that_is_not_whole_and_small_is_not_read(make_settings: Make, answer: bytes) -> None:
    async def send(exchange: Exchange) -> None:
        await exchange.send(answer)

    async with scripted_upstream(send) as fake:
        with pytest.raises(AnalyticsError) as error:
            await fetch_document(make_settings(fake.url), f"{fake.url}/keys")
    assert (error.value.code, error.value.retryable) == ("upstream_unavailable", True)
