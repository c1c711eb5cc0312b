"""A worker process: ``python -m jobs.worker REGION NAME``. RQ's tools see it as one of RQ's workers.

    run_once             beat; renew the lease and claim for the idle threads (jobs.queue.claim); once a second, look at what runs
    ThreadPool           the threads: run, finish, claim again (jobs.worker.thread_pool)
    Shipper, Leftovers   results on their way home (jobs.queue.outbox)

The claim waits for a job without taking it. Nothing here relies on having stopped in order: what a dead or paused
process held is given to others by jobs.queue.reaper, and it can't finish any of it.
"""

import os
import signal
import socket
import time
from typing import Any, Final

import msgspec
import redis
from rq.command import parse_payload
from rq.utils import now
from rq.worker import BaseWorker

from jobs.queue.claim import Claimer, Job
from jobs.queue.home import Home, Shipment, Started, open_hub
from jobs.queue.outbox import Leftovers, Shipper
from jobs.queue.script import WORKER_TTL_SECONDS, Script
from jobs.queue.turn import Caller, TurnClient, tell_limits
from jobs.worker.executor import Runner
from jobs.worker.stop import DRAIN_SECONDS, FLUSH_SECONDS, STUCK_BEAT, Stop
from jobs.worker.thread_pool import ThreadPool
from regions import connect, logs, names
from regions.settings import Region, Settings

CLAIM_MAX: Final = 16  # jobs of one claim; the next follows at once, so a burst is shared by the region's processes
WAIT_SECONDS: Final = 1.0  # for a job; the lease is renewed as often
LOOK_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.2  # between claims that are refused
STUCK_SECONDS: Final = 3.0  # what still runs so long after its deadline is stuck; the hub waits for 5 s
LISTEN_SECONDS: Final = 1.0  # between two looks whether the other end of that subscription is there
LISTEN_AFTER_FAILURES: Final = 5  # nobody waits for RQ's commands: the longest waits at once
TOLD_AFTER_MS: Final = 300  # what runs longer is told to the hub

log = logs.get("worker")

# With a lease from the begin: who dies before the first claim is found like any other. ARGV: the worker, "birth", when its
# process began, and what else its record has. A process whose answer was lost calls it again, and finds itself.
REGISTER: Final = Script("""
local worker, workers, queue_workers, lease, living = unpack(KEYS)
local name = table.remove(ARGV, 1)
local birth, death = unpack(redis.call("HMGET", worker, "birth", "death"))
if birth and not death and birth ~= ARGV[2] then return 0 end
redis.call("DEL", worker)
redis.call("HSET", worker, unpack(ARGV))
redis.call("SADD", workers, worker)
redis.call("SADD", queue_workers, worker)
redis.call("EXPIRE", worker, $worker_ttl)
redis.call("SET", lease, name, "PX", $lease_ms)
redis.call("ZADD", living, now_ms, name)
return 1
""")


