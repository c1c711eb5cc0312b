"""The heartbeat file of a bridge."""

import os
import resource
import subprocess
import sys

import pytest

from bridge import heartbeat
from bridge.heartbeat import EVERY_SECONDS, SIZE, Beat, Heartbeat, boot, files, read
from regions.faults import Faults
from regions.process import Process


@pytest.fixture
def clock(monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def beating(tmp_path, clock):
    one = Heartbeat(tmp_path / "new" / "beats", "fra", kept=True)
    yield one
    one.close()


def test_a_file_says_who_beats_since_when_and_how(beating, clock):
    me = Process.own()
    found = read(beating.file)
    assert found == Beat(me.pid, me.started, boot(), 1_000.0, kept=True, state="starting")
    assert (found.process, found.alive) == (me, True)
    clock[0] += 7.5
    assert found.age_seconds == 7.5
    assert beating.file.stat().st_size == SIZE
    assert beating.file.stat().st_mode & 0o777 == 0o600
    assert beating.file.parent.stat().st_mode & 0o777 == 0o700


def test_it_is_renewed_once_a_second_and_when_its_state_changes(beating, clock):
    for seconds, state, written in (
        (0.0, "consuming", 1_000.0),
        (0.9 * EVERY_SECONDS, "consuming", 1_000.0),
        (EVERY_SECONDS, "consuming", 1_001.0),
        (1.5 * EVERY_SECONDS, "waiting", 1_001.5),
        (2.0 * EVERY_SECONDS, "waiting", 1_001.5),
        (2.5 * EVERY_SECONDS, "waiting", 1_002.5),
    ):
        clock[0] = 1_000.0 + seconds
        assert beating.beat(state)
        assert (read(beating.file).at_seconds, read(beating.file).state) == (written, state)
        assert read(beating.file).kept


def test_who_lost_its_file_has_lost_its_place(beating, clock):
    assert beating.beat("consuming")
    beating.file.unlink()
    assert beating.beat("consuming"), "looked at once a second"
    clock[0] += EVERY_SECONDS
    assert not beating.beat("consuming")


def test_a_full_disk_is_waited_out_and_told_once(beating, clock, capfd):
    real, full = os.dup(beating._descriptor), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, beating._descriptor)
    for _ in range(3):
        clock[0] += EVERY_SECONDS
        assert beating.beat("consuming")
    os.dup2(real, beating._descriptor)
    clock[0] += EVERY_SECONDS
    assert beating.beat("consuming")
    assert read(beating.file).at_seconds == clock[0]
    os.dup2(full, beating._descriptor)
    clock[0] += EVERY_SECONDS
    assert beating.beat("consuming")
    assert capfd.readouterr().out.count("its heartbeat can't be written") == 2
    os.dup2(real, beating._descriptor)
    os.close(real)
    os.close(full)


def test_a_folder_that_can_not_be_made_is_a_fault_of_its_setting(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(Faults, match="expected a folder that can be written to") as caught:
        Heartbeat(tmp_path / "taken", "fra", kept=False)
    assert str(caught.value.faults[0]).startswith("bridges.path")


def test_a_file_that_can_not_be_written_is_not_left_behind(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(Faults, match="File too large"):
            Heartbeat(tmp_path, "fra", kept=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_who_ended_or_was_there_before_the_last_boot_is_not_alive(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    me = Process.own()
    assert Beat(me.pid, me.started, boot(), 0.0).alive
    assert not Beat(me.pid, me.started, "another boot", 0.0).alive
    assert not Beat(me.pid, me.started + 1, boot(), 0.0).alive
    assert not Beat(ended.pid, me.started, boot(), 0.0).alive


def test_what_says_nothing_yet_is_nothing(tmp_path):
    (tmp_path / "fra.1-1.beat").write_text("")
    assert read(tmp_path / "fra.1-1.beat") is read(tmp_path / "none") is None


def test_a_file_that_says_no_more_was_not_started_by_cron(tmp_path):
    (tmp_path / "fra.1-1.beat").write_text('{"pid":1,"started":1,"boot":"b","at_seconds":2.0}')
    assert (read(tmp_path / "fra.1-1.beat").kept, read(tmp_path / "fra.1-1.beat").state) == (False, "")


def test_files_are_found_by_their_region_and_gone_when_their_bridge_ends(tmp_path):
    fra, nyc = (Heartbeat(tmp_path, region, kept=False) for region in ("fra", "nyc"))
    assert files(tmp_path, "fra") == [fra.file]
    assert sorted(files(tmp_path)) == sorted([fra.file, nyc.file])
    fra.close()
    assert files(tmp_path) == [nyc.file]
    nyc.file.unlink()
    nyc.close()
    for one in (fra, nyc):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(one._descriptor)
