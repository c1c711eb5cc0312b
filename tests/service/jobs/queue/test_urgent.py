"""Tasks for which clients wait: a queue and a process of their own, and what happens without that process."""

import threading

import pytest
from redis import Redis

from jobs.queue import script
from regions import names
from tests.service.jobs.queue.test_claim import WAIT_SECONDS, end
from tests.service.working import REGION, claimer, enqueue, task
from tests.waiting import until

NORMAL, URGENT = names.rq_queue(REGION), names.rq_queue(names.urgent(REGION))


def enqueue_urgent(client: Redis, count: int) -> list[str]:
    """Jobs as a bridge enqueues them for clients that wait."""
    ids = enqueue(client, [task() for _ in range(count)])
    for one in ids:
        client.hset(names.rq_job(one), names.JOB_FRONT, 1)
        client.lrem(NORMAL, 0, one)
        client.rpush(URGENT, one)
    return ids


def waiting(client: Redis, queue: str) -> list[str]:
    return [one.decode() for one in client.lrange(queue, 0, -1)]


def test_an_urgent_process_takes_urgent_jobs_in_their_order_and_no_others(region_redis):
    client = region_redis.client
    (bulk,) = enqueue(client, [task()])
    ids = enqueue_urgent(client, 3)
    assert [job.task for job in claimer(region_redis.url, "u1", kind="urgent").claim(3).jobs] == ids
    assert [job.task for job in claimer(region_redis.url, "w1").claim(3).jobs] == [bulk]


def test_only_an_urgent_job_that_its_process_took_says_that_clients_wait(region_redis):
    client = region_redis.client
    enqueue(client, [task(), task()])
    claimer(region_redis.url, "w1").claim(1)
    urgent = claimer(region_redis.url, "u1", kind="urgent")
    urgent.claim(1)
    assert not client.exists(names.URGENT_SEEN)
    enqueue_urgent(client, 1)
    urgent.claim(1)
    assert client.get(names.URGENT_SEEN) == b"u1"
    assert 0 < client.pttl(names.URGENT_SEEN) <= script.URGENT_SEEN_MS


def test_urgent_jobs_for_which_it_has_no_thread_are_the_next_ones_of_all_processes(region_redis):
    client = region_redis.client
    (bulk,) = enqueue(client, [task()])
    first, *rest = enqueue_urgent(client, 4)
    assert [job.task for job in claimer(region_redis.url, "u1", kind="urgent").claim(1).jobs] == [first]
    assert (waiting(client, URGENT), waiting(client, NORMAL)) == ([], [*rest, bulk])


def test_an_urgent_process_that_is_free_again_takes_what_it_had_left_to_the_others(region_redis):
    client = region_redis.client
    (bulk,) = enqueue(client, [task()])
    ids = enqueue_urgent(client, 3)
    urgent = claimer(region_redis.url, "u1", kind="urgent")
    urgent.claim(1)
    assert [job.task for job in urgent.claim(4).jobs] == ids[1:]
    assert waiting(client, NORMAL) == [bulk]


def test_an_end_takes_what_its_process_had_left_to_the_others_while_another_thread_waits(region_redis):
    client = region_redis.client
    ids = enqueue_urgent(client, 3)
    urgent = claimer(region_redis.url, "u1", kind="urgent", block_seconds=WAIT_SECONDS)
    (job,) = urgent.claim(1).jobs
    thread = threading.Thread(target=urgent.claim, args=(1,), kwargs={"wait_seconds": WAIT_SECONDS})
    thread.start()
    until(lambda: client.info("clients")["blocked_clients"] == 1, "the wait")
    _, claimed = urgent.finish([end(job)], then_claim=4)
    assert [job.task for job in claimed.jobs] == ids[1:]
    enqueue_urgent(client, 1)  # which ends the wait
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_normal_processes_leave_urgent_jobs_to_a_process_that_lives(region_redis):
    client = region_redis.client
    worker = claimer(region_redis.url, "w1")
    claimer(region_redis.url, "u1", kind="urgent").claim(0)
    client.pexpire(names.URGENT_LEASE, 600_000)
    ids = enqueue_urgent(client, 2)
    worker.move_due()
    assert (waiting(client, URGENT), worker.claim(4).jobs) == (ids, [])


def test_without_a_process_for_urgent_jobs_the_others_run_them_first(region_redis):
    client = region_redis.client
    claimer(region_redis.url, "u1", kind="urgent").claim(0)
    client.pexpire(names.URGENT_LEASE, 1)
    until(lambda: not client.exists(names.URGENT_LEASE), "the lease to lapse")
    (bulk,) = enqueue(client, [task()])
    ids = enqueue_urgent(client, 2)
    worker = claimer(region_redis.url, "w1")
    worker.move_due()
    assert [job.task for job in worker.claim(4).jobs] == [*ids, bulk]


def test_a_process_that_leaves_keeps_no_urgent_job_waiting(region_redis):
    client = region_redis.client
    urgent = claimer(region_redis.url, "u1", kind="urgent")
    urgent.claim(0)
    (id_,) = enqueue_urgent(client, 1)
    urgent.leave()
    worker = claimer(region_redis.url, "w1")
    worker.move_due()
    assert [job.task for job in worker.claim(4).jobs] == [id_]


@pytest.mark.parametrize("why", ["suspended", "outbox full", "unregistered"])
def test_a_process_that_may_not_claim_does_not_keep_urgent_jobs_for_itself(region_redis, why):
    client = region_redis.client
    urgent = claimer(region_redis.url, "u1", kind="urgent", register=why != "unregistered")
    if why == "suspended":
        client.set(names.RQ_SUSPENDED, 1)
    if why == "outbox full":
        client.set(names.OUTBOX_BYTES, script.OUTBOX_MAX_BYTES)
    enqueue_urgent(client, 1)
    claimed = urgent.claim(4)
    assert (claimed.refusal, claimed.jobs, client.exists(names.URGENT_LEASE)) == (why, [], 0)


def test_an_urgent_job_that_is_given_back_is_the_next_one_of_its_own_queue(region_redis):
    client = region_redis.client
    urgent = claimer(region_redis.url, "u1", kind="urgent")
    first, second = enqueue_urgent(client, 2)
    (job,) = urgent.claim(1).jobs
    assert job.task == first
    assert urgent.give_back([job.member]) == 1
    assert (waiting(client, URGENT), waiting(client, NORMAL)) == ([first], [second])
