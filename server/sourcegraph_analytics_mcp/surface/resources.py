"""What can be read: the recent exports, each one's summary, rows and CSV, and the catalogue of metrics."""

import re
from collections.abc import Callable
from typing import Any

from mcp.server import MCPServer
from mcp_types import Annotations, Resource

from ..disk import in_thread
from ..errors import AnalyticsError, invalid
from ..exports.columns import DOCUMENTED, SQL_TYPES, expected
from ..exports.identities import NAMES, PERSON, hidden
from ..exports.models import Export
from ..exports.rows import Shown, guarded, page
from ..spelling import safe, told
from ..upstream.models import GRANULARITIES
from ..usage.metrics import METRICS, Minutes
from . import exports_text
from .app import App, assumed
from .notices import EXPORTS_URI
from .text import MAX_CELL, fitting, formula_safe, iso, plural, size, table

METRICS_URI = "analytics://metrics"
COLUMNS_URI = "analytics://columns"
_ONE = EXPORTS_URI + "/{export_id}"
_PARAMETERS = ("offset", "limit")
_ROWS, _CSV = f"{_ONE}/rows{{?{','.join(_PARAMETERS)}}}", _ONE + "/data.csv"
_OF_AN_EXPORT = ("export_csv", "query_export")
GIVEN_BY: dict[str, tuple[str, ...]] = {  # by URI or template, the tools that give the same data; none where it is ours
    EXPORTS_URI: ("list_exports",),
    METRICS_URI: (),
    COLUMNS_URI: (),
    _ONE: _OF_AN_EXPORT,
    _ROWS: _OF_AN_EXPORT,
    _CSV: _OF_AN_EXPORT,
}
_OURS = re.compile(re.escape(EXPORTS_URI) + r"/[0-9a-f]{32}(/data\.csv|/rows(\?[\w=&]{1,60})?)?", re.ASCII)
_NEWEST = 10  # exports listed one by one
_MOST_IN_TABLE = 50
_MOST_CSV = 5 << 20  # bytes of a CSV handed over as text
_PAGE, _MOST_ROWS = 50, 500


def add_resources(server: MCPServer[Any], app: Callable[[str], App]) -> None:
    """Register the static resources and the templates.

    Args:
        app: gives the running app to who may read the resource or template of a URI.
    """

    @server.resource(EXPORTS_URI, title="Recent exports", mime_type="text/markdown",
                     description="The exports that are kept, newest first, as one table")  # fmt: skip
    async def exports() -> str:
        return await recent(app(EXPORTS_URI))

    @server.resource(METRICS_URI, title="Metrics", mime_type="text/markdown",
                     description="Every metric: what it means, its unit, the columns it needs")  # fmt: skip
    async def metrics() -> str:
        return metrics_markdown(assumed(app(METRICS_URI).settings))

    @server.resource(COLUMNS_URI, title="Columns", mime_type="text/markdown",
                     description="Every column of usage: name in SQL, type, header, granularities")  # fmt: skip
    async def columns() -> str:
        return columns_markdown(masked=app(COLUMNS_URI).masked)

    @server.resource(_ONE, title="Export summary", mime_type="text/markdown",
                     description="One export in tables: coverage, totals, months, clients, languages")  # fmt: skip
    async def export_summary(export_id: str) -> str:
        return await summary_of(app(_ONE), export_id)

    @server.resource(_ROWS, title="Export rows", mime_type="text/markdown",
                     description=f"A page of rows; offset from 0, limit {_PAGE} up to {_MOST_ROWS}")  # fmt: skip
    async def export_rows(export_id: str, offset: str = "0", limit: str = str(_PAGE)) -> str:
        return await rows_of(app(_ROWS), export_id, _number(offset, "offset"), _number(limit, "limit"))

    @server.resource(_CSV, title="Export CSV", mime_type="text/csv",
                     description="All rows of an export as CSV that is safe to open in a spreadsheet")  # fmt: skip
    async def export_data(export_id: str) -> str:
        return await csv_of(app(_CSV), export_id)


async def listed(app: App, may_read: Callable[[str], bool]) -> list[Resource]:
    """The newest exports one by one, for `resources/list` of who may know of them and read them."""
    if not (may_read(EXPORTS_URI) and may_read(_ONE)):
        return []
    exports = await app.store.listed()
    return [
        Resource(
            uri=exports_text.uri(export.id),
            name=f"export-{export.id[:8]}",
            title=export.title,
            description=exports_text.sentence(export, masked=app.masked),
            mime_type="text/markdown",
            annotations=Annotations(last_modified=iso(export.created_at)),
        )
        for export in exports[:_NEWEST]
    ]


async def recent(app: App) -> str:
    kept = await in_thread(app.store.exports)
    entries = [exports_text.running(d, masked=app.masked) for d in app.downloads.running]
    entries += [exports_text.complete(export, masked=app.masked) for export in kept[:_MOST_IN_TABLE]]
    if not entries:
        return "No exports are kept yet; the tool export_csv makes one."
    cut = f" The table holds the newest {_MOST_IN_TABLE}; list_exports has all." if len(kept) > _MOST_IN_TABLE else ""
    return f"{plural(len(kept), 'export')} kept, newest first.{cut}\n\n{exports_text.recent_table(entries)}"


