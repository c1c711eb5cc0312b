"""A worker process whose tasks wait for each other, on real Redis."""

import os
import subprocess
import sys

import msgspec
import pytest

from regions.settings import ROOT
from tests.service.working import REGION, enqueue, is_clean, results, settings_for, task
from tests.waiting import until


@pytest.fixture
def _crowded(region_redis, hub_redis):
    """Such a process, of 16 threads."""
    settings = settings_for(region_redis.url, hub_redis.url, threads=16)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.working", REGION, "w1", "--settings", "-"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        env={**os.environ, "WORKING_CROWDED": "1"},
    )
    process.stdin.write(msgspec.json.encode(settings))
    process.stdin.close()
    yield
    process.kill()
    process.wait()


@pytest.mark.usefixtures("_crowded")
def test_a_crowded_process_finishes_several_tasks_at_once_and_loses_none(region_redis, hub_redis):
    """They end one after another; a lone one that nobody ends after is finished soon all the same."""
    client, hub = region_redis.client, hub_redis.client
    lone = enqueue(client, [task()])
    until(lambda: results(hub) == lone, "the result of a lone task")
    hub.config_resetstat()
    ids = enqueue(client, [task(seconds=0.01 * number) for number in range(16)])
    until(lambda: len(results(hub)) == 17, "all results")
    assert sorted(results(hub)) == sorted([*lone, *ids])
    until(lambda: is_clean(client), "everything to be finished")
    assert hub.info("commandstats")["cmdstat_exec"]["calls"] <= 8
