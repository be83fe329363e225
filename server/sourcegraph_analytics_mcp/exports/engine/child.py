"""The engine's process: one request per line in, one answer per line out, on the socket that is its input.

Forked by `forkserver.py`, from which it has an empty environment and limits on memory, files and core dumps. It dies
with its parent (end of input, and a kernel signal where there is one), and its stdout goes nowhere.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from ...errors import AnalyticsError, origin, used_up
from ...files import disk_error
from ..identities import masked_columns
from .ingest import Ingest
from .native import disk_refusal, rows_in, text
from .opened import connection
from .sandbox import answer

MEMORY_MB = 256  # DuckDB's own limit; sorts and joins beyond it go to disk or fail
# The one way in which names are compared: without case and whatever their accents are made of. Plain ones are quick.
_FOLDED = """CREATE MACRO folded(name) AS CASE WHEN strlen(name) = length(name) THEN lower(name)
    ELSE replace(lower(nfc_normalize(name)), 'ς', 'σ') END"""


def _connection(scratch: str) -> Any:
    opened = connection()
    for setting in (
        f"memory_limit = '{MEMORY_MB}MB'",
        "threads = 2",
        "preserve_insertion_order = false",
        "enable_progress_bar = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "allow_persistent_secrets = false",
        "GLOBAL TimeZone = 'UTC'",  # for every cursor
    ):
        opened.execute(f"SET {setting}")
    opened.execute("SET temp_directory = " + text(scratch))
    return opened


def _ingest(request: dict[str, Any], lines: IO[str]) -> dict[str, Any]:
    """Convert a growing file: `{"size": n}` lines say how much of it is there, `{"end": n}` that it is whole."""
    parts = Path(request["parts"])
    ingest = Ingest(Path(request["source"]), parts, request["granularity"], _connection(str(parts / "scratch")))
    for line in lines:
        step = json.loads(line)
        ingest.advance(step.get("size", step.get("end")))
        if "end" in step:
            return ingest.finish()
    raise SystemExit(0)  # the parent has gone


def _query(request: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Answer one of our own statements over the Parquet parts of some exports, each visible under a name."""
    if "connection" not in state:
        state["connection"] = _connection(request["scratch"])
        state["connection"].execute(_FOLDED)
    cursor = state["connection"].cursor()
    for name, files in request["tables"].items():
        source = rows_in(files)
        columns = _columns(cursor, source, request["mask"])
        cursor.execute(f'CREATE OR REPLACE TEMP VIEW "{name}" AS SELECT {columns} FROM {source}')
    result = cursor.execute(request["sql"], request["parameters"])
    names = [column[0] for column in result.description]
    return {"columns": names, "rows": [[_plain(v) for v in row] for row in result.fetchall()]}


def _columns(cursor: Any, source: str, mask: str | None) -> str:
    """What a view shows of a source: all of it, or with people masked by a key."""
    if mask is None:
        return "*"
    names = [row[0] for row in cursor.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    return ", ".join(masked_columns(names, mask))


def _done(request: dict[str, Any], lines: IO[str], state: dict[str, Any]) -> dict[str, Any]:
    os.chdir(request["place"])  # all names are of files in it, whatever characters its own path holds
    match request["do"]:
        case "ingest":
            return _ingest(request, lines)
        case "query":
            return _query(request, state)
        case _:
            return answer(request)


def _plain(value: Any) -> Any:
    """A value of our own statements as JSON can hold it: dates as ISO text."""
    return value.isoformat() if hasattr(value, "isoformat") else value


def _say(out: IO[str], message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def _as_data(error: Any) -> dict[str, Any]:
    told = {"code": error.code, "message": error.message, "next_step": error.next_step}
    return told | {"retryable": error.retryable}


def _refusal(error: Exception) -> Any:
    """What to say when it is the system that has no more of something, or the disk that refuses."""
    refused = error if isinstance(error, OSError) else disk_refusal(error)
    return used_up(error) if refused is None else disk_error(refused)


def _serve(lines: IO[str], out: IO[str]) -> None:
    state: dict[str, Any] = {}
    for line in lines:
        request = json.loads(line)
        try:
            done = _done(request, lines, state)
            _say(out, {"done": done})
        except AnalyticsError as error:
            _say(out, {"error": _as_data(error)})
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            refusal = _refusal(error)
            _say(out, {"crash": origin(error)} if refusal is None else {"error": _as_data(refusal)})
        if request["do"] != "query":
            return  # one export, one process; one query that nobody vouches for, one process


def main(parent: int) -> None:
    """Serve until the input ends.

    Args:
        parent: the process that this one was forked from, with which it ends.
    """
    if sys.platform == "linux":  # pragma: no branch - elsewhere the end of input has to do
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
        if os.getppid() != parent:  # it died before it could be asked for
            return
    _serve(os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(0), "w", encoding="utf-8"))
