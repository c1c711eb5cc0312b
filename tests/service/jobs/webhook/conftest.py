"""The hub's half, and a receiver."""

import pytest

from tests.service.jobs.webhook.hub_site import Site
from tests.service.jobs.webhook.receiving import Receiver


@pytest.fixture
def site(tmp_path, hub_redis):
    made = Site(tmp_path, hub_redis)
    yield made
    made.stop()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()
    assert made.wrong == []
