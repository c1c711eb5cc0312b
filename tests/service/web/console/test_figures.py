"""The pages Regions, Sources, Alerts and Day in a real browser, with a whole gateway and 200 sources; the test plays the regions."""

import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from jobs.contract import Error, Run
from jobs.definition.catalog import Catalog
from regions import connect, names
from tests.service.conftest import RedisInstance
from tests.service.gateway import Stack
from tests.service.web.console.conftest import shorten
from tests.waiting import until
from tests.wire import ask
from web.hub import ids
from web.hub.runs import Runs

SOURCES = 200
FIELDS = "[rows]\ncss = 'li'\n[fields]\nname = 'b'\nprice = {css = 'i', type = 'decimal'}\n"
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
HTML = {"Accept": "text/html"}
PAGES = ("/regions", "/sources", "/sources/made.s001", "/alerts", "/runbooks", "/day")


class Regions(Stack):
    """A gateway with 200 sources, and regions that report as long as they are told to."""

    def __init__(self, folder, rabbitmq, hub) -> None:
        super().__init__(folder, rabbitmq, hub)
        for number in range(SOURCES - len(self.catalogue())):
            region = ("fra", "nyc", "sin")[number % 3]
            text = f"title = 'Prices, number {number}'\nurl = 'https://www.made{number}.org/'\nregion = '{region}'\n{FIELDS}"
            (folder / "sources" / f"made.s{number:03}.toml").write_text(text)
        self.client = connect.open_redis(hub.url, name="test", block_seconds=30.0)  # a busy hub ends no reports
        self.apart = 0  # sources for tests
        self.well = {"fra", "nyc", "sin"}  # the regions that report
        self.bridges = {"fra": {}, "nyc": {}, "sin": {}}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._thread.start()

    def catalogue(self) -> list[dict]:
        return ask(self.port, "GET", "/v1/sources").json()["sources"]

    def regions(self) -> list[dict]:
        return ask(self.port, "GET", "/v1/regions").json()["regions"]

    def _report(self) -> None:
        entries = Catalog([self.folder / "sources"], "fra")
        entries.refresh()
        while not self._is_over.wait(1.0):
            now_ms = connect.redis_now_ms(self.client)
            for region in list(self.well):
                self._say(region, "bridge", at_ms=now_ms, **{"state": "consuming", **self.bridges[region]})
                self._say(region, "workers", at_ms=now_ms, processes=2, threads=128, busy=14, scale=scale(now_ms), minutes=minutes(now_ms))  # fmt: skip
                said = {one.id: {"definition": one.definition.hash, "fault": None} for one in entries.entries() if one.region == region and one.definition}  # fmt: skip
                if region == "fra":
                    said["made.s003"]["trouble"] = f"https://www.made3.org:443 is left alone: {HOSTILE}"
                self.region.say_sources(region, said)

    def _say(self, region: str, part: str, **said) -> None:
        self.region.say(region, part, f"{region}:1", **said)

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()
        self.client.close()
        super().stop()


def scale(now_ms: int) -> dict:
    decision = {"at": "2026-11-29T11:40:00.000Z", "was": 1, "number": 2, "reason": "the oldest task waits 3.2 s"}
    return {"at_ms": now_ms, "number": 2, "ready": 2, "needed": 2, "min": 1, "max": 4, "load": HOSTILE, "decided_by": "a", "asked": None, "decisions": [decision]}  # fmt: skip


def minutes(now_ms: int) -> list[dict]:
    last = now_ms // 60_000 * 60
    return [{"at": last - 60 * back, "arrived": 40 + back, "ended": 40, "ready": 2, "wanted": 2, "oldest_seconds": 3.0 if back == 5 else 0.1} for back in range(20)]  # fmt: skip


def ran(made: Regions, source: str, error: str = "", *, task: str = "", count: int = 1) -> None:
    """Runs of a source as a gateway notes them."""
    entry = next(one for one in made.gateway.catalog.entries() if one.id == source)
    runs = Runs(made.client)
    for _ in range(count):
        one = Run(source=source, definition=entry.definition.hash, error=error, origin="parser" if error else "", rows=30, raw_bytes=9_000, received_bytes=9_000, wire_bytes=900, busy_ms=80, gaps={"price": 12})  # fmt: skip
        of = task or ids.task(ids.new(), 1)
        runs.add(entry.region, one, connect.redis_now_ms(made.client), of)
    runs.flush()


