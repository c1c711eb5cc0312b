"""Claims and ends of executions: one Lua script each, so that no job is half claimed and none is half finished.

    claim      renews the process's lease; takes jobs; drops those that are late, cancelled or gone; begins an execution of the rest
    finish     ends an execution everywhere and puts its task's outcome into the region's outbox
    retry      ends an execution, keeps its outcome, and puts its job into RQ's scheduled registry
    due        moves jobs whose time has come to the queue, looks after shared fetches (jobs.queue.shared_fetch), and ends with the kept
               outcome what could not be tried again in time
    give_back  puts executions back to the front of the queue (a cold stop, an answer that never came)

The fence: finish, retry and give_back do nothing for an execution that RQ's registry of started jobs no longer holds.

Scripts ask for the region's time themselves: an argument would be from before the wait for a job. RQ's scores of started jobs
lie far ahead, since RQ fails what it finds overdue, and no key of an execution expires, since RQ forgets what did.
"""

import math
import os
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import redis
from msgspec import Struct, structs

from jobs.contract import LOST, PUT_BACK, Attempt, Outcome, Run, Timing, Trail, encode_trail
from jobs.queue.clock import clock_of, machine_ms
from jobs.queue.retry import Retry, line, read_past
from jobs.queue.script import load, send
from regions import names
from regions.script import value


class _ClaimedRow(Struct, gc=False):
    """A job as ``claim.lua`` returns it; ``Job`` says what each is."""

    task: bytes
    execution: bytes
    attempt: int
    data: bytes
    request: bytes
    source: bytes
    past: bytes
    deaths: int
    deadline_ms: int
    bridged_ms: int
    host: bytes
    turn_ms: int
    refused_ms: int
    trouble: bytes
    why: bytes
    told: int
    leader: bytes


class _EndedRow(Struct, gc=False):
    """A task that ended with its kept outcome, as ``due.lua`` returns it."""

    entry: bytes
    task: bytes
    request: bytes
    state: bytes
    finished_ms: bytes
    expires_ms: bytes
    size_bytes: bytes
    frame: bytes
    trail: bytes


class _FinishedRow(Struct, gc=False):
    """An ending as ``finish.lua`` takes it; ``kept.lua`` says what each is."""

    status: str
    problem: bytes
    request: str
    state: str
    finished_ms: int
    expires_ms: int
    size_bytes: int
    frame: bytes
    raw_bytes: int
    records_bytes: int
    wire_bytes: int
    trail: bytes
    shared_ms: int
    meta: bytes
    answered_ms: int | str
    task: str
    execution: str


class _RetriedRow(_FinishedRow, gc=False):
    """The same, of an attempt that is not the last, as ``retry.lua`` takes it."""

    wait_ms: int
    front: str
    line: bytes


Kind = Literal["normal", "urgent", "alone"]

CLAIM: Final = load("claim", job=_ClaimedRow)
FINISH: Final = load("finish", done=_FinishedRow)
RETRY: Final = load("retry", retried=_RetriedRow)
DUE: Final = load("due", ended=_EndedRow)
GIVE_BACK: Final = load("give_back")


