"""Cron: killed, stopped and overlapping bridges, ``ensure`` each minute by the real daemon.

All faults at once, a region each, under traffic whose ids are compared in the end:

    killed    kill -9
    stopped   SIGSTOP
    zombie    SIGSTOP, its place taken, SIGCONT
    locked    kill -9, and a command that hangs with the region's lock
    watched   a real supervisord runs its bridge: kill -9 just before cron's minute, then SIGSTOP
"""

import getpass
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from bridge import heartbeat
from regions.process import Process
from regions.settings import ROOT
from scripts.stack.data_folder import DataFolder
from scripts.stack.parts import Part, python
from scripts.stack.probes import always
from scripts.stack.services import Guard
from scripts.stack.supervision import Supervisor
from tests.promises.daemon import Daemon
from tests.service.bridges_host import Host, Traffic
from tests.service.conftest import rabbitmq
from tests.waiting import until

__all__ = ["rabbitmq"]

ALONE = ("killed", "stopped", "zombie", "locked")
WATCHED = "watched"
BACK_SECONDS = 150.0  # promised are 90, on a machine that has nothing else to do
SUPERVISED_SECONDS = 30.0  # promised are 5, on a machine that has nothing else to do; cron comes after a minute
OVERLAPPING = 2


@pytest.fixture
def host(tmp_path, hub_redis, region_redis, rabbitmq):
    made = Host(tmp_path, hub_redis, region_redis, rabbitmq, *ALONE, WATCHED)
    yield made
    made.close()


@pytest.fixture
def supervisor(host, tmp_path):
    """Runs the bridge of ``watched`` as ``scripts/up`` does."""
    data = DataFolder(tmp_path / "data")
    data.open()
    made = Supervisor(data)
    guard = Guard(["/bin/sh", "-c", f'"{ROOT}/scripts/up" --stop --data "{data.path}"'])
    bridge = Part("bridge-watched", "regions", python("scripts.cli", "bridge", WATCHED), host.environment, always)
    made.start([bridge], ends_with_us=True)
    made.start_part(bridge)
    yield made
    made.stop()
    guard.dismiss()


@pytest.fixture
def said(tmp_path):
    """What the commands of the daemon said, and how they ended."""
    return tmp_path / "said"


@pytest.fixture
def crontab(host, said, tmp_path):
    """The shipped crontab with this test's paths and user, ``ensure`` several times a minute at once."""
    command = tmp_path / "nearfetch"
    command.write_text(
        f'#!/bin/sh\necho "run $*" >>"{said}"\nPYTHONPATH="{ROOT}" "{sys.executable}" -P -m scripts.cli "$@" >>"{said}" 2>&1\n'
        f'echo "ended $?" >>"{said}"\n'
    )
    command.chmod(0o755)
    lines = []
    for line in (ROOT / "scripts" / "cron" / "nearfetch.crontab").read_text().splitlines():
        changed = line.replace("/opt/nearfetch/scripts/nearfetch", str(command))
        changed = changed.replace("/etc/nearfetch/nearfetch.toml", str(host.config))
        changed = changed.replace("  nearfetch  ", f"  {getpass.getuser()}  ")
        lines += [changed] * (OVERLAPPING if line.endswith("bridges ensure") else 1)
    file = tmp_path / "crontab"
    file.write_text("\n".join([*lines, ""]))
    return file


@pytest.mark.timeout(600)
def test_bridges_are_back_by_cron_and_no_task_is_lost_or_doubled(host, supervisor, crontab, said, capsys):
    """In the daemon's first minute it starts them, then come the faults, and in its next one it makes them good."""
    until(lambda: host.pids(WATCHED), "the supervised bridge")
    daemon = Daemon(crontab)
    try:
        with Traffic(host, *ALONE, WATCHED, pause_seconds=0.1) as traffic:
            host.consuming(WATCHED)
            until(
                lambda: time.time() % 60 > 59.5, "the moment before cron's minute", 190
            )  # a busy machine may miss one
            restarted_seconds = killed_beside_its_supervisor(supervisor)
            before = {region: host.consuming(region, BACK_SECONDS) for region in (*ALONE, WATCHED)}
            for region in before:
                traffic.flows(region)
            began = time.monotonic()
            zombie, hung = hurt(host, before)
            back = {region: another(host, region, pid) - began for region, pid in before.items()}
            zombie.signal(signal.SIGCONT)
            until(lambda: not zombie.alive, "the resumed bridge to end by itself")
            hung.communicate(timeout=60)
            assert hung.returncode == -signal.SIGKILL
            for region in before:
                traffic.flows(region)
        assert {region: [beat.kept for _, beat in host.seen(region)] for region in before} == {
            **{region: [True] for region in ALONE},
            WATCHED: [False],
        }
    finally:
        daemon.stop()
    count = traffic.check()
    assert max(back.values()) <= BACK_SECONDS
    assert restarted_seconds <= SUPERVISED_SECONDS
    each_was_started_once_a_fault(said.read_text().splitlines())
    with capsys.disabled():
        seconds = ", ".join(f"{region} {one:.0f} s" for region, one in back.items())
        print(
            f"\n  cron {daemon.how}; {count} tasks; back after: {seconds}; by its supervisor {restarted_seconds:.1f} s"
        )


def killed_beside_its_supervisor(supervisor) -> float:
    """Kills the supervised bridge; seconds until its supervisor has started the next."""
    first = supervisor.states()["bridge-watched"].pid
    os.kill(first, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: supervisor.states()["bridge-watched"].pid not in (0, first), "the supervisor to start another one")
    return time.monotonic() - began


def hurt(host, pids) -> tuple[Process, subprocess.Popen]:
    """Every fault at once; the bridge that will be resumed, and the command that hangs."""
    for region in ("killed", "locked"):
        os.kill(pids[region], signal.SIGKILL)
    for region in ("stopped", WATCHED):
        host.pause(pids[region])
    zombie = host.pause(pids["zombie"])
    for region in ("zombie", "locked"):
        host.one(region)[0].unlink()  # as an ensure does that is killed before it goes on
    hung = host.start("ensure", "locked")  # it waits for a supervisor first
    until(lambda: heartbeat.read(host.folder / "locked.lock"), "the command to hold the lock")
    host.pause(hung.pid)
    return zombie, hung


def another(host, region, before) -> float:
    """When another bridge than before consumes."""
    until(
        lambda: [
            beat for _, beat in host.seen(region) if beat.alive and beat.pid != before and beat.state == "consuming"
        ],
        f"another bridge of {region}",
        BACK_SECONDS,
    )
    return time.monotonic()


def each_was_started_once_a_fault(lines) -> None:
    """However many commands ran at a time: twice in all. They ended well, and said nothing else."""
    runs = [line for line in lines if line == "run bridges ensure"]
    assert len(runs) >= 2 * OVERLAPPING
    assert {line for line in lines if line.startswith("ended ")} == {"ended 0"}
    did = [line for line in lines if not line.startswith(("run ", "ended "))]
    starts = [line.partition(":")[0] for line in did if "started process" in line]
    assert sorted(starts) == sorted([*ALONE, *ALONE])
    others = [line for line in did if "started process" not in line]
    assert all(
        re.search(r"^\w+: ended process \d+, (whose loop stood still|a command that hung) for", line) for line in others
    ), others
    assert {line.partition(":")[0] for line in others} == {"stopped", "locked", WATCHED}