def metrics_markdown(minutes: Minutes) -> str:
    rows = [(m.name, m.title, m.unit, m.described(minutes), ", ".join(m.columns(minutes))) for m in METRICS]
    return "# Metrics\n\n" + table(("name", "title", "unit", "definition", "columns"), rows)


def columns_markdown(*, masked: bool) -> str:
    """The catalogue of columns.

    Args:
        masked: whether people are shown by pseudonym, so that no column is there which may name them.
    """
    rows = [
        (c.name, SQL_TYPES[c.kind], c.header, ", ".join(g for g in GRANULARITIES if c in expected(g)))
        for c in DOCUMENTED
        if not (masked and hidden(c.name))
    ]
    note = "Columns that upstream adds are there too, as VARCHAR, with their name in snake_case. Blank is NULL."
    if masked:
        left_out = f"{', '.join(NAMES)} and columns that upstream adds are left out"
        note = f"People are shown by pseudonym: it is their {PERSON}; {left_out}. Blank is NULL."
    return f"# Columns of usage\n\n{note}\n\n" + table(("name", "type", "header", "granularities"), rows)


async def summary_of(app: App, export_id: str) -> str:
    export = await app.downloads.export(export_id)
    return exports_text.summary_markdown(export, await app.summaries.of(export), masked=app.masked)


async def rows_of(app: App, export_id: str, offset: int, limit: int) -> str:
    if not 1 <= limit <= _MOST_ROWS:
        raise invalid(f"limit must be 1 to {_MOST_ROWS}.")
    export = await app.downloads.export(export_id)
    shown = Shown(export.fields, app.questions.pseudonyms)
    rows = [shown.row(row) for row in await in_thread(page, export, offset, limit)]
    rows = rows[: max(fitting(rows), 1)]
    if not rows:
        return f"{export.title} has {plural(export.row_count, 'row')}; none from row {offset + 1:,} on."
    after = offset + len(rows)
    more = (
        f" Next: {exports_text.uri(export.id, f'/rows?offset={after}&limit={limit}')}"
        if after < export.row_count
        else ""
    )
    head = f"{export.title}: rows {offset + 1:,} to {after:,} of {export.row_count:,}"
    changed = _changed(app, export, [shown.headers, *rows])
    return f"{head}{changed}.{more}\n\n{table(shown.headers, rows)}"


def _changed(app: App, export: Export, lines: list[list[str]]) -> str:
    """What is not in a page, headers and rows, as it is in the file."""
    people = ", people by pseudonym" if app.masked else ""
    cut = sum(len(told(value)) > MAX_CELL for line in lines for value in line)
    if not cut:
        return people or ", as they came"
    has = "data.csv" if export.byte_count <= _MOST_CSV else "the file that export_csv names" if app.shows_paths else ""
    cells, them = ("1 cell is", "it") if cut == 1 else (f"{cut:,} cells are", "them")
    where = f", {has} has {them} whole" if has else ""
    return f"{people}; {cells} cut to {MAX_CELL} characters{where}"


async def csv_of(app: App, export_id: str) -> str:
    export = await app.downloads.export(export_id)
    if export.byte_count > _MOST_CSV:
        file = "Open the file that export_csv names, r" if app.shows_paths else "R"
        raise AnalyticsError(
            "result_too_large",
            f"The CSV is longer than the {size(_MOST_CSV)} that are handed over.",
            f"{file}ead a page of rows, or ask query_usage.",
        )
    shown = Shown(export.fields, app.questions.pseudonyms)
    text = await in_thread(guarded, export, shown, lambda text: formula_safe(safe(text)))
    if not app.redactor.suspects(text):
        return text
    masked = app.redactor.text  # before a cell is quoted, which doubles the quotes in it
    return await in_thread(guarded, export, shown, lambda text: formula_safe(safe(masked(text))))


def check_parameters(uri: str) -> None:
    """Refuse what a page of rows knows nothing of, or would know twice: the SDK leaves it out.

    Raises:
        AnalyticsError: `invalid_argument`.
    """
    path, _, query = uri.partition("#")[0].partition("?")
    names = [pair.partition("=")[0] for pair in query.split("&") if pair]
    if path.endswith("/rows") and not (set(names) <= {*_PARAMETERS} and len(set(names)) == len(names)):
        raise invalid(f"A page of rows takes {' and '.join(_PARAMETERS)}, each once, and nothing else.")


def known(uri: str) -> str:
    """The URI or template, as `GIVEN_BY` has it, of which a URI is.

    Raises:
        AnalyticsError: `not_found` for one of none.
    """
    if uri in (EXPORTS_URI, METRICS_URI, COLUMNS_URI):
        return uri
    if _OURS.fullmatch(uri):
        return _ONE
    raise AnalyticsError("not_found", "There is no such resource.", "resources/list shows those that there are.")


def _number(text: str, name: str) -> int:
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII):
        raise invalid(f"{name} must be a whole number from 0.")
    return int(text)
