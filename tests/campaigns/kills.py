"""Kill the server at any instant of an export: afterwards an export is whole or absent, and the others are untouched.

python tests/campaigns/kills.py --count 200 --seed 1
"""

import hashlib
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import anyio
import duckdb

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, for_many_servers, named, reporter, settings, shared
from support.client import call, connected
from support.stdio import spawned
from support.upstreams import serve_company

EXPORT = {"name": "export_csv", "arguments": {"refresh": True}}


def usual(url: str, home: Path) -> float:
    """Seconds that an export takes here and now, which is one that later kills must not touch."""
    with spawned(home, **named(url, home / "data")) as raw:
        raw.handshake()
        begun = time.monotonic()
        raw.ask("tools/call", EXPORT)
        return time.monotonic() - begun


def killed(url: str, home: Path, within: float, rng: random.Random) -> None:
    """Start the command, ask for an export, and kill it a moment later."""
    more = named(url, home / "data")
    with spawned(home, **more) as raw:
        raw.handshake()
        raw.send("tools/call", EXPORT)
        time.sleep(rng.uniform(0, within))
        raw.process.kill()


async def checked(url: str, home: Path, known: dict[str, str]) -> list[str]:
    """What is wrong after a restart; `known` are the exports seen so far with their hashes.

    Every file is read here; a question through the server's own engine process is put to the exports that are new.
    """
    wrong = []
    async with connected(settings(url, home / "data")) as client:
        await call(client, "check_connection")
        for export in (await call(client, "list_exports", limit=100))["exports"]:
            folder = Path(export["path"]).parent
            if (
                hashlib.sha256(Path(export["path"]).read_bytes()).hexdigest() != export["sha256"]
                or known.get(export["id"], export["sha256"]) != (export["sha256"])
            ):
                wrong.append(f"{export['id']} is not what it was")
            sql = "SELECT count(*) FROM usage"
            counted = "SELECT count(*) FROM read_parquet(?)"
            with duckdb.connect() as engine:
                rows = [list(row) for row in engine.execute(counted, [f"{folder}/parts/*.parquet"]).fetchall()]
            if export["id"] not in known:
                rows += (await call(client, "query_export", export_id=export["id"], sql=sql))["rows"]
            if any(row != [export["row_count"]] for row in rows):
                wrong.append(f"{export['id']} has {rows} rows instead of {export['row_count']}")
            known[export["id"]] = export["sha256"]
        for gone in known.keys() - {p.name for p in (home / "data" / "exports").iterdir()}:
            wrong.append(f"{gone} has gone")
            del known[gone]
    left = [p.name for p in (home / "data" / "staging").iterdir() if (p / ".lock").exists() or _old(p)]
    return wrong + [f"left over: {name}" for name in left]


def _old(folder: Path) -> bool:
    """Whether a folder without a lock has been there for longer than its maker could need."""
    return time.time() - folder.stat().st_mtime > 90


async def emptied(url: str, home: Path, known: dict[str, str]) -> None:
    """Make room again."""
    async with connected(settings(url, home / "data")) as client:
        for export in list(known):
            await call(client, "delete_export", export_id=export)
            del known[export]


def killed_again_and_again(job: int, url: str, folder: Path, share: list[int], seed: int) -> tuple[int, list[str]]:
    """The kills of one home, one after the other; how many left a whole export, and what was wrong."""
    home, whole, wrong, known = folder / str(job), 0, list[str](), dict[str, str]()
    home.mkdir()
    within = 1.5 * usual(url, home)
    wrong += anyio.run(checked, url, home, known)
    for number in share:
        before = len(known)
        killed(url, home, within, random.Random(f"{seed}/{number}"))
        wrong += [f"kill {number}: {line}" for line in anyio.run(checked, url, home, known)]
        whole += len(known) - before
        within *= 0.9 if len(known) > before else 1.05  # a third of them whole, however busy the machine is
        if len(known) > 6:
            anyio.run(emptied, url, home, known)
    return whole, wrong


def main() -> int:
    for_many_servers()
    asked = arguments(__doc__, 200, jobs=(4, "homes at once"))
    report, wrong, whole = reporter("kills", asked), list[str](), 0
    company = Company.made_up(datetime.now(UTC).date(), people=30, days=60)
    with tempfile.TemporaryDirectory() as name, serve_company(company) as upstream:
        shares = [list(range(job, asked.count, asked.jobs)) for job in range(asked.jobs)]

        def one(job: int) -> None:
            nonlocal whole
            found, bad = killed_again_and_again(job, upstream.url, Path(name), shares[job], asked.seed)
            whole += found
            wrong.extend(bad)

        shared(one, range(asked.jobs), asked.jobs)
    return report(wrong, whole_afterwards=whole, absent_afterwards=asked.count - whole)


if __name__ == "__main__":
    sys.exit(main())
