"""Exports from end to end: right figures, kept once, shown as tables, gone when deleted."""

import csv
import hashlib
import io
import re
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.lowlevel
import pytest
from mcp import Client, MCPError
from mcp_types import ResourceLink

from sourcegraph_analytics_mcp.demo import embedded
from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.demo.reports import report
from sourcegraph_analytics_mcp.demo.upstream import DEMO_INSTANCE
from sourcegraph_analytics_mcp.exports import downloads, wishes
from sourcegraph_analytics_mcp.exports import store as exports_store
from sourcegraph_analytics_mcp.exports.engine.questions import Questions
from sourcegraph_analytics_mcp.exports.store import Store
from sourcegraph_analytics_mcp.exports.wishes import Wish, Wishes
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface import resources
from sourcegraph_analytics_mcp.surface.app import open_app
from sourcegraph_analytics_mcp.surface.call import Call
from sourcegraph_analytics_mcp.surface.notices import Notices
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from sourcegraph_analytics_mcp.upstream.models import ReportRequest
from sourcegraph_analytics_mcp.usage.metrics import Minutes
from sourcegraph_analytics_mcp.usage.summary import Summaries
from support.client import REVISIONS, call, connected, read, refused, text
from support.upstreams import Exchange, Scripted, Served, scripted_upstream

pytestmark = pytest.mark.anyio

GRANULARITIES = ("by_user", "by_user_month", "by_user_day", "by_user_day_client_language")
Make = Callable[..., Settings]
TODAY = datetime.now(UTC).date()
START, END = TODAY - timedelta(days=60), TODAY - timedelta(days=20)


def sent_by_upstream(company: Company, granularity: str, start: date | None, end: date | None) -> bytes:
    return "".join(report(company, granularity, start, end)).encode()


def rows_of(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode(), newline="")))


def wish_for(request: ReportRequest) -> Wish:
    return Wishes().take([request], new=False)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("start", [None, START])
@pytest.mark.parametrize("end", [None, END])
async def test_an_export_is_what_upstream_sent(
    settings: Settings, company: Company, granularity: str, start: date | None, end: date | None
) -> None:
    dates = {k: v.isoformat() for k, v in (("start_date", start), ("end_date", end)) if v}
    body = sent_by_upstream(company, granularity, start, end)
    rows = rows_of(body)

    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity=granularity, **dates))["export"]
        summary = await read(client, export["summary_uri"])

    assert Path(export["path"]).read_bytes() == body
    assert export["sha256"] == hashlib.sha256(body).hexdigest()
    assert export["byte_count"] == len(body)
    assert export["row_count"] == len(rows)
    assert export["columns"] == list(rows[0])
    assert export["active_users"] == len({row["Instance user ID"] for row in rows})
    assert (export["start_date"], export["end_date"]) == (dates.get("start_date"), dates.get("end_date"))
    chats = sum(int(row["Chat Events"] or 0) for row in rows)
    assert f"| Chats | {chats:,} | events |" in summary
    billable = {row["Instance user ID"] for row in rows if row["Active Sourcegraph User"] == "true"}
    assert f"| Billable users | {len(billable):,} | people |" in summary
    times = sorted({value for row in rows for header, value in row.items() if header.startswith("Timestamp")})
    if times:  # a month is not shown as its first day
        unit, length = ("months", 7) if granularity == "by_user_month" else ("days", 10)
        assert f"{len(times)} {unit} with data, {times[0][:length]} to {times[-1][:length]}." in summary


async def test_a_summary_leaves_out_what_its_export_has_no_column_for(make_settings: Make) -> None:
    columns = (
        "Searches",
        "Chat Events",
        "Command Events",
        "Combined Completion Acceptances",
        "Auto-edit accepted events",
    )
    row = f"{','.join(('Instance user ID', *columns))}\n1,7,1,1,1,1\n".encode()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(row)

    async with (
        scripted_upstream(answer) as fake,
        connected(make_settings(fake.url, minutes_per_code_navigation=1)) as client,
    ):
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        summary = await read(client, export["summary_uri"])
    assert "| Searches | 7 | events |" in summary
    assert "Hours saved" not in summary


async def test_hours_saved_by_code_navigation_alone_are_hours(make_settings: Callable[..., Settings]) -> None:
    columns = (
        "Instance user ID", "Timestamp Date", "Searches", "Code Navigation Events", "Chat Events", "Command Events",
        "Combined Completion Acceptances", "Auto-edit accepted events",
    )  # fmt: skip
    day = datetime.now(UTC).date() - timedelta(days=3)
    report = f"{','.join(columns)}\nnav,{day},,60,,,,\nboth,{day},12,60,,,,\nnone,{day},,,,,,\n".encode()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(report)

    async with (
        scripted_upstream(answer) as fake,
        connected(make_settings(fake.url, minutes_per_code_navigation=1)) as client,
    ):
        found = await call(client, "query_usage", metrics=["hours_saved"], group_by=["user"])
    assert {row[0]: row[-1] for row in found["rows"]} == {"nav": 1, "both": 2, "none": None}
    assert found["totals"] == [3]


@pytest.mark.long
async def test_the_summary_breaks_down_by_month_client_and_language(settings: Settings, company: Company) -> None:
    rows = rows_of(sent_by_upstream(company, "by_user_day_client_language", None, None))
    month = max(row["Timestamp Date"] for row in rows)[:7]
    of_month = [row for row in rows if row["Timestamp Date"].startswith(month)]
    accepted = sum(int(row["Combined Completion Acceptances"] or 0) for row in of_month)
    offered = sum(int(row["Combined Completion Suggestions"] or 0) for row in of_month)
    people = len({row["Instance user ID"] for row in of_month})

    async with connected(settings) as client:
        export = (await call(client, "export_csv"))["export"]
        summary = await read(client, export["summary_uri"])

    line = next(line for line in summary.splitlines() if line.startswith(f"| {month}"))
    assert f"| {people:,} |" in line
    assert f"| {accepted:,} | {accepted / offered:.1%} |" in line
    for heading in ("## By month", "## Top clients", "## Top languages"):
        assert heading in summary
    assert f"{TODAY} was not over" in summary
    assert len(summary) < 6000


