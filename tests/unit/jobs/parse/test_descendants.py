"""A simple selector finds the same in a row as its XPath, on any page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from jobs.definition import css
from jobs.definition.css import Simple, Step
from jobs.parse import descendants
from jobs.parse.descendants import Words
from jobs.parse.select import Compiler
from tests.unit.describing import rows

TAGS = ("div", "p", "b")
WORDS = ("a", "b", "-c")
SIMPLE = (
    *(".a", "p.a", ".a.b", ".-c", "p", "DIV", ".a p", "p .a", "div p", ".a .b", "p.a div.b", ".a .a", "p p"),
    *(".a::attr(class)", "p::attr(id)", ".a::attr(ID)", ".a p::attr(id)", "div p.b::attr(id)"),
)

blank = st.sampled_from([" ", "  ", "\t", "\n", "\r", "\xa0", "\u2003"])
text = st.sampled_from(["", "one", " two\n", "drei"])


@st.composite
def classes(draw):
    words = draw(st.lists(st.sampled_from([*WORDS, "ab", "A"]), max_size=3))
    return draw(blank).join(words) + draw(st.sampled_from(["", " "]))


@st.composite
def elements(draw, depth=4):
    tag, attributes = draw(st.sampled_from(TAGS)), {}
    if draw(st.booleans()):
        attributes["class"] = draw(classes())
    if draw(st.booleans()):
        attributes["id"] = draw(text)
    element = etree.Element(tag, attributes)
    element.text, element.tail = draw(text), draw(text)
    children = elements(depth - 1) if depth else st.nothing()
    for child in draw(st.lists(children | st.builds(etree.Comment, text), max_size=3 if depth else 0)):
        element.append(child)
    return element


def by_xpath(expression, item):
    compiled = Compiler("html", {})
    found = css.translate(expression, xml=False, prefix=css.INSIDE)
    return compiled.xpath(f"string({found.first})")(item)


@given(elements(), st.lists(st.sampled_from(SIMPLE), min_size=1, max_size=4))
def test_a_simple_selector_finds_the_same_as_its_xpath(page, expressions):
    words, kept, compiled = Words(), {}, Compiler("html", {})
    seeks = [descendants.seeker(css.simple(one), 1, words, compiled.text) for one in expressions]
    for item in page.iter("*"):  # as rows of a level, nested ones among them
        found = [seek([page, item], kept) for seek in seeks]
        assert found == [by_xpath(one, item) for one in expressions]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("h3 a::attr(Title)", Simple((Step("h3"), Step("a")), "title")),
        ("P.b.c", Simple((Step("p", ("b", "c")),))),
        ("*.b", Simple((Step("", ("b",)),))),
    ],
)
def test_simple_selectors(expression, expected):
    assert css.simple(expression) == expected


@pytest.mark.parametrize(
    "expression",
    ["*", "::attr(x)", ":scope > a", "a, b", "a > b", "a + b", "a b c", "#x", "a[href]", "a:first-child", "a::text",
     ".a:not(.b)", "a::attr(xlink:href)", "g|a", r"g\:price", ".größe", "* .a"],
)  # fmt: skip
def test_any_other_selector_is_an_xpath(expression):
    assert css.simple(expression) is None


def test_the_memory_of_class_attributes_is_limited(monkeypatch):
    monkeypatch.setattr(descendants, "REMEMBERED", 10)
    words = Words()
    words.want("a")
    assert [words[f"a x{number}"] for number in range(30)] == [("a",)] * 30
    assert words["a " + "x" * 1_000] == ("a",)
    assert words[None] == ()
    assert len(words) <= 12
    assert max(len(text or "") for text in words) < 10


def test_a_field_finds_nothing_in_the_next_row(tmp_path):
    page = b"<ul><li><b class='x' id='1'>one</b><li><i>two</i><li><b class='x y'></b><b class='x' id='3'>three</b></ul>"
    text = "[rows]\ncss = 'li'\n[fields]\nx = '.x'\ny = 'b.y'\nid = {css = '.x::attr(id)', type = 'int'}\ni = 'i'\n"
    assert rows(tmp_path, text, page) == [
        {"x": "one", "y": None, "id": 1, "i": None},
        {"x": None, "y": None, "id": None, "i": "two"},
        {"x": None, "y": None, "id": 3, "i": None},
    ]
