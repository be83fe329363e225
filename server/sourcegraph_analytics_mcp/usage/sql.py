"""A question as one SQL statement over the rows of an export: groups and totals in a single pass.

Everything that is put into the text is ours (column names, dates, aggregates); what users typed is bound as parameters.
"""

from collections.abc import Sequence
from datetime import timedelta

from ..exports.identities import PERSON
from .metrics import Metric
from .names import asked_for_names, labelled, labelled_late, labels, people
from .people import BLANK, NO_TEAM
from .periods import Range
from .question import TIME, Dimension, Question, bucket_start
from .source import Source, Statement, Terms, within

_BUCKET = {
    "day": "{t}",
    "week": "CAST(date_trunc('week', {t}) AS DATE)",
    "month": "CAST(date_trunc('month', {t}) AS DATE)",
    "quarter": "CAST(date_trunc('quarter', {t}) AS DATE)",
}
_STEP = {"day": "INTERVAL 1 DAY", "week": "INTERVAL 7 DAY", "month": "INTERVAL 1 MONTH", "quarter": "INTERVAL 3 MONTH"}
_COLUMN: dict[Dimension, str] = {
    "user": "instance_user_id", "team": f"coalesce(team, '{NO_TEAM}')", "client": "client_name", "language": "language",
}  # fmt: skip
_SUM_UP = {"active_sourcegraph_user": "bool_or"}  # what is not a number
_COUNTED = ("people", "people per day", "days")  # of nobody there is 0, not nothing


def build(question: Question, sources: Sequence[Source], terms: Terms, split: Sequence[str] = ()) -> Statement:
    """The whole statement: the totals' row first (`total` is 1), then the ordered page of groups.

    Args:
        sources: of each range its own, the earlier first; or one for all.
        split: columns whose sums come along, as `all_…` and, of rows without a language, as `blank_…`.
    """
    now, before = sources[-1], sources[0] if question.compare else None
    ctes = people(question, sources)
    ctes += _aggregate("n", question, now, question.range, terms, split=split)
    days = _compared_with(question, terms)
    if before is not None and days is not None:
        ctes += ", " + _aggregate("b", question, before, days, terms, shifted=question.buckets_compared)
    groups = [_key(d) for d in question.group_by]
    columns = ", ".join(_columns(question, now, terms, compared=before is not None))
    joined = "FROM n"
    if before is not None:
        same = " AND ".join(f"n.{g} IS NOT DISTINCT FROM b.{g}" for g in ("total", *groups))
        joined = f"FROM n FULL JOIN b ON {same}"
    extra = "".join(f", n.all_{name}, n.blank_{name}" for name in split)
    keys = "".join(f", {_either(g, before)} AS {g}" for g in (*groups, *labels(question)))
    by_team, silence = "team" in question.group_by, _silence(question, now) if question.narrowed else ""
    once = " MATERIALIZED" if by_team or silence else ""  # else the engine works it out anew wherever it is read
    ctes += f", answer AS{once} (SELECT {_either('total', before)} AS total{keys}, {columns}{extra} {joined})"
    counted, beside = "count(*) OVER () AS matched", ""
    if question.by_time:
        buckets = ", ".join(["total", *map(_key, question.times)])
        counted += f", count(*) OVER (PARTITION BY {buckets}) AS in_bucket"
    if by_team:
        counted += ", (SELECT list(DISTINCT g_team) FROM answer WHERE total = 0) AS teams"
    if silence:
        ctes, beside = f"{ctes}, silence AS ({silence})", ", silence"
    order = f"ORDER BY total DESC, {_order(question, groups)}"
    return Statement(
        f"WITH {ctes}, page AS (SELECT *, {counted} FROM answer{beside} {order} LIMIT {question.limit + 1}) "
        f"{labelled(question, now) if labelled_late(question) else 'SELECT * FROM page'} {order}",
        _parameters(question, terms),
    )


def _parameters(question: Question, terms: Terms) -> dict[str, list[str]]:
    """What was typed, by the names that the text has for it; the engine refuses one too many as one too few."""
    chosen = {name: getattr(question, name) for name in ("clients", "languages", "users", "teams")}
    given = {name: list(values) for name, values in chosen.items() if values}
    of_teams = {"members": [*terms.team_of], "team_of": [*terms.team_of.values()]} if question.about_teams else {}
    return given | of_teams


def _compared_with(question: Question, terms: Terms) -> Range | None:
    """The days of all that is compared with: the period before, or all time buckets but the last, each for the next."""
    if question.time is None or not question.compare:
        return question.earlier
    last = bucket_start(question.time, question.range.end or terms.made)
    return Range(question.earlier.start if question.earlier else None, last - timedelta(days=1), over=True)


