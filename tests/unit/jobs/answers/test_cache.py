"""What is kept of an answer, and with which validators it is requested again (RFC 9110, 8.8 and 13.1; RFC 9111, 4.3)."""

import msgspec
import pytest

from jobs import result_frame
from jobs.answers import cache
from jobs.answers.cache import Cache, Cached, Meta, packed, renewed, validators
from jobs.contract import Result, Task
from jobs.errors import TimedOut
from jobs.page import Page, Request
from tests.unit.describing import define

JSON = "format = 'json'\n[fields]\nid = {}\n"
DATE, A_SECOND_AGO = "Tue, 24 Nov 2026 04:14:01 GMT", "Tue, 24 Nov 2026 04:14:00 GMT"
REQUEST = Request(url="https://x.example/a")
META = Meta(
    definition="d",
    asked="https://x.example/a",
    url="https://x.example/b",
    etag='"1"',
    modified=A_SECOND_AGO,
    fetched_ms=1_000,
)


def page(request=REQUEST, *, status=200, url="https://x.example/b", **headers) -> Page:
    return Page(request, url, status, {name.replace("_", "-"): text for name, text in headers.items()}, b"")


@pytest.mark.parametrize(
    ("etag", "kept"),
    [('"a"', True), ('W/"a"', True), ('""', True), ('  "a" ', True), ("a", False), ('"a b"', False), ("", False),
     ('"' + "a" * 998 + '"', True), ('"' + "a" * 999 + '"', False)],
)  # fmt: skip
def test_a_tag_counts_where_it_is_one_and_not_too_long(etag, kept):
    assert validators(page(ETag=etag)) == (etag.strip() if kept else "", "")


@pytest.mark.parametrize(
    ("date", "modified", "kept"),
    [(DATE, A_SECOND_AGO, True), (DATE, "Mon, 23 Nov 2026 04:14:00 GMT", True), (DATE, DATE, False),
     (A_SECOND_AGO, DATE, False), ("", A_SECOND_AGO, False), (DATE, "yesterday", False), (DATE, "", False),
     ("Tue, 24 Nov 2026 04:14:01 -0000", A_SECOND_AGO, False)],
)  # fmt: skip
def test_a_date_of_change_counts_where_it_is_a_second_older_than_the_answer(date, modified, kept):
    assert validators(page(Date=date, Last_Modified=modified)) == ("", modified if kept else "")


@pytest.mark.parametrize(
    ("status", "headers", "kept"),
    [(200, {}, True), (304, {}, True), (203, {}, False), (200, {"Vary": " * "}, False), (200, {"Vary": "Accept"}, True),
     (200, {"Cache_Control": "max-age=1, No-Store "}, False), (200, {"Cache_Control": "no-cache"}, True)],
)  # fmt: skip
def test_an_answer_that_says_so_or_is_none_is_not_asked_for_by_its_tag(status, headers, kept):
    assert validators(page(status=status, ETag='"1"', **headers)) == ('"1"' if kept else "", "")


def test_a_304_may_bring_new_validators_and_leaves_the_others():
    found = renewed(META, page(status=304, ETag='"2"'), 2_000)
    assert (found.etag, found.modified, found.fetched_ms, found.url) == ('"2"', A_SECOND_AGO, 2_000, META.url)
    found = renewed(META, page(status=304, Date=A_SECOND_AGO, Last_Modified="Mon, 23 Nov 2026 04:14:00 GMT"), 3_000)
    assert (found.etag, found.modified) == ('"1"', "Mon, 23 Nov 2026 04:14:00 GMT")


def result(**more) -> Result:
    return Result(task="T", source="s", region="fra", status="succeeded", attempts=1, **more)


def test_a_whole_answer_is_kept_with_its_gaps_and_of_several_pages_nothing_to_ask_by():
    assert msgspec.json.decode(packed(META, 1, result(), {"a": 2}), type=Meta) == msgspec.structs.replace(
        META, gaps={"a": 2}
    )
    found = msgspec.json.decode(packed(META, 2, result(), {}), type=Meta)
    assert (found.etag, found.modified, found.fetched_ms) == ("", "", META.fetched_ms)


