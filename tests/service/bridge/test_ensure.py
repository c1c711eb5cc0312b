"""``nearfetch bridges ensure`` and ``restart`` with real bridges and traffic; promises/test_cron has the cron daemon."""

import fcntl
import json
import os
import re
import signal
import subprocess
import threading

import msgspec
import pytest

from bridge import ensure, heartbeat
from bridge.ensure import RegionBridges
from regions import settings as settings_module
from regions.process import Process
from scripts.stack.ports import free_port
from tests import forked
from tests.forked import COMMAND, Forked
from tests.service.bridges_host import AT_ONCE, IN_A_WHILE, Host, Traffic, age
from tests.service.bridging import InThread, settings_of
from tests.waiting import until


@pytest.fixture
def region(request) -> str:
    return f"k{abs(hash(request.node.name)) % 10**9}"  # the broker is shared


@pytest.fixture
def host(tmp_path, hub_redis, region_redis, rabbitmq, region):
    made = Host(tmp_path, hub_redis, region_redis, rabbitmq, region)
    yield made
    made.close()


@pytest.fixture
def other(host, region):
    """A bridge under another supervisor."""
    process = Forked(
        ["-m", "scripts.cli", "bridge", region], imported=COMMAND, env=host.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: host.pids(region) == [process.pid], "the other's first beat")
    yield process
    process.kill()
    process.wait()


def test_ensure_starts_a_bridge_where_none_lives_and_is_silent_afterwards(host, region):
    with Traffic(host, region) as traffic:
        said = host.run("ensure", region, patch=AT_ONCE)
        pid = host.consuming(region)
        assert said == f"{region}: started process {pid}\n"
        assert [host.run("ensure"), host.pids(region)] == ["", [pid]]
        traffic.flows(region)
    assert traffic.check() > 0


def test_a_killed_bridge_is_replaced_and_loses_nothing(host, region):
    first = host.begin(region)
    with Traffic(host, region) as traffic:
        traffic.flows(region)
        os.kill(first, signal.SIGKILL)
        answer = json.loads(host.run("ensure", "--json", patch="ensure.SUPERVISOR_SECONDS = 600.0"))["regions"]
        second = host.consuming(region)
        traffic.flows(region)
    did = [f"process {first} had died, started process {second}"]
    assert answer == [{"region": region, "ok": True, "pid": second, "did": did}]
    assert len(host.seen(region)) == 1  # nothing of the dead one is left
    traffic.check()


def test_a_bridge_whose_loop_stands_still_is_ended_and_replaced(host, region):
    first = host.begin(region)
    with Traffic(host, region) as traffic:
        traffic.flows(region)
        file, beat = host.one(region)
        host.pause(first)
        age(file)
        said = host.run("ensure")
        second = host.consuming(region)
        traffic.flows(region)
    assert f"ended process {first}, whose loop stood still for" in said
    assert f"started process {second}" in said
    assert not beat.alive
    traffic.check()


def test_the_beat_is_the_loops_own_and_not_a_threads(hub_redis, region_redis, rabbitmq, region, tmp_path):
    """With the loop blocked, the bridge's threads go on and its beat stops."""
    config = settings_of(hub_redis, region_redis, rabbitmq, region)
    config = msgspec.structs.replace(config, bridges=settings_module.Bridges(path=str(tmp_path)))
    bridge = InThread(config, region)
    release = threading.Event()
    try:
        (file,) = until(lambda: heartbeat.files(tmp_path, region), "the file")
        first = heartbeat.read(file)
        until(lambda: heartbeat.read(file).at_seconds > first.at_seconds, "the next beat")
        held, looks = threading.Event(), []
        look = bridge.bridge._watch.run_once
        bridge.bridge._watch.run_once = lambda: looks.append(1) or look()
        bridge.bridge._ioloop.add_callback_threadsafe(lambda: (held.set(), release.wait(60)))
        assert held.wait(60)
        at, seen = heartbeat.read(file).at_seconds, len(looks)
        until(lambda: len(looks) >= seen + 6, "three seconds of the watch's looks")
        assert heartbeat.read(file).at_seconds == at
        release.set()
        until(lambda: heartbeat.read(file).at_seconds > at, "the loop's next beat")
    finally:
        release.set()
        bridge.stop()
    assert heartbeat.files(tmp_path) == []


def test_a_bridge_that_goes_on_after_another_took_its_place_ends_itself(host, region):
    """As after an ensure that could not kill it, or was itself killed just before."""
    first = host.begin(region)
    zombie = Process.of(first)
    with Traffic(host, region) as traffic:
        traffic.flows(region)
        host.pause(first)
        host.one(region)[0].unlink()
        host.run("ensure", patch=AT_ONCE)
        second = host.consuming(region)
        assert zombie.alive
        os.kill(first, signal.SIGCONT)
        until(lambda: not zombie.alive, "the old one to end by itself")
        traffic.flows(region)
    assert host.pids(region) == [second]
    events = [line["event"] for line in host.log(region)]
    assert "its heartbeat file was removed: another bridge has taken over" in events
    traffic.check()


