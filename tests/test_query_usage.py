"""query_usage: figures agree with a plain reference, come from the coarsest data, and say what they rest on."""

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from mcp import Client

from sourcegraph_analytics_mcp.demo.company import COUNTS, Activity, Company, Person
from sourcegraph_analytics_mcp.exports.columns import DOCUMENTED
from sourcegraph_analytics_mcp.exports.store import Store
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface import call as call_of_a_tool
from sourcegraph_analytics_mcp.surface.tools import usage as tool_of_usage
from sourcegraph_analytics_mcp.usage.metrics import BY_NAME, Minutes
from sourcegraph_analytics_mcp.usage.notes import notes
from sourcegraph_analytics_mcp.usage.periods import resolve
from sourcegraph_analytics_mcp.usage.question import Question
from support.agreement import agree
from support.client import call, connected, read, refused, text
from support.upstreams import Exchange, Served, scripted_upstream
from support.worlds import World, served

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
TODAY = datetime.now(UTC).date()
DAY = timedelta(days=1)
ANN, BO, CY = Person("1", "ann@example.com", "ann", None), Person("2", "", "", None), Person("3", "", "", None)


def did(person: Person, day: date, client: str = "server.web", language: str = "", **counts: int | None) -> Activity:
    return Activity(person, day, client, language, True, tuple(counts.get(name) for name in COUNTS))


def world_of(*rows: Activity, **more: Any) -> World:
    given: dict[str, Any] = {"team_of": {}, "missing": frozenset(), "renamed": {}, "order": 0, "extra": False}
    return World(Company(TODAY, (ANN, BO), rows, ()), **(given | more))


