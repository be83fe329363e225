"""SQL that must work, SQL that must not, and SQL that never ends or eats the machine; and each in other shapes."""

import random
import re
from collections.abc import Callable

ORDINARY: list[str] = [
    "SELECT count(*) FROM usage",
    "SELECT count(DISTINCT instance_user_id) AS people FROM usage WHERE chat_events > 0;",
    "select client_name, sum(chat_events) from usage group by all order by 2 desc nulls last limit 3",
    "WITH m AS (SELECT date_trunc('month', timestamp_date) AS m, sum(searches) AS s FROM usage GROUP BY 1) "
    "SELECT strftime(m, '%Y-%m'), s - lag(s) OVER (ORDER BY m) FROM m ORDER BY 1",
    "SELECT median(searches), quantile_cont(chat_events, 0.9), mode(language) FROM usage",
    "SELECT * FROM usage LIMIT 3",
    "SELECT * EXCLUDE (username) FROM usage QUALIFY row_number() OVER (PARTITION BY language ORDER BY searches) = 1",
    "FROM usage SELECT max(timestamp_date)",
    "DESCRIBE usage",
    "SUMMARIZE usage",
    "SELECT u.language FROM usage u JOIN (SELECT language, sum(searches) FROM usage GROUP BY 1) t USING (language)",
    "SELECT d FROM range(DATE '2026-01-01', DATE '2026-01-05', INTERVAL 1 DAY) t(d)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t",
    "SELECT CASE WHEN searches > 5 THEN 'many' ELSE 'few' END AS k, count(*) FROM usage GROUP BY ALL",
    "SELECT unnest([1, 2, 3])",
    "SELECT * FROM usage WHERE language IN (SELECT language FROM usage) AND username ILIKE 'a%' LIMIT 1",
    "SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3",
]

ATTACKS: list[str] = [
    "DROP VIEW usage", "DELETE FROM usage", "CREATE TABLE t AS SELECT 1", "INSERT INTO usage SELECT * FROM usage",
    "COPY (SELECT 1) TO 'x.csv'", "COPY usage TO '/tmp/sga-pwn.csv'", "ATTACH 'x.db'", "INSTALL httpfs", "LOAD httpfs",
    "SET memory_limit='9GB'", "RESET ALL", "PRAGMA database_list", "CALL duckdb_tables()", "EXPORT DATABASE '/tmp/x'",
    "CHECKPOINT", "VACUUM", "BEGIN", "COMMIT; DROP VIEW usage", "SELECT 1; SELECT 2", "SELECT 1;; DROP VIEW usage", "",
    ";", "--", "/* */", "EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x'", "PREPARE p AS SELECT 1",
    "WITH x AS (COPY (SELECT 1) TO '/tmp/sga-pwn.csv') SELECT * FROM x",
    "WITH x AS (DELETE FROM usage RETURNING 1) SELECT * FROM x", "WITH x AS (INSERT INTO usage VALUES (1)) SELECT 1",
    "SELECT * FROM '/etc/passwd'", "SELECT * FROM 'export.csv'", "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/proc/self/environ')", "SELECT * FROM read_blob('*')", "SELECT * FROM glob('/*')",
    "SELECT * FROM parquet_metadata('*.parquet')", "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM duckdb_settings()", "SELECT * FROM duckdb_databases()", "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_tables", "SELECT * FROM information_schema.tables", "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM sqlite_master", "SELECT * FROM main.usage", "SELECT * FROM memory.main.usage",
    "SELECT current_setting('memory_limit')", "SELECT getenv('HOME')", "SELECT getvariable('x')",
    "SELECT * FROM query('SELECT 1')", "SELECT * FROM query_table('usage')", "SELECT current_user", "SELECT version()",
    "SELECT * FROM pragma_version()", "SHOW TABLES", "SHOW ALL TABLES", "SHOW DATABASES",
    "DESCRIBE SELECT * FROM 'x.csv'",
    "SELECT * FROM con", "SELECT * FROM os", "SELECT * FROM request", "SELECT $1", "SELECT ?", "SELECT x.y(1)",
    "SELECT (SELECT count(*) FROM '/etc/passwd')", "SELECT * FROM usage WHERE 1 IN (SELECT 1 FROM duckdb_settings())",
    "SELECT list_transform([1], lambda x: (SELECT count(*) FROM duckdb_settings()))",
    "WITH \"/etc/passwd\" AS (SELECT 1) SELECT 1", "WITH duckdb_settings AS (SELECT 1) SELECT * FROM duckdb_settings",
    "PIVOT usage ON client_name USING sum(searches)", "SELECT * FROM json_execute_serialized_sql('{}')",
    "SELECT nextval('s')", "SELECT * FROM enable_logging(storage='file')", "SELECT write_log('x')",
    "SELECT * FROM test_all_types()", "SELECT * FROM repeat_row(1, num_rows=3)", "FORCE CHECKPOINT", "USE memory",
    "SELECT sleep_ms(30000)",
    "SELECT pg_sleep(30)", "SELECT 1 FROM usage AT (VERSION => 1)", "SELECT 'a' \0 'b'", "x" * 17_000,
]  # fmt: skip

