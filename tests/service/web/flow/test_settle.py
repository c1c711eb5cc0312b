"""The reader of the out streams and the sweep, on a real Redis."""

import json
import time
from queue import SimpleQueue

import pytest

from regions import connect, names
from tests.service.hub_parts import frame, new_request, send_home, settings
from tests.waiting import until
from web.api.wait import PIECES_AT_ONCE, Waiters
from web.flow import settle
from web.flow.clean import Cleaner
from web.flow.listen import Listener
from web.flow.publish import Publisher
from web.flow.settle import Settler
from web.flow.sweep import FORGET_PART_MS, GRACE_SECONDS, GRACE_WINDOW_SECONDS, Grace, Sweeper
from web.hub import scripts
from web.hub.ledger import Ledger, New, Settlement, Times
from web.hub.redis import Hub


@pytest.fixture
def parts(tmp_path, hub_redis):
    found = settings(tmp_path, redis=hub_redis.url)
    hub = Hub(found)
    hub.start()
    ledger = Ledger(hub.client, found.limits)
    news = []
    settler = Settler(found, hub, ledger, news.extend)
    yield found, hub, ledger, settler, news
    hub.stop()


def accepted(ledger, regions=("fra",), **options):
    new = new_request(regions, **options)
    times = ledger.begin(new)
    assert ledger.accept([new.id])[0] == [True]
    return new, times


def test_what_regions_append_ends_tasks_and_is_trimmed(parts, hub_redis):
    _, _, ledger, settler, news = parts
    new, times = accepted(ledger, ("fra", "nyc", "sin"))
    for task in new.tasks:
        send_home(hub_redis.client, new, task, times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "all three tasks to be settled")
    assert news == [new.id + names.MORE, new.id + names.MORE, new.id]
    tasks = [json.loads(result)["task"] for result in ledger.read(new.id).results]
    assert sorted(tasks) == sorted(task.id for task in new.tasks)
    streams = [names.out_stream(region) for region in ("fra", "nyc", "sin")]
    until(lambda: settler.run_once() or not any(map(hub_redis.client.xlen, streams)), "the streams to be empty")
    assert not any(hub_redis.client.xpending(stream, names.GATEWAYS)["pending"] for stream in streams)


def test_the_same_entry_twice_is_one_result(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 20)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the task to be settled")
    assert len(ledger.read(new.id).results) == 1


def test_a_late_success_is_expired_and_says_so(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.deadline_ms + 1)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the task to be settled")
    result = json.loads(ledger.read(new.id).results[0])
    assert (result["status"], result["source"], result["error"]["type"]) == ("expired", "ecb.rates", "expired")
    assert result["records"] == []


def test_results_that_may_not_count_are_looked_up_together(parts, hub_redis):
    """A ledger read for each kept the settler from all others: after an outage, or where a region lies of sizes."""
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger, ("fra",) * 40)
    for task in new.tasks:
        send_home(hub_redis.client, new, task, times.deadline_ms + 1)
    hub_redis.client.config_resetstat()
    stream = names.out_stream("fra")
    until(lambda: settler.run_once() or not hub_redis.client.xlen(stream), "the stream to be empty")
    assert "cmdstat_hgetall" not in hub_redis.client.info("commandstats")
    assert {task.status for task in ledger.tasks(new.id)} == {"expired"}


@pytest.mark.parametrize("spoil", ["HDEL", "SET"])
def test_a_request_whose_ledger_is_broken_keeps_no_other_from_its_end(parts, hub_redis, spoil):
    _, _, ledger, settler, _ = parts
    (broken, times), (new, _) = accepted(ledger), accepted(ledger)
    key = names.ledger(broken.id)
    hub_redis.client.hdel(key, "bytes") if spoil == "HDEL" else hub_redis.client.set(key, "x")
    for one in (broken, new):
        send_home(hub_redis.client, one, one.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the other to be settled")


def test_a_dead_gateways_entries_are_taken_over(parts, hub_redis, monkeypatch):
    found, hub, ledger, settler, _ = parts
    monkeypatch.setattr(settle, "TAKE_OVER_MS", 1)
    monkeypatch.setattr(settle, "HOUSEKEEPING_SECONDS", 0)
    new, times = accepted(ledger)
    dead = Settler(found, hub, ledger, lambda _: None)
    dead._make_groups()
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    dead._backlog = False
    assert len(dead._read()) == 1  # and it dies here: nothing took effect, nothing is acknowledged
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the dead gateway's entry to be taken over")


def consumers(client, region="fra"):
    return {one["name"].decode() for one in client.xinfo_consumers(names.out_stream(region), names.GATEWAYS)}


def test_gateways_that_are_gone_leave_the_group_but_not_with_entries_nor_for_a_pause(parts, hub_redis, monkeypatch):
    found, hub, ledger, settler, _ = parts
    monkeypatch.setattr(settle, "HOUSEKEEPING_SECONDS", 0)
    monkeypatch.setattr(settle, "BLOCK_SECONDS", 0.01)
    new, times = accepted(ledger)
    gone, holds = (Settler(found, hub, ledger, lambda _: None) for _ in range(2))
    for one in (gone, holds):
        one._make_groups()
        one._backlog = False
        one._read()
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(holds._read, "the entry to be read")
    settler.run_once()
    assert {gone.consumer, holds.consumer} <= consumers(hub_redis.client), "they may be paused"
    monkeypatch.setattr(settle, "FORGET_CONSUMER_MS", 1)
    until(lambda: settler.run_once() or gone.consumer not in consumers(hub_redis.client), "it to be forgotten")
    assert {holds.consumer, settler.consumer} <= consumers(hub_redis.client)
    monkeypatch.setattr(settle, "TAKE_OVER_MS", 1)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "what the other one held")


