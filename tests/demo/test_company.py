"""The made-up company is the same every time, looks like the real thing, and its reports add up."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from sourcegraph_analytics_mcp.demo.company import COUNTS, Company
from sourcegraph_analytics_mcp.demo.reports import GRANULARITIES, headers

Row = dict[str, str]
TODAY = date(2026, 6, 17)
FINEST = "by_user_day_client_language"
RATIOS = {
    "Combined CAR": ("Combined Completion Acceptances", "Combined Completion Suggestions", 1),
    "Percentage of Code Written by Cody": ("Total Characters Written by Cody", "Total Characters Written", 100),
    "Auto-edit acceptance rate": ("Auto-edit accepted events", "Auto-edit suggested events", 1),
}
SUMMED = tuple(name for name in headers("by_user")[4:] if name not in RATIOS and name != "Weighted CAR")
DOCUMENTED = (
    "Instance user ID", "User Email", "Username", "Active Sourcegraph User", "Client Name", "Timestamp Date",
    "Language", "Searches", "Code Navigation Events", "Code Insight Views", "Chat Events", "Command Events",
    "Combined Completion Suggestions", "Combined Completion Acceptances", "Total Accepted Char Count", "Combined CAR",
    "Weighted CAR", "Total Characters Written by Cody", "Total Characters Written",
    "Percentage of Code Written by Cody", "Auto-edit suggested events", "Auto-edit accepted events",
    "Auto-edit acceptance rate", "Lines changed by chats and commands",
    "Lines changed by completions and auto-edits",
)  # fmt: skip


@pytest.fixture(scope="module")
def small() -> Company:
    return Company.made_up(TODAY, people=40, days=90)


@pytest.fixture(scope="module")
def whole() -> Company:
    return Company.made_up(TODAY)


def rows_of(company: Company, granularity: str, start: date | None = None, end: date | None = None) -> list[Row]:
    return list(csv.DictReader(io.StringIO("".join(company.report(granularity, start, end)))))


def number(cell: str) -> int:
    return int(cell or 0)


def every_report(company: Company) -> Iterator[tuple[str, list[Row]]]:
    yield from ((granularity, rows_of(company, granularity)) for granularity in GRANULARITIES)


def test_the_same_seed_and_day_make_the_same_company(small: Company) -> None:
    again, other = (Company.made_up(TODAY, people=40, days=90, seed=seed) for seed in (20, 21))
    assert (again.people, [*again.activities], again.unused_seats) == (
        small.people, [*small.activities], small.unused_seats,
    )  # fmt: skip
    assert other.people != small.people
    assert [*other.activities] != [*small.activities]


@pytest.mark.parametrize(("people", "days"), [(1, 1), (3, 2), (5, 20), (5, 45)])
def test_a_company_may_be_tiny(people: int, days: int) -> None:
    company = Company.made_up(TODAY, people=people, days=days)
    assert len(company.people) == people
    assert all(TODAY - timedelta(days=days) < row.day <= TODAY for row in company.activities)


def test_columns_are_the_documented_ones_in_their_order(small: Company) -> None:
    assert headers(FINEST) == DOCUMENTED
    day = tuple(name for name in DOCUMENTED if name not in ("Client Name", "Language"))
    assert headers("by_user_day") == day
    assert set(headers("by_user_month")) == (set(day) - {"Timestamp Date"}) | {"Timestamp Month"}
    assert headers("by_user") == tuple(name for name in day if name != "Timestamp Date")
    for granularity in GRANULARITIES:
        assert next(small.report(granularity)).splitlines()[0] == ",".join(headers(granularity))


def test_a_finest_row_is_one_person_day_client_and_language(small: Company) -> None:
    keys = Counter((row.person.id, row.day, row.client, row.language) for row in small.activities)
    assert max(keys.values()) == 1
    assert len(rows_of(small, FINEST)) == len(small.activities)
    assert [(row.day, row.person.id) for row in small.activities] == sorted(
        (row.day, row.person.id) for row in small.activities
    )


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_grain_adds_up_to_the_finest_rows(small: Company, granularity: str) -> None:
    rows, finest = rows_of(small, granularity), rows_of(small, FINEST)
    for name in SUMMED:
        assert sum(number(row[name]) for row in rows) == sum(number(row[name]) for row in finest), name
    assert {row["Instance user ID"] for row in rows} == {row["Instance user ID"] for row in finest}


def test_a_coarser_cell_is_blank_only_when_nothing_was_recorded(small: Company) -> None:
    recorded: dict[str, set[str]] = {}
    active = set()
    for row in rows_of(small, FINEST):
        recorded.setdefault(row["Instance user ID"], set()).update(name for name in SUMMED if row[name])
        active |= {row["Instance user ID"]} if row["Active Sourcegraph User"] == "true" else set()
    for row in rows_of(small, "by_user"):
        assert {name for name in SUMMED if row[name]} == recorded[row["Instance user ID"]]
        assert (row["Active Sourcegraph User"] == "true") == (row["Instance user ID"] in active)


def test_bounds_are_inclusive(small: Company) -> None:
    start, end = TODAY - timedelta(days=20), TODAY - timedelta(days=13)
    inside = [row for row in small.activities if start <= row.day <= end]
    assert {start, end} <= {row.day for row in inside}
    assert len(rows_of(small, FINEST, start, end)) == len(inside)
    assert len(rows_of(small, FINEST, start)) == sum(row.day >= start for row in small.activities)
    assert len(rows_of(small, FINEST, None, end)) == sum(row.day <= end for row in small.activities)
    assert len(rows_of(small, FINEST, end, end)) == sum(row.day == end for row in small.activities)
    assert rows_of(small, FINEST, end, start) == []


def test_ratios_are_quotients_or_blank(small: Company) -> None:
    for granularity, rows in every_report(small):
        for row in rows:
            for name, (part, whole, times) in RATIOS.items():
                below = number(row[whole])
                wanted = round(number(row[part]) / below * times, 4) if below else None
                assert (float(row[name]) if row[name] else None) == wanted, (granularity, name)


def test_weighted_acceptance_is_weighted_by_what_was_presented(small: Company) -> None:
    shown: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for row in small.activities:
        shown[row.person.id] += row.shown
        accepted[row.person.id] += row.shown_accepted
    for line in rows_of(small, "by_user"):
        who = line["Instance user ID"]
        wanted = round(accepted[who] / shown[who], 4) if shown[who] else None
        assert (float(line["Weighted CAR"]) if line["Weighted CAR"] else None) == wanted


def test_figures_do_not_contradict_each_other(small: Company) -> None:
    for _, rows in every_report(small):
        for row in rows:
            assert number(row["Combined Completion Acceptances"]) <= number(row["Combined Completion Suggestions"])
            assert number(row["Total Characters Written by Cody"]) <= number(row["Total Characters Written"])
            assert number(row["Auto-edit accepted events"]) <= number(row["Auto-edit suggested events"])
            assert 0 <= float(row["Weighted CAR"] or 0) <= 1


@pytest.mark.long
def test_names_exercise_quoting_and_utf8(whole: Company) -> None:
    names = {person.username for person in whole.people}
    assert {row["Username"] for row in rows_of(whole, "by_user")} <= names
    assert any("," in name for name in names)
    assert any("'" in name for name in names)
    assert any(not name.isascii() for name in names)
    for unique in (names, {p.id for p in whole.people}, {p.email for p in whole.people} | set(whole.unused_seats)):
        assert len(unique) == len(whole.people) + (len(whole.unused_seats) if "@" in next(iter(unique)) else 0)


@pytest.mark.long
def test_size_and_sparseness_are_those_of_a_real_export(whole: Company) -> None:
    assert 80_000 <= len(whole.activities) <= 130_000
    cells = [count for row in whole.activities for count in row.counts]
    assert sum(count is None for count in cells) / len(cells) > 0.6
    only_billable = [row for row in whole.activities if row.active and not any(row.counts)]
    assert only_billable
    assert any(not row.active for row in whole.activities)
    assert all(row.language == "" for row in whole.activities if row.client.startswith("server."))
    assert len({row.language for row in whole.activities}) >= 12
    assert len({row.client for row in whole.activities}) == 6
    assert all(len(row.counts) == len(COUNTS) for row in whole.activities)


def test_rest_days_are_nearly_empty_and_cody_grows(whole: Company) -> None:
    by_weekday = Counter(row.day.weekday() for row in whole.activities)
    assert by_weekday[5] + by_weekday[6] < sum(by_weekday.values()) * 0.05
    cody: dict[str, set[str]] = {}
    for row in whole.activities:
        if row.client.endswith(".cody"):
            cody.setdefault(f"{row.day:%Y-%m}", set()).add(row.person.id)
    months = [len(cody[month]) for month in sorted(cody)]
    assert months[-2] > 2 * months[2] > 2 * months[0]
    of_day = Counter(row.day for row in whole.activities)
    assert of_day[date(2025, 12, 25)] < of_day[date(2025, 12, 18)] / 5


def test_today_is_not_over(whole: Company) -> None:
    searches: Counter[date] = Counter()
    for row in whole.activities:
        searches[row.day] += row.counts[0] or 0
    assert 0 < searches[TODAY] < 0.7 * searches[TODAY - timedelta(days=7)]


def test_some_people_stopped_and_some_seats_were_never_used(whole: Company) -> None:
    last = {row.person: row.day for row in whole.activities}
    lapsed = [person for person, day in last.items() if (TODAY - day).days >= 20]
    assert 0.10 <= len(lapsed) / len(last) <= 0.20
    assert len(whole.unused_seats) == 12
    seats = whole.seats_csv().splitlines()
    assert seats[0] == "email"
    assert set(whole.unused_seats) <= set(seats)
    assert not set(whole.unused_seats) & {person.email for person in last}
    assert 2 <= sum(person.service_account for person in whole.people) <= 3


def test_teams_leave_some_people_out(whole: Company) -> None:
    teams = dict(csv.reader(io.StringIO(whole.teams_csv())))
    assert teams.pop("email") == "team"
    assert len(set(teams.values())) == 8
    assert 8 <= sum(p.email not in teams and not p.service_account for p in whole.people) <= 12


def test_the_registry_knows_service_accounts_and_administrators(small: Company) -> None:
    rows = list(csv.DictReader(io.StringIO(small.user_registry())))
    assert list(rows[0]) == ["Instance user ID", "Service Account", "Site Admin"]
    for flag, people in (
        ("Service Account", {p.id for p in small.people if p.service_account}),
        ("Site Admin", {p.id for p in small.people if p.site_admin}),
    ):
        assert {row["Instance user ID"] for row in rows if row[flag] == "true"} == people != set()


def test_credit_buckets_are_filtered_by_their_active_period(whole: Company) -> None:
    buckets = whole.credits()["buckets"]
    starts = [bucket["activeFrom"] for bucket in buckets]
    assert starts == ["2026-04-01", "2026-01-01", "2025-10-01", "2025-07-01", "2025-04-01"]
    ends = [date.fromisoformat(bucket["activeUntil"]) + timedelta(days=1) for bucket in buckets[1:]]
    assert [end.isoformat() for end in ends] == starts[:-1]  # no day is in two of them
    assert sum(b["consumed"] for b in buckets) == sum(row.counts[3] or 0 for row in whole.activities)
    assert whole.credits(start=date(2026, 5, 1))["buckets"] == buckets[:1]
    assert whole.credits(end=date(2025, 9, 1))["buckets"] == buckets[3:]