_READERS = (
    "read_csv", "read_csv_auto", "read_parquet", "parquet_scan", "read_json", "read_json_auto", "read_ndjson",
    "read_ndjson_auto", "read_ndjson_objects", "read_json_objects", "read_text", "read_blob", "glob", "sniff_csv",
    "parquet_metadata", "parquet_schema", "parquet_file_metadata", "parquet_kv_metadata", "arrow_scan", "sqlite_scan",
)  # fmt: skip
_PATHS = ("/etc/passwd", "/proc/self/environ", "../export.csv", "*.parquet", "https://127.0.0.1:9/x.csv", "s3://b/k")
_TARGETS = ("/tmp/sga-pwn.out", "00000.parquet", "masked.parquet", "usage.wal", "/dev/stdout")
_SETTINGS = (
    "enable_external_access = true", "allowed_paths = ['/']", "allowed_directories = ['/']", "threads = 64",
    "temp_directory = '/tmp'", "lock_configuration = false", "allow_unsigned_extensions = true",
    "autoload_known_extensions = true", "home_directory = '/'", "secret_directory = '/tmp'",
    "log_query_path = '/tmp/l'",
    "extension_directory = '/tmp'", "enable_profiling = 'json'", "profiling_output = '/tmp/p'",
    "TimeZone = 'Asia/Tokyo'",
    "python_enable_replacements = true", "custom_user_agent = 'x'", "max_temp_directory_size = '1TB'",
    "enable_progress_bar = true", "allow_persistent_secrets = true", "VARIABLE x = 1",
)  # fmt: skip
_CATALOGUES = (
    "duckdb_columns()", "duckdb_constraints()", "duckdb_dependencies()", "duckdb_extensions()", "duckdb_functions()",
    "duckdb_indexes()", "duckdb_keywords()", "duckdb_logs()", "duckdb_memory()", "duckdb_optimizers()",
    "duckdb_prepared_statements()", "duckdb_schemas()", "duckdb_secrets()", "duckdb_sequences()", "duckdb_tables()",
    "duckdb_temporary_files()", "duckdb_types()", "duckdb_variables()", "duckdb_which_secret('x', 'y')",
    "duckdb_external_file_cache()", "pg_catalog.pg_tables", "pg_catalog.pg_settings", "pg_tables", "sqlite_schema",
    "information_schema.columns", "information_schema.schemata", "system.main.duckdb_settings",
    "pragma_database_size()", "pragma_storage_info('usage')", "pragma_table_info('usage')", "pragma_user_agent()",
    "pragma_platform()", "pragma_show('usage')", "temp.usage", "system.information_schema.tables",
)  # fmt: skip
_CHANGES = (
    "CREATE VIEW v AS SELECT 1", "CREATE OR REPLACE VIEW usage AS SELECT 1", "CREATE TEMP TABLE t (a INT)",
    "CREATE MACRO m(a) AS a", "CREATE MACRO f() AS TABLE SELECT * FROM read_text('/etc/passwd')", "CREATE SCHEMA s",
    "CREATE SEQUENCE q", "CREATE TYPE e AS ENUM ('a')", "CREATE INDEX i ON usage (searches)", "CREATE SECRET (TYPE s3)",
    "CREATE PERSISTENT SECRET x (TYPE http)", "DROP SCHEMA main", "ALTER VIEW usage RENAME TO u", "TRUNCATE usage",
    "UPDATE usage SET searches = 0", "MERGE INTO usage USING usage AS u ON true WHEN MATCHED THEN DELETE",
    "IMPORT DATABASE '/tmp/x'", "DETACH memory", "ATTACH ':memory:' AS m", "ATTACH 'https://127.0.0.1:9/x.db'",
    "UPDATE EXTENSIONS", "FORCE INSTALL spatial FROM community", "INSTALL httpfs FROM 'http://127.0.0.1:9'",
    "EXECUTE p", "DEALLOCATE p", "ROLLBACK", "ABORT", "ANALYZE usage", "COMMENT ON VIEW usage IS 'x'",
    "PRAGMA enable_profiling", "PRAGMA memory_limit='9GB'", "PRAGMA version", "CALL pragma_version()",
    "CALL enable_logging()", "EXPLAIN SELECT * FROM '/etc/passwd'", "SUMMARIZE '/etc/passwd'", "SHOW usage; SELECT 1",
    "FROM '/etc/passwd'", "TABLE duckdb_settings", "VALUES (getenv('HOME'))", "COPY usage FROM '/etc/passwd'",
    "WITH x AS (UPDATE usage SET searches = 0 RETURNING 1) SELECT * FROM x",
    "SELECT * FROM (COPY (SELECT 1) TO '/tmp/sga-pwn.out')", "SELECT count(*) FROM usage, LATERAL read_text(language)",
    "SELECT COLUMNS(*) FROM '/etc/passwd'", "SELECT * FROM usage POSITIONAL JOIN '/etc/passwd'",
    "SELECT * FROM usage WHERE EXISTS (FROM read_text('/etc/passwd'))", "UNPIVOT '/etc/passwd' ON *",
    "SELECT (FROM glob('/*') SELECT list(file))", "SELECT unnest((SELECT list(file) FROM glob('/*')))",
)  # fmt: skip
_PEEKS = (
    "current_database()", "current_schema()", "current_schemas(true)", "current_query()", "session_user",
    "txid_current()", "current_catalog", "pg_backend_pid()", "has_table_privilege('usage', 's')",
    "json_serialize_sql('SELECT 1')", "error('x')", "set_config('threads', '9', false)", "which_secret('a', 'b')",
)  # fmt: skip
ATTACKS += [f"SELECT * FROM {reader}('{path}')" for reader in _READERS for path in _PATHS]
ATTACKS += [
    f"COPY (SELECT 1 AS a) TO '{target}' (FORMAT {form}{option})"
    for target in _TARGETS
    for form in ("csv", "parquet", "json")
    for option in ("", ", USE_TMP_FILE false")
]
ATTACKS += [f"{word} {setting}" for setting in _SETTINGS for word in ("SET", "SET GLOBAL")]
ATTACKS += [f"SELECT * FROM {catalogue}" for catalogue in _CATALOGUES]
ATTACKS += [*_CHANGES, *(f"SELECT {peek}" for peek in _PEEKS)]

