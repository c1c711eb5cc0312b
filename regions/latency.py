"""Whether a server answers late, by the times that its last answers took."""

import random
import statistics
from collections import deque
from typing import Final

LOOKS: Final = 5
# After how many answers, of which one may be late, a slow server counts as quick: of one that stalls, every other may be quick.
QUICK_LOOKS: Final = 15


class Latency:
    """The times of a server's last answers. One thread adds them, any thread may read.

    A server becomes slow when more than half of the last ``LOOKS`` answers were late; a single late answer says nothing. It stays slow
    until at most one in ``QUICK_LOOKS`` of the last ``quick_looks`` answers was late, since a server that stalls again and again
    answers some calls at once.
    """

    def __init__(self, late_seconds: float, quick_looks: int = QUICK_LOOKS) -> None:
        """``late_seconds``: an answer that takes longer is late. ``quick_looks``: ``LOOKS`` or more; if it is less than ``QUICK_LOOKS``, none may be late."""
        self._late_seconds, self._quick_looks = late_seconds, quick_looks
        self._took: deque[float] = deque(maxlen=quick_looks)
        self.is_slow = False

    def add(self, seconds: float) -> None:
        """Adds the time that one answer took."""
        self._took.append(seconds)
        late = [one > self._late_seconds for one in self._took]
        self.is_slow = 2 * sum(late[-LOOKS:]) > LOOKS or (self.is_slow and QUICK_LOOKS * sum(late) > self._quick_looks)

    def clear(self) -> None:
        """Forgets all answers: the server is away, and the next one is another."""
        self._took.clear()
        self.is_slow = False

    @property
    def is_quick(self) -> bool:
        """Whether the server is not slow and none of the last answers was late, so that the next look has time."""
        return not self.is_slow and not any(one > self._late_seconds for one in tuple(self._took)[-LOOKS:])

    @property
    def seconds(self) -> float:
        """How long an answer takes: the longest of the last ones while the server is slow, else their median; 0 before there are enough."""
        took = tuple(self._took)
        if self.is_slow:
            return max(took, default=0.0)
        return statistics.median(took[-LOOKS:]) if len(took) >= LOOKS else 0.0


def uneven(seconds: float) -> float:
    """A pause of half to one and a half times this one. With equal pauses, all looks could fall between the stalls of a server."""
    return seconds * random.uniform(0.5, 1.5)
