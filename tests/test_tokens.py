"""The life of access tokens: stored and not shown, posted once, revoked only after a yes, verified by the list."""

import fcntl
import json
import logging
import resource
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import anyio
import anyio.lowlevel
import anyio.to_thread
import keyring
import pytest
from keyring.backends import fail
from keyring.backends.chainer import ChainerBackend
from mcp import Client, MCPError
from mcp_types import ElicitResult, ErrorData, InputRequiredResult
from pydantic import SecretStr

from sourcegraph_analytics_mcp.access import forgetting, secret_store
from sourcegraph_analytics_mcp.access.journal import Journal
from sourcegraph_analytics_mcp.demo.embedded import demo_settings, embedded_upstream
from sourcegraph_analytics_mcp.demo.upstream import DEMO_COOKIE, DEMO_TOKEN
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface import call as call_module
from sourcegraph_analytics_mcp.surface.callers import caller, own
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from sourcegraph_analytics_mcp.upstream.models import NewToken
from support.client import REVISIONS, answering, call, calling, connected, refused, text
from support.commands import finished
from support.keyring_backend import MemoryKeyring
from support.upstreams import Exchange, Served, scripted_upstream

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
ACTIVE = "00000000-0000-0000-0000-000000000002"
EXPIRED = "00000000-0000-0000-0000-000000000001"
YES: dict[str, Any] = {"confirm": True}


def secret_of(upstream: Served) -> str:
    return upstream.desk.tokens[-1].secret


def everything_written(home: Path) -> dict[str, str]:
    return {str(p.relative_to(home)): p.read_text(errors="replace") for p in home.rglob("*") if p.is_file()}


async def told(client: Client) -> list[str]:
    """What list_tokens says beside the tokens and whose use of them is not known."""
    notes: list[str] = (await call(client, "list_tokens"))["notes"]
    return [note for note in notes if not note.startswith("Which token exports use is not known")]


async def test_a_new_token_is_stored_used_and_never_shown(
    make_settings: Make, upstream: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(upstream.url, access_token="")
    async with connected(settings) as client:
        missing = await refused(client, "export_csv", granularity="by_user")
        result = await client.call_tool("create_token", {"display_name": "night job"})
        await call(client, "export_csv", granularity="by_user")
        listed = await call(client, "list_tokens")
    async with connected(settings) as client:  # after a restart
        await call(client, "export_csv", granularity="by_user", refresh=True)

    secret = secret_of(upstream)
    answer = result.structured_content
    assert missing["code"] == "auth_missing"
    assert answer is not None
    assert answer["secret"] is None
    where = f"a file only this server's user can read, in {settings.home / 'secrets'} (this system has no keyring)"
    assert answer["secret_stored_in"] == where
    assert answer["token"]["display_name"] == "night job"
    assert answer["token"]["expires_at"] is not None
    assert upstream.ledger[-1].headers["authorization"] == f"Bearer {secret}"
    assert [t["in_use"] for t in listed["tokens"]][:2] == [True, False]
    assert secret not in result.model_dump_json()
    output = capfd.readouterr()
    assert secret[:24] not in output.out + output.err
    holders = [name for name, content in everything_written(settings.home).items() if secret[8:20] in content]
    assert len(holders) == 1
    assert holders[0].startswith("secrets/")


async def test_nothing_of_a_secret_gets_into_a_repository(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url, instance="")
    async with connected(settings) as client:
        await call(client, "create_token")
    assert (settings.home / "secrets").is_dir()
    assert (settings.home / ".gitignore").read_text() == "*\n"


async def test_the_operator_can_have_the_secret_shown(make_settings: Make, upstream: Served) -> None:
    async with connected(make_settings(upstream.url, secret_delivery="reveal")) as client:
        answer = await call(client, "create_token", expires_in_days=7)
    assert answer["secret"] == secret_of(upstream)


async def test_the_check_says_when_the_token_expires_and_warns_in_time(make_settings: Make, upstream: Served) -> None:
    for days, warned in ((30, False), (5, True)):
        async with connected(make_settings(upstream.url, access_token="")) as client:
            created = await call(client, "create_token", display_name=f"for {days} days", expires_in_days=days)
            checks = (await call(client, "check_connection"))["checks"]
        detail = next(check["detail"] for check in checks if check["name"] == "access token")
        assert f"expires {created['token']['expires_at'][:10]}" in detail
        assert ("make another with create_token now" in detail) is warned


async def test_a_token_that_stops_working_is_said_to_have_worked(make_settings: Make, upstream: Served) -> None:
    worked = f"It worked before, last at {datetime.now(UTC):%Y-%m-%d }"
    async with connected(make_settings(upstream.url, access_token="")) as client:
        created = await call(client, "create_token", expires_in_days=20)
        until = created["token"]["expires_at"][:16].replace("T", " ")
        upstream.desk.revoke(created["token"]["id"])
        for tool in ("export_csv", "get_credits"):
            error = await refused(client, tool)
            assert error["code"] == "auth_rejected"
            assert worked in error["message"]
            assert f"It was to work until {until} UTC." in error["message"]
    async with connected(make_settings(upstream.url)) as client:
        await call(client, "export_csv", granularity="by_user")
        upstream.desk.revoke(next(token.id for token in upstream.desk.tokens if token.secret == DEMO_TOKEN))
        error = await refused(client, "export_csv", granularity="by_user_month")
        assert worked in error["message"]
        assert "was to work" not in error["message"]
    async with connected(make_settings(upstream.url, access_token="never-worked")) as client:
        assert (await refused(client, "get_credits"))["message"].endswith("it is wrong, expired or revoked.")


async def test_read_only_no_advice_names_a_tool_that_is_left_out(make_settings: Make, upstream: Served) -> None:
    bare = {"access_token": "", "cas_cookie": ""}
    async with connected(make_settings(upstream.url, **bare, read_only=1)) as client:
        none = await refused(client, "get_credits")
        assert "`login` keeps an access token, not the cookie" in (await refused(client, "list_tokens"))["next_step"]
    async with connected(make_settings(upstream.url, access_token="")) as client:
        await call(client, "create_token", expires_in_days=2)
    async with connected(make_settings(upstream.url, access_token="", read_only=1)) as client:
        soon = (await call(client, "check_connection"))["checks"][2]["detail"]
        upstream.desk.revoke(upstream.desk.tokens[-1].id)
        refusal = await refused(client, "get_credits")
    for said in (none["next_step"], refusal["next_step"], soon):
        assert "create_token" not in said
        assert "login`" in said


async def test_no_token_is_to_be_made_here_where_the_one_that_the_operator_set_stays_in_use(
    make_settings: Make, upstream: Served, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("never-worked")
    file.chmod(0o600)
    for given, step in (
        ({"access_token": "never-worked"}, "set SRC_ANALYTICS_ACCESS_TOKEN to it and restart"),
        ({"access_token": "", "access_token_file": file}, "into the file of SRC_ANALYTICS_ACCESS_TOKEN_FILE"),
    ):
        async with connected(make_settings(upstream.url, **given)) as client:
            error = await refused(client, "get_credits")
        assert error["code"] == "auth_rejected"
        assert step in error["next_step"]
        assert "create_token" not in error["next_step"]
    async with connected(make_settings(upstream.url, access_token="")) as client:
        made = (await call(client, "create_token", expires_in_days=5))["token"]["id"]
        described = {tool.name: tool.description or "" for tool in (await client.list_tools()).tools}["create_token"]
        upstream.desk.revoke(made)
        assert "create_token" in (await refused(client, "get_credits"))["next_step"]
    assert "unless the operator set SRC_ANALYTICS_ACCESS_TOKEN" in described


async def test_the_check_does_not_offer_to_make_a_token_that_would_not_be_used(
    make_settings: Make, upstream: Served
) -> None:
    async with connected(make_settings(upstream.url, access_token="")) as client:
        await call(client, "create_token", expires_in_days=5)
    async with connected(make_settings(upstream.url, access_token=secret_of(upstream))) as client:
        checks = (await call(client, "check_connection"))["checks"]
    detail = next(check["detail"] for check in checks if check["name"] == "access token")
    assert "make another for SRC_ANALYTICS_ACCESS_TOKEN now" in detail


async def test_a_token_that_has_expired_is_said_to_have(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url, access_token="")
    async with connected(settings) as client:
        created = await call(client, "create_token", expires_in_days=20)
    index = settings.home / "tokens.json"
    end, gone = json.loads(index.read_text())[0]["expires_at"], "2026-01-02T03:04:00Z"
    index.write_text(index.read_text().replace(end, gone))
    async with connected(settings) as client:
        error = await refused(client, "export_csv")
    assert error["code"] == "auth_missing"
    assert "the one made here expired at 2026-01-02 03:04 UTC" in error["message"]
    upstream.desk.revoke(created["token"]["id"])
    async with connected(make_settings(upstream.url, access_token=secret_of(upstream))) as client:
        error = await refused(client, "export_csv")
    assert error["code"] == "auth_rejected"
    assert error["message"].endswith("It expired at 2026-01-02 03:04 UTC.")


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("query_usage", {"metrics": ["searches"]}),
        ("export_csv", {}),
        ("get_credits", {}),
        ("check_connection", {}),
    ],
)
@pytest.mark.long
async def test_a_token_that_is_rotated_elsewhere_is_used_by_a_server_that_runs(
    tool: str, arguments: dict[str, Any], make_settings: Make, upstream: Served
) -> None:
    settings = make_settings(upstream.url, access_token="")
    async with connected(settings) as terminal, connected(settings) as client:
        old = await call(terminal, "create_token", display_name="old")
        await call(client, "get_credits")
        await call(terminal, "create_token", display_name="new")
        await call(terminal, "revoke_token", token_id=old["token"]["id"], confirm=True)
        before = len(upstream.sent("GET", "/api/credits"))
        answer = await call(client, tool, **arguments)
        assert answer.get("ok", True)
        await call(client, "get_credits")
        assert len(upstream.sent("GET", "/api/credits")) - before <= 3  # the refused one is asked with no more
        await call(
            terminal, "revoke_token", token_id=(await call(client, "list_tokens"))["tokens"][0]["id"], confirm=True
        )
        error = await refused(client, "get_credits")
    assert error["code"] == "auth_rejected"
    assert "It worked before" in error["message"]


async def test_a_refused_token_gives_way_to_another_that_is_kept(make_settings: Make, upstream: Served) -> None:
    """The newest first, until upstream refuses it; and when all were refused, each is tried again."""

    async def used() -> str:
        await call(client, "get_credits")
        return upstream.sent("GET", "/api/credits")[-1].headers["authorization"].removeprefix("Bearer ")

    settings = make_settings(upstream.url, access_token="")
    async with connected(settings) as client:
        for name in ("oldest", "older", "newest"):
            await call(client, "create_token", display_name=name)
        oldest, older, newest = upstream.desk.tokens[-3:]
        assert await used() == newest.secret
        for revoked in (newest, older):
            upstream.desk.revoke(revoked.id)
        assert await used() == oldest.secret
        before = len(upstream.ledger)
        assert await used() == oldest.secret
        assert len(upstream.ledger) - before == 1
        upstream.desk.revoke(oldest.id)
        error = await refused(client, "get_credits")
        assert error["code"] == "auth_rejected"
        older.revoked = False  # as where upstream had been at fault
        assert await used() == older.secret


