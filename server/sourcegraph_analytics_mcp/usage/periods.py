"""Dates: what a period word means today, what came before it, and whether it is over. All days are UTC."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from ..errors import invalid

Period = Literal[
    "yesterday",
    "this_week",
    "last_week",
    "last_7_days",
    "last_30_days",
    "last_90_days",
    "this_month",
    "last_month",
    "this_quarter",
    "last_quarter",
    "this_year",
    "last_year",
    "all_time",
]
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Range:
    """A resolved range of days, inclusive; None is open.

    Args:
        over: whether its last day lies before today, so that nothing can be added to it.
        months: how many calendar months it stands for, None for plain days.
        length: how many days it stands for, where not all of them have come.
        clamped_from: the end that was asked for, where it lay in the future.
    """

    start: date | None
    end: date | None
    over: bool
    months: int | None = None
    length: int | None = None
    clamped_from: date | None = None

    @property
    def days(self) -> int | None:
        """Calendar days; None while a bound is open."""
        return (self.end - self.start).days + 1 if self.start and self.end else None

    @property
    def whole_months(self) -> bool:
        """Whether monthly figures add up to it: it begins with a month and ends with one, or with the data."""
        begins = self.start is None or self.start.day == 1
        ends = self.end is None or not self.over or (self.end + _DAY).day == 1
        return begins and ends

    def over_until(self, made: date) -> date:
        """Its last day that was over both when it was asked for and on the day its data was made."""
        end = self.end or made
        return min(end if self.over else end - _DAY, made - _DAY)

    def over_by(self, made: date) -> bool:
        """Whether all of it was."""
        return self.over_until(made) == self.end

    def before(self) -> "Range":
        """The range to compare with: as many calendar months right before whole ones, else as many days.

        Raises:
            AnalyticsError: `invalid_argument` when the start is open.
        """
        if self.start is None or self.end is None:
            raise invalid("Without a start there is no period before.", "Send start_date, or another period.")
        if self.months is not None:
            return Range(add_months(self.start, -self.months), self.start - _DAY, over=True, months=self.months)
        length = self.length or (self.end - self.start).days + 1
        return Range(self.start - length * _DAY, self.start - _DAY, over=True)


def resolve(period: Period | None, start: date | None, end: date | None, today: date) -> Range:
    """Turn a period word, or dates, into days; without either, the last 30 days.

    Raises:
        AnalyticsError: `invalid_argument` for both at once, or dates in the wrong order.
    """
    if period is not None and (start is not None or end is not None):
        raise invalid("Both period and dates were given.", "Send either period or start_date and end_date.")
    if start is None and end is None:
        return _named(period or "last_30_days", today)
    if start is not None and start > min(end or today, today):
        raise invalid("start_date is after end_date, or in the future.", f"Today is {today} (UTC).")
    last = min(end or today, today)
    clamped_from = end if end is not None and end > today else None
    return Range(start, last, over=last < today, months=_whole_months(start, end, today), clamped_from=clamped_from)


def _whole_months(start: date | None, end: date | None, today: date) -> int | None:
    """How many calendar months these days are; None where they cut one off, or reach beyond this year."""
    if start is None or end is None or end.year > today.year or start.day != 1 or (end + _DAY).day != 1:
        return None
    return (end.year - start.year) * 12 + end.month - start.month + 1


def _named(period: Period, today: date) -> Range:
    if period == "all_time":
        return Range(None, today, over=False)
    if period.endswith("_days"):
        count = int(period.split("_")[1])
        return Range(today - count * _DAY, today - _DAY, over=True)
    if period == "yesterday":
        return Range(today - _DAY, today - _DAY, over=True)
    which, unit = period.split("_")
    if unit == "week":
        monday = today - today.weekday() * _DAY
        if which == "this":
            return Range(monday, today, over=False, length=7)
        return Range(monday - 7 * _DAY, monday - _DAY, over=True)
    months = {"month": 1, "quarter": 3, "year": 12}[unit]
    begin = date(today.year, (today.month - 1) // months * months + 1, 1)
    if which == "this":
        return Range(begin, today, over=False, months=months)
    return Range(add_months(begin, -months), begin - _DAY, over=True, months=months)


def add_months(first: date, count: int) -> date:
    """The first of the month `count` months away from a first of a month.

    Raises:
        OverflowError: where there is no such year, as with days.
    """
    index = first.year * 12 + first.month - 1 + count
    if index < 12:
        raise OverflowError("date value out of range")
    return date(index // 12, index % 12 + 1, 1)
