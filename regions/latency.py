"""Whether a server answers late, by the times that its last answers took."""

import random
import statistics
from collections import deque
from typing import Final

LOOKS: Final = 5


class Latency:
    """The times of the last ``LOOKS`` answers. One thread adds them, any thread may read.

    A server is slow from when more than half of these answers were late; a single late answer says nothing. It stays slow until
    none of them is late, since a server that stalls again and again answers some calls at once.
    """

    def __init__(self, late_seconds: float) -> None:
        """``late_seconds``: an answer that takes longer is late."""
        self._late_seconds = late_seconds
        self._took: deque[float] = deque(maxlen=LOOKS)
        self.is_slow = False

    def add(self, seconds: float) -> None:
        """Adds the time that one answer took."""
        self._took.append(seconds)
        late = sum(one > self._late_seconds for one in self._took)
        self.is_slow = 2 * late > LOOKS or (self.is_slow and late > 0)

    def clear(self) -> None:
        """Forgets all answers: the server is away, and the next one is another."""
        self._took.clear()
        self.is_slow = False

    @property
    def is_quick(self) -> bool:
        """Whether none of the last answers was late, so that the next look has time."""
        return not any(one > self._late_seconds for one in tuple(self._took))

    @property
    def seconds(self) -> float:
        """How long an answer takes: the longest of the last ones while the server is slow, else their median; 0 before there are enough."""
        took = tuple(self._took)
        if self.is_slow:
            return max(took, default=0.0)
        return statistics.median(took) if len(took) == LOOKS else 0.0


def uneven(seconds: float) -> float:
    """A pause of half to one and a half times this one. With equal pauses, all looks could fall between the stalls of a server."""
    return seconds * random.uniform(0.5, 1.5)
