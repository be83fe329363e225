"""SQL from a model: questions are answered, attacks find nothing, bombs end, and the export stays as it was."""

import hashlib
import json
import os
import re
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import duckdb
import pytest
from mcp import Client

from sourcegraph_analytics_mcp.exports.engine import gate
from sourcegraph_analytics_mcp.exports.engine.sandbox import bounded, cleaned
from sourcegraph_analytics_mcp.settings import Settings
from sourcegraph_analytics_mcp.surface.tools import sql as sql_tool
from support.client import call, connected, refused, text
from support.engines import engines
from support.statements import ATTACKS, BOMBS, ORDINARY
from support.upstreams import Exchange, Served, scripted_upstream

pytestmark = pytest.mark.anyio
FUNCTIONS = Path(__file__).with_name("functions.json")
LOCK = Path(__file__).parents[1] / "requirements.lock"


@pytest.fixture
async def queried(make_settings: Callable[..., Settings], upstream: Served) -> AsyncIterator[tuple[Client, str, Path]]:
    settings = make_settings(upstream.url, sql_timeout=60)
    async with connected(settings) as client:
        export = (await call(client, "export_csv"))["export"]
        yield client, export["id"], settings.home


def prints(home: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(home.rglob("*")) if p.is_file()}


LET_THROUGH = [
    *ORDINARY, "SELECT 1; ;", "SELECT * FROM USAGE", "WITH A AS (SELECT 1 AS x) SELECT * FROM a",
    "SELECT 'a' COLLATE NOCASE", "SELECT * FROM (WITH b AS (SELECT 2 AS x) FROM b)", "SELECT {'map': [1], 'type': 'x'}",
    "SELECT MAP {'a': 1}",
    "SELECT * FROM generate_series(1, 2), main.range(3)", "SELECT main.lower('A')",
    "SELECT rank() OVER (ORDER BY searches)",
    "SELECT DISTINCT ON (language) * FROM usage ORDER BY searches ASC LIMIT 10%", "SELECT 1::DECIMAL(9, 2)",
    f"SELECT '{'x' * (16_384 - 9)}'", f"SELECT '{'é' * 8_187}'",
]  # fmt: skip
STOPPED = [
    (f"SELECT '{'x' * (16_384 - 8)}'", "longer than 16,384"), (f"SELECT '{'é' * 8_188}'", "longer than 16,384"),
    ("SELECT '\0'", "NUL"), ("", "exactly one"),
    ("SELECT 1; SELECT 2", "exactly one"), ("SET threads = 9", "only a SELECT"), ("UPDATE EXTENSIONS", "only a SELECT"),
    ("WITH duckdb_tables AS (SELECT 1) SELECT 1", "plain name"), ('WITH "a b" AS (SELECT 1) SELECT 1', "plain name"),
    ("SELECT * FROM (WITH pg_x AS (SELECT 1) SELECT 1)", "plain name"), ("SELECT * FROM main.usage", "only table"),
    ("SELECT * FROM memory.main.usage", "only table"), ("SELECT 1 FROM usage, other", "only table"),
    ("SELECT (SELECT 1 FROM 'x.csv')", "only table"), ("SHOW TABLES", "DESCRIBE and SUMMARIZE"),
    ("SHOW TABLES FROM main", "DESCRIBE and SUMMARIZE"), ("DESCRIBE 'x.csv'", "only table"),
    ("UNPIVOT usage ON searches INTO NAME a VALUE b", "pivot is not allowed"), ("SELECT ?", "parameters"),
    ("SELECT $name", "parameters"), ("SELECT current_user", "not to be seen"),
    ("SELECT u.CURRENT_USER", "not to be seen"), ("SELECT * FROM lower('x')", "the function lower"),
    ("SELECT * FROM range(getenv('X')::INT)", "the function getenv"), ("SELECT version()", "the function version"),
    ("SELECT sleep_ms(1)", "the function sleep_ms"),
    ("SELECT READ_text('x')", "the function read_text"),
    ("SELECT pg_catalog.lower('A')", "the function lower"), ("SELECT system.main.lower('A')", "the function lower"),
    ("SELECT * FROM system.main.range(3)", "the function range"), ("SELECT getenv('X') OVER ()", "the function getenv"),
    ("SELECT first_value(1) OVER (ORDER BY getenv('X'))", "the function getenv"),
    ('SELECT "read_ x"()', "function named"),
]  # fmt: skip


