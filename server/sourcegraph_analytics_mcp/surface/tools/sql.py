"""The escape hatch: one SQL query over one export, in a process that cannot harm anything."""

from typing import Annotated

from pydantic import Field

from ...exports import remarks
from ...exports.identities import hidden
from ...exports.models import Export
from ..app import App
from ..call import Call
from ..exports_text import warnings
from ..text import cut, fitting, plural, table
from ..tool import Answer, Arguments, Cell, Hints, Reply, tool
from .exports import ExportId


class SqlArguments(Arguments):
    export_id: ExportId
    sql: Annotated[str, Field(min_length=1, description="One SELECT over table usage (DuckDB dialect)")]
    limit: Annotated[int, Field(ge=1, le=1000, description="Most rows")] = 200


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
    found = await app.sandbox.run(export.parts, columns, arguments.sql, arguments.limit)
    found["notes"] += _of_the_data(app, export, f"{arguments.sql} {found['columns']}".lower())
    count = fitting(found["rows"], widest=500)
    if count < len(found["rows"]):
        found |= {"rows": found["rows"][:count], "truncated": True, "notes": [*found["notes"], cut(count)]}
    answer = SqlAnswer(row_count=count, **found)
    head = f"{plural(answer.row_count, 'row')} of {export.title}, as of {export.created_at:%Y-%m-%d %H:%M} UTC."
    if answer.truncated:
        head += " There are more; raise limit (up to 1,000) or aggregate."
    notes = "".join(f"\n- {note}" for note in answer.notes)
    body = table([c["name"] for c in answer.columns], answer.rows, widest=500)
    return Reply(f"{head}{notes}\n\n{body}", answer, rows=answer.row_count)


def _of_the_data(app: App, export: Export, used: str) -> list[str]:
    """What a reader of the rows must know of the data: of cells only where their column is used."""
    said = warnings(export, masked=app.masked) if "usage" in used else ()
    return [one for one in said if not remarks.about_columns(one) and (remarks.column(one) or "") in used]
