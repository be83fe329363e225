"""Export usage, list and delete what is kept."""

from datetime import date
from typing import Annotated, Any

from mcp_types import ContentBlock, ResourceLink
from pydantic import Field

from ...disk import in_thread
from ...errors import invalid
from ...exports.downloads import Download
from ...exports.models import Export
from ...upstream.models import FINEST, Granularity, ReportRequest
from .. import exports_text
from ..app import App
from ..call import Call
from ..exports_text import ExportEntry
from ..text import fitting, plural, size, table
from ..tool import Answer, Arguments, Day, Hints, Reply, tool
from ..waiting import prepare, wait_for

Instance = Annotated[str | None, Field(min_length=1, max_length=260, description="Instance host, if not the default")]
ExportId = Annotated[str, Field(min_length=1, max_length=64, description="Id from export_csv or list_exports")]


class ExportArguments(Arguments):
    """What to export."""

    granularity: Annotated[Granularity, Field(description="How fine the rows are")] = FINEST
    start_date: Annotated[Day | None, Field(description="First day, UTC; default: all time")] = None
    end_date: Annotated[Day | None, Field(description="Last day, inclusive")] = None
    instance_url: Instance = None
    refresh: Annotated[bool, Field(description="Download again")] = False


class ExportAnswer(Answer):
    export: ExportEntry


@tool(title="Export usage as CSV", answer=ExportAnswer, hints=Hints(read_only=True, idempotent=True))
async def export_csv(app: App, arguments: ExportArguments, call: Call) -> Reply:
    """Download a usage report as CSV and keep it for tables and questions; the rows stay on disk.
    For a figure, ask query_usage instead. Long exports go on in the background: call again to wait."""
    request = _request(app, arguments)
    wish = app.wishes.take([request], new=arguments.refresh)
    export = await in_thread(app.downloads.kept, request, wish)
    reused = export is not None and export.id not in wish.exports
    if export is None:
        await prepare(app)
        download = app.downloads.start(request, wish)
        export = await wait_for(app, download, call)
        if export is None:
            app.wishes.keep(wish)
            return _running(app, download)
    app.wishes.answered([request], [export])
    return _complete(app, export, reused=reused, linked=call.takes_links)


def _request(app: App, arguments: ExportArguments) -> ReportRequest:
    check_order(arguments.start_date, arguments.end_date)
    return ReportRequest(
        instance_url=app.settings.resolve_instance(arguments.instance_url),
        granularity=arguments.granularity,
        start_date=arguments.start_date,
        end_date=arguments.end_date,
    )


def check_order(start: date | None, end: date | None) -> None:
    """Refuse days in the wrong order."""
    if start is not None and end is not None and start > end:
        raise invalid("start_date is after end_date.", "Swap them.")


def _complete(app: App, export: Export, *, reused: bool, linked: bool) -> Reply:
    entry = exports_text.complete(export, reused=reused, with_path=app.shows_paths, masked=app.masked)
    kept = " Kept from an earlier call in this hour." if reused else ""
    facts = [("export_id", entry.id), ("summary", entry.summary_uri), ("csv", entry.csv_uri)]
    facts += [("file", entry.path)] if entry.path else []
    facts += [("note", warning) for warning in entry.warnings]
    head = f"{exports_text.sentence(export, masked=app.masked)}{kept} {exports_text.coverage(export)}"
    text = f"{head}\n\n{table(('', ''), facts, widest=1000)}"
    links: list[ContentBlock] = []
    if linked and app.settings.resource_links:
        links = [
            ResourceLink(uri=exports_text.uri(export.id), name=f"{export.id}-summary", title=f"Summary: {export.title}",
                         mime_type="text/markdown"),
            ResourceLink(uri=exports_text.uri(export.id, "/data.csv"), name=f"{export.id}-csv",
                         title=f"CSV: {export.title}", mime_type="text/csv", size=entry.byte_count),
        ]  # fmt: skip
    return Reply(text, ExportAnswer(export=entry), links, rows=export.row_count)


def _running(app: App, download: Download) -> Reply:
    entry = exports_text.running(download, masked=app.masked)
    length = "" if entry.byte_count is None else f", {size(entry.byte_count)}"
    far = f"{plural(entry.row_count, 'row')}{length}"
    text = (
        f"The export is still running ({far} so far) and goes on in the background. "
        "Call export_csv again with the same arguments to wait for it.\n\n" + exports_text.recent_table([entry])
    )
    return Reply(text, ExportAnswer(export=entry), rows=entry.row_count, outcome="running")


class ListExportsArguments(Arguments):
    """Which page of the list."""

    limit: Annotated[int, Field(ge=1, le=100, description="Most exports to list")] = 20
    cursor: Annotated[str | None, Field(max_length=64, description="next_cursor of the page before")] = None


class ListExportsAnswer(Answer):
    """Entries are those of export_csv; spelling them out again would cost every client."""

    exports: list[dict[str, Any]]
    next_cursor: str | None


@tool(
    title="List exports", answer=ListExportsAnswer, hints=Hints(read_only=True, idempotent=True, open_world=False)
)  # fmt: skip
async def list_exports(app: App, arguments: ListExportsArguments, call: Call) -> Reply:
    """List the exports that are kept and those still running, newest first."""
    kept = await app.store.listed()
    start = 0
    if arguments.cursor is not None:
        ids = [export.id for export in kept]
        if arguments.cursor not in ids:
            raise invalid("That cursor is not of this list any more.", "Call list_exports without a cursor.")
        start = ids.index(arguments.cursor) + 1
    page = kept[start : start + arguments.limit]
    entries = [exports_text.complete(e, with_path=app.shows_paths, masked=app.masked) for e in page]
    count = fitting(list(entry.model_dump(mode="json").values()) for entry in entries)
    if entries and not count:  # the headers of one alone fill an answer
        entries, count = [entries[0].model_copy(update={"columns": ()})], 1
    entries = entries[:count]
    page = kept[start : start + len(entries)]
    under_way = app.downloads.running if start == 0 else []
    entries = [*(exports_text.running(d, masked=app.masked) for d in under_way), *entries]
    more = page[-1].id if page and start + len(page) < len(kept) else None
    head = (
        f"{plural(len(kept), 'export')} kept." if kept or entries else "No exports are kept yet; export_csv makes one."
    )
    if more:
        head += f" Shown: {start + 1} to {start + len(page)}; more with cursor {more}."
    text = f"{head}\n\n{exports_text.recent_table(entries)}" if entries else head
    return Reply(
        text,
        ListExportsAnswer(exports=[entry.model_dump(mode="json") for entry in entries], next_cursor=more),
        rows=len(entries),
    )


class DeleteExportArguments(Arguments):
    export_id: ExportId


class DeleteExportAnswer(Answer):
    export_id: str
    deleted: bool


@tool(
    title="Delete export",
    answer=DeleteExportAnswer,
    hints=Hints(destructive=True, idempotent=True, open_world=False),
)
async def delete_export(app: App, arguments: DeleteExportArguments, call: Call) -> Reply:
    """Delete the local copy of an export. Upstream keeps its data, so it can be exported again."""
    await app.downloads.delete(arguments.export_id)
    await app.notices.exports_changed()
    return Reply("The export was deleted, every copy of it.",
                 DeleteExportAnswer(export_id=arguments.export_id, deleted=True))  # fmt: skip
