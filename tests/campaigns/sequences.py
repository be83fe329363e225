"""Any sequence of exports, questions, deletions, faults, restarts, damage, age agrees with a model of what is kept.

    python tests/campaigns/sequences.py --count 200 --steps 30 --jobs 2 --seed 1

Each job takes its share of the sequences, from a seed of its own.
"""

import fcntl
import json
import logging
import os
import secrets
import sys
import tempfile
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hypothesis
from anyio.from_thread import start_blocking_portal
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import COUNTS, Company
from sourcegraph_analytics_mcp.demo.reports import report
from support.campaign import arguments, for_many_servers, reporter, settings
from support.client import call, connected, refused, schemas_checked_once
from support.upstreams import Exchange, scripted_upstream

TODAY = datetime.now(UTC).date()
COMPANY = Company.made_up(TODAY, people=3, days=20)
GRAINS = ("by_user", "by_user_month", "by_user_day", "by_user_day_client_language")
RETENTION = 30  # days; the server's default
done: Counter[str] = Counter()


def searches(start_ago: int) -> int | None:
    rows = [a for a in COMPANY.activities if a.day >= TODAY - timedelta(days=start_ago)]
    counted = [row.counts[COUNTS.index("searches")] for row in rows]
    there = [count for count in counted if count is not None]
    return sum(there) if there else None


def hour() -> int:
    return int(datetime.now(UTC).timestamp()) // 3600


