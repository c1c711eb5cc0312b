"""The namespaces of feeds. Sites write each of them in several ways; here all ways become the usual one."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

import re2
from lxml import etree

NAMESPACES: Final = {
    "atom": "http://www.w3.org/2005/Atom",
    "content": "http://purl.org/rss/1.0/modules/content/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
    "geo": "http://www.w3.org/2003/01/geo/wgs84_pos#",
    "georss": "http://www.georss.org/georss",
    "itunes": "http://www.itunes.com/dtds/podcast-1.0.dtd",
    "media": "http://search.yahoo.com/mrss/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "rss": "http://purl.org/rss/1.0/",
    "slash": "http://purl.org/rss/1.0/modules/slash/",
    "sy": "http://purl.org/rss/1.0/modules/syndication/",
    "wfw": "http://wellformedweb.org/CommentAPI/",
    "yt": "http://www.youtube.com/xml/schemas/2015",
    "xlink": "http://www.w3.org/1999/xlink",
}
ATOM_03: Final = "http://purl.org/atom/ns#"  # also for the drafts before it
# A feed's own vocabulary: no namespace, Atom, RSS 1.0. The other versions of RSS are in _RSS.
OWN: Final = frozenset({"", NAMESPACES["atom"], ATOM_03, NAMESPACES["rss"]})

_OTHERS: Final = {
    "http://example.com/newformat": ATOM_03,
    "http://example.com/necho": ATOM_03,
    "http://purl.org/echo": ATOM_03,
    "uri/of/echo/namespace": ATOM_03,
    "http://purl.org/pie": ATOM_03,
    "http://purl.org/dc/elements/1.0": NAMESPACES["dc"],
    "http://example.com/dtds/podcast-1.0.dtd": NAMESPACES["itunes"],
    "http://itunes.com/dtds/podcast-1.0.dtd": NAMESPACES["itunes"],
    "http://www.rssboard.org/media-rss": NAMESPACES["media"],
    "http://video.search.yahoo.com/mrss": NAMESPACES["media"],
}
_RSS: Final = (
    "http://purl.org/rss/1.0/modules/rss091", "http://my.netscape.com/", "http://channel.netscape.com/",
    "http://backend.userland.com/rss", "http://blogs.law.harvard.edu/tech/rss", "http://cyber.law.harvard.edu/rss",
    "http://purl.org/net/rss", "http://purl.org/rss/2.0",
)  # fmt: skip
_DECLARED: Final = re2.compile(rb"""xmlns(?::([A-Za-z_][\w.-]*))?\s*=\s*(?:"([^"<]*)"|'([^'<]*)')""")


def _plain(space: str) -> str:
    """An address without the parts that sites write differently: case, the scheme's s, a slash or # at the end."""
    space = space.strip().lower().rstrip("/#")
    return f"http{space[5:]}" if space.startswith("https:") else space


_KNOWN: Final = {**{_plain(space): space for space in (*NAMESPACES.values(), ATOM_03)}, **_OTHERS}


def meaning(space: str) -> str:
    """The usual address of a known namespace, however it is written. An unknown one stays as it is."""
    return _KNOWN.get(_plain(space), space)


@lru_cache(maxsize=256)
def is_own(space: str) -> bool:
    """Whether a namespace is a feed's own vocabulary: Atom, or a version of RSS."""
    return space in OWN or _plain(space).startswith(_RSS)


def by_meaning(root: Any, utf8: bytes, kept: Collection[str], warnings: list[str]) -> None:
    """Gives the elements of a tree the usual addresses of their namespaces. Those in ``kept`` stay.

    A well-known prefix with an unknown address is read as the well-known namespace, with a warning.
    """
    moved: dict[str, str] = {}
    odd: dict[str, str] = {}
    for found in set(_DECLARED.findall(utf8)):
        prefix, space = found[0].decode(errors="replace"), (found[1] or found[2]).decode(errors="replace").strip()
        if space in kept or space in _KNOWN.values():
            continue
        usual = meaning(space)
        if usual == space and not is_own(space) and prefix in NAMESPACES:
            usual = NAMESPACES[prefix]
            odd[space] = prefix
        if usual != space:
            moved[space] = usual
    used = _move(root, moved) if moved else set()
    warnings += [
        f'the feed binds {prefix} to "{space[:60]}", which is read as {moved[space]}'
        for space, prefix in sorted(odd.items())
        if space in used
    ]


def _move(root: Any, moved: dict[str, str]) -> set[str]:
    """Renames the namespaces of elements and attributes. Returns those that occur."""
    used = set()
    for element in root.iter(etree.Element):
        space, _, name = element.tag[1:].rpartition("}")
        if space.strip() in moved:
            element.tag = f"{{{moved[space.strip()]}}}{name}"
            used.add(space.strip())
        for key, value in element.items():
            space, _, name = key[1:].rpartition("}")
            if space.strip() in moved:
                del element.attrib[key]
                element.set(f"{{{moved[space.strip()]}}}{name}", value)
                used.add(space.strip())
    return used
