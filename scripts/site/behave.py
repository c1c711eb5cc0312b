"""How the site misbehaves on request: rules by the beginning of a path, and what was fetched.

    {"prefix": "/hn.example/", "times": 2, "delay_seconds": 1.5, "status": 503, "headers": {"Retry-After": "2"}}

The latest rule whose prefix fits decides; ``times`` wears it out. Everything here is shared by all threads.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

FETCHES_MAX: Final = 1_000_000  # kept; the oldest half goes when there are more

Seconds = Annotated[float, Meta(ge=0, le=600)]


class Drip(Struct, frozen=True, forbid_unknown_fields=True):
    """The body in pieces of so many bytes, so many seconds between two of them."""

    bytes: Annotated[int, Meta(ge=1)]
    seconds: Seconds


class Rule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do with requests whose path begins with ``prefix``; what is left out stays as it is.

    ``delay_seconds`` before anything is sent (besides the page's own); ``status`` and ``body`` instead of the page's;
    ``headers`` besides them; ``redirect`` to an address (302 unless ``status`` says otherwise); ``cut`` closes the
    connection after so many bytes of the body, which keeps its Content-Length; ``drip`` sends it slowly.
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


class Behaviour:
    """The rules that are in force."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[tuple[Rule, int | None]] = []

    def add(self, rule: Rule) -> None:
        """From now on, and before all others."""
        with self._lock:
            self._rules.insert(0, (rule, rule.times))

    def reset(self) -> None:
        """No rule any more."""
        with self._lock:
            self._rules.clear()

    def rules(self) -> list[Rule]:
        """The rules in force with the ``times`` that they have left, the first to be asked first."""
        with self._lock:
            return [msgspec.structs.replace(rule, times=left) for rule, left in self._rules]

    def take(self, path: str) -> Rule | None:
        """The rule for a request, one time of it used up."""
        if not self._rules:
            return None
        with self._lock:
            for index, (rule, left) in enumerate(self._rules):
                if path.startswith(rule.prefix):
                    if left == 1:
                        del self._rules[index]
                    elif left is not None:
                        self._rules[index] = (rule, left - 1)
                    return rule
        return None


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
