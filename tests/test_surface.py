"""What every client sees: rules over all tools, resources, prompts, announcements, and a reviewed snapshot."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import PromptReference, ResourceTemplateReference
from pydantic import BaseModel

from sourcegraph_analytics_mcp.demo.upstream import DEMO_INSTANCE
from sourcegraph_analytics_mcp.errors import CODES
from sourcegraph_analytics_mcp.exports.columns import DOCUMENTED, SQL_TYPES
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface import app, prompts, resources
from sourcegraph_analytics_mcp.surface.prompts import parse
from sourcegraph_analytics_mcp.surface.server import _INSTRUCTIONS as INSTRUCTIONS
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from sourcegraph_analytics_mcp.surface.tool import compact_schema
from sourcegraph_analytics_mcp.usage.metrics import METRICS, Minutes
from support.client import REVISIONS, call, connected, read, refused, text
from support.upstreams import Exchange, Served, scripted_upstream

pytestmark = pytest.mark.anyio

SNAPSHOT = Path(__file__).with_name("surface.json")


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


async def listed(settings: Settings) -> dict[str, Any]:
    """The whole surface as a client sees it."""
    async with connected(settings) as client:
        tools = (await client.list_tools()).tools
        templates = (await client.list_resource_templates()).resource_templates
        return {
            "instructions": client.instructions,
            "tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools],
            "resources": [r.model_dump(mode="json", by_alias=True, exclude_none=True)
                          for r in (await client.list_resources()).resources],
            "templates": [t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in templates],
            "prompts": [p.model_dump(mode="json", by_alias=True, exclude_none=True)
                        for p in (await client.list_prompts()).prompts],
        }  # fmt: skip


async def test_the_surface_is_the_reviewed_one(settings: Settings) -> None:
    """Set UPDATE_SURFACE=1 to write a changed surface, and review the difference."""
    now = json.dumps(await listed(settings), indent=1, ensure_ascii=False) + "\n"
    snapshot = await anyio.Path(SNAPSHOT).read_text() if SNAPSHOT.exists() else ""
    if os.environ.get("UPDATE_SURFACE"):
        await anyio.Path(SNAPSHOT).write_text(now)
    else:
        assert json.loads(now) == json.loads(snapshot)


async def test_every_tool_follows_the_rules(settings: Settings) -> None:
    surface = await listed(settings)
    for tool in surface["tools"]:
        assert tool["title"]
        assert 20 < len(tool["description"]) < 600
        assert set(tool["annotations"]) >= {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
        schema = tool["inputSchema"]
        assert schema["additionalProperties"] is False
        assert tool["outputSchema"]["properties"]
        assert "$ref" not in compact(tool)
        for name, argument in schema["properties"].items():
            assert argument.get("description"), (tool["name"], name)
            assert {"type", "enum"} & set(argument)
            assert not {"cookie", "secret", "password", "bearer"} & set(name.split("_"))


async def test_the_surface_is_small(settings: Settings) -> None:
    surface = await listed(settings)
    assert len(compact({"tools": surface["tools"]}).encode()) < 14_000
    assert len(INSTRUCTIONS) < 300 * 4


async def test_the_list_is_the_same_before_and_after_work(settings: Settings) -> None:
    async with connected(settings) as client:
        before = (await client.list_tools()).tools
        await call(client, "export_csv")
        assert (await client.list_tools(cache_mode="refresh")).tools == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"granularty": "by_user"}, "did you mean granularity?"),
        ({"zzz": 1}, "valid are: granularity"),
        ({"granularity": "day"}, "must be one of 'by_user', 'by_user_month'"),
        ({"granularity": ""}, "must be one of"),
        ({"start_date": "2026-1-05"}, "YYYY-MM-DD"),
        ({"start_date": "２０２６-01-05"}, "YYYY-MM-DD"),
        ({"start_date": "2026-02-30"}, "no such day"),
        ({"start_date": "2026-01-05T00:00:00"}, "YYYY-MM-DD"),
        ({"start_date": 20260105}, "date"),
        ({"start_date": "2026-02-01", "end_date": "2026-01-01"}, "Swap"),
        ({"refresh": "true"}, "boolean"),
        ({"refresh": 1}, "boolean"),
        ({"instance_url": ""}, "at least 1"),
        ({"instance_url": "a.example/../b"}, "bare host"),
        ({"instance_url": "a.example&granularity=by_user"}, "bare host"),
        ({"instance_url": "ümlaut.example"}, "bare host"),
    ],
)
async def test_a_bad_argument_gets_a_sentence_that_helps(
    settings: Settings, upstream: Served, arguments: dict[str, Any], says: str
) -> None:
    async with connected(settings) as client:
        error = await refused(client, "export_csv", **arguments)
    assert error["code"] == "invalid_argument"
    assert says in f"{error['message']} {error['next_step']}"
    assert upstream.ledger == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"metrics": "searches"}, '"metrics" must be a list, like ["active_users"]'),
        ({"metrics": ["searches"], "group_by": "user"}, '"group_by" must be a list, like ["day"]'),
        ({"metrics": ["searches"], "users": "planted"}, '"users" must be a list, like ["…"]'),
        ({"metrics": ["searches"], "group_by": ["year"]}, "\"group_by.0\" must be one of 'day'"),
        ({"metrics": ["searches"] * 9}, '"metrics" takes at most 8, not 9.'),
        ({"metrics": ["searches"], "order_by": "x" * 81}, '"order_by": String should have at most 80 characters.'),
    ],
)
async def test_a_list_that_is_none_or_too_long_is_told_how_it_is_sent(
    settings: Settings, arguments: dict[str, Any], says: str
) -> None:
    async with connected(settings) as client:
        error = await refused(client, "query_usage", **arguments)
    assert says in error["message"]
    assert "planted" not in error["message"]


async def test_words_may_be_spelled_as_people_do(settings: Settings) -> None:
    async with connected(settings) as client:
        asked = {"metrics": ["Chat Events"], "group_by": ["Client"], "period": "Last month", "order_by": "chat-events"}
        answer = await call(client, "query_usage", **asked)
    assert [column["name"] for column in answer["columns"]] == ["client", "chat_events"]


async def test_null_is_an_argument_left_out(settings: Settings) -> None:
    nothing = ["group_by", "teams", "users", "period", "start_date", "end_date", "compare_to_previous", "limit"]
    async with connected(settings) as client:
        asked = await call(client, "query_usage", metrics=["searches"], **dict.fromkeys(nothing))
        bare = await call(client, "query_usage", metrics=["searches"])
        error = await refused(client, "query_usage", metrics=None)
    assert asked["rows"] == bare["rows"]
    assert error["code"] == "invalid_argument"


async def test_more_problems_than_one_refusal_names_are_counted(settings: Settings) -> None:
    async with connected(settings) as client:
        error = await refused(client, "export_csv", **{f"planted_{n}": n for n in range(8)})
    assert error["message"].count("there is no argument") == 5
    assert error["message"].endswith("; and 3 more.")


async def test_argument_errors_do_not_echo_values(settings: Settings) -> None:
    planted = "planted-in.an_argument"  # which nothing else would mask
    async with connected(settings) as client:
        for tool, arguments in (
            ("export_csv", {"granularity": planted}),
            ("export_csv", {"instance_url": f"{planted}!"}),
            ("revoke_token", {"token_id": f"{planted}/.."}),
            ("delete_export", {"export_id": planted}),
        ):
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert "planted" not in result.model_dump_json()


async def test_without_credentials_the_server_starts_and_says_what_is_missing(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings("http://127.0.0.1:9", access_token="", cas_cookie="", instance="")
    async with connected(settings) as client:
        assert len((await client.list_tools()).tools) >= 8
        assert (await refused(client, "export_csv"))["code"] == "invalid_argument"
        error = await refused(client, "export_csv", instance_url="a.example")
        checked = await call(client, "check_connection")
    assert error["code"] == "auth_missing"
    assert "SRC_ANALYTICS_ACCESS_TOKEN" in error["next_step"]
    assert not checked["ok"]
    assert {c["name"]: c["ok"] for c in checked["checks"]} == {
        "mode": True, "instance": False, "access token": False, "session cookie": False, "store": True,
    }  # fmt: skip


async def test_only_listed_instances_may_be_asked_about(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    settings = make_settings(upstream.url, instances="a.example, B.example/", instance="a.example")
    async with connected(settings) as client:
        error = await refused(client, "export_csv", instance_url="evil.example")
    assert (error["code"], upstream.ledger) == ("forbidden", [])
    assert "a.example, b.example" in error["next_step"]


async def test_credits_come_as_upstream_gives_them(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        result = await client.call_tool("get_credits", {"start_date": "2026-01-01"})
        ended = await call(client, "get_credits", start_date="2026-01-01", end_date="2026-01-31")
        undated = await call(client, "get_credits")
    assert result.structured_content is not None
    (note,) = result.structured_content["notes"]
    assert note == (
        "The dates (since 2026-01-01) choose buckets active then; upstream does not say whether figures are of these "
        "days or of the whole bucket."
    )
    assert note in text(result)
    assert ended["notes"][0].startswith("The dates (2026-01-01 to 2026-01-31) choose")
    assert undated["notes"] == []
    assert result.structured_content["credits"]["buckets"][0]["allocated"] == 50_000
    assert "| 50,000 |" in text(result)
    assert dict(upstream.ledger[0].query) == {"instanceURL": "demo.sourcegraph.example", "startDate": "2026-01-01"}


async def test_every_structured_answer_fits_its_schema(settings: Settings) -> None:
    """The client validates; a field that does not fit raises there."""
    async with connected(settings) as client:
        for tool in ("check_connection", "export_csv", "list_exports", "list_tokens", "get_credits", "create_token"):
            await call(client, tool)


async def test_the_metrics_are_a_resource(settings: Settings) -> None:
    async with connected(settings) as client:
        shown = await read(client, "analytics://metrics")
        await call(client, "export_csv", granularity="by_user")
        recent = await read(client, "analytics://exports")
    for metric in METRICS:
        assert f"| {metric.name} | {metric.title} | {metric.unit} |" in shown
    assert "Usage by user | all time" in recent


@pytest.mark.parametrize("uri", ["analytics://exports/", "analytics://exports/../x", "analytics://exports/%2e%2e", "x://y",
                                 "analytics://exports/" + "a" * 32, "file:///etc/passwd"])  # fmt: skip
@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_a_resource_that_is_not_there_is_invalid_params(settings: Settings, uri: str, revision: str) -> None:
    async with connected(settings, revision) as client:
        with pytest.raises(MCPError) as error:
            await client.read_resource(uri)
    assert error.value.error.code == -32602


@pytest.mark.parametrize("cursor", ["garbage", "", "0"])
@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_a_cursor_that_nobody_issued_is_invalid_params(settings: Settings, cursor: str, revision: str) -> None:
    async with connected(settings, revision) as client:
        for ask in (
            client.list_tools, client.list_prompts, client.list_resources, client.list_resource_templates
        ):  # fmt: skip
            assert (await ask(cursor=None)).next_cursor is None
            with pytest.raises(MCPError) as error:
                await ask(cursor=cursor)
            assert error.value.error.code == -32602


async def test_a_long_address_is_not_said_back_whole(settings: Settings) -> None:
    async with connected(settings) as client:
        for uri in ("x://" + "a" * 100_000, "analytics://exports/" + "\u202e" * 50_000):
            with pytest.raises(MCPError) as error:
                await client.read_resource(uri)
            told = error.value.error
            assert (told.code, len(told.data["uri"])) == (-32602, 200)
            assert len(told.model_dump_json()) < 700
            assert "\u202e" not in told.data["uri"]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_prompts_are_listed_and_filled(settings: Settings, revision: str) -> None:
    async with connected(settings, revision) as client:
        prompts = (await client.list_prompts()).prompts
        for prompt in prompts:
            assert prompt.title
            assert prompt.description
            filled = await client.get_prompt(prompt.name, {a.name: "x" for a in prompt.arguments or [] if a.required})
            assert "$" not in filled.messages[0].content.model_dump()["text"]
        for name, arguments in (("token_cleanu", {}), (prompts[0].name, {"nonsense": "1"})):
            with pytest.raises(MCPError) as error:
                await client.get_prompt(name, arguments)
            assert error.value.error.code == -32602


@pytest.mark.parametrize(
    "source",
    ["no front matter", "+++\ntitle = 'x'\n+++\nbody", "+++\ntitle = 'x'\ndescription = 'y'\n+++\n$unknown"]
    + [f"+++\ntitle = 'x'\ndescription = 'y'\n+++\nSaves {price} a day" for price in ("$5", "a $", "${5}", "${a-b}")],
)
def test_a_prompt_file_that_is_wrong_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"^prompts/name\.md"):
        parse("name", source)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("default = 60\nchoices = ['30', '60']", "arguments.days.default: Input should be a valid string"),
        ("choices = [30, 60]", "arguments.days.choices.0: Input should be a valid string"),
        ("default = 'two'\nchoices = ['30']", "cannot be 'two'; send 30 or a whole number up to 999"),
        ("default = 'three'\nlongest = 4", "is too long; 4 characters are taken"),
        ("longest = '4'", "arguments.days.longest: Input should be a valid integer"),
        ("defualt = '60'", "arguments.days.defualt: Extra inputs are not permitted"),
        ("also = 'any'", "arguments.days.also: Input should be 'YYYY-MM' or 'a whole number up to 999'"),
        ("default = ", "Invalid value"),
    ],
)
def test_what_is_wrong_with_an_argument_of_a_prompt_file_is_said(argument: str, says: str) -> None:
    front = f"+++\ntitle = 'x'\ndescription = 'y'\n[arguments.days]\ndescription = 'z'\n{argument}\n+++\nFor $days."
    with pytest.raises(ValueError, match=r"^prompts/name\.md: ") as error:
        parse("name", front)
    assert says in str(error.value)


def test_the_example_of_a_prompt_file_is_one() -> None:
    example = re.search(r"\+\+\+\n.*(?=\n\nA prompt is)", prompts.__doc__ or "", re.DOTALL)
    assert example is not None
    assert "last_month in it; $ is" in parse("example", example[0]).filled({}).model_dump_json()


def test_a_dollar_sign_in_a_prompt_is_written_twice() -> None:
    front = "+++\ntitle = 'x'\ndescription = 'y'\n+++\n"
    with pytest.raises(ValueError, match=r"^prompts/name\.md has a \$ that begins no name; write \$\$ for a dollar"):
        parse("name", f"{front}Saves $5 a day")
    assert "Saves $5 a day" in parse("name", f"{front}Saves $$5 a day").filled({}).model_dump_json()


async def test_export_ids_complete(settings: Settings) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        reference = ResourceTemplateReference(uri="analytics://exports/{export_id}")
        found = await client.complete(reference, {"name": "export_id", "value": export["id"][:3]})
        other = await client.complete(reference, {"name": "export_id", "value": "zz"})
        nothing = await client.complete(PromptReference(name="unknown"), {"name": "user", "value": "a"})
    assert found.completion.values == [export["id"]]
    assert other.completion.values == nothing.completion.values == []


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_nothing_completes_from_a_store_that_cannot_be_read(settings: Settings, revision: str) -> None:
    (settings.home / "exports").parent.mkdir()
    (settings.home / "exports").write_text("")  # where a directory belongs
    reference = ResourceTemplateReference(uri="analytics://exports/{export_id}")
    async with connected(settings, revision) as client:
        found = await client.complete(reference, {"name": "export_id", "value": ""})
    assert (found.completion.values, found.completion.total) == ([], 0)


@pytest.mark.filterwarnings("ignore:resources/subscribe")
async def test_a_new_export_is_announced_to_older_clients(settings: Settings) -> None:
    announced: list[str] = []
    both = anyio.Event()

    async def hear(message: Any) -> None:
        announced.append(type(message).__name__)
        if {"ResourceListChangedNotification", "ResourceUpdatedNotification"} <= set(announced):
            both.set()

    async with connected(settings, "2025-11-25", message_handler=hear) as client:
        await client.subscribe_resource("analytics://exports")
        await call(client, "export_csv", granularity="by_user")
        with anyio.fail_after(30):
            await both.wait()


async def test_a_new_export_is_announced_to_modern_listeners(settings: Settings) -> None:
    async with connected(settings) as client, client.listen(resources_list_changed=True) as events:
        await call(client, "export_csv", granularity="by_user")
        with anyio.fail_after(30):
            async for event in events:
                assert type(event).__name__ == "ResourcesListChanged"
                break


@pytest.mark.parametrize("swept_by", ["the hour", "check_connection", "export_csv", "query_usage"])
async def test_exports_that_time_removes_are_announced(
    make_settings: Callable[..., Settings], upstream: Served, swept_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(make_settings(upstream.url)) as client:
        kept = (await call(client, "export_csv", granularity="by_user"))["export"]["id"]
    settings = make_settings(upstream.url, access_token="sams_at_unknown.token")  # nothing new is added
    old, folder = "0" * 32, settings.home / "exports"

    def age() -> None:
        copy = shutil.copytree(folder / kept, folder.parent / "copy")
        meta = json.loads((copy / "meta.json").read_text()) | {"id": old, "created_at": "2026-01-01T00:00:00Z"}
        (copy / "meta.json").write_text(json.dumps(meta))
        copy.rename(folder / old)

    if swept_by == "the hour":
        monkeypatch.setattr(app, "_HOUR", 0.05)
    async with connected(settings) as client, client.listen(resources_list_changed=True) as events:
        age()
        if swept_by == "check_connection":
            await call(client, "check_connection")
        elif swept_by != "the hour":
            asked = {"metrics": ["searches"]} if swept_by == "query_usage" else {}
            assert (await client.call_tool(swept_by, asked | {"refresh": True})).is_error
        with anyio.fail_after(10):
            async for event in events:
                assert type(event).__name__ == "ResourcesListChanged"
                break
        assert [export["id"] for export in (await call(client, "list_exports"))["exports"]] == [kept]
    assert not (folder / old).exists()


def test_the_codes_are_a_closed_list() -> None:
    assert len(CODES) == len(set(CODES)) == 31


async def test_the_columns_are_a_resource(settings: Settings) -> None:
    async with connected(settings) as client:
        shown = await read(client, "analytics://columns")
    for column in DOCUMENTED:
        assert f"| {column.name} | {SQL_TYPES[column.kind]} | {column.header} |" in shown


@pytest.mark.parametrize("identities", ["names", "pseudonyms"])
async def test_the_columns_are_those_that_a_query_finds(
    make_settings: Callable[..., Settings], identities: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        headers = [c.header for c in DOCUMENTED if c.name != "timestamp_month"]
        await exchange.answer(f"{','.join(headers)},Deep Searches\n".encode())

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, identities=identities)
        async with connected(settings) as client:
            shown = await read(client, "analytics://columns")
            export = (await call(client, "export_csv"))["export"]["id"]
            found = await call(client, "query_export", export_id=export, sql="SELECT * FROM usage")
    listed = re.findall(r"^\| (\w+) \|.*\bby_user_day_client_language\b", shown, re.MULTILINE)
    there = [column["name"] for column in found["columns"]]
    added = ["deep_searches"] if identities == "names" else []
    assert there == [*listed, *added]
    assert ("Columns that upstream adds are there too" in shown) == bool(added)


async def test_instances_and_choices_of_prompts_complete(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    async def completed(client: Client, argument: str) -> list[str]:
        reference = PromptReference(name="time_saved")
        return (await client.complete(reference, {"name": argument, "value": ""})).completion.values

    listed = make_settings(upstream.url, instances="a.example,b.example", instance="a.example")
    for settings, known in ((make_settings(upstream.url), [DEMO_INSTANCE]), (listed, ["a.example", "b.example"])):
        async with connected(settings) as client:
            assert await completed(client, "instance_url") == known
            assert "last_quarter" in await completed(client, "period")


async def test_a_prompts_argument_is_bounded_and_may_be_left_out_only_where_it_has_a_default(
    settings: Settings,
) -> None:
    async with connected(settings) as client:
        filled = await client.get_prompt("time_saved", {"period": "last_year"})
        with pytest.raises(MCPError, match="too long"):
            await client.get_prompt("time_saved", {"period": "x" * 1001})
    assert "last_year" in filled.model_dump_json()
    front = "+++\ntitle = 'x'\ndescription = 'y'\n[arguments.team]\ndescription = 'whose'\n+++\nAbout $team."
    with pytest.raises(MCPError, match="'team' is required: whose"):
        parse("dropped_in", front).filled({})


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("time_saved", {"period": " Last Quarter "}, "saved with Sourcegraph in last_quarter."),
        ("time_saved", {"period": "   "}, "saved with Sourcegraph in last_quarter."),
        ("monthly_adoption_report", {"month": "2026-10"}, "report of Sourcegraph for 2026-10."),
        ("unused_seats", {"days": " 45 "}, "list_inactive_users with days=45 "),
        ("token_rotation", {"name": "Ann's laptop"}, '"Ann\'s laptop"'),
    ],
)
async def test_a_prompts_argument_is_taken_as_it_is_meant(
    settings: Settings, name: str, given: dict[str, str], meant: str
) -> None:
    async with connected(settings) as client:
        message = (await client.get_prompt(name, given)).messages[0]
    assert meant in message.content.model_dump()["text"]


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("time_saved", {"period": "Q3\u202e"}, "'period' cannot be 'Q3\\\\u{202E}'; send last_7_days, last_30_days,"),
        ("time_saved", {"period": "x" * 900}, f"'{'x' * 40}'; send last_7_days"),
        ("monthly_adoption_report", {"month": "2026-13"}, "'2026-13'; send last_month, this_month or YYYY-MM."),
        ("monthly_adoption_report", {"month": "October"}, "'October'; send last_month, this_month or YYYY-MM."),
        ("unused_seats", {"days": "sixty"}, "or a whole number up to 999."),
        ("unused_seats", {"days": "0"}, "or a whole number up to 999."),
        ("unused_seats", {"days": "６0"}, "or a whole number up to 999."),
    ],
)
async def test_a_prompts_argument_that_is_none_of_the_choices_is_told_them(
    settings: Settings, name: str, given: dict[str, str], says: str
) -> None:
    async with connected(settings) as client:
        with pytest.raises(MCPError) as error:
            await client.get_prompt(name, given)
    assert error.value.error.code == -32602
    assert says in error.value.error.message


def test_choices_of_a_dropped_in_prompt_are_given_as_they_are_written() -> None:
    front = "+++\ntitle = 'x'\ndescription = 'y'\n[arguments.editor]\ndescription = 'which'\nchoices = ['VS Code']\n"
    assert "In VS Code." in parse("x", f"{front}+++\nIn $editor.").filled({"editor": "vs-code"}).model_dump_json()


async def test_a_prompt_takes_as_long_a_name_for_a_token_as_its_tool(settings: Settings) -> None:
    async with connected(settings) as client:
        await client.get_prompt("token_rotation", {"name": "x" * 200})
        await call(client, "create_token", display_name="x" * 200)
        with pytest.raises(MCPError, match="'name' is too long; 200 characters are taken"):
            await client.get_prompt("token_rotation", {"name": "x" * 201})
        assert (await refused(client, "create_token", display_name="x" * 201))["code"] == "invalid_argument"


async def test_a_token_can_be_rotated_though_no_instance_is_set(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    async with connected(make_settings(upstream.url, instance="")) as client:
        told = (await client.get_prompt("token_rotation", {})).model_dump_json()
        unnamed = await call(client, "check_connection")
        named = await call(client, "check_connection", instance_url=DEMO_INSTANCE)
    assert "none was named, ask me for one before you go on, and pass it as instance_url each time" in told
    assert [check["detail"] for check in unnamed["checks"] if "instance was named" in check["detail"]]
    assert (unnamed["ok"], named["ok"]) == (False, True)


async def test_a_missing_argument_and_text_that_is_none_are_refused_in_words(settings: Settings) -> None:
    async with connected(settings) as client:
        missing = await refused(client, "query_export", export_id="0" * 32)
        broken = await refused(client, "query_export", export_id="0" * 32, sql="\ud800")
    assert '"sql" is required' in missing["message"]
    assert "not valid JSON" in broken["message"]


@pytest.mark.parametrize("given", ['"TOLD"', '{"note": "TOLD"}', '["TOLD"]', '[{"TOLD": 1}]'])
async def test_credits_in_another_form_are_text_without_markup(
    make_settings: Callable[..., Settings], given: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        body = given.replace("TOLD", "![x](http://evil.example) <b>a|b\\n\u202e").encode()
        await exchange.answer(body, content_type="application/json")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        shown = text(await client.call_tool("get_credits", {}))
    assert r"!\[x\](http\://evil.example) \<b\>a\|b\\" in shown
    assert "\u202e" not in shown


async def test_exports_of_instances_that_are_not_listed_are_not_there(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    async with connected(make_settings(upstream.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
    limited = make_settings(upstream.url, instances="other.example", instance="other.example")
    async with connected(limited) as client:
        assert (await call(client, "list_exports"))["exports"] == []
        assert export["summary_uri"] not in {str(r.uri) for r in (await client.list_resources()).resources}
        with pytest.raises(MCPError):
            await read(client, export["summary_uri"])
        for tool, more in (("query_export", {"sql": "SELECT 1 FROM usage"}), ("delete_export", {})):
            assert (await refused(client, tool, export_id=export["id"], **more))["code"] == "not_found"
        assert "0 exports" in text(await client.call_tool("check_connection", {}))
    async with connected(make_settings(upstream.url, instances=f"other.example,{DEMO_INSTANCE}")) as client:
        assert [kept["id"] for kept in (await call(client, "list_exports"))["exports"]] == [export["id"]]
        await call(client, "delete_export", export_id=export["id"])


@pytest.mark.parametrize("given", ['{"left": 1e400, "used": NaN}', '[{"left": 1e400, "used": NaN}]'])
async def test_credits_that_are_no_numbers_are_the_same_as_text_and_as_data(
    make_settings: Callable[..., Settings], given: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(given.encode(), content_type="application/json")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        result = await client.call_tool("get_credits", {})
    assert result.structured_content is not None
    spelled = json.dumps(result.structured_content["credits"])
    assert spelled.strip("[]") == '{"left": "1e400", "used": "nan"}'
    assert "| 1e400 | nan |" in text(result) or spelled in text(result)


@pytest.mark.parametrize("identities", ["names", "pseudonyms"])
async def test_credits_have_every_digit_as_text_and_as_data(
    make_settings: Callable[..., Settings], identities: str
) -> None:
    exact = ["0.1", "1e5", "0.30000000000000004", "9007199254740991", "1.10", "-0.0", "true"]
    digits = ["123456789012345.678901", "1234567890123456789.5", "9007199254740993", "-9007199254740992"]
    digits += ["1e-400", "1e99999999999999999999"]

    async def answer(exchange: Exchange) -> None:
        used = [f'{{"used": {number}}}' for number in [*exact, *digits]]
        body = f'{{"usage": [{", ".join(used)}], "total": {digits[0]}}}'
        await exchange.answer(body.encode(), content_type="application/json")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, identities=identities)) as client:
        result = await client.call_tool("get_credits", {})
    data: Any = result.structured_content
    used = [row["used"] for row in data["credits"]["usage"]]
    assert used == [*map(json.loads, exact), *digits]
    assert data["credits"]["total"] == digits[0]
    assert all(f"| {number} |" in text(result) for number in digits)


async def test_credits_that_have_a_key_twice_lose_neither_value(make_settings: Callable[..., Settings]) -> None:
    body = '{"list": [{"used": 1, "used": 2}]}'

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body.encode(), content_type="application/json")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        assert (await call(client, "get_credits"))["credits"] == body


_BESIDE = {"total": 1234.5678, "granted": [{"id": "g1", "amount": 5.000049}], "none": [], "consumed": [{"used": 42.5}]}
_MIXED = {"buckets": [{"a": 1}, 2], "by": {"month": 7.00001}}
_SPARSE = [{"amount": 1234567.891}, {"note": "x" * 300}]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (_BESIDE, ('{"total": 1234.5678, "none": []}', "granted:", "| id | amount |", "| g1 | 5.000049 |",
                   "consumed:", "| used |", "| 42.5 |")),
        (_SPARSE, ("| amount | note |", "| 1,234,567.891 |  |", f"|  | {'x' * 300} |")),
        ({"expired": [{"amount": 1}]}, ("expired:", "| amount |", "| 1 |")),
        ([{}], ("[{}]",)),
        (_MIXED, (json.dumps(_MIXED),)),
    ],
    ids=["beside lists", "a list", "the name of a list", "an empty object", "no table"],
)  # fmt: skip
async def test_credits_as_text_lack_nothing_and_round_nothing(
    make_settings: Callable[..., Settings], given: Any, told: tuple[str, ...]
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(json.dumps(given).encode(), content_type="application/json")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        shown = text(await client.call_tool("get_credits", {})).replace("\\[", "[").replace("\\]", "]")
    _, *lines = (line for line in shown.splitlines() if line and not line.startswith("|-"))
    assert tuple(lines) == told


async def test_credits_of_days_in_the_wrong_order_are_not_asked_for(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        error = await refused(client, "get_credits", start_date="2026-02-01", end_date="2026-01-01")
    assert (error["code"], error["next_step"], upstream.ledger) == ("invalid_argument", "Swap them.", [])


async def test_credits_longer_than_an_answer_may_be_are_refused(make_settings: Callable[..., Settings]) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(json.dumps({"note": "x" * 21_000}).encode(), content_type="application/json")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "get_credits")
    assert (error["code"], error["next_step"]) == ("result_too_large", "Ask for fewer days.")


@pytest.mark.parametrize("levels", [60, 100_000], ids=["deeper than data is", "deeper than can be read"])
async def test_credits_nested_too_deeply_to_be_data_are_refused(
    levels: int, make_settings: Callable[..., Settings]
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"[" * levels + b"]" * levels, content_type="application/json")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "get_credits")
    assert error["code"] == "upstream_schema_changed"
    assert "nested too deeply" in error["message"]


@pytest.mark.filterwarnings("ignore:resources/subscribe", "ignore:resources/unsubscribe")
async def test_who_no_longer_subscribes_is_not_told(settings: Settings) -> None:
    announced: list[str] = []
    changed = anyio.Event()

    async def hear(message: Any) -> None:
        announced.append(type(message).__name__)
        if "ResourceListChangedNotification" in announced:
            changed.set()

    async with connected(settings, "2025-11-25", message_handler=hear) as client:
        await client.subscribe_resource("analytics://exports")
        await client.subscribe_resource("analytics://metrics")
        await client.unsubscribe_resource("analytics://exports")
        await client.subscribe_resource("analytics://columns")  # which never changes
        await call(client, "export_csv", granularity="by_user")
        with anyio.fail_after(30):
            await changed.wait()
        await call(client, "list_exports")
    assert "ResourceUpdatedNotification" not in announced


@pytest.mark.filterwarnings("ignore:resources/subscribe")
@pytest.mark.parametrize(
    "uri", ["analytics://exports/1", f"analytics://exports/{'0' * 32}/{'x' * 1000}", "file:///etc/passwd"]
)
async def test_what_is_no_resource_cannot_be_subscribed_to(settings: Settings, uri: str) -> None:
    async with connected(settings, "2025-11-25") as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        for known in ("summary_uri", "csv_uri"):
            await client.subscribe_resource(export[known])
        await client.subscribe_resource(f"{export['summary_uri']}/rows?offset=50&limit=50")
        with pytest.raises(MCPError, match="There is no such resource") as raised:
            await client.subscribe_resource(uri)
    assert raised.value.error.code == -32602


@pytest.mark.long
async def test_clients_that_have_gone_do_not_hold_up_those_who_stay(settings: Settings) -> None:
    server = AnalyticsServer(settings)
    for _ in range(70):  # more than are remembered
        async with Client(server, mode="legacy") as gone:
            await call(gone, "list_exports")
    async with Client(server, mode="legacy") as client:
        with anyio.fail_after(20):
            await call(client, "export_csv", granularity="by_user")
            await call(client, "export_csv", granularity="by_user", refresh=True)


@pytest.mark.long
async def test_the_catalogue_and_a_summary_tell_the_minutes_in_force(
    settings: Settings, make_settings: Callable[..., Settings], upstream: Served
) -> None:
    async with connected(settings) as client:
        documented = await read(client, "analytics://metrics")
        summary = await read(client, (await call(client, "export_csv"))["export"]["summary_uri"])
    changed = make_settings(upstream.url, minutes_per_search=0.75, minutes_per_code_navigation=1)
    async with connected(changed) as client:
        shown = await read(client, "analytics://metrics")
        changed_summary = await read(client, (await call(client, "export_csv"))["export"]["summary_uri"])
    assert "Minutes counted per action: search 5, chat 5," in summary
    assert "Minutes counted per action: search 0.75, chat 5," in changed_summary
    assert "x 5 minutes, accepted completions and auto-edits x 2 minutes" in documented
    (line,) = (line for line in shown.splitlines() if line.startswith("| hours_saved "))
    assert "x 5 minutes" not in line
    assert "search 0.75, chat 5, command 5" in line
    assert "code navigation 1." in line
    assert "code_navigation_events" in line


async def test_a_resource_that_fails_for_a_bug_shows_nothing_of_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(minutes: Minutes) -> str:
        raise LookupError("the inside")

    monkeypatch.setattr(resources, "metrics_markdown", broken)
    async with connected(settings) as client:
        with pytest.raises(MCPError) as error:
            await client.read_resource("analytics://metrics")
        assert "Columns of usage" in await read(client, "analytics://columns")
    assert "inside" not in str(error.value.error)
    assert error.value.error.code == -32603
    assert "LookupError: the inside" in caplog.text


def test_an_answer_that_may_be_null_says_so_in_its_schema() -> None:
    class Maybe(BaseModel):
        kind: Literal["bar", "line"] | None

    schema = compact_schema(Maybe, answer=True)
    assert schema["properties"]["kind"] == {"type": ["string", "null"], "enum": ["bar", "line", None]}


async def test_credits_whose_keys_are_no_text_are_shown_all_the_same(make_settings: Callable[..., Settings]) -> None:
    body = b'{"buckets": [{"\\ud800k": 1, "\\udfffk": 2, "\\\\udfffk": 3}]}'

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body, content_type="application/json")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        found = await call(client, "get_credits")
    assert found["credits"] == {"buckets": [{"\\ud800k": 1, "\\udfffk 2": 2, "\\udfffk": 3}]}
