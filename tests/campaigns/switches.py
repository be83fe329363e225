"""Switch each mechanism off in a copy of the code: its test must fail, or it proves nothing.

python tests/campaigns/switches.py
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = Path("server/sourcegraph_analytics_mcp")


@dataclass(frozen=True)
class Switch:
    """A mechanism: the code that is it, what stands there without it, and the tests that must fail then."""

    name: str
    file: str
    on: str
    off: str
    tests: str


SWITCHES = (
    Switch(
        "a body's end is proved",
        "upstream/body.py",
        "    if inflate:\n        inflate.finish()",
        "",
        "test_downloads.py",
    ),
    Switch(
        "what nothing ends is refused",
        "upstream/analytics.py",
        "if not answer.framed:",
        "if False:",
        "test_downloads.py",
    ),
    Switch(
        "bombs are refused",
        "upstream/body.py",
        "if total > limit or",
        "if False and",
        "test_downloads.py",
    ),
    Switch(
        "quotes are read strictly",
        "exports/engine/strict.py",
        'newline=""), strict=True)',
        'newline=""), strict=False)',
        "test_downloads.py",
    ),
    Switch(
        "row counts are compared",
        "exports/engine/ingest.py",
        "if self._load(segment, part) == lines:",
        "if self._load(segment, part) >= 0:",
        "test_downloads.py",
    ),
    Switch(
        "a create is posted once",
        "upstream/policy.py",
        '"silent":        (3,     3,   3,   1,',
        '"silent":        (3,     3,   3,   2,',
        "test_tokens.py",
    ),
    Switch(
        "an orphan is revoked",
        "access/tokens.py",
        "if len(orphans) == 1:\n                await",
        "if False:\n                await",
        "test_tokens.py",
    ),
    Switch(
        "a revoke is verified",
        "access/tokens.py",
        "if state is not None and state.is_expired:",
        "if True:",
        "test_tokens.py",
    ),
    Switch(
        "a create is in the journal",
        "access/tokens.py",
        "return [await self._settle(entry) for entry in left]",
        "return []",
        "test_tokens.py",
    ),
    Switch(
        "creates are held back",
        "access/tokens.py",
        "if wait > 0:",
        "if False:",
        "test_tokens.py",
    ),
    Switch(
        "damaged parts are noticed",
        "exports/store.py",
        "or not self._unchanged(export)",
        "",
        "test_exports.py",
    ),
    Switch(
        "damaged CSV is noticed",
        "exports/rows.py",
        "if zlib.crc32(data) != check[1]:",
        "if False:",
        "test_exports.py",
    ),
    Switch(
        "files are private",
        "files.py",
        "os.O_WRONLY | os.O_CLOEXEC, 0o600)",
        "os.O_WRONLY | os.O_CLOEXEC, 0o644)",
        "test_exports.py test_tokens.py",
    ),
    Switch(
        "SQL is judged first",
        "exports/engine/sandbox.py",
        "        check(duckdb",
        "        (lambda *a: 0)(duckdb",
        "test_query_export.py",
    ),
    Switch(
        "SQL has a deadline",
        "exports/engine/queries.py",
        "with anyio.fail_after(self._seconds):",
        "with anyio.fail_after(600):",
        "test_query_export.py",
    ),
    Switch(
        "SQL has a memory limit",
        "exports/engine/sandbox.py",
        "    resource.setrlimit(resource.RLIMIT_AS,",
        "    str((resource.RLIMIT_AS,",
        "test_query_export.py",
    ),
    Switch(
        "hidden characters are shown",
        "surface/text.py",
        "if hidden and not joins else char",
        "if False else char",
        "test_text.py",
    ),
    Switch(
        "Markdown is escaped",
        "surface/text.py",
        "_MARKDOWN.sub(",
        "(lambda a, b: b)(",
        "test_text.py",
    ),
    Switch(
        "formulas are defused",
        "surface/resources.py",
        "formula_safe(safe(text))",
        "safe(text)",
        "test_exports.py",
    ),
    Switch(
        "lines are bounded",
        "cli/lines.py",
        "if len(line) > LONGEST:",
        "if False:",
        "test_stdio.py",
    ),
    Switch(
        "text is not changed",
        "cli/lines.py",
        "return line.decode()",
        'return line.decode(errors="replace")',
        "test_stdio.py",
    ),
    Switch(
        "a deaf client ends it",
        "cli/stdio.py",
        "tasks.start_soon(watch_end)",
        "",
        "test_stdio.py",
    ),
    Switch(
        "signals clean up",
        "cli/stdio.py",
        "tasks.start_soon(watch_signals, tasks.cancel_scope)",
        "",
        "test_stdio.py",
    ),
    Switch(
        "people are masked in questions",
        "exports/engine/questions.py",
        "self.pseudonyms.key if self.pseudonyms else None",
        "None",
        "test_identities.py",
    ),
    Switch(
        "people are masked in rows",
        "exports/rows.py",
        "if self._pseudonyms is None:",
        "if True:",
        "test_identities.py",
    ),
    Switch(
        "blank is not zero",
        "usage/metrics.py",
        'f"sum({column})"',
        'f"coalesce(sum({column}), 0)"',
        "test_query_usage.py",
    ),
    Switch(
        "people are counted by id",
        "usage/metrics.py",
        'f"count(DISTINCT {_USER})"',
        '"count(DISTINCT user_email)"',
        "test_query_usage.py",
    ),
    Switch(
        "unfinished periods are not compared",
        "usage/sql.py",
        '"true" if question.range.over else "false"',
        '"true"',
        "test_query_usage.py",
    ),
    Switch(
        "no redirect is followed",
        "upstream/http.py",
        "follow_redirects=False",
        "follow_redirects=True",
        "test_downloads.py",
    ),
)


def outcome(switch: Switch, copy: Path) -> str:
    """What happened to the tests without the mechanism."""
    path = copy / PACKAGE / switch.file
    source = path.read_text()
    if source.count(switch.on) != 1:
        return f"cannot be switched off: its code is there {source.count(switch.on)} times"
    path.write_text(source.replace(switch.on, switch.off))
    tests = [str(copy / "tests" / name) for name in switch.tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": f"{copy / 'server'}"}
    ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=300, check=False)
    path.write_text(source)
    return "" if ended.returncode == 1 else f"its tests do not fail (exit {ended.returncode})"


def main() -> int:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info"))
        shutil.copytree(ROOT / "prompts", copy / PACKAGE / "prompts")
        wrong = []
        for switch in SWITCHES:
            found = outcome(switch, copy)
            print(f"{switch.name}: {found or 'its tests fail'}", flush=True)
            wrong += [switch.name] if found else []
    print(f"switches: {len(SWITCHES)} mechanisms switched off, {len(wrong)} wrong; {time.monotonic() - begun:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
