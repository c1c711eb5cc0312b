"""Which claimed webhooks may be called: one receiver, or one tenant, does not delay the others."""

import pytest

from jobs.webhook.places import FIRST_MEAN_SECONDS, WAITS_SECONDS, WEIGHT, Places
from jobs.webhook.queue import Job
from tests.waiting import Clock


def job(request: str, *, host: str = "shop.example", tenant: str = "") -> Job:
    return Job(request, "n", tenant, f"https://{host}/hook", "", b"", 1)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def places(clock):
    return Places(16, 15.0, clock)


def started(places: Places) -> list[str]:
    found = []
    while (one := places.start()) is not None:
        found.append(one)
    return [one.request for one in found]


def test_one_receiver_gets_a_quarter_of_the_threads_and_the_others_the_rest(places):
    for n in range(6):
        places.add(job(f"slow {n}"))
    for n in range(3):
        places.add(job(f"other {n}", host=f"h{n}.example"))
    assert started(places) == ["slow 0", "slow 1", "slow 2", "slow 3", "other 0", "other 1", "other 2"]
    assert places.room() == 9


def test_one_tenant_gets_half_of_the_threads_however_many_receivers_it_names(places):
    for n in range(20):
        places.add(job(f"{n}", host=f"h{n}.example", tenant="a"))
    places.add(job("b", host="other.example", tenant="b"))
    assert started(places) == [*map(str, range(8)), "b"]


@pytest.mark.parametrize(("threads", "tenant", "count"), [(1, "", 1), (1, "a", 1), (2, "", 1), (4, "", 1), (8, "", 2)])
def test_a_process_of_few_threads_calls_each_receiver_by_one_at_least(threads, tenant, count):
    places = Places(threads, 15.0)
    for n in range(9):
        places.add(job(f"{n}", tenant=tenant))
    assert len(started(places)) == count


@pytest.mark.parametrize(("threads", "count"), [(1, 1), (2, 1), (4, 2)])
def test_a_process_of_few_threads_calls_for_each_tenant_by_one_at_least(threads, count):
    places = Places(threads, 15.0)
    for n in range(9):
        places.add(job(f"{n}", host=f"h{n}.example", tenant="a"))
    assert len(started(places)) == count


def test_there_are_no_more_calls_than_threads_and_no_less_room_than_none(places):
    for n in range(17):
        places.add(job(f"{n}", host=f"h{n}.example"))
    assert started(places) == [f"{n}" for n in range(16)]
    assert places.room() == 0
    few = Places(1, 15.0)
    for n in range(6):
        few.add(job(f"{n}"))
    assert few.room() == 0


def test_of_several_receivers_the_one_with_most_jobs_is_put_off(places, clock):
    for n in range(6):
        places.add(job(f"other {n}", host="other.example"))
    for n in range(58):
        places.add(job(f"{n}"))
    assert len(started(places)) == 8
    gone = places.put_off()
    assert [one.request for one, _ in gone] == [f"{n}" for n in range(31, 58)]


def test_what_waits_follows_at_once_when_a_call_has_ended(places):
    jobs = [job(f"{n}") for n in range(6)]
    for one in jobs:
        places.add(one)
    assert started(places) == ["0", "1", "2", "3"]
    places.end(jobs[0])
    assert started(places) == ["4"]
    assert places.put_off() == []


def test_a_burst_for_a_quick_receiver_is_not_put_off(places, clock):
    waiting = [job(f"{n}") for n in range(60)]
    for one in waiting:
        places.add(one)
    called = 0
    while (one := places.start()) is not None:
        called += 1
        clock.now += 0.05
        places.end(one)
        assert places.put_off() == []
    assert called == 60


def test_if_one_receiver_fills_the_room_half_of_what_waits_for_it_is_put_off(places, clock):
    for n in range(64):
        places.add(job(f"{n}"))
    assert len(started(places)) == 4
    assert places.room() == 0
    clock.now += 5.0
    gone = places.put_off()
    assert [one.request for one, _ in gone] == [f"{n}" for n in range(34, 64)]
    waits = [seconds for _, seconds in gone]
    assert waits == [5.0 * (1 + n // 4) for n in range(30)]  # the calls before it have taken 5 s by now, four at once
    assert places.room() == 12
    places.add(job("other", host="other.example"))
    assert started(places) == ["other"]


def test_nothing_waits_for_longer_than_its_lease_permits(places, clock):
    for n in range(5):
        places.add(job(f"{n}"))
    started(places)
    clock.now += WAITS_SECONDS - 0.5
    assert places.put_off() == []
    clock.now += 0.5
    ((one, seconds),) = places.put_off()
    assert (one.request, seconds) == ("4", pytest.approx(WAITS_SECONDS))


def test_thousands_of_calls_of_a_receiver_that_is_away_do_not_come_back_all_the_time(places, clock):
    waits = []
    for n in range(2_000):
        places.add(job(f"{n}"))
        started(places)
        waits += [seconds for _, seconds in places.put_off()]
    assert len(waits) > 1_900
    clock.now += 15.0
    assert max(waits) > 90  # by the time of a quick call; slower ones wait longer


def test_all_that_waits_can_be_given_back(places):
    for n in range(6):
        places.add(job(f"{n}"))
    started(places)
    assert [one.request for one in places.leave()] == ["4", "5"]
    assert places.leave() == []


def test_receivers_that_are_not_called_any_more_are_forgotten(places, clock):
    """Clients choose them, so there may be any number."""
    for n in range(500):
        host = f"h{n}.example"
        last, *others = [job(f"{n} {m}", host=host) for m in range(6)]
        for one in (last, *others):
            places.add(one)
        started(places)
        clock.now += 8.0
        places.put_off()  # two of them have waited for too long
        for running in list(places._running.values()):
            places.end(running[0])
        clock.now += 60.0
    places.put_off()
    assert not places._put_off
    assert not places._means


def test_calls_that_end_say_how_long_those_of_their_receiver_will_take(places, clock):
    first = job("first")
    places.add(first)
    started(places)
    clock.now += FIRST_MEAN_SECONDS + 2.0
    places.add(job("second"))
    started(places)
    places.end(first)
    for n in range(63):
        places.add(job(f"{n}"))
    assert places.put_off()[0][1] == pytest.approx(FIRST_MEAN_SECONDS + WEIGHT * 2.0)


def test_while_no_thread_is_free_nothing_is_put_off(places):
    for n in range(16):
        places.add(job(f"{n}", host=f"h{n}.example"))
    assert len(started(places)) == 16
    for n in range(48):
        places.add(job(f"{n}"))
    assert places.put_off() == []


def test_a_receiver_is_forgotten_when_its_last_call_has_ended_and_what_was_put_off_is_due(places, clock):
    jobs = [job(f"{n}") for n in range(5)]
    for one in jobs:
        places.add(one)
    started(places)
    clock.now += WAITS_SECONDS
    ((_, seconds),) = places.put_off()
    clock.now += seconds
    for one in jobs[:4]:
        places.end(one)
    assert (places._put_off, places._means) == ({}, {})
