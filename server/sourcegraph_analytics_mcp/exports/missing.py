"""What is said of an export that has gone, is not there yet, or is not what was written."""

from collections.abc import Iterable
from pathlib import Path

from ..errors import AnalyticsError
from .models import Export


def unknown() -> AnalyticsError:
    return AnalyticsError("not_found", "There is no export with that id.", "list_exports shows those that are kept.")


def under_way() -> AnalyticsError:
    return AnalyticsError(
        "busy",
        "That export is still running.",
        "list_exports shows how far it is; call again when it is complete.",
        retryable=True,
        retry_after_seconds=5,
    )


def deleted() -> AnalyticsError:
    return AnalyticsError(
        "not_found", "The export was deleted while it was read.", "Ask again, or export again.", retryable=True
    )


def damaged() -> AnalyticsError:
    return AnalyticsError(
        "store_corrupt",
        "The files of that export are damaged or missing.",
        "Delete it with delete_export, then export again.",
    )


def lost(export: Export) -> AnalyticsError:
    """Why an export that was just looked up cannot be read."""
    return damaged() if export.folder.exists() else deleted()


def gone(files: Iterable[Path]) -> bool:
    """Whether one of the files of exports that were just looked up is there no more."""
    return any(not file.exists() for file in files)
