"""A region's worker processes: started, watched by their beat and memory, replaced when they die, stopped together.

    run ── run_once: fits the number to this pool's share; starts missing processes, and some for suspects; reads beats;
     │               removes dead processes; kills silent ones; drains those with too much memory
     ├ jobs.worker x share    settings over standard input, so that no secret is in a command line
     ├ ForkServer             forks the process for urgent tasks, and those for suspects (jobs.worker.fork_server)
     ├ Scaler (thread)        agrees with the region's other pools on the number of processes
     ├ Reaper (thread)        gives the jobs of dead processes to others
     └ Reporter (thread)      tells the hub

An urgent task is one for which a client waits; each pool has one process for them. A suspect is a task that was running when its
process died; it runs again alone, in a process of its own. One process of a machine looks at the files of definitions for all.
"""

import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Final

import redis

from jobs.pool.child import WORKER, Child, Slot, spawn
from jobs.pool.metrics import Metrics
from jobs.pool.report import Reporter
from jobs.pool.scaler import Processes, Scaler
from jobs.queue.claim import Kind
from jobs.queue.clock import clock_of
from jobs.queue.reaper import Reaper
from jobs.queue.script import ALONE_MAX
from jobs.worker.fork_server import Forked, ForkServer, needed
from jobs.worker.stop import DRAIN_SECONDS, FLUSH_SECONDS, RETIRE, STUCK_BEAT, Stop, signals_wake
from regions import connect, durability, logs
from regions.metrics import Endpoint
from regions.process import Residents, cpu_seconds, renice
from regions.schedule import Scale
from regions.settings import Region, Settings

WATCH_SECONDS: Final = 1.0  # how long one turn waits to be told of something; then it reads beats
TURN_SECONDS: Final = 0.05  # from a turn that was told of something to the next one, at least
STARTS_SECONDS: Final = 0.2  # how long one turn waits while suspects wait for their processes
HUNG_SECONDS: Final = 4.0  # a child without a beat for this long is reported to the hub
DEATHS_SECONDS: Final = 60.0  # for which deaths are counted
MEMORY_CHECK_SECONDS: Final = 2.0  # between two looks at memory
STOP_SECONDS: Final = DRAIN_SECONDS + FLUSH_SECONDS + 5.0  # of a warm stop; what still runs then is killed
ALONE_A_TURN: Final = 4  # processes for suspects that start in one turn
COLD_SECONDS: Final = FLUSH_SECONDS + 5.0
# Of normal processes while clients wait for urgent tasks. All that they wait for comes first: their tasks' own process, the
# Redis, the bridge, on a small machine also the hub. Without such clients it would only wake them for smaller batches.
NICE: Final = 15

log = logs.get("workers")


