"""How many processes a region needs: invariants over whole days, and the text of each reason."""

import functools
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract import Minute
from jobs.pool.scale import RECENT_MAX, SETTLE_SECONDS, Observation, State, Wish, decide, share
from regions.schedule import Bounds, Scale, ScaleRule
from scripts.commands.day_simulation import START_SECONDS, Moment, by_minute, read_csv, simulate

DAYS = Path(__file__).parent / "days"
STEP_SECONDS = 2.0
FREE = Scale(min=1, max=8)


@functools.cache
def day(name: str, *, at_once: bool) -> list[Moment]:
    return list(simulate(read_csv(DAYS / f"{name}.csv"), FREE, 64, step_seconds=STEP_SECONDS, at_once=at_once))


@pytest.mark.parametrize("at_once", [False, True], ids=["spread", "at once"])
@pytest.mark.parametrize("name", sorted(path.stem for path in DAYS.glob("*.csv")))
def test_a_day_keeps_the_bounds_the_cooldown_and_the_target(name, at_once):
    """The tasks of a minute come evenly, or all in its first second, as from clients with a timer."""
    moments = day(name, at_once=at_once)
    numbers = [moment.state.number for moment in moments]
    assert set(numbers) <= set(range(1, 9))
    grown = float("-inf")
    late = 0.0
    turns, direction = 0, 0
    for before, after in pairwise(moments):
        change = after.state.number - before.state.number
        if change > 0:
            grown = after.seen.at
        if change < 0:
            assert after.seen.at - grown >= FREE.cooldown_seconds, after.state.recent[-1]
        if change * direction < 0:
            turns += 1
        direction = change or direction
        is_late = after.seen.oldest_seconds > FREE.target_wait_seconds and after.state.number < FREE.max
        late = late + STEP_SECONDS if is_late else 0.0
        assert late <= START_SECONDS + STEP_SECONDS, after
    assert turns <= 24


def test_a_day_that_comes_and_goes_every_two_minutes_is_one_growth():
    numbers = [moment.state.number for moment in day("saw", at_once=True)]
    assert sum(a != b for a, b in pairwise(numbers)) <= 3


def test_a_quiet_region_shrinks_to_its_floor():
    moments = day("bursts", at_once=True)
    assert max(moment.state.number for moment in moments) == FREE.max
    assert sum(moment.state.number for moment in moments) / len(moments) < 1.2


def test_a_rule_grows_before_the_burst_and_then_nothing_waits_for_a_start():
    """Eight processes run the tasks of the full hour without the wait that one process would cause."""
    minutes = [one for one in read_csv(DAYS / "weekday.csv") if 6.5 * 3600 <= one.at % 86_400 < 9.25 * 3600]
    rules = (ScaleRule(cron="59 6-20 * * *", min=8), ScaleRule(cron="5 7-20 * * *"))
    scale = Scale(min=1, max=8, cooldown_seconds=60, schedule=rules)
    planned, plain = (
        list(simulate(minutes, one, 16, step_seconds=STEP_SECONDS))
        for one in (scale, Scale(min=1, max=8, cooldown_seconds=60))
    )
    assert max(moment.seen.oldest_seconds for moment in planned) <= max(moment.seen.oldest_seconds for moment in plain)
    at_eight = [moment.state for moment in planned if moment.seen.at % 86_400 == 8 * 3600]
    assert [state.number for state in at_eight] == [8]
    assert 'the rule "59 6-20 * * *" UTC asks for at least 8' in at_eight[0].recent[-1].reason


def seen(at: float, **more) -> Observation:
    given = {"waiting": 0, "oldest_seconds": 0.0, "running": 0, "ended": 0, "ready": 2, "threads": 4, **more}
    return Observation(at=at, **given)


BOUNDS = Bounds(2, 6)
SCALE = Scale(min=2, max=6, cooldown_seconds=60)


