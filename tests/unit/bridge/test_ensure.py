"""What bridges.ensure does where no bridge has to run: what it says, its lock, and the end of all that it started."""

import fcntl
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridge import ensure, heartbeat
from bridge.ensure import RegionBridges, Report, Seen, end_kept
from regions.process import Process
from tests.waiting import until

BRIDGE = """
import signal, sys, time
from pathlib import Path
from bridge.heartbeat import Heartbeat

folder, how = Path(sys.argv[1]), sys.argv[2:]
told = []
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in how else lambda *_: told.append(1))
one = Heartbeat(folder, "fra", kept="kept" in how)
while not told:
    time.sleep(0.01)
(folder / "drained").touch()
"""


class Beating:
    """Processes with the heartbeats of bridges."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._running = folder, list[subprocess.Popen[bytes]]()

    def start(self, *how: str) -> subprocess.Popen[bytes]:
        self._running.append(subprocess.Popen([sys.executable, "-c", BRIDGE, str(self.folder), *how]))
        until(lambda: len(self.beats()) == len(self._running), "its heartbeat")
        return self._running[-1]

    def bridges(self, *command: str) -> RegionBridges:
        """The bridges of their region; without ``command`` each new one is such a process."""
        words = list(command) or [sys.executable, "-c", BRIDGE, str(self.folder), "kept"]
        return RegionBridges(self.folder, "fra", words, {})

    def beats(self) -> list[heartbeat.Beat]:
        return [beat for file in heartbeat.files(self.folder) if (beat := heartbeat.read(file)) is not None]

    def stop(self) -> None:
        for beat in self.beats():
            beat.process.signal(signal.SIGKILL)
        for one in self._running:
            one.kill()
            one.wait()


@pytest.fixture
def beating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beating]:
    monkeypatch.setattr(ensure, "STALE_SECONDS", 600.0)  # they beat once, when they start
    one = Beating(tmp_path)
    yield one
    one.stop()


def test_what_was_started_here_drains_and_ends_also_if_it_was_stopped_and_a_supervisors_bridge_stays(
    beating: Beating,
) -> None:
    supervised, kept = beating.start(), beating.start("kept")
    os.kill(kept.pid, signal.SIGSTOP)
    assert end_kept(beating.folder, 60.0) == 1
    assert kept.wait(60) == 0
    assert (beating.folder / "drained").exists()
    assert supervised.poll() is None


def test_what_does_not_drain_in_time_is_killed(beating: Beating) -> None:
    deaf = beating.start("kept", "deaf")
    assert end_kept(beating.folder, 0.05) == 1
    assert deaf.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("states", "stays"),
    [(["consuming", "starting"], 0), (["starting", "consuming"], 1), (["consuming", "consuming"], 1)],
)
def test_of_bridges_that_were_started_here_the_youngest_that_consumes_stays(
    beating: Beating, states: list[str], stays: int
) -> None:
    """In whatever order the folder lists them."""
    started = [beating.start("kept", "deaf").pid for _ in states]  # so that each order has both of them
    beats = sorted(beating.beats(), key=lambda beat: started.index(beat.pid))
    seen = [
        Seen(beating.folder, msgspec.structs.replace(beat, state=state))
        for beat, state in zip(beats, states, strict=True)
    ]
    for order in itertools.permutations(seen):
        report = Report("fra")
        RegionBridges(beating.folder, "fra", ["/bin/false"], {})._retire(list(order), report)
        assert report.did == [f"told process {started[1 - stays]} to end: another bridge does its work"]


def test_a_bridge_that_was_started_here_ends_for_a_supervised_one_only_if_that_consumes_and_has_run_for_a_while(
    beating: Beating, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating.start()
    kept = beating.start("kept", "deaf")  # so that it lives on
    for state, settled_seconds, ends in (("starting", -60.0, 0), ("consuming", 3600.0, 0), ("consuming", -60.0, 1)):
        monkeypatch.setattr(ensure, "SETTLED_SECONDS", settled_seconds)
        beats = [msgspec.structs.replace(beat, state="consuming" if beat.kept else state) for beat in beating.beats()]
        report = Report("fra")
        beating.bridges()._retire([Seen(beating.folder, beat) for beat in beats], report)
        assert report.did == [f"told process {kept.pid} to end: another bridge does its work"] * ends


def test_what_does_not_drain_is_killed_also_if_another_one_does(beating: Beating) -> None:
    dead, deaf = beating.start("kept"), beating.start("kept", "deaf")
    bridges, report = beating.bridges(), Report("fra")
    seen = sorted(bridges._look(), key=lambda one: one.process.pid == deaf.pid)
    dead.kill()
    dead.wait()
    with bridges._alone(report, 0.0):
        bridges._drain(seen, report, 0.0)
    assert deaf.wait(60) == -signal.SIGKILL
    assert [str(pid) in text for pid, text in zip((dead.pid, deaf.pid), report.did, strict=True)] == [True, True]


# A command ends before the bridge that it started; a test does not.
outlived = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@outlived
def test_a_supervised_and_a_kept_bridge_are_replaced_by_one(beating: Beating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensure, "SUPERVISOR_SECONDS", 0.0)
    beating.start()
    beating.start("kept")
    report = beating.bridges().restart(60.0)
    assert [text.split()[0] for text in report.did] == ["process", "started", "process"], report.did
    assert [beat.pid for beat in beating.beats() if beat.alive] == [report.pid]


def test_where_a_supervised_bridge_gets_no_successor_the_others_stay(
    beating: Beating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensure, "SUPERVISOR_SECONDS", 0.0)
    beating.start()
    beating.start()
    assert not beating.bridges("/bin/false").restart(60.0).ok
    assert sum(beat.alive for beat in beating.beats()) == 1


@outlived
def test_a_bridge_has_a_session_of_its_own_and_what_is_alive_is_told(
    beating: Beating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It outlives the terminal and the cron job that it was started from."""
    monkeypatch.setattr(ensure, "SUPERVISOR_SECONDS", 0.0)
    failed = beating.bridges("/bin/false").ensure(), beating.bridges("/bin/false").restart(0.0)
    assert [(one.ok, one.pid) for one in failed] == [(False, 0), (False, 0)]
    started = beating.bridges().restart(0.0)
    (beat,) = beating.beats()
    assert started.pid == beat.pid == os.getsid(beat.pid)
    again = beating.bridges("/bin/false").ensure()
    assert (again.ok, again.did, again.pid) == (True, [], beat.pid)


