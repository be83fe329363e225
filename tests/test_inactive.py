"""People who lapsed and seats that were never used, from two coarse reports."""

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest

from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.settings import Settings, SettingsError
from sourcegraph_analytics_mcp.surface.tools import inactive
from sourcegraph_analytics_mcp.usage.people import read_seats, read_teams
from support.client import call, connected, refused, text
from support.upstreams import Exchange, Served, scripted_upstream

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
TODAY = datetime.now(UTC).date()


def last_days(company: Company) -> dict[str, date]:
    """Each person's last day with activity, service accounts left out."""
    last: dict[str, date] = {}
    for activity in company.activities:
        if not activity.person.service_account:
            last[activity.person.id] = max(activity.day, last.get(activity.person.id, activity.day))
    return last


@pytest.mark.parametrize("days", [1, 7, 30, 60, 3650])
@pytest.mark.long
async def test_the_inactive_are_those_without_a_row_in_the_last_days(
    settings: Settings, company: Company, days: int
) -> None:
    last = last_days(company)
    expected = {person for person, day in last.items() if (TODAY - day).days >= days}

    async with connected(settings) as client:
        answer = await call(client, "list_inactive_users", days=days, limit=1000)

    assert {row[1] for row in answer["rows"]} == expected
    assert (answer["inactive"], answer["seen"], answer["seats_freed"]) == (len(expected), len(last), len(expected))
    assert answer["never_seen"] is None
    for _, user_id, status, month in answer["rows"]:
        assert (status, month) == ("lapsed", f"{last[user_id]:%Y-%m}")


@pytest.mark.long
async def test_two_coarse_reports_are_enough_and_kept(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        for _ in range(2):
            await call(client, "list_inactive_users")
    assert [dict(r.query)["granularity"] for r in upstream.sent("GET", "/api/reports/by-")] == [
        "by_user_month",
        "by_user_day",
    ]


@pytest.mark.parametrize("kept", [(), ("by_user_day",), ("by_user_day_client_language", "by_user_day")])
async def test_what_was_ever_seen_does_not_depend_on_what_is_kept(
    kept: tuple[str, ...], make_settings: Make, tmp_path: Path
) -> None:
    """It comes from figures by month, and somebody who was called differently in them by the latest of the names."""

    async def answer(exchange: Exchange) -> None:
        if "granularity=by_user_month" in exchange.target:
            rows = ["1,zoe@example.com,2024-01", "1,ann@example.com,2024-02", f"2,bo@example.com,{TODAY:%Y-%m}"]
            await exchange.answer("\n".join(["User ID,Email,Month", *rows, ""]).encode())
        else:
            rows = ["1,old@example.com,2024-02-03,,", f"2,bo@example.com,{TODAY},,"]
            await exchange.answer("\n".join(["User ID,Email,Date,Client,Language", *rows, ""]).encode())

    seats = tmp_path / "seats.csv"
    seats.write_text("old@example.com\nzoe@example.com\n")
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, seats_file=seats)) as client:
        for granularity in kept:
            await call(client, "export_csv", granularity=granularity)
        found = await call(client, "list_inactive_users")
    assert found["rows"] == [
        ["ann@example.com", "1", "lapsed", "2024-02"],
        ["old@example.com", None, "never seen", None],
    ]
    assert (found["seen"], found["seats_freed"]) == (2, 2)


@pytest.mark.parametrize("masked", ["names", "pseudonyms"])
async def test_where_the_data_name_nobody_no_seat_is_called_unused(
    make_settings: Make, tmp_path: Path, masked: str
) -> None:
    seats = tmp_path / "seats.csv"
    seats.write_text("user\nann@example.com\nbo\ncy@example.com\n")

    async def answer(exchange: Exchange) -> None:
        month = "granularity=by_user_month" in exchange.target
        rows = ["1,,,2026-01", "2,,,2024-02"] if month else [f"1,,,{TODAY}"]
        await exchange.answer("\n".join([f"User ID,Email,Username,{'Month' if month else 'Date'}", *rows, ""]).encode())

    settings = {"seats_file": seats, "identities": masked}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        result = await client.call_tool("list_inactive_users", {})
    found = result.structured_content
    assert found is not None
    assert (found["inactive"], found["never_seen"], found["seats_freed"], found["row_count"]) == (1, None, 1, 1)
    assert any("which seats were never seen cannot be told" in note for note in found["notes"])
    assert not any("not on the seat list" in note for note in found["notes"])
    assert "That could free up to 1 seat." in text(result)


@pytest.mark.parametrize(
    ("listed", "frees"),
    [("a,c", "That could free up to 1 seat."), ("a,b,c", "That frees 1 seat."), ("a", "That frees 0 seats.")],
)
async def test_how_many_people_have_no_seat_by_name_is_said(
    make_settings: Make, tmp_path: Path, listed: str, frees: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        month = "granularity=by_user_month" in exchange.target
        rows = [f"1,a,{TODAY}", f"2,b,{TODAY}"]
        await exchange.answer("\n".join([f"User ID,Username,{'Month' if month else 'Date'}", *rows, ""]).encode())

    seats = tmp_path / "seats.csv"
    seats.write_text("\n".join(["user", *listed.split(",")]))
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, seats_file=seats)) as client:
        result = await client.call_tool("list_inactive_users", {})
    assert frees in text(result)
    said = "1 of the 2 people ever seen has no seat by name"
    assert (f"{said}: seats never seen may be theirs." in text(result)) == ("could" in frees)
    assert (said in text(result)) == ("b" not in listed)


async def test_seats_that_never_appear_are_kept_apart(make_settings: Make, upstream: Served, tmp_path: Path) -> None:
    seats = tmp_path / "seats.csv"
    seats.write_text(upstream.company.seats_csv())
    async with connected(make_settings(upstream.url, seats_file=seats)) as client:
        answer = await call(client, "list_inactive_users", limit=1000)
    never = [row[0] for row in answer["rows"] if row[2] == "never seen"]
    active = {activity.person.email for activity in upstream.company.activities}
    holders = set(upstream.company.seats_csv().splitlines()[1:])
    assert set(never) == holders - active
    assert answer["never_seen"] == len(never) > 0
    assert answer["seats_freed"] == answer["inactive"] + answer["never_seen"]


