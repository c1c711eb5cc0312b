"""Compares what was promised with what came: pure, over a ``History``.

lost        a promised task without a result
doubled     a reader got a task twice, or the request's stream has it twice
changed     records other than the page's, or other than another reader got; another final state
unexpected  a result that nobody asked for, a refused request that can be read, a fetch of a page nobody asked for
uncaused    not succeeded, although its deadline lay beyond 30 s of peace, or for a reason that no fault explains
refetched   fetched more than once, although no fault touched it
late        ended later than deadline + grace, and what a gateway may wait after a fault
odd         answers that no client should ever get
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from scripts.chaos.history import Delivery, History, Promise, Window

CALM_SECONDS: Final = 30.0  # after a fault's end everything is well again
GRACE_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 16.0  # a gateway that started or regained its servers waits so long before it ends tasks
SLACK_SECONDS: Final = 2.0  # between the clocks of a client and the hub, and of a fault as it was noted
OBLIGED_SHARE: Final = 0.9
EXPLAINED: Final = frozenset({"expired", "timeout", "connection", "region_unavailable", "internal"})
SLOWEST: Final = 3  # are told
SECOND_START_SECONDS: Final = 15.0
VIOLATIONS: Final = ("lost", "doubled", "changed", "unexpected", "uncaused", "refetched", "late", "odd")

Digest = Callable[[int], str]


@dataclass
class Verdict:
    """What the comparison found. Violations are told by id; the rest are figures."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    uncaused: list[str] = field(default_factory=list)
    refetched: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    promised: int = 0
    obliged: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    excused: dict[str, int] = field(default_factory=dict)  # error type → exempt tasks that a fault explains
    refetches: int = 0  # those that a fault explains
    left: list[str] = field(default_factory=list)  # refused, and not taken back: the hub was away and the gateway died
    recovery: dict[str, list[float]] = field(
        default_factory=dict
    )  # kind → seconds from a fault's end to the next success
    second_starts: list[float] = field(default_factory=list)  # seconds from a worker's death to the start of its tasks
    slowest: list[tuple[float, str]] = field(
        default_factory=list
    )  # seconds from accept to end, less the page's own; task
    told_late: list[tuple[float, str]] = field(
        default_factory=list
    )  # seconds from a request's end until a reader knew; who
    missed: list[str] = field(default_factory=list)  # kinds of kills of which none hit anything

    @property
    def faults(self) -> list[str]:
        """Why the run failed; empty when it passed."""
        found = [f"{len(getattr(self, name))} {name}" for name in VIOLATIONS if getattr(self, name)]
        if self.promised and self.obliged < OBLIGED_SHARE * self.promised:
            found.append(f"only {self.obliged} of {self.promised} tasks were obliged to succeed")
        if not self.promised:
            found.append("nothing was accepted")
        found += [f"no {kind} hit anything" for kind in self.missed]
        slow = p99(self.second_starts)
        if slow is not None and slow > SECOND_START_SECONDS:
            found.append(
                f"second starts: p99 {slow:.1f} s after the death, expected {SECOND_START_SECONDS:.0f} s at most"
            )
        return found


def p99(figures: Iterable[float]) -> float | None:
    """The 99th percentile; None of nothing."""
    found = sorted(figures)
    return found[min(len(found) - 1, int(0.99 * len(found)))] if found else None


def compare(history: History, expected: Digest) -> Verdict:
    """The verdict on a run. ``expected`` gives the digest of the records that a number's page has."""
    verdict = Verdict(promised=len(history.promises), odd=list(history.odd))
    final = _audit(history, verdict)
    _readers(history, verdict, final)
    for promise in history.promises.values():
        _judge(history, verdict, promise, final.get(promise.task), expected)
    _strangers(history, verdict)
    _fetches(history, verdict, final)
    _recoveries(history, verdict, final)
    _slowness(history, verdict, final)
    return verdict


def is_obliged(promise: Promise, windows: Iterable[Window]) -> bool:
    """Whether there were 30 s without a fault that can touch it between its accept and its deadline."""
    free_since = promise.accepted
    for window in sorted(windows, key=lambda one: one.began):
        if promise.region not in window.regions or window.ended <= free_since or window.began >= promise.deadline:
            continue
        if window.began - free_since > CALM_SECONDS:
            return True
        free_since = max(free_since, window.ended)
    return promise.deadline - free_since > CALM_SECONDS


def _audit(history: History, verdict: Verdict) -> dict[str, Delivery]:
    """Every task's one result, as its request's stream has it at the end."""
    final: dict[str, Delivery] = {}
    for request, deliveries in history.audited.items():
        for one in deliveries or ():
            if one.task in final:
                verdict.doubled.append(f"{one.task}: twice in the stream of {request}")
            final[one.task] = one
    return final


def _readers(history: History, verdict: Verdict, final: dict[str, Delivery]) -> None:
    """Each reader got each task of its request once, and the same as everybody."""
    of_request: dict[str, set[str]] = defaultdict(set)
    for promise in history.promises.values():
        of_request[promise.request].add(promise.task)
    for reader in history.readers:
        counts = Counter(one.task for one in reader.got)
        who = f"a reader of {reader.request} ({reader.way})"
        verdict.doubled += [f"{task}: {count} times to {who}" for task, count in counts.items() if count > 1]
        if reader.ended:
            verdict.lost += [f"{task}: not told to {who}" for task in of_request[reader.request] - set(counts)]
        if reader.vanished:
            verdict.lost.append(f"{reader.request}: {reader.vanished} times unknown after its accept")
        for one in reader.got:
            known = final.get(one.task)
            if known is not None and (known.status, known.digest) != (one.status, one.digest):
                verdict.changed.append(f"{one.task}: {one.status} for {who}, later {known.status} or other records")