async def test_the_same_request_in_the_same_hour_is_answered_from_the_store(
    settings: Settings, upstream: Served
) -> None:
    async with connected(settings) as client:
        first = (await call(client, "export_csv", granularity="by_user"))["export"]
        again = (await call(client, "export_csv", granularity="by_user"))["export"]
        fresh = (await call(client, "export_csv", granularity="by_user", refresh=True))["export"]
    async with connected(settings) as client:  # another process, later
        kept = (await call(client, "export_csv", granularity="by_user"))["export"]

    assert (first["reused"], again["reused"], fresh["reused"], kept["reused"]) == (False, True, False, True)
    assert again["id"] == first["id"] != fresh["id"] == kept["id"]
    assert len(upstream.sent("GET", "/api/reports/")) == 2


async def test_an_export_whose_csv_is_not_what_was_sent_is_downloaded_again(settings: Settings) -> None:
    async with connected(settings) as client:
        first = (await call(client, "export_csv", granularity="by_user"))["export"]
    csv_file = Path(first["path"])
    csv_file.write_bytes(b"X" + csv_file.read_bytes()[1:])
    async with connected(settings) as client:
        again = (await call(client, "export_csv", granularity="by_user"))["export"]
        reused = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert (again["reused"], reused["id"], reused["reused"]) == (False, again["id"], True)
    assert hashlib.sha256(Path(again["path"]).read_bytes()).hexdigest() == again["sha256"]


@pytest.mark.long
async def test_an_export_of_another_upstream_answers_nothing(make_settings: Make, upstream: Served) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"Instance user ID,Searches\n1,2\n")

    asked = {"granularity": "by_user"}
    async with connected(make_settings(upstream.url)) as client:
        here = (await call(client, "export_csv", **asked))["export"]
    async with scripted_upstream(answer) as other, connected(make_settings(other.url)) as client:
        there = (await call(client, "export_csv", **asked))["export"]
        again = (await call(client, "export_csv", **asked))["export"]
        await call(client, "delete_export", export_id=there["id"])
        figures = await call(client, "query_usage", metrics=["searches"], period="all_time")
    assert (there["reused"], there["row_count"], again["reused"], again["id"]) == (False, 1, True, there["id"])
    assert here["row_count"] > 1
    assert (figures["totals"], here["id"] in figures["export_ids"]) == ([2], False)


@pytest.mark.long
async def test_exports_are_listed_in_pages_and_deleted(settings: Settings) -> None:
    async with connected(settings) as client:
        made = [(await call(client, "export_csv", granularity=g))["export"]["id"] for g in GRANULARITIES]
        page = await call(client, "list_exports", limit=3)
        rest = await call(client, "list_exports", limit=3, cursor=page["next_cursor"])
        await call(client, "delete_export", export_id=made[0])
        left = await call(client, "list_exports")
        gone = await refused(client, "delete_export", export_id=made[0])
        with pytest.raises(MCPError) as error:
            await read(client, f"analytics://exports/{made[0]}")
        bad = await refused(client, "list_exports", cursor="nothing")

    assert [e["id"] for e in (*page["exports"], *rest["exports"])] == made[::-1]
    assert rest["next_cursor"] is None
    assert {e["id"] for e in left["exports"]} == set(made[1:])
    assert gone["code"] == "not_found"
    assert error.value.error.code == -32602
    assert bad["code"] == "invalid_argument"
    assert made[0] not in "".join(str(p) for p in settings.home.rglob("*"))


@pytest.mark.parametrize("revision", REVISIONS)
async def test_every_protocol_revision_does_the_whole_job(settings: Settings, revision: str) -> None:
    async with connected(settings, revision) as client:
        assert client.protocol_version == revision
        result = await client.call_tool("export_csv", {"granularity": "by_user_month"})
        links = [block for block in result.content if isinstance(block, ResourceLink)]
        known = ["text/markdown", "text/csv"] if revision >= "2025-06-18" else []
        assert [link.mime_type for link in links] == known
        export = (result.structured_content or {})["export"]
        for uri in (export["summary_uri"], export["csv_uri"]):
            assert uri in text(result)
            assert await read(client, uri)
        listed = (await client.list_resources(cache_mode="refresh")).resources
        assert export["summary_uri"] in [str(resource.uri) for resource in listed]
        assert "Usage by user and month" in text(await client.call_tool("list_exports", {}))


