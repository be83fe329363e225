"""Exports as an assistant reads them: one line, one table, one summary."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from typing import Literal

from ..exports.downloads import Download
from ..exports.models import Export, grain_words, range_words
from ..exports.remarks import about_columns, about_rows
from ..spelling import safe
from ..usage.summary import Breakdown, Summary, left_out
from .text import figure, iso, plural, size, table
from .tool import Answer

_LONGEST_HEADER = 64  # characters; what an absurd file calls a column must not fill an answer


class ExportEntry(Answer):
    """One export as data; while it is running, the counts are what has arrived and `progress` is 0-1 where known."""

    id: str
    status: Literal["complete", "running"]
    instance_url: str
    granularity: str
    start_date: date | None
    end_date: date | None
    created_at: str
    row_count: int
    byte_count: int | None
    progress: float | None = None
    sha256: str | None = None
    columns: tuple[str, ...] = ()
    active_users: int | None = None
    reused: bool = False
    warnings: tuple[str, ...] = ()
    summary_uri: str | None = None
    csv_uri: str | None = None
    path: str | None = None


def uri(export_id: str, part: str = "") -> str:
    return f"analytics://exports/{export_id}{part}"


def complete(export: Export, *, reused: bool = False, with_path: bool = False, masked: bool = False) -> ExportEntry:
    """An export as answers describe it.

    Args:
        with_path: whether to name the file itself.
        masked: whether people are shown by pseudonym: the file names them, so that who guesses a name could prove it
            by the file's length or hash; what nobody documented may name them, too.
    """
    return ExportEntry(
        id=export.id,
        status="complete",
        instance_url=export.instance_url,
        granularity=export.granularity,
        start_date=export.start_date,
        end_date=export.end_date,
        created_at=iso(export.created_at),
        row_count=export.row_count,
        byte_count=None if masked else export.byte_count,
        sha256=None if masked else export.sha256,
        columns=tuple(f.header[:_LONGEST_HEADER] for f in export.fields if f.known or not masked),
        active_users=export.active_users,
        reused=reused,
        warnings=warnings(export, masked=masked),
        summary_uri=uri(export.id),
        csv_uri=uri(export.id, "/data.csv"),
        path=str(export.csv) if with_path else None,
    )


def running(download: Download, *, masked: bool) -> ExportEntry:
    request = download.request
    return ExportEntry(
        id=download.id,
        status="running",
        instance_url=request.instance_url,
        granularity=request.granularity,
        start_date=request.start_date,
        end_date=request.end_date,
        created_at=iso(download.started_at),
        row_count=max(download.rows - 1, 0),
        byte_count=None if masked else download.received,
        progress=download.fraction if download.fraction is None else round(download.fraction, 3),
    )


def warnings(export: Export, *, masked: bool) -> tuple[str, ...]:
    """What a reader of the figures must know: about the data, and about days that are not over."""
    rows = about_rows(export, export.names)
    return (*about_columns(export, masked=masked), *rows, *not_over(export))


def not_over(export: Export) -> Iterator[str]:
    """Say which of the days asked for were not over, or not there yet, when it was made."""
    made = export.created_at.date()
    if export.start_date is not None and export.start_date > made:
        yield f"The range begins after {made}, the day of the export."
    elif export.end_date is not None and export.end_date > made:
        yield f"The range ends after {made}, the day of the export; later days are not in it."
    asked = (export.start_date or made) <= made <= (export.end_date or made)
    by_day = "timestamp_date" in export.names
    if asked or (by_day and export.last_day is not None and export.last_day >= made):
        yield f"{made} was not over when this was exported."


def recent_table(exports: Iterable[ExportEntry]) -> str:
    """Exports as one table, newest first."""
    rows = [
        (e.id, grain_words(e.granularity), _range(e), e.instance_url, e.row_count, e.active_users, _made(e))
        for e in exports
    ]
    return table(("id", "what", "days", "instance", "rows", "people", "as of (UTC)"), rows)


def _range(entry: ExportEntry) -> str:
    if entry.start_date is None and entry.end_date is None:
        return "all time"
    return f"{entry.start_date or '…'} to {entry.end_date or '…'}"


def _made(entry: ExportEntry) -> str:
    made = entry.created_at[:16].replace("T", " ")
    if entry.status == "complete":
        return made
    return f"{made}, running" + (f" {entry.progress:.0%}" if entry.progress is not None else "")


def sentence(export: Export, *, masked: bool) -> str:
    """An export in one sentence."""
    rows, people = plural(export.row_count, "row"), plural(export.active_users, "person", "people")
    length = "" if masked else f", {size(export.byte_count)}"
    return f"{export.title}: {rows} about {people}{length}, as of {_spoken(export.created_at)}."


def coverage(export: Export) -> str:
    """What days are asked for, and which of them have data."""
    asked = range_words(export.start_date, export.end_date)
    if export.first_day is None:
        return f"Asked: {asked}."
    by_month = "timestamp_month" in export.names
    first, last = (f"{day:%Y-%m}" if by_month else str(day) for day in (export.first_day, export.last_day))
    found = f"{plural(export.days_with_data, 'month' if by_month else 'day')} with data, {first} to {last}"
    return f"Asked: {asked}. Found: {found}."


def _spoken(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def breakdown_table(breakdown: Breakdown) -> str:
    units = [metric.unit for metric in breakdown.metrics]
    rows = ((name, *map(figure, figures, units)) for name, *figures in breakdown.rows)
    return table(("", *(metric.title for metric in breakdown.metrics)), rows)


def summary_markdown(export: Export, summary: Summary, *, masked: bool) -> str:
    """An export summarised as Markdown tables, a few hundred tokens long."""
    parts = [f"# {export.title}", f"{sentence(export, masked=masked)} {coverage(export)}"]
    parts += [f"Note: {safe(warning)}" for warning in warnings(export, masked=masked)]
    if when := left_out(export):
        parts.append(f"Note: What upstream dates {when} is in none of the figures below.")
    parts += [
        "## Totals",
        table(("metric", "value", "unit"), ((m.title, figure(v, m.unit), m.unit) for m, v in summary.totals)),
    ]
    if any(metric.name == "hours_saved" for metric, _ in summary.totals):
        parts.append(summary.minutes.words)
    for breakdown in summary.breakdowns:
        shown = len(breakdown.rows)
        of = f" ({shown} of {breakdown.groups})" if breakdown.groups > shown else ""
        parts += [f"## {breakdown.title}{of}"]
        parts += [breakdown_table(breakdown), *breakdown.notes]
    parts.append("People of several rows count once in the totals, so breakdowns of people do not add up to them.")
    parts.append(f"Rows: {uri(export.id, '/rows')} · CSV: {uri(export.id, '/data.csv')}")
    return "\n\n".join(parts)
