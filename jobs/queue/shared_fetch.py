"""Tasks that ask the same at the same time: one asks, the others wait with it, and each gets a result of its own.

    claim ── nobody asks it ──> nf:flight:{key} is the task's, until it ends
       └─ somebody does ── join ──> nf:joined:{key} and RQ's scheduled registry: no thread, no turn
    the end of who asks ── land ── an answer ──> nf:shared:{task}; the others go to the queue's front, and take it (tell)
                              └─ none for all ── pass_on ──> the next one asks
    the bridge, of a question that stands in the queue already ──> nf:flight:{key} is "*": who asks keeps its answer for those
    DUE, once a second ── look_after ──> who waits with a task that is gone, or late

A flight is a task's, not an execution's: it lasts through the wait for a turn, retries and deaths of processes, so that
nothing of that is done twice. It ends where a task ends, which is in conclude.lua or in a claim that drops it.
"""

from typing import Final

from jobs import contract
from jobs.contract import Outcome, Result, Task, Timing
from jobs.errors import Cancelled, TaskError
from jobs.queue.claim import Ending
from jobs.queue.retry import ROOM_SECONDS
from jobs.queue.script import ROOM_MS

FOR_ALL_MS: Final = 9_000_000_000_000_000  # an answer for everybody, whatever the deadline


def tell(task: Task, leader: str, frame: bytes, *, attempts: int, timing: Timing, now_ms: int) -> Ending:
    """The result of a task that asked the same as ``leader``, of whose frame it is made. ``now_ms``: the hub's clock.

    Its records, address, warnings and error are the leader's. It fetched nothing: ``bytes.raw`` is 0, and ``attempts``
    those that it made before.
    """
    known = contract.head(frame)
    result = Result(
        task=task.task,
        source=task.source,
        region=known.region,
        status=known.status,
        attempts=attempts,
        count=known.count,
        partial=known.partial,
        warnings=known.warnings,
        url=known.url,
        definition=known.definition,
        fetched_at=known.fetched_at,
        age=contract.age_seconds(known.fetched_at, now_ms),
        cached=known.cached,
        stale=known.stale,
        timing=timing,
        error=known.error,
    )
    result.bytes.records = known.bytes.records
    timing.total_ms = float(max(0, now_ms - task.accepted_ms))
    framed = contract.reframe(result, frame)
    outcome = Outcome(
        request=task.request,
        task=task.task,
        status=known.status,
        finished_ms=now_ms,
        expires_ms=task.expires_ms,
        frame=framed,
        run=contract.Run(
            source=task.source,
            definition=known.definition,
            records_bytes=result.bytes.records,
            wire_bytes=result.bytes.wire,
            own=False,
        ),
    )
    shown = f"as task {leader}, which asked the same: {known.error.type}: {known.error.message}" if known.error else ""
    return Ending(outcome, shown, records_bytes=result.bytes.records, wire_bytes=result.bytes.wire)


def shared_ms(error: TaskError | None, left_seconds: float, *, failures: int, retries: int) -> int:
    """By how many ms the deadlines may be later than its own of those for whom the end of a task is the answer; -1: nobody.

    ``failures``: attempts that failed before; ``retries``: how many more than one the source allows. A failure that is
    the target's, the network's or the page's is everybody's; for want of time, only theirs who had no more of it. What is
    the region's own fault, or a cancel, is nobody else's: the next one asks.
    """
    if error is None:
        return FOR_ALL_MS
    if isinstance(error, Cancelled) or error.whose in ("region", "internal"):
        return -1
    if left_seconds <= ROOM_SECONDS or (error.is_retryable and failures < retries):
        return ROOM_MS
    return FOR_ALL_MS
