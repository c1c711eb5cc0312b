"""Tasks that ask the same question at the same time share one fetch: the leader fetches, and each gets a result of its own.

    claim ── no task asks the question ──> the task is its leader (nf:flight:{key}) until it ends
       └─ a task does ── join ──> nf:joined:{key} and RQ's scheduled registry: it needs no thread and no turn
    the leader ends ── share ── with an answer for all ──> nf:shared:{task}; the others go to the front of the queue and take it (tell)
                          └─ without one ── pass_on ──> the next one becomes the leader
    the bridge, if the question stands in the queue already ──> nf:flight:{key} is "*": the leader keeps its answer for those tasks
    due.lua, once a second ── look_after ──> tasks whose leader is gone or late

A task leads, not an execution: it leads through the wait for a turn, retries and deaths of processes, so that nothing of
that is done twice. It stops leading when it ends, which is in conclude.lua or in a claim that drops it.
"""

from typing import Final

from jobs import contract, result_frame
from jobs.contract import Outcome, Result, Task, Timing
from jobs.errors import Cancelled, TaskError
from jobs.queue.claim import Ending
from jobs.queue.retry import ROOM_SECONDS
from jobs.queue.script import ROOM_MS

FOR_ALL_MS: Final = 9_000_000_000_000_000  # an answer for all tasks, whatever their deadlines


def tell(task: Task, leader: str, frame: bytes, *, attempts: int, timing: Timing, now_ms: int) -> Ending:
    """The ending of a task that asked the same as ``leader``, made from that one's frame. ``now_ms``: the hub's clock.

    Its records, address, warnings and error are the leader's. It fetched nothing: ``bytes.raw`` is 0, ``bytes.spared`` is what
    the leader's page had, and ``attempts`` counts those that it made before.
    """
    known = result_frame.head(frame)
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
    result.bytes.records, result.bytes.spared = known.bytes.records, known.bytes.page
    timing.total_ms = float(max(0, now_ms - task.accepted_ms))
    framed = result_frame.reframe(result, frame)
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
            spared_bytes=result.bytes.spared,
        ),
    )
    shown = f"as task {leader}, which asked the same: {known.error.type}: {known.error.message}" if known.error else ""
    return Ending(outcome, shown, records_bytes=result.bytes.records, wire_bytes=result.bytes.wire)


def shared_ms(error: TaskError | None, left_seconds: float, *, failures: int, retries: int) -> int:
    """For which other tasks the end of a task is the answer: those whose deadlines are up to that many ms later; -1: for none.

    ``failures``: attempts that failed before; ``retries``: how many more than one the source allows. A failure of the
    target, the network or the page is the answer for all tasks. A failure for lack of time is the answer only for
    tasks that had no more time. A fault of the region, or a cancel, is the answer for no other task: the next one
    asks.
    """
    if error is None:
        return FOR_ALL_MS
    if isinstance(error, Cancelled) or error.whose in ("region", "internal"):
        return -1
    if left_seconds <= ROOM_SECONDS or (error.is_retryable and failures < retries):
        return ROOM_MS
    return FOR_ALL_MS
