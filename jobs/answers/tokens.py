"""A worker process keeps values of ``[before]`` for ``ttl_seconds``, so that not every task fetches a token.

Values that arrived with cookies are not kept: such a token is worthless without its session, and cookies never outlive
their task.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from jobs.definition.model import Definition
from jobs.page import Request

KEPT_MAX: Final = 1_000

Key = tuple[object, ...]


class Tokens:
    """Kept values, by definition and request. The threads of a process share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Key, tuple[float, Mapping[str, Any]]] = {}

    def get(self, key: Key) -> Mapping[str, Any] | None:
        """The values, or None when they are not kept any more."""
        with self._lock:
            until, values = self._kept.get(key, (0.0, None))
        return values if time.monotonic() < until else None

    def keep(self, key: Key, values: Mapping[str, Any], seconds: float) -> None:
        """Keeps values. Beyond ``KEPT_MAX`` entries the oldest go."""
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = (time.monotonic() + seconds, values)
            while len(self._kept) > KEPT_MAX:
                del self._kept[next(iter(self._kept))]

    def forget(self, key: Key) -> None:
        """Forgets values that did not work."""
        with self._lock:
            self._kept.pop(key, None)


def key_of(definition: Definition, request: Request) -> Key:
    """The key of values: it differs for another definition, param or secret."""
    sent = (tuple(sorted(request.headers.items())), tuple(sorted(request.cookies.items())))
    return definition.id, definition.hash, request.method, request.address, *sent