def after(*observations: Observation, bounds: Bounds = BOUNDS, wish: Wish | None = None) -> State:
    state = decide(None, seen(0.0), bounds, SCALE)
    for one in observations:
        state = decide(state, one, bounds, SCALE, wish)
    return state


def test_it_begins_with_what_runs_within_the_bounds():
    for ready, number in ((0, 2), (4, 4), (9, 6)):
        state = decide(None, seen(0.0, ready=ready), BOUNDS, SCALE)
        assert state.number == number
        assert f"begins with {ready} that run" in state.recent[-1].reason


def test_a_deep_queue_of_quick_tasks_is_no_reason_to_grow():
    """The depth of the queue is no reason: the running processes finish it within the target."""
    slow = after(seen(1.0, running=8), seen(2.0, running=8, ended=8, waiting=100))
    quick = after(seen(1.0, running=8, ended=800), seen(2.0, running=8, ended=1600, waiting=100))
    assert (slow.number, quick.number) == (6, 2)
    assert "needed to keep the wait below 2 s, 6 are allowed" in slow.recent[-1].reason


def test_what_waits_too_long_while_all_is_busy_is_a_reason_whatever_the_estimate_says():
    busy = [seen(at, running=8, ended=int(at * 8), waiting=1, oldest_seconds=at) for at in (1.0, 2.0, 3.0, 4.0)]
    assert after(*busy).number == 2
    late = seen(SETTLE_SECONDS + 1, running=8, ended=48, waiting=1, oldest_seconds=3.0)
    assert after(*busy, late).number == 3
    idle = seen(SETTLE_SECONDS + 1, running=1, ended=48, waiting=1, oldest_seconds=3.0)
    assert after(*busy, idle).number == 2


def computing(
    ready: int, processors: int, *, share: float = 1.0, waits: float = 0.0, count: int = 90
) -> list[Observation]:
    """Seconds in which each process uses its processor; its threads are few, since others only would wait for them."""
    load = {"ready": ready, "running": 4, "waiting": 10, "oldest_seconds": waits}
    return [
        seen(float(at), ended=300 * at, computing=share * ready, processors=processors, **load)
        for at in range(1, count + 1)
    ]


def test_processes_that_compute_without_a_break_are_joined_by_another_one_where_a_processor_is_left():
    assert after(*computing(2, 8)).number == 3
    assert after(*computing(2, 8, share=0.7)).number == 2
    assert after(*computing(2, 2)).number == 2
    assert after(*computing(2, 0)).number == 2  # pools of an older version do not say how many there are


def test_it_is_at_once_where_tasks_wait_too_long():
    assert after(*computing(2, 8, count=3)).number == 2
    assert after(*computing(2, 8, count=3, waits=2.5)).number == 3


def test_processes_that_compute_are_not_given_up():
    grown = after(*computing(4, 8, share=0.7), bounds=Bounds(4, 6))
    state = grown
    for at in range(91, 300):
        state = decide(state, computing(4, 8, share=0.7, count=at)[-1], Bounds(1, 6), SCALE)
    assert state.number == 4


def test_a_suspended_region_stays_as_it_is():
    held = [
        seen(float(at), waiting=5000, oldest_seconds=at, running=8, ended=8, hold="the region is suspended")
        for at in (6, 9)
    ]
    assert after(*held).number == 2


def test_tasks_that_left_the_queue_without_running_are_no_load():
    """Tasks that were cancelled, or that wait for a host's turn."""
    came = seen(1.0, waiting=5000)
    gone = [seen(float(at), running=4, ended=4 * at) for at in range(2, 90)]
    assert after(came, *gone).load.arrivals == pytest.approx(4, rel=0.2)


