"""Who holds a seat and does not use it."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain, zip_longest
from typing import Annotated, Any

import anyio
from pydantic import Field

from ...errors import AnalyticsError
from ...exports.models import Export, grain_words, range_words
from ...usage.inactive import Inactive, find_inactive, needs
from ...usage.notes import NO_DAYS, left_out, of_data
from ...usage.question import Need
from ..app import App
from ..call import Call
from ..text import fitting, iso, plural, short, table
from ..tool import Arguments, Hints, Reply, tool
from ..waiting import reading
from .exports import Instance
from .usage import TableAnswer, fetching

_LAPSED, _NEVER_SEEN = "lapsed", "never seen"
_REGISTRY_WITHIN = 5.0  # seconds; it is not documented, so nobody is kept waiting for it


class InactiveArguments(Arguments):
    days: Annotated[int, Field(ge=1, le=3650, description="No activity for so many days, today included")] = 30
    limit: Annotated[int, Field(ge=1, le=1000, description="Most rows; counts are over all")] = 50
    instance_url: Instance = None


class InactiveAnswer(TableAnswer):
    inactive: int
    seen: int
    never_seen: int | None
    seats_freed: int


@tool(title="List inactive users", answer=InactiveAnswer, hints=Hints(read_only=True, idempotent=True))
async def list_inactive_users(app: App, arguments: InactiveArguments, call: Call) -> Reply:
    """List people seen before and not active in the last days (lapsed), with when they were last seen; with the
    operator's seat list also seats never seen. Service accounts are left out where upstream tells who they are."""
    instance = app.settings.resolve_instance(arguments.instance_url)
    today = datetime.now(UTC).date()
    fetch = fetching(app, call)

    async def data(need: Need, since: datetime | None) -> Export:
        return await app.answers.data(need, fetch, today, wish, since=since)

    async def registry() -> str | None:
        with anyio.move_on_after(_REGISTRY_WITHIN), suppress(AnalyticsError):  # it may fail in any way
            return await app.analytics.user_registry(instance)
        return None  # the notes say what that means

    reports = [need.request for need in needs(instance, arguments.days, today)]
    async with reading(app):
        with app.wishes.of(reports, new=False) as wish:
            found = await find_inactive(instance, arguments.days, today, app.seats, app.questions, data, registry)
    return _reply(found, arguments)


def _reply(found: Inactive, arguments: InactiveArguments) -> Reply:
    page = _page(found, arguments.limit)
    count = len(found.lapsed) + len(found.seats.never_seen or ())
    as_of = min(export.created_at for export in found.exports)
    answer = InactiveAnswer(
        columns=[
            {"name": "user", "title": "User", "unit": "text"},
            {"name": "user_id", "title": "User ID", "unit": "text"},
            {"name": "status", "title": "Status", "unit": "text"},
            {"name": "last_seen", "title": "Last seen", "unit": "month"},
        ],
        rows=page,
        row_count=count,
        truncated=len(page) < count,
        start_date=found.start,
        end_date=found.end,
        as_of=iso(as_of),
        export_ids=[export.id for export in found.exports],
        notes=_notes(found),
        inactive=len(found.lapsed),
        seen=found.seen,
        never_seen=None if found.seats.never_seen is None else len(found.seats.never_seen),
        seats_freed=found.seats.freed,
    )
    return Reply(_text(found, answer, arguments.days), answer, rows=len(page))


def _page(found: Inactive, limit: int) -> list[list[Any]]:
    """As many rows as fit: neither kind takes the place of the other, so that both are there."""
    lapsed = [[user, user_id, _LAPSED, last] for user, user_id, last in found.lapsed]
    never_seen = [[seat, None, _NEVER_SEEN, None] for seat in found.seats.never_seen or ()]
    in_turn = [[*map(short, row)] for row in chain.from_iterable(zip_longest(lapsed, never_seen)) if row][:limit]
    return sorted(in_turn[: fitting(in_turn)], key=lambda row: row[2] == _NEVER_SEEN)