@pytest.mark.parametrize("filtered", ["clients", "languages"])
async def test_names_in_a_refusal_are_short_and_no_markup(make_settings: Make, filtered: str) -> None:
    hostile = "![x](http://evil.example/?q=1)" + "x" * 500

    async def answer(exchange: Exchange) -> None:
        head = "Instance user ID,Client Name,Timestamp Date,Language,Searches"
        rows = [f"1,{n}{hostile},{TODAY},{n}{hostile},1" for n in range(30)]
        await exchange.answer("\n".join([head, *rows, ""]).encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        asked = {"metrics": ["searches"], "period": "all_time", filtered: ["[a](http://evil.example)"]}
        error = await refused(client, "query_usage", **asked)
    assert "'\\[a\\](http\\://evil.example)'" in error["message"]
    assert "There are: 0!\\[x\\](http\\://evil.example/?q=1)x" in error["next_step"]
    assert error["next_step"].count("x…") == 15
    assert "](http" not in error["next_step"].replace("\\](", "")
    assert len(error["next_step"]) < 1100


@pytest.mark.long
async def test_two_people_never_look_the_same(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        head = "Instance user ID,Client Name,Timestamp Date,Language,Searches"
        rows = [f"{name},{name},{TODAY},,{n}" for n, name in enumerate(("A\u202e", "A\\u{202E}", "A\\B"), 1)]
        await exchange.answer("\n".join([head, *rows, ""]).encode())

    shown = {"A\\u{202E}": 1, "A\\u{005C}u{202E}": 2, "A\\B": 3}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        asked = {"metrics": ["searches"], "group_by": ["user"], "period": "all_time"}
        result = await client.call_tool("query_usage", asked)
        unknown = await client.call_tool("query_usage", asked | {"clients": ["nobody"]})
        export = (await call(client, "export_csv"))["export"]
        rows = await read(client, f"{export['summary_uri']}/rows")
        csv = await read(client, export["csv_uri"])
    assert result.structured_content is not None
    assert {row[1]: row[2] for row in result.structured_content["rows"]} == shown
    assert unknown.structured_content is not None
    error = unknown.structured_content["error"]
    assert text(unknown).endswith(error["next_step"])
    for name in shown:
        escaped = name.replace("\\", "\\\\")
        assert f"| {escaped} |" in text(result)
        assert f"| {escaped} |" in rows
        assert f'"{name}"' in csv
        assert escaped in error["next_step"].removeprefix("There are: ").removesuffix(".").split(", ")


@pytest.mark.long
@pytest.mark.parametrize("seed", [20_000, 30_000, 40_000, 50_000])
async def test_generated_questions_agree_with_the_reference(seed: int, make_settings: Make, tmp_path: Path) -> None:
    answered, as_they_must_be_refused = await agree(seed, 50, make_settings, tmp_path, per_world=25)
    assert answered + as_they_must_be_refused == 50
    assert answered > 20


@pytest.mark.parametrize(
    ("arguments", "granularity"),
    [
        ({"metrics": ["searches", "active_users"]}, "by_user_day"),
        ({"metrics": ["searches"], "period": "last_year", "compare_to_previous": True}, "by_user"),
        ({"metrics": ["searches"], "group_by": ["user"], "users": ["1007"], "period": "all_time"}, "by_user"),
        ({"metrics": ["searches"], "group_by": ["month"], "period": "last_year"}, "by_user_month"),
        ({"metrics": ["searches"], "group_by": ["quarter"], "period": "all_time"}, "by_user_month"),
        ({"metrics": ["searches"], "group_by": ["month"], "period": "last_30_days"}, "by_user_day"),
        ({"metrics": ["searches"], "group_by": ["week"]}, "by_user_day"),
        ({"metrics": ["active_days"]}, "by_user_day"),
        ({"metrics": ["searches"], "group_by": ["client"]}, "by_user_day_client_language"),
        ({"metrics": ["completion_suggestions"], "languages": ["Go"]}, "by_user_day_client_language"),
    ],
)
@pytest.mark.long
async def test_the_coarsest_granularity_that_can_answer_is_asked_for(
    arguments: dict[str, Any], granularity: str, settings: Settings, upstream: Served
) -> None:
    async with connected(settings) as client:
        await call(client, "query_usage", **arguments)
    asked = [dict(r.query)["granularity"] for r in upstream.sent("GET", "/api/reports/by-")]
    assert set(asked) == {granularity}


@pytest.mark.long
async def test_any_kept_export_that_covers_the_question_is_used(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv"))["export"]
        for arguments in (
            {"metrics": ["searches"], "group_by": ["month"], "period": "last_quarter"},
            {"metrics": ["active_users"], "group_by": ["week"]},
            {"metrics": ["hours_saved"], "compare_to_previous": True},
            {"metrics": ["completion_acceptance_rate"], "group_by": ["language", "client"]},
        ):
            answer = await call(client, "query_usage", **arguments)
            assert answer["export_ids"] == [export["id"]]
        assert len(upstream.sent("GET", "/api/reports/by-")) == 1
        await call(client, "query_usage", metrics=["searches"], refresh=True)
    assert len(upstream.sent("GET", "/api/reports/by-")) == 2


@pytest.mark.long
async def test_what_is_downloaded_is_little_more_than_what_is_asked_for(settings: Settings, upstream: Served) -> None:
    week, old = str(TODAY - 7 * DAY), str(TODAY - 50 * DAY)
    months = {"group_by": ["month"], "start_date": "2024-01-01", "end_date": str(TODAY)}
    async with connected(settings) as client:
        for asked in ({"period": "last_7_days"}, {"start_date": week}, {"start_date": old, "end_date": old}, months):
            await call(client, "query_usage", metrics=["searches"], **asked)
    sent = [dict(r.query) for r in upstream.sent("GET", "/api/reports/by-")]
    assert [(q.get("startDate"), q.get("endDate")) for q in sent] == [
        (week, str(TODAY)),
        (old, old),
        (None, str(TODAY)),
    ]


@pytest.mark.long
async def test_a_shorter_or_coarser_export_is_not_used(settings: Settings, upstream: Served) -> None:
    start = (TODAY - 5 * DAY).isoformat()
    async with connected(settings) as client:
        await call(client, "export_csv", granularity="by_user_day", start_date=start)
        await call(client, "query_usage", metrics=["searches"], period="last_7_days")
        await call(client, "query_usage", metrics=["searches"], group_by=["client"], start_date=start)
    assert len(upstream.sent("GET", "/api/reports/by-")) == 3


async def test_people_without_emails_are_counted_by_id_and_blank_is_not_zero(
    make_settings: Make, tmp_path: Path
) -> None:
    cara = Person("3", "", "", None)
    world = world_of(did(BO, TODAY - DAY, chats=0), did(cara, TODAY - DAY), did(BO, TODAY - 2 * DAY))
    async with served(world, make_settings, tmp_path) as (client, _):
        metrics = ["active_users", "chat_events", "searches", "completion_acceptance_rate", "hours_saved"]
        answer = await call(client, "query_usage", metrics=metrics)
    assert answer["totals"] == [2, 0, None, None, 0]


async def test_what_has_no_language_is_called_alike_in_the_table_and_in_the_note(
    make_settings: Make, tmp_path: Path
) -> None:
    day = TODAY - 2 * DAY
    world = world_of(did(ANN, day), did(BO, day), did(ANN, day, "VSCode.cody", "go"))
    question = {"metrics": ["active_users"], "group_by": ["language"], "period": "last_7_days"}
    async with served(world, make_settings, tmp_path) as (client, _):
        result = await client.call_tool("query_usage", question)
    answer = result.structured_content or {}
    assert "Activity without a language is shown as blank." in answer["notes"]
    assert answer["rows"] == [[None, 2], ["go", 1]]
    assert "| (blank) | 2 |" in text(result)


async def test_rates_are_ratios_of_sums(make_settings: Make, tmp_path: Path) -> None:
    world = world_of(
        did(ANN, TODAY - DAY, "e", "Go", suggestions=1, acceptances=1),
        did(BO, TODAY - DAY, "e", "Go", suggestions=99, acceptances=0),
    )
    async with served(world, make_settings, tmp_path) as (client, _):
        answer = await call(client, "query_usage", metrics=["completion_acceptance_rate"])
    assert answer["totals"] == [0.01]


@pytest.mark.long
async def test_somebody_whose_email_changed_is_one_person_under_either(make_settings: Make, tmp_path: Path) -> None:
    moved = Person("1", "ann.new@example.com", "ann", None)
    world = world_of(did(ANN, TODAY - 3 * DAY, searches=1), did(moved, TODAY - DAY, searches=2))
    async with served(world, make_settings, tmp_path) as (client, _):
        for name in ("ann@example.com", "ann.new@example.com", "1", "ANN"):
            answer = await call(
                client, "query_usage", metrics=["active_users", "searches"], group_by=["week"], users=[name]
            )
            assert answer["totals"] == [1, 3]


KEPT = [{}, {"granularity": "by_user_day"}, {"granularity": "by_user_day_client_language"}]


async def shares(client: Client, **asked: Any) -> dict[str, int]:
    """Searches by the group asked for."""
    answer = await call(client, "query_usage", metrics=["searches"], **asked)
    return {row[0]: row[-1] for row in answer["rows"]}


@pytest.mark.long
async def test_what_has_no_language_is_told_of_the_people_of_the_days_asked_about(
    make_settings: Make, tmp_path: Path
) -> None:
    before, zoe, heir = (
        Person(*who, None) for who in (("1", "zoe@x.example", ""), ("1", "", ""), ("2", "zoe@x.example", ""))
    )
    world = world_of(
        did(before, TODAY - 40 * DAY, searches=1), did(zoe, TODAY - 3 * DAY, searches=90),
        did(heir, TODAY - 2 * DAY, searches=4, language="Go"),
    )  # fmt: skip
    asked = {
        "metrics": ["searches"], "users": ["zoe@x.example"], "languages": ["Go"], "group_by": ["day"],
        "compare_to_previous": True, "start_date": str(TODAY - 20 * DAY), "end_date": str(TODAY - DAY),
    }  # fmt: skip
    async with served(world, make_settings, tmp_path) as (client, _):
        alone = await call(client, "query_usage", **asked)
        await call(client, "export_csv")
        beside = await call(client, "query_usage", **asked)
        ancient = await call(client, "query_usage", **asked | {"start_date": "1000-01-01"})
    assert alone["notes"] == beside["notes"]
    assert not any("no language" in note for note in alone["notes"])
    assert "96% of searches has no language recorded." in ancient["notes"]


async def test_reports_that_are_compared_may_have_other_names_in_them(make_settings: Make, tmp_path: Path) -> None:
    teams = tmp_path / "teams.csv"
    teams.write_text("email,team\nann@x.example,Alpha\n")

    async def answer(exchange: Exchange) -> None:
        earlier = f"startDate={TODAY - 300 * DAY}" in exchange.target
        head, ann = ("Instance user ID,User email,Searches", "1,ann@x.example,2")
        await exchange.answer(f"{head}\n{ann}\n".encode() if earlier else f"Username,{head}\nann,{ann}\n".encode())

    asked = {"start_date": str(TODAY - 150 * DAY), "end_date": str(TODAY - DAY), "compare_to_previous": True}
    async with (
        scripted_upstream(answer) as fake,
        connected(make_settings(fake.url, teams_file=teams)) as client,
    ):
        by_team = await call(client, "query_usage", metrics=["searches"], group_by=["team"], **asked)
        of_ann = await call(client, "query_usage", metrics=["searches"], users=["ann"], **asked)
    assert by_team["rows"] == [["Alpha", 2, 2, 0, 0]]
    assert of_ann["totals"][:2] == [2, 2]


@pytest.mark.long
async def test_teams_that_are_compared_go_by_the_names_of_both_periods_and_say_so(
    make_settings: Make, tmp_path: Path
) -> None:
    before, now = (Person("1", f"{name}@example.com", "", None) for name in ("ann", "new"))
    days = did(before, TODAY - 2 * DAY, searches=1), did(now, TODAY - DAY, searches=2)
    asked = {"metrics": ["searches"], "period": "yesterday"}
    async with served(world_of(*days, team_of={"ann@example.com": "Data"}), make_settings, tmp_path) as (client, _):
        for groups in (["team"], ["team", "day"]):
            found = {}
            for compared in (False, True):
                answer = await call(client, "query_usage", **asked, group_by=groups, compare_to_previous=compared)
                said = any("the e-mails and usernames of the days compared with" in note for note in answer["notes"])
                found[compared] = answer["rows"][0][0], said
            assert found == {False: ("(no team)", False), True: ("Data", True)}, groups
        ever = {**asked, "period": "all_time", "group_by": ["day", "team"]}
        always = await call(client, "query_usage", **ever, compare_to_previous=True)
    assert not any("usernames of the days compared with" in note for note in always["notes"])


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.long
async def test_names_are_those_of_the_days_asked_about_and_the_latest_is_shown(
    kept: dict[str, str], make_settings: Make, tmp_path: Path
) -> None:
    before, after = (Person("1", f"{name}@example.com", name, None) for name in ("zoe", "ann"))
    heir = Person("2", "zoe@example.com", "", None)
    world = world_of(
        did(before, TODAY - 40 * DAY, searches=1), did(after, TODAY - 3 * DAY, searches=2),
        did(heir, TODAY - 2 * DAY, searches=4), team_of={"zoe": "Platform", "ann@example.com": "Data"},
    )  # fmt: skip
    week, both = {"period": "last_7_days"}, {"start_date": str(TODAY - 50 * DAY), "end_date": str(TODAY - DAY)}
    by_user, by_team, zoe = {"group_by": ["user"]}, {"group_by": ["team"]}, {"users": ["ZOE@example.com"]}
    async with served(world, make_settings, tmp_path) as (client, _):
        if kept:
            await call(client, "export_csv", **kept)
        assert await shares(client, **by_user, **week) == {"ann@example.com": 2, "zoe@example.com": 4}
        assert await shares(client, **by_user, **both) == {"ann@example.com": 3, "zoe@example.com": 4}
        assert await shares(client, **by_user, **both, users=["zoe"], order_by="user") == {"ann@example.com": 3}
        assert await shares(client, **by_user, **zoe, **week) == {"zoe@example.com": 4}
        assert await shares(client, **by_team, **week) == {"Data": 2, "(no team)": 4}
        assert await shares(client, **by_team, **both) == {"Data": 3, "(no team)": 4}
        assert await shares(client, **by_team, start_date=str(TODAY - 40 * DAY), end_date=str(TODAY - 9 * DAY)) == {
            "Platform": 1
        }
        compared = await call(
            client,
            "query_usage",
            metrics=["searches"],
            **by_user,
            **zoe,
            compare_to_previous=True,
            period="last_30_days",
        )
    assert sorted(row[:4] for row in compared["rows"]) == [
        ["ann@example.com", "1", 2, 1],
        ["zoe@example.com", "2", 4, None],
    ]


async def test_a_row_without_a_day_names_nobody_anew(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        rows = [f"1,ann@example.com,{TODAY - DAY},1", "1,zoe@example.com,,1"]
        await exchange.answer("\n".join(["User ID,Email,Date,Searches", *rows, ""]).encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        asked = {"metrics": ["active_days", "searches"], "group_by": ["user"], "period": "all_time"}
        found = await call(client, "query_usage", **asked)
    assert found["rows"] == [["ann@example.com", "1", 1, 2]]


@pytest.mark.parametrize("kept", [{}, {"granularity": "by_user_day_client_language"}])
async def test_people_of_long_ranges_are_called_alike_whatever_is_kept(
    kept: dict[str, str], make_settings: Make, tmp_path: Path
) -> None:
    """Upstream tells nowhere what figures without days call somebody whose name changed."""

    async def answer(exchange: Exchange) -> None:
        if "granularity=by_user&" in f"{exchange.target}&":
            await exchange.answer(b"User ID,Email,Searches\n1,new@example.com,3\n")
        else:
            rows = [f"1,{name}@example.com,{TODAY - n * DAY},,,{n}" for n, name in ((2, "old"), (1, "newest"))]
            await exchange.answer("\n".join(["User ID,Email,Date,Client,Language,Searches", *rows, ""]).encode())

    (tmp_path / "teams.csv").write_text("old@example.com,Data\nnew@example.com,Core\n")
    settings = {"teams_file": tmp_path / "teams.csv"}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        if kept:
            await call(client, "export_csv", **kept)
        assert await shares(client, group_by=["team"], period="all_time") == {"Core": 3}
        assert await shares(client, group_by=["user"], period="all_time") == {"new@example.com": 3}
        assert await shares(client, group_by=["user"], period="all_time", users=["new@example.com"]) == {
            "new@example.com": 3
        }
        by_day = {"group_by": ["user", "week"], "period": "all_time"}
        assert await shares(client, **by_day, users=["old@example.com"])


@pytest.mark.parametrize(
    ("people", "listed", "said"),
    [((BO,), "ann@example.com", True), ((BO, CY), "2", True), ((BO,), "2", False), ((ANN, BO), "2", False)],
)
@pytest.mark.long
async def test_teams_of_data_that_name_nobody_are_said_to_be_unknown(
    people: tuple[Person, ...], listed: str, said: bool, make_settings: Make, tmp_path: Path
) -> None:
    world = world_of(*(did(person, TODAY - DAY, searches=1) for person in people), team_of={listed: "Data"})
    async with served(world, make_settings, tmp_path) as (client, _):
        for asked in ({"group_by": ["team"]}, {"teams": ["Data"]}):
            answer = await call(client, "query_usage", metrics=["searches"], **asked)
            assert any("has an e-mail or username" in note for note in answer["notes"]) == said
        nobody = {"start_date": "2020-01-01", "end_date": "2020-01-31"}
        empty = await call(client, "query_usage", metrics=["searches"], teams=["Data"], **nobody)
    assert not any("has an e-mail or username" in note for note in empty["notes"])


@pytest.mark.parametrize("masked", ["names", "pseudonyms"])
@pytest.mark.parametrize(
    ("blank", "listed", "said"),
    [
        ({"Username": ""}, ["ann"], ["has nobody's username"]),
        ({"User Email": ""}, ["ann@x.com"], ["has nobody's e-mail"]),
        ({"Username": ""}, ["Username,team", "idle"], ["has nobody's username"]),
        ({"Username": ""}, ["User ID,team", "ann-id", "idle-id"], []),  # who is listed by id is not lost for a name
        ({"User Email": "ann"}, ["ann@x.com", "bo@x.com"], ["lacks the e-mail of some people"]),
        ({"Username": "cy"}, ["bo", "cy@x.com", "idle@x.com"], []),  # whoever is in no team has a username
        ({"User Email": "ann", "Username": "bo"}, ["idle", "idle@x.com"],
         ["lacks the e-mail of some people", "lacks the username of some people"]),
        ({"Username": ""}, ["Ann@x.com"], []),
        ({"Username": ""}, ["ann@x.com", "idle@x.com"], []),
        ({"User Email": ""}, ["Ann"], []),
        ({"User Email": "ann"}, ["Bo@x.com"], []),
        ({"Username": "ann"}, ["Bo"], []),
        ({"User Email": "ann"}, ["idle@x.com", "ann"], []),  # whoever has no e-mail is in a team
        ({"User Email": "ann"}, ["idle@x.com", "ann", "bo", "cy"], []),  # nobody is in no team
        ({}, ["idle", "idle@x.com"], []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.long
async def test_teams_of_data_that_lack_the_name_that_the_file_has_are_said_to_be_unknown(
    blank: dict[str, str], listed: list[str], said: list[str], masked: str, absent: bool,
    make_settings: Make, tmp_path: Path,
) -> None:  # fmt: skip
    """A column may be absent, blank for all, or blank for one: what counts is who is in no team for want of a name.

    Args:
        blank: whose name is blank by column; empty where everybody's is.
    """

    async def answer(exchange: Exchange) -> None:
        there = [column for column in ("User Email", "Username") if blank.get(column) != "" or not absent]
        lines = [",".join(["User ID", *there, "Date", "Searches"])]
        for name in ("ann", "bo", "cy"):
            called = {"User Email": f"{name}@x.com", "Username": name}
            cells = ["" if blank.get(column) in ("", name) else called[column] for column in there]
            lines.append(",".join([f"{name}-id", *cells, str(TODAY - DAY), "5"]))
        await exchange.answer("\n".join([*lines, ""]).encode())

    header, *people = listed if listed[0].endswith(",team") else ["user,team", *listed]
    (tmp_path / "teams.csv").write_text("\n".join([header, *(f"{person},Data" for person in people), ""]))
    settings = {"teams_file": tmp_path / "teams.csv", "identities": masked}
    so = "so who is listed by that in SRC_ANALYTICS_TEAMS_FILE may count as in no team."
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        for asked in ({"group_by": ["team"]}, {"teams": ["Data"]}):
            found = await call(client, "query_usage", metrics=["searches"], **asked)
            notes = [note for note in found["notes"] if "SRC_ANALYTICS_TEAMS_FILE" in note]
            assert notes == [f"This data {what}, {so}" for what in said]


async def test_rows_of_nobody_hide_nobody_who_is_in_no_team(make_settings: Make, tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        rows = [f",ann@x.com,ann,{TODAY - DAY},1", f"bo-id,,bo,{TODAY - DAY},2", ""]
        await exchange.answer("\n".join(["User ID,User Email,Username,Date,Searches", *rows]).encode())

    (tmp_path / "teams.csv").write_text("ann@x.com,Data\nbo@x.com,Data\n")
    settings = {"teams_file": tmp_path / "teams.csv"}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        found = await call(client, "query_usage", metrics=["searches"], group_by=["team"])
    assert found["rows"] == [["(no team)", 3]]
    assert [note for note in found["notes"] if "SRC_ANALYTICS_TEAMS_FILE" in note] == [
        "This data has nobody's e-mail, so who is listed by that in SRC_ANALYTICS_TEAMS_FILE may count as in no team."
    ]


@pytest.mark.long
async def test_days_with_data_are_told_of_short_ranges_whatever_is_kept(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        await call(client, "list_inactive_users")
        asked = {"metrics": ["searches"], "period": "last_month"}
        for more in ({}, {"group_by": ["month"]}, {"compare_to_previous": True}, {"group_by": ["user"]}):
            answer = await call(client, "query_usage", **asked, **more)
            assert answer["notes"][0].startswith("Days with data: ")


async def test_no_count_without_a_language_is_given_by_language(make_settings: Make) -> None:
    """A column that is added to the documented ones is among them."""
    counts = [column for column in DOCUMENTED if column.kind == "count"]
    head = ["Instance user ID", "Timestamp Date", "Client Name", "Language", *(column.header for column in counts)]

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(f"{','.join(head)}\n1,{TODAY - DAY},,{',1' * len(counts)}\n".encode())

    told = set[str]()
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        for metric in (m for m in BY_NAME.values() if {c.name for c in counts}.intersection(m.columns(Minutes()))):
            error = await refused(client, "query_usage", metrics=[metric.name], group_by=["language"])
            assert "not recorded by language" in error["message"]
            told.update(column for column in metric.columns(Minutes()))
    assert told >= {column.name for column in counts}


@pytest.mark.parametrize("metric", ["searches", "chat_events", "hours_saved"])
async def test_what_is_not_recorded_by_language_is_refused_by_language(metric: str, settings: Settings) -> None:
    async with connected(settings) as client:
        error = await refused(client, "query_usage", metrics=[metric], group_by=["language"])
    assert error["code"] == "unsupported"
    assert "not recorded by language" in error["message"]
    assert error["message"].startswith(f"{metric} ")
    assert error["next_step"] == f"Ask for {metric} without language, or for completions and auto-edits by language."


@pytest.mark.parametrize("metric", ["completion_suggestions", "completion_acceptance_rate"])
async def test_completions_without_a_language_are_not_said_to_have_one(
    metric: str, make_settings: Make, tmp_path: Path
) -> None:
    world = world_of(did(ANN, TODAY - 2 * DAY, "VSCode.cody", suggestions=9, acceptances=3))
    async with served(world, make_settings, tmp_path) as (client, _):
        error = await refused(client, "query_usage", metrics=[metric], group_by=["language"])
        await call(client, "query_usage", metrics=[metric])
    assert error["next_step"] == f"Ask for {metric} without language."


@pytest.mark.long
async def test_what_has_no_language_is_told_of_what_is_asked_about_alone(make_settings: Make, tmp_path: Path) -> None:
    day = TODAY - 2 * DAY
    world = world_of(
        did(ANN, day, "VSCode.cody", "Go", suggestions=9),
        did(ANN, day, "JetBrains.cody", suggestions=1),
        did(BO, day, "VSCode.cody", "Go", suggestions=5),
        did(BO, day, "JetBrains.cody", suggestions=85),
        team_of={ANN.id: "Data"},
    )
    asked = {"metrics": ["completion_suggestions"], "languages": ["Go"]}
    async with served(world, make_settings, tmp_path) as (client, _):
        for filters, share in (
            ({}, "86%"),
            ({"users": ["ann"]}, "10%"),
            ({"teams": ["Data"]}, "10%"),
            ({"clients": ["VSCode.cody"]}, None),
        ):
            notes = " ".join((await call(client, "query_usage", **asked, **filters))["notes"])
            told = f"{share} of completion_suggestions has no language recorded." if share else "Days with any data"
            assert (told in notes, "no language" in notes) == (True, share is not None)
        nothing = await refused(client, "query_usage", users=["2"], clients=["JetBrains.cody"], **asked)
    assert "There is no language 'Go'" not in nothing["message"]
    assert "completion_suggestions is not recorded by language in this data among what is asked" in nothing["message"]


@pytest.mark.parametrize("group", ["language", "client", "user"])
async def test_what_is_shown_as_blank_can_be_asked_for(make_settings: Make, group: str) -> None:
    async def answer(exchange: Exchange) -> None:
        head = "Instance user ID,Client Name,Timestamp Date,Language,Searches"
        rows = [f"1,web,{TODAY - DAY},Go,3", f",web,{TODAY - DAY},Go,4", f"1,,{TODAY - DAY},,5"]
        await exchange.answer("\n".join([head, *rows, ""]).encode())

    asked, other = {"metrics": ["searches"], "group_by": [group]}, {"user": "1", "client": "WEB"}.get(group, "go")
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        table = text(await client.call_tool("query_usage", asked))
        blank = await client.call_tool("query_usage", asked | {f"{group}s": ["(Blank)"]})
        some = await call(client, "query_usage", **asked, **{f"{group}s": ["(blank)", other]})
        rest = {"start_date": str(TODAY - 9 * DAY), "end_date": str(TODAY - 2 * DAY)}
        none = await call(client, "query_usage", **asked, **{f"{group}s": ["(blank)"]}, **rest)
    there = 4 if group == "user" else 5
    assert f"| (blank) | {there} |" in table
    assert f"| (blank) | {there} |" in text(blank)
    assert (blank.structured_content or {})["totals"] == [there]
    assert some["totals"] == [12]
    assert none["totals"] == [None]


async def test_weighted_rates_and_unknown_metrics_are_refused_with_what_to_send(settings: Settings) -> None:
    async with connected(settings) as client:
        weighted = await refused(client, "query_usage", metrics=["weighted_car"])
        unknown = await refused(client, "query_usage", metrics=["search"])
    assert "weights are not exported" in weighted["message"] + weighted["next_step"]
    assert "searches" in unknown["message"] + unknown["next_step"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("acceptance_rate", "no such metric (did you mean completion_acceptance_rate or autoedit_acceptance_rate?)."),
        ("acceptances", "mean completion_acceptances, autoedit_acceptances or completion_acceptance_rate?)."),
        ("suggestions", "(did you mean completion_suggestions or autoedit_suggestions?)."),
        ("users", "(did you mean active_users, billable_users or average_daily_active_users?)."),
        ("Chats", "(did you mean chat_events?)."),
        ("time saved", "(did you mean hours_saved?)."),
        ("serches", "(did you mean searches?)."),
        ("lines_of_code", "lines_changed_by_chats_and_commands or lines_changed_by_completions_and_autoedits?)."),
        ("monthly_active_users", "ask for active_users with group_by month."),
        ("Weekly Active Users", "ask for active_users with group_by week."),
        ("DAU", "ask for active_users with group_by day, or for average_daily_active_users."),
        ("weighted_acceptance_rate", "ask for completion_acceptance_rate."),
        ("seats", "there is no such metric; send one of: active_users, billable_users,"),
        ("adoption_rate", "there is no such metric; send one of: active_users, billable_users,"),
    ],
)
async def test_a_metric_that_is_not_there_is_answered_with_those_that_share_its_words(
    settings: Settings, upstream: Served, name: str, says: str
) -> None:
    async with connected(settings) as client:
        error = await refused(client, "query_usage", metrics=[name])
    assert says in error["message"]
    assert name not in error["message"].replace(says, "")
    assert upstream.sent("GET", "/api/reports/by-") == []


async def test_words_of_a_closed_list_are_taken_in_any_spelling(settings: Settings) -> None:
    async with connected(settings) as client:
        asked = {"metrics": ["Active users", "CHAT-EVENTS "], "group_by": ["Client"], "period": "Last 7 days"}
        found = await call(client, "query_usage", **asked)
        twice = await refused(client, "query_usage", metrics=["searches", "Searches"])
    assert [column["name"] for column in found["columns"]] == ["client", "active_users", "chat_events"]
    assert found["start_date"] == str(TODAY - 7 * DAY)
    assert "named twice" in twice["message"]


@pytest.mark.parametrize("period", ["last_60_days", "Q3 2026", "last_fortnight", ""])
async def test_a_period_that_is_not_there_leads_to_dates(settings: Settings, period: str) -> None:
    async with connected(settings) as client:
        error = await refused(client, "query_usage", metrics=["searches"], period=period)
    assert '"period": send one of yesterday, this_week, last_week, last_7_days,' in error["message"]
    assert error["message"].endswith(f"for other days start_date and end_date (today: {TODAY} UTC).")


async def test_a_trend_is_drawn_down_the_time_or_not_at_all(make_settings: Make, tmp_path: Path) -> None:
    chats = (5, 1, 9)
    world = world_of(*(did(ANN, TODAY - (3 - n) * DAY, chats=count) for n, count in enumerate(chats)))
    question = {"metrics": ["chat_events"], "group_by": ["day"], "period": "last_7_days"}
    async with served(world, make_settings, tmp_path) as (client, _):
        for order, drawn in (
            ({}, True),
            ({"order_by": "day", "descending": False}, True),
            ({"descending": True}, False),
            ({"order_by": "chat_events"}, False),
            ({"order_by": "chat_events", "descending": False}, False),
        ):
            shown = text(await client.call_tool("query_usage", question | order))
            assert ("| Trend |" in shown) is drawn, order
            assert ("| █ |" in shown) is drawn, order
        two = text(await client.call_tool("query_usage", question | {"metrics": ["active_users", "chat_events"]}))
    assert "| Active users | Chats | Trend: Active users |" in two


async def test_rows_without_a_day_are_in_no_trend(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        rows = [f"1,{TODAY - n * DAY if n else ''},{count}" for n, count in ((0, 99), (2, 1), (1, 5))]
        await exchange.answer("\n".join(["Instance user ID,Timestamp Date,Searches", *rows, ""]).encode())

    asked = {"metrics": ["searches"], "group_by": ["day"], "period": "all_time"}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        shown = text(await client.call_tool("query_usage", asked))
    assert "| (blank) | 99 |  |" in shown
    assert f"| {TODAY - 2 * DAY} | 1 | ▁ |" in shown
    assert f"| {TODAY - DAY} | 5 | █ |" in shown


@pytest.mark.parametrize("name", [metric.name for metric in BY_NAME.values()])
@pytest.mark.long
async def test_what_may_be_taken_for_another_figure_is_said_and_only_that(settings: Settings, name: str) -> None:
    mistaken = ("average_daily_active_users", "active_days", "first_active_date", "last_active_date")
    async with connected(settings) as client:
        result = await client.call_tool("query_usage", {"metrics": [name], "period": "last_7_days"})
    note = f"{BY_NAME[name].title}: {BY_NAME[name].definition}"
    assert (note in (result.structured_content or {})["notes"], f"- {note}" in text(result)) == (
        (name in mistaken,) * 2
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"clients": ["Emacs"]}, "server.svelte-web"),
        ({"users": ["nobody@example.com"]}, "1 of the 1 users"),
        ({"teams": ["Platform"]}, "No teams are known"),
        ({"period": "last_month", "start_date": "2026-01-01"}, "either period or"),
        ({"start_date": "2026-02-01", "end_date": "2026-01-01"}, "after end_date"),
        ({"start_date": "2199-01-01", "end_date": "2199-02-01"}, "in the future"),
        ({"compare_to_previous": True, "period": "all_time"}, "no period before"),
        ({"compare_to_previous": True, "start_date": "0001-01-01"}, "no days before"),
        ({"compare_to_previous": True, "start_date": "0001-01-01", "group_by": ["month"]}, "no days before"),
        ({"compare_to_previous": True, "start_date": "0001-01-01", "end_date": "2025-12-31"}, "no days before"),
        ({"order_by": "chats"}, "can be one of: searches"),
        ({"group_by": ["day", "day"]}, "twice"),
    ],
)
async def test_questions_that_make_no_sense_say_what_to_send(
    arguments: dict[str, Any], says: str, settings: Settings
) -> None:
    async with connected(settings) as client:
        error = await refused(client, "query_usage", **({"metrics": ["searches"]} | arguments))
    assert error["code"] == "invalid_argument"
    assert says in f"{error['message']} {error['next_step']}"


async def test_an_order_by_user_ids_is_taken_where_they_are_shown(settings: Settings) -> None:
    asked: dict[str, Any] = {"metrics": ["searches"], "order_by": "user_id", "descending": False}
    async with connected(settings) as client:
        found = await call(client, "query_usage", **asked, group_by=["user"])
        assert "can be one of: searches." in (await refused(client, "query_usage", **asked))["next_step"]
    place = [column["name"] for column in found["columns"]].index("user_id")
    ids = [row[place] for row in found["rows"]]
    assert len(set(ids)) > 1
    assert ids == sorted(ids)


async def test_a_future_end_is_clamped_and_an_unfinished_period_is_not_compared(settings: Settings) -> None:
    async with connected(settings) as client:
        clamped = await call(
            client, "query_usage", metrics=["searches"], start_date=TODAY.isoformat(), end_date="2199-01-01"
        )
        running = await call(client, "query_usage", metrics=["searches"], period="this_month", compare_to_previous=True)
    assert clamped["end_date"] == TODAY.isoformat()
    assert any("future" in note for note in clamped["notes"])
    assert running["totals"][2:] == [None, None]
    assert any("not comparable" in note for note in running["notes"])


async def test_a_base_without_data_is_said(make_settings: Make, tmp_path: Path) -> None:
    world = world_of(did(ANN, TODAY - DAY, searches=4))
    async with served(world, make_settings, tmp_path) as (client, _):
        answer = await call(client, "query_usage", metrics=["searches"], compare_to_previous=True)
        weekly = await call(client, "query_usage", metrics=["active_days"], compare_to_previous=True)
        await call(client, "export_csv")
        days = {"start_date": str(TODAY - 20 * DAY), "end_date": str(TODAY - 15 * DAY)}
        empty = await call(client, "query_usage", metrics=["searches"], compare_to_previous=True, **days)
    assert empty["notes"][1].endswith(", where no activity is recorded; the data may begin later.")
    assert answer["totals"] == [4, None, 4, None]
    for found in (answer, weekly):
        assert any("no activity is recorded; the data may begin later" in note for note in found["notes"])


@pytest.mark.long
async def test_where_the_data_end_within_what_is_compared_is_said(make_settings: Make, tmp_path: Path) -> None:
    ended = TODAY - 9 * DAY
    world = world_of(*(did(ANN, ended - n * DAY, searches=1) for n in range(40) if n != 10))
    early = world_of(did(ANN, TODAY.replace(day=1) - 9 * DAY, searches=1))
    days = {"start_date": str(ended - 2 * DAY), "end_date": str(TODAY - DAY)}
    long_ago = {"start_date": str(TODAY - 120 * DAY), "end_date": str(ended - DAY)}
    gone = f"Nothing is recorded after {ended} until {TODAY - DAY}"
    said = f"{gone}; if upstream's data end there, a fall there may be none."
    cases: tuple[tuple[dict[str, Any], str | None], ...] = (
        (days, said),
        (days | {"group_by": ["user"], "users": ["1"]}, said),
        (days | {"group_by": ["day"]}, said),
        (days | {"group_by": ["month"]}, None),  # each is cut off, so none is compared
        ({"period": "last_7_days"}, said),  # none of these days has any
        (days | {"end_date": str(TODAY)}, None),
        (days | {"end_date": str(ended)}, None),
        (long_ago, None),
    )
    async with served(world, make_settings, tmp_path) as (client, _):
        for more, note in cases:
            answer = await call(client, "query_usage", metrics=["searches"], compare_to_previous=True, **more)
            assert [n for n in answer["notes"] if "data end" in n] == ([note] if note else []), more
        alone = await call(client, "query_usage", metrics=["searches"], **days)
        await call(client, "export_csv")
        kept = {"start_date": str(ended - 20 * DAY), "end_date": str(ended - 10 * DAY)}
        on = await call(client, "query_usage", metrics=["searches"], compare_to_previous=True, users=["1"], **kept)
        nothing = await call(client, "query_usage", metrics=["searches"], period="yesterday", compare_to_previous=True)
    (tmp_path / "early").mkdir()
    async with served(early, make_settings, tmp_path / "early") as (client, _):
        asked = {"metrics": ["searches"], "compare_to_previous": True, "period": "this_month", "group_by": ["month"]}
        running = await call(client, "query_usage", **asked)  # which is not over, so nothing is compared
    for answer in (alone, on, running):
        assert not any("data end" in note for note in answer["notes"])
    assert nothing["notes"][1].endswith(", where no activity is recorded; the data may end before.")


@pytest.mark.long
async def test_figures_without_days_say_that_the_data_may_end_before_them(make_settings: Make, tmp_path: Path) -> None:
    asked = {"metrics": ["searches"], "compare_to_previous": True}
    days = {"start_date": str(TODAY - 120 * DAY), "end_date": str(TODAY - DAY)}
    async with served(world_of(did(ANN, TODAY - 130 * DAY, searches=1)), make_settings, tmp_path) as (client, _):
        fallen = await call(client, "query_usage", **asked, **days)
        empty = await call(client, "query_usage", **asked, start_date="2019-01-01", end_date="2019-12-30")
    assert fallen["totals"] == [None, 1, -1, -1]
    assert "Upstream's data may end before this range; then a fall is none." in fallen["notes"]
    assert not any("then a fall" in note for note in empty["notes"])
    assert any("no activity is recorded; the data may begin later or end before." in note for note in empty["notes"])


@pytest.mark.long
async def test_metrics_whose_rows_do_not_add_up_are_named(make_settings: Make, tmp_path: Path) -> None:
    first = TODAY - 130 * DAY
    rows = [
        did(person, day, client, language, suggestions=4, acceptances=n, searches=1, characters=3)
        for n, (person, day, client, language) in enumerate(
            (p, d, c, g)
            for p in (ANN, BO, CY)
            for d in (first, first + DAY, first + 100 * DAY)
            for c in "ab"
            for g in "xy"
        )
    ]
    metrics = [m for m in BY_NAME if m in (
        "active_users", "billable_users", "average_daily_active_users", "active_days", "searches",
        "completion_acceptances", "completion_acceptance_rate",
    )]  # fmt: skip
    asked = {"metrics": metrics, "start_date": str(first), "end_date": str(first + 101 * DAY)}
    async with served(world_of(*rows, team_of={"1": "A", "2": "A", "3": "B"}), make_settings, tmp_path) as (client, _):
        for groups in (
            ["user"], ["team"], ["client"], ["day"], ["week"], ["month"], ["quarter"], ["user", "month"],
            ["team", "client"], ["day", "month"], ["user", "team"], [],
        ):  # fmt: skip
            split = [m for m in metrics if m not in ("searches", "completion_acceptances")] if not groups else metrics
            answer = await call(client, "query_usage", **asked | {"metrics": split}, group_by=groups)
            place = len(answer["columns"]) - len(split)
            sums = [sum(row[place + n] for row in answer["rows"]) for n in range(len(split))]
            apart = [
                BY_NAME[m].title
                for m, parts, whole in zip(split, sums, answer["totals"], strict=True)
                if abs(parts - whole) > 1e-6
            ]
            said = [note for note in answer["notes"] if note.startswith("Rows do not add up")]
            assert said == ([f"Rows do not add up to the total: {', '.join(apart)}."] if apart else []), groups
        dates = await call(client, "query_usage", metrics=["first_active_date"], group_by=["client"])
        one = await call(client, "query_usage", **asked | {"end_date": str(first)}, group_by=["day"])
    for answer in (dates, one):
        assert not any("add up" in note for note in answer["notes"])


async def test_totals_are_over_everything_and_the_page_says_so(settings: Settings, company: Company) -> None:
    month = [row for row in company.activities if TODAY - 30 * DAY <= row.day < TODAY]
    searches = sum(row.counts[COUNTS.index("searches")] or 0 for row in month)
    async with connected(settings) as client:
        result = await client.call_tool("query_usage", {"metrics": ["searches"], "group_by": ["user"], "limit": 2})
    assert result.structured_content is not None
    assert result.structured_content["totals"] == [searches]
    assert result.structured_content["truncated"] is True
    assert f"Searches: {searches:,}" in text(result)
    assert re.search(r"first 2 of \d+ rows; the totals are over all", text(result))


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"group_by": ["day"]}, "latest"),
        ({"group_by": ["client", "month"]}, "latest"),
        ({"group_by": ["day", "client"], "descending": True}, "latest"),
        ({"group_by": ["day", "client"], "order_by": "day"}, "latest"),
        ({"group_by": ["day"], "descending": False}, "first"),
        ({"group_by": ["day", "client"], "order_by": "chat_events"}, "first"),
        ({"group_by": ["day", "client"], "order_by": "day", "descending": False}, "first"),
        ({"group_by": ["user"]}, "first"),
    ],
)
@pytest.mark.long
async def test_a_page_says_whether_it_is_the_latest_or_the_first(
    settings: Settings, asked: dict[str, Any], shown: str
) -> None:
    question = {"metrics": ["chat_events"], "period": "last_90_days"} | asked
    async with connected(settings) as client:
        page = await client.call_tool("query_usage", question | {"limit": 2})
        whole = await call(client, "query_usage", **question, limit=1000)
    assert f"Shown: the {shown} 2 of {whole['row_count']:,} rows" in text(page)
    rows = (page.structured_content or {})["rows"]
    if shown == "latest":
        at = next(at for at, name in enumerate(asked["group_by"]) if name in ("day", "month"))
        assert max(row[at] for row in whole["rows"]) in [row[at] for row in rows]


@pytest.mark.long
async def test_a_page_by_time_shows_the_most_of_each_bucket_and_says_which_is_cut(
    make_settings: Make, tmp_path: Path
) -> None:
    first, second = TODAY - 3 * DAY, TODAY - 2 * DAY
    who = [Person(str(n), "", "", None) for n in range(10, 15)]
    counts = {first: (3, 9, None, 5, 9), second: (1, 8, 2, None, 4)}
    rows = [did(p, day, chats=n) for day, each in counts.items() for p, n in zip(who, each, strict=True)]
    asked = {"metrics": ["chat_events"], "group_by": ["user", "day"], "period": "last_7_days"}
    most = {first: [(1, 9), (4, 9), (3, 5), (0, 3), (2, None)], second: [(1, 8), (4, 4), (2, 2), (0, 1), (3, None)]}
    whole = {day: [[who[n].id, who[n].id, str(day), count] for n, count in each] for day, each in most.items()}

    async with served(world_of(*rows), make_settings, tmp_path) as (client, _):
        for more, shown, page, cut_off in (
            ({"limit": 7}, "latest", [*whole[first][:2], *whole[second]], (first, 2)),
            ({"limit": 2}, "latest", whole[second][:2], (second, 2)),
            ({"limit": 5}, "latest", whole[second], None),
            ({"limit": 10}, "", [*whole[first], *whole[second]], None),
            ({"limit": 7, "descending": True}, "latest", [*whole[second], *whole[first][:2]], (first, 2)),
            ({"limit": 7, "order_by": "day"}, "latest", [*whole[second], *whole[first][:2]], (first, 2)),
            ({"limit": 7, "descending": False}, "first", [*whole[first], *whole[second][:2]], (second, 2)),
            ({"limit": 3, "start_date": str(first), "end_date": str(first)}, "first", whole[first][:3], (first, 3)),
            ({"limit": 3, "order_by": "chat_events"}, "first", [*whole[first][:2], whole[second][0]], None),
        ):
            question: dict[str, Any] = asked | more
            if "start_date" in more:
                del question["period"]
            result = await client.call_tool("query_usage", question)
            answer = result.structured_content or {}
            assert answer["rows"] == page, more
            assert (f"Shown: the {shown} {len(page)} of {answer['row_count']} rows;" in text(result)) is bool(shown), (
                more
            )
            said = [note for note in answer["notes"] if note.startswith("Of ")]
            told = "Of {} only {} of 5 rows are shown, those with the highest Chats."
            assert said == ([told.format(*cut_off)] if cut_off else []), more
            assert all(f"- {note}" in text(result) for note in said)


@pytest.mark.long
async def test_columns_of_several_metrics_can_be_told_apart(settings: Settings) -> None:
    async with connected(settings) as client:
        for metrics in (["searches"], ["searches", "chat_events"]):
            question = {"metrics": metrics, "period": "last_7_days", "compare_to_previous": True}
            for grouped in ([], ["client"]):
                result = await client.call_tool("query_usage", question | {"group_by": grouped})
                titles = [column["title"] for column in (result.structured_content or {})["columns"]]
                assert len(set(titles)) == len(titles)
                assert ("Change" in titles) is (len(metrics) == 1)
    assert "Chats, change" in titles
    assert "| Searches, change | Searches, change % | Chats | Chats, before | Chats, change |" in text(result)


async def test_a_relative_change_is_a_ratio_as_data_and_percent_in_the_text(
    make_settings: Make, tmp_path: Path
) -> None:
    world = world_of(did(ANN, TODAY - 8 * DAY, searches=4, chats=1), did(ANN, TODAY - DAY, searches=5, chats=1))
    asked = {"period": "last_7_days", "compare_to_previous": True}
    async with served(world, make_settings, tmp_path) as (client, _):
        for metrics, title, heading in (
            (["searches"], "Relative change", "Change %"),
            (["searches", "chat_events"], "Searches, relative change", "Searches, change %"),
        ):
            for grouped in ([], ["user"]):
                result = await client.call_tool("query_usage", asked | {"metrics": metrics, "group_by": grouped})
                answer = result.structured_content or {}
                at = [column["name"] for column in answer["columns"]].index("relative_change_searches")
                assert answer["columns"][at] == {"name": "relative_change_searches", "title": title, "unit": "ratio"}
                assert answer["rows"][0][at] == 0.25
                assert f"{heading}: 25.0%" in text(result)
                assert title not in text(result)
                assert (f" | {heading} |" in text(result)) is bool(grouped)


async def test_a_change_of_a_percentage_is_in_points(make_settings: Make, tmp_path: Path) -> None:
    world = world_of(
        did(ANN, TODAY - 8 * DAY, characters=100, cody_characters=50),
        did(ANN, TODAY - DAY, characters=100, cody_characters=40),
    )
    asked = {"metrics": ["percent_code_written_by_cody"], "period": "last_7_days", "compare_to_previous": True}
    async with served(world, make_settings, tmp_path) as (client, _):
        result = await client.call_tool("query_usage", asked)
    answer = result.structured_content or {}
    assert [column["unit"] for column in answer["columns"]] == ["percent", "percent", "points", "ratio"]
    assert answer["totals"] == [40, 50, -10, -0.2]
    assert "Change: -10.0 points; Change %: -20.0%" in text(result)


@pytest.mark.parametrize("masked", ["names", "pseudonyms"])
@pytest.mark.long
async def test_teams_without_a_row_are_named(masked: str, make_settings: Make, tmp_path: Path) -> None:
    listed = {"1": "Data", "3": "[x](http://evil.example)", **{f"nobody{n}": f"Team {n:02}" for n in range(17)}}
    rows = (did(ANN, TODAY - DAY, "a", searches=1), did(CY, TODAY - 9 * DAY, searches=1))
    week = {"metrics": ["searches"], "period": "last_7_days", "group_by": ["team"]}
    said: dict[str, Any] = {}
    make = partial(make_settings, identities=masked)
    async with served(world_of(*rows, team_of=listed), make, tmp_path) as (client, _):
        for name, more in (
            ("all", {}),
            ("two", {"teams": ["team 03", "DATA", "TEAM 03"], "group_by": ["client", "team"]}),
            ("hostile", {"teams": ["Data", "[x](http://evil.example)"]}),
            ("compared", {"compare_to_previous": True, "teams": ["Data", "[x](http://evil.example)"]}),
            ("none", {"teams": ["Data"]}),
            ("of whom", {"teams": ["Data", "Team 03"], "group_by": ["client"]}),
            ("silent", {"start_date": "2019-01-01", "end_date": "2019-01-02", "period": None}),
        ):
            answer = await call(client, "query_usage", **{k: v for k, v in (week | more).items() if v is not None})
            said[name] = [note for note in answer["notes"] if note.startswith("No row for teams")]
    first = "No row for teams of which nothing of what is asked is found: "
    (everything,) = said.pop("all")
    names = ", ".join(f"Team {n:02}" for n in range(15))
    assert everything == f"{first}{names} and 3 more."
    assert said.pop("two") == [f"{first}Team 03."]
    assert said.pop("hostile") == [f"{first}\\[x\\](http\\://evil.example)."]
    assert not any(said.values()), said


async def test_an_end_alone_has_nothing_before_it(settings: Settings) -> None:
    async with connected(settings) as client:
        asked = {"metrics": ["searches"], "end_date": str(TODAY), "compare_to_previous": True}
        error = await refused(client, "query_usage", **asked)
    assert error["message"] == "Without a start there is no period before."


async def test_days_with_data_are_told(make_settings: Make, tmp_path: Path) -> None:
    world = world_of(did(ANN, TODAY - 3 * DAY, searches=1), did(ANN, TODAY - 2 * DAY, searches=1))
    async with served(world, make_settings, tmp_path) as (client, _):
        answer = await call(client, "query_usage", metrics=["active_days"], period="last_7_days")
    assert f"Days with data: 2 of 7, {TODAY - 3 * DAY} to {TODAY - 2 * DAY}." in answer["notes"]


def without_a_row(answer: dict[str, Any]) -> list[str]:
    """What an answer says of time buckets without a row."""
    return [note for note in answer["notes"] if note.startswith("Without a row")]


@pytest.mark.long
async def test_days_without_what_is_asked_are_said(make_settings: Make, tmp_path: Path) -> None:
    days = [TODAY - n * DAY for n in range(7, 0, -1)]
    rows = [*(did(ANN, day, searches=1) for day in (*days, TODAY)), *(did(BO, day, searches=1) for day in days[1:3])]
    teams = {"ann@example.com": "Data", "2": "Web", "somebody@example.com": "Away"}
    by_day = {"metrics": ["active_users", "searches"], "group_by": ["day"], "period": "last_7_days"}
    zero = "People and days are 0 there, other figures none recorded"
    of = f"is there: 5 days, of 7 with data. {zero}; an average over days"
    async with served(world_of(*rows, team_of=teams), make_settings, tmp_path) as (client, _):
        result = await client.call_tool("query_usage", by_day | {"teams": ["Web"]})
        bos = result.structured_content or {}
        assert [row[0] for row in bos["rows"]] == [str(day) for day in days[1:3]]
        assert f"Days with any data, not only of what is asked: 7 of 7, {days[0]} to {days[-1]}." == bos["notes"][0]
        (said,) = without_a_row(bos)
        assert said == f"Without a row, as nothing of what is asked {of} must take in those without a row."
        assert f"- {said}\n" in text(result)
        for more, told in (
            ({"users": ["2"], "group_by": ["day", "client"]}, [said]),
            ({"users": ["2"], "compare_to_previous": True}, [said.replace("5 days", "4 days")]),  # the fall has a row
            ({"clients": ["server.web"], "users": ["2"]}, [said]),
            ({"teams": ["Away"]}, [said.replace("5 days", "7 days")]),
            ({"teams": ["Data", "Web"]}, []),
            ({"users": ["2"], "group_by": ["user"]}, []),
            ({}, []),
            ({"group_by": ["day", "user"]}, []),
        ):
            answer = await call(client, "query_usage", **(by_day | more))
            assert without_a_row(answer) == told, more
            assert ("any data" in answer["notes"][0]) is any(name in more for name in ("users", "teams")), more
        compared = await call(
            client, "query_usage", metrics=["searches"], users=["2"], start_date=str(days[2]), end_date=str(days[3]),
            compare_to_previous=True,
        )  # fmt: skip
    assert any(f"{days[1]}, days with any data: 2, {days[0]} to {days[1]}." in note for note in compared["notes"])


async def test_who_falls_to_nothing_in_a_bucket_has_a_row_there(make_settings: Make, tmp_path: Path) -> None:
    first = date(TODAY.year - 1, 3, 5)
    second, third, fourth = (date(first.year, month, 9) for month in (4, 5, 6))
    rows = [did(ANN, day, "web", searches=9 - n) for n, day in enumerate((first, second, third, fourth))]
    rows += [did(BO, day, "ide", searches=4) for day in (first, second)]
    asked = {"metrics": ["searches", "active_users"], "compare_to_previous": True, "start_date": f"{first.year}-04-01"}
    months = asked | {"group_by": ["month", "client"], "end_date": f"{first.year}-05-31"}
    fall = [None, 4, -4, -1, 0, 1, -1, -1]
    async with served(world_of(*rows), make_settings, tmp_path) as (client, _):
        found = await call(client, "query_usage", **months)
        result = await client.call_tool("query_usage", months | {"order_by": "change_searches", "descending": False})
        latest = await call(client, "query_usage", **months | {"limit": 1})
        before = await call(client, "query_usage", **months | {"end_date": f"{first.year}-04-30"})
        cut = await call(client, "query_usage", **months | {"end_date": f"{first.year}-05-20"})
        bos = await call(client, "query_usage", **months | {"group_by": ["month"], "users": ["2"]})
        whole = await call(
            client, "query_usage", **months | {"group_by": ["client"], "start_date": f"{first.year}-05-01"}
        )
    ann, bo = [f"{first.year}-05", "web", 7, 8, -1, -1 / 8, 1, 1, 0, 0], [f"{first.year}-05", "ide", *fall]
    assert [row[:2] for row in found["rows"]] == [
        [f"{first.year}-{m}", c] for m in ("04", "05") for c in ("web", "ide")
    ]
    assert (found["rows"][2:], found["row_count"], found["truncated"]) == ([ann, bo], 4, False)
    assert (result.structured_content or {})["rows"][0] == bo
    assert f"| {first.year}-05 | ide |  | 4 | -4 | -100.0% | 0 | 1 | -1 | -100.0% |" in text(result)
    assert (latest["rows"], latest["row_count"]) == ([ann], 4)
    assert any(f"Of {first.year}-05 only 1 of 2 rows are shown" in note for note in latest["notes"])
    assert {row[0] for row in before["rows"]} == {f"{first.year}-04"}
    assert cut["rows"][3] == [f"{first.year}-05", "ide", None, 4, None, None, 0, 1, None, None]
    assert bos["rows"][1] == [f"{first.year}-05", *fall]
    assert without_a_row(bos) == []
    assert ["ide", *fall] in whole["rows"]


@pytest.mark.long
async def test_weeks_and_months_without_what_is_asked_are_those_that_have_any_data(
    make_settings: Make, tmp_path: Path
) -> None:
    first = date.fromisocalendar(
        TODAY.year - 1, 10, 1
    )  # nothing is recorded in this week, nor until the next Wednesday
    world = world_of(
        *(did(ANN, first + n * DAY, searches=1) for n in (9, 15, 23, 24, 31)),
        *(did(BO, first + n * DAY, searches=1) for n in (16, 30)),
    )
    asked = {"metrics": ["searches"], "users": ["2"], "start_date": str(first), "end_date": str(first + 34 * DAY)}
    months = {**asked, "start_date": f"{first.year}-01-01", "end_date": f"{first.year}-12-31", "users": ["1"]}
    more = world_of(*world.company.activities, did(BO, date(first.year, 7, 1), searches=1))
    async with served(more, make_settings, tmp_path) as (client, _):
        weekly = await call(client, "query_usage", **asked, group_by=["week"])
        both = await call(client, "query_usage", **asked, group_by=["month", "week"])
        monthly = await call(client, "query_usage", **months, group_by=["month"])
        quarterly = await call(client, "query_usage", **months, group_by=["quarter"])
    assert [row[0] for row in weekly["rows"]] == [str(first + n * DAY) for n in (14, 28)]
    assert "is there: 2 weeks, of 4 with data." in without_a_row(weekly)[0]
    split = len({(row.day.month, row.day.isocalendar().week) for row in world.company.activities})
    assert f"is there: 2 combinations of month and week, of {split} with data." in without_a_row(both)[0]
    counted = len({row.day.month for row in more.company.activities})
    assert f"is there: 1 month, of {counted} with data." in without_a_row(monthly)[0]
    assert "1 quarter, of" in without_a_row(quarterly)[0]
    assert monthly["notes"][0].startswith("Months with any data, not only of what is asked: ")
    assert not any("not over" in note for note in (*without_a_row(weekly), *without_a_row(monthly)))


@pytest.mark.long
async def test_a_bucket_without_what_is_asked_may_not_be_over(make_settings: Make, tmp_path: Path) -> None:
    before = TODAY.replace(day=1) - 40 * DAY
    monday = before - before.weekday() * DAY
    world = world_of(
        *(did(ANN, day) for day in (before, monday, TODAY)),
        did(BO, before),
        did(CY, monday - DAY),
        did(CY, TODAY - DAY),
    )
    asked = {"metrics": ["active_users"], "users": ["2"]}
    async with served(world, make_settings, tmp_path) as (client, _):
        for group in ("day", "week", "month"):
            running = await call(client, "query_usage", **asked, group_by=[group], start_date=str(before))
            assert without_a_row(running)[0].endswith(" The last is not over."), group
        cut_off = {"start_date": str(monday - DAY), "end_date": str(monday), "users": ["3"]}
        anns = await call(client, "query_usage", **(asked | {"users": ["1"]}), group_by=["day"], start_date=str(before))
        over = await call(client, "query_usage", **(asked | cut_off), group_by=["week"])
    for found in (anns, over):
        assert without_a_row(found)[0].endswith(" must take in those without a row.")


async def test_rows_without_a_day_are_of_no_bucket_without_a_row(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        head = "Instance user ID,Client Name,Timestamp Date,Language,Searches"
        rows = [f"1,a,{TODAY - DAY},,1", "2,a,,,1", f"2,a,{TODAY - DAY},,1", f"2,a,{TODAY - 2 * DAY},,1"]
        await exchange.answer("\n".join([head, *rows, ""]).encode())

    asked = {"metrics": ["searches"], "group_by": ["day"], "period": "all_time"}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        first = await call(client, "query_usage", **asked, users=["1"])
        second = await call(client, "query_usage", **asked, users=["2"])
    assert "is there: 1 day, of 2 with data." in without_a_row(first)[0]
    assert [row[-1] for row in second["rows"]] == [1, 1, 1]
    assert without_a_row(second) == []


async def test_every_team_and_nobodys_team_make_the_whole(
    make_settings: Make, upstream: Served, tmp_path: Path
) -> None:
    teams = tmp_path / "teams.csv"
    teams.write_text(upstream.company.teams_csv())
    async with connected(make_settings(upstream.url, teams_file=teams)) as client:
        by_team = await call(client, "query_usage", metrics=["active_users", "searches"], group_by=["team"])
        whole = await call(client, "query_usage", metrics=["active_users", "searches"])
    assert "(no team)" in [row[0] for row in by_team["rows"]]
    for column in (1, 2):
        assert sum(row[column] or 0 for row in by_team["rows"]) == whole["totals"][column - 1]


async def test_rows_without_a_user_are_in_the_sums_and_in_no_team(make_settings: Make, tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(
            f"Instance user ID,Timestamp Date,Searches\n1,{TODAY - DAY},3\n,{TODAY - DAY},4\n".encode()
        )

    teams = tmp_path / "teams.csv"
    teams.write_text("user,team\n1,Data\n")
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, teams_file=teams)) as client:
        found = await call(client, "query_usage", metrics=["active_users", "searches"], group_by=["team"])
    assert found["totals"] == [1, 7]
    assert sorted(found["rows"]) == [["(no team)", 0, 4], ["Data", 1, 3]]
    assert any("no Instance user ID" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("period", "today", "start", "end"),
    [
        ("last_month", date(2024, 3, 31), date(2024, 2, 1), date(2024, 2, 29)),
        ("last_quarter", date(2026, 1, 1), date(2025, 10, 1), date(2025, 12, 31)),
        ("this_quarter", date(2026, 1, 1), date(2026, 1, 1), date(2026, 1, 1)),
        ("last_year", date(2026, 1, 1), date(2025, 1, 1), date(2025, 12, 31)),
        ("last_7_days", date(2026, 1, 3), date(2025, 12, 27), date(2026, 1, 2)),
        ("last_week", date(2026, 1, 4), date(2025, 12, 22), date(2025, 12, 28)),
        ("last_week", date(2026, 1, 5), date(2025, 12, 29), date(2026, 1, 4)),
        ("this_week", date(2026, 1, 3), date(2025, 12, 29), date(2026, 1, 3)),
        ("yesterday", date(2026, 3, 1), date(2026, 2, 28), date(2026, 2, 28)),
        ("all_time", date(2026, 1, 3), None, date(2026, 1, 3)),
    ],
)
async def test_period_words(period: Any, today: date, start: date | None, end: date | None) -> None:
    found = resolve(period, None, None, today)
    assert (found.start, found.end) == (start, end)


@pytest.mark.parametrize(
    ("period", "today", "start", "end"),
    [
        ("last_month", date(2024, 4, 9), date(2024, 2, 1), date(2024, 2, 29)),
        ("last_quarter", date(2026, 5, 1), date(2025, 10, 1), date(2025, 12, 31)),
        ("last_year", date(2025, 1, 1), date(2023, 1, 1), date(2023, 12, 31)),
        ("last_30_days", date(2026, 3, 31), date(2026, 1, 30), date(2026, 2, 28)),
        ("this_week", date(2026, 1, 3), date(2025, 12, 22), date(2025, 12, 28)),
        ("last_week", date(2026, 1, 5), date(2025, 12, 22), date(2025, 12, 28)),
        ("yesterday", date(2026, 3, 1), date(2026, 2, 27), date(2026, 2, 27)),
    ],
)
async def test_the_period_before(period: Any, today: date, start: date, end: date) -> None:
    found = resolve(period, None, None, today).before()
    assert (found.start, found.end) == (start, end)


@pytest.mark.parametrize(
    ("asked", "before"),
    [
        (("2025-10-01", "2025-10-31"), ("2025-09-01", "2025-09-30")),  # a month
        (("2024-02-01", "2024-02-29"), ("2024-01-01", "2024-01-31")),
        (("2025-02-01", "2025-02-28"), ("2025-01-01", "2025-01-31")),  # not the four weeks before
        (("2025-05-01", "2025-06-30"), ("2025-03-01", "2025-04-30")),  # two months
        (("2025-07-01", "2025-09-30"), ("2025-04-01", "2025-06-30")),  # a quarter
        (("2024-01-01", "2024-12-31"), ("2023-01-01", "2023-12-31")),  # a year
        (("2025-12-01", "2026-01-31"), ("2025-10-01", "2025-11-30")),
        (("2026-03-01", "2026-03-31"), ("2026-02-01", "2026-02-28")),  # not over, as this_month
        (("2025-10-02", "2025-10-31"), ("2025-09-02", "2025-10-01")),  # no whole month
        (("2025-10-01", "2025-10-30"), ("2025-09-01", "2025-09-30")),
        (("2025-10-06", "2025-10-12"), ("2025-09-29", "2025-10-05")),  # Monday to Sunday
    ],
)
async def test_dates_that_are_whole_months_compare_with_the_months_before(
    asked: tuple[str, str], before: tuple[str, str]
) -> None:
    start, end = map(date.fromisoformat, asked)
    found = resolve(None, start, end, date(2026, 3, 9)).before()
    assert (str(found.start), str(found.end)) == before


async def test_a_month_compares_alike_as_dates_and_as_a_word(settings: Settings) -> None:
    last = TODAY.replace(day=1) - DAY
    first_before = (last.replace(day=1) - DAY).replace(day=1)
    asked = {"metrics": ["chat_events"], "compare_to_previous": True}
    async with connected(settings) as client:
        by_dates = await call(client, "query_usage", start_date=str(last.replace(day=1)), end_date=str(last), **asked)
        by_word = await call(client, "query_usage", period="last_month", **asked)
    assert by_dates["totals"] == by_word["totals"]
    assert any(f"Compared with {first_before} to {last.replace(day=1) - DAY}" in note for note in by_dates["notes"])


async def test_a_question_whose_data_takes_long_is_answered_when_asked_again(make_settings: Make) -> None:
    finish = anyio.Event()

    async def answer(exchange: Exchange) -> None:
        await finish.wait()
        await exchange.answer(f"Instance user ID,Timestamp Date,Searches\n1,{TODAY - DAY},3\n".encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, answer_within=0.1)) as client:
        busy = await refused(client, "query_usage", metrics=["searches"])
        finish.set()
        while (result := await client.call_tool("query_usage", {"metrics": ["searches"]})).is_error:
            assert "[busy]" in text(result)
    assert (busy["code"], busy["retryable"]) == ("busy", True)
    assert (result.structured_content or {})["totals"] == [3]
    assert len(fake.exchanges) == 1


async def test_all_reports_of_one_question_share_the_time_that_a_call_has(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(call_of_a_tool, "time", clock)

    async def answer(exchange: Exchange) -> None:
        if exchange.number > 1:
            await exchange.stream.receive()
        clock.now += 601  # the first report takes all of it
        await exchange.answer(b"Instance user ID,Searches\n1,3\n")

    async with (
        scripted_upstream(answer) as fake,
        connected(make_settings(fake.url, answer_within=600, read_timeout=600)) as client,
    ):
        with anyio.fail_after(20):
            days = {"start_date": str(TODAY - 200 * DAY), "end_date": str(TODAY - DAY)}  # too many for a report by day
            error = await refused(client, "query_usage", metrics=["searches"], compare_to_previous=True, **days)
        running = (await call(client, "list_exports"))["exports"]
    assert error["code"] == "busy"
    assert [export["status"] for export in running] == ["running", "complete"]


@pytest.mark.parametrize("limit", [{"max_store_bytes": 1}, {"retention_days": 1e-9}], ids=["size", "age"])
@pytest.mark.long
async def test_limits_of_the_store_take_no_report_that_a_question_still_needs(
    make_settings: Make, upstream: Served, limit: dict[str, Any]
) -> None:
    days = {"start_date": str(TODAY - 60 * DAY), "end_date": str(TODAY - DAY)}
    long = days | {"start_date": str(TODAY - 120 * DAY)}  # a report for each of the two ranges
    async with connected(make_settings(upstream.url, **limit)) as client:
        for _ in range(2):
            await call(client, "query_usage", metrics=["searches"], compare_to_previous=True, **long)
            await call(client, "list_inactive_users")
        newest = (await call(client, "export_csv", refresh=True, **days))["export"]["id"]
        left = (await call(client, "list_exports"))["exports"]
    assert [export["id"] for export in left] == [newest]


async def test_a_sweep_of_another_process_takes_no_report_that_a_question_still_needs(make_settings: Make) -> None:
    """Nor one that the hourly sweep of all callers makes, beside the server of this one."""
    another: list[Store] = []

    async def answer(exchange: Exchange) -> None:
        another[0].prepare()
        await exchange.answer(b"Instance user ID,Searches\n1,3\n")

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, max_store_bytes=1)
        another.append(Store(settings.home, settings.retention_days, settings.max_store_bytes))
        async with connected(settings) as client:
            days = {"start_date": str(TODAY - 120 * DAY), "end_date": str(TODAY - DAY)}
            found = await call(client, "query_usage", metrics=["searches"], compare_to_previous=True, **days)
            assert (len(fake.exchanges), found["rows"][0][:2]) == (2, [3, 3])
            left = (await call(client, "list_exports"))["exports"]
    assert [export["id"] for export in left] == found["export_ids"][1:]


async def test_a_new_download_is_what_the_next_question_rests_on(make_settings: Make) -> None:
    body = b"Instance user ID,Timestamp Date,Client Name,Language,Searches\n" + f"1,{TODAY - DAY},web,,3\n".encode()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body if exchange.number == 1 else body + f"2,{TODAY - DAY},web,,40\n".encode())

    asked = {"metrics": ["searches"]}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        first = await call(client, "query_usage", **asked)
        newer = (await call(client, "export_csv", refresh=True))["export"]["id"]
        later = await call(client, "query_usage", **asked)
    assert (first["totals"], later["totals"], later["export_ids"]) == ([3], [43], [newer])


@pytest.mark.long
async def test_a_refresh_that_takes_several_calls_ends_with_what_was_downloaded_for_it(make_settings: Make) -> None:
    """However many of its reports were there when a call had to be answered; and the next one is another."""
    begun, finish = anyio.Event(), anyio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.number == 2:
            begun.set()
            await finish.wait()
        await exchange.answer(f"Instance user ID,Searches\n1,{exchange.number}\n".encode())

    days = {"start_date": str(TODAY - 120 * DAY), "end_date": str(TODAY - DAY)}
    asked = {"metrics": ["searches"], "compare_to_previous": True, "refresh": True, **days}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, answer_within=0.5)) as client:
        while not begun.is_set():
            assert (await refused(client, "query_usage", **asked))["code"] == "busy"
        finish.set()
        found = await answered(client, **asked)
        assert (found["rows"][0][:2], len(fake.exchanges)) == ([2, 1], 2)
        again = await answered(client, **asked)
    assert (again["rows"][0][:2], len(fake.exchanges)) == ([4, 3], 4)


