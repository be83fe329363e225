"""Many clients at once over HTTP: every figure right, nobody waits long, and who drips or does not read harms nobody.

python tests/campaigns/crowd.py --count 200 --seed 1

At a count of 200: 200 clients for 60 s, then 600 dripping connections, then 40 that do not read; else in proportion.
"""

import asyncio
import math
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import COUNTS, Company
from support.campaign import arguments, reporter
from support.web import ERAS, FREE, Client, Site, site

SEARCHES = COUNTS.index("searches")
CHEAP = ("tools/list", "prompts/list", "resources/read", "list_exports", "refused")
company = cache(lambda: Company.made_up(datetime.now(UTC).date()))


@cache
def figures(month: date) -> list[int]:
    """Active users and searches of a month, row by row."""
    rows = [row for row in company().activities if row.day.replace(day=1) == month]
    return [len({row.person.id for row in rows}), sum(row.counts[SEARCHES] or 0 for row in rows)]


@cache
def months() -> list[date]:
    """The months that the company's data hold whole."""
    return sorted({row.day.replace(day=1) for row in company().activities})[1:-1]


async def one(client: Client, rng: random.Random, export: dict[str, Any]) -> tuple[str, str]:
    """One call: its kind, and what is wrong with its answer."""
    kind = rng.choice([*CHEAP, *CHEAP, *CHEAP, "query_usage", "query_export"])
    wrong = ""
    match kind:
        case "tools/list" | "prompts/list":
            listed = (await client.ask(kind, {}))[kind.split("/")[0]]
            wrong = "" if len(listed) == (11 if kind == "tools/list" else 6) else f"{len(listed)} listed"
        case "resources/read":
            text = (await client.ask(kind, {"uri": "analytics://exports"}))["contents"][0]["text"]
            wrong = "" if export["id"] in text else text
        case "list_exports":
            found = (await client.call(kind))["structuredContent"]["exports"]
            wrong = "" if export["id"] in [entry["id"] for entry in found] else str(found)
        case "refused":
            answer = await client.call("query_usage", metrics=["nothing"])
            wrong = "" if answer["structuredContent"]["error"]["code"] == "invalid_argument" else str(answer)
        case "query_usage":
            month = rng.choice(months())
            last = (month + timedelta(days=32)).replace(day=1) - timedelta(days=1)
            given = {"start_date": str(month), "end_date": str(last), "metrics": ["active_users", "searches"]}
            answer = await client.call(kind, **given)
            wrong = "" if answer["structuredContent"].get("rows") == [figures(month)] else str(answer)
        case "query_export":
            answer = await client.call(kind, export_id=export["id"], sql="SELECT count(*) FROM usage")
            data = answer["structuredContent"]
            if "error" in data:
                return "busy", "" if data["error"]["code"] == "busy" else str(data)
            wrong = "" if data["rows"] == [[export["row_count"]]] else str(answer)
    return kind, wrong and f"{kind}: {wrong[:200]}"


