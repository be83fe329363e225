"""Credits, and whether everything that is configured works."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from ...access.credentials import expires_soon
from ...disk import in_thread
from ...errors import AnalyticsError
from ...exports.identities import HIDDEN
from ...exports.models import range_words
from ...exports.numbers import in_json
from ...exports.staging import try_out
from ...redaction import keys, told_apart
from ...spelling import safe_data
from ...upstream.models import Written
from ..app import App
from ..call import Call
from ..nameless import nameless
from ..text import cell, plural, size, table
from ..tool import Answer, Arguments, Cell, Day, Hints, Reply, tool
from ..waiting import prepare
from .exports import Instance, check_order

_MOST_TEXT = 20_000  # characters
_WIDEST = _MOST_TEXT + 1  # of a cell, so that none is cut but what is refused as too large


class CreditsArguments(Arguments):
    start_date: Annotated[Day | None, Field(description="Buckets active from this day")] = None
    end_date: Annotated[Day | None, Field(description="Buckets active until this day")] = None
    instance_url: Instance = None


class CreditsAnswer(Answer):
    credits: Cell
    notes: list[str]


@tool(title="Get credits", answer=CreditsAnswer, hints=Hints(read_only=True, idempotent=True))
async def get_credits(app: App, arguments: CreditsArguments, call: Call) -> Reply:
    """Get the credit buckets, allocated and consumed, as upstream gives them."""
    check_order(arguments.start_date, arguments.end_date)
    instance = app.settings.resolve_instance(arguments.instance_url)
    given = await app.analytics.credits(instance, arguments.start_date, arguments.end_date)
    given = app.redactor.data(nameless(given) if app.masked else given)
    given = _sayable(given, told_apart(keys(given), _encodable))  # so that text and data say the same
    text = _as_text(given)
    length = max(len(text), len(json.dumps(safe_data(given), ensure_ascii=False)))
    if length > _MOST_TEXT:
        raise AnalyticsError("result_too_large", f"The credits are {length:,} characters long.", "Ask for fewer days.")
    asked = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    notes = [f"What may name somebody is {HIDDEN}, numbers too."] if app.masked and HIDDEN in text else []
    if arguments.start_date or arguments.end_date:
        chosen = f"The dates ({range_words(arguments.start_date, arguments.end_date)}) choose buckets active then"
        notes.append(f"{chosen}; upstream does not say whether figures are of these days or of the whole bucket.")
    head = " ".join([f"Credits of {instance} as upstream gives them, {asked}.", *notes])
    return Reply(f"{head}\n\n{text}", CreditsAnswer(credits=given, notes=notes))


def _encodable(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode()


def _sayable(given: Any, told: Mapping[str, str]) -> Any:
    """The same as JSON can hold it with every digit, else as text, or data would say null.

    Args:
        told: how each key is spelled.
    """
    if isinstance(given, dict):
        return {told[key]: _sayable(value, told) for key, value in given.items()}
    if isinstance(given, list):
        return [_sayable(value, told) for value in given]
    if isinstance(given, Written) and not given.exact:
        return given.written
    if isinstance(given, float):
        return float(given) if math.isfinite(given) else str(given)
    return in_json(given) if isinstance(given, int) and not isinstance(given, bool) else given


def _as_text(given: Any) -> str:
    """All of it, as text that is no markup: lists of objects as tables, what is not in them as compact JSON before."""
    if _tabular(given):
        return _as_table(given)
    lists = {name: value for name, value in given.items() if _tabular(value)} if isinstance(given, dict) else {}
    if not lists:
        return _as_json(given)
    rest = {name: value for name, value in given.items() if name not in lists}
    tables = [f"{cell(name, widest=_WIDEST)}:\n\n{_as_table(rows)}" for name, rows in lists.items()]
    return "\n\n".join([_as_json(rest), *tables] if rest else tables)


def _tabular(value: Any) -> bool:
    """Whether it is a list of objects in which something stands."""
    return isinstance(value, list) and any(value) and all(isinstance(row, dict) for row in value)


def _as_table(rows: list[dict[str, Any]]) -> str:
    headers = list(dict.fromkeys(key for row in rows for key in row))
    return table(headers, [[_exact(row.get(h)) for h in headers] for row in rows], widest=_WIDEST)


def _as_json(given: Any) -> str:
    return cell(given if isinstance(given, str) else json.dumps(given, ensure_ascii=False), widest=_WIDEST)


def _exact(value: Any) -> object:
    """A value of upstream's with every digit; a table of ours would round it."""
    return f"{value:,}" if isinstance(value, float) else value


