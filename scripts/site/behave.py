"""How the site misbehaves on request: rules by the beginning of a path, and what was fetched.

    {"prefix": "/hn.example/", "times": 2, "delay_seconds": 1.5, "status": 503, "headers": {"Retry-After": "2"}}
    {"prefix": "/hn.example/", "every": 3, "status": 500}                    flaky
    {"prefix": "/hn.example/", "huge": 100000000}
    {"prefix": "/hn.example/", "cut": 1000}
    {"prefix": "/hn.example/", "mislabel": "charset"}
    {"prefix": "/hn.example/", "drip": {"bytes": 1, "seconds": 1}}
    {"prefix": "/hn.example/", "hostile": "gzip_bomb"}

The latest rule whose prefix fits decides; ``times`` wears it out. Everything here is shared by all threads.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

FETCHES_MAX: Final = 1_000_000  # kept; the oldest half goes when there are more

Hostile = Literal[
    "gzip_bomb", "stacked_bomb", "stacked", "nodes", "nesting", "json_nesting", "attributes", "entities",
    "external_entity", "headers", "redirect_loop", "redirect_private",
]  # fmt: skip
Seconds = Annotated[float, Meta(ge=0, le=600)]
_OF_A_PAGE: Final = ("status", "body", "headers", "redirect", "cut", "drip", "huge", "mislabel")


class Drip(Struct, frozen=True, forbid_unknown_fields=True):
    """The body in pieces of so many bytes, so many seconds between two of them."""

    bytes: Annotated[int, Meta(ge=1)]
    seconds: Seconds


class Rule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do with requests whose path begins with ``prefix``; what is left out stays as it is.

    ``delay_seconds`` before anything is sent (besides the page's own); ``status`` and ``body`` instead of the page's;
    ``headers`` besides them; ``redirect`` to an address (302 unless ``status`` says otherwise); ``cut`` closes the
    connection after so many bytes of the body, which keeps its Content-Length; ``drip`` sends it slowly.

    ``every`` bends only each n-th request that fits, and only those count as ``times``. ``huge`` fills the page up to
    so many bytes, without saying how many. ``mislabel`` lies about the page: "charset" sends windows-1252 as UTF-8,
    "type" says that it is a picture, "encoding" that it is compressed. ``hostile`` is one of ``scripts.site.hostile``
    instead of the page; of the others only ``prefix``, ``times``, ``every`` and ``delay_seconds`` go with it.
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
            raise ValueError(f"hostile stands instead of the page: expected it alone, found {', '.join(others)} too")


class _Standing:
    """A rule in force: the ``times`` it has left, and how many requests fitted it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.left = rule.times
        self.fitted = 0


class Behaviour:
    """The rules that are in force."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standing: list[_Standing] = []

    def add(self, rule: Rule) -> None:
        """From now on, and before all others."""
        with self._lock:
            self._standing.insert(0, _Standing(rule))

    def reset(self) -> None:
        """No rule any more."""
        with self._lock:
            self._standing.clear()

    def rules(self) -> list[Rule]:
        """The rules in force with the ``times`` that they have left, the first to be asked first."""
        with self._lock:
            return [msgspec.structs.replace(one.rule, times=one.left) for one in self._standing]

    def take(self, path: str) -> Rule | None:
        """The rule for a request, one time of it used up; None also where it is not this one's turn to be bent."""
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
    """What was asked for, in order: path and query of each request, counted when it arrives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped = 0
        self._asked: list[str] = []

    def add(self, address: str) -> None:
        """One more request."""
        with self._lock:
            self._asked.append(address)
            if len(self._asked) > FETCHES_MAX:
                half = len(self._asked) // 2
                del self._asked[:half]
                self._dropped += half

    def since(self, cursor: int) -> tuple[int, Mapping[str, int]]:
        """A new cursor, and how often each address was asked for since the old one (0: since the start)."""
        with self._lock:
            asked = self._asked[max(cursor - self._dropped, 0) :]
            return self._dropped + len(self._asked), Counter(asked)
