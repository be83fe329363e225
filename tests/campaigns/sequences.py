"""Any sequence of exports, questions, deletions, faults and restarts agrees with a model of what is kept.

python tests/campaigns/sequences.py --count 200 --seed 1
"""

import logging
import sys
import tempfile
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
from anyio.from_thread import start_blocking_portal
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import COUNTS, Company
from sourcegraph_analytics_mcp.demo.reports import report
from support.campaign import arguments, reporter, settings
from support.client import call, connected, refused
from support.upstreams import Exchange, scripted_upstream

TODAY = datetime.now(UTC).date()
COMPANY = Company.made_up(TODAY, people=5, days=20)
GRAINS = ("by_user", "by_user_month", "by_user_day", "by_user_day_client_language")
STEPS = 30
done = {"steps": 0}


def searches(start_ago: int) -> int | None:
    rows = [a for a in COMPANY.activities if a.day >= TODAY - timedelta(days=start_ago)]
    counted = [row.counts[COUNTS.index("searches")] for row in rows]
    there = [count for count in counted if count is not None]
    return sum(there) if there else None


class Kept(RuleBasedStateMachine):
    """The model: which exports there must be."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name)
        self.portal_manager = start_blocking_portal()
        self.portal = self.portal_manager.__enter__()
        self.fault: bytes | None = None
        self.exports: dict[str, tuple[str, int]] = {}
        self.upstream: Any = None
        self.client: Any = None

    async def _answer(self, exchange: Exchange) -> None:
        if self.fault is not None:
            await exchange.send(self.fault)
            return
        query = dict(part.split("=") for part in exchange.target.split("?")[1].split("&"))
        start = datetime.fromisoformat(query["startDate"]).date() if "startDate" in query else None
        await exchange.answer("".join(report(COMPANY, query["granularity"], start, None)).encode())

    @initialize()
    def begin(self) -> None:
        self.upstream_manager = self.portal.wrap_async_context_manager(scripted_upstream(self._answer))
        self.upstream = self.upstream_manager.__enter__()
        self._connect()

    def _connect(self) -> None:
        self.client_manager = self.portal.wrap_async_context_manager(
            connected(settings(self.upstream.url, self.home / "data"))
        )
        self.client = self.client_manager.__enter__()

    @rule(grain=st.sampled_from(GRAINS), ago=st.sampled_from((3, 10, 30)), refresh=st.booleans())
    def export(self, grain: str, ago: int, refresh: bool) -> None:
        done["steps"] += 1
        asked = {"granularity": grain, "start_date": (TODAY - timedelta(days=ago)).isoformat(), "refresh": refresh}
        same = {i for i, facts in self.exports.items() if facts == (grain, ago)}
        if self.fault is not None and (refresh or not same):
            self.portal.call(lambda: refused(self.client, "export_csv", **asked))
            return
        export = self.portal.call(lambda: call(self.client, "export_csv", **asked))["export"]
        assert export["reused"] == (bool(same) and not refresh)
        assert not export["reused"] or export["id"] in same
        self.exports[export["id"]] = (grain, ago)

    @rule(ago=st.sampled_from((3, 10, 30)))
    def ask(self, ago: int) -> None:
        done["steps"] += 1
        if self.fault is not None:
            return
        asked = {"metrics": ["searches"], "start_date": (TODAY - timedelta(days=ago)).isoformat()}
        answer = self.portal.call(lambda: call(self.client, "query_usage", **asked))
        assert answer["totals"] == [searches(ago)]
        for made in set(answer["export_ids"]) - self.exports.keys():
            self.exports[made] = ("asked for by a question, so with an end", ago)

    @rule(which=st.integers(0, 9))
    def delete(self, which: int) -> None:
        done["steps"] += 1
        if self.exports:
            gone = list(self.exports)[which % len(self.exports)]  # ids are random, their order is not
            assert self.portal.call(lambda: call(self.client, "delete_export", export_id=gone))["deleted"]
            del self.exports[gone]

    @rule()
    def restart(self) -> None:
        done["steps"] += 1
        self.client_manager.__exit__(None, None, None)
        self._connect()

    @rule(fault=st.sampled_from((None, None, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nInstance", b"junk",
                                 b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")))  # fmt: skip
    def break_upstream(self, fault: bytes | None) -> None:
        done["steps"] += 1
        self.fault = fault

    @invariant()
    def kept_is_what_should_be(self) -> None:
        if self.client is None:
            return
        listed = self.portal.call(lambda: call(self.client, "list_exports", limit=100))["exports"]
        assert {e["id"] for e in listed} == set(self.exports)
        assert {p.name for p in (self.home / "data" / "exports").glob("*")} == set(self.exports)
        staging = self.home / "data" / "staging"
        assert not staging.exists() or not list(staging.iterdir())

    def teardown(self) -> None:
        if self.client is not None:
            self.client_manager.__exit__(None, None, None)
            self.upstream_manager.__exit__(None, None, None)
        self.portal_manager.__exit__(None, None, None)
        self.folder.cleanup()


def main() -> int:
    asked = arguments(__doc__, 200)
    logging.disable()
    report_, wrong = reporter("sequences", asked), list[str]()
    options = hypothesis.settings(
        max_examples=asked.count, stateful_step_count=STEPS, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    try:
        run_state_machine_as_test(hypothesis.seed(asked.seed)(Kept), settings=options)
    except AssertionError as error:
        traceback.print_exception(error)
        wrong.append(repr(error))
    return report_(wrong, sequences=asked.count, steps=done["steps"])


if __name__ == "__main__":
    sys.exit(main())
