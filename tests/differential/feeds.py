"""Feeds that are made, sound and damaged, beside what was put into them; these and recorded ones beside feedparser."""

import re
import warnings as python_warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import feedparser

from jobs import page
from jobs.errors import TaskError
from jobs.parse import feed
from jobs.text.charset import decode
from tests.differential import Explained
from tests.differential.made_feeds import Known, Made, Maker

PAGES: Final = Path(__file__).parents[1] / "unit" / "pages"
DAMAGES_MAX: Final = 2
ADDRESS: Final = "https://news.example/feed"
KEYS: Final = Known._fields


class Wanted(NamedTuple):
    """Where feedparser may say otherwise, and why: the kind of feed ("" for any), the key ("" for all)."""

    kind: str
    key: str
    reason: str


SPACE: Final = "a namespace in other words"
LENIENT: Final = "ill-formed"
WANTED: Final = [
    Wanted(SPACE, "", "knows namespaces by their letters, but for the case"),
    Wanted(LENIENT, "categories", "leaves entities in categories where its lenient parser has to read"),
    Wanted("a control character", "", "keeps control characters"),
    Wanted("windows-1252 by number", "author", "gives windows-1252 by number its characters in some keys only"),
    Wanted("windows-1252 by number", "categories", "gives windows-1252 by number its characters in some keys only"),
    Wanted("a section twice", "", "takes the marks of a section in a section for text"),
    Wanted("a damaged beginning of a section", "", "loses a section whose beginning is damaged"),
    Wanted("markup in a text", "", "escapes what stands beside markup once more"),
    Wanted("an end of a section in a text", "", "loses what stands around it"),
    Wanted("feed-atom-xhtml", "author", "takes the last of several authors"),
    Wanted("feed-ill-formed", "entries", "takes an entry in an entry for one"),
    Wanted("junk before", "", "reads entries out of junk, or none"),
]


def compare(seed: int, count: int) -> Iterator[str]:
    """A value that is not what was put in, and no warning; and what feedparser says otherwise."""
    for path in sorted(PAGES.glob("feed-*/page.xml")):
        text = decode(path.read_bytes(), "", "").text
        yield from _by_feedparser(Made(text, [], (path.parent.name,)), _ours(text, []), [])
    maker = Maker(seed)
    for number in range(count):
        made = maker.feed(damages=number % (DAMAGES_MAX + 1))
        told: list[str] = []
        try:
            ours = _ours(made.text, told)
        except TaskError as error:
            told.append(str(error))
            ours = []
        yield from _by_what_is_known(made, ours, told)
        yield from _by_feedparser(made, ours, told)


def _ours(text: str, told: list[str]) -> list[dict[str, Any]]:
    channel = feed.Channel(feed.read(text.encode(), told), ADDRESS if "xml:base" in text else "")
    return [{key: entry.get(key) for key in KEYS} for entry in channel.entries()]


def _by_what_is_known(made: Made, ours: list[dict[str, Any]], told: list[str]) -> Iterator[str]:
    if told:
        return
    what = ", ".join(made.kinds)
    if len(ours) != len(made.entries):
        yield f"{what}: {len(made.entries)} entries were put in, {len(ours)} are read, without a warning: {_shown(made)}"
        return
    for found, known in zip(ours, made.entries, strict=True):
        for key in KEYS:
            value, wanted = (
                _plain(found[key]),
                _plain(getattr(known, key) or (known.summary if key == "content" else None)),
            )
            if value != wanted and not _is_changed(made, key):
                yield f"{what}: {key} is {value!r}, {wanted!r} was put in, without a warning: {_shown(made)}"


def _is_changed(made: Made, key: str) -> bool:
    """Whether the damage gives another text, or another feed without a fault."""
    if {"no end tag", "a stray end tag elsewhere"} <= {*made.kinds}:
        return True
    return (key == "title" and "an end of a section in a text" in made.kinds) or (
        key in ("summary", "content") and "markup in a text" in made.kinds
    )


def _by_feedparser(made: Made, ours: list[dict[str, Any]], told: list[str]) -> Iterator[str]:
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        found = feedparser.parse(
            made.text.encode(),
            response_headers={"content-location": ADDRESS, "content-type": "application/xml; charset=utf-8"},
            sanitize_html=False,
            resolve_relative_uris=False,
        )
    if found.bozo:
        made = made._replace(kinds=(*made.kinds, LENIENT))
    what = ", ".join(made.kinds)
    if len(found.entries) != len(ours):
        counts = f"{len(ours)} entries, feedparser has {len(found.entries)}"
        yield _explained(made, "entries", told, f"{what}: {counts}: {_shown(made)}")
        return
    for our, their in zip(ours, found.entries, strict=True):
        for key in KEYS:
            value, other = _meant(key, our[key]), _meant(key, _of(their, key))
            if value != other and not (key == "summary" and value is None):  # it takes the content for one
                yield _explained(
                    made, key, told, f"{what}: {key} is {value!r}, feedparser has {other!r}: {_shown(made)}"
                )


def _explained(made: Made, key: str, told: list[str], sentence: str) -> str:
    if told:
        return Explained(sentence, f"warned of: {re.sub('[0-9]+', 'N', told[0])[:60]}")
    for wanted in WANTED:
        if wanted.kind in ("", *made.kinds) and wanted.key in ("", key):
            return Explained(sentence, f"feedparser {wanted.reason}")
    return sentence


def _meant(key: str, value: Any) -> Any:
    """Of HTML the text: how it is written is a matter of form."""
    if key not in ("summary", "content") or not value:
        return _plain(value)
    return _plain(str(page.parse_html(value.encode()).xpath("string()")))


def _shown(made: Made) -> str:
    return repr(made.text if len(made.text) < 3_000 else f"{made.text[:3_000]}…")


def _of(entry: Any, key: str) -> Any:
    if key == "content":
        return entry.content[0].value if "content" in entry else entry.get("summary")
    if key == "categories":
        return [tag.term for tag in entry.get("tags", [])]
    if key == "enclosures":
        return [one.href for one in entry.get("enclosures", [])]
    return entry.get(key) or (entry.get("updated") if key == "published" else None)  # what dc:date is for it


def _plain(value: Any) -> Any:
    """Without what is a matter of form: white space, and the order of a list."""
    if isinstance(value, list):
        return sorted(" ".join(one.split()) for one in value) or None
    return " ".join(value.split()) if value else None
