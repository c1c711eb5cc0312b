"""Every pattern of the standard library that reads what a target sent takes time by its length, whatever was sent.

One that backtracks holds the interpreter: no other thread of the process runs, and no deadline cuts it.
"""

import contextlib
import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from urllib.parse import urljoin

import pytest
from requests.cookies import MockRequest, MockResponse, RequestsCookieJar
from requests.models import PreparedRequest

import jobs
from jobs import origin, page
from jobs.definition.model import Csv
from jobs.fetch import fetcher
from jobs.parse import feed, jsonld, plain_text
from jobs.text import charset, dates, numbers, prescan, values

SIZES = (100, 400)  # repetitions; the small one is for what would take hours of the large one
QUICK_SECONDS = 0.0004  # of CPU, for twice as many: below it nothing can be told; a quadratic look takes 2 ms
RATIO_MAX = 3.0  # of CPU, for twice the text: 2 is linear, 4 quadratic
TRIES = 4
# What texts are made of: a piece once, then one many times, then one once.
PIECES = (
    *" \t\n\r<>=\"'/;:,.-+%&#?(){}[]\\_@|~$*!aAzZ019é٣\xa0", "a ", " a", "a.", "a-", "-a", "1,", "1.", "1 ", ", ", "; ", "= ", '="',
    "='", "a=", ";a=", ";rel=", "<a", "<a ", "</", "<!--", "-->", "<![CDATA[", "]]>", "<meta ", "<meta", "charset", "charset=",
    "charset= ", "encoding=", 'encoding="', "<?xml ", "&#0", "&#x0", "&a", "&lt", "//", "/*", "*/", "../", "a/", "/.", "%41", "http://", "https://",
    "http://a", "xmlns:a=", "<rss", "<title>", "<title ", "type=", "P0Y", "1:", "1:0", "T1H", "1e", "a_b", 'W/"', "::text", "::attr(", "{a", "{a}",
    "{secret.", "(?P<", "\\\\C", "$a", "cookie", "for(", ")]}'", "a(", "nov.", "p.m", "1/", "1/s",
)  # fmt: skip
BEFORE = ("", "<", "<a ", "<meta ", "a", "=", '"', "http://a", "P", "-", "1", "<a>", "a(")
AFTER = "\x00"  # no pattern takes it: what backtracks at the end of a text does so before it, too
# What only definitions, settings and names of files go through: their authors hold up their own sources, as they like.
OWN_TEXT = {
    "_URL",
    "_NAME",
    "_TOKEN",
    "NAME",
    "_NAMED",
    "_ONE_BYTE",
    "_LITERAL",
    "_VARIABLE",
    "_RATE",
    "_OWN_ATTRIBUTE",
}
OWN_MODULES = {
    "jobs.definition.ask",
    "jobs.definition.catalog",
    "jobs.definition.field",
    "jobs.definition.field_reader",
}

Look = Callable[[str | bytes], object]


def patterns() -> Iterator[tuple[str, re.Pattern, str]]:
    """Each compiled pattern of ``jobs`` with its name, and how it is used there: match, fullmatch or as a search."""
    for module in pkgutil.walk_packages(jobs.__path__, "jobs."):
        if module.ispkg:
            continue
        loaded = importlib.import_module(module.name)
        text = Path(loaded.__file__).read_text()
        for name, value in vars(loaded).items():
            if isinstance(value, re.Pattern) and re.search(rf"^{name}: Final = re\.compile", text, re.MULTILINE):
                used = set(re.findall(rf"(?<!\w){name}\.(\w+)\(", text))
                how = "match" if used == {"match"} else "fullmatch" if used == {"fullmatch"} else "search"
                if name not in OWN_TEXT:
                    yield f"{module.name}.{name}", value, how
        if module.name in OWN_MODULES:
            continue
        for number, (call, literal) in enumerate(
            re.findall(r"\bre\.(search|match|fullmatch|sub)\(\s*(r?b?\"[^\"\n]+\")", text)
        ):
            value = re.compile(eval(literal), re.DOTALL)
            yield f"{module.name}, re.{call} {number}", value, call if call in ("match", "fullmatch") else "search"
    for mark in ".,":
        for number, value in enumerate((numbers._runs(mark), numbers._number(mark))):
            yield f"numbers {mark}{number}", value, "fullmatch" if number else "search"


