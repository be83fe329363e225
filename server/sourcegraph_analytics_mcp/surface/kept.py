"""Everything that is kept on this machine, of every caller: for the operator at the terminal."""

from ..errors import AnalyticsError
from ..exports.store import Store
from ..files import homes
from ..settings import Settings, bare_host
from .exports_text import complete, recent_table
from .text import plural


def stores(settings: Settings) -> list[Store]:
    """The operator's store, and those of callers over HTTP.

    Raises:
        AnalyticsError: `store_corrupt` when the data directory cannot be looked into.
    """
    return [Store(home, settings.retention_days, settings.max_store_bytes) for home in homes(settings.home)]


def whose(store: Store, settings: Settings) -> str:
    """The name of the caller whose store it is; empty for the operator."""
    return "" if store.home == settings.home else store.home.name


def listed(settings: Settings) -> str:
    """What is kept, newest first, as one table."""
    kept = sorted((e for store in stores(settings) for e in store.exports()), key=lambda e: e.created_at, reverse=True)
    head = f"{plural(len(kept), 'export')} kept.{unreadable(settings)}"
    return f"{head}\n\n{recent_table(complete(export) for export in kept)}" if kept else head


def unreadable(settings: Settings) -> str:
    """What to know of exports whose instance nobody knows; empty where there are none."""
    count = sum(len(store.unreadable()) for store in stores(settings))
    return f" {count} more cannot be read; `export delete --all` deletes them, too." if count else ""


def purge(settings: Settings, export_id: str | None = None, instance: str | None = None) -> int:
    """Delete every copy of one export, of those of an instance, or of all, also those that cannot be read.

    Returns:
        How many exports there were.

    Raises:
        AnalyticsError: `not_found` for an id that is none, `store_corrupt` when something of them is left or the
            data directory cannot be used.
    """
    host = None if instance is None else bare_host(instance)
    deleted = 0
    for store in filter(lambda store: store.there, stores(settings)):
        kept = [export.id for export in store.exports() if host in (None, export.instance_url)]
        chosen = [*kept, *(store.unreadable() if host is None else ())] if export_id is None else [export_id]
        deleted += sum(store.delete(name) for name in chosen)
        store.prepare()  # which removes what dead processes were making
        if (left := store.leftovers()) is not None:
            message = "Some files of what was deleted could not be removed."
            raise AnalyticsError("store_corrupt", message, f"Remove {left} in the data directory.")
    if export_id is not None and not deleted:
        raise AnalyticsError(
            "not_found", "There is no export with that id.", "`export list` shows those that are kept."
        )
    return deleted
