"""Writes a batch of tasks as RQ jobs to the region's Redis, each once.

RQ's ``enqueue_many`` doubles a job that is sent twice, and ``unique=True`` costs a round trip for each job. So RQ's own
script for unique jobs is pipelined here. Added is what it leaves out: the queue's name in ``rq:queues``, and fields that
scripts can read.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any, Final

import msgspec
import redis
from rq.scripts import UNIQUE_ENQUEUE_SCRIPT

from bridge.link import Command, Link
from jobs import contract
from regions import names

DESCRIPTION_MAX: Final = 1000  # characters of params in a description
ASKED_MAX: Final = 50_000  # remembered questions
ZLIB_LEVEL: Final = 1  # a third of the default's time for 3 % more bytes

_SHA: Final = sha1(UNIQUE_ENQUEUE_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_encode: Final = msgspec.json.Encoder().encode

Message = contract.Task | contract.Cancel


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a batch: a refusal or None for each message (a duplicate is no refusal), and the jobs now ready."""

    refusals: list[redis.exceptions.ResponseError | None]
    ready: int


def description(task: contract.Task) -> str:
    """A job's description for operators: source, params, request."""
    params = _encode(task.params).decode()
    if len(params) > DESCRIPTION_MAX:
        params = params[:DESCRIPTION_MAX] + "…"
    return f"{task.source} {params}  request {task.request}"


def job_data(task: contract.Task, offset_ms: int) -> bytes:
    """A job's data as RQ's JSON serializer writes it: [function, null, [task, offset in ms], {}], packed."""
    function = names.JOB_FUNCTION.encode()
    data = b'["%b", null, [%b, %d], {}]' % (function, contract.encode(task), offset_ms)
    return zlib.compress(data, ZLIB_LEVEL)


def job_fields(task: contract.Task, key: str, offset_ms: int, now: str, now_ms: int) -> list[str | bytes | int]:
    """A job's hash as field, value, field, value, …: the fields of ``rq.job.Job.to_dict`` that are not empty, and ours.

    ``key`` is as ``contract.key_of``, ``offset_ms`` the hub's clock less the region Redis's, ``now`` the time as RQ writes
    it, ``now_ms`` the time on the hub.
    """
    left_seconds = max(1, math.ceil((task.deadline_ms - now_ms) / 1000))
    kept_seconds = left_seconds + contract.KEEP_MS // 1000
    return [
        "created_at", now,
        "data", job_data(task, offset_ms),
        "origin", task.region,  # also of urgent tasks: by its origin RQ chooses the registries
        "description", description(task),
        "enqueued_at", now,
        "timeout", left_seconds,
        "result_ttl", kept_seconds,
        "failure_ttl", kept_seconds,
        "status", "queued",
        names.JOB_DEADLINE, task.deadline_ms - offset_ms,
        names.JOB_REQUEST, task.request,
        names.JOB_SOURCE, task.source,
        names.JOB_HOST, task.host,
        names.JOB_BRIDGED, now_ms,
        names.JOB_KEY, key,
    ]  # fmt: skip


class Enqueuer:
    """Writes batches on a link to the region's Redis. Open it in one thread, then use it in one thread.

    While jobs wait, it marks those that ask the same question as an earlier one, so that they share one fetch even if their
    executions do not overlap.
    """

    def __init__(self, client: redis.Redis, region: str) -> None:
        self._client = client
        self._queues = names.rq_queue(region), names.rq_queue(names.urgent(region))
        self._link: Link | None = None
        # By key: the last task with that question, and its deadline (hub ms).
        self._asked: dict[str, tuple[str, int]] = {}
        self._backlog = 0  # jobs that may be waiting ahead of the next one

    @property
    def run_id(self) -> str:
        """The run id of the Redis process that gets the batches; empty without a connection."""
        return self._link.run_id if self._link is not None and self._link.is_open else ""

    @property
    def is_open(self) -> bool:
        """Whether a batch can be written."""
        return self._link is not None and self._link.is_open

    def open(self) -> None:
        """Connects and loads the script. Raises what ``Link`` raises."""
        link = Link(self._client)
        try:
            link.one("SCRIPT", "LOAD", UNIQUE_ENQUEUE_SCRIPT)
        except redis.exceptions.ResponseError:
            link.close()
            raise
        self._link = link

    def close(self) -> None:
        """Closes the connection."""
        if self._link is not None:
            self._link.close()

    def write(self, messages: Sequence[Message], *, offset_ms: int, now_ms: int) -> Written:
        """Enqueues tasks and marks cancels in one write. Raises ``connect.AWAY``'s when the Redis can't be reached.

        After such an error the batch may or may not have been written. Sending it again is safe: each part is idempotent.
        """
        if self._link is None:
            raise redis.exceptions.ConnectionError("not connected")
        now = contract.rq_time((now_ms - offset_ms) / 1000)
        marks: list[Command] = []
        self._backlog += len(messages) - 1
        commands = [self._command(message, offset_ms, now, now_ms, marks) for message in messages]
        commands = [*marks, *commands]
        commands += [("SADD", names.RQ_QUEUES, *self._queues), ("LLEN", self._queues[0])]
        replies = self._link.call(commands)
        if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies):
            replies = self._link.call([("SCRIPT", "LOAD", UNIQUE_ENQUEUE_SCRIPT), *commands])[1:]
        replies = replies[len(marks) :]
        *_, registered, ready = replies
        for reply in (registered, ready):
            if isinstance(reply, redis.exceptions.ResponseError):
                # Without its name in rq:queues no dashboard shows the queue, so the whole batch counts as refused.
                return Written([reply] * len(messages), 0)
        refusals = [reply if isinstance(reply, redis.exceptions.ResponseError) else None for reply in replies[:-2]]
        self._backlog = max(0, int(ready) - len(messages))
        return Written(refusals, int(ready))

    def _command(self, message: Message, offset_ms: int, now: str, now_ms: int, marks: list[Command]) -> Command:
        """The command for a message. Adds to ``marks`` the commands that must come before all others."""
        if isinstance(message, contract.Cancel):
            left_ms: Any = max(1, message.deadline_ms - now_ms)
            return ("SET", names.cancel_mark(message.task), message.request, "PX", left_ms)
        question = contract.key_of(message)
        fields = job_fields(message, question, offset_ms, now, now_ms)
        if message.max_age:
            fields += [names.JOB_MAX_AGE, int(message.max_age * 1000)]
        if self._is_asked_again(question, message, now_ms) and self._backlog:
            fields += [names.JOB_ASKED, now_ms - offset_ms]
            marks.append(("SET", names.flight(question), "*", "NX", "PX", max(1, message.deadline_ms - now_ms)))
        if message.sync:
            fields += [names.JOB_FRONT, 1]
        key, queue = names.rq_job(message.task), self._queues[message.sync]
        return ("EVALSHA", _SHA, 2, key, queue, message.task, "R", -1, *fields)

    def _is_asked_again(self, question: str, task: contract.Task, now_ms: int) -> bool:
        """Whether another task with the same question may still wait.

        Then the first keeps its answer (jobs.queue.shared_fetch).
        """
        before = self._asked.get(question)
        if len(self._asked) >= ASKED_MAX:
            self._asked = {key: one for key, one in self._asked.items() if one[1] > now_ms}
            if len(self._asked) >= ASKED_MAX:
                self._asked.clear()
        self._asked[question] = (task.task, task.deadline_ms)
        return before is not None and before[0] != task.task and before[1] > now_ms
