"""Every attack and every bomb of the list against one export, on the engine that is installed.

    python tests/campaigns/attacks.py [mutations of each statement, 1-9]

Prints one line; exits 1 when anything got through, changed a file, or was not answered.
"""

import hashlib
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import anyio
import duckdb

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.demo.upstream import DEMO_INSTANCE, DEMO_TOKEN
from sourcegraph_analytics_mcp.settings import Settings
from support.client import call, connected, text
from support.statements import ATTACKS, BOMBS, ORDINARY
from support.upstreams import serve_company

_DEADLINE = 3  # seconds for one query
_MUTATIONS = (
    "{}", "{} ;", "/* x */ {}", "{} -- x", "SELECT * FROM ({})", "WITH z AS ({}) SELECT * FROM z", "EXPLAIN {}",
    "SELECT 1 UNION ALL {}", "({})",
)  # fmt: skip


def _company() -> Company:
    return Company.made_up(datetime.now(UTC).date(), people=40, days=130)


def _prints(home: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in home.rglob("*") if p.is_file()}


async def _run(home: Path, forms: int) -> int:
    environment = {
        "INSTANCE": DEMO_INSTANCE,
        "ACCESS_TOKEN": DEMO_TOKEN,
        "DATA_DIR": str(home),
        "SQL_TIMEOUT": str(_DEADLINE),
    }
    wrong: list[str] = []
    begun = time.monotonic()
    statements = [form.format(sql) for sql in ATTACKS for form in _MUTATIONS[:forms]]
    with serve_company(_company()) as upstream:
        given = {f"SRC_ANALYTICS_{k}": v for k, v in (environment | {"URL": upstream.url}).items()}
        async with connected(Settings.from_env(given)) as client:
            export = (await call(client, "export_csv", granularity="by_user_day_client_language"))["export"]["id"]
            before = _prints(home)
            for sql in (*statements, *BOMBS, *ORDINARY):
                asked_at = time.monotonic()
                result = await client.call_tool("query_export", {"export_id": export, "sql": sql})
                harmless = sql in ORDINARY
                if result.is_error == harmless and not _trivial(sql) and sql not in BOMBS:
                    wrong.append(f"{sql[:120]} -> {text(result)[:120]}")
                if time.monotonic() - asked_at > _DEADLINE + 4:
                    wrong.append(f"not ended in time: {sql[:120]}")
                if str(home) in result.model_dump_json():
                    wrong.append(f"path leaked: {sql[:120]}")
            if _prints(home) != before:
                wrong.append("a file changed")
    seconds = time.monotonic() - begun
    counted = f"{len(statements)} attacks, {len(BOMBS)} bombs, {len(wrong)} wrong"
    print(f"duckdb {duckdb.__version__}: {counted}, {seconds:.0f} s")
    for line in wrong:
        print(" ", line)
    return 1 if wrong else 0


def _trivial(sql: str) -> bool:
    """Wrapping nothing, or a comment, in a SELECT makes an ordinary question."""
    return any(sql == form.format(bare) for form in _MUTATIONS for bare in ("", ";", "--", "/* */"))


if __name__ == "__main__":
    os.umask(0o077)
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(anyio.run(_run, Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else len(_MUTATIONS)))
