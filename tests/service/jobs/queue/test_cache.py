"""What a region's Redis keeps of good answers: the latest of each question, and no more than it has room for."""

import email.utils
import time

import pytest
from msgspec.structs import replace as replace_task

from jobs import memory, result_frame
from jobs.answers.cache import Cache, packed
from jobs.contract import Result
from jobs.errors import ContractBroken, HttpStatus, RateLimited, TimedOut
from jobs.page import Page, Request
from jobs.queue.reaper import Reaper
from jobs.queue.script import CACHED_EACH_BYTES, CACHED_MAX_BYTES, CACHED_TTL_MS
from regions import names
from tests.service.jobs.queue.test_claim import changed, end
from tests.service.jobs.queue.test_retry import again
from tests.service.working import REGION, claimer, enqueue, task
from tests.unit.describing import define

META = b'["meta"]'


def give(client, worker, tasks, *, has_keys=True):
    """Claims tasks."""
    enqueue(client, tasks, has_keys=has_keys)
    return worker.claim(len(tasks)).jobs


def kept(client):
    """The frames that are kept, in the order in which they would go."""
    return [client.hget(names.cache(key.decode()), "frame") for key in client.zrange(names.CACHED, 0, -1)]


def is_exact(client):
    """Whether the count of bytes is what is there."""
    there = sum(len(frame) + CACHED_EACH_BYTES for frame in kept(client))
    return int(client.get(names.CACHED_BYTES) or 0) == there


@pytest.fixture
def worker(region_redis):
    return claimer(region_redis.url)


def test_the_latest_answer_to_a_question_is_kept(region_redis, worker):
    client = region_redis.client
    for frame in (b"0{}\nfirst", b"0{}\nthe second"):
        (job,) = give(client, worker, [task()])
        worker.finish([changed(end(job, frame=frame), meta=META)], then_claim=0)
    assert kept(client) == [b"0{}\nthe second"]
    assert is_exact(client)
    (key,) = client.keys(names.cache("*"))
    assert client.hget(key, "meta") == META


@pytest.mark.parametrize("how", ["not told", "taken back", "of an older bridge", "tried again"])
def test_nothing_is_kept_of_what_is_no_answer(region_redis, worker, how):
    client = region_redis.client
    (job,) = give(client, worker, [task()], has_keys=how != "of an older bridge")
    last = changed(again(job) if how == "tried again" else end(job), meta=b"" if how == "not told" else META)
    if how == "taken back":
        worker.give_back([job.member])
    worker.finish([last], then_claim=0)
    assert client.keys("nf:cache*") == []