@pytest.mark.long
async def test_the_operator_finds_the_tokens_of_callers(make_settings: Make, upstream: Served, tmp_path: Path) -> None:
    settings = make_settings(upstream.url, access_token="")
    with calling("bob"):
        theirs = own(settings, caller())
    async with (
        connected(settings) as terminal,
        Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client,
    ):
        await call(terminal, "create_token", display_name="shared")
        async with connected(theirs) as bob:
            made = (await call(bob, "create_token", display_name="bob's"))["token"]
        secret = secret_of(upstream)
        with calling("bob"):
            await call(client, "get_credits")
        given = {"URL": upstream.url, "CAS_COOKIE": DEMO_COOKIE, "DATA_DIR": str(settings.home)}
        environment = {f"SRC_ANALYTICS_{name}": value for name, value in given.items()}
        environment |= {"HOME": str(tmp_path), "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
        said = []
        for command in (["reveal", made["id"]], ["revoke", made["id"], "--yes"], ["reveal", made["id"]]):
            ended = await anyio.to_thread.run_sync(partial(finished, "token", *command, **environment))
            said.append((ended.returncode, ended.stdout + ended.stderr))
        with calling("bob"):
            await call(client, "get_credits")
    assert said[0] == (0, f"{secret}\n")
    assert "the token list confirms it" in said[1][1]
    assert (said[2][0], "No secret of that token is stored here" in said[2][1]) == (1, True)
    assert not [path for path, content in everything_written(theirs.home).items() if secret in content]
    assert json.loads((theirs.home / "tokens.json").read_text()) == []


async def test_who_revokes_a_token_of_his_own_hears_that_the_operator_s_is_used(
    make_settings: Make, upstream: Served
) -> None:
    settings = make_settings(upstream.url, access_token="")
    async with connected(settings) as terminal:
        await call(terminal, "create_token", display_name="shared")
    with calling("bob", scopes=["analytics:read", "analytics:tokens"]):
        async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
            made = (await call(client, "create_token", display_name="bob's"))["token"]
            answer = await client.call_tool("revoke_token", {"token_id": made["id"], "confirm": True})
    assert "exports use the one that the operator made from now on" in text(answer)


async def test_the_operator_s_token_does_not_expire_without_a_word_over_http(
    make_settings: Make, upstream: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    settings = make_settings(upstream.url, access_token="")
    async with connected(settings) as terminal:
        end = (await call(terminal, "create_token", expires_in_days=5))["token"]["expires_at"]
    caplog.clear()
    async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
        for who in ("alice", "bob", "alice"):
            with calling(who):
                await call(client, "get_credits")
    warned = [record.message for record in caplog.records if "expires at" in record.message]
    assert warned == [f"the access token expires at {end[:16].replace('T', ' ')} UTC: make another"]
    index = settings.home / "tokens.json"
    index.write_text(index.read_text().replace(json.loads(index.read_text())[0]["expires_at"], "2026-01-02T03:04:00Z"))
    async with Client(AnalyticsServer(settings, over_http=True), mode="2026-07-28") as client:
        with calling("carol"):
            error = await refused(client, "get_credits")
    assert error["code"] == "auth_missing"
    assert "the one that the operator made has expired" in error["message"]
    assert "2026-01-02" not in error["message"]


async def test_the_log_warns_once_a_day_before_a_token_expires(
    make_settings: Make, upstream: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)  # whatever a test before has set
    for days, lines in ((30, 0), (5, 1)):
        settings = make_settings(upstream.url, access_token="", data_dir=f"{make_settings(upstream.url).home}{days}")
        async with connected(settings) as client:
            await call(client, "create_token", display_name=f"for {days} days", expires_in_days=days)
            caplog.clear()
            for _ in range(3):
                await call(client, "get_credits")
        assert [record.levelname for record in caplog.records if "expires at" in record.message] == ["WARNING"] * lines


async def test_without_a_place_for_secrets_nothing_is_posted(
    make_settings: Make, upstream: Served, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secrets").write_text("in the way")
    async with connected(make_settings(upstream.url)) as client:
        error = await refused(client, "create_token")
    assert error["code"] == "secret_store_unavailable"
    assert error["next_step"] == "Make SRC_ANALYTICS_DATA_DIR writable, then call again."  # no keyring is used
    assert upstream.sent("POST") == []


async def test_a_disk_without_room_for_a_secret_is_called_full(make_settings: Make, upstream: Served) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with connected(make_settings(upstream.url)) as client:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # bytes
        try:
            error = await refused(client, "create_token")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (error["code"], error["message"]) == (
        "secret_store_unavailable",
        "There is no room left on the disk for a secret.",
    )
    assert error["next_step"] == "Free disk space, or delete exports (delete_export), then call again."
    assert upstream.sent("POST") == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"expires_in_days": 5, "never_expires": True}, "one of"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "366"),
        ({"expires_at": "2999-01-01T00:00:00Z"}, "366"),
        ({"expires_at": "2027-01-01"}, "expires_at"),
        ({"expires_at": 1798761600}, "with its zone"),
        ({"expires_at": "1798761600"}, "with its zone"),
        ({"expires_at": "-0.0"}, "with its zone"),
        ({"expires_in_days": 0}, "greater"),
        ({"expires_in_days": "5"}, "integer"),
        ({"display_name": ""}, "at least 1"),
    ],
)
async def test_an_expiry_that_makes_no_sense_is_refused(
    settings: Settings, upstream: Served, arguments: dict[str, Any], says: str
) -> None:
    async with connected(settings) as client:
        error = await refused(client, "create_token", **arguments)
    assert error["code"] == "invalid_argument"
    assert says in error["message"] + error["next_step"]
    assert upstream.ledger == []


async def test_a_token_never_expires_only_when_told_so(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        answer = await call(client, "create_token", never_expires=True)
    assert answer["token"]["expires_at"] is None
    assert upstream.desk.tokens[-1].expires_at is None


async def test_tokens_are_listed_and_counted(settings: Settings) -> None:
    async with connected(settings) as client:
        every = await call(client, "list_tokens")
        live = await call(client, "list_tokens", include_expired=False)
    assert (every["total"], every["active"], every["expired"]) == (3, 2, 1)
    assert len(every["tokens"]) == 3
    assert len(live["tokens"]) == 2


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
@pytest.mark.parametrize("field", ["createdAt", "expiresAt"])
async def test_a_list_with_a_time_that_there_is_not_is_refused_as_such(
    make_settings: Make, field: str, moment: str
) -> None:
    async def answer(exchange: Exchange) -> None:
        token = {"id": ACTIVE, "createdAt": "2026-01-01T00:00:00Z", "isExpired": False}
        await exchange.answer(_listed([token | {field: moment}]), content_type="application/json")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "list_tokens")
    assert error["code"] == "upstream_schema_changed"


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_revoke_asks_the_person_where_the_client_can(
    settings: Settings, upstream: Served, revision: str
) -> None:
    async with connected(settings, revision, elicitation_callback=answering("accept")) as client:
        result = await client.call_tool("revoke_token", {"token_id": ACTIVE})
    if revision < "2025-06-18":  # those clients cannot be asked
        assert "confirm=true" in text(result)
        assert upstream.sent("DELETE") == []
    else:
        assert result.structured_content == {"token_id": ACTIVE, "outcome": "revoked", "verified": True}
        assert upstream.desk.tokens[1].revoked


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(
    ("action", "content"),
    [("decline", None), ("cancel", None), ("accept", {"confirm": False}), ("decline", YES), ("accept", None),
     ("accept", {}), ("accept", {"confirm": "yes"}), ("accept", {"confirm": 1}), ("accept", {"other": True})],
)  # fmt: skip
async def test_a_revoke_that_the_person_refuses_does_nothing(
    settings: Settings, upstream: Served, revision: str, action: Any, content: Any
) -> None:
    async def answer(context: Any, parameters: Any) -> ElicitResult:
        return ElicitResult(action=action, content=content)

    async with connected(settings, revision, elicitation_callback=answer) as client:
        error = await refused(client, "revoke_token", token_id=ACTIVE, confirm=True)
    assert error["code"] == "cancelled"
    assert upstream.sent("DELETE") == []


async def test_a_client_that_cannot_ask_must_confirm(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        error = await refused(client, "revoke_token", token_id=ACTIVE)
        assert upstream.ledger == []
        answer = await call(client, "revoke_token", token_id=ACTIVE, confirm=True)
        again = await call(client, "revoke_token", token_id=ACTIVE, confirm=True)
        unknown = await refused(client, "revoke_token", token_id="nothing", confirm=True)
    assert error["code"] == "forbidden"
    assert answer["outcome"] == "revoked"
    assert again == {"token_id": ACTIVE, "outcome": "already_expired", "verified": False}
    assert unknown["code"] == "not_found"


FORGED: dict[str, Any] = {"confirmation": ElicitResult(action="accept", content=YES)}


async def test_an_answer_to_a_question_never_asked_does_not_confirm(settings: Settings, upstream: Served) -> None:
    async with connected(settings, elicitation_callback=answering("accept")) as client:
        arguments = {"token_id": ACTIVE}
        with pytest.raises(MCPError):
            await client.session.call_tool(
                "revoke_token", arguments, input_responses=FORGED, request_state="confirmation"
            )
    assert upstream.sent("DELETE") == []


async def test_an_answer_that_comes_without_a_question_has_the_person_asked(
    settings: Settings, upstream: Served
) -> None:
    async with connected(settings, elicitation_callback=answering("accept")) as client:
        result = await client.session.call_tool(
            "revoke_token", {"token_id": ACTIVE}, input_responses=FORGED, allow_input_required=True
        )
    assert isinstance(result, InputRequiredResult)
    assert upstream.ledger == []


async def test_revoking_the_token_in_use_leaves_none(make_settings: Make, upstream: Served) -> None:
    async with connected(make_settings(upstream.url, access_token="")) as client:
        token = (await call(client, "create_token"))["token"]
        said = text(await client.call_tool("revoke_token", {"token_id": token["id"], "confirm": True}))
        error = await refused(client, "export_csv")
    assert "exports need another now." in said
    assert error["code"] == "auth_missing"


async def test_a_revoke_of_the_token_in_use_says_what_exports_use_then(make_settings: Make, upstream: Served) -> None:
    async with connected(make_settings(upstream.url, access_token="")) as client:
        first, second = [(await call(client, "create_token", display_name=n))["token"]["id"] for n in ("a", "b")]
        older = text(await client.call_tool("revoke_token", {"token_id": second, "confirm": True}))
        await call(client, "export_csv", granularity="by_user")
    secret = next(token.secret for token in upstream.desk.tokens if token.id == first)
    async with connected(make_settings(upstream.url, access_token=secret)) as client:
        set_by_hand = text(await client.call_tool("revoke_token", {"token_id": first, "confirm": True}))
    assert f"exports use the older token {first} from now on" in older
    assert upstream.sent("GET", "/api/reports/")[-1].headers["authorization"] == f"Bearer {secret}"
    assert "exports need another now, in SRC_ANALYTICS_ACCESS_TOKEN" in set_by_hand


@pytest.mark.parametrize(("more", "code"), [({}, "not_found"), ({"nextPage": "2"}, "unverified")])
async def test_a_token_that_has_gone_from_the_list_meanwhile_is_not_listed(
    make_settings: Make, more: dict[str, str], code: str
) -> None:
    tokens = [{"id": ACTIVE, "createdAt": "2026-01-01T00:00:00Z", "isExpired": False}]

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(json.dumps({"tokens": tokens} | more).encode(), content_type="application/json")
        else:
            tokens.clear()
            await exchange.answer(b"", "404 Not Found")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "revoke_token", token_id=ACTIVE, confirm=True)
    assert error["code"] == code


