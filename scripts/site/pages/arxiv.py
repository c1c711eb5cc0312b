"""A preprint server's search answers: Atom, 2.5 KB an entry. Papers, people and numbers are made up."""

import html
import random
from dataclasses import dataclass
from functools import cache
from typing import Final

from scripts.site.pages.page import FIRST, SECOND, TOPICS, Answer, Asked, sentence

ORIGINS: Final = ("export.arxiv.org",)
PATH: Final = "/api/query"
START: Final = PATH + "?search_query=cat:cs.DC&start=0&max_results=10"
TOTAL: Final = 120  # of every query but one
NOTHING: Final = "all:nothing"
FIELDS: Final = ("cs.DC", "cs.DB", "cs.SE", "cs.NI", "math.ST", "astro-ph.IM")
PEOPLE: Final = ("Ada Amberg", "José Núñez Brook", "Mei Castell", "O. Dünn", "Priya Ellery", "Łucja Fennel")


@dataclass(frozen=True)
class Paper:
    """``doi`` and ``comment`` are "" where there is none; the first of ``categories`` is the primary one."""

    number: str
    title: str
    published: str
    updated: str
    authors: tuple[str, ...]
    categories: tuple[str, ...]
    summary: str
    doi: str
    comment: str


def answer(asked: Asked) -> Answer | None:
    """A page of results by ``start`` and ``max_results``; past the end it has none."""
    if asked.path != PATH:
        return None
    query, start, count = (asked.query.get(key, "") for key in ("search_query", "start", "max_results"))
    if not start.isdigit() or not count.isdigit():
        return Answer(_feed(query, 0, [], 0).encode(), "application/atom+xml; charset=utf-8", 400)
    found = papers() if query and query != NOTHING else []
    first = int(start)
    feed = _feed(query, len(found), found[first : first + int(count)], first)
    return Answer(feed.encode(), "application/atom+xml; charset=utf-8")


@cache
def papers() -> list[Paper]:
    """What every query finds, the newest first."""
    return [_paper(index) for index in range(TOTAL)]


def _paper(index: int) -> Paper:
    draw = random.Random(2611 + index)
    number = f"2611.{20_000 - index * 7:05d}v{draw.randrange(1, 4)}"
    title = f"{sentence(draw, FIRST, 2)} {draw.choice(SECOND)}: on {draw.choice(TOPICS)} & {draw.choice(TOPICS)} with n < 10"
    day, hour = 23 - index // 6, draw.randrange(24)
    written = [sentence(draw, (*FIRST, *SECOND, *TOPICS), 14) + "." for _ in range(11)]
    return Paper(
        number=number,
        title=title,
        published=f"2026-11-{day:02d}T{hour:02d}:05:19Z",
        updated=f"2026-11-{day:02d}T{hour:02d}:{draw.randrange(10, 60)}:01Z",
        authors=tuple(draw.sample(PEOPLE, draw.randrange(1, 4))),
        categories=tuple(draw.sample(FIELDS, draw.randrange(1, 3))),
        summary=" ".join(written),
        doi=f"10.5555/sample.{index}" if index % 3 == 0 else "",
        comment=f"{draw.randrange(6, 40)} pages, {draw.randrange(2, 9)} figures" if index % 2 else "",
    )


def _feed(query: str, total: int, found: list[Paper], first: int) -> str:
    asked = html.escape(f"search_query={query}&id_list=&start={first}")
    return f"""<?xml version='1.0' encoding='UTF-8'?>
<feed xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" xmlns:arxiv="http://arxiv.org/schemas/atom" \
xmlns="http://www.w3.org/2005/Atom">
  <id>https://arxiv.org/api/a+sample</id>
  <title>arXiv Query: {asked}</title>
  <updated>2026-11-24T00:00:00Z</updated>
  <author><name>A sample, not arXiv</name></author>
  <link href="https://arxiv.org/api/query?{asked}" type="application/atom+xml"/>
  <opensearch:itemsPerPage>{len(found)}</opensearch:itemsPerPage>
  <opensearch:totalResults>{total}</opensearch:totalResults>
  <opensearch:startIndex>{first}</opensearch:startIndex>
  <!-- <entry><id>http://arxiv.org/abs/0000.00000v1</id><title>Withdrawn</title></entry> -->
{"".join(map(_entry, found))}</feed>
"""


def _entry(paper: Paper) -> str:
    people = "".join(
        f"\n    <author>\n      <name>{name}</name>\n      <arxiv:affiliation>{name[0]} Institute</arxiv:affiliation>\n    </author>"
        for name in paper.authors
    )
    kinds = "".join(
        f'\n    <category term="{term}" scheme="http://arxiv.org/schemas/atom"/>' for term in paper.categories
    )
    more = f"\n    <arxiv:comment>{paper.comment}</arxiv:comment>" if paper.comment else ""
    if paper.doi:
        more += f"""
    <arxiv:doi>{paper.doi}</arxiv:doi>
    <link rel="related" href="https://doi.org/{paper.doi}" title="doi"/>"""
    wrapped = html.escape(paper.title, quote=False).replace(": ", ":\n  ")  # as long ones are
    return f"""  <entry>
    <id>http://arxiv.org/abs/{paper.number}</id>
    <title>{wrapped}</title>
    <updated>{paper.updated}</updated>
    <link href="https://arxiv.org/abs/{paper.number}" rel="alternate" type="text/html"/>
    <link href="https://arxiv.org/pdf/{paper.number}" rel="related" type="application/pdf" title="pdf"/>
    <summary>  {paper.summary}
</summary>{kinds}
    <published>{paper.published}</published>
    <arxiv:primary_category term="{paper.categories[0]}"/>
    <arxiv:journal_ref>Sample Letters 26 (2026)</arxiv:journal_ref>{more}{people}
  </entry>
"""
