"""Which days of a range have data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ..exports.engine.questions import Questions
from .periods import Range
from .source import Source, within


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which days (or months) of a range have data."""

    first: date | None
    last: date | None
    count: int
    unit: str


async def covered(
    questions: Questions, tables: Mapping[str, Sequence[Path]], source: Source, days: Range
) -> Coverage | None:
    """Which days of a range have data, of whomever; None where the data has no time.

    Raises:
        AnalyticsError: as `Questions.ask`.
    """
    if source.time is None:
        return None
    sql = (
        f"SELECT min({source.time}) AS first, max({source.time}) AS last, count(DISTINCT {source.time}) AS days "
        f"FROM {source.table} WHERE {within(source, days)}"
    )
    row = (await questions.ask(tables, sql))[0]
    first, last = (date.fromisoformat(d) if d else None for d in (row["first"], row["last"]))
    return Coverage(first, last, row["days"], "month" if source.time == "timestamp_month" else "day")
