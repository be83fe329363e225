"""An export as it is kept and described."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from ..settings import one_spelling
from ..upstream.models import Granularity, ReportRequest, utc
from .columns import Field as Column
from .remarks import Remark

Moment = Annotated[AwareDatetime, AfterValidator(utc)]
FORMAT: Literal[1] = 1  # of the metadata file; a newer one is left alone


class Export(BaseModel):
    """A complete export. What upstream meant to send is `csv`; `parts` hold the same rows for questions.

    Args:
        upstream: the address it was downloaded from, empty where an earlier version did not note it.
        created_at: when the download began, which is what its data is as of (UTC).
        segments: for each Parquet part, where its rows begin in the CSV (bytes) and how many they are.
        checks: for each, the length of that piece of CSV (bytes), its CRC-32, and the Parquet part's CRC-32.
        remarks: what a reader of its figures must know of its data.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = FORMAT
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    upstream: Annotated[str, AfterValidator(one_spelling)] = ""
    instance_url: str
    granularity: Granularity
    start_date: date | None
    end_date: date | None
    created_at: Moment
    row_count: int
    byte_count: int
    sha256: str
    fields: tuple[Column, ...]
    segments: tuple[tuple[int, int], ...]
    checks: tuple[tuple[int, int, int], ...]
    active_users: int
    first_day: date | None
    last_day: date | None
    days_with_data: int
    remarks: tuple[Remark, ...]
    stored_bytes: int
    folder: Path = Field(exclude=True, default=Path())

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, kept: Any) -> Any:
        """Metadata with sentences in place of remarks, which tell nobody's names apart: only that there were some."""
        if isinstance(kept, dict) and "warnings" in kept and "remarks" not in kept:
            return kept | {"remarks": [{"kind": "earlier"}] if kept["warnings"] else []}
        return kept

    @property
    def request(self) -> ReportRequest:
        """What was asked for."""
        return ReportRequest(
            instance_url=self.instance_url,
            granularity=self.granularity,
            start_date=self.start_date,
            end_date=self.end_date,
        )

    @property
    def names(self) -> frozenset[str]:
        """The names of its columns."""
        return frozenset(field.name for field in self.fields)

    def outside(self, start: date | None, end: date | None) -> str:
        """When the rows are that lie outside of these days; empty where none do. A month belongs to its days."""
        said = []
        first = str(start)[: len("2026-11")] if self.granularity == "by_user_month" else str(start)
        if start and self.first_day and str(self.first_day) < first:
            said.append(f"before {first}")
        if end and self.last_day and self.last_day > end:
            said.append(f"after {end}")
        return " or ".join(said)

    @property
    def csv(self) -> Path:
        return self.folder / "export.csv"

    @property
    def parts(self) -> list[Path]:
        return [self.folder / "parts" / f"{number:05}.parquet" for number in range(len(self.segments))]

    @property
    def whole(self) -> bool:
        """Whether all its files are there."""
        try:
            return self.csv.stat().st_size == self.byte_count and all(part.is_file() for part in self.parts)
        except OSError:
            return False

    @property
    def title(self) -> str:
        """A title a person recognises."""
        return f"{grain_words(self.granularity)}, {range_words(self.start_date, self.end_date)}, {self.instance_url}"


_GRAINS: dict[str, str] = {
    "by_user": "Usage by user",
    "by_user_month": "Usage by user and month",
    "by_user_day": "Usage by user and day",
    "by_user_day_client_language": "Usage by user, day, client and language",
}


def grain_words(granularity: str) -> str:
    return _GRAINS[granularity]


def range_words(start: date | None, end: date | None) -> str:
    """A date range in words; a missing bound is open."""
    if start is None and end is None:
        return "all time"
    if start is None:
        return f"until {end}"
    return f"since {start}" if end is None else f"{start} to {end}"