def _silence(question: Question, source: Source) -> str:
    """How many time buckets have data, and how many of them, the last of which, have nothing of what is asked.

    Empty where there are no such buckets.
    """
    if question.time is None:
        return ""
    keys = ", ".join(map(_key, question.times))
    buckets = ", ".join(f"{_expression(d, source, shifted=False)} AS {_key(d)}" for d in question.times)
    days = f"{within(source, question.range)} AND {source.time} IS NOT NULL"
    return (
        f"SELECT count(*) AS recorded, count(*) - count(told) AS silent, "
        f"max({_key(question.time)}) FILTER (told IS NULL) AS last_silent "
        f"FROM (SELECT DISTINCT {buckets} FROM {source.table} WHERE {days}) "
        f"LEFT JOIN (SELECT DISTINCT {keys}, true AS told FROM answer) USING ({keys})"
    )


def blanks(columns: Sequence[str]) -> list[str]:
    """How much of each column there is, and how much of it without a language."""
    return [f"sum({c}) AS all_{c}, sum({c}) FILTER (language IS NULL) AS blank_{c}" for c in columns]


def _either(column: str, before: Source | None) -> str:
    return f"coalesce(n.{column}, b.{column})" if before is not None else f"n.{column}"


def _key(dimension: Dimension) -> str:
    return f"g_{dimension}"


def _aggregate(
    name: str,
    question: Question,
    source: Source,
    days: Range,
    terms: Terms,
    *,
    shifted: bool = False,
    split: Sequence[str] = (),
) -> str:
    """One range grouped, with the ungrouped totals beside, as common table expressions."""
    where = _row_filters(question, source, days)
    base = f"base_{name} AS ({_few_rows(question, source, terms, where, split, shifted=shifted)})"
    label = ", user_label" if labels(question) else ""
    team = f", {_COLUMN['team']} AS {_key('team')}" if "team" in question.group_by else ""
    join = f" LEFT JOIN people USING ({PERSON})" if asked_for_names(question) else ""
    meant = _people_filters(question)
    rows = f"rows_{name} AS (SELECT base_{name}.*{team}{label} FROM base_{name}{join} WHERE {meant})"
    groups = [_key(d) for d in question.group_by]
    total = f"grouping({groups[0]})" if groups else "1"
    sets = f" GROUP BY GROUPING SETS (({', '.join(groups)}), ())" if groups else ""
    span = _days(question, source, days, terms, shifted)
    figures = [f"{m.filled(terms.minutes, span)} AS {m.name}" for m in question.metrics]
    shown = "".join(f", {g}" for g in groups) + (", any_value(user_label) AS user_label" if label else "")
    selected = f"{total} AS total{shown}, {', '.join([*figures, *blanks(split)])}"
    return f"{base}, {rows}, {name} AS (SELECT {selected} FROM rows_{name}{sets})"


def _few_rows(
    question: Question, source: Source, terms: Terms, where: str, split: Sequence[str], *, shifted: bool
) -> str:
    """The rows of a range; where no figure asks for days, summed up by group and person, which leaves few of them."""
    keys = [f"{_expression(d, source, shifted=shifted)} AS {_key(d)}" for d in question.group_by if d != "team"]
    needed = {column for metric in question.metrics for column in metric.columns(terms.minutes)} | set(split)
    keys += ["language"] if split else []
    if source.time is None or "timestamp_date" in needed:  # column by column, as others may be called what is ours
        return f"SELECT {', '.join([*sorted(needed | {PERSON}), *keys])} FROM {source.table} WHERE {where}"
    keys += [PERSON] if PERSON in needed or asked_for_names(question) else []
    sums = [f"{_SUM_UP.get(column, 'sum')}({column}) AS {column}" for column in sorted(needed - {PERSON})]
    return f"SELECT {', '.join([*keys, *sums])} FROM {source.table} WHERE {where} GROUP BY ALL"


def _expression(dimension: Dimension, source: Source, *, shifted: bool) -> str:
    if dimension not in TIME:
        return _COLUMN[dimension]
    bucket = _BUCKET[dimension].format(t=source.time)
    return f"CAST({bucket} + {_STEP[dimension]} AS DATE)" if shifted else bucket


def _row_filters(question: Question, source: Source, days: Range) -> str:
    """What a row itself tells: when, which client, which language."""
    chosen = [f"list_contains($clients, coalesce(client_name, '{BLANK}'))"] if question.clients else []
    chosen += [f"list_contains($languages, coalesce(language, '{BLANK}'))"] if question.languages else []
    return " AND ".join([within(source, days), *chosen])


def _people_filters(question: Question) -> str:
    """What is known of a row's person."""
    nobody = f" OR {PERSON} IS NULL" if BLANK in question.users else ""
    meant = [f"(meant{nobody})"] if question.users else []
    of_team = [f"list_contains($teams, {_COLUMN['team']})"] if question.teams else []
    return " AND ".join([*of_team, *meant]) or "true"


