"""A region's Redis whose clock is stepped by an hour, with worker processes at work: nobody else is in that time."""

import signal
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import redis

from jobs.contract import Outcome
from jobs.queue import clock as clocks
from jobs.queue.breaker import Breakers
from jobs.queue.clock import LEASE_MS, STEP_MS, Clock, clock_of, region_ms
from jobs.queue.home import Home, open_hub
from jobs.queue.outbox import Leftovers
from jobs.queue.reaper import PROOF_SECONDS, Reaper
from jobs.queue.script import NOW, now_ms, send
from regions import connect, names
from scripts.chaos import clocks as faults
from tests.service.working import REGION, claimer, enqueue, frame, is_clean, results, task
from tests.waiting import until

HOUR = 3600
steps = pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forth", "back"])


@pytest.fixture
def step(region_redis) -> Callable[[int], None]:
    """Puts the clock of the region's Redis so far ahead of the machine's, and of nobody else."""
    return lambda seconds: faults.step(region_redis.running.process.pid, seconds)


def own_ms(client) -> int:
    return connect.redis_now_ms(client)


def is_in_file(client) -> bool:
    client.set("written", 1)
    return client.execute_command("WAITAOF", 1, 0, 60_000)[0] == 1


@steps
def test_what_waits_runs_and_is_tried_again_as_if_nothing_had_been(
    start, step, region_redis, hub_redis, tmp_path, seconds
):
    client, hub = region_redis.client, hub_redis.client
    start(claims=True)
    gate = tmp_path / "gate"
    running = enqueue(client, [task(gate=str(gate), deadline_seconds=200) for _ in range(4)])
    until(lambda: client.scard(names.rq_worker_executions("w1")) == 4, "four running jobs")
    waiting = enqueue(client, [task(flaky=1, pause=1.0, deadline_seconds=200) for _ in range(20)])
    before = own_ms(client)
    step(seconds)
    assert abs(own_ms(client) - before - seconds * 1000) < 60_000
    gate.touch()
    until(lambda: set(results(hub)) == {*running, *waiting}, "the results")
    step(0)
    after = enqueue(client, [task(flaky=1, pause=1.0, deadline_seconds=200) for _ in range(5)])
    until(lambda: set(results(hub)) == {*running, *waiting, *after}, "the later results")
    ids = [*running, *waiting, *after]
    assert {frame(hub, id_)["status"] for id_ in ids} == {"succeeded"}
    assert [frame(hub, id_)["attempts"] for id_ in ids] == [1] * 4 + [2] * 25
    assert Counter(results(hub)) == Counter(ids)
    until(lambda: is_clean(client), "a clean region")


@steps
def test_a_hosts_rate_and_what_it_asked_for_last_as_long_as_they_did(start, step, region_redis, hub_redis, seconds):
    client, hub = region_redis.client, hub_redis.client
    start(claims=True)
    client.hset(names.LIMITS, "https://example.com:443", "8 500")
    Breakers(client).slow("https://example.com:443", 1.0)
    first = enqueue(client, [task(deadline_seconds=200) for _ in range(4)])
    until(lambda: results(hub), "the first result")
    step(seconds)
    until(lambda: set(results(hub)) == set(first), "the results")
    step(0)
    later = enqueue(client, [task(deadline_seconds=200) for _ in range(4)])
    until(lambda: set(results(hub)) == {*first, *later}, "the later results")
    assert {frame(hub, id_)["status"] for id_ in results(hub)} == {"succeeded"}


@steps
def test_no_living_worker_is_taken_for_dead_and_a_dead_one_is_found(start, step, region_redis, tmp_path, seconds):
    """A lease ends when it would have: an hour's step back would keep that of the dead, one forth would end all."""
    client = region_redis.client
    now = [0.0]
    reaper = Reaper(client, REGION, lambda: now[0])
    for _ in range(int(PROOF_SECONDS) + 2):
        now_ms(client)
        reaper.run_once()
        now[0] += 1.0
    start("living", claims=True)
    dead = start("dead", claims=True)
    enqueue(client, [task(gate=str(tmp_path / "never"), deadline_seconds=100) for _ in range(8)])
    held = [names.rq_worker_executions(name) for name in ("living", "dead")]
    until(lambda: [client.scard(key) for key in held] == [4, 4], "eight running jobs")
    dead.kill()
    dead.wait()
    step(seconds)
    now[0] += 1.0
    reaper.run_once()
    assert client.zscore(names.WORKERS, "living") is not None
    until(lambda: _looks(reaper, now) and client.zscore(names.WORKERS, "dead") is None, "the dead one to be found")
    assert [client.scard(key) for key in held] == [4, 0]


