"""Text from strangers is shown so that it can neither act nor hide."""

import json
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sourcegraph_analytics_mcp.redaction import Redactor
from sourcegraph_analytics_mcp.spelling import safe, safe_data, visible
from sourcegraph_analytics_mcp.surface.text import (
    cell,
    cut,
    figure,
    fitting,
    formula_safe,
    plural,
    size,
    table,
)

HOSTILE = [
    "\x1b[2J", "\x9b31m", "a\x00b", "a\rb", "line\nbreak", "\u202etxt.exe", "\u2066x\u2069", "zero\u200bwidth",
    "soft\u00adhyphen", "\ufeffbom", "tag\U000e0041", "\ud800", "\u2028", "\uffff", "hangul\u3164filler",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_cannot_be_seen_is_spelled_out(text: str) -> None:
    shown = safe(text)
    assert "\\u{" in shown
    assert shown.encode()
    assert all(unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn") for char in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\ufe00", "a\\u{FE00}"), ("a\ufe0f", "a\\u{FE0F}"), ("\u200da", "\\u{200D}a"), ("a\u200db", "a\\u{200D}b"),
        ("❤\ufe0f\ufe0f", "❤\ufe0f\ufe0f"), ("❤a\ufe0f", "❤a\\u{FE0F}"), ("\x00", "\\u{0000}"),
        ("\U000e0041", "\\u{E0041}"),
        ("blank\u2800", "blank\\u{2800}"), ("\ufdff\ufe10", "\ufdff\ufe10"), ("", ""),
    ],
)  # fmt: skip
def test_what_joins_is_left_behind_a_symbol_and_nowhere_else(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_data_is_made_safe_wherever_it_is() -> None:
    value = {"a\x00": ["\u202e", ("\x7f", 1), None, True, 1.5], 7: {"b": "c@d.e or f@g.h"}, "i@j.k": 2}
    assert safe_data(value) == {
        "a\\u{0000}": ["\\u{202E}", ["\\u{007F}", 1], None, True, 1.5], "7": {"b": "c@d.e or f@g.h"}, "i@j.k": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""), (True, "yes"), (False, "no"), (1_234_567, "1,234,567"), (-1000, "-1,000"), (0, "0"), (1.0, "1"),
        (1234.5, "1,234.5"), (1.23456, "1.23"), (-2.506, "-2.51"), (0.123456, "0.1235"), (0.0, "0"), (100.0, "100"),
        ("a|b", "a\\|b"), ("", ""),
    ],
)  # fmt: skip
def test_a_cell_is_as_short_as_its_value_allows(value: object, shown: str) -> None:
    assert cell(value) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (12.34, "points", "+12.3 points"), (-1, "points", "-1.0 points"), (0.1234, "ratio", "12.3%"),
        (12.34, "percent", "12.3%"), (1234.56, "hours", "1,234.6"), (1234, "people per day", "1,234.0"),
        (7, "events", 7), (True, "ratio", True), ("2026-01", "hours", "2026-01"), (None, "percent", None),
    ],
)  # fmt: skip
def test_a_figure_is_shown_by_its_unit(value: object, unit: str, shown: object) -> None:
    assert figure(value, unit) == shown


def test_rows_fit_as_long_as_both_their_text_and_their_data_do() -> None:
    assert fitting([[1]] * 10_001) == 10_000  # four characters each as text: 40,000
    assert fitting([[12] * 8000]) == 1
    assert fitting([[12] * 7999 + [123]]) == 0
    assert fitting([["é" * 39_996], [1]], widest=50_000) == 1  # as data it has two quotes and two brackets
    assert fitting([["é" * 39_997]], widest=50_000) == 0
    assert fitting([]) == 0


def test_a_table_has_its_headers_a_line_and_its_rows() -> None:
    assert (
        table(["a|", "b"], [[1, "x" * 9], [None, 2.5]], widest=4) == "| a\\| | b |\n|---|---|\n| 1 | xxx… |\n|  | 2.5 |"
    )
    assert cut(1) == "Only 1 row fit into an answer; ask for fewer columns or groups, or filter."
    assert (plural(1234, "token"), plural(0, "person", "people")) == ("1,234 tokens", "0 people")


