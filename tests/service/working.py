"""What tests of workers share: jobs as the bridge enqueues them, and a runner that does what its params say."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from ulid import ULID

from jobs import result_frame
from jobs.blocked import blocked
from jobs.contract import Outcome, Result, Task, key_of
from jobs.errors import Cancelled, ConnectionFailed
from jobs.queue import outbox
from jobs.queue.claim import Claimer, Ending, Kind
from jobs.queue.home import Home, Shipment, Started
from jobs.queue.retry import Retry
from jobs.task.execution import Execution
from jobs.worker import worker as workers
from jobs.worker.entry import enter, run
from regions import connect, names
from regions.settings import ROOT, Hub, Region, RegionRedis, Scale, Settings, Workers
from tests.forked import Forked

REGION = "fra"


def settings_for(region_url: str, hub_url: str, *, threads: int = 4, processes: int = 1) -> Settings:
    """Settings of a hub and one region."""
    region = Region(
        name=REGION,
        title=REGION,
        redis=RegionRedis(url=region_url),
        workers=Workers(threads=threads),
        scale=Scale(min=processes, max=processes),
    )
    return Settings(hub=Hub(redis=hub_url), region={REGION: region})


def task(*, deadline_seconds: float = 30.0, **params) -> Task:
    """A task with a deadline in the future or past, on a hub with this machine's clock."""
    now = int(time.time() * 1000)
    return Task(
        task=str(ULID()),
        request=str(ULID()),
        source="test.source",
        region=REGION,
        params=params,
        url="https://example.com/",
        host="https://example.com:443",
        definition="9f2c01ab",
        accepted_ms=now,
        deadline_ms=now + int(deadline_seconds * 1000),
        expires_ms=now + 3_600_000,
    )


def worker_process(settings: Settings, name: str = "w1") -> subprocess.Popen:
    """A worker process with the tests' runner."""
    process = Forked(["-m", "tests.service.working", REGION, name, "--settings", "-"], cwd=ROOT, stdin=subprocess.PIPE)
    process.stdin.write(msgspec.json.encode(settings))
    process.stdin.close()
    return process


def post(home: Home, shipments: Sequence[Shipment], started: Sequence[Started] = ()) -> bool:
    """Sends results, and returns whether the hub has them."""
    return home.begin(shipments, started) and home.end()


def fetch(client, id_):
    return Job.fetch(id_, connection=client, serializer=JSONSerializer)


def held(client, worker="w1") -> int:
    return client.scard(names.rq_worker_executions(worker))


def pass_deadline(client: redis.Redis, id_: str, *, ago_ms: int = 1) -> None:
    """Moves a task's deadline into the past everywhere in its region's Redis, so that no test waits for it."""
    past = int(time.time() * 1000) - ago_ms
    client.hset(names.rq_job(id_), names.JOB_DEADLINE, past)
    client.zadd(names.RETRIED, {id_: past}, xx=True)


def frame(hub, id_):
    return json.loads(result_frame.splice(hub.get(names.result(REGION, id_))))


def is_clean(client) -> bool:
    """Nothing runs, nothing waits, nothing is left in the outbox."""
    started = client.zcard(names.rq_registry("wip", REGION))
    return not (started or client.llen(names.rq_queue(REGION)) or client.xlen(names.OUTBOX))


def enqueue(
    client: redis.Redis,
    tasks: Iterable[Task],
    *,
    function: str = names.JOB_FUNCTION,
    has_keys: bool = False,
    ahead_ms: int = 0,
) -> list[str]:
    """Enqueues tasks with RQ's own classes, and the fields that ours needs; the job ids. Without keys each is asked for itself.

    ``ahead_ms``: how far the hub's clock is ahead of this one, as a bridge would have measured it.
    """
    queue = Queue(REGION, connection=client, serializer=JSONSerializer)
    client.hset(names.LIMITS, "test.source", "1024 0")
    pipe = client.pipeline()
    ids = []
    for one in tasks:
        job = Job.create(
            function,
            args=(msgspec.to_builtins(one), ahead_ms),
            id=one.task,
            connection=client,
            serializer=JSONSerializer,
            description=f"{one.source} {json.dumps(one.params)}  request {one.request}",
            origin=REGION,
        )
        queue.enqueue_job(job, pipeline=pipe)
        own = {
            names.JOB_DEADLINE: one.deadline_ms - ahead_ms,
            names.JOB_REQUEST: one.request,
            names.JOB_SOURCE: one.source,
            names.JOB_HOST: one.host,
        }
        if has_keys:
            own |= {names.JOB_KEY: key_of(one), names.JOB_BRIDGED: one.accepted_ms}
            own |= {names.JOB_MAX_AGE: int(one.max_age * 1000)} if one.max_age else {}
        pipe.hset(job.key, mapping=own)
        ids.append(one.task)
    pipe.execute()
    return ids


