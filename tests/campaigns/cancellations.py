"""Cancel a call, close the input, or send a signal at any moment of every tool's work: it stops, and nothing is left.

python tests/campaigns/cancellations.py --count 100 --seed 1
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import start_blocking_portal

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, named, reporter, settings, shared
from support.client import call, connected
from support.engines import engines
from support.stdio import META, Raw, spawned
from support.upstreams import Exchange, scripted_upstream

STOPS_WITHIN, EXITS_WITHIN = 1.0, 2.0  # seconds
TOKEN = "00000000-0000-0000-0000-000000000007"
COMPANY = Company.made_up(datetime.now(UTC).date(), people=60, days=90)
USAGE = {"metrics": ["active_users", "searches"], "group_by": ["month", "user"], "period": "last_90_days"}
BOMB = "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 7"
SHORT = "SELECT language, sum(searches), count(DISTINCT instance_user_id) FROM usage GROUP BY 1 ORDER BY 2"


@dataclass(frozen=True)
class Work:
    """A call, what upstream does meanwhile, and whether the call can end by itself.

    Args:
        trouble: "silent" never answers, "stall" stops in the middle, "wait" asks to come back, "" is well; for the
            requests whose method and path begin with `of`.
    """

    tool: str
    arguments: dict[str, Any]
    trouble: str = ""
    of: str = ""
    endless: bool = True
    asks: bool = False

    def __str__(self) -> str:
        return f"{self.tool} {self.trouble}{' confirming' if self.asks else ''}".strip()


FRESH = {"refresh": True}
WORKS = (
    Work("export_csv", FRESH, "stall"), Work("export_csv", FRESH, "silent"), Work("export_csv", FRESH, "wait"),
    Work("export_csv", FRESH, endless=False), Work("query_usage", USAGE | FRESH, "stall"),
    Work("query_usage", USAGE | FRESH, endless=False), Work("query_usage", USAGE, endless=False),
    Work("chart_usage", USAGE, endless=False), Work("list_inactive_users", {"days": 9}, "stall"),
    Work("list_inactive_users", {"days": 9}, endless=False), Work("query_export", {"sql": BOMB}),
    Work("query_export", {"sql": SHORT}, endless=False), Work("get_credits", {}, "silent"),
    Work("get_credits", {}, "wait"), Work("check_connection", {}, "silent"), Work("list_tokens", {}, "silent"),
    Work("list_tokens", {}, "wait"), Work("create_token", {}, "silent", "POST"),
    Work("create_token", {}, "silent", "GET /api/credits"),
    Work("revoke_token", {"token_id": TOKEN, "confirm": True}, "silent", "DELETE"),
    Work("revoke_token", {"token_id": TOKEN}, asks=True),
)  # fmt: skip


@dataclass
class Upstream:
    """One server's upstream: how it behaves now, which requests it has had, and how many are open."""

    work: Work | None = None
    asked: int = 0
    open: int = 0
    bodies: dict[str, bytes] = field(default_factory=dict)

    async def answer(self, exchange: Exchange) -> None:
        self.asked += 1
        self.open += 1
        try:
            await self._answer(exchange, self.work)
        finally:
            self.open -= 1

    async def _answer(self, exchange: Exchange, work: Work | None) -> None:
        there = work is not None and f"{exchange.method} {exchange.target}".startswith(work.of)
        trouble = work.trouble if work is not None and there else ""
        body, kind = self._body(exchange)
        if trouble == "wait":
            await exchange.answer(b"", "503 Busy", extra="Retry-After: 1\r\n")
        elif trouble == "silent":
            await exchange.stream.receive()  # until the other side gives up
        elif trouble == "stall":
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[: len(body) // 2])
            await exchange.stream.receive()
        else:
            status = {"POST": "201 Created", "DELETE": "204 No Content"}.get(exchange.method, "200 OK")
            await exchange.answer(body, status, kind)

    def _body(self, exchange: Exchange) -> tuple[bytes, str]:
        token = {"id": TOKEN, "createdAt": "2026-01-01T00:00:00Z", "isExpired": False, "secret": "sams_at_x.y" * 3}
        if exchange.method == "POST":
            return json.dumps(token).encode(), "application/json"
        if exchange.method == "DELETE":
            return b"", "text/plain"
        if "access-tokens" in exchange.target:
            del token["secret"]
            return json.dumps({"tokens": [token]}).encode(), "application/json"
        if "by-user" in exchange.target:
            return self._report(exchange.target), "text/csv"
        return b"{}", "application/json"

    def _report(self, target: str) -> bytes:
        if target not in self.bodies:
            query = dict(part.split("=") for part in target.split("?")[1].split("&"))
            days = [date.fromisoformat(query[k]) if k in query else None for k in ("startDate", "endDate")]
            self.bodies[target] = "".join(COMPANY.report(query["granularity"], *days)).encode()
        return self.bodies[target]


class Listener(threading.Thread):
    """Everything that the server says, with nobody waiting for it."""

    def __init__(self, raw: Raw) -> None:
        super().__init__(daemon=True)
        self._raw = raw
        self.said: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        assert self._raw.process.stdout is not None
        with suppress(ValueError, OSError):
            for line in self._raw.process.stdout:
                self.said.append(json.loads(line))

    def places(self, number: int) -> list[int]:
        """Where the answers to a request are among all that was said."""
        return [at for at, m in enumerate(list(self.said)) if m.get("id") == number and "method" not in m]

    def wait(self, number: int, seconds: float = 20) -> dict[str, Any]:
        if not until(lambda: bool(self.places(number)), seconds):
            raise AssertionError(f"no answer to request {number}")
        return self.said[self.places(number)[0]]


def until(true: Any, seconds: float) -> bool:
    """Whether something becomes true in that time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found |= {int(child)} | descendants(int(child))
    return found


def running(pids: set[int]) -> list[int]:
    """Those that are still there, and not only waiting to be counted by their parent."""
    there = []
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                there.append(pid)
    return there


@contextmanager
def server(home: Path, template: Path, revision: str) -> Iterator[tuple[Raw, Listener, Upstream, Path, str]]:
    """A server with exports of its own, and an upstream of its own."""
    shutil.copytree(template, home / "data")
    export = next((home / "data" / "exports").iterdir()).name
    upstream = Upstream()
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(scripted_upstream(upstream.answer)) as served,
        spawned(home, revision=revision, sql_timeout="60", lifetime=120, **named(served.url, home / "data")) as raw,
    ):
        if revision == "2026-07-28":
            raw.handshake()
        else:
            about = {"protocolVersion": revision, "capabilities": {"elicitation": {}}, "clientInfo": META_CLIENT}
            raw.ask("initialize", about)
            raw.send("notifications/initialized", answered=False)
        yield raw, Listener(raw), upstream, home / "data", export


META_CLIENT = META["io.modelcontextprotocol/clientInfo"]


def begun(raw: Raw, work: Work, upstream: Upstream, export: str) -> int:
    upstream.work = work
    more = {"export_id": export} if work.tool == "query_export" else {}
    return raw.send("tools/call", {"name": work.tool, "arguments": work.arguments | more})


def cancelled(place: tuple[Raw, Listener, Upstream, Path, str], work: Work, rng: random.Random) -> Iterator[str]:
    """Cancel a call at some moment; what is wrong afterwards."""
    raw, listener, upstream, data, export = place
    before = set(engines(raw.process.pid))
    number = begun(raw, work, upstream, export)
    time.sleep(rng.uniform(0, 0.5))
    for _ in range(rng.choice((1, 1, 1, 3))):
        raw.send("notifications/cancelled", {"requestId": number}, answered=False)
    if rng.random() < 0.2:
        raw.send("notifications/cancelled", {"requestId": 99_999}, answered=False)
    begin, after = time.monotonic(), raw.send("prompts/list")
    listener.wait(after)  # by then the server knows

    def still() -> bool:
        new = running(set(engines(raw.process.pid)) - before)
        return upstream.open == 0 and (not new or bool(listener.places(number))) and not left(data)

    if not until(still, STOPS_WITHIN):
        new = running(set(engines(raw.process.pid)) - before)
        yield f"not still after {STOPS_WITHIN:g} s: {upstream.open} open, engines {new}, {left(data)}"
    asked = upstream.asked
    time.sleep(max(0.1, begin + 1.3 - time.monotonic()) if work.trouble == "wait" else 0.1)
    if upstream.asked != asked:
        yield "upstream was asked again"
    answers = listener.places(number)
    if work.tool == "create_token" and answers and "[busy]" in str(listener.said[answers[0]]):
        return  # there are only three an hour
    if len(answers) > 1 or (answers and (work.endless or answers[0] > listener.places(after)[0])):
        yield f"answered: {str(listener.said[answers[0]])[:200]}"


def left(data: Path) -> list[str]:
    staging = data / "staging"
    return sorted(p.name for p in staging.iterdir()) if staging.exists() else []


def ended(place: tuple[Raw, Listener, Upstream, Path, str], work: Work, how: str, rng: random.Random) -> Iterator[str]:
    """End the process at some moment of a call; what is wrong afterwards."""
    raw, _, upstream, data, export = place
    begun(raw, work, upstream, export)
    time.sleep(rng.uniform(0, 0.7))
    children = descendants(raw.process.pid)
    wanted = 0 if how == "EOF" else 128 + signal.Signals[how]
    begin = time.monotonic()
    if how == "EOF":
        assert raw.process.stdin is not None
        raw.process.stdin.close()
    else:
        raw.process.send_signal(signal.Signals[how])
    try:
        code = raw.process.wait(10)
    except subprocess.TimeoutExpired:
        code = None
    seconds = time.monotonic() - begin
    if code != wanted:
        yield f"exit {code} instead of {wanted}"
    if seconds > EXITS_WITHIN:
        yield f"ended after {seconds:.1f} s"
    if not until(lambda: not running(children) and upstream.open == 0, 0.5):
        yield f"left behind: children {running(children)}, {upstream.open} connections"
    if left(data):
        yield f"left in staging: {left(data)}"


def point(number: int, seed: int, template: Path, home: Path, seen: Counter[str]) -> Iterator[str]:
    """One server: some calls cancelled, and then an end in the middle of another."""
    rng = random.Random(f"{seed}/{number}")
    revision = rng.choice(("2026-07-28", "2025-11-25"))
    works = [work for work in WORKS if not work.asks or revision != "2026-07-28"]
    home.mkdir()
    with server(home, template, revision) as place:
        for _ in range(4):
            work = rng.choice(works)
            seen["cancelled"] += 1
            yield from (f"{revision}, cancel {work}: {line}" for line in cancelled(place, work, rng))
        work, how = rng.choice(works), rng.choice(("EOF", "EOF", "SIGTERM", "SIGINT", "SIGHUP"))
        seen["ended by EOF" if how == "EOF" else "ended by a signal"] += 1
        yield from (f"{revision}, {how} in {work}: {line}" for line in ended(place, work, how, rng))


async def made(folder: Path) -> Path:
    """A data directory with what the questions need."""
    upstream = Upstream()
    async with (
        scripted_upstream(upstream.answer) as served,
        connected(settings(served.url, folder / "template")) as client,
    ):
        await call(client, "query_usage", **USAGE)
        await call(client, "export_csv", start_date=(datetime.now(UTC).date() - timedelta(days=30)).isoformat())
    return folder / "template"


def main() -> int:
    asked = arguments(__doc__, 100, jobs=(3, "servers at once"))
    report, wrong, seen = reporter("cancellations", asked), list[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        template = anyio.run(made, Path(folder))
        servers = range(-(-asked.count // 5))

        def one(number: int) -> None:
            found = list(point(number, asked.seed, template, Path(folder) / str(number), seen))
            wrong.extend(f"server {number}: {line}" for line in found)

        shared(one, servers, asked.jobs)
    return report(wrong, points=seen.total(), **{key.replace(" ", "_"): n for key, n in seen.items()})


if __name__ == "__main__":
    sys.exit(main())
