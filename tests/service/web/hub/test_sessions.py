"""Sessions of keys on a real Redis: whose they are, and how they end."""

import time

import pytest
import redis

from regions import names
from web.hub import sessions

KEY, OTHER = "key00001", "key00002"


@pytest.fixture
def client(hub_redis):
    return hub_redis.client


def test_a_session_is_its_keys_until_it_ends(client):
    first, second, others = sessions.begin(client, KEY), sessions.begin(client, KEY), sessions.begin(client, OTHER)
    assert [sessions.key_of(client, one) for one in (first, second, others)] == [KEY, KEY, OTHER]
    sessions.end(client, first)
    assert [sessions.key_of(client, one) for one in (first, second, others)] == [None, KEY, OTHER]
    assert sessions.key_of(client, second.replace(KEY, OTHER)) is None
    assert 0 < client.ttl(names.sessions(KEY)) <= sessions.SECONDS


@pytest.mark.parametrize(
    "token", ["", KEY, f"{KEY}.", f"{KEY}.{'x' * 42}", f"{KEY}.{'x' * 44}", f"KEY00001.{'x' * 43}"]
)
def test_a_text_that_is_no_session_asks_the_hub_nothing(client, token):
    client.config_resetstat()
    assert sessions.key_of(client, token) is None
    sessions.end(client, token)
    assert not {"cmdstat_zscore", "cmdstat_zrem"} & client.info("commandstats").keys()


def test_a_session_ends_at_its_time_and_leaves_with_the_next_one(client):
    token, place = sessions.begin(client, KEY), names.sessions(KEY)
    ((member, ends),) = client.zrange(place, 0, -1, withscores=True)
    assert abs(ends - time.time() - sessions.SECONDS) < 600
    client.zadd(place, {member: time.time() - 1})
    assert sessions.key_of(client, token) is None
    sessions.begin(client, KEY)
    assert client.zscore(place, member) is None
    assert client.zcard(place) == 1


def test_the_oldest_session_of_a_key_ends_for_one_too_many(client, monkeypatch):
    monkeypatch.setattr(sessions, "MAX", 2)
    tokens = [sessions.begin(client, KEY) for _ in range(3)]
    assert [sessions.key_of(client, one) for one in tokens] == [None, KEY, KEY]


def test_a_session_that_the_hub_refuses_is_none(client):
    client.set(names.sessions(KEY), "none of ours")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        sessions.begin(client, KEY)
