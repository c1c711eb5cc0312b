"""Recorded answers of real sources, each described in TOML, against the records that are known to be in them.

They stand beside the checkout (``../shared/samples``) and are skipped where they do not. What shipped
sources make of theirs is in ``test_shipped_samples``.
"""

import gzip
import json
import re
from decimal import Decimal
from urllib.parse import urljoin

import pytest

from jobs.definition.read import read
from jobs.page import Page
from jobs.parse.source import Source
from regions.settings import ROOT

# What a recipe takes in all stands nowhere on its page.
TOTAL = """
from collections.abc import Iterator

from jobs.parse import jsonld
from jobs.text.dates import duration
from jobs.page import Page


def parse(page: Page) -> Iterator[dict[str, object]]:
    for recipe in jsonld.nodes(page.html, "Recipe", []):
        yield {**recipe, "total": int(duration(recipe["prepTime"]) + duration(recipe["cookTime"])) // 60}
"""

SAMPLES = ROOT.parent / "shared" / "samples"

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no recorded answers at {SAMPLES}")

HEAD = "title = 'A sample'\nurl = '{url}'\n"

FORMATS = {
    "articles/panarmenian-net-d90bda7e.html": (
        "http://www.panarmenian.net/eng/news/275221/",
        """
        [fields]
        articleBody = {css = "#article_block > p", many = true, join = "\\n\\n"}
        """,
    ),
    "huge/rd-wikipedia-2.html": (
        "https://en.wikipedia.org/wiki/New_Zealand",
        """
        [rows]
        jsonld = "Article"
        [fields]
        title = {jmes = "name"}
        byline = {jmes = "author.name"}
        excerpt = {css = "#coordinates", re = '^(.+)\\x{FEFF} / '}
        siteName = {jmes = "publisher.name"}
        lang = {css = "html::attr(lang)"}
        dir = {css = "html::attr(dir)"}
        publishedTime = {jmes = "datePublished", type = "datetime"}
        """,
    ),
    "products/johnlewis-com-96e88e40.html": (
        "https://www.johnlewis.com/ridleys-gin-lover-jigsaw-puzzle-500-pieces/p3897500",
        """
        [rows]
        jsonld = "product"
        [fields]
        availability = {jmes = "offers.availability"}
        brand = {jmes = "brand.name"}
        currency = {jmes = "offers.priceCurrency", map = {GBP = "£"}}
        price = {jmes = "offers.price"}
        sku = {xpath = "//link[@rel='canonical']/@href | //p[@class='product-code']", many = true, re = '(\\d+)$'}
        url = {template = "{page.url}"}
        """,
    ),
    "api/crossref-works-rows2.json": (
        "https://api.crossref.org/works?rows=2",
        """
        [rows]
        jmes = "message.items"
        [fields]
        DOI = {}
        title = {jmes = "title[0]"}
        type = {}
        publisher = {}
        issued = {jmes = 'issued."date-parts"[0]'}
        cited_by = {jmes = '"is-referenced-by-count"'}
        container = {jmes = '"container-title"[0]'}
        """,
    ),
    "arxiv/arxiv-testing-start0-max10.atom": (
        "https://export.arxiv.org/api/query",
        """
        format = "feed"
        [namespaces]
        arxiv = "http://arxiv.org/schemas/atom"
        [fields]
        id = {}
        title = {}
        published = {type = "datetime"}
        updated = {type = "datetime"}
        authors = {xpath = "atom:author/atom:name", many = true}
        primary_category = {xpath = "arxiv:primary_category/@term"}
        categories = {many = true}
        pdf_url = {xpath = "atom:link[@title='pdf']/@href", type = "url"}
        doi = {xpath = "arxiv:doi"}
        comment = {xpath = "arxiv:comment"}
        """,
    ),
    "encoding/cd-SHIFT_JIS-yasuhisa.com.xml": (
        "http://www.yasuhisa.com/could/index.rdf",
        """
        format = "feed"
        [fields]
        title = {}
        link = {type = "url"}
        id = {}
        date_raw = {key = "published"}
        date_utc = {key = "published", type = "datetime", tz = "UTC"}
        """,
    ),
    "feeds/broken-illegally-nested.xml": (
        "http://www.pcmag.com/",
        """
        format = "feed"
        [fields]
        title = {}
        link = {type = "url"}
        id = {}
        date_raw = {key = "published"}
        date_utc = {key = "published", type = "datetime", to_tz = "UTC"}
        """,
    ),
    "feeds/guardian-world.rss": (
        "https://www.theguardian.com/world/rss",
        """
        format = "feed"
        [fields]
        title = {}
        link = {type = "url"}
        id = {}
        date_raw = {key = "published"}
        date_utc = {key = "published", type = "datetime"}
        """,
    ),
    "feeds/youtube-channel.atom": (
        "https://www.youtube.com/feeds/videos.xml",
        """
        format = "feed"
        [fields]
        title = {}
        link = {type = "url"}
        id = {}
        date_raw = {key = "published"}
        date_utc = {key = "published", type = "datetime", to_tz = "UTC"}
        """,
    ),
    "listings/nycparks-events-page1.html": (
        "http://www.nycgovparks.org/events",
        """
        [rows]
        css = "div.event"
        [fields]
        title = "h3"
        href = {css = "h3 a::attr(href)", type = "url"}
        start = {css = "[itemprop=startDate]::attr(content)", type = "datetime"}
        end = {css = "[itemprop=endDate]::attr(content)", type = "datetime"}
        places = {css = "h4.location [itemprop=name]", many = true, re = '^(.+?),?$'}
        categories = {xpath = ".//strong[contains(., 'Category')]/following-sibling::span/a", many = true}
        free = {css = "p", re = 'Free!', type = "bool"}
        """,
    ),
    "listings/zoeken-nu-rabobank.html": (
        "http://www.zoeken.nu/115755/bedrijf/rabobank-drechtsteden.html",
        """
        [rows]
        xpath = "//img[@alt='Openingstijden']/following::table[1]//tr"
        [fields]
        day = {css = "td:first-child", re = '^(\\w+):'}
        hours = "td:nth-child(2)"
        """,
    ),
    "listings/jslcae-news-page2.html": (
        "http://jslcae.com/xingyexinwen/list_48_2.html",
        """
        [rows]
        css = "div.nconzx"
        [fields]
        title = ".nconzxl1"
        href = "a::attr(href)"
        image = "img::attr(src)"
        summary = ".nconzxl2"
        """,
    ),
    "recipes/tasteatlas-com-tasteatlas.html": (
        "https://www.tasteatlas.com/pastel-de-nata/recipe",
        """
        [fields]
        author = {jmes = "author.name"}
        canonical_url = {css = "link[rel=canonical]::attr(href)", type = "url"}
        site_name = {const = "Taste Atlas"}
        host = {template = "{page.url}", re = '^https?://(?:www\\.)?([^/]+)'}
        title = {jmes = "name"}
        ingredients = {jmes = "recipeIngredient", many = true}
        instructions_list = {jmes = "recipeInstructions[].text || recipeInstructions", many = true}
        category = {jmes = "recipeCategory"}
        yields = {jmes = "recipeYield"}
        description = {jmes = "description", parse = "html"}
        total_time = {jmes = "total", type = "int"}
        cook_time = {jmes = "cookTime", type = "duration", scale = "1/60"}
        prep_time = {jmes = "prepTime", type = "duration", scale = "1/60"}
        cuisine = {jmes = "recipeCuisine"}
        ratings = {jmes = "aggregateRating.ratingValue", type = "float"}
        image = {jmes = "image[0]"}
        """,
    ),
    "refdata/unlocode-subdivision-codes.csv": ("https://datahub.example/x.csv", 'format = "csv"\n'),
    "seismic/usgs-all-day.geojson": (
        "https://earthquake.usgs.gov/earthquakes/feed/v1.0/summary/all_day.geojson",
        """
        [rows]
        jmes = "features"
        [fields]
        id = {}
        mag = {jmes = "properties.mag"}
        place = {jmes = "properties.place"}
        time_utc = {jmes = "properties.time", type = "datetime", format = "unix_ms"}
        lon = {jmes = "geometry.coordinates[0]"}
        lat = {jmes = "geometry.coordinates[1]", type = "decimal"}
        depth_km = {jmes = "geometry.coordinates[2]", type = "float"}
        """,
    ),
    "shipping/maersk-tracking-MSKU6874333.json": (
        "https://api.maersk.com/track/MSKU6874333",
        """
        format = "json"
        [rows]
        each = ["containers", "locations", "events"]
        [fields]
        container = {jmes = "container_num", level = 1}
        terminal = {level = 2}
        city = {level = 2}
        country_code = {level = 2}
        activity = {}
        stempty = {}
        actual_time = {type = "datetime", tz = "local"}
        expected_time = {type = "datetime", tz = "local"}
        vessel = {jmes = "vessel_name"}
        voyage = {jmes = "voyage_num"}
        """,
    ),
    "shipping/reel-container_page.html": (
        "https://reel.example/track",
        """
        [rows]
        css = "tr.Mainlabel4"
        [fields]
        "#" = "td:nth-child(1)"
        "Event Status" = "td:nth-child(2)"
        "Event Date Time" = "td:nth-child(3)"
        Location = "td:nth-child(4)"
        Ageing = "td:nth-child(5)"
        "Vessel Voyage" = "td:nth-child(6)"
        """,
    ),
    "toscrape/books-detail-a-light-in-the-attic.html": (
        "http://books.toscrape.com/catalogue/a-light-in-the-attic_1000/index.html",
        """
        [fields]
        title = "h1"
        price_gbp = {css = ".price_color", type = "decimal"}
        rating = {css = ".product_main .star-rating::attr(class)", re = '(\\w+)$', map = {One = 1, Two = 2, Three = 3}}
        stock = {css = ".availability", type = "int"}
        upc = {xpath = "//th[.='UPC']/following-sibling::td"}
        tax_gbp = {xpath = "//th[.='Tax']/following-sibling::td", type = "decimal"}
        reviews = {xpath = "//th[.='Number of reviews']/following-sibling::td", type = "int"}
        category = {css = "ul.breadcrumb li:nth-child(3) a"}
        description_starts = {css = "#product_description + p", re = '^(.{80})'}
        """,
    ),
    "toscrape/books-index-page1.html": (
        "http://books.toscrape.com/",
        """
        [rows]
        css = "article.product_pod"
        [fields]
        title = "h3 a::attr(title)"
        href = {css = "h3 a::attr(href)", type = "url"}
        price_gbp = {css = ".price_color", type = "decimal"}
        rating = {css = ".star-rating::attr(class)", re = '(\\w+)$', map = {One = 1, Two = 2, Three = 3, Four = 4, Five = 5}}
        in_stock = {css = ".availability", re = "In stock", type = "bool"}
        image = {css = "img::attr(src)", type = "url"}
        """,
    ),
    "toscrape/quotes-page1.html": (
        "http://quotes.toscrape.com/page/1/",
        """
        [rows]
        css = "div.quote"
        [fields]
        text = "span.text"
        author = ".author"
        author_href = {css = "a::attr(href)", type = "url"}
        tags = {css = "a.tag", many = true}
        """,
    ),
    "weather/nws-gridpoints-forecast-us.json": (
        "https://api.weather.gov/gridpoints/forecast",
        """
        format = "json"
        [rows]
        jmes = "properties.periods"
        [fields]
        number = {}
        name = {}
        startTime = {type = "datetime"}
        endTime = {type = "datetime"}
        isDaytime = {}
        temperature = {type = "int"}
        temperatureUnit = {}
        windSpeed = {}
        windDirection = {}
        shortForecast = {}
        """,
    ),
}

