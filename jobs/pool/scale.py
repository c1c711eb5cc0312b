"""Decides how many worker processes a region needs. Without I/O.

    decide   state + observation + bounds → state, with the number and the reason of its last change
    share    a region's number → each pool's part of it

The need follows Little's law: threads = tasks that come a second x seconds that each holds a thread. It is higher when the
waiting tasks would wait longer than the target. It is also higher when the processes use most of their processors, as long as the
machines have more: tasks that compute gain nothing by more threads.

A process is added when 80 % of the threads, or of the processors, are busy. It is given up when, without it, less
than 60 % of the threads of the others would be busy. So no load is at both limits. Growth is immediate. Shrinking goes down to the highest
need of the last cooldown (the stabilization window of Kubernetes' HorizontalPodAutoscaler), so that a shrink follows a
growth after a cooldown at the earliest.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec import Struct, field, structs

from regions.schedule import Bounds, Scale

FULL: Final = 0.8  # a process is added when more of the threads would be in use
SLACK: Final = 0.6  # one is given up when fewer of the others' would be
DECAY_SECONDS: Final = 30.0  # time constant of the moving averages
SETTLE_SECONDS: Final = 5.0  # after growth, before waiting tasks are a reason to grow further
GAP_SECONDS: Final = 30.0  # after a longer gap between observations, the averages are void
RECENT_MAX: Final = 10  # decisions that are kept


class Observation(Struct, frozen=True):
    """A region at one moment. Times are in seconds on its Redis's clock.

    ``running`` tasks hold a thread; ``ended`` is a counter of all time. ``ready`` processes claim, each with ``threads``.
    They use ``computing`` of the ``processors`` that their machines have. ``hold`` says why no process can claim, so that more
    processes would not help; else it is "".
    """

    at: float
    waiting: int
    oldest_seconds: float
    running: int
    ended: int
    ready: int
    threads: int
    hold: str = ""
    computing: float = 0.0
    processors: int = 0


class Load(Struct, frozen=True):
    """Decaying sums over the observations: tasks that came and ended, seconds for which threads were held, and CPU seconds.

    ``inside`` counts the tasks that were in the region at any time since the last observation.
    """

    at: float
    total: int
    ended: int
    came: float = 0.0
    left: float = 0.0
    held: float = 0.0
    running: int = 0
    inside: int = 0
    cpu: float = 0.0

    @property
    def arrivals(self) -> float:
        """Tasks that come in a second."""
        return max(0.0, self.came / DECAY_SECONDS)

    @property
    def ends(self) -> float:
        """Tasks that end in a second."""
        return self.left / DECAY_SECONDS

    @property
    def task_seconds(self) -> float:
        """Mean time for which a task holds its thread; 0 if unknown.

        While more tasks run than have ended, it is the time so far of those that run, so it may be too low.
        """
        count = max(self.left, float(self.running))
        return self.held / count if count > 0 else 0.0


class Decision(Struct, frozen=True):
    """A change of the number of processes."""

    at: float
    was: int
    number: int
    reason: str


class State(Struct, frozen=True):
    """What is kept between two decisions.

    ``needs``: (when, processes) in the cooldown, without those below a later one.
    """

    number: int
    since: float
    grown_at: float
    load: Load
    needs: tuple[tuple[float, int], ...] = ()
    recent: tuple[Decision, ...] = ()
    needed: int = 1
    bounds: tuple[int, int] = (1, 1)


class Wish(Struct, frozen=True):
    """The number that an operator asked for, up to a time in seconds since the epoch; None: until it is taken back."""

    number: int
    until: float | None = None
    shown_until: str = field(default="it is taken back")


def decide(state: State | None, seen: Observation, bounds: Bounds, scale: Scale, wish: Wish | None = None) -> State:
    """The next state.

    A change of the number is the last entry of ``recent``. Without a state, begins with what runs.
    """
    if state is None or seen.at - state.load.at > GAP_SECONDS:
        state = _begin(state, seen, bounds)
    load = _learn(state.load, seen)
    high, low = (_need(load, seen, scale.target_wait_seconds, use) for use in (FULL, SLACK))
    is_late = seen.oldest_seconds > scale.target_wait_seconds
    if seen.hold:
        high = low = state.number
    elif is_late and high <= state.number and _is_saturated(state, seen):
        high = low = state.number + 1  # the estimate is too low
    needs = _window(state.needs, seen.at, low, scale.cooldown_seconds)
    needed = _Needed(high, needs[0][1], load)
    number, reason = _choose(state, seen, scale, bounds, wish, needed)
    changed = number != state.number
    recent = (*state.recent, Decision(seen.at, state.number, number, reason))[-RECENT_MAX:] if changed else state.recent
    return structs.replace(
        state,
        number=number,
        grown_at=seen.at if number > state.number else state.grown_at,
        load=load,
        needs=needs,
        recent=recent,
        needed=high,
        bounds=(bounds.min, bounds.max),
    )


def share(number: int, pools: Mapping[str, int]) -> dict[str, int]:
    """Each pool's part; a remainder goes to the pools with the most processes.

    ``pools``: processes by the pool's name.
    """
    if not pools:
        return {}
    even, rest = divmod(number, len(pools))
    order = sorted(pools, key=lambda name: (-pools[name], name))
    return {name: even + (place < rest) for place, name in enumerate(order)}


def describe(seen: Observation, load: Load) -> str:
    """A region's load in one line."""
    oldest = f", the oldest for {seen.oldest_seconds:.1f} s" if seen.waiting else ""
    rates = f"{load.arrivals:.1f} come and {load.ends:.1f} end a second"
    each = f", {load.task_seconds:.2f} s each" if load.task_seconds else ""
    hold = f"; {seen.hold}" if seen.hold else ""
    return f"{seen.waiting} wait{oldest}; {rates}{each}{hold}"


