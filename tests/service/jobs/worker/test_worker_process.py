"""A worker process and its parent: beat, command line, name."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
import redis

from jobs.pool.child import Child
from jobs.queue import claim
from jobs.worker.worker import Worker
from regions import names
from regions.settings import ROOT, Settings
from tests.service.working import REGION, ObedientRunner, enqueue, settings_for, task
from tests.waiting import until


@pytest.fixture
def settings(region_redis, hub_redis) -> Settings:
    return settings_for(region_redis.url, hub_redis.url)


def test_a_worker_beats_and_ends_when_its_pool_is_gone(settings):
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.working", REGION, "w1", "--settings", "-", "--beat", str(theirs)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        pass_fds=[theirs],
    )
    os.close(theirs)
    process.stdin.write(msgspec.json.encode(settings))
    process.stdin.close()
    assert os.read(ours, 1) == b"."
    assert b"redis://" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    os.close(ours)
    assert process.wait(60) == 0


def test_the_beat_goes_on_while_the_regions_redis_is_away(settings, region_redis):
    region_redis.running.kill()
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    worker = Worker(settings, settings.one(REGION), "w1", ObedientRunner(), beat=theirs)
    for _ in range(3):
        worker.run_once()
        assert os.read(ours, 10) == b"."


@pytest.mark.usefixtures("patient_clients")
def test_an_idle_process_asks_its_redis_one_question_a_turn(settings, monkeypatch):
    """Each one wakes the process and the Redis, and all processes of a region ask all the time."""
    monkeypatch.setattr("jobs.worker.worker.WAIT_SECONDS", 0.01)
    monkeypatch.setattr("jobs.worker.worker.CHECK_SECONDS", 0.0)
    worker = Worker(settings, settings.one(REGION), "w1", ObedientRunner())
    worker.run_once()
    asked, send = [], claim.send
    monkeypatch.setattr(claim, "send", lambda *args, **options: asked.append(args[1]) or send(*args, **options))
    worker.run_once()
    worker.unsubscribe()
    assert [command[0] for commands in asked for command in commands] == [
        "BLMOVE", "EVALSHA", "SMEMBERS", "XLEN", "EVALSHA", "ZRANGE",
    ]  # fmt: skip
    assert len(asked) == 1


@pytest.mark.usefixtures("patient_clients")
def test_a_job_whose_claim_was_not_answered_is_given_back_by_an_idle_process(settings, region_redis, monkeypatch):
    monkeypatch.setattr("jobs.worker.worker.WAIT_SECONDS", 0.01)
    worker = Worker(settings, settings.one(REGION), "w1", ObedientRunner())
    worker.run_once()
    enqueue(region_redis.client, [task()])
    (lost,) = worker.claimer.claim(1).jobs  # no thread gets it
    worker.run_once()
    assert worker.claimer.look([])[1] == {lost.member}, "one look may have come in between"
    worker.run_once()
    worker.unsubscribe()
    assert worker.claimer.look([])[1] == set()


def test_a_claim_without_an_answer_makes_the_process_subscribe_again(settings, region_redis):
    """Its subscription would not notice: it waits for commands, and sends nothing."""
    worker = Worker(settings, settings.one(REGION), "w1", ObedientRunner())
    worker.run_once()

    def subscribers():
        return [one["id"] for one in region_redis.client.client_list(_type="pubsub")]

    until(lambda: len(subscribers()) == 1, "its subscription")
    before = subscribers()
    region_redis.running.signal(signal.SIGSTOP)
    worker.run_once()
    region_redis.running.signal(signal.SIGCONT)
    until(lambda: len(subscribers()) == 1 and subscribers() != before, "another subscription")
    worker.unsubscribe()


@pytest.mark.usefixtures("patient_clients")
def test_a_second_worker_of_a_live_ones_name_is_refused(settings):
    first, second = (Worker(settings, settings.one(REGION), "w1", ObedientRunner()) for _ in range(2))
    first.run_once()
    with pytest.raises(ValueError, match="active worker named w1"):
        second.run_once()
    first.register_death()
    second.run_once()
    for worker in (first, second):
        worker.unsubscribe()


def test_a_process_whose_pool_tells_of_changed_definitions_looks_at_them_then(settings, monkeypatch):
    looks = []
    runner = ObedientRunner()
    monkeypatch.setattr(runner, "refresh", lambda: looks.append(1) or True, raising=False)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    worker = Worker(settings, settings.one(REGION), "w1", runner, beat=theirs.fileno())
    monkeypatch.setattr("jobs.worker.worker.REFRESH_SECONDS", 3_600.0)
    worker._refresh()
    worker._look()
    assert len(looks) == 1  # not at each look
    hearing = threading.Thread(target=worker._hear, daemon=True)
    hearing.start()
    Child("w1", None, ours.fileno(), 0.0, 0).tell()
    until(lambda: len(looks) == 2, "a look at the definitions")
    monkeypatch.setattr("jobs.worker.worker.REFRESH_SECONDS", 0.0)
    worker._look()
    assert len(looks) == 3  # the pool may have missed something
    ours.close()
    hearing.join(20)
    assert not hearing.is_alive()
    theirs.close()


def test_of_two_changes_at_once_the_later_ones_limits_stay(settings, monkeypatch):
    """The claim loop tells the limits of one when the pool tells of the other."""
    runner, told, threads = ObedientRunner(), [], []
    limits = iter(["older", "newer"])
    monkeypatch.setattr(runner, "refresh", lambda: True, raising=False)
    monkeypatch.setattr(runner, "limits", lambda: next(limits), raising=False)
    worker = Worker(settings, settings.one(REGION), "w1", runner)

    def tell(_client, limits: str) -> None:
        if not threads:
            threads.append(threading.Thread(target=worker._refresh))
            threads[0].start()
            threads[0].join(0.2)  # it should wait for this call's end
        told.append(limits)

    monkeypatch.setattr("jobs.worker.worker.tell_limits", tell)
    worker._refresh()
    threads[0].join(60)
    assert told == ["older", "newer"]


@pytest.mark.usefixtures("patient_clients")
def test_limits_that_could_not_be_told_are_told_at_the_next_look(settings, region_redis, monkeypatch):
    runner, ours, theirs = ObedientRunner(), *socket.socketpair()
    with ours, theirs:
        worker = Worker(settings, settings.one(REGION), "w1", runner, beat=theirs.fileno())
        monkeypatch.setattr(runner, "refresh", lambda: True, raising=False)
        region_redis.running.kill()
        with pytest.raises(redis.exceptions.RedisError):
            worker._refresh()
        region_redis.running.start()
        monkeypatch.setattr(runner, "refresh", lambda: False, raising=False)
        monkeypatch.setattr(runner, "limits", lambda: {"test.source": "7 0"}, raising=False)
        worker._look()
        assert b"7 0" in b" ".join(region_redis.client.hgetall(names.LIMITS).values())