@pytest.mark.parametrize("identities", ["names", "pseudonyms"])
async def test_nothing_is_concluded_from_a_part_of_the_list(make_settings: Make, identities: str) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(b'{"tokens": [], "nextPage": "2"}', content_type="application/json")
        else:
            await _lose(exchange, "302")

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, identities=identities)
        async with connected(settings) as client:
            lost = await refused(client, "create_token", display_name="job")
            aged(settings)
            note, part = await told(client)
            checks = (await call(client, "check_connection"))["checks"]
            gone = await refused(client, "revoke_token", token_id=ACTIVE, confirm=True)
    named = " named 'job'" if identities == "names" else ""  # which somebody gave a token in another call
    assert lost["code"] == "ambiguous"
    assert f"Look with list_tokens for a token{named} created at about " in lost["next_step"]
    assert f"not known whether it left a token{named}; look" in note
    assert "only a part of the tokens" in part
    assert "at least 0 tokens" in next(check["detail"] for check in checks if check["name"] == "session cookie")
    assert (gone["code"], "only a part" in gone["message"]) == ("not_found", True)


async def test_a_revoke_that_the_list_does_not_confirm_is_unverified(make_settings: Make) -> None:
    live = json.dumps({"tokens": [{"id": ACTIVE, "createdAt": "2026-01-01T00:00:00Z", "isExpired": False}]}).encode()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(live if exchange.method == "GET" else b"", content_type="application/json")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        error = await refused(client, "revoke_token", token_id=ACTIVE, confirm=True)
    assert error["code"] == "unverified"
    assert [e.method for e in scripted.exchanges] == ["GET", "DELETE", "GET", "GET", "GET"]


def _listed(tokens: list[dict[str, Any]]) -> bytes:
    return json.dumps({"tokens": tokens}).encode()


@pytest.mark.parametrize(
    "how",
    ["no answer", "cut", "500", "no secret", "html", "302", "409", "no JSON", "other JSON", "cut JSON", "no text",
     "a secret that is none", "an end that is none"],
)  # fmt: skip
async def test_a_create_whose_answer_is_lost_revokes_the_orphan(make_settings: Make, how: str) -> None:
    made: dict[str, Any] = {"id": "orphan-1", "displayName": "job", "createdAt": "2999-01-01T00:00:00Z"}
    tokens: list[dict[str, Any]] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(_listed(tokens), content_type="application/json")
        elif exchange.method == "DELETE":
            tokens[0]["isExpired"] = True
            await exchange.answer(status="204 No Content")
        else:
            tokens.append(made | {"isExpired": False})
            await _lose(exchange, how)

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        error = await refused(client, "create_token", display_name="job")

    methods = [e.method for e in scripted.exchanges]
    assert methods == ["GET", "POST", "GET", "DELETE", "GET"]
    assert "orphan-1" in error["message"]
    assert "revoked" in error["message"]
    assert error["retryable"]
    assert 0 < error["retry_after_seconds"] <= 60
    assert f"again in {error['retry_after_seconds']} seconds" in error["next_step"]


async def test_a_token_that_is_listed_twice_is_one_token(make_settings: Make) -> None:
    made: dict[str, Any] = {"id": "orphan-1", "displayName": "job", "createdAt": "2999-01-01T00:00:00Z"}
    tokens: list[dict[str, Any]] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(_listed(tokens * 2), content_type="application/json")
        elif exchange.method == "DELETE":
            tokens[0]["isExpired"] = True
            await exchange.answer(status="204 No Content")
        else:
            tokens.append(made | {"isExpired": False})
            await _lose(exchange, "500")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        error = await refused(client, "create_token", display_name="job")
        listed = await call(client, "list_tokens")
    assert "The token it had made (orphan-1) was revoked" in error["message"]
    assert [(token["id"], token["is_expired"]) for token in listed["tokens"]] == [("orphan-1", True)]


async def test_a_token_that_one_of_its_two_entries_calls_live_is_live(make_settings: Make) -> None:
    token: dict[str, Any] = {"id": "t-1", "createdAt": "2026-01-01T00:00:00Z"}
    revokes = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal revokes
        if exchange.method == "DELETE":
            revokes += 1
            await exchange.answer(status="204 No Content")
        else:
            entries = [token | {"isExpired": revokes > 0}, token | {"isExpired": revokes > 1}]
            await exchange.answer(_listed(entries), content_type="application/json")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        error = await refused(client, "revoke_token", token_id="t-1", confirm=True)
        done = await call(client, "revoke_token", token_id="t-1", confirm=True)
    assert (error["code"], done["outcome"]) == ("unverified", "revoked")


async def test_a_login_page_for_the_create_and_for_the_list_leaves_it_open_whether_there_is_a_token(
    make_settings: Make,
) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.number == 1:
            await exchange.answer(_listed([]), content_type="application/json")
        else:
            await _lose(exchange, "html")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        error = await refused(client, "create_token", display_name="job")
    assert error["code"] == "ambiguous"


_WHOLE = b'{"id": "orphan-1", "createdAt": "2026-01-01T00:00:00Z", "secret": "sams_at_whole.made"}'
_ODD = {
    "no JSON": b"created", "other JSON": b'[{"token": 1}]', "cut JSON": _WHOLE[:-9],
    "no text": _WHOLE.replace(b'"sams_at_whole.made"', b"17"),
    "a secret that is none": _WHOLE.replace(b"sams_at_whole.made", b""),
    "an end that is none": _WHOLE[:-1] + b', "expiresAt": "9999-12-31T23:59:59-01:00"}',
}  # fmt: skip


async def _lose(exchange: Exchange, how: str) -> None:
    body = b'{"id": "orphan-1", "createdAt": "2026-01-01T00:00:00Z"}'
    match how:
        case "cut":
            await exchange.send(b"HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n" + body)
        case "500":
            await exchange.answer(b"oops", "500 Internal Server Error")
        case "no secret":
            await exchange.answer(body, "201 Created", "application/json")
        case "no JSON" | "other JSON" | "cut JSON" | "no text" | "a secret that is none" | "an end that is none":
            await exchange.answer(_ODD[how], "201 Created", "application/json")
        case "html":
            await exchange.answer(b"<html>Sign in</html>", content_type="text/html")
        case "302" | "409":
            await exchange.answer(b"", f"{how} X", extra="Location: /login\r\n")


@pytest.mark.parametrize(
    ("how", "code"), [("html", "session_expired"), ("302", "session_expired"), ("409", "invalid_argument")]
)
async def test_a_create_that_was_declined_and_left_no_token_says_so(make_settings: Make, how: str, code: str) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(_listed([]), content_type="application/json")
        else:
            await _lose(exchange, how)

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        error = await refused(client, "create_token", display_name="job")
    assert error["code"] == code
    assert [e.method for e in scripted.exchanges] == ["GET", "POST", "GET", "GET", "GET"]


@pytest.mark.parametrize("others", [0, 2])
async def test_a_create_that_cannot_be_told_is_ambiguous(make_settings: Make, others: int) -> None:
    tokens: list[dict[str, Any]] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "POST":
            base = {"displayName": "job", "createdAt": "2999-01-01T00:00:00Z", "isExpired": False}
            tokens.extend(base | {"id": f"t{n}"} for n in range(others))
            return
        await exchange.answer(_listed(tokens), content_type="application/json")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        error = await refused(client, "create_token", display_name="job")
    assert error["code"] == "ambiguous"
    assert "'job'" in error["next_step"]
    assert [e.method for e in scripted.exchanges].count("POST") == 1
    assert "DELETE" not in [e.method for e in scripted.exchanges]


@pytest.mark.parametrize(
    ("status", "code"),
    [("401 Unauthorized", "session_expired"), ("403 Forbidden", "forbidden"), ("404 Not Found", "unsupported"),
     ("302 Found", "session_expired"), ("400 Bad Request", "invalid_argument")],
)  # fmt: skip
async def test_a_cookie_that_does_not_work_says_what_to_do(make_settings: Make, status: str, code: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"{}", status, extra="Location: http://foreign.example/\r\n")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        error = await refused(client, "list_tokens")
    assert error["code"] == code
    assert error["next_step"]
    assert len(scripted.exchanges) == 1


async def test_a_token_that_was_there_before_a_lost_create_is_not_taken_for_its(make_settings: Make) -> None:
    there = {"id": "older", "displayName": "job", "createdAt": "2999-01-01T00:00:00Z", "isExpired": False}

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "POST":
            await exchange.answer(b"", "500 Internal Server Error")
        else:
            await exchange.answer(_listed([there]), content_type="application/json")

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        error = await refused(client, "create_token", display_name="job")
    assert error["code"] == "ambiguous"
    assert "DELETE" not in [exchange.method for exchange in scripted.exchanges]


@pytest.mark.parametrize("token_id", ["", "..", "a/b", "a?b", "a%2Fb", "a b", "x" * 65, "\u0661", "x" * 10_000])
async def test_what_is_no_id_of_a_token_is_refused_here(settings: Settings, upstream: Served, token_id: str) -> None:
    async with connected(settings) as client:
        error = await refused(client, "revoke_token", token_id=token_id, confirm=True)
    assert error["code"] == "invalid_argument"
    assert error["message"] == 'revoke_token: "token_id" cannot be that; send: Id from list_tokens.'
    assert upstream.ledger == []


