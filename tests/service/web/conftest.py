"""What tests of the gateway share."""

from collections.abc import Iterator

import pytest

from tests.service.conftest import RedisInstance
from tests.service.gateway import Stack
from web.flow import accept
from web.flow.settle import Settler

PATIENCE_SECONDS = 8.0  # shorter than the lease of an accept


@pytest.fixture
def in_time() -> None:
    """For tests of how long an accept may take."""


@pytest.fixture
def patient(monkeypatch) -> None:
    """An accept may take longer than its second: a machine that does much else confirms late, and a 503 would be no fault."""
    monkeypatch.setattr(accept, "BUDGET_SECONDS", PATIENCE_SECONDS)


@pytest.fixture(autouse=True)
def _patient_accepts(request) -> None:
    if "in_time" not in request.fixturenames:
        request.getfixturevalue("patient")


@pytest.fixture(autouse=True)
def _unstarted_settlers_are_closed(monkeypatch):
    """A settler that a test runs by itself has no thread that would close its connections in the end."""
    made: list[Settler] = []
    init = Settler.__init__

    def noted(self: Settler, *args, **options) -> None:
        made.append(self)
        init(self, *args, **options)

    monkeypatch.setattr(Settler, "__init__", noted)
    yield
    for one in made:
        if one._loop.thread.ident is None:
            one.stop()


@pytest.fixture(scope="module")
def stack(tmp_path_factory, rabbitmq) -> Iterator[Stack]:
    """A gateway that the tests of a module share, which hurt nothing."""
    folder = tmp_path_factory.mktemp("stack")
    hub = RedisInstance(folder, "hub")
    made = Stack(folder, rabbitmq, hub)
    yield made
    made.stop()
    hub.stop()


@pytest.fixture
def hangs() -> None:
    """For tests of a hub that does not answer."""


@pytest.fixture
def own_stack(tmp_path, rabbitmq, hub_redis, request) -> Iterator[Stack]:
    """One to hurt. Nothing of the test before is in its queues."""
    made = Stack(tmp_path, rabbitmq, hub_redis, is_patient="hangs" not in request.fixturenames)
    made.region.purge()
    yield made
    made.stop()
