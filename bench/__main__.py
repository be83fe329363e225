"""Print what this server costs, as ratios measured side by side in one run, and write it as JSON.

python -m bench [start export query sql pandas busy upstream size http growth]
    [--rows 1000000] [--rate 50000000] [--runs 5] [--data DIR] [--json FILE]
"""

import argparse
import asyncio
import gzip as gzip_file
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .data import report
from .http import ERAS, compared, servers
from .questions import QUESTIONS, TYPICAL
from .server import COMMAND, DEMO, Engines, Server, demo, running, upstream

HELLO = """
from mcp.server import MCPServer
mcp = MCPServer("hello", version="1", log_level="WARNING")
@mcp.tool()
async def hello(name: str = "x") -> str:
    return name
mcp.run()
"""
_SETTINGS = {"instance": "a.example", "access_token": "bench-made-up", "answer_within": "600", "log_level": "ERROR"}


def timed(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


class Table:
    """Rows of: what, ours, the other, the ratio, what to reach."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def side_by_side(self, what: str, ours: list[float], other: list[float], unit: str, reach: str) -> None:
        """Medians, and the median of the ratios of what was measured one right after the other."""
        ratio = statistics.median(mine / its for mine, its in zip(ours, other, strict=True))
        self.add(what, statistics.median(ours), statistics.median(other), unit, reach, ratio)

    def add(
        self, what: str, ours: float, other: float | None, unit: str, reach: str, ratio: float | None = None
    ) -> None:
        ratio = ratio or (ours / other if other else None)
        self.rows.append({"what": what, "ours": ours, "other": other, "ratio": ratio, "unit": unit, "reach": reach})
        digits = 0 if unit == "tokens" else 3
        shown = f"{other:10.{digits}f}" if other is not None else " " * 10
        times = f"{ratio:6.2f} x" if ratio is not None else " " * 8
        print(f"{what:58} {ours:10.{digits}f} {shown} {unit:6} {times}  {reach}", flush=True)


def start(table: Table, home: Path, options: argparse.Namespace) -> None:
    """Spawn to the answer of tools/list, and memory at rest, against a bare server on the same SDK."""
    hello = home / "hello.py"
    hello.write_text(HELLO)
    ours: list[float] = []
    bare: list[float] = []
    rest: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(options.runs + 1):
        for name, command, times in (("ours", COMMAND, ours), ("bare", (sys.executable, str(hello)), bare)):
            begun = time.perf_counter()
            with running(home, {} if name == "bare" else _SETTINGS, command) as server:
                server.ask("tools/list", {})
                times.append(time.perf_counter() - begun)
                rest[name].append(server.memory()["VmRSS"])
    table.add("spawn to tools/list", statistics.median(ours[1:]), statistics.median(bare[1:]), "s", "<= 1.00 x")
    table.add("memory at rest", statistics.median(rest["ours"]), statistics.median(rest["bare"]), "MB", "<= 1.25 x")


def copy_statement(csv: Path, target: Path) -> str:
    """What one would do without us: the engine alone, with the same memory."""
    settings = (
        "memory_limit = '256MB'",
        "threads = 2",
        "preserve_insertion_order = false",
        "enable_progress_bar = false",
    )
    copy = f"COPY (SELECT * FROM read_csv('{csv}')) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
    statements = [*(f"SET {setting}" for setting in settings), copy]
    return f"import duckdb; c = duckdb.connect(); [c.execute(s) for s in {statements!r}]"


def export(table: Table, home: Path, options: argparse.Namespace) -> None:
    """An export to the queryable state against curl and one COPY, one after the other."""
    csv = report(options.data / f"{options.rows}.csv", options.rows)
    packed = gzipped(csv)
    for rate, gzip in ((0, False), (options.rate, False), (0, True)):
        arguments = [str(csv)] + (["--rate", str(rate)] if rate else []) + (["--gzip", str(packed)] if gzip else [])
        ours: list[float] = []
        other: list[float] = []
        above: list[float] = []
        below: list[float] = []
        with upstream(*arguments) as url:
            for run in range(max(1, options.runs // 2)):
                other.append(_curl_and_copy(url, home, copy=not rate))
                times = (ours, above, below)
                for kept, figure in zip(times, _export_once(home / f"{rate}-{gzip}-{run}", url), strict=True):
                    kept.append(figure)
        link = f"{rate / 1e6:.0f} MB/s" if rate else "gzip" if gzip else "loopback"
        against = "curl alone" if rate else "curl, then COPY"
        reach = "<= 1.30 x" if rate else "<= 1.10 x"
        rows = f"{options.rows:,} rows"
        table.add(f"export {rows}, {link}, against {against}", min(ours), min(other), "s", reach)
        table.add(f"server memory above rest, {rows}, {link}", max(above), None, "MB", "<= 32 MB")
        table.add(f"largest engine, {rows}, {link}", max(below), None, "MB", "<= 400 MB")


def _export_once(home: Path, url: str) -> tuple[float, float, float]:
    """Seconds of one export, MB of the server above its memory at rest, MB of its largest engine."""
    with running(home, _SETTINGS | {"url": url, "data_dir": str(home)}) as server:
        return _exported(server)


def _exported(server: Server) -> tuple[float, float, float]:
    rest = server.memory()["VmRSS"]
    engines = Engines(server.process.pid)
    try:
        seconds = timed(lambda: server.call("export_csv"))
    finally:
        most = engines.most()
    return seconds, server.memory()["VmHWM"] - rest, most


def _curl_and_copy(url: str, home: Path, *, copy: bool) -> float:
    target = home / "curl.csv"
    begun = time.perf_counter()
    subprocess.run(["curl", "-s", "--compressed", "-o", str(target), url], check=True)
    if copy:
        code = copy_statement(target, home / "curl.parquet")
        subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begun


def gzipped(csv: Path) -> Path:
    """The same file as upstream would send it compressed."""
    packed = csv.with_suffix(".csv.gz")
    if not packed.exists():
        with gzip_file.open(packed, "wb", compresslevel=6) as out, csv.open("rb") as source:
            shutil.copyfileobj(source, out, 1 << 20)
    return packed


def pandas(table: Table, home: Path, options: argparse.Namespace) -> None:
    """The same questions as people ask them today: pandas reading the CSV."""
    csv = report(options.data / f"{options.rows}.csv", options.rows)
    code = (
        "import pandas as pd, sys; d = pd.read_csv(sys.argv[1], usecols=['Language', 'Combined Completion Suggestions',"
        "'Combined Completion Acceptances']); g = d.groupby('Language', dropna=False).sum(); "
        "print(g['Combined Completion Acceptances'] / g['Combined Completion Suggestions'])"
    )
    command = [sys.executable, "-c", code, str(csv)]
    other = min(timed(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(3))
    with upstream(str(csv)) as url, running(home, _SETTINGS | {"url": url, "data_dir": str(home / "pd")}) as server:
        server.call("export_csv")
        asked = QUESTIONS["by language"][0] | {"period": "all_time"}
        ours = [timed(lambda: server.call("query_usage", **asked)) for _ in range(options.runs + 1)]
    what = f"question by language, {options.rows:,} rows, against pandas"
    table.add(what, statistics.median(ours[1:]), other, "s", "<= 0.05 x")


def busy(table: Table, home: Path, options: argparse.Namespace) -> None:
    """list_exports while two exports and two queries run."""
    csv = report(options.data / f"{options.rows}.csv", options.rows)
    with upstream(str(csv)) as url, running(home, _SETTINGS | {"url": url, "data_dir": str(home / "busy")}) as server:
        kept = server.call("export_csv")["structuredContent"]["export"]["id"]
        idle = [timed(lambda: server.call("list_exports")) for _ in range(50)]
        sql = "SELECT count(DISTINCT hash(instance_user_id || language)) FROM usage, range(40)"
        work: list[tuple[str, dict[str, Any]]] = [("export_csv", {"start_date": f"2024-11-0{day}"}) for day in (1, 2)]
        work += [("query_export", {"export_id": kept, "sql": f"{sql} -- {number}"}) for number in (1, 2)]
        pending = {server.send("tools/call", {"name": name, "arguments": given}) for name, given in work}
        times: list[float] = []
        while pending and len(times) < 20_000:
            begun = time.perf_counter()
            number = server.send("tools/call", {"name": "list_exports", "arguments": {}})
            while (found := server.hear()) != number:
                pending.discard(found)
            times.append(time.perf_counter() - begun)
    slowest = sorted(times)[int(len(times) * 0.99)]
    what = f"list_exports beside 2 exports of {options.rows:,} rows and 2 queries, p99"
    table.add(what, slowest, statistics.median(idle), "s", "<= 0.200 s (against: idle median)")


def ten_questions(table: Table, home: Path, options: argparse.Namespace) -> None:
    """Bytes and calls upstream for ten typical questions, against one finest-grain export of all time for each."""
    with demo() as (url, sent), running(home, DEMO | {"url": url, "data_dir": str(home / "ten")}) as server:
        for tool, arguments in TYPICAL:
            server.call(tool, **arguments)
        ours = sum(sent), len(sent)
        sent.clear()
        server.call("export_csv", refresh=True)
        other = sum(sent)
    table.add("bytes upstream for ten questions", ours[0] / 1e6, other * len(TYPICAL) / 1e6, "MB", "<= 0.05 x")
    table.add("calls upstream for ten questions", ours[1], len(TYPICAL), "", "")


def size(table: Table, home: Path, options: argparse.Namespace) -> None:
    """Tokens that a model reads (o200k), against the CSV that the same export is."""
    import bpe_openai

    encoding = bpe_openai.get_encoding("o200k_base")

    def count(text: str) -> int:
        return sum(len(encoding.encode(line)) for line in text.splitlines(keepends=True))  # it takes no megabytes

    with demo() as (url, _), running(home, DEMO | {"url": url, "data_dir": str(home / "size")}) as server:
        listed = json.dumps(server.ask("tools/list", {})["tools"], separators=(",", ":"))
        export = server.call("export_csv")["structuredContent"]["export"]
        summary = server.ask("resources/read", {"uri": export["summary_uri"]})["contents"][0]["text"]
        answers = [server.call(tool, **given)["content"][0]["text"] for tool, given in TYPICAL]
        (csv,) = home.glob(f"size/**/{export['id']}/*.csv")
        raw = count(csv.read_text())
    lengths = [count(answer) for answer in answers]
    table.add("tools/list", count(listed), None, "tokens", "<= 3,000")
    table.add("summary of an export, against its CSV", count(summary), raw, "tokens", "<= 1,500")
    table.add("typical answer, median, against the CSV", statistics.median(lengths), raw, "tokens", "<= 600")
    table.add("typical answer, longest, against the CSV", max(lengths), raw, "tokens", "")


def http(table: Table, home: Path, options: argparse.Namespace) -> None:
    """Calls per second over HTTP against bare servers on the same SDK, in turn: ours checks a token, so does one."""
    with servers(home, _SETTINGS) as targets:
        for era in ERAS:
            for clients in (1, 16, 64):
                rates = asyncio.run(compared(targets, era, clients, 10 * options.runs, 0.25))
                for what, other in (
                    (f"tools/call a second, {era}, {clients} clients", rates[1]),
                    ("the same, a bare server that checks tokens", rates[2]),
                ):
                    table.side_by_side(what, rates[0], other, "/s", ">= 0.90 x")


def growth(table: Table, home: Path, options: argparse.Namespace) -> None:
    """How time and memory grow with the rows of an export; each figure against the one a tenth its size."""
    before: list[float] = []
    for rows in (10_000, 100_000, 1_000_000, 10_000_000):
        csv = report(options.data / f"{rows}.csv", rows)
        kept = _SETTINGS | {"data_dir": str(home / f"growth-{rows}")}
        with upstream(str(csv)) as url, running(home, kept | {"url": url}) as server:
            seconds, above, below = _exported(server)
            asked = QUESTIONS["by language"][0] | {"period": "all_time"}
            server.call("query_usage", **asked)
            question = min(timed(partial(server.call, "query_usage", **asked)) for _ in range(3))
        now = [seconds, question, above, below]
        for number, (what, unit) in enumerate(
            (("export", "s"), ("question by language", "s"), ("server above rest", "MB"), ("largest child", "MB"))
        ):
            table.add(f"{rows:,} rows: {what}", now[number], before[number] if before else None, unit, "")
        before = now


def query(table: Table, home: Path, options: argparse.Namespace) -> None:
    """Questions on a kept export against the bare engine in process on the same files."""
    import duckdb

    csv = report(options.data / f"{options.rows}.csv", options.rows)
    kept = {"data_dir": str(home / "query")}
    with upstream(str(csv)) as url, running(home, _SETTINGS | kept | {"url": url}) as server:
        server.call("export_csv")
        parts = sorted(str(p) for p in (home / "query").glob("exports/*/parts/*.parquet"))
        bare = duckdb.connect()
        bare.execute("SET threads = 2; SET memory_limit = '256MB'; SET preserve_insertion_order = false")
        bare.execute(f"CREATE VIEW usage AS SELECT * FROM read_parquet({parts})")
        bare.execute("SELECT count(*) FROM usage").fetchall()
        for number, (name, (arguments, sql)) in enumerate(QUESTIONS.items()):
            _question(table, server, bare, name, arguments, sql, first=number == 0, options=options)


def _question(
    table: Table, server: Server, bare: Any, name: str, arguments: dict[str, Any], sql: str, *, first: bool,
    options: argparse.Namespace,
) -> None:  # fmt: skip
    asked = arguments | {"period": "all_time"}
    engine = [timed(lambda: bare.execute(sql).fetchall()) for _ in range(options.runs + 1)]
    ours = [timed(lambda: server.call("query_usage", **asked)) for _ in range(options.runs + 1)]
    other = statistics.median(engine[1:])
    if first:
        table.add(f"first question, {name}", ours[0], other * 1.5 + 0.150, "s", "<= 1 x of (1.5 x engine + 150 ms)")
    table.add(f"next question, {name}", statistics.median(ours[1:]), other * 1.5 + 0.020, "s",
              f"<= 1 x of (1.5 x engine + 20 ms); engine {other:.3f} s")  # fmt: skip


def sql(table: Table, home: Path, options: argparse.Namespace) -> None:
    """A query of query_export, in a process of its own, against a process that imports DuckDB and asks the same."""
    csv = report(options.data / "1000.csv", 1000)
    kept = {"data_dir": str(home / "sql")}
    asked = "SELECT sum(searches) FROM usage"
    with upstream(str(csv)) as url, running(home, _SETTINGS | kept | {"url": url}) as server:
        export_id = server.call("export_csv")["structuredContent"]["export"]["id"]
        (part,) = (home / "sql").glob("exports/*/parts/*.parquet")
        code = "import duckdb, sys; usage = duckdb.read_parquet(sys.argv[1]); print(duckdb.sql(sys.argv[2]))"
        process = [sys.executable, "-c", code, str(part), asked]
        ours, other = [], []
        for _ in range(3 * options.runs):
            ours.append(timed(lambda: server.call("query_export", export_id=export_id, sql=asked)))
            other.append(timed(lambda: subprocess.run(process, check=True, stdout=subprocess.DEVNULL)))
        table.add("query_export on 1,000 rows, against a process of DuckDB", statistics.median(ours),
                  statistics.median(other), "s", "<= 1.00 x")  # fmt: skip


SECTIONS = {
    "start": start, "export": export, "query": query, "sql": sql, "pandas": pandas, "busy": busy,
    "upstream": ten_questions, "size": size, "http": http, "growth": growth,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("sections", nargs="*", default=["start", "export", "query"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=50_000_000, help="bytes a second of the slow link")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path, help="where generated reports are kept for the next run")
    parser.add_argument("--json", type=Path, help="also write the table there")
    options = parser.parse_args()
    table = Table()
    print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}")
    print(f"{'':58} {'ours':>10} {'other':>10} {'':3} {'ratio':>8}  to reach")
    with tempfile.TemporaryDirectory() as folder:
        options.data = options.data or Path(folder)
        options.data.mkdir(exist_ok=True)
        for name in options.sections:
            SECTIONS[name](table, Path(folder), options)
    if options.json:
        options.json.write_text(json.dumps(table.rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
