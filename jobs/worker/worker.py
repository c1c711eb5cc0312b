"""The loop of a worker process. RQ's tools see the process as one of RQ's workers.

    run_once             beat; renew the lease and claim for idle threads (jobs.queue.claim); once a second, look at running jobs
    ThreadPool           the threads: run, finish, claim again (jobs.worker.thread_pool)
    Shipper, Leftovers   send results to the hub (jobs.queue.outbox)

The claim waits for a job without taking it. Nothing here depends on an orderly stop: jobs.queue.reaper gives the jobs of a
dead or paused process to others, and that process can't finish them any more.
"""

import contextlib
import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import redis
from rq.command import parse_payload
from rq.utils import now
from rq.worker import BaseWorker

from jobs.queue.claim import Claimer, Job, Kind
from jobs.queue.home import Home, Shipment, Started, open_hub
from jobs.queue.outbox import Leftovers, Shipper
from jobs.queue.script import WORKER_TTL_SECONDS, load
from jobs.queue.turn import Caller, TurnClient, tell_limits
from jobs.worker.executor import Runner
from jobs.worker.meter import Meter
from jobs.worker.stop import DRAIN_SECONDS, FLUSH_SECONDS, STUCK_BEAT, Stop
from jobs.worker.thread_pool import ThreadPool
from regions import connect, logs, names
from regions.settings import Region, Settings

# Jobs of one claim. The next follows at once; the limit shares a burst among the region's processes.
CLAIM_MAX: Final = 16
WAIT_SECONDS: Final = 1.5  # for a job, while none runs and none is due; each claim renews the lease
CHECK_SECONDS: Final = 1.0  # between two looks at running jobs; a wait for a job is no longer then
PAUSE_SECONDS: Final = 0.2  # after a refused claim
STUCK_SECONDS: Final = 3.0  # a job that runs this long after its deadline is stuck; the hub waits for 5 s
# Between two pings of the subscription: a claim that gets no answer says sooner that its server is gone.
LISTEN_SECONDS: Final = 60.0
LISTEN_AFTER_FAILURES: Final = 5  # the back-off starts long: nobody waits for RQ's commands
REPORTED_AFTER_MS: Final = 300  # the hub is told of jobs that run longer
# Between two looks at definitions of a process whose pool tells it that they have changed.
REFRESH_SECONDS: Final = 10.0

log = logs.get("worker")

REGISTER: Final = load("register")