async def test_without_a_registry_service_accounts_are_said_to_be_unknown(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        if "user-registry" in exchange.target:
            await exchange.answer(b"", "404 Not Found")
        elif "granularity=by_user_month" in exchange.target:
            await exchange.answer(b"Instance user ID,Timestamp Month\n1,2024-02\n2,2024-02-01\n1,2026-01\n")
        else:
            await exchange.answer(f"Instance user ID,Timestamp Date\n1,{TODAY}\n".encode())

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        found = await call(client, "list_inactive_users")
    assert found["rows"] == [["2", "2", "lapsed", "2024-02"]]
    assert "service accounts" in " ".join(found["notes"])


@pytest.mark.parametrize(
    "registry", [b'Instance user ID,Service Account\n"' + b"x" * 200_000, b"Service Account\ntrue\n"]
)
async def test_a_registry_that_cannot_be_read_leaves_the_service_accounts_unknown(
    make_settings: Make, registry: bytes
) -> None:
    async def answer(exchange: Exchange) -> None:
        head = (
            b"Instance user ID,Timestamp Month\n"
            if "user_month" in exchange.target
            else b"Instance user ID,Timestamp Date\n"
        )
        await exchange.answer(registry if "user-registry" in exchange.target else head)

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        found = await call(client, "list_inactive_users")
    assert found["seen"] == 0
    assert "service accounts" in " ".join(found["notes"])


async def test_months_that_begin_before_the_last_days_do_not_tell_who_was_active_in_them(make_settings: Make) -> None:
    days = 200 if (TODAY - timedelta(days=199)).day > 1 else 201
    start = TODAY - timedelta(days=days - 1)
    rows = {"by_user": "1\n", "by_user_month": f"1,{start:%Y-%m}\n2,{start:%Y-%m}\n"}

    async def answer(exchange: Exchange) -> None:
        if "granularity" not in exchange.target:
            await exchange.answer(b"", "404 Not Found")
            return
        grain = "by_user_month" if "by_user_month" in exchange.target else "by_user"
        month = ",Timestamp Month" if grain == "by_user_month" else ""
        await exchange.answer(f"Instance user ID{month}\n{rows[grain]}".encode())

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        months = {"granularity": "by_user_month", "start_date": str(start), "end_date": str(TODAY)}
        await call(client, "export_csv", **months)
        found = await call(client, "list_inactive_users", days=days)
    assert [row[1] for row in found["rows"]] == ["2"]


async def test_a_failing_upstream_fails_the_question(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"", "401 Unauthorized")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        assert (await refused(client, "list_inactive_users"))["code"] == "auth_rejected"


@pytest.mark.parametrize(
    ("content", "says"),
    [("email,team\na@example.com\n", "line 2"), ("user,team\nb,\n", "line 2"), ("user,team\na,x\nA,y\n", "line 3"),
     ('a,"b\n', "line"), (",x\n", "line 1")],
)  # fmt: skip
async def test_a_wrong_teams_file_names_the_line(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "teams.csv").write_text(content)
    with pytest.raises(SettingsError, match=says):
        read_teams(tmp_path / "teams.csv")


@pytest.mark.parametrize(
    "header",
    ["email", "E-Mails", "Email address", "email_address", "user_email", "UserEmail", "Mail", "Login", "Name",
     "User name", "\nusernames", "Instance user ID", "user-id", "People", "seats", "Licensed users", "Members",
     "Full name"],
)  # fmt: skip
@pytest.mark.long
async def test_a_header_is_nobody_however_it_is_spelled(header: str, make_settings: Make, tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        month = "granularity=by_user_month" in exchange.target
        await exchange.answer(f"User ID,Email,{'Month' if month else 'Date'}\n1,ann@example.com,{TODAY}\n".encode())

    seats, teams = tmp_path / "seats.csv", tmp_path / "teams.csv"
    seats.write_text(f"{header}\nann@example.com\n")
    teams.write_text(f"{header},Group\nann@example.com,Data\n")
    settings = {"seats_file": seats, "teams_file": teams}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        found = await call(client, "list_inactive_users")
    assert (found["never_seen"], found["seats_freed"]) == (0, 0)
    assert read_teams(teams).of == {"ann@example.com": "Data"}


@pytest.mark.parametrize(
    "lines",
    ["Kollege/ann/bo", "Developer/ann/bo", "Alias/ann", "Nutzer/a@x.com/b@x.com", "17/a@x.com", "cy/a@x.com/bo",
     "Ann Lee/Bo Day", "ann", "Nom,Équipe/ann,Core/bo,Web", "Developer,Crew/a@x.com,Core", "dev,pod/ann,Core",
     "ann,Data/b@x.com,Team", "17,Team/bo,Data", "ann , TEAM /bo,Data", "Kollege,Team/a@x.com,Data/b@x.com,Data",
     "ann,Status/bo,Status", "Department,Kostenstelle/Web,K1", "Worker,Site,Status/ann,K1,on", "Who,Comments/ann,new",
     "Alias,First name,Last name/ann,Ann,Lee"],
)  # fmt: skip
async def test_a_first_line_without_an_e_mail_is_a_header_that_calls_people_so_or_is_refused(
    lines: str, tmp_path: Path
) -> None:
    """Whoever it is taken for, they would be somebody, or nobody, in every figure."""
    path = tmp_path / "people.csv"
    says = "line 2: it does not tell which column holds the people.*; in a header call one, .*; above a person put such"
    path.write_text(lines.replace("/", "\n").join(["\n", "\n"]))
    for read in (read_seats, read_teams):
        with pytest.raises(SettingsError, match=says):
            read(path)
    listed = [re.sub(" ", "", line) for line in lines.split("/")]
    for meant in (listed, listed[1:]):  # what is advised where it is a person, and where it is a header
        path.write_text("\n".join(["Username,Team", *meant]))
        assert read_seats(path) == tuple(line.split(",")[0] for line in meant)


@pytest.mark.parametrize(
    ("lines", "says"),
    [("a@x.com,Team/b@x.com,Data", None), ("a@x.com,email/b@x.com,Data", None), ("a@x.com,user id", None),
     ("a@x.com,Data/bo,Data", "line 2: it has no e-mail in the column of e-mails; call one that holds usernames, too")],
)  # fmt: skip
async def test_a_first_line_with_an_e_mail_is_a_person_and_so_are_all_below(
    lines: str, says: str | None, tmp_path: Path
) -> None:
    (tmp_path / "teams.csv").write_text(lines.replace("/", "\n"))
    if says is None:
        assert read_teams(tmp_path / "teams.csv").of == dict(line.split(",") for line in lines.split("/"))
    else:
        with pytest.raises(SettingsError, match=says):
            read_teams(tmp_path / "teams.csv")


@pytest.mark.parametrize(
    ("header", "line", "seat"),
    [
        ("Name,Email", "Ann Lee,ann@x.com", "ann@x.com"),
        ("Full name,Plan,Work e-mail", "Ann Lee,Pro,ann@x.com", "ann@x.com"),
        ("Plan,Email", "Pro,ann@x.com", "ann@x.com"),
        ("Name,Username", "Ann Lee,ann", "ann"),
        ("Name,Login,Mail", "Ann Lee,ann,ann@x.com", "ann@x.com"),
        ("Username,Email", "ann,ann@x.com", "ann@x.com"),
        ("License ID,Email", "1,ann@x.com", "ann@x.com"),
        ("Kostenstelle,Email", "K1,ann@x.com", "ann@x.com"),
        ("ID,Login", "1,ann", "ann"),
        ("Account ID,Username", "101,ann", "ann"),
        ("Department,Username", "Web,ann", "ann"),
        ("Name,User ID", "Ann Lee,17", "17"),
        ("User ID,Username", "17,ann", "ann"),
        ("Name,Plan", "ann,Pro", "ann"),
        ("Name,Email", "Ann Lee,", None),
        ("Name,Email", "Ann Lee", None),
        ("Name,Email", "Ann Lee,Phone", None),
    ],
)
async def test_a_header_says_which_column_holds_the_people(
    header: str, line: str, seat: str | None, tmp_path: Path
) -> None:
    (tmp_path / "seats.csv").write_text(f"{header}\n{line}\n")
    if seat is None:
        with pytest.raises(SettingsError, match=r"SEATS_FILE, line 2: it has no e-mail"):
            read_seats(tmp_path / "seats.csv")
    else:
        assert read_seats(tmp_path / "seats.csv") == (seat,)


@pytest.mark.parametrize(
    ("header", "person"),
    [("Team,Email", "ann@x.com"), ("Team,User", "ann"), ("Squad,Username", "ann"), ("Team,User ID", "17")],
)
async def test_a_header_says_which_column_holds_the_teams(header: str, person: str, tmp_path: Path) -> None:
    (tmp_path / "teams.csv").write_text(f"{header}\nData,{person}\n")
    assert read_teams(tmp_path / "teams.csv").of == {person: "Data"}


@pytest.mark.parametrize(
    ("lines", "of_seats", "of_teams"),
    [
        ("Person,Login/ann,Data", None, "does not tell"),
        ("Name,Email/Ann Lee,ann@x.com", None, "does not tell"),
        ("Employee,Squad", "does not tell", "does not tell"),
        ("Seat ID,Plan/1,Pro", "does not tell", "does not tell"),
        ("User,Account/ann,Data", None, "does not tell"),
        ("Email,Mail/ann@x.com,bo@x.com", "does not tell", "does not tell"),
        ("Email;Name/ann@x.com;Ann", "not separated by commas", "not separated by commas"),
        ("ann@x.com\tData", "not separated by commas", "not separated by commas"),
    ],
)
async def test_a_first_line_that_does_not_say_who_is_who_is_refused(
    lines: str, of_seats: str | None, of_teams: str | None, tmp_path: Path
) -> None:
    (tmp_path / "people.csv").write_text(lines.replace("/", "\n"))
    for read, says in ((read_seats, of_seats), (read_teams, of_teams)):
        if says is not None:
            with pytest.raises(SettingsError, match=f"line 1: .*{says}"):
                read(tmp_path / "people.csv")


@pytest.mark.parametrize(
    ("lines", "of_seats", "of_teams"),
    [
        # what others export
        ("First Name [Required],Email Address [Required],Org Unit/Ann,ann@x.com,Eng", "ann@x.com", "ann@x.com=Eng"),
        ("Display name,User principal name,Licenses/Ann Lee,ann@x.com,E5", "ann@x.com", "! column holds the teams"),
        ("Name,SamAccountName/Ann Lee,ann", "ann", "! column holds the teams"),
        ("SamAccountName,UserPrincipalName,Department/ann,ann@x.com,Data", "ann@x.com", "ann@x.com=Data"),
        ("dn,uid,mail/c,ann,ann@x.com/d,bo,", "ann@x.com bo", "! column holds the teams"),
        ("Name,Primary Email/Ann,ann@x.com", "ann@x.com", "! column holds the teams"),
        ("Full name,GitHub handle,Squad/Ann Lee,ann,Core", "ann", "ann=Core"),
        ("Email or username/ann/b@x.com", "ann b@x.com", "! line 2: it has a person, but no team"),
        ("Report Time,Login,Last Surface Used/2026,ann,ide/2026,bo,", "ann bo", "! column holds the teams"),
        ("Contact name,E-mail 1 - Value/Ann,ann@x.com", "ann@x.com", "ann@x.com=Ann"),
        # who the people are, by where e-mails are
        ("Nom,Courriel/Ann Lee,ann@x.com", "ann@x.com", "ann@x.com=Ann Lee"),
        ("Courriel,\u00c9quipe/ann@x.com,Core", "ann@x.com", "ann@x.com=Core"),
        ("Seat,Assigned to/1,ann@x.com", "ann@x.com", "! column holds the teams"),
        ("Seat,Kontakt/1,ann@x.com", "! holds the people, 1 or 2;", "! holds the people, 1 or 2;"),
        ("User,Team,Lead/ann,Data,boss@x.com", "! holds the people, 1 or 3;", "! holds the people, 1 or 3;"),
        ("Name,Squad,Product owner/ann,Data,boss@x.com", "! the people, 1 or 3;", "! the people, 1 or 3;"),
        ("Member,Employee,Approver/ann,Ann,boss@x.com", "! the people, 1, 2 or 3;", "! the people, 1, 2 or 3;"),
        ("User,Recovery email/ann,boss@x.com/bo,", "! the people, 1 or 2;", "! the people, 1 or 2;"),
        ("Employee,Team,Lead/ann@x.com,Data,boss@x.com", "ann@x.com", "ann@x.com=Data"),
        ("Member,Backup/ann,/bo,boss@x.com", "! holds the people, 1 or 2;", "! holds the people, 1 or 2;"),
        ("User,Notes/ann,/bo,bo@x.com", "ann bo", "! column holds the teams"),
        ("Worker,Employee/Ann,ann@x.com", "ann@x.com", "ann@x.com=Ann"),
        ("User,Comment,Team/ann,,Data/bo,bo@x.com,Data", "ann bo", "ann=Data bo=Data"),
        ("User,Status/ann,new/bo,bo@x.com", "ann bo", "ann=new bo=bo@x.com"),
        ("User,Team/ann,data@x.com", "ann", "ann=data@x.com"),
        ("Worker,Kontakt/Ann,ann@x.com/bot@x.com,bot@x.com", "! the people, 1 or 2;", "! the people, 1 or 2;"),
        ("Employee,Team/ann@x.com,Data", "ann@x.com", "ann@x.com=Data"),
        ("Name,Manager/Ann Lee,boss@x.com", "! column holds the people", "! column holds the people"),
        ("Username,Manager/ann,boss@x.com", "ann", "! column holds the teams"),
        ("User,Manager/ann@x.com,boss@x.com", "ann@x.com", "! column holds the teams"),
        ("Kostenstelle,Kontakt/K1,ann@x.com", "! column holds the people", "! column holds the people"),
        ("Ann Lee,ann@x.com/Bo,bo@x.com", "ann@x.com bo@x.com", "! column holds the teams"),
        ("Ann Lee,ann@x.com/bot@x.com,bot@x.com", "ann@x.com bot@x.com", "! column holds the teams"),
        ("Ann Lee,ann@x.com/Bo,", "! line 2: it has no e-mail", "! column holds the teams"),
        ("ann@x.com,boss@x.com/bo@x.com,", "ann@x.com bo@x.com", "! column holds the teams"),
        ("Employee,Kontakt/ann@x.com,boss@x.com", "ann@x.com", "! column holds the teams"),
        ("User,Team/ann,@data/bo,@web", "ann bo", "ann=@data bo=@web"),
        ("Data,ann@x.com/Core,bo", "! line 2: it has no e-mail", "! column holds the teams"),
        ("K1,ann@x.com,boss@x.com", "! holds the people, 2 or 3;", "! holds the people, 2 or 3;"),
        ("Initials,Email/A,ann", "! line 2: it has no e-mail", "! line 2: it has no e-mail"),
        ("Email (ask a@x.com),Team/ann@x.com,Data", "ann@x.com", "ann@x.com=Data"),
        # who the people are, by name
        ("Tribe,Username/Data,ann/Data,bo", "ann bo", "ann=Data bo=Data"),
        ("Cost Center,Login/K1,ann", "ann", "ann=K1"),
        ("Handle,Department/ann,Data", "ann", "ann=Data"),
        ("User,K\u00fcrzel/Ann,ann", "! column holds the people", "! column holds the people"),
        ("Seat,Assignee/1,ann", "! column holds the people", "! column holds the people"),
        ("Nr,Login/1,ann/2,bo", "ann bo", "ann=1 bo=2"),
        ("Report Time,Login/1,ann/Report Time,Login/2,bo", "ann bo", "ann=1 bo=2"),
        ("Login,User name,Name/ann,bo,Ann", "! column holds the people", "! column holds the people"),
        ("Initials,Team,Username/A,Data,ann/B,Data,bo", "ann bo", "ann=Data bo=Data"),
        ("team_slug,login/data,ann/team_slug,login/data,bo", "ann bo", "ann=data bo=data"),
        ("Initials,Team,Login/A,Team,ann", "ann", "ann=Team"),
        ("user1/user2", "! column holds the people", "! column holds the people"),
        ("Company,Login/Acme,ann", "ann", "ann=Acme"),
        # which column holds the teams
        ("Email,Name,Team/ann@x.com,Ann,Data", "ann@x.com", "ann@x.com=Data"),
        ("Email,Department,Team/ann@x.com,Web,Data", "ann@x.com", "ann@x.com=Data"),
        ("Email,Squad,Tribe/ann@x.com,Web,Data", "ann@x.com", "! column holds the teams"),
        ("Username,Email,Cohort/ann,ann@x.com,1", "ann@x.com", "! column holds the teams"),
        ("Email,First name/ann@x.com,Ann", "ann@x.com", "! column holds the teams"),
        (",Email/0,ann@x.com", "ann@x.com", "! column holds the teams"),
        ("Email,Team/ann@x.com,Core, Web", "ann@x.com", "! line 2: it has 3 cells for 2 columns; put quotes"),
        ("ann@x.com,Core,Web", "ann@x.com", "! line 1: it has 3 cells for 2 columns; put quotes"),
        # an e-mail that is spelled as a header is
        ("company@mail.id,Core/ann@mail.id,Web", "company@mail.id ann@mail.id", "company@mail.id=Core ann@mail.id=Web"),
        ("office@team.at,Core/ann@x.com,Web", "office@team.at ann@x.com", "office@team.at=Core ann@x.com=Web"),
        ("Email (name@company.com),Team/ann@x.com,Web", "ann@x.com", "ann@x.com=Web"),
        # lines that are nobody, or somebody all the same
        ("sep=,/Email,Team/ann@x.com,Data", "ann@x.com", "ann@x.com=Data"),
        ("Email/ann@x.com/EMAIL/bo@x.com", "ann@x.com bo@x.com", "! line 2: it has a person, but"),
        ("User,Team/ann,Data/USER,team/team,Mail", "ann team", "ann=Data team=Mail"),
        ("User,Team/ann,Data/User,Team/team,Mail", "ann team", "ann=Data team=Mail"),
        ("Email,Team/ann@x.com,Data/Total: 1,Data", "! line 3: it has no e-mail", "! line 3: it has no e-mail"),
        ("Email,Team/Ann <ann@x.com>,Data", "! line 2: its person is not one", "! line 2: its person is not one"),
        ("User,Team/mailto:ann@x.com,Data", "! line 2: its person is not one", "! line 2: its person is not one"),
        ("User/ann@x.com bo@x.com", "! line 2: its person is not one", "! line 2: its person is not one"),
        ("Email/'ann@x.com, bo@x.com'", "! line 2: its person is not one", "! line 2: its person is not one"),
        ("\"Name\", \"Email\", \"Team\"/ \"Lee, Ann\", \"ann@x.com\", \"Data\"", "ann@x.com", "ann@x.com=Data"),
        ("Name,Email,Team/O\"Lee,o`lee@x.com,Data", "! line 2: its person is", "! line 2: its person is"),
        ("Name,Email,Team/O\"Lee,lee+a=b@x.com,Data", "lee+a=b@x.com", "lee+a=b@x.com=Data"),
        ("Name,Team,\tEmail/Ann,Data,\t\"ann@x.com\"", "! line 2: its person is", "! line 2: its person is"),
        ("ann@x.com,Data/(bo@x.com),Data", "! line 2: its person is", "! line 2: its person is"),
        ("\u201cann@x.com\u201d,Data", "! line 1: its person is", "! line 1: its person is"),
        ("Ann Lee,(ann@x.com)/Bo,(bo@x.com)", "! line 1: its person is", "! column holds the teams"),
        ("=\"ann@x.com\",Data", "! line 1: its person is", "! line 1: its person is"),
        ("User,Team/[ann@x.com],Data", "! line 2: its person is", "! line 2: its person is"),
        ("User,Team/ann@x.com.,Data", "! line 2: its person is", "! line 2: its person is"),
        ("User,Team/`ann`,Data", "! line 2: it needs the", "! line 2: it needs the"),
        ("User,Team/an\"n,Data", "! line 2: it needs the", "! line 2: it needs the"),
        ("User,Team/\u201eann\u201c,Data", "! line 2: it needs the", "! line 2: it needs the"),
        ("User,Team/bot[bot],Data/O\u2019Lee,Data", "bot[bot] O\u2019Lee", "bot[bot]=Data O\u2019Lee=Data"),
        ("Ann <ann@x.com>/Bo <bo@x.com>", "! line 1: its person is not one", "! line 1: its person is not one"),
        ("User,Team/<ann>,Data", "! line 2: it needs the", "! line 2: it needs the"),
        ("User/ann/User", "ann", "! line 2: it has a person, but no team"),
        ("User/ann/user", "! line 3: it may be the header", "! line 2: it has a person, but no team"),
        ("User,Team/ann,Data/# left,Data", "! line 3: it needs the", "! line 3: it needs the"),
        ("ann@x.com,Data/#bo,Data", "! line 2: it has no e-mail", "! line 2: it has no e-mail"),
        ("User,Team/ann,Data/Total: 1,Data", "! line 3: it needs the", "! line 3: it needs the"),
        ("Email,Username,Team/,ann,Data", "ann", "ann=Data"),
        ("Name,Email,Team/,ann@x.com,Data", "ann@x.com", "ann@x.com=Data"),
        ("Email,Team,,/ann@x.com,Data,", "ann@x.com", "ann@x.com=Data"),
        ("ann@x.com,Data,/bo@x.com,Core,,", "ann@x.com bo@x.com", "ann@x.com=Data bo@x.com=Core"),
        ("User,Team/wei\u00df,Data/weiss,Core", "wei\u00df weiss", "wei\u00df=Data weiss=Core"),
        # signs that nobody sees, and other separators
        ("\u200bEmail,Team/\u200bann@x.com,Data\u2060", "ann@x.com", "ann@x.com=Data"),
        ("User,Team/an\u200bn,Data", "! line 2: it needs the", "! line 2: it needs the"),
        ("Ann <ann@x.com>,Data/bo,Data", "! line 1: its person is", "! line 1: its person is"),
        ("Email,Team/ann@x.com;Ann,Data", "! line 2: its columns are not", "! line 2: its columns are not"),
        ("'Email';'Team'/'ann@x.com';'Data'", "! line 1: its columns are not", "! line 1: its columns are not"),
        ("sep=;/'Email' ;'Team'", "! line 2: its columns are not", "! line 2: its columns are not"),
        ("Email;Team/'ann@x.com'\t'Data'", "! line 2: its columns are not", "! line 2: its columns are not"),
        ("Email,Team/'ann@x.com' ,Data", "! line 2: behind a cell in", "! line 2: behind a cell in"),
        ("Email,Team/ann@x.com,'A; 'B''", "! line 2: behind a cell in", "! line 2: behind a cell in"),
        ("Email,Team/ann@x.com,'A; B", "! line 2: its quotes do not", "! line 2: its quotes do not"),
        ("ann@x.com|Ann,Data", "! line 1: its columns are not", "! line 1: its columns are not"),
        ("sep=;/Email;Team/ann@x.com;Data", "! line 2: its columns are not", "! line 2: its columns are not"),
    ],
)  # fmt: skip
async def test_lists_are_read_as_they_are_meant_or_refused(
    lines: str, of_seats: str, of_teams: str, tmp_path: Path
) -> None:
    path = tmp_path / "people.csv"
    path.write_text(lines.replace("/", "\n").replace("'", '"'), encoding="utf-8")

    def read() -> Iterator[str]:
        readers: list[Callable[[], Iterable[str]]] = [
            lambda: read_seats(path),
            lambda: map("=".join, read_teams(path).of.items()),
        ]
        for listed in readers:
            try:
                yield " ".join(listed())
            except SettingsError as error:
                yield f"! {error}"

    for said, expected in zip(read(), (of_seats, of_teams), strict=True):
        if expected.startswith("!"):
            assert said.startswith("! SRC_ANALYTICS_")
            assert expected[2:] in said
            assert not re.search("ann|boss|bo@|K1|Total", said)
        else:
            assert said == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("Email\nann@x.com\n".encode("utf-16"), "is not UTF-8: save it as CSV UTF-8."),
        ("Email\nann@x.com\n".encode("utf-16-le"), "is not UTF-8: save it as CSV UTF-8."),
        ("Name,Email\nJ\u00fcrg,ann@x.com\n".encode("cp1252"), "is not UTF-8: save it as CSV UTF-8."),
        (b"Email,Note\nann@x.com," + b"x" * 2_100_000, ", line 2: one of its cells is too long."),
    ],
    ids=["UTF-16", "UTF-16 without a mark", "Windows", "long"],
)
async def test_a_list_that_is_no_csv_in_utf_8_says_so(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "seats.csv").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_seats(tmp_path / "seats.csv")
    assert str(caught.value) == f"SRC_ANALYTICS_SEATS_FILE {says}".replace(" ,", ",")


