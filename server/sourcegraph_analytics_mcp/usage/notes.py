"""What a reader of the figures must know: days covered, what is not over, what is compared, what each figure counts."""

from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta

from ..exports.models import Export, range_words
from ..exports.remarks import about_rows
from .coverage import Coverage, Silence
from .metrics import Minutes
from .periods import Range
from .question import Dimension, Question, bucket_end, bucket_start

NO_DAYS = "Days with data are not counted: the answer rests on figures by user, which have no days"


def notes(
    question: Question,
    exports: Sequence[Export],
    covered: tuple[Coverage | None, Coverage | None],
    today: date,
    minutes: Minutes,
    silence: Silence | None,
    rows: int,
) -> Iterator[str]:
    """Sentences about one answer.

    Args:
        exports: what it rests on; with a comparison of figures without days, the earlier one first.
        covered: days with data in the range compared with, and in the one asked about.
        silence: time buckets without a row in the answer, though they have data.
        rows: how many the whole answer has, beside the totals.
    """
    days, made = question.range, exports[-1].created_at
    yield _covered(question, covered[1], exports[-1].row_count)
    if silence is not None:
        yield _silent(question, silence, made.date())
    if days.clamped_from:
        yield f"The end {days.clamped_from} lies in the future; the range ends today, {today} (UTC)."
    if not days.over:
        yield f"Today, {today} (UTC), is not over; nor is this range."
        yield from left_out(exports[-1:], today)
    if made.date() < today and not days.over_by(made.date()):
        yield f"{made:%Y-%m-%d} was not over when the data was exported, at {made:%H:%M} UTC."
    elif days.end == today - timedelta(days=1) and made.hour == 0:
        yield "Upstream refreshes hourly, so the last hour of yesterday may be missing."
    yield from _comparison(question, exports, covered, made.date())
    yield from partial_buckets(question.time, question.range)
    if any(metric.name == "hours_saved" for metric in question.metrics):
        yield minutes.words
    yield from (f"{m.title}: {m.definition}" for m in question.metrics if m.explained)
    apart = [m.title for m in question.metrics if not m.adds_up_over(question.group_by)]
    if apart and rows > 1:
        yield f"Rows do not add up to the total: {', '.join(apart)}."
    for export in dict.fromkeys(exports):
        scope = _scope(question, export)
        columns = {c for metric in question.metrics for c in metric.columns(minutes)}
        yield from (f"{scope}{warning}" for warning in of_data(export, columns))


def of_data(export: Export, columns: Collection[str] = ()) -> Iterator[str]:
    """What its warnings say of rows as such, of when they are, and of the cells of some columns."""
    counted = ("timestamp_date", "timestamp_month", *columns)
    return about_rows(export, counted)


def _scope(question: Question, export: Export) -> str:
    """What a count in a warning is of, where the export holds other rows than those that are asked about."""
    other_days = export.outside(question.ranges[0].start, question.ranges[-1].end)
    if not other_days and not question.narrowed:
        return ""
    asked = "what is asked about" if question.narrowed else "these days"
    return f"In the whole report ({range_words(export.start_date, export.end_date)}), not only {asked}: "


def left_out(exports: Sequence[Export], today: date) -> Iterator[str]:
    """Say where figures that end today leave something out."""
    if any(export.outside(None, today) for export in exports):
        yield "What upstream dates after today is left out."


def _covered(question: Question, seen: Coverage | None, rows: int) -> str:
    asked = question.range.days
    if seen is None and rows:
        return f"{NO_DAYS}; group_by month tells the months."
    if seen is None or seen.first is None:
        return "No activity is recorded in this range; that says nothing about days outside it."
    data = "any data, not only of what is asked" if question.narrowed else "data"
    if seen.unit == "month":
        return f"Months with {data}: {seen.count}, {seen.first:%Y-%m} to {seen.last:%Y-%m}."
    of = f" of {asked}" if asked else ""
    return f"Days with {data}: {seen.count}{of}, {seen.first} to {seen.last}."


def _silent(question: Question, silence: Silence, made: date) -> str:
    """What rows that are not there stand for, so that nobody takes the rows for all there is."""
    unit, of = str(question.time), ""
    if len(question.times) > 1:
        unit, of = "combination", f" of {' and '.join(question.times)}"
    count = f"{silence.count:,} {unit}{'' if silence.count == 1 else 's'}{of}"
    end = min(silence.last, question.range.end or made)
    unfinished = " The last is not over." if end > question.range.over_until(made) else ""
    return (
        f"Without a row, as nothing of what is asked is there: {count}, of {silence.recorded:,} with data. "
        "People and days are 0 there, other figures none recorded; "
        f"an average over {unit}s{of} must take in those without a row.{unfinished}"
    )


