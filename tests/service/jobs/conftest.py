"""Worker processes with the tests' runner."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from regions import names
from tests.service.working import settings_for, worker_process
from tests.waiting import until


@pytest.fixture
def start(region_redis, hub_redis) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts worker processes by name, on the region's Redis or the way to it; waits for one that has to claim."""
    started: list[subprocess.Popen] = []

    def begin(name: str = "w1", *, url: str = region_redis.url, claims: bool = False, **changes) -> subprocess.Popen:
        started.append(worker_process(settings_for(url, hub_redis.url, **changes), name))
        if claims:
            until(lambda: region_redis.client.hget(names.rq_worker(name), "state") == b"idle", f"{name} to claim")
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
