"""The hub's half of a gateway: what settles, with the news that it told."""

import pytest

from tests.service.hub_parts import Heard, settings
from web.flow.settle import Settler
from web.hub.ledger import Ledger
from web.hub.redis import Hub


@pytest.fixture
def parts(patient_clients, tmp_path, hub_redis):
    found = settings(tmp_path, redis=hub_redis.url)
    hub = Hub(found)
    hub.start()
    ledger = Ledger(hub.client, found.limits)
    news = Heard()
    settler = Settler(found, hub, ledger, news)
    yield found, hub, ledger, settler, news
    hub.stop()
