"""The keys that a gateway reads from a real Redis, again and again."""

import threading

import pytest

from regions import names
from tests.service.hub_parts import settings
from tests.waiting import until
from web.flow import keyring
from web.flow.keyring import Keyring
from web.hub import keys
from web.hub.keys import Key, KeyLimits
from web.hub.redis import Hub


@pytest.fixture
def hub(patient_clients, tmp_path, hub_redis):
    made = Hub(settings(tmp_path, redis=hub_redis.url))
    made.run_once()
    yield made
    made.client.close()


def test_keys_are_known_at_the_start_and_their_ends_are_told_until_it_is_stopped(hub, hub_redis, monkeypatch):
    monkeypatch.setattr(keyring, "EVERY_SECONDS", 0.02)
    client, limits = hub_redis.client, KeyLimits(waiters=9)
    for one in ("key00001", "key00002"):
        made = Key(id=one, name=one, tenant="shop", scopes=("read",), digest="d", created_ms=1, limits=limits)
        keys.write(client, [made])
    ring, told = Keyring(hub, "a"), []
    ring.waiting.append({"key00001": 2})
    ring.ended.append(lambda has: told.append((has("key00001"), has("key00002"))))
    ring.start()
    assert ring.owner_by_id("key00001", "read").tenant == "shop"
    until(lambda: told and client.hexists(names.WAITING, "a"), "the others to be told who waits here")
    assert told[0] == (True, True)
    keys.delete(client, "key00002")
    until(lambda: told[-1] == (True, False), "the end of a key")
    ring.stop()
    assert not client.exists(names.WAITING)


def test_of_two_refreshes_at_once_the_newer_keys_stay(hub, hub_redis, monkeypatch):
    ring, has_looked, may_go_on = Keyring(hub, "a"), threading.Event(), threading.Event()
    look = ring._board.look

    def slow_look(*told):
        found = look(*told)
        if threading.current_thread() is slow:
            has_looked.set()
            assert may_go_on.wait(60)
        return found

    monkeypatch.setattr(ring._board, "look", slow_look)
    slow, quick = threading.Thread(target=ring.refresh), threading.Thread(target=ring.refresh)
    slow.start()
    assert has_looked.wait(60)
    made = Key(id="key00001", name="x", tenant="shop", scopes=("read",), digest="d", created_ms=1)
    keys.write(hub_redis.client, [made])
    quick.start()
    quick.join(0.1)  # it comes to its end here only if nothing makes it wait
    may_go_on.set()
    for one in (slow, quick):
        one.join()
    assert ring.has("key00001")


def test_while_the_hub_is_away_the_last_keys_count(hub, hub_redis):
    keys.write(
        hub_redis.client, [Key(id="key00001", name="x", tenant="shop", scopes=("read",), digest="d", created_ms=1)]
    )
    ring = Keyring(hub, "a")
    ring.refresh()
    hub_redis.crash()
    ring.refresh()
    assert ring.has("key00001")
    hub_redis.running.start()
