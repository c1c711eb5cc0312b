"""How many examples hypothesis tries: few in the suite, many with ``--hypothesis-profile=long``; and which tests run together."""

import contextlib
import gc
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import pytest
from execnet import gateway_base, gateway_io
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import broker, forked

if TYPE_CHECKING:  # few tests need it, and it takes a while to import
    from tests.browser import Browser

# The files, by their path below tests, that share a process, since their tests share a stack or hurt the same broker.
SHARED = {
    **dict.fromkeys(("promises/test_ambiguous_success", "promises/test_half_open", "promises/test_hub_slow_disk"), "second stack"),
    **dict.fromkeys((
        "promises/test_takeover", "promises/test_gateway_crash", "promises/test_central_redis_away", "promises/test_hostile_client",
        "promises/test_waiters",
    ), "third stack"),
    **dict.fromkeys(("stack/test_definitions", "stack/test_moves"), "changed stack"),
    **dict.fromkeys(("stack/test_answers", "stack/test_health", "stack/test_metrics", "stack/test_outages", "stack/test_where"), "forked stack"),
    **dict.fromkeys((
        "service/web/flow/test_accept", "service/bridge/test_bridge", "service/web/flow/test_clean", "service/scripts/test_region_rights",
    ), "own broker"),
}  # fmt: skip
# The other files of these folders share the folder's stack, but for those that need none, or start their own.
WITH_ONE_STACK = ("stack", "promises")
ALONE = (
    "promises/test_backlog_across_ocean", "promises/test_bombs", "promises/test_cron", "promises/test_every_fault", "promises/test_poison",
    "promises/test_ssrf", "promises/test_worker_crash", "stack/test_chaos", "stack/test_up_alone", "stack/test_wan",
)  # fmt: skip
# The hub is away after a minute in which nothing hurt the gateway's servers: what comes before leaves them alone for so long.
THIRD_IN_ORDER = (
    "test_takeover.py", "is_succeeded[stopped]", "test_hostile_client.py", "test_waiters.py", "is_succeeded[frozen]", "test_gateway_crash.py",
)  # fmt: skip
# Seconds of what takes longer than most: the longest begins first, so that none is alone in the end.
LONG = {
    "second stack": 250, "forked stack": 220, "stack": 180, "third stack": 240, "promises": 200, "own broker": 230, "promises/test_cron": 130, "changed stack": 150,
    "stack/test_up_alone": 110, "promises/test_every_fault": 75, "service/scripts/test_policy": 35, "service/bridge/test_ensure": 60,
    "promises/test_worker_crash": 60, "service/jobs/worker/test_stuck_workers": 45, "service/jobs/pool/test_pool": 80,
    "service/jobs/queue/test_turn_workers": 60, "service/web/console/test_figures": 40, "service/web/console/test_pages": 40,
    "promises/test_backlog_across_ocean": 55, "promises/test_bombs": 100, "service/jobs/queue/test_clock": 50, "service/web/console/test_signin": 30,
    "service/jobs/worker/test_worker": 50, "service/jobs/pool/test_scaling": 50, "service/web/api/test_faults": 50, "stack/test_wan": 50,
    "service/jobs/queue/test_shared_fetch_workers": 45, "service/web/flow/test_takeover": 40, "promises/test_ssrf": 40,
    "service/web/console/test_try": 40, "service/jobs/answers/test_cache_workers": 40, "stack/test_chaos": 40,
    "service/web/flow/test_dead": 30, "service/jobs/pool/test_examiner": 30, "service/web/flow/test_history": 30, "service/web/flow/test_gateway_threads": 30,
    "service/jobs/queue/test_manners_workers": 30, "service/jobs/queue/test_more_hosts": 30, "service/jobs/answers/test_raw_worker": 30,
    "service/regions/test_hub_clock": 30, "promises/test_poison": 30,
}  # fmt: skip

# Of the short ones those come first that mostly wait: in the end the processors have work for all processes.
WAITING = ("service/web", "service/regions", "service/bridge")

settings.register_profile(
    "suite",
    max_examples=60,
    deadline=None,  # nothing in the suite depends on the machine's speed; what hangs meets pytest's time-out
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("suite"), max_examples=5_000, derandomize=False)
settings.load_profile("suite")


def pytest_configure(config: pytest.Config) -> None:
    """What all processes of a run share is made by the one that runs them, and ends with it."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):  # who collects tests itself
        gc.disable()  # until they are collected: nothing of them goes
    if not hasattr(config, "workerinput"):
        made = contextlib.ExitStack()
        os.environ.update(made.enter_context(broker.shared(os.environ)))
        if config.getoption("numprocesses", None):
            os.environ.update(forked.share())
            fork_workers(config.invocation_params.args)
        config.add_cleanup(made.close)


def fork_workers(words: Sequence[str | os.PathLike[str]]) -> None:
    """Has xdist's worker processes forked from one that has read the tests, instead of starting Python for each."""
    os.environ["TEST_COLLECTED"] = json.dumps([os.fspath(one) for one in words])

    class Worker(gateway_io.Popen2IOMaster):
        def __init__(self, args: Sequence[str], execmodel: gateway_base.ExecModel) -> None:
            self.popen = process = forked.Forked(
                args[args.index("-c") :], imported=("tests.collected",), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            gateway_base.Popen2IO.__init__(self, process.stdin, process.stdout, execmodel=execmodel)

    gateway_io.Popen2IOMaster = Worker


def pytest_collection_finish() -> None:
    """Looking through all collected tests again and again would take a seventh of the time that they take."""
    gc.freeze()
    gc.enable()


def shares(path: PurePath) -> str:
    """What the tests of a file share a process by: a stack, a broker, or being of one file."""
    name = "/".join(path.with_suffix("").parts).rpartition("tests/")[2]
    folder = name.partition("/")[0]
    if name in SHARED:
        return SHARED[name]
    return folder if folder in WITH_ONE_STACK and name not in ALONE else name


class ByShare(LoadScopeScheduling):
    """A process each for what is shared."""

    def _split_scope(self, nodeid: str) -> str:
        return shares(PurePath(nodeid.split("::", maxsplit=1)[0]))


def pytest_xdist_make_scheduler(config, log) -> ByShare:
    return ByShare(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest comes first where several processes share the tests."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: (-LONG.get(shares(item.path), 0), not shares(item.path).startswith(WAITING), turn(item))
        )


def turn(item: pytest.Item) -> int:
    """Its place among those that share its stack."""
    if shares(item.path) != "third stack":
        return 0
    return next((at for at, part in enumerate(THIRD_IN_ORDER, 1) if part in item.nodeid), 0)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A real browser for a module's tests. Its driver runs an event loop in this thread, which other modules must not meet."""
    from tests import browser as found

    with found.running() as made:
        yield made