class Job(Struct, eq=False):
    """A claimed job: one execution of a task. ``data`` is RQ's; ``claimed_ms`` is on the region Redis's clock.

    ``past``: the attempts before it, a line each. ``deaths``: processes that died while they ran it. ``deadline_ms`` is
    on the region's clock too, 0 if there is none; ``bridged_ms`` is on the hub's. ``turn_ms``: how long it waited for
    the turn of its ``host``. If ``refused_ms`` is 0 or more, its turn would come in that many ms, which is too late.
    ``trouble`` is "" if the host is well; otherwise its breaker must hear how the fetch went. For a host that is left alone it is
    the type of the error that caused that, and ``why`` explains it. ``answer``: the frame of ``leader``, which asked the same; such a job is not run.
    """

    task: str
    execution: str
    attempt: int
    data: bytes
    request: str
    source: str
    past: bytes
    deaths: int
    deadline_ms: int
    bridged_ms: int
    claimed_ms: int
    host: str = ""
    turn_ms: int = 0
    refused_ms: int = -1
    trouble: str = ""
    why: str = ""
    answer: bytes = b""
    leader: str = ""
    offset_ms: int | None = None  # the hub's clock less the region Redis's, once the data was read
    is_told: bool = False  # the hub knows that it runs
    is_cancelled: bool = False
    is_stopped: bool = False  # by RQ's stop commands
    is_ended: bool = False  # its ending is known; its thread may still run (jobs.worker.thread_pool.ThreadPool.give_up)
    thread: int = 0  # the one that runs it

    @property
    def member(self) -> str:
        """The execution as RQ's registries name it."""
        return names.execution_member(self.task, self.execution)

    def trail(self, worker: str, ended_ms: int = 0, run: Run | None = None) -> bytes:
        """Its hops as JSON, and its run. ``ended_ms`` is on the hub's clock, 0 while it runs."""
        ahead = self.offset_ms or 0
        past = [
            structs.replace(one, started_ms=one.started_ms + ahead, ended_ms=one.ended_ms + ahead)
            for one in read_past(self.past)
        ]
        note = f"its answer is that of {self.leader}, which asked the same" if self.leader else ""
        last = Attempt(self.attempt, self.claimed_ms + ahead, ended_ms, worker, "", note, self.turn_ms)
        return encode_trail(Trail(self.bridged_ms, [*past, last], run))

    @property
    def failures(self) -> int:
        """How many attempts before it failed, without those whose process was lost or that were put back."""
        return sum(attempt.error not in (LOST, PUT_BACK) for attempt in read_past(self.past))


@dataclass(slots=True, frozen=True)
class Claimed:
    """What a claim brought.

    ``refusal``: why it brought nothing, or "": ``suspended``, ``outbox full``, ``unregistered`` (RQ does not know the
    worker, or takes it for dead), ``enough alone`` (the region has as many such processes as it may) or ``no wait`` (there
    was nothing, and a full Redis refused to wait).
    ``lapsed``: the lease was gone before this call renewed it. ``now_ms``: the region Redis's clock. ``call_ms``: in how many
    ms the next of the tasks that wait for a host may be called (jobs.queue.turn), -1 if none waits. ``looked``: the replies to
    a look in the same write, for ``Claimer.look_around``; () if there was none.
    """

    now_ms: int
    lapsed: bool
    refusal: str
    jobs: list[Job]
    call_ms: int = -1
    looked: Sequence[Any] = ()


@dataclass(slots=True, frozen=True)
class Look:
    """What a process's look brought: which of its tasks are ``cancelled``; the executions that the region holds for it, as members.

    ``ended``: tasks that were not tried again in time, as ``Claimer.move_due`` returns them. ``has_left``: there was
    something in the outbox. ``due_ms``: until the next waiting job is moved to the queue.
    """

    cancelled: set[str]
    held: set[str]
    ended: list[tuple[str, Outcome, int]]
    has_left: bool
    due_ms: float


class Ending(Struct):
    """How an attempt at a task ended; sizes as in ``contract.Bytes``. ``traceback`` is shown by RQ's dashboard, "" for a success.

    With ``retry`` the task has not ended: it is tried again later, at the front of the queue if it ``is_urgent``.
    ``shared_ms``: for which other tasks it is the answer too, as ``jobs.queue.shared_fetch.shared_ms``. ``meta``: as
    ``jobs.answers.cache.packed``. ``answered_ms``: when the source gave the answer (hub ms), 0 if it was asked and gave none.
    ``timing``: if it was run.
    """

    outcome: Outcome
    traceback: str = ""
    raw_bytes: int = 0
    records_bytes: int = 0
    wire_bytes: int = 0
    retry: Retry | None = None
    is_urgent: bool = False
    shared_ms: int = -1
    meta: bytes = b""
    answered_ms: int = 0
    timing: Timing | None = None

    @property
    def spliced_bytes(self) -> int:
        """About how long the result's JSON will be at the hub."""
        return self.records_bytes + 600


