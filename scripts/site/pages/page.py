"""What a page is to the site, and the words that pages are made of."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Query = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as a page sees it: ``path`` is below the origin; ``headers`` are found in any letter case."""

    path: str
    query: Query
    method: str = "GET"
    form: Query = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)


FIRST: Final = """
quiet amber northern hollow gilded distant winter broken silver paper restless salt copper hidden crooked scarlet
slow iron velvet patient narrow morning borrowed wandering lost bright second unwritten deep glass
""".split()  # noqa: SIM905 - words read better than a list
SECOND: Final = """
harbor lantern orchard compass river ledger garden engine letter island mirror anchor bridge winter signal cabinet
meadow archive window feather clock station tide forest machine kitchen map thread tower valley
""".split()  # noqa: SIM905 - words read better than a list
TOPICS: Final = """
databases compilers queues sensors typography batteries telescopes satellites schedulers parsers keyboards proxies
caches gardens maps synthesizers bicycles kernels protocols spreadsheets
""".split()  # noqa: SIM905 - words read better than a list


@dataclass(frozen=True, slots=True)
class Answer:
    """A page: its bytes and what they are. ``delay_seconds`` is how long the origin takes to begin.

    ``headers`` are besides the usual ones, a name as often as it is to be sent.
    """

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    may_gzip: bool = True
    delay_seconds: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()


def delay(query: Query, default: float = 0.0) -> float:
    """Seconds that ``?seconds=`` asks for, 0 to 60; the default where it is missing or no number."""
    try:
        return min(max(float(query.get("seconds", default)), 0.0), 60.0)
    except ValueError:
        return default


def name(draw: random.Random) -> str:
    """Two words, like a title's beginning."""
    return f"{draw.choice(FIRST)} {draw.choice(SECOND)}"


def sentence(draw: random.Random, words: Sequence[str], count: int) -> str:
    """Some words, the first with a capital."""
    return " ".join(draw.choice(words) for _ in range(count)).capitalize()
