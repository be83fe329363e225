"""Which days of a range have data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ..exports.engine.questions import Questions
from .periods import Range
from .question import Question, bucket_end
from .source import Source, within


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which days (or months) of a range have data."""

    first: date | None
    last: date | None
    count: int
    unit: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Time buckets that have data, but nothing of what is asked, so that no row tells of them.

    Args:
        count: how many they are.
        recorded: how many have data at all.
        last: the last day of the last of them.
    """

    count: int
    recorded: int
    last: date

    @classmethod
    def of(cls, question: Question, totals: Mapping[str, Any]) -> "Silence | None":
        """What the row of totals of an answer says of them; None where every bucket with data has a row."""
        if question.time is None or not totals.get("silent"):
            return None
        last = bucket_end(question.time, date.fromisoformat(totals["last_silent"]))
        return cls(totals["silent"], totals["recorded"], last)


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
    return Coverage(first, last, row["days"], source.unit)
