"""What the text of a cell means: the same beside good cells, which the engine reads, and beside a bad one."""

from collections.abc import Callable
from datetime import date
from itertools import chain, product
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sourcegraph_analytics_mcp.exports.engine import ingest
from sourcegraph_analytics_mcp.settings import Settings
from support.client import call, connected, read, refused
from support.upstreams import Exchange, scripted_upstream

pytestmark = pytest.mark.anyio

Make = Callable[..., Settings]
COLUMNS = {
    "instance_user_id": "Instance user ID", "username": "Username", "timestamp_date": "Timestamp Date",
    "timestamp_month": "Timestamp Month", "searches": "Searches", "combined_car": "Combined CAR",
    "active_sourcegraph_user": "Active Sourcegraph User", "weighted_car": "Weighted CAR",
}  # fmt: skip
BLANKS = ["", " ", "\t ", "\u00a0", "\u3000", "\x0c", "\x85"]
DATES = ["2026-11-05", "2026-1-5", "2026/11/05", "2026-11/05", "20261105", "02026-11-05", "2026-02-30", "1989-12-31"]
TIMES = [
    "", "Z", "T", " 12", " 1:2:3", " 01:02", "T00:00:00", " 00:00:00.123456 UTC", " 00:00:00 +0000 UTC",
    "T23:59:59.9-05:00", " 10:00:00+02", "t10:00:00z", " 00:00:00 AM", " (BC)", "+02:00", "T00:00:00Z[UTC]",
]  # fmt: skip
DAYS = [*(DATES[0] + time for time in TIMES), *DATES, "infinity", "today", "11/05/2026", "5 Nov 2026", "2026- 11-05"]
MONTHS = ["2026-11", "2026-1", "2026/11", "2026-13", "11-2026", *(DATES[0] + time for time in TIMES[:9])]
NUMBERS = [
    *map("".join, product(["", "+"], ["0", "1.5", "1_0", "5."], ["", "e1", "E+1"])), "-5", ".5", "+-1", "1e1_0", "5e-1",
    "--1", "1__0", "_1", "1_", "1_.0", "1,234", "1 0", "0x10", "0b1", "1e", "nan", "-inf", "Infinity", "1%", "true",
    "9007199254740991", "9007199254740992", "9007199254740991.5", "-9007199254740993", "9" * 30, "1e400", "1e-400",
    "\uff11", "\u0663",
]  # fmt: skip
FLAGS = ["true", "TRUE", "t", "yes", "y", "1", "false", "f", "no", "n", "0", "on", "off", "2", "1.0", "tru", "\u200b"]
PADDED = {
    "timestamp_date": "2026-11-05", "timestamp_month": "2026-11", "searches": "5", "combined_car": "0.5",
    "active_sourcegraph_user": "true",
}  # fmt: skip
AROUND = [("", "\u00a0"), (" ", ""), ("\t", "\u3000"), ("\x0b", " "), ("\u200b", "")]
SPELLINGS = {
    "timestamp_date": DAYS, "timestamp_month": MONTHS, "searches": NUMBERS, "combined_car": NUMBERS,
    "active_sourcegraph_user": FLAGS,
}  # fmt: skip
ROW = 200  # bytes; a segment between this and twice as much is one row
DAY, MONTH = date(2026, 11, 5), date(2026, 11, 1)
READ = {
    ("timestamp_date", "2026-11-05 00:00:00.123456 UTC"): DAY,  # BigQuery
    ("timestamp_date", "2026-11-05 00:00:00 +0000 UTC"): DAY,  # Go
    ("timestamp_date", "2026-11-05T23:59:59.9-05:00"): DAY,  # the day as it is written
    ("timestamp_date", "2026-11-05 10:00:00+02"): DAY,
    ("timestamp_date", "2026/11/05"): DAY,
    ("timestamp_date", "\u30002026-11-05\t"): DAY,
    ("timestamp_date", "2026-11-05Z"): None,
    ("timestamp_date", "2026-11-05 12"): None,
    ("timestamp_date", "2026-11-05 1:2:3"): None,
    ("timestamp_date", "2026-11-05 (BC)"): None,
    ("timestamp_date", "1989-12-31"): None,
    ("timestamp_month", "2026-11"): MONTH,
    ("timestamp_month", "2026-11-05 00:00:00.123456 UTC"): MONTH,
    ("timestamp_month", "2026-1"): None,
    ("searches", "1_0"): 10,
    ("searches", "1.5e1"): 15,
    ("searches", "1.5"): None,
    ("searches", "9007199254740991"): 2**53 - 1,
    ("searches", "9007199254740992"): None,
    ("searches", "0x10"): None,
    ("searches", "\u3000"): None,
    ("combined_car", "-.5e-1"): -0.05,
    ("combined_car", "1e400"): None,
    ("combined_car", "\u00a00.5 "): 0.5,
    ("active_sourcegraph_user", "YES"): True,
}