class Pool:
    """The processes of one region on this machine."""

    def __init__(
        self,
        settings: Settings,
        region: Region,
        command: Sequence[str],
        *,
        reload: Callable[[], Scale] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``reload`` reads the region's ``[scale]`` again. Its rules follow ``clock``, in seconds since the epoch."""
        self._settings, self._region, self._command = needed(settings, region), region, command
        self._client = connect.open_redis(region.redis.url, name=f"{region.name}.pool")
        self._slots: list[Slot] = []
        self._metrics = Metrics(region.name)
        pages = self._metrics.pages
        self._fork_server = ForkServer(self._settings, [*command, region.name], pages.descriptor)
        self._urgent = Slot(1, "urgent")
        self._alone = [Slot(number, "alone") for number in range(1, ALONE_MAX + 1)]
        self._leaving: list[Slot] = []  # draining; other processes have their places
        self._memory_read, self._residents = 0.0, Residents()
        self._watched = 0.0
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._reaper = Reaper(self._client, region.name, found=self._wake)
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._scaler = Scaler(
            region,
            self._client,
            name,
            self._processes,
            reload=reload,
            clock=clock,
            changed=self._rescaled,
        )
        self._reporter = Reporter(
            settings,
            region,
            self._client,
            name,
            self.workers,
            self._scaler.status,
            self._life,
            changed=self._have_changed,
        )
        self._endpoint = Endpoint(
            region.metrics.host, region.metrics.workers_port, partial(self._metrics.samples, self._reporter)
        )
        self.stop = Stop()
        self._is_refused = self._has_news = self._was_told = False
        self._missing = 0
        self._lost, self._death = 0, ""  # normal processes that died, and how the last one did
        self._deaths: deque[float] = deque(maxlen=100)  # when (monotonic)

    def run(self) -> int:
        """Works until it is asked to stop. Returns the exit code."""
        self._endpoint.start()
        try:
            with self._waker, self._woken, signals_wake(self._waker):
                return self._run()
        finally:
            self._endpoint.stop()

    def _run(self) -> int:
        try:
            if not self._wait_for_redis():
                return 0
        except (connect.TooOld, durability.NotDurable) as error:
            log.error("can't start", error=str(error))
            return 1
        self._scaler.start()
        self._reaper.start()
        self._reporter.start()
        self._fork_server.open()
        while self.stop.asked is None:
            self.run_once()
        self.end()
        return int(self._is_refused)

    def run_once(self) -> None:
        """One turn: at most ``WATCH_SECONDS``, and the time to start missing processes. News ends its wait."""
        self._fit(self._scaler.share)
        for slot in (*self._slots, self._urgent):
            if slot.child is None and time.monotonic() >= slot.not_before:
                self._start(slot)
        self._start_alone()
        self._give_way()
        self._tell()
        self._watch()
        if time.monotonic() - self._memory_read >= MEMORY_CHECK_SECONDS:
            self._check_memory()

    def workers(self) -> list[str]:
        """The names of the running processes, without those for suspects."""
        return [slot.child.name for slot in (*self._slots, *self._leaving) if slot.child is not None]

    def _life(self) -> dict[str, Any]:
        """The part of the status that says how processes live: how many died, ever and within a minute, and how many hang."""
        now = time.monotonic()
        died = sum(at > now - DEATHS_SECONDS for at in tuple(self._deaths))
        children = [slot.child for slot in tuple(self._slots) if slot.child is not None]
        hung = sum(child.beat is not None and self._watched - child.beat > HUNG_SECONDS for child in children)
        return {"lost": self._lost, "died": died, "death": self._death, "hung": hung}

    def _processes(self) -> Processes:
        """The normal processes, without those that drain."""
        children = [slot.child for slot in tuple(self._slots) if slot.child is not None]
        cpu = {child.process.pid: cpu_seconds(child.process.pid) for child in children}
        return Processes(sum(child.beat is not None for child in children), len(children), cpu)

    def _fit(self, share: int) -> None:
        """Fits the number of places to the share.

        A process without a place drains: it claims nothing and ends its tasks.
        """
        while len(self._slots) > share:
            slot = self._slots.pop()
            if slot.child is None:
                continue
            log.info("draining a worker that is not needed", worker=slot.child.name, pid=slot.child.process.pid)
            slot.child.process.send_signal(RETIRE)
            self._leaving.append(slot)
        taken = {slot.number for slot in (*self._slots, *self._leaving)}
        free = (number for number in count(1) if number not in taken)
        while len(self._slots) < share:
            self._slots.append(Slot(next(free)))

    def _give_way(self) -> None:
        """Normal processes give way to all others while clients wait for urgent tasks, unless an operator chose a nice value.

        Without the right to get back the nice value 0 they keep ``NICE``.
        """
        if os.getpriority(os.PRIO_PROCESS, 0):
            return
        nice = NICE if self._scaler.has_urgent else 0
        for slot in (*self._slots, *self._leaving):
            child = slot.child
            if child is not None and child.nice != nice and renice(child.process.pid, nice):
                child.nice = nice

    def _rescaled(self) -> None:
        self._reporter.now()
        self._wake()

    def _have_changed(self) -> None:
        """Definitions have changed: tells the processes."""
        self._has_news = True
        self._wake()

    def _tell(self) -> None:
        if self._has_news:
            self._has_news = False
            for child in self._children():
                child.tell()

    def _wake(self) -> None:
        """Begins the next turn now."""
        with contextlib.suppress(OSError):  # it was woken often enough, or has ended
            self._waker.send(b".")

    def _wait_seconds(self, now: float) -> float:
        """The longest wait for news."""
        due = [slot.not_before for slot in (*self._slots, self._urgent) if slot.child is None]
        wait = min(now + WATCH_SECONDS, self._memory_read + MEMORY_CHECK_SECONDS, *due) - now
        return max(0.0, min(wait, STARTS_SECONDS) if self._missing > 0 else wait)

    def _start_alone(self) -> None:
        """Starts a process for each waiting suspect, but for those that start already; a few a turn: the first may run all."""
        if (waiting := self._reaper.suspects()) is not None:
            self._missing = waiting - sum(slot.child is not None and slot.child.beat is None for slot in self._alone)
        free = [slot for slot in self._alone if slot.child is None and time.monotonic() >= slot.not_before]
        for slot in free[: max(0, min(self._missing, ALONE_A_TURN))]:
            self._start(slot)
            self._missing -= 1

    def end(self) -> None:
        """Stops the children: warm, or cold after a second request. Kills those that do not end in time."""
        log.info("stopping", region=self._region.name, workers=self.workers())
        self._scaler.stop()
        self._signal(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        is_cold = False
        while self._children() and time.monotonic() < end:
            if self.stop.is_cold and not is_cold:
                is_cold = True
                self._signal(signal.SIGTERM)
                end = time.monotonic() + COLD_SECONDS
            self._watch()
        self._signal(signal.SIGKILL)
        while self._children():
            self._watch()
        self._fork_server.close()
        self._reaper.stop()
        self._reporter.stop()
        log.info("stopped", region=self._region.name)

    def _wait_for_redis(self) -> bool:
        """Waits for the region's Redis. False when a stop was asked for first. Raises ``TooOld`` and ``NotDurable``."""
        failures = 0
        while self.stop.asked is None:
            try:
                connect.check_redis(self._client, f"Redis of {self._region.name}")
                what, kind = f"{self._region.name}'s Redis", self._region.redis.durability
                for shortfall in durability.check(self._client, what, kind, "redis.durability").shortfalls:
                    log.warning("redis not durable; redis.durability is relaxed", shortfall=str(shortfall))
                return True
            except redis.exceptions.RedisError as error:
                if not failures:
                    url = connect.without_password(self._region.redis.url)
                    log.warning("waiting for the region's Redis", region=self._region.name, url=url, error=str(error))
                failures += 1
            self.stop.wait(connect.backoff_seconds(failures))
        return False

    def _start(self, slot: Slot) -> None:
        """Starts a process in its place. If the system has no descriptor, process or memory for it, the place waits."""
        kind = "worker" if slot.kind == "normal" else slot.kind
        name = f"{self._region.name}.{kind}.{slot.number}.{secrets.token_hex(3)}"
        try:
            child = slot.child = self._begun(slot.kind, name)
        except OSError as error:
            now = time.monotonic()
            delay = slot.hold_off(now, now)
            log.error("can't start a worker", worker=name, error=str(error), retry_in_seconds=round(delay, 2))
            return
        self._metrics.starts.add(slot.kind)
        log.info("started a worker", worker=name, pid=child.process.pid)
        self._reporter.now()

    def _begun(self, kind: Kind, name: str) -> Child:
        """A new process. Leaves nothing behind if it can't be started."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.enter_context(ours)
            ours.setblocking(False)
            page = self._metrics.pages.take()
            undo.callback(self._metrics.pages.give_back, page)
            ahead_ms = clock_of(self._client).ahead_of_boot_ms
            process: subprocess.Popen[bytes] | Forked
            if kind == "normal":
                meters, command = self._metrics.pages.descriptor, [*self._command, self._region.name, name]
                process = spawn(
                    command, self._settings, beat=theirs.fileno(), meters=meters, page=page, ahead_ms=ahead_ms
                )
            else:
                process = self._fork_server.start(name, theirs.fileno(), kind, page, ahead_ms)
            undo.pop_all()
        return Child(name, process, ours.detach(), time.monotonic(), page)

    def _watch(self) -> None:
        """Waits to be told of something, reads beats, removes children that died, kills silent ones."""
        if self._was_told:  # the socket of a dying child is ready all the time
            time.sleep(max(0.0, self._watched + TURN_SECONDS - time.monotonic()))
        poll = select.poll()
        for one in self._children():  # a process that has begun wakes the pool only by its end
            poll.register(one.pipe, 0 if one.beat else select.POLLIN)
        for descriptor in (self._woken.fileno(), *self._fork_server.descriptors()):
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(self._wait_seconds(time.monotonic()) * 1000)
        now = self._watched = time.monotonic()
        self._was_told = bool(ready)
        if self._woken.fileno() in dict(ready):
            self._woken.recv(4096)
        for one in self._children():
            if beats := one.beats():
                one.beat = now
                self._replace(one, is_stuck=STUCK_BEAT in beats)
        for slot in self._all():
            child = slot.child
            if child is None:
                continue
            if child.process.poll() is not None:
                self._remove(slot, child)
            elif child.is_silent(now):
                log.error("killing a worker whose loop hangs", worker=child.name, pid=child.process.pid)
                self._metrics.deaths.add("hung")
                child.process.kill()
                child.is_killed = True  # it is removed when its end is seen, which may take some time
        self._fork_server.look()

    def _replace(self, child: Child, *, is_stuck: bool) -> None:
        """Gives the place of a process that drains because of a stuck thread to another one."""
        for slot in (*self._slots, self._urgent):
            if is_stuck and slot.child is child:
                log.warning(
                    "replacing a worker with a stuck thread, which drains", worker=child.name, pid=child.process.pid
                )
                self._leaving.append(replace(slot))
                slot.child = None
                slot.hold_off(child.started, time.monotonic())
                self._metrics.deaths.add("stuck")

    def _check_memory(self) -> None:
        """Drains processes that grew beyond their memory; others take their places.

        At most one process of a place drains at a time. Pages alone don't cause this: they keep to a budget (jobs.memory).
        """
        self._memory_read = time.monotonic()
        most_mb, draining = self._region.workers.memory_mb, {(slot.kind, slot.number) for slot in self._leaving}
        children = {slot.child.process.pid: slot for slot in (*self._slots, self._urgent) if slot.child is not None}
        children.pop(0, None)  # not forked yet
        try:
            sizes = self._residents.resident_bytes(children)
        except OSError as error:  # no descriptor is free
            log.warning("can't look at the memory of the workers", error=str(error))
            return
        self._metrics.memory_bytes = sum(sizes.values())
        for pid, size in sizes.items():
            slot, memory_mb = children[pid], size // 1_000_000
            child = slot.child
            if child is None or memory_mb <= most_mb or (slot.kind, slot.number) in draining:
                continue
            log.warning(
                "draining a worker with too much memory",
                worker=child.name,
                pid=pid,
                memory_mb=memory_mb,
                most_mb=most_mb,
            )
            child.process.send_signal(signal.SIGTERM)
            self._leaving.append(replace(slot))
            slot.child = None
            slot.hold_off(child.started, self._memory_read)
            self._metrics.deaths.add("too_large")

    def _remove(self, slot: Slot, child: Child) -> None:
        os.close(child.pipe)
        self._metrics.pages.give_back(child.page)
        slot.child = None
        is_leaving = slot in self._leaving
        self._leaving = [one for one in self._leaving if one is not slot]
        code = child.process.returncode
        is_expected = is_leaving and code in (0, -RETIRE)  # the latter: before it had a handler
        self._reaper.died(child.name, crashed=code != 0 and not is_expected and self.stop.asked is None)
        self._reporter.now()
        if self.stop.asked is not None or is_expected or (slot.kind == "alone" and code == 0):
            log.info("a worker ended", worker=child.name, code=code)
            return
        if code == os.EX_CONFIG:  # starting again would not help
            log.error("a worker refused its settings; its own message is above", worker=child.name)
            self._is_refused = True
            self.stop.request()
            return
        if slot.kind == "normal":
            self._lost, self._death = self._lost + 1, f"{child.name} ended with {code}"
            self._deaths.append(time.monotonic())
        delay = slot.hold_off(child.started, time.monotonic())
        if not child.is_killed:
            self._metrics.deaths.add("crashed")
        log.error("a worker died", worker=child.name, code=code, restart_in_seconds=round(delay, 2))

    def _children(self) -> list[Child]:
        return [slot.child for slot in self._all() if slot.child is not None]

    def _all(self) -> list[Slot]:
        return [*self._slots, self._urgent, *self._alone, *self._leaving]

    def _signal(self, number: int) -> None:
        for child in self._children():
            child.process.send_signal(number)


def run(
    settings: Settings,
    region: str,
    command: Sequence[str] = WORKER,
    *,
    reload: Callable[[], Settings] | None = None,
    clock: Callable[[], float] = time.time,
) -> int:
    """Runs a region's workers until SIGTERM or SIGINT, then stops them: warm, or cold after a second signal.

    ``command`` begins the command line of a worker process. ``reload`` reads the settings again; only the region's
    ``[scale]`` is taken from them. Its rules follow ``clock``. Raises ``Faults`` for an unknown region.
    """
    again = None if reload is None else lambda: reload().one(region).scale
    pool = Pool(settings, settings.one(region), command, reload=again, clock=clock)
    pool.stop.install()
    code = pool.run()
    pool.stop.ignore()
    return code
