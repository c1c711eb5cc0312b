"""A worker process registers in its region, also when the reply is lost."""

import sys

import pytest

from jobs.worker.worker import REGISTER
from regions import names
from scripts.stack.ports import free_port
from scripts.stack.probes import listens
from scripts.stack.services import Running, Service
from scripts.stack.wan_links import Control
from tests.service.working import enqueue, results, task
from tests.waiting import until


@pytest.fixture
def between(region_redis, tmp_path):
    """A link to the region's Redis that can drop a reply, and its URL."""
    port, control = free_port(), free_port()
    words = [sys.executable, "-m", "scripts.stack.wan", "--control", str(control), f"region={port}:{region_redis.port}"]
    running = Running(Service("proxy", words, tmp_path / "proxy.log", listens(control))).start()
    made = Control(control)
    yield made, f"redis://127.0.0.1:{port}/0"
    made.close()
    running.stop()


def test_a_worker_whose_registration_was_not_answered_registers_again(between, start, region_redis, hub_redis):
    """Two registrations, the second after RQ's record was lost: both took effect, and no reply arrived."""
    client, hub = region_redis.client, hub_redis.client
    link, url = between
    link.swallow("region", REGISTER.sha.encode(), cut_seconds=0.7)
    process = start(url=url)
    until(lambda: client.hget(names.rq_worker("w1"), "state") == b"idle", "a worker that claims")
    assert link.counts("region").swallowed == 1
    link.swallow("region", REGISTER.sha.encode(), cut_seconds=0.7)
    client.delete(names.rq_worker("w1"))
    until(lambda: link.counts("region").swallowed == 2, "its second registration")
    ids = enqueue(client, [task()])
    until(lambda: results(hub) == ids, "the result")
    assert process.poll() is None


def test_a_name_that_another_process_has_is_refused(start, region_redis):
    client = region_redis.client
    start()
    until(lambda: client.hget(names.rq_worker("w1"), "state") == b"idle", "a worker that claims")
    other = start()
    assert other.wait(60) != 0
    assert client.hget(names.rq_worker("w1"), "state") == b"idle"