@pytest.fixture(scope="module")
def made(tmp_path_factory, rabbitmq) -> Iterator[Regions]:
    folder = tmp_path_factory.mktemp("figures")
    hub = RedisInstance(folder, "hub")
    try:
        found = Regions(folder, rabbitmq, hub)
        try:
            prepare(found)
            yield found
        finally:
            found.stop()
    finally:
        hub.stop()


def prepare(found: Regions) -> None:
    """Makes runs of the sources, and waits until every region has reported."""
    found.region.purge()
    until(lambda: len(found.catalogue()) == SOURCES, "the sources to be read")
    found.apart = sum(one["test"] for one in found.catalogue())
    ran(found, "made.s001", count=40)
    ran(found, "made.s001", "contract")
    for number in range(2, 40):
        ran(found, f"made.s{number:03}", count=number % 7)
    until(lambda: found.client.hlen(names.day_at_hub("fra")), "the day to be told")
    until(lambda: {one["status"] for one in found.regions()} == {"up"}, "all regions to be up")
    until(lambda: b"is left alone" in ask(found.port, "GET", "/sources/made.s003", HTML).body, "a source's trouble")


@pytest.mark.parametrize(("dark", "phone"), [(False, False), (True, True)])
def test_every_page_is_accessible_and_fits_in_light_and_dark(browser, made, dark, phone):
    with browser.tab(made.port, dark=dark, phone=phone) as tab:
        for path in PAGES:
            tab.open(path)
            tab.fits()
            shorten(tab)
            tab.is_accessible()


# All that is said, since another region may be slow meanwhile, and say so.
ALL_SAID = """() => {
    window.allSaid = [];
    new MutationObserver(() => {
        const said = document.getElementById("said")?.textContent;
        if (said && said !== allSaid.at(-1)) allSaid.push(said);
    }).observe(document.body, {childList: true, characterData: true, subtree: true});
}"""


def test_a_bridge_that_stops_is_seen_without_a_reload_and_said_once(browser, made):
    with browser.tab(made.port) as tab:
        tab.open("/regions")
        lane = tab.page.locator("#lane-nyc")
        tab.page.wait_for_function("() => document.getElementById('live').textContent === 'Live.'")
        tab.page.wait_for_selector("#lane-nyc[data-status=up]")
        tab.page.evaluate(ALL_SAID)
        made.bridges["nyc"] = {"state": "paused", "reason": HOSTILE}
        tab.page.wait_for_selector("#lane-nyc[data-status=degraded] .stage.bad")
        expect(lane).to_contain_text(HOSTILE)
        tab.page.wait_for_function("() => allSaid.includes('nyc is degraded')")
        assert tab.page.evaluate("allSaid").count("nyc is degraded") == 1
        made.bridges["nyc"] = {}
        tab.page.wait_for_selector("#lane-nyc[data-status=up]")
        made.well.discard("nyc")
        tab.page.wait_for_selector("#lane-nyc[data-status=down]")
        made.well.add("nyc")
        tab.page.wait_for_selector("#lane-nyc[data-status=up]")
        assert tab.page.title() == "Regions · Nearfetch"


def test_what_has_the_focus_in_a_lane_stays(browser, made):
    with browser.tab(made.port) as tab:
        tab.open("/regions")
        tab.page.wait_for_function("() => document.getElementById('live').textContent === 'Live.'")
        tab.page.locator("#lane-sin summary, #lane-sin a").first.focus()
        before = tab.focused()
        made.bridges["sin"] = {"ready": 5}
        tab.page.wait_for_function(
            "() => document.querySelector('#lane-sin .flow').textContent.includes('ready in RQ5')"
        )
        assert tab.focused() == before
        made.bridges["sin"] = {}


def test_lanes_and_sources_are_read_without_scripts(browser, made):
    with browser.tab(made.port, scripts=False) as tab:
        tab.open("/regions")
        for said in (
            "consuming",
            "in flight",
            "Why so many workers",
            "the oldest task waits 3.2 s",
            "kept off the WAN",
        ):
            assert said in tab.text()
        tab.open("/sources?q=number+11&health=ok")
        rows = tab.page.locator("tr[data-find]:visible")
        assert all("number 11" in row.inner_text() for row in rows.all())
        assert rows.count() > 5


