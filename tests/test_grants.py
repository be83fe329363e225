"""What each caller may use is read from the operator's file once, at the start, and a wrong file stops it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import ResourceTemplateReference

from sourcegraph_analytics_mcp.cli.main import run
from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.settings import Settings, SettingsError
from sourcegraph_analytics_mcp.surface.grants import Grants, named, read_grants
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from support.client import call, calling
from support.client import read as read_text
from support.upstreams import Served

ISSUER = "https://issuer.example"
HTTP = {
    "PUBLIC_URL": "https://here.example/mcp",
    "OAUTH_ISSUER": ISSUER,
    "OAUTH_KEYS_URL": "https://issuer.example/keys",
}
ALL = {"instances": ["*"], "tools": ["*"]}

Read = Callable[..., Grants]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file that holds a text, or data as JSON."""

    def read_file(content: object, mode: int = 0o600, **given: str) -> Grants:
        file = tmp_path / "callers.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        file.chmod(mode)
        environment = HTTP | {"CALLERS_FILE": str(file)} | given
        grants = read_grants(Settings.from_env({f"SRC_ANALYTICS_{name}": value for name, value in environment.items()}))
        assert grants is not None
        return grants

    return read_file


def instances(grants: Grants, subject: str, default: str) -> tuple[tuple[str, ...], str | None]:
    """Those that a caller may ask about, and the default of them where the operator's is another."""
    settings = Settings.from_env({"SRC_ANALYTICS_INSTANCE": default})
    narrowed = grants.of(named(ISSUER, subject)).narrowed(settings)
    return narrowed.instances, narrowed.instance


def test_everybody_else_has_what_the_star_says(read: Read) -> None:
    entries = {"planted": ALL, "*": {"instances": ["a.example", "https://B.example/"], "tools": ["get_credits"]}}
    grants = read(entries)
    assert instances(grants, "planted", "b.example") == ((), "b.example")
    assert instances(grants, "somebody", "b.example") == (("a.example", "b.example"), "b.example")
    assert instances(grants, "somebody", "c.example") == (("a.example", "b.example"), None)
    with pytest.raises(AnalyticsError, match=r"Pass instance_url \(one of: a.example, b.example\), or set"):
        grants.of(named(ISSUER, "somebody")).narrowed(Settings.from_env({})).resolve_instance(None)
    assert grants.of(named(ISSUER, "planted")).covers("query_usage")
    assert not grants.of(named(ISSUER, "somebody")).covers("query_usage")
    assert not grants.of(named("https://other.example", "planted")).covers("query_usage")


