"""The ledger on a real Redis: accepted as a whole or not at all, each task ended once, read since a cursor."""

import json
from pathlib import Path

import msgspec
import pytest
import redis

from jobs import result_frame
from regions import connect, names
from regions.lua_files import Folder
from regions.script import Script
from regions.settings import Limits
from tests.service.hub_parts import frame, new_request
from tests.waiting import until
from web.hub import scripts
from web.hub.keys import KeyLimits
from web.hub.ledger import ACCEPT_LEASE_MS, REPEATABLE_MS, Ledger
from web.hub.new_request import Begun, Limited, New, Repeatable, Repeated
from web.hub.settlement import Settlement


@pytest.fixture
def ledger(hub_redis):
    return Ledger(hub_redis.client, Limits())


def settlement(new, task, times, **changes) -> Settlement:
    said = {"status": "succeeded", "finished_ms": times.created_ms + 5, "size_bytes": 700, "region": task.region}
    return Settlement(request=new.id, task=task.id, **{**said, **changes})


def put_result(client, task) -> None:
    client.set(names.result(task.region, task.id), frame(task))


def put_results(client, *requests) -> None:
    for new in requests:
        for task in new.tasks:
            put_result(client, task)


def test_nothing_is_read_before_the_accept_even_when_a_region_was_faster(ledger, hub_redis):
    new = new_request()
    times = ledger.begin(new)
    put_result(hub_redis.client, new.tasks[0])
    assert ledger.settle([settlement(new, new.tasks[0], times)]) == [scripts.LAST]
    assert ledger.read(new.id) is None
    assert ledger.accept([new.id])[0] == [True]
    view = ledger.read(new.id)
    assert view.done
    assert view.status == "succeeded"
    assert json.loads(view.results[0])["records"] == [{"currency": "USD", "rate": "1.1"}]
    assert json.loads(view.attrs) == {"a": [1]}


def test_a_task_ends_once_whoever_says_so_again(ledger, hub_redis):
    new = new_request(("fra", "nyc"))
    put_results(hub_redis.client, new)
    times = ledger.begin(new)
    ledger.accept([new.id])
    first, second = new.tasks
    answers = ledger.settle(
        [
            settlement(new, first, times, status="failed"),
            settlement(new, first, times),
            settlement(new, second, times, region="sin"),
        ]
    )
    assert answers == [scripts.SETTLED, scripts.NOTHING, scripts.NOTHING]
    assert {task.id: task.status for task in ledger.tasks(new.id)} == {first.id: "failed", second.id: "queued"}


def test_tasks_that_end_together_end_as_one_by_one(ledger, hub_redis):
    """Of two requests in turn, more than one script takes, with repeats, another region's word, and ends that may not be."""
    together, singly = (
        [new_request(("fra", "nyc") * 60) for _ in range(2)],
        [new_request(("fra", "nyc") * 60) for _ in range(2)],
    )
    found = []
    for requests, settle in (
        (together, ledger.settle),
        (singly, lambda all_of_it: [ledger.settle([one])[0] for one in all_of_it]),
    ):
        said = []
        put_results(hub_redis.client, *requests)
        times = [ledger.begin(new) for new in requests]
        ledger.accept([new.id for new in requests])
        for number in range(120):
            for new, its in zip(requests, times, strict=True):
                task = new.tasks[number]
                late = {"finished_ms": its.deadline_ms + 1} if number == 7 else {}
                said.append(settlement(new, task, its, status="failed" if number % 9 == 0 else "succeeded", **late))
                if number % 10 == 0:
                    said += [settlement(new, task, its), settlement(new, new.tasks[number + 1], its, region="sin")]
        said += [settlement(new, new.tasks[7], its, status="expired") for new, its in zip(requests, times, strict=True)]
        answers = settle(said)
        ledgers = [hub_redis.client.hgetall(names.ledger(new.id)) for new in requests]
        ids = {task.id.encode(): b"%d" % n for new in requests for n, task in enumerate(new.tasks)}
        order = [
            [(ids[fields[b"t"]], fields[b"s"]) for _, fields in hub_redis.client.xrange(names.events(new.id))]
            for new in requests
        ]
        counts = [
            {key: its[key] for key in (b"completed", b"bytes", b"succeeded", b"failed", b"expired")} for its in ledgers
        ]
        found.append((answers, counts, order))
    assert found[0] == found[1]
    assert [answer for answer in found[0][0] if answer == scripts.LAST] == [scripts.LAST] * 2
    assert hub_redis.client.zcard(names.DUE) == 0