class Claimer:
    """One worker process's claims and finishes. ``blocking`` is a client of its own for the wait for a job.

    ``kind``: a process that is ``urgent`` claims the tasks for which clients wait, one that is ``alone`` suspects, one at
    a time, and a ``normal`` one all others.
    """

    def __init__(
        self, client: redis.Redis, blocking: redis.Redis, *, region: str, worker: str, kind: Kind = "normal"
    ) -> None:
        self._client, self._blocking, self.worker, self._kind = client, blocking, worker, kind
        self._is_waiting = False  # ``claim`` is, for a job
        self._may_be_left = True  # the last claim took as many jobs as it might
        self.clock = clock_of(client)
        queue = names.rq_queue(region)
        urgent, suspects = names.rq_queue(names.urgent(region)), names.rq_queue(names.suspects(region))
        self._queue = {"normal": queue, "urgent": urgent, "alone": suspects}[kind]
        self._held, self._scheduled = names.rq_worker_executions(worker), names.rq_registry("scheduled", region)
        keys = {
            "own": self._queue,
            "queue": queue,
            "urgent": urgent,
            "suspects": suspects,
            "scheduled": self._scheduled,
            "wip": names.rq_registry("wip", region),
            "finished": names.rq_registry("finished", region),
            "failed": names.rq_registry("failed", region),
            "canceled": names.rq_registry("canceled", region),
            "worker": names.rq_worker(worker),
            "held": self._held,
            "lease": names.lease(worker),
            "workers": names.WORKERS,
            "outbox": names.OUTBOX,
            "outbox_bytes": names.OUTBOX_BYTES,
            "urgent_lease": names.URGENT_LEASE,
            "urgent_seen": names.URGENT_SEEN,
            "counters": names.COUNTERS,
        }
        self._claim, self._finish, self._retry, self._due, self._give_back = (
            script.on(**{name: keys[name] for name in script.lua.keys})
            for script in (CLAIM, FINISH, RETRY, DUE, GIVE_BACK)
        )

    def claim(self, count: int, *, wait_seconds: float = 0.0, looks: bool = False) -> Claimed:
        """Renews the lease and claims up to ``count`` jobs, after waiting for one, in the same write.

        ``looks``: a write that waits looks around after the claim, too, as ``look_around`` without tasks. A full Redis refuses
        the wait, not the claim. Raises ``RedisError``'s.
        """
        claim, asked_ms = self._claim_command(count), machine_ms()
        if not wait_seconds:
            return self._claimed(send(self._client, [claim], [CLAIM])[0], count, asked_ms)
        wait = ("BLMOVE", self._queue, self._queue, "LEFT", "LEFT", wait_seconds)
        commands = [wait, claim, *(self._look_around([]) if looks else ())]
        self._is_waiting = True
        try:
            waited, reply, *looked = send(self._blocking, commands, [CLAIM, DUE], wait_seconds=wait_seconds)
        finally:
            self._is_waiting = False
        claimed = self._claimed(reply, count, asked_ms, looked)
        no_wait = isinstance(waited, Exception) and not claimed.jobs and not claimed.refusal
        return replace(claimed, refusal="no wait") if no_wait else claimed

    def finish(self, ends: Sequence[tuple[Job, Ending]], *, then_claim: int) -> tuple[list[str], Claimed | None]:
        """Ends executions, and claims in the same write unless ``then_claim`` is 0.

        While another thread waits for jobs in ``claim``, there is nothing to claim but tasks that wait for hosts' turns.
        Returns for each the id of its entry in the outbox, ``LATER`` if it is tried again instead, "" if the execution was no
        longer this worker's. Sending the same endings again is harmless. Raises as ``claim`` does; if only the claim is refused,
        that is None.
        """
        last = [(job, ending) for job, ending in ends if ending.retry is None]
        others = [(job, ending, ending.retry) for job, ending in ends if ending.retry is not None]
        commands = []
        if last:
            finished = [_finished(job, ending) for job, ending in last]
            commands.append(self._finish.command(name=self.worker, endings=finished))
        if others:
            commands.append(self._retry.command(name=self.worker, endings=[self._retried(*one) for one in others]))
        endings, is_claim = len(commands), self._may_be_left or not self._is_waiting
        if then_claim:
            commands.append(self._claim_command(then_claim) if is_claim else ("EXISTS", names.HOSTS))
        asked_ms = machine_ms()
        replies = send(self._client, commands, [FINISH, RETRY, CLAIM])
        entries = [entry.decode() for reply in replies[:endings] for entry in value(reply)]
        found = dict(zip([id(ending) for _, ending, *_ in (*last, *others)], entries, strict=True))
        claimed = None
        if then_claim and not isinstance(replies[-1], Exception):
            if is_claim:
                claimed = self._claimed(replies[-1], then_claim, asked_ms)
            elif replies[-1]:
                with suppress(redis.exceptions.RedisError):  # the executions have ended all the same
                    claimed = self.claim(then_claim)
        return [found[id(ending)] for _, ending in ends], claimed

    def move_due(self) -> list[tuple[str, Outcome, int]]:
        """Moves jobs whose time has come to the queue, and ends what failed and was not tried again by its deadline.

        Returns for each that ended its entry in the outbox, the outcome, and about how long its JSON will be.
        """
        return list(map(_ended, self._due.call(self._client)))

    def give_back(self, members: Iterable[str], why: str = "its process was told to end") -> int:
        """Puts executions back to the front of the queue; returns how many of them still were executions. ``why`` is for people."""
        return int(self._give_back.call(self._client, name=self.worker, why=why, members=members))

    def look(self, tasks: Sequence[str]) -> tuple[set[str], set[str]]:
        """Which of ``tasks`` are marked as cancelled, and the executions that the region holds for this worker, as members."""
        return _looked(tasks, *send(self._client, self._look(tasks), []))

    def look_around(self, tasks: Sequence[str], looked: Sequence[Any] = ()) -> Look:
        """Does what ``look`` and ``move_due`` do, and asks for the outbox and the scheduled jobs, all in one write.

        ``looked``: of a claim that has asked already, without tasks.
        """
        if looked:
            tasks = []
        *replies, left, ended, first = looked or send(self._client, self._look_around(tasks), [DUE])
        cancelled, held = _looked(tasks, *replies)
        due_ms = float(value(first)[1]) * 1000 - self.clock.now_ms() if value(first) else math.inf
        return Look(cancelled, held, list(map(_ended, value(ended))), bool(value(left)), due_ms)

    def _look_around(self, tasks: Sequence[str]) -> list[tuple[Any, ...]]:
        return [
            *self._look(tasks),
            ("XLEN", names.OUTBOX),
            self._due.command(),
            ("ZRANGE", self._scheduled, 0, 0, "WITHSCORES"),
        ]

    def _look(self, tasks: Sequence[str]) -> list[tuple[Any, ...]]:
        held = [("SMEMBERS", self._held)]
        return [*held, ("MGET", *map(names.cancel_mark, tasks))] if tasks else held

    def leave(self) -> None:
        """Gives up the lease, so that nobody has to wait until it lapses: the reaper, and tasks for which clients wait."""
        leases = [names.lease(self.worker), *([names.URGENT_LEASE] if self._kind == "urgent" else [])]
        gone = [("ZREM", key, self.worker) for key in (names.WORKERS, names.ALONE)]
        for reply in send(self._client, [("DEL", *leases), *gone], []):
            value(reply)

    def _retried(self, job: Job, ending: Ending, retry: Retry) -> _RetriedRow:
        ended_ms = ending.outcome.finished_ms - (job.offset_ms or 0)
        failed = Attempt(job.attempt, job.claimed_ms, ended_ms, self.worker, retry.error, retry.message, job.turn_ms)
        return _RetriedRow(
            **structs.asdict(_finished(job, ending)),
            wait_ms=int(retry.wait_seconds * 1000),
            front="1" if ending.is_urgent else "",
            line=line(failed),
        )

    def _claim_command(self, count: int) -> tuple[Any, ...]:
        nonce = os.urandom(8).hex()
        return self._claim.command(count=count, name=self.worker, nonce=nonce, kind=self._kind)

    def _claimed(self, reply: Any, count: int, asked_ms: int, looked: Sequence[Any] = ()) -> Claimed:
        claimed = _claimed(reply, looked)
        self._may_be_left = len(claimed.jobs) >= count
        self.clock.note(claimed.now_ms, asked_ms)
        return claimed


