"""What fires, and the runbooks."""

import re
from html import escape
from types import SimpleNamespace

from web.console import alerts
from web.hub.faults import KINDS, Book, Found

HOSTILE = "<script>alert(1)</script>"
LOOKING = SimpleNamespace(owner=SimpleNamespace(sees_all=True))


def parts(*found: Found) -> SimpleNamespace:
    book = Book()
    book.see(1_795_780_800_000, found)
    return SimpleNamespace(faults=SimpleNamespace(now=book.faults))


def test_a_fault_is_told_with_its_cost_its_mend_and_its_runbook():
    found = Found("region-redis-full", f"its Redis is full {HOSTILE}", region="nyc")
    text = alerts.page(parts(found), LOOKING).main.text
    kind = KINDS["region-redis-full"]
    for said in ("1 page", "its Redis is full", kind.cost, escape(kind.mend), "2026-11-27T12:00:00.000Z", 'href="/runbooks#region-redis-full"'):  # fmt: skip
        assert said in text, said
    assert "<script" not in text


def test_without_a_fault_it_says_what_is_looked_at():
    text = alerts.page(parts(), LOOKING).main.text
    assert "Nothing fires." in text
    assert set(re.findall(r'href="/runbooks#([a-z-]+)"', text)) == set(KINDS)


def test_more_faults_than_anybody_reads_are_counted():
    found = [
        Found("source-degraded", "x", region="fra", source=f"a.{number}") for number in range(alerts.SHOWN_MAX + 7)
    ]
    text = alerts.page(parts(*found), LOOKING).main.text
    assert "and 7 more" in text
    assert text.count('class="card fault') == 1
    assert text.count('href="/sources/a.') == alerts.SHOWN_MAX
    assert f"{alerts.SHOWN_MAX + 7} times" in text


def test_each_fault_has_a_runbook_where_its_address_leads():
    book = parts(Found("region-redis-full", "x", region="nyc"))
    text = alerts.runbooks(book, LOOKING).main.text
    assert set(re.findall(r'<section class="runbook" id="([a-z-]+)"', text)) == set(KINDS)
    assert text.count("It fires now: nyc.") == 1
    assert "{region}" not in text