def test_overlapping_runs_start_one_bridge(host, region):
    runs = [host.start("ensure", patch=AT_ONCE) for _ in range(5)]
    said = [run.communicate(timeout=100) for run in runs]
    assert [run.returncode for run in runs] == [0] * 5
    pid = host.consuming(region)
    assert sorted(out for out, _ in said) == [""] * 4 + [f"{region}: started process {pid}\n"]


@pytest.mark.parametrize("left", ["", "12345\n", "of a command that was killed"])
def test_a_lock_that_nobody_holds_stops_nobody(host, region, left):
    """Also the lock of a command that was killed."""
    lock = host.folder / f"{region}.lock"
    if left.startswith("of"):
        killed = host.start("ensure", patch=IN_A_WHILE)
        until(lambda: heartbeat.read(lock), "the command to hold the lock")
        killed.kill()
        killed.communicate()
    else:
        lock.write_text(left)
    assert "started process" in host.run("ensure", patch=AT_ONCE)


def test_a_command_that_hangs_with_the_lock_is_ended(host, region):
    lock = host.folder / f"{region}.lock"
    hung = host.start("ensure", patch=IN_A_WHILE)
    until(lambda: heartbeat.read(lock), "the command to hold the lock")
    host.pause(hung.pid)
    assert host.run("ensure") == ""  # it may only be slow
    age(lock)
    said = host.run("ensure", patch=f"{AT_ONCE}; ensure.KILL_SECONDS = 600.0")
    hung.communicate(timeout=60)
    assert hung.returncode == -signal.SIGKILL
    assert f"ended process {hung.pid}, a command that hung for" in said
    assert f"started process {host.consuming(region)}" in said