@pytest.mark.long
async def test_a_demo_that_stays_up_goes_on_day_by_day_with_the_tokens_it_has(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [datetime.now(UTC)]
    monkeypatch.setattr(embedded, "datetime", SimpleNamespace(now=lambda _: now[0]))
    server = AnalyticsServer(embedded.demo_settings(make_settings("")), embedded.embedded_upstream())
    last_days, said = [], []
    async with Client(server) as client:
        token = (await call(client, "create_token", display_name="kept"))["token"]["id"]
        for later in (0, 32):
            now[0] += timedelta(days=later)
            last_days.append(str(now[0].date()))
            said.append(text(await client.call_tool("export_csv", {"granularity": "by_user_day", "refresh": True})))
        assert token in [listed["id"] for listed in (await call(client, "list_tokens"))["tokens"]]
    assert [last in told.splitlines()[0] for last, told in zip(last_days, said, strict=True)] == [True, True], said


async def test_rows_come_as_they_were_sent_in_pages(settings: Settings, company: Company) -> None:
    rows = rows_of(sent_by_upstream(company, "by_user_day", None, None))
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user_day"))["export"]
        first = await read(client, f"{export['summary_uri']}/rows")
        last = await read(client, f"{export['summary_uri']}/rows?offset={len(rows) - 1}&limit=5")
        past = await read(client, f"{export['summary_uri']}/rows?offset={len(rows)}")
        for query in ("limit=0", "limit=501", "limit=x", "offset=-1"):
            with pytest.raises(MCPError) as error:
                await read(client, f"{export['summary_uri']}/rows?{query}")
            assert error.value.error.code == -32602
        assert await read(client, f"{export['summary_uri']}/rows?") == first
        for query in ("page=2", "limit=5&Offset=1", "offset=1&offset=2", "limit=5&%6Fffset=1", "=1", "rows?limit=5"):
            with pytest.raises(MCPError, match="takes offset and limit, each once, and nothing else") as error:
                await read(client, f"{export['summary_uri']}/rows?{query}")
            assert error.value.error.code == -32602

    assert len(first.splitlines()) == 4 + 50
    assert "offset=50" in first
    assert last.splitlines()[-1] == "| " + " | ".join(rows[-1].values()) + " |"
    assert past.endswith(f"has {len(rows):,} rows; none from row {len(rows) + 1:,} on.")


@pytest.mark.parametrize("identities", ["names", "pseudonyms"])
async def test_a_page_of_rows_says_what_is_cut_in_it_and_where_it_is_whole(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, identities: str
) -> None:
    cells = {1: ["x" * 201], 2: ["x" * 300, "\u202e" * 26], 3: ["x" * 200, "\u202e" * 25]}

    async def answer(exchange: Exchange) -> None:
        lines = [f"{n},{client},2026-01-05,,3" for n, clients in cells.items() for client in clients]
        await exchange.answer(
            "\n".join(["Instance user ID,Client Name,Timestamp Date,Language,Searches", *lines, ""]).encode()
        )

    async with (
        scripted_upstream(answer) as fake,
        connected(make_settings(fake.url, identities=identities)) as client,
    ):
        export = (await call(client, "export_csv"))["export"]
        uri = f"{export['summary_uri']}/rows"
        one, both, none = [await read(client, f"{uri}?{q}") for q in ("limit=1", "limit=4", "offset=3&limit=2")]
        whole = await read(client, export["csv_uri"])
        monkeypatch.setattr(resources, "_MOST_CSV", 100)
        large = await read(client, f"{uri}?limit=1")
    masked = identities == "pseudonyms"
    people = ", people by pseudonym" if masked else ""
    assert f": rows 1 to 1 of 5{people}; 1 cell is cut to 200 characters, data.csv has it whole. Next: " in one
    assert f": rows 1 to 4 of 5{people}; 3 cells are cut to 200 characters, data.csv has them whole. Next: " in both
    assert f": rows 4 to 5 of 5{people or ', as they came'}.\n" in none
    assert all(f'"{cell}"'.replace("\u202e", "\\u{202E}") in whole for row in cells.values() for cell in row)
    elsewhere = "" if masked else ", the file that export_csv names has it whole"
    assert f": rows 1 to 1 of 5{people}; 1 cell is cut to 200 characters{elsewhere}. Next: " in large


async def test_the_csv_resource_is_safe_for_spreadsheets(make_settings: Callable[..., Settings]) -> None:
    head = "Instance user ID,Username,Chat Events\n"
    body = (head + '1,"=HYPERLINK(""http://x"")",-5\n2," +1",7\n3,plain,\n').encode()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        shown = await read(client, export["csv_uri"])

    cells = list(csv.reader(io.StringIO(shown, newline="")))
    assert cells[1:] == [["1", '\'=HYPERLINK("http://x")', "-5"], ["2", "' +1", "7"], ["3", "plain", ""]]
    assert Path(export["path"]).read_bytes() == body


async def test_a_long_export_goes_on_in_the_background(make_settings: Callable[..., Settings]) -> None:
    finish = anyio.Event()

    async def answer(exchange: Exchange) -> None:
        body = b"Instance user ID,Searches\n" + b"1,2\n" * 1000
        await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:2000])
        await finish.wait()
        await exchange.send(body[2000:])

    said = "That export is still running. list_exports shows how far it is; call again when it is complete."
    async with scripted_upstream(answer) as scripted:
        settings = make_settings(scripted.url, answer_within=0.3)
        async with connected(settings) as client:
            running = (await call(client, "export_csv", granularity="by_user"))["export"]
            with anyio.fail_after(30):
                while running["progress"] is None:  # nothing has come yet
                    running = (await call(client, "export_csv", granularity="by_user"))["export"]
            listed = (await call(client, "list_exports"))["exports"]
            for tool, more in (("query_export", {"sql": "SELECT 1 FROM usage"}), ("delete_export", {})):
                error = await refused(client, tool, export_id=running["id"], **more)
                assert (error["code"], f"{error['message']} {error['next_step']}") == ("busy", said)
            for part in ("", "/rows", "/data.csv"):
                with pytest.raises(MCPError, match=re.escape(f"[busy] {said}")):
                    await read(client, f"analytics://exports/{running['id']}{part}")
            finish.set()
            done = await call(client, "export_csv", granularity="by_user")
            while done["export"]["status"] == "running":
                done = await call(client, "export_csv", granularity="by_user")

    assert (running["status"], running["id"]) == ("running", done["export"]["id"])
    assert 0 < running["progress"] < 1
    assert [(e["id"], e["status"]) for e in listed] == [(running["id"], "running")]
    assert done["export"]["row_count"] == 1000
    assert len(scripted.exchanges) == 1


async def test_a_background_export_that_fails_says_so_once_to_whoever_asks_next(
    make_settings: Callable[..., Settings],
) -> None:
    """However fast clients give up, a report that cannot be read is no export that runs for ever."""
    asked = {"granularity": "by_user", "refresh": True}
    ragged, whole = b"Instance user ID,Searches\n1,2,3\n", b"Instance user ID,Searches\n1,2\n"
    begun, finish = anyio.Event(), anyio.Event()

    async def answer(exchange: Exchange) -> None:
        begun.set()
        await finish.wait()
        await exchange.answer(ragged if exchange.number == 1 else whole)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, answer_within=0.2)) as client:
        assert (await call(client, "export_csv", **asked))["export"]["status"] == "running"
        await begun.wait()
        finish.set()
        with anyio.fail_after(30):
            while (await call(client, "list_exports"))["exports"]:
                pass
        error = await refused(client, "export_csv", **asked)
        assert (error["code"], len(fake.exchanges)) == ("upstream_bad_csv", 1)
        assert re.search("seconds? ago: call again to try anew.", error["next_step"])
        with anyio.fail_after(30):
            while (await call(client, "export_csv", granularity="by_user"))["export"]["status"] == "running":
                pass
        assert len(fake.exchanges) == 2