@pytest.mark.long
async def test_cookie_and_bearer_never_meet_and_go_nowhere_else(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        for tool in ("list_tokens", "create_token", "export_csv", "get_credits", "check_connection"):
            await call(client, tool)
    for request in upstream.ledger:
        managing = request.path.startswith("/api/service-access-tokens")
        assert ("cookie" in request.headers) == managing
        assert ("authorization" in request.headers) != managing


async def test_the_cookie_has_the_name_that_is_set_and_no_other_is_sent_back(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(_listed([]), content_type="application/json", extra="Set-Cookie: cas=evil; Path=/\r\n")

    async with scripted_upstream(answer) as scripted:
        settings = make_settings(scripted.url, cookie_name="accounts_session_v2", cas_cookie="  chocolate-chip\n")
        async with connected(settings) as client:
            await call(client, "list_tokens")
            await call(client, "list_tokens")
        async with connected(settings.model_copy(update={"cas_cookie": None})) as client:
            missing = await refused(client, "list_tokens")
    assert [e.headers["cookie"] for e in scripted.exchanges] == ["accounts_session_v2=chocolate-chip"] * 2
    assert "copy the cookie `accounts_session_v2` from" in missing["next_step"]


async def test_read_only_leaves_out_what_changes_upstream(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url, read_only="1")
    async with connected(settings) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        error = await refused(client, "create_token")
    full = {tool.name for tool in await AnalyticsServer(make_settings(upstream.url)).list_tools()}
    assert full - names == {"create_token", "revoke_token"}
    assert error["code"] == "not_found"


async def test_prompts_that_need_a_tool_that_is_not_offered_are_not_there(
    make_settings: Make, upstream: Served
) -> None:
    found: dict[bool, set[str]] = {}
    for read_only in (False, True):
        async with connected(make_settings(upstream.url, read_only=read_only)) as client:
            found[read_only] = {prompt.name for prompt in (await client.list_prompts()).prompts}
            tools = {tool.name for tool in (await client.list_tools()).tools}
            for name in found[read_only]:
                told = (await client.get_prompt(name, {})).model_dump_json()
                assert not {word for word in ("create_token", "revoke_token") if word in told} - tools
    async with connected(make_settings(upstream.url, read_only=True)) as client:
        with pytest.raises(MCPError, match="There is no prompt 'token_rotation'"):
            await client.get_prompt("token_rotation", {})
    assert found[False] - found[True] == {"token_rotation", "token_cleanup"}
    assert "unused_seats" in found[True]


async def test_the_systems_keyring_is_preferred(make_settings: Make, upstream: Served) -> None:
    keyring.set_keyring(MemoryKeyring())  # type: ignore[no-untyped-call]
    try:
        settings = make_settings(upstream.url, access_token="")
        async with connected(settings) as client:
            answer = await call(client, "create_token")
            await call(client, "export_csv", granularity="by_user")
            await call(client, "revoke_token", token_id=answer["token"]["id"], confirm=True)
    finally:
        keyring.set_keyring(fail.Keyring())  # type: ignore[no-untyped-call]
    assert answer["secret_stored_in"] == "the system's keyring"
    assert upstream.sent("GET", "/api/reports/")[0].headers["authorization"] == f"Bearer {secret_of(upstream)}"
    assert not (settings.home / "secrets").exists()
    assert MemoryKeyring.kept == {}


KILLED_IN_A_CALL = """
import anyio, json, os, sys
from sourcegraph_analytics_mcp.access import tokens
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface import call as call_module
from sourcegraph_analytics_mcp.surface.server import AnalyticsServer
from mcp import Client

async def main():
    async with Client(AnalyticsServer(Settings.from_env(os.environ))) as client:
        await client.call_tool(sys.argv[1], json.loads(sys.argv[2]))

anyio.run(main)
"""


class Desk:
    """A token endpoint that makes tokens and, while `silent`, never says so."""

    def __init__(self) -> None:
        self.tokens: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.made = anyio.Event()
        self.silent = True

    async def answer(self, exchange: Exchange) -> None:
        self.calls.append(exchange.method)
        if exchange.method == "POST":
            self.tokens.append(
                {"id": f"new-{len(self.tokens)}", "displayName": "nightly", "isExpired": False}
                | {"createdAt": datetime.now(UTC).isoformat()}
            )
            self.made.set()
            if self.silent:
                await anyio.sleep_forever()
            return
        if exchange.method == "DELETE":
            for token in self.tokens:
                token["isExpired"] |= exchange.target.endswith(token["id"])
            await exchange.answer(b"", "204 No Content")
            return
        await exchange.answer(json.dumps({"tokens": self.tokens}).encode(), content_type="application/json")


async def killed_in(tool: str, arguments: dict[str, Any], settings: Settings, until: anyio.Event, **more: str) -> None:
    """Let a process call a tool, and kill it at a moment of that."""
    environment = more | {
        "SRC_ANALYTICS_URL": settings.url,
        "SRC_ANALYTICS_CAS_COOKIE": DEMO_COOKIE,
        "SRC_ANALYTICS_DATA_DIR": str(settings.home),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
    }
    command = [sys.executable, "-c", KILLED_IN_A_CALL, tool, json.dumps(arguments)]
    process = await anyio.open_process(command, env=environment)
    with anyio.fail_after(30):
        await until.wait()
    process.kill()
    await process.wait()


# At a moment such as when the secret cannot have been kept.
killed_in_create = partial(killed_in, "create_token", {"display_name": "nightly"})


def aged(settings: Settings, minutes: int = 3) -> None:
    """Let the noted creates be some minutes older, so that a list proves what is not there."""
    for note in (settings.home / "creates").iterdir():
        entry = json.loads(note.read_text())
        asked_at = datetime.fromisoformat(entry["asked_at"]) - timedelta(minutes=minutes)
        note.write_text(json.dumps(entry | {"asked_at": asked_at.isoformat()}))


async def test_a_crash_between_the_create_and_the_store_is_put_right_at_the_next_call(make_settings: Make) -> None:
    desk = Desk()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url)
        await killed_in_create(settings, desk.made)
        before = len(desk.calls)
        async with connected(settings) as client:
            assert len(desk.calls) == before  # nothing is contacted before tokens are asked for
            first = await call(client, "list_tokens")
            again = await call(client, "list_tokens")
    assert desk.calls.count("POST") == 1
    assert [t["is_expired"] for t in first["tokens"]] == [True]
    assert len(first["notes"]) == 1
    assert "(new-0) was revoked" in first["notes"][0]
    assert again["notes"] == []


@pytest.mark.long
async def test_what_a_crash_left_is_not_touched_where_nothing_may_be_changed(make_settings: Make) -> None:
    desk = Desk()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url)
        await killed_in_create(settings, desk.made)
        async with connected(make_settings(fake.url, read_only=True)) as client:
            assert await told(client) == []
    assert "DELETE" not in desk.calls
    assert len(list((settings.home / "creates").iterdir())) == 1


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.long
async def test_what_a_crash_left_is_only_revoked_when_it_must_be_ours(make_settings: Make, others: int) -> None:
    desk = Desk()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url)
        await killed_in_create(settings, desk.made)
        desk.tokens[:] = [{**desk.tokens[0], "id": f"twin-{number}"} for number in range(others)]
        async with connected(settings) as client:
            (first,) = await told(client)
            aged(settings)
            (second,) = await told(client)
            assert await told(client) == []
    assert "DELETE" not in desk.calls
    assert ("no token of its is listed yet" if not others else "twin-0, twin-1") in first
    assert ("it left no token" if not others else "twin-0, twin-1") in second
    assert ("looked up again" in first, "looked up again" in second) == (True, False)


@pytest.mark.long
async def test_a_token_that_the_list_shows_late_is_revoked_all_the_same(make_settings: Make) -> None:
    desk = Desk()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url)
        await killed_in_create(settings, desk.made)
        hidden, desk.tokens[:] = desk.tokens[:], []
        async with connected(settings) as client:
            (first,) = await told(client)
            desk.tokens[:] = hidden
            (second,) = await told(client)
    assert "no token of its is listed yet" in first
    assert "(new-0) was revoked" in second


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"displayName": "weekly"}, "it left no token"),
        ({"createdAt": "2020-01-01T00:00:00Z"}, "may be its, with a secret nobody has: new-0"),
        ({"createdAt": "2999-01-01T00:00:00Z"}, "may be its, with a secret nobody has: new-0"),
    ],
)
@pytest.mark.long
async def test_one_token_that_need_not_be_what_a_crash_left_is_not_revoked(
    make_settings: Make, other: dict[str, str], says: str
) -> None:
    desk = Desk()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url)
        await killed_in_create(settings, desk.made)
        desk.tokens[0] |= other
        aged(settings)
        async with connected(settings) as client:
            (note,) = await told(client)
    assert "DELETE" not in desk.calls
    assert says in note


@pytest.mark.long
async def test_a_token_that_was_kept_before_the_crash_stays_in_use(make_settings: Make) -> None:
    """Its create was not over: the new token was being tried when the process died."""
    desk, tried = Desk(), anyio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "POST":
            desk.silent = False
            await desk.answer(exchange)
            await exchange.answer(json.dumps(desk.tokens[0] | {"secret": "sams_at_kept"}).encode(), "201 Created")
        elif exchange.headers.get("authorization") != "Bearer sams_at_kept":
            await desk.answer(exchange)
        elif tried.is_set():
            await exchange.answer(b"Instance user ID,Searches\n1,2\n")
        else:
            tried.set()
            await anyio.sleep_forever()

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, access_token="")
        await killed_in_create(settings, tried, SRC_ANALYTICS_INSTANCE=settings.instance or "")
        assert len(list((settings.home / "creates").iterdir())) == 1
        async with connected(settings) as client:
            listed = await call(client, "list_tokens")
            await call(client, "export_csv", granularity="by_user")
    assert "token new-0 of its name was made since, and its secret is kept here" in listed["notes"][0]
    assert "no token" not in listed["notes"][0]
    assert [(token["is_expired"], token["in_use"]) for token in listed["tokens"]] == [(False, True)]
    assert "DELETE" not in desk.calls


async def test_a_create_that_another_server_has_under_way_is_left_alone(make_settings: Make) -> None:
    desk, asked = Desk(), anyio.Event()
    made: list[dict[str, Any]] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "POST":
            desk.silent = False
            await desk.answer(exchange)
            await asked.wait()
            await exchange.answer(json.dumps(desk.tokens[0] | {"secret": "sams_at_new-1"}).encode(), "201 Created")
        else:
            await desk.answer(exchange)

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, instance="")
        async with connected(settings) as one, connected(settings) as other, anyio.create_task_group() as tasks:

            async def create() -> None:
                made.append(await call(one, "create_token", display_name="nightly"))

            tasks.start_soon(create)
            await desk.made.wait()
            listed = await call(other, "list_tokens")
            asked.set()
    assert not any("cut off" in note for note in listed["notes"])
    assert [token["is_expired"] for token in listed["tokens"]] == [False]
    assert "DELETE" not in desk.calls
    assert made[0]["token"]["id"] == "new-0"


class Issuing(Desk):
    """One that says the secrets, notes what is used, while `cut` revokes without a word, and may refuse to create."""

    def __init__(self) -> None:
        super().__init__()
        self.silent = False
        self.cut = False
        self.revoked = anyio.Event()
        self.used: list[str] = []
        self.next_page = ""
        self.refusing = False

    async def answer(self, exchange: Exchange) -> None:
        if exchange.target.startswith("/api/credits"):
            self.used.append(exchange.headers["authorization"].removeprefix("Bearer sams_at_secret-of-"))
            await exchange.answer(b"{}", content_type="application/json")
        elif exchange.method == "POST" and self.refusing:
            await exchange.answer(b"{}", "403 Forbidden", "application/json")
        elif exchange.method == "POST":
            await super().answer(exchange)
            token = self.tokens[-1] | {"secret": f"sams_at_secret-of-{self.tokens[-1]['id']}"}
            await exchange.answer(json.dumps(token).encode(), "201 Created", "application/json")
        elif exchange.method == "DELETE" and self.cut:
            self.end(exchange.target.rpartition("/")[2])
            self.revoked.set()
            await anyio.sleep_forever()
        elif exchange.method == "GET" and self.next_page:
            every = {"tokens": self.tokens, "nextPage": self.next_page}
            await exchange.answer(json.dumps(every).encode(), content_type="application/json")
        else:
            await super().answer(exchange)

    def end(self, token_id: str) -> None:
        for token in self.tokens:
            token["isExpired"] |= token["id"] == token_id


