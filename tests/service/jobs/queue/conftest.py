"""The way home."""

import pytest

from jobs.queue.home import Home, open_hub
from tests.service.working import REGION


@pytest.fixture
def home(hub_redis, region_redis):
    return Home(open_hub(hub_redis.url, "w1"), REGION, region_redis.client)
