"""Turn a CSV file that is still growing into Parquet parts, proving every row on the way (runs in a child process).

The file is cut at row ends into segments, two of which are converted at a time. A segment goes through the engine's
strict reader; where that refuses it, or counts other rows than there are lines, `strict` decides.
"""

import errno
import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from isal.isal_zlib import crc32

from ...errors import AnalyticsError
from ..columns import Field, Kind, expected, recognise
from .strict import FIRST_YEAR, LAST_YEAR, BadCsv, Read, records, rewrite
from .syncing import Syncing

if TYPE_CHECKING:
    from ...upstream.models import Granularity

SEGMENT = 8 << 20  # bytes; two at a time keep both cores busy and memory flat; 4 to 8 MiB are fastest (measured)
_LONGEST_LINE = 4 << 20  # bytes
_MOST_NAMED = 20
_AT_ONCE = 2
_CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\r\n")
_BOM = b"\xef\xbb\xbf"

_READ_AS: dict[Kind, str] = {
    "text": "VARCHAR", "flag": "BOOLEAN", "day": "DATE", "month": "VARCHAR", "count": "DOUBLE", "ratio": "DOUBLE",
}  # fmt: skip
_PARQUET = "(FORMAT parquet, COMPRESSION snappy, WRITE_BLOOM_FILTER false)"  # 4 % less to write than zstd, 12 % larger
# Each refuses by error() what the engine's cast would bend: 1.5 to 2, infinity to a date, NaN to a ratio.
_KEEP_AS: dict[Kind, str] = {
    "text": "{c}",  # blank is NULL already, by the reader's options
    "flag": "{c}",
    "day": "CASE WHEN {c} IS NULL OR {c} "
    f"BETWEEN DATE '{FIRST_YEAR}-01-01' AND DATE '{LAST_YEAR}-12-31' THEN {{c}} "
    "ELSE error('day')::DATE END",
    "month": "CASE WHEN nullif({c}, '') IS NULL THEN NULL WHEN length({c}) = 7 THEN CAST({c} || '-01' AS DATE) "
    f"WHEN CAST({{c}} AS DATE) BETWEEN DATE '{FIRST_YEAR}-01-01' AND DATE '{LAST_YEAR}-12-31' "
    "THEN CAST(date_trunc('month', CAST({c} AS DATE)) AS DATE) ELSE error('month')::DATE END",
    "count": "CASE WHEN {c} IS NULL THEN NULL WHEN {c} = trunc({c}) AND abs({c}) < 9007199254740992 "
    "THEN CAST({c} AS BIGINT) ELSE error('count')::BIGINT END",
    "ratio": "CASE WHEN {c} IS NULL OR isfinite({c}) THEN {c} ELSE error('ratio')::DOUBLE END",
}