@pytest.mark.parametrize("cell", ["(" * 30_000, "x" + " " * 30_000 + "y"])
async def test_a_long_cell_is_looked_at_once(cell: str, tmp_path: Path) -> None:
    (tmp_path / "seats.csv").write_text(f"Email,{cell}\nann@x.com,1\n")
    begun = time.process_time()
    assert read_seats(tmp_path / "seats.csv") == ("ann@x.com",)
    assert time.process_time() - begun < 3  # a look at the rest from every sign on takes thrice that


async def test_people_files_may_have_headers_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "seats.csv").write_text("\ufeffuser\nA@example.com\n\nb\n")
    (tmp_path / "teams.csv").write_text("User,Team\nA@example.com,Data\n b , Data \n")
    assert read_seats(tmp_path / "seats.csv") == ("A@example.com", "b")
    assert read_teams(tmp_path / "teams.csv").of == {"A@example.com": "Data", "b": "Data"}
    for twice in ("a\nA\n", "\u00e9\nE\u0301\n", "ΝΙΚΟΣ\nνικος\n", "\u0130x\nix\n"):
        (tmp_path / "seats.csv").write_text(f"user\n{twice}")
        with pytest.raises(SettingsError, match="line 3"):
            read_seats(tmp_path / "seats.csv")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_seats(tmp_path / "nothing.csv")


