"""Compares what was promised with what came; pure, over a ``History``. scripts.chaos.verdict lists the kinds of violations."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from scripts.chaos import recovery
from scripts.chaos.history import Delivery, History, Promise, Window
from scripts.chaos.plan import ENDS, MOVES
from scripts.chaos.recovery import SLACK_SECONDS, back
from scripts.chaos.verdict import Verdict

CALM_SECONDS: Final = 30.0  # this long after a fault's end everything works again
GRACE_SECONDS: Final = 5.0
# A gateway waits this long after its start, or the return of its servers, before it ends tasks.
SWEEP_SECONDS: Final = 16.0
TICK_SECONDS: Final = 0.05  # tolerance, although the client's clock and the hub's are both this machine's
EXPLAINED: Final = frozenset({"expired", "timeout", "connection", "region_unavailable", "internal"})

Digest = Callable[[int], str]


def compare(history: History, expected: Digest) -> Verdict:
    """The verdict on a run. ``expected`` gives the digest of the records of a number's page."""
    verdict = Verdict(promised=len(history.promises), odd=list(history.odd))
    final = _audit(history, verdict)
    _readers(history, verdict, final)
    for promise in history.promises.values():
        _judge(history, verdict, promise, final.get(promise.task), expected)
    _strangers(history, verdict)
    _fetches(history, verdict, final)
    _letters(history, verdict)
    _archive(history, verdict, final)
    verdict.still = [f"{name} never grew" for name, one in history.scaled.items() if not one.grew]
    verdict.still += [f"{name} never shrank" for name, one in history.scaled.items() if not one.shrank]
    recovery.measure(history, verdict, final)
    return verdict


def is_obliged(promise: Promise, windows: Iterable[Window]) -> bool:
    """Whether the time between accept and deadline contains 30 s without a fault that can touch the task."""
    free_since = promise.accepted
    for window in sorted(windows, key=lambda one: one.began):
        if promise.region not in window.regions or window.ended <= free_since or window.began >= promise.deadline:
            continue
        if window.began - free_since > CALM_SECONDS:
            return True
        free_since = max(free_since, window.ended)
    return promise.deadline - free_since > CALM_SECONDS


def _audit(history: History, verdict: Verdict) -> dict[str, Delivery]:
    """The result of every task, from its request's stream at the end."""
    final: dict[str, Delivery] = {}
    for request, deliveries in history.audited.items():
        for one in deliveries or ():
            if one.task in final:
                verdict.doubled.append(f"{one.task}: twice in the stream of {request}")
            final[one.task] = one
    return final


def _readers(history: History, verdict: Verdict, final: dict[str, Delivery]) -> None:
    """Checks that each reader got each task of its request once, and the same result as all others."""
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
    """Checks one promised task: it ended like the plan says, or a fault explains why not."""
    name = f"{promise.task} (number {promise.number}, {promise.region})"
    if found is None:
        verdict.lost.append(f"{name}: no result")
        return
    verdict.statuses[found.status] = verdict.statuses.get(found.status, 0) + 1
    if found.region not in ("", promise.region):
        verdict.moved += promise.trouble == MOVES
        if promise.trouble != MOVES:
            verdict.strayed.append(f"{name}: answered by {found.region}")
    end = promise.trouble if promise.trouble in ENDS else "succeeded"
    what = "succeeded" if found.status == "succeeded" else found.error or found.status
    was_cancelled, fault = _by_cancel(history, promise, found)
    has_time = is_obliged(promise, history.windows) and not was_cancelled
    verdict.obliged += has_time and end == "succeeded"
    after = f"{what} at {found.settled - promise.accepted:.1f} s"
    if what == "succeeded" == end and found.digest != expected(promise.number):
        verdict.changed.append(f"{name}: other records than its page has")
    elif fault:
        verdict.uncaused.append(f"{name}: {after}, {fault}")
    elif what == end or (what == "cancelled" and was_cancelled):
        if what != "succeeded":
            verdict.planned[what] = verdict.planned.get(what, 0) + 1
    elif has_time or what not in EXPLAINED or not _touched(history, promise, found):
        why = f"obliged to end as {end}" if has_time else "no fault explains it"
        verdict.uncaused.append(f"{name}: {after}, {why}")
    else:
        verdict.excused[what] = verdict.excused.get(what, 0) + 1
    _judge_time(history, verdict, promise, found, name)


def _by_cancel(history: History, promise: Promise, found: Delivery) -> tuple[bool, str]:
    """Whether the client's DELETE may have ended the task, and what is wrong with that end."""
    cancel = history.cancels.get(promise.request)
    if cancel is None or found.settled < cancel.asked - TICK_SECONDS:
        return False, ""
    if found.settled > cancel.answered + TICK_SECONDS:
        return True, "although its cancel had been answered"
    return True, ""


def _touched(history: History, promise: Promise, found: Delivery) -> list[Window]:
    return [window for window in history.windows if _touches(window, promise, found.settled)]


