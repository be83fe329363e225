"""Run one query that nobody vouches for, on a throwaway copy, and hand back what JSON can hold (in a child process)."""

import base64
import json
import math
import re
import resource
from collections import Counter
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from ...spelling import pieces, safe, told, visible
from ..numbers import in_json
from .gate import Refused, check
from .limits import lower
from .native import duckdb, identifier, rows_in, text
from .opened import connection

_MAX_COLUMNS = 100
_MAX_NAME = _MAX_TYPE = 100  # characters
_MOST_HEADS = 20_000  # characters of the names and types of columns
_DEEPEST = 100  # levels; the parsers of some clients end near 200, and then nobody answers
_SPELLED = 16  # characters, more than those by which one of a value may be spelled
_ENDLESS = ("NaN", "Infinity", "-Infinity")
_HEADROOM = 1 << 30  # bytes of address space beyond what is in use once the engine is ready
_TIMES = ("date", "time", "interval", "variant")  # how the types begin that the engine spells itself
_NESTED = ("list", "array", "map", "struct", "tuple", "union")
_Column = tuple[str, str]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer `{"sql", "files", "limit", "widest", "most", "memory_mb", "columns"}`.

    Returns:
        The first columns and rows, spelled and cut as an answer shows them, how many columns there are, whether rows
        were left out, and what must be said of the cells of each row, counted; or an error by code.
    """
    sql, limit = request["sql"], request["limit"]
    try:
        engine = connection()
        sql = check(engine, sql)
        _lock(engine, request["files"], request["memory_mb"])
        _limit()
        return bounded(*_found(engine, sql, limit + 1), limit, request["widest"], request["most"])
    except Refused as refused:
        return {"failed": "sql_rejected", "message": str(refused)}
    except RecursionError:
        return {"failed": "sql_rejected", "message": "the query is nested too deeply"}
    except (duckdb.OutOfMemoryException, MemoryError):
        return {"failed": "sql_memory", "message": "the query needs more memory than it may have"}
    except (duckdb.Error, ValueError, OverflowError) as error:
        return {"failed": "sql_failed", "message": cleaned(str(error), sql, request["columns"])}


def _found(connection: duckdb.DuckDBPyConnection, sql: str, most: int) -> tuple[list[_Column], list[tuple[Any, ...]]]:
    """Columns by name and type, and the first rows; dates, times and intervals as the engine spells them.

    Python has no months in its intervals, no infinite days and no nanoseconds: its values would be others.
    A variant may hold any of them.
    """
    try:
        names = [name for name, *_ in connection.execute(f"DESCRIBE {sql}").fetchall()]
        connection.execute(f"CREATE TEMP VIEW answer AS {sql}")  # a subquery could not hold a comment at its end
    except duckdb.ParserException:  # DuckDB 1.5 takes neither of a DESCRIBE or SUMMARIZE, in which there are no times
        result = connection.execute(sql)
        return [(name, _short(kind)) for name, kind, *_ in result.description], result.fetchmany(most)
    kinds = [column[1] for column in connection.execute("SELECT * FROM answer LIMIT 0").description]
    shown = ", ".join(f"CAST(#{n} AS {_told(k)})" if _holds_times(k) else f"#{n}" for n, k in enumerate(kinds, 1))
    rows = connection.execute(f"SELECT {shown} FROM answer").fetchmany(most)
    return list(zip(names, map(_short, kinds), strict=True)), rows


def _short(kind: Any) -> str:
    return str(kind)[:_MAX_TYPE]


def _holds_times(kind: Any) -> bool:
    inside = [part for _, part in kind.children] if kind.id in _NESTED else []
    return kind.id.startswith(_TIMES) or any(_holds_times(part) for part in inside if not isinstance(part, int))


def _told(kind: Any) -> str:
    """The type with text in place of each date, time and interval in it."""
    if not _holds_times(kind):
        return str(kind)
    match kind.id, kind.children if kind.id in _NESTED else []:
        case "list", [(_, part)]:
            return f"{_told(part)}[]"
        case "array", [(_, part), (_, length)]:
            return f"{_told(part)}[{length}]"
        case "map", [(_, key), (_, value)]:
            return f"MAP({_told(key)}, {_told(value)})"
        case "struct", parts if all(name for name, _ in parts):
            return f"STRUCT({', '.join(f'{identifier(name)} {_told(part)}' for name, part in parts)})"
        case _:  # also parts without names, and those of which there is one at a time
            return "VARCHAR"


def _lock(connection: duckdb.DuckDBPyConnection, files: list[str], memory_mb: int) -> None:
    """Let a connection see one view, open nothing but the copies behind it, and change no setting."""
    connection.execute(f"CREATE VIEW usage AS SELECT * FROM {rows_in(files)}")
    for setting in (
        "temp_directory = ''",
        f"memory_limit = '{memory_mb}MB'",
        "threads = 2",
        "enable_progress_bar = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "allow_community_extensions = false",
        "allow_persistent_secrets = false",
        "TimeZone = 'UTC'",
        f"allowed_paths = [{', '.join(map(text, files))}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")


def _limit() -> None:
    """Take away what a query does not need, now that everything is open."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no way to know what is in use
        return
    lower(resource.RLIMIT_AS, used + _HEADROOM)
    lower(resource.RLIMIT_FSIZE, 0)


