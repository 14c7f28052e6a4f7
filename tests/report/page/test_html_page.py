"""The frame of every page: one file, nothing from elsewhere, and text that stays text."""

from __future__ import annotations

import hashlib
import json
import re

import jinja2
import pytest

from bbframe.report.page import html_page
from bbframe.report.page.html_page import HERE, Section, json_text, page_text, policy, source_hash, write_page

HOSTILE = "</script><script>window.broken = 1</script><!-- \u2028 \u2029 \u202e \x00 \"' & 猫🐈 عربي"


def table(*rows):
    return Section("Rows", "table", {"columns": [{"title": "name"}, {"title": "n", "number": True}], "rows": rows})


def test_every_text_is_escaped_in_the_markup_and_in_the_data():
    chart = {"charts": [{"title": HOSTILE, "kind": "line", "x": {"title": "x"}, "y": {"title": "y"}, "series": []}]}
    sections = [
        Section(HOSTILE, "facts", {"facts": [[HOSTILE, HOSTILE]]}, note=HOSTILE),
        Section("", "figures", {"figures": [{"label": HOSTILE, "value": HOSTILE, "detail": HOSTILE}]}),
        Section("", "text", {"text": HOSTILE, "summary": HOSTILE}),
        Section("", "chart", chart),
        table([{"text": HOSTILE, "link": HOSTILE}, 1]),
    ]
    page = page_text(HOSTILE, sections, HOSTILE)
    assert "<script>window.broken" not in page
    assert page.count("window.broken") > 10
    assert not re.search("[\u2028\u2029\u202e\x00]", page.partition("<script>")[0])
    assert "猫🐈 عربي" in page


def test_data_survives_the_way_into_the_page():
    data = {"name": "</script>猫<!--", "values": [1, 2.5, None, float("nan"), -float("inf")], "yes": True}
    text = json_text(data)
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert json.loads(text) == {"name": "</script>猫<!--", "values": [1, 2.5, None, None, None], "yes": True}


def test_control_characters_are_spelled_out():
    assert json.loads(json_text(["a\u202eb\u2028c\x00", "line\nline"])) == ["a\\u202eb\\u2028c\\x00", "line\nline"]


def test_the_policy_allows_what_stands_in_the_page_and_nothing_else():
    page = page_text("A page", [table(["a", 1])])
    scripts = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    assert len(scripts) == 2
    said = re.search('Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert said == policy(style, scripts)
    assert said.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in said
    assert all(source_hash(script) in said for script in scripts)


def test_a_page_names_no_other_file():
    page = page_text("A page", [table(["a", 1])])
    assert not re.search(r"<(link|img|iframe|object)\b|\bsrc=|@import|sourceMappingURL|url\(", page)


def test_a_section_without_heading_goes_on_below_the_last():
    page = page_text("A page", [table(["a", 1]), Section("", "text", {"text": "more"}), table(["b", 2])])
    assert page.count("<section") == 2
    assert page.count("<h2>Rows</h2>") == 2


def test_numbers_sort_by_their_value_and_none_is_a_dash():
    page = page_text("A page", [table([{"text": "0.90", "sort": 0.9}, None])])
    assert 'data-sort="0.9">0.90</td>' in page
    assert 'data-sort="">\N{EN DASH}</td>' in page


def test_a_page_that_is_too_large_is_refused_with_the_section_that_is(tmp_path, monkeypatch):
    monkeypatch.setattr(html_page, "MOST_BYTES", 400_000)
    sections = [table(["a", 1]), Section("Text", "text", {"text": "x" * 200_000})]
    with pytest.raises(ValueError, match=r"would have \d+ bytes, a page has at most 400000; its largest .* 'text'"):
        write_page(tmp_path / "report.html", "A page", sections)
    assert list(tmp_path.iterdir()) == []
    write_page(tmp_path / "report.html", "A page", sections[:1])
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_a_name_that_a_template_misses_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="facts"):
        page_text("A page", [Section("Empty", "facts", {})])


def test_what_others_wrote_is_the_published_file():
    rows = re.findall(
        r"^\| `(\S+)` .* `([0-9a-f]{64})` \|$", (HERE / "vendor" / "README.md").read_text(), re.MULTILINE
    )
    assert {path.name for path in (HERE / "vendor").glob("*.js")} == {name for name, _ in rows}
    for name, sha256 in rows:
        assert hashlib.sha256((HERE / "vendor" / name).read_bytes()).hexdigest() == sha256