def _looks(reaper: Reaper, now: list[float]) -> bool:
    now[0] += 0.01
    reaper.run_once()
    return True


@steps
def test_what_a_dead_worker_left_in_the_outbox_goes_home(start, step, region_redis, hub_redis, seconds):
    """Whoever had the turn to ship it died with it, too."""
    client, hub = region_redis.client, hub_redis.client
    now_ms(client)
    one = claimer(region_redis.url, "gone")
    enqueue(client, [task(), task()])
    jobs = one.claim(2).jobs
    one.finish([_end(jobs[0])], then_claim=0)
    client.set(names.OUTBOX_TURN, "gone", px=clocks.TURN_MS)
    step(seconds)
    one.finish([_end(jobs[1])], then_claim=0)
    leftovers = Leftovers(client, Home(open_hub(hub_redis.url, "w1"), REGION, client, waits=False), "w1")
    until(lambda: _ships(leftovers) and len(results(hub)) == 2, "both to go home")
    assert results(hub) == [job.task for job in jobs]
    until(lambda: _ships(leftovers) and client.xlen(names.OUTBOX) == 0, "an empty outbox")


def _ships(leftovers: Leftovers) -> bool:
    leftovers.run_once()
    return True


def _end(job):
    from jobs.queue.claim import Ending

    outcome = Outcome(
        request=job.request, task=job.task, status="succeeded", finished_ms=1, expires_ms=9_000_000_000_000, frame=b"\0{}\n[]"
    )  # fmt: skip
    return job, Ending(outcome)


def test_a_redis_that_went_back_writes_its_file_again(start, step, region_redis):
    """Redis syncs its file a second after the last time, by the clock that was stepped (aof.c)."""
    client = connect.open_redis(region_redis.url, name="test", block_seconds=60.0)
    start(claims=True)
    step(-HOUR)
    until(lambda: client.get(names.CLOCK) is not None, "the step to be seen")
    for _ in range(3):
        assert is_in_file(client)
    assert client.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_a_question_for_the_time_that_had_no_answer_may_be_asked_again(lossy_region):
    began = now_ms(lossy_region.client)
    lossy_region.lose(NOW)
    with pytest.raises(redis.exceptions.RedisError):
        now_ms(lossy_region.client)
    assert lossy_region.lost == 1
    assert 0 <= now_ms(lossy_region.client) - began < 60_000


def test_a_step_that_was_taken_back_without_an_answer_is_taken_back_once(step, lossy_region, region_redis):
    """And what its Redis needs after it was done before."""
    client = connect.open_redis(region_redis.url, name="test", block_seconds=60.0)
    assert is_in_file(client)
    began, before = now_ms(lossy_region.client), own_ms(client)
    step(-HOUR)
    client.script_load(clocks.TAKE_BACK.text)  # an answer that it is not known is not the one that is to be lost
    lossy_region.lose(clocks.TAKE_BACK)
    with pytest.raises(redis.exceptions.RedisError):
        now_ms(lossy_region.client)
    assert lossy_region.lost == 1
    assert abs(own_ms(client) - before + HOUR * 1000) < 60_000
    assert 0 <= now_ms(lossy_region.client) - began < 60_000
    assert abs(int(client.get(names.CLOCK)) - HOUR * 1000) < 60_000
    assert is_in_file(client)


LEFT_MS = 600_000  # of leases and turns, which no test waits for


def take_back(client, *, added: int, step: int) -> int:
    return clocks.TAKE_BACK.call(
        client, clock=names.CLOCK, living=names.WORKERS, outbox_turn=names.OUTBOX_TURN, scale_turn=names.SCALE_TURN,
        added=added, step=step, least_ms=STEP_MS, lease_ms=LEFT_MS, turn_ms=LEFT_MS, lease=names.lease(""),
    )  # fmt: skip