def test_a_source_is_found_among_200_and_test_sources_stand_apart(browser, made):
    with browser.tab(made.port) as tab:
        tab.open("/sources")
        assert tab.page.locator("table.catalogue").first.locator("tbody tr").count() == SOURCES - made.apart
        rows = tab.page.locator("table.catalogue tbody tr")  # what is not well stands first
        assert "demo.broken" in rows.nth(0).inner_text()
        assert "made.s003" in rows.nth(1).inner_text()
        assert HOSTILE in rows.nth(1).inner_text()
        tests = tab.page.locator("details.tests")
        assert f"Sources for tests ({made.apart})" in tests.inner_text()
        assert made.apart >= 3
        assert not tests.get_by_text("demo.list").first.is_visible()
        tab.page.get_by_role("searchbox").fill("nyc number 100")
        tab.page.wait_for_function(f"() => document.getElementById('count').textContent === '1 of {SOURCES} sources'")
        expect(tab.page.locator("tr[data-find]:visible")).to_have_count(1)
        tab.page.get_by_role("link", name="made.s100", exact=True).click()
        tab.page.wait_for_url("**/sources/made.s100")
        assert tab.page.get_by_role("link", name="Try it").get_attribute("href") == "/try?source=made.s100"
        tab.page.go_back()
        expect(tab.page.locator("tr[data-find]:visible")).to_have_count(1)


def test_the_keyboard_reaches_the_search_and_the_test_sources(browser, made):
    with browser.tab(made.port) as tab:
        tab.open("/sources")
        tab.page.get_by_role("searchbox").focus()
        tab.page.keyboard.type("demo.plain")
        tab.page.wait_for_function(f"() => document.getElementById('count').textContent === '1 of {SOURCES} sources'")
        expect(tab.page.get_by_role("link", name="demo.plain", exact=True)).to_be_visible()
        summary = tab.page.locator("details.tests summary")
        summary.focus()
        tab.press("Enter")
        expect(tab.page.get_by_role("link", name="demo.plain", exact=True)).to_be_hidden()


def test_a_source_says_why_it_is_not_well_and_where_its_failure_is_kept(browser, made):
    until(lambda: made.post({"sources": ["made.s002"]}).status == 202, "a request to be accepted")
    task = made.region.take("sin")
    message = f"expected at least 1 row, found none {HOSTILE}"
    made.region.finish(task, error=Error(type="contract", message=message, origin="parser"))
    until(lambda: ask(made.port, "GET", f"/v1/requests/{task.request}").json()["done"], "the request to be done")
    ran(made, "made.s002", "contract", task=task.task)
    with browser.tab(made.port) as tab:
        tab.open("/sources/made.s002")
        text = tab.text()
        assert message in text
        assert f"nearfetch source replay {task.task}" in text
        assert tab.page.get_by_role("link", name=task.request).get_attribute("href") == f"/requests/{task.request}"
        assert "1 failed" in text
        tab.open("/sources/made.s001")
        rows = tab.page.get_by_role("row").filter(has_text="price")
        assert "60.0%" in rows.first.inner_text()
        tab.open("/sources/made.s003")
        assert "https://www.made3.org:443 is left alone" in tab.text()


def test_a_fault_comes_and_goes_without_a_reload_and_nothing_says_what_is_looked_at(browser, made):
    with browser.tab(made.port) as tab:
        tab.open("/alerts")
        made.bridges["sin"] = {"state": "paused", "reason": "its Redis is full"}
        fault = tab.page.locator(".fault").filter(has_text="its Redis is full")
        fault.wait_for()
        text = fault.inner_text()
        for said in ("It costs", "What mends it", "since", "in sin"):
            assert said in text
        runbook = fault.get_by_role("link", name="Runbook of").get_attribute("href")
        assert runbook.startswith("/runbooks#region-")
        made.bridges["sin"] = {}
        fault.wait_for(state="detached")
        assert "region-workers-away" in tab.text()


def test_a_day_has_a_time_axis_and_a_legend(browser, made):
    with browser.tab(made.port, dark=True) as tab:
        tab.open("/day?region=fra")
        picture = tab.page.get_by_role("img", name="The last day of fra")
        text = picture.text_content()
        for said in ("time of day, UTC", "Tasks a minute", "came, at most 59", "target, 2 s"):
            assert said in text, said
        assert "tasks came in" in tab.text()
        tab.page.get_by_role("link", name="sin").click()
        tab.page.wait_for_url("**/day?region=sin")


def test_a_region_or_source_that_is_not_there_is_told_as_a_page(browser, made):
    with browser.tab(made.port) as tab:
        tab.expected = ("404",)
        tab.open("/day?region=xyz")
        assert 'there is no region "xyz"' in tab.text()
        tab.open("/sources/none.such")
        assert "none.such" in tab.text()
