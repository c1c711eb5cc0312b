"""What makes parsing quick must change nothing: the same first match, the same refusals, the same rows as by hand."""

import re
import subprocess
import sys

import pytest
from lxml import etree

from jobs import page
from jobs.definition import css
from jobs.page import parse_html
from regions.settings import ROOT
from scripts.bench.pages import Case, cases, html, json_page, xml
from scripts.bench.parse import PEAK_MAX, reader
from tests.unit.describing import shop

SELECTORS = [
    "li", ".price", "li.item", "a::attr(href)", ".price::attr(class)", "::attr(lang)", "*::attr(data-id)", "ul > li", "h1, h2",
    ":scope", "li:first-child", "li:nth-child(2)", "li:not(.item)", "[href]", "a[href^='/']::attr(href)", "li:has(a)",
    "p ~ a", "*", "li li", "img::attr(alt), a::attr(title)", "[class~='item']", "[class~='a b']", "title",
]  # fmt: skip


@pytest.mark.parametrize("prefix", [css.WHOLE, css.INSIDE])
@pytest.mark.parametrize("selector", SELECTORS)
def test_first_of_a_selector_is_the_first_of_all(selector, prefix):
    path = css.translate(selector, xml=False, prefix=prefix)
    for element in parse_html(shop()).iter("html", "body", "ul", "li"):
        assert element.xpath(path.first) == element.xpath(path.xpath)[:1]


@pytest.mark.parametrize("words", ["item", "a item", " item\tb ", "items", "", "b-item"])
def test_a_class_is_a_whole_word(words):
    found = parse_html(f"<p class='{words}'>x".encode()).xpath(
        css.translate(".item", xml=False, prefix=css.WHOLE).xpath
    )
    assert bool(found) == ("item" in words.split())


@pytest.mark.parametrize(
    "body",
    [
        b"<p>" + b"x" * 10_000, b"<p " + b"x" * 5_000 + b">", b">" * 9_000, b"<p>" * 3_000, b"<" * 9_000, b"",
        b"<p>" * 100 + b"y" * 4_100 + b"<b " + b"z" * 3_999 + b">", b"y" * 4_100 + b"<b " + b"z" * 4_000 + b">",
        b"<a " + b"b" * 3_900 + b">" + b"<c " + b"d" * 4_100, b"<1" + b"x" * 5_000, (b"<i>" + b"t" * 4_500) * 5,
    ],
)  # fmt: skip
def test_long_tags_are_found_as_a_pattern_finds_them(body):
    is_long = page._has_long_tag(body)
    if re.search(rb"<[A-Za-z][^>]{%d}" % page.LONG_TAG_BYTES, body):
        assert is_long
    if is_long:
        assert re.search(rb"<[A-Za-z][^>]{%d}" % (page.LONG_TAG_BYTES - 1), body)


@pytest.mark.parametrize(
    ("tag", "count"),
    [
        (b"<a b c d>", 3), (b"<a b=1 c='2'd=\"3\"e>", 4), (b"<a/b/c=1 /d>", 3), (b"<a\nb\tc\fd\re>", 4), (b"<a>", 0),
        (b"<a b='x y z'>", 1),
    ],
)  # fmt: skip
def test_attributes_are_never_estimated_too_few(tag, count):
    assert page._attributes_most(tag) >= count
    assert len(parse_html(tag).find(".//a").attrib) == count


def small(case: Case) -> bytes:
    return {"html": html, "xml": xml, "json": json_page}[case.name.split()[0]](3)


def test_definition_and_hand_read_the_same():
    made = cases()  # not a parameter: making them takes as long as collecting a tenth of all tests
    for case in made:
        body = small(case)
        rows = reader(case)(body)
        assert (case.name, len(rows)) == (case.name, 3)
        assert rows == case.hand(body)
    assert {case.name.split()[0] for case in made} == {"html", "xml", "json"}


@pytest.mark.parametrize("name", ["html 2 MB", "xml 5 MB"])
def test_parsing_peaks_below_eight_times_the_page(name):
    """In a process of its own: what its resident memory grows by, and the page."""
    command = [sys.executable, "-m", "scripts.bench.parse", "--memory-of", name]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert 1.0 < float(found.stdout) < PEAK_MAX


def test_an_attribute_of_the_row_itself(tmp_path):
    from tests.unit.describing import rows

    fields = '[fields]\na = "::attr(Data-A)"\nb = {css = "::attr(b)", default = "none"}'
    assert rows(
        tmp_path,
        f"[rows]\ncss = 'p'\n{fields}",
        "<p DATA-A=' 1  2 '><p b=''>",
    )[0] == {"a": "1 2", "b": "none"}
    xml_rows = f"format = 'xml'\n[rows]\ncss = 'p'\n{fields}"
    body = "<r xmlns:n='urn:n'><p n:b='no' b='yes' n:Data-A='3'/></r>"
    assert rows(tmp_path, xml_rows, body) == [{"a": "3", "b": "yes"}]


def test_compiled_paths_are_what_libxml2_takes():
    for selector in SELECTORS:
        for is_xml in (True, False):
            etree.XPath(css.translate(selector, xml=is_xml, prefix=css.INSIDE).first)