def test_the_gate_alone_knows_one_select_of_usage_from_everything_else() -> None:
    with duckdb.connect() as empty:
        for sql in LET_THROUGH:
            gate.check(empty, sql)
        for sql, why in STOPPED:
            with pytest.raises(gate.Refused, match=why):
                gate.check(empty, sql)


def test_functions_that_are_let_through_are_those_that_were_looked_at() -> None:
    """Of the versions that were looked at; that of the lock is one.

    A newer engine is no failure before it is locked. Then, or where this fails: look at the functions that are named
    for any that reads, waits or says something of the server, add those to gate.py, and write down the rest with
    UPDATE_FUNCTIONS=1.
    """
    looked_at = json.loads(FUNCTIONS.read_text())
    with duckdb.connect() as empty:
        listed = (
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() "
            "WHERE function_type NOT IN ('table', 'table_macro', 'pragma')"  # which are no values
        )
        through = {name for (name,) in empty.execute(listed).fetchall() if _let_through(empty, name)}
    new, version = sorted(through - set(looked_at["functions"])), duckdb.__version__.rpartition(".")[0]
    if os.environ.get("UPDATE_FUNCTIONS"):
        looked_at["versions"] = sorted({*looked_at["versions"], version})
        looked_at["functions"] = sorted({*looked_at["functions"], *new})
        FUNCTIONS.write_text(json.dumps(looked_at, indent=1) + "\n")
    else:
        assert new == [] or version not in looked_at["versions"], "see above"
    locked = re.search(r"^duckdb==(\d+\.\d+)\.", LOCK.read_text(), re.MULTILINE)
    assert locked is not None
    assert locked[1] in looked_at["versions"], "see above"


def _let_through(empty: duckdb.DuckDBPyConnection, function: str) -> bool:
    """Whether the gate lets a query name a function, which has a plain name; signs and collations can do nothing."""
    if not re.fullmatch(r"[a-z]\w*", function) or function.startswith(("collate_", "icu_collate_")):
        return False
    try:
        gate.check(empty, f'SELECT "{function}"()')
    except gate.Refused:
        return False
    except duckdb.Error:  # a name of the grammar
        return True
    return True


async def test_ordinary_questions_are_answered(queried: tuple[Client, str, Path]) -> None:
    client, export_id, _ = queried
    for sql in ORDINARY:
        answer = await call(client, "query_export", export_id=export_id, sql=sql)
        assert answer["columns"], sql
        assert answer["row_count"] == len(answer["rows"]) > 0, sql


async def test_attacks_are_refused_and_leave_everything_as_it_was(queried: tuple[Client, str, Path]) -> None:
    client, export_id, home = queried
    before = prints(home)
    for sql in ATTACKS[::13]:  # tests/campaigns/attacks.py runs every one
        error = await refused(client, "query_export", export_id=export_id, sql=sql)
        assert error["code"] in ("sql_rejected", "sql_failed", "invalid_argument", "sql_timeout"), sql
        assert str(home) not in json.dumps(error), sql
    assert prints(home) == before
    assert not Path("/tmp/sga-pwn.csv").exists()
    assert (await call(client, "query_export", export_id=export_id, sql="SELECT 1 AS one"))["rows"] == [[1]]


@pytest.mark.long
async def test_bombs_end_and_the_server_goes_on(
    queried: tuple[Client, str, Path], make_settings: Callable[..., Settings], upstream: Served
) -> None:
    client, export_id, home = queried
    async with connected(make_settings(upstream.url, sql_timeout=1, data_dir=home)) as bombed:
        for sql in (*BOMBS[:8:2], "SELECT " + "(" * 10_000):
            with anyio.fail_after(30):
                error = await refused(bombed, "query_export", export_id=export_id, sql=sql)
            assert error["code"] in ("sql_timeout", "sql_memory", "sql_failed"), sql
    assert (await call(client, "query_export", export_id=export_id, sql="SELECT 1 AS one"))["rows"] == [[1]]
    assert [p.name for p in (home / "staging").iterdir()] == []


