"""Poison: one job in 200 kills its process each time. It ends ``poison`` with 3 attempts; the 199 succeed, none with more than 2."""

import json
from collections import Counter

from rq.registry import FailedJobRegistry

from jobs import result_frame
from jobs.contract import LOST
from jobs.queue.retry import read_past
from regions import names
from tests.service.working import REGION, enqueue, results, settings_for, task
from tests.waiting import until

TASKS, POISON = 200, 90
SECONDS = 0.1  # of a task, so that the poison has neighbours


def test_one_job_that_kills_its_processes_ends_as_poison_and_alone(pool, region_redis, hub_redis, tmp_path):
    """Its neighbours of the first death run again, each alone in a process, and succeed."""
    client, hub = region_redis.client, hub_redis.client
    marks = tmp_path / "marks"
    marks.mkdir()
    pool(settings_for(region_redis.url, hub_redis.url, threads=12, processes=2), "tests.service.working")
    until(lambda: client.zcard(names.WORKERS) == 3, "two processes to claim, and the one for urgent tasks")
    wanted = [{"seconds": SECONDS, "mark": str(marks)} for _ in range(TASKS)]
    wanted[POISON]["kill"] = True
    ids = enqueue(client, [task(deadline_seconds=120.0, **params) for params in wanted])
    until(lambda: len(set(results(hub))) == TASKS, "all results", 150)
    found = {id_: json.loads(result_frame.splice(hub.get(names.result(REGION, id_)))) for id_ in ids}
    poison = found.pop(ids[POISON])
    assert (poison["status"], poison["error"]["type"], poison["attempts"]) == ("failed", "poison", 3)
    assert poison["error"]["message"].startswith("3 processes died")
    assert Counter(result["status"] for result in found.values()) == {"succeeded": TASKS - 1}
    attempts = Counter(result["attempts"] for result in found.values())
    assert set(attempts) == {1, 2}, attempts
    starts = Counter(mark.name.split(".")[0] for mark in marks.iterdir())
    assert starts[ids[POISON]] == 3
    assert all(1 <= starts[id_] <= result["attempts"] for id_, result in found.items()), (
        "a claimed one need not have begun"
    )
    assert FailedJobRegistry(REGION, connection=client).get_job_ids(cleanup=False) == [ids[POISON]]
    past = read_past(client.hget(names.rq_job(ids[POISON]), names.JOB_PAST))
    assert [(one.attempt, one.error) for one in past] == [(1, LOST), (2, LOST), (3, LOST)]
    assert all(".alone." in one.worker for one in past[1:])
    assert client.hmget(names.COUNTERS, "succeeded", "failed") == [b"199", b"1"]
    assert client.zcard(names.rq_registry("wip", REGION)) == client.llen(names.rq_queue(names.suspects(REGION))) == 0
    until(lambda: client.zcard(names.ALONE) == 0, "the lone processes to end")
