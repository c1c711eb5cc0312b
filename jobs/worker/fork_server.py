"""A fork server for the processes of urgent tasks and of suspects: it has everything imported, so that a start costs a tenth of the time and memory.

    pool: ForkServer.start(name, beat) ── name, descriptor ──> serve (python -m jobs.worker … --fork-server FD): fork, run
          Forked.poll               <── name, pid, code; a beat every 4 s ──

The fork server has one thread, so that forking is safe, and runs no job. It ends with its pool, and its processes with it.
When its beat stops, the pool kills it and starts another one.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import msgspec

from jobs.queue.claim import Kind
from jobs.queue.clock import LEASE_MS
from jobs.worker.stop import FLUSH_SECONDS, START_SECONDS
from regions import logs
from regions.settings import ROOT, Dashboard, Hub, Region, Settings

BEAT_SECONDS: Final = 4.0  # each beat wakes the pool
SILENT_SECONDS: Final = 2 * LEASE_MS / 1000
MESSAGE_BYTES: Final = 512
BEAT: Final = b"."
STOPS: Final = (signal.SIGTERM, signal.SIGINT)

log = logs.get("workers")


def needed(settings: Settings, region: Region) -> Settings:
    """The settings that a worker process needs to run its region's tasks and to send results home, and no more.

    Authors' code runs in it. The other regions stay listed, empty, since sources without a region belong to the first.
    """
    mine = msgspec.structs.replace(region, dashboard=Dashboard())
    regions = {name: mine if name == region.name else Region(name=name) for name in settings.region}
    hub = Hub(redis=settings.hub.redis, durability=settings.hub.durability)
    return Settings(
        hub=hub,
        limits=settings.limits,
        sources=settings.sources,
        fetch=settings.fetch,
        log=settings.log,
        region=regions,
    )


def environment() -> dict[str, str]:
    """The environment of a process that runs authors' code: without our settings. A worker gets those it needs over standard input."""
    return {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")}


class Forked:
    """A process that the fork server started, with those parts of ``subprocess.Popen`` that a pool uses."""

    def __init__(self, fork_server: "ForkServer") -> None:
        self._fork_server = fork_server
        self._signals: list[int] = []
        self._handle: int | None = None  # its pidfd while it runs
        self._is_orphan = False
        self.pid = 0  # once it runs
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, None while the process runs."""
        self._fork_server.read()
        if self._is_orphan and self.returncode is None and self._is_gone():
            self.ended(-signal.SIGTERM)
        return self.returncode

    def _is_gone(self) -> bool:
        """Whether the process has ended, by its pidfd: nobody reports the end of an orphan."""
        return self._handle is None or bool(select.select([self._handle], [], [], 0)[0])

    def send_signal(self, number: int) -> None:
        """Sends a signal, now or as soon as the process runs."""
        if self.poll() is not None:
            return
        if not self.pid:
            self._signals.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def began(self, pid: int) -> None:
        """The fork server says that the process runs."""
        self.pid = pid
        with contextlib.suppress(ProcessLookupError):
            self._handle = os.pidfd_open(pid)
        for number in self._signals:
            self.send_signal(number)

    def ended(self, code: int) -> None:
        """The process has ended."""
        self.returncode = code
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def orphaned(self) -> None:
        """The fork server died, which sends the process SIGTERM. It ends its tasks first, so it is not dead yet."""
        self._is_orphan = True


class ForkServer:
    """The pool's side: starts the fork server, again when it has died, and knows the processes that it forked."""

    def __init__(self, settings: Settings, command: Sequence[str], meters: int) -> None:
        """``command`` is a worker's command line up to its name. ``meters``: the descriptor of jobs.worker.meter's pages."""
        self._settings, self._command, self._meters = settings, command, meters
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._heard = 0.0  # monotonic seconds: the last beat; before the first one, set so that it has START_SECONDS
        self._living: dict[str, Forked] = {}

    def start(self, name: str, beat: int, kind: Kind, page: int, ahead_of_boot_ms: int | None) -> Forked:
        """Starts a worker process of this name and kind, which counts in this page.

        ``beat`` is the descriptor for its beat; the caller closes its own copy. ``ahead_of_boot_ms``: as ``Worker`` takes it.
        """
        self.read()
        channel = self._channel or self.open()
        forked = self._living[name] = Forked(self)
        try:
            socket.send_fds(
                channel,
                [f"{name} {kind} {page} {'' if ahead_of_boot_ms is None else ahead_of_boot_ms}".encode()],
                [beat],
            )
        except OSError:
            self._give_up()
        return forked

    def read(self) -> None:
        """Reads the fork server's messages: which processes run, and which ended."""
        while self._channel is not None:
            try:
                message = self._channel.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._give_up()
                return
            if message == BEAT:
                self._heard = time.monotonic()
                continue
            name, pid, code = message.decode().split()
            if code == "-":
                self._living[name].began(int(pid))
            else:
                self._living.pop(name).ended(int(code))

    def descriptors(self) -> list[int]:
        """What can be read when there is a message; empty while there is no fork server."""
        return [] if self._channel is None else [self._channel.fileno()]

    def look(self) -> None:
        """Reads messages, and kills the fork server when it was silent for too long: it is stopped, or hangs."""
        self.read()
        if self._channel is not None and time.monotonic() - self._heard > SILENT_SECONDS:
            self._give_up()

    def close(self) -> None:
        """Ends the fork server and its processes. Kills it when it does not react in FLUSH_SECONDS."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(FLUSH_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def open(self) -> socket.socket:
        """Starts the fork server, so that it is ready when it is needed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs, contextlib.ExitStack() as undo:
            undo.enter_context(ours)  # closes it if no process can be started
            self._process = subprocess.Popen(
                [
                    *self._command,
                    "fork-server",
                    "--settings",
                    "-",
                    "--fork-server",
                    str(theirs.fileno()),
                    "--meters",
                    str(self._meters),
                ],
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno(), self._meters],
            )
            undo.pop_all()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(msgspec.json.encode(self._settings))
        self._channel, self._heard = ours, time.monotonic() + START_SECONDS - SILENT_SECONDS
        log.info("started a fork server", pid=self._process.pid)
        return ours

    def _give_up(self) -> None:
        """Kills the fork server unless it died. Its processes get SIGTERM by that, and stop warm."""
        assert self._process is not None
        is_dead = self._process.poll() is not None
        what = "the fork server died" if is_dead else "killing a fork server that hangs"
        log.error(what, pid=self._process.pid, processes=len(self._living))
        self._process.kill()
        self.close()
        for forked in self._living.values():
            forked.orphaned()
        self._living.clear()


