"""The shipped sources on recorded answers of the real sites: each record that is known to be in them, value for value.

``ours`` says what a shipped record has for a key of an expected one: a field, or what is made of the record where the
expectation is written in another form.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import pytest

from jobs.definition.read import read
from jobs.page import Page
from jobs.parse.contract_check import check
from jobs.parse.source import Source
from regions.settings import ROOT
from tests.unit.jobs.parse.test_samples import FORMATS, SAMPLES, body_of, same

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no recorded answers at {SAMPLES}")

Ours = Mapping[str, str | Callable[[dict[str, Any]], Any]]


def as_they_are(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def minutes(row: dict[str, Any]) -> int:
    return row["prep_minutes"] + row["cook_minutes"]


SHIPPED: list[tuple[str, str, str, Ours]] = [
    ("ecb.rates", "currency/ecb-daily-2018-06-11.xml", "", as_they_are("date", "currency", "rate")),
    (
        "quakes.day",
        "seismic/usgs-all-day.geojson",
        "",
        as_they_are("id", "mag", "place", "lon", "lat", "depth_km") | {"time_utc": "time"},
    ),
    (
        "hn.front",
        "hackernews/hn-front-page1.html",
        "",
        as_they_are("rank", "title", "url", "site", "points", "user", "comments", "item_id"),
    ),
    (
        "books.list",
        "toscrape/books-index-page1.html",
        "https://books.toscrape.com/",
        as_they_are("title", "rating", "in_stock") | {"href": "link", "price_gbp": "price"},
    ),
    ("quotes.list", "toscrape/quotes-page1.html", "", as_they_are("text", "author", "tags") | {"author_href": "about"}),
    (
        "arxiv.search",
        "arxiv/arxiv-testing-start0-max10.atom",
        "",
        as_they_are(
            "id",
            "title",
            "published",
            "updated",
            "authors",
            "primary_category",
            "categories",
            "pdf_url",
            "doi",
            "comment",
        ),
    ),
    (
        "guardian.world",
        "feeds/guardian-world.rss",
        "",
        as_they_are("id", "title", "link") | {"date_utc": "published"},
    ),
    ("sitemap.urls", "sitemap/sitemaps-org.xml", "", as_they_are("loc", "lastmod", "changefreq", "priority")),
    (
        "nws.forecast",
        "weather/nws-gridpoints-forecast-us.json",
        "",
        as_they_are("number", "name", "temperature")
        | {
            "startTime": "start",
            "endTime": "end",
            "isDaytime": "is_daytime",
            "temperatureUnit": "temperature_unit",
            "windSpeed": "wind_speed",
            "windDirection": "wind_direction",
            "shortForecast": "short",
        },
    ),
    (
        "unlocode.subdivisions",
        "refdata/unlocode-subdivision-codes.csv",
        "",
        {"SUCountry": "country", "SUCode": "code", "SUName": "name", "SUType": lambda row: row["type"] or ""},
    ),
    (
        "crossref.works",
        "api/crossref-works-rows2.json",
        "",
        as_they_are("title", "type", "publisher", "issued", "cited_by", "container") | {"DOI": "doi"},
    ),
    (
        "line.tracking",
        "shipping/maersk-tracking-MSKU6874333.json",
        "",
        as_they_are("container", "terminal", "city", "activity", "actual_time", "expected_time", "vessel", "voyage")
        | {"country_code": "country", "stempty": "empty"},
    ),
    (
        "reel.tracking",
        "shipping/reel-container_page.html",
        "",
        {
            "#": lambda row: str(row["number"]),
            "Event Status": "status",
            "Event Date Time": lambda row: f"{datetime.fromisoformat(row['time']):%d-%b-%Y %H:%M:%S}".upper(),
            "Location": "location",
            "Ageing": lambda row: str(row["days"]),
            "Vessel Voyage": lambda row: f"{row['vessel']} / {row['voyage']}",
        },
    ),
    (
        "taste.recipe",
        "recipes/tasteatlas-com-tasteatlas.html",
        "",
        as_they_are("title", "author", "category", "cuisine", "ingredients", "image")
        | {
            "canonical_url": "page",
            "instructions_list": "steps",
            "yields": "servings",
            "description": "about",
            "ratings": "rating",
            "prep_time": "prep_minutes",
            "cook_time": "cook_minutes",
            "total_time": minutes,
        },
    ),
]
# What a shipped source leaves out: a time twice, what the client asked for, a picture of no use.
LEFT_OUT = {"date_raw", "site_name", "host", "image"}


@pytest.mark.parametrize(("name", "sample", "url", "ours"), SHIPPED)
def test_a_shipped_source_reads_the_recorded_answer_exactly(name, sample, url, ours):
    source = Source(read(ROOT / "jobs" / "sources" / f"{name}.toml"))
    definition = source.definition
    examples = {key: one.example for key, one in definition.params.items() if one.required}
    request = source.first(definition.bind(examples), {})
    parsed = source.parse(Page(request, url or request.url, 200, {}, body_of(sample)))
    check(definition, parsed.rows, bad_required=parsed.bad_required, empty=parsed.empty)
    assert parsed.warnings == []
    expected = json.loads((SAMPLES / f"{sample}.expect.json").read_text(encoding="utf-8"))
    assert len(parsed.rows) == expected["record_count"]
    last = expected.get("last_records", [])
    known = [*zip(parsed.rows, expected["records"], strict=False), *zip(parsed.rows[-len(last) :], last, strict=False)]
    for row, wanted in known:
        assert set(wanted) - set(ours) <= LEFT_OUT
        for key, mine in ours.items():
            value = row[mine] if isinstance(mine, str) else mine(row)
            assert same(value, wanted[key], url or request.url), (key, value, wanted)


def test_every_recorded_answer_has_a_definition():
    samples = {str(path.relative_to(SAMPLES)).removesuffix(".expect.json") for path in SAMPLES.rglob("*.expect.json")}
    assert samples == {*FORMATS, *(sample for _, sample, _, _ in SHIPPED)}
