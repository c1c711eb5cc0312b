"""Pages of the console in a real browser, at a real gateway with 200 sources and 2,000 requests in its history."""

import re

import pytest
from playwright.sync_api import expect

from tests.service.web.console.conftest import SOURCES, shorten
from tests.service.web.console.history import REQUESTS, fill
from tests.waiting import until
from tests.wire import ask
from web.console.frame import CONTENT_SECURITY, NAVIGATION

HTML = {"Accept": "text/html"}
PLAIN_PAGES = [path for path, _ in NAVIGATION]
LOOKS = {"light": {}, "dark, phone": {"dark": True, "phone": True}}


@pytest.fixture(scope="module")
def filled(stack, store) -> list[str]:
    """The ids of the requests in the history, the latest first."""
    return fill(stack.settings, store)


def opened(tab, path: str, text: str) -> bool:
    """Whether a page has a text. On a busy machine a history may take longer than the gateway waits for it."""
    tab.open(path)
    return text in tab.text()


def answered(stack, path: str):
    """The page at a path, once the history answers."""
    return until(lambda: (reply := ask(stack.port, "GET", path, HTML)).status != 503 and reply, "the history to answer")


def test_each_page_has_the_strict_policy_and_nothing_in_line(stack, filled):
    for path in [*PLAIN_PAGES, f"/requests/{filled[0]}", "/try?source=demo.list", "/nothing"]:
        reply = answered(stack, path)
        if path == "/nothing":
            assert reply.status == 404
            continue
        text = reply.body.decode()
        assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8"), path
        assert reply.headers["content-security-policy"] == CONTENT_SECURITY
        assert "unsafe" not in CONTENT_SECURITY
        assert not re.search(r"<style|\sstyle=|\son\w+=", text), path
        assert all(
            re.fullmatch(r' type="module" src="/console/[0-9a-f]{12}/\w+\.js"', one)
            for one in re.findall(r"<script([^>]*)>", text)
        )
        assert len(text) < 400_000, f"{path} is {len(text)} bytes"


def test_files_have_the_right_types_and_are_kept(stack):
    text = ask(stack.port, "GET", "/", HTML).body.decode()
    for name, kind in (("console.css", "text/css"), ("frame.js", "text/javascript"), ("mark.svg", "image/svg+xml")):
        (path,) = set(re.findall(rf'"(/console/[0-9a-f]+/{name})"', text))
        reply = ask(stack.port, "GET", path)
        assert (reply.status, reply.headers["content-type"].partition(";")[0]) == (200, kind)
        assert "immutable" in reply.headers["cache-control"]
        again = ask(stack.port, "GET", path, {"If-None-Match": reply.headers["etag"]})
        assert (again.status, again.body) == (304, b"")


def test_a_page_that_is_not_there_is_told_by_a_page_and_to_programs_by_a_document(stack):
    page = ask(stack.port, "GET", "/requests/nothing", HTML)
    assert (page.status, "text/html" in page.headers["content-type"]) == (404, True)
    assert b"<h1>" in page.body
    document = ask(stack.port, "GET", "/v1/requests/nothing", HTML)
    assert document.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("look", LOOKS)
def test_each_page_is_accessible_and_fits(stack, filled, browser, look):
    """axe finds nothing; at 390 px nobody scrolls sideways; nothing meets the policy; no other host is asked."""
    with browser.tab(stack.port, **LOOKS[look]) as tab:
        for path in ["/", "/requests", f"/requests/{filled[0]}", "/try?source=demo.list&source=demo.plain"]:
            tab.open(path)
            expect(tab.page.locator("h1").first).to_be_visible()
            tab.fits()
            shorten(tab)
            tab.is_accessible()


def test_every_page_can_be_read_without_scripts(stack, filled, browser):
    with browser.tab(stack.port, scripts=False) as tab:
        tab.open("/?q=many.source-007")
        assert "many.source-007" in tab.text()
        assert "many.source-008" not in tab.text()
        tab.open("/try?source=demo.list")
        tab.page.fill('[name="1.category"]', "travel")
        tab.page.get_by_role("button", name="Run", exact=True).click()
        assert "category=travel" in tab.page.inner_text("#codes")
        until(lambda: opened(tab, "/requests", filled[0]), "the history to answer")
        older = tab.page.get_by_role("link", name="Older requests").get_attribute("href")
        until(lambda: opened(tab, older, filled[50]), "the history to answer")
        assert filled[0] not in tab.text()


