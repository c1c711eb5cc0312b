"""The two connections to the hub: what they need there, how they are kept, and a hub that is far."""

import itertools
import math
import os
import threading
import time

import pytest

from jobs.queue import home as home_module
from jobs.queue.home import Home, Shipment, open_hub
from jobs.queue.outbox import Shipper
from regions import connect, link
from scripts.stack import hub_acl
from scripts.stack.wan_links import Rule, Way
from tests.service.jobs.queue.outgoing import connections, left, outcome, stored
from tests.service.working import REGION, post, results
from tests.waiting import until


def test_the_wait_between_tries_grows_to_two_seconds_and_is_random(home, hub_redis):
    hub_redis.running.kill()
    waits = []
    for _ in range(12):
        assert not post(home, [Shipment("1-0", outcome(1), 610)])
        waits.append(home.backoff_seconds)
    assert max(waits) <= connect.BACKOFF_MAX_SECONDS
    assert max(home.backoff_seconds for _ in range(100)) > 1.0
    assert len({home.backoff_seconds for _ in range(10)}) > 1


def test_a_region_needs_no_more_than_to_append_and_to_wait_for_the_file(start_redis, region_redis):
    hub = start_redis("hub", users={"fra": ("secret", hub_acl.rules(REGION))})
    url = hub.url.replace("redis://", "redis://fra:secret@")
    home = Home(open_hub(url, "w1"), REGION, region_redis.client)
    assert post(home, [stored(region_redis.client, outcome(1))], [("R1", "T1", 1, 1)])
    assert results(hub.client) == ["T1"]
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    assert hub.client.info("commandstats")["cmdstat_waitaof"]["failed_calls"] == 0
    assert connect.redis_now_ms(open_hub(url, "w1")) > 0
    assert not post(Home(open_hub(url, "w1"), "nyc", region_redis.client), [Shipment("1-0", outcome(1), 610)])


def test_where_the_hub_does_not_let_ask_for_its_file_its_reply_is_what_counts(start_redis, region_redis, capfd):
    hub = start_redis("hub", users={"fra": ("secret", hub_acl.rules(REGION).replace("+waitaof", ""))})
    home = Home(open_hub(hub.url.replace("redis://", "redis://fra:secret@"), "w1"), REGION, region_redis.client)
    for number in (1, 3):
        assert post(home, [stored(region_redis.client, outcome(number))])
        until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    assert capfd.readouterr().out.count("does not say when it has results in its file") == 1
    hub.client.config_set("appendonly", "no")
    assert post(Home(open_hub(hub.url, "w1"), REGION, region_redis.client), [stored(region_redis.client, outcome(2))])
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_a_result_stays_in_the_outbox_until_the_hub_has_it_in_its_file(region_redis, hub_redis, home):
    """An fsync that never ends stands for a slow disk: ``appendfsync no`` never says that it did."""
    hub_redis.client.config_set("appendfsync", "no")
    assert post(home, [stored(region_redis.client, outcome(1))])
    until(lambda: hub_redis.client.info("clients")["blocked_clients"], "the wait for the file")
    assert post(home, [stored(region_redis.client, outcome(2))])  # nobody waits for it to send more
    hub_redis.running.kill()
    until(lambda: home.is_clear or not post(home, []), "the loss to be seen")
    assert left(region_redis)[0] == 2


def test_a_hub_without_replicas_is_waited_for_no_longer_than_its_file(region_redis, hub_redis, home, monkeypatch):
    monkeypatch.setattr(home_module, "FILE_MS", 600_000)
    hub_redis.client.config_set("appendfsync", "always")  # it is in its file before the connection's time-out
    assert post(home, [stored(region_redis.client, outcome(1))])
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_while_replies_are_due_nothing_is_sent_whose_file_could_not_be_waited_for(region_redis, home):
    assert home.begin([stored(region_redis.client, outcome(1))])
    home._way.file.close()
    assert not home.begin([stored(region_redis.client, outcome(2))])
    assert (home.flying, home.flying_bytes) == (0, 0)  # nothing is known of the first one either
    assert left(region_redis)[0] == 2


def test_results_keep_to_their_connection_while_the_other_waits_for_the_file(region_redis, hub_redis, home):
    """A connection that was idle is slow across an ocean."""
    hub, client = hub_redis.client, region_redis.client
    hub.config_set("appendfsync", "no")
    assert post(home, [stored(client, outcome(1))])
    until(lambda: hub.info("clients")["blocked_clients"], "the wait for the file")
    way = home._way
    for number in (2, 3):
        assert post(home, [stored(client, outcome(number))])
    assert home._way is way
    assert left(region_redis)[0] == 3
    hub.config_set("appendfsync", "everysec")
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    assert results(hub) == ["T1", "T2", "T3"]


def test_two_servers_that_answer_as_the_hub_are_none(region_redis, hub_redis, start_redis, monkeypatch):
    """The file of one says nothing of what the other took."""
    other = open_hub(start_redis("other").url, "w1")
    numbers = itertools.count()
    monkeypatch.setattr(home_module, "Link", lambda client: link.Link(other if next(numbers) in {0, 2} else client))
    home = Home(open_hub(hub_redis.url, "w1"), REGION, region_redis.client)
    one = stored(region_redis.client, outcome(1))
    assert not home.prepare()
    until(lambda: connections(hub_redis) == [], "the one that was opened to be closed")
    assert not post(home, [one])
    assert results(hub_redis.client) == []
    assert post(home, [one])
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_a_result_whose_file_can_not_be_waited_for_stays_and_both_connections_are_opened_again(
    region_redis, hub_redis, home
):
    hub, client = hub_redis.client, region_redis.client
    hub.config_set("appendfsync", "no")
    assert home.prepare()
    assert post(home, [stored(client, outcome(1))])
    (waiting,) = until(lambda: [one for one in hub.client_list() if one["cmd"] == "waitaof"], "the wait for the file")
    before = connections(hub_redis)
    hub.client_kill_filter(_id=waiting["id"])
    until(lambda: home.is_clear, "the loss to be seen")
    assert not home.is_at_hand
    assert left(region_redis)[0] == 1
    hub.config_set("appendfsync", "everysec")
    assert post(home, [stored(client, outcome(2))])
    assert not set(before) & set(connections(hub_redis))
    until(lambda: left(region_redis)[0] == 1, "the second one to be in the file")
    assert results(hub) == ["T1", "T2"]