def test_a_cursor_leads_through_all_results_without_a_gap_or_a_repeat(ledger, hub_redis):
    new = new_request(("fra", "nyc", "sin"))
    times = ledger.begin(new)
    ledger.accept([new.id])
    for task in new.tasks:
        put_result(hub_redis.client, task)
        ledger.settle([settlement(new, task, times)])
    seen, cursor, more = [], "0-0", True
    while more:
        view = ledger.read(new.id, cursor, bytes_max=1000)
        assert len(view.results) == 1
        seen += [json.loads(result)["task"] for result in view.results]
        cursor, more = view.cursor, view.more
    assert seen == [task.id for task in new.tasks]
    assert ledger.read(new.id, cursor).results == []
    assert ledger.read(new.id, cursor).cursor == cursor


def test_a_success_after_its_deadline_does_not_settle(ledger):
    new = new_request()
    times = ledger.begin(new)
    late = settlement(new, new.tasks[0], times, finished_ms=times.deadline_ms + 1)
    assert ledger.settle([late]) == [scripts.LATE]
    assert ledger.tasks(new.id)[0].status == "queued"


@pytest.mark.parametrize("what", ["nothing", "another kind", "more than was said"])
def test_a_result_that_is_not_there_as_was_said_does_not_settle(ledger, hub_redis, what):
    client, new = hub_redis.client, new_request()
    key, most = names.result("fra", new.tasks[0].id), 700 + result_frame.HEAD_BYTES_MAX
    times = ledger.begin(new)
    if what == "another kind":
        client.rpush(key, frame(new.tasks[0]))
    elif what == "more than was said":
        client.set(key, b"x" * (most + 1))
    assert ledger.settle([settlement(new, new.tasks[0], times)]) == [scripts.NO_FRAME]
    assert ledger.tasks(new.id)[0].status == "queued"
    client.set(key, b"x" * most)
    assert ledger.settle([settlement(new, new.tasks[0], times)]) == [scripts.LAST]


def test_results_past_the_requests_bytes_do_not_settle(hub_redis):
    ledger = Ledger(hub_redis.client, Limits(request_bytes_max=1000))
    new = new_request(("fra", "nyc"))
    put_results(hub_redis.client, new)
    times = ledger.begin(new)
    answers = ledger.settle([settlement(new, task, times) for task in new.tasks])
    assert answers == [scripts.SETTLED, scripts.TOO_LARGE]


def test_a_refused_request_is_nothing_whatever_its_tasks_did(ledger, hub_redis):
    new = new_request(("fra", "nyc"))
    put_results(hub_redis.client, new)
    times = ledger.begin(new)
    ledger.settle([settlement(new, new.tasks[0], times)])
    ledger.accept([new.id])
    assert ledger.refuse(new.id, [(task.id, task.region) for task in new.tasks])
    assert ledger.read(new.id) is None
    assert ledger.accept([new.id])[0] == [False]
    assert ledger.settle([settlement(new, new.tasks[1], times)]) == [scripts.NOTHING]
    for key in (names.DUE, names.ACCEPTING, names.LISTED, names.open_tasks("fra"), names.open_tasks("nyc")):
        assert hub_redis.client.zcard(key) == 0
    assert not hub_redis.client.exists(names.events(new.id))


def test_a_live_lease_is_not_refused_as_lapsed(ledger):
    new = new_request()
    ledger.begin(new)
    assert not ledger.refuse(new.id, [(new.tasks[0].id, "fra")], lapsed_only=True)
    assert ledger.accept([new.id])[0] == [True]
    assert not ledger.refuse(new.id, [(new.tasks[0].id, "fra")], lapsed_only=True)


def test_an_accept_that_comes_too_late_changes_nothing(ledger, hub_redis):
    """Not even within its last millisecond: the clock that answers 503 has no such steps."""
    new = new_request()
    ledger.begin(new)
    for _ in range(20):
        assert ledger.accept([new.id], [ledger.now_ms()])[0] == [False]
    assert hub_redis.client.hget(names.ledger(new.id), "state") == b"accepting"
    assert hub_redis.client.zcard(names.ACCEPTING) == 1
    assert ledger.accept([new.id], [ledger.now_ms() + 60_000])[0] == [True]


def test_every_key_of_a_request_expires_when_the_request_does(ledger, hub_redis):
    new = new_request()
    times = ledger.begin(new)
    ledger.accept([new.id])
    ledger.settle([settlement(new, new.tasks[0], times, status="expired", frame=frame(new.tasks[0]))])
    keys = [names.ledger(new.id), names.events(new.id), names.result(names.HUB, new.tasks[0].id)]
    assert {hub_redis.client.pexpiretime(key) for key in keys} == {times.expires_ms}


def test_running_is_shown_only_for_what_was_queued(ledger, hub_redis):
    new = new_request(("fra", "fra"))
    put_results(hub_redis.client, new)
    times = ledger.begin(new)
    ledger.settle([settlement(new, new.tasks[0], times)])
    ledger.mark_running("fra", [(new.id, task.id, b"") for task in new.tasks])
    assert [task.status for task in ledger.tasks(new.id)] == ["succeeded", "running"]