BOMBS: list[str] = [
    "SELECT count(*) FROM range(1000000000000)", "SELECT count(*) FROM usage a, usage b, usage c, usage d",
    "SELECT levenshtein(repeat('a', 200000), repeat('b', 200000))", "SELECT list_sort(range(500000000))",
    "SELECT to_json(range(100000000))", "SELECT lpad('x', 2000000000, 'y')", "SELECT repeat('x', 3000000000)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT a.n FROM t a, t b) SELECT count(*) FROM t",
    "WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
    "SELECT string_agg(repeat('x', 1000000), '') FROM range(1000000)", "SELECT list(i) FROM range(10000000000) t(i)",
    "SELECT histogram(i) FROM range(10000000000) t(i)",
    "SELECT map_from_entries(list((i, i))) FROM range(900000000) t(i)",
    "SELECT count(DISTINCT hash(i)) FROM range(100000000000) t(i)",
    "SELECT max(md5(i::VARCHAR)) FROM range(9000000000) t(i)",
    "SELECT i FROM range(100000000000) t(i) ORDER BY hash(i) LIMIT 1", "SELECT median(i) FROM range(100000000000) t(i)",
    "SELECT row_number() OVER (ORDER BY hash(i)) FROM range(10000000000) t(i) ORDER BY 1 DESC LIMIT 1",
    "SELECT sum(i) OVER (ORDER BY i ROWS BETWEEN 1000000 PRECEDING AND CURRENT ROW) FROM range(90000000) t(i) LIMIT 1",
    "SELECT regexp_matches(repeat('a', 30000000), '(a+)+$') FROM range(100000)",
    "SELECT regexp_replace(repeat('a', 3000000), '(a|aa)+', repeat('b', 999), 'g') FROM range(10000)",
    "SELECT repeat(repeat('x', 1000000), 1000000)", "SELECT rpad('x', 2147483647, 'ab')",
    "SELECT format('{:2000000000}', 1)", "SELECT printf('%2000000000d', 1)", "SELECT bitstring('1', 2147483647)",
    "SELECT list_aggregate(range(2000000000), 'sum')", "SELECT list_transform(range(300000000), lambda x: x::VARCHAR)",
    "SELECT flatten([range(50000000), range(50000000), range(50000000), range(50000000)])",
    "SELECT unnest(range(100000000000)) LIMIT 1 OFFSET 99999999999", "SELECT array_to_string(range(200000000), ',')",
    "SELECT count(*) FROM range(100000) a, range(100000) b, range(100000) c WHERE a.range + b.range = c.range * 7",
    "SELECT jaccard(repeat('ab', 90000000), repeat('cd', 90000000))", "SELECT damerau_levenshtein(repeat('a', 99999), "
    "repeat('b', 99999))", "SELECT * FROM usage a CROSS JOIN usage b CROSS JOIN usage c ORDER BY random()",
    "SELECT " + "(" * 900 + "1" + ")" * 900 + " FROM range(100000000000)", "SELECT 1" + " + 1" * 5000,
]  # fmt: skip