def _kept(settings: Settings) -> list[str]:
    """The ids of the tokens that are kept; as many secrets are."""
    ids = [token["id"] for token in json.loads((settings.home / "tokens.json").read_text())]
    assert len(list((settings.home / "secrets").iterdir())) == len(ids)
    return ids


@pytest.mark.long
async def test_a_revoke_that_a_crash_cut_off_is_put_right_by_the_next_create(make_settings: Make) -> None:
    desk = Issuing()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url, access_token="")
        async with connected(settings) as client:
            for name in ("older", "newer"):
                await call(client, "create_token", display_name=name)
        desk.cut = True
        await killed_in("revoke_token", {"token_id": "new-1", "confirm": True}, settings, desk.revoked)
        async with connected(settings) as client:
            listed = await call(client, "list_tokens")
            await call(client, "get_credits")
            before, used = _kept(settings), desk.used[-1]
            made = await call(client, "create_token")
            assert await told(client) == []
    assert (before, _kept(settings)) == (["new-0", "new-1"], ["new-0", "new-2"])
    assert listed["notes"] == [
        "Token new-1 is revoked or has expired, but still kept here; the next create_token removes it."
    ]
    assert made["notes"] == ["Token new-1 is revoked or has expired, and what was kept here of it was removed."]
    assert [token["in_use"] for token in listed["tokens"]] == [True, False]
    assert used == "new-0"
    assert desk.calls.count("DELETE") == 0  # what was cut off is not asked again; the list proves it


@pytest.mark.parametrize("tool", ["list_tokens", "create_token"])
async def test_a_token_that_is_listed_as_revoked_is_used_no_more(make_settings: Make, tool: str) -> None:
    desk = Issuing()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url, access_token="")
        async with connected(settings) as client:
            for name in ("older", "newer"):
                await call(client, "create_token", display_name=name)
            await call(client, "get_credits")
            used, before = desk.used[-1], everything_written(settings.home)
            desk.end("new-1")
            await call(client, tool)
            await call(client, "get_credits")
    assert [used, desk.used[-1]] == ["new-1", "new-2" if tool == "create_token" else "new-0"]
    assert (everything_written(settings.home) == before) is (tool == "list_tokens")


async def test_a_create_that_fails_has_removed_nothing(make_settings: Make) -> None:
    desk = Issuing()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url, access_token="")
        async with connected(settings) as client:
            await call(client, "create_token", display_name="a")
            desk.end("new-0")
            desk.refusing = True
            assert (await refused(client, "create_token", display_name="b"))["code"] == "forbidden"
            kept = _kept(settings)
            desk.refusing = False
            made = await call(client, "create_token", display_name="c")
    assert kept == ["new-0"]
    assert [note for note in made["notes"] if "new-0" in note]
    assert _kept(settings) == ["new-1"]


@pytest.mark.parametrize("setting", ["SRC_ANALYTICS_ACCESS_TOKEN", "SRC_ANALYTICS_ACCESS_TOKEN_FILE"])
async def test_a_token_that_a_setting_holds_stays_known_though_it_is_revoked(
    make_settings: Make, tmp_path: Path, setting: str
) -> None:
    desk = Issuing()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url, access_token="")
        async with connected(settings) as client:
            for name in ("set", "spent"):
                await call(client, "create_token", display_name=name)
        (file := tmp_path / "token").write_text("sams_at_secret-of-new-0")
        file.chmod(0o600)
        given: dict[str, Any] = {"access_token": "sams_at_secret-of-new-0"}
        if setting.endswith("FILE"):
            given = {"access_token": "", "access_token_file": str(file)}
        desk.end("new-0")
        desk.end("new-1")
        async with connected(make_settings(fake.url, **given)) as client:
            listed = await client.call_tool("list_tokens", {})
            await call(client, "create_token", display_name="next")
            after = await call(client, "list_tokens")
    held = f"Token new-0 is revoked or has expired, but {setting} holds it: set another."
    spent = "Token new-1 is revoked or has expired, but still kept here; the next create_token removes it."
    assert listed.structured_content is not None
    assert [listed.structured_content["notes"], after["notes"]] == [[f"{held} {spent}"], [held]]
    assert [token["in_use"] for token in after["tokens"]] == [True, False, False]
    assert "expired; in use here" in text(listed)
    assert _kept(settings) == ["new-0", "new-2"]


def _keep(settings: Settings, home: Path, desk: Issuing, *ids: str, place: Literal["keyring", "file"] = "file") -> None:
    """Keep tokens that have ended, as a server on that data directory has kept them."""
    store = secret_store.SecretStore(home, settings.url)
    for one in ids:
        now = datetime.now(UTC)
        secret = SecretStr(f"sams_at_secret-of-{one}")
        store.save(NewToken(id=one, secret=secret, created_at=now, display_name="kept"), place)
        desk.tokens.append({"id": one, "displayName": "kept", "isExpired": True, "createdAt": now.isoformat()})


async def test_few_of_many_tokens_that_have_ended_are_named(make_settings: Make) -> None:
    desk = Issuing()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url, access_token="")
        _keep(settings, settings.home, desk, *(f"old-{number}" for number in range(12)))
        async with connected(settings) as client:
            listed = await call(client, "list_tokens", include_expired=False)
            made = await call(client, "create_token")
    named = "Tokens old-0, old-1, old-2, old-3, old-4 and 7 more are revoked or have expired"
    assert listed["notes"] == [f"{named}, but still kept here; the next create_token removes them."]
    assert made["notes"] == [f"{named}, and what was kept here of them was removed."]
    assert _kept(settings) == ["new-12"]


async def test_an_index_that_is_held_is_waited_for_once_and_what_became_of_each_token_is_said(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Issuing()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url, access_token="")
        for number, home in enumerate([settings.home, *(settings.home / "callers" / name for name in "ab")]):
            home.mkdir(parents=True, exist_ok=True)
            _keep(settings, home, desk, f"first-{number}", f"second-{number}")
        gone, *_ = sorted((settings.home / "secrets").iterdir(), key=lambda one: one.read_text())
        gone.unlink()
        monkeypatch.setattr(secret_store, "_PATIENCE", 0.0)
        async with connected(settings) as client:
            with (settings.home / "callers" / "a" / "tokens.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                made = await call(client, "create_token", display_name="one")
            kept = [json.loads((settings.home / "callers" / name / "tokens.json").read_text()) for name in "ab"]
            again = await call(client, "create_token", display_name="two")
    ended = "is revoked or has expired"
    assert made["notes"] == [
        f"Token second-0 {ended}, and what was kept here of it was removed. "
        f"Token first-0 {ended}, and the entry of it, all that was left here, was removed. "
        "Tokens first-1, second-1, first-2, second-2 are revoked or have expired, but the entry of them in the index "
        "here could not be removed; the next create_token tries again."
    ]
    assert [len(entries) for entries in kept] == [2, 2]
    assert again["notes"] == [
        "Tokens first-1, second-1, first-2, second-2 are revoked or have expired, and the entry of them, all that was "
        "left here, was removed."
    ]


async def test_a_token_that_another_process_has_forgotten_is_used_no_more_once_it_is_listed_as_revoked(
    make_settings: Make,
) -> None:
    desk = Issuing()
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url, access_token="")
        async with connected(settings) as client, connected(settings) as other:
            for name in ("older", "newer"):
                await call(client, "create_token", display_name=name)
            await call(other, "revoke_token", token_id="new-1", confirm=True)
            listed = await call(client, "list_tokens")
            await call(client, "get_credits")
    assert listed["notes"] == []
    assert [token["in_use"] for token in listed["tokens"]] == [True, False]
    assert desk.used[-1] == "new-0"


@pytest.mark.parametrize("why", ["read-only", "a part", "not listed", "in its time", "of another upstream"])
async def test_a_token_stays_kept_where_nothing_proves_its_end_or_nothing_may_be_changed(
    make_settings: Make, why: str
) -> None:
    desk, elsewhere = Issuing(), Desk()
    async with scripted_upstream(desk.answer) as fake, scripted_upstream(elsewhere.answer) as another:
        settings = make_settings(fake.url, access_token="")
        async with connected(settings) as client:
            await call(client, "create_token")
        elsewhere.tokens = [desk.tokens[0] | {"isExpired": True}]
        if why != "of another upstream":
            desk.end("new-0")
        if why == "a part":
            desk.next_page = "2"
        elif why == "not listed":
            desk.tokens = [desk.tokens[0] | {"id": "another"}]
        elif why == "in its time":
            index = settings.home / "tokens.json"
            (kept,) = json.loads(index.read_text())
            index.write_text(json.dumps([kept | {"expires_at": "2026-01-02T03:04:00Z"}]))
        url = another.url if why == "of another upstream" else fake.url
        async with connected(make_settings(url, access_token="", read_only=why == "read-only")) as client:
            notes = [note for note in await told(client) if "only a part" not in note]
    assert notes == []
    assert _kept(settings) == ["new-0"]


async def test_a_token_is_kept_for_its_upstream_and_goes_to_no_other(make_settings: Make, upstream: Served) -> None:
    desk = Desk()
    desk.silent = False

    async def answer(exchange: Exchange) -> None:
        await desk.answer(exchange)
        if exchange.method == "POST":
            await exchange.answer(json.dumps(desk.tokens[0] | {"secret": "sams_at_other"}).encode(), "201 Created")

    settings = make_settings(upstream.url, access_token="")
    async with scripted_upstream(answer) as other:
        async with connected(settings) as client:
            await call(client, "create_token")
        async with connected(make_settings(other.url, access_token="")) as client:
            error = await refused(client, "export_csv", granularity="by_user")
            assert other.exchanges == []
            created = await call(client, "create_token", display_name="nightly")
            await call(client, "revoke_token", token_id=created["token"]["id"], confirm=True)
        async with connected(settings) as client:
            await call(client, "export_csv", granularity="by_user")
    assert error["code"] == "auth_missing"
    assert upstream.ledger[-1].headers["authorization"] == f"Bearer {secret_of(upstream)}"
    assert secret_of(upstream) not in json.dumps([exchange.headers for exchange in other.exchanges])