def looks() -> Iterator[tuple[str, Look]]:
    for name, pattern, how in patterns():
        method = {"match": pattern.match, "fullmatch": pattern.fullmatch}.get(
            how, lambda text, p=pattern: p.subn(p.pattern[:0], text)
        )
        is_bytes = isinstance(pattern.pattern, bytes)
        yield name, (lambda text, look=method: look(text.encode())) if is_bytes else method
    yield from WHOLE.items()


def tried(read: Callable[[str], object]) -> Look:
    """A reader that may refuse a text: that, too, takes time by its length."""

    def look(text: str) -> None:
        with contextlib.suppress(Exception):
            read(text)

    return look


def cookies(text: str) -> None:
    answer = Message()
    answer["Set-Cookie"] = text
    request = PreparedRequest()
    request.prepare("GET", "https://shop.example/a")
    RequestsCookieJar().extract_cookies(MockResponse(answer), MockRequest(request))


WHOLE = {
    "a Link header": page.next_link,
    "a charset": lambda text: prescan.labels(text.encode()),
    "a body's text": tried(lambda text: charset.decode(f"{text}\xe9".encode("latin-1"), f"text/html; charset={text}")),
    "cookies": tried(cookies),
    "Retry-After": tried(lambda text: fetcher.retry_after({"retry-after": text})),
    "a Location": tried(lambda text: origin.host_header(origin.origin_of(urljoin("https://a.example/b/c", text)))),
    "a Location's host": tried(lambda text: origin.host_header(origin.origin_of(f"https://{text}/a"))),
    "a Location's path": tried(lambda text: origin.path_of(f"https://a.example/{text}")),
    "a feed": tried(lambda text: feed.read(f"<rss><channel>{text}".encode())),
    "JSON": tried(lambda text: page.parse_json(text.encode())),
    "JSON-LD": tried(lambda text: jsonld._read(text, "it", [])),
    "HTML's tags": tried(lambda text: page.check_tags(text.encode() + b" " * page.SMALL_BYTES, "HTML", html=True)),
    "HTML's attributes": tried(lambda text: page._check_attributes(text.encode())),
    "a number": tried(numbers.parser(".")),
    "a number with signs": tried(lambda text: numbers.parser(",")(f"{text}-5{text}")),
    "a duration": tried(dates.duration),
    "a time": tried(dates.datetime_parser(("iso", "rfc2822", "%d. %B %Y %p"), "de", "UTC")),
    "CSV": tried(lambda text: list(plain_text.csv_rows(text, Csv()))),
    "white space": tried(values.folded),
}  # fmt: skip


def seconds(look: Look, text: str) -> float:
    began = time.thread_time()
    look(text)
    return time.thread_time() - began


def is_slow(look: Look, before: str, piece: str, after: str) -> bool:
    for size in SIZES:
        once, twice = before + piece * size + after, before + piece * 2 * size + after
        if seconds(look, twice) > QUICK_SECONDS and all(
            seconds(look, twice) > RATIO_MAX * seconds(look, once) for _ in range(TRIES)
        ):
            return True
    return False


@pytest.mark.parametrize(("name", "look"), [pytest.param(name, look, id=name) for name, look in looks()])
def test_a_pattern_takes_time_by_the_length_of_its_text(name, look):
    ends = [("", "")] if name in WHOLE else [("", ""), *((before, AFTER) for before in BEFORE)]
    texts = ((before, piece, after) for piece in PIECES for before, after in ends)
    assert next((text for text in texts if is_slow(look, *text)), None) is None