def _judge_time(history: History, verdict: Verdict, promise: Promise, found: Delivery, name: str) -> None:
    """Checks that the task ended by its deadline + grace, or by the time that a gateway may wait after a fault."""
    waits = [back(one) + SWEEP_SECONDS for one in _touched(history, promise, found)]
    if found.settled > max([promise.deadline + GRACE_SECONDS, *waits]) + SLACK_SECONDS:
        verdict.late.append(f"{name}: ended {found.settled - promise.deadline:.1f} s after its deadline")


def _touches(window: Window, promise: Promise, settled: float) -> bool:
    """Whether a fault may have affected a task: accepted before the fault's part was well again, settled after it began."""
    return (
        promise.region in window.regions
        and promise.accepted < back(window) + CALM_SECONDS
        and settled > window.began - SLACK_SECONDS
    )


def _strangers(history: History, verdict: Verdict) -> None:
    """Finds results and requests that were never promised."""
    for request in history.came_back:
        if _could_not_be_takenback(history, history.refused[request]):
            verdict.left.append(request)
        else:
            verdict.unexpected.append(f"{request}: answered 503, and can be read")
    seen = {one.task: one.request for reader in history.readers for one in reader.got}
    seen.update((one.task, one.request) for found in history.audited.values() for one in found or ())
    verdict.unexpected += [
        f"{task}: nobody asked for it, in {request}" for task, request in seen.items() if task not in history.promises
    ]
    verdict.lost += [f"{request}: unknown at the end" for request, found in history.audited.items() if found is None]


def _could_not_be_takenback(history: History, refused: float) -> bool:
    """Whether the gateway that refused the request died before it could tell the hub."""
    is_away = [
        one for one in history.windows if one.target in ("hub", "gateway>hub") and one.began - SLACK_SECONDS < refused
    ]
    until = max((back(one) + CALM_SECONDS for one in is_away if back(one) > refused - SLACK_SECONDS), default=0.0)
    deaths = [one.began for one in history.windows if one.kind in ("kill-gateway", "restart-gateway")]
    return any(refused - SLACK_SECONDS < death < until for death in deaths)


def _fetches(history: History, verdict: Verdict, final: dict[str, Delivery]) -> None:
    """Checks that each page was requested once, unless a fault touched its task."""
    by_number = {promise.number: promise for promise in history.promises.values()}
    for number, count in history.fetches.items():
        promise = by_number.get(number)
        if number not in history.posted:
            verdict.unexpected.append(f"number {number}: fetched {count} times, nobody asked for it")
        elif count > 1 + (promise is not None and promise.trouble == "once") and promise is not None:
            found = final.get(promise.task)
            settled = found.settled if found else float("inf")
            if promise.trouble == MOVES or any(_touches(window, promise, settled) for window in history.windows):
                verdict.refetches += 1
            else:
                verdict.refetched.append(f"{promise.task} (number {number}): {count} times")
    for promise in history.promises.values():
        found = final.get(promise.task)
        if found is not None and found.status == "succeeded" and not history.fetches.get(promise.number):
            verdict.unexpected.append(f"{promise.task} (number {promise.number}): succeeded without a fetch")


def _letters(history: History, verdict: Verdict) -> None:
    """Checks that each unreadable message became a dead letter once, and nothing else did."""
    counts = Counter(history.shown)
    confirmed = [name for name, is_confirmed in history.letters.items() if is_confirmed]
    verdict.lost += [f"{name}: unreadable, and no dead letter" for name in confirmed if not counts[name]]
    verdict.doubled += [f"{name}: {count} dead letters" for name, count in counts.items() if count > 1]
    verdict.unexpected += [f"{name}: a dead letter that nobody wrote" for name in counts if name not in history.letters]
    verdict.letters = sum(counts[name] > 0 for name in confirmed)


def _archive(history: History, verdict: Verdict, final: dict[str, Delivery]) -> None:
    """Checks that the history has each promised task once, in its final state and its request's, and no refused request."""
    counts = Counter(task for one in history.archived for task, _ in one.tasks)
    verdict.lost += [f"{task}: not in the history" for task in history.promises if not counts[task]]
    verdict.doubled += [f"{task}: {count} times in the history" for task, count in counts.items() if count > 1]
    for one in history.archived:
        for task, status in one.tasks:
            if task in final and final[task].status != status:
                verdict.changed.append(f"{task}: {status} in the history, {final[task].status} at its end")
        if one.status != (wanted := state_of([status for _, status in one.tasks])):
            verdict.changed.append(f"{one.request}: {one.status} in the history, expected {wanted} of its tasks")
        if one.request in history.refused and one.request not in verdict.left:
            verdict.unexpected.append(f"{one.request}: answered 503, and in the history")
    verdict.archived = len(history.archived)


def state_of(tasks: list[str]) -> str:
    """The final state of a request, from the states of its tasks."""
    if "cancelled" in tasks:
        return "cancelled"
    succeeded = tasks.count("succeeded")
    return "succeeded" if succeeded == len(tasks) else "partial" if succeeded else "failed"
