"""The sweep at size and beside another gateway's: many tasks of a dead region end together, each by one of them."""

import json
import threading
import time

import pytest
from msgspec import structs

from regions import connect, names, script
from tests.service.hub_parts import accepted, new_request, send_home, settings
from tests.waiting import until
from web.flow.clean import Cleaner
from web.flow.publish import Publisher
from web.flow.sweep import (
    BATCH,
    CALM_SECONDS,
    EVERY_SECONDS,
    FORGET_PART_MS,
    GRACE_SECONDS,
    GRACE_WINDOW_SECONDS,
    LEASE_MS,
    Grace,
    Sweeper,
)
from web.hub import scripts
from web.hub.ledger import Ledger
from web.hub.redis import Hub

MANY = 20_000


class Half:
    """What a gateway sweeps with, twice on one hub, and the news that each told."""

    def __init__(self, tmp_path, hub_redis):
        found = self.settings = settings(tmp_path, redis=hub_redis.url)
        self.client = hub_redis.client
        self.hub = Hub(found)
        self.hub.start()
        self.ledger = Ledger(self.hub.client, found.limits)
        self.cleaner = Cleaner(self.hub, self.ledger, Publisher(found))
        self.news = []
        self.sweeper, self.other = (
            Sweeper(found, self.hub, self.ledger, self.cleaner, self.news.extend) for _ in range(2)
        )

    def overdue(self, tasks, *, of_each):
        """So many tasks, as many of them in each request, whose deadline and grace are over."""
        wanted = [new_request(("fra",) * of_each) for _ in range(tasks // of_each)]
        for at in range(0, len(wanted), 100):  # each well within the lease of an accept
            some = wanted[at : at + 100]
            for new in some:
                self.ledger.begin(new)
            self.ledger.accept([new.id for new in some])
        pipeline = self.client.pipeline(transaction=False)
        for new in wanted:
            pipeline.zadd(names.DUE, {names.due_member(new.id, task.id): 1 for task in new.tasks})
        pipeline.execute()
        return wanted


@pytest.fixture
def half(patient_clients, tmp_path, hub_redis):
    one = Half(tmp_path, hub_redis)
    yield one
    one.hub.stop()


def test_all_tasks_of_a_dead_region_end_in_one_sweep_and_few_round_trips(half, monkeypatch):
    wanted = half.overdue(MANY, of_each=10)
    real, calls, longest = script._exchange, [], []

    def counting(client, commands):
        if threading.current_thread() is threading.main_thread():  # the hub's probe asks, too
            calls.append(len(commands))
            longest.append(max(map(len, commands)))
        return real(client, commands)

    monkeypatch.setattr(script, "_exchange", counting)
    assert half.sweeper.run_once() == MANY
    assert len(calls) <= 150  # to take, to read and to settle some hundreds: a trip for each task would take 20 s
    assert max(longest) < 2_000  # words of a script's call, so that none holds the hub for long
    assert set(half.news) == {new.id for new in wanted}
    assert half.client.zcard(names.DUE) == half.client.zcard(names.open_tasks("fra")) == 0
    for at in range(0, len(wanted), 500):
        views, _ = half.ledger.read_many([(new.id, "0-0") for new in wanted[at : at + 500]])
        assert {(view.done, view.completed) for view in views} == {(True, 10)}


def test_what_one_gateway_took_another_one_leaves_until_it_is_clear_that_it_died(half):
    wanted = half.overdue(100, of_each=1)
    now_ms, _, taken, _ = scripts.OVERDUE.call(  # by one that dies now
        half.client, accepting=names.ACCEPTING, due=names.DUE, lease_ms=LEASE_MS, most=100
    )
    assert len(taken) == len(wanted)
    ended = until(half.other.run_once, "the lease to end")
    assert half.ledger.now_ms() - now_ms >= LEASE_MS
    assert ended == len(wanted)
    assert {half.ledger.read(new.id).done for new in wanted} == {True}


def test_accepts_that_a_dead_gateway_left_open_are_refused_together_and_cancelled(half, capfd):
    wanted = [new_request(("fra", "nyc")) for _ in range(BATCH + 50)]
    for new in wanted:
        half.ledger.begin(new)
        half.client.hset(names.ledger(new.id), "lease", 1)
    half.client.zadd(names.ACCEPTING, {new.id: 1 for new in wanted})
    began_ms = half.ledger.now_ms()
    half.sweeper.run_once()
    assert half.client.zcard(names.ACCEPTING) == 0
    half.ledger.accept([new.id for new in wanted])
    assert set(half.ledger.states([new.id for new in wanted])) == {"refused"}
    assert half.cleaner.kept == 2 * len(wanted)  # each region of each is to hear of it
    deadlines = {one.deadline_ms for one in half.cleaner._lanes["fra"].waiting}
    assert min(deadlines) >= began_ms + 300_000  # as long as any task may live
    assert max(deadlines) <= half.ledger.now_ms() + 300_000
    assert capfd.readouterr().out.count("lapsed accepts refused") == 2  # a batch each


def test_an_accept_whose_lease_lives_is_left_alone(half):
    new = new_request()
    half.ledger.begin(new)
    half.client.zadd(names.ACCEPTING, {new.id: 1})  # as if it were overdue: the ledger's own lease is what counts
    half.sweeper.run_once()
    assert half.cleaner.kept == 0
    half.ledger.accept([new.id])
    assert half.ledger.read(new.id) is not None


def test_a_task_whose_ledger_expired_keeps_none_of_the_others(half):
    gone, *others = half.overdue(3, of_each=1)
    half.client.delete(names.ledger(gone.id))
    half.client.zadd(names.DUE, {names.due_member(gone.id, gone.tasks[0].id): 0})  # it comes first
    assert half.sweeper.run_once() == 2
    assert set(half.news) == {one.id for one in others}
    assert half.client.zcard(names.DUE) == 0


def test_an_accept_whose_ledger_expired_is_forgotten_and_nobody_is_told(half):
    half.client.zadd(names.ACCEPTING, {new_request().id: 1})
    half.sweeper.run_once()
    assert half.client.zcard(names.ACCEPTING) == 0
    assert half.cleaner.kept == 0


def test_a_sweeper_starts_in_its_grace_outlives_an_outage_and_ends_when_it_is_stopped(half, hub_redis):
    sweeper, (wanted,) = half.sweeper, half.overdue(1, of_each=1)
    sweeper.start()
    assert sweeper.grace.is_on
    assert half.news == []
    hub_redis.crash()
    until(lambda: half.hub.away, "the outage to be seen")
    sweeper.grace._began = None  # it has run for long
    hub_redis.running.start()
    until(lambda: half.news == [wanted.id], "the sweep")
    sweeper.stop()
    until(lambda: not sweeper._loop.thread.is_alive(), "its thread to end")
    more = half.overdue(1, of_each=1)
    assert sweeper.run_once() == 0, "what was stopped ends nothing more"
    assert not half.ledger.read(more[0].id).done


def test_a_sweep_in_its_grace_ends_nothing(half, monkeypatch):
    looks, real = [], type(half.sweeper.grace).is_on.fget
    monkeypatch.setattr(type(half.sweeper.grace), "is_on", property(lambda grace: looks.append(1) or real(grace)))
    half.overdue(1, of_each=1)
    half.sweeper.start()
    until(lambda: len(looks) >= 3, "three looks")
    half.sweeper.stop()
    assert half.news == []


def test_parts_that_are_gone_are_looked_for_once_a_minute(half, monkeypatch):
    real, looks = half.ledger.regions, []
    monkeypatch.setattr(half.ledger, "regions", lambda regions: looks.append(1) or real(regions))
    for _ in range(3):
        half.sweeper.run_once()
    assert looks == [1]
    assert 50 < half.sweeper._forget_at - time.monotonic() <= 60


def test_a_grace_is_fifteen_seconds_and_one_begins_a_minute_after_another():
    now = [0.0]
    grace = Grace(lambda: now[0])
    grace.begin()
    seen = []
    for now[0] in (14.9, 15.0, 59.9):
        grace.begin()
        seen.append(grace.is_on)
    assert seen == [True, False, False]
    now[0] = 60.0
    assert not grace.is_on
    grace.begin()
    assert grace.is_on


@pytest.fixture
def sweeper(parts):
    found, hub, ledger, _, news = parts
    publisher = Publisher(found)
    return Sweeper(found, hub, ledger, Cleaner(hub, ledger, publisher), news.extend)


def test_the_sweep_expires_what_is_past_deadline_and_grace_and_nothing_else(parts, hub_redis, sweeper):
    _, _, ledger, _, news = parts
    due, _ = accepted(ledger, ("fra", "nyc"))
    fresh, _ = accepted(ledger)
    past = connect.redis_now_ms(hub_redis.client) - 1
    hub_redis.client.zadd(names.DUE, {names.due_member(due.id, task.id): past for task in due.tasks})
    assert sweeper.run_once() == 2
    assert sweeper.run_once() == 0
    assert set(news) == {due.id}
    view = ledger.read(due.id)
    assert (view.done, view.status) == (True, "failed")
    assert {json.loads(result)["task"] for result in view.results} == {task.id for task in due.tasks}
    assert {json.loads(result)["error"]["type"] for result in view.results} == {"expired"}
    assert not ledger.read(fresh.id).done


def test_a_result_that_came_before_the_sweep_wins(parts, hub_redis, sweeper):
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.deadline_ms)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the result")
    hub_redis.client.zadd(names.DUE, {names.due_member(new.id, new.tasks[0].id): 1})
    assert sweeper.run_once() == 0
    assert ledger.read(new.id).status == "succeeded"


def test_an_accept_that_a_dead_gateway_left_open_is_refused(parts, hub_redis, sweeper):
    _, _, ledger, _, _ = parts
    new = new_request()
    ledger.begin(new)
    hub_redis.client.hset(names.ledger(new.id), "lease", 1)
    hub_redis.client.zadd(names.ACCEPTING, {new.id: 1})
    sweeper.run_once()
    assert ledger.accept([new.id])[0] == [False]
    assert ledger.read(new.id) is None
    assert hub_redis.client.zcard(names.ACCEPTING) == 0


def test_an_expired_ledger_leaves_nothing_to_sweep(parts, hub_redis, sweeper):
    _, _, ledger, _, _ = parts
    new, _ = accepted(ledger)
    hub_redis.client.delete(names.ledger(new.id))
    hub_redis.client.zadd(names.DUE, {names.due_member(new.id, new.tasks[0].id): 1})
    assert sweeper.run_once() == 0
    assert hub_redis.client.zcard(names.DUE) == 0
    assert hub_redis.client.zcard(names.open_tasks("fra")) == 0


def test_what_a_part_said_is_forgotten_an_hour_after_it_is_gone(parts, hub_redis, sweeper):
    _, _, ledger, _, _ = parts
    client = hub_redis.client
    now = connect.redis_now_ms(client)
    said = {"bridge:old:1": now - FORGET_PART_MS - 1, "bridge:new:2": now}
    for part, at_ms in said.items():
        client.hset(names.region_status("fra"), part, json.dumps({"at_ms": at_ms}))
    said_of_sources = {source: {"definition": "0a1b2c3d", "fault": None} for source in ("ecb.rates", "at_ms")}
    client.hset(names.region_status("fra"), "sources", json.dumps(said_of_sources))  # whatever a source is called
    sweeper.run_once()
    assert set(ledger.regions(["fra"])[0].reported) == {"bridge:new:2", "sources"}


def test_a_flapping_link_does_not_stop_the_sweep():
    now = [0.0]
    grace = Grace(lambda: now[0])
    assert not grace.is_on
    waited = 0.0
    grace.begin()
    for _ in range(600):  # a loss each tenth of a second for a minute
        now[0] += 0.1
        grace.begin()
        waited += 0.1 if grace.is_on else 0.0
    assert waited == pytest.approx(GRACE_SECONDS, abs=0.2)
    now[0] = GRACE_WINDOW_SECONDS + 1
    grace.begin()
    assert grace.is_on


def test_the_next_sweep_is_when_something_is_due_and_else_before_what_comes_meanwhile_can_be(half, monkeypatch):
    assert half.sweeper._turn() == CALM_SECONDS
    new = new_request()
    half.ledger.begin(new)
    half.ledger.accept([new.id])
    assert half.sweeper._turn() == CALM_SECONDS
    due_ms = half.ledger.now_ms() + 2_000
    half.client.zadd(names.DUE, {names.due_member(new.id, new.tasks[0].id): due_ms})
    assert EVERY_SECONDS <= half.sweeper._turn() <= 2.0
    sweeper = Sweeper(half.settings, half.hub, half.ledger, half.cleaner, half.news.extend)
    monkeypatch.setattr(sweeper.grace, "begin", lambda: None)
    sweeper.start()
    until(lambda: half.ledger.read(new.id).done, "its end")
    sweeper.stop()
    assert due_ms <= half.ledger.now_ms()
    assert half.news == [new.id]


def test_the_next_sweep_is_when_the_first_of_accepts_and_tasks_is_due(half):
    new = new_request()
    half.ledger.begin(new)

    def next_ms() -> int:
        return scripts.OVERDUE.call(half.client, accepting=names.ACCEPTING, due=names.DUE, lease_ms=LEASE_MS, most=9)[3]

    member = names.due_member(new.id, new.tasks[0].id)
    now_ms = half.ledger.now_ms()
    for accept, task in ((100_000, 200_000), (200_000, 100_000)):
        half.client.zadd(names.ACCEPTING, {new.id: now_ms + accept})
        half.client.zadd(names.DUE, {member: now_ms + task})
        assert 0 < next_ms() <= 100_000
    half.client.zrem(names.DUE, member)
    assert 100_000 < next_ms() <= 200_000
    half.client.zrem(names.ACCEPTING, new.id)
    assert next_ms() < 0


def test_without_grace_the_sweep_looks_as_often_as_ever(half):
    limits = structs.replace(half.settings.limits, grace_seconds=0.0)
    found = structs.replace(half.settings, limits=limits)
    assert Sweeper(found, half.hub, half.ledger, half.cleaner, half.news.extend)._turn() == EVERY_SECONDS
