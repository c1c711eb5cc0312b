"""Works of scholars as JSON by cursor, 6 KB each, most of that references. Titles, people and numbers are made up."""

import base64
import binascii
import json
import random
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from scripts.site.pages.page import FIRST, SECOND, TOPICS, Answer, Asked, sentence

ORIGINS: Final = ("api.crossref.org",)
PATH: Final = "/works"
START: Final = "/works?query=container+shipping&rows=2&cursor=*"
TOTAL: Final = 250  # of every query but one
NOTHING: Final = "nothing at all"
PEOPLE: Final = (("Ada", "Amberg"), ("José", "Brook"), ("", "Castell"), ("Łucja", "Fennel"))
CURSOR: Final = "AoJ+/"  # what makes a cursor long, and worth encoding in an address


@dataclass(frozen=True)
class Work:
    """``title`` and ``container`` are "" where there is none; ``issued`` is a year, with or without month and day."""

    doi: str
    title: str
    type: str
    publisher: str
    container: str
    authors: tuple[tuple[str, str], ...]
    issued: tuple[int, ...]
    cited_by: int


def answer(asked: Asked) -> Answer | None:
    """A page of ``rows`` works after ``cursor``; there is always a next cursor, and after the last page an empty one."""
    if asked.path != PATH:
        return None
    rows, after = asked.query.get("rows", "20"), asked.query.get("cursor", "*")
    first = 0 if after == "*" else _opened(after)
    if first is None or not rows.isdigit() or int(rows) > 1000:
        fault = {"type": "parameter-not-allowed", "value": after, "message": "This cursor or rows is not valid"}
        return _json({"status": "failed", "message-type": "validation-failure", "message": [fault]}, 400)
    found = works() if asked.query.get("query") != NOTHING else []
    message = {
        "facets": {}, "next-cursor": _cursor(first + int(rows)), "total-results": len(found),
        "items": [_item(work) for work in found[first : first + int(rows)]], "items-per-page": int(rows),
        "query": {"start-index": 0, "search-terms": asked.query.get("query")},
    }  # fmt: skip
    return _json({"status": "ok", "message-type": "work-list", "message-version": "1.0.0", "message": message})


@cache
def works() -> list[Work]:
    """What every query finds."""
    return [_work(index) for index in range(TOTAL)]


def _work(index: int) -> Work:
    draw = random.Random(1010 + index)
    return Work(
        doi=f"10.5555/{draw.choice(SECOND)}-{index}_{draw.randrange(100)}",
        title=""
        if index % 50 == 49
        else f"{sentence(draw, FIRST, 3)} {draw.choice(SECOND)} – über {draw.choice(TOPICS)}",
        type=draw.choice(("journal-article", "book-chapter", "posted-content")),
        publisher=f"{draw.choice(SECOND)} & Sons".title(),
        container="" if index % 7 == 0 else f"Letters on {draw.choice(TOPICS)}",
        authors=tuple(draw.sample(PEOPLE, draw.randrange(4))),
        issued=(2026, 11, 3)[: draw.randrange(1, 4)],
        cited_by=draw.randrange(90),
    )


def _item(work: Work) -> dict[str, Any]:
    draw = random.Random(work.doi)
    references = [
        {
            "key": f"18_CR{number}", "doi-asserted-by": "publisher", "DOI": f"10.5555/cited.{number}", "year": "2015",
            "title": [sentence(draw, TOPICS, 4)], "unstructured": sentence(draw, (*FIRST, *SECOND, *TOPICS), 30),
        }
        for number in range(1, 16)
    ]  # fmt: skip
    authors = [
        {"given": given, "family": family, "sequence": "additional", "affiliation": [{"name": "A sample institute"}]}
        if given
        else {"family": family, "sequence": "first", "affiliation": []}
        for given, family in work.authors
    ]
    item: dict[str, Any] = {
        "indexed": {"date-parts": [[2026, 11, 20]], "timestamp": 1_795_150_000_000}, "publisher": work.publisher,
        "license": [{"start": {"date-parts": [[2026]]}, "URL": "http://www.sample.example/tdm"}], "DOI": work.doi,
        "type": work.type, "created": {"date-parts": [[2026, 11, 4]]}, "is-referenced-by-count": work.cited_by,
        "title": [work.title, "An other title"] if work.title else [], "prefix": "10.5555", "member": "297",
        "reference": references, "reference-count": len(references), "original-title": [], "subtitle": ["a sample"],
        "issued": {"date-parts": [list(work.issued)]}, "URL": f"https://doi.org/{work.doi}", "score": 1.0,
    }  # fmt: skip
    if work.container:
        item["container-title"] = [work.container]
    if work.authors:
        item["author"] = authors
    return item


def _cursor(first: int) -> str:
    return CURSOR + base64.b64encode(f"{first}".encode()).decode()


def _opened(cursor: str) -> int | None:
    """Where a cursor stands, None for one that was never given out."""
    try:
        return int(base64.b64decode(cursor.removeprefix(CURSOR), validate=True))
    except (ValueError, binascii.Error):
        return None


def _json(value: object, status: int = 200) -> Answer:
    return Answer(json.dumps(value, separators=(",", ":")).replace("/", r"\/").encode(), "application/json", status)