def _judge(history: History, verdict: Verdict, promise: Promise, found: Delivery | None, expected: Digest) -> None:
    """One promised task."""
    obliged = is_obliged(promise, history.windows)
    verdict.obliged += obliged
    name = f"{promise.task} (number {promise.number}, {promise.region})"
    if found is None:
        verdict.lost.append(f"{name}: no result")
        return
    verdict.statuses[found.status] = verdict.statuses.get(found.status, 0) + 1
    if found.status == "succeeded":
        if found.digest != expected(promise.number):
            verdict.changed.append(f"{name}: other records than its page has")
    else:
        what = found.error or found.status
        touching = [window for window in history.windows if _touches(window, promise, found.settled)]
        if obliged or not touching or what not in EXPLAINED:
            why = "obliged to succeed" if obliged else "no fault explains it"
            verdict.uncaused.append(f"{name}: {what} at {found.settled - promise.accepted:.1f} s, {why}")
        else:
            verdict.excused[what] = verdict.excused.get(what, 0) + 1
    latest = max(
        [promise.deadline + GRACE_SECONDS + SLACK_SECONDS]
        + [
            _back(one) + SWEEP_SECONDS + SLACK_SECONDS
            for one in history.windows
            if _touches(one, promise, found.settled)
        ]
    )
    if found.settled > latest:
        verdict.late.append(f"{name}: ended {found.settled - promise.deadline:.1f} s after its deadline")


def _back(window: Window) -> float:
    return max(window.ended, window.back)


def _touches(window: Window, promise: Promise, settled: float) -> bool:
    """Whether a fault may have had to do with a task: accepted before its part was well again, settled after it began."""
    return (
        promise.region in window.regions
        and promise.accepted < _back(window) + CALM_SECONDS
        and settled > window.began - SLACK_SECONDS
    )


def _strangers(history: History, verdict: Verdict) -> None:
    """What came and was never promised."""
    for request in history.came_back:
        if _could_not_be_taken_back(history, history.refused[request]):
            verdict.left.append(request)
        else:
            verdict.unexpected.append(f"{request}: answered 503, and can be read")
    seen = {one.task: one.request for reader in history.readers for one in reader.got}
    seen.update((one.task, one.request) for found in history.audited.values() for one in found or ())
    verdict.unexpected += [
        f"{task}: nobody asked for it, in {request}" for task, request in seen.items() if task not in history.promises
    ]
    verdict.lost += [f"{request}: unknown at the end" for request, found in history.audited.items() if found is None]


def _could_not_be_taken_back(history: History, refused: float) -> bool:
    """Whether the gateway that refused it died before it could have told the hub so."""
    is_away = [
        one for one in history.windows if one.target in ("hub", "gateway>hub") and one.began - SLACK_SECONDS < refused
    ]
    until = max((_back(one) + CALM_SECONDS for one in is_away if _back(one) > refused - SLACK_SECONDS), default=0.0)
    deaths = [one.began for one in history.windows if one.kind in ("kill-gateway", "restart-gateway")]
    return any(refused - SLACK_SECONDS < death < until for death in deaths)


def _fetches(history: History, verdict: Verdict, final: dict[str, Delivery]) -> None:
    """A page is asked for once, unless a fault touched its task."""
    by_number = {promise.number: promise for promise in history.promises.values()}
    for number, count in history.fetches.items():
        promise = by_number.get(number)
        if number not in history.posted:
            verdict.unexpected.append(f"number {number}: fetched {count} times, nobody asked for it")
        elif count > 1 and promise is not None:
            found = final.get(promise.task)
            settled = found.settled if found else float("inf")
            if any(_touches(window, promise, settled) for window in history.windows):
                verdict.refetches += 1
            else:
                verdict.refetched.append(f"{promise.task} (number {number}): {count} times")
    for promise in history.promises.values():
        found = final.get(promise.task)
        if found is not None and found.status == "succeeded" and not history.fetches.get(promise.number):
            verdict.unexpected.append(f"{promise.task} (number {promise.number}): succeeded without a fetch")


def _recoveries(history: History, verdict: Verdict, final: dict[str, Delivery]) -> None:
    """How soon after a fault something that was asked for after it succeeded; and how soon the dead one's tasks began again."""
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
    """What took longest: tasks from their accept, and readers from the end of what they waited for."""
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
    """Of the tasks that ran when a worker died: when their next execution began, after the death."""
    found = []
    for task, one in final.items():
        promise = history.promises.get(task)
        if promise is None or one.attempts < 2 or promise.region not in window.regions:
            continue
        began = promise.accepted + one.queued_ms / 1000
        if promise.accepted < window.began < began and not _others(history, window, promise, began):
            found.append(began - window.began)
    return found


def _others(history: History, window: Window, promise: Promise, until: float) -> bool:
    """Whether another fault was in the way between a death and the second start."""
    return any(
        other is not window
        and promise.region in other.regions
        and other.began < until
        and _back(other) > window.began - SLACK_SECONDS
        for other in history.windows
    )