async def test_a_create_that_is_over_leaves_no_entry(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        await call(client, "create_token", display_name="nightly")
    assert list((settings.home / "creates").iterdir()) == []


async def test_a_loop_of_creates_is_held_back(settings: Settings, upstream: Served) -> None:
    async with connected(settings) as client:
        await call(client, "create_token", display_name="a")
        same = await refused(client, "create_token", display_name="a")
        await call(client, "create_token", display_name="b")
        await call(client, "create_token")
        fourth = await refused(client, "create_token", display_name="d")
    assert (same["code"], fourth["code"], same["retryable"]) == ("busy", "busy", True)
    assert same["retry_after_seconds"] <= 60 < fourth["retry_after_seconds"] <= 3600
    assert len(upstream.sent("POST")) == 3


async def test_creates_at_once_are_held_back_like_one_after_the_other(settings: Settings, upstream: Served) -> None:
    codes: list[str] = []

    async def create(client: Any) -> None:
        result = await client.call_tool("create_token", {"display_name": "a"})
        codes.append(result.structured_content.get("error", {}).get("code", "made"))

    async with connected(settings) as client, anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(create, client)
    assert sorted(codes) == ["busy"] * 9 + ["made"]
    assert len(upstream.sent("POST")) == 1


async def test_a_create_that_was_never_posted_does_not_count(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url)
    in_the_way = settings.home / "secrets"
    settings.home.mkdir()
    in_the_way.write_text("")
    async with connected(settings) as client:
        error = await refused(client, "create_token", display_name="a")
        in_the_way.unlink()
        await call(client, "create_token", display_name="a")
    assert error["code"] == "secret_store_unavailable"


@pytest.mark.parametrize("when", ["kept", "under way", "kept in a damaged index"])
async def test_a_token_that_another_server_made_is_not_taken_for_what_a_lost_create_left(
    make_settings: Make, when: str
) -> None:
    desk, told, failed = Desk(), anyio.Event(), anyio.Event()
    desk.silent = False
    errors: list[dict[str, Any]] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.method != "POST":
            await desk.answer(exchange)
        elif not desk.made.is_set():  # the first create: nothing is made, and its answer is lost
            desk.made.set()
            await told.wait()
        else:
            await desk.answer(exchange)
            if when == "under way":
                told.set()
                await failed.wait()
            await exchange.answer(json.dumps(desk.tokens[0] | {"secret": "sams_at_new-1"}).encode(), "201 Created")

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, instance="")
        async with connected(settings) as one, connected(settings) as other, anyio.create_task_group() as tasks:

            async def lose() -> None:
                errors.append(await refused(one, "create_token", display_name="nightly"))
                failed.set()

            tasks.start_soon(lose)
            await desk.made.wait()
            made = await call(other, "create_token", display_name="nightly")
            if when == "kept in a damaged index":
                (settings.home / "tokens.json").write_text("[")
            told.set()
    assert errors[0]["code"] == "ambiguous"
    assert made["token"]["id"] == "new-0"
    assert "DELETE" not in desk.calls


@pytest.mark.long
async def test_what_a_crash_left_is_not_settled_while_a_create_of_its_name_is_under_way(make_settings: Make) -> None:
    desk, asked, listed = Desk(), anyio.Event(), anyio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "POST" and not desk.silent:
            await desk.answer(exchange)
            asked.set()
            await listed.wait()
            await exchange.answer(json.dumps(desk.tokens[0] | {"secret": "sams_at_new-1"}).encode(), "201 Created")
        else:
            await desk.answer(exchange)

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url, instance="")
        await killed_in_create(settings, desk.made)
        desk.tokens.clear()
        aged(settings)
        (crashed,) = (settings.home / "creates").iterdir()
        note = crashed.read_text()
        desk.silent = False
        async with connected(settings) as one, connected(settings) as other, anyio.create_task_group() as tasks:
            crashed.unlink()  # so that the other create is not kept waiting by it
            tasks.start_soon(one.call_tool, "create_token", {"display_name": "nightly"})
            await asked.wait()
            crashed.write_text(note)
            (first,) = await told(other)
            still = crashed.exists()
            listed.set()
    assert "may be its" in first
    assert still
    assert "DELETE" not in desk.calls


async def test_nothing_is_posted_where_its_note_is_cut(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with connected(settings) as client:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))  # bytes: room for a probe
        try:
            error = await refused(client, "create_token")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error["code"] == "store_full"
    assert upstream.sent("POST") == []
    assert list((settings.home / "creates").iterdir()) == []


@pytest.mark.parametrize("how", ["302", "no answer"])
async def test_a_lost_token_is_named_though_our_clock_is_wrong(make_settings: Make, how: str) -> None:
    made = {"id": "orphan-1", "displayName": "job", "isExpired": False}
    tokens: list[dict[str, Any]] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(_listed(tokens), content_type="application/json")
        else:
            tokens.append(made | {"createdAt": (datetime.now(UTC) - timedelta(hours=1)).isoformat()})
            await _lose(exchange, how)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "create_token", display_name="job")
        (note,) = await told(client)
    assert error["code"] == "ambiguous"
    assert "orphan-1" in error["next_step"]
    assert "orphan-1" in note
    assert "DELETE" not in [exchange.method for exchange in fake.exchanges]


async def test_an_ambiguous_create_is_looked_up_again_at_the_next_call(make_settings: Make) -> None:
    desk = Desk()
    listing = True

    async def answer(exchange: Exchange) -> None:
        nonlocal listing
        if exchange.method == "POST":
            listing = False
            desk.silent = False  # the connection is closed without an answer
        if exchange.method == "GET" and not listing:
            await exchange.answer(b"", "401 Unauthorized")
            return
        await desk.answer(exchange)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "create_token", display_name="nightly")
        listing = True
        found = await call(client, "list_tokens")
    assert error["code"] == "ambiguous"
    assert "(new-0) was revoked" in found["notes"][0]
    assert [t["is_expired"] for t in found["tokens"]] == [True]


