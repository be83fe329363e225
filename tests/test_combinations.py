"""Any call, any trouble of upstream's, at any moment: a sample; tests/campaigns/combinations.py runs many more."""

from pathlib import Path

import anyio
import pytest

from support.canaries import COOKIE, MADE, TOKEN, leaks
from support.combinations import Case, case, logged, met
from support.troubles import KINDS, MOST, Meant, Trouble
from support.upstreams import Exchange

pytestmark = pytest.mark.anyio

SEED, CASES, AT_ONCE = 4, 110, 4


@pytest.mark.long
async def test_no_combination_of_call_trouble_and_moment_ends_in_a_false_success_a_leak_or_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    wrong: list[str] = []
    every = ((number, case(SEED, number, "http://127.0.0.1:1")) for number in range(CASES))
    quick = iter([(number, one) for number, one in every if one.tool not in ("query_usage", "list_inactive_users")])

    async def work() -> None:
        for number, one in quick:
            outcome = await met(one, tmp_path / str(number), log)
            wrong.extend(f"case {number} of seed {SEED} ({one}): {line}" for line in outcome.wrong)

    with logged() as log:
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(work)
    assert wrong == []


def lost(status: str, *, effect: bool) -> Trouble:
    async def answer(exchange: Exchange, meant: Meant) -> None:
        await exchange.answer(b"", status)

    return Trouble(status, "odd", effect, answer)


@pytest.mark.parametrize("status", ["506 Odd", "530 Edge", "599 Late"])
async def test_a_create_that_fails_in_an_odd_way_after_it_was_done_leaves_no_live_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    with logged() as log:
        outcome = await met(Case("create_token", (lost(status, effect=True),), 2, 1, "2026-07-28"), tmp_path, log)
    assert outcome.wrong == []
    assert (outcome.failed, outcome.desk.live()) == (True, set())
    assert "was revoked" in outcome.text


@pytest.mark.parametrize("first", [2, 3])
async def test_a_revoke_that_no_list_confirms_is_unverified_whatever_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    trouble = lost("599 Late", effect=True)
    with logged() as log:
        outcome = await met(Case("revoke_token", (trouble,), first, 99, "2026-07-28"), tmp_path, log)
    assert outcome.wrong == []
    assert outcome.data["error"]["code"] == "unverified"


async def test_a_new_token_that_upstream_refuses_and_that_cannot_be_revoked_is_named_and_put_right_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")

    async def refuse(exchange: Exchange, meant: Meant) -> None:
        await exchange.answer(b"", "401 Unauthorized")

    trouble = Trouble("refuses", "refused", effect=False, answer=refuse)
    with logged() as log:
        outcome = await met(Case("create_token", (trouble,), 3, 99, "2026-07-28"), tmp_path, log)
    assert outcome.wrong == []  # among it: the next start revokes it
    assert outcome.data["error"]["code"] == "unverified"
    assert outcome.desk.made[0]["id"] in outcome.text
    assert list((tmp_path / "secrets").iterdir()) == []


def test_the_search_for_secrets_finds_them_in_pieces_and_the_table_of_the_specification_has_every_column() -> None:
    for secret in (TOKEN, COOKIE, MADE):
        assert leaks(f"x {secret[9:21]} y")
        assert leaks(secret.encode().hex())
    assert not leaks("sams_at_ and nothing else; Bearer; cas=")
    assert {len(row) for row in MOST.values()} == {len(KINDS)}
