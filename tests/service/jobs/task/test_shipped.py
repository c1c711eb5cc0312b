"""Every shipped source against its page on the sample site: the records that the page was made of, exactly.

What is expected is written from the data of ``scripts.site.pages``, which shares no code with what reads pages.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.definition.read import read
from jobs.task.runner import Runner
from regions import settings
from regions.settings import ROOT
from scripts.site.behave import Rule
from scripts.site.pages import arxiv, crossref, ecb, sitemap
from scripts.site.site import Site, origins
from tests.service import made
from tests.site import _well_behaved, site
from tests.unit.jobs.task.test_runner import run

__all__ = ["_well_behaved", "site"]

SHIPPED = ROOT / "jobs" / "sources"


@pytest.fixture(scope="module")
def make_runner(site: Site) -> Iterator[Callable[[str], Runner]]:
    """Makes runners of the shipped sources and those of a folder."""
    started: list[Runner] = []

    def make(folder: str = "") -> Runner:
        fetch = {
            "NEARFETCH__FETCH__ALLOW": f"127.0.0.1:{site.port}",
            "NEARFETCH__FETCH__ORIGINS": origins(site.port),
            "NEARFETCH__SOURCES__PATH": folder,
        }
        found = settings.load({key: value for key, value in fetch.items() if value})
        started.append(Runner(found, found.one("fra")))
        return started[-1]

    yield make
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def runner(make_runner: Callable[[str], Runner]) -> Runner:
    return make_runner("")


FORECAST = {"office": "OKX", "x": 3, "y": 141}
INDEX = {"url": sitemap.HOST + sitemap.INDEX}
# source, params (those left out are the examples), records
CASES: list[tuple[str, dict[str, Any], Callable[[], made.Records]]] = [
    ("ecb.rates", {}, lambda: made.rates(ecb.DAY)),
    ("ecb.history", {}, lambda: made.rates(*ecb.days())),
    ("quakes.day", {}, made.earthquakes),
    ("hn.front", {}, made.front_page),
    ("hn.item", {}, lambda: made.comments(46_000_000)),
    ("hn.item", {"id": 46_000_001}, list),
    ("books.list", {}, lambda: made.category(23)),
    ("books.list", {"category": "essays_10"}, lambda: made.category(10)),
    ("quotes.list", {}, lambda: made.quoted(*range(1, 11), login=False)),
    ("quotes.login", {}, lambda: made.quoted(1, login=True)),
    ("arxiv.search", {}, made.papers),
    ("arxiv.search", {"start": 70}, lambda: made.papers()[70:]),
    ("arxiv.search", {"q": arxiv.NOTHING}, list),
    ("guardian.world", {}, made.world_news),
    ("sitemap.urls", {}, made.places),
    ("sitemap.urls", INDEX, made.index_of_sitemaps),
    ("sitemap.urls", {"url": sitemap.HOST + sitemap.EMPTY}, list),
    ("nws.forecast", {}, lambda: made.forecast("TOP", 31, 80)),
    ("nws.forecast", FORECAST, lambda: made.forecast(**FORECAST)),
    ("unlocode.subdivisions", {}, made.subdivisions),
    ("crossref.works", {}, made.works),
    ("crossref.works", {"rows": 40}, lambda: made.works()[: 5 * 40]),
    ("crossref.works", {"query": crossref.NOTHING}, list),
    ("line.tracking", {}, lambda: made.box_of_the_line("MSKU6874333")),
    ("line.tracking", {"number": "EMPT0000000"}, list),
    ("line.tracking", {"number": "XXXX1234567"}, list),
    ("reel.tracking", {}, lambda: made.box_of_reel("TEMU1234565")),
    ("reel.tracking", {"container": "EMPT0000000"}, list),
    ("price.list", {}, made.prices),
    ("taste.recipe", {}, lambda: made.recipe("pastel-de-nata")),
    ("taste.recipe", {"slug": "salt-soup"}, lambda: made.recipe("salt-soup")),
    ("slow.example", {}, made.late),
]
# Further properties of a source's pages.
LAST = "page {} is the last that max_pages allows; there may be a further one"
WARNED_OF_ALL = {"arxiv.search {}": [LAST.format(3)], "crossref.works {'rows': 40}": [LAST.format(5)]}
WARNED = {
    "price.list": ["the header says utf-8, and the page does not declare its real charset; it was read as windows-1252"]
}


def ask(runner: Runner, source: str, **params: Any):
    examples = {name: one.example for name, one in read(SHIPPED / f"{source}.toml").params.items() if one.required}
    return run(runner, source, **examples | params)


@pytest.mark.parametrize(("source", "params", "expected"), CASES)
def test_a_shipped_source_gives_the_records_that_its_page_was_made_of(runner, source, params, expected):
    result, records, _ = ask(runner, source, **params)
    assert (result.status, result.error, result.partial) == ("succeeded", None, False)
    assert result.warnings == WARNED.get(source, WARNED_OF_ALL.get(f"{source} {params}", []))
    assert records == expected()


def test_every_shipped_source_is_among_the_cases():
    """Each shipped source has a page on the sample site."""
    assert {case[0] for case in CASES} == {path.stem for path in SHIPPED.glob("*.toml")}


# source, params, a rule for its page or nothing, the error's type
FAILURES = [
    ("hn.item", {"id": 1}, {}, "contract"),  # "No such item."
    ("ecb.history", {}, {"body": "<Envelope/>"}, "contract"),
    ("arxiv.search", {"q": " "}, {"status": 400}, "http_status"),
    ("quotes.list", {}, {"body": "<html>Down for now</html>"}, "contract"),
    ("guardian.world", {}, {"cut": 3000}, "connection"),
    ("unlocode.subdivisions", {}, {"mislabel": "encoding"}, "decode"),
    ("sitemap.urls", {"url": "https://www.sitemaps.org/none.xml"}, {}, "http_status"),
    ("sitemap.urls", {"url": "http://169.254.169.254/sitemap.xml"}, {}, "blocked_address"),
    ("sitemap.urls", {"url": "https://www.sitemaps.org:8443/sitemap.xml"}, {}, "blocked_address"),
    ("sitemap.urls", {"url": "https://elsewhere.example/sitemap.xml"}, {}, "blocked_address"),
    ("nws.forecast", {"office": "XXX"}, {}, "http_status"),
    ("crossref.works", {"cursor": "made up"}, {}, "http_status"),
    ("line.tracking", {}, {"body": '{"containers": []}'}, "contract"),
    ("reel.tracking", {}, {"body": "<form method=post></form>"}, "contract"),
    ("taste.recipe", {"slug": "no-such"}, {}, "http_status"),
    ("taste.recipe", {}, {"status": 403, "body": "<form id=challenge-form></form>"}, "blocked"),
]


@pytest.mark.parametrize(("source", "params", "rule", "error"), FAILURES)
def test_a_shipped_source_says_what_went_wrong(runner, site, source, params, rule, error):
    if rule:
        site.behaviour.add(Rule(prefix="/", **rule))
    result, records, _ = ask(runner, source, **params)
    assert (result.status, records, result.error.type) == ("failed", [], error)


def test_a_later_page_that_is_absent_ends_the_pages(runner, site):
    """The source declares 404 as absent: that page has no rows, and those of earlier pages stay."""
    site.behaviour.add(Rule(prefix="/api.line.example/track/MSKU6874333?cursor=", status=404))
    result, records, _ = ask(runner, "line.tracking")
    assert (result.status, len(records)) == ("succeeded", 3)


def test_a_price_list_that_says_what_it_is_gives_the_same(runner, site):
    """The bytes decide when the declaration is wrong or missing."""
    said = {"Content-Type": "text/html; charset=windows-1252"}
    site.behaviour.add(Rule(prefix="/charset.example/", headers=said))
    assert ask(runner, "price.list")[1] == made.prices()


@pytest.mark.parametrize(("old", "new"), [('password = "reader"', 'password = "guess"'), ("{before.token}", "0" * 32)])
def test_a_failed_login_is_told_from_an_empty_page(make_runner, tmp_path: Path, old, new):
    """A wrong password, or a token that the form did not have, brings the form again."""
    shutil.copy(SHIPPED / "quotes.login.toml", tmp_path / "quotes.wrong.toml")
    path = tmp_path / "quotes.wrong.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    result, _, _ = run(make_runner(str(tmp_path)), "quotes.wrong")
    assert (result.status, result.error.type) == ("failed", "blocked")


def test_each_login_has_a_session_of_its_own(runner, site):
    """Nothing of a session outlives its task: each task fetches the form."""
    before = site.fetches.since(0)[0]
    for _ in range(2):
        ask(runner, "quotes.login")
    fetched = site.fetches.since(before)[1]
    assert fetched == {"/quotes.toscrape.com/login": 4, "/quotes.toscrape.com/": 2}


def test_a_page_of_a_listing_that_fails_leaves_what_came_before(runner, site):
    site.behaviour.add(Rule(prefix="/quotes.toscrape.com/page/4/", status=503))
    result, records, _ = ask(runner, "quotes.list")
    assert (result.status, result.partial) == ("succeeded", True)
    assert records == made.quoted(1, 2, 3, login=False)
    assert result.warnings == ["page 4 failed: http_status: expected a page, found status 503"]