def test_a_full_redis_refuses_a_new_request_and_still_settles(start_redis):
    instance = start_redis("full", maxmemory="64mb")
    ledger = Ledger(instance.client, Limits())
    new = new_request()
    times = ledger.begin(new)
    ledger.accept([new.id])
    put_results(instance.client, new)
    instance.client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        ledger.begin(new_request())
    assert ledger.settle([settlement(new, new.tasks[0], times, status="failed")]) == [scripts.LAST]


def test_a_redis_that_takes_no_writes_is_read_without_the_note_that_it_was(ledger, hub_redis):
    new = new_request()
    times = ledger.begin(new)
    put_result(hub_redis.client, new.tasks[0])
    ledger.accept([new.id])
    ledger.settle([settlement(new, new.tasks[0], times)])
    hub_redis.client.config_set("min-replicas-to-write", 1)
    assert len(ledger.read(new.id, how="poll").results) == 1
    assert not hub_redis.client.exists(names.trail(new.id))
    hub_redis.client.config_set("min-replicas-to-write", 0)
    assert len(ledger.read(new.id, how="poll").results) == 1
    assert hub_redis.client.hget(names.trail(new.id), f"d:{new.tasks[0].id}").endswith(b"|poll")
    assert hub_redis.client.pexpiretime(names.trail(new.id)) == times.expires_ms


def test_what_finished_too_long_ago_or_is_too_large_does_not_come_along(hub_redis):
    """The look is a part of the begin, and costs what it finds."""
    ledger = Ledger(hub_redis.client, Limits(answer_bytes_max=1000))
    first = new_request()
    times = ledger.begin(first)
    put_result(hub_redis.client, first.tasks[0])
    ended = settlement(first, first.tasks[0], times, finished_ms=times.created_ms - 30_000)
    assert ledger.settle([ended]) == [scripts.LAST]

    def kept(max_age: float, tasks: int = 1):
        return ledger.begin(msgspec.structs.replace(new_request(("fra",) * tasks), max_age=max_age)).latest

    assert (kept(0), kept(20)) == ([], [])
    (one,) = kept(60)
    assert (one.key, one.frame) == (names.result(names.settled("fra"), first.tasks[0].id), frame(first.tasks[0]))
    assert len(kept(60, tasks=2)) == 1  # 700 bytes each


def test_a_region_shows_its_open_tasks_and_the_oldest(ledger):
    new = new_request(("fra", "fra", "nyc"))
    times = ledger.begin(new)
    fra, nyc, sin = ledger.regions(["fra", "nyc", "sin"])
    assert (fra.open_tasks, nyc.open_tasks, sin.open_tasks) == (2, 1, 0)
    assert fra.oldest_ms == times.created_ms
    assert sin.oldest_ms is None
    assert fra.now_ms >= times.created_ms


def test_the_clock_is_the_hubs(ledger, hub_redis):
    before = connect.redis_now_ms(hub_redis.client)
    assert before <= ledger.begin(new_request()).created_ms <= connect.redis_now_ms(hub_redis.client)


def test_a_begun_request_stands_where_it_is_looked_for_by_its_times(ledger, hub_redis):
    client, new = hub_redis.client, new_request(("fra", "nyc"))
    times = ledger.begin(new)
    for task in new.tasks:
        assert client.zscore(names.DUE, names.due_member(new.id, task.id)) == times.deadline_ms + 5_000  # its grace
        assert client.zscore(names.open_tasks(task.region), names.due_member(new.id, task.id)) == times.created_ms
    assert client.zscore(names.ACCEPTING, new.id) == times.created_ms + ACCEPT_LEASE_MS
    assert (times.deadline_ms - times.created_ms, times.expires_ms - times.created_ms) == (30_000, 3_600_000)
    kept = {key: client.hget(names.ledger(new.id), key) for key in ("state", "completed", "bytes", "total")}
    assert kept == {"state": b"accepting", "completed": b"0", "bytes": b"0", "total": b"2"}
    assert client.hget(names.ledger(new.id), "lease") == str(times.created_ms + ACCEPT_LEASE_MS).encode()


def test_a_begun_request_leaves_what_was_asked_for_and_nothing_else(ledger, hub_redis):
    """Neither limits of a key, nor an Idempotency-Key, nor a webhook, nor what may move to another region."""
    client, new = hub_redis.client, new_request()
    ledger.begin(new)
    kept = {names.ledger(new.id), names.DUE, names.ACCEPTING, names.LISTED, names.open_tasks("fra")}
    assert {key.decode() for key in client.keys("*")} == kept
    known = {field.decode() for field in client.hkeys(names.ledger(new.id))}
    assert not known & {"used", "repeated", "tenant", "traceparent", "webhook"}
    assert not [field for field in known if field.startswith("m:")]


