"""Any bytes, any text, any definition: a value, a warning, or an error of our tree; never another exception, never a hang.

More examples than the suite has time for: ``pytest tests/unit/jobs/test_any_input.py --hypothesis-profile=long``.
"""

import contextlib
import csv
import io
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.definition import css, jmes
from jobs.definition.field import DEFAULT_LANGUAGE, TYPES
from jobs.definition.model import BadParams
from jobs.definition.read import read
from jobs.definition.schema import FEED_KEYS
from jobs.errors import TaskError
from jobs.page import Page, parse_html, parse_json, parse_xml
from jobs.parse import feed, jsonld, plain_text
from jobs.parse.contract_check import check
from jobs.parse.source import Source
from jobs.parse.warnings import Warnings
from jobs.text import charset, numbers, pattern, values
from regions.faults import Faults
from tests.unit.describing import shop

LABELS = ["", "utf-8", "iso-8859-1", "shift_jis", "utf-16", "gbk", "replacement", "x-user-defined", "hz-gb-2312", "ü"]
MARKUP = [
    "<", ">", "</", "/>", "<!--", "-->", "<![CDATA[", "]]>", "&amp", "&#0;", "<?xml", "<!DOCTYPE", "<base href=//[>",
]  # fmt: skip
FEED = [
    "<rss>", "<channel>", "<item>", "</item>", "<title>", "<link>", "<guid>", "<dc:date>", "&nbsp;", "<entry>",
    "<feed>",
]  # fmt: skip
CSS = [
    "a", ".b", "#c", "::text", "::attr(href)", "::attr(", ":not(", ")", "[", "]", "=", "'", ">", "+", "~", ",", "*|",
    "|", ":nth-child(2)", ":scope", ":has(", " ",
]  # fmt: skip
JMES = [
    "a", ".", "[", "]", "[]", "[0]", "*", "{", "}", "a:b", "|", "||", "&&", "&", "!", "`1`", "`", "'x'", "items(@)",
    "zip(@, a)", "length(a)", "sort_by(a,&b)", "?", "==", "(", ")",
]  # fmt: skip
REGEX = [
    "a", "(", ")", "(?P<a>", "(?=", "[", "]", "*", "+", "{9}", "{1000}", "\\", "\\1", "\\C", "^", "$", "|", "(?i)",
    "ü", "\0",
]  # fmt: skip


def pieces(*known: list[str]) -> st.SearchStrategy[str]:
    """Texts of pieces that mean something, and of anything."""
    listed = [one for some in known for one in some]
    return st.lists(st.sampled_from(listed) | st.text(max_size=6), max_size=12).map("".join)


markup = pieces(MARKUP, ["<p>", "<p class=", "<b>", "<script type='application/ld+json'>", "</script>"]).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
bodies = st.binary(max_size=200) | markup | pieces(MARKUP, FEED).map(lambda text: text.encode("utf-8", "replace"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=4),
    max_leaves=8,
)


@given(bodies, st.sampled_from(LABELS) | st.text(max_size=8), st.sampled_from(LABELS))
def test_any_bytes_are_text_or_no_text(body, label, override):
    try:
        decoded = charset.decode(body, f"text/html; charset={label}", override)
    except TaskError:
        return
    assert decoded.text.encode() == decoded.utf8


@given(bodies)
@example(b"\0")
@example(b"<" * 5_000)
def test_any_bytes_are_a_document_or_none(body):
    for parse in (parse_html, parse_xml, parse_json, feed.read):
        try:
            found = parse(body)
        except TaskError:
            continue
        if parse is parse_html:
            jsonld.nodes(found, "A", [])
        if parse is feed.read:
            for entry in feed.Channel(found).entries():
                assert [entry.get(key) for key in FEED_KEYS]


@given(pieces(CSS), st.booleans())
def test_any_text_is_a_css_selector_or_none(text, xml):
    try:
        path = css.translate(text, xml=xml, prefix=css.INSIDE)
    except ValueError:
        return
    from lxml import etree

    etree.XPath(path.xpath)


