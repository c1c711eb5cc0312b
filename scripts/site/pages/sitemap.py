"""A sitemap of 84 addresses, 12 KB, some with pictures whose addresses are no pages; and an index of sitemaps."""

from dataclasses import dataclass
from functools import cache
from typing import Final

from scripts.site.pages.page import FIRST, Answer, Asked

ORIGINS: Final = ("www.sitemaps.org",)
PATH: Final = "/sitemap.xml"
INDEX: Final = "/sitemap-index.xml"
EMPTY: Final = "/sitemap-empty.xml"
HOST: Final = "https://www.sitemaps.org"
PAGES: Final = 84
SITEMAPS: Final = 3  # of the index
_SCHEMA: Final = "http://www.sitemaps.org/schemas/sitemap/0.9"
_IMAGES: Final = "http://www.google.com/schemas/sitemap-image/1.1"


@dataclass(frozen=True)
class Place:
    """An address and what is said about it, "" for what is not."""

    loc: str
    lastmod: str
    changefreq: str
    priority: str


def answer(asked: Asked) -> Answer | None:
    """The sitemap, an index and a sitemap without addresses."""
    bodies = {PATH: _sitemap, INDEX: _index, EMPTY: _nothing}
    return Answer(bodies[asked.path](), "application/xml") if asked.path in bodies else None


@cache
def places() -> list[Place]:
    """What the sitemap lists; a day or a time stands in ``lastmod``, as either may."""
    found = []
    for number in range(PAGES):
        path = f"/{FIRST[number % len(FIRST)]}/{number}.html?a=1&b={number}" if number else "/"
        lastmod = ("2026-11-{:02d}", "2026-11-{:02d}T08:30:00+01:00", "")[number % 3].format(1 + number % 28)
        is_rated = number % 4 == 1
        found.append(Place(HOST + path, lastmod, "weekly" if is_rated else "", "0.8" if is_rated else ""))
    return found


def sitemaps() -> list[str]:
    """The addresses in the index."""
    return [f"{HOST}/sitemap-{number}.xml.gz" for number in range(SITEMAPS)]


def _sitemap() -> bytes:
    return _set("urlset", "".join(_url(place, number) for number, place in enumerate(places())))


def _index() -> bytes:
    listed = "".join(
        f"\t<sitemap>\n\t\t<loc>{one}</loc>\n\t\t<lastmod>2026-11-20</lastmod>\n\t</sitemap>\n" for one in sitemaps()
    )
    return _set("sitemapindex", listed)


def _nothing() -> bytes:
    return _set("urlset", "")


def _url(place: Place, number: int) -> str:
    lines = ""
    if number % 5 == 2:  # before the page's own address
        lines = f"\t\t<image:image><image:loc>https://images.example/{number}.png</image:loc></image:image>\n"
    lines += f"\t\t<loc>\n\t\t\t{place.loc.replace('&', '&amp;')}\n\t\t</loc>\n"
    for name in ("lastmod", "changefreq", "priority"):
        if text := getattr(place, name):
            lines += f"\t\t<{name}>{text}</{name}>\n"
    return f"\t<url>\n{lines}\t</url>\n"


def _set(root: str, content: str) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!-- <url><loc>https://www.sitemaps.org/old</loc></url> -->\n'
    return f'{head}<{root} xmlns="{_SCHEMA}" xmlns:image="{_IMAGES}">\n{content}</{root}>\n'.encode()
