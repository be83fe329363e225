"""Delete every export that names a person, of every caller: for an operator whom somebody asks to be erased."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ..disk import in_thread
from ..errors import AnalyticsError, invalid
from ..exports.engine.forks import forks
from ..exports.engine.native import identifier
from ..exports.engine.questions import Questions
from ..exports.identities import NAMES, PERSON
from ..exports.models import Export
from ..exports.staging import remove_abandoned
from ..exports.store import Store
from ..files import DOOMED, disk_error
from ..settings import Settings, bare_host
from .kept import finished, stores

_PLACES = (PERSON, *NAMES, "client_name", "language")  # where no other is mentioned; in what nobody documented may be
_AS_A_WORD = r"(^|[^\w.@+-])({})($|\.?[^\w.@+-]|\.$)"  # for the engine
_LISTED = 5


@dataclass(frozen=True, slots=True)
class _Kept:
    store: Store
    export: Export


@dataclass(slots=True)
class _Known:
    """What a person is called at one instance.

    Args:
        names: e-mails and usernames as names are compared.
    """

    names: set[str]
    ids: set[str] = field(default_factory=set)


async def erase(settings: Settings, person: str, instance: str | None = None) -> int:
    """Delete every copy of the exports that name a person.

    Rows without names, as self-hosted instances have them, are told by the user ids that other exports show beside the
    person's names, and mentions by all names that are shown beside these ids. At another instance they are others'.

    Args:
        person: e-mail or username in any spelling, or user id.
        instance: where, if not everywhere.

    Returns:
        How many exports there were.

    Raises:
        AnalyticsError: before anything is deleted: `busy` while an export is running, `store_corrupt` where one cannot
            be looked into, `invalid_argument` for what may mean several people; and `store_corrupt` when some are left.
    """
    name = _bare(person)
    with forks.used():
        kept = await in_thread(_looked_into, settings, instance and bare_host(instance))
        known = await _known(kept, name)
        doomed = [(one, tells) async for one, tells in _naming(kept, known)]
    return await in_thread(_deleted, doomed)


def _bare(person: str) -> str:
    name = person.strip().removeprefix("mailto:").strip("<>@ ")
    if not name:
        raise invalid("--person needs an e-mail, a username or a user id.")
    if name.startswith("person-"):
        raise invalid("That is a pseudonym.", "Name the person by e-mail, username or user id.")
    return name


def _looked_into(settings: Settings, host: str | None) -> list[_Kept]:
    """Every export, the data of which are whole."""
    found: list[_Kept] = []
    damaged: list[str] = []
    for store in filter(lambda store: store.there, stores(settings)):
        _none_running(store)
        for export in store.exports():
            try:
                if host in (None, export.instance_url):
                    found.append(_Kept(store, store.get(export.id)))
            except AnalyticsError as error:
                if error.code != "not_found":  # deleted meanwhile
                    damaged.append(export.id)
    if damaged:
        more = f" and {len(damaged) - _LISTED} more" if len(damaged) > _LISTED else ""
        message = f"Whom these exports name cannot be told, as they are damaged: {', '.join(damaged[:_LISTED])}{more}."
        raise AnalyticsError("store_corrupt", message, "Delete each with `export delete ID`, then run this again.")
    return found


def _none_running(store: Store) -> None:
    """Nobody knows yet whom an export names that is running."""
    staging = store.home / "staging"
    try:
        if staging.is_dir():
            remove_abandoned(staging)
            if any(not entry.name.startswith(DOOMED) for entry in staging.iterdir()):
                message = "An export is running, and may name them; nothing was deleted."
                raise AnalyticsError("busy", message, "Run this again when it is complete.")
    except OSError as error:
        raise disk_error(error) from None


async def _known(kept: Sequence[_Kept], name: str) -> dict[str, _Known]:
    """What the person is called at each instance: the ids beside the name, then all names beside these ids."""
    known: dict[str, _Known] = {}
    as_id: set[str] = set()
    async for one, engine in _each(kept):
        theirs = known.setdefault(one.export.instance_url, _Known({(await engine.folded([name]))[name]}))
        where = " OR ".join([f"{PERSON} = ?", *(f"list_contains(?, {_called(c)})" for c in _names(one.export))])
        given = [name, *[list(theirs.names)] * len(_names(one.export))]
        ids = {row["id"] for row in await _asked(engine, one.export, f"DISTINCT {PERSON} AS id", where, given)}
        theirs.ids |= ids - {None}
        as_id |= {one.export.instance_url} if name in ids else set()
    if len(as_id) > 1:
        raise invalid(f"{name} is somebody's user id at several instances.", "Say which with --instance.")
    found: dict[str, set[str]] = {host: set() for host in known}
    async for one, engine in _each(kept):
        ids = known[one.export.instance_url].ids
        for column in _names(one.export) if ids else ():
            told = f"DISTINCT {_called(column)} AS name"
            rows = await _asked(engine, one.export, told, f"list_contains(?, {PERSON})", [list(ids)])
            found[one.export.instance_url] |= {row["name"] for row in rows if row["name"]}
    for host, names in found.items():
        known[host].names |= names
    return known


async def _naming(kept: Sequence[_Kept], known: dict[str, _Known]) -> AsyncIterator[tuple[_Kept, bool]]:
    """The exports that name the person, and whether one shows names beside a user id, by which others are told."""
    async for one, engine in _each(kept):
        theirs = known[one.export.instance_url]
        named = [f"list_contains(?, {_called(column)})" for column in _names(one.export)]
        others = [identifier(f.name) for f in one.export.fields if f.kind == "text" and f.name not in _PLACES]
        words = [name for name in theirs.names if not name.isdecimal()]  # a number may be any other
        mentions = [f"regexp_matches(folded({column}), ?)" for column in others if words]
        pattern = _AS_A_WORD.format(await _any_of(engine, words)) if mentions else ""
        told = f"coalesce(bool_or({' OR '.join(named) or 'false'}), false) AS tells, count(*) > 0 AS hit"
        where = " OR ".join([f"list_contains(?, {PERSON})", *named, *mentions])
        given = [list(theirs.names)] * len(named)
        found = await _asked(
            engine, one.export, told, where, [*given, list(theirs.ids), *given, *[pattern] * len(mentions)]
        )
        if found and found[0]["hit"]:
            yield one, bool(found[0]["tells"])


async def _each(kept: Sequence[_Kept]) -> AsyncIterator[tuple[_Kept, Questions]]:
    """Each export with an engine that reads it, one at a time for each caller."""
    for store in dict.fromkeys(one.store for one in kept):
        async with aclosing(Questions(store.scratch)) as engine:
            for one in kept:
                if one.store is store:
                    yield one, engine


async def _asked(
    engine: Questions, export: Export, what: str, where: str, given: Sequence[object]
) -> list[dict[str, Any]]:
    """Ask an export; nothing of one that was deleted meanwhile."""
    try:
        return await engine.ask({"usage": export.parts}, f"SELECT {what} FROM usage WHERE {where}", given)
    except AnalyticsError as error:
        if error.code != "not_found":
            raise
        return []


async def _any_of(engine: Questions, words: Sequence[str]) -> str:
    """A pattern for any of some words, as the engine spells patterns."""
    sql = "SELECT string_agg(regexp_escape(word), '|') AS pattern FROM (SELECT unnest(?::VARCHAR[]) AS word)"
    return str((await engine.ask({}, sql, [list(words)]))[0]["pattern"])


def _names(export: Export) -> list[str]:
    return [column for column in NAMES if column in export.names]


def _called(column: str) -> str:
    """SQL of a name as it is compared; some upstreams pad cells."""
    return f"folded(trim({identifier(column)}))"


def _deleted(doomed: Sequence[tuple[_Kept, bool]]) -> int:
    """Delete them; those by which others are told only when these have gone, so that it can be run again.

    Raises:
        AnalyticsError: `store_corrupt` when some are left, after all that can be deleted were.
    """
    gone = left = 0
    for tells in (False, True):
        for one in (one for one, told in doomed if told is tells and not (tells and left)):
            try:
                gone += one.store.delete(one.export.id)
                finished(one.store)
            except AnalyticsError:  # logged by then
                left += 1
    if left:
        message = f"{gone} of {len(doomed)} exports that name them were deleted; the others could not be."
        raise AnalyticsError("store_corrupt", message, "Make the data directory writable, then run this again.")
    return gone
