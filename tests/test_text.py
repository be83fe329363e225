"""Text from strangers is shown so that it can neither act nor hide."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sourcegraph_analytics_mcp.redaction import Redactor
from sourcegraph_analytics_mcp.surface.text import cell, formula_safe, safe, size, table

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
    "text", ["Ada Lovelace", "Zoë", "李雷", "مرحبا", "naïve café", "👩‍💻", "❤️", "🏳️‍🌈", "a.b@example.com"]
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert safe(text) == text


@given(st.text(max_size=30), st.text(max_size=30))
def test_two_names_never_become_one(first: str, second: str) -> None:
    if first != second and "\\u{" not in first + second:
        assert safe(first) != safe(second)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
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


def test_long_cells_are_cut_and_say_so() -> None:
    assert len(cell("x" * 5000)) == 200
    assert cell("x" * 5000).endswith("…")
    assert json.dumps(cell("\ud800"))


@pytest.mark.parametrize(
    ("count", "words"), [(999, "999 bytes"), (12_345, "12.3 kB"), (5_000_000, "5.0 MB"), (2_500_000_000, "2.5 GB")]
)
def test_bytes_are_said_in_the_unit_that_fits(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize("secret", ["a'b\"c\\d-cookie", "plain-secret", "'quoted'"])
def test_a_secret_is_found_in_data_whatever_it_is_made_of(secret: str) -> None:
    redactor = Redactor({secret})
    assert redactor.data({"x": [f"<{secret}>", 1]}) == {"x": ["<[secret]>", 1]}
    assert redactor.text(f"{secret} sams_at_ab.c-d") == "[secret] [secret]"
    assert redactor.data({"x": "nothing"}) == {"x": "nothing"}