async def told(
    make_settings: Make, registry: str, status: str = "200 OK", days: int = 30, **more: object
) -> dict[str, object]:
    """What is said of two people, one of them lapsed, when upstream answers with this registry."""

    async def answer(exchange: Exchange) -> None:
        if "user-registry" in exchange.target:
            await exchange.answer(registry.encode(), status)
        elif "granularity=by_user_month" in exchange.target:
            await exchange.answer(b"Instance user ID,Timestamp Month\n1,2026-01\n2,2024-02\n")
        else:
            await exchange.answer(f"Instance user ID,Timestamp Date\n1,{TODAY - timedelta(days=9)}\n".encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **more)) as client:
        found: dict[str, object] = await call(client, "list_inactive_users", days=days)
    return found


@pytest.mark.parametrize(
    ("registry", "status"), [("oops", "500 Internal Server Error"), ("Name,Bot\n1,true\n", "200 OK")]
)
async def test_a_registry_that_fails_or_says_something_else_is_no_reason_to_fail(
    make_settings: Make, registry: str, status: str
) -> None:
    found = await told(make_settings, registry, status)
    assert found["rows"] == [["2", "2", "lapsed", "2024-02"]]
    assert "does not tell which users are service accounts" in str(found["notes"])


async def test_a_registry_that_never_answers_is_not_waited_for(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inactive, "_REGISTRY_WITHIN", 0.1)

    async def answer(exchange: Exchange) -> None:
        if "user-registry" in exchange.target:
            await exchange.stream.receive()
        else:
            await exchange.answer(f"Instance user ID,Timestamp Date\n1,{TODAY}\n2,2026-01-01\n".encode())

    async with (
        scripted_upstream(answer) as fake,
        connected(make_settings(fake.url, read_timeout=600)) as client,
    ):
        with anyio.fail_after(20):
            found = await call(client, "list_inactive_users", days=7)
    assert [row[0] for row in found["rows"]] == ["2"]
    assert "does not tell which users are service accounts" in str(found["notes"])


