"""When to read for waiting clients without news. Only one thread may use them."""

import heapq
import math
import time
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

TICK_SECONDS: Final = 0.05  # timers that end within the same tick end together


class Timed(Protocol):
    """What has a timer. It is hashable."""

    timer: float  # monotonic; when it ends. It does not change while it is set


T = TypeVar("T", bound=Timed)


class Timers(Generic[T]):
    """The timers that are set, by the tick in which they end: setting one costs a heap only if its tick has no other."""

    def __init__(self) -> None:
        self._by_tick: dict[int, dict[T, None]] = {}
        self._ticks: list[int] = []  # the same ticks, a heap

    def set(self, one: T) -> bool:
        """Sets a timer. Returns whether no other ends as soon."""
        tick = _tick(one)
        if (ending := self._by_tick.get(tick)) is not None:
            ending[one] = None
            return False
        self._by_tick[tick] = {one: None}
        heapq.heappush(self._ticks, tick)
        return self._ticks[0] == tick

    def forget(self, one: T) -> None:
        """Takes a timer back, if it is set."""
        self._by_tick.get(_tick(one), {}).pop(one, None)

    def over(self) -> Iterator[T]:
        """Removes those whose time has come, and yields them."""
        now = time.monotonic()
        while self._ticks and self._ticks[0] * TICK_SECONDS <= now:
            yield from self._by_tick.pop(heapq.heappop(self._ticks))

    def next(self) -> float | None:
        """When the next timer ends (monotonic); None if none is set."""
        while self._ticks and not self._by_tick[self._ticks[0]]:  # those were taken back
            del self._by_tick[heapq.heappop(self._ticks)]
        return self._ticks[0] * TICK_SECONDS if self._ticks else None


def _tick(one: Timed) -> int:
    return math.ceil(one.timer / TICK_SECONDS)
