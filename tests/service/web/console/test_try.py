"""The page Try in a real browser: sources are asked, results come in one by one, and what strangers write stays text."""

import json
import re

from playwright.sync_api import expect

from tests.service.web.console.conftest import HOSTILE
from tests.waiting import until
from tests.wire import ask

POETRY = "/try?source=demo.list&1.category=poetry"


def test_a_source_is_asked_by_the_keyboard_alone(stack, regions, browser):
    with browser.tab(stack.port) as tab:
        tab.open("/")
        tab.press("Tab", "Enter")  # skips the head
        until(lambda: tab.focused().startswith("main"), "the page to have the focus")
        tab.press("Tab")
        assert tab.focused() == "input q"
        tab.page.keyboard.type("demo.list")
        expect(tab.page.locator("#sources > li:visible")).to_have_count(1)
        tab.press("Enter")
        tab.page.wait_for_url("**/try?source=demo.list")
        tab.page.wait_for_function("() => !document.getElementById('share').hidden")
        for _ in range(30):
            tab.press("Tab")
            if tab.focused() == "input 1.category":
                break
        tab.press("Control+a")
        tab.page.keyboard.type("travel")
        tab.press("Enter")
        expect(tab.page.locator(".result .badge").first).to_have_text("succeeded")
        assert tab.page.url.endswith("/try?source=demo.list&1.category=travel")
        table = tab.page.get_by_role("region", name="Records of demo.list")
        expect(table.locator("th")).to_have_text(["name", "price"])
        expect(table.locator("td")).to_have_text(["a", "1.10", "b", "\u2013"])
        figures = tab.page.locator(".result .figures").inner_text()
        assert {"60 ms", "54 kB"} <= set(figures.split("\n"))
        tab.is_accessible()
        expect(tab.page.locator("#said")).to_have_text(re.compile("Done: succeeded"))


def test_results_come_in_as_they_end_and_a_request_can_be_cancelled(stack, regions, browser):
    with browser.tab(stack.port) as tab:
        tab.open(
            "/try?source=demo.list&1.category=slow&source=demo.plain&source=demo.list&3.category=wall&source=demo.plain"
        )
        tab.page.get_by_role("button", name="Run", exact=True).click()
        states = tab.page.locator(".result .badge:first-of-type")
        expect(states).to_have_text(["running", "succeeded", "failed", "succeeded"])
        expect(tab.page.locator("#state")).to_have_text(re.compile(r"3 of 4 · \d"))
        expect(tab.page.locator(".result").nth(2)).to_contain_text("a wall <b>instead</b> of the page")
        tab.is_accessible()
        tab.page.get_by_role("button", name="Cancel").click()
        expect(states).to_have_text(["cancelled", "succeeded", "failed", "succeeded"])
        expect(tab.page.locator("#state")).to_contain_text("cancelled · 4 of 4")
        tab.page.get_by_role("link", name="hop by hop").first.click()
        expect(tab.page.locator("h1")).to_have_text("Request")


def test_faults_of_the_form_stand_beside_its_fields(stack, browser):
    with browser.tab(stack.port) as tab:
        tab.expected = ("422",)
        tab.open("/try?source=demo.plain&source=demo.list&2.category=NO&2.page=99&deadline=0")
        tab.page.get_by_role("button", name="Run", exact=True).click()
        expect(tab.page.locator("[id='2.category-error']")).to_contain_text("expected a text like")
        expect(tab.page.locator("[id='2.page-error']")).to_contain_text("up to 50")
        expect(tab.page.locator("#deadline-error")).to_contain_text("above 0")
        expect(tab.page.locator("[aria-invalid]")).to_have_count(3)
        until(lambda: tab.focused() == "input 2.category", "the first one to have the focus")
        tab.is_accessible()
        tab.page.fill("[name='2.page']", "x")
        expect(tab.page.locator("[id='2.page-error']")).to_have_text("")
        tab.page.fill("[name='2.page']", "1")
        tab.page.fill("[name='2.category']", "")
        tab.page.get_by_role("button", name="Run", exact=True).click()
        expect(tab.page.locator("[id='2.category-error']")).to_contain_text("category is required")


def test_what_a_page_says_stays_text(stack, regions, browser):
    with browser.tab(stack.port, phone=True) as tab:
        dialogs = []
        tab.page.on("dialog", lambda dialog: (dialogs.append(dialog), dialog.dismiss()))
        tab.open("/try?source=demo.list&1.category=hostile")
        tab.page.get_by_role("button", name="Run", exact=True).click()
        table = tab.page.get_by_role("region", name="Records of demo.list")
        expect(table).to_be_visible()
        cells = table.locator("td").all_inner_texts()
        assert HOSTILE[0]["name"] in cells
        assert r"left \u202e right \u2066 none \u001b[31m" in cells
        assert "x" * 3000 in cells
        assert [one.get_attribute("href") for one in table.locator("a").all()] == ["https://example.org/a?b=<c>"]
        assert not [cell for cell in cells if "native code" in cell], "a field may have any name"
        assert '{"deep":["<b>",12345678901234567890,1.10]}' in cells, "numbers keep their spelling"
        tab.page.locator("summary", has_text="warning").click()
        assert r"a <b>warning</b> \u202e" in tab.page.locator(".result details").inner_text()
        assert tab.page.evaluate("() => window.pwned") is None
        assert (dialogs, tab.page.locator("main script, main img").count()) == ([], 0)
        tab.fits()
        tab.is_accessible()