@pytest.mark.filterwarnings("ignore:deprecated string literal")  # jmespath's own, for `a` instead of 'a'
@given(pieces(JMES), json_values)
def test_any_text_is_an_expression_or_none(text, value):
    try:
        find = jmes.compiled(text)
    except ValueError:
        return
    with contextlib.suppress(*jmes.FAILED):
        find(value)


@given(pieces(REGEX), st.text(max_size=40))
def test_any_text_is_a_pattern_or_none(text, searched):
    try:
        find = pattern.finder(text)
    except ValueError:
        return
    found = find(searched)
    assert found is None or isinstance(found, str)


NUMBERS = [
    "1", "23", "456", ".", ",", " ", "'", "-", "\u2212", "e9", "E-400", "€", "(", "½", "²", "٣", "\u00a0", "x", ")",
    "\u2013", " Mio", "CHF", "CR", "..", "\u25b2", "%", "<", "<>", "\n",
]  # fmt: skip
TIMES = [
    "2026", "-", "11", "24", "T", " ", ":", "04", ".5", "Z", "+01:00", "-0000", "Nov", "Tue,", "GMT", "P1D", "PT",
    "1e9", "W48", "24:00", " p.m.", "[Europe/Berlin]", "1月", "\u2212", "٢",
]  # fmt: skip
descriptions = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)},
    optional={
        "many": st.booleans(), "lines": st.booleans(), "re": pieces(REGEX), "map": st.dictionaries(st.text(max_size=3) | st.just("*"), json_values, max_size=3),
        "scale": st.sampled_from(["1/60", "0.001", "1000", "1/0", "x", "1e400"]), "join": st.text(max_size=2), "default": json_values, "parse": st.sampled_from(["html", "json", "xml"]), "without": pieces(CSS), "fold": st.booleans(),
        "decimal_mark": st.sampled_from([".", ",", ";"]), "format": st.sampled_from(["iso", "rfc2822", "unix", "unix_ms", "%d %b %Y", "%", "%Q", "%%", "%d", ["iso", "%H:%M"], "%Y-%m-%d %H:%M %Z", "%Y %j", "%G-W%V-%u", "%a %d %B %Y %I %p", ["rfc2822", "%y%m%d"]]),
        "lang": st.sampled_from(["de", "fr_CA", "xx", "zh", "th", "", "../x"]), "tz": st.sampled_from(["UTC", "local", "Europe/Berlin", "../x", "x\0"]),
        "to_tz": st.sampled_from(["UTC", "Asia/Kolkata", "local", ""]), "level": st.integers(-1, 3),
    },
)  # fmt: skip


@given(descriptions, pieces(NUMBERS, TIMES))
def test_any_text_is_a_value_of_any_type_or_a_bad_one(tmp_path, described, text):
    rows = run(
        tmp_path,
        {"format": "html", "fields": {"x": {"css": "p", **described}}},
        f"<p>{text}".encode("utf-8", "replace"),
    )
    assert rows is None or isinstance(rows, list)


@given(pieces(NUMBERS), st.sampled_from([".", ","]))
def test_any_text_is_one_number_or_none(text, mark):
    try:
        number = numbers.parser(mark)(" ".join(text.split()))
    except ValueError:
        return
    assert number.is_finite()