def spelled(column: str) -> list[str]:
    around = (before + PADDED[column] + after for before, after in AROUND)
    more = (cell for of, cell in READ if of == column)
    return list(dict.fromkeys(chain(SPELLINGS[column], BLANKS, around, more)))


def values(folder: Path, column: str, cells: list[str], beside: str) -> tuple[list[Any], int]:
    """What each cell is kept as, each in a row of its own, and how many are said to be no value."""
    granularity: Any = "by_user_month" if column == "timestamp_month" else "by_user_day"
    when = "timestamp_month" if column == "timestamp_month" else "timestamp_date"
    names = list(dict.fromkeys(["instance_user_id", when, column, "weighted_car", "username"]))
    lines = [[COLUMNS[name] for name in names]]
    for number, cell in enumerate(cells):
        row = {"instance_user_id": str(number), when: "2026-11-05", "weighted_car": beside, column: cell}
        size = sum(len(f'"{row.get(name, "")}",'.encode()) for name in names)
        lines.append([(row | {"username": "x" * (ROW - size)})[name] for name in names])
    body = "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines).encode()
    folder.mkdir()
    (folder / "export.csv").write_bytes(body)
    connection = duckdb.connect()
    converter = ingest.Ingest(folder / "export.csv", folder, granularity, connection)
    converter.advance(len(body))
    described = converter.finish()
    assert len(described["segments"]) == (len(cells) if ingest.SEGMENT < 2 * ROW else 1)
    said = sum(remark["count"] for remark in described["remarks"] if remark["column"] == column)
    sql = f"SELECT {column} FROM '{folder}/*.parquet' ORDER BY CAST(instance_user_id AS INTEGER)"
    return [value for (value,) in connection.execute(sql).fetchall()], said


@pytest.mark.parametrize("column", SPELLINGS)
@pytest.mark.long
def test_a_cell_means_the_same_however_its_row_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    cells = spelled(column)
    beside_a_bad_one = values(tmp_path / "odd", column, cells, "n/a")
    monkeypatch.setattr(ingest, "SEGMENT", ROW + 1)
    alone = values(tmp_path / "clean", column, cells, "0.5")
    pairs = zip(cells, alone[0], beside_a_bad_one[0], strict=True)
    assert [(cell, a, b) for cell, a, b in pairs if (a, type(a)) != (b, type(b))] == []
    kept = dict(zip(cells, alone[0], strict=True))
    wanted = {cell: value for (of, cell), value in READ.items() if of == column}
    assert {cell: kept[cell] for cell in wanted} == wanted
    unread = sum(bool(cell.strip()) and value is None for cell, value in kept.items())
    assert 0 < unread == alone[1] == beside_a_bad_one[1]


def exported(body: bytes) -> Callable[[Exchange], Any]:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    return answer