def test_the_lock_is_free_while_the_started_bridge_lives(host, region):
    host.begin(region, forks=False)
    with (host.folder / f"{region}.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("boot", [heartbeat.boot(), "of another boot"])
def test_a_process_that_has_a_dead_bridges_pid_is_let_alone(host, region, boot):
    bystander = subprocess.Popen(["/bin/sleep", "600"])
    try:
        real = Process.of(bystander.pid)
        started = real.started if boot != heartbeat.boot() else real.started - 1
        beat = heartbeat.Beat(real.pid, started, boot, 0.0, kept=True)
        (host.folder / f"{region}.{real.pid}-{started}.beat").write_bytes(msgspec.json.encode(beat))
        said = host.run("ensure")
        assert real.alive
        assert said == f"{region}: process {real.pid} had died, started process {host.consuming(region)}\n"
    finally:
        bystander.kill()
        bystander.wait()


def test_a_bridge_of_a_supervisor_is_seen_and_none_is_put_beside_it(host, region, other):
    assert host.run("ensure") == ""
    assert host.pids(region) == [other.pid]


def test_a_supervisor_has_time_to_start_its_bridge_again(host, region, other):
    """``ensure`` runs while no bridge is alive; the supervisor starts the next one within five seconds."""
    other.kill()
    other.wait()
    ensuring = host.start("ensure", patch=IN_A_WHILE)
    until(lambda: heartbeat.read(host.folder / f"{region}.lock"), "the command to look")
    again = Forked(
        ["-m", "scripts.cli", "bridge", region], imported=COMMAND, env=host.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        out, err = ensuring.communicate(timeout=100)
        assert (ensuring.returncode, out, err) == (0, "", "")
        assert host.pids(region) == [again.pid]
    finally:
        again.kill()
        again.wait()


def test_a_bridge_too_many_is_told_to_end(host, region):
    """A restart was killed between the new one's start and the old one's end."""
    first = host.begin(region)
    one, environment = host.folder / region, host.environment
    command = ["-m", "scripts.cli", "bridge", "--kept", region]
    nowhere = subprocess.DEVNULL
    second = Forked(command, imported=COMMAND, env=environment, stdout=nowhere, stderr=nowhere)
    try:
        until(lambda: [beat.state for _, beat in host.seen(region)] == ["consuming"] * 2, f"both of {one}")
        assert host.run("ensure") == f"{region}: told process {first} to end: another bridge does its work\n"
        until(lambda: host.pids(region) == [second.pid], "the first one's end")
        assert host.run("ensure") == ""
    finally:
        second.kill()
        second.wait()


def test_a_restart_under_traffic_loses_and_doubles_nothing(host, region):
    first = host.begin(region)
    with Traffic(host, region, pause_seconds=0.01) as traffic:
        traffic.flows(region)
        pids = [first]
        for _ in range(2):
            lines = host.run("restart", region, "--jitter", "0.1").splitlines()
            pids.append(host.consuming(region))
            steps = [re.fullmatch(rf"{region}: (.+?)(?: [0-9.]+ s)?", line)[1] for line in lines]
            assert steps == [
                f"started process {pids[-1]}",
                f"process {pids[-1]} consumes after",
                f"process {pids[-2]} drained and ended in",
            ]
        traffic.flows(region)
    assert len(set(pids)) == 3
    print(f"{traffic.check()} tasks over two restarts")


def test_a_restart_leaves_the_old_bridge_where_the_new_one_does_not_consume(host, region):
    first = host.begin(region)
    nowhere = {"NEARFETCH__HUB__AMQP": f"amqp://127.0.0.1:{free_port()}/"}
    said = host.run("restart", code=1, patch="ensure.READY_SECONDS = 2.0", **nowhere)
    assert "does not consume after 2 s" in said
    assert host.consuming(region) == first


def test_a_bridge_that_does_not_drain_in_time_is_killed_and_its_tasks_come_again(host, region):
    first = host.begin(region)
    with Traffic(host, region) as traffic:
        traffic.flows(region)
        paused = host.pause(first)  # it hears nothing; what is published now is delivered to it
        said = host.run("restart", "--drain", "0.5")
        host.consuming(region)
        traffic.flows(region)
    assert f"process {first} had not drained after 0.5 s and was killed" in said
    assert not paused.alive
    traffic.check()


def test_a_supervised_bridge_is_told_to_end_and_replaced_where_nobody_does(host, region, other):
    host.consuming(region)
    said = host.run("restart", patch=AT_ONCE)
    assert f"process {other.pid} drained and ended" in said
    assert f"started process {host.consuming(region)}" in said
    assert other.wait(60) == 0


def test_a_bridge_that_ends_at_once_is_said_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(ensure, "SUPERVISOR_SECONDS", 0.0)
    one = RegionBridges(tmp_path, "fra", ["/bin/sh", "-c", "echo no luck; exit 3"], os.environ)
    report = one.ensure()
    assert not report.ok
    assert report.pid == 0
    assert report.did == [f"a new bridge ended at once with code 3   Log: {tmp_path}/fra.log\n    no luck"]


def test_a_bridge_that_gives_no_sign_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(ensure, "START_SECONDS", 0.2)
    monkeypatch.setattr(ensure, "SUPERVISOR_SECONDS", 0.0)
    report = RegionBridges(tmp_path, "fra", ["/bin/sleep", "600"], os.environ).ensure()
    assert not report.ok
    (said,) = report.did
    pid = int(said.split("process ")[1].split(",")[0])
    assert said.endswith(f"did not beat within 0.2 s   Log: {tmp_path}/fra.log")
    assert Process.of(pid) is None


def test_another_users_bridge_that_hangs_is_said_and_ends_itself_when_it_goes_on(host, region, monkeypatch):
    """Its heartbeat is removed although it can't be killed, and another bridge is started."""
    first = host.begin(region)
    host.pause(first)
    age(host.one(region)[0])
    refuse = "import os; from regions.process import Process\ndef no(*_): raise PermissionError\nProcess.signal = no"
    said = host.run("ensure", code=1, patch=refuse)
    assert f"process {first} can't be signalled: it is another user's" in said
    assert f"started process {host.consuming(region) if len(host.pids(region)) == 1 else 0}" in said
    zombie = Process.of(first)
    os.kill(first, signal.SIGCONT)
    until(lambda: not zombie.alive, "the old one to end by itself")


def test_a_long_log_is_put_aside_when_a_bridge_is_started(host, region):
    log = host.folder / f"{region}.log"
    log.write_bytes(b"x" * (ensure.LOG_BYTES_MAX + 1))
    host.run("ensure", patch=AT_ONCE)
    assert log.with_name(f"{log.name}.1").stat().st_size == ensure.LOG_BYTES_MAX + 1
    assert log.stat().st_size < 100_000


def test_wrong_settings_are_refused_and_start_nothing(host, region):
    assert "bridges.path: expected a folder" in host.run("ensure", code=2, NEARFETCH__BRIDGES__PATH="")
    assert "expected a known region" in host.run("ensure", "nowhere", code=2)
    said = host.run("ensure", code=1, NEARFETCH__BRIDGES__PATH=str(host.config))
    assert f"{region}: the folder of bridges.path can't be used: " in said
    assert host.seen() == []


def test_a_bridge_whose_heartbeat_can_not_be_written_does_not_start(host, region):
    """Nobody would see that it is alive, and every minute another bridge would be started."""
    environment = {**host.environment, "NEARFETCH__BRIDGES__PATH": str(host.config)}
    done = forked.run(["-m", "scripts.cli", "bridge", region], imported=COMMAND, text=True, env=environment, timeout=60)
    assert done.returncode == 2
    assert "bridges.path: expected a folder that can be written to" in done.stderr


def test_nothing_is_started_for_an_up_that_does_not_run(host, region, tmp_path):
    assert host.run("ensure", "--data", str(tmp_path)) == ""
    assert host.run("restart", "--data", str(tmp_path)) == ""
    assert host.seen() == []