class Worker(BaseWorker):
    """The claim loop of a process, in its main thread. The name is RQ's."""

    pubsub: connect.Subscription | None

    def __init__(
        self,
        settings: Settings,
        region: Region,
        name: str,
        runner: Runner,
        *,
        beat: int | None = None,
        kind: Kind = "normal",
        ahead_of_boot_ms: int | None = None,
        meter: Meter | None = None,
    ) -> None:
        """``beat`` is a descriptor that gets a byte on every turn of the loop, for jobs.pool.processes.

        If it is a socket, the pool tells by it that definitions have changed.

        ``ahead_of_boot_ms``: what its pool knows of the region's clock, as ``Clock.inherit`` takes it.

        ``meter`` counts for the pool. ``kind`` as for ``Claimer``. A worker that is ``alone`` ends when there are no suspects.
        """
        url = region.redis.url
        super().__init__(
            [{"normal": region.name, "urgent": names.urgent(region.name), "alone": names.suspects(region.name)}[kind]],
            name=name,
            connection=connect.open_redis(url, name=name),
            serializer="json",
            worker_ttl=WORKER_TTL_SECONDS - 60,
            prepare_for_work=False,  # that would need the Redis at once
        )
        self.hostname, self.pid, self.birth_date = socket.gethostname(), os.getpid(), now()
        client = self._client = connect.open_redis(url, name=name)
        blocking = connect.open_redis(url, name=name, block_seconds=WAIT_SECONDS, connections=1)
        self.claimer = Claimer(client, blocking, region=region.name, worker=name, kind=kind)
        if ahead_of_boot_ms is not None:
            self.claimer.clock.inherit(ahead_of_boot_ms)
        hub, waits = open_hub(settings.hub.redis, name), settings.hub.durability == "strict"
        meter = meter or Meter()
        home = Home(hub, region.name, client, waits=waits)
        self.shipper = Shipper(home, lambda: kind == "normal" and self.threads.is_busy, meter.shipped)
        self.leftovers = Leftovers(client, Home(hub, region.name, client, waits=waits), name)
        threads = 1 if kind == "alone" else region.workers.threads
        self._caller = Caller(client, region.name)
        self.threads = ThreadPool(
            self.claimer,
            self.shipper,
            runner,
            TurnClient(client, region.name, threads // 2),
            self._caller,
            region=region.name,
            threads=threads,
            ttl_seconds=settings.limits.result_ttl_seconds,
            meter=meter,
        )
        self._runner, self._beat, self._is_alone = runner, beat, kind == "alone"
        self._is_registered = self._is_stuck = False
        self._failures = 0
        self._is_told = beat is not None and stat.S_ISSOCK(os.fstat(beat).st_mode)
        self._refreshed, self._are_limits_told = 0.0, True
        self._refreshing = threading.Lock()
        self._looked, self._is_due = 0.0, False
        self._is_calm = False  # the last claim brought nothing; calls that follow each other do not wait for looks
        self._not_running: set[str] = set()
        self._not_held: set[str] = set()
        self.stop = Stop()

    def run(self) -> None:
        """Works until it is asked to stop, then lets running jobs end, or gives them back."""
        self.threads.start()
        self.shipper.start()
        self.leftovers.start()
        self._caller.start()
        if self._is_told:
            threading.Thread(target=self._hear, name="news", daemon=True).start()
        while not self._is_done():
            self.run_once()
        self.leave()
        if self._is_stuck:
            os._exit(0)  # an orderly exit would unload libraries that the stuck thread is using

    def run_once(self) -> None:
        """One turn: a beat, a claim, a look at running jobs.

        Takes a few seconds at most, whatever the region's Redis does.
        """
        self._send_beat()
        self.threads.settle()
        try:
            if not self._is_registered:
                self._register()
            looked = self._claim()
            if looked or time.monotonic() - self._looked >= CHECK_SECONDS:
                self._look(looked)
        except redis.exceptions.RedisError as error:
            self._back_off(error)
            return
        if self._failures:
            log.info("the region's Redis is back", worker=self.name)
        self._failures = 0

    def leave(self) -> None:
        """Gives back the jobs that it holds, sends results to the hub, and deregisters.

        Others make good for what fails here.
        """
        self.threads.is_stopping = True
        try:
            held = self.claimer.look([])[1]
            if held:
                log.warning("gave back running jobs", worker=self.name, jobs=self.claimer.give_back(held))
            self.shipper.stop(FLUSH_SECONDS)
            self.leftovers.stop()
            # Only after giving back: it forgets which jobs were held.
            self.register_death()  # type: ignore[no-untyped-call]
            self.claimer.leave()
            self.unsubscribe()
        except redis.exceptions.RedisError as error:
            log.warning("can't deregister: the region's Redis is away", worker=self.name, error=str(error))

    def _is_done(self) -> bool:
        if self.stop.asked is None:
            return False
        late = not self.stop.is_unhurried and time.monotonic() - self.stop.asked > DRAIN_SECONDS
        return self.stop.is_cold or late or not self.threads.running()

    def _claim(self) -> Sequence[Any]:
        """Returns what a calm process's claim saw, for ``_look``: that and its wait are one question."""
        self.threads.is_stopping = self.stop.asked is not None
        if self.threads.is_stopping:
            self.threads.wait_until_idle(PAUSE_SECONDS)
            self.claimer.claim(0)  # renews the lease
            return ()
        slots = self.threads.reserve(CLAIM_MAX, CHECK_SECONDS)
        is_idle = not self.threads.running()
        wait_seconds = WAIT_SECONDS if is_idle and not self._is_due else CHECK_SECONDS
        try:
            claimed = self.claimer.claim(
                slots, wait_seconds=wait_seconds if slots else 0.0, looks=is_idle and self._is_calm
            )
        except redis.exceptions.RedisError:
            self.threads.release(slots)
            raise
        self._is_calm = not claimed.jobs and not claimed.refusal
        self.threads.accept(claimed, slots)
        if claimed.refusal == "unregistered":
            self._is_registered = False
        elif self._is_alone and slots and not claimed.jobs and claimed.refusal != "suspended":
            self.stop.request()
        elif claimed.refusal:
            self.stop.wait(PAUSE_SECONDS)
        return claimed.looked

    def _look(self, looked: Sequence[Any] = ()) -> None:
        """Looks at the cancel marks of running jobs, and whether the region's Redis has the same jobs as this process.

        A job that the region counts as this process's, and that no thread runs, is given back: the reply to its claim was
        lost. A job that runs here and that the region does not count was taken back: it is stopped. Both happen only after
        two looks, since a claim may be under way. ``looked``: of the claim that has asked already.
        """
        self._looked = time.monotonic()
        running = self.threads.running()
        self._give_up_the_stuck(running)
        found = self.claimer.look_around([job.task for job in running], looked)
        self.leftovers.see(has_left=found.has_left)
        self._is_due = found.due_ms < WAIT_SECONDS * 1000
        known = {job.member for job in running}
        not_running, not_held = found.held - known, known - found.held
        for job in running:
            if job.task in found.cancelled or job.member in not_held & self._not_held:
                job.is_cancelled = True
        if unclaimed := not_running & self._not_running:
            log.warning(
                "gave back claimed jobs that no thread runs",
                worker=self.name,
                jobs=self.claimer.give_back(unclaimed, "no thread ran it: the answer to its claim was lost"),
            )
        self._not_running, self._not_held = not_running, not_held
        if found.ended:  # it wakes a thread
            now = time.monotonic()
            self.shipper.put([Shipment(entry, outcome, size, now) for entry, outcome, size in found.ended])
        self._report_started()
        is_due = not self._is_told or time.monotonic() - self._refreshed >= REFRESH_SECONDS
        if is_due or not self._are_limits_told:
            self._refresh()

    def _refresh(self) -> None:
        """Reads changed definitions, and tells the region's Redis their limits."""
        with self._refreshing:  # else of two threads the one with the older limits might be the last to tell them
            self._refreshed = time.monotonic()
            if self._runner.refresh():
                self._are_limits_told = False
            if not self._are_limits_told:
                tell_limits(self._client, self._runner.limits())
                self._are_limits_told = True

    def _hear(self) -> None:
        """Looks at definitions whenever the pool says that some have changed, until that ends."""
        assert self._beat is not None
        beat, poll = self._beat, select.poll()
        poll.register(beat, select.POLLIN)
        while poll.poll():
            try:
                if not os.read(beat, 4096):
                    return
            except BlockingIOError:
                continue
            except OSError:
                return
            with contextlib.suppress(redis.exceptions.RedisError):  # the next look tells the limits
                self._refresh()

    def _give_up_the_stuck(self, running: list[Job]) -> None:
        """Ends jobs that compute past their deadline (an XPath, a pattern), and then this process.

        Nothing else stops a thread. The other jobs end first, or are given back. The pool replaces the process at once.
        """
        now_ms = self.claimer.clock.now_ms()
        for job in running:
            late_seconds = (now_ms - job.deadline_ms) / 1000
            is_late = bool(job.deadline_ms) and late_seconds >= STUCK_SECONDS
            if is_late and not job.is_ended and self.threads.give_up(job, late_seconds):
                log.error(
                    "a task computes past its deadline; its process ends",
                    worker=self.name,
                    task=job.task,
                    source=job.source,
                )
                self._is_stuck = True
                self.stop.request()

    def _report_started(self) -> None:
        started: list[Started] = []
        now_ms = self.claimer.clock.now_ms()
        for job in self.threads.running():
            if not job.is_told and job.offset_ms is not None and now_ms - job.claimed_ms >= REPORTED_AFTER_MS:
                job.is_told = True
                trail = msgspec.Raw(job.trail(self.name))
                started.append((job.request, job.task, job.attempt, job.claimed_ms + job.offset_ms, trail))
        if started:
            self.shipper.tell(started)

    def _register(self) -> None:
        self._set_ip_address(self.connection)
        self.register_birth()
        tell_limits(self._client, self._runner.limits())  # before the first claim, which keeps to them
        if self.pubsub_thread is None:
            self.subscribe()
        self._is_registered = True
        log.info("registered", worker=self.name, pid=self.pid)

    def _back_off(self, error: Exception) -> None:
        """Waits before the next try. The beat goes on."""
        if not self._failures:
            log.warning("the region's Redis is away", worker=self.name, error=str(error))
            if self.pubsub is not None:
                self.pubsub.doubt()
        self._failures += 1
        if self.stop.asked is not None:
            self.threads.wait_until_idle(PAUSE_SECONDS)
            return
        self.stop.wait(connect.backoff_seconds(self._failures))

    def _send_beat(self) -> None:
        if self._beat is None:
            return
        try:
            os.write(self._beat, STUCK_BEAT if self._is_stuck else b".")
        except BlockingIOError:
            return  # the pool does not read now; that is not this process's fault
        except (BrokenPipeError, ConnectionResetError):
            log.error("the pool died", worker=self.name)
            self._beat = None
            self.stop.request()

    # What RQ would do otherwise.

    def register_birth(self) -> None:
        """Registers the worker like RQ, but by one script that also runs at ``maxmemory``, since a full Redis needs workers.

        Raises ValueError like RQ.
        """
        self.last_heartbeat = now()
        queue_workers = names.rq_workers_of(self.queues[0].name)
        record = dict(self.serialize())
        is_registered = REGISTER.call(
            self.connection,
            worker=self.key,
            workers=self.redis_workers_keys,
            queue_workers=queue_workers,
            lease=names.lease(self.name),
            living=names.WORKERS,
            name=self.name,
            birth=record.pop("birth"),
            record=chain.from_iterable(record.items()),
        )
        if not is_registered:
            raise ValueError(f"expected a new name for a worker, found an active worker named {self.name}")

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """RQ's, without its longer time-outs: nothing waits on this connection."""
        return connection

    def run_maintenance_tasks(self) -> None:
        """Does nothing. RQ's clean-up would fail jobs; jobs.queue.reaper does this work."""

    def clean_registries(self) -> None:
        """Does nothing, like ``run_maintenance_tasks``."""

    def subscribe(self) -> None:
        """RQ's, with a subscription that can be doubted."""
        self.pubsub = connect.Subscription(self.connection, ping_seconds=LISTEN_SECONDS)
        self.pubsub.subscribe(**{self.pubsub_channel_name: self.handle_payload})
        thread: Any = self.pubsub.run_in_thread(
            sleep_time=LISTEN_SECONDS, daemon=True, exception_handler=self._pubsub_exception_handler
        )
        self.pubsub_thread = thread

    def unsubscribe(self) -> None:
        """RQ's, which would wait for a second: first the thread is to end, then the server's answer wakes it."""
        if self.pubsub_thread is not None:
            self.pubsub_thread.stop()
            self.pubsub.unsubscribe()
            self.pubsub_thread.join(1)
            self.pubsub.close()

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Obeys RQ's commands. RQ's own handler assumes one job for a worker, and stops processes."""
        try:
            payload = parse_payload(message)
            command = payload["command"]
        except (ValueError, KeyError, TypeError) as error:
            log.warning("a command can't be read", worker=self.name, error=str(error))
            return
        log.info("command", worker=self.name, command=command)
        if command == "shutdown":
            os.kill(os.getpid(), signal.SIGINT)
        elif command in ("stop-job", "stop-execution"):
            self.threads.stop(payload.get("job_id", ""), payload.get("execution_id"))

    def _pubsub_exception_handler(self, exc: Exception, *_: Any) -> None:
        """Waits before the next try. RQ's own handler ends the thread after any error but a ConnectionError."""
        log.info("can't listen to commands", worker=self.name, error=str(exc))
        time.sleep(connect.backoff_seconds(LISTEN_AFTER_FAILURES))