class Kept(RuleBasedStateMachine):
    """The model: which exports there must be, what each was asked for, and in which hour."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name)
        self.portal_manager = start_blocking_portal()
        self.portal = self.portal_manager.__enter__()
        self.fault: bytes | None = None
        self.exports: dict[str, tuple[str, int, int]] = {}
        self.upstream: Any = None
        self.client: Any = None

    async def _answer(self, exchange: Exchange) -> None:
        if self.fault is not None:
            await exchange.send(self.fault)
            return
        if "by-user" not in exchange.target:
            await exchange.answer(b'{"tokens": []}', content_type="application/json")
            return
        query = dict(part.split("=") for part in exchange.target.split("?")[1].split("&"))
        start = datetime.fromisoformat(query["startDate"]).date() if "startDate" in query else None
        await exchange.answer("".join(report(COMPANY, query["granularity"], start, None)).encode())

    @initialize()
    def begin(self) -> None:
        self.upstream_manager = self.portal.wrap_async_context_manager(scripted_upstream(self._answer))
        self.upstream = self.upstream_manager.__enter__()
        self._connect()

    def _connect(self, **more: object) -> None:
        self.client_manager = self.portal.wrap_async_context_manager(
            connected(settings(self.upstream.url, self.home / "data", **more))
        )
        self.client = self.client_manager.__enter__()

    def _call(self, tool: str, **given: object) -> Any:
        done["calls"] += 1
        return self.portal.call(lambda: call(self.client, tool, **given))

    def _listed(self) -> set[str]:
        """Every export on every page."""
        page = self._call("list_exports", limit=100)
        listed = [export["id"] for export in page["exports"]]
        while page["next_cursor"]:
            page = self._call("list_exports", limit=100, cursor=page["next_cursor"])
            listed += [export["id"] for export in page["exports"]]
        assert len(listed) == len(set(listed))
        return set(listed)

    def _named(self, which: int) -> str:
        return list(self.exports)[which % len(self.exports)]  # ids are random, their order is not

    def _path(self, export: str) -> Path:
        return self.home / "data" / "exports" / export

    def _meta(self, export: str) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self._path(export) / "meta.json").read_text())
        return meta

    @rule(grain=st.sampled_from(GRAINS), ago=st.sampled_from((3, 10, 30)), refresh=st.booleans())
    def export(self, grain: str, ago: int, refresh: bool) -> None:
        done["steps"] += 1
        asked = {"granularity": grain, "start_date": (TODAY - timedelta(days=ago)).isoformat(), "refresh": refresh}
        began = hour()
        same = {i for i, facts in self.exports.items() if facts == (grain, ago, began)}
        if self.fault is not None and (refresh or not same):
            self.portal.call(lambda: refused(self.client, "export_csv", **asked))
            done["refused"] += 1
            self.fault = None if refresh else self.fault  # most steps need an upstream that is well
            return
        export = self._call("export_csv", **asked)["export"]
        if hour() == began:  # else either is right
            assert export["reused"] == (bool(same) and not refresh)
        assert not export["reused"] or export["id"] in same
        if not export["reused"]:
            done["exports"] += 1
            self.exports[export["id"]] = (grain, ago, began)

    @precondition(lambda self: self.fault is None)
    @rule(grain=st.sampled_from(GRAINS))
    def export_again(self, grain: str) -> None:
        self.export(grain, 10, refresh=True)

    @rule(ago=st.sampled_from((3, 10, 30)))
    def ask(self, ago: int) -> None:
        done["steps"] += 1
        if self.fault is not None:
            return
        asked = {"metrics": ["searches"], "start_date": (TODAY - timedelta(days=ago)).isoformat()}
        answer = self._call("query_usage", **asked)
        assert answer["totals"] == [searches(ago)]
        for made in set(answer["export_ids"]) - self.exports.keys():
            self.exports[made] = ("asked for by a question, so with an end", ago, hour())

    @rule()
    def check(self) -> None:
        done["steps"] += 1
        store = next(check for check in self._call("check_connection")["checks"] if check["name"] == "store")
        assert store["detail"].startswith(f"{len(self.exports)} export")

    @rule(which=st.integers(0, 9))
    def delete(self, which: int) -> None:
        done["steps"] += 1
        if self.exports:
            gone = self._named(which)
            assert self._call("delete_export", export_id=gone)["deleted"]
            del self.exports[gone]

    @rule()
    def restart(self) -> None:
        done["steps"] += 1
        self.fault = None
        self._restarted()

    @rule(fault=st.sampled_from((None, None, None, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nInstance", b"junk",
                                 b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")))  # fmt: skip
    def break_upstream(self, fault: bytes | None) -> None:
        done["steps"] += 1
        self.fault = fault

    @precondition(lambda self: self.exports)
    @rule(which=st.integers(0, 9), days=st.sampled_from((0.1, 5, 29, 31, 400)), retention=st.sampled_from((3, 30, 365)))
    def age(self, which: int, days: float, retention: int) -> None:
        """As if time had passed for one export: a restart with some retention sweeps what is too old, and no more."""
        done["steps"] += 1
        aged = self._named(which)
        made = datetime.now(UTC) - timedelta(days=days)
        (self._path(aged) / "meta.json").write_text(json.dumps(self._meta(aged) | {"created_at": made.isoformat()}))
        self.exports[aged] = (*self.exports[aged][:2], -1)  # of an hour that has passed
        created = {export: datetime.fromisoformat(self._meta(export)["created_at"]) for export in self.exports}
        for most in (retention, RETENTION):
            self._restarted(retention_days=most)
            oldest = datetime.now(UTC) - timedelta(days=most)
            self.exports = {export: facts for export, facts in self.exports.items() if created[export] >= oldest}
            self.kept_is_what_should_be()

    @precondition(lambda self: self.exports)
    @rule(share=st.floats(0.01, 1))
    def fill(self, share: float) -> None:
        """A restart with less room: the oldest go, and any that does not fit beside newer ones."""
        done["steps"] += 1
        metas = sorted((self._meta(e) for e in self.exports), key=lambda m: (m["created_at"], m["id"]), reverse=True)
        room, used = max(1, int(share * sum(meta["stored_bytes"] for meta in metas))), 0
        self._restarted(max_store_bytes=room)
        for meta in metas:
            if used + meta["stored_bytes"] > room:
                del self.exports[meta["id"]]
            else:
                used += meta["stored_bytes"]
        self.kept_is_what_should_be()
        self._restarted()

    @precondition(lambda self: self.exports)
    @rule(which=st.integers(0, 9), how=st.sampled_from(("bit", "no part", "short", "long", "meta", "no meta")))
    def damage(self, which: int, how: str) -> None:
        """A damaged export is refused by the next process, and can be deleted; the others are as they were."""
        done["steps"] += 1
        hurt = self._named(which)
        self._damage(self._path(hurt), how)
        self._restarted()
        assert self._listed() == set(self.exports) - ({hurt} if "meta" in how else set())
        asked = {"export_id": hurt, "sql": "SELECT 1"}
        error = self.portal.call(lambda: refused(self.client, "query_export", **asked))
        assert error["code"] == ("not_found" if "meta" in how else "store_corrupt")
        assert self._call("delete_export", export_id=hurt)["deleted"]
        del self.exports[hurt]

    def _damage(self, folder: Path, how: str) -> None:
        part, csv, meta = next((folder / "parts").iterdir()), folder / "export.csv", folder / "meta.json"
        match how:
            case "bit":
                data = bytearray(part.read_bytes())
                data[len(data) // 2] ^= 4
                part.write_bytes(data)
            case "no part":
                part.unlink()
            case "short":
                csv.write_bytes(csv.read_bytes()[:-1])
            case "long":
                csv.write_bytes(csv.read_bytes() + b"x")
            case "meta":
                meta.write_bytes(meta.read_bytes()[:-9])
            case _:
                meta.unlink()

    @rule()
    def abandon(self) -> None:
        """What dead processes left in staging goes at the next start; what a living one makes there stays."""
        done["steps"] += 1
        staging = self.home / "data" / "staging"
        self._call("check_connection")
        for name in (secrets.token_hex(16), f"deleted-{secrets.token_hex(8)}"):
            (staging / name / "parts").mkdir(parents=True, mode=0o700)
            (staging / name / "export.csv").write_bytes(b"half")
            (staging / name / ".lock").touch(0o600)
        mine = staging / secrets.token_hex(16)
        mine.mkdir(mode=0o700)
        lock = os.open(mine / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self._restarted()
        assert [path.name for path in staging.iterdir()] == [mine.name]
        os.close(lock)
        self._call("check_connection")

    def _restarted(self, **more: object) -> None:
        """A new process' eyes, after its sweep."""
        self.client_manager.__exit__(None, None, None)
        self._connect(**more)
        self._call("list_exports", limit=1)

    @invariant()
    def kept_is_what_should_be(self) -> None:
        if self.client is None:
            return
        assert self._listed() == set(self.exports)
        assert {p.name for p in (self.home / "data" / "exports").glob("*")} == set(self.exports)
        staging = self.home / "data" / "staging"
        assert not staging.exists() or not list(staging.iterdir())

    def teardown(self) -> None:
        if self.client is not None:
            self.client_manager.__exit__(None, None, None)
            self.upstream_manager.__exit__(None, None, None)
        self.portal_manager.__exit__(None, None, None)
        self.folder.cleanup()


