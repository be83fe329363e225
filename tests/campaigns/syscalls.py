"""Make the Nth call of one kind to the operating system fail during an export: it is whole or absent, others untouched.

    python tests/campaigns/syscalls.py --count 100 --seed 1

Needs strace, and leave to use it.
"""

import random
import sys
import tempfile
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import anyio

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from kills import checked, emptied

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, for_many_servers, named, reporter, settings, shared
from support.client import call, connected
from support.stdio import COMMAND, spawned
from support.upstreams import serve_company

CALLS = {  # what may fail, and how often it is called in one export, or a little more
    "fsync": 12, "rename,renameat,renameat2": 4, "unlink,unlinkat": 12, "mkdir,mkdirat": 6, "write": 120,
    "pwrite64": 12, "ftruncate": 3, "flock": 4, "getdents64": 12, "close": 300,
}  # fmt: skip
ERRORS = ("EIO", "ENOSPC", "EROFS", "EINTR", "EDQUOT")


def failing(url: str, home: Path, rng: random.Random) -> str:
    """Export with one failing call; how it ended."""
    names = rng.choice(sorted(CALLS))
    fault = f"inject={names}:error={rng.choice(ERRORS)}:when={rng.randrange(1, CALLS[names] + 1)}"
    traced = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={names}", "-e", fault, *COMMAND)
    more = named(url, home / "data")
    with spawned(home, command=traced, **more) as raw:
        stop = threading.Timer(20, raw.process.kill)
        stop.start()
        try:
            raw.handshake()
            result = raw.ask("tools/call", {"name": "export_csv", "arguments": {"refresh": True}})
            return "refused" if result.get("isError") else "answered"
        except (AssertionError, BrokenPipeError):
            return "died"
        finally:
            stop.cancel()
            if raw.process.stdin is not None:
                raw.process.stdin.close()
            raw.process.wait(20)


async def first(url: str, home: Path) -> None:
    """An export that must not be touched."""
    async with connected(settings(url, home / "data")) as client:
        await call(client, "export_csv")


def failing_again_and_again(
    job: int, url: str, folder: Path, share: list[int], seed: int
) -> tuple[Counter[str], list[str]]:
    """The faults of one home, one after the other; how they ended, and what was wrong."""
    home, ends, wrong, known = folder / str(job), Counter[str](), list[str](), dict[str, str]()
    home.mkdir()
    anyio.run(first, url, home)
    wrong += anyio.run(checked, url, home, known)
    untouched = dict(known)
    for number in share:
        before = len(known)
        ended = failing(url, home, random.Random(f"{seed}/{number}"))
        ends[ended] += 1
        wrong += [f"fault {number}: {line}" for line in anyio.run(checked, url, home, known)]
        if ended == "answered" and len(known) != before + 1:
            wrong.append(f"fault {number}: answered and not kept")
        if len(known) > 8:
            more = {export: mark for export, mark in known.items() if export not in untouched}
            anyio.run(emptied, url, home, more)
            known = dict(untouched)
    return ends, wrong


def main() -> int:
    for_many_servers()
    asked = arguments(__doc__, 100, jobs=(4, "homes at once"))
    report, wrong, ends = reporter("syscalls", asked), list[str](), Counter(answered=0, refused=0, died=0)
    company = Company.made_up(datetime.now(UTC).date(), people=20, days=40)
    with tempfile.TemporaryDirectory() as name, serve_company(company) as upstream:
        shares = [list(range(job, asked.count, asked.jobs)) for job in range(asked.jobs)]

        def one(job: int) -> None:
            found, bad = failing_again_and_again(job, upstream.url, Path(name), shares[job], asked.seed)
            ends.update(found)
            wrong.extend(bad)

        shared(one, range(asked.jobs), asked.jobs)
    return report(wrong, **ends)


if __name__ == "__main__":
    sys.exit(main())