@pytest.mark.parametrize(
    ("later", "said", "left"),
    [
        (1, "That was in the background, 1 second ago: wait 1799 seconds, then call again.", 1799),
        (300, "That was in the background, 300 seconds ago: wait 1500 seconds, then call again.", 1500),
        (500, "That was in the background, 500 seconds ago: call again to try anew.", None),
    ],
)
async def test_a_background_export_that_is_to_wait_says_for_how_long_yet(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch, later: int, said: str, left: int | None
) -> None:
    now = [0.0]
    monkeypatch.setattr(downloads, "time", SimpleNamespace(monotonic=lambda: now[0]))
    begun, finish = anyio.Event(), anyio.Event()

    async def answer(exchange: Exchange) -> None:
        begun.set()
        await finish.wait()
        wait = 1800 if left else 400
        await exchange.answer(status="429 Too Many Requests", extra=f"Retry-After: {wait}\r\n")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, answer_within=0.2)) as client:
        assert (await call(client, "export_csv"))["export"]["status"] == "running"
        await begun.wait()
        finish.set()
        with anyio.fail_after(30):
            while (await call(client, "list_exports"))["exports"]:
                pass
        now[0] = later
        error = await refused(client, "export_csv")
    assert (error["code"], error["next_step"], error["retry_after_seconds"]) == ("rate_limited", said, left)
    assert (error["retryable"], len(fake.exchanges)) == (True, 1)


async def test_a_refresh_that_runs_on_ends_with_its_own_export_and_the_next_is_another(make_settings: Make) -> None:
    asked = {"granularity": "by_user", "refresh": True}
    finish = anyio.Event()

    async def answer(exchange: Exchange) -> None:
        await finish.wait()
        await exchange.answer(f"Instance user ID,Searches\n1,{exchange.number}\n".encode())

    async def complete(client: Client) -> dict[str, Any]:
        with anyio.fail_after(60):
            while (export := (await call(client, "export_csv", **asked))["export"])["status"] == "running":
                while (await call(client, "list_exports"))["exports"][0]["status"] == "running":
                    pass
        return dict(export)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, answer_within=0.2)) as client:
        running = (await call(client, "export_csv", **asked))["export"]
        assert running["status"] == "running"
        finish.set()
        first, second = await complete(client), await complete(client)
    assert (first["id"], first["reused"], second["reused"]) == (running["id"], False, False)
    assert (second["id"] != first["id"], len(fake.exchanges)) == (True, 2)


@pytest.mark.parametrize("ended", ["failed", "cancelled"])
@pytest.mark.parametrize("tool", ["export_csv", "query_usage"])
@pytest.mark.long
async def test_a_refresh_that_came_to_nothing_is_over(make_settings: Make, tool: str, ended: str) -> None:
    """What another call has downloaded since is not new to who asks for new data later."""
    days = {"start_date": str(END - timedelta(days=120)), "end_date": str(END)}
    compared: dict[str, Any] = {"metrics": ["searches"], "compare_to_previous": True}
    asked = days | ({"granularity": "by_user"} if tool == "export_csv" else compared)
    reports = 1 if tool == "export_csv" else 2  # of which the last comes to nothing
    begun, finish = anyio.Event(), anyio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.number == reports:
            begun.set()
            await finish.wait()
        ragged = b",3" if exchange.number == reports else b""
        await exchange.answer(f"Instance user ID,Searches\n1,{exchange.number}".encode() + ragged)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, tool, asked | {"refresh": True})
            await begun.wait()
            if ended == "cancelled":
                tasks.cancel_scope.cancel()
            finish.set()
        while any(export["status"] == "running" for export in (await call(client, "list_exports"))["exports"]):
            pass
        await call(client, "export_csv", granularity="by_user", **days)
        assert len(fake.exchanges) == reports + 1
        await call(client, tool, **asked, refresh=True)
        assert len(fake.exchanges) == reports + 1 + reports


@pytest.mark.long
async def test_only_what_was_downloaded_for_a_refresh_ends_it_as_does_whoever_saw_it(make_settings: Make) -> None:
    days = {"start_date": str(END - timedelta(days=120)), "end_date": str(END)}
    asked, new = {"granularity": "by_user", **days}, {"refresh": True}
    finish = [anyio.Event() for _ in range(3)]

    async def answer(exchange: Exchange) -> None:
        if 2 <= exchange.number <= 4:
            await finish[exchange.number - 2].wait()
        await exchange.answer(f"Instance user ID,Searches\n1,{exchange.number}\n".encode())

    async def export(**more: bool) -> Any:
        return (await call(client, "export_csv", **asked, **more))["export"]

    async def ended(number: int) -> None:
        finish[number - 2].set()
        with anyio.fail_after(30):
            while any(e["status"] == "running" for e in (await call(client, "list_exports"))["exports"]):
                pass

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, answer_within=1)) as client:
        old = await export()
        running = await export(**new)
        assert (await export())["id"] == old["id"]  # which is no answer to who wants new ones
        await ended(2)
        assert (await export(**new))["id"] == running["id"] != old["id"]
        running = await export(**new)
        await ended(3)
        assert (await export())["id"] == running["id"]  # who asked for it has seen it
        running = await export(**new)
        assert (running["status"], len(fake.exchanges)) == ("running", 4)
        await ended(4)
        compared = {"metrics": ["searches"], "compare_to_previous": True, **days, **new}
        while (result := await client.call_tool("query_usage", compared)).is_error:
            assert "[busy]" in text(result)
        newer = (result.structured_content or {})["export_ids"]
        assert (await export())["id"] in newer  # which overtook what was downloaded for it
        assert (await export(**new))["id"] not in {running["id"], *newer}


