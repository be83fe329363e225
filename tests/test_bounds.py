"""No data makes an answer too large: rows are cut, that is said, and totals stay over everything."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from sourcegraph_analytics_mcp.exports.columns import DOCUMENTED
from sourcegraph_analytics_mcp.settings import Settings
from support.client import connected, read, refused, text
from support.upstreams import Exchange, scripted_upstream

pytestmark = pytest.mark.anyio
Make = Callable[..., Settings]
PEOPLE = 700
HOSTILE = "\u202e|`" * 60  # each character becomes up to eight
MOST = 45_000  # characters of a text: the rows, what is said of them, and links
TODAY = datetime.now(UTC).date()


def usage(exchange: Exchange) -> bytes:
    """Everybody has a name that grows when it is shown; days where the report has them."""
    days = [TODAY - timedelta(days=n) for n in range(1, 3)] if "by_user_day" in exchange.target else [None]
    when = ["Timestamp Date"] if days[0] else ["Timestamp Month"] if "by_user_month" in exchange.target else []
    counts = [column.header for column in DOCUMENTED if column.kind == "count"]
    lines = [["Instance user ID", "Username", *when, *counts]]
    for number in range(PEOPLE):
        for day in days:
            moment = [str(day)] if day else [f"{date(2020, 1, 1)}"] if when else []
            lines.append([str(number), f"{HOSTILE}{number}", *moment, *["7"] * len(counts)])
    return "\n".join(",".join(line) for line in lines).encode()


async def answer(exchange: Exchange) -> None:
    if "user-registry" in exchange.target:
        await exchange.answer(status="404 Not Found")
    elif "credits" in exchange.target:
        await exchange.answer(json.dumps([{"bucket": "x" * 100_000}]).encode(), content_type="application/json")
    elif "tokens" in exchange.target:
        token = {"displayName": HOSTILE, "createdAt": "2026-01-01T00:00:00Z", "isExpired": True}
        body = json.dumps({"tokens": [{"id": f"{number:032}", **token} for number in range(2_000)]}).encode()
        await exchange.answer(body, content_type="application/json")
    else:
        await exchange.answer(usage(exchange))


def small(content: str) -> bool:
    return len(content) <= MOST


async def bounded(client: Client, tool: str, **arguments: Any) -> Any:
    """The structured answer of a call whose text and data are small."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    assert small(text(result))
    assert small(json.dumps(result.structured_content, ensure_ascii=False))
    return result.structured_content


@pytest.mark.long
async def test_rows_that_do_not_fit_are_cut_and_said(make_settings: Make) -> None:
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        metrics = ["searches", "chat_events"]
        usage = await bounded(client, "query_usage", metrics=metrics, group_by=["user"], period="all_time", limit=1000)
        assert usage["totals"] == [PEOPLE * 7] * 2
        assert 0 < len(usage["rows"]) < PEOPLE == usage["row_count"]
        assert usage["truncated"]
        assert f"Only {len(usage['rows'])} rows fit into an answer" in usage["notes"][-1]

        days = await bounded(client, "query_usage", metrics=metrics, group_by=["day", "user"], limit=1000)
        assert days["rows"][-1][0] == str(TODAY - timedelta(days=1))  # the latest stay
        assert f"of {PEOPLE:,} rows are shown, those with the highest Searches." in days["notes"][-2]

        gone = await bounded(client, "list_inactive_users", days=3650, limit=1000)
        assert gone["inactive"] + gone["seen"] >= PEOPLE

        export = usage["export_ids"][0]
        rows = await bounded(client, "query_export", export_id=export, sql="SELECT * FROM usage", limit=1000)
        assert rows["truncated"]
        assert "fit into an answer" in rows["notes"][-1] or "left out" in rows["notes"][-1]

        page = await read(client, f"analytics://exports/{export}/rows?limit=500")
        assert small(page)
        shown = page.count("\n|") - 2
        assert f"/rows?offset={shown}&limit=500" in page

        tokens = await bounded(client, "list_tokens")
        assert tokens["total"] == tokens["expired"] == 2_000
        assert f"the first {len(tokens['tokens'])} of 2,000" in tokens["notes"][-1]
        assert (await refused(client, "get_credits"))["code"] == "result_too_large"