def test_as_many_entries_are_read_at_once_as_come(parts, hub_redis):
    _, _, _, settler, _ = parts
    settler._make_groups()
    settler._backlog, sizes = False, []
    for count in (10, 40, 300, 0):
        for _ in range(count):
            hub_redis.client.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": "[]"})
        read = settler._read()
        sizes.append((len(read), settler._count))
        settler._handle(read)
        settler._acknowledge()
    assert sizes == [(10, 50), (40, 80), (80, 160), (160, 320)]
    assert len(settler._read()) == 60
    assert settler._count == 120
    for _ in range(600):
        hub_redis.client.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": "[]"})
    while settler._read():
        assert settler._count <= settle.BATCH
    assert settler._count == settle.BATCH_MIN


def test_an_outage_is_waited_out_with_pauses_that_grow(parts, hub_redis, monkeypatch):
    _, hub, ledger, settler, _ = parts
    paused, tries, real = [], [], settler.run_once
    monkeypatch.setattr(settle.connect, "backoff_seconds", lambda failures: paused.append(failures) or 0.01)
    settler.run_once = lambda: tries.append(1) or real()
    settler.start()
    until(lambda: tries, "a turn")
    assert paused == []
    hub_redis.crash()
    until(lambda: len(paused) >= 4, "pauses")
    assert paused[:4] == [1, 2, 3, 4]
    hub_redis.running.start()
    new, times = accepted_when_back(hub, ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: ledger.read(new.id).done, "the result")
    paused.clear()
    hub_redis.crash()
    until(lambda: paused, "a pause")
    assert paused[0] == 1
    settler.stop()
    assert not settler._loop.thread.is_alive()
    hub_redis.running.start()


def test_what_an_error_kept_from_taking_effect_comes_again(parts, hub_redis, monkeypatch):
    """What was read belongs to its reader: nobody else looks at it for five seconds."""
    _, hub, ledger, settler, _ = parts
    monkeypatch.setattr(settle, "TAKE_OVER_MS", 3_600_000)
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    real = ledger.settle

    def dying(settlements):
        monkeypatch.setattr(ledger, "settle", real)
        hub_redis.crash()
        return real(settlements)

    monkeypatch.setattr(ledger, "settle", dying)
    settler.start()
    until(lambda: hub.away, "the outage")
    hub_redis.running.start()
    until(lambda: hub.away is None, "the hub")
    until(lambda: ledger.read(new.id).done, "the result")
    settler.stop()


def test_the_settler_tells_when_the_hub_is_away(tmp_path, hub_redis):
    found = settings(tmp_path, redis=hub_redis.url)
    hub = Hub(found)
    hub.run_once()  # and nobody looks after that
    settler = Settler(found, hub, Ledger(hub.client, found.limits), lambda _: None)
    settler.start()
    hub_redis.crash()
    until(lambda: hub.away, "the outage")
    settler.stop()
    hub.client.close()


def test_a_group_that_somebody_destroyed_is_made_again(parts, hub_redis, monkeypatch):
    _, _, ledger, settler, _ = parts
    monkeypatch.setattr(settle, "HOUSEKEEPING_SECONDS", 3_600)
    settler.run_once()
    hub_redis.client.xgroup_destroy(names.out_stream("fra"), names.GATEWAYS)
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the result")


@pytest.mark.parametrize(("count", "apart"), [(settle.REFUSED_MAX, set()), (settle.REFUSED_MAX + 1, {"fra"})])
def test_a_region_of_whose_entries_many_are_refused_at_once_is_read_apart(parts, hub_redis, count, apart):
    _, _, _, settler, _ = parts
    settler._make_groups()
    for number in range(count):
        hub_redis.client.xadd(names.out_stream("fra"), {"x": number})
    hub_redis.client.xadd(names.out_stream("nyc"), {"x": 1})
    settler._backlog = False
    settler._handle(settler._read())
    assert set(settler._apart) == apart


