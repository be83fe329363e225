"""With IDENTITIES=pseudonyms no name, e-mail or user id leaves the server, and the figures are the same."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from mcp import Client
from mcp_types import PromptReference, ResourceLink, ResourceTemplateReference

from sourcegraph_analytics_mcp.demo.company import COUNTS, Activity, Company, Person
from sourcegraph_analytics_mcp.demo.reports import report
from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.exports.identities import Pseudonyms
from sourcegraph_analytics_mcp.settings import Settings
from support.client import call, connected, read, refused, text
from support.upstreams import Exchange, scripted_upstream

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
TODAY = datetime.now(UTC).date()
PEOPLE = tuple(
    Person(f"Uid-{n}-qzX", f"Planted{n}@corp.example", f"planted.name {n}", None) for n in range(4)
)  # fmt: skip
GONE = PEOPLE[3]
PLANTED = [word.lower() for p in PEOPLE for word in (p.id, p.email, p.username)] + ["seatholder", "planted"]

OURS = "sourcegraph-analytics-mcp"
TOKENS = [
    {"id": f"token-{n}", "displayName": name, "createdAt": "2026-01-01T00:00:00Z", "isExpired": False}
    for n, name in enumerate(
        (None, OURS, f"{OURS} on Planted1-MacBook", f"{OURS}, planted.name 1", "planted0@corp.example laptop")
    )
]


def company() -> Company:
    counts = tuple(3 if name in ("searches", "suggestions") else None for name in COUNTS)
    rows = [
        Activity(person, TODAY - timedelta(days=ago), "VSCode.cody", "Go", True, counts)
        for person in PEOPLE
        for ago in ((60, 61) if person is GONE else (1, 2, 40))
    ]
    return Company(TODAY, PEOPLE, tuple(sorted(rows, key=lambda row: row.day)), ())


async def upstream(exchange: Exchange) -> None:
    """Reports with an extra column that names people once more, a registry, and credits that name an owner."""
    if "user-registry" in exchange.target:
        await exchange.answer(b"Instance user ID,Service Account,Site Admin\nUid-2-qzX,true,false\n")
    elif "token" in exchange.target:
        await exchange.answer(json.dumps({"tokens": TOKENS}).encode(), content_type="application/json")
    elif "credits" in exchange.target:
        await exchange.answer(b'{"owner": "planted0@corp.example", "left": 5}', content_type="application/json")
    else:
        asked = parse_qs(urlsplit(exchange.target).query)
        (granularity,) = asked.get("granularity", ["by_user_day_client_language"])
        head, *lines = "".join(report(company(), granularity, None, None)).splitlines()
        body = "\n".join([f"{head},Notes of planted0@corp.example", *(f"{line},planted boss" for line in lines)])
        await exchange.answer(body.encode())


@pytest.fixture
def people_files(tmp_path: Path) -> dict[str, Path]:
    teams, seats = tmp_path / "teams.csv", tmp_path / "seats.csv"
    teams.write_text("user,team\nplanted0@CORP.example,Data\nplanted.name 1,Data\nUid-2-qzX,Core\n")
    seats.write_text("user\nplanted0@corp.example\nUid-1-qzX\nplanted3@corp.example\nseatholder@corp.example\n")
    return {"teams_file": teams, "seats_file": seats}


async def everything(client: Client) -> tuple[list[str], dict[str, Any]]:
    """What every read tool, resource, template and completion answers; and the answers by name."""
    said: list[str] = []
    found: dict[str, Any] = {}
    export = (await call(client, "export_csv"))["export"]
    sql = "SELECT * FROM usage ORDER BY timestamp_date"
    for name, tool, arguments in (
        ("export", "export_csv", {}),
        ("exports", "list_exports", {}),
        ("users", "query_usage", {"metrics": ["active_users", "searches"], "group_by": ["user"], "period": "all_time"}),
        ("teams", "query_usage", {"metrics": ["active_users"], "group_by": ["team"], "period": "all_time"}),
        ("inactive", "list_inactive_users", {}),
        ("sql", "query_export", {"export_id": export["id"], "sql": sql}),
        ("credits", "get_credits", {}),
        ("check", "check_connection", {}),
        ("tokens", "list_tokens", {}),
        ("revoke", "revoke_token", {"token_id": "token-4"}),
        ("no token", "revoke_token", {"token_id": "token-9", "confirm": True}),
        ("no column", "query_export", {"export_id": export["id"], "sql": "SELECT user_email FROM usage"}),
        ("no person", "query_usage", {"metrics": ["searches"], "users": ["somebody"]}),
    ):
        result = await client.call_tool(tool, arguments)
        said.append(result.model_dump_json())
        found[name] = result.structured_content
    uri = f"analytics://exports/{export['id']}"
    for address in ("analytics://exports", uri, f"{uri}/rows?limit=50", f"{uri}/data.csv", "analytics://metrics"):
        found[address.removeprefix(uri)] = await read(client, address)
        said.append(found[address.removeprefix(uri)])
    said.append((await client.list_resources(cache_mode="refresh")).model_dump_json())
    for reference, argument in (
        (ResourceTemplateReference(uri="analytics://exports/{export_id}"), "export_id"),
        (PromptReference(name="unused_seats"), "days"),
    ):
        said.append((await client.complete(reference, {"name": argument, "value": ""})).model_dump_json())
    return said, found


async def test_nobody_is_named_anywhere(
    make_settings: Make, people_files: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    async with scripted_upstream(upstream) as fake:
        async with connected(make_settings(fake.url, identities="pseudonyms", **people_files)) as client:
            said, found = await everything(client)
        async with connected(make_settings(fake.url, **people_files)) as client:
            named, plain = await everything(client)

    for told in (*said, capfd.readouterr().err):
        assert not [word for word in PLANTED if word in told.lower()]
    assert all(any(word in told.lower() for told in named) for word in PLANTED)  # the search would have found them

    assert sorted(row[2:] for row in found["users"]["rows"]) == sorted(row[2:] for row in plain["users"]["rows"])
    assert sorted(found["teams"]["rows"]) == sorted(plain["teams"]["rows"])
    assert sorted(found["teams"]["rows"]) == [["(no team)", 1], ["Core", 1], ["Data", 2]]
    for figure in ("inactive", "seen", "never_seen", "seats_freed"):
        assert found["inactive"][figure] == plain["inactive"][figure]
    assert found["inactive"]["inactive"] == 1
    assert {"user_email", "username"}.isdisjoint(c["name"] for c in found["sql"]["columns"])
    assert [token["display_name"] for token in found["tokens"]["tokens"]] == [
        None, OURS, f"{OURS} on (hidden)", "(hidden)", "(hidden)",
    ]  # fmt: skip
    assert [token["id"] for token in found["tokens"]["tokens"]] == [token["id"] for token in TOKENS]
    assert sum("IDENTITIES=pseudonyms" in note for note in found["tokens"]["notes"]) == 1
    assert [token["display_name"] for token in plain["tokens"]["tokens"]] == [token["displayName"] for token in TOKENS]
    assert not any("IDENTITIES" in note for note in plain["tokens"]["notes"])
    export = found["export"]["export"]
    assert export["path"] is None
    assert "Columns that are not documented: 1; they are hidden here" in " ".join(export["warnings"])
    assert export["columns"] == plain["export"]["export"]["columns"][:-1]


@pytest.mark.parametrize(("given", "shown"), [("ci of mine", "ci of mine"), ("planted boss", "(hidden)")])
async def test_a_new_token_has_the_name_that_came_with_the_call_and_no_other(
    make_settings: Make, given: str, shown: str
) -> None:
    """Whatever upstream calls it."""

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(b'{"tokens": []}', content_type="application/json")
        elif exchange.method == "POST":
            made = TOKENS[0] | {"id": "new", "displayName": given, "secret": "sams_at_abcDEF0123.456-xyz_789"}
            await exchange.answer(json.dumps(made).encode(), "201 Created", "application/json")

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, identities="pseudonyms", instance="")
        async with connected(settings) as client:
            result = await client.call_tool("create_token", {"display_name": "ci of mine"})
    data = result.structured_content or {}
    assert data["token"]["display_name"] == shown, text(result)
    assert f"| name | {shown} |" in text(result)
    assert [note.startswith("Names of tokens are hidden") for note in data["notes"]] == [True] * (shown == "(hidden)")


@pytest.mark.long
async def test_a_guess_of_a_name_can_be_proved_by_no_hash_and_no_length_of_an_export(make_settings: Make) -> None:
    """The file that they are of names people: whoever knows all of it but one name could try names until they fit."""
    given_up = anyio.Event()

    async def slowly(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\nInstance user ID,Searches\n")
        await given_up.wait()
        await exchange.send(b"Uid,2\n")

    heard: list[str] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        heard.append(f"{progress} {message}")

    async with scripted_upstream(slowly) as fake:
        settings = make_settings(fake.url, identities="pseudonyms", answer_within="1")
        async with connected(settings) as client:
            begun = await client.call_tool("export_csv", {"granularity": "by_user"}, progress_callback=report)
            running = (await call(client, "list_exports"))["exports"]
            busy = await refused(client, "query_usage", metrics=["searches"], start_date="2020-01-01")
            given_up.set()
            done = begun
            while '"running"' in done.model_dump_json():
                done = await client.call_tool("export_csv", {"granularity": "by_user"})
            kept = (await call(client, "list_exports"))["exports"]
            export = done.structured_content["export"]
            said = [begun.model_dump_json(), done.model_dump_json(), *heard, busy["message"]]
            said += [json.dumps(await call(client, "check_connection"))]
            said += [(await client.list_resources(cache_mode="refresh")).model_dump_json()]
            said += [await read(client, uri) for uri in ("analytics://exports", export["summary_uri"])]
    assert [entry["status"] for entry in running] == ["running"]
    assert export["id"] in [entry["id"] for entry in kept]
    for entry in (begun.structured_content["export"], export, *running, *kept):
        assert (entry["byte_count"], entry["sha256"]) == (None, None)
    assert all(not link.size for link in done.content if isinstance(link, ResourceLink))
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in settings.home.rglob("export.csv")}
    assert hashes
    assert [told for told in said if any(proof in told for proof in hashes)] == []
    assert [told for told in said if re.search(r"\d (bytes|kB)", told)] == []
    assert heard


async def test_a_cell_that_is_no_value_of_its_kind_is_hidden_as_it_may_name_somebody(make_settings: Make) -> None:
    head = "Instance user ID,Active Sourcegraph User,Timestamp Date,Searches,Combined CAR"
    odd = ("planted flag", "planted day", "planted count", "planted ratio")
    plain = ("yes", "2026-01-05", "3", "0.5")
    others = ("on", "2026-01-06 00:00:00 +0200 CEST", "1e2", f"0.{'1' * 60}")  # which the engine reads, too
    mixed = [[o if place == at else p for place, (o, p) in enumerate(zip(odd, plain, strict=True))] for at in range(4)]
    body = "\n".join([head, *(f"u{n},{','.join(cells)}" for n, cells in enumerate([*mixed, plain, [" "] * 4, others]))])

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(f"{body}\n".encode())

    said: dict[str, list[str]] = {}
    async with scripted_upstream(answer) as fake:
        for identities in ("names", "pseudonyms"):
            async with connected(make_settings(fake.url, identities=identities)) as client:
                export = (await call(client, "export_csv", granularity="by_user_day"))["export"]
                said[identities] = [await read(client, f"{export['summary_uri']}{p}") for p in ("/rows", "/data.csv")]
    assert all(told.count("planted") == len(odd) for told in said["names"])
    for told in said["pseudonyms"]:
        assert "planted" not in told
        assert told.count("(hidden)") == len(odd)
        assert told.count("2026-01-05") == told.count("0.5") == len(odd)
        assert [cell for cell in others if cell not in told] == []


@pytest.mark.long
async def test_a_person_keeps_one_pseudonym_across_tools_exports_and_restarts(
    make_settings: Make, people_files: dict[str, Path]
) -> None:
    seen: list[set[str]] = []
    async with scripted_upstream(upstream) as fake:
        for _ in range(2):
            async with connected(make_settings(fake.url, identities="pseudonyms")) as client:
                _, found = await everything(client)
            seen.append({row[1] for row in found["users"]["rows"]})
            seen.append({row[0] for row in found["sql"]["rows"]})
        async with connected(make_settings(fake.url, identities="pseudonyms")) as client:
            one = min(seen[0])
            asked = {"metrics": ["active_users"], "users": [one], "period": "all_time"}
            assert (await call(client, "query_usage", **asked))["totals"] == [1]
    assert all(people == seen[0] for people in seen)
    assert len(seen[0]) == len(PEOPLE)


@pytest.mark.long
async def test_another_installation_has_other_pseudonyms_and_a_private_key(make_settings: Make, tmp_path: Path) -> None:
    people: list[set[str]] = []
    async with scripted_upstream(upstream) as fake:
        for name in ("one", "two"):
            folder = tmp_path / name
            async with connected(make_settings(fake.url, identities="pseudonyms", data_dir=folder)) as client:
                answer = await call(client, "query_usage", metrics=["searches"], group_by=["user"], period="all_time")
            people.append({row[1] for row in answer["rows"]})
            key = folder / "keys" / "pseudonyms"
            assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert people[0].isdisjoint(people[1])


async def test_a_name_does_not_find_a_pseudonym_and_no_argument_shows_names(make_settings: Make) -> None:
    async with (
        scripted_upstream(upstream) as fake,
        connected(make_settings(fake.url, identities="pseudonyms")) as client,
    ):
        for name in ("Uid-1-qzX", "planted1@corp.example", "planted.name 1"):
            error = await refused(client, "query_usage", metrics=["searches"], users=[name], period="all_time")
            assert error["code"] == "invalid_argument"
            assert name not in json.dumps(error)


async def test_a_damaged_key_is_said_and_nothing_is_shown(make_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "data" / "keys").mkdir(parents=True)
    (tmp_path / "data" / "keys" / "pseudonyms").write_text("short")
    (tmp_path / "data" / "keys" / "pseudonyms").chmod(0o600)
    async with (
        scripted_upstream(upstream) as fake,
        connected(make_settings(fake.url, identities="pseudonyms")) as client,
    ):
        error = await refused(client, "query_usage", metrics=["searches"], group_by=["user"])
    assert error["code"] == "store_corrupt"
    assert "pseudonyms" in error["message"]


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert Pseudonyms(keys).of("somebody").startswith("person-")
    (keys / "pseudonyms").chmod(0o640)
    with pytest.raises(AnalyticsError, match="others can read it"):
        Pseudonyms(keys).of("somebody")


@pytest.mark.long
async def test_a_row_without_a_person_has_no_pseudonym(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"Instance user ID,Searches\n1,2\n,3\n")

    async with (
        scripted_upstream(answer) as fake,
        connected(make_settings(fake.url, identities="pseudonyms")) as client,
    ):
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        rows = (await read(client, f"{export['summary_uri']}/rows")).splitlines()[-2:]
    assert rows[0].startswith("| person-")
    assert rows[1] == "|  | 3 |"


async def test_without_a_place_for_the_key_nothing_is_shown(make_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "keys").write_text("in the way")
    async with (
        scripted_upstream(upstream) as fake,
        connected(make_settings(fake.url, identities="pseudonyms")) as client,
    ):
        error = await refused(client, "query_usage", metrics=["searches"])
    assert error["code"] == "store_corrupt"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"userId": "U1", "username": "planted", "owner": "o'planted@corp.example", "left": 5},
         {"userId": "(hidden)", "username": "(hidden)", "owner": "(hidden)", "left": 5}),
        ({"userId": 4711, "ids": [4712], "paid": 3, "paidUsers": 4},
         {"userId": "(hidden)", "ids": ["(hidden)"], "paid": 3, "paidUsers": 4}),
        ({"byUser": {"a@x.example": 5, "planted": 7, "c d": 9}},
         {"byUser": {"(hidden)": "(hidden)", "(hidden) 2": "(hidden)", "(hidden) 3": "(hidden)"}}),
        ({"totals": {"o'p@x.example": 1, "U1": 2, "used": 3}},
         {"totals": {"(hidden)": "(hidden)", "(hidden) 2": "(hidden)", "used": 3}}),
        ({"users": [{"name": "planted", "used": 1.5, "trial": False, "end": None}]},
         {"users": [{"name": "(hidden)", "used": 1.5, "trial": False, "end": None}]}),
        ({"from": "2026-01-31", "until": "2026-02-01T00:00:00.5Z", "month": "2026-01", "note": "2026-01-31 planted"},
         {"from": "2026-01-31", "until": "2026-02-01T00:00:00.5Z", "month": "2026-01", "note": "(hidden)"}),
        ({"consumption": {"alice": 3, "bob-smith": 4}},
         {"consumption": {"(hidden)": "(hidden)", "(hidden) 2": "(hidden)"}}),
        ({"topUsers": [{"alice": 3, "creditsUsed": 4}]}, {"topUsers": [{"(hidden)": "(hidden)", "creditsUsed": 4}]}),
        ({"user": 4711, "owner": 4712, "created_by": 4713, "member": 4714.5, "users": [4715], "by": 4716},
         {"user": "(hidden)", "owner": "(hidden)", "created_by": "(hidden)", "member": "(hidden)",
          "users": ["(hidden)"], "by": "(hidden)"}),
        ({"userid": 4711, "instance user id": 4712, "USER_ID_2": 4713, "uid": 4714},
         {f"(hidden){n}": "(hidden)" for n in ("", " 2", " 3", " 4")}),
        ({"userId": {"number": 4711}, "user": {"value": 4712}, "active_users": [4713], "users": {"list": [4714]}},
         {"userId": {"(hidden)": "(hidden)"}, "user": {"(hidden) 2": "(hidden)"}, "active_users": ["(hidden)"],
          "users": {"(hidden) 3": ["(hidden)"]}}),
        ({"user_count": 12, "activeUsers": 3, "total_users": 15, "seats": 20, "credits_per_user": 2.5, "by_month": 4},
         {"user_count": 12, "activeUsers": 3, "total_users": 15, "seats": 20, "credits_per_user": 2.5, "by_month": 4}),
        ({"buckets": [{"name": "planted", "allocated": 50000, "consumed": 7, "usage": {"total": 2}}]},
         {"buckets": [{"name": "(hidden)", "allocated": 50000, "consumed": 7, "usage": {"total": 2}}]}),
        ({"manager": 4711, "reviewer": 4712, "lead": [4713], "value": 4714, "used": [4715], "used_ids": 4716},
         {"(hidden)": "(hidden)", "(hidden) 2": "(hidden)", "(hidden) 3": ["(hidden)"], "value": "(hidden)",
          "used": ["(hidden)"], "used_ids": "(hidden)"}),
        ({"owner": {"used": 5}, "account": {"balance": 7}, "users": {"total": 9}, "series": [1, 2]},
         {"owner": {"(hidden)": "(hidden)"}, "account": {"balance": 7}, "users": {"(hidden) 2": "(hidden)"},
          "(hidden) 3": ["(hidden)", "(hidden)"]}),
        ({"byUser": {"ann": 1, "bob": 2}, "buckets": [{"month": "2026-10", "bob": 5, "x y": 7}, {"x y": 9}]},
         {"byUser": {"(hidden)": "(hidden)", "(hidden) 2": "(hidden)"},
          "buckets": [{"month": "2026-10", "(hidden) 2": "(hidden)", "(hidden) 3": "(hidden)"},
                      {"(hidden) 3": "(hidden)"}]}),
        ("planted", "(hidden)"),
        ([["planted", 4711]], [["(hidden)", "(hidden)"]]),
    ],
)  # fmt: skip
async def test_credits_show_what_can_name_nobody_and_lose_no_figure(
    make_settings: Make, given: Any, shown: Any
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(json.dumps(given).encode(), content_type="application/json")

    async with scripted_upstream(answer) as fake:
        async with connected(make_settings(fake.url, identities="pseudonyms")) as client:
            result = await client.call_tool("get_credits", {})
        async with connected(make_settings(fake.url)) as client:
            assert (await call(client, "get_credits"))["credits"] == given
    assert (result.structured_content or {})["credits"] == shown
    assert ("What may name somebody is (hidden), numbers too." in text(result)) is ("(hidden)" in json.dumps(shown))
    assert not [word for word in ("planted", "U1", "471", "@", "c d") if word in result.model_dump_json()]