def test_a_request_that_may_move_is_kept_for_that_until_its_deadline_and_grace(ledger, hub_redis):
    new = new_request(("fra", "nyc"))
    tasks = [msgspec.structs.replace(new.tasks[0], may_move=True), new.tasks[1]]
    times = ledger.begin(msgspec.structs.replace(new, tasks=tasks))
    assert hub_redis.client.hkeys(names.ask(new.id)) == [new.tasks[0].id.encode()]
    assert hub_redis.client.pexpiretime(names.ask(new.id)) == times.deadline_ms + 5_000


def test_an_idempotency_key_is_its_first_requests_and_lives_as_long_as_that(ledger, hub_redis):
    client = hub_redis.client
    first, second = (
        msgspec.structs.replace(new_request(), repeatable=Repeatable("shop/k", digest)) for digest in ("d1", "d2")
    )
    times = ledger.begin(first)
    assert isinstance(times, Begun)
    assert isinstance(ledger.begin(first), Begun)  # sent again: its answer was lost
    assert ledger.begin(second) == Repeated(first.id, "d1")
    assert not client.exists(names.ledger(second.id))
    key = names.idempotency("shop/k")
    assert client.pexpiretime(key) >= times.expires_ms
    assert client.pttl(key) >= REPEATABLE_MS - 60_000
    assert client.hget(names.ledger(first.id), "repeated") == key.encode()
    assert ledger.refuse(first.id, [(first.tasks[0].id, "fra")])
    assert isinstance(ledger.begin(second), Begun)


def test_the_end_of_a_task_is_news_for_all_gateways_unless_the_one_that_waits_is_told_here(ledger, hub_redis):
    """Who sent the same Idempotency-Key may wait at another gateway."""
    listening = hub_redis.client.pubsub(ignore_subscribe_messages=True)
    listening.subscribe(names.WAKE)
    for repeatable, is_told, news in (
        (None, False, True),
        (None, True, False),
        (Repeatable("shop/n", "d"), True, True),
    ):
        new = msgspec.structs.replace(new_request(("fra", "nyc")), repeatable=repeatable)
        times = ledger.begin(new)
        ledger.accept([new.id])
        put_results(hub_redis.client, new)
        for task in new.tasks:
            ledger.settle_and_read([settlement(new, task, times)], [new.id] if is_told else [])
        hub_redis.client.publish(names.WAKE, "end")
        said = list(iter(lambda: until(listening.get_message, "news")["data"], b"end"))
        assert [one.startswith(new.id.encode()) for one in said] == [True] * (2 if news else 0)
        assert said[-1:] == ([new.id.encode()] if news else [])
    listening.close()


KEY = "3k9f0a2b"


def of_key(count: int = 1, **limits) -> New:
    """A request of a key with these limits, with so many tasks."""
    return msgspec.structs.replace(new_request(("fra",) * count), key=KEY, limits=KeyLimits(**limits))


def test_a_key_may_have_as_many_open_tasks_as_it_may(ledger, hub_redis):
    client, used = hub_redis.client, names.used(KEY)
    for has, more, may in ((0, 2, True), (2, 1, False), (1, 1, True), (1, 2, False), (-5, 2, True), (-5, 3, False)):
        client.hset(used, "open", has)
        begun = ledger.begin(of_key(more, open_tasks=2))
        assert isinstance(begun, Begun) if may else begun == Limited("open_tasks", "2", 1_000)
        assert int(client.hget(used, "open")) == has + (more if may else 0)


def test_a_key_may_keep_less_than_its_bytes_and_is_told_when_to_ask_again(ledger, hub_redis):
    client, used = hub_redis.client, names.used(KEY)

    def begun(expiring: dict[int, int]):
        """By what expires in which minute from now on."""
        client.delete(used)
        minute = connect.redis_now_ms(client) // 60_000
        client.hset(
            used, mapping={"all": sum(expiring.values()), **{str(minute + at): of for at, of in expiring.items()}}
        )
        return ledger.begin(of_key(bytes_kept=1_000))

    assert isinstance(begun({2: 999}), Begun)
    assert begun({9: 500, 3: 500}) == Limited("bytes_kept", "1000", 60_000)
    assert isinstance(begun({0: 1, 9: 999}), Begun)
    assert (client.hget(used, "all"), len(client.hkeys(used))) == (b"999", 3)  # with the open task