async def answered(client: Client, **asked: Any) -> Any:
    """The answer, once it is no longer that the data is being downloaded."""
    with anyio.fail_after(60):
        while (result := await client.call_tool("query_usage", asked)).is_error:
            assert "[busy]" in text(result)
    return result.structured_content


async def test_what_upstream_no_longer_has_a_column_for_is_refused(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"Instance user ID,Timestamp Date,Searches\n1,2026-01-01,3\n")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "query_usage", metrics=["searches"], group_by=["client"])
    assert (error["code"], error["next_step"]) == ("unsupported", "Ask without client.")


async def test_months_compared_from_monthly_data_say_how_many_there_are(make_settings: Make, tmp_path: Path) -> None:
    days = [date(TODAY.year - ago, month, 2) for ago, month in ((2, 5), (2, 6), (1, 3))]
    async with served(world_of(*(did(ANN, day, searches=1) for day in days)), make_settings, tmp_path) as (
        client,
        requests,
    ):
        await call(client, "export_csv", granularity="by_user_month")
        answer = await call(client, "query_usage", metrics=["searches"], period="last_year", compare_to_previous=True)
    assert len(requests) == 1
    assert f"Months with data: 1, {days[2]:%Y-%m} to {days[2]:%Y-%m}." in answer["notes"]
    assert any("months with data: 2." in note for note in answer["notes"])


