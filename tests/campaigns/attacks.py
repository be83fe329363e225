"""Every attack and every bomb of the list against one export, on the engine that is installed; and their mutations.

    python tests/campaigns/attacks.py 4                                    each attack in four forms, each bomb once
    python tests/campaigns/attacks.py 1 --mutations 30 --bombs 20 --overwrites 100

The forms, a sample of the mutations (--sample of each attack), the bombs, and every mutation that the gate lets pass go
through the whole server: a call, a process, a copy, a deadline. All mutations are judged by the gate alone, and those
that it refuses are run all the same without the gate, on the locked connection: the layers must hold one by one. Both
happen in throwaway processes, many statements in each.

Prints one line; exits 1 when anything got through, changed a file, or was not answered.
"""

import argparse
import hashlib
import json
import os
import random
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import duckdb
from mcp import Client

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.demo.upstream import DEMO_TOKEN
from sourcegraph_analytics_mcp.exports.engine import gate, sandbox
from support.campaign import settings
from support.client import call, connected, text
from support.statements import ATTACKS, BOMBS, ORDINARY, OVERWRITES, mutated
from support.upstreams import serve_company

_FORMS = (
    "{}", "{} ;", "/* x */ {}", "{} -- x", "SELECT * FROM ({})", "WITH z AS ({}) SELECT * FROM z", "EXPLAIN {}",
    "SELECT 1 UNION ALL {}", "({})",
)  # fmt: skip
_BATCH, _PATIENCE = 400, 6.0  # statements of one throwaway process; seconds for one of them
_MEMORY_MB = 256
_OUTSIDE = ("root:x:0", DEMO_TOKEN, "SRC_ANALYTICS_", "PWD=/", "127.0.0.1 localhost")  # what a read file would show
_TARGETS = ("sga-pwn.csv", "sga-pwn.out", "x.csv", "x.db")


