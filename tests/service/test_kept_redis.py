"""One Redis for one test after the other: each finds it as new."""

from collections.abc import Iterator

import pytest

from jobs.queue.clock import clock_of
from regions import connect
from tests.service.conftest import KeptRedis


@pytest.fixture
def kept(tmp_path) -> Iterator[KeptRedis]:
    made = KeptRedis(tmp_path, "kept")
    yield made
    made.stop()


def test_nothing_of_the_test_before_is_left(kept):
    first = kept.new()
    first.client.set("key", 1)
    sha = first.client.script_load("return 1")
    clock_of(first.client).ahead_ms = 60_000
    second = kept.new()
    assert second is first
    assert second.client.dbsize() == 0
    assert second.client.script_exists(sha) == [False]
    assert clock_of(second.client).ahead_ms == 0
    assert "cmdstat_set" not in second.client.info("commandstats")


@pytest.mark.parametrize(
    "use",
    [
        lambda one: one.running,
        lambda one: one.client.config_set("maxmemory", 10**9),
        lambda one: one.client.execute_command("ACL", "SETUSER", "other", "on", "nopass"),
        lambda one: one.crash(),
        lambda one: one.client.shutdown(nosave=True),
    ],
    ids=["its process was asked for", "a setting", "a user", "a crash", "a shutdown"],
)
def test_one_that_is_not_as_new_is_replaced(kept, use):
    first = kept.new()
    use(first)
    second = kept.new()
    assert second is not first
    assert second.client.ping()
    assert second.client.config_get("maxmemory") == {"maxmemory": str(256 << 20)}


def test_one_that_somebody_is_still_connected_to_is_replaced(kept):
    """Who is that could still write, or wait for a key."""
    first = kept.new()
    with connect.open_redis(first.url, name="left", block_seconds=30.0) as left:
        left.ping()
        assert kept.new() is not first