def _text(found: Inactive, answer: InactiveAnswer, days: int) -> str:
    people = plural(answer.inactive, "person", "people")
    when = f"from {found.start} to {found.end} ({plural(days, 'day')})"
    head = f"{people} of {found.seen:,} ever seen had no activity {when}"
    never_seen = found.seats.never_seen
    if never_seen:
        listed = "of the seat list"
        head += f"; {plural(len(never_seen), f'seat {listed} was never seen', f'seats {listed} were never seen')}"
    sure = never_seen is not None and not (never_seen and found.unmatched) and not found.undated
    frees = "That frees" if sure else "That could free up to"
    parts = [f"{head}. {frees} {plural(answer.seats_freed, 'seat')}. As of {answer.as_of[:16].replace('T', ' ')} UTC."]
    if answer.rows:
        shown = [(user, status, last) for user, _, status, last in answer.rows]
        parts.append(table(("User", "Status", "Last seen"), shown))
    if answer.truncated:
        parts.append(f"Shown: {_shown(answer)}; the counts are over all.")
    parts.append("\n".join(f"- {note}" for note in answer.notes))
    return "\n\n".join(parts)


def _shown(answer: InactiveAnswer) -> str:
    """How much of what is there the rows are."""
    if not answer.never_seen:
        return f"the first {len(answer.rows)} of {answer.row_count:,}"
    lapsed = sum(row[2] == _LAPSED for row in answer.rows)
    never_seen = len(answer.rows) - lapsed
    return f"{lapsed} of {answer.inactive:,} lapsed, {never_seen} of {answer.never_seen:,} never seen"


def _notes(found: Inactive) -> list[str]:
    notes = ["Activity means a row in the usage data; people who never had one are not in it.", *_days_notes(found)]
    notes.append("Last seen is a month, as it comes from monthly figures.")
    if found.undated:
        notes.append(f"Some rows of {found.undated:,} of the lapsed have no day that can be read: they may be active.")
    if not all(last for *_, last in found.lapsed):
        notes.append("Last seen is blank where no row has a month that can be read.")
    if found.service_accounts is None:
        notes.append("Upstream does not tell which users are service accounts, so some may be among them.")
    elif found.service_accounts:
        notes.append(f"{plural(found.service_accounts, 'service account')} left out.")
    return [*notes, *_seats_notes(found), *_warnings(found)]


def _seats_notes(found: Inactive) -> Iterator[str]:
    """How far the seat list and the data tell of the same people."""
    seats = found.seats
    if seats.listed == 0:
        yield "The seat list is empty."
    elif seats.listed and seats.never_seen is None:
        yield "The data name nobody who is on the seat list, so which seats were never seen cannot be told."
    elif found.unmatched:
        theirs = ": seats never seen may be theirs" if seats.never_seen else ""
        people = f"of the {plural(found.seen, 'person', 'people')} ever seen"
        yield f"{plural(found.unmatched, f'{people} has', f'{people} have')} no seat by name{theirs}."
    if seats.without:
        yield f"{plural(seats.without, 'of the lapsed is', 'of the lapsed are')} not on the seat list."
    if seats.in_use:
        hold = plural(seats.in_use, "of the lapsed holds", "of the lapsed hold")
        yield f"{hold} a seat that is in use under another user id: not freed."
    if seats.joint:
        yield "Some of the lapsed are user ids of the same seat, which is freed once."


def _warnings(found: Inactive) -> Iterator[str]:
    """What the reports warn of, each of its own rows."""
    for export in dict.fromkeys(found.exports):
        report = f"{grain_words(export.granularity)}, {range_words(export.start_date, export.end_date)}"
        yield from (f"{report}: {warning}" for warning in of_data(export))


def _days_notes(found: Inactive) -> Iterator[str]:
    """What the last days hold, as far as it is known."""
    yield f"Today, {found.end} (UTC), is not over."
    yield from left_out(found.exports, found.end)
    covered = found.covered
    if covered is None or covered.last is None:
        yield f"{NO_DAYS}." if covered is None else "No activity is recorded in these days."
        return
    days = (found.end - found.start).days + 1
    yield f"Days with data: {covered.count} of {days}, {covered.first} to {covered.last}."
    if (found.end - covered.last).days > 1:
        yield f"Nothing is recorded after {covered.last}; if upstream's data end there, who came since counts as gone."
