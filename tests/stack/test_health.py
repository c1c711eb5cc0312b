"""A site changes its mark-up under a running stack: its source is degraded within 20 runs, no other one is, and it recovers."""

import json
import urllib.request

import pytest

from tests.site import behave
from tests.stack.driving import Ledger
from tests.waiting import until
from web.hub.verdict import KEPT, LAST, RUNS_MIN

ASKED = [
    "price.list",
    "ecb.rates",
    {"source": "taste.recipe", "params": {"slug": "pastel-de-nata"}},
    {"source": "nws.forecast", "params": {"office": "TOP", "x": 31, "y": 80}},
]
NAMES = {"price.list", "ecb.rates", "taste.recipe", "nws.forecast"}
SECONDS = 150.0
CHANGES = {  # the page of a source, what stands there, what instead, and what is said of it then
    "a field": ("price.list", "/charset.example/preisliste.html", "bemerkung", "hinweis", "note stands in 0% of the records"),
    "the rows": ("ecb.rates", "/www.ecb.europa.eu/", "currency=", "iso=", "of the last 20 runs succeeded, the others failed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def stack(forked_stack):
    return forked_stack


def run(stack, times: int) -> None:
    """So many runs of each source, one after the other (at the same time they would be one), until all of them are judged.

    One that a test before has made may be judged meanwhile, too.
    """
    ledger, expected = Ledger(stack), {name: min(KEPT, judged(stack, name) + times) for name in NAMES}
    for _ in range(times):
        ledger.collect(ledger.post(ASKED))
    assert len(ledger.delivered) == len(ASKED) * times
    until(lambda: all(judged(stack, name) >= expected[name] for name in NAMES), "all runs to be judged", SECONDS)


def views(stack) -> dict[str, dict]:
    found = stack.get("/v1/sources")
    return {view["id"]: view for view in found["sources"] if view["id"] in NAMES}


def judged(stack, source: str) -> int:
    """How many runs of a source its verdict is of."""
    learned = stack.get(f"/v1/sources/{source}")["learned"]
    return learned["runs"] + learned["before"] if learned else 0


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_mark_up_degrades_its_source_and_no_other(stack, inside, change):
    source, prefix, old, new, reason = CHANGES[change]
    run(stack, LAST)
    run(stack, RUNS_MIN)
    until(lambda: {view["health"] for view in views(stack).values()} == {"ok"}, "all sources to be well", SECONDS)
    site = f"http://127.0.0.1:{inside.ports['site']}"
    with urllib.request.urlopen(stack_page(site, prefix), timeout=60) as answer:
        page = answer.read().decode("windows-1252")
    assert old in page
    inside.behave(prefix=prefix, body=page.replace(old, new))
    run(stack, LAST)

    def degraded() -> dict[str, dict] | None:
        """All sources, once this one is, for the reason that it should be."""
        seen = views(stack)
        is_so = seen[source]["health"] == "degraded" and any(reason in text for text in seen[source]["reasons"])
        return seen if is_so else None

    found = until(degraded, f"{source} to be degraded", SECONDS)
    assert {name for name, view in found.items() if view["health"] != "ok"} == {source}
    told = [text for text in found[source]["reasons"] if "saves nothing" not in text]  # the page of the rates is small
    assert [reason in text for text in told] == [True], told
    assert (
        f"source {source} (fra): degraded   {found[source]['reasons'][0]}"
        in stack.nearfetch("status", check=False).stdout
    )
    until(lambda: event(stack, "degraded").get("source") == source, "the event in the gateway's log", SECONDS)
    behave(inside.ports["site"])
    run(stack, LAST)
    until(lambda: views(stack)[source]["health"] == "ok", f"{source} to recover", SECONDS)
    until(lambda: event(stack, "recovered").get("source") == source, "the event in the gateway's log", SECONDS)


def stack_page(site: str, prefix: str) -> str:
    """Where the sample site has the page."""
    return site + (prefix if prefix.endswith("html") else f"{prefix}stats/eurofxref/eurofxref-daily.xml")


def event(stack, what: str) -> dict:
    """The last line of the gateway's log that says so."""
    found = [line for line in stack.log("gateway").rpartition("\n")[0].splitlines() if f"source {what}" in line]
    return json.loads(found[-1]) if found else {}


def test_bytes_kept_off_the_wan_are_told_by_source_region_and_day(stack, inside):
    """A page that is as it was (304) counts as what was not sent, so that no more crosses than was fetched."""
    run(stack, 2)

    def told() -> tuple[dict, dict, list[dict]] | None:
        """The sums of a source in a region: in all by both calls, and by day; once they agree."""
        here = stack.get("/v1/regions/fra")["sources"].get("price.list")
        there = stack.get("/v1/sources/price.list")["traffic"]
        days = there["fra"].pop("days") if "fra" in there else []
        return (
            (here, there, days)
            if here and here["spared"] and {**here, "today": 0} == {**there["fra"], "today": 0}
            else None
        )

    here, there, days = until(told, "the runs to be counted", SECONDS)
    assert there.keys() == {"fra"}
    assert here["runs"] > 0
    assert here["records"] > here["wire"] > 0
    assert min(here["raw"], here["received"]) > 0
    assert here["kept_off_wan"] == here["received"] + here["spared"] - here["wire"] > 0
    for what in ("runs", "received", "spared", "wire", "kept_off_wan"):
        assert sum(day[what] for day in days) == here[what], "the stack has been there for no longer than its days"
    assert here["today"]["runs"] in {0, days[0]["runs"]}, "0 at midnight"
    of_region = stack.get("/v1/regions/fra")["days"]
    assert {day["day"] for day in days} <= {day["day"] for day in of_region}
    assert sum(day["kept_off_wan"] for day in of_region) >= here["kept_off_wan"]
    assert "kept off the WAN: " in stack.nearfetch("status", check=False).stdout
    listed = stack.get("/v1/regions")["regions"]
    assert any(view["name"] == "fra" and "price.list" in view["sources"] for view in listed)
