"""What promises are tested with: real servers, real pools of worker processes, and one whole stack with links to hurt."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import msgspec
import pytest

from regions.settings import ROOT, Settings
from scripts.chaos.points import links
from scripts.chaos.stack import ChaosStack
from tests.forked import Forked
from tests.promises.driving import GRACE_SECONDS, TAKEOVER_WELL_SECONDS, well
from tests.service.conftest import hub_redis, kept_redis, region_redis, start_redis, workers
from tests.service.jobs.fetch.conftest import origin
from tests.supervisord import ForkingSupervisor

__all__ = ["hub_redis", "kept_redis", "origin", "pool", "region_redis", "start_redis", "workers"]

# A pool as `nearfetch workers` runs one, with the test's own program in its workers. Who is paused is not killed for it.
PROGRAM = """
import sys, msgspec
from jobs.pool import child, examiner, processes as pool
from jobs.worker import fork_server
from regions import logs
from regions.settings import Settings
from tests import forked
forked.forks(child, fork_server, examiner)
logs.configure("json")
child.SILENT_SECONDS = float(sys.argv[1])
settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
sys.exit(pool.run(settings, "fra", (sys.executable, "-m", *sys.argv[2:])))
"""


@pytest.fixture
def pool() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a pool of region fra whose workers are a module of the tests."""
    started: list[subprocess.Popen] = []

    def start(settings: Settings, module: str, silent_seconds: float = 10.0, **variables: str) -> subprocess.Popen:
        process = Forked(
            ["-c", PROGRAM, str(silent_seconds), module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **variables},
        )
        started.append(process)
        process.stdin.write(msgspec.json.encode(settings))
        process.stdin.close()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="package")
def shared_stack() -> Iterator[ChaosStack]:
    environ = {
        "NEARFETCH__LIMITS__GRACE_SECONDS": str(GRACE_SECONDS),
        "NEARFETCH__GATEWAY__TAKEOVER_WELL_SECONDS": str(TAKEOVER_WELL_SECONDS),
        # One region with two worker processes is enough: each that starts takes half a second of CPU.
        **{f"NEARFETCH__REGION__{region}__SCALE__MIN": "1" for region in ("NYC", "SIN")},
    }
    made = ChaosStack(environ)
    made.supervisor = ForkingSupervisor(made.data)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def stack(shared_stack: ChaosStack) -> Iterator[ChaosStack]:
    """The stack, well; afterwards every link passes again and everything is up, or the test is at fault."""
    yield shared_stack
    for link in links(shared_stack.regions):
        shared_stack.control.heal(link.name)
    well(shared_stack)