class Worker(BaseWorker):
    """One process's claim loop, in the main thread, under RQ's name for it."""

    def __init__(
        self,
        settings: Settings,
        region: Region,
        name: str,
        runner: Runner,
        *,
        beat: int | None = None,
        is_alone: bool = False,
    ) -> None:
        """``beat``: a descriptor that gets a byte every turn of the loop, for jobs.pool.processes.

        Who ``is_alone`` runs the region's suspects, one at a time, and ends when there are none.
        """
        url = region.redis.url
        super().__init__(
            [names.suspects(region.name) if is_alone else region.name],
            name=name,
            connection=connect.open_redis(url, name=name),
            serializer="json",
            worker_ttl=WORKER_TTL_SECONDS - 60,
            prepare_for_work=False,  # it would need its Redis at once
        )
        self.hostname, self.pid, self.birth_date = socket.gethostname(), os.getpid(), now()
        client = self._client = connect.open_redis(url, name=name)
        blocking = connect.open_redis(url, name=name, block_seconds=WAIT_SECONDS, connections=1)
        self.claimer = Claimer(client, blocking, region=region.name, worker=name, is_alone=is_alone)
        hub, waits = open_hub(settings.hub.redis, name), settings.hub.durability == "strict"
        self.shipper = Shipper(Home(hub, region.name, client, waits=waits))
        self.leftovers = Leftovers(client, Home(hub, region.name, client, waits=waits), name)
        threads = 1 if is_alone else region.workers.threads
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
        )
        self._runner, self._beat, self._is_alone = runner, beat, is_alone
        self._is_registered = self._is_stuck = False
        self._failures = 0
        self._looked = 0.0
        self._strange: set[str] = set()
        self._lost: set[str] = set()
        self.stop = Stop()

    def run(self) -> None:
        """Works until it is told to stop; then finishes what runs, or gives it back."""
        self.threads.start()
        self.shipper.start()
        self.leftovers.start()
        self._caller.start()
        while not self._is_done():
            self.run_once()
        self.leave()
        if self._is_stuck:
            os._exit(0)  # an interpreter that ends in order would pull the libraries from under the thread

    def run_once(self) -> None:
        """One turn: a beat, a claim, a look. It takes a few seconds at most, whatever the region's Redis does."""
        self._send_beat()
        self.threads.settle()
        try:
            if not self._is_registered:
                self._register()
            self._claim()
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._look()
        except redis.exceptions.RedisError as error:
            self._back_off(error)
            return
        if self._failures:
            log.info("the region's Redis is back", worker=self.name)
        self._failures = 0

    def leave(self) -> None:
        """Gives back what it holds, sends results home, and says goodbye. What fails here is made good by others."""
        self.threads.is_stopping = True
        try:
            held = self.claimer.look([])[1]
            if held:
                log.warning("gave back running jobs", worker=self.name, jobs=self.claimer.give_back(held))
            self.shipper.stop(FLUSH_SECONDS)
            self.leftovers.stop()
            # After giving back, since it forgets what it held.
            self.register_death()  # type: ignore[no-untyped-call]
            self.claimer.leave()
            self.unsubscribe()  # type: ignore[no-untyped-call]
        except redis.exceptions.RedisError as error:
            log.warning("left without a word: the region's Redis is away", worker=self.name, error=str(error))

    def _is_done(self) -> bool:
        if self.stop.asked is None:
            return False
        late = not self.stop.is_unhurried and time.monotonic() - self.stop.asked > DRAIN_SECONDS
        return self.stop.is_cold or late or not self.threads.running()

    def _claim(self) -> None:
        self.threads.is_stopping = self.stop.asked is not None
        if self.threads.is_stopping:
            self.threads.wait_until_idle(PAUSE_SECONDS)
            self.claimer.claim(0)  # renews the lease
            return
        slots = self.threads.reserve(CLAIM_MAX, WAIT_SECONDS)
        try:
            claimed = self.claimer.claim(slots, wait_seconds=WAIT_SECONDS if slots else 0.0)
        except redis.exceptions.RedisError:
            self.threads.release(slots)
            raise
        self.threads.accept(claimed, slots)
        if claimed.refusal == "unregistered":
            self._is_registered = False
        elif self._is_alone and slots and not claimed.jobs and claimed.refusal != "suspended":
            self.stop.request()
        elif claimed.refusal:
            self.stop.wait(PAUSE_SECONDS)

    def _look(self) -> None:
        """Looks at the marks of what runs, and whether the region and this process agree on what that is.

        What the region holds and nobody here runs is given back: the answer to its claim never came. What runs here and
        the region does not hold was taken back: it is stopped. Both when seen in two looks: claims are on their way.
        """
        self._looked = time.monotonic()
        running = self.threads.running()
        self._give_up_the_stuck(running)
        cancelled, held = self.claimer.look([job.task for job in running])
        known = {job.member for job in running}
        strange, lost = held - known, known - held
        for job in running:
            if job.task in cancelled or job.member in lost & self._lost:
                job.is_cancelled = True
        if unclaimed := strange & self._strange:
            log.warning("gave back jobs that nobody runs", worker=self.name, jobs=self.claimer.give_back(unclaimed))
        self._strange, self._lost = strange, lost
        now = time.monotonic()
        self.shipper.put([Shipment(entry, outcome, size, now) for entry, outcome, size in self.claimer.move_due()])
        self._tell()
        if self._runner.refresh():
            tell_limits(self._client, self._runner.limits())

    def _give_up_the_stuck(self, running: list[Job]) -> None:
        """Ends what computes past its deadline, and then this process: nothing else stops a thread (an XPath, a pattern).

        What runs beside it ends first, or is given back; the pool has another process in its place at once.
        """
        now_ms = self.claimer.clock.now_ms()
        for job in running:
            late_seconds = (now_ms - job.deadline_ms) / 1000
            is_late = bool(job.deadline_ms) and late_seconds >= STUCK_SECONDS
            if is_late and not job.is_ended and self.threads.give_up(job, late_seconds):
                log.error(
                    "a task is stuck past its deadline, its process ends",
                    worker=self.name,
                    task=job.task,
                    source=job.source,
                )
                self._is_stuck = True
                self.stop.request()

    def _tell(self) -> None:
        started: list[Started] = []
        now_ms = self.claimer.clock.now_ms()
        for job in self.threads.running():
            if not job.is_told and job.offset_ms is not None and now_ms - job.claimed_ms >= TOLD_AFTER_MS:
                job.is_told = True
                trail = msgspec.Raw(job.trail(self.name))
                started.append((job.request, job.task, job.attempt, job.claimed_ms + job.offset_ms, trail))
        if started:
            self.shipper.tell(started)

    def _register(self) -> None:
        self._set_ip_address(self.connection)
        self.register_birth()
        tell_limits(self._client, self._runner.limits())  # before it claims: nobody is asked more than that
        if self.pubsub_thread is None:
            self.subscribe()
        self._is_registered = True
        log.info("registered", worker=self.name, pid=self.pid)

    def _back_off(self, error: Exception) -> None:
        """Waits for the next try; the beat goes on."""
        if not self._failures:
            log.warning("the region's Redis is away", worker=self.name, error=str(error))
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
            return  # the pool does not read now: it is its beat that is missing, not ours
        except BrokenPipeError:
            log.error("the pool died", worker=self.name)
            self._beat = None
            self.stop.request()

    # What RQ would do otherwise.

    def register_birth(self) -> None:
        """RQ's, in one script that runs also at ``maxmemory``: a full Redis needs workers. Raises ValueError like it."""
        self.last_heartbeat = now()
        queue_workers = names.rq_workers_of(self.queues[0].name)
        keys = [self.key, self.redis_workers_keys, queue_workers, names.lease(self.name), names.WORKERS]
        fields = [part for pair in self.serialize().items() for part in pair]
        if not REGISTER.call(self.connection, keys, [self.name, *fields]):
            raise ValueError(f"expected a new name for a worker, found an active worker named {self.name}")

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """Leaves the connection's time-outs as they are: nothing waits on it."""
        return connection

    def run_maintenance_tasks(self) -> None:
        """Nothing: RQ's clean-ups fail jobs; jobs.queue.reaper does it."""

    def clean_registries(self) -> None:
        """Nothing, like ``run_maintenance_tasks``."""

    def subscribe(self) -> None:
        """RQ's, on a subscription that notices that nobody is there."""
        self.pubsub = connect.Subscription(self.connection)
        self.pubsub.subscribe(**{self.pubsub_channel_name: self.handle_payload})
        thread: Any = self.pubsub.run_in_thread(
            sleep_time=LISTEN_SECONDS, daemon=True, exception_handler=self._pubsub_exception_handler
        )
        self.pubsub_thread = thread

    def handle_payload(self, message: dict[str, Any]) -> None:
        """RQ's commands to a worker. RQ's own handler knows one execution of a worker and stops processes."""
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
        """RQ's ends the thread for good at what is no ConnectionError; the subscription comes back by itself."""
        log.info("can't listen to commands", worker=self.name, error=str(exc))
        time.sleep(connect.backoff_seconds(LISTEN_AFTER_FAILURES))
