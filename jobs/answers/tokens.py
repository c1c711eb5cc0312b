"""Values of ``[before]`` that a worker process keeps for ``ttl_seconds``, so that not every task asks for a token.

Only such are kept as came without cookies: a token that belongs to a session is worth nothing without it, and cookies
never outlive their task.
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
    """By definition and by what was asked; shared by the threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Key, tuple[float, Mapping[str, Any]]] = {}

    def get(self, key: Key) -> Mapping[str, Any] | None:
        """The values, as long as they are kept."""
        with self._lock:
            until, values = self._kept.get(key, (0.0, None))
        return values if time.monotonic() < until else None

    def keep(self, key: Key, values: Mapping[str, Any], seconds: float) -> None:
        """Keeps values; past ``KEPT_MAX`` the oldest go."""
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = (time.monotonic() + seconds, values)
            while len(self._kept) > KEPT_MAX:
                del self._kept[next(iter(self._kept))]

    def forget(self, key: Key) -> None:
        """What did not serve."""
        with self._lock:
            self._kept.pop(key, None)


def key_of(definition: Definition, request: Request) -> Key:
    """What values are kept under: another definition, param or secret has others."""
    sent = (tuple(sorted(request.headers.items())), tuple(sorted(request.cookies.items())))
    return definition.id, definition.hash, request.method, request.address, *sent
