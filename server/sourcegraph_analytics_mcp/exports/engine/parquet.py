"""Turn one whole CSV file into one Parquet part with the engine, and say what the text of a cell means.

What a kind means is one expression, whoever told the cells apart: the engine's own reader, whose file is refused for
any cell that is no value of its kind, or `strict`, in whose rows such a cell becomes blank.
"""

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from ..columns import Field, Kind
from .native import disk_refusal, duckdb, identifier, text

_CAST: dict[Kind, str] = {"flag": "BOOLEAN", "count": "DOUBLE", "ratio": "DOUBLE"}  # the engine reads these by itself
# A date as it is written, which a time or an offset behind it does not move. Spellings as BigQuery, PostgreSQL, SQL
# Server, Go, RFC 3339 and spreadsheets write them; what else the engine would take for a date differs by its version.
_YEAR = r"(?:199\d|2[01]\d{2})"  # another is a mistake, like a clock at zero
_ZONE = r" ?(?:[Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?(?: [A-Z]{3,5})?)"
_TIME = rf"[Tt ]\d{{1,2}}:\d{{2}}(?::\d{{2}}(?:[.,]\d+)?)?(?:{_ZONE})?"
_DAY = rf"^({_YEAR}[-/]\d{{1,2}}[-/]\d{{1,2}})(?:{_TIME})?$"
_MONTH = r"^\d{4}-\d{2}$"
_PLAIN_DAY = "20__-__-__"  # which most are; the long pattern takes three times as long (measured)
_INEXACT = 2**53  # from here on a double does not tell whole numbers apart
_AS = "FORMAT parquet, COMPRESSION snappy, WRITE_BLOOM_FILTER false, RETURN_STATS"  # zstd: 4 % slower, 12 % less room
_QUOTED = "quote = '\"', escape = '\"', allow_quoted_nulls = true"
_UNQUOTED = "quote = '', escape = '', allow_quoted_nulls = false"  # reads what has none 6 % faster (measured)
_LONGEST_LINE = 16 << 20  # bytes, once every quote in it is doubled; the engine's default is 2 MB
_BUFFER = 2 * _LONGEST_LINE  # bytes; of its own accord the engine takes up to 16 times the longest line, all its memory
_ROOM = f"new_line = '\\n', max_line_size = {_LONGEST_LINE}, buffer_size = {_BUFFER}"


def convert(
    connection: duckdb.DuckDBPyConnection, fields: Sequence[Field], csv: Path, part: Path, *, quotes: bool
) -> int:
    """Convert a file without a header; returns its rows, -1 where the engine refuses it or a cell is no value.

    Args:
        quotes: whether the file holds any.

    Raises:
        OSError: when the disk refuses.
    """
    done = _copied(connection, _statement(fields, csv, part, quotes=quotes, proven=False))
    if done is None:
        return -1
    rows, of = int(done[1]), done[4]
    return rows if not rows or all(_told(f.kind, of[identifier(f.name)]) for f in fields) else -1


def _told(kind: Kind, wrote: Mapping[str, str]) -> bool:
    """Whether a double tells all numbers of a column, by what the engine says of it; cell by cell costs 8 % more.

    Args:
        wrote: `min` and `max`, where there is any value, and of ratios the `nan_count`.
    """
    extremes = [wrote[end] for end in ("min", "max") if end in wrote]
    match kind:
        case "count":
            return all(abs(int(number)) < _INEXACT for number in extremes)
        case "ratio":
            return wrote["nan_count"] == "0" and all(isfinite(float(number)) for number in extremes)
    return True


def convert_proven(
    connection: duckdb.DuckDBPyConnection, fields: Sequence[Field], csv: Path, part: Path
) -> tuple[int, Counter[str]]:
    """Convert what `strict` wrote; returns its rows (-1 where the engine refuses it) and the NULLs of each column.

    Raises:
        OSError: when the disk refuses.
    """
    done = _copied(connection, _statement(fields, csv, part, quotes=True, proven=True))
    if done is None:
        return -1, Counter()
    rows, of = int(done[1]), done[4]
    return rows, Counter({f.name: int(of[identifier(f.name)]["null_count"]) for f in fields} if rows else {})


def _copied(connection: duckdb.DuckDBPyConnection, statement: str) -> tuple[Any, ...] | None:
    """What the engine says of the file that it wrote, None where it refuses what it read."""
    try:
        return tuple(connection.cursor().execute(statement).fetchall()[0])
    except duckdb.IOException as error:  # the disk's fault, not the data's
        raise disk_refusal(error) or OSError(errno.EIO, "the engine cannot write") from None
    except duckdb.Error:
        return None


def _statement(fields: Sequence[Field], csv: Path, part: Path, *, quotes: bool, proven: bool) -> str:
    """SQL that writes a file's values; a cell that is none of its kind is blank in what is `proven`, or an error."""
    read_as = ["VARCHAR" if proven else _CAST.get(f.kind, "VARCHAR") for f in fields]
    columns = ", ".join(f"c{n}: {text(kind)}" for n, kind in enumerate(read_as))
    kept = ", ".join(f"{_kept(f.kind, f'c{n}', proven=proven)} AS {identifier(f.name)}" for n, f in enumerate(fields))
    source = (
        f"read_csv({text(str(csv))}, header = false, auto_detect = false, strict_mode = true, delim = ',', "
        f"{_QUOTED if quotes else _UNQUOTED}, comment = '', nullstr = '', "
        f"columns = {{{columns}}}{', ' + _ROOM if proven else ''})"
    )
    return f"COPY (SELECT {kept} FROM {source}) TO {text(str(part))} ({_AS})"


def _kept(kind: Kind, cell: str, *, proven: bool) -> str:
    """SQL of what is kept of a cell; the engine's casts alone would bend 1.5 to 2, and 2^53 + 1 to 2^53."""
    cast, otherwise = ("TRY_CAST", "NULL") if proven else ("CAST", "error('')")
    told = f"nullif({cell}, '')" if proven else cell  # of a column alone the engine's reader does the cast, and fails
    value = f"{cast}({told} AS {_CAST[kind]})" if kind in _CAST else cell
    match kind:  # what is a value comes after ELSE: the engine is quickest where no row has anything before (measured)
        case "count":
            inexact = f" OR abs({value}) >= {_INEXACT}" if proven else ""
            return f"CASE WHEN {value} <> trunc({value}){inexact} THEN {otherwise} ELSE {cast}({value} AS BIGINT) END"
        case "ratio" if proven:
            return f"CASE WHEN isfinite({value}) THEN {value} END"
        case "day":
            written = f"regexp_extract({cell}, {text(_DAY)}, 1)"
            odd = f"{cell} NOT LIKE '{_PLAIN_DAY}'"
            return f"CASE WHEN {odd} THEN {cast}({written} AS DATE) ELSE {cast}({cell} AS DATE) END"
        case "month":
            first = f"CASE WHEN regexp_matches({cell}, {text(_MONTH)}) THEN {cell} || '-01' ELSE {cell} END"
            return f"CAST(date_trunc('month', {_kept('day', first, proven=proven)}) AS DATE)"
    return value