@pytest.mark.parametrize(
    "text", ["Ada Lovelace", "Zoë", "李雷", "مرحبا", "naïve café", "👩‍💻", "❤️", "🏳️‍🌈", "a.b@example.com"]
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert safe(text) == text


PIECES = st.text(max_size=3) | st.sampled_from(["\\u{202E}", "\\u{005C}", "\u202e", "\\", "u{", "}", "\\u{202e}"])
NAMES = st.lists(PIECES, max_size=6).map("".join)


def told_again(shown: str) -> str:
    """The text that is shown so, but for its lone surrogates, which Hypothesis makes none of."""
    return re.sub(r"\\u\{([0-9A-F]{4,6})\}", lambda found: chr(int(found[1], 16)), shown)


@given(NAMES)
@example("A\u202e")
@example("A\\u{202E}")
@example("A\\u{005C}u{202E}")
def test_two_names_never_become_one(name: str) -> None:
    assert told_again(safe(name)) == name
    assert visible(safe(name)) == safe(name)


@pytest.mark.parametrize("text", ["C:\\users\\u", "\\u202E", "\\u{}", "\\u{xyz}", "a\\\\b"])
def test_ordinary_backslashes_stay(text: str) -> None:
    assert safe(text) == text


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
@pytest.mark.long
def test_a_table_of_anything_is_one_row_without_links(cells: list[str]) -> None:
    html = MarkdownIt("gfm-like", {"linkify": False}).render(table([str(n) for n in range(len(cells))], [cells]))
    assert html.count("<tr>") == 2
    assert html.count("<td>") == len(cells)
    assert "<a " not in html
    assert "<img" not in html


@pytest.mark.parametrize(
    "text", ["![x](http://e/?d=1)", "[a][b]", "<b>", "<http://e>", "https://e/x", "www.e.com", "`x`", "a|b"]
)
def test_markup_in_a_cell_is_only_text(text: str) -> None:
    shown = cell(text)
    assert "![" not in shown
    assert "https://" not in shown
    assert "<" not in shown.replace("\\<", "")
    assert MarkdownIt("commonmark").render(shown).count("<") == 2


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "  =1", "＝1", "＠x"])
def test_no_cell_begins_a_formula(text: str) -> None:
    assert formula_safe(text) == f"'{text}"
    assert formula_safe(f"x{text}") == f"x{text}"


def test_long_cells_are_cut_and_say_so() -> None:
    assert cell("x" * 200) == "x" * 200
    assert len(cell("x" * 201)) == len(cell("x" * 5000)) == 200
    assert cell("x" * 5000).endswith("…")
    assert json.dumps(cell("\ud800"))


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (12_345, "12.3 kB"),
        (5_000_000, "5.0 MB"),
        (2_500_000_000, "2.5 GB"),
        (98_765_432_100, "98.8 GB"),
    ],
)
def test_bytes_are_said_in_the_unit_that_fits(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize("secret", ["a'b\"c\\d-cookie", "plain-secret", "'quoted'"])
def test_a_secret_is_found_in_data_whatever_it_is_made_of(secret: str) -> None:
    redactor = Redactor({secret})
    assert redactor.data({"x": [f"<{secret}>", 1]}) == {"x": ["<[secret]>", 1]}
    assert redactor.text(f"{secret} sams_at_ab.c-d") == "[secret] [secret]"
    assert redactor.data({"x": "nothing"}) == {"x": "nothing"}


def test_a_secret_that_begins_like_another_is_masked_to_its_end() -> None:
    short, long = "shared-beginning-of-secrets", "shared-beginning-of-secrets-and-then-more"
    for known in ([short, long], [long, short]):
        assert Redactor(known).text(f"{long}, {short}.") == "[secret], [secret]."


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(1 / 30, "people per day", "0.033"), (0.0004, "ratio", "0.040%"), (-0.04, "points", "-0.040 points"),
     (0.049, "percent", "0.049%"), (0.05, "percent", "0.1%"), (1e-9, "hours", "0.0000000010"), (0.0, "hours", "0.0")],
)  # fmt: skip
def test_a_little_is_never_shown_as_nothing(value: float, unit: str, shown: str) -> None:
    assert figure(value, unit) == shown