def test_a_key_has_the_requests_of_a_second_at_once_and_no_more(ledger, hub_redis):
    client, used = hub_redis.client, names.used(KEY)

    def begun(next_in_ms: int, rate: float):
        at = connect.redis_now_ms(client) + next_in_ms
        client.hset(used, "next", at)
        return ledger.begin(of_key(requests_per_second=rate)), float(client.hget(used, "next")) - at

    for next_in_ms, rate, after_ms in ((60_000, 10.0, 59_100), (50_000, 0.01, 50_000)):
        refused, moved_ms = begun(next_in_ms, rate)
        assert (refused.limit, refused.value, moved_ms) == ("requests_per_second", f"{rate:g}", 0)
        assert after_ms - 30_000 < refused.after_ms <= after_ms
    for next_in_ms, rate, least_ms in ((500, 10.0, 100), (-1, 0.01, 100_000), (-500_000, 0.01, 600_000)):
        taken, moved_ms = begun(next_in_ms, rate)
        assert isinstance(taken, Begun)
        assert least_ms <= moved_ms < least_ms + 30_000


EXCEEDED = Script(
    Folder(Path(scripts.__file__).with_name("lua")).compose(
        """\
-- What `exceeded` returns at a time that is given.
-- keys: used
-- args: count, now, rate, open, bytes
-- uses: now, use

local limits = {rate = tonumber(rate), open = tonumber(open), bytes = tonumber(bytes)}
return {exceeded(used, tonumber(count), tonumber(now), limits)}
"""
    )
)
AT = 29_000_000 * 60_000  # ms: a minute begins


def exceeded(client, has: dict[str, int], at_ms: int = AT, *, rate=0, open_tasks=0, bytes_kept=0) -> list:
    """What a key that has so much is told about one more task at a time: the limit, its value, after how many ms."""
    client.delete("used")
    client.hset("used", mapping=has)
    return EXCEEDED.call(client, used="used", count=1, now=at_ms, rate=rate, open=open_tasks, bytes=bytes_kept)


def test_bytes_of_a_key_count_until_the_minute_begins_in_which_they_expire(hub_redis):
    client, minute = hub_redis.client, AT // 60_000
    has = {"all": 1_000, str(minute): 1, str(minute + 1): 499, str(minute + 9): 500}
    assert exceeded(client, has, AT - 1, bytes_kept=1_000) == [b"bytes_kept", 1_000, 1]
    assert client.hgetall("used") == {name.encode(): b"%d" % value for name, value in has.items()}
    assert exceeded(client, has, AT, bytes_kept=1_000) == []
    assert client.hmget("used", "all", str(minute)) == [b"999", None]
    for at_ms, after_ms in ((AT + 60_000 - 1, 1), (AT + 15_000, 45_000), (AT - 15_000, 60_000)):
        later = {"all": 1_000, str(minute + 1): 500, str(minute + 9): 500}
        assert exceeded(client, later, at_ms, bytes_kept=1_000) == [b"bytes_kept", 1_000, after_ms]


def test_the_smallest_limits_of_a_key_are_limits(hub_redis):
    client = hub_redis.client
    assert exceeded(client, {"all": 0, "open": 0}, bytes_kept=1, open_tasks=1) == []
    assert exceeded(client, {"all": 1}, bytes_kept=1) == [b"bytes_kept", 1, 60_000]
    assert exceeded(client, {"open": 1}, open_tasks=1) == [b"open_tasks", 1, 1_000]