async def test_where_nobody_is_a_service_account_none_is_mentioned(make_settings: Make) -> None:
    found = await told(make_settings, "Instance user ID,Service Account\n1,false\n2,false\n")
    assert found["inactive"] == 1
    assert "service account" not in str(found["notes"])


async def test_the_lapsed_without_a_seat_free_none(make_settings: Make, tmp_path: Path) -> None:
    seats = tmp_path / "seats.csv"
    seats.write_text("user id\n1\n")
    found = await told(make_settings, "", "404 Not Found", seats_file=seats)
    assert (found["inactive"], found["seats_freed"]) == (1, 0)
    assert "1 of the lapsed is not on the seat list." in str(found["notes"])


@pytest.mark.parametrize("masked", ["names", "pseudonyms"])
@pytest.mark.parametrize("listed", ["", "\n", "Email\n"])
@pytest.mark.long
async def test_a_seat_list_of_nobody_is_said_to_be_empty(
    make_settings: Make, tmp_path: Path, listed: str, masked: str
) -> None:
    seats = tmp_path / "seats.csv"
    seats.write_text(listed)
    rows = [("1", "ann@example.com", TODAY), ("2", "bo@example.com", TODAY - timedelta(days=200))]
    settings = {"seats_file": seats, "identities": masked}
    async with scripted_upstream(reports(rows)) as fake, connected(make_settings(fake.url, **settings)) as client:
        result = await client.call_tool("list_inactive_users", {})
    found = result.structured_content
    assert found is not None
    assert (found["inactive"], found["never_seen"], found["seats_freed"]) == (1, None, 1)
    assert [note for note in found["notes"] if "seat" in note] == ["The seat list is empty."]
    assert "That could free up to 1 seat." in text(result)


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 seat of the seat list was never seen"), (2, "2 seats of the seat list were never seen")]
)
async def test_one_seat_is_told_of_as_one(make_settings: Make, tmp_path: Path, count: int, said: str) -> None:
    seats = tmp_path / "seats.csv"
    seats.write_text("ann@example.com\n" + "".join(f"never{n}@example.com\n" for n in range(count)))
    old = TODAY - timedelta(days=200)
    rows = [("0", "ann@example.com", TODAY), *((f"{n}", f"gone{n}@example.com", old) for n in range(1, count + 1))]
    async with (
        scripted_upstream(reports(rows)) as fake,
        connected(make_settings(fake.url, seats_file=seats)) as client,
    ):
        result = await client.call_tool("list_inactive_users", {})
    have, are = ("has", "is") if count == 1 else ("have", "are")
    assert f"; {said}. That" in text(result)
    assert f"{count} of the {count + 1} people ever seen {have} no seat by name: " in text(result)
    assert f"{count} of the lapsed {are} not on the seat list." in text(result)