async def test_a_wish_for_new_data_that_nobody_repeats_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """So are the oldest of many, and one whose call ended; who asks then wants what is new by then."""
    now = [0.0]
    monkeypatch.setattr(wishes, "time", SimpleNamespace(monotonic=lambda: now[0]))
    wished = Wishes()
    asked = [ReportRequest(instance_url=f"{n}.example", granularity="by_user") for n in range(66)]

    def take(number: int) -> Wish:
        return wished.take([asked[number]], new=True)

    wished.keep(first := take(0))
    wished.keep(again := take(0))
    now[0] = 3601.0
    wished.keep(second := take(0))
    assert (again is first, second is first) == (True, False)
    for other in range(1, 65):
        wished.keep(take(other))
    assert take(0) is not second
    assert take(64) is not take(64)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("tool", ["export_csv", "query_usage", "list_inactive_users"])
@pytest.mark.long
async def test_whoever_was_told_to_wait_gets_what_was_waited_for_though_the_hour_has_turned(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch, tool: str, kept: bool
) -> None:
    """Nothing is downloaded twice, nor what was `kept` when the first call came; who asks anew gets new data."""
    days = {"start_date": str(END - timedelta(days=120)), "end_date": str(END)}
    earlier = {"start_date": str(END - timedelta(days=241)), "end_date": str(END - timedelta(days=121))}
    calls: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "export_csv": ({"granularity": "by_user", **days}, {"granularity": "by_user", **earlier}),
        "query_usage": (
            {"metrics": ["searches"], "compare_to_previous": True, **days},
            {"granularity": "by_user", **earlier},
        ),
        "list_inactive_users": ({}, {"granularity": "by_user_month", "end_date": str(TODAY)}),
    }
    asked, first = calls[tool]
    takes = 1 if tool == "export_csv" else 2
    last = 2 if kept else takes  # which is slow
    begun, finish = anyio.Event(), anyio.Event()
    hour = [datetime.now(UTC)]
    for module in (exports_store, downloads):
        monkeypatch.setattr(module, "datetime", SimpleNamespace(now=lambda _: hour[0]))

    async def answer(exchange: Exchange) -> None:
        if "user-registry" in exchange.target:
            await exchange.answer(status="404 Not Found")
            return
        granularity = parse_qs(urlsplit(exchange.target).query)["granularity"][0]
        times = {"by_user_month": ("Timestamp Month", f"{TODAY:%Y-%m}"), "by_user_day": ("Timestamp Date", str(TODAY))}
        header, cell = (f"{part}," if part else "" for part in times.get(granularity, ("", "")))
        if reports(fake) == last:
            begun.set()
            await finish.wait()
        await exchange.answer(f"Instance user ID,{header}Searches\n1,{cell}{reports(fake)}\n".encode())

    def reports(fake: Scripted) -> int:
        return sum("/reports/by-" in exchange.target for exchange in fake.exchanges)

    async def told_to_wait() -> bool:
        result = await client.call_tool(tool, asked)
        return "is still" in text(result)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, answer_within=0.5)) as client:
        if kept:
            await answered(client, "export_csv", **first)
        while not begun.is_set():
            assert await told_to_wait()
        finish.set()
        while any(e["status"] == "running" for e in (await call(client, "list_exports"))["exports"]):
            pass
        hour[0] += timedelta(hours=1)
        await answered(client, tool, **asked)
        assert reports(fake) == last
        await answered(client, tool, **asked)
        assert reports(fake) == last + takes


async def answered(client: Client, tool: str, **asked: Any) -> None:
    """Call a tool until it does not say to wait."""
    with anyio.fail_after(60):
        while "is still" in text(result := await client.call_tool(tool, asked)):
            pass
    assert not result.is_error, text(result)


@pytest.mark.parametrize("part", ["", "/rows", "/data.csv", "query_export"])
async def test_an_export_that_is_deleted_while_it_is_read_was_deleted_whoever_reads(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    get = Store.get

    def deleted_once_found(store: Store, export_id: str) -> Any:
        found = get(store, export_id)
        store.delete(export_id)
        return found

    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
        monkeypatch.setattr(Store, "get", deleted_once_found)
        if part == "query_export":
            said = (await refused(client, part, export_id=export, sql="SELECT 1 FROM usage"))["code"]
        else:
            with pytest.raises(MCPError, match=r"\[not_found\] The export was deleted while it was read") as failed:
                await read(client, f"analytics://exports/{export}{part}")
            said = str(failed.value).partition("]")[0].rpartition("[")[2]
    assert said == "not_found"


async def test_what_failed_long_ago_is_tried_again(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = anyio.Event()

    async def answer(exchange: Exchange) -> None:
        await finish.wait()
        await exchange.answer(status="404 Not Found")

    async with scripted_upstream(answer) as fake, open_app(make_settings(fake.url), Notices()) as app:
        app.store.prepare()
        request = ReportRequest(instance_url=DEMO_INSTANCE, granularity="by_user")
        first = app.downloads.start(request, wish_for(request))
        await app.downloads.wait(first, 0)
        finish.set()
        await first.done.wait()
        monkeypatch.setattr(downloads, "_UNTOLD_FOR", 0.0)
        assert app.downloads.start(request, wish_for(request)) is not first


@pytest.mark.long
async def test_only_the_latest_failures_are_kept_to_be_told(make_settings: Callable[..., Settings]) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(status="404 Not Found")

    async with scripted_upstream(answer) as fake, open_app(make_settings(fake.url), Notices()) as app:
        app.store.prepare()
        asked = [ReportRequest(instance_url=f"i{n}.example", granularity="by_user") for n in range(17)]
        failed = []
        for request in asked:
            failed.append(download := app.downloads.start(request, wish_for(request)))
            await app.downloads.wait(download, 0)
            await download.done.wait()
        assert app.downloads.start(asked[0], wish_for(asked[0])) is not failed[0]
        assert [app.downloads.start(request, wish_for(request)) for request in asked[1:]] == failed[1:]


async def test_progress_counts_bytes_and_rows_and_gives_a_percentage(make_settings: Callable[..., Settings]) -> None:
    seen: list[tuple[float, float | None, str | None]] = []
    reported = anyio.Event()

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))
        reported.set()

    async def answer(exchange: Exchange) -> None:
        body = b"Instance user ID,Searches\n" + b"1,2\n" * 1000
        await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:2026])
        await reported.wait()
        await exchange.send(body[2026:])

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        await client.call_tool("export_csv", {"granularity": "by_user"}, progress_callback=progress)

    done, total, message = seen[0]
    assert total == 100
    assert 50 < done < 51
    assert message == "2.0 kB, about 500 rows"


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.long
async def test_the_progress_of_several_downloads_is_on_one_scale(make_settings: Make, length: bool) -> None:
    """The second has come less far than the first when it is looked at."""
    days = {"start_date": str(END - timedelta(days=120)), "end_date": str(END)}
    body = b"Instance user ID,Searches\n" + b"1,2\n" * 10_000
    seen: list[tuple[float, float | None]] = []
    reported = [anyio.Event(), anyio.Event()]

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total))
        reported[(total == 200 and progress > 100) if length else progress > len(body)].set()

    async def answer(exchange: Exchange) -> None:
        half = 30_026 if exchange.number == 1 else 20_026
        framing = f"Content-Length: {len(body)}" if length else "Transfer-Encoding: chunked"
        await exchange.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        for piece in (body[:half], body[half:]):
            await exchange.send(piece if length else b"%x\r\n%b\r\n" % (len(piece), piece))
            await reported[exchange.number - 1].wait()
        await exchange.send(b"" if length else b"0\r\n\r\n")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        asked = {"metrics": ["searches"], "compare_to_previous": True, **days}
        result = await client.call_tool("query_usage", asked, progress_callback=progress)
    assert not result.is_error, text(result)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {200.0 if length else None}