# Ways to write over what a query reads (security specification, D11); {path} is a file that the engine may know.
OVERWRITES: list[str] = [
    "COPY (SELECT 'pwn') TO '{path}' (FORMAT csv)", "COPY (SELECT 'pwn') TO '{path}' (FORMAT csv, USE_TMP_FILE false)",
    "COPY (SELECT 1 AS a) TO '{path}' (FORMAT parquet, USE_TMP_FILE false)",
    "COPY (SELECT 'pwn') TO '{path}.wal' (FORMAT csv, USE_TMP_FILE false)",
    "COPY (SELECT 'pwn') TO '{path}.wal.checkpoint' (FORMAT csv, USE_TMP_FILE false)",
    "COPY (SELECT 'pwn') TO '{path}.tmp/x' (FORMAT csv, USE_TMP_FILE false)",
    "WITH x AS (COPY (SELECT 'pwn') TO '{path}' (FORMAT csv, USE_TMP_FILE false)) SELECT 1",
    "WITH x AS MATERIALIZED (COPY usage TO '{path}' (USE_TMP_FILE false)) SELECT * FROM x, usage",
    "EXPLAIN ANALYZE COPY (SELECT 'pwn') TO '{path}' (FORMAT csv, USE_TMP_FILE false)",
    "COPY usage TO '{path}' (FORMAT csv, OVERWRITE_OR_IGNORE true, PARTITION_BY (language))",
    "COPY (SELECT 1 AS a) TO '{path}' (FORMAT json, APPEND true)", "EXPORT DATABASE '{path}' (FORMAT csv)",
    "ATTACH '{path}' AS a (READ_WRITE)", "PREPARE p AS COPY (SELECT 'pwn') TO '{path}' (USE_TMP_FILE false)",
    "INSERT INTO '{path}' SELECT 'pwn'",
]  # fmt: skip