def prints(*folders: Path) -> dict[str, str]:
    """Every file and what it holds."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def planted(folder: Path) -> list[str]:
    """Files that attacks would have made outside."""
    places = (Path(tempfile.gettempdir()), folder)
    return [str(place / name) for place in places for name in _TARGETS if (place / name).exists()]


# A throwaway process: one statement per line in, one verdict per line out.


def judge() -> None:
    """Serve in the throwaway process: `{"sql"}` is judged by the gate, `{"sql", "files"}` run without it."""
    empty = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
    limited = False
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "files" not in order:
                gate.check(empty, order["sql"])
                verdict = ["passed", ""]
            else:
                connection = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
                sandbox._lock(connection, order["files"], _MEMORY_MB)
                if not limited:
                    sandbox._limit()
                    limited = True
                verdict = ["ran", str(connection.execute(order["sql"]).fetchmany(200))]
        except gate.Refused as refused:
            verdict = ["refused", str(refused)]
        except (duckdb.Error, MemoryError, ValueError, OverflowError, RuntimeError) as error:
            verdict = ["failed", sandbox.cleaned(str(error), order["sql"], [])]
        print(json.dumps(verdict), flush=True)


class Judges:
    """A throwaway process, replaced after so many statements or when it does not answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._used = 0

    def verdict(self, sql: str, files: Sequence[Path] | None = None) -> tuple[str, str]:
        if self._process is None or self._used >= _BATCH:
            self.end()
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--judge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, cwd=self._folder, env={"PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
            self._used = 0
        self._used += 1
        order = {"sql": sql} | ({"files": [str(file) for file in files]} if files else {})
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            with selectors.DefaultSelector() as ready:
                ready.register(self._process.stdout, selectors.EVENT_READ)
                line = self._process.stdout.readline() if ready.select(_PATIENCE) else b""
        except BrokenPipeError:
            line = b""
        if not line:
            self.end()
            return "ended", ""
        kind, said = json.loads(line)
        return kind, said

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


# The whole server.


@dataclass
class Range:
    """One export on a server, and what was wrong so far."""

    client: Client
    export: str
    home: Path
    deadline: float
    wrong: list[str]

    async def ask(self, sql: str, *, must_fail: bool, must_work: bool = False) -> None:
        asked_at = time.monotonic()
        result = await self.client.call_tool("query_export", {"export_id": self.export, "sql": sql})
        said = result.model_dump_json()
        if (must_fail and not result.is_error) or (must_work and result.is_error):
            self.wrong.append(f"{sql[:160]} -> {text(result)[:120]}")
        if time.monotonic() - asked_at > self.deadline + 4:
            self.wrong.append(f"not ended in time: {sql[:160]}")
        if str(self.home) not in sql and str(self.home) in said:
            self.wrong.append(f"path leaked: {sql[:160]}")
        if shown(said, sql):
            self.wrong.append(f"{shown(said, sql)} leaked: {sql[:160]}")


def shown(said: str, sql: str) -> list[str]:
    """What of the outside an answer shows that the statement did not bring."""
    return [mark for mark in _OUTSIDE if mark in said and mark not in sql]


def mutations(statements: Sequence[str], each: int, seed: int, *, alike: bool = False) -> Iterator[str]:
    for number, sql in enumerate(statements):
        for again in range(each):
            yield mutated(sql, random.Random(f"{seed}/{number}/{again}"), alike=alike)


def trivial(sql: str) -> bool:
    """Wrapping nothing, or a comment, in a SELECT makes an ordinary question."""
    return any(sql == form.format(bare) for form in _FORMS for bare in ("", ";", "--", "/* */"))


def overwrites(home: Path, export: Path) -> list[str]:
    """Every way to write over every file that there is, or that a query's copies would be called."""
    parts = [*sorted((export / "parts").iterdir()), export / "export.csv", export / "meta.json"]
    guesses = [*parts, home / "staging" / "query-0" / "00000.parquet", Path("00000.parquet"), home / "staging" / "x"]
    return [way.replace("{path}", str(guess)) for way in OVERWRITES for guess in guesses]


async def attacked(place: Range, asked: argparse.Namespace, seen: Counter[str]) -> None:
    """Everything that was asked for."""
    before = prints(place.home)
    await _through_the_server(place, asked, seen)
    copies = place.home.parent / "copies"
    paths = [*overwrites(place.home, place.home / "exports" / place.export), *overwrites(place.home, copies)]
    each = -(-asked.overwrites * len(OVERWRITES) // len(paths))
    judges = Judges(place.home.parent / "cwd")
    for what, statements in (
        ("mutations", mutations(ATTACKS, asked.mutations, asked.seed)),
        ("overwrites", mutations(paths, each, asked.seed)),
    ):
        begun = time.monotonic()
        for sql in statements:
            await _by_layers(place, sql, judges, copies, seen, what)
            if seen[what] % 2000 == 0 and prints(place.home) != before:
                place.wrong.append(f"a file changed before {sql[:160]}")
                break
        seen[f"{what}: seconds"] = round(time.monotonic() - begun)
    judges.end()
    if prints(place.home) != before:
        place.wrong.append("a file changed")
    place.wrong += [f"made outside: {path}" for path in planted(place.home.parent / "cwd")]
    if (await call(place.client, "query_export", export_id=place.export, sql="SELECT 1 AS one"))["rows"] != [[1]]:
        place.wrong.append("the server is not what it was")


async def _through_the_server(place: Range, asked: argparse.Namespace, seen: Counter[str]) -> None:
    for sql in [form.format(sql) for sql in ATTACKS for form in _FORMS[: asked.forms]]:
        seen["attacks through the server"] += 1
        await place.ask(sql, must_fail=not trivial(sql))
    for sql in ORDINARY if asked.forms else ():
        await place.ask(sql, must_fail=False, must_work=True)
    for sql in [*(BOMBS if asked.forms else ()), *mutations(BOMBS, asked.bombs, asked.seed, alike=True)]:
        seen["bombs"] += 1
        await place.ask(sql, must_fail=False)
    for sql in overwrites(place.home, place.home / "exports" / place.export):
        seen["overwrites through the server"] += 1
        await place.ask(sql, must_fail=True)
    for sql in mutations(ATTACKS, asked.sample, asked.seed + 1):
        seen["mutations through the server"] += 1
        await place.ask(sql, must_fail=False)


async def _by_layers(place: Range, sql: str, judges: Judges, copies: Path, seen: Counter[str], what: str) -> None:
    """The gate alone; then what it refuses without it, and what it lets pass through the whole server."""
    seen[what] += 1
    kind, _ = judges.verdict(sql)
    seen[f"{what}: {kind} by the gate"] += 1
    if kind == "passed":
        await place.ask(sql, must_fail=False)
        return
    whole = sorted((place.home / "exports" / place.export / "parts").iterdir())
    parts = [copies / "parts" / part.name for part in whole]
    ran, said = judges.verdict(sql, parts)
    seen[f"{what}: {ran} without it"] += 1
    if shown(said, sql):
        place.wrong.append(f"{shown(said, sql)} seen without the gate: {sql[:160]}")
    for part, source in zip(parts, whole, strict=True):  # copies may be harmed, but the next query needs whole ones
        if not part.is_file() or part.stat().st_size != source.stat().st_size:
            seen[f"{what}: harmed a throwaway copy"] += 1
            part.unlink(missing_ok=True)
            shutil.copyfile(source, part)


async def main(asked: argparse.Namespace, folder: Path) -> int:
    begun, wrong, seen = time.monotonic(), list[str](), Counter[str]()
    home = folder / "home"
    (folder / "cwd").mkdir()
    company = Company.made_up(datetime.now(UTC).date(), people=40, days=130)
    with serve_company(company) as upstream:
        async with connected(settings(upstream.url, home, sql_timeout=asked.timeout)) as client:
            export = (await call(client, "export_csv", granularity="by_user_day_client_language"))["export"]["id"]
            shutil.copytree(home / "exports" / export, folder / "copies")
            await attacked(Range(client, export, home, asked.timeout, wrong), asked, seen)
    options = " ".join(f"--{key} {value}" for key, value in vars(asked).items() if key not in ("forms", "judge"))
    counted = ", ".join(f"{count} {what}" for what, count in seen.items())
    print(f"attacks {asked.forms} {options}, duckdb {duckdb.__version__}: {counted}, {len(wrong)} wrong; "
          f"{time.monotonic() - begun:.0f} s")  # fmt: skip
    for line in wrong[:40]:
        print("  ", line)
    return 1 if wrong else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forms", type=int, nargs="?", default=len(_FORMS), help="forms of each attack, 0-9")
    parser.add_argument("--mutations", type=int, default=0, help="of each attack, by layers")
    parser.add_argument("--sample", type=int, default=0, help="of each attack, through the whole server")
    parser.add_argument("--bombs", type=int, default=0, help="mutations of each bomb")
    parser.add_argument("--overwrites", type=int, default=0, help="mutations of each way to overwrite the export")
    parser.add_argument("--timeout", type=float, default=3, help="seconds for one query")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--judge", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    if "--judge" in sys.argv:
        judge()
        sys.exit(0)
    os.umask(0o077)
    with tempfile.TemporaryDirectory() as name:
        sys.exit(anyio.run(partial(main, parsed(), Path(name))))
