"""What a region's Redis keeps of good answers: the latest of each question, and no more than it has room for."""

from dataclasses import replace

import pytest

from jobs.reaper import Reaper
from jobs.script import CACHED_EACH_BYTES, CACHED_MAX_BYTES, CACHED_TTL_MS
from regions import names
from tests.service.test_claim import end
from tests.service.test_retry import again
from tests.service.working import REGION, claimer, enqueue, task

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
        worker.finish([replace(end(job, frame=frame), meta=META)], then_claim=0)
    assert kept(client) == [b"0{}\nthe second"]
    assert is_exact(client)
    (key,) = client.keys(names.cache("*"))
    assert client.hget(key, "meta") == META


@pytest.mark.parametrize("how", ["not told", "taken back", "of an older bridge", "tried again"])
def test_nothing_is_kept_of_what_is_no_answer(region_redis, worker, how):
    client = region_redis.client
    (job,) = give(client, worker, [task()], has_keys=how != "of an older bridge")
    last = replace(again(job) if how == "tried again" else end(job), meta=b"" if how == "not told" else META)
    if how == "taken back":
        worker.give_back([job.member])
    worker.finish([last], then_claim=0)
    assert client.keys("nf:cache*") == []


def test_the_oldest_go_where_there_is_no_room(region_redis, worker):
    client = region_redis.client
    size = CACHED_MAX_BYTES // 10
    for n in range(13):
        (job,) = give(client, worker, [task(n=n)])
        worker.finish([replace(end(job, frame=b"0{}\n" + b"%02d" % n * (size // 2)), meta=META)], then_claim=0)
        client.delete(names.OUTBOX)
        client.set(names.OUTBOX_BYTES, 0)
        assert int(client.get(names.CACHED_BYTES)) <= CACHED_MAX_BYTES
        assert is_exact(client)
    assert [frame[-2:] for frame in kept(client)] == [b"%02d" % n for n in range(4, 13)]
    assert len(client.keys(names.cache("*"))) == 9


def test_what_nobody_asked_for_in_a_week_goes(region_redis, worker):
    client = region_redis.client
    jobs = give(client, worker, [task(n=n) for n in range(2)])
    worker.finish([replace(end(job), meta=META) for job in jobs], then_claim=0)
    old, _ = client.zrange(names.CACHED, 0, -1)
    client.zincrby(names.CACHED, -CACHED_TTL_MS, old)
    Reaper(client, REGION).run_once()
    assert len(kept(client)) == 1
    assert is_exact(client)


def test_a_full_redis_still_ends_what_is_kept(region_redis, worker):
    client = region_redis.client
    (job,) = give(client, worker, [task()])
    client.config_set("maxmemory", 1)
    assert worker.finish([replace(end(job), meta=META)], then_claim=0)[0] != [""]
    assert len(kept(client)) == 1
