"""A newspaper's world news as RSS: 60 items, 150 KB, each picture in two sizes. News, people and places are made up."""

import html
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import Final

from scripts.site.pages.page import FIRST, SECOND, TOPICS, Answer, Asked, sentence

ORIGINS: Final = ("www.theguardian.com",)
PATH: Final = "/world/rss"
HOST: Final = "https://www.theguardian.com"
TITLE: Final = "World news, a sample"
ITEMS: Final = 60
NO_PICTURE: Final = 17  # this item has none
NEWEST: Final = datetime(2026, 11, 24, 3, 41, 5, tzinfo=UTC)
PEOPLE: Final = ("Ada Amberg in Lisbon", "José Brook", "Mei Castell and agencies", "Łucja Fennel")


@dataclass(frozen=True)
class Item:
    """``summary`` are paragraphs; ``picture`` is the larger one, "" for none."""

    title: str
    link: str
    published: datetime
    author: str
    summary: tuple[str, ...]
    tags: tuple[str, ...]
    picture: str


def answer(asked: Asked) -> Answer | None:
    """The feed; nothing else is here."""
    return Answer(_feed(), "text/xml; charset=utf-8") if asked.path == PATH else None


@cache
def items() -> list[Item]:
    """What the feed has, the newest first."""
    return [_item(index) for index in range(ITEMS)]


def _item(index: int) -> Item:
    draw = random.Random(1821 + index)
    title = (
        f"{sentence(draw, FIRST, 2)} {draw.choice(SECOND)} & {draw.choice(TOPICS)}: ‘{draw.choice(FIRST)}’ talks go on"
    )
    path = f"/world/2026/nov/{23 - index // 20}/{draw.choice(FIRST)}-{draw.choice(SECOND)}-{index}"
    paragraphs = tuple(sentence(draw, (*FIRST, *SECOND, *TOPICS), draw.randrange(18, 40)) + "." for _ in range(2))
    picture = "" if index == NO_PICTURE else f"https://i.guim.co.uk/img/media/{draw.getrandbits(160):040x}/0_108.jpg"
    return Item(
        title=title,
        link=HOST + path,
        published=NEWEST - timedelta(minutes=31 * index),
        author=draw.choice(PEOPLE),
        summary=paragraphs,
        tags=tuple(topic.title() for topic in draw.sample(TOPICS, draw.randrange(2, 7))),
        picture=f"{picture}?w=460&q=55&auto=format&s={index:032x}" if picture else "",
    )


@cache
def _feed() -> bytes:
    return f"""<?xml version="1.0" encoding="utf-8"?>
<rss xmlns:media="http://search.yahoo.com/mrss/" xmlns:dc="http://purl.org/dc/elements/1.1/" version="2.0">
  <channel>
    <title>{TITLE}</title>
    <link>{HOST}/world</link>
    <description>Made for tests, not by the Guardian</description>
    <language>en-gb</language>
    <pubDate>{_rfc2822(NEWEST)}</pubDate>
    <dc:date>2026-11-24T03:41:05Z</dc:date>
    <dc:creator>The channel itself</dc:creator>
    <image>
      <title>A picture of the channel</title>
      <url>https://assets.guim.co.uk/images/sample-logo.png</url>
      <link>{HOST}</link>
    </image>
{"".join(map(_entry, items()))}  </channel>
</rss>
""".encode()


def _entry(item: Item) -> str:
    tags = "".join(f'\n      <category domain="{HOST}/world/{tag.lower()}">{tag}</category>' for tag in item.tags)
    text = "".join(f"<p>{paragraph}</p>" for paragraph in item.summary)
    text += f' <a href="{item.link}">Continue reading...</a>'
    pictures = ""
    for width in (140, 460) if item.picture else ():
        address = html.escape(item.picture.replace("w=460", f"w={width}"))
        pictures += f"""
      <media:content width="{width}" url="{address}">
        <media:credit scheme="urn:ebu">Photograph: nobody/A sample</media:credit>
      </media:content>"""
    return f"""    <item>
      <title>{html.escape(item.title, quote=False)}</title>
      <link>{item.link}</link>
      <description>{html.escape(text)}</description>{tags}
      <pubDate>{_rfc2822(item.published)}</pubDate>
      <guid>{item.link}</guid>{pictures}
      <dc:creator>{item.author}</dc:creator>
      <dc:date>{item.published:%Y-%m-%dT%H:%M:%SZ}</dc:date>
    </item>
"""


def _rfc2822(when: datetime) -> str:
    return format_datetime(when, usegmt=True)
