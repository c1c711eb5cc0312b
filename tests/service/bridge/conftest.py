"""A region of a test, on the broker that all share."""

import pytest

from tests.service.bridging import Region


@pytest.fixture
def region(request, hub_redis, region_redis, rabbitmq) -> Region:
    """A region of a name of its own, with its queues."""
    one = Region(f"r{abs(hash(request.node.name)) % 10**9}", hub_redis, region_redis, rabbitmq)
    one.broker.declare()
    return one