async def test_cancelling_the_call_stops_the_download(make_settings: Callable[..., Settings]) -> None:
    begun, closed = anyio.Event(), anyio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nInstance user ID,Searches\n")
        begun.set()
        try:
            await exchange.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            closed.set()

    async with scripted_upstream(answer) as scripted:
        settings = make_settings(scripted.url, read_timeout=120)  # nothing else stops it
        async with connected(settings) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "export_csv", {"granularity": "by_user"})
            await begun.wait()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True), anyio.fail_after(30):
                await closed.wait()
        assert list((settings.home / "staging").iterdir()) == []


async def test_a_call_does_not_join_a_download_that_is_being_cancelled(
    make_settings: Callable[..., Settings], company: Company
) -> None:
    begun = anyio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.number > 1:
            await exchange.answer(sent_by_upstream(company, "by_user", None, None))
            return
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nInstance user ID,Searches\n")
        begun.set()
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await exchange.stream.receive()

    async with scripted_upstream(answer) as scripted, open_app(make_settings(scripted.url), Notices()) as app:
        app.store.prepare()
        request = ReportRequest(instance_url=DEMO_INSTANCE, granularity="by_user")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.downloads.wait, app.downloads.start(request, wish_for(request)), 10)
            await begun.wait()
            tasks.cancel_scope.cancel()
        fresh = app.downloads.start(request, wish_for(request))
        await app.downloads.wait(fresh, 10)
        export = fresh.result()
    assert export is not None
    assert export.row_count == len(rows_of(sent_by_upstream(company, "by_user", None, None)))


async def test_two_calls_share_one_download(settings: Settings, upstream: Served) -> None:
    answers: list[Any] = []

    async with connected(settings) as client:

        async def ask() -> None:
            answers.append((await call(client, "export_csv"))["export"]["id"])

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)

    assert len(answers) == 5
    assert len(set(answers)) == 1
    assert len(upstream.sent("GET", "/api/reports/")) == 1


@pytest.mark.parametrize(("row", "outcome"), [(b"1,2", "ok"), (b"1", "upstream_bad_csv")])
async def test_the_log_says_how_a_download_ended_that_went_on_behind_its_call(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture, row: bytes, outcome: str
) -> None:
    caplog.set_level("INFO", "sourcegraph_analytics_mcp.surface.events")
    body = b"Instance user ID,Searches\n" + row + b"\n"
    finish = anyio.Event()

    async def answer(exchange: Exchange) -> None:
        await finish.wait()
        await exchange.answer(body)

    def lines(what: str) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.getMessage().startswith(what)]

    async with scripted_upstream(answer) as fake:
        async with connected(make_settings(fake.url, answer_within=0.2)) as client:
            await call(client, "export_csv", granularity="by_user")
            assert " outcome=running " in lines("call tool=export_csv")[0]
            finish.set()
            with anyio.fail_after(30):
                while not lines("download "):
                    await anyio.lowlevel.checkpoint()
        async with connected(make_settings(fake.url)) as client:
            await client.call_tool("export_csv", {"granularity": "by_user_month"})
    (line,) = lines("download ")
    assert line.startswith(f"download outcome={outcome} ms=")
    assert f" rows={1 if outcome == 'ok' else 0} bytes={len(body)} " in line