def enqueue_raw(client: redis.Redis, id_: str, data: bytes, request: str) -> None:
    """A job with arbitrary data."""
    client.hset(
        names.rq_job(id_),
        mapping={
            "status": "queued", "origin": REGION, "created_at": "2026-11-24T04:14:00.000000Z", "data": zlib.compress(data),
            names.JOB_DEADLINE: int(time.time() * 1000) + 30_000, names.JOB_REQUEST: request, names.JOB_SOURCE: "a",
        },
    )  # fmt: skip
    client.rpush(names.rq_queue(REGION), id_)


def claimer(
    url: str, worker: str = "w1", *, register: bool = True, kind: Kind = "normal", block_seconds: float = 1.0
) -> Claimer:
    """A claimer of a worker that RQ knows."""
    client = connect.open_redis(url, name=worker, block_seconds=30.0)  # a busy Redis is waited for
    if register:
        client.hset(names.rq_worker(worker), "birth", "2026-11-24T04:14:00.000000Z")
    blocking = connect.open_redis(url, name=worker, block_seconds=block_seconds)
    return Claimer(client, blocking, region=REGION, worker=worker, kind=kind)


def out_entries(hub: redis.Redis, kind: bytes = b"result") -> list[dict[bytes, bytes]]:
    """The region's messages to the hub of one kind, in order."""
    return [fields for _, fields in hub.xrange(names.out_stream(REGION)) if fields[b"k"] == kind]


def results(hub: redis.Redis) -> list[str]:
    """The task ids of the region's results at the hub, in order."""
    return [fields[b"t"].decode() for fields in out_entries(hub)]


class ObedientRunner:
    """Runs a task as its params say.

    ``gate``: a file to wait for (a cancel ends the wait); ``mark``: a folder in which each start leaves a file;
    ``bytes``: how long the records are; ``fail``: a traceback to end with; ``raise``: an exception to raise, by name;
    ``seconds``: how long it takes; ``kill``: takes its process with it then; ``flaky``: how many attempts fail for now, each to be tried again after ``pause`` seconds (0).
    """

    def refresh(self) -> bool:
        """There is nothing to read."""
        return False

    def limits(self) -> dict[str, str]:
        """The host of all tasks has no tight limit."""
        return {"test.source": "1024 0"}

    def run(self, execution: Execution) -> Ending:
        task, attempt, cancelled = execution.task, execution.attempt, execution.cancelled
        params = task.params
        if "mark" in params:
            (Path(params["mark"]) / f"{task.task}.{attempt}.{os.getpid()}").touch()
        result = Result(task=task.task, source=task.source, region=task.region, status="succeeded", attempts=attempt)
        result.timing.queued_ms = execution.queued_ms
        trace = params.get("fail", "")
        if "raise" in params:
            raise {"KeyError": KeyError, "SystemExit": SystemExit}[params["raise"]]("as told")
        with blocked():
            threading.Event().wait(params.get("seconds", 0))
        if "kill" in params:
            os.kill(os.getpid(), signal.SIGKILL)
        gate = Path(params["gate"]) if "gate" in params else None
        while gate and not gate.exists() and not cancelled():
            with blocked():
                threading.Event().wait(0.01)
        retry = None
        if execution.refusal:
            trace = str(execution.refusal)
        if execution.failures < params.get("flaky", 0):
            trace = f"failure {execution.failures + 1}"
            retry = Retry(params.get("pause", 0.0), "connection", trace)
        if retry:
            result.status = "failed"
            frame = result_frame.failed(result, ConnectionFailed(trace))
        elif trace or cancelled():
            result.status = "failed"
            frame = result_frame.failed(result, Cancelled(trace or "cancelled"))
        else:
            frame = result_frame.encode(result, json.dumps(["x" * params.get("bytes", 8)]).encode())
        now = int(time.time() * 1000) + execution.offset_ms
        outcome = Outcome(
            request=task.request, task=task.task, status=result.status, finished_ms=now, expires_ms=task.expires_ms,
            frame=frame,
        )  # fmt: skip
        return Ending(outcome, trace, 100, result.bytes.records, result.bytes.wire, retry)


def main(argv: list[str]) -> int:
    """A worker process like ``python -m jobs.worker``, with the obedient runner."""
    # What a busy machine's disk has not taken in time is sent twice, and tests compare what came.
    outbox.ORPHAN_SECONDS = 15.0
    workers.FLUSH_SECONDS = 15.0  # likewise what a stop leaves behind
    return enter(argv, lambda _settings, _region, worker: run(worker(ObedientRunner())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