def test_a_hostile_address_is_only_text(stack, browser):
    with browser.tab(stack.port) as tab:
        tab.open(
            "/try?source=%3Cscript%3Ewindow.pwned%3D1%3C/script%3E&source=demo.list&2.category=%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%E2%80%AE"
        )
        assert tab.page.evaluate("() => window.pwned") is None
        assert tab.page.locator("main img, main script").count() == 0
        assert tab.page.input_value("[name='1.category']").startswith('"><img src=x')


def test_an_address_that_is_shared_asks_the_same_and_holds_no_secret(stack, regions, browser):
    with browser.tab(stack.port) as tab:
        tab.open("/try?source=demo.list")
        tab.page.fill("[name='1.category']", "travel")
        tab.page.fill("[name='1.page']", "3")
        tab.page.wait_for_url("**/try?source=demo.list&1.category=travel&1.page=3")
        expect(tab.page.locator("#codes")).to_contain_text("page=3")
        expect(tab.page.locator("#codes")).to_contain_text(
            "client.fetch('demo.list', {'category': 'travel', 'page': 3})"
        )
        shared = tab.page.url.removeprefix(tab.origin)
    with browser.tab(stack.port, dark=True) as tab:
        tab.open(shared)
        assert tab.page.input_value("[name='1.page']") == "3"
        tab.page.get_by_role("button", name="Run", exact=True).click()
        expect(tab.page.locator(".result .badge").first).to_have_text("succeeded")


def test_sources_are_added_and_removed(stack, browser):
    with browser.tab(stack.port) as tab:
        tab.open(POETRY)
        tab.page.select_option("#another", "demo.plain")
        tab.page.get_by_role("button", name="Add", exact=True).click()
        expect(tab.page.locator("fieldset")).to_have_count(2)
        assert tab.page.input_value("[name='1.category']") == "poetry"
        tab.page.get_by_role("button", name="Remove demo.plain").click()
        expect(tab.page.locator("fieldset")).to_have_count(1)
        tab.open("/")
        tab.page.get_by_label("Choose demo.list").check()
        tab.page.get_by_label("Choose demo.plain").check()
        expect(tab.page.locator("#chosen")).to_have_text("2 chosen")
        tab.page.get_by_role("button", name="Ask the chosen sources together").click()
        expect(tab.page.locator("fieldset")).to_have_count(2)


def test_many_records_are_shown_in_part_until_somebody_wants_all(stack, regions, browser):
    with browser.tab(stack.port) as tab:
        tab.open("/try?source=demo.list&1.category=big")
        tab.page.get_by_role("button", name="Run", exact=True).click()
        rows = tab.page.locator(".records tbody tr")
        expect(rows).to_have_count(200)
        tab.page.get_by_role("button", name="Show all 500 records").click()
        expect(rows).to_have_count(500)


def test_csv_of_a_result_is_what_the_interface_gives(stack, regions, browser, tmp_path):
    with browser.tab(stack.port) as tab:
        tab.open("/try?source=demo.list&1.category=hostile")
        tab.page.get_by_role("button", name="Run", exact=True).click()
        with tab.page.expect_download() as waited:
            tab.page.get_by_role("link", name="CSV").click()
        assert waited.value.suggested_filename == "demo.list.csv"
        waited.value.save_as(tmp_path / "a.csv")
    reply = ask(stack.port, "GET", "/v1/sources/demo.list/records?category=hostile", {"Accept": "text/csv"})
    assert (tmp_path / "a.csv").read_bytes() == reply.body
    assert reply.body.startswith(b"name,price,link")


def test_without_a_gateway_the_page_says_so(stack, browser):
    with browser.tab(stack.port) as tab:
        tab.expected = ("ERR_INTERNET_DISCONNECTED",)
        tab.open(POETRY)
        tab.context.set_offline(True)
        tab.page.get_by_role("button", name="Run", exact=True).click()
        expect(tab.page.locator("#problem")).to_have_text("The gateway does not answer.")


def test_the_body_that_is_posted_is_the_one_of_the_curl_command(stack, regions, browser):
    with browser.tab(stack.port) as tab:
        tab.open("/try?source=demo.list&1.category=a&1.page=2&source=demo.plain&deadline=5")
        with tab.page.expect_request("**/v1/requests") as waited:
            tab.page.get_by_role("button", name="Run", exact=True).click()
        assert json.loads(waited.value.post_data) == {
            "sources": [{"source": "demo.list", "params": {"category": "a", "page": 2}}, {"source": "demo.plain", "params": {}}],
            "deadline": 5,
        }  # fmt: skip
