"""Starts a region's bridge on this host if none is alive, and replaces it without a gap; for cron and operators.

    ensure    a bridge beats → nothing
              none does      → end one that hangs, start one, wait for its first beat
    restart   start another → it consumes → the old one drains and ends

A bridge is alive if its heartbeat is fresh; its own loop renews it (bridge.heartbeat). Bridges that a supervisor started
count, too, and their supervisor has precedence: only bridges that this module started ("kept") are started again at once.
One process at a time acts for a region: the one with the lock on REGION.lock. The kernel releases the lock when its holder
dies; a holder that hangs is noticed by its heartbeat, and killed. Processes are signalled by pid and start time, so that
no other process is hit.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from bridge import heartbeat
from bridge.heartbeat import Beat
from regions.process import Process

STALE_SECONDS: Final = 15.0  # nothing that takes longer than a Redis's time-out runs on a bridge's loop
SUPERVISOR_SECONDS: Final = 6.0  # a supervisor starts a bridge again within five seconds
START_SECONDS: Final = 20.0  # until the first beat
READY_SECONDS: Final = 30.0  # until a bridge consumes
KILL_SECONDS: Final = 5.0
LOCK_SECONDS: Final = 60.0  # how long a restart waits for another command
SETTLED_SECONDS: Final = 60.0  # a supervised bridge must have run this long before a kept one ends in its favour
POLL_SECONDS: Final = 0.05
LOG_BYTES_MAX: Final = 10_000_000  # a larger log is renamed to REGION.log.1 and replaces the one before
LOG_LINES: Final = 5  # shown of a bridge that did not start

Answer = TypeVar("Answer")
Say = Callable[[str, bool], None]  # gets a step that was taken, and whether it is a fault


@dataclass
class Report:
    """What was done for a region; nothing if all was well. ``pid`` is a bridge that is alive now, or 0."""

    region: str
    say: Say = lambda _text, _is_fault: None
    did: list[str] = field(default_factory=list)
    ok: bool = True
    pid: int = 0

    def note(self, text: str) -> None:
        """Adds a step that was taken."""
        self.did.append(text)
        self.say(text, False)

    def fail(self, text: str) -> None:
        """Adds why the region is not as requested."""
        self.ok = False
        self.did.append(text)
        self.say(text, True)


@dataclass(frozen=True)
class Seen:
    """A bridge as its heartbeat shows it."""

    file: Path
    beat: Beat

    @property
    def process(self) -> Process:
        """Its process."""
        return self.beat.process

    @property
    def consumes(self) -> bool:
        """Whether it takes tasks."""
        return self.beat.state == "consuming"


class RegionBridges:
    """The bridges of one region on this host. ``command`` starts a kept bridge, in ``environment``."""

    def __init__(self, folder: Path, region: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.folder, self.region = folder, region
        self._command, self._environment = list(command), dict(environment)
        self._lock = -1

    def ensure(self) -> Report:
        """Starts a bridge if none is alive. Raises ``OSError`` when the folder can't be used."""
        report = Report(self.region)
        with self._alone(report, 0.0) as mine:
            if mine:
                self._ensure(report)
        report.pid = next((one.process.pid for one in self._live()), 0)
        return report

    def restart(self, drain_seconds: float, say: Say = lambda _text, _is_fault: None) -> Report:
        """Replaces the region's bridges one after the other. Raises ``OSError`` when the folder can't be used.

        ``say`` gets each step. A bridge that has not drained after ``drain_seconds`` is killed, and RabbitMQ delivers its
        messages again. If the new bridge does not begin to consume, the old one stays.
        """
        report = Report(self.region, say)
        with self._alone(report, LOCK_SECONDS) as mine:
            if mine:
                self._restart(report, drain_seconds)
            elif report.ok:
                report.fail("another command is at work here")
        report.pid = next((one.process.pid for one in self._live()), 0)
        return report

    # Decisions

    def _ensure(self, report: Report) -> None:
        dead, hung = self._clear(report)
        live = self._live()
        if not live and not any(one.beat.kept for one in dead + hung):
            live = self._wait(self._live, SUPERVISOR_SECONDS)
        if live:
            self._retire(live, report)
        else:
            self._start(report, dead)

    def _restart(self, report: Report, drain_seconds: float) -> None:
        dead, _ = self._clear(report)
        live = self._live()
        if not live:
            self._start(report, dead)
            return
        supervised = [one for one in live if not one.beat.kept]
        kept = [one for one in live if one.beat.kept]
        for one in supervised:
            before = {other.process for other in self._look()}
            self._drain([one], report, drain_seconds)
            new = self._await_new(before) or self._start(report)
            if not new or not self._await_consuming(new, report, must=one.consumes):
                return
        if kept and not supervised:
            new = self._start(report)
            if not new:
                return
            if not self._await_consuming(new, report, must=any(one.consumes for one in kept)):
                self._drain(new, report, drain_seconds)
                return
        self._drain(kept, report, drain_seconds)

    def _retire(self, live: list[Seen], report: Report) -> None:
        """Ends superfluous kept bridges: a supervisor is back, or a restart was interrupted."""
        settled = time.time() - SETTLED_SECONDS
        supervised = [one for one in live if not one.beat.kept and one.consumes and one.process.started_at < settled]
        kept = [one for one in live if one.beat.kept]
        if not supervised:
            kept.sort(key=lambda one: (one.consumes, one.process.started))
            kept = kept[:-1]
        for one in kept:
            if self._signal(one, signal.SIGTERM, report):
                report.note(f"told process {one.process.pid} to end: another bridge does its work")

    # State

    def _look(self) -> list[Seen]:
        """All bridges with a heartbeat file."""
        found = [(file, heartbeat.read(file)) for file in heartbeat.files(self.folder, self.region)]
        return [Seen(file, beat) for file, beat in found if beat is not None]

    def _live(self) -> list[Seen]:
        """Bridges that are alive and not stopping."""
        return [
            one for one in self._look()
            if one.beat.alive and one.beat.age_seconds <= STALE_SECONDS and one.beat.state != heartbeat.STOPPING
        ]  # fmt: skip

    def _clear(self, report: Report) -> tuple[list[Seen], list[Seen]]:
        """Removes the heartbeats of dead bridges, and kills bridges that hang. Returns both."""
        dead, hung = [], []
        for one in self._look():
            if not one.beat.alive:
                one.file.unlink(missing_ok=True)
                dead.append(one)
            elif one.beat.age_seconds > STALE_SECONDS:
                one.file.unlink(missing_ok=True)  # first, so that it ends by itself if it goes on after all
                report.note(f"ended process {one.process.pid}, whose loop stood still for {one.beat.age_seconds:.0f} s")
                if self._signal(one, signal.SIGKILL, report):
                    self._await_end([one], KILL_SECONDS)
                hung.append(one)
        return dead, hung

    # Actions

    def _start(self, report: Report, dead: Sequence[Seen] = ()) -> list[Seen]:
        """Starts a bridge and waits for its first beat. Returns it, or an empty list if the beat does not come."""
        log = self.folder / f"{self.region}.log"
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > LOG_BYTES_MAX:
                log.replace(log.with_name(f"{log.name}.1"))
        with log.open("ab") as opened:
            # In its own session, with none of our files open, it outlives this command, and cron does not wait for it.
            process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=opened, stderr=opened,
                start_new_session=True,
            )  # fmt: skip

        def found() -> list[Seen]:
            return [one for one in self._live() if one.process.pid == process.pid]

        self._wait(lambda: process.poll() is not None or found(), START_SECONDS)
        new = found()
        if new:
            died = f"process {dead[-1].process.pid} had died, " if dead else ""
            report.note(f"{died}started process {process.pid}")
            return new
        if process.poll() is None:
            process.kill()
            process.wait()
            report.fail(f"a new bridge, process {process.pid}, did not beat within {START_SECONDS:g} s   Log: {log}")
            return []
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        shown = "".join(f"\n    {line}" for line in lines)
        report.fail(f"a new bridge ended at once with code {process.returncode}   Log: {log}{shown}")
        return []

    def _await_consuming(self, new: list[Seen], report: Report, *, must: bool) -> bool:
        """Waits until a new bridge consumes, if the old one did (``must``). False when it does not."""
        if not must:
            return True
        processes = {one.process for one in new}
        began = time.monotonic()
        found = self._wait(
            lambda: [one for one in self._live() if one.process in processes and one.consumes], READY_SECONDS
        )
        if found:
            report.note(f"process {found[0].process.pid} consumes after {time.monotonic() - began:.1f} s")
        else:
            report.fail(f"process {new[0].process.pid} does not consume after {READY_SECONDS:g} s")
        return bool(found)

    def _drain(self, ones: list[Seen], report: Report, drain_seconds: float) -> None:
        """Tells bridges to finish their messages and end. Kills those that have not done so in time."""
        began = time.monotonic()
        signalled = [one for one in ones if self._signal(one, signal.SIGTERM, report)]
        self._await_end(signalled, drain_seconds)
        for one in signalled:
            if not one.process.alive:
                report.note(f"process {one.process.pid} drained and ended in {time.monotonic() - began:.1f} s")
                continue
            one.file.unlink(missing_ok=True)
            if self._signal(one, signal.SIGKILL, report):
                self._await_end([one], KILL_SECONDS)
                report.note(f"process {one.process.pid} had not drained after {drain_seconds:g} s and was killed")

    def _await_new(self, before: set[Process]) -> list[Seen]:
        """Waits for a supervisor to start a bridge that is not in ``before``."""
        return self._wait(lambda: [one for one in self._live() if one.process not in before], SUPERVISOR_SECONDS)

    def _await_end(self, ones: Sequence[Seen], seconds: float) -> None:
        self._wait(lambda: not any(one.process.alive for one in ones), seconds)

    def _signal(self, one: Seen, number: int, report: Report) -> bool:
        """Sends a signal to a bridge if it still exists. False when it is another user's process."""
        try:
            one.process.signal(number)
        except PermissionError:
            report.fail(f"process {one.process.pid} can't be signalled: it is another user's")
            return False
        return True

    def _wait(self, condition: Callable[[], Answer], seconds: float) -> Answer:
        """Polls until the answer is true or the time is over.

        Returns the last answer. Renews our own beat meanwhile.
        """
        deadline = time.monotonic() + seconds
        while not (answer := condition()) and time.monotonic() < deadline:
            heartbeat.write(self._lock)
            time.sleep(POLL_SECONDS)
        return answer

    # One at a time

    @contextlib.contextmanager
    def _alone(self, report: Report, wait_seconds: float) -> Iterator[bool]:
        """Whether this command may act for the region. False when another one does so for all of ``wait_seconds``."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self.folder / f"{self.region}.lock"
        self._lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)  # children don't inherit files that Python opens
        try:
            if not self._take(file, report, wait_seconds):
                yield False
                return
            heartbeat.write(self._lock)
            try:
                yield True
            finally:
                os.ftruncate(self._lock, 0)  # the next holder has no beat yet, and this process may live on
        finally:
            os.close(self._lock)

    def _take(self, file: Path, report: Report, wait_seconds: float) -> bool:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = heartbeat.read(file)
                if holder is not None and holder.alive and holder.age_seconds > STALE_SECONDS:
                    report.note(f"ended process {holder.pid}, a command that hung for {holder.age_seconds:.0f} s")
                    if not self._signal(Seen(file, holder), signal.SIGKILL, report):
                        return False
                    deadline = max(deadline, time.monotonic() + KILL_SECONDS)
                    while holder.alive and time.monotonic() < deadline:
                        time.sleep(POLL_SECONDS)
                elif time.monotonic() >= deadline:
                    return False
                time.sleep(POLL_SECONDS)
            else:
                return True


def end_kept(folder: Path, seconds: float) -> int:
    """Ends all kept bridges of a folder, of any region. Returns how many there were."""
    beats = [beat for file in heartbeat.files(folder) if (beat := heartbeat.read(file)) is not None]
    kept = [beat.process for beat in beats if beat.kept and beat.alive]
    for process in kept:
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGCONT)  # a stopped process does not handle SIGTERM
    deadline = time.monotonic() + seconds
    while any(process.alive for process in kept) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for process in kept:
        process.signal(signal.SIGKILL)
    return len(kept)