def test_without_the_star_nobody_else_has_anything(read: Read) -> None:
    grants = read({"planted": {"instances": ["a.example"], "tools": ["*"]}})
    assert instances(grants, "planted", "b.example") == (("a.example",), "a.example")
    with pytest.raises(AnalyticsError, match="forbidden"):
        grants.of(named(ISSUER, "somebody"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "line 1: that is not JSON"),
        ('{"planted": {\n"instances": [', "line 2: that is not JSON"),
        ("[" * 100_000, "JSON object with an entry for each caller"),
        ("9" * 5000, "JSON object with an entry for each caller"),
        ([ALL], "JSON object with an entry for each caller"),
        ({}, "JSON object with an entry for each caller"),
        ('{"planted": {"instances": ["a.example"], "tools": ["*"]}, "planted": {}}', "a name twice"),
        ('{"planted": {"instances": ["a.example"], "instances": ["*"], "tools": ["*"]}}', "a name twice"),
        ({"other": ALL, "planted": ["*"]}, "entry 2: Input should be an object"),
        ({"other": ALL, "planted": {"instances": ["*"]}}, "entry 2, tools: Field required"),
        ({"planted": ALL | {"tool": ["*"]}}, "entry 1, tool: Extra inputs are not permitted"),
        ({"planted": ALL | {"tools": "*"}}, "entry 1, tools: Input should be a valid array"),
        ({"planted": ALL | {"tools": []}}, "entry 1, tools: name at least one"),
        ({"planted": ALL | {"tools": ["planted"]}}, "entry 1, tools: it must be one of *, query_usage, "),
        ({"planted": ALL | {"instances": []}}, "entry 1, instances: name at least one"),
        ({"planted": ALL | {"instances": ["planted/x"]}}, "entry 1, instances: it must be a bare host like "),
        ({"planted": ALL | {"instances": [1]}}, "entry 1, instances: Input should be a valid string"),
    ],
)
def test_a_wrong_file_is_refused_without_a_persons_name(read: Read, content: Any, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(content)
    assert str(error.value).startswith("SRC_ANALYTICS_CALLERS_FILE")
    assert says in str(error.value)
    assert "planted" not in str(error.value)


def test_a_file_that_others_can_read_is_refused(read: Read) -> None:
    with pytest.raises(SettingsError, match="SRC_ANALYTICS_CALLERS_FILE can be read by others; run: chmod 600 "):
        read({"planted": ALL}, mode=0o640)


def test_nobody_is_granted_an_instance_that_the_operator_does_not_serve(read: Read) -> None:
    entries = {"planted": ALL, "other": {"instances": ["b.example", "c.example"], "tools": ["*"]}}
    assert read(entries, INSTANCES="b.example,C.example")
    with pytest.raises(SettingsError, match="entry 2, instances: each must be one of SRC_ANALYTICS_INSTANCES"):
        read(entries, INSTANCES="b.example")


def test_callers_are_told_apart_by_an_issuer(read: Read) -> None:
    without = dict.fromkeys(HTTP, "")
    with pytest.raises(SettingsError, match=r"^SRC_ANALYTICS_CALLERS_FILE cannot be used: .* needs OAUTH_ISSUER"):
        read({"planted": ALL}, **without)


@pytest.mark.parametrize("command", [[], ["serve", "--http", "127.0.0.1:9"]])
def test_a_file_that_is_not_there_stops_the_start(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in HTTP.items():
        monkeypatch.setenv(f"SRC_ANALYTICS_{name}", value)
    monkeypatch.setenv("SRC_ANALYTICS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SRC_ANALYTICS_CALLERS_FILE", str(tmp_path / "none.json"))
    assert run(command) == 2
    says = f"SRC_ANALYTICS_CALLERS_FILE cannot be read: nothing of that name can be found in {tmp_path}."
    assert says in capsys.readouterr().err


LIST, ONE = "analytics://exports", "analytics://exports/{export_id}"
OURS = {"analytics://metrics", "analytics://columns"}
OF_ONE = {ONE, f"{ONE}/rows{{?offset,limit}}", f"{ONE}/data.csv"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tools", "shown", "templates", "one_by_one"),
    [
        (["query_usage", "list_inactive_users", "delete_export"], set[str](), set[str](), False),
        (["list_exports"], {LIST}, set[str](), False),
        (["export_csv"], set[str](), OF_ONE, False),
        (["query_export", "list_exports"], {LIST}, OF_ONE, True),
        (["*"], {LIST}, OF_ONE, True),
    ],
)
async def test_a_resource_is_for_who_may_use_a_tool_that_gives_the_same(
    tools: list[str],
    shown: set[str],
    templates: set[str],
    one_by_one: bool,
    make_settings: Callable[..., Settings],
    upstream: Served,
    tmp_path: Path,
) -> None:
    file = tmp_path / "callers.json"

    def serving(granted: list[str]) -> Client:
        file.write_text(json.dumps({"bob": {"instances": ["*"], "tools": granted}}))
        file.chmod(0o600)
        more = {"public_url": HTTP["PUBLIC_URL"], "oauth_issuer": ISSUER, "oauth_keys_url": HTTP["OAUTH_KEYS_URL"]}
        server = AnalyticsServer(make_settings(upstream.url, callers_file=file, **more), over_http=True)
        return Client(server, mode="2026-07-28")

    with calling("bob", issuer=ISSUER):
        async with serving(["*"]) as client:
            export = (await call(client, "export_csv", granularity="by_user"))["export"]
        async with serving(tools) as client:
            listed = {str(resource.uri) for resource in (await client.list_resources()).resources}
            of_one = {template.uri_template for template in (await client.list_resource_templates()).resource_templates}
            reference = ResourceTemplateReference(uri=ONE)
            found = await client.complete(reference, {"name": "export_id", "value": ""})
            refusals: dict[str, MCPError] = {}
            for uri in OURS | {LIST} | OF_ONE:
                try:
                    assert await read_text(client, uri.partition("{?")[0].replace("{export_id}", export["id"]))
                except MCPError as error:
                    refusals[uri] = error
    assert listed == OURS | shown | ({export["summary_uri"]} if one_by_one else set())
    assert of_one == templates
    assert found.completion.values == ([export["id"]] if LIST in shown else [])
    assert refusals.keys() == ({LIST} | OF_ONE) - shown - templates
    for uri, refusal in refusals.items():
        assert refusal.error.code == -32600
        assert refusal.error.message == (
            f"[forbidden] You may not read {uri} here. You may use: {', '.join(tools)}; "
            "the operator decides (SRC_ANALYTICS_CALLERS_FILE)."
        )


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:resources/subscribe")
async def test_who_may_not_read_the_list_of_exports_hears_nothing_of_it(
    make_settings: Callable[..., Settings], upstream: Served, tmp_path: Path
) -> None:
    file = tmp_path / "callers.json"
    file.write_text(json.dumps({"bob": {"instances": ["*"], "tools": ["query_usage"]}}))
    file.chmod(0o600)
    more = {"public_url": HTTP["PUBLIC_URL"], "oauth_issuer": ISSUER, "oauth_keys_url": HTTP["OAUTH_KEYS_URL"]}
    server = AnalyticsServer(make_settings(upstream.url, callers_file=file, **more), over_http=True)
    with calling("bob", issuer=ISSUER):
        async with Client(server, mode="legacy") as client:
            await client.subscribe_resource("analytics://metrics")
            with pytest.raises(MCPError, match="may not read analytics://exports here"):
                await client.subscribe_resource(LIST)
