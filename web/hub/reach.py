"""Whose fault a failure on the network was: the host's, or that of the region's own way out. Pure but for what it remembers.

A region that can't reach anything loses all its hosts at once; a host that is down fails alone. So the region's other
sources are the witnesses: a failure is the host's where others were asked around the same time and most of them were
reached. Where nobody else was asked nobody can tell, and it counts for nothing.
"""

from typing import Final

from msgspec import Struct

from jobs.contract import Run
from web.hub.verdict import is_the_networks

AROUND_MS: Final = 30_000  # before and after a failure
SLOT_MS: Final = 5_000
KEPT_MS: Final = 4 * AROUND_MS
LOST_SHARE: Final = 0.1  # of a source's runs: from here on it was not reached well


class _Asked(Struct):
    """A source in a slot: how many of its runs were reached or lost, and the host that was lost last."""

    reached: int = 0
    lost: int = 0
    host: str = ""


class Reach:
    """What each region reached lately. Times are when runs finished (hub ms)."""

    def __init__(self) -> None:
        self._slots: dict[str, dict[int, dict[str, _Asked]]] = {}

    def note(self, region: str, run: Run, finished_ms: int) -> None:
        """A run that went out: it was reached when an answer came, whatever that was."""
        slots = self._slots.setdefault(region, {})
        slot = finished_ms // SLOT_MS
        if slot not in slots:
            slots[slot] = {}
            for old in [one for one in slots if one < max(slots) - KEPT_MS // SLOT_MS]:
                del slots[old]
        asked = slots.get(slot, {}).setdefault(run.source, _Asked())
        if is_the_networks(run):
            asked.lost += 1
            asked.host = run.host
        else:
            asked.reached += 1

    def is_the_hosts(self, region: str, run: Run, finished_ms: int) -> bool:
        """Whether a failure on the network was its host's own; ask when what happened after it has been noted, too."""
        others: dict[str, _Asked] = {}
        first, last = (finished_ms - AROUND_MS) // SLOT_MS, (finished_ms + AROUND_MS) // SLOT_MS
        slots = self._slots.get(region, {})
        for slot in range(first, last + 1):
            for source, asked in slots.get(slot, {}).items():
                if source == run.source or (asked.lost and asked.host == run.host):
                    continue  # of its own host they say nothing of the way there
                other = others.setdefault(source, _Asked())
                other.reached += asked.reached
                other.lost += asked.lost
        away = sum(other.lost >= LOST_SHARE * (other.reached + other.lost) for other in others.values())
        return bool(others) and 2 * away < len(others)