def test_sources_are_found_while_one_types(stack, browser):
    with browser.tab(stack.port) as tab:
        tab.open("/")
        shown = tab.page.locator("#sources > li:visible")
        assert shown.count() >= SOURCES
        tab.page.fill("#q", "generated 123")
        expect(shown).to_have_count(1)
        tab.page.fill("#q", "nothing is like this")
        expect(tab.page.locator("#none")).to_be_visible()
        tab.page.fill("#q", "many.source-150")
        tab.press("Enter")
        tab.page.wait_for_url("**/try?source=many.source-150")


def test_older_requests_are_added_and_filters_are_links(stack, filled, browser):
    with browser.tab(stack.port) as tab:
        until(lambda: opened(tab, "/requests", filled[0]), "the history to answer")
        rows = tab.page.locator("#found tbody tr")
        expect(rows).to_have_count(50)

        def has_more() -> bool:
            """The history of a busy machine may take longer than the gateway waits for it: then one asks again."""
            tab.page.get_by_role("link", name="Older requests").click()
            tab.page.wait_for_function("() => !document.querySelector('#older[aria-busy]')")
            return rows.count() == 100

        until(has_more, "older requests", 120)
        assert tab.page.locator("#found tbody tr a").nth(99).inner_text() == filled[99]
        tab.page.select_option("#status", "failed")
        tab.page.fill("#source", "demo.plain")
        tab.page.get_by_role("button", name="Show").click()
        tab.page.wait_for_url(re.compile("status=failed"))
        expect(rows).to_have_count(50)
        assert set(tab.page.locator("#found tbody .badge").all_inner_texts()) == {"failed"}
        assert set(tab.page.locator("#found tbody td:nth-child(4)").all_inner_texts()) == {"demo.plain"}
        tab.page.get_by_role("link", name="All", exact=True).click()
        expect(rows).to_have_count(50)


def test_a_page_of_the_history_reads_no_more_than_it_shows(stack, filled, store):
    """One command that is limited, whatever is asked."""
    assert len(filled) == REQUESTS
    for query in (
        "",
        "?status=failed&source=demo.plain",
        "?hours=24",
        f"?cursor={filled[REQUESTS // 2]}",
        "?source=no.such",
    ):
        reply = ask(stack.port, "GET", f"/requests{query}", HTML)
        assert reply.status == 200
        assert reply.body.count(b"<tr>") <= 51
    for query in ("?status=nothing", "?hours=x", "?cursor=1", "?x=1"):
        assert ask(stack.port, "GET", f"/requests{query}", HTML).status == 400


def test_unfinished_requests_are_shown_until_they_are_done(stack, regions, browser):
    promised = stack.post({"sources": [{"source": "demo.list", "params": {"category": "slow"}}, "demo.plain"]}).json()
    until(lambda: ask(stack.port, "GET", f"/v1/requests/{promised['id']}").json()["completed"] == 1, "the quick task")
    with browser.tab(stack.port) as tab:
        tab.open("/requests")
        row = tab.page.locator("#found tr", has_text=promised["id"])
        expect(row.locator(".badge")).to_have_text("running")
        tab.open("/requests?status=running&source=demo.list")
        expect(row).to_have_count(1)
        tab.open(f"/requests/{promised['id']}")
        expect(tab.page.locator("h1 + .badge")).to_have_text("running")
        regions.go_on.set()
        expect(tab.page.locator("h1 + .badge")).to_have_text("succeeded")
        tab.open("/requests")
        expect(row.locator(".badge")).to_have_text("succeeded")


def test_a_request_is_shown_hop_by_hop_and_then_from_the_history(stack, regions, store, browser):
    asked = [{"source": "demo.list", "params": {"category": "wall"}}, "demo.plain"]
    promised = stack.post({"sources": asked, "attrs": {"who": "<b>"}}).json()
    id_ = promised["id"]
    until(lambda: ask(stack.port, "GET", f"/v1/requests/{id_}").json()["done"], "the end")
    with browser.tab(stack.port) as tab:
        tab.open(f"/requests/{id_}")
        for word in (
            "partial",
            "blocked (target)",
            "a wall <b>instead</b> of the page",
            "asked again in 7 s",
            "accepted",
            "confirmed",
            "settled",
        ):
            assert word in tab.text(), word
        tab.is_accessible()
        task = promised["tasks"][1]["id"]
        tab.page.get_by_role("link", name="demo.plain").first.click()
        tab.page.wait_for_url(f"**/requests/{id_}?task={task}")
        expect(tab.page.locator(".way")).to_have_count(1)
        until(lambda: store.has(id_), "the history to have it")
        stack.hub.client.delete(f"nf:req:{id_}", f"nf:evt:{id_}")
        tab.expected = ("503",)
        until(lambda: opened(tab, f"/requests/{id_}", "from the history"), "the history to answer")
        assert "a wall <b>instead</b> of the page" in tab.text()
