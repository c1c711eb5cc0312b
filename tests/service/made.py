"""The records that shipped sources are to give of the sample site's pages, written from what the pages are made of."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from scripts.site.pages import (
    arxiv,
    books,
    charset,
    crossref,
    ecb,
    guardian,
    hn,
    hn_item,
    line,
    nws,
    quakes,
    quotes,
    reel,
    sitemap,
    slow,
    taste,
    unlocode,
)

Records = list[dict[str, Any]]


def rates(*days: str) -> Records:
    return [{"date": day, "currency": code, "rate": rate} for day in days for code, rate in ecb.rates(day).items()]


def earthquakes() -> Records:
    return [
        {
            "id": one["id"],
            "mag": one["properties"]["mag"],
            "place": one["properties"]["place"],
            "time": utc(datetime.fromtimestamp(one["properties"]["time"] / 1000, UTC), "milliseconds"),
            **dict(zip(("lon", "lat", "depth_km"), one["geometry"]["coordinates"], strict=True)),
            "url": one["properties"]["url"],
        }
        for one in quakes.features()
    ]


def front_page() -> Records:
    return [
        {
            "rank": one.rank,
            "title": one.title,
            "url": one.url if one.site else f"https://news.ycombinator.com/{one.url}",
            "site": one.site or None,
            "points": one.points,
            "user": one.user or None,
            "comments": one.comments,
            "item_id": str(one.item),
        }
        for one in hn.stories(1)
    ]


def comments(story: int) -> Records:
    return [
        {
            "id": one.id,
            "parent": one.parent,
            "depth": one.depth,
            "user": one.user or None,
            "time": utc(one.when, "seconds"),
            "text": "\n".join(one.paragraphs) or None,
            "story": hn_item.STORY,
        }
        for one in hn_item.comments(story)
    ]


def category(number: int) -> Records:
    return [
        {
            "title": one.title,
            "link": f"https://books.toscrape.com/catalogue/{one.slug}/index.html",
            "price": one.price,
            "rating": one.rating,
            "in_stock": True,
            "category": books.CATEGORIES[number - 2],
        }
        for one in books.books(number)
    ]


def quoted(*pages: int, login: bool) -> Records:
    return [
        {
            "text": f"“{one.text}”",
            "author": one.author,
            "tags": list(one.tags),
            **({"goodreads": f"http://goodreads.com/author/show/{one.slug}"} if login else {}),
            **({} if login else {"about": f"https://quotes.toscrape.com/author/{one.slug}"}),
        }
        for page in pages
        for one in quotes.quotes(page)
    ]


def papers() -> Records:
    return [
        {
            "id": f"http://arxiv.org/abs/{one.number}",
            "title": one.title,
            "published": one.published,
            "updated": one.updated,
            "authors": list(one.authors),
            "primary_category": one.categories[0],
            "categories": list(one.categories),
            "summary": one.summary,
            "pdf_url": f"https://arxiv.org/pdf/{one.number}",
            "doi": one.doi or None,
            "comment": one.comment or None,
        }
        for one in arxiv.papers()
    ]


def world_news() -> Records:
    return [
        {
            "id": one.link,
            "title": one.title,
            "link": one.link,
            "published": utc(one.published, "seconds"),
            "author": one.author,
            "summary": "\n".join(one.summary),
            "tags": list(one.tags),
            "image": one.picture or None,
            "feed": guardian.TITLE,
        }
        for one in guardian.items()
    ]


def places() -> Records:
    return [{key: text or None for key, text in asdict(one).items()} for one in sitemap.places()]


def forecast(office: str, x: int, y: int) -> Records:
    return [{**asdict(one), "temperature_unit": "F"} for one in nws.periods(office, x, y)]


def subdivisions() -> Records:
    return [{key: text or None for key, text in asdict(one).items()} for one in unlocode.subdivisions()]


def works() -> Records:
    return [
        {
            "doi": one.doi,
            "title": one.title or None,
            "type": one.type,
            "publisher": one.publisher,
            "container": one.container or None,
            "authors": [f"{given} {family}".strip() for given, family in one.authors],
            "issued": list(one.issued),
            "cited_by": one.cited_by,
            "url": f"https://doi.org/{one.doi}",
        }
        for one in crossref.works()
    ]


def box_of_the_line(number: str) -> Records:
    return [
        {
            "container": number,
            **dict(zip(("terminal", "city", "country"), line.PLACES[one.place], strict=True)),
            "activity": one.activity,
            "empty": one.is_empty,
            "estimated": not one.actual_time,
            "actual_time": one.actual_time or None,
            "expected_time": one.expected_time or None,
            "vessel": one.vessel or None,
            "voyage": "204E" if one.vessel else None,
        }
        for one in line.events(number)
    ]


def box_of_reel(number: str) -> Records:
    return [
        {
            "number": count,
            "status": one.status,
            "time": one.when.isoformat(),
            "location": f"{one.place}({one.site})",
            "days": one.days,
            "vessel": one.vessel,
            "voyage": one.voyage,
        }
        for count, one in enumerate(reel.events(number), 1)
    ]


def prices() -> Records:
    return [
        {
            "number": one.number,
            "name": one.name,
            "price": f"{one.cents // 100}.{one.cents % 100:02d}",
            "note": one.note or None,
        }
        for one in charset.articles()
    ]


def recipe(slug: str) -> Records:
    found = taste.RECIPES[slug]
    return [
        {
            "title": found.name or found.heading,
            "author": "A sample",
            "category": "Sweet Pastry",
            "cuisine": "Portuguese",
            "servings": "12 servings",
            "ingredients": list(found.ingredients),
            "steps": list(found.steps),
            "about": found.about,
            "prep_minutes": found.minutes[0],
            "cook_minutes": found.minutes[1],
            "rating": "4.5",
            "image": taste.image(slug),
            "page": f"https://www.tasteatlas.com/{slug}/recipe",
        }
    ]


def late() -> Records:
    return [
        {"name": name, "link": f"https://slow.example/items/{number}", "price": price, "state": state}
        for number, (name, price, state) in enumerate(slow.ROWS, 1)
    ]


def utc(when: datetime, timespec: str) -> str:
    return when.isoformat(timespec=timespec).replace("+00:00", "Z")


def index_of_sitemaps() -> Records:
    return [{"loc": one, "lastmod": "2026-11-20", "changefreq": None, "priority": None} for one in sitemap.sitemaps()]