async def test_absurd_headers_do_not_fill_an_answer(make_settings: Make) -> None:
    async def wide(exchange: Exchange) -> None:
        names = [f"{number}{'n' * 900}" for number in range(500)]
        await exchange.answer(("Instance user ID," + ",".join(names) + "\n1" + "," * 500).encode())

    async with scripted_upstream(wide) as fake, connected(make_settings(fake.url)) as client:
        export = (await bounded(client, "export_csv", granularity="by_user"))["export"]
        assert len(export["columns"]) == 501
        assert "and 480 more" in export["warnings"][1]
        page = await read(client, f"{export['summary_uri']}/rows")
        assert ": rows 1 to 1 of 1; 500 cells are cut to 200 characters, data.csv has them whole." in page
        assert (await bounded(client, "list_exports"))["exports"][0]["id"] == export["id"]


async def test_one_token_with_an_endless_name_hides_no_other(make_settings: Make) -> None:
    async def named(exchange: Exchange) -> None:
        token = {"createdAt": "2026-01-01T00:00:00Z", "isExpired": False}
        tokens = [{"id": "a", "displayName": "x" * 41_000, **token}, {"id": "b", "displayName": "short", **token}]
        await exchange.answer(json.dumps({"tokens": tokens}).encode(), content_type="application/json")

    async with scripted_upstream(named) as fake, connected(make_settings(fake.url)) as client:
        listed = (await bounded(client, "list_tokens"))["tokens"]
    assert [(token["id"], len(token["display_name"])) for token in listed] == [("a", 500), ("b", 5)]


@pytest.mark.long
async def test_one_person_with_an_endless_name_hides_no_other(make_settings: Make, tmp_path: Path) -> None:
    async def named(exchange: Exchange) -> None:
        day, old = TODAY - timedelta(days=2), TODAY - timedelta(days=200)
        seen = [(str(old), "x" * 45_000), (str(old), "gone"), (str(day), "y" * 45_000), (str(day), "here")]
        month = "by_user_month" in exchange.target
        rows = [f"{n},{who},{when[:7] if month else when},{9 - n}" for n, (when, who) in enumerate(seen)]
        here = rows if month or "startDate" not in exchange.target else rows[2:]
        when = "Timestamp Month" if month else "Timestamp Date"
        await exchange.answer("\n".join([f"Instance user ID,Username,{when},Searches", *here, ""]).encode())

    (tmp_path / "seats.csv").write_text(f"user\n{'z' * 45_000}\ngone\nhere\nnew\n")
    settings = partial(make_settings, seats_file=tmp_path / "seats.csv")
    async with scripted_upstream(named) as fake, connected(settings(fake.url)) as client:
        usage = await bounded(client, "query_usage", metrics=["searches"], group_by=["user"])
        gone = await bounded(client, "list_inactive_users")
    assert [(len(row[0]), row[1]) for row in usage["rows"]] == [(500, "2"), (4, "3")]
    assert [(len(row[0]), row[2]) for row in gone["rows"]] == [
        (500, "lapsed"), (4, "lapsed"), (500, "never seen"), (3, "never seen"),
    ]  # fmt: skip
    assert not usage["truncated"]
    assert not gone["truncated"]


async def test_an_export_whose_headers_fill_an_answer_is_listed_without_them(make_settings: Make) -> None:
    async def wide(exchange: Exchange) -> None:
        names = [f"{number:03}" + "\u202e" * 60 for number in range(200)]
        await exchange.answer(("Instance user ID," + ",".join(names) + "\n1" + "," * 200).encode())

    async with scripted_upstream(wide) as fake, connected(make_settings(fake.url)) as client:
        export = (await client.call_tool("export_csv", {"granularity": "by_user"})).structured_content
        assert export is not None
        (listed,) = (await bounded(client, "list_exports"))["exports"]
    assert (listed["id"], listed["columns"]) == (export["export"]["id"], [])