async def test_what_the_engine_does_not_count_has_a_limit_too(make_settings: Callable[..., Settings]) -> None:
    """Of the memory of long texts its own limit knows nothing (measured)."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"Instance user ID,Searches\n1,2\n")

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url, sql_timeout=60)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        long = "SELECT length(repeat(repeat('x', 1000000), 1200))"
        error = await refused(client, "query_export", export_id=export["id"], sql=long)
    assert error["code"] == "sql_memory"


async def test_results_are_bounded_and_say_so(queried: tuple[Client, str, Path]) -> None:
    client, export_id, _ = queried
    rows = await call(client, "query_export", export_id=export_id, sql="SELECT * FROM range(1000000)", limit=3)
    assert (rows["rows"], rows["truncated"]) == ([[0], [1], [2]], True)
    cell = await call(client, "query_export", export_id=export_id, sql="SELECT repeat('é', 100000) AS c")
    assert len(cell["rows"][0][0]) == 500
    assert "cut" in cell["notes"][0]
    wide = await call(
        client, "query_export", export_id=export_id, sql="SELECT repeat('x', 400) FROM range(1000)", limit=1000
    )
    assert wide["truncated"]
    assert wide["notes"] == ["Rows beyond 40,000 characters were left out; select fewer columns or aggregate."]
    assert len(json.dumps(wide)) < 60_000


async def _both(queried: tuple[Client, str, Path], sql: str, limit: int = 200) -> tuple[str, dict[str, Any]]:
    """What a query answers as text and as data."""
    client, export_id, _ = queried
    result = await client.call_tool("query_export", {"export_id": export_id, "sql": sql, "limit": limit})
    assert not result.is_error, text(result)
    assert result.structured_content is not None
    return text(result), result.structured_content


@pytest.mark.parametrize(
    ("value", "begins"),
    [
        ("list_transform(range(99), lambda i: 'Name ' || i)", '["Name 0", "Name 1", '),
        ("{'a': list_transform(range(99), lambda i: 'Name ' || i), 'b': 1}", '{"a": ["Name 0", '),
        ("MAP {'k': range(300)}", '{"k": [0, 1, 2, '),
        ("repeat(chr(8238), 100)", "\\u{202E}\\u{202E}"),
        ("[repeat(chr(8238), 80)]", '["\\\\u{202E}\\\\u{202E}'),
        ("list_transform(range(39), lambda i: chr(10))", '["\\\\u{000A}", "\\\\u{000A}"'),
        ("repeat('x', 501)", "xxx"),
    ],
)
@pytest.mark.long
async def test_a_cell_that_is_cut_is_cut_alike_in_text_and_data_and_said(
    queried: tuple[Client, str, Path], value: str, begins: str
) -> None:
    said, data = await _both(queried, f"SELECT {value} AS v")
    ((shown,),) = data["rows"]
    assert shown.startswith(begins)
    assert shown.endswith("…")
    assert 490 < len(shown) <= 500
    assert re.sub(r"\\([\\\[\]])", r"\1", said.splitlines()[-1]) == f"| {shown} |"
    assert data["notes"] == ["1 cell was cut to 500 characters."]
    assert data["notes"][0] in said


async def test_cells_that_just_fit_are_whole_and_several_are_counted(queried: tuple[Client, str, Path]) -> None:
    _, whole = await _both(queried, "SELECT repeat('x', 500), [repeat('x', 496)], repeat(chr(8238), 62)")
    _, cut = await _both(queried, "SELECT repeat('x', 501), [repeat('x', 497)], 'x'")
    assert whole["notes"] == []
    assert whole["rows"] == [["x" * 500, ["x" * 496], "\\u{202E}" * 62]]
    assert cut["notes"] == ["2 cells were cut to 500 characters."]
    said, lines = await _both(queried, "SELECT list_transform(range(38), lambda i: chr(10)), {'a': chr(8238)}")
    assert lines["rows"] == [[["\\u{000A}"] * 38, {"a": "\\u{202E}"}]]
    assert lines["notes"] == []
    assert json.loads(re.sub(r"\\([\\\[\]])", r"\1", said.splitlines()[-1]).split(" | ")[0][2:]) == ["\\u{000A}"] * 38


@pytest.mark.long
async def test_what_is_nested_deeper_than_clients_can_read_is_text(queried: tuple[Client, str, Path]) -> None:
    _, data = await _both(queried, f"SELECT {'[' * 100}1{']' * 100} AS v, {'[' * 101}1{']' * 101} AS w")
    list_, deeper = data["rows"][0]
    assert json.dumps(list_) == f"{'[' * 100}1{']' * 100}"
    assert deeper == f"{'[' * 101}1{']' * 101}"
    assert data["notes"] == ["1 cell nested too deeply is here as text."]
    client, export_id, _ = queried
    endless = "SELECT 1 AS v"
    for _ in range(3):
        endless = f"SELECT {'[' * 280}v{']' * 280} AS v FROM ({endless})"
    error = await refused(client, "query_export", export_id=export_id, sql=endless)
    assert "the query is nested too deeply" in error["message"]


_MARKUP = "'|*[]<>`' AS m"
_HIDDEN_NAMES = ", ".join(f'{n} AS "{chr(8238) * 97}{n}"' for n in range(100, 150))
_SLASHES = chr(92) * 97  # of which JSON makes twice as many, as it does in the type
_LONG_NAMES = ", ".join(f't AS "{_SLASHES}{n}"' for n in range(100, 200))
_LONG_TYPE = f"(SELECT CASE WHEN false THEN {{'{_SLASHES}': 1}} END AS t FROM range(1000))"


@pytest.mark.parametrize(
    ("sql", "few"),
    [
        ("SELECT sqrt(i + 2) AS a, sqrt(i + 3) AS b, sqrt(i + 5) AS c FROM range(1000) t(i)", 600),
        (f"SELECT sqrt(i + 2) AS a, {_MARKUP}, sqrt(i + 3) AS b, repeat('<>', 9) AS c FROM range(1000) t(i)", 350),
        ("SELECT repeat('\"', 200) AS q FROM range(1000)", 90),
        ("SELECT i, [i, NULL], {'a': '|'}, 'x|' || i FROM range(1000) t(i)", 700),
        (f"SELECT {_HIDDEN_NAMES} FROM range(1000)", 90),
        (f"SELECT {_LONG_NAMES} FROM {_LONG_TYPE}", 60),
    ],
)
@pytest.mark.long
async def test_nothing_makes_an_answer_longer_than_it_may_be(
    queried: tuple[Client, str, Path], sql: str, few: int
) -> None:
    said, data = await _both(queried, sql, limit=1000)
    lengths = (len(said), len(json.dumps(data, ensure_ascii=False)))
    assert max(lengths) <= 40_000, lengths
    assert max(lengths) > 37_000, lengths
    assert few < data["row_count"] == len(data["rows"]) < 1000
    assert data["notes"][-1].startswith("Rows beyond 40,000 characters were left out")


async def test_how_much_an_answer_holds_is_said_in_one_place(
    queried: tuple[Client, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_tool, "MAX_ROWS", 60_000)
    said, data = await _both(queried, "SELECT repeat('x', 400) AS long FROM range(1000)", limit=1000)
    assert 55_000 < max(len(said), len(json.dumps(data))) <= 60_000


def test_what_no_answer_can_hold_stays_in_the_process() -> None:
    row = ("x" * 600,) * 100
    held = bounded([(f"c{n}", "VARCHAR") for n in range(100)], [row] * 500, 500, 500, 40_000)
    assert (len(held["rows"]), held["truncated"]) == (1, True)
    assert held["rows"][0] == ["x" * 499 + "…"] * 100


async def test_numbers_that_are_not_finite_are_counted_as_they_are_shown(queried: tuple[Client, str, Path]) -> None:
    endless = "SELECT 'nan'::DOUBLE AS n FROM range(1000)"
    said, data = await _both(queried, f"SELECT list(n) AS l, '-inf'::DOUBLE AS i, 'NaN' AS t FROM ({endless})")
    ((nested, blank, name),) = data["rows"]
    assert nested == f"[{'null, ' * 83}…"
    assert (blank, name) == (None, "NaN")
    assert data["notes"] == [
        "1 value that is no finite number (NaN or infinity) is shown as blank.",
        "83 values that are no finite numbers (NaN or infinity) are shown as null.",
        "1 cell was cut to 500 characters.",
    ]
    assert all(f"- {note}\n" in said for note in data["notes"])


@pytest.mark.long
async def test_why_there_are_more_rows_is_said(queried: tuple[Client, str, Path]) -> None:
    few, _ = await _both(queried, "FROM range(5000)", limit=20)
    most, _ = await _both(queried, "FROM range(5000)", limit=1000)
    long, long_data = await _both(queried, "SELECT repeat('x', 499) FROM range(1000)", limit=1000)
    wide, wide_data = await _both(queried, "SELECT " + ", ".join(["repeat('x', 450)"] * 95))
    every, _ = await _both(queried, "FROM range(20)", limit=20)
    assert "UTC. There are more; raise limit (up to 1,000) or aggregate.\n" in few
    assert "UTC. There are more; filter or aggregate.\n" in most
    assert long_data["notes"] == ["Rows beyond 40,000 characters were left out; select fewer columns or aggregate."]
    assert f"UTC. There are more.\n- {long_data['notes'][0]}\n" in long
    assert wide_data["notes"] == ["The first row alone is longer than 40,000 characters; select fewer columns."]
    assert f"UTC. There are more.\n- {wide_data['notes'][0]}\n" in wide
    assert (wide_data["rows"], wide_data["truncated"]) == ([], True)
    named = ", ".join(f"repeat('y', 300) AS c{n}_{'n' * 90}" for n in range(100))
    _, beside = await _both(queried, f"SELECT {named}")
    assert (beside["rows"], beside["truncated"]) == ([], True)
    assert beside["notes"] == [
        "The first row and the columns' names are too long for an answer; select fewer columns, or shorten names."
    ]
    assert "more" not in every.split("\n\n")[0]


async def test_text_has_every_value_as_data_have_it(queried: tuple[Client, str, Path]) -> None:
    said, data = await _both(
        queried,
        "SELECT 2026 AS y, 202648 AS w, 99.996::DOUBLE AS p, 1.0049::DOUBLE AS r, 1234567.891::DOUBLE AS d, "
        "0.000012345678::DOUBLE AS s, true AS b, NULL AS n, [0, NULL, 1.5, 'nan'::DOUBLE] AS l, "
        "{'a': true, 'b': chr(8238)} AS o, MAP {true: 1} AS m, MAP {'a'::BLOB: DATE '2026-01-31'} AS k",
    )
    cells = [cell.replace("\\\\", "\\") for cell in re.split(r"(?<!\\) ?\| ?", said.splitlines()[-1])[1:-1]]
    shown = [json.loads(cell.replace("\\[", "[").replace("\\]", "]")) if cell else None for cell in cells]
    assert shown == data["rows"][0]
    assert cells[:6] == ["2026", "202648", "99.996", "1.0049", "1234567.891", "1.2345678e-05"]
    assert shown[8:] == [[0, None, 1.5, None], {"a": True, "b": "\\u{202E}"}, {"true": 1}, {"YQ==": "2026-01-31"}]


@pytest.mark.long
async def test_columns_are_bounded_and_their_names_count(queried: tuple[Client, str, Path]) -> None:
    client, export_id, _ = queried
    stars = {"export_id": export_id, "sql": f"SELECT {', '.join(['*'] * 20)} FROM usage", "limit": 300}
    result = await client.call_tool("query_export", stars)
    wide: Any = result.structured_content
    assert not result.is_error, text(result)
    assert len(wide["columns"]) == len(wide["rows"][0]) == 100
    assert wide["notes"][0].startswith("Only the first 100 of ")
    assert len(text(result)) < 60_000
    assert len(json.dumps(wide)) < 80_000
    named = ", ".join(f'{n} AS "{"x" * 97}{n}"' for n in range(100, 199))
    filled = f"SELECT {named}, repeat('y', 500) AS y FROM range(99)"
    long = await call(client, "query_export", export_id=export_id, sql=filled)
    nested = f"SELECT {{{', '.join(map(_entry, range(500)))}}} AS s"
    kinds = await call(client, "query_export", export_id=export_id, sql=nested)
    assert sum(len(column["name"]) for column in long["columns"]) == 9901
    assert len(long["rows"]) < 30_000 / (500 + 99 * 6)
    assert len(kinds["columns"][0]["type"]) == 100


def _entry(number: int) -> str:
    return f"'field_{number}': {number}"


async def test_a_refusal_is_bounded_as_data_too(make_settings: Callable[..., Settings]) -> None:
    async def answer(exchange: Exchange) -> None:
        more = ",".join(f"Column number {n}" for n in range(300))
        await exchange.answer(f"Instance user ID,Searches,{more}\n1,2{',' * 300}\n".encode())

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        error = await refused(client, "query_export", export_id=export["id"], sql="SELECT nothing FROM usage")
    assert error["next_step"].startswith("Columns of usage: instance_user_id, searches, ")
    assert len(error["next_step"]) == 2000


async def test_a_query_without_room_says_so_and_one_without_its_folder_makes_it(
    queried: tuple[Client, str, Path],
) -> None:
    client, export_id, home = queried
    one = {"export_id": export_id, "sql": "SELECT 1 AS one"}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        full = await refused(client, "query_export", **one)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (full["code"], list((home / "staging").iterdir())) == ("store_full", [])
    said = "A file would be larger than the system lets this server's files be."
    assert full["message"] == said  # which is so whatever is being done
    (home / "staging").rmdir()
    assert (await call(client, "query_export", **one))["rows"] == [[1]]
    (home / "staging").rmdir()
    (home / "staging").write_text("")
    assert (await refused(client, "query_export", **one))["code"] == "store_corrupt"


@pytest.mark.usefixtures("compiled")
@pytest.mark.long
async def test_a_query_whose_masked_copy_finds_no_room_says_so(
    make_settings: Callable[..., Settings], upstream: Served
) -> None:
    settings = make_settings(upstream.url, identities="pseudonyms")
    async with connected(settings) as client:
        export = (await call(client, "export_csv"))["export"]
        one = {"export_id": export["id"], "sql": "SELECT count(*) > 1 AS many FROM usage"}
        assert (await call(client, "query_export", **one))["rows"] == [[True]]
        (engine,) = engines()  # the warm one, which makes the copies
        resource.prlimit(int(engine), resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        full = await refused(client, "query_export", **one)
        assert (full["code"], list((settings.home / "staging").iterdir())) == ("store_full", [])
        assert (await call(client, "query_export", **one))["rows"] == [[True]]


async def test_a_query_says_what_must_be_known_of_the_data_it_reads(make_settings: Callable[..., Settings]) -> None:
    body = b"User ID,Searches,Chat Events\n1,1.5,x\n1,2,3\n"
    not_over = f"{datetime.now(UTC):%Y-%m-%d} was not over when this was exported."

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    async with scripted_upstream(answer) as fake, connected(make_settings(fake.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]

        async def noted(sql: str) -> list[str]:
            result = await client.call_tool("query_export", {"export_id": export["id"], "sql": sql})
            notes: list[str] = (result.structured_content or {})["notes"]
            assert all(note in text(result) for note in notes)
            return notes

        searches, every = await noted("SELECT sum(Searches) FROM usage"), await noted("FROM usage")
        assert await noted("SELECT * FROM range(3)") == []
    repeated = next(warning for warning in export["warnings"] if "repeat" in warning)
    cells = {name: next(w for w in export["warnings"] if f"of {name} " in w) for name in ("searches", "chat_events")}
    assert searches == [repeated, cells["searches"], not_over]
    assert every == [repeated, cells["chat_events"], cells["searches"], not_over]
    assert any("documented" in warning for warning in export["warnings"])


async def test_every_type_becomes_strict_json(queried: tuple[Client, str, Path]) -> None:
    client, export_id, _ = queried
    sql = (
        "SELECT 'nan'::DOUBLE AS n, 'inf'::DOUBLE AS i, 170141183460469231731687303715884105727::HUGEINT AS h, "
        "1.25::DECIMAL(9,2) AS d, DATE '2026-02-28' AS f, '\\xAA'::BLOB AS b, INTERVAL 1 DAY AS v, [1, NULL] AS l, "
        "{'a': 1} AS s, uuid() IS NULL AS u, 1 AS a, 2 AS a"
    )
    result = await client.call_tool("query_export", {"export_id": export_id, "sql": sql})
    answer: Any = result.structured_content
    assert text(result).splitlines()[-1].startswith("|  |  | 1701")
    row = dict(zip([c["name"] for c in answer["columns"]], answer["rows"][0], strict=True))
    assert (row["n"], row["i"], row["f"], row["b"], row["l"]) == (None, None, "2026-02-28", "qg==", [1, None])
    assert row["h"] == "170141183460469231731687303715884105727"
    assert (row["a"], row["a_2"], row["s"]) == (1, 2, {"a": 1})
    assert answer["notes"] == ["2 values that are no finite numbers (NaN or infinity) are shown as blank."]
    one = await call(client, "query_export", export_id=export_id, sql="SELECT 'nan'::DOUBLE AS n")
    assert one["notes"] == ["1 value that is no finite number (NaN or infinity) is shown as blank."]
    nested = "SELECT [1.0, 'inf'::DOUBLE] AS l, {'a': 'nan'::DOUBLE, 'b': '-inf'::DOUBLE} AS s"
    inside = await call(client, "query_export", export_id=export_id, sql=nested)
    assert inside["notes"] == ["3 values that are no finite numbers (NaN or infinity) are shown as null."]
    assert inside["rows"] == [[[1, None], {"a": None, "b": None}]]


@pytest.mark.long
async def test_a_wrong_query_gets_the_columns_and_no_cell(queried: tuple[Client, str, Path]) -> None:
    client, export_id, home = queried
    unknown = await refused(client, "query_export", export_id=export_id, sql="SELECT chats FROM usage")
    leaking = await refused(client, "query_export", export_id=export_id, sql="SELECT user_email::INT FROM usage")
    assert unknown["code"] == leaking["code"] == "sql_failed"
    assert "chat_events" in unknown["next_step"]
    assert "@" not in json.dumps(leaking)
    assert str(home) not in json.dumps([unknown, leaking])


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("IO Error: No files found that match /srv/data/exports/1/x.parquet", "IO Error: No files found that match …"),
        ('Cannot open file "/srv/data/x.parquet": gone', 'Cannot open file "…": gone'),
        ("a.b/c and 1/2 are no paths", "a.b/c and 1/2 are no paths"),
    ],
)
def test_the_engines_words_hold_no_path(message: str, shown: str) -> None:
    assert cleaned(message, "SELECT 1", ["searches"]) == shown


async def test_cancelling_kills_the_process(queried: tuple[Client, str, Path]) -> None:
    client, export_id, home = queried
    with anyio.fail_after(30):
        while engines():  # that of the export
            await anyio.lowlevel.checkpoint()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "query_export", {"export_id": export_id, "sql": BOMBS[0]})
        with anyio.fail_after(30):
            while not any(_queries(engine) for engine in engines()):
                await anyio.lowlevel.checkpoint()
        (copy,) = (home / "staging").glob("query-*")
        os.utime(copy, (0, 0))  # as if it had been running for long
        await call(client, "check_connection")  # which sweeps
        assert copy.exists()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(30):
        while list((home / "staging").iterdir()) or engines():
            await anyio.lowlevel.checkpoint()


def _queries(engine: int) -> bool:
    """Whether an engine has begun with a query that nobody vouches for: it cannot write to files any more."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return re.search(r"Max file size +0 +0 ", Path(f"/proc/{engine}/limits").read_text()) is not None
    return False


