"""Many processes on one data directory, exporting, deleting, asking and sweeping at once: nothing lost, nothing left.

python tests/campaigns/processes.py --count 50 --processes 8 --seed 1
"""

import hashlib
import json
import random
import secrets
import shutil
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, named, reporter, settings, shared
from support.client import call, connected
from support.stdio import Raw, spawned
from support.upstreams import serve_company

GRAINS = ("by_user", "by_user_month", "by_user_day", "by_user_day_client_language")


class Shared:
    """What all of them did: the exports that must be there, and those that must not."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: dict[str, str] = {}
        self.gone: set[str] = set()
        self.wrong: list[str] = []
        self.done = threading.Event()
        self.calls = 0

    def said(self, line: str) -> None:
        with self.lock:
            self.wrong.append(line)


def tool(raw: Raw, state: Shared, name: str, **given: object) -> dict[str, object]:
    result = raw.ask("tools/call", {"name": name, "arguments": given})
    state.calls += 1
    if result["isError"]:
        state.said(f"{name} {given}: {result['content'][0]['text'][:200]}")
    content: dict[str, object] = result["structuredContent"]
    return content


def busy(url: str, data: Path, folder: Path, state: Shared, exports: int, seed: int, number: int) -> None:
    """One process: so many exports, with deletions, lists, questions and sweeps among them."""
    rng, own = random.Random(f"{seed}/{number}"), list[str]()
    home = folder / str(number)
    home.mkdir()
    with spawned(home, lifetime=60 + 30 * exports, **named(url, data)) as raw:
        raw.handshake()
        for _ in range(exports):
            made = tool(raw, state, "export_csv", granularity=rng.choice(GRAINS), refresh=True).get("export")
            if isinstance(made, dict):
                with state.lock:
                    if made["id"] in state.kept:
                        state.wrong.append(f"{made['id']} was given twice")
                    state.kept[made["id"]] = made["sha256"]
                own.append(made["id"])
            match rng.randrange(5):
                case 0 if own:
                    mine = own.pop(rng.randrange(len(own)))
                    tool(raw, state, "delete_export", export_id=mine)
                    with state.lock:
                        del state.kept[mine]
                        state.gone.add(mine)
                case 1:
                    tool(raw, state, "check_connection")  # sweeps
                case 2 if own:
                    listed = tool(raw, state, "list_exports", limit=100)
                    newest = own[-1]
                    if newest not in json.dumps(listed):
                        state.said(f"{newest} is not listed by its maker")
                case 3 if own:
                    tool(raw, state, "query_export", export_id=rng.choice(own), sql="SELECT count(*) FROM usage")


def plant(data: Path, state: Shared, seed: int) -> int:
    """Meanwhile leave behind what every sweep must remove: exports too old, and staging of the dead; how many."""
    rng, count = random.Random(seed), 0
    staging = data / "staging"
    while not state.done.wait(rng.uniform(0.1, 0.6)):
        dead = staging / secrets.token_hex(16)
        dead.mkdir(mode=0o700)
        (dead / "export.csv").write_bytes(b"half")
        (dead / ".lock").touch(0o600)
        source = next(iter(sorted((data / "exports").iterdir())), None)
        if source is not None:
            count += _aged(source, data, state)
        count += 1
    return count


def _aged(source: Path, data: Path, state: Shared) -> int:
    """A copy of an export, made forty days ago."""
    old = secrets.token_hex(16)
    beside = data / f".{old}"
    try:
        shutil.copytree(source, beside)
        meta = json.loads((beside / "meta.json").read_text())
        made = datetime.now(UTC) - timedelta(days=40)
        (beside / "meta.json").write_text(json.dumps(meta | {"id": old, "created_at": made.isoformat()}))
        beside.rename(data / "exports" / old)
    except (OSError, shutil.Error):  # deleted meanwhile
        shutil.rmtree(beside, ignore_errors=True)
        return 0
    with state.lock:
        state.gone.add(old)
    return 1


async def checked(url: str, data: Path, state: Shared) -> list[str]:
    """What is wrong at the end, seen by a fresh process' eyes."""
    wrong = []
    async with connected(settings(url, data)) as client:
        await call(client, "check_connection")
        there = {path.name for path in (data / "exports").iterdir()}
        wrong += [f"{name} is lost" for name in state.kept.keys() - there]
        wrong += [f"{name} came back" for name in state.gone & there]
        wrong += [f"{name} is nobody's" for name in there - state.kept.keys() - state.gone]
        for name in sorted(there & state.kept.keys()):
            found = json.loads((data / "exports" / name / "meta.json").read_text())
            csv = (data / "exports" / name / "export.csv").read_bytes()
            sql = "SELECT count(*) FROM usage"
            if hashlib.sha256(csv).hexdigest() != state.kept[name]:
                wrong.append(f"{name} is not what it was")
            if len(wrong) < 20 and int(name[:2], 16) % 8 == 0:  # one in eight through the engine
                rows = (await call(client, "query_export", export_id=name, sql=sql))["rows"]
                wrong += [] if rows == [[found["row_count"]]] else [f"{name} has {rows} rows"]
    return wrong + [f"left in staging: {path.name}" for path in (data / "staging").iterdir()]


def main() -> int:
    asked = arguments(__doc__, 50, processes=(8, "processes at once"))
    report, state = reporter("processes", asked), Shared()
    company = Company.made_up(datetime.now(UTC).date(), people=10, days=30)
    with tempfile.TemporaryDirectory() as name, serve_company(company) as upstream:
        folder, data = Path(name), Path(name) / "data"
        (data / "staging").mkdir(parents=True, mode=0o700)
        (data / "exports").mkdir(mode=0o700)
        planted: list[int] = []
        planter = threading.Thread(target=lambda: planted.append(plant(data, state, asked.seed)))
        planter.start()
        begun = time.monotonic()
        try:
            one = partial(busy, upstream.url, data, folder, state, asked.count, asked.seed)
            shared(one, range(asked.processes), asked.processes)
        finally:
            seconds = time.monotonic() - begun
            state.done.set()
            planter.join()
        state.wrong += anyio.run(checked, upstream.url, data, state)
    return report(
        state.wrong, exports=asked.processes * asked.count, calls=state.calls, old_or_abandoned_planted=planted[0],
        exports_a_second=round(asked.processes * asked.count / seconds, 1),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