CODE = {"recipes/tasteatlas-com-tasteatlas.html": TOTAL}


def body_of(name: str) -> bytes:
    path = SAMPLES / name
    return path.read_bytes() if path.exists() else gzip.decompress((SAMPLES / f"{name}.gz").read_bytes())


def page_of(source: Source, name: str, url: str) -> Page:
    request = source.first({}, {})
    return Page(request, url, 200, {}, body_of(name))


def same(found, expected, url: str) -> bool:
    """Equal but for the notation of decimals, and relative addresses made absolute."""
    if found == expected or (isinstance(expected, str) and found == urljoin(url, expected)):
        return True
    if isinstance(found, Decimal) and isinstance(expected, int | float):
        return found == Decimal(repr(expected))
    return False


@pytest.mark.parametrize("name", FORMATS)
def test_recorded_answer_gives_its_records(name, tmp_path):
    url, text = FORMATS[name]
    expected = json.loads((SAMPLES / f"{name}.expect.json").read_text())
    path = tmp_path / "sample.toml"
    path.write_text(HEAD.format(url=url) + "\n".join(line.strip() for line in text.splitlines()), encoding="utf-8")
    if name in CODE:
        path.with_suffix(".py").write_text(CODE[name], encoding="utf-8")
    source = Source(read(path))
    parsed = source.parse(page_of(source, name, url))
    assert not [warning for warning in parsed.warnings if "row" in warning]
    assert len(parsed.rows) == expected["record_count"]
    for number, (found, wanted) in enumerate(zip(parsed.rows, expected["records"], strict=False), 1):
        assert set(found) == set(wanted)
        for key, value in found.items():
            assert same(value, wanted[key], url), (number, key, value, wanted[key])


def test_tables_and_headings_of_a_huge_page(tmp_path):
    """What stands in brackets (footnotes) is cut out: every match of a pattern, joined again."""
    expected = json.loads((SAMPLES / "huge/rd-wikipedia-2.html.expect.json").read_text())
    text = """
    [rows]
    xpath = "//table[contains(@class, 'infobox')]//tr[th[@scope='row'] and td]"
    [fields]
    label = {css = "th[scope=row]", many = true, re = '(?:• )?([^\\[\\]]+)(?:\\[[^\\]]*\\])*', join = ""}
    value = {css = "td", many = true, re = '([^\\[\\]]+)(?:\\[[^\\]]*\\])*', join = ""}
    """
    path = tmp_path / "sample.toml"
    path.write_text(HEAD.format(url="https://en.wikipedia.org/") + re.sub("(?m)^ +", "", text), encoding="utf-8")
    source = Source(read(path))
    rows = source.parse(page_of(source, "huge/rd-wikipedia-2.html", "https://en.wikipedia.org/")).rows
    assert rows == expected["infobox"]
