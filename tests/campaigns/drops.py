"""Clients that leave in the middle of a call: in the newest revision the call ends with them, in older ones it goes on.

python tests/campaigns/drops.py --count 100 --seed 1
"""

import asyncio
import random
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, named, reporter
from support.engines import engines
from support.upstreams import Exchange, scripted_upstream
from support.web import ERAS, FREE, Site, site

ENDS_WITHIN = 1.0  # seconds after its client has left
BEGUN_AFTER = 0.3  # seconds after which a request has been read, however busy the machine is
COMPANY = Company.made_up(datetime.now(UTC).date(), people=60, days=130)


async def slowly(exchange: Exchange) -> None:
    """Send a report in pieces that take a second and a half."""
    asked = {key: values[0] for key, values in parse_qs(urlsplit(exchange.target).query).items()}
    start, end = (date.fromisoformat(asked[k]) if k in asked else None for k in ("startDate", "endDate"))
    body = "".join(COMPANY.report(asked["granularity"], start, end)).encode()
    await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    piece = len(body) // 30 + 1
    for at in range(0, len(body), piece):
        await exchange.send(body[at : at + piece])
        await asyncio.sleep(0.05)


async def drop(server: Site, era: str, name: str, rng: random.Random, export: str) -> tuple[float, float, str]:
    """Call something and leave; when it was asked and when left, by the clock, and what."""
    tool, given, longest = rng.choice(
        [
            ("export_csv", {"granularity": "by_user_day", "refresh": True}, 2.0),
            ("query_usage", {"metrics": ["active_users", "searches"], "group_by": ["month", "client"]}, 0.3),
            ("query_export", {"export_id": export, "sql": "SELECT sum(a.searches) FROM usage a, usage b"}, 1.5),
        ]
    )
    async with server.client(era) as client:
        begun = time.time()
        meta = {"progressToken": name} if rng.random() < 0.5 else {}
        await client.send("tools/call", {"name": tool, "arguments": given}, name, **meta)
        await asyncio.sleep(rng.uniform(0, longest))
    return begun, time.time(), tool + (" with progress" if meta else "")


def ended(log: list[str]) -> dict[str, tuple[float, str]]:
    """When each call ended, and how, by the log."""
    found = {}
    for line in log:
        if " call tool=" in line:
            at = datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
            found[line.split(" id=")[1].strip()] = at, line.split("outcome=")[1].split()[0]
    return found


async def campaign(server: Site, count: int, seed: int) -> tuple[list[str], dict[str, int]]:
    rng, wrong, outcomes = random.Random(seed), list[str](), dict[str, int]()
    async with server.client() as client:
        export = (await client.call("export_csv"))["structuredContent"]["export"]["id"]
        await client.call("query_usage", metrics=["searches"])
    times: dict[str, tuple[float, float, str]] = {}
    for n in range(count):
        era = ERAS[n % 2]
        times[f"{era}/{n}"] = await drop(server, era, f"{era}/{n}", rng, export)
        if n % 10 == 9:
            async with server.client() as client:
                await client.call("list_exports", "good")
    await asyncio.sleep(4)
    calls = ended(server.log)
    for name, (begun, left, what) in times.items():
        at, outcome = calls.get(name, (0.0, "never begun"))
        kind = f"{name.split('/')[0]} {outcome}"
        outcomes[kind] = outcomes.get(kind, 0) + 1
        if outcome == "never begun" and left - begun > BEGUN_AFTER:
            wrong.append(f"{name} was never begun, or goes on")
        if name.startswith(ERAS[0]) and at - left > ENDS_WITHIN:
            wrong.append(f"{name} ended {at - left:.2f} s after its client had left")
        if name.startswith(ERAS[1]) and outcome not in ("ok", "never begun"):
            wrong.append(
                f"{name} ended with {outcome}: {what}, left after {left - begun:.3f} s, ended {at - left:.3f} s later"
            )
    return wrong, outcomes


async def served(count: int, seed: int) -> tuple[list[str], dict[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        async with scripted_upstream(slowly) as upstream:
            more: dict[str, Any] = named(upstream.url, Path(folder) / "data") | FREE | {"log_level": "INFO"}
            with site(Path(folder), **more) as server:
                wrong, outcomes = await campaign(server, count, seed)
                left = [p.name for p in (server.home / "staging").iterdir() if p.is_dir()]
                wrong += [f"left over: {name}" for name in left]
                there = engines(server.process.pid)
                wrong += [f"{len(there)} engines"] if len(there) > 1 else []
                wrong += [line[:300] for line in server.log if "Traceback" in line or " ERROR " in line]
                wrong += [] if server.process.poll() is None else ["the server ended"]
    return wrong, outcomes


def main() -> int:
    asked = arguments(__doc__, 100)
    report = reporter("drops", asked)
    wrong, outcomes = asyncio.run(served(asked.count, asked.seed))
    return report(wrong, **{kind.replace("-", "_"): number for kind, number in sorted(outcomes.items())})


if __name__ == "__main__":
    sys.exit(main())
