"""A worker process and its parent: beat, command line, name."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jobs.worker.worker import Worker
from regions.settings import ROOT, Settings
from tests.service.working import REGION, ObedientRunner, settings_for


@pytest.fixture
def settings(region_redis, hub_redis) -> Settings:
    return settings_for(region_redis.url, hub_redis.url)


def test_a_worker_beats_and_ends_when_its_pool_is_gone(settings):
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.working", REGION, "w1", "--settings", "-", "--beat", str(theirs)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        pass_fds=[theirs],
    )
    os.close(theirs)
    process.stdin.write(msgspec.json.encode(settings))
    process.stdin.close()
    assert os.read(ours, 1) == b"."
    assert b"redis://" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    os.close(ours)
    assert process.wait(60) == 0


def test_the_beat_goes_on_while_the_regions_redis_is_away(settings, region_redis):
    region_redis.running.kill()
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    worker = Worker(settings, settings.one(REGION), "w1", ObedientRunner(), beat=theirs)
    for _ in range(3):
        worker.run_once()
        assert os.read(ours, 10) == b"."


def test_a_second_worker_of_a_live_ones_name_is_refused(settings):
    first, second = (Worker(settings, settings.one(REGION), "w1", ObedientRunner()) for _ in range(2))
    first.run_once()
    with pytest.raises(ValueError, match="active worker named w1"):
        second.run_once()
    first.register_death()
    second.run_once()
    for worker in (first, second):
        worker.unsubscribe()