class Ingest:
    """One export being converted.

    Args:
        source: the CSV file, growing.
        parts: the directory the Parquet parts go to; it exists.
        granularity: decides which columns must be there.
        connection: an engine connection with its limits set.
    """

    def __init__(
        self, source: Path, parts: Path, granularity: "Granularity", connection: duckdb.DuckDBPyConnection
    ) -> None:
        self._source = source
        self._file = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        self._parts = parts
        self._granularity = granularity
        self._connection = connection
        connection.execute("SET threads = 1")  # each segment is one thread's work
        self._pool = ThreadPoolExecutor(_AT_ONCE, "convert")
        self._syncing = Syncing()
        self._running: deque[tuple[int, Future[Read]]] = deque()
        self._hash = hashlib.sha256()
        self._size = 0  # bytes of the file that are there
        self._at = 0  # where the next segment begins in it
        self._window = SEGMENT  # bytes looked at for the next row end
        self._fields: tuple[Field, ...] = ()
        self._segments: list[tuple[int, int]] = []  # where each segment begins in the file, and its rows
        self._checks: list[tuple[int, int, int]] = []
        self._total = Read()

    def advance(self, size: int) -> None:
        """Take in the file up to `size` bytes."""
        self._size = size
        while size - self._at >= self._window:
            data = os.pread(self._file, self._window, self._at)
            if not self._fields:
                self._header(data)
                continue
            self._window = SEGMENT if self._rows(data) else 2 * self._window

    def finish(self) -> dict[str, Any]:
        """Convert what is left and describe the whole export.

        Raises:
            AnalyticsError: when the file is not a whole, strict report.
            OSError: when the disk refuses.
        """
        if not self._fields:
            self._header(self._rest(), final=True)
        rest = self._rest()
        if rest.strip(b"\r\n") or not (self._segments or self._running):
            self._submit(rest)
        else:
            self._pass(rest)
        while self._running:
            self._collect()
        self._pool.shutdown()
        self._syncing.finish()
        for left in self._parts.glob("*.made"):
            left.unlink(missing_ok=True)
        os.close(self._file)
        return self._description()

    def _rest(self) -> bytes:
        return os.pread(self._file, self._size - self._at, self._at)

    def _header(self, data: bytes, *, final: bool = False) -> None:
        """Read the first record, which a segment must hold."""
        start = len(_BOM) if data.startswith(_BOM) else 0
        while data.startswith((b"\r", b"\n"), start):
            start += 1
        end = _first_row_end(data, start) or (len(data) if final else 0)
        if end > _LONGEST_LINE or not (end or final):
            raise _bad(0, "its header line is too long")
        try:
            header = next(records(data[start:end].decode("utf-8")), [])
        except (BadCsv, UnicodeDecodeError):
            raise _bad(0, "its header line cannot be read") from None
        self._fields = recognise(header, self._granularity)
        self._pass(data[:end])

    def _rows(self, data: bytes) -> bool:
        """Convert the rows that are whole, if any is."""
        end = _last_row_end(data)
        if end:
            self._submit(data[:end])
        elif len(data) > SEGMENT + _LONGEST_LINE:
            while self._running:
                self._collect()
            raise _bad(self._total.rows + 1, "it is too long, or its quotes do not match")
        return end > 0

    def _submit(self, data: bytes) -> None:
        while len(self._running) > _AT_ONCE:  # one waits, so that no thread does
            self._collect()
        number = len(self._segments) + len(self._running)
        self._running.append((self._at, self._pool.submit(self._convert, data, number)))
        self._pass(data)
        self._syncing.soon(self._source)

    def _pass(self, data: bytes) -> None:
        self._hash.update(data)
        self._at += len(data)

    def _collect(self) -> None:
        offset, future = self._running.popleft()
        try:
            read = future.result()
        except BadCsv as error:
            raise _bad(self._total.rows + error.row, error.reason) from None
        self._segments.append((offset, read.rows))
        self._checks.append(read.check)
        self._total.rows += read.rows
        self._total.unparsed.update(read.unparsed)
        self._total.invalid_utf8 += read.invalid_utf8
        self._total.controls += read.controls

    def _convert(self, data: bytes, number: int) -> Read:
        part = self._parts / f"{number:05}.parquet"
        read = self._converted(data, number, part)
        self._syncing.soon(part)
        read.check = (len(data), crc32(data), crc32(part.read_bytes()))
        return read

    def _converted(self, data: bytes, number: int, part: Path) -> Read:
        with self._attempt(number, "fast") as (segment, made):
            segment.write_bytes(data)
            rows = self._load(segment, made) if data else -1
            lines, controls = _lines_and_controls(data, rows)
            if rows == lines:
                made.rename(part)
                return Read(rows=lines, controls=controls)
        with self._attempt(number, "strict") as (segment, made):
            text = io.StringIO(newline="")
            read = rewrite(data, self._fields, text)
            segment.write_text(text.getvalue(), encoding="utf-8", newline="")
            if self._load(segment, made, "\\n") != read.rows:
                raise BadCsv(1, "it cannot be read the same way twice")
            made.rename(part)
            read.controls = controls
            return read

    @contextmanager
    def _attempt(self, number: int, name: str) -> Iterator[tuple[Path, Path]]:
        """Files of one attempt; of its own, because the engine may remove those of a failed one late (measured)."""
        segment, made = (self._parts / f"{number}-{name}.{kind}" for kind in ("csv", "made"))
        try:
            yield segment, made
        finally:
            segment.unlink(missing_ok=True)

    def _load(self, segment: Path, part: Path, line_end: str = "") -> int:
        """Convert one file; -1 where the engine refuses it.

        Args:
            line_end: how rows end, where that is known; the engine's guess trips over other line ends in quotes.
        """
        columns = ", ".join(f"{_text(f.name)}: {_text(_READ_AS[f.kind])}" for f in self._fields)
        kept = ", ".join(f"{_KEEP_AS[f.kind].format(c=_name(f.name))} AS {_name(f.name)}" for f in self._fields)
        new_line = f", new_line = '{line_end}'" if line_end else ""
        source = (
            f"read_csv({_text(str(segment))}, header = false, auto_detect = false, strict_mode = true, delim = ',', "
            f"quote = '\"', escape = '\"', comment = '', nullstr = '', allow_quoted_nulls = true, "
            f"columns = {{{columns}}}{new_line})"
        )
        try:
            done = self._connection.cursor().execute(
                f"COPY (SELECT {kept} FROM {source}) TO {_text(str(part))} {_PARQUET}"
            )
            return int(done.fetchall()[0][0])
        except duckdb.IOException as error:  # the disk's fault, not the data's
            raise OSError(errno.ENOSPC if "No space" in str(error) else errno.EIO, "the engine cannot write") from None
        except duckdb.Error:
            return -1

    def _description(self) -> dict[str, Any]:
        return {
            "row_count": self._total.rows,
            "byte_count": self._size,
            "sha256": self._hash.hexdigest(),
            "fields": [{"header": f.header, "name": f.name, "kind": f.kind, "known": f.known} for f in self._fields],
            "segments": self._segments,
            "checks": self._checks,
            **self._profile(),
            "warnings": list(self._warnings()),
        }

    def _profile(self) -> dict[str, Any]:
        """Who and when: the figures every export is described by."""
        names = {f.name for f in self._fields}
        time = next((n for n in ("timestamp_date", "timestamp_month") if n in names), None)
        when = f"min({time}), max({time}), count(DISTINCT {time})" if time else "NULL, NULL, 0"
        users, nameless, first, last, days = self._connection.execute(
            f"SELECT count(DISTINCT instance_user_id), count(*) FILTER (instance_user_id IS NULL), {when} "
            f"FROM read_parquet({_text(str(self._parts / '*.parquet'))})"
        ).fetchall()[0]
        if nameless:
            self._total.unparsed["instance_user_id"] += nameless
        return {
            "active_users": users,
            "first_day": first and first.isoformat(),
            "last_day": last and last.isoformat(),
            "days_with_data": days,
        }

    def _warnings(self) -> Iterator[str]:
        missing = [c.header for c in expected(self._granularity) if c.name not in {f.name for f in self._fields}]
        unknown = [f.name for f in self._fields if not f.known]
        if missing:
            yield f"Columns that are documented but missing: {', '.join(missing)}."
        if unknown:
            more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
            yield f"Columns that are not documented, kept as text: {', '.join(unknown[:_MOST_NAMED])}{more}."
        nameless = self._total.unparsed.pop("instance_user_id", 0)
        if nameless:
            yield f"{nameless:,} rows have no Instance user ID; they count for no person."
        for name, count in sorted(self._total.unparsed.items()):
            yield f"{count:,} cells of {name} are not a value of its kind; they count as blank."
        if self._total.invalid_utf8:
            yield f"{self._total.invalid_utf8:,} characters are not valid UTF-8; shown as \ufffd."
        if self._total.controls:
            yield f"{self._total.controls:,} control characters are in the data; shown as visible escapes."