class Crowd:
    """Clients that each ask, wait for the answer, and think a moment; what they met."""

    def __init__(self, server: Site, export: dict[str, Any]) -> None:
        self._server = server
        self._export = export
        self.wrong: list[str] = []
        self.times: dict[str, list[float]] = {}

    async def client(self, era: str, seed: str, until: float) -> None:
        rng = random.Random(seed)
        begun = time.monotonic()
        try:
            async with self._server.client(era) as client:
                while (begun := time.monotonic()) < until:
                    kind, wrong = await one(client, rng, self._export)
                    self.times.setdefault(kind, []).append(time.monotonic() - begun)
                    self.wrong += [wrong] if wrong else []
                    await asyncio.sleep(rng.uniform(0, 1))
        except (OSError, EOFError, RuntimeError) as error:
            self.wrong.append(f"{era} after {time.monotonic() - begun:.1f} s: {type(error).__name__} {error}")

    @property
    def cheap(self) -> float:
        """Seconds within which 99 of 100 cheap calls were answered."""
        times = sorted(took for kind in CHEAP for took in self.times.get(kind, [0.0]))
        return times[len(times) * 99 // 100]


@asynccontextmanager
async def good(server: Site) -> AsyncIterator[list[float]]:
    """Meanwhile one client calls on connections of its own; the seconds that each call took."""
    times: list[float] = []

    async def ask() -> None:
        while True:
            begun = time.monotonic()
            try:
                async with server.client() as client:
                    await client.call("list_exports")
            except (OSError, EOFError, RuntimeError):
                times.append(math.inf)
            times.append(time.monotonic() - begun)
            await asyncio.sleep(0.1)

    asking = asyncio.create_task(ask())
    try:
        yield times
    finally:
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking


async def drip(server: Site, rng: random.Random, ended: asyncio.Event) -> None:
    """Send a request a byte at a time, again and again: a head or a body, with a credential or without."""
    known = {} if rng.random() < 0.5 else {"Authorization": "Bearer x"}
    whole = server.request("tools/call", {"name": "list_exports", "arguments": {}, "pad": "x" * 2000}, known)
    at = rng.choice((5, whole.index(b"\r\n\r\n") + 4))
    while not ended.is_set():
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                writer.write(whole[:at])
                for byte in whole[at:]:
                    if ended.is_set() or writer.transport.is_closing():
                        break
                    await asyncio.sleep(1)
                    writer.write(bytes((byte,)))
                    await writer.drain()
            finally:
                writer.transport.abort()


async def deaf(server: Site, rng: random.Random, export: dict[str, Any]) -> bool:
    """Ask for much, or for progress, and read none of it; whether the server has ended that after 45 seconds."""
    await asyncio.sleep(rng.uniform(0, 8))  # not all at once: it is about reading, not about asking
    async with server.client(rng.choice(ERAS)) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        uri = f"{export['summary_uri']}/data.csv"
        for number in range(2, 12):
            await client.send("resources/read", {"uri": uri}, number, progressToken=f"p{number}")
        for _ in range(45):
            await asyncio.sleep(1)
            with suppress(OSError):
                client.writer.write(b"\r\n")
            if client.writer.transport.is_closing():
                return True
    return False


async def watched(server: Site, ended: asyncio.Event) -> float:
    """The most MB that the server had until then."""
    most = 0.0
    while not ended.is_set():
        most = max(most, server.memory)
        await asyncio.sleep(0.2)
    return most


async def campaign(server: Site, count: int, seed: int) -> tuple[list[str], dict[str, object]]:
    async with server.client() as client:
        given = {"granularity": "by_user_month"}
        export = (await client.call("export_csv", **given))["structuredContent"]["export"]
    for month in months():
        figures(month)  # before anybody waits for this process
    crowd, ended = Crowd(server, export), asyncio.Event()
    memory = asyncio.create_task(watched(server, ended))
    until = time.monotonic() + count * 0.3
    await asyncio.gather(*(crowd.client(ERAS[n % 2], f"{seed}/{n}", until) for n in range(count)))
    busiest = server.memory
    rng = random.Random(seed)
    async with good(server) as dripped:
        dripping = [asyncio.create_task(drip(server, rng, ended)) for _ in range(count * 3)]
        await asyncio.sleep(count * 0.2)
    async with good(server) as unread:
        closed = await asyncio.gather(*(deaf(server, rng, export) for _ in range(count // 5)))
    ended.set()
    await asyncio.gather(*dripping)
    most = await memory
    wrong = crowd.wrong
    limits = {
        "p99 of cheap calls": (crowd.cheap, 1.5),
        "a good call beside dripping ones": (max(dripped), 1),
        "a good call beside ones that do not read": (max(unread), 1),
        "MB in the crowd": (busiest, 250),
        "MB with answers that are not read": (most, 400),
        "open ones that do not read": (closed.count(False), 0),
    }
    wrong += [f"{what}: {value:.2f}" for what, (value, limit) in limits.items() if value > limit]
    counted = {kind.replace("_", " "): len(times) for kind, times in sorted(crowd.times.items())}
    return wrong, {
        "calls": sum(counted.values()),
        "of_each": counted,
        "s_p99_of_cheap_calls": round(crowd.cheap, 3),
        "s_at_most_beside_drips": round(max(dripped), 3),
        "good_calls_beside_drips": len(dripped),
        "s_at_most_beside_deaf": round(max(unread), 3),
        "MB_in_the_crowd": round(busiest),
        "MB_at_most": round(most),
    }


def main() -> int:
    asked = arguments(__doc__, 200)
    report: Callable[..., int] = reporter("crowd", asked)
    with tempfile.TemporaryDirectory() as folder, site(Path(folder), "--demo", **FREE) as server:
        wrong, counted = asyncio.run(campaign(server, asked.count, asked.seed))
        wrong += [line for line in server.log if "Traceback" in line or " ERROR " in line]
        wrong += [] if server.process.poll() is None else ["the server ended"]
    return report(wrong, **counted)


if __name__ == "__main__":
    sys.exit(main())
