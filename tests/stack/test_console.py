"""The console of a whole stack: a person asks real workers for pages of the sample site, and sees what became of it."""

from playwright.sync_api import expect

from tests.browser import Tab
from tests.waiting import until


def asked(tab: Tab) -> int:
    """Presses "Run"; the status of the answer."""
    with tab.page.expect_response(lambda response: response.request.method == "POST") as answer:
        tab.page.get_by_role("button", name="Run", exact=True).click()
    return answer.value.status


def test_a_person_asks_sources_and_sees_where_the_time_went(stack, browser):
    with browser.tab(stack.url) as tab:
        tab.open("/try?source=books.list&1.category=poetry_23&source=ecb.rates")
        tab.expected = ("503",)  # a busy broker confirms too late now and then: then a person asks again
        until(lambda: asked(tab) == 202, "the post to be accepted")
        expect(tab.page.locator(".result .badge:first-of-type")).to_have_text(["succeeded", "succeeded"])
        expect(tab.page.locator("#state")).to_contain_text("succeeded · 2 of 2")
        books = tab.page.get_by_role("region", name="Records of books.list, result 1")
        expect(books.locator("th").first).to_have_text("title")
        expect(books.locator("tbody tr").nth(10)).to_be_visible()
        tab.is_accessible()
        tab.page.get_by_role("link", name="hop by hop").first.click()
        expect(tab.page.locator("h1 + .badge")).to_have_text("succeeded")
        cells = tab.page.locator(".way").first.locator("tbody td:first-child").all_inner_texts()
        hops = [cell.split("\n")[0] for cell in cells]
        assert hops[0] == "accepted"  # the region may be quicker than what confirms it
        assert {"confirmed", "bridged", "claimed", "finished", "settled", "delivered"} <= set(hops)
        tab.is_accessible()
        tab.fits()