def test_the_oldest_go_where_there_is_no_room(region_redis, worker):
    client = region_redis.client
    size = CACHED_MAX_BYTES // 10
    for n in range(13):
        (job,) = give(client, worker, [task(n=n)])
        worker.finish([changed(end(job, frame=b"0{}\n" + b"%02d" % n * (size // 2)), meta=META)], then_claim=0)
        client.delete(names.OUTBOX)
        client.set(names.OUTBOX_BYTES, 0)
        assert int(client.get(names.CACHED_BYTES)) <= CACHED_MAX_BYTES
        assert is_exact(client)
    assert [frame[-2:] for frame in kept(client)] == [b"%02d" % n for n in range(4, 13)]
    assert len(client.keys(names.cache("*"))) == 9


def test_a_count_of_bytes_that_is_wrong_holds_up_no_end(region_redis, worker):
    """An operator deleted keys: there is nothing left that could go."""
    client = region_redis.client
    client.set(names.CACHED_BYTES, 2 * CACHED_MAX_BYTES)
    (job,) = give(client, worker, [task()])
    assert worker.finish([changed(end(job), meta=META)], then_claim=0)[0] != [""]
    assert client.xlen(names.OUTBOX) == 1
    assert kept(client) == client.keys(names.cache("*")) == []


def test_what_nobody_asked_for_in_a_week_goes(region_redis, worker):
    client = region_redis.client
    jobs = give(client, worker, [task(n=n) for n in range(2)])
    worker.finish([changed(end(job), meta=META) for job in jobs], then_claim=0)
    old, _ = client.zrange(names.CACHED, 0, -1)
    client.zincrby(names.CACHED, -CACHED_TTL_MS, old)
    Reaper(client, REGION).run_once()
    assert len(kept(client)) == len(client.keys(names.cache("*"))) == 1
    assert is_exact(client)


def test_a_full_redis_still_ends_what_is_kept(region_redis, worker):
    client = region_redis.client
    (job,) = give(client, worker, [task()])
    client.config_set("maxmemory", 1)
    assert worker.finish([changed(end(job), meta=META)], then_claim=0)[0] != [""]
    assert len(kept(client)) == 1


SOURCE = "format = 'json'\n[fields]\nid = {}\n[limits]\nstale_seconds = 60"
URL = "https://example.com/"
NOW_MS = 1_795_493_640_000


@pytest.fixture
def definition(tmp_path):
    return define(tmp_path, SOURCE)


@pytest.fixture
def cache(region_redis):
    return Cache(region_redis.client)


def page(url=URL, **headers):
    return Page(Request(url=url), url, 200, headers, b"")


@pytest.fixture
def stored(region_redis, worker, definition):
    """Has a good answer kept, as a worker does, and gives who asks the same."""

    def store(*, pages=1, fetched_ms=NOW_MS, url=URL, **headers):
        one = replace_task(task(), definition=definition.hash, max_age=60.0)
        (job,) = give(region_redis.client, worker, [one])
        meta = Cache().note(definition, page(url, **headers), fetched_ms)
        made = Result(task=one.task, source=one.source, region=REGION, status="succeeded", attempts=1)
        frame = result_frame.encode(made, b"[]")
        worker.finish([changed(end(job, frame=frame), meta=packed(meta, pages, made, {}))], then_claim=0)
        return one, frame

    return store


def test_an_answer_that_is_as_young_as_it_may_be_is_known(stored, definition, cache):
    one, frame = stored()
    found = cache.young(one, definition, NOW_MS + 60_000)
    assert (found.frame, found.meta.fetched_ms) == (frame, NOW_MS)
    assert cache.young(one, definition, NOW_MS + 60_001) is None
    assert cache.young(replace_task(one, max_age=0.0), definition, NOW_MS) is None
    assert cache.young(replace_task(one, params={"other": 1}), definition, NOW_MS) is None


def test_an_answer_of_another_definition_or_version_is_none(stored, definition, cache, region_redis, tmp_path):
    one, _ = stored()
    (key,) = region_redis.client.keys(names.cache("*"))
    assert cache.young(one, define(tmp_path, SOURCE + "0"), NOW_MS) is None
    region_redis.client.hset(key, "meta", b"{}")
    assert cache.young(one, definition, NOW_MS) is None
    region_redis.client.hdel(key, "frame")
    assert cache.young(one, definition, NOW_MS) is None


def test_what_a_target_can_be_asked_by_is_looked_for_where_its_pages_came_with_it(stored, definition, cache):
    one, frame = stored(ETag='"1"')
    assert cache.to_ask_by(one, definition, Request(url=URL)) is None  # this process has seen no such page
    cache.note(definition, page(ETag='"1"'), NOW_MS)
    assert cache.to_ask_by(one, definition, Request(url=URL)).frame == frame
    assert cache.to_ask_by(one, definition, Request(url=URL + "other")) is None
    assert cache.to_ask_by(one, definition, Request(url=URL, number=2)) is None


def test_an_answer_without_validators_is_not_asked_by(stored, definition, cache):
    cache.note(definition, page(ETag='"1"'), NOW_MS)
    one, _ = stored(pages=2, ETag='"1"')
    assert cache.to_ask_by(one, definition, Request(url=URL)) is None
    now = email.utils.formatdate(NOW_MS / 1000, usegmt=True)
    one, frame = stored(**{"Date": now, "Last-Modified": email.utils.formatdate(NOW_MS / 1000 - 9, usegmt=True)})
    assert cache.to_ask_by(one, definition, Request(url=URL)).frame == frame


@pytest.mark.parametrize(
    ("error", "known"),
    [(TimedOut("x"), True), (RateLimited("no turn", origin="region"), True), (ContractBroken("x"), False),
     (HttpStatus("x", http_status=404), False)],
)  # fmt: skip
def test_an_older_answer_stands_in_for_a_host_that_is_not_well(stored, definition, cache, tmp_path, error, known):
    one, _ = stored()
    assert bool(cache.stale(one, definition, error, NOW_MS + 60_000)) is known
    assert cache.stale(one, definition, error, NOW_MS + 60_001) is None
    assert cache.stale(one, define(tmp_path, SOURCE.partition("[limits]")[0]), error, NOW_MS) is None


def test_a_redis_that_is_away_knows_no_older_answer(stored, definition, cache, region_redis):
    one, _ = stored()
    region_redis.crash()
    assert cache.young(one, definition, NOW_MS) is None


def test_an_answer_for_which_there_is_no_memory_is_none(stored, definition, cache):
    one, _ = stored()
    whole = memory.Budget(300_000_000, 4)
    with whole.share(time.monotonic() + 60, lambda: False) as share:
        assert cache.young(one, definition, NOW_MS)
        while share.grow_now(100_000):
            pass
        while share.grow_now(100):
            pass
        assert cache.young(one, definition, NOW_MS) is None