async def test_instructions_in_cells_are_shown_as_data(make_settings: Callable[..., Settings]) -> None:
    hostile = "[click](http://evil.example) | \u202e ![x](http://evil.example/?q=1)"
    body = ("Instance user ID,Username,Searches\n1," + hostile + ",2\n").encode()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body)

    async with scripted_upstream(answer) as scripted, connected(make_settings(scripted.url)) as client:
        export = (await call(client, "export_csv", granularity="by_user"))["export"]
        result: Any = await client.call_tool(
            "query_export", {"export_id": export["id"], "sql": "SELECT username FROM usage"}
        )
    shown = result.content[0].text
    assert "\\u{202E}" in shown
    assert "\\[click\\](http\\://evil" in shown
    assert result.structured_content["rows"] == [[hostile.replace("\u202e", "\\u{202E}")]]


@pytest.mark.parametrize(
    ("sql", "code", "says"),
    [
        ("SELECT '" + "x" * 17_000 + "'", "sql_rejected", "longer than 16,384 bytes"),
        ("SELECT 'a' \0 'b'", "sql_rejected", "NUL"),
        ("SELECT 1; SELECT 2", "sql_rejected", "exactly one statement"),
        ("DROP VIEW usage", "sql_rejected", "only a SELECT"),
        ("SELEC 1", "sql_failed", "syntax error"),
        ('WITH "/etc/passwd" AS (SELECT 1) SELECT 1', "sql_rejected", "plain name"),
        ("PRAGMA database_list", "sql_rejected", "only a SELECT"),
        ("UPDATE EXTENSIONS", "sql_rejected", "only a SELECT"),
        ("SHOW TABLES", "sql_rejected", "DESCRIBE and SUMMARIZE"),
        ("SELECT ?", "sql_rejected", "parameters"),
        (f"SELECT {'(' * 10_000}1{')' * 10_000}", "sql_rejected", "longer than 16,384 bytes"),
        (f"SELECT {', '.join(['1'] * 50_000)}", "sql_rejected", "longer than 16,384 bytes"),
        pytest.param(
            f"SELECT {'(' * 8_000}1{')' * 8_000}",
            "sql_failed",
            "depth",
            marks=pytest.mark.skipif(duckdb.__version__ < "2", reason="DuckDB 1.5 takes it"),
        ),
        (f"SELECT {'CASE WHEN true THEN ' * 500}1{' END' * 500}", "sql_rejected", "nested too deeply"),
    ],
)
@pytest.mark.long
async def test_a_query_that_is_refused_learns_why(
    queried: tuple[Client, str, Path], sql: str, code: str, says: str
) -> None:
    client, export_id, _ = queried
    error = await refused(client, "query_export", export_id=export_id, sql=sql)
    assert error["code"] == code
    assert says in error["message"]


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("age(DATE '2026-11-26', DATE '2025-11-26')", "1 year"),
        ("INTERVAL '-1 month'", "-1 month"),
        ("INTERVAL '1 month 2 days 3 hours'", "1 month 2 days 03:00:00"),
        ("'infinity'::DATE", "infinity"),
        ("'-infinity'::TIMESTAMP", "-infinity"),
        ("DATE '9999-12-31'", "9999-12-31"),
        ("TIMESTAMP_NS '2026-01-01 00:00:00.123456789'", "2026-01-01 00:00:00.123456789"),
        ("TIMESTAMPTZ '2026-01-01 00:00:00+02'", "2025-12-31 22:00:00+00"),
        ("TIME '24:00:00'", "24:00:00"),
        ("[INTERVAL 1 MONTH, NULL]", ["1 month", None]),
        ("{'DATE': [DATE 'infinity'], 'a \"b': 1}", {"DATE": ["infinity"], 'a "b': 1}),
        ("MAP {'a': INTERVAL 10 MONTH}", {"a": "10 months"}),
        ("array_value(INTERVAL 1 YEAR, INTERVAL 1 DAY)", ["1 year", "1 day"]),
        ("union_value(a := INTERVAL 1 MONTH)", "1 month"),
        ("(INTERVAL 1 YEAR)::VARIANT", "1 year"),
        ("DATE 'infinity'::VARIANT", "infinity"),
        ("{'in': [(INTERVAL 1 YEAR)::VARIANT]}", {"in": ["1 year"]}),
    ],
)
@pytest.mark.long
async def test_dates_times_and_intervals_are_shown_as_the_engine_spells_them(
    queried: tuple[Client, str, Path], expression: str, shown: object
) -> None:
    client, export_id, _ = queried
    sql = f";SELECT {expression} AS v, n, n FROM range(3) t(n) ORDER BY n DESC; -- the last first"
    result: Any = await client.call_tool("query_export", {"export_id": export_id, "sql": sql})
    answer = result.structured_content
    assert answer["rows"] == [[shown, 2, 2], [shown, 1, 1], [shown, 0, 0]]
    assert [column["name"] for column in answer["columns"]] == ["v", "n", "n_2"]
    assert not isinstance(shown, str) or f"| {shown} |" in text(result)