def test_a_key_whose_limits_were_lifted_has_none(hub_redis):
    """What it used up to then stays known."""
    has = {"open": 99, "all": 5_000, str(AT // 60_000 + 1): 5_000, "next": AT + 60_000}
    assert exceeded(hub_redis.client, has) == []
    assert hub_redis.client.hgetall("used") == {name.encode(): b"%d" % value for name, value in has.items()}


def test_the_requests_of_a_second_fit_a_rate_and_the_next_one_when_a_place_is_free(hub_redis):
    """A rate of less than one a second has one request at once."""
    client = hub_redis.client
    for rate, every, burst in ((1_000, 1, 1_000), (10, 100, 1_000), (1, 1_000, 1_000), (0.1, 10_000, 10_000)):
        assert exceeded(client, {"next": AT + burst - every}, rate=rate) == []
        assert float(client.hget("used", "next")) == AT + burst
        refused = exceeded(client, {"next": AT + burst - every + 7}, rate=rate)
        assert refused == [b"requests_per_second", int(rate), 7]
        assert client.hget("used", "next") == b"%d" % (AT + burst - every + 7)
        assert exceeded(client, {"next": AT - 5}, rate=rate) == []
        assert float(client.hget("used", "next")) == AT + every


def test_a_result_counts_for_its_key_until_the_minute_is_over_in_which_it_expires(ledger, hub_redis):
    new = msgspec.structs.replace(new_request(("fra", "fra")), key=KEY)
    times = ledger.begin(new)
    put_results(hub_redis.client, new)
    ledger.settle([settlement(new, task, times) for task in new.tasks])
    minute = b"%d" % (times.expires_ms // 60_000 + 1)
    assert hub_redis.client.hgetall(names.used(KEY)) == {b"open": b"0", b"all": b"1400", minute: b"1400"}


def test_a_task_without_a_result_that_is_kept_leaves_no_bytes_of_its_key(ledger, hub_redis):
    new = msgspec.structs.replace(new_request(), key=KEY)
    times = ledger.begin(new)
    ended = settlement(new, new.tasks[0], times, status="failed", size_bytes=0, frame=frame(new.tasks[0]))
    assert ledger.settle([ended]) == [scripts.LAST]
    assert hub_redis.client.hgetall(names.used(KEY)) == {b"open": b"0"}


def test_a_request_is_accepted_once_and_by_a_lease_that_lives(ledger, hub_redis):
    new, late = new_request(), new_request()
    times = ledger.begin(new)
    assert [ledger.accept([new.id])[0] for _ in range(2)] == [[True], [False]]
    assert times.created_ms <= int(hub_redis.client.hget(names.ledger(new.id), "accepted")) < times.created_ms + 60_000
    assert hub_redis.client.zcard(names.ACCEPTING) == 0
    ledger.begin(late)
    hub_redis.client.hset(names.ledger(late.id), "lease", connect.redis_now_ms(hub_redis.client))
    assert ledger.accept([late.id])[0] == [False]
    assert ledger.refuse(late.id, [(late.tasks[0].id, "fra")], lapsed_only=True)
    assert hub_redis.client.zcard(names.ACCEPTING) == 0


def test_who_looks_for_lapsed_accepts_forgets_those_that_are_accepted(ledger, hub_redis):
    new = new_request()
    ledger.begin(new)
    ledger.accept([new.id])
    hub_redis.client.zadd(names.ACCEPTING, {new.id: 1})
    assert not ledger.refuse(new.id, [(new.tasks[0].id, "fra")], lapsed_only=True)
    assert hub_redis.client.zcard(names.ACCEPTING) == 0
    assert ledger.read(new.id) is not None
    assert hub_redis.client.zcard(names.DUE) == 1
    live = new_request()
    ledger.begin(live)
    assert not ledger.refuse(live.id, [(live.tasks[0].id, "fra")], lapsed_only=True)
    assert hub_redis.client.zrange(names.ACCEPTING, 0, -1) == [live.id.encode()]


def test_refusing_what_the_hub_does_not_know_makes_no_ledger(ledger, hub_redis):
    places = names.DUE, names.open_tasks("fra")
    for place in places:
        hub_redis.client.zadd(place, {names.due_member("01UNKNOWN", "01T"): 1})  # its ledger has expired
    assert ledger.refuse("01UNKNOWN", [("01T", "fra")])
    assert not hub_redis.client.exists(names.ledger("01UNKNOWN"), *places)


def test_a_refused_request_gives_back_to_its_key_the_tasks_that_had_not_ended_and_once(ledger, hub_redis):
    client, new = (
        hub_redis.client,
        msgspec.structs.replace(new_request(("fra", "fra", "fra", "nyc", "nyc")), key=KEY, tenant="shop"),
    )
    used = names.used(KEY)
    times = ledger.begin(new)
    put_results(client, new)
    ledger.settle([settlement(new, new.tasks[0], times)])
    ledger.mark_running("fra", [(new.id, task.id, b"") for task in new.tasks[1:3]])
    before = client.hgetall(used)
    assert before[b"open"] == b"4", "one has ended, two run, two are queued"
    for _ in range(2):
        assert ledger.refuse(new.id, [(task.id, task.region) for task in new.tasks])
        assert client.hgetall(used) == {**before, b"open": b"0"}
        assert not client.zcard(names.LISTED)


@pytest.mark.parametrize(("archives", "accepted", "noted"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_what_was_accepted_before_it_was_refused_is_taken_back_from_the_history_too(
    hub_redis, archives, accepted, noted
):
    ledger, new = Ledger(hub_redis.client, Limits(), archives=archives), new_request()
    ledger.begin(new)
    if accepted:
        ledger.accept([new.id])
    assert ledger.refuse(new.id, [(new.tasks[0].id, "fra")])
    assert hub_redis.client.zcard(names.ARCHIVE) == noted


@pytest.mark.parametrize(
    ("archives", "accepted", "ahead_ms"), [(True, True, 0), (True, False, 1_000), (False, True, None)]
)
def test_a_request_that_is_done_is_noted_for_the_history(hub_redis, archives, accepted, ahead_ms):
    ledger, new = Ledger(hub_redis.client, Limits(), archives=archives), new_request()
    times = ledger.begin(new)
    if accepted:
        ledger.accept([new.id])
    put_results(hub_redis.client, new)
    ledger.settle([settlement(new, new.tasks[0], times)])
    done = int(hub_redis.client.hget(names.ledger(new.id), "done"))
    assert hub_redis.client.zscore(names.ARCHIVE, new.id) == (None if ahead_ms is None else done + ahead_ms)
    assert hub_redis.client.zcard(names.LISTED) == archives  # until the history has it


def test_a_region_may_hold_all_of_its_bytes_and_not_one_more(ledger, hub_redis):
    new = new_request(("fra", "fra"))
    times = ledger.begin(new)
    put_results(hub_redis.client, new)
    size, held = len(frame(new.tasks[0])), names.held("fra")
    one, other = (settlement(new, task, times, held_max=2 * size - 1) for task in new.tasks)
    assert ledger.settle([one, other]) == [scripts.SETTLED, scripts.NO_ROOM]
    assert hub_redis.client.hget(held, "all") == str(size).encode()
    assert ledger.settle([msgspec.structs.replace(other, held_max=2 * size)]) == [scripts.LAST]
    assert hub_redis.client.hget(held, "all") == str(2 * size).encode()


def test_a_copy_of_a_result_counts_for_its_region_and_what_the_hub_itself_says_does_not(ledger, hub_redis):
    new, held = new_request(("fra", "fra")), names.held("fra")
    times = ledger.begin(new)
    copy, own = (settlement(new, task, times, frame=frame(task)) for task in new.tasks)
    assert ledger.settle([own]) == [scripts.SETTLED]
    assert not hub_redis.client.exists(held)
    size = len(copy.frame)
    bounded = [msgspec.structs.replace(copy, held_max=most) for most in (size - 1, size)]
    assert ledger.settle(bounded) == [scripts.NO_ROOM, scripts.LAST]
    assert hub_redis.client.hget(held, "all") == str(size).encode()


def test_results_may_take_all_of_a_requests_bytes(hub_redis):
    ledger = Ledger(hub_redis.client, Limits(request_bytes_max=1_400))
    new = new_request(("fra", "nyc", "sin"))
    put_results(hub_redis.client, new)
    times = ledger.begin(new)
    ended = [settlement(new, task, times) for task in new.tasks]
    assert ledger.settle(ended) == [scripts.SETTLED, scripts.SETTLED, scripts.TOO_LARGE]
    assert ledger.settle(ended[2:]) == [scripts.TOO_LARGE]
    assert ledger.settle([settlement(new, new.tasks[2], times, status="failed")]) == [
        scripts.LAST
    ]  # a failure always may


def test_as_many_results_are_read_as_have_room_and_one_at_least(ledger, hub_redis):
    new = new_request(("fra", "nyc", "sin"))
    times = ledger.begin(new)
    ledger.accept([new.id])
    put_results(hub_redis.client, new)
    ledger.settle([settlement(new, task, times) for task in new.tasks])
    end = ledger.read(new.id).cursor
    for bytes_max, count in ((1, 1), (1_399, 1), (1_400, 2), (2_099, 2), (2_100, 3)):
        view = ledger.read(new.id, bytes_max=bytes_max)
        assert (len(view.results), view.more) == (count, count < 3)
        assert view.last == (end if view.more else "")  # where an answer in pieces ends


def test_as_many_results_come_along_as_have_room_each_for_its_task(hub_redis):
    first = new_request()
    whole = Ledger(hub_redis.client, Limits())
    times = whole.begin(first)
    put_result(hub_redis.client, first.tasks[0])
    whole.settle([settlement(first, first.tasks[0], times)])
    for room, numbers in ((699, []), (700, [0]), (1_399, [0]), (1_400, [0, 1])):
        asked = msgspec.structs.replace(new_request(("fra",) * 3), max_age=60.0)
        found = Ledger(hub_redis.client, Limits(answer_bytes_max=room)).begin(asked).latest
        assert [one.task for one in found] == [asked.tasks[number] for number in numbers]


def test_only_the_region_that_was_asked_says_that_a_task_runs(ledger, hub_redis):
    new = new_request()
    times = ledger.begin(new)
    (task,) = new.tasks
    ledger.mark_running("nyc", [(new.id, task.id, b"theirs")])
    assert ledger.tasks(new.id)[0].status == "queued"
    assert not hub_redis.client.exists(names.trail(new.id))
    for trail in (b"first", b"", b"second"):
        ledger.mark_running("fra", [(new.id, task.id, trail)])
        assert ledger.tasks(new.id)[0].status == "running"
    assert hub_redis.client.hget(names.trail(new.id), task.id) == b"second"
    assert hub_redis.client.pexpiretime(names.trail(new.id)) == times.expires_ms
    put_result(hub_redis.client, task)
    ledger.settle([settlement(new, task, times, trail=b"last")])
    ledger.mark_running("fra", [(new.id, task.id, b"late")])
    assert hub_redis.client.hget(names.trail(new.id), task.id) == b"last"


def test_a_result_that_comes_again_is_not_kept_twice(ledger, hub_redis):
    new = new_request()
    times = ledger.begin(new)
    (task,) = new.tasks
    put_result(hub_redis.client, task)
    ledger.settle([settlement(new, task, times)])
    put_result(hub_redis.client, task)
    assert ledger.settle([settlement(new, task, times)]) == [scripts.NOTHING]
    assert not hub_redis.client.exists(names.result("fra", task.id))
    assert hub_redis.client.exists(names.result(names.settled("fra"), task.id))


def test_the_latest_success_of_a_question_is_what_others_get(ledger, hub_redis):
    """By when it finished, not by when it was settled."""

    def ended(ago_ms: int):
        new = new_request()
        times = ledger.begin(new)
        put_results(hub_redis.client, new)
        ledger.settle([settlement(new, new.tasks[0], times, finished_ms=times.created_ms - ago_ms)])
        return names.result(names.settled("fra"), new.tasks[0].id)

    def latest() -> str:
        (one,) = ledger.begin(msgspec.structs.replace(new_request(), max_age=3_600.0)).latest
        return one.key

    middle = ended(5_000)
    assert latest() == middle
    ended(9_000)
    assert latest() == middle
    assert latest() == middle != (newer := ended(1_000))
    assert latest() == newer


def test_who_holds_a_lease_keeps_it_and_nobody_else_gets_it_meanwhile(hub_redis):
    client = hub_redis.client
    assert scripts.HOLD.call(client, lease="lease", who="me", lease_ms=60_000) == 1
    assert scripts.HOLD.call(client, lease="lease", who="another", lease_ms=60_000) == 0
    client.pexpire("lease", 1_000)
    assert scripts.HOLD.call(client, lease="lease", who="me", lease_ms=60_000) == 1
    assert 50_000 < client.pttl("lease") <= 60_000
    client.delete("lease")
    assert scripts.HOLD.call(client, lease="lease", who="another", lease_ms=60_000) == 1


def test_a_verdict_that_another_gateway_wrote_meanwhile_is_left(hub_redis):
    client = hub_redis.client
    for before, new, is_written in (("", "a", 1), ("", "b", 0), ("a", "b", 1), ("a", "c", 0)):
        assert scripts.JUDGE.call(client, verdicts="verdicts", source="s", before=before, verdict=new) == is_written
    assert client.hgetall("verdicts") == {b"s": b"b"}


def test_finished_requests_are_leased_to_one_archiver_and_forgotten_when_they_are_kept(hub_redis):
    client = hub_redis.client
    now = connect.redis_now_ms(client)
    client.zadd(names.ARCHIVE, {"due": now - 1, "due too": now - 1, "later": now + 60_000})
    assert scripts.LEASE.call(client, archive=names.ARCHIVE, lease_ms=30_000, most=10) == [b"due", b"due too"]
    assert scripts.LEASE.call(client, archive=names.ARCHIVE, lease_ms=30_000, most=10) == []
    assert now + 29_000 < client.zscore(names.ARCHIVE, "due") <= connect.redis_now_ms(client) + 30_000
    client.hset("refused", "state", "refused")
    client.hset("accepted", "state", "accepted")
    told = [("due", 1, "accepted"), ("due too", 1, "refused"), ("later", 0, "refused")]
    scripts.ARCHIVED.call(
        client, archive=names.ARCHIVE, listed=names.LISTED, requests=[scripts.Archived(*one) for one in told]
    )
    assert client.zrange(names.ARCHIVE, 0, -1) == [b"due too"]
    assert client.zscore(names.ARCHIVE, "due too") <= connect.redis_now_ms(client)  # to be taken back, now


def test_bytes_of_results_that_expired_by_now_are_forgotten(hub_redis):
    client = hub_redis.client
    minute = connect.redis_now_ms(client) // 60_000
    client.hset("held", mapping={"all": 111, str(minute - 1): 1, str(minute): 10, str(minute + 2): 100})
    client.hset("other", mapping={"all": 5, str(minute + 2): 5})
    scripts.FORGET.call(client, held=["held", "other"])
    assert client.hgetall("held") == {b"all": b"100", str(minute + 2).encode(): b"100"}
    assert client.hgetall("other") == {b"all": b"5", str(minute + 2).encode(): b"5"}


def test_a_barred_region_is_so_for_the_time_that_was_said(hub_redis):
    before = connect.redis_now_ms(hub_redis.client)
    scripts.BAR.call(hub_redis.client, barred="barred", region="fra", for_ms=60_000, why="it fills the hub")
    until_ms, _, why = hub_redis.client.hget("barred", "fra").decode().partition(" ")
    assert why == "it fills the hub"
    assert before + 58_000 < int(until_ms) <= connect.redis_now_ms(hub_redis.client) + 60_000
