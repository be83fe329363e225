"""The escape hatch: one SQL query over one export, in a process that cannot harm anything."""

import json
from itertools import chain
from typing import Annotated, Any

from pydantic import Field

from ...exports import remarks
from ...exports.identities import hidden
from ...exports.models import Export
from ..app import App
from ..call import Call
from ..exports_text import warnings
from ..text import MAX_ROWS, fitting, narrow, plural, table
from ..tool import Answer, Arguments, Cell, Hints, Reply, tool
from .exports import ExportId

_MOST_ROWS = 1000
_WIDEST = 500  # characters of a cell
_LEFT_OUT = f"Rows beyond {MAX_ROWS:,} characters were left out; select fewer columns or aggregate."
_NONE_FITS = f"The first row alone is longer than {MAX_ROWS:,} characters; select fewer columns."


class SqlArguments(Arguments):
    export_id: ExportId
    sql: Annotated[str, Field(min_length=1, description="One SELECT over table usage (DuckDB dialect)")]
    limit: Annotated[int, Field(ge=1, le=_MOST_ROWS, description="Most rows")] = 200


class SqlAnswer(Answer):
    columns: list[dict[str, str]]
    rows: list[list[Cell]]
    row_count: int
    truncated: bool
    notes: list[str]


@tool(
    title="Query an export with SQL", answer=SqlAnswer, hints=Hints(read_only=True, idempotent=True, open_world=False)
)
async def query_export(app: App, arguments: SqlArguments, call: Call) -> Reply:
    """Run one read-only SQL query over an export, for what query_usage cannot answer. Columns in snake_case:
    instance_user_id, timestamp_date, client_name, language, chat_events…; all in analytics://columns. Count people
    by instance_user_id; sum before dividing."""
    export = await app.downloads.export(arguments.export_id)
    columns = [f.name for f in export.fields if not app.masked or not hidden(f.name)]
    limit = arguments.limit
    found = await app.sandbox.run(export.parts, columns, arguments.sql, limit, _WIDEST)
    answer = _bounded(found, limit, _of_the_data(app, export, f"{arguments.sql} {found['columns']}".lower()))
    more = _more(answer.row_count, limit) if answer.truncated else ""
    head = f"{plural(answer.row_count, 'row')} of {export.title}, as of {export.created_at:%Y-%m-%d %H:%M} UTC.{more}"
    notes = "".join(f"\n- {note}" for note in answer.notes)
    body = table([c["name"] for c in answer.columns], [[*map(_exact, row)] for row in answer.rows], widest=_WIDEST)
    return Reply(f"{head}{notes}\n\n{body}", answer, rows=answer.row_count)


def _bounded(found: dict[str, Any], limit: int, of_the_data: list[str]) -> SqlAnswer:
    """As much of a result as an answer can hold, and a word on what is not in it as it was found."""
    columns, rows = found["columns"], [[narrow(value, _WIDEST) for value in row] for row in found["rows"]]
    count = fitting(rows, widest=_WIDEST)
    truncated = found["truncated"] or count < len(rows)
    notes = []
    if len(columns) < found["width"]:
        notes.append(f"Only the first {len(columns)} of {found['width']:,} columns are here; name those you need.")
    notes += of_the_data
    if odd := sum(found["endless"][:count]):
        what = "1 value that is no finite number" if odd == 1 else f"{odd:,} values that are no finite numbers"
        notes.append(f"{what} (NaN or infinity) {'is' if odd == 1 else 'are'} shown as blank.")
    pairs = zip(chain(*rows[:count]), chain(*found["rows"][:count]), strict=True)
    if cut := sum(shown is not held for shown, held in pairs):
        notes.append(f"{plural(cut, 'cell')} {'was' if cut == 1 else 'were'} cut to {_WIDEST} characters.")
    if truncated and count < limit:
        notes.append(_LEFT_OUT if count else _NONE_FITS)
    return SqlAnswer(columns=columns, rows=rows[:count], row_count=count, truncated=truncated, notes=notes)


def _more(count: int, limit: int) -> str:
    """What to say where there are more rows than those; why they were left out for their length is a note."""
    if count < limit:
        return " There are more."
    raised = f"raise limit (up to {_MOST_ROWS:,})"
    return f" There are more; {raised if limit < _MOST_ROWS else 'filter'} or aggregate."


def _exact(value: Any) -> Any:
    """A value as data have it: what a number means is not known here, so that none is rounded or grouped."""
    return json.dumps(value) if isinstance(value, int | float) else value


def _of_the_data(app: App, export: Export, used: str) -> list[str]:
    """What a reader of the rows must know of the data: of cells only where their column is used."""
    said = warnings(export, masked=app.masked) if "usage" in used else ()
    return [one for one in said if not remarks.about_columns(one) and (remarks.column(one) or "") in used]
