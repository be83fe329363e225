"""Make the Nth call of one kind to the operating system fail during an export: it is whole or absent, others untouched.

    python tests/campaigns/syscalls.py --count 100 --seed 1

Needs strace, and leave to use it.
"""

import random
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from kills import checked

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, named, reporter, settings
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


async def main() -> int:
    asked = arguments(__doc__, 100)
    report, wrong = reporter("syscalls", asked), list[str]()
    rng = random.Random(asked.seed)
    company = Company.made_up(datetime.now(UTC).date(), people=20, days=40)
    known: dict[str, str] = {}
    ends = dict.fromkeys(("answered", "refused", "died"), 0)
    with tempfile.TemporaryDirectory() as folder, serve_company(company) as upstream:
        home = Path(folder)
        async with connected(settings(upstream.url, home / "data")) as client:
            await call(client, "export_csv")  # the one that must not be touched
        for number in range(asked.count):
            before = len(known)
            ended = await anyio.to_thread.run_sync(failing, upstream.url, home, rng)
            ends[ended] += 1
            wrong += [f"fault {number}: {line}" for line in await checked(upstream.url, home, known)]
            if ended == "answered" and number and len(known) != before + 1:
                wrong.append(f"fault {number}: answered and not kept")
            if len(known) > 8:
                async with connected(settings(upstream.url, home / "data")) as client:
                    for export in list(known)[1:]:
                        await call(client, "delete_export", export_id=export)
                        del known[export]
    return report(wrong, **ends)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