async def test_a_seat_of_an_active_service_account_is_not_free(make_settings: Make, tmp_path: Path) -> None:
    seats = tmp_path / "seats.csv"
    seats.write_text("user id\n1\n2\n3\n")
    found = await told(make_settings, "Instance user ID,Service Account\n1,true\n", seats_file=seats)
    assert (found["inactive"], found["never_seen"], found["seats_freed"]) == (1, 1, 2)
    assert found["rows"] == [["2", "2", "lapsed", "2024-02"], ["3", None, "never seen", None]]


async def test_the_last_days_say_which_of_them_have_data(make_settings: Make) -> None:
    last = TODAY - timedelta(days=9)
    found = await told(make_settings, "", "404 Not Found")
    assert {f"Today, {TODAY} (UTC), is not over.", f"Days with data: 1 of 30, {last} to {last}."} <= set(found["notes"])  # type: ignore[call-overload]
    assert f"Nothing is recorded after {last};" in str(found["notes"])


async def test_where_nobody_was_active_nobody_is_called_inactive(make_settings: Make) -> None:
    last = TODAY - timedelta(days=200)
    rows = [("1", "ann@example.com", last)]
    async with scripted_upstream(reports(rows)) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "list_inactive_users", days=7)
        ends = await call(client, "query_usage", metrics=["last_active_date"], period="all_time")
    assert error["code"] == "unsupported"
    assert "upstream's data may end before" in error["message"]
    assert "query_usage with last_active_date and period all_time says where" in error["next_step"]
    assert ends["rows"] == [[str(last)]]


async def test_a_seat_under_an_older_or_newer_email_is_used(make_settings: Make, tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        month = "granularity=by_user_month" in exchange.target
        rows = [f"1,{name}@example.com,{TODAY:%Y-%m}" if month else f"1,{name}@example.com,{TODAY}" for name in "ab"]
        await exchange.answer("\n".join([f"User ID,Email,{'Month' if month else 'Date'}", *rows, ""]).encode())

    seats = tmp_path / "seats.csv"
    seats.write_text("A@example.com\nb@example.com\n")
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, seats_file=seats)) as client:
        found = await call(client, "list_inactive_users")
    assert (found["seen"], found["never_seen"], found["seats_freed"]) == (1, 0, 0)


