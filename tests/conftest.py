"""How many examples hypothesis tries: few in the suite, many with ``--hypothesis-profile=long``; and which tests run together."""

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import broker

if TYPE_CHECKING:  # few tests need it, and it takes a while to import
    from tests.browser import Browser

# The tests of these folders share a whole stack a process, but for those of the files that need none, or start their own.
WITH_ONE_STACK = ("stack", "promises")
ALONE = (
    "test_backlog_across_ocean", "test_bombs", "test_chaos", "test_cron", "test_definitions",
    "test_every_fault", "test_poison", "test_ssrf", "test_up_alone", "test_worker_crash",
)  # fmt: skip
# These share a stack of their own, so that the tests of promises take no longer than the others.
WITH_OTHER_STACK = {
    **dict.fromkeys(("test_ambiguous_success", "test_half_open", "test_hub_slow_disk"), "second stack"),
    **dict.fromkeys(("test_takeover", "test_gateway_crash", "test_central_redis_away", "test_hostile_client", "test_waiters"), "third stack"),
}  # fmt: skip
# The hub is away after a minute in which nothing hurt the gateway's servers: what comes before leaves them alone for so long.
THIRD_IN_ORDER = (
    "test_takeover.py", "is_succeeded[stopped]", "test_hostile_client.py", "test_waiters.py", "is_succeeded[frozen]", "test_gateway_crash.py",
)  # fmt: skip
# These share a broker of their own, which they hurt.
WITH_OWN_BROKER = ("test_accept", "test_bridge", "test_clean", "test_region_rights")
# Seconds of what takes longer than most: the longest begins first, so that none is alone in the end.
LONG = {
    "promises": 280, "second stack": 260, "third stack": 270, "stack": 185, "test_cron": 130, "test_every_fault": 100, "own broker": 120, "test_ensure": 60,
    "test_up_alone": 80, "test_pages": 60, "test_try": 40, "test_stuck_workers": 80, "test_pool": 80, "test_turn_workers": 80, "test_worker": 70, "test_worker_crash": 60, "test_backlog_across_ocean": 60,
    "test_definitions": 60, "test_bombs": 50, "test_clock": 50, "test_shared_fetch_workers": 50, "test_cache_workers": 40, "test_scaling": 40, "test_ssrf": 40,
    "test_dead": 30, "test_examiner": 30, "test_figures": 60, "test_forged_tasks": 30, "test_gateway_threads": 30, "test_history": 30, "test_hostile_entries": 30, "test_hub_clock": 30,
    "test_manners_workers": 30, "test_more_hosts": 30, "test_patterns": 30, "test_policy": 60, "test_raw_worker": 30, "test_scale": 30,
}  # fmt: skip

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
        config.add_cleanup(made.close)


def pytest_collection_finish() -> None:
    """Looking through all collected tests again and again would take a seventh of the time that they take."""
    gc.freeze()
    gc.enable()


def shares(path: PurePath) -> str:
    """What the tests of a file share a process by: a stack, a broker, or being of one file."""
    if path.stem in WITH_OTHER_STACK:
        return WITH_OTHER_STACK[path.stem]
    if path.parent.parent.name == "tests" and path.parent.name in WITH_ONE_STACK and path.stem not in ALONE:
        return path.parent.name
    return "own broker" if path.stem in WITH_OWN_BROKER else str(path)


class ByShare(LoadScopeScheduling):
    """A process each for what is shared."""

    def _split_scope(self, nodeid: str) -> str:
        return shares(PurePath(nodeid.split("::", maxsplit=1)[0]))


def pytest_xdist_make_scheduler(config, log) -> ByShare:
    return ByShare(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest comes first where several processes share the tests."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (-LONG.get(PurePath(shares(item.path)).stem, 0), turn(item)))


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
