"""Whether the hub has written what it accepted, on a real Redis that is made to look slow."""

import threading

import pytest

from regions import durability, names
from tests.service.hub_parts import new_request, settings
from web.flow import kept
from web.flow.kept import Kept, Unwritten, is_written
from web.hub import ledger
from web.hub.ledger import Ledger
from web.hub.redis import Hub

SLOW = durability.File(1, 10, 0, 5)


@pytest.fixture
def hub(patient_clients, tmp_path, hub_redis):
    made = Hub(settings(tmp_path, redis=hub_redis.url))
    made.run_once()
    yield made
    made.client.close()


def test_requests_are_looked_up_when_they_can_be_told_something(hub, tmp_path, monkeypatch):
    """A slow disk lets hundreds wait, and each look asked for all of them: in the thread that accepts."""
    files = [SLOW] * 5
    monkeypatch.setattr(kept, "WRITE_SECONDS", 60.0)
    monkeypatch.setattr(ledger.durability, "file_of", lambda _: files.pop(0) if files else durability.File())
    books = Ledger(hub.client, settings(tmp_path, redis="redis://127.0.0.1:1").limits)
    unwritten, waiting = Unwritten(hub, books), {new_request().id: Kept(is_known=False) for _ in range(20)}
    for request, one in waiting.items():
        hub.client.hset(names.ledger(request), "state", "accepted")
        unwritten.add(request, one, SLOW)
    lost = next(iter(waiting))
    hub.client.delete(names.ledger(lost))
    hub.client.config_resetstat()
    for _ in range(5):
        unwritten.look()
    assert "cmdstat_hget" not in hub.client.info("commandstats")
    assert not any(one.is_known for one in waiting.values())
    unwritten.look()
    assert {request for request, one in waiting.items() if one.reason is None} == {*waiting} - {lost}
    assert all(one.is_known for one in waiting.values())
    assert not unwritten


def test_a_thread_waits_until_the_hubs_file_has_what_it_was_told_or_until_it_is_stopped(hub, monkeypatch):
    looks, running = [SLOW, SLOW, durability.File(1, 10, 0, 6)], threading.Event()
    monkeypatch.setattr(kept.durability, "file_of", lambda _: looks.pop(0))
    assert is_written(hub, durability.File(), running)
    assert len(looks) == 3, "a file that lacks nothing is not asked for"
    assert is_written(hub, SLOW, running)
    assert not looks
    running.set()
    assert not is_written(hub, SLOW, running)