def _first_row_end(data: bytes, start: int) -> int:
    """Where the first whole row ends: after a line feed that is outside quotes; 0 for none."""
    end = data.find(b"\n", start)
    while end >= 0 and data.count(b'"', start, end) % 2:
        end = data.find(b"\n", end + 1)
    return end + 1


def _last_row_end(data: bytes) -> int:
    """Where the last whole row ends; 0 for none."""
    end = data.rfind(b"\n")
    quotes = data.count(b'"', 0, max(end, 0)) if b'"' in data else 0  # to look is far cheaper than to count
    while end >= 0 and quotes % 2:
        before = data.rfind(b"\n", 0, end)
        quotes -= data.count(b'"', max(before, 0), end)
        end = before
    return end + 1


def _lines_and_controls(data: bytes, rows: int) -> tuple[int, int]:
    """How many lines and how many control characters there are.

    One pass counts both together. Without carriage returns a row ends with a line feed or with the data, so where the
    engine found as many rows as there are of both, none of them is a control character.
    """
    both = len(data) - len(data.translate(None, _CONTROLS + b"\n"))
    unended = bool(data) and not data.endswith(b"\n")
    if rows == both + unended and b"\r" not in data:
        return rows, 0
    feeds = data.count(b"\n")
    return feeds + unended, both - feeds


def _bad(row: int, reason: str) -> AnalyticsError:
    where = f"data row {row:,}" if row else "the header"
    message = f"The report is not well-formed CSV: {where}: {reason}."
    return AnalyticsError("upstream_bad_csv", message, "Nothing was kept. Try again; if it stays so, report it.")


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _text(literal: str) -> str:
    return "'" + literal.replace("'", "''") + "'"