def _days(question: Question, source: Source, days: Range, terms: Terms, shifted: bool) -> str:
    """The calendar days of a group: those of the range that lie in its time buckets, or all of the range."""
    start = days.start or source.first_day or terms.made
    end = min(days.end or terms.made, terms.made)
    whole = f"{max((end - start).days + 1, 0)}"
    times = question.times
    if not times:
        return whole
    begins = [f"CAST({_key(d)} - {_STEP[d]} AS DATE)" if shifted else _key(d) for d in times]
    ends = [f"CAST({begin} + {_STEP[d]} AS DATE) - 1" for begin, d in zip(begins, times, strict=True)]
    part = f"(least({', '.join(ends)}, DATE '{end}') - greatest({', '.join(begins)}, DATE '{start}') + 1)"
    return f"CASE WHEN grouping({_key(times[0])}) = 1 THEN {whole} ELSE {part} END"


def _columns(question: Question, source: Source, terms: Terms, *, compared: bool) -> list[str]:
    """Each metric, and with a comparison its previous value, change and relative change."""
    if not compared:
        return [f"n.{m.name}" for m in question.metrics]
    columns: list[str] = []
    for metric in question.metrics:
        now, before = _value("n", metric), _value("b", metric)
        fair = _fair(question, source, terms)
        if question.buckets_compared:
            before = f"CASE WHEN {_begun(question, source, terms)} THEN {before} END"
        columns += [f"{now} AS {metric.name}", f"{before} AS previous_{metric.name}"]
        if metric.unit == "date":
            columns += [f"NULL AS change_{metric.name}", f"NULL AS relative_change_{metric.name}"]
            continue
        change = f"({_base('n', metric)} - {_base('b', metric)})"
        columns.append(f"CASE WHEN {fair} THEN {change} END AS change_{metric.name}")
        ratio = f"1.0 * {change} / nullif({before}, 0)"
        columns.append(f"CASE WHEN {fair} THEN {ratio} END AS relative_change_{metric.name}")
    return columns


def _value(side: str, metric: Metric) -> str:
    """A figure of one side of a comparison: of a group that is not there it is 0 where it counts people or days."""
    value = f"{side}.{metric.name}"
    return f"CASE WHEN {side}.total IS NULL THEN 0 ELSE {value} END" if metric.unit in _COUNTED else value


def _base(side: str, metric: Metric) -> str:
    """What a change is computed from: a group that was not there did nothing; a rate of nothing is no rate."""
    return f"coalesce({side}.{metric.name}, 0)" if metric.additive else _value(side, metric)


def _begun(question: Question, source: Source, terms: Terms) -> str:
    """Whether the data begin before a time bucket; the totals are of none."""
    if question.range.start is not None or question.time is None:
        return "coalesce(n.total, b.total) = 0"
    return f"{_bucket_of(question.time)} > DATE '{source.first_day or terms.made}'"


def _bucket_of(time: Dimension) -> str:
    """The time bucket of a row, of which either side may be missing."""
    return f"coalesce(n.{_key(time)}, b.{_key(time)})"


def _fair(question: Question, source: Source, terms: Terms) -> str:
    """Whether a comparison means anything: both sides are whole, and over for the question and its data."""
    if not question.buckets_compared or question.time is None:
        return "true" if question.range.over_by(terms.made) else "false"
    start, over = question.range.start, question.range.over_until(terms.made)
    key, step = _bucket_of(question.time), _STEP[question.time]
    begun = f"{key} >= DATE '{start}'" if start else _begun(question, source, terms)
    return f"({begun} AND CAST({key} + {step} AS DATE) - 1 <= DATE '{over}')"


def _order(question: Question, groups: Sequence[str]) -> str:
    ties, first = ", ".join(groups) or "total", question.metrics[0].name
    if question.by_time:  # the latest buckets, which the caller turns round; of each the largest first
        way = "ASC" if question.descending is False else "DESC"
        times = sorted(question.times, key=lambda time: time != question.order_by)
        return ", ".join([*(f"{_key(time)} {way}" for time in times), f"{first} DESC NULLS LAST", ties])
    if question.order_by is not None:
        return f"{_ordered_column(question)} {_way(question, question.order_by)}, {ties}"
    return f"{first} {_way(question, first)}, {ties}"


def _way(question: Question, column: str) -> str:
    """The direction of an order by a column: who did nothing did least, and what cannot be told comes last."""
    if question.descending is not False:
        return "DESC NULLS LAST"
    did = [m.name for m in question.metrics if m.additive]
    return "ASC NULLS FIRST" if column.removeprefix("previous_") in did else "ASC NULLS LAST"


def _ordered_column(question: Question) -> str:
    name = question.order_by or ""
    if name == "user":
        return "user_label"
    if name == "user_id":
        return "g_user"
    return f"g_{name}" if name in question.group_by else name