@pytest.mark.long
async def test_old_exports_and_those_beyond_the_size_limit_are_deleted(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    async with connected(make_settings(upstream.url, max_store_bytes=60_000)) as client:
        await call(client, "export_csv", granularity="by_user")
        newest = await call(client, "export_csv", granularity="by_user_day")
        left = await call(client, "list_exports")
    assert [e["id"] for e in left["exports"]] == [newest["export"]["id"]]

    settings = make_settings(upstream.url, retention_days=0.00000001)
    async with connected(settings) as client:
        checked = await call(client, "check_connection")
        left = await call(client, "list_exports")
    assert checked["ok"]
    assert left["exports"] == []


async def test_files_are_for_this_user_alone(settings: Settings) -> None:
    async with connected(settings) as client:
        await call(client, "export_csv")
        await call(client, "create_token", display_name="x")
    for path in (settings.home, *settings.home.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def flip_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_damaged_data_is_never_read_and_is_downloaded_again(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        await call(client, "query_usage", metrics=["searches"], period="all_time")
    folder = Path(export["path"]).parent
    flip_one_bit(folder / "parts" / "00000.parquet")
    async with connected(settings) as client:
        error = await refused(client, "query_export", export_id=export["id"], sql="SELECT count(*) FROM usage")
        assert error["code"] == "store_corrupt"
        answer = await call(client, "query_usage", metrics=["searches"], period="all_time")
        again = (await call(client, "export_csv", granularity="by_user"))["export"]
    assert export["id"] not in answer["export_ids"]
    assert again["id"] != export["id"]
    assert again["sha256"] == export["sha256"]


@pytest.mark.parametrize("odd", ["", "1.5"])  # which the engine alone reads, and which the strict parser does
@pytest.mark.long
async def test_a_cell_that_is_kept_can_be_read_however_long_it_is(
    make_settings: Callable[..., Settings], odd: str
) -> None:
    long = "x" * 1_900_000

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(f"Instance user ID,Username,Searches\n1,{long},{odd}\n".encode())

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        page = await read(client, f"{export['summary_uri']}/rows")
        shown = await read(client, export["csv_uri"])
    assert "xxx" in page
    assert list(csv.reader(io.StringIO(shown, newline="")))[1] == ["1", long, odd]


async def test_a_damaged_csv_is_not_shown(settings: Settings) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        flip_one_bit(Path(export["path"]))
        for part in ("/rows", "/data.csv"):
            with pytest.raises(MCPError, match="damaged"):
                await read(client, f"analytics://exports/{export['id']}{part}")


async def test_no_cell_of_the_csv_acts_or_hides_whatever_its_column_holds(
    make_settings: Callable[..., Settings],
) -> None:
    head = "Instance user ID,Active Sourcegraph User,Timestamp Date,Searches,Combined CAR"
    odd = ["=HYPERLINK(1)", "+1", "@x", "\x1b[2J", "\u202e1", "-1+1", "-5", "-0.5", "-1e-5"]
    rows = [",".join([str(n), *[cell] * 4]) for n, cell in enumerate(odd)]

    async def answer(exchange: Exchange) -> None:
        await exchange.answer("\n".join([head, *rows, "9,true,2026-01-05,1,1", ""]).encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user_day"))["export"]
        shown = await read(client, export["csv_uri"])
    kept = ["'=HYPERLINK(1)", "'+1", "'@x", "\\u{001B}[2J", "\\u{202E}1", "'-1+1"]
    cells = [row[1:] for row in csv.reader(io.StringIO(shown))][1:-1]
    assert cells == [*([cell] * 4 for cell in kept), *([f"'{n}", f"'{n}", n, n] for n in odd[6:])]


async def test_days_nobody_asked_for_are_said(make_settings: Callable[..., Settings]) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"Instance user ID,Timestamp Date\n1,2026-01-31\n1,2026-02-01\n")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        dates = {"granularity": "by_user_day", "start_date": "2026-02-01"}
        export = (await call(client, "export_csv", **dates))["export"]
    assert any("2026-01-31 to 2026-02-01, which is more than the dates asked for" in w for w in export["warnings"])


async def test_a_cancelled_call_does_not_stop_what_another_waits_for(make_settings: Callable[..., Settings]) -> None:
    both_wait, finish = {name: anyio.Event() for name in ("patient", "hasty")}, anyio.Event()
    rows: list[int] = []

    async def answer(exchange: Exchange) -> None:
        body = b"Instance user ID,Searches\n1,2\n"
        await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-2])
        await finish.wait()
        await exchange.send(body[-2:])

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:

        async def export(name: str) -> None:
            async def waits(progress: float, total: float | None, message: str | None) -> None:
                both_wait[name].set()

            result = await client.call_tool("export_csv", {"granularity": "by_user"}, progress_callback=waits)
            rows.append((result.structured_content or {})["export"]["row_count"])

        async with anyio.create_task_group() as patient, anyio.create_task_group() as hasty:
            patient.start_soon(export, "patient")
            hasty.start_soon(export, "hasty")
            with anyio.fail_after(30):
                for waiting in both_wait.values():
                    await waiting.wait()
            hasty.cancel_scope.cancel()
            finish.set()
    assert rows == [1]
    assert len(fake.exchanges) == 1


@pytest.mark.long
async def test_a_download_left_running_goes_on_when_a_later_call_is_cancelled(
    make_settings: Callable[..., Settings],
) -> None:
    finish = anyio.Event()
    body = b"Instance user ID,Searches\n1,2\n"

    async def answer(exchange: Exchange) -> None:
        await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-2])
        await finish.wait()
        await exchange.send(body[-2:])

    async with scripted_upstream(answer) as fake, open_app(make_settings(fake.url), Notices()) as app:
        app.store.prepare()
        request = ReportRequest(instance_url=DEMO_INSTANCE, granularity="by_user")
        download = app.downloads.start(request, wish_for(request))
        await app.downloads.wait(download, 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.downloads.wait, download, 30)
            while not download.waiting:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        finish.set()
        await app.downloads.wait(download, 30)
        export = download.result()
    assert export is not None
    assert export.row_count == 1
    assert len(fake.exchanges) == 1


class Listening:
    """What a call reports its progress to."""

    def __init__(self) -> None:
        self.heard: list[float] = []

    async def report_progress(self, done: float, total: float | None, message: str) -> None:
        self.heard.append(done)


async def test_progress_only_rises_and_is_said_twice_a_second_at_most() -> None:
    client: Any = Listening()
    call, begun = Call(client), time.monotonic()
    await call.progress(50, 100, "half")
    enough = time.monotonic() + 0.5
    while time.monotonic() < enough:  # the report was cut and has begun again
        pass
    await call.progress(10, 100, "less")
    await call.progress(50, 100, "half again")
    assert client.heard == [50]
    for done in range(51, 1000):
        await call.progress(done, 1000, "more")
    assert client.heard[:2] == [50, 51]
    assert len(client.heard) <= 1 + (time.monotonic() - begun) / 0.5