tables = st.recursive(
    st.booleans() | st.integers(-3, 1_000) | st.floats(allow_nan=True) | st.sampled_from([*DEFAULT_LANGUAGE, "a", "li", "::text", "{a}", "{secret.A}", "https://a.example/{a}", "2/s", ""]) | st.dates() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["css", "xpath", "jmes", "key", "jsonld", "const", "level", "parse", "each", "fields", "rows", "re", "many", "type", "template", "param", "start", "step", "link", "max_pages", "url", "request", "headers", "form", "json", "body", "auth", "basic", "required", "unique", "range", "empty", "blocked", "absent", "min_rows", "header", "delimiter", "skip", "default", "enum", "min", "max", "pattern", "example", "a", "b"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
SECTIONS = "params request before rows fields next limits contract namespaces csv format charset archive region standby title url"
definitions = st.dictionaries(st.sampled_from(SECTIONS.split()), tables, max_size=6)


@given(definitions, bodies)
def test_any_definition_is_read_or_told_what_is_wrong(tmp_path, described, body):
    run(tmp_path, described, body)


@given(st.text(max_size=60) | pieces(["[fields]\n", "a = ", "{css = 'b'}", "\n", "[rows]", "[[", "=", "'''", '"', "#"]))
def test_any_file_is_read_or_told_what_is_wrong(tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_bytes(f"title = 'x'\nurl = 'https://a.example/'\n{text}".encode("utf-8", "surrogatepass"))
    try:
        Source(read(path))
    except Faults as faults:
        assert str(faults)  # noqa: PT017 - most files are none


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "d", "wait"]), json_values | pieces(NUMBERS, TIMES), max_size=4),
    st.booleans(),
)
def test_any_params_are_bound_or_told_what_is_wrong(tmp_path, given_, text):
    path = tmp_path / "x.toml"
    path.write_text(
        "title = 'x'\nurl = 'https://a.example/{a}{?b,c,d*}'\n[params]\na = {type = 'int', min = 1}\nb = {type = 'decimal', max = 5}\n"
        "c = {pattern = '[a-z]+', min = 2}\nd = {type = 'datetime'}\n[fields]\nx = 'b'\n"
    )
    definition = read(path)
    try:
        bound = definition.bind(given_, text=text)
    except BadParams as bad:
        assert str(bad)  # noqa: PT017 - most values are none
        return
    assert definition.expand(bound).startswith("https://a.example/")


def run(folder: Path, described: dict[str, object], body: bytes) -> list[dict[str, object]] | None:
    """The rows that a described source makes of a body; None where it is no source, or the body nothing to it."""
    path = folder / "x.toml"
    text = toml({"title": "x", "url": "https://a.example/", **described})
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None  # a control character, which TOML can't hold
    path.write_text(text, encoding="utf-8")
    try:
        source = Source(read(path))
    except Faults as faults:
        assert str(faults)  # noqa: PT017 - most descriptions are none
        return None
    try:
        params = source.definition.bind({}, text=False)
        request = source.first(params, {})
        parsed = source.parse(Page(request, request.url, 200, {}, body, request.params))
        check(source.definition, parsed.rows, bad_required=parsed.bad_required, empty=parsed.empty)
    except (TaskError, BadParams):
        return None
    msgspec.json.encode(parsed.rows)
    assert len(parsed.warnings) <= Warnings.LINES_MAX
    return parsed.rows


def toml(table: dict[str, object]) -> str:
    """A table as TOML, its tables inline."""
    return "".join(f"{written(key)} = {written(value)}\n" for key, value in table.items() if value is not None)


def written(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(k)} = {written(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(one) for one in value if one is not None) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value)


def test_the_strategies_make_sources_that_work(tmp_path):
    """Else the tests above would see nothing but refusals."""
    assert run(tmp_path, {"rows": {"css": "li"}, "fields": {"x": {"css": "a", "many": True}}}, shop())
    assert written("a\n") == '"a\\U0000000a"'
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads("a = ")


@given(st.text(alphabet="ab \n\t\u00a0\u2003", max_size=40))
def test_a_long_text_is_folded_as_a_short_one(text):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(values, "LONG", 4)
        assert values.folded(text) == " ".join(text.split())


@given(st.lists(st.sampled_from(["a", "ü", '"x\ny"', "", "\r", "long " * 5])), st.sampled_from(["\n", "\r\n", "\r"]))
def test_csv_is_read_by_pieces_as_it_is_as_a_whole(cells, end):
    text = "".join(f"{cell},1{end}" for cell in cells)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plain_text, "_PIECE_CHARACTERS", 3)
        found = list(csv.reader(plain_text._Feed(text, ",").lines()))
    assert found == list(csv.reader(io.StringIO(text, newline="")))


@given(st.text(max_size=30), st.binary(max_size=10), st.integers(1, 5))
def test_utf8_is_told_by_pieces_as_it_is_as_a_whole(text, tail, size):
    body = text.encode() + tail
    try:
        expected = len(body) - len(body.decode())
    except UnicodeDecodeError:
        expected = -1
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(charset, "CHECKED_BYTES", size)
        assert charset._following_bytes(body) == expected