def _comparison(
    question: Question, exports: Sequence[Export], covered: Sequence[Coverage | None], made: date
) -> Iterator[str]:
    earlier = question.earlier
    if question.buckets_compared:
        yield f"Each {question.time} is compared with the one before it; one that the range cuts off is not compared."
        yield from _beginning(question, covered)
    elif earlier is not None:
        yield f"Compared with {earlier.start} to {earlier.end}{_days_before(question, exports, covered)}."
        if not question.range.over_by(made):
            is_not = "was not" if question.range.over else "is not"
            yield f"The range {is_not} over, so changes are not comparable and left blank."
    if question.compare:
        yield from _ending(question, exports, covered, made)
    if earlier is not None and question.about_teams:  # without the comparison they may be in other teams
        yield "Who is in which team goes by the e-mails and usernames of the days compared with, too."


def _beginning(question: Question, covered: Sequence[Coverage | None]) -> Iterator[str]:
    """Say where the data begin within what is compared: growth from days without data may be no growth."""
    seen = next((seen for seen in covered if seen is not None and seen.first is not None), None)
    earlier = question.earlier
    if seen is None or seen.first is None:
        return
    begin = "what grows from there may only begin there"
    if earlier is None:
        when = f"in {seen.first:%Y-%m}" if seen.unit == "month" else f"on {seen.first}"
        yield f"The data begin {when}, so the first {question.time} is compared with nothing; {begin}."
    elif earlier.start is not None and seen.first > earlier.start:
        yield f"Nothing is recorded from {earlier.start} until {seen.first}; {begin}."


def _ending(
    question: Question, exports: Sequence[Export], covered: Sequence[Coverage | None], made: date
) -> Iterator[str]:
    """Say where the data end within what is compared: a fall to days without data may be no fall."""
    (before, now), until = covered, _compared_until(question, made, exports[0].first_day)
    if until is None or _goes_on(question, exports[-1]):
        return
    if _empty(exports[-1], now) and before is None and exports[0].row_count:
        yield "Upstream's data may end before this range; then a fall is none."
    seen = now if now is not None and now.last is not None else before
    if seen is not None and seen.last is not None and _last_day(seen, seen.last) < until:
        last = f"{seen.last:%Y-%m}" if seen.unit == "month" else f"{seen.last}"
        ends = "if upstream's data end there, a fall there may be none"
        yield f"Nothing is recorded after {last} until {question.range.end}; {ends}."


def _compared_until(question: Question, made: date, first: date | None) -> date | None:
    """The last day of what has a change in the answer; None where nothing can have one.

    Args:
        first: the first day with data.
    """
    days, over = question.range, question.range.over_until(made)
    if question.time is None:
        return over if days.over_by(made) else None
    start = bucket_start(question.time, over)
    until = over if bucket_end(question.time, start) == over else start - timedelta(days=1)
    earliest = days.start or (first and first + timedelta(days=1))  # what holds the first day is compared with nothing
    return until if earliest and bucket_start(question.time, until) >= earliest else None


def _goes_on(question: Question, export: Export) -> bool:
    """Whether an export has data after the range."""
    end = question.range.end
    return export.last_day is not None and end is not None and export.last_day > end


def _last_day(seen: Coverage, last: date) -> date:
    return bucket_end("month", bucket_start("month", last)) if seen.unit == "month" else last


def _empty(export: Export, seen: Coverage | None) -> bool:
    """Whether nothing is recorded in a range, of whomever."""
    return seen.first is None if seen is not None else not export.row_count


def _days_before(question: Question, exports: Sequence[Export], covered: Sequence[Coverage | None]) -> str:
    """What the base of a comparison rests on: growth from days without data may be no growth."""
    earlier, first, seen = question.earlier, exports[0].first_day, covered[0]
    if _empty(exports[0], seen):
        older = earlier is not None and earlier.start is not None and first is not None and first < earlier.start
        ended = _empty(exports[-1], covered[1]) and not _goes_on(question, exports[-1])
        may = ["begin later"] * (not older) + ["end before"] * ended
        return ", where no activity is recorded" + (f"; the data may {' or '.join(may)}" if may else "")
    if seen is None:
        return ""
    data = "any data" if question.narrowed else "data"
    if seen.unit == "month":
        return f", months with {data}: {seen.count}"
    return f", days with {data}: {seen.count}, {seen.first} to {seen.last}"


def partial_buckets(unit: Dimension | None, days: Range, *, sure: bool = True) -> Iterator[str]:
    """Say which time buckets a range that is over cuts off.

    Args:
        sure: whether what lies outside of the range is left out of them; else it may be.
    """
    if unit is None or unit == "day":
        return
    counted = "is only counted" if sure else "may be counted only"
    if days.start is not None and bucket_start(unit, days.start) < days.start:
        yield f"The first {unit} {counted} from {days.start}."
    if days.end is not None and days.over and bucket_end(unit, bucket_start(unit, days.end)) > days.end:
        yield f"The last {unit} {counted} until {days.end}."
