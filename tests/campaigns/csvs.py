"""Convert generated CSV files and compare every cell with Python's own parser, an independent reading of each kind.

python tests/campaigns/csvs.py --count 2000 --seed 1
"""

import csv
import io
import random
import re
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

sys.path[:0] = [str(Path(__file__).parents[1])]

from sourcegraph_analytics_mcp.errors import AnalyticsError
from sourcegraph_analytics_mcp.exports.engine import ingest
from support.campaign import arguments, reporter

HEADER = [
    "Instance user ID",
    "Username",
    "Active Sourcegraph User",
    "Timestamp Date",
    "Searches",
    "Combined CAR",
    "New",
]
IDS = [
    "1",
    "007",
    "1e5",
    "NaN",
    "a,b",
    '"q"',
    "é\u0301",
    "x" * 300,
    "-0",
    "NULL",
    " 5 ",
    "123456789012345678901234567890",
]
BLANKS = [" ", "\t", "\u00a0", "\u3000", "\u2003 "]
TEXTS = ["", "", "a", '"', '""', "a\nb", "a\r\nb", "a,b", " lead", "trail ", "#x", "=1+1", "\t", "NULL", "null", "'",
         "\\",
         "\\\"", "日本", "\u202e", "\x07", ";", "|", "0"]  # fmt: skip
FLAGS = ["true", "false", "", "True", "FALSE", "t", "0", "1", "yes", "maybe", "2", "\u3000true ", *BLANKS]
DAYS = ["2026-01-31", "2024-02-29", "2025-02-29", "", "2026-1-5", "2026-01-31T00:00:00Z", "2026-01-31 10:00:00",
        "2026-01-31 00:00:00 UTC", "2026-01-31 00:00:00.5 +0000 UTC", "2026-01-31T23:00:00-05:00", "2026/01/31",
        "2026-01-31 12", "2026-01-31 1:2:3", "2026-01-31Z", "2026-01-31T", "2026 01 31", "\u00a02026-01-31\t", *BLANKS,
        "31.01.2026",
        "infinity", "0001-01-01", "9999-12-31", "2026-13-01"]  # fmt: skip
COUNTS = ["0", "5", "", "12", "1.0", "1.5", "1e3", "-3", "1,234", "nan", "inf", "9007199254740993", "9" * 30, " 7",
          "0x10", "1_0",
          "+4", ".5", "5.", "1e1_0", "1_.0", "15e-1", "9007199254740991.4", "\u20037", *BLANKS]  # fmt: skip
RATIOS = ["0", "0.5", "", "1", "1e-3", "nan", "inf", "x", "50%", "-0.25", "1_0.5", "+.5", *BLANKS]


def made(rng: random.Random) -> tuple[bytes, list[list[str]]]:
    """A file and what Python reads in it; mostly plain values, so that the fast way is taken too."""
    odd = rng.choice((0.0, 0.0, 0.02, 0.3))

    def pick(plain: list[str], every: list[str]) -> str:
        return rng.choice(every) if rng.random() < odd else rng.choice(plain)

    rows = [
        [
            pick(["1", "2", "30"], IDS), rng.choice(TEXTS), pick(["true", "false", ""], FLAGS),
            pick(["2026-01-31", "2024-02-29", ""], DAYS), pick(["0", "5", "", "12"], COUNTS),
            pick(["0.5", "", "1"], RATIOS), rng.choice(TEXTS),
        ]
        for _ in range(rng.randrange(0, 40))
    ]  # fmt: skip
    out = io.StringIO()
    end = rng.choice(("\n", "\r\n"))
    writer = csv.writer(out, lineterminator=end, quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    writer.writerows([HEADER, *rows])
    text = out.getvalue()
    read = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    if rng.random() < 0.15:
        text = "".join(",".join(_apart(rng, cell) for cell in row) + end for row in [HEADER, *rows])
    if rng.random() < 0.3:
        text = text.removesuffix(end)
    return (b"\xef\xbb\xbf" if rng.random() < 0.2 else b"") + text.encode(), read[1:]


def _apart(rng: random.Random, cell: str) -> str:
    """A cell in quotes, with spaces around them that are no part of it."""
    quoted = '"' + cell.replace('"', '""') + '"'
    before, after = rng.choice(("", "", " ", "  ")), rng.choice(("", "", " "))
    return f"{before}{quoted}{after}"


def understood(kind: str, cell: str) -> Any:
    """A cell as its kind, None where it is none."""
    text = cell.strip()
    if kind == "text":
        return cell or None
    if kind == "flag":
        return {"true": True, "t": True, "1": True, "yes": True, "false": False, "f": False, "0": False}.get(
            text.lower()
        )
    if kind == "day":
        found = re.fullmatch(
            r"(\d{4})([-/])(\d\d?)\2(\d\d?)([T ]\d\d:\d\d:\d\d(\.\d)?(Z|-05:00|( \+0000)? UTC)?)?", text
        )
        try:
            day = date(int(found[1]), int(found[3]), int(found[4])) if found else None
        except ValueError:
            return None
        return day if day and 1990 <= day.year <= 2199 else None
    if not re.fullmatch(r"[+-]?(\d+(_\d+)*\.?\d*|\.\d+)(e[+-]?\d+(_\d+)*)?", text):
        return None
    number = float(text)
    if kind == "ratio":
        return number
    return int(number) if number == int(number) and abs(number) < 2**53 else None


def converted(data: bytes, folder: Path) -> list[tuple[Any, ...]]:
    (folder / "parts").mkdir()
    (folder / "export.csv").write_bytes(data)
    connection = duckdb.connect(":memory:")
    converter = ingest.Ingest(folder / "export.csv", folder / "parts", "by_user_day", connection)
    converter.advance(len(data))
    facts = converter.finish()
    rows: list[tuple[Any, ...]] = []
    for number in range(len(facts["segments"])):
        rows += connection.execute(f"SELECT * FROM '{folder}/parts/{number:05}.parquet'").fetchall()
    if facts["row_count"] != len(rows):
        raise AssertionError("the row count is wrong")
    return rows


def main() -> int:
    asked = arguments(__doc__, 2000)
    report, wrong, cells = reporter("csvs", asked), list[str](), 0
    kinds = ["text", "text", "flag", "day", "count", "ratio", "text"]
    for number in range(asked.count):
        rng = random.Random(f"{asked.seed}/{number}")
        ingest.SEGMENT = rng.choice((128, 300, 1 << 20))  # so that small files are cut too
        data, rows = made(rng)
        wanted = [tuple(understood(kind, cell) for kind, cell in zip(kinds, row, strict=True)) for row in rows]
        days = [
            (row[kinds.index("day")], row_wanted[kinds.index("day")])
            for row, row_wanted in zip(rows, wanted, strict=True)
        ]
        unread = bool(days) and all(cell.strip() and day is None for cell, day in days)
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = converted(data, Path(folder))
            except AnalyticsError as error:
                if not (unread and error.code == "upstream_schema_changed"):
                    wrong.append(f"file {number}: {error.message}")
                continue
        if unread:
            wrong.append(f"file {number}: kept, although no day of it can be read")
        cells += len(wanted) * len(kinds)
        if found != wanted:
            pairs = [(w, f) for a, b in zip(wanted, found, strict=False) for w, f in zip(a, b, strict=True) if w != f]
            wrong.append(f"file {number}: {len(found)} of {len(wanted)} rows; {pairs[:3]}")
    return report(wrong, files=asked.count, cells_compared=f"{cells:,}")


if __name__ == "__main__":
    sys.exit(main())
