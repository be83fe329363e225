"""A question about usage, and the coarsest data that can answer it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from ..errors import invalid
from ..exports.models import Export
from ..upstream.models import Granularity, ReportRequest
from .metrics import Metric
from .periods import Range, add_months

Dimension = Literal["day", "week", "month", "quarter", "user", "team", "client", "language"]
TIME: tuple[Dimension, ...] = ("day", "week", "month", "quarter")
SHORT = 100  # days of a range whose data is asked for by day, so that answers can say which days have data
_FINENESS: dict[Granularity, int] = {
    "by_user": 0, "by_user_month": 1, "by_user_day": 2, "by_user_day_client_language": 3,
}  # fmt: skip
# What these call somebody whose name changed is upstream's choice; by day, each row has the name of its day.
_NAMED_APART: tuple[Granularity, ...] = ("by_user", "by_user_month")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Args:
        compare: whether each figure is compared with the one of the period (or time bucket) before.
        limit: most rows to return; totals are over everything all the same.
    """

    instance_url: str
    metrics: tuple[Metric, ...]
    group_by: tuple[Dimension, ...]
    range: Range
    users: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    compare: bool = False
    order_by: str | None = None
    descending: bool | None = None
    limit: int = 50

    @property
    def time(self) -> Dimension | None:
        """The time dimension it is grouped by, the finest of several."""
        return next((dimension for dimension in TIME if dimension in self.group_by), None)

    @property
    def times(self) -> tuple[Dimension, ...]:
        """All of them, in the order asked for."""
        return tuple(dimension for dimension in self.group_by if dimension in TIME)

    @property
    def by_time(self) -> bool:
        """Whether rows come in the order of their time buckets, which is so where no other is asked for."""
        return self.time is not None if self.order_by is None else self.order_by in TIME

    @property
    def turned(self) -> bool:
        """Whether the earliest bucket comes first, though a page is of the latest."""
        return self.order_by is None and self.descending is None and self.time is not None

    @property
    def buckets_compared(self) -> bool:
        """Whether each time bucket is compared with the one before it, rather than the whole with the period before."""
        return self.compare and self.time is not None

    def checked(self) -> "Question":
        """The same, if it makes sense.

        Raises:
            AnalyticsError: `invalid_argument`.
        """
        if len(set(self.group_by)) < len(self.group_by) or len(set(self.metrics)) < len(self.metrics):
            raise invalid("A metric or a group is named twice.", "Name each once.")
        if self.compare and len(self.times) > 1:
            raise invalid("Two time groups cannot be compared with what came before.", "Group by one of them.")
        try:
            self.earlier  # noqa: B018 - raises where there should be some and are none
        except OverflowError:
            raise invalid("There are no days before that start_date to compare with.", "Send a later one.") from None
        return self

    @property
    def about_teams(self) -> bool:
        return bool(self.teams) or "team" in self.group_by

    @property
    def narrowed(self) -> bool:
        """Whether some rows of its days are not meant."""
        return bool(self.users or self.teams or self.clients or self.languages)

    @property
    def about_people(self) -> bool:
        """Whether the answer depends on what people are called."""
        return bool(self.users) or "user" in self.group_by or self.about_teams

    @property
    def granularity(self) -> Granularity:
        """The coarsest that can answer it; of a short range by day, which tells the days with data."""
        short = all(r.days is not None and r.days <= SHORT for r in self.ranges)
        return "by_user_day" if short and _FINENESS[self._coarsest] < _FINENESS["by_user_day"] else self._coarsest

    @property
    def _coarsest(self) -> Granularity:
        if self.clients or self.languages or {"client", "language"} & set(self.group_by):
            return "by_user_day_client_language"
        if {"day", "week"} & set(self.group_by) or any("timestamp_date" in m.needs for m in self.metrics):
            return "by_user_day"
        if self.time is not None:
            whole = all(r.whole_months for r in self.ranges)
            return "by_user_month" if whole else "by_user_day"
        return "by_user"

    @property
    def earlier(self) -> Range | None:
        """The days before the range that are compared with; None without a comparison, or where it has all before it.

        Raises:
            AnalyticsError: `invalid_argument` where the whole of an open range would be compared.
            OverflowError: where there are no such days.
        """
        if not self.compare:
            return None
        if self.time is None:
            return self.range.before()
        if self.range.start is None:
            return None
        first = bucket_start(self.time, self.range.start)
        before = bucket_start(self.time, first - timedelta(days=1))
        return Range(before, self.range.start - timedelta(days=1), over=True)

    @property
    def ranges(self) -> tuple[Range, ...]:
        earlier = self.earlier
        return (self.range,) if earlier is None else (earlier, self.range)

    @property
    def needs(self) -> tuple["Need", ...]:
        """What it takes: one report, or one per range where the report has no time in it."""
        if self.granularity != "by_user":
            return (self._need(self.ranges),)
        return tuple(self._need((r,)) for r in self.ranges)

    def _need(self, ranges: tuple[Range, ...]) -> "Need":
        request = ReportRequest(
            instance_url=self.instance_url,
            granularity=self.granularity,
            start_date=ranges[0].start,
            end_date=ranges[-1].end,
        )
        return Need(request, ranges, alone=self.about_people and self.granularity in _NAMED_APART)


