"""The escape hatch: one SQL query over one export, in a process that cannot harm anything."""

import json
from collections import Counter
from typing import Annotated, Any

from pydantic import Field

from ...exports.identities import hidden
from ...exports.models import Export
from ...exports.remarks import about_rows
from ...spelling import safe, told, visible
from ..app import App
from ..call import Call
from ..exports_text import not_over
from ..text import MAX_ROWS, escaped, heading, line, plural, within
from ..tool import Answer, Arguments, Cell, Hints, Reply, tool
from .exports import ExportId

_MOST_ROWS = 1000
_WIDEST = 500  # characters of a cell
_LEFT_OUT = f"Rows beyond {MAX_ROWS:,} characters were left out; select fewer columns or aggregate."
_ALONE = f"The first row alone is longer than {MAX_ROWS:,} characters; select fewer columns."
_BESIDE = "The first row and the columns' names are too long for an answer; select fewer columns, or shorten names."
_SAID = 1000  # characters of an answer, beside its rows and the names of their columns


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
    found = await app.sandbox.run(export.parts, columns, arguments.sql, limit, _WIDEST, MAX_ROWS)
    notes = _of_the_data(app, export, f"{arguments.sql} {found['columns']}".lower())
    lines = _lines(found)
    answer = _bounded(found, lines, limit, notes)
    count = answer.row_count
    more = _more(count, limit) if answer.truncated else ""
    head = f"{plural(count, 'row')} of {export.title}, as of {export.created_at:%Y-%m-%d %H:%M} UTC.{more}"
    said = "".join(f"\n- {note}" for note in answer.notes)
    body = "\n".join(lines[: count + 1])
    return Reply(f"{head}{said}\n\n{body}", answer, rows=count, spell=visible)


def _lines(found: dict[str, Any]) -> list[str]:
    """A table of everything, its two lines of headers as one; cells as data have them, as no number may be rounded."""
    rows = [[told(value, visible) for value in row] for row in found["rows"]]
    names = [visible(column["name"]) for column in found["columns"]]
    return [heading([*map(escaped, names)]), *(line([*map(escaped, row)]) for row in rows)]


def _length(text: str, data: Any) -> int:
    return max(len(text) + 1, len(json.dumps(data, ensure_ascii=False)) + 2)


def _bounded(found: dict[str, Any], lines: list[str], limit: int, notes: list[str]) -> SqlAnswer:
    """As much of a result as an answer can hold, as text and as data, and a word on what is not in it as it was found.

    Args:
        notes: what else must be said, for which there must be room, too.
    """
    columns, rows = found["columns"], found["rows"]
    lengths = [*map(_length, lines, [columns, *rows])]
    count = max(within(lengths, max(MAX_ROWS // 2, MAX_ROWS - _SAID - sum(map(len, notes)))) - 1, 0)
    truncated = found["truncated"] or count < len(rows)
    said = sum(map(Counter, found["said"][:count]), Counter[str]())
    notes = [*notes]
    if len(columns) < found["width"]:
        notes.insert(0, f"Only the first {len(columns)} of {found['width']:,} columns are here; name those you need.")
    notes += [_endless(said[shown], shown) for shown in ("blank", "null") if said[shown]]
    if cut := said["cut"]:
        notes.append(f"{plural(cut, 'cell')} {'was' if cut == 1 else 'were'} cut to {_WIDEST} characters.")
    if deep := said["deep"]:
        notes.append(f"{plural(deep, 'cell')} nested too deeply {'is' if deep == 1 else 'are'} here as text.")
    if truncated and count < limit:
        notes.append(_LEFT_OUT if count else _ALONE if lengths[1] > MAX_ROWS else _BESIDE)
    return SqlAnswer(columns=columns, rows=rows[:count], row_count=count, truncated=truncated, notes=notes)


def _endless(count: int, shown: str) -> str:
    what = "1 value that is no finite number" if count == 1 else f"{count:,} values that are no finite numbers"
    return f"{what} (NaN or infinity) {'is' if count == 1 else 'are'} shown as {shown}."


def _more(count: int, limit: int) -> str:
    """What to say where there are more rows than those; why they were left out for their length is a note."""
    if count < limit:
        return " There are more."
    raised = f"raise limit (up to {_MOST_ROWS:,})"
    return f" There are more; {raised if limit < _MOST_ROWS else 'filter'} or aggregate."


def _of_the_data(app: App, export: Export, used: str) -> list[str]:
    """What a reader of the rows must know of the data: of cells only where their column is used."""
    if "usage" not in used:
        return []
    columns = {name for name in export.names if name in used}
    return [safe(one) for one in (*about_rows(export, columns), *not_over(export))]