def serve(descriptor: int, begin: Callable[[str, int, Kind, int, int | None], int]) -> int:
    """The fork server's side: forks a process for each name that arrives.

    There ``begin(name, beat, kind, page, ahead_of_boot_ms)`` runs and returns the code.
    """
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # a terminal signals all processes; this one ends with its pool
    gc.collect()
    gc.freeze()  # so that the collector does not write to shared memory
    channel = socket.socket(fileno=descriptor)
    children: dict[int, tuple[int, str]] = {}  # by pidfd: pid and name
    beat_due = 0.0
    try:
        while True:
            if time.monotonic() >= beat_due:
                channel.send(BEAT)
                beat_due = time.monotonic() + BEAT_SECONDS
            watched: list[Any] = [channel, *children]
            ready, _, _ = select.select(watched, [], [], BEAT_SECONDS)
            if channel in ready:
                message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1)
                if not message:
                    return 0
                name, kind, page, *clock = message.decode().split()
                ahead_ms = int(clock[0]) if clock else None
                pid = _fork(channel, name, partial(begin, name, descriptors[0], cast(Kind, kind), int(page), ahead_ms))
                os.close(descriptors[0])
                children[os.pidfd_open(pid)] = pid, name
                channel.send(f"{name} {pid} -".encode())
            for ended in children.keys() & set(ready):
                os.close(ended)
                pid, name = children.pop(ended)
                _, status = os.waitpid(pid, 0)
                channel.send(f"{name} {pid} {os.waitstatus_to_exitcode(status)}".encode())
    except OSError:
        return 0  # the pool is gone


def _fork(channel: socket.socket, name: str, begin: Callable[[], int]) -> int:
    """Returns the new process's id. In the new process it never returns."""
    # Until it has handlers of its own, the new process would ignore signals, as the fork server does, and a stop would be lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    code = os.EX_SOFTWARE
    try:
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        channel.close()
        code = begin()
    except BaseException:
        log.exception("a process failed", worker=name)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
