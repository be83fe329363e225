"""Delete every export that names a person, of every caller: for an operator whom somebody asks to be erased."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing

from ..disk import in_thread
from ..errors import AnalyticsError
from ..exports.engine.forks import forks
from ..exports.engine.native import identifier
from ..exports.engine.questions import Questions
from ..exports.identities import NAMES, PERSON
from ..exports.models import Export
from ..exports.store import Store
from ..settings import Settings
from .kept import purge, stores

_NOT_PEOPLE = ("client_name", "language")  # of the columns with text; one that nobody documented may name somebody
_OWN = '"own row"'  # as no column of a report is called


async def erase(settings: Settings, person: str) -> int:
    """Delete every copy of the exports that name a person.

    Rows without names, as self-hosted instances have them, are told by the user ids that other exports show beside the
    person's names; those of another instance are other people's.

    Args:
        person: e-mail, username or user id, in capitals or not.

    Returns:
        How many exports there were.

    Raises:
        AnalyticsError: when an export cannot be looked into, before any is deleted, or something of one is left.
    """
    with forks.used():
        ids: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        async for export, theirs in _each(settings, {}, person):
            ids[_place(export)].update(filter(None, theirs))
        doomed = [export async for export, theirs in _each(settings, ids, person) if theirs]
    return await in_thread(purge, settings, [export.id for export in doomed])


async def _each(
    settings: Settings, ids: dict[tuple[str, str], set[str]], person: str
) -> AsyncIterator[tuple[Export, list[str]]]:
    """Each export with the user ids of the person's rows; an empty one stands for rows that name them otherwise."""
    for store in await in_thread(stores, settings):
        if store.there:
            async with aclosing(Questions(store.scratch)) as engine:
                for export in await in_thread(store.exports):
                    yield export, await _theirs(engine, store, export, person, sorted(ids.get(_place(export), ())))


async def _theirs(engine: Questions, store: Store, export: Export, person: str, ids: list[str]) -> list[str]:
    try:
        await in_thread(store.get, export.id)
    except AnalyticsError as error:
        if error.code == "not_found":  # deleted meanwhile
            return []
        raise
    fields = [f.name for f in export.fields if f.kind == "text" and f.name not in _NOT_PEOPLE]
    named = {name: f"(folded({identifier(name)}) = folded(?)) IS TRUE" for name in fields}
    own = " OR ".join(named[name] for name in (PERSON, *NAMES) if name in named)
    more = [named[name] for name in fields if name not in (PERSON, *NAMES)]
    others = " OR ".join([*more, f"list_contains(?::VARCHAR[], {PERSON})"])
    sql = (
        f"SELECT DISTINCT CASE WHEN {_OWN} THEN coalesce({PERSON}, '') ELSE '' END AS id "
        f"FROM (SELECT *, {own} AS {_OWN} FROM usage) WHERE {_OWN} OR {others}"
    )
    found = await engine.ask({"usage": export.parts}, sql, [*([person] * len(fields)), ids])
    return [row["id"] for row in found]


def _place(export: Export) -> tuple[str, str]:
    return export.upstream, export.instance_url