def test_it_shrinks_to_the_highest_need_of_the_cooldown_and_not_before():
    grown = after(seen(1.0, running=8), seen(2.0, running=8, waiting=300))
    assert grown.number == 6
    state = grown
    for at in range(3, 61):
        state = decide(state, seen(float(at), ready=6, ended=308), BOUNDS, SCALE)
        assert state.number == 6
    for at in range(61, 70):
        state = decide(state, seen(float(at), ready=6, ended=308), BOUNDS, SCALE)
    assert state.number == 2
    assert "no more than" in state.recent[-1].reason


def test_an_operators_number_counts_within_the_bounds_whatever_the_load():
    busy = seen(1.0, running=8, waiting=5000, oldest_seconds=60)
    state = after(busy, wish=Wish(3, 5.0, "06:00"))
    assert (state.number, state.recent[-1].reason) == (3, "nearfetch scale asks for 3, until 06:00")
    state = after(busy, wish=Wish(9))
    assert state.number == 6
    assert state.recent[-1].reason.endswith("until it is taken back; [scale] allows 2 to 6")
    state = decide(state, seen(2.0, ready=6), Bounds(2, 4), SCALE)
    assert (state.number, state.recent[-1].reason) == (4, "[scale] allows at most 4")


def test_a_state_of_long_ago_is_begun_anew_and_its_decisions_are_kept():
    state = after(seen(1.0, running=8), seen(2.0, running=8, waiting=300))
    later = decide(state, seen(5000.0, ready=2, ended=10**6), BOUNDS, SCALE)
    assert (later.number, later.load.arrivals) == (2, 0.0)
    assert [one.number for one in later.recent] == [2, 6, 2]


def test_a_redis_that_lost_its_counters_is_no_wave_of_tasks():
    state = after(seen(1.0, ended=10**6), seen(2.0, ended=5))
    assert state.load.arrivals < 10**6
    assert decide(state, seen(3.0, ended=6), BOUNDS, SCALE).load.ends >= 0


observations = st.builds(
    seen,
    at=st.floats(0, 10_000),
    waiting=st.integers(0, 10**6),
    oldest_seconds=st.floats(0, 10**4),
    running=st.integers(0, 10**4),
    ended=st.integers(0, 10**9),
    ready=st.integers(0, 20),
    threads=st.integers(1, 1024),
    hold=st.sampled_from(["", "the outbox is full"]),
)


@given(
    st.lists(observations, max_size=30),
    st.integers(1, 5),
    st.integers(0, 5),
    st.none() | st.builds(Wish, st.integers(1, 99)),
)
def test_whatever_is_seen_the_number_lies_within_the_bounds_and_each_change_has_a_reason(found, least, more, wish):
    """Also when clocks go back and counters jump."""
    state, bounds = None, Bounds(least, least + more)
    for one in found:
        before, state = state, decide(state, one, bounds, SCALE, wish)
        assert bounds.min <= state.number <= bounds.max
        assert len(state.recent) <= RECENT_MAX
        if before is not None and before.number != state.number:
            assert (state.recent[-1].was, state.recent[-1].number) == (before.number, state.number)
            assert state.recent[-1].reason


@given(st.integers(0, 50), st.dictionaries(st.text("ab", min_size=1), st.integers(0, 20), max_size=6))
def test_shares_add_up_and_differ_by_one_at_most(number, pools):
    shares = share(number, pools)
    assert sum(shares.values()) == (number if pools else 0)
    assert not pools or max(shares.values()) - min(shares.values()) <= 1
    assert share(number, shares) == shares  # nobody moves again


def test_a_days_minutes_tell_what_came_and_waited():
    arrived = [Minute(at=60.0 * n, arrived=120, task_seconds=0.5) for n in range(5)]
    recorded = list(by_minute(simulate(arrived, Scale(min=1, max=2), 4)))
    assert [one.at for one in recorded] == [0, 60, 120, 180, 240]
    assert sum(one.arrived for one in recorded) == pytest.approx(600, abs=3)
    assert all(one.task_seconds == pytest.approx(0.5, rel=0.3) for one in recorded[1:])