_NESTINGS = (
    "({})", "SELECT * FROM ({})", "SELECT * FROM ({}) AS t", "WITH z AS ({}) SELECT * FROM z", "SELECT 1 UNION ALL {}",
    "WITH z AS MATERIALIZED ({}) FROM z", "SELECT ({})", "SELECT EXISTS ({})", "SELECT * FROM usage WHERE 1 IN ({})",
    "WITH RECURSIVE z AS ({} UNION ALL SELECT * FROM z) SELECT * FROM z LIMIT 9", "SELECT ARRAY({})",
    "SELECT list_transform([1], lambda x: ({}))", "SELECT * FROM usage, LATERAL ({}) AS l", "EXPLAIN {}",
    "{} EXCEPT SELECT 1", "SUMMARIZE {}", "EXPLAIN ANALYZE {}", "DESCRIBE {}", "PREPARE q AS {}", "SELECT 1; {}",
    "{}; SELECT 1", "CREATE VIEW v AS {}", "SELECT CASE WHEN true THEN ({}) END", "FROM ({}) SELECT *",
    "COPY ({}) TO 'x.csv'", "VALUES (({}))", "SELECT 1 ORDER BY ({})", "SELECT 1 LIMIT ({})",
    "SELECT count(*) FILTER (WHERE ({}) IS NULL) FROM usage",
)  # fmt: skip
_SPACES = ("\t", "\n", "\r\n", "\f", "  ", "\u00a0", "\u2003", "/**/", "/* ; */", "--\n", "-- '\n", "/* /* */ */")
_LITERALS = ("/etc/hostname", "file:///etc/passwd", "export.csv", "/proc/self/cmdline", "..", "", "a''b", "\\x00",
             "/etc/passwd\u200b", "%2fetc%2fpasswd", "/ETC/../etc/passwd", "~/.bashrc", "*.csv", "{a,b}")  # fmt: skip
_PIECES = re.compile(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")")
_CALLED = re.compile(r"\b([a-z_][a-z0-9_]*)\(", re.IGNORECASE)
_NUMBER = re.compile(r"\b\d+\b")


def _outside(sql: str, change: Callable[[str], str]) -> str:
    """Change what is not inside quotes."""
    return "".join(part if part[:1] in "'\"" else change(part) for part in _PIECES.split(sql) if part)


def _mixed_case(sql: str, rng: random.Random) -> str:
    return _outside(sql, lambda part: "".join(rng.choice((c.lower(), c.upper())) for c in part))


def _other_spaces(sql: str, rng: random.Random) -> str:
    return _outside(sql, lambda part: "".join(rng.choice(_SPACES) if c == " " else c for c in part))


def _nested(sql: str, rng: random.Random) -> str:
    return rng.choice(_NESTINGS).replace("{}", sql.rstrip("; "), 1)


def _quoted(sql: str, rng: random.Random) -> str:
    return _outside(sql, lambda part: _CALLED.sub(lambda m: f'"{m[1]}"(' if rng.random() < 0.7 else m[0], part))


def _qualified(sql: str, rng: random.Random) -> str:
    place = rng.choice(("main.", "system.main.", "pg_catalog.", "memory.main.", '"main".', "temp.main.", "a."))
    return _outside(sql, lambda part: _CALLED.sub(lambda m: f"{place}{m[0]}", part))


def _other_literals(sql: str, rng: random.Random) -> str:
    def text(part: str) -> str:
        if part[:1] != "'":
            return _NUMBER.sub(lambda m: rng.choice((m[0], "0", "-1", "9" * 20, "1e9")), part)
        inner = part[1:-1]
        return rng.choice(
            (part, f"'{rng.choice(_LITERALS)}'", f"$${inner}$$", f"$a${inner}$a$", f"E'{inner}'", f"({part} || '')",
             f"concat({part})", f"('x' || {part})[2:]")
        )  # fmt: skip

    return "".join(text(part) for part in _PIECES.split(sql) if part)


_JOINTS = (
    "{}; {}", "{} UNION ALL {}", "WITH a AS ({}) {}", "SELECT ({}), ({})", "SELECT * FROM ({}), ({})",
    "{}\n/* */;\n{}", "WITH a AS ({}), b AS ({}) SELECT 1",
)  # fmt: skip


def _joined(sql: str, rng: random.Random) -> str:
    return rng.choice(_JOINTS).format(sql.rstrip("; "), rng.choice(ATTACKS[:70]).rstrip("; "))


def _ended(sql: str, rng: random.Random) -> str:
    return sql + rng.choice((";", " ;;", " -- x", " /* x", "\n", "\u037e", ";\u200b", " \\g", "; --"))


_CHANGES_OF = (_mixed_case, _other_spaces, _nested, _nested, _quoted, _qualified, _other_literals, _joined, _ended)
_HARMLESS = (_mixed_case, _other_spaces, _ended)


def mutated(sql: str, rng: random.Random, *, alike: bool = False) -> str:
    """The statement in another shape; with `alike` only in shapes that mean the same."""
    for change in rng.sample(_HARMLESS if alike else _CHANGES_OF, rng.choice((1, 2, 2, 3))):
        sql = change(sql, rng)
    return sql
