"""Turn a CSV file that is still growing into Parquet parts, proving every row on the way (runs in a child process).

The file is cut at row ends into segments, two of which are converted at a time. A segment goes through the engine's
strict reader; where that refuses it, or counts other rows than there are lines, `strict` decides.
"""

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isal.isal_zlib import crc32

from ...errors import AnalyticsError
from ..cells import padded
from ..columns import BY_NAME, Field, changed, key_columns, recognise, time_column
from ..remarks import Remark
from .native import duckdb, rows_in
from .parquet import convert, convert_proven
from .source import Seen, Source
from .strict import BadCsv, Read, records, rewrite
from .syncing import Syncing

if TYPE_CHECKING:
    from ...upstream.models import Granularity

SEGMENT = 8 << 20  # bytes; two at a time keep both cores busy and memory flat; 4 to 8 MiB are fastest (measured)
_LONGEST_LINE = 4 << 20  # bytes
_AT_ONCE = 2
_BOM = b"\xef\xbb\xbf"


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
        self._source = Source(source)
        self._parts = parts
        self._granularity = granularity
        self._connection = connection
        connection.execute("SET threads = 1")  # each segment is one thread's work
        self._pool = ThreadPoolExecutor(_AT_ONCE, "convert")
        self._syncing = Syncing()
        self._running: deque[tuple[int, Future[Read]]] = deque()
        self._size = 0  # bytes of the file that are there
        self._at = 0  # where the next segment begins in it
        self._window = SEGMENT  # bytes looked at for the next row end
        self._fields: tuple[Field, ...] = ()
        self._segments: list[tuple[int, int]] = []  # where each segment begins in the file, and its rows
        self._checks: list[tuple[int, int, int]] = []
        self._total = Read()
        self._repeats = self._dayless = 0  # rows

    def advance(self, size: int) -> None:
        """Take in the file up to `size` bytes."""
        self._size = size
        while size - self._at >= self._window:
            if not self._fields:
                self._header(self._source.read(self._at, self._at + self._window))
                continue
            self._window = SEGMENT if self._rows(self._at + self._window) else 2 * self._window

    def finish(self) -> dict[str, Any]:
        """Convert what is left and describe the whole export.

        Raises:
            AnalyticsError: when the file is not a whole, strict report.
            OSError: when the disk refuses.
        """
        if not self._fields:
            self._header(self._source.read(0, self._size), final=True)
        rest = self._source.read(self._at, self._size)
        if rest.strip(b"\r\n") or not (self._segments or self._running):
            self._submit(self._size)
        while self._running:
            self._collect()
        self._pool.shutdown()
        self._syncing.finish()
        for left in self._parts.glob("*.made"):
            left.unlink(missing_ok=True)
        description = self._description()
        self._source.close()
        return description

    def _header(self, data: bytes, *, final: bool = False) -> None:
        """Read the first record, which a segment must hold."""
        start = len(_BOM) if data.startswith(_BOM) else 0
        while data.startswith((b"\r", b"\n"), start):
            start += 1
        end = _first_row_end(data, start) or (len(data) if final else 0)
        if end > _LONGEST_LINE or not (end or final):
            raise _bad(0, "its header line is too long")
        self._fields = recognise(_names(data[start:end]), self._granularity)
        self._at += end

    def _rows(self, until: int) -> bool:
        """Convert the rows that are whole up to there, if any is."""
        end = self._source.last_row_end(self._at, until)
        if end > self._at:
            self._submit(end)
            return True
        if until - self._at > SEGMENT + _LONGEST_LINE:
            while self._running:
                self._collect()
            raise _bad(self._total.rows + 1, "it is too long, or its quotes do not match")
        return False

    def _submit(self, end: int) -> None:
        while len(self._running) > _AT_ONCE:  # one waits, so that no thread does
            self._collect()
        number = len(self._segments) + len(self._running)
        self._running.append((self._at, self._pool.submit(self._convert, self._at, end, number)))
        self._at = end
        self._syncing.soon(self._source.path)

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

    def _convert(self, start: int, end: int, number: int) -> Read:
        part = self._part(number)
        read, crc = self._converted(start, end, number, part)
        self._syncing.soon(part)
        read.check = (end - start, crc, crc32(part.read_bytes()))
        return read

    def _part(self, number: int) -> Path:
        return self._parts / f"{number:05}.parquet"

    def _converted(self, start: int, end: int, number: int, part: Path) -> tuple[Read, int]:
        with self._attempt(number, "fast") as (segment, made):
            seen = self._source.copy(start, end, segment)
            plain = end > start and self._is_plain(start, end, seen)
            rows = convert(self._connection, self._fields, segment, made, quotes=seen.quotes) if plain else -1
            lines, controls = self._lines_and_controls(seen, start, end, rows)
            if rows == lines:
                made.rename(part)
                return Read(rows=lines, controls=controls), seen.crc
        with self._attempt(number, "strict") as (segment, made):
            rows_again = io.StringIO(newline="")
            read = rewrite(self._source.read(start, end), self._fields, rows_again)
            segment.write_text(rows_again.getvalue(), encoding="utf-8", newline="")
            rows, nulls = convert_proven(self._connection, self._fields, segment, made)
            if rows != read.rows:
                raise BadCsv(1, "it cannot be read the same way twice")
            read.unparsed = nulls - read.blank
            made.rename(part)
            read.controls = controls
            return read, seen.crc

    def _is_plain(self, start: int, end: int, seen: Seen) -> bool:
        """Whether the engine's reader takes it as it is: it drops a BOM, and of one column makes a row of a blank."""
        marked = self._source.read(start, start + len(_BOM)) == _BOM
        quoted = seen.quotes and padded(self._source.read(start, end))
        return not (marked or quoted or len(self._fields) == 1)

    def _lines_and_controls(self, seen: Seen, start: int, end: int, rows: int) -> tuple[int, int]:
        """How many lines and how many control characters there are.

        Without carriage returns a row ends with a line feed or with the data, so where the engine found as many rows
        as there are of both, none of the marks is a control character.
        """
        if rows == seen.marks + seen.unended and not seen.returns:
            return rows, 0
        feeds = self._source.read(start, end).count(b"\n")
        return feeds + seen.unended, seen.marks - feeds

    @contextmanager
    def _attempt(self, number: int, name: str) -> Iterator[tuple[Path, Path]]:
        """Files of one attempt; of its own, because the engine may remove those of a failed one late (measured)."""
        segment, made = (self._parts / f"{number}-{name}.{kind}" for kind in ("csv", "made"))
        try:
            yield segment, made
        finally:
            segment.unlink(missing_ok=True)

    def _description(self) -> dict[str, Any]:
        return {
            "row_count": self._total.rows,
            "byte_count": self._size,
            "sha256": self._source.sha256(self._size),
            "fields": [{"header": f.header, "name": f.name, "kind": f.kind, "known": f.known} for f in self._fields],
            "segments": self._segments,
            "checks": self._checks,
            **self._profile(),
            "remarks": [asdict(remark) for remark in self._remarks() if remark.count],
        }

    def _profile(self) -> dict[str, Any]:
        """Who and when: the figures every export is described by."""
        names = {f.name for f in self._fields}
        time = time_column(names)
        when = (
            f"min({time}), max({time}), count(DISTINCT {time}), count(*) - count({time})"
            if time
            else "NULL, NULL, 0, 0"
        )
        self._connection.execute(f"SET threads = {_AT_ONCE}")
        parts = [self._part(number) for number in range(len(self._segments))]
        users, nameless, repeated, first, last, days, dayless = self._connection.execute(
            f"SELECT count(DISTINCT instance_user_id), count(*) FILTER (instance_user_id IS NULL), {self._repeated()}, "
            f"{when} FROM {rows_in(parts)}"
        ).fetchall()[0]
        if nameless:
            self._total.unparsed["instance_user_id"] += nameless
        self._repeats, self._dayless = repeated, dayless
        unread = self._total.unparsed[time] if time else 0
        if time and unread and unread == self._total.rows:
            raise changed(f"No {BY_NAME[time].header} of the report can be read.")
        return {
            "active_users": users,
            "first_day": first and first.isoformat(),
            "last_day": last and last.isoformat(),
            "days_with_data": days,
        }

    def _repeated(self) -> str:
        """SQL that counts the rows whose key another row has; by hashes, as the keys need four times the memory."""
        key = key_columns(self._granularity)
        if not {f.name for f in self._fields}.issuperset(key):
            return "0"
        named = "FILTER (instance_user_id IS NOT NULL)"
        return f"count(*) {named} - count(DISTINCT hash({', '.join(key)})) {named}"

    def _remarks(self) -> Iterator[Remark]:
        seen = self._total
        yield Remark("nameless", seen.unparsed.pop("instance_user_id", 0))
        yield Remark("dayless", self._dayless)
        yield Remark("repeats", self._repeats)
        yield from (Remark("cells", count, column) for column, count in sorted(seen.unparsed.items()))
        yield Remark("invalid", seen.invalid_utf8)
        yield Remark("controls", seen.controls)


def _first_row_end(data: bytes, start: int) -> int:
    """Where the first whole row ends: after a line feed that is outside quotes; 0 for none."""
    end = data.find(b"\n", start)
    while end >= 0 and data.count(b'"', start, end) % 2:
        end = data.find(b"\n", end + 1)
    return end + 1


def _names(line: bytes) -> list[str]:
    """The names in a header line, which must hold nothing else."""
    try:
        if b"\0" in line:
            raise BadCsv(0, "it is UTF-16, or no text")
        found = list(records(line.decode("utf-8")))
    except (BadCsv, UnicodeDecodeError):
        raise _bad(0, "its header line cannot be read") from None
    if len(found) > 1:  # rows, which would be lost
        raise _bad(0, "its lines end with carriage returns alone")
    return found[0] if found else []


def _bad(row: int, reason: str) -> AnalyticsError:
    where = f"data row {row:,}" if row else "the header"
    message = f"The report is not well-formed CSV: {where}: {reason}."
    return AnalyticsError("upstream_bad_csv", message, "Nothing was kept. Try again; if it stays so, report it.")
