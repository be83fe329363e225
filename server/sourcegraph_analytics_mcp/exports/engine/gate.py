"""Let one read-only query through, judged by the engine's own parse tree.

Statements, tables, functions in place of a table and parts of a query are refused unless they are known. Functions of
values are let through unless they are listed here, as there are a thousand: a test holds those that were looked at.

This is one layer. The data is a throwaway copy, the connection is locked and cut off from files, and the process has
limits and a deadline: what slips through here finds nothing to break (measured: statement types and settings alone let
dozens of attacks through, and since DuckDB 2.0 a CTE may write and still be called SELECT).
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from .native import duckdb

MAX_SQL = 16 << 10  # bytes of UTF-8
_STATEMENTS = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLES = {"BASE_TABLE", "JOIN", "SUBQUERY", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "SHOW_REF"}
_PARTS = {
    "ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER",
    "ASCENDING", "DESCENDING", "ORDER_DEFAULT", "DEFAULT",
}  # fmt: skip
_TABLE_FUNCTIONS = {"range", "generate_series", "unnest"}
_SHOWS = {"DESCRIBE", "SUMMARY"}
_NAME = re.compile(r"[a-z_][a-z0-9_]*\Z")
_RESERVED = ("duckdb_", "pg_", "sqlite_", "pragma_", "information_schema")
_NO_FUNCTIONS = {  # getenv is one of DuckDB's shell alone
    "current_setting", "getvariable", "getenv", "query", "query_table", "nextval", "currval", "setval",
    "current_database", "current_schema", "current_schemas", "current_catalog", "current_user", "session_user", "user",
    "current_query", "current_connection_id", "current_query_id", "current_transaction_id", "txid_current",
    "json_execute_serialized_sql", "json_serialize_sql", "json_deserialize_sql", "json_serialize_plan",
    "in_search_path", "write_log", "parse_duckdb_log_message", "get_block_size", "add_parquet_key",
    "create_sort_key", "icu_sort_key", "checkpoint", "force_checkpoint", "version", "glob", "error",
}  # fmt: skip
_NO_NAMES = {"current_user", "session_user", "current_database", "current_schema", "current_catalog", "current_query"}
_NO_PREFIXES = ("read_", "duckdb_", "pg_", "pragma_", "has_", "parquet_", "sniff_", "register_", "create_external",
                "python_", "arrow_", "pandas_", "enable_", "disable_", "which_", "truncate_duckdb", "storage_",
                "seq_scan", "repeat_row", "summary", "test_", "variant_", "sleep_")  # fmt: skip


class Refused(Exception):
    """A query that is not let through; the text says why."""


def check(connection: Any, sql: str) -> str:
    """The one SELECT over the table `usage` that a text holds; everything else is refused.

    Args:
        connection: an engine connection without any data, which only parses.

    Raises:
        Refused: with the reason.
    """
    if len(sql.encode("utf-8", "surrogatepass")) > MAX_SQL:
        raise Refused(f"the query is longer than {MAX_SQL:,} bytes")
    if "\0" in sql:
        raise Refused("the query holds a NUL character")
    select = _one_select(connection, sql)
    tree = json.loads(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()[0][0])
    if tree.get("error"):  # pragma: no cover - a second lock: DuckDB 1.5 says SELECT of a PRAGMA, 2.0 does not
        raise Refused("only a SELECT is allowed")
    _walk(tree["statements"], {"usage", *_defined(tree["statements"])})
    return select


def _one_select(connection: Any, sql: str) -> str:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise Refused("send exactly one statement")
    try:
        kind = statements[0].type
    except ValueError:  # a kind that the binding has no name for, like UPDATE EXTENSIONS in 2.0
        raise Refused("only a SELECT is allowed") from None
    if kind != duckdb.StatementType.SELECT:
        raise Refused("only a SELECT is allowed")
    return str(statements[0].query)  # without a semicolon before it


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree; iterative, because depth is the caller's to choose."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _defined(tree: Any) -> set[str]:
    """The names of the CTEs, which may not look like a file or a system table."""
    names: set[str] = set()
    for node in _nodes(tree):
        for entry in node.get("map", []) if isinstance(node.get("map"), list) else []:
            name = str(entry.get("key", "")).lower()
            if not _NAME.match(name) or name.startswith(_RESERVED):
                raise Refused("a CTE needs a plain name")
            names.add(name)
    return names


def _walk(tree: Any, tables: set[str]) -> None:
    for node in _nodes(tree):
        kind = node.get("type")
        if not isinstance(kind, str):
            continue
        if "class" in node:
            _check_expression(node)
        elif kind == "BASE_TABLE":
            _check_table(node, tables)
        elif kind == "TABLE_FUNCTION":
            _check_function(node.get("function", {}), only=_TABLE_FUNCTIONS)
        elif kind == "SHOW_REF":
            if node.get("show_type") not in _SHOWS or not node.get("query"):
                raise Refused("only DESCRIBE and SUMMARIZE of usage are allowed")
        elif kind not in _STATEMENTS | _TABLES | _PARTS and not kind.endswith("_TYPE_INFO"):  # of a constant or cast
            raise Refused(f"{kind.lower().replace('_', ' ')} is not allowed")


def _check_table(node: dict[str, Any], tables: set[str]) -> None:
    if node.get("schema_name") or node.get("catalog_name") or str(node.get("table_name", "")).lower() not in tables:
        raise Refused("the only table is usage")


def _check_expression(node: dict[str, Any]) -> None:
    if node["class"] == "PARAMETER":
        raise Refused("parameters are not allowed")
    if node["class"] == "COLUMN_REF" and str(node.get("column_names", [""])[-1]).lower() in _NO_NAMES:
        raise Refused("that value of the engine is not to be seen")
    if node["class"] in ("FUNCTION", "WINDOW"):
        _check_function(node)


def _check_function(node: dict[str, Any], only: set[str] | None = None) -> None:
    name = str(node.get("function_name", "")).lower()
    place = {str(node.get(key) or "").lower() for key in ("schema", "catalog")} - {"", "main"}
    refused = name not in only if only is not None else name in _NO_FUNCTIONS or name.startswith(_NO_PREFIXES)
    if refused or place:
        raise Refused(f"the function {name if _NAME.match(name) else 'named'} is not allowed")
