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
import anyio.to_thread

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, named, reporter, settings
from support.client import call, connected
from support.stdio import spawned
from support.upstreams import serve_company


def killed(url: str, home: Path, rng: random.Random) -> None:
    """Start the command, ask for an export, and kill it a moment later."""
    more = named(url, home / "data")
    with spawned(home, **more) as raw:
        raw.handshake()
        raw.send("tools/call", {"name": "export_csv", "arguments": {"refresh": True}})
        time.sleep(rng.uniform(0, 0.9))
        raw.process.kill()


async def checked(url: str, home: Path, known: dict[str, str]) -> list[str]:
    """What is wrong after a restart; `known` are the exports seen so far with their hashes."""
    wrong = []
    async with connected(settings(url, home / "data")) as client:
        await call(client, "check_connection")
        for export in (await call(client, "list_exports", limit=100))["exports"]:
            data = Path(export["path"]).read_bytes()
            if (
                hashlib.sha256(data).hexdigest() != export["sha256"]
                or known.get(export["id"], export["sha256"]) != (export["sha256"])
            ):
                wrong.append(f"{export['id']} is not what it was")
            sql = "SELECT count(*) FROM usage"
            rows = (await call(client, "query_export", export_id=export["id"], sql=sql))["rows"]
            if rows != [[export["row_count"]]]:
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


async def main() -> int:
    asked = arguments(__doc__, 200)
    report, wrong = reporter("kills", asked), list[str]()
    rng = random.Random(asked.seed)
    company = Company.made_up(datetime.now(UTC).date(), people=30, days=60)
    known: dict[str, str] = {}
    whole = 0
    with tempfile.TemporaryDirectory() as folder, serve_company(company) as upstream:
        home = Path(folder)
        for number in range(asked.count):
            before = len(known)
            await anyio.to_thread.run_sync(killed, upstream.url, home, rng)
            wrong += [f"kill {number}: {line}" for line in await checked(upstream.url, home, known)]
            whole += len(known) - before
            if len(known) > 6:
                async with connected(settings(upstream.url, home / "data")) as client:
                    for export in list(known):
                        await call(client, "delete_export", export_id=export)
                known.clear()
    return report(wrong, whole_afterwards=whole, absent_afterwards=asked.count - whole)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