def run(seed: int, count: int, steps: int, shrink: int) -> tuple[Counter[str], list[str]]:
    """So many sequences; what was done, and what was wrong."""
    for_many_servers()
    logging.disable()
    options = hypothesis.settings(
        max_examples=count, stateful_step_count=steps, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, *((hypothesis.Phase.shrink,) if shrink else ())),
    )  # fmt: skip
    try:
        with schemas_checked_once():
            run_state_machine_as_test(hypothesis.seed(seed)(Kept), settings=options)
    except (AssertionError, ExceptionGroup) as error:
        traceback.print_exception(error)
        return done, [f"seed {seed}: {error!r}"]
    return done, []


def main() -> int:
    asked = arguments(__doc__, 200, steps=(30, "steps of each"), jobs=(2, "processes"),
                      shrink=(0, "1 makes a failure smaller, which takes long"))  # fmt: skip
    report_, wrong, counted = reporter("sequences", asked), list[str](), Counter[str]()
    each = partial(run, count=-(-asked.count // asked.jobs), steps=asked.steps, shrink=asked.shrink)
    begun = datetime.now(UTC)
    with ProcessPoolExecutor(asked.jobs, get_context("spawn")) as pool:
        for found, bad in pool.map(each, [asked.seed * 1000 + job for job in range(asked.jobs)]):
            counted += found
            wrong += bad
    seconds = (datetime.now(UTC) - begun).total_seconds()
    numbers = {name: counted[name] for name in ("steps", "calls", "exports", "refused")}
    return report_(wrong, **numbers,
                   steps_a_second=round(counted["steps"] / seconds, 1))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
