"""Decides whether a network failure was the host's fault or that of the region's own network. Makes no calls.

A region without a network loses all its hosts at once, while a host that is down fails alone. So a failure is the host's if
other sources of the region were asked around the same time and most of them were reached. If no other source was asked,
the cause can't be known, and the failure counts for nothing.
"""

from typing import Final

from msgspec import Struct

from jobs.contract import Run
from web.hub.verdict import is_the_networks

AROUND_MS: Final = 30_000  # before and after a failure
SLOT_MS: Final = 5_000
KEPT_MS: Final = 4 * AROUND_MS
LOST_SHARE: Final = 0.1  # of a source's runs: with this share lost, the source counts as not reached


class _Asked(Struct):
    """A source within one slot: how many of its runs reached their host, how many lost it, and the host lost last."""

    reached: int = 0
    lost: int = 0
    host: str = ""


class Reach:
    """Which sources each region reached lately. Times are those of the ends of runs (hub ms)."""

    def __init__(self) -> None:
        self._slots: dict[str, dict[int, dict[str, _Asked]]] = {}

    def note(self, region: str, run: Run, finished_ms: int) -> None:
        """Counts a run. Any answer means that its host was reached."""
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

    def blames_the_host(self, region: str, run: Run, finished_ms: int) -> bool:
        """Whether a network failure was its host's. Call it after runs that ended ``AROUND_MS`` later are noted, too."""
        others: dict[str, _Asked] = {}
        first, last = (finished_ms - AROUND_MS) // SLOT_MS, (finished_ms + AROUND_MS) // SLOT_MS
        slots = self._slots.get(region, {})
        for slot in range(first, last + 1):
            for source, asked in slots.get(slot, {}).items():
                if source == run.source or (asked.lost and asked.host == run.host):
                    continue  # another failure of the same host tells nothing about the region's network
                other = others.setdefault(source, _Asked())
                other.reached += asked.reached
                other.lost += asked.lost
        away = sum(other.lost >= LOST_SHARE * (other.reached + other.lost) for other in others.values())
        return bool(others) and 2 * away < len(others)
