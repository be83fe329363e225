"""SQL that must work, SQL that must not, and SQL that never ends or eats the machine."""

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
    "SELECT pg_sleep(30)", "SELECT 1 FROM usage AT (VERSION => 1)", "SELECT 'a' \0 'b'", "x" * 17_000,
]  # fmt: skip

BOMBS: list[str] = [
    "SELECT count(*) FROM range(1000000000000)", "SELECT count(*) FROM usage a, usage b, usage c, usage d",
    "SELECT levenshtein(repeat('a', 200000), repeat('b', 200000))", "SELECT list_sort(range(500000000))",
    "SELECT to_json(range(100000000))", "SELECT lpad('x', 2000000000, 'y')", "SELECT repeat('x', 3000000000)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
]  # fmt: skip