async def test_days_after_today_are_no_days_with_data_of_the_last_ones(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        month = "granularity=by_user_month" in exchange.target
        rows = [f"1,{TODAY:%Y-%m}"] if month else [f"1,{TODAY + timedelta(days=n)}" for n in (-1, 0, 1, 2)]
        await exchange.answer("\n".join([f"User ID,{'Month' if month else 'Date'}", *rows, ""]).encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        found = await call(client, "list_inactive_users", days=3)
    assert f"Days with data: 2 of 3, {TODAY - timedelta(days=1)} to {TODAY}." in found["notes"]


Rows = list[tuple[str, str, date]]  # user id, e-mail, day


def reports(rows: Rows) -> Callable[[Exchange], Awaitable[None]]:
    """An upstream of these rows, which may change, by day or month and cut to the days asked for."""

    async def answer(exchange: Exchange) -> None:
        asked = {key: values[0] for key, values in parse_qs(urlsplit(exchange.target).query).items()}
        if "granularity" not in asked:
            await exchange.answer(b"", "404 Not Found")
            return
        first, last = asked.get("startDate", "0001-01-01"), asked.get("endDate", "9999-12-31")
        length = 7 if asked["granularity"] == "by_user_month" else 10
        there = {(user, email, str(day)[:length]) for user, email, day in rows if first <= str(day) <= last}
        head = f"User ID,Email,{'Month' if length == 7 else 'Date'}"
        await exchange.answer("\n".join([head, *(",".join(row) for row in sorted(there)), ""]).encode())

    return answer


async def test_a_seat_of_several_ids_is_freed_once_and_only_when_all_lapsed(
    make_settings: Make, tmp_path: Path
) -> None:
    seats = tmp_path / "seats.csv"
    seats.write_text("ann@example.com\nbo@example.com\nnever@example.com\n")
    old = TODAY - timedelta(days=200)
    rows = [("1", "ann@example.com", old), ("2", "ann@example.com", TODAY)]
    rows += [(user, "bo@example.com", old) for user in "345"]
    async with (
        scripted_upstream(reports(rows)) as fake,
        connected(make_settings(fake.url, seats_file=seats)) as client,
    ):
        result = await client.call_tool("list_inactive_users", {})
    found = result.structured_content
    assert found is not None
    assert (found["inactive"], found["seen"], found["never_seen"], found["seats_freed"]) == (4, 5, 1, 2)
    assert "That frees 2 seats." in text(result)
    assert "1 of the lapsed holds a seat that is in use under another user id: not freed." in found["notes"]
    assert "Some of the lapsed are user ids of the same seat, which is freed once." in found["notes"]


def many(tmp_path: Path, lapsed: int, never: int) -> tuple[Rows, Path]:
    """Somebody who is active, so many who lapsed, and a list of their seats and of so many never seen."""
    rows = [("0", "ann@example.com", TODAY)]
    rows += [(f"{n}", f"gone{n}@example.com", TODAY - timedelta(days=200)) for n in range(1, lapsed + 1)]
    seats = tmp_path / "seats.csv"
    seats.write_text("\n".join([*(email for _, email, _ in rows), *(f"never{n}@example.com" for n in range(never))]))
    return rows, seats


@pytest.mark.parametrize(("lapsed", "never", "shown"), [(30, 12, (10, 10)), (30, 3, (17, 3)), (4, 30, (4, 16))])
@pytest.mark.long
async def test_neither_the_lapsed_nor_seats_never_seen_crowd_out_the_other(
    make_settings: Make, tmp_path: Path, lapsed: int, never: int, shown: tuple[int, int]
) -> None:
    rows, seats = many(tmp_path, lapsed, never)
    async with (
        scripted_upstream(reports(rows)) as fake,
        connected(make_settings(fake.url, seats_file=seats)) as client,
    ):
        result = await client.call_tool("list_inactive_users", {"limit": 20})
    found = result.structured_content
    assert found is not None
    assert [row[2] for row in found["rows"]] == ["lapsed"] * shown[0] + ["never seen"] * shown[1]
    assert (found["inactive"], found["never_seen"], found["row_count"]) == (lapsed, never, lapsed + never)
    assert f"Shown: {shown[0]} of {lapsed} lapsed, {shown[1]} of {never} never seen;" in text(result)


async def test_the_prompt_for_unused_seats_asks_for_all_that_an_answer_may_hold(
    make_settings: Make, tmp_path: Path
) -> None:
    rows, seats = many(tmp_path, 210, 100)
    async with (
        scripted_upstream(reports(rows)) as fake,
        connected(make_settings(fake.url, seats_file=seats)) as client,
    ):
        told = (await client.get_prompt("unused_seats", {})).model_dump_json()
        asked = {name: int(number) for name, number in re.findall(r"(days|limit)=(\d+)", told)}
        found = await call(client, "list_inactive_users", **asked)
    assert asked["days"] == 60
    assert (len(found["rows"]), found["truncated"]) == (310, False)


@pytest.mark.parametrize("identities", ["names", "pseudonyms"])
@pytest.mark.long
async def test_people_files_name_people_in_any_spelling(make_settings: Make, tmp_path: Path, identities: str) -> None:
    seats, teams = tmp_path / "seats.csv", tmp_path / "teams.csv"
    seats.write_text("user\njos\u00e9@example.com\nΝΙΚΟΣ\nnobody\n")
    teams.write_text("user,team\nJOS\u00c9@example.com,Core\nνικοσ,Core\n")
    rows = [("1", "JOSE\u0301@example.com", TODAY - timedelta(days=1)), ("2", "Νικος", TODAY - timedelta(days=1))]
    settings = {"seats_file": seats, "teams_file": teams, "identities": identities}
    async with scripted_upstream(reports(rows)) as fake, connected(make_settings(fake.url, **settings)) as client:
        found = await call(client, "list_inactive_users")
        asked = {"metrics": ["active_users"], "group_by": ["team"]}
        by_team = await call(client, "query_usage", **asked)
    assert (found["never_seen"], found["seats_freed"]) == (1, 1)
    assert by_team["rows"] == [["Core", 2]]


@pytest.mark.parametrize("days", [1, 62])
async def test_who_came_back_since_an_older_report_is_not_lapsed(make_settings: Make, days: int) -> None:
    """The months tell it where all of this one is asked about; else the days are downloaded again."""
    rows = [("1", "ann@example.com", TODAY - timedelta(days=200)), ("2", "bo@example.com", TODAY)]
    asked = {"start_date": str(TODAY - timedelta(days=days - 1)), "end_date": str(TODAY)}
    async with scripted_upstream(reports(rows)) as fake, connected(make_settings(fake.url)) as client:
        await call(client, "export_csv", granularity="by_user_day", **asked)
        rows.append(("1", "ann@example.com", TODAY))
        found = await call(client, "list_inactive_users", days=days)
        again = await call(client, "list_inactive_users", days=days)
    assert (found["inactive"], found["seen"]) == (0, 2)
    assert again == found
    by_day = [e for e in fake.exchanges if "granularity=by_user_day" in e.target]
    assert len(by_day) == (1 if days == 62 or TODAY.day == 1 else 2)


async def test_who_came_since_an_older_report_has_a_seat(make_settings: Make, tmp_path: Path) -> None:
    seats = tmp_path / "seats.csv"
    seats.write_text("bo@example.com\ncy@example.com\n")
    rows = [("2", "bo@example.com", TODAY)]
    async with (
        scripted_upstream(reports(rows)) as fake,
        connected(make_settings(fake.url, seats_file=seats)) as client,
    ):
        await call(client, "export_csv", granularity="by_user_month", end_date=str(TODAY))
        rows.append(("3", "cy@example.com", TODAY))
        found = await call(client, "list_inactive_users")
    assert (found["seen"], found["never_seen"], found["seats_freed"]) == (2, 0, 0)


@pytest.mark.parametrize("where", ["by_user_day", "by_user_month"])
async def test_what_the_reports_warn_of_is_said_of_who_lapsed(make_settings: Make, tmp_path: Path, where: str) -> None:
    """Bo has a row whose day cannot be read in one report or the other; what has another day says nothing of him."""
    old, later = TODAY - timedelta(days=200), TODAY + timedelta(days=40)

    async def answer(exchange: Exchange) -> None:
        if "user-registry" in exchange.target:
            await exchange.answer(status="404 Not Found")
            return
        month = "by_user_month" in exchange.target
        rows: list[tuple[str, object]] = [("1", TODAY), ("1", later), *([("2", old)] if month else [])]
        rows += [("2", "someday"), ("3", "")] if where in exchange.target else []
        lines = [f"{user},{user}@example.com,{str(day)[:7] if month else day}" for user, day in rows]
        head = f"User ID,Email,{'Month' if month else 'Date'}"
        await exchange.answer("\n".join([head, *lines, ""]).encode())

    (tmp_path / "seats.csv").write_text("".join(f"{user}@example.com\n" for user in "123"))
    settings = {"seats_file": tmp_path / "seats.csv"}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        result = await client.call_tool("list_inactive_users", {})
    found = result.structured_content
    assert found is not None
    months = where == "by_user_month"
    lapsed = [(name, status, last) for name, _, status, last in found["rows"]]
    assert lapsed == [("3@example.com", "lapsed", ""), ("2@example.com", "lapsed", f"{old:%Y-%m}")]
    assert "could free up to 2 seats" in text(result)
    assert "Some rows of 2 of the lapsed have no day that can be read: they may be active." in found["notes"]
    assert "Last seen is blank where no row has a month that can be read." in found["notes"]
    assert "What upstream dates after today is left out." in found["notes"]
    whole = f"Usage by user and month, until {TODAY}" if months else f"Usage by user and day, {found['start_date']} to"
    assert [note.startswith(whole) for note in found["notes"] if "no day that can be read; they" in note] == [True]
    assert [note for note in found["notes"] if f"1 cell of timestamp_{'month' if months else 'date'} is not" in note]


async def test_who_came_since_has_a_seat_though_a_finer_report_is_nameless(make_settings: Make, tmp_path: Path) -> None:
    async def answer(exchange: Exchange) -> None:
        if "by_user_day_client_language" in exchange.target:
            await exchange.answer(f"User ID,Date\n2,{TODAY}\n3,{TODAY}\n".encode())
        else:
            await reports(rows)(exchange)

    (tmp_path / "seats.csv").write_text("bo@example.com\ncy@example.com\n")
    rows = [("2", "bo@example.com", TODAY)]
    settings = {"seats_file": tmp_path / "seats.csv"}
    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, **settings)) as client:
        await call(client, "export_csv", granularity="by_user_month", end_date=str(TODAY))
        rows.append(("3", "cy@example.com", TODAY))
        await call(client, "export_csv")
        found = await call(client, "list_inactive_users")
    assert (found["seen"], found["never_seen"], found["seats_freed"]) == (2, 0, 0)


