"""How soon things went on after a fault or a worker's death, and what took longest. Figures only, no judgement."""

from typing import Final

from scripts.chaos.history import Delivery, History, Promise, Window
from scripts.chaos.verdict import Verdict

SLACK_SECONDS: Final = 2.0  # between the clocks of client, hub and fault
SLOWEST: Final = 3  # how many are shown


def measure(history: History, verdict: Verdict, final: dict[str, Delivery]) -> None:
    """Fills in the verdict's figures."""
    _recoveries(history, verdict, final)
    _slowness(history, verdict, final)


def _recoveries(history: History, verdict: Verdict, final: dict[str, Delivery]) -> None:
    """Measures recoveries, from a fault's end to the first success of a task that was accepted after it.

    Also measures how soon the tasks of a killed worker began again.
    """
    ends = sorted(
        (found.settled, history.promises[task].accepted, history.promises[task].region)
        for task, found in final.items()
        if task in history.promises and found.status == "succeeded"
    )
    for window in history.windows:
        after = [settled for settled, accepted, region in ends if region in window.regions and accepted >= window.ended]
        if after:
            verdict.recovery.setdefault(window.kind, []).append(max(0.0, after[0] - window.ended))
        if window.kind == "kill-worker" and window.hits:
            verdict.second_starts += _second_starts(history, window, final)
    counted = {kind: 0 for window in history.windows if window.hits is not None for kind in (window.kind,)}
    for window in history.windows:
        if window.hits:
            counted[window.kind] += 1
    verdict.missed = [kind for kind, hits in counted.items() if not hits]


def _slowness(history: History, verdict: Verdict, final: dict[str, Delivery]) -> None:
    """Finds the slowest tasks, from their accept, and the slowest readers, from the end of their request."""
    took = [
        (found.settled - history.promises[task].accepted, f"{task} ({history.promises[task].region})")
        for task, found in final.items()
        if task in history.promises
    ]
    verdict.slowest = sorted(took, reverse=True)[:SLOWEST]
    ends = {
        request: max((one.settled for one in found or ()), default=0.0) for request, found in history.audited.items()
    }
    lags = [
        (reader.ended - ends[reader.request], f"{reader.request} ({reader.way})")
        for reader in history.readers
        if reader.ended and ends.get(reader.request)
    ]
    verdict.told_late = sorted(lags, reverse=True)[:SLOWEST]


def _second_starts(history: History, window: Window, final: dict[str, Delivery]) -> list[float]:
    """For tasks that ran when a worker died, the seconds from the death to their next execution."""
    found = []
    for task, one in final.items():
        promise = history.promises.get(task)
        if promise is None or one.attempts < 2 or promise.region not in window.regions:
            continue
        began = promise.accepted + one.queued_ms / 1000
        if promise.accepted < window.began < began and not _others(history, window, promise, began):
            found.append(began - window.began)
    return found


def back(window: Window) -> float:
    """When the fault's part worked again."""
    return max(window.ended, window.back)


def _others(history: History, window: Window, promise: Promise, until: float) -> bool:
    """Whether another fault interfered between a death and the second start."""
    return any(
        other is not window
        and promise.region in other.regions
        and other.began < until
        and back(other) > window.began - SLACK_SECONDS
        for other in history.windows
    )
