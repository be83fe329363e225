"""Turn one whole CSV file into one Parquet part with the engine, or not at all.

The engine's casts bend what does not fit: 1.5 to 2, 2^53 + 1 to 2^53. A count that is not whole loses its row here, so
that rows are missing, and what is out of range shows in the extremes that the engine reports of what it wrote.
"""

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..columns import Field, Kind
from .native import disk_refusal, duckdb, text
from .strict import FIRST_YEAR, LAST_YEAR

_READ_AS: dict[Kind, str] = {
    "text": "VARCHAR", "flag": "BOOLEAN", "day": "DATE", "month": "VARCHAR", "count": "DOUBLE", "ratio": "DOUBLE",
}  # fmt: skip
_KEEP_AS: dict[Kind, str] = {
    "text": "{c}",  # blank is NULL already, by the reader's options
    "flag": "{c}",
    "day": "{c}",
    "month": "CASE WHEN nullif({c}, '') IS NULL THEN NULL WHEN length({c}) = 7 THEN CAST({c} || '-01' AS DATE) "
    "ELSE CAST(date_trunc('month', CAST({c} AS DATE)) AS DATE) END",
    "count": "CAST({c} AS BIGINT)",
    "ratio": "{c}",
}
_WHOLE = "{c} IS NOT DISTINCT FROM trunc({c})"
_AS = (
    "FORMAT parquet, COMPRESSION snappy, WRITE_BLOOM_FILTER false, RETURN_STATS"  # zstd costs 4 % more, saves 12 % room
)
_LONGEST_LINE = 16 << 20  # bytes, once every quote in it is doubled; the engine's default is 2 MB
_BUFFER = 2 * _LONGEST_LINE  # bytes; DuckDB 1.5 takes 16 times the longest line of its own accord, all its memory
_FIRST_DAY, _LAST_DAY = f"{FIRST_YEAR}-01-01", f"{LAST_YEAR}-12-31"


def convert(
    connection: duckdb.DuckDBPyConnection, fields: Sequence[Field], csv: Path, part: Path, line_end: str = ""
) -> int:
    """Convert a file without a header; returns its rows, -1 where the engine refuses it or would bend a cell.

    Args:
        line_end: how rows end, where that is known; the engine's guess trips over other line ends in quotes.

    Raises:
        OSError: when the disk refuses.
    """
    try:
        done = connection.cursor().execute(_statement(fields, csv, part, line_end)).fetchall()[0]
    except duckdb.IOException as error:  # the disk's fault, not the data's
        raise disk_refusal(error) or OSError(errno.EIO, "the engine cannot write") from None
    except duckdb.Error:
        return -1
    rows, extremes = int(done[1]), done[4]
    return rows if all(_in_range(field, extremes[name(field.name)]) for field in fields) else -1


def _statement(fields: Sequence[Field], csv: Path, part: Path, line_end: str) -> str:
    columns = ", ".join(f"{text(f.name)}: {text(_READ_AS[f.kind])}" for f in fields)
    kept = ", ".join(f"{_KEEP_AS[f.kind].format(c=name(f.name))} AS {name(f.name)}" for f in fields)
    whole = " AND ".join(_WHOLE.format(c=name(f.name)) for f in fields if f.kind == "count") or "true"
    new_line = (
        f", new_line = '{line_end}', max_line_size = {_LONGEST_LINE}, buffer_size = {_BUFFER}" if line_end else ""
    )
    source = (
        f"read_csv({text(str(csv))}, header = false, auto_detect = false, strict_mode = true, delim = ',', "
        f"quote = '\"', escape = '\"', comment = '', nullstr = '', allow_quoted_nulls = true, "
        f"columns = {{{columns}}}{new_line})"
    )
    return f"COPY (SELECT {kept} FROM {source} WHERE {whole}) TO {text(str(part))} ({_AS})"


def _in_range(field: Field, extremes: Mapping[str, str]) -> bool:
    """Whether everything that was written in a column is what its text said."""
    ends = [extremes[end] for end in ("min", "max") if end in extremes]  # none where all is blank
    match field.kind:
        case "count":
            return all(abs(int(end)) < 2**53 for end in ends)
        case "ratio":
            return extremes.get("has_nan", "false") == "false" and not any("inf" in end for end in ends)
        case "day" | "month":
            return all(len(end) == len(_FIRST_DAY) and _FIRST_DAY <= end <= _LAST_DAY for end in ends)
    return True


def name(identifier: str) -> str:
    """An identifier as SQL spells it."""
    return '"' + identifier.replace('"', '""') + '"'