def test_groups_are_made_once(parts, hub_redis):
    _, _, _, settler, _ = parts
    settler.run_once()
    hub_redis.client.config_resetstat()
    settler.run_once()
    assert "cmdstat_xgroup|create" not in hub_redis.client.info("commandstats")


def test_a_settler_that_ends_says_what_took_effect(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger)
    settler._make_groups()
    settler._backlog = False
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    settler._handle(settler._read())
    assert ledger.read(new.id).done
    assert hub_redis.client.xlen(names.out_stream("fra")) == 1
    settler._finish()
    assert hub_redis.client.xlen(names.out_stream("fra")) == 0


def test_a_region_whose_stream_was_none_is_read_apart_for_half_a_minute(parts, hub_redis, monkeypatch):
    _, _, ledger, settler, _ = parts
    hub_redis.client.set(names.out_stream("fra"), "x")
    now = time.monotonic()
    settler.run_once()
    assert set(settler._apart) == {"fra"}
    assert settle.APART_SECONDS <= settler._apart["fra"] - now < settle.APART_SECONDS + 60
    new, times = accepted(ledger, ("fra", "nyc"))
    for task in new.tasks:
        send_home(hub_redis.client, new, task, times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "both results")
    settler._apart["fra"] = now
    until(lambda: settler.run_once() or not settler._apart, "its time to be over")


def test_a_region_that_is_read_apart_is_read_in_bytes_that_keep_nobody_waiting(parts, hub_redis):
    _, _, _, settler, _ = parts
    settler._make_groups()
    settler._set_apart("fra", "a test")
    for _ in range(400):
        hub_redis.client.xadd(names.out_stream("fra"), {"x": "x" * 5_000})
    read = []
    while found := settler._read_apart():
        read.append((len(found), settler._apart_count))
    assert read[:6] == [(100, 50), (50, 25), (25, 50), (50, 25), (25, 50), (50, 25)]
    assert sum(count for count, _ in read) == 400
    for count in (100, 100):
        settler._read_apart()
        assert settler._apart_count == count
    settler._apart_count = 1
    hub_redis.client.xadd(names.out_stream("fra"), {"x": "x" * 300_000})
    settler._read_apart()
    assert settler._apart_count == 1


def accepted_when_back(hub, ledger):
    until(lambda: hub.away is None, "the hub")
    return accepted(ledger)


def test_what_was_read_and_not_finished_comes_again_after_an_error(parts, hub_redis, monkeypatch):
    _, _, ledger, settler, _ = parts
    monkeypatch.setattr(settle, "TAKE_OVER_MS", 3_600_000)
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler._make_groups() or settler._read(), "the entry to be read")  # and lost on the way
    settler._backlog = True  # what run() does after an error
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the entry to come again")


def test_an_unknown_version_fails_the_task_and_names_both(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10, v=7)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the task to be settled")
    error = json.loads(ledger.read(new.id).results[0])["error"]
    assert error["type"] == "internal"
    assert "0 to 2" in error["message"]
    assert "7" in error["message"]