def test_a_connection_that_was_given_up_while_it_waited_for_the_file_is_closed_afterwards(
    region_redis, hub_redis, home
):
    """The one for results was given up as well, and closed at once: the hub took nothing more."""
    hub, client = hub_redis.client, region_redis.client
    hub.config_set("appendfsync", "no")
    assert post(home, [stored(client, outcome(1))])
    (waiting,) = until(lambda: [one for one in hub.client_list() if one["cmd"] == "waitaof"], "the wait for the file")
    assert not home.is_clear
    second = stored(client, outcome(2))
    hub.config_set("maxmemory", 1)
    assert not post(home, [second])
    until(lambda: connections(hub_redis) == [waiting["id"]], "the other one's end")
    hub.config_set("maxmemory", 0)
    assert post(home, [second])
    hub.config_set("appendfsync", "everysec")
    until(lambda: waiting["id"] not in connections(hub_redis), "its end")
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    assert (results(hub), len(connections(hub_redis))) == (["T1", "T2"], 2)


def test_what_the_hub_took_is_waited_for_before_anything_is_clear(region_redis, home, monkeypatch):
    """Also before the thread that waits has begun: what is in the outbox then has been sent."""
    monkeypatch.setattr(Home, "run", lambda _: None)
    assert home.is_clear
    assert post(home, [stored(region_redis.client, outcome(1))])
    assert not home.is_clear


def test_while_one_connection_waits_for_the_file_the_loss_of_the_other_is_looked_for_again_soon(
    region_redis, hub_redis, home, monkeypatch
):
    """Only one that is idle can be watched, and it may be closed at any time. What woke it wakes it once."""
    monkeypatch.setattr(home_module, "FILE_MS", 50)
    hub_redis.client.config_set("appendfsync", "no")
    assert post(home, [stored(region_redis.client, outcome(1))])
    until(lambda: home._waiting, "the wait for the file")
    wake, give_up = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), time.monotonic() + 60
    try:
        assert not home.wait(wake, give_up)
        assert time.monotonic() < give_up
        home._way.results.close()
        assert not home.wait(wake, 0.0)
        os.eventfd_write(wake, 1)
        assert not home.wait(wake, math.inf)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(wake)
    finally:
        os.close(wake)


def test_both_connections_are_opened_at_once(home, monkeypatch):
    """Across an ocean each takes some round trips."""
    both = threading.Barrier(2, timeout=60)

    def opened(client):
        both.wait()
        return link.Link(client)

    monkeypatch.setattr(home_module, "Link", opened)
    assert home.prepare()


def test_the_way_home_is_open_before_the_first_result_and_no_connection_is_opened_for_one(
    region_redis, hub_redis, home
):
    """Nor for the second, which takes the other connection while the first one's waits for the hub's file."""
    shipper = Shipper(home)
    shipper.start()
    until(lambda: len(connections(hub_redis)) == 2, "both connections")
    opened = connections(hub_redis)
    for number in range(3):
        shipper.put([stored(region_redis.client, outcome(number))])
        until(lambda sent=number + 1: len(results(hub_redis.client)) == sent, "its result")
    assert connections(hub_redis) == opened
    shipper.stop(60)


def test_a_lost_way_home_is_opened_again_before_there_is_a_result(region_redis, hub_redis, home):
    shipper = Shipper(home)
    shipper.start()
    until(lambda: len(connections(hub_redis)) == 2, "both connections")
    opened = connections(hub_redis)
    for one in opened:
        hub_redis.client.client_kill_filter(_id=one)
    until(lambda: len(connections(hub_redis)) == 2 and connections(hub_redis) != opened, "new connections")
    hub_redis.running.kill()
    until(lambda: home.backoff_seconds, "the loss to be seen")
    hub_redis.running.start()
    until(lambda: len(connections(hub_redis)) == 2, "new connections to the new process")
    shipper.put([stored(region_redis.client, outcome(1))])
    until(lambda: left(region_redis) == (0, 0), "its result to be in the hub's file")
    for which in (0, 1):
        opened = connections(hub_redis)
        hub_redis.client.client_kill_filter(_id=opened[which])
        until(
            lambda gone=opened[which]: len(now := connections(hub_redis)) == 2 and gone not in now, "a new connection"
        )
    shipper.stop(60)
    assert results(hub_redis.client) == ["T1"]


def test_a_hub_that_falls_silent_is_away_after_its_time_out(region_redis, far_hub, monkeypatch):
    home = Home(open_hub(far_hub.url, "w1"), REGION, region_redis.client)
    shipper = Shipper(home)
    assert home.prepare()
    monkeypatch.setattr(home_module, "HUB_TIMEOUT_SECONDS", 0.3)
    far_hub.control.rule("redis", Rule(back=Way(then="hold")))
    shipper.put([stored(region_redis.client, outcome(1))])
    until(lambda: shipper.run_once() and home.backoff_seconds, "the silence to be noticed")
    assert not home.flying
    assert left(region_redis)[0] == 1
