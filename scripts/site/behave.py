"""How the site misbehaves on request: rules for paths with a prefix. Also counts what was fetched.

    {"prefix": "/hn.example/", "times": 2, "delay_seconds": 1.5, "status": 503, "headers": {"Retry-After": "2"}}
    {"prefix": "/hn.example/", "every": 3, "status": 500}                    flaky
    {"prefix": "/hn.example/", "huge": 100000000}
    {"prefix": "/hn.example/", "cut": 1000}
    {"prefix": "/hn.example/", "mislabel": "charset"}
    {"prefix": "/hn.example/", "drip": {"bytes": 1, "seconds": 1}}
    {"prefix": "/hn.example/", "hostile": "gzip_bomb"}

The latest rule whose prefix matches decides; ``times`` limits how often. All threads share everything here.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

FETCHES_MAX: Final = 1_000_000  # kept; when there are more, the older half is dropped

Hostile = Literal[
    "gzip_bomb", "stacked_bomb", "stacked", "nodes", "nesting", "json_nesting", "attributes", "entities",
    "external_entity", "headers", "redirect_loop", "redirect_private",
]  # fmt: skip
Seconds = Annotated[float, Meta(ge=0, le=600)]
_OF_A_PAGE: Final = ("status", "body", "headers", "redirect", "cut", "drip", "huge", "mislabel")


class Drip(Struct, frozen=True, forbid_unknown_fields=True):
    """Sends the body in pieces of ``bytes`` bytes, with a pause of ``seconds`` between two pieces."""

    bytes: Annotated[int, Meta(ge=1)]
    seconds: Seconds


class Rule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do with requests whose path begins with ``prefix``. Keys that are left out change nothing.

    ``delay_seconds``: wait before sending anything, in addition to the page's own delay. ``status``, ``body``: replace
    those of the page. ``headers``: are added. ``redirect``: to this URL (with 302 unless ``status`` says otherwise).
    ``cut``: close the connection after this many bytes of the body, but keep its Content-Length. ``drip``: send slowly.

    ``every``: apply the rule only to each n-th matching request; only these count as ``times``. ``huge``: fill the page up
    to this many bytes, without announcing the size. ``mislabel``: lie about the page. "charset" sends windows-1252 as
    UTF-8, "type" says that it is a picture, "encoding" says that it is compressed. ``hostile``: send one of the answers in
    ``scripts.site.hostile`` instead of the page; only ``prefix``, ``times``, ``every`` and ``delay_seconds`` go with it.
    """

    prefix: Annotated[str, Meta(pattern="^/")]
    times: Annotated[int, Meta(ge=1)] | None = None
    delay_seconds: Seconds = 0.0
    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    body: str | None = None
    headers: dict[str, str] = {}
    redirect: str | None = None
    cut: Annotated[int, Meta(ge=0)] | None = None
    drip: Drip | None = None
    every: Annotated[int, Meta(ge=1)] = 1
    huge: Annotated[int, Meta(ge=1, le=10_000_000_000)] | None = None
    mislabel: Literal["charset", "type", "encoding"] | None = None
    hostile: Hostile | None = None

    def __post_init__(self) -> None:
        others = [name for name in _OF_A_PAGE if getattr(self, name) not in (None, {})]
        if self.hostile and others:
            raise ValueError(f"hostile replaces the page: expected it alone, found {', '.join(others)} too")


class _Standing:
    """A rule in force, with the ``times`` that it has left and the number of requests that matched it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.left = rule.times
        self.fitted = 0


class Behaviour:
    """The rules in force."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standing: list[_Standing] = []

    def add(self, rule: Rule) -> None:
        """Adds a rule, which takes precedence over the others."""
        with self._lock:
            self._standing.insert(0, _Standing(rule))

    def reset(self) -> None:
        """Removes all rules."""
        with self._lock:
            self._standing.clear()

    def rules(self) -> list[Rule]:
        """The rules in force, each with the ``times`` that it has left. The one that is tried first comes first."""
        with self._lock:
            return [msgspec.structs.replace(one.rule, times=one.left) for one in self._standing]

    def take(self, path: str) -> Rule | None:
        """The rule for a request, of which one time is used up. None when no rule applies to this request."""
        if not self._standing:
            return None
        with self._lock:
            for one in self._standing:
                if path.startswith(one.rule.prefix):
                    return self._taken(one)
        return None

    def _taken(self, one: _Standing) -> Rule | None:
        one.fitted += 1
        if one.fitted % one.rule.every:
            return None
        if one.left is not None:
            one.left -= 1
            if not one.left:
                self._standing.remove(one)
        return one.rule


class Fetches:
    """The requests in order: path and query of each, recorded when it arrives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped = 0
        self._asked: list[str] = []

    def add(self, address: str) -> None:
        """Records a request."""
        with self._lock:
            self._asked.append(address)
            if len(self._asked) > FETCHES_MAX:
                half = len(self._asked) // 2
                del self._asked[:half]
                self._dropped += half

    def since(self, cursor: int) -> tuple[int, Mapping[str, int]]:
        """A new cursor, and how often each address was requested since the old one (0: since the start)."""
        with self._lock:
            asked = self._asked[max(cursor - self._dropped, 0) :]
            return self._dropped + len(self._asked), Counter(asked)