def test_garbage_in_a_stream_is_passed_over(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    for fields in ({"x": "y"}, {"k": "result", "v": "1"}, {"k": "nonsense", "v": 1}, {"k": "status", "v": 1, "d": "{"}):
        hub_redis.client.xadd(names.out_stream("fra"), fields)
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the good entry behind the bad ones")
    until(lambda: settler.run_once() or not hub_redis.client.xlen(names.out_stream("fra")), "the stream to be empty")


def test_status_and_claims_are_kept_for_the_views(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, _ = accepted(ledger)
    client = hub_redis.client
    said = {"k": "status", "v": 1, "part": "bridge", "name": "h:1", "d": '{"at_ms":5,"state":"consuming"}'}
    client.xadd(names.out_stream("fra"), said)
    claims = json.dumps([[new.id, new.tasks[0].id, 1, 5]])
    client.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": claims})
    until(lambda: settler.run_once() or ledger.tasks(new.id)[0].status == "running", "the claim")
    until(lambda: settler.run_once() or ledger.regions(["fra"])[0].reported, "the status")
    assert ledger.regions(["fra"])[0].reported == {"bridge:h:1": {"at_ms": 5, "state": "consuming"}}


def test_a_full_hub_refuses_what_regions_say_and_not_the_result_behind_it(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    client = hub_redis.client
    new, times = accepted(ledger)
    said = {"k": "status", "v": 1, "part": "bridge", "name": "h:1", "d": '{"at_ms":5,"state":"consuming"}'}
    client.xadd(names.out_stream("fra"), said)
    until(lambda: settler.run_once() or client.xpending(names.out_stream("fra"), names.GATEWAYS)["pending"], "the read")
    send_home(client, new, new.tasks[0], times.created_ms + 10)
    client.config_set("maxmemory", 1)
    settler.run_once()  # one turn: the refused status and the result
    assert ledger.read(new.id).done
    client.config_set("maxmemory", 0)
    assert ledger.regions(["fra"])[0].reported == {}


def test_a_hub_that_comes_back_loses_no_result(parts, hub_redis):
    _, hub, ledger, settler, _ = parts
    new, times = accepted(ledger, ("fra", "nyc"))
    settler.start()
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: ledger.read(new.id).completed == 1, "the first result")
    hub_redis.crash()
    until(lambda: hub.away, "the outage to be noticed")
    hub_redis.running.start()
    until(lambda: hub.away is None, "the hub to be regained")
    send_home(hub_redis.client, new, new.tasks[1], times.created_ms + 20)
    until(lambda: ledger.read(new.id).done, "the second result")
    settler.stop()
    tasks = [json.loads(result)["task"] for result in ledger.read(new.id).results]
    assert tasks == [task.id for task in new.tasks]


def test_what_a_hub_settled_and_forgot_is_settled_again(parts, hub_redis):
    """It was killed while it had not written it, and is back before the gateway goes on: nothing is deleted by then."""
    _, _, ledger, settler, _ = parts
    settler.run_once()
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    size = hub_redis.written()
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the result")
    hub_redis.forget(size)
    assert not ledger.read(new.id).done
    settler.start()
    until(lambda: ledger.read(new.id).done, "the result again")
    settler.stop()
    assert [json.loads(result)["task"] for result in ledger.read(new.id).results] == [new.tasks[0].id]


def test_news_of_another_gateway_are_heard_and_a_gap_re_reads(parts, hub_redis):
    found, _, ledger, settler, _ = parts
    heard, gaps = [], []
    listener = Listener(found, heard.extend, lambda: gaps.append(1))
    listener.start()
    until(lambda: gaps, "the subscription")
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or heard, "the news")
    assert set(heard) == {new.id}
    hub_redis.client.client_kill_filter(_type="pubsub")
    until(lambda: len(gaps) == 2, "the subscription again")
    listener.stop()


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
    client.hset(names.region_status("fra"), "sources", '{"ecb.rates": {"definition": "0a1b2c3d", "fault": null}}')
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


class Reader:
    """A waiter that says when it was read."""

    waits_for_end = True
    needs_written = False

    def __init__(self, request: str, *, is_bulk: bool = False) -> None:
        self.is_bulk = is_bulk
        self.request, self.timer, self.whys = request, time.monotonic() + 60, SimpleQueue()

    def cursor(self) -> str:
        return "0-0"

    def is_behind(self) -> bool:
        return False

    def take(self, view, why) -> str:
        self.whys.put((why, view is not None and view.done))
        return "wait"


def test_who_waits_for_news_comes_before_who_reads_large_answers(parts):
    """Each of their pieces is 262 kB: behind those of hundreds, an answer that was there waited for a second."""
    _, hub, ledger, _, _ = parts
    waiters = Waiters(hub, ledger)
    bulk, quick = [Reader(accepted(ledger)[0].id, is_bulk=True) for _ in range(40)], Reader(accepted(ledger)[0].id)
    for reader in (*bulk, quick):
        waiters.register(reader)
    waiters.run_once()
    assert quick.whys.get_nowait() == ("news", False)
    assert sum(not reader.whys.empty() for reader in bulk) == PIECES_AT_ONCE
    for _ in range(len(bulk) // PIECES_AT_ONCE - 1):  # and all of those are read in turn
        waiters.run_once()
    assert all(reader.whys.qsize() == 1 for reader in bulk)


def test_who_was_expected_reads_only_what_happened_meanwhile(parts):
    """A post that waits needs no first read: nobody knew of it before. News that overtake its accept are not lost."""
    _, hub, ledger, _, _ = parts
    waiters = Waiters(hub, ledger)
    waiters.start()

    def end(new: New, _: Times) -> None:
        (task,) = new.tasks
        ended = Settlement(
            request=new.id, task=task.id, region="fra", status="failed", finished_ms=1, size_bytes=9, frame=frame(task)
        )
        assert ledger.settle([ended]) == [scripts.LAST]

    early, late, missed = (accepted(ledger) for _ in range(3))
    for new, _ in (early, late, missed):
        waiters.expect(new.id)
    end(*early)
    waiters.news([early[0].id])
    first, second, third = (Reader(new.id) for new, _ in (early, late, missed))
    waiters.register(first)
    waiters.register(second)
    assert first.whys.get(timeout=10) == ("news", True)
    end(*late)
    waiters.news([late[0].id])
    assert second.whys.get(timeout=10) == ("news", True)  # the first that it reads
    end(*missed)
    waiters.all()
    waiters.register(third)
    assert third.whys.get(timeout=10) == ("news", True)
    waiters.stop()
