"""The hub's half of webhooks."""

import pytest

from tests.service.jobs.webhook.hub_site import Site


@pytest.fixture
def site(tmp_path, hub_redis):
    made = Site(tmp_path, hub_redis)
    yield made
    made.stop()