@pytest.mark.parametrize("step_ms", [HOUR * 1000, -HOUR * 1000], ids=["forth", "back"])
def test_a_lease_ends_when_it_would_have_without_the_step(region_redis, step_ms):
    client = region_redis.client
    seen_ms = own_ms(client) + 5_000 - step_ms  # the region's time, as it was told before the step
    seconds_ago = {"dead": 700, "silent": 500, "busy": 100, "new": 0}
    client.set(names.CLOCK, 5_000)
    client.zadd(names.WORKERS, {name: seen_ms - 1000 * ago for name, ago in seconds_ago.items()})
    for name in seconds_ago:
        client.set(names.lease(name), name, px=10 * LEFT_MS)
    assert take_back(client, added=5_000, step=step_ms) == 1
    assert int(client.get(names.CLOCK)) == 5_000 - step_ms
    assert client.get(names.lease("dead")) is None
    for name in ("silent", "busy", "new"):
        assert client.get(names.lease(name)) == name.encode()
        assert 0 <= LEFT_MS - 1000 * seconds_ago[name] - client.pttl(names.lease(name)) < 60_000


@pytest.mark.parametrize("long_one", [names.OUTBOX_TURN, names.SCALE_TURN])
def test_no_turn_is_held_for_longer_after_a_step_and_none_is_made_longer(region_redis, long_one):
    client = region_redis.client
    for turn in (names.OUTBOX_TURN, names.SCALE_TURN):
        client.set(turn, "w1", px=HOUR * 1000 if turn == long_one else LEFT_MS // 2)
    assert take_back(client, added=0, step=-HOUR * 1000) == 1, "of a region without workers, too"
    for turn in (names.OUTBOX_TURN, names.SCALE_TURN):
        assert 0 < client.pttl(turn) <= (LEFT_MS if turn == long_one else LEFT_MS // 2)


@pytest.mark.parametrize("why", ["another process did so", "another process has used the new time"])
def test_a_step_is_not_taken_back_if_there_is_no_more_reason(region_redis, why):
    client = region_redis.client
    seen_ms = own_ms(client) + HOUR * 1000
    client.zadd(names.WORKERS, {"w1": seen_ms, "w2": seen_ms - 1000})
    if why == "another process did so":
        client.set(names.CLOCK, HOUR * 1000)
    else:
        client.zadd(names.WORKERS, {"w1": own_ms(client), "w2": own_ms(client) - HOUR * 1000})
    client.set(names.lease("w1"), "w1")
    before = client.get(names.CLOCK)
    assert take_back(client, added=0, step=-HOUR * 1000) == 0
    assert client.get(names.CLOCK) == before
    assert client.ttl(names.lease("w1")) == -1


def test_who_is_wrong_about_the_time_learns_it_from_the_others_and_says_so(region_redis, monkeypatch, capfd):
    """A process whose own clock stood still (a virtual machine that was paused) takes no step back that nobody made."""
    client = region_redis.client
    other = claimer(region_redis.url, "other")
    one = claimer(region_redis.url, "one")
    for claims in (one, other):
        claims.claim(0)
    ahead = one.clock.ahead_ms
    enqueue(client, [task()])
    monkeypatch.setattr(clocks, "_AHEAD_MS", clocks._AHEAD_MS - 60_000)
    other.clock.ahead_ms += 60_000  # the same process stands for two machines: this one's clock goes on
    other.claim(0)
    one.clock.ahead_ms = ahead
    assert len(one.claim(1).jobs) == 1
    assert client.get(names.CLOCK) is None
    assert abs(one.clock.ahead_ms - ahead - 60_000) < 5_000
    assert capfd.readouterr().out.count("this process's clock was wrong; it follows the region's now") == 1


def test_a_process_that_was_stopped_takes_no_step_back_that_nobody_made(start, region_redis):
    """It reads late what it was told before, and is the only one in its region: nobody contradicts it."""
    client = region_redis.client
    worker = start(claims=True)
    first = client.zscore(names.WORKERS, "w1")
    until(lambda: client.zscore(names.WORKERS, "w1") > first, "the worker to have read the answer to a claim")
    worker.send_signal(signal.SIGSTOP)
    began = own_ms(client)
    until(lambda: own_ms(client) > began + 2 * STEP_MS, "the stop to last longer than what counts as a step")
    worker.send_signal(signal.SIGCONT)
    until(lambda: int(client.zscore(names.WORKERS, "w1")) > began + 2 * STEP_MS, "the worker to claim again")
    assert client.get(names.CLOCK) is None


def test_a_call_that_arrives_late_does_nothing(region_redis):
    """A Redis that was stopped reads what was sent to it when it goes on; who sent it has long given up."""
    client = region_redis.client
    one = claimer(region_redis.url)
    claimed = one.claim(0)
    enqueue(client, [task()])
    late = (*one._claim_command(1)[:-1], f"{claimed.now_ms - 20_000} {claimed.now_ms - 10_000}")
    with pytest.raises(connect.redis.exceptions.ResponseError, match=clocks.REFUSED):
        client.execute_command(*late)
    assert client.llen(names.rq_queue(REGION)) == 1


def test_another_refusal_is_returned_and_its_call_is_sent_once(region_redis, monkeypatch):
    """It says nothing of the time, and what it did before it was refused would be done twice."""
    client, asked = region_redis.client, []
    monkeypatch.setattr(Clock, "mend", lambda *_: asked.append("the time"))
    text = "redis.call('INCR', KEYS[1]) return redis.error_reply('OOM')"
    (reply,) = send(client, [("EVAL", text, 1, "calls")], [])
    assert isinstance(reply, redis.exceptions.ResponseError)
    assert (client.get("calls"), asked) == (b"1", [])


def test_a_small_step_is_taken_as_the_time(step, region_redis):
    client = region_redis.client
    one = claimer(region_redis.url)
    one.claim(0)
    step(1)  # a machine that stalls adds to it
    one.claim(0)
    assert client.get(names.CLOCK) is None
    until(lambda: abs(one.clock.now_ms() - own_ms(client)) < 500, "the process to go by it")
    until(lambda: abs(region_ms(client) - own_ms(client)) < 500, "the region to go by it")
    assert client.pttl(names.lease("w1")) <= LEASE_MS
    assert clock_of(client).ahead_ms >= 0


def test_a_new_process_knows_the_time_from_its_pool(step, region_redis):
    """A step just before its first call would be taken as the time, and those who knew better would give in."""
    known, new = clock_of(region_redis.client), clocks.Clock()
    claimer(region_redis.url, "w1").claim(0)
    assert new.ahead_of_boot_ms is None
    assert known.ahead_of_boot_ms is not None
    new.inherit(known.ahead_of_boot_ms)
    least, most = map(int, new.expected(0).split())
    assert least < region_ms(region_redis.client) < most
    step(3600)
    assert not least < own_ms(region_redis.client) < most


@pytest.fixture
def slow_clock(region_redis, monkeypatch) -> Callable[[int], Clock]:
    """A process that knows the region's time, and whose next questions for it take so many ms each way; no other time passes."""
    at, known_ms = [clocks.boot_ms()], region_ms(region_redis.client)
    monkeypatch.setattr(clocks, "boot_ms", lambda: at[0])
    clock = Clock()
    clock.note(known_ms, clocks.machine_ms())

    def slow(each_way_ms: int) -> Clock:
        def call(_client, **_keys):
            at[0] += 2 * each_way_ms
            return known_ms + each_way_ms, 0

        monkeypatch.setattr(clocks, "MEASURE", SimpleNamespace(call=call))
        return clock

    return slow


def test_an_answer_that_took_long_is_no_step(region_redis, slow_clock):
    """Nor is more learned of it than it says: the time is one of those while it was under way."""
    clock = slow_clock(3 * STEP_MS)
    before = clock.ahead_ms
    clock.mend(region_redis.client)
    assert region_redis.client.get(names.CLOCK) is None
    assert clock.ahead_ms == before


def test_a_step_is_measured_in_the_middle_of_its_question(region_redis, slow_clock):
    clock = slow_clock(60_000)
    clock.ahead_ms -= HOUR * 1000
    clock.mend(region_redis.client)
    assert int(region_redis.client.get(names.CLOCK)) == -HOUR * 1000


def test_the_regions_time_is_its_redis_own_less_the_steps(region_redis):
    region_redis.client.set(names.CLOCK, HOUR * 1000)
    assert abs(region_ms(region_redis.client) - own_ms(region_redis.client) - HOUR * 1000) < 60_000