class CheckArguments(Arguments):
    instance_url: Instance = None


class Check(Answer):
    name: Literal["mode", "instance", "access token", "session cookie", "store"]
    ok: bool
    detail: str


class CheckAnswer(Answer):
    ok: bool
    checks: list[Check]


@tool(title="Check connection", answer=CheckAnswer, hints=Hints(read_only=True, idempotent=True))
async def check_connection(app: App, arguments: CheckArguments, call: Call) -> Reply:
    """Say what is configured and whether it works now: instance, access token, session cookie, store."""
    checks = [
        Check(name="mode", ok=True, detail="demo, a made-up company" if app.settings.demo else app.settings.url),
        _instance(app, arguments.instance_url),
        await _token(app, arguments.instance_url),
        await _cookie(app, call),
        await _store(app),
    ]
    needed = [check for check in checks if check.name != "session cookie"]
    answer = CheckAnswer(ok=all(check.ok for check in needed), checks=checks)
    head = "Exports work." if answer.ok else "Exports do not work yet."
    rows = [(check.name, "ok" if check.ok else "no", check.detail) for check in checks]
    return Reply(f"{head}\n\n{table(('what', 'works', 'detail'), rows, widest=1000)}", answer)


def _instance(app: App, asked: str | None) -> Check:
    try:
        return Check(name="instance", ok=True, detail=app.settings.resolve_instance(asked))
    except AnalyticsError as error:
        return Check(name="instance", ok=False, detail=error.text)


async def _token(app: App, asked: str | None) -> Check:
    try:
        await app.credentials.bearer()  # that there is none is said before that no instance is known
        await app.analytics.try_bearer(app.settings.resolve_instance(asked))
        source = await app.credentials.source()
    except AnalyticsError as error:
        return Check(name="access token", ok=False, detail=error.text)
    detail = f"from {source}; upstream accepts it"
    made = "by `login`" if app.settings.read_only else "with create_token"
    how = made if source == "secret store" else f"for {source}"
    return Check(name="access token", ok=True, detail=detail + _expiry(await app.credentials.expires_at(), how))


def _expiry(moment: datetime | None, how: str) -> str:
    """What to know of when a token expires: in time to make another."""
    if moment is None:
        return ""
    return f"; expires {moment:%Y-%m-%d}" + (f": make another {how} now" if expires_soon(moment) else "")


async def _cookie(app: App, call: Call) -> Check:
    if not call.covers("list_tokens"):
        return Check(name="session cookie", ok=False, detail="not looked at: your access does not cover tokens")
    try:
        listed = await app.tokens.listed()
    except AnalyticsError as error:
        return Check(name="session cookie", ok=False, detail=error.text)
    count = f"{'' if listed.whole else 'at least '}{plural(len(listed.tokens), 'token')}"
    return Check(name="session cookie", ok=True, detail=f"upstream accepts it; {count}")


async def _store(app: App) -> Check:
    try:
        await prepare(app)
        exports = await in_thread(app.store.exports)
        unreadable = len(await in_thread(app.store.unreadable))
        await in_thread(app.store.room_for, None)
        await in_thread(lambda: try_out(app.store.stage()))
    except AnalyticsError as error:
        return Check(name="store", ok=False, detail=error.text)
    held = "" if app.masked else f", {size(sum(export.stored_bytes for export in exports))}"
    where = f", in {app.store.home}" if app.shows_paths else ""
    more = f"; {unreadable} more cannot be read (damaged, or of a newer version)" if unreadable else ""
    more += f"; {plural(app.store.stuck, 'export')} past its time cannot be removed" if app.store.stuck else ""
    return Check(name="store", ok=True, detail=f"{plural(len(exports), 'export')}{held}{where}{more}")
