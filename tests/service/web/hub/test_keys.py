"""Keys on a real Redis, and what gateways tell each other of the clients that wait with them."""

import json

import msgspec
import pytest

from regions import connect, names
from web.hub import keys
from web.hub.keys import Board, Key

HOUR_MS = 3_600_000


def key(id_: str) -> Key:
    return Key(id=id_, name="orders", tenant="shop", scopes=("read",), digest=keys.digest_of("s"), created_ms=1)


@pytest.fixture
def client(hub_redis):
    return hub_redis.client


def waiting(client) -> set[bytes]:
    """The gateways that say who waits there."""
    return set(client.hkeys(names.WAITING))


def test_keys_that_can_not_be_read_or_stand_at_another_place_keep_no_other_from_counting(client):
    texts = ["{", "[" * 100_000, '{"id": 5}', msgspec.json.encode(key("elsewher"))]
    client.hset(names.KEYS, mapping={f"odd{number}": texts[number % 4] for number in range(40)})
    known = {f"key{number:05}": key(f"key{number:05}") for number in range(40)}
    keys.write(client, known.values())
    assert keys.read(client) == known
    assert Board("a").look(client, {})[0] == known


def test_a_deleted_key_leaves_nothing(client):
    keys.write(client, [key("key00001"), key("key00002")])
    for one in ("key00001", "key00002"):
        client.hset(names.used(one), "open", 1)
        client.zadd(names.sessions(one), {"x": 1})
    assert keys.delete(client, "key00001")
    assert not keys.delete(client, "key00001")
    assert keys.read(client).keys() == {"key00002"}
    assert not client.exists(names.used("key00001"), names.sessions("key00001"))
    assert client.exists(names.used("key00002"), names.sessions("key00002")) == 2


def test_gateways_tell_each_other_who_waits_and_say_so_when_nobody_does_any_more(client, monkeypatch):
    monkeypatch.setattr(keys, "TOLD_MS", HOUR_MS)
    one, other = Board("a"), Board("b")
    one.look(client, {"k": 2})
    assert waiting(client) == set(), "it does not know the hub's time yet"
    one.look(client, {"k": 2, "m": 1})
    assert one.look(client, {"k": 2, "m": 1})[1] == {}, "its own do not count"
    other.look(client, {"k": 5})
    assert other.look(client, {"k": 5})[1] == {"k": 2, "m": 1}
    assert one.look(client, {"k": 2})[1] == {"k": 5}
    told = json.loads(client.hget(names.WAITING, "a"))
    assert abs(told["at_ms"] - connect.redis_now_ms(client)) < 600_000
    one.look(client, {})
    assert waiting(client) == {b"b"}
    client.hset(names.WAITING, "a", "{}")  # the next gateway of this name
    one.look(client, {})
    one.leave(client)
    assert waiting(client) == {b"a", b"b"}, "it has said nothing since"
    other.leave(client)
    assert waiting(client) == {b"a"}


def test_a_gateway_that_says_nothing_more_or_nonsense_does_not_count_and_is_forgotten(client):
    now_ms = connect.redis_now_ms(client)
    said = {"old": now_ms - keys.TOLD_MS - 1, "new": now_ms + HOUR_MS}
    for number in range(10):
        client.hset(names.WAITING, f"odd{number}", "{" if number % 2 else "[" * 100_000)
        for name, at_ms in said.items():
            client.hset(names.WAITING, f"{name}{number}", json.dumps({"at_ms": at_ms, "clients": {"k": 2}}))
    board = Board("a")
    for _ in range(2):
        assert board.look(client, {})[1] == {"k": 20}
    assert waiting(client) == {f"new{number}".encode() for number in range(10)}


def test_a_hub_without_room_still_tells_the_keys(client):
    keys.write(client, [key("key00001")])
    board = Board("a")
    board.look(client, {"k": 1})
    client.config_set("maxmemory", 1)
    assert board.look(client, {"k": 1})[0].keys() == {"key00001"}
    client.config_set("maxmemory", 0)
    assert waiting(client) == set()
