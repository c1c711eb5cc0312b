"""A disk that is full under a real Redis: what it can't write it refuses, and everybody says so until there is room.

The disk is full by the kernel's limit of a file's size, which is taken back as an operator makes room.
"""

import resource
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from jobs.contract import Outcome
from jobs.queue.home import Home, Shipment, open_hub
from regions import connect, names
from scripts.stack.services import Running, free_port, redis_server
from tests.service.bridging import Broker, bridging, last_status, settings_of, task
from tests.service.gateway import LIST, Stack
from tests.service.working import REGION, enqueue, out_entries, post, results, settings_for, worker_process
from tests.service.working import task as job
from tests.waiting import until
from tests.wire import ask

NO_SIGNAL = "trap '' XFSZ; exec \"$@\""  # a write past the limit fails, as on a full disk, and kills nobody


class Disk:
    """A Redis on a disk of its own: ``fill`` it, ``clear`` it."""

    def __init__(self, folder, **options) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        service = redis_server("redis", folder, self.port, **options)
        self.running = Running(replace(service, command=["/bin/sh", "-c", NO_SIGNAL, "sh", *service.command])).start()
        self.client = connect.open_redis(self.url, name="test", block_seconds=30.0)
        self._folder = folder / "appendonlydir"

    def fill(self) -> None:
        """No file can grow any more. The next write notices it."""
        size = max(file.stat().st_size for file in self._folder.iterdir())
        self._limit(size)
        until(self._is_full, "a write to be refused")

    def clear(self) -> None:
        self._limit(resource.RLIM_INFINITY)
        until(lambda: not self._is_full(), "writes to be taken again")

    def stop(self) -> None:
        self.client.close()
        self.running.stop()

    def _is_full(self) -> bool:
        try:
            self.client.set("test:filler", b"x" * 100)
        except redis.exceptions.ResponseError as error:
            return "MISCONF" in str(error)
        return False

    def _limit(self, size: int) -> None:
        resource.prlimit(self.running.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    one = Disk(tmp_path / "disk")
    yield one
    one.stop()


def test_a_hub_that_can_not_write_is_a_503_that_says_so_and_what_was_accepted_ends_later(disk, rabbitmq, tmp_path):
    stack = Stack(tmp_path, rabbitmq, disk)
    try:
        accepted = stack.post({"sources": [LIST]}).json()
        got = stack.region.take("fra")
        disk.fill()
        for _ in range(3):
            refused = stack.post({"sources": [LIST]})
            assert refused.status == 503
            assert "MISCONF" in refused.json()["detail"] or "append-only file" in refused.json()["detail"]
        until(lambda: "can't write its append-only file" in not_ready(stack), "the gateway to say so")
        assert ask(stack.port, "GET", f"/v1/requests/{accepted['id']}").json()["status"] == "running"
        assert ask(stack.port, "GET", "/v1/regions").status == 200
        assert ask(stack.port, "GET", "/healthz").status == 200
        disk.clear()
        until(lambda: ask(stack.port, "GET", "/readyz").status == 200, "the gateway to be ready")
        stack.region.finish(got)
        request = f"/v1/requests/{accepted['id']}?wait=20"
        assert ask(stack.port, "GET", request).json()["status"] == "succeeded"
        assert stack.post({"sources": [LIST]}).status == 202
        assert stack.region.take("fra").request != refused.json()["request"]
    finally:
        stack.stop()


def not_ready(stack) -> str:
    """Why the gateway is not ready, empty when it is."""
    answer = ask(stack.port, "GET", "/readyz")
    return answer.json()["detail"] if answer.status == 503 else ""


def test_a_region_that_can_not_write_is_given_nothing_and_then_everything_once(disk, hub_redis, rabbitmq):
    broker = Broker(rabbitmq, "disk")
    broker.declare()
    tasks = [task("disk", number) for number in range(10)]
    with bridging(settings_of(hub_redis, disk, rabbitmq, "disk"), "disk") as running:
        running.wait_for("consuming")
        disk.fill()
        broker.publish(*tasks)
        running.wait_for("paused", "MISCONF")
        until(lambda: "MISCONF" in last_status(hub_redis, "disk").get("reason", ""), "the hub to be told why")
        until(lambda: broker.ready() == len(tasks), "every message to be back in its queue")
        disk.clear()
        running.wait_for("consuming")
        until(lambda: disk.client.llen(names.rq_queue("disk")) == len(tasks), "every task to be a job")
        until(lambda: running.status.unacked == 0, "every message to be acked")
    assert broker.ready() == 0
    assert len(set(disk.client.lrange(names.rq_queue("disk"), 0, -1))) == len(tasks)


def test_results_wait_for_a_hub_that_can_not_write(disk):
    """They are sent again completely: a refused transaction has no effect."""
    home = Home(open_hub(disk.url, "test"), REGION, disk.client)
    shipment = Shipment(
        "1-0", Outcome(request="R", task="T", status="succeeded", finished_ms=1, expires_ms=2**41, frame=b"f"), 1
    )
    disk.fill()
    assert not post(home, [shipment])
    assert out_entries(disk.client, b"result") == []
    disk.clear()
    assert post(home, [shipment])
    assert results(disk.client) == ["T"]


def test_what_runs_while_its_redis_can_not_write_ends_once_when_it_can(disk, hub_redis, tmp_path):
    """A real worker process: the result is kept in its memory until it can be written."""
    gate = tmp_path / "gate"
    worker = worker_process(settings_for(disk.url, hub_redis.url))
    try:
        (marks := tmp_path / "marks").mkdir()
        ids = enqueue(disk.client, [job(gate=str(gate), mark=str(marks)) for _ in range(3)])
        until(lambda: len(list(marks.iterdir())) == len(ids), "the tasks to run")
        disk.fill()
        gate.touch()
        until(lambda: refused_scripts(disk) > 2, "the worker to be refused")
        assert results(hub_redis.client) == []
        disk.clear()
        until(lambda: len(results(hub_redis.client)) == len(ids), "the results")
        assert sorted(results(hub_redis.client)) == sorted(ids)
        assert len(list(marks.iterdir())) == len(ids), "a task ran twice"
        enqueue(disk.client, [job()])
        until(lambda: len(results(hub_redis.client)) == len(ids) + 1, "the next result")
    finally:
        worker.kill()
        worker.wait()


def refused_scripts(disk: Disk) -> int:
    stats = disk.client.info("errorstats")
    return sum(one["count"] for name, one in stats.items() if name.endswith("MISCONF"))