def _begin(state: State | None, seen: Observation, bounds: Bounds) -> State:
    """A fresh state: the number that runs, and the decisions so far."""
    number = min(max(seen.ready, bounds.min), bounds.max)
    reason = f"begins with {seen.ready} that run; {bounds.source} asks for {bounds.min} to {bounds.max}"
    recent = state.recent if state else ()
    was = state.number if state else 0
    if number != was:
        recent = (*recent, Decision(seen.at, was, number, reason))[-RECENT_MAX:]
    total = seen.waiting + seen.running + seen.ended
    return State(number, seen.at, seen.at, Load(seen.at, total, seen.ended, running=seen.running), recent=recent)


def _learn(load: Load, seen: Observation) -> Load:
    passed = max(0.0, seen.at - load.at)
    kept = math.exp(-passed / DECAY_SECONDS)
    total = seen.waiting + seen.running + seen.ended
    if seen.ended < load.ended:  # the Redis lost its counters
        load = structs.replace(load, total=total, ended=seen.ended)
    return Load(
        at=seen.at,
        total=total,
        ended=seen.ended,
        came=load.came * kept
        + total
        - load.total,  # negative when tasks were cancelled while they waited: they are no load
        left=load.left * kept + seen.ended - load.ended,
        held=load.held * kept + seen.running * passed,
        cpu=load.cpu * kept + seen.computing * passed,
        running=seen.running,
        inside=total - load.ended,
    )


def _need(load: Load, seen: Observation, target_seconds: float, use: float) -> int:
    """Processes that keep up with the tasks that come, with ``use`` of their threads busy, and let none wait too long.

    Of n tasks in c threads the last one waits (n - c) x seconds / c. Here n counts all tasks since the last observation.
    That makes the need independent of how many processes run; otherwise each step would cause the next one.
    """
    steady = load.arrivals * load.task_seconds / use
    last = target_seconds + load.task_seconds  # when the last task must be done
    backlog = load.inside * load.task_seconds / last * FULL / use
    by_threads = max(steady, backlog) / seen.threads
    # An interpreter runs one thread at a time, so a process uses one processor at most.
    computing = load.cpu / DECAY_SECONDS
    if seen.oldest_seconds > target_seconds:
        computing = max(computing, seen.computing)
    by_processors = min(computing / use, float(seen.processors))
    return max(1, math.ceil(round(max(by_threads, by_processors), 6)))


def _is_saturated(state: State, seen: Observation) -> bool:
    """Whether all processes have run for some time and have no idle thread."""
    is_settled = seen.ready >= state.number and seen.at - state.grown_at >= SETTLE_SECONDS
    return is_settled and seen.running >= 0.9 * seen.ready * seen.threads


def _window(
    needs: tuple[tuple[float, int], ...], at: float, need: int, seconds: float
) -> tuple[tuple[float, int], ...]:
    """The window with one more need. Its first entry is its highest."""
    kept = [(when, one) for when, one in needs if one > need and when > at - seconds]
    return (*kept, (at, need))


class _Needed(NamedTuple):
    """How many processes the load needs: ``high`` now, ``low`` at least during the cooldown."""

    high: int
    low: int
    load: Load


def _choose(
    state: State, seen: Observation, scale: Scale, bounds: Bounds, wish: Wish | None, needed: _Needed
) -> tuple[int, str]:
    """The number, and the reason when it changes."""
    now, most, least = state.number, bounds.max, bounds.min
    high, low, load = needed
    if wish is not None:
        number = min(max(wish.number, least), most)
        cut = "" if number == wish.number else f"; {bounds.source} allows {least} to {most}"
        return number, f"nearfetch scale asks for {wish.number}, until {wish.shown_until}{cut}"
    if now > most:
        return most, f"{bounds.source} allows at most {most}"
    if high > now and now < most:
        number = min(max(high, least), most)
        cut = f", {most} are allowed" if high > most else ""
        why = f"{high} needed to keep the wait below {scale.target_wait_seconds:g} s{cut}"
        return number, f"{describe(seen, load)}: {why}"
    if now < least:
        return least, f"{bounds.source} asks for at least {least}"
    number = max(low, least)
    if number < now and seen.at - state.since >= scale.cooldown_seconds:
        floor = f"; {bounds.source} asks for at least {least}" if least > low else ""
        return number, f"no more than {low} needed for {scale.cooldown_seconds:g} s{floor}; {describe(seen, load)}"
    return now, ""
