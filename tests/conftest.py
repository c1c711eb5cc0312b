"""How many examples hypothesis tries: few in the suite, many with ``--hypothesis-profile=long``; and which tests run together."""

import contextlib
import os
from pathlib import PurePath

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import broker

# The tests of these folders share a whole stack a process, but for those of the files that need none, or start their own.
WITH_ONE_STACK = ("stack", "promises")
ALONE = (
    "test_ambiguous_success", "test_bombs", "test_bridges_alone", "test_central_redis_away", "test_chaos", "test_cron", "test_definitions", "test_every_fault", "test_poison", "test_ssrf",
    "test_up_alone", "test_worker_crash",
)  # fmt: skip
LONG = (
    "test_ambiguous_success", "test_central_redis_away", "test_cron", "test_every_fault", "test_keeper", "test_up_alone", "test_bridges_alone", "test_worker_crash", "test_bombs",
)  # fmt: skip

settings.register_profile(
    "suite",
    max_examples=60,
    deadline=None,  # nothing in the suite depends on the machine's speed; what hangs meets pytest's time-out
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("suite"), max_examples=5_000, derandomize=False)
settings.load_profile("suite")


def _is_shared(path: PurePath) -> bool:
    return path.parent.name in WITH_ONE_STACK and path.stem not in ALONE


def pytest_configure(config: pytest.Config) -> None:
    """What all processes of a run share is made by the one that runs them, and ends with it."""
    if not hasattr(config, "workerinput"):
        made = contextlib.ExitStack()
        os.environ.update(made.enter_context(broker.shared(os.environ)))
        config.add_cleanup(made.close)


class ByStack(LoadScopeScheduling):
    """A process each for a file, or for all files that share a whole stack."""

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.split("::", maxsplit=1)[0])
        return path.parent.name if _is_shared(path) else str(path)


def pytest_xdist_make_scheduler(config, log) -> ByStack:
    return ByStack(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest comes first where several processes share the tests, so that none is alone with it in the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: 0 if _is_shared(item.path) else 1 if item.path.stem in LONG else 2)