async def test_the_access_token_may_stand_in_a_file(make_settings: Make, upstream: Served, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{DEMO_TOKEN}\n")
    file.chmod(0o600)
    async with connected(make_settings(upstream.url, access_token="", access_token_file=file)) as client:
        await call(client, "export_csv", granularity="by_user")
        checks = (await call(client, "check_connection"))["checks"]
    assert upstream.sent("GET", "/api/reports/")[0].headers["authorization"] == f"Bearer {DEMO_TOKEN}"
    assert "from SRC_ANALYTICS_ACCESS_TOKEN_FILE" in next(c["detail"] for c in checks if c["name"] == "access token")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (Path.unlink, "cannot be read: that file. "),
        (lambda file: file.chmod(0o644), "can be read by others; run: chmod 600 that file. "),
        (lambda file: file.write_text("planted words"), "cannot be used: it holds characters that "),
    ],
    ids=["gone", "open to others", "no token"],
)
async def test_a_token_file_that_is_spoiled_later_is_named_and_nothing_else_fails(
    make_settings: Make, upstream: Served, tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    file = tmp_path / "planted"
    file.write_text(DEMO_TOKEN)
    file.chmod(0o600)
    async with connected(make_settings(upstream.url, access_token="", access_token_file=file)) as client:
        spoil(file)
        errors = [await refused(client, tool) for tool in ("export_csv", "get_credits")]
        checks = {c["name"]: c["detail"] for c in (await call(client, "check_connection"))["checks"]}
        listed = await call(client, "list_tokens")
        created = await client.call_tool("create_token", {"display_name": "other"})
    for error in errors:
        said = f"[{error['code']}] {error['message']} {error['next_step']}"
        assert said == checks["access token"]
        assert said.startswith(f"[auth_missing] SRC_ANALYTICS_ACCESS_TOKEN_FILE {says}")
        assert "planted" not in said
    assert [token["in_use"] for token in listed["tokens"]] == [False] * 3
    assert "goes on using SRC_ANALYTICS_ACCESS_TOKEN_FILE" in text(created)


@asynccontextmanager
async def in_the_demo(folder: Path, upstream: Callable[..., Any], **more: str) -> AsyncIterator[Client]:
    """A client of a server as `--demo` starts it."""
    given = {"SRC_ANALYTICS_DEMO": "1", "SRC_ANALYTICS_DATA_DIR": str(folder), **more}
    async with Client(AnalyticsServer(demo_settings(Settings.from_env(given)), upstream), mode=REVISIONS[-1]) as client:
        yield client


async def test_the_token_of_the_demo_is_known_and_can_be_rotated(tmp_path: Path) -> None:
    first = "00000000-0000-0000-0000-000000000003"

    async def used(client: Client) -> list[str]:
        return [t["id"] for t in (await call(client, "list_tokens"))["tokens"] if t["in_use"] is not False]

    async with in_the_demo(tmp_path, embedded_upstream()) as client:
        checked = (await call(client, "check_connection"))["checks"][2]["detail"]
        before = await used(client)
        created = await client.call_tool("create_token")
        made = (created.structured_content or {})["token"]["id"]
        both = await used(client)
        back = text(await client.call_tool("revoke_token", {"token_id": made, "confirm": True}))
        again = (await call(client, "create_token", display_name="another"))["token"]["id"]
        await call(client, "revoke_token", token_id=first, confirm=True)
        await call(client, "get_credits")
        after = await used(client)
    async with in_the_demo(tmp_path, embedded_upstream()) as client:  # what an earlier one kept is nothing to it
        await call(client, "get_credits")
    assert checked == "from the demo; upstream accepts it"
    assert "this server uses it from now on" in text(created)
    assert f"exports use the older token {first} from now on" in back
    assert (before, both, after) == ([first], [made], [again])


async def test_the_advice_of_the_demo_is_its_own(tmp_path: Path) -> None:
    first, upstream = "00000000-0000-0000-0000-000000000003", embedded_upstream()
    async with (
        in_the_demo(tmp_path / "a", upstream) as one,
        in_the_demo(tmp_path / "b", upstream) as other,
        in_the_demo(tmp_path / "c", upstream, SRC_ANALYTICS_READ_ONLY="1") as third,
    ):
        gone = text(await one.call_tool("revoke_token", {"token_id": first, "confirm": True}))
        errors = [await refused(client, "get_credits") for client in (one, other, third)]
        await call(one, "create_token")
        await call(one, "get_credits")
    assert "exports need another now." in gone
    assert [error["code"] for error in errors] == ["auth_missing", "auth_rejected", "auth_rejected"]
    assert "the demo's own is revoked" in errors[0]["message"]
    step = "Call create_token, or restart the demo."
    assert [error["next_step"] for error in errors] == [step, step, "Restart the demo."]


async def test_which_token_is_in_use_is_unknown_where_the_operator_set_one_that_was_not_made_here(
    make_settings: Make, upstream: Served
) -> None:
    ids = [token.id for token in upstream.desk.tokens]
    asked: list[str] = []

    async def yes(context: Any, parameters: Any) -> ElicitResult:
        asked.append(parameters.message)
        return ElicitResult(action="accept", content=YES)

    async with connected(make_settings(upstream.url)) as client:
        made = (await call(client, "create_token"))["token"]["id"]
        result = await client.call_tool("list_tokens")
        error = await refused(client, "revoke_token", token_id=ids[2])
    async with connected(make_settings(upstream.url), elicitation_callback=yes) as client:
        ours = text(await client.call_tool("revoke_token", {"token_id": made}))
        theirs = text(await client.call_tool("revoke_token", {"token_id": ids[2]}))
    listed = result.structured_content or {}
    assert {token["id"]: token["in_use"] for token in listed["tokens"]} == dict.fromkeys(ids) | {
        ids[0]: False,
        made: False,
    }
    (note,) = listed["notes"]
    assert "not known: SRC_ANALYTICS_ACCESS_TOKEN holds one that was not made here" in note
    assert note in text(result)
    assert text(result).count("active; use unknown") == 2
    assert "may be the one that exports here use" in error["message"]
    assert ["may be the one" in question for question in asked] == [False, True]
    assert "check_connection" not in ours
    assert "Exports may have used it: check_connection says" in theirs


async def test_the_token_in_use_is_known_where_the_one_set_was_made_here(make_settings: Make, upstream: Served) -> None:
    async with connected(make_settings(upstream.url)) as client:
        made = (await call(client, "create_token"))["token"]["id"]
    async with connected(make_settings(upstream.url, access_token=secret_of(upstream))) as client:
        listed = await call(client, "list_tokens")
        error = await refused(client, "revoke_token", token_id=made)
    assert [token["id"] for token in listed["tokens"] if token["in_use"]] == [made]
    assert [token["in_use"] for token in listed["tokens"]].count(False) == 3
    assert listed["notes"] == []
    assert "It is the one that exports here use." in error["message"]


async def test_without_an_access_token_none_of_the_listed_is_in_use(make_settings: Make, upstream: Served) -> None:
    async with connected(make_settings(upstream.url, access_token="")) as client:
        listed = await call(client, "list_tokens")
    assert [token["in_use"] for token in listed["tokens"]] == [False] * 3


async def test_without_an_instance_a_new_token_is_not_tried(make_settings: Make, upstream: Served) -> None:
    async with connected(make_settings(upstream.url, access_token="", instance="")) as client:
        await call(client, "create_token")
    assert {request.path for request in upstream.ledger} == {"/api/service-access-tokens"}


class Keyring(MemoryKeyring):
    """A keyring whose entries of tokens are lost, or cannot be written or read; its probes are fine unless told."""

    def __init__(self, trouble: str, *, with_probes: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trouble = trouble
        self.with_probes = with_probes

    def get_password(self, service: str, username: str) -> str | None:
        if self.trouble == "locked" and self._concerns(username):
            raise PermissionError("locked")
        return super().get_password(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.trouble == "full" and self._concerns(username):
            raise OSError("full")
        lost = self.trouble == "forgetful" and self._concerns(username)
        super().set_password(service, username, "something else" if lost else password)

    def delete_password(self, service: str, username: str) -> None:
        if self.trouble in ("kept", "locked") and self._concerns(username):
            raise PermissionError("locked")
        super().delete_password(service, username)

    def _concerns(self, username: str) -> bool:
        return self.with_probes or not username.startswith("probe-")


@pytest.fixture
def use_keyring() -> Iterator[Callable[[Keyring], None]]:
    yield keyring.set_keyring
    keyring.set_keyring(fail.Keyring())  # type: ignore[no-untyped-call]
    MemoryKeyring.kept.clear()


class Asking(Keyring):
    """One that asks somebody before it gives up, shows or deletes what is of a token."""

    def __init__(self, about: str) -> None:
        super().__init__("")
        self.about = about
        self.before: tuple[str, ...] = ("get", "delete")
        self.answered = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self._ask("get", username)
        return super().get_password(service, username)

    def delete_password(self, service: str, username: str) -> None:
        self._ask("delete", username)
        super().delete_password(service, username)

    def _ask(self, what: str, username: str) -> None:
        if username == self.about and what in self.before:
            self.answered.wait(20)


async def test_a_keyring_that_asks_about_an_old_token_does_not_hold_up_a_new_one(
    make_settings: Make, use_keyring: Callable[[Keyring], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "_PATIENCE", 0.1)
    desk = Issuing()
    use_keyring(asking := Asking("nothing yet"))
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url, access_token="")
        async with connected(settings) as client:
            await call(client, "create_token", display_name="old")
            desk.end("new-0")
            asking.about = "new-0"
            begun = time.monotonic()
            made = await call(client, "create_token", display_name="new")
            waited = time.monotonic() - begun
            asking.answered.set()
    assert waited < 10
    (note,) = made["notes"]
    assert note.startswith("Token new-0 is revoked or has expired, but the keyring has not answered in time")


@pytest.mark.parametrize("before", [("delete",), ("get", "delete")])
async def test_a_keyring_that_asks_does_not_hold_up_a_revoke_and_is_asked_again(
    make_settings: Make,
    upstream: Served,
    use_keyring: Callable[[Keyring], None],
    before: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forgetting, "_PATIENCE", 0.1)
    use_keyring(asking := Asking("nothing yet"))
    settings = make_settings(upstream.url, access_token="")
    async with connected(settings) as client:
        made = (await call(client, "create_token"))["token"]["id"]
        asking.about, asking.before = made, before
        begun = time.monotonic()
        revoked = await client.call_tool("revoke_token", {"token_id": made, "confirm": True})
        waited = time.monotonic() - begun
        kept = [token["id"] for token in json.loads((settings.home / "tokens.json").read_text())]
        asking.answered.set()
        again = await client.call_tool("revoke_token", {"token_id": made, "confirm": True})
    assert waited < 10
    assert text(revoked).startswith(f"Token {made} was revoked, and the token list confirms it.")
    assert "It was the one this server used; exports need another now." in text(revoked)
    assert "may still be in the system's keyring, which has not answered in time" in text(revoked)
    assert kept == [made]
    assert "may still be" not in text(again)
    assert (MemoryKeyring.kept, json.loads((settings.home / "tokens.json").read_text())) == ({}, [])


async def test_a_keyring_is_not_blamed_for_an_index_that_is_held(
    make_settings: Make, use_keyring: Callable[[Keyring], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "_PATIENCE", 0.1)
    monkeypatch.setattr(secret_store, "_PATIENCE", 0.3)
    desk = Issuing()
    use_keyring(Keyring("none"))
    async with scripted_upstream(desk.answer) as fake:
        settings = make_settings(fake.url, access_token="")
        home = settings.home / "callers" / "a"
        home.mkdir(parents=True)
        _keep(settings, home, desk, "old", place="keyring")
        async with connected(settings) as client:
            with (home / "tokens.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                made = await call(client, "create_token")
    (note,) = made["notes"]
    assert "but the entry of it in the index here could not be removed" in note
    assert "old" not in {token_id for _, token_id in MemoryKeyring.kept}


@pytest.mark.parametrize("trouble", ["forgetful", "full", "locked"])
async def test_a_keyring_that_does_not_keep_is_noticed_before_anything_is_posted(
    make_settings: Make, upstream: Served, use_keyring: Callable[[Keyring], None], trouble: str
) -> None:
    use_keyring(Keyring(trouble, with_probes=True))
    async with connected(make_settings(upstream.url, access_token="")) as client:
        error = await refused(client, "create_token")
    assert error["code"] == "secret_store_unavailable"
    assert upstream.sent("POST") == []


@pytest.mark.parametrize("trouble", ["forgetful", "full"])
async def test_a_token_whose_secret_cannot_be_kept_is_revoked_again(
    make_settings: Make, upstream: Served, use_keyring: Callable[[Keyring], None], trouble: str
) -> None:
    use_keyring(Keyring(trouble))
    async with connected(make_settings(upstream.url, access_token="")) as client:
        error = await refused(client, "create_token")
    assert error["code"] == "secret_store_unavailable"
    assert "was revoked again" in error["message"]
    assert upstream.desk.tokens[-1].revoked
    assert MemoryKeyring.kept == {}


async def test_a_create_that_was_undone_says_when_to_try_again(make_settings: Make) -> None:
    made: list[dict[str, Any]] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "POST":
            now = datetime.now(UTC).isoformat()
            made.append({"id": "tok-1", "createdAt": now, "isExpired": False})
            body = json.dumps(made[0] | {"secret": "sams_at_refused"}).encode()
            await exchange.answer(body, "201 Created", "application/json")
        elif exchange.method == "DELETE":
            made[0]["isExpired"] = True
            await exchange.answer(status="204 No Content")
        elif "tokens" in exchange.target:
            await exchange.answer(json.dumps({"tokens": made}).encode(), content_type="application/json")
        else:
            await exchange.answer(status="401 Unauthorized")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, access_token="")) as client:
        error = await refused(client, "create_token")
    assert error["code"] == "auth_rejected"
    assert error["retryable"] is True
    assert 50 < error["retry_after_seconds"] <= 60
    wait = error["retry_after_seconds"]
    assert error["next_step"] == f"Wait {wait} seconds, until one of that name can be made. Try again."


class Readable(MemoryKeyring):
    """As keyrings.alt has it: a keyring that keeps secrets in the clear."""


Readable.__module__ = "keyrings.alt.file"


class Chain(ChainerBackend):
    backends: ClassVar[list[Any]] = []
    priority = 10


@pytest.mark.parametrize("readable", [True, False])
async def test_a_chain_of_keyrings_is_used_only_where_none_keeps_secrets_in_the_clear(
    make_settings: Make, upstream: Served, use_keyring: Callable[[Any], None], readable: bool
) -> None:
    Chain.backends = [Keyring("none"), Readable()] if readable else [Keyring("none")]  # type: ignore[no-untyped-call]
    use_keyring(Chain())  # type: ignore[no-untyped-call]
    async with connected(make_settings(upstream.url, access_token="")) as client:
        answer = await call(client, "create_token")
    assert (answer["secret_stored_in"] == "the system's keyring") is not readable
    assert bool(MemoryKeyring.kept) is not readable


async def test_a_secret_that_the_keyring_does_not_give_is_a_missing_one(
    make_settings: Make, upstream: Served, use_keyring: Callable[[Keyring], None]
) -> None:
    settings = make_settings(upstream.url, access_token="")
    opened = Keyring("none")
    use_keyring(opened)
    async with connected(settings) as client:
        await call(client, "create_token")
    opened.trouble = "locked"
    async with connected(settings) as client:
        assert (await refused(client, "export_csv"))["code"] == "auth_missing"


async def test_a_secret_whose_file_has_gone_is_a_missing_one(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url, access_token="")
    async with connected(settings) as client:
        await call(client, "create_token")
    for file in (settings.home / "secrets").iterdir():
        file.unlink()
    async with connected(settings) as client:
        assert (await refused(client, "export_csv"))["code"] == "auth_missing"


async def test_a_secret_that_somebody_changed_is_neither_sent_nor_shown(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url, access_token="")
    async with connected(settings) as client:
        await call(client, "create_token")
    sent = len(upstream.ledger)
    next((settings.home / "secrets").iterdir()).write_text("planted\r\nX-More: planted")
    async with connected(settings) as client:
        error = await refused(client, "export_csv")
    assert error["code"] == "internal"
    assert "planted" not in json.dumps(error)
    assert len(upstream.ledger) == sent


async def test_a_disk_that_fills_up_under_a_second_token_leaves_the_first_one_whole(
    make_settings: Make, upstream: Served
) -> None:
    settings = make_settings(upstream.url, access_token="", instance="")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with connected(settings) as client:
        await call(client, "create_token", display_name="first")
        room = (settings.home / "tokens.json").stat().st_size + 100  # for one more of everything but this
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            error = await refused(client, "create_token", display_name="second")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    first, second = upstream.desk.tokens[-2:]
    held = everything_written(settings.home)
    assert second.secret not in "".join(held.values())
    assert not [name for name in held if "tokens.json" in name and name != "tokens.json"]
    async with connected(make_settings(upstream.url, access_token="")) as client:  # after a restart
        await call(client, "export_csv", granularity="by_user")
    assert error["code"] == "secret_store_unavailable"
    assert second.revoked
    assert upstream.ledger[-1].headers["authorization"] == f"Bearer {first.secret}"


async def test_a_token_that_another_process_keeps_meanwhile_stays_in_the_index(
    make_settings: Make, upstream: Served, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(upstream.url)
    index = settings.home / "tokens.json"
    async with connected(settings) as client:
        for name in ("first", "second"):
            await call(client, "create_token", display_name=name)
        both = json.loads(index.read_text())
        with (settings.home / "tokens.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "create_token", {"display_name": "third"})
                with anyio.fail_after(30), caplog.at_level(logging.DEBUG):
                    while "holds the index of tokens" not in caplog.text:
                        await anyio.lowlevel.checkpoint()
                index.write_text(json.dumps(both[:1]))  # the other one, forgotten elsewhere
                fcntl.flock(lock, fcntl.LOCK_UN)
    assert [entry["display_name"] for entry in json.loads(index.read_text())] == ["first", "third"]


async def test_a_store_that_another_process_holds_for_long_is_busy_before_anything_is_posted(
    settings: Settings, upstream: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_store, "_PATIENCE", 0.0)
    settings.home.mkdir()
    async with connected(settings) as client:
        with (settings.home / "tokens.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            begun = time.monotonic()
            error = await refused(client, "create_token", display_name="a")
            waited = time.monotonic() - begun
        await call(client, "create_token", display_name="a")
    assert (error["code"], error["retryable"]) == ("store_busy", True)
    assert waited < 10
    assert len(upstream.sent("POST")) == 1


async def test_a_token_that_is_made_while_the_store_is_held_for_long_is_revoked_again(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_store, "_PATIENCE", 0.0)
    desk = Desk()
    desk.silent = False

    async def answer(exchange: Exchange) -> None:
        await desk.answer(exchange)
        if exchange.method == "POST":
            fcntl.flock(lock, fcntl.LOCK_EX)
            await exchange.answer(json.dumps(desk.tokens[0] | {"secret": "sams_at_new-1"}).encode(), "201 Created")

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        settings.home.mkdir()
        with (settings.home / "tokens.lock").open("w") as lock:
            async with connected(settings) as client:
                error = await refused(client, "create_token", display_name="nightly")
    assert error["code"] == "store_busy"
    assert "was revoked again" in error["message"]
    assert error["next_step"].startswith(f"Wait {error['retry_after_seconds']:g} seconds")
    assert desk.tokens[0]["isExpired"]
    assert list((settings.home / "secrets").iterdir()) == []


async def test_a_revoke_is_done_though_its_entry_cannot_be_removed(settings: Settings, upstream: Served) -> None:
    lock = settings.home / "tokens.lock"
    async with connected(settings) as client:
        token = (await call(client, "create_token"))["token"]["id"]
        lock.unlink()
        lock.mkdir()
        result = await client.call_tool("revoke_token", {"token_id": token, "confirm": True})
    assert result.structured_content == {"token_id": token, "outcome": "revoked", "verified": True}
    assert "could not be removed" in text(result)
    assert upstream.desk.tokens[-1].revoked


@pytest.mark.parametrize("trouble", ["kept", "locked", "gone"])
async def test_a_secret_that_a_revoke_leaves_behind_is_said(
    make_settings: Make, upstream: Served, use_keyring: Callable[[Keyring], None], trouble: str
) -> None:
    opened = Keyring("none")
    use_keyring(opened)
    async with connected(make_settings(upstream.url)) as client:
        tokens = [(await call(client, "create_token", display_name=name))["token"]["id"] for name in ("a", "b")]
        first = await client.call_tool("revoke_token", {"token_id": tokens[0], "confirm": True})
        opened.trouble = trouble
        if trouble == "gone":
            keyring.set_keyring(fail.Keyring())  # type: ignore[no-untyped-call]
        second = await client.call_tool("revoke_token", {"token_id": tokens[1], "confirm": True})
    assert "may still be" not in text(first)
    assert "Its secret, which no longer works, may still be where this server kept it" in text(second)
    assert second.structured_content == {"token_id": tokens[1], "outcome": "revoked", "verified": True}
    assert len(MemoryKeyring.kept) == 1


async def test_a_secret_of_an_ended_token_that_stays_is_said(
    make_settings: Make, use_keyring: Callable[[Keyring], None]
) -> None:
    desk, opened = Issuing(), Keyring("none")
    use_keyring(opened)
    async with scripted_upstream(desk.answer) as fake, connected(make_settings(fake.url, access_token="")) as client:
        await call(client, "create_token", display_name="a")
        desk.end("new-0")
        await call(client, "list_tokens")
        listed = dict(MemoryKeyring.kept)
        opened.trouble = "kept"
        made = await call(client, "create_token", display_name="b")
    assert len(listed) == 1
    assert made["notes"] == [
        "Token new-0 is revoked or has expired, but the secret of it that is kept here could not be removed."
    ]


async def test_a_damaged_index_is_kept_beside_the_new_one(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url)
    index = settings.home / "tokens.json"
    async with connected(settings) as client:
        await call(client, "create_token", display_name="first")
        index.write_text(hurt := index.read_text()[:-9])
        assert not any(token["in_use"] for token in (await call(client, "list_tokens"))["tokens"])
        await call(client, "create_token", display_name="second")
    (aside,) = settings.home.glob("tokens.damaged-*.json")
    assert aside.read_text() == hurt
    assert [entry["display_name"] for entry in json.loads(index.read_text())] == ["second"]


async def test_nothing_is_posted_where_it_cannot_be_noted_first(make_settings: Make, upstream: Served) -> None:
    settings = make_settings(upstream.url)
    settings.home.mkdir()
    (settings.home / "creates").write_text("in the way")
    async with connected(settings) as client:
        error = await refused(client, "create_token")
    assert error["code"] == "store_corrupt"
    assert upstream.sent("POST") == []


async def test_a_create_that_upstream_refuses_left_nothing_to_look_for(make_settings: Make) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(_listed([]), content_type="application/json")
        else:
            await exchange.answer(b"", "403 Forbidden")

    async with scripted_upstream(answer) as fake:
        settings = make_settings(fake.url)
        async with connected(settings) as client:
            error = await refused(client, "create_token")
    assert error["code"] == "forbidden"
    assert [exchange.method for exchange in fake.exchanges] == ["GET", "POST"]
    assert list((settings.home / "creates").iterdir()) == []


async def test_a_token_whose_secret_cannot_be_sent_is_revoked(make_settings: Make) -> None:
    desk = Desk()
    desk.silent = False

    async def answer(exchange: Exchange) -> None:
        if exchange.method != "POST":
            await desk.answer(exchange)
            return
        desk.tokens.append({"id": "odd", "createdAt": datetime.now(UTC).isoformat(), "isExpired": False})
        await exchange.answer(json.dumps(desk.tokens[0] | {"secret": "two\nlines"}).encode(), "201 Created")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "create_token")
    assert error["code"] == "upstream_schema_changed"
    assert "(odd) was revoked" in error["message"]
    assert desk.tokens[0]["isExpired"]


@pytest.mark.parametrize(
    ("status", "revoked", "code", "says"),
    [
        ("500 Internal Server Error", True, None, ""),
        ("500 Internal Server Error", False, "unverified", "answered the request with upstream_unavailable"),
        ("401 Unauthorized", False, "session_expired", "cookie"),
    ],
)
async def test_only_the_list_decides_whether_a_revoke_worked(
    make_settings: Make, status: str, revoked: bool, code: str | None, says: str
) -> None:
    token = {"id": ACTIVE, "createdAt": "2026-01-01T00:00:00Z", "isExpired": False}

    async def answer(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(_listed([token]), content_type="application/json")
        else:
            token["isExpired"] = revoked
            await exchange.answer(b"", status)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        result = await client.call_tool("revoke_token", {"token_id": ACTIVE, "confirm": True})
    content = result.structured_content or {}
    if code is None:
        assert content["outcome"] == "revoked"
    else:
        assert content["error"]["code"] == code
        assert says in content["error"]["message"]


async def test_what_another_upstream_was_asked_is_left_alone_and_a_cut_note_is_removed(
    settings: Settings, upstream: Served
) -> None:
    notes = settings.home / "creates"
    notes.mkdir(parents=True)
    other: dict[str, Any] = {
        "url": "https://other.example",
        "name": None,
        "asked_at": "2026-01-01T00:00:00+00:00",
        "before": [],
    }
    (notes / "1.json").write_text(json.dumps(other))
    (notes / "2.json").write_text('{"url": "https://ot')
    async with connected(settings) as client:
        assert await told(client) == []
    assert [path.name for path in notes.iterdir()] == ["1.json"]


async def test_a_note_that_a_sweep_takes_before_it_is_locked_is_made_again(tmp_path: Path) -> None:
    """Another process may find the new file before its maker has locked it, and take it for a cut one."""
    journal, done, taken = Journal(tmp_path / "creates", "https://a.example"), threading.Event(), [0]

    def sweep() -> None:
        while not done.is_set():
            for path in (tmp_path / "creates").glob("*.json"):
                with suppress(OSError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if not file.read():
                        path.unlink()
                        taken[0] += 1

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        with anyio.fail_after(20):
            while not taken[0]:
                with journal.entry(None, datetime.now(UTC), frozenset()):
                    assert len(list((tmp_path / "creates").iterdir())) == 1
                await anyio.lowlevel.checkpoint()
    finally:
        done.set()
        sweeper.join()
    assert list((tmp_path / "creates").iterdir()) == []


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25"])
async def test_a_client_that_fails_to_ask_revokes_nothing(settings: Settings, upstream: Served, revision: str) -> None:
    async def answer(context: Any, parameters: Any) -> ErrorData:
        return ErrorData(code=-32603, message="no window")  # or closed by the person: clients do not tell

    async with connected(settings, revision, elicitation_callback=answer) as client:
        error = await refused(client, "revoke_token", token_id=ACTIVE, confirm=True)
    assert error["code"] == "cancelled"
    assert upstream.sent("DELETE") == []


@pytest.mark.parametrize("code", [-32601, -32602, -32600])
async def test_a_client_that_says_that_it_cannot_ask_must_confirm(
    settings: Settings, upstream: Served, code: int
) -> None:
    async def answer(context: Any, parameters: Any) -> ErrorData:
        return ErrorData(code=code, message="what is a dialog?")

    async with connected(settings, "2025-11-25", elicitation_callback=answer) as client:
        error = await refused(client, "revoke_token", token_id=ACTIVE)
        assert upstream.sent("DELETE") == []
        done = await call(client, "revoke_token", token_id=ACTIVE, confirm=True)
    assert (error["code"], "confirm=true" in error["next_step"]) == ("forbidden", True)
    assert done["outcome"] == "revoked"


async def test_a_dialog_that_nobody_answers_ends(
    settings: Settings, upstream: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, told_so = anyio.Event(), anyio.Event()

    async def answer(context: Any, parameters: Any) -> Any:
        asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            told_so.set()

    monkeypatch.setattr(call_module, "_LONGEST_DIALOG", 0.3)
    async with connected(settings, "2025-11-25", elicitation_callback=answer) as client:
        with anyio.fail_after(20):
            error = await refused(client, "revoke_token", token_id=ACTIVE, confirm=True)
            await told_so.wait()  # the client can close its dialog
    assert asked.is_set()
    assert error["code"] == "cancelled"
    assert upstream.sent("DELETE") == []