@pytest.mark.parametrize("blank", BLANKS[1:])
async def test_a_cell_of_blanks_is_blank_and_kept_as_it_came(make_settings: Make, blank: str) -> None:
    head = "Instance user ID,Timestamp Date,Searches,Combined CAR,Active Sourcegraph User\n"
    body = f"{head}1,{blank},{blank},{blank},{blank}\n2,2026-11-05,3,0.5,true\n".encode()
    async with scripted_upstream(exported(body)) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user_day"))["export"]
        sql = "SELECT * EXCLUDE (instance_user_id) FROM usage ORDER BY instance_user_id"
        rows = (await call(client, "query_export", export_id=export["id"], sql=sql))["rows"]
    assert rows == [[None] * 4, ["2026-11-05", 3, 0.5, True]]
    assert "1 row has no day that can be read; it counts in no range but all time." in export["warnings"]
    assert not any("not a value" in warning for warning in export["warnings"])
    assert Path(export["path"]).read_bytes() == body


@pytest.mark.parametrize("beside", ["2", "n/a"])
async def test_spaces_around_quotes_are_no_part_of_a_cell(make_settings: Make, beside: str) -> None:
    rows = [
        'Instance user ID, "Username" ,  "User Email",Searches',
        f'1, "a, ""b"" ", "x@example.com" ,{beside}',
        '"2" ,   "c\r\n, d",y ,  "3"  ',
        ' "3",e "f", "" ,4',
    ]
    body = "\r\n".join(rows).encode()
    async with scripted_upstream(exported(body)) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        asked = {"export_id": export["id"]}
        found = (await call(client, "query_export", sql="SELECT * EXCLUDE (searches) FROM usage ORDER BY 1", **asked))[
            "rows"
        ]
        totals = (await call(client, "query_export", sql="SELECT sum(searches) FROM usage", **asked))["rows"]
        page = await read(client, f"{export['summary_uri']}/rows")
    shown = "c\\u{000D}\\u{000A}, d"
    assert found == [["1", 'a, "b" ', "x@example.com"], ["2", shown, "y "], ["3", 'e "f"', None]]
    assert totals == [[9 if beside == "2" else 7]]
    assert "| 2 | c" in page


@pytest.mark.parametrize("cells", ['1,"a" "b",2', '1,"a" b,2', '"1"x,"a",2'])
async def test_what_else_stands_outside_quotes_is_refused(make_settings: Make, cells: str) -> None:
    body = f"Instance user ID,Username,Searches\n{cells}\n".encode()
    async with scripted_upstream(exported(body)) as fake, connected(make_settings(fake.url)) as client:
        error = await refused(client, "export_csv", granularity="by_user")
    assert (error["code"], "quotes do not match" in error["message"]) == ("upstream_bad_csv", True)


TIMES_ADDED = [
    ("by_user", "Date", "date"),
    ("by_user", "Day", "day"),
    ("by_user", "Timestamp Date", "column_3_timestamp_date"),
    ("by_user_month", "Date", "date"),
    ("by_user_month", "Timestamp Date", "column_3_timestamp_date"),
    ("by_user_month", "Month", "month"),
]


@pytest.mark.parametrize(("granularity", "header", "name"), TIMES_ADDED)
async def test_a_second_time_is_one_more_column(make_settings: Make, granularity: str, header: str, name: str) -> None:
    """What tells when is known by the grain; a report of people has no time, whatever it says besides."""
    month = granularity == "by_user_month"
    columns, row = ("Instance user ID,Timestamp Month", "1,2026-03") if month else ("Instance user ID,Searches", "1,5")
    body = f"{columns},{header}\n{row},2026-11-26\n".encode()
    async with scripted_upstream(exported(body)) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity=granularity))["export"]
        asked = await call(client, "query_export", export_id=export["id"], sql=f"SELECT {name} FROM usage")
    assert asked["rows"] == [["2026-11-26"]]
    assert f"Columns that are not documented, kept as text: {name}." in export["warnings"]


async def test_people_of_a_range_count_though_their_report_has_a_date(make_settings: Make) -> None:
    body = b"Instance user ID,Searches,Date\n1,5,2026-11-26\n2,7,2026-11-26\n"
    days = {"start_date": "2025-01-01", "end_date": "2025-12-31"}
    async with scripted_upstream(exported(body)) as fake, connected(make_settings(fake.url)) as client:
        asked = await call(client, "query_usage", metrics=["active_users", "searches"], **days)
    assert asked["totals"] == [2, 12]