def bounded(columns: list[_Column], rows: list[tuple[Any, ...]], limit: int, widest: int, most: int) -> dict[str, Any]:
    """As much of the result as an answer may hold, or the first row, and what must be known of it.

    Args:
        limit: the most rows.
        widest: characters of a cell.
        most: characters of all rows.
    """
    kept: list[list[Any]] = []
    said: list[Counter[str]] = []
    heads = _heads(columns)
    length = 0
    for row in rows[:limit]:
        counted: Counter[str] = Counter()
        cells = [_shown(value, widest, counted) for value in row[: len(heads)]]
        length += sum(len(told(cell, visible)) + 3 for cell in cells)
        if kept and length > most:
            break
        kept.append(cells)
        said.append(counted)
    return {
        "columns": heads,
        "rows": kept,
        "width": len(columns),
        "truncated": len(kept) < len(rows),
        "said": said,
    }


def _heads(columns: list[_Column]) -> list[dict[str, str]]:
    """The first columns, by names that can be seen; as many as leave room for rows."""
    names = unique([safe(name) for name, _ in columns[:_MAX_COLUMNS]])
    kinds = [safe(kind)[:_MAX_TYPE] for _, kind in columns]
    heads = [{"name": name, "type": kind} for name, kind in zip(names, kinds, strict=False)]
    lengths = accumulate(len(json.dumps(head, ensure_ascii=False)) for head in heads)
    return heads[: sum(length <= _MOST_HEADS for length in lengths)]


def _shown(value: Any, widest: int, said: Counter[str]) -> Any:
    """A cell as text and data show it: as text where it is longer than `widest`, and cut, or nested too deeply.

    Args:
        said: counts what a reader must be told: cells that were `cut` or are `deep`, and numbers that are not finite
            and are shown as `blank` or, inside of a value, as `null`.
    """
    value = plain(value, widest + _SPELLED)
    match value:
        case float() if not math.isfinite(value):
            said["blank"] += 1
            return None
        case str():
            text = safe(value)
        case dict() | list():
            text = _begun(value, widest, said)
            if len(text) <= widest and _levels(value) <= _DEEPEST:
                return json.loads(text)
            said["deep"] += len(text) <= widest
        case _:
            return value
    if len(text) <= widest:
        return text
    said["cut"] += 1
    return f"{text[: widest - 1]}…"


def _begun(value: Any, widest: int, said: Counter[str]) -> str:
    """The JSON of a value, or of one that is longer than `widest` more than that of it."""
    text = ""
    for piece in pieces(value):
        endless = piece in _ENDLESS
        text += "null" if endless else piece
        said["null"] += endless and len(text) < widest
        if len(text) > widest:
            break
    return text


def _levels(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(_levels, inside), default=0)


def unique(names: list[str]) -> list[str]:
    """Column names that are never blank and never twice the same."""
    made: list[str] = []
    for position, name in enumerate(names, 1):
        base = name[:_MAX_NAME].strip() or f"column_{position}"
        candidate, again = base, 2
        while candidate in made:
            candidate, again = f"{base}_{again}", again + 1
        made.append(candidate)
    return made


def plain(value: Any, most: int) -> Any:
    """A value as JSON can hold it, but for what is not finite: no integer that loses digits, bytes as base64.

    Args:
        most: of how many characters, bytes or items a value may be; what is beyond nobody can be shown.
    """
    match value:
        case None | bool() | float():
            return value
        case int():
            return in_json(value)
        case str():
            return value[:most].encode("utf-8", "replace").decode()
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(bytes(value[:most])).decode()
        case dict():
            return {_key(key, most): plain(item, most) for key, item in islice(value.items(), most)}
        case list() | tuple() | set():
            return [plain(item, most) for item in islice(value, most)]
        case _:
            return str(value)


def _key(key: Any, most: int) -> str:
    """A key of a map as text, not as Python spells it."""
    match key:
        case bool():
            return str(key).lower()
        case bytes():
            return base64.b64encode(key[:most]).decode()
        case _:
            return str(plain(str(key), most))


def cleaned(message: str, sql: str, columns: list[str]) -> str:
    """The engine's message without what it quotes from data, without paths, on one line."""
    first = message.split("\n\nLINE ")[0].split("\nLINE ")[0]
    known = sql.lower() + " " + " ".join(columns).lower()

    def keep(match: re.Match[str]) -> str:
        return match[0] if match[2].lower() in known else f"{match[1]}…{match[1]}"

    text = re.sub(r"(['\"])(.*?)\1", keep, first, flags=re.DOTALL)
    text = re.sub(r"(?<![\w.])/[^\s'\"]*", "…", text)
    return re.sub(r"\s+", " ", text).strip()[:400]
