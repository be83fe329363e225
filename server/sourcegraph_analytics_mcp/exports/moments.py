"""When an export was made, and what its moment is worth where the clock was ahead."""

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from .models import Export

_SKEW = timedelta(minutes=1)  # that clocks may differ
_MARK = ".ahead"


def hour(moment: datetime) -> datetime:
    """The beginning of its hour."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def ahead(export: Export, now: datetime) -> bool:
    """Whether the clock was ahead when an export was made; marked beside its files, as its moment comes one day."""
    mark = export.folder / _MARK
    if os.path.exists(mark):  # noqa: PTH110 - unlike Path's, no for what cannot be looked at
        return True
    if export.created_at - now <= _SKEW:
        return False
    with suppress(OSError):
        mark.touch(mode=0o600)
    return True


def age(export: Export, now: datetime) -> timedelta:
    """How old an export is; before its moment, for how long that is known."""
    if export.created_at <= now:
        return now - export.created_at
    with suppress(OSError):
        return now - datetime.fromtimestamp((export.folder / _MARK).stat().st_mtime, UTC)
    return timedelta(0)