@pytest.mark.parametrize(("listed", "said"), [("2,true\nx,true", "1 service account left out."), ("x,true", "")])
async def test_service_accounts_that_did_nothing_are_not_left_out(make_settings: Make, listed: str, said: str) -> None:
    found = await told(make_settings, f"Instance user ID,Service Account\n{listed}\n,true\n")
    notes = found["notes"]
    assert isinstance(notes, list)
    assert [note for note in notes if "left out" in note] == ([said] if said else [])


@pytest.mark.long
async def test_days_with_data_are_the_same_for_both_tools(make_settings: Make) -> None:
    first, last = TODAY - timedelta(days=4), TODAY - timedelta(days=1)
    rows = [("1", "ann@example.com", first), ("", "ghost@example.com", last)]
    async with scripted_upstream(reports(rows)) as fake, connected(make_settings(fake.url)) as client:
        days = {"start_date": str(first), "end_date": str(TODAY)}
        usage = await call(client, "query_usage", metrics=["active_users"], **days)
        found = await call(client, "list_inactive_users", days=5)
    said = f"Days with data: 2 of 5, {first} to {last}."
    assert said in usage["notes"]
    assert said in found["notes"]
    assert "Nothing is recorded after" not in str(found["notes"])


async def test_where_nothing_is_recorded_that_is_said(make_settings: Make) -> None:
    async def nothing(exchange: Exchange) -> None:
        if "user-registry" in exchange.target:
            await exchange.answer(status="404 Not Found")
            return
        when = "Timestamp Month" if "by_user_month" in exchange.target else "Timestamp Date"
        await exchange.answer(f"Instance user ID,{when},Searches\n".encode())

    async with scripted_upstream(nothing) as fake, connected(make_settings(fake.url)) as client:
        found = await call(client, "list_inactive_users")
    assert (found["seen"], found["rows"]) == (0, [])
    assert "No activity is recorded in these days." in found["notes"]
    assert not [note for note in found["notes"] if "Days with data" in note]