def _looked(tasks: Sequence[str], held: Any, marks: Any = ()) -> tuple[set[str], set[str]]:
    cancelled = {task for task, mark in zip(tasks, value(marks), strict=True) if mark is not None}
    return cancelled, {member.decode() for member in value(held)}


def _ended(row: Sequence[bytes]) -> tuple[str, Outcome, int]:
    one = _EndedRow(*row)
    outcome = Outcome(
        request=one.request.decode(),
        task=one.task.decode(),
        status=one.state.decode(),
        finished_ms=int(one.finished_ms),
        expires_ms=int(one.expires_ms),
        frame=one.frame,
        trail=one.trail,
    )
    return one.entry.decode(), outcome, int(one.size_bytes)


def _claimed(reply: Any, looked: Sequence[Any]) -> Claimed:
    now_ms, lapsed, refusal, found, call_ms, frames = value(reply)
    jobs = [_job(_ClaimedRow(*row), now_ms, frames) for row in found]
    return Claimed(now_ms, bool(lapsed), refusal.decode(), jobs, call_ms, looked)


def _job(row: _ClaimedRow, now_ms: int, frames: list[bytes]) -> Job:
    return Job(
        task=row.task.decode(),
        execution=row.execution.decode(),
        attempt=row.attempt,
        data=row.data,
        request=row.request.decode(),
        source=row.source.decode(),
        past=row.past,
        deaths=row.deaths,
        deadline_ms=row.deadline_ms,
        bridged_ms=row.bridged_ms,
        claimed_ms=now_ms,
        host=row.host.decode(),
        turn_ms=row.turn_ms,
        refused_ms=row.refused_ms,
        trouble=row.trouble.decode(),
        why=row.why.decode("utf-8", "replace"),
        answer=frames[row.told - 1] if row.told else b"",
        leader=row.leader.decode(),
    )


def _finished(job: Job, ending: Ending) -> _FinishedRow:
    outcome = ending.outcome
    succeeded = outcome.status == "succeeded"
    status = "finished" if succeeded else "stopped" if job.is_stopped else "failed"
    return _FinishedRow(
        status=status,
        problem=b"" if succeeded else b64encode(zlib.compress(ending.traceback.encode("utf-8", "replace"))),
        request=outcome.request,
        state=outcome.status,
        finished_ms=outcome.finished_ms,
        expires_ms=outcome.expires_ms,
        size_bytes=ending.spliced_bytes,
        frame=outcome.frame,
        raw_bytes=ending.raw_bytes,
        records_bytes=ending.records_bytes,
        wire_bytes=ending.wire_bytes,
        trail=outcome.trail,
        shared_ms=ending.shared_ms,
        meta=ending.meta,
        answered_ms=ending.answered_ms or "",
        task=job.task,
        execution=job.execution,
    )