def test_what_is_not_whole_or_too_large_is_not_kept():
    assert packed(None, 1, result(), {}) == packed(META, 1, result(partial=True), {}) == b""
    large = result()
    large.bytes.wire = cache.FRAME_BYTES_MAX
    assert packed(META, 1, large, {})
    large.bytes.wire += 1
    assert packed(META, 1, large, {}) == b""


def test_of_a_page_is_kept_what_it_may_be_asked_for_by(tmp_path):
    found = Cache().note(define(tmp_path, JSON), page(ETag='"1"', Date=DATE, Last_Modified=A_SECOND_AGO), 5_000)
    assert (found.asked, found.url, found.etag, found.modified) == (
        REQUEST.url,
        "https://x.example/b",
        '"1"',
        A_SECOND_AGO,
    )
    assert (found.fetched_ms, found.definition) == (5_000, define(tmp_path, JSON).hash)


def test_a_page_without_validators_is_kept_where_it_may_stand_in_for_a_failure(tmp_path):
    assert Cache().note(define(tmp_path, JSON), page(), 5_000) is None
    found = Cache().note(define(tmp_path, JSON + "[limits]\nstale_seconds = 60"), page(), 5_000)
    assert (found.etag, found.modified) == ("", "")


@pytest.mark.parametrize(
    ("request_", "more"),
    [
        (Request(method="POST", url="https://x.example/a"), ""),
        (Request(url="https://x.example/a", body=b""), ""),
        (Request(url="https://x.example/a", number=2), ""),
        (Request(url="https://x.example/a", headers={"If-None-Match": '"0"'}), ""),
        (Request(url="https://x.example/a", headers={"RANGE": "bytes=0-9"}), ""),
        (REQUEST, "[contract]\nabsent = [304]"),
        (REQUEST, "[before]\nurl = 'https://x.example/'\n[before.fields]\ntoken = 'input'"),
    ],
)
def test_a_request_to_which_304_means_something_else_gets_no_condition(tmp_path, request_, more):
    assert Cache().note(define(tmp_path, JSON + more), page(request_, ETag='"1"'), 5_000) is None


def test_the_conditions_are_those_that_the_answer_has():
    request = Request(url="https://x.example/a", headers={"Accept": "text/html"})
    asked = Cached(META, b"").asking(request).headers
    assert asked == {"Accept": "text/html", "If-None-Match": '"1"', "If-Modified-Since": A_SECOND_AGO}
    only = Cached(msgspec.structs.replace(META, etag=""), b"").asking(request).headers
    assert only == {"Accept": "text/html", "If-Modified-Since": A_SECOND_AGO}


def test_a_kept_answer_fills_a_result_with_what_it_was():
    old = result(count=2, warnings=["w"])
    cached = Cached(META, result_frame.encode(old, b'[{"id": 1}, {"id": 2}]'))
    new = result()
    cached.fill(new, 3_500)
    assert (new.count, new.url, new.definition, new.age) == (2, META.url, "d", 2.5)
    assert (new.fetched_at, new.bytes.records) == ("1970-01-01T00:00:01.000Z", 22)
    assert cached.warnings() == ["w"]
    cached.fill(new, 500)  # the clocks differ
    assert new.age == 0.0


def test_without_a_region_nothing_is_known(tmp_path):
    definition = define(tmp_path, JSON + "[limits]\nstale_seconds = 60")
    task = Task(
        task="T", request="R", source="s", region="fra", accepted_ms=1, deadline_ms=2, expires_ms=3, max_age=9.0
    )
    asked = Cache()
    asked.note(definition, page(ETag='"1"'), 1_000)
    assert asked.young(task, definition, 1_000) is asked.to_ask_by(task, definition, REQUEST) is None
    assert asked.stale(task, definition, TimedOut("x"), 1_000) is None