@outlived
def test_another_users_bridge_is_neither_waited_for_nor_said_to_have_ended(
    beating: Beating, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = beating.start("kept").pid
    monkeypatch.setattr(Process, "signal", refuse)
    report = beating.bridges().restart(0.0)
    assert report.did[1:] == [f"process {old} can't be signalled: it is another user's"]
    monkeypatch.undo()
    assert old in [beat.pid for beat in beating.beats()]


def refuse(_process: Process, _number: int) -> None:
    raise PermissionError


def test_what_removed_its_heartbeat_after_the_look_was_dead(beating: Beating, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = beating.start("kept")
    (beat,) = beating.beats()
    dead.kill()
    dead.wait()
    bridges, seen = beating.bridges(), Seen(beating.folder / "gone", beat)
    monkeypatch.setattr(bridges, "_look", lambda: [seen])
    assert bridges._clear(Report("fra")) == ([seen], [])


def test_a_command_leaves_no_beat_in_the_lock_that_it_gives_back(tmp_path: Path) -> None:
    """It may live on for long, and the next holder's first beat comes a moment after the lock."""
    lock = tmp_path / "fra.lock"
    with RegionBridges(tmp_path, "fra", ["/bin/false"], {})._alone(Report("fra"), 0.0):
        assert heartbeat.read(lock) is not None
    assert heartbeat.read(lock) is None
    with RegionBridges(tmp_path, "fra", ["/bin/false"], {})._alone(Report("fra"), 0.0) as mine:
        assert mine


def test_a_command_beats_while_it_waits(tmp_path: Path) -> None:
    """Another one would take it for hung, and end it."""
    bridges, lock = RegionBridges(tmp_path, "fra", ["/bin/false"], {}), tmp_path / "fra.lock"

    def at() -> float:
        beat = heartbeat.read(lock)
        return 0.0 if beat is None else beat.at_seconds

    with bridges._alone(Report("fra"), 0.0):
        first = at()
        assert bridges._wait(lambda: at() > first, 10.0)


def test_beside_another_command_a_restart_fails_and_ensure_has_nothing_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensure, "LOCK_SECONDS", 0.0)
    one, other = (RegionBridges(tmp_path, "fra", ["/bin/false"], {}) for _ in range(2))
    with one._alone(Report("fra"), 0.0):
        restarted, ensured = other.restart(0.0), other.ensure()
    assert (restarted.ok, restarted.did) == (False, ["another command is at work here"])
    assert (ensured.ok, ensured.did) == (True, [])


def test_a_hung_command_of_another_user_keeps_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me, report = Process.own(), Report("fra")
    with (tmp_path / "fra.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(msgspec.json.encode(heartbeat.Beat(me.pid, me.started, heartbeat.boot(), -1e6)))
        lock.flush()
        monkeypatch.setattr(Process, "signal", refuse)
        with RegionBridges(tmp_path, "fra", ["/bin/false"], {})._alone(report, 0.0) as mine:
            assert not mine
    assert not report.ok


def test_only_the_owner_may_open_what_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "beats"
    with RegionBridges(folder, "fra", ["/bin/false"], {})._alone(Report("fra"), 0.0) as mine:
        assert mine
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "fra.lock").stat().st_mode & 0o777 == 0o600


def test_steps_and_faults_are_said_at_once() -> None:
    said: list[tuple[str, bool]] = []
    report = Report("fra", lambda text, is_fault: said.append((text, is_fault)))
    report.note("a step")
    assert report.ok
    report.fail("a fault")
    assert not report.ok
    assert said == [("a step", False), ("a fault", True)]
    assert report.did == ["a step", "a fault"]
