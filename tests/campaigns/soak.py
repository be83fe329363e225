"""Ask one server everything, with faults among it, for many seconds: its memory and its open files stay as they were.

python tests/campaigns/soak.py --count 300 --seed 1
"""

import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from support.campaign import arguments, named, reporter
from support.stdio import Raw, spawned
from support.upstreams import serve_company

WARM = 0.25  # of the time, after which memory counts


def used(raw: Raw) -> tuple[int, int]:
    """Resident memory in kB, open files."""
    home = Path(f"/proc/{raw.process.pid}")
    return int((home / "status").read_text().split("VmRSS:")[1].split()[0]), len(list((home / "fd").iterdir()))


def one(raw: Raw, rng: random.Random, export: str) -> bool:
    """One call; whether it was answered as it should be."""
    good, tool, given = rng.choice(
        [
            (True, "query_usage", {"metrics": ["active_users", "searches"], "group_by": ["month"]}),
            (True, "query_usage", {"metrics": ["completion_acceptance_rate"], "group_by": ["language"]}),
            (True, "query_usage", {"metrics": ["hours_saved"], "compare_to_previous": True}),
            (True, "list_inactive_users", {"days": rng.randrange(1, 90)}),
            (True, "list_exports", {}),
            (True, "export_csv", {"granularity": "by_user", "refresh": rng.random() < 0.3}),
            (True, "query_export", {"export_id": export, "sql": "SELECT count(*) FROM usage"}),
            (False, "query_export", {"export_id": export, "sql": "SELECT * FROM '/etc/passwd'"}),
            (False, "query_usage", {"metrics": ["nothing"]}),
            (False, "get_credits", {"instance_url": "not.there.example"}),
        ]
    )
    return bool(raw.ask("tools/call", {"name": tool, "arguments": given})["isError"]) is not good


def main() -> int:
    asked = arguments(__doc__, 300)
    report, wrong, calls = reporter("soak", asked), list[str](), 0
    rng = random.Random(asked.seed)
    company = Company.made_up(datetime.now(UTC).date(), people=40, days=130)
    with tempfile.TemporaryDirectory() as folder, serve_company(company) as upstream:
        home = Path(folder)
        more = named(upstream.url, home / "d")
        with spawned(home, lifetime=asked.count + 600, max_store_bytes="20000000", **more) as raw:
            raw.handshake()
            begun, first = time.monotonic(), None
            whole = {"name": "export_csv", "arguments": {}}
            export = raw.ask("tools/call", whole)["structuredContent"]["export"]["id"]
            while (spent := time.monotonic() - begun) < asked.count:
                calls += 1
                if not one(raw, rng, export):
                    wrong.append(f"call {calls} was not answered as it should be")
                if calls % 50 == 0:
                    export = raw.ask("tools/call", whole)["structuredContent"]["export"]["id"]
                if first is None and spent > WARM * asked.count:
                    first = used(raw)
            last = used(raw)
            first = first or last
    if last[0] > first[0] * 1.1:
        wrong.append(f"memory grew from {first[0]} to {last[0]} kB")
    if last[1] > first[1] + 2:
        wrong.append(f"open files grew from {first[1]} to {last[1]}")
    return report(wrong, calls=calls, kB_after_a_quarter=first[0], kB_at_the_end=last[0], open_files=last[1])


if __name__ == "__main__":
    sys.exit(main())