async def test_a_disk_that_takes_only_a_part_is_not_taken_for_having_all(
    make_settings: Callable[..., Settings],
) -> None:
    body = b"Instance user ID,Searches\n" + b"1,2\n" * 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def answer(exchange: Exchange) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(body) - 40, hard))  # where a write ends short, without an error
        await exchange.answer(body)

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        async with connected(settings) as client:
            try:
                error = await refused(client, "export_csv", granularity="by_user")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list((settings.home / "staging").iterdir()) == []
    assert error["code"] == "store_full"


@pytest.mark.long
async def test_the_latest_summaries_are_kept_and_never_mixed_up(settings: Settings) -> None:
    async with connected(settings) as client:
        for granularity in ("by_user", "by_user_month"):
            await call(client, "export_csv", granularity=granularity)
    months, users = Store(settings.home, 30, 1 << 40).exports()
    questions = Questions(settings.home / "staging")
    summaries = Summaries(questions, Minutes())
    try:
        first = await summaries.of(months)
        assert await summaries.of(months) is first
        for number in range(64):
            other = await summaries.of(users.model_copy(update={"id": f"{number:032x}"}))
        again = await summaries.of(months)  # made anew, as it was too long ago
    finally:
        await questions.aclose()
    assert again == first != other
    assert again is not first


@pytest.mark.long
async def test_months_of_a_summary_that_are_not_whole_are_said(settings: Settings) -> None:
    begin = (TODAY - timedelta(days=40)).replace(day=2)
    end = begin.replace(day=20)
    async with connected(settings) as client:
        shown = {}
        for granularity in ("by_user_day", "by_user_month"):
            for name, dates in (
                ("cut", {"start_date": str(begin), "end_date": str(end)}),
                (
                    "whole",
                    {
                        "start_date": str(begin.replace(day=1)),
                        "end_date": str(TODAY.replace(day=1) - timedelta(days=1)),
                    },
                ),
                ("empty", {"start_date": "2011-01-02", "end_date": "2011-01-20"}),
                ("running", {}),
            ):
                export = (await call(client, "export_csv", granularity=granularity, **dates))["export"]
                summary = await read(client, export["summary_uri"])
                shown[granularity, name] = [line for line in summary.splitlines() if line.startswith("The ")]
    ends = (TODAY + timedelta(days=1)).day == 1  # then this month is as whole as its day
    for granularity, counted in (("by_user_day", "is only counted"), ("by_user_month", "may be counted only")):
        first, last = f"The first month {counted} from {begin}.", f"The last month {counted} until {end}."
        assert shown[granularity, "cut"] == [first, last]
        assert shown[granularity, "whole"] == shown[granularity, "empty"] == []
        assert shown[granularity, "running"] == ([] if ends else [last.replace(str(end), str(TODAY))])


async def test_a_range_that_is_not_over_or_open_is_said_as_such(settings: Settings) -> None:
    async with connected(settings) as client:
        dates = {"start_date": START.isoformat(), "end_date": "2199-12-31"}
        ahead = (await call(client, "export_csv", granularity="by_user", **dates))["export"]
        await call(client, "export_csv", granularity="by_user", start_date=START.isoformat())
        future = [
            (await call(client, "export_csv", granularity="by_user", start_date="2199-01-01", **more))["export"]
            for more in ({}, {"end_date": "2199-12-31"})
        ]
        listed = text(await client.call_tool("list_exports", {}))
    assert f"The range ends after {TODAY}, the day of the export; later days are not in it." in ahead["warnings"]
    for export in future:
        assert export["warnings"] == [f"The range begins after {TODAY}, the day of the export."]
    assert f"{START} to 2199-12-31" in listed
    assert f"{START} to …" in listed


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.long
async def test_every_granularity_says_that_today_is_not_over(settings: Settings, granularity: str) -> None:
    async with connected(settings) as client:
        for dates, open_still in (
            ({}, True),
            ({"end_date": str(TODAY)}, True),
            ({"start_date": str(TODAY)}, True),
            ({"end_date": str(TODAY - timedelta(days=1))}, False),
        ):
            result = await client.call_tool("export_csv", {"granularity": granularity, **dates})
            export = (result.structured_content or {})["export"]
            assert (f"{TODAY} was not over when this was exported." in export["warnings"]) is open_still, dates
            assert (f"{TODAY} was not over" in text(result)) is open_still


@pytest.mark.long
async def test_one_is_no_plural(settings: Settings) -> None:
    async with connected(settings) as client:
        await call(client, "export_csv", granularity="by_user")
        checks = (await call(client, "check_connection"))["checks"]
        inactive = text(await client.call_tool("list_inactive_users", {"days": 1}))
    assert checks[-1]["detail"].startswith("1 export, ")
    assert "(1 day)" in inactive


async def test_links_can_be_left_out_for_clients_that_choke_on_them(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    async with connected(make_settings(upstream.url, resource_links="0")) as client:
        result = await client.call_tool("export_csv", {"granularity": "by_user"})
    assert [block for block in result.content if isinstance(block, ResourceLink)] == []
    assert "analytics://exports/" in text(result)


async def test_before_the_first_export_there_is_a_word_on_how_to_make_one(settings: Settings) -> None:
    async with connected(settings) as client:
        assert "export_csv makes one" in await read(client, "analytics://exports")


@pytest.mark.parametrize("identities", ["names", "pseudonyms"])
async def test_a_csv_too_large_to_hand_over_is_refused_with_other_ways(
    make_settings: Callable[..., Settings], identities: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"Instance user ID,Username\n" + b"1,%s\n" % (b"x" * 500_000) * 11)

    settings = {"identities": identities}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        with pytest.raises(MCPError, match="ead a page of rows, or ask query_usage") as error:
            await read(client, export["csv_uri"])
    assert ("the file that export_csv names" in str(error.value)) == (export["path"] is not None)
    assert (export["path"] is None) == (identities == "pseudonyms")