async def test_a_quarter_that_is_cut_off_is_said(settings: Settings) -> None:
    year = TODAY.year - 1
    async with connected(settings) as client:
        answer = await call(
            client,
            "query_usage",
            metrics=["searches"],
            group_by=["quarter"],
            start_date=f"{year}-01-01",
            end_date=f"{year}-05-15",
        )
    assert f"The last quarter is only counted until {year}-05-15." in answer["notes"]


async def test_just_after_midnight_the_last_hour_of_yesterday_may_be_missing(
    settings: Settings, upstream: Served
) -> None:
    async with connected(settings) as client:
        await call(client, "export_csv", granularity="by_user")
    (export,) = Store(settings.home, 30, 1 << 40).exports()
    question = Question("a.example", (BY_NAME["searches"],), (), resolve("last_7_days", None, None, TODAY))
    for hour, said in ((0, True), (1, False)):
        made = export.model_copy(update={"created_at": datetime(TODAY.year, TODAY.month, TODAY.day, hour, tzinfo=UTC)})
        told = list(notes(question, [made], (None, None), TODAY, Minutes(), None, 0))
        assert ("the last hour of yesterday may be missing" in " ".join(told)) is said


@pytest.mark.parametrize("kept", [True, False])
async def test_counts_of_a_report_that_holds_other_days_are_said_to_be_of_all_of_it(
    make_settings: Make, kept: bool
) -> None:
    early = TODAY - 300 * DAY
    rows = {TODAY - 5 * DAY: "1,{},Go,2", TODAY - 6 * DAY: "2,{},Go,many", early: "1,{},Go,1\n1,{},Go,1\n2,{},Go,few"}

    async def answer(exchange: Exchange) -> None:
        start = TODAY - 30 * DAY if "startDate=" in exchange.target else early
        lines = [line.replace("{}", str(day)) for day, line in rows.items() if day >= start]
        head = "Instance user ID,Timestamp Date,Language,Searches"
        await exchange.answer("\n".join([head, *lines, ""]).encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        if kept:
            await call(client, "export_csv")
        answered = await call(client, "query_usage", metrics=["searches"], group_by=["language"])
        everything = await call(client, "query_usage", metrics=["searches"], group_by=["language"], period="all_time")
    cells = [note for note in answered["notes"] if "of searches" in note]
    one = "1 cell of searches is not a value of its kind; it counts as blank."
    two = "2 cells of searches are not a value of its kind; they count as blank."
    assert cells == [f"In the whole report (all time), not only these days: {two}" if kept else one]
    assert two in everything["notes"]


@pytest.mark.parametrize("filtered", [{"users": ["1"]}, {"teams": ["A"]}, {"clients": ["web"]}, {"languages": ["Go"]}])
async def test_counts_of_a_report_of_which_some_rows_are_meant_are_said_to_be_of_all_of_it(
    make_settings: Make, tmp_path: Path, filtered: dict[str, list[str]]
) -> None:
    async def answer(exchange: Exchange) -> None:
        rows = f"1,web,{TODAY - DAY},Go,2\n2,cli,{TODAY - 30 * DAY},C,many\n"
        await exchange.answer(f"Instance user ID,Client Name,Timestamp Date,Language,Searches\n{rows}".encode())

    (tmp_path / "teams.csv").write_text("user id,team\n1,A\n")
    settings = {"teams_file": tmp_path / "teams.csv"}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        found = await call(client, "query_usage", metrics=["searches"], **filtered)
    assert found["totals"] == [2]
    (cells,) = [note for note in found["notes"] if "of searches" in note]
    assert re.match(r"In the whole report \(.+\), not only what is asked about: 1 cell of searches is not", cells)


async def test_a_finer_report_that_lacks_a_column_does_not_stand_for_the_one_that_has_it(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        day, by_language = TODAY - 2 * DAY, "by_user_day_client_language" in exchange.target
        more = ("Language,Chat Events", "Go,1") if by_language else ("Searches", "5")
        rows = f"Instance user ID,Timestamp Date,{more[0]}\n1,{day},{more[1]}\n"
        await exchange.answer(rows.encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        await call(client, "export_csv")
        for _ in range(2):
            assert (await call(client, "query_usage", metrics=["searches"]))["totals"] == [5]
            assert (await call(client, "query_usage", metrics=["chat_events"]))["totals"] == [1]
            error = await refused(client, "query_usage", metrics=["code_insight_views"])
            assert error["message"].endswith("the data has no column code_insight_views.")
        assert len(fake.exchanges) == 2


@pytest.mark.parametrize(
    ("finest", "by_day", "downloads"),
    [
        ("", "User Email,Username,", 3),
        ("Username,", "User Email,Username,", 3),
        ("User Email,", "User Email,", 2),  # that none has a username is known from the second on
        ("", "", 2),
        ("User Email,Username,", "", 1),
    ],
)
@pytest.mark.long
async def test_a_finer_report_that_names_nobody_does_not_stand_for_the_one_that_does(
    make_settings: Make, tmp_path: Path, finest: str, by_day: str, downloads: int
) -> None:
    async def answer(exchange: Exchange) -> None:
        by_language = "by_user_day_client_language" in exchange.target
        names = finest if by_language else by_day
        head = f"Instance user ID,{names}Timestamp Date,Searches,Language"
        called = {n: names.replace("User Email", f"{n}@x.com").replace("Username", f"u{n}") for n in "12"}
        lines = [f"{n},{name}{TODAY - 2 * DAY},5,Go" for n, name in called.items()]
        await exchange.answer("\n".join([head, *lines, ""]).encode())

    (tmp_path / "teams.csv").write_text("1@x.com,Core\n2@x.com,Web\n")
    settings = {"teams_file": tmp_path / "teams.csv"}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        await call(client, "export_csv")
        ask = partial(call, client, "query_usage", metrics=["searches"])
        teams, users = await ask(group_by=["team"]), await ask(group_by=["user"])
        assert (await ask(users=["1@x.com" if finest + by_day else "1"]))["totals"] == [5]
        assert (await ask(group_by=["user"], period="last_90_days"))["rows"] == users["rows"]
    assert [row[0] for row in teams["rows"]] == (["Core", "Web"] if finest + by_day else ["(no team)"])
    assert [row[0] for row in users["rows"]] == (["1@x.com", "2@x.com"] if finest + by_day else ["1", "2"])
    assert len(fake.exchanges) == downloads


@pytest.mark.long
async def test_data_from_before_midnight_does_not_make_its_day_whole(
    make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that begins before midnight may answer a question that is asked again after it."""

    class AfterMidnight(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp((datetime.now(tz) + DAY).timestamp(), tz)

    monkeypatch.setattr(tool_of_usage, "datetime", AfterMidnight)
    days = {"start_date": str(TODAY - DAY), "end_date": str(TODAY), "compare_to_previous": True}
    world = world_of(*(did(ANN, TODAY - n * DAY, searches=3) for n in range(8)))
    async with served(world, make_settings, tmp_path) as (client, _):
        ask = partial(call, client, "query_usage", metrics=["searches", "average_daily_active_users"])
        whole, by_day = await ask(**days), await ask(**days, group_by=["day"])
        until_now = await ask(start_date=days["start_date"])
        week = await ask(start_date=str(TODAY - 6 * DAY), end_date=str(TODAY - DAY), compare_to_previous=True)
    not_over = f"{TODAY} was not over when the data was exported, at "
    for answer in (whole, by_day, until_now):
        assert [not_over in note for note in answer["notes"]].count(True) == 1
    assert whole["rows"][0][:4] == [6, 6, None, None]
    assert "The range was not over, so changes are not comparable and left blank." in whole["notes"]
    changes = [row[[c["name"] for c in by_day["columns"]].index("change_searches")] for row in by_day["rows"]]
    assert changes == [0, None]
    assert until_now["totals"][1] == 1  # people per day that the data covers
    assert not [note for note in week["notes"] if "not over" in note]


@pytest.mark.long
async def test_data_from_after_midnight_do_not_make_the_day_of_the_question_whole(
    make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question from before midnight may be answered with what is downloaded after it; its range goes on."""

    class BeforeMidnight(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp((datetime.now(tz) - DAY).timestamp(), tz)

    monkeypatch.setattr(tool_of_usage, "datetime", BeforeMidnight)
    days = {"start_date": str(TODAY - 2 * DAY), "end_date": str(TODAY - DAY)}
    world = world_of(*(did(ANN, TODAY - n * DAY, searches=3) for n in range(800)))
    async with served(world, make_settings, tmp_path) as (client, _):
        ask = partial(call, client, "query_usage", metrics=["searches"], compare_to_previous=True)
        for answer in (await ask(**days), await ask(period="this_year"), await ask(period="this_month")):
            assert answer["rows"][0][2:] == [None, None]
            assert "The range is not over, so changes are not comparable and left blank." in answer["notes"]
        by_day = await ask(**days, group_by=["day"])
    assert [row[-2:] for row in by_day["rows"]] == [[0, 0], [None, None]]


async def test_people_per_day_count_the_days_that_lie_in_every_time_bucket(make_settings: Make, tmp_path: Path) -> None:
    start = date(TODAY.year - 1, 1, 1)
    world = world_of(*(did(ANN, start + n * DAY) for n in range(70)))
    days = {"start_date": str(start), "end_date": str(start + 69 * DAY)}
    async with served(world, make_settings, tmp_path) as (client, _):
        for group_by in (["week", "month"], ["quarter", "week"], ["month", "day"]):
            asked = {"metrics": ["average_daily_active_users"], "group_by": group_by, "limit": 1000}
            answer = await call(client, "query_usage", **asked, **days)
            assert {row[-1] for row in answer["rows"]} == {1}


async def test_who_did_nothing_comes_first_where_the_least_is_asked_for(make_settings: Make, tmp_path: Path) -> None:
    world = world_of(did(ANN, TODAY - DAY, chats=2), did(BO, TODAY - DAY, searches=1))
    async with served(world, make_settings, tmp_path) as (client, _):
        asked = {"metrics": ["chat_events"], "group_by": ["user"], "descending": False}
        for order in ({}, {"order_by": "chat_events"}):
            answer = await call(client, "query_usage", **asked, **order)
            assert [row[-1] for row in answer["rows"]] == [None, 2]
        rates = await call(
            client, "query_usage", **(asked | {"metrics": ["completion_acceptance_rate", "chat_events"]})
        )
        assert [row[-1] for row in rates["rows"]] == [2, None]


@pytest.mark.parametrize("kept", [{}, {"granularity": "by_user_day_client_language"}])
@pytest.mark.long
async def test_a_filter_means_the_same_whatever_is_kept(
    kept: dict[str, str], make_settings: Make, tmp_path: Path
) -> None:
    dan = Person("4", "dan@example.com", "dan", None)
    world = world_of(did(ANN, TODAY - 10 * DAY, "VSCode.cody", searches=1), did(dan, TODAY - DAY, searches=2))
    asked = {"metrics": ["searches"], "period": "last_7_days"}
    async with served(world, make_settings, tmp_path) as (client, _):
        if kept:
            await call(client, "export_csv", **kept)
        by_user = await refused(client, "query_usage", users=["ann"], **asked)
        by_client = await refused(client, "query_usage", clients=["vscode.cody"], **asked)
        compared = await call(client, "query_usage", users=["ann"], compare_to_previous=True, **asked)
        empty = {"metrics": ["searches"], "start_date": "2020-01-01", "end_date": "2020-01-31"}
        nothing = [
            await call(client, "query_usage", **filtered, **empty)
            for filtered in ({"users": ["ann"]}, {"clients": ["VSCode.cody"]})
        ]
    assert "they did nothing in it, or are called otherwise" in by_user["message"]
    assert by_client["message"] == "There is no client 'vscode.cody' in the data of this range."
    assert by_client["next_step"] == "There are: server.web."
    assert compared["totals"] == [None, 1, -1, -1]
    for answer in nothing:
        assert answer["totals"] == [None]
        assert any("No activity is recorded in this range" in note for note in answer["notes"])


async def test_a_name_that_is_not_there_is_answered_with_the_nearest_and_how_many_more(
    make_settings: Make, tmp_path: Path
) -> None:
    languages = [f"Lang{n:02}" for n in range(20)] + ["TypeScript"]
    world = world_of(*(did(ANN, TODAY - DAY, "VSCode.cody", name, suggestions=1) for name in languages))
    async with served(world, make_settings, tmp_path) as (client, _):
        asked = {"metrics": ["completion_suggestions"], "languages": ["typescriptreact"]}
        error = await refused(client, "query_usage", **asked)
    assert error["next_step"].startswith("There are: TypeScript, Lang00, ")
    assert error["next_step"].endswith("Lang13 and 6 more.")


async def test_where_the_data_begin_within_what_is_compared_is_said(make_settings: Make, tmp_path: Path) -> None:
    begun = TODAY - 20 * DAY
    world = world_of(*(did(ANN, begun + n * DAY, searches=1) for n in range(20)))
    asked = {"metrics": ["searches"], "group_by": ["week"], "compare_to_previous": True}
    async with served(world, make_settings, tmp_path) as (client, _):
        within = await call(client, "query_usage", start_date=str(TODAY - 50 * DAY), end_date=str(TODAY - DAY), **asked)
        after = await call(client, "query_usage", start_date=str(TODAY - 4 * DAY), end_date=str(TODAY - DAY), **asked)
    assert any(f"until {begun}; what grows from there may only begin there." in note for note in within["notes"])
    assert not any("may only begin there" in note for note in after["notes"])
    assert any("one that the range cuts off is not compared" in note for note in after["notes"])


@pytest.mark.parametrize("kept", [{}, {"granularity": "by_user_day"}])
@pytest.mark.long
async def test_buckets_of_all_time_are_compared_from_the_second_on(
    kept: dict[str, str], make_settings: Make, tmp_path: Path
) -> None:
    year = TODAY.year - 2
    first, second, sixth = date(year, 3, 9), date(year, 4, 2), date(year, 6, 30)
    world = world_of(
        did(ANN, first, searches=8),
        did(ANN, second, searches=6),
        did(BO, sixth, searches=5),
        did(BO, TODAY, searches=1),
    )
    asked = {"metrics": ["searches", "active_users"], "group_by": ["month"], "compare_to_previous": True}
    async with served(world, make_settings, tmp_path) as (client, _):
        if kept:
            await call(client, "export_csv", **kept)
        found = await call(client, "query_usage", period="all_time", **asked)
        until = await call(client, "query_usage", end_date=f"{year}-06-15", **asked)
        bos = await call(client, "query_usage", end_date=f"{year}-06-30", users=["2"], **asked)
        whole = await refused(client, "query_usage", metrics=["searches"], period="all_time", compare_to_previous=True)
    blank = [None, None, None]
    begun = [
        [f"{year}-03", 8, *blank, 1, *blank],
        [f"{year}-04", 6, 8, -2, -0.25, 1, 1, 0, 0],
    ]
    mays, julys = ([f"{year}-{m}", None, n, -n, -1, 0, 1, -1, -1] for m, n in (("05", 6), ("07", 5)))
    later = [f"{year}-06", 5, None, 5, None, 1, 0, 1, None]  # nothing is recorded of the month before, but earlier is
    today = [f"{TODAY:%Y-%m}", 1, None, None, None, 1, 0, None, None]
    assert found["rows"] == [*begun, mays, later, julys, today]
    assert found["totals"] == [20, *blank, 2, *blank]
    assert until["rows"] == [*begun, mays]
    assert bos["rows"] == [later]
    when = f"on {first}" if kept else f"in {year}-03"
    said = f"The data begin {when}, so the first month is compared with nothing; what grows from there may only begin"
    assert f"{said} there." in found["notes"]
    assert f"The last month is only counted until {year}-06-15." in until["notes"]
    assert whole["next_step"] == "Send start_date, or another period."


async def test_rows_whose_day_cannot_be_read_are_said_with_every_figure(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        rows = [f"1,{TODAY - DAY},10,true", f"2,{TODAY - DAY:%m/%d/%Y},10,true", "3,,10,true"]
        await exchange.answer("\n".join(["User ID,Date,Searches,Billable", *rows, ""]).encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        found = await call(client, "query_usage", metrics=["searches"])
        days = await call(client, "query_usage", metrics=["active_days"], period="all_time")
    for answered, totals in ((found, [10]), (days, [1])):
        assert answered["totals"] == totals
        assert "2 rows have no day that can be read; they count in no range but all time." in answered["notes"]
        assert any(note.startswith("1 cell of timestamp_date ") for note in answered["notes"])


@pytest.mark.parametrize("granularity", ["by_user_day", "by_user_month"])
@pytest.mark.parametrize(
    ("start", "end", "searches", "said"),
    [
        (None, None, 1111, "after {today}"),
        (None, "2026-02-28", 110, "after 2026-02-28"),
        ("2026-02-01", None, 11, "before 2026-02-01 or after {today}"),
        ("2026-02-01", "2026-02-28", 10, "before 2026-02-01 or after 2026-02-28"),
        ("2026-02-12", "2026-02-28", 0, "before 2026-02-12 or after 2026-02-28"),
    ],
)
@pytest.mark.long
async def test_a_summary_and_a_question_about_the_same_days_agree(
    make_settings: Make, granularity: str, start: str | None, end: str | None, searches: int, said: str
) -> None:
    """Upstream sends more than it is asked for, and a row without a day."""
    days = {"start_date": start, "end_date": end}
    days = {name: day for name, day in days.items() if day is not None}
    later = TODAY + 40 * DAY

    async def answer(exchange: Exchange) -> None:
        month = "by_user_month" in exchange.target
        rows = {"2026-01-31": 100, "2026-02-01": 10, "2026-03-01": 1, "": 1000, str(later): 10_000}
        lines = [f"{n},{day[:7] if month else day},{count}" for n, (day, count) in enumerate(rows.items())]
        await exchange.answer("\n".join([f"User ID,{'Month' if month else 'Date'},Searches", *lines, ""]).encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity=granularity, **days))["export"]
        note, figures = (await read(client, export["summary_uri"])).split("## Totals")
        asked = days or {"period": "all_time"}
        found = await call(client, "query_usage", metrics=["searches"], group_by=["month"], **asked)
    if start == "2026-02-12":  # a month belongs to its days
        assert found["totals"] == [None]
        searches = 10 if granularity == "by_user_month" else 0
    else:
        assert found["totals"] == [searches]
    assert (f"| Searches | {searches:,} | events |" in figures) == (searches > 0)
    if granularity == "by_user_month" and start is not None:
        said = said.replace(start, start[:7])
    assert f"What upstream dates {said.format(today=TODAY)} is in none of the figures below." in note
    assert "1 row has no day that can be read; it counts in no range but all time." in note


async def test_cells_that_count_as_blank_are_said_where_they_matter(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(f"User ID,Date,Searches,Chat Events\n1,{TODAY - DAY},few,3\n".encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        searches = await call(client, "query_usage", metrics=["searches"])
        chats = await call(client, "query_usage", metrics=["chat_events"])
    assert any("cell of searches" in note for note in searches["notes"])
    assert not any("of its kind" in note for note in chats["notes"])


async def test_days_with_data_are_those_of_the_range_whatever_upstream_sends(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        rows = [f"1,{TODAY - n * DAY},1" for n in range(60)]
        await exchange.answer("\n".join(["User ID,Date,Searches", *rows, ""]).encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        for last in (1, 40):
            days = {"start_date": str(TODAY - (last + 6) * DAY), "end_date": str(TODAY - last * DAY)}
            found = await call(client, "query_usage", metrics=["searches"], **days)
            assert found["totals"] == [7]
            assert f"Days with data: 7 of 7, {days['start_date']} to {days['end_date']}." in found["notes"]


@pytest.mark.long
async def test_an_export_of_a_clock_that_was_wrong_is_not_taken_for_new(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        first = await call(client, "query_usage", metrics=["searches"])
        meta = settings.home / "exports" / first["export_ids"][0] / "meta.json"
        made = (datetime.now(UTC) + timedelta(days=3)).isoformat()
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"created_at": made}))
    async with connected(settings) as client:
        again = await call(client, "query_usage", metrics=["searches"])
    assert again["export_ids"] != first["export_ids"]
    assert again["as_of"] < made
    assert len(upstream.sent("GET", "/api/reports/by-")) == 2


@pytest.mark.long
async def test_downloads_for_questions_keep_to_the_size_of_the_store(make_settings: Make, upstream: Served) -> None:
    async with connected(make_settings(upstream.url, max_store_bytes=10_000)) as client:
        for months in range(3):
            days = {"start_date": str(TODAY - (90 - months) * DAY), "end_date": str(TODAY - 30 * DAY)}
            await call(client, "query_usage", metrics=["searches"], group_by=["client"], refresh=True, **days)
        left = (await call(client, "list_exports"))["exports"]
    assert [export["start_date"] for export in left] == [days["start_date"]]


_OTHERWISE = "they did nothing in it, or are called otherwise"


@pytest.mark.parametrize(
    ("names", "users", "why", "works"),
    [
        ("", ["ann"], "it has nobody's username, and no such user id", "user id"),
        ("", ["ann@x.com"], "it has nobody's e-mail", "user id"),
        ("", ["ann", "ann@x.com"], "it has nobody's e-mail or username, and no such user id", "user id"),
        ("Username", ["ann@x.com"], "it has nobody's e-mail", "user id or username"),
        ("Username", ["cy", "ann@x.com"], f"it has nobody's e-mail; the others: {_OTHERWISE}", "user id or username"),
        ("Username", ["cy"], _OTHERWISE, "user id or username"),
        ("User Email", ["ann"], "it has nobody's username, and no such user id", "user id or e-mail"),
        ("User Email,Username", ["cy", "cy@x.com"], _OTHERWISE, "user id, e-mail or username"),
    ],
)
@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.long
async def test_users_named_by_what_nobody_is_called_by_hear_what_works(
    names: str, users: list[str], why: str, works: str, absent: bool, make_settings: Make
) -> None:
    async def answer(exchange: Exchange) -> None:
        there = [column for column in ("User Email", "Username") if column in names or not absent]
        lines = [",".join(["User ID", *there, "Date", "Searches"])]
        for name in ("ann", "bo"):
            called = {"User Email": f"{name}@x.com", "Username": name}
            cells = [called[column] if column in names else "" for column in there]
            lines.append(",".join([f"{name}-id", *cells, str(TODAY - DAY), "5"]))
        await exchange.answer("\n".join([*lines, ""]).encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        ask = partial(refused, client, "query_usage", metrics=["searches"])
        error, among = await ask(users=users), await ask(users=["bo-id", *users])
        found = await call(client, "query_usage", metrics=["searches"], users=["Ann-ID"])
    assert found["totals"] == [5]
    for refusal, named in ((error, len(users)), (among, len(users) + 1)):
        start = f"{len(users)} of the {named} users named are not in the data of this range"
        assert refusal["message"] == f"{start}: {why}."
        assert refusal["next_step"] == f"Name them by {works}; group_by user shows who is there."


async def test_users_hidden_by_pseudonyms_hear_nothing_of_names(make_settings: Make, tmp_path: Path) -> None:
    world = world_of(did(BO, TODAY - DAY, searches=2))
    async with served(world, partial(make_settings, identities="pseudonyms"), tmp_path) as (client, _):
        for named in ("ann", "ann@example.com"):
            error = await refused(client, "query_usage", metrics=["searches"], users=[named])
            assert error["message"].endswith(f"not in the data of this range: {_OTHERWISE}.")
            assert error["next_step"].startswith("Name them by their pseudonyms (person-…);")


@pytest.mark.parametrize("name", ["Team", "user_label", "g_team", "Meant"])
async def test_a_column_that_is_called_like_a_group_disturbs_none(
    make_settings: Make, tmp_path: Path, name: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        rows = [f"{n},{TODAY - DAY},{n},x" for n in (1, 2)]
        await exchange.answer("\n".join([f"User ID,Date,Searches,{name}", *rows, ""]).encode())

    (tmp_path / "teams.csv").write_text("user,team\n1,Data\n")
    settings = {"teams_file": tmp_path / "teams.csv"}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        asked = {"metrics": ["searches", "active_days"], "group_by": ["team"], "users": ["1", "2"]}
        found = await call(client, "query_usage", **asked)
    assert sorted(found["rows"]) == [["(no team)", 2, 1], ["Data", 1, 1]]


@pytest.mark.long
async def test_names_are_compared_in_any_spelling(make_settings: Make, tmp_path: Path) -> None:
    """Letters that become small in more than one way, accents that are characters of their own."""
    nikos, jose = Person("1", "", "ΝΙΚΟΣ", None), Person("2", "jos\u00e9@example.com", "İlker", None)
    rows = [
        did(nikos, TODAY - DAY, "ΟΔΟΣ", "\u1e90", searches=3),
        did(jose, TODAY - DAY, "Jose\u0301", searches=5),
    ]
    world = world_of(*rows, team_of={"νικος": "ΣΕΡΡΕΣ", "JOSE\u0301@example.com": "İzmir"})
    async with served(world, make_settings, tmp_path) as (client, _):
        for filters, total in (
            ({"users": ["νικος"]}, 3), ({"users": ["ΝΙΚΟΣ"]}, 3), ({"users": ["İLKER"]}, 5),
            ({"users": ["JOSE\u0301@EXAMPLE.com"]}, 5), ({"teams": ["σερρες"]}, 3), ({"teams": ["İZMIR"]}, 5),
            ({"clients": ["οδος"]}, 3), ({"clients": ["JOS\u00c9"]}, 5), ({"languages": ["z\u0302"]}, 3),
        ):  # fmt: skip
            assert (await call(client, "query_usage", metrics=["searches"], **filters))["totals"] == [total], filters
        assert await shares(client, group_by=["team"]) == {"ΣΕΡΡΕΣ": 3, "İzmir": 5}


@pytest.mark.parametrize("kept", [*KEPT, {"granularity": "by_user"}, {"granularity": "by_user_month"}])
@pytest.mark.long
async def test_what_is_dated_after_today_is_left_out_whatever_is_kept(
    kept: dict[str, str], make_settings: Make, tmp_path: Path
) -> None:
    world = world_of(did(ANN, TODAY, searches=1), did(BO, TODAY + DAY, searches=100))
    async with served(world, make_settings, tmp_path) as (client, _):
        if kept:
            await call(client, "export_csv", **kept)
        for asked in (
            {"period": "all_time"},
            {"period": "all_time", "group_by": ["month"]},
            {"period": "all_time", "group_by": ["client"]},
            {"period": "this_year", "group_by": ["month"]},
            {"start_date": str(TODAY - 200 * DAY)},
        ):
            answer = await call(client, "query_usage", metrics=["searches", "active_users"], **asked)
            assert (answer["totals"], answer["end_date"]) == ([1, 1], str(TODAY)), asked
            assert f"{TODAY + DAY}" not in str(answer["notes"])
            if "client" in asked.get("group_by", ()):
                assert "What upstream dates after today is left out." in answer["notes"]


@pytest.mark.parametrize("granularity", ["by_user_month", "by_user_day", "by_user_day_client_language"])
async def test_what_is_dated_after_today_is_in_no_figure_of_a_summary(
    make_settings: Make, tmp_path: Path, granularity: str
) -> None:
    later = TODAY + 40 * DAY
    world = world_of(did(ANN, TODAY, searches=1), did(BO, later, "VSCode.cody", "Go", searches=100))
    async with served(world, make_settings, tmp_path) as (client, _):
        export = (await call(client, "export_csv", granularity=granularity))["export"]
        summary = await read(client, export["summary_uri"])
    note, figures = summary.split("## Totals")
    assert f"What upstream dates after {TODAY} is in none of the figures below." in note
    assert "| Active users | 1 | people |" in figures
    assert "| Searches | 1 | events |" in figures
    assert granularity == "by_user_month" or "| Average daily users | 1.0 | people per day |" in figures
    assert f"{later:%Y-%m}" not in figures
    assert "VSCode" not in figures


@pytest.mark.parametrize(
    ("blank", "told", "share"),
    [(10_000, 1, "Over 99%"), (99, 1, "99%"), (1, 99, "1%"), (1, 10_000, "Less than 1%"), (5, -5, "Some"),
     (5, -2, "Some"), (-1, 5, "Some")],
)  # fmt: skip
@pytest.mark.long
async def test_the_share_without_a_language_is_never_rounded_to_all_or_nothing(
    make_settings: Make, tmp_path: Path, blank: int, told: int, share: str
) -> None:
    day = TODAY - DAY
    world = world_of(did(ANN, day, searches=blank), did(ANN, day, "VSCode.cody", "Go", searches=told))
    async with served(world, make_settings, tmp_path) as (client, _):
        answer = await call(client, "query_usage", metrics=["searches"], group_by=["language"])
    assert answer["totals"] == [blank + told]
    assert f"{share} of searches has no language recorded." in answer["notes"]


@pytest.mark.long
async def test_figures_as_data_are_as_exact_as_the_text(make_settings: Make, tmp_path: Path) -> None:
    """Whole numbers that many clients would round are text, as in the answers of query_export."""
    many, more = 123_456_789_012_345, 2**53 - 1
    world = world_of(did(ANN, TODAY - DAY, searches=many), did(BO, TODAY - DAY, searches=more))
    asked = {"metrics": ["searches", "hours_saved"], "group_by": ["user"], "users": ["1"]}
    async with served(world, make_settings, tmp_path) as (client, _):
        one = await client.call_tool("query_usage", asked)
        both = await call(client, "query_usage", metrics=["searches"], group_by=["user"])
        sql = "SELECT sum(searches) FROM usage"
        [[queried]] = (await call(client, "query_export", export_id=both["export_ids"][0], sql=sql))["rows"]
    assert one.structured_content is not None
    assert one.structured_content["totals"] == [many, 10_288_065_751_028.75]
    assert "10,288,065,751,028.8" in text(one)
    assert both["totals"] == [str(many + more)] == [queried]
    assert [row[-1] for row in both["rows"]] == [more, many]
