"""Tokens and upstream where the system has no more threads or descriptors: whatever was done is told as done."""

import json
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

import anyio
import keyring
import keyring.backends.chainer  # which the first create would load, from a file
import pytest
from keyring.backends import fail
from mcp import Client

from sourcegraph_analytics_mcp.exports.store import Store
from sourcegraph_analytics_mcp.settings import Settings
from support.client import call, connected, refused, text
from support.keyring_backend import MemoryKeyring
from support.threads import all_threads_taken, take_those_that_look_names_up
from support.upstreams import Exchange, Scripted, Served, scripted_upstream

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
SECRET = "sams_at_of_token_"
JSON = "application/json"


class Desk:
    """An endpoint of tokens and credits; while it answers a request with the method `takes_at` it takes all threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[dict[str, Any]] = []
        self.takes_at = ""
        self.loses = False
        self.bearers: list[str] = []
        self._monkeypatch = monkeypatch
        self._released = threading.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Scripted]:
        async with anyio.create_task_group() as self._tasks:
            try:
                async with scripted_upstream(self._answer) as fake:
                    yield fake
            finally:
                self.give_back()

    def give_back(self) -> None:
        self._monkeypatch.undo()
        self._released.set()
        self.takes_at = ""

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.method == self.takes_at:
            await all_threads_taken(self._tasks, self._released, self._monkeypatch)
            take_those_that_look_names_up(self._released)
        if "tokens" not in exchange.target:
            self.bearers.append(exchange.headers["authorization"].removeprefix("Bearer "))
            await exchange.answer(b'{"buckets": []}', content_type=JSON)
        elif exchange.method == "GET":
            await exchange.answer(json.dumps({"tokens": self.tokens}).encode(), content_type=JSON)
        elif exchange.method == "DELETE":
            for token in self.tokens:
                token["isExpired"] |= exchange.target.endswith(token["id"])
            await exchange.answer(status="204 No Content")
        else:
            await self._make(exchange)

    async def _make(self, exchange: Exchange) -> None:
        number = len(self.tokens)
        name = json.loads(exchange.body).get("displayName")
        made = {"id": f"t-{number}", "displayName": name, "createdAt": datetime.now(UTC).isoformat()}
        self.tokens.append(made | {"isExpired": False})
        if self.loses:
            await exchange.answer(status="500 Internal Server Error")
        else:
            body = json.dumps(made | {"secret": f"{SECRET}{number}"}).encode()
            await exchange.answer(body, "201 Created", JSON)

    @property
    def live(self) -> list[str]:
        return [token["id"] for token in self.tokens if not token["isExpired"]]


@pytest.fixture
def desk() -> Iterator[Desk]:
    with pytest.MonkeyPatch.context() as patched:
        yield Desk(patched)


class Asking(MemoryKeyring):
    """A keyring that asks whoever it can; it notes where that would have held up every call."""

    asked_in_loop: ClassVar[list[str]] = []

    def get_password(self, service: str, username: str) -> str | None:
        self._asks("get")
        return super().get_password(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        self._asks("set")
        super().set_password(service, username, password)

    def delete_password(self, service: str, username: str) -> None:
        self._asks("delete")
        super().delete_password(service, username)

    def _asks(self, what: str) -> None:
        if threading.current_thread() is threading.main_thread():
            self.asked_in_loop.append(what)


@pytest.fixture
def asking() -> Iterator[None]:
    keyring.set_keyring(Asking())  # type: ignore[no-untyped-call]
    yield
    keyring.set_keyring(fail.Keyring())  # type: ignore[no-untyped-call]
    Asking.kept.clear()
    Asking.asked_in_loop.clear()


def kept(settings: Settings) -> list[str]:
    return [token["id"] for token in json.loads((settings.home / "tokens.json").read_text())]


async def test_a_token_that_is_made_while_the_last_thread_goes_is_kept_and_used(
    make_settings: Make, desk: Desk
) -> None:
    async with desk.open() as fake, connected(make_settings(fake.url, access_token="", instance="")) as client:
        desk.takes_at = "POST"
        made = await call(client, "create_token", display_name="nightly")
        assert made["token"]["id"] == "t-0"
        assert threading.Thread.start.__name__ == "refuse"  # still
        desk.give_back()
    settings = make_settings(fake.url, access_token="")
    assert (kept(settings), desk.live) == (["t-0"], ["t-0"])
    assert list((settings.home / "creates").iterdir()) == []
    assert [path.read_text() for path in (settings.home / "secrets").iterdir()] == [f"{SECRET}0"]


async def test_a_token_that_is_revoked_while_the_last_thread_goes_is_forgotten_and_said_to_be_revoked(
    make_settings: Make, desk: Desk
) -> None:
    async with desk.open() as fake:
        settings = make_settings(fake.url, access_token="", instance="")
        async with connected(settings) as client:
            await call(client, "create_token", display_name="older")
            await call(client, "create_token", display_name="nightly")
            desk.takes_at = "DELETE"
            answer = await client.call_tool("revoke_token", {"token_id": "t-1", "confirm": True})
            desk.give_back()
    assert answer.is_error is False
    assert "Token t-1 was revoked, and the token list confirms it." in text(answer)
    assert text(answer).endswith("It was the one this server used; check_connection says what exports use now.")
    assert (kept(settings), desk.live) == (["t-0"], ["t-0"])
    assert len(list((settings.home / "secrets").iterdir())) == 1


async def test_a_token_whose_secret_was_lost_is_revoked_also_while_there_are_no_threads(
    make_settings: Make, desk: Desk
) -> None:
    desk.loses = True
    async with desk.open() as fake, connected(make_settings(fake.url)) as client:
        desk.takes_at = "POST"
        error = await refused(client, "create_token", display_name="nightly")
        desk.give_back()
    assert "The token it had made (t-0) was revoked, as its secret was lost." in error["message"]
    assert desk.live == []


async def test_what_asks_a_keyring_never_waits_in_the_loop_and_leaves_no_token_whose_secret_is_lost(
    make_settings: Make, desk: Desk, asking: None
) -> None:
    async with desk.open() as fake, connected(make_settings(fake.url, access_token="", instance="")) as client:
        desk.takes_at = "POST"
        error = await refused(client, "create_token", display_name="nightly")
        desk.give_back()
    assert (error["code"], error["retryable"]) == ("busy", True)
    assert "The new token t-0 was revoked again; nothing usable remains." in error["message"]
    assert error["next_step"] == (
        f"Wait {error['retry_after_seconds']} seconds, until one of that name can be made. Try again; if it stays so, "
        "the limits that the server runs under have to be raised."
    )
    assert (desk.live, Asking.kept, Asking.asked_in_loop) == ([], {}, [])


async def test_a_revoke_says_what_a_keyring_keeps_where_no_thread_can_ask_it(
    make_settings: Make, desk: Desk, asking: None
) -> None:
    async with desk.open() as fake, connected(make_settings(fake.url, access_token="", instance="")) as client:
        await call(client, "create_token", display_name="nightly")
        desk.takes_at = "DELETE"
        answer = await client.call_tool("revoke_token", {"token_id": "t-0", "confirm": True})
        assert Asking.asked_in_loop == []
        desk.give_back()
        again = await call(client, "revoke_token", token_id="t-0", confirm=True)
    assert "Token t-0 was revoked, and the token list confirms it." in text(answer)
    assert "may still be where this server kept it" in text(answer)
    assert again["outcome"] == "already_expired"
    assert (desk.live, Asking.kept, Asking.asked_in_loop) == ([], {}, [])


async def test_without_threads_nothing_is_posted_and_the_call_is_busy(make_settings: Make, desk: Desk) -> None:
    async with desk.open() as fake, connected(make_settings(fake.url)) as client:
        await call(client, "list_tokens")
        desk.takes_at = "GET"
        await call(client, "list_tokens")
        error = await refused(client, "create_token", display_name="nightly")
        assert (error["code"], error["retryable"]) == ("busy", True)
        assert desk.tokens == []
        desk.give_back()
        assert (await call(client, "create_token", display_name="nightly"))["token"]["id"] == "t-0"


async def test_a_revoke_after_which_no_name_can_be_looked_up_is_not_said_to_be_undone(
    make_settings: Make, desk: Desk
) -> None:
    async with desk.open() as fake:
        url = fake.url.replace("127.0.0.1", "localhost")
        async with connected(make_settings(url)) as client:
            await call(client, "create_token", display_name="nightly")
            desk.takes_at = "DELETE"
            error = await refused(client, "revoke_token", token_id="t-0", confirm=True)
            desk.give_back()
    assert error["code"] == "unverified"
    assert "The tokens cannot be listed (busy)" in error["message"]


@pytest.mark.parametrize("tool", ["get_credits", "list_tokens", "create_token"])
async def test_where_no_connection_can_be_opened_it_is_busy_and_not_the_network(
    settings: Settings, upstream: Served, tool: str
) -> None:
    async with connected(settings) as client:
        await call(client, "list_tokens")
        await call(client, "get_credits")
        before = len(upstream.ledger)
        assert await without_descriptors(client, tool) == ("busy", True)
        assert len(upstream.ledger) == before
        await call(client, "get_credits")


@pytest.mark.parametrize("addresses", [(), ("127.0.0.1",), ("127.0.0.1", "127.0.0.2")])
async def test_also_where_upstream_has_a_name(
    make_settings: Make, upstream: Served, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    """To look one up takes a descriptor, too; there may be one for that and none for its addresses."""
    port = int(upstream.url.rpartition(":")[2])
    async with connected(make_settings(f"http://localhost:{port}")) as client:
        await call(client, "get_credits")
        if addresses:
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert await without_descriptors(client, "get_credits") == ("busy", True)


@pytest.mark.parametrize("error", [MemoryError(), ExceptionGroup("several", [ValueError(), MemoryError()])])
async def test_where_there_is_no_memory_it_is_busy_whoever_needed_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(_: Store) -> None:
        raise error

    async with connected(settings) as client:
        monkeypatch.setattr(Store, "exports", fails)
        told = await refused(client, "list_exports")
    assert (told["code"], told["retryable"]) == ("busy", True)


async def without_descriptors(client: Client, tool: str) -> tuple[str, bool]:
    """The error of a call while no file or connection can be opened: its code, and whether it may be tried again."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)  # the lowest that is
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        result = await client.call_tool(tool, {})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert result.structured_content is not None
    error = result.structured_content["error"]
    assert "open files" in error["message"]
    return error["code"], error["retryable"]