@dataclass(frozen=True, slots=True)
class Need:
    """A report that would answer a question, and the ranges that will be cut out of it.

    Args:
        alone: whether no other granularity will do, though it be finer.
        columns: what the answer is made from; where the report itself lacks it, that is what the answer rests on.
    """

    request: ReportRequest
    ranges: tuple[Range, ...]
    alone: bool = False
    columns: frozenset[str] = frozenset()

    def attainable(self, kept: Sequence[Export]) -> "Need":
        """The same without columns that this granularity is known to lack, so that a finer one will do."""
        request = self.request
        for export in kept:
            if (export.instance_url, export.granularity) == (request.instance_url, request.granularity):
                return replace(self, columns=self.columns & export.names)
        return self

    def lacks(self, export: Export) -> bool:
        """Whether a column is not in an export."""
        return not self.columns <= export.names

    def download(self, today: date) -> ReportRequest:
        """What to ask upstream for: a bit more where that is likely to answer the next questions, too.

        Figures by month are few, so all of them; those by day until today, where that at most doubles the days. What
        upstream dates after today can be cut off by day alone, so other figures end with today.
        """
        start, end = self.request.start_date, self.request.end_date
        match self.request.granularity:
            case "by_user_month":
                return self.request.model_copy(update={"start_date": None, "end_date": today})
            case "by_user_day_client_language" if start is None and end == today:  # which is all that can be exported
                return self.request.model_copy(update={"end_date": None})
        if self.request.granularity != "by_user_day" or start is None or end is None:
            return self.request
        until = (today - start).days + 1
        near = until <= min(SHORT, 2 * ((end - start).days + 1))
        return self.request.model_copy(update={"end_date": today}) if near else self.request

    def met_by(self, export: Export, today: date) -> bool:
        """Whether an export holds what it takes, and can be cut down to the ranges."""
        request = self.request
        finer = _FINENESS[export.granularity] - _FINENESS[request.granularity]
        if export.instance_url != request.instance_url or finer < 0 or (finer and (self.alone or self.lacks(export))):
            return False
        start, until = request.start_date, request.end_date or today
        starts = export.start_date is None or (start is not None and export.start_date <= start)
        if not starts or (export.end_date is not None and export.end_date < until):
            return False
        match export.granularity:
            case "by_user":
                return (export.start_date, export.end_date) == (start, until) and len(self.ranges) == 1
            case "by_user_month":  # whose first and last month may hold days outside of the dates, or after today
                ends = until < today.replace(day=1) or export.end_date == until
                return ends and all(r.whole_months for r in self.ranges)
            case _:
                return True


def bucket_start(dimension: Dimension, day: date) -> date:
    """The first day of the day, ISO week, month or quarter that a day is in."""
    match dimension:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "quarter":
            return date(day.year, (day.month - 1) // 3 * 3 + 1, 1)
        case _:
            return day


def bucket_end(dimension: Dimension, start: date) -> date:
    """The last day of the day, ISO week, month or quarter that begins on a day."""
    if dimension in ("day", "week"):
        return start + timedelta(days=6 if dimension == "week" else 0)
    return add_months(start, 1 if dimension == "month" else 3) - timedelta(days=1)
