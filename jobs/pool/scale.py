"""How many worker processes a region needs: pure, from what was seen, what is remembered, and what the clock allows.

    decide   state + observation + bounds → state, with the number and the reason of its last change
    share    a region's number → each pool's part of it

What the load needs is Little's law: threads = tasks that come a second x seconds that each holds a thread; or more, where
what is there would wait longer than the target. A process is added at 80 % of its threads and given up at 60 %, so that no load
stands on the edge of both. Growth is at once; the number shrinks to the highest need of the whole cooldown before (the
stabilization window of Kubernetes' HorizontalPodAutoscaler), so that growth and shrinking lie at least a cooldown apart.
"""

import math
from collections.abc import Mapping
from typing import Final

from msgspec import Struct, field, structs

from regions.schedule import Bounds, Scale

FULL: Final = 0.8  # a process is added when more of the threads would be in use
SLACK: Final = 0.6  # one is given up when fewer of the others' would be
MEMORY_SECONDS: Final = 30.0  # rates are means that forget with this time constant
SETTLE_SECONDS: Final = 5.0  # after growing, before what waits still is a reason of its own to grow
GAP_SECONDS: Final = 30.0  # without an observation for longer, what was learned is no longer true
RECENT_MAX: Final = 10  # decisions that are remembered


class Observation(Struct, frozen=True):
    """A region at one moment; times in seconds on its Redis's clock.

    ``running``: tasks that hold a thread; ``ended``: all that ever ended; ``ready``: processes that claim; ``threads``: of
    each. ``hold``: why nothing is claimed, so that other processes would do no better; or "".
    """

    at: float
    waiting: int
    oldest_seconds: float
    running: int
    ended: int
    ready: int
    threads: int
    hold: str = ""


class Load(Struct, frozen=True):
    """What the observations so far say: sums that forget, of tasks that came and ended, and of seconds held by threads.

    ``inside``: tasks that were there since the look before.
    """

    at: float
    total: int
    ended: int
    came: float = 0.0
    left: float = 0.0
    held: float = 0.0
    running: int = 0
    inside: int = 0

    @property
    def arrivals(self) -> float:
        """Tasks that come, a second."""
        return max(0.0, self.came / MEMORY_SECONDS)

    @property
    def ends(self) -> float:
        """Tasks that end, a second."""
        return self.left / MEMORY_SECONDS

    @property
    def task_seconds(self) -> float:
        """How long a task holds its thread; at least how long those have that run, where fewer ended. 0 where nobody knows."""
        count = max(self.left, float(self.running))
        return self.held / count if count > 0 else 0.0


class Decision(Struct, frozen=True):
    """A change of the number of processes."""

    at: float
    was: int
    number: int
    reason: str


class State(Struct, frozen=True):
    """What is remembered between two decisions. ``needs``: (when, processes) of the cooldown, only those that no later one passes."""

    number: int
    since: float
    grown_at: float
    load: Load
    needs: tuple[tuple[float, int], ...] = ()
    recent: tuple[Decision, ...] = ()
    needed: int = 1
    bounds: tuple[int, int] = (1, 1)


class Wish(Struct, frozen=True):
    """What an operator asked for, until a time (seconds since the epoch; None is until it is taken back)."""

    number: int
    until: float | None = None
    shown_until: str = field(default="it is taken back")


def decide(state: State | None, seen: Observation, bounds: Bounds, scale: Scale, wish: Wish | None = None) -> State:
    """The next state. A change of its number is its last ``recent``; without a state it begins with what runs."""
    if state is None or seen.at - state.load.at > GAP_SECONDS:
        state = _begin(state, seen, bounds)
    load = _learn(state.load, seen)
    high, low = (_need(load, seen, scale.target_wait_seconds, use) for use in (FULL, SLACK))
    is_late = seen.oldest_seconds > scale.target_wait_seconds
    if seen.hold:
        high = low = state.number
    elif is_late and high <= state.number and _is_saturated(state, seen):
        high = low = state.number + 1  # whatever the estimate says
    needs = _window(state.needs, seen.at, low, scale.cooldown_seconds)
    number, reason = _choose(state, seen, load, scale, bounds, wish, high=high, low=needs[0][1])
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
    """Each pool's part; what can't be split evenly stays where more run now. ``pools``: processes by the pool's name."""
    if not pools:
        return {}
    even, rest = divmod(number, len(pools))
    order = sorted(pools, key=lambda name: (-pools[name], name))
    return {name: even + (place < rest) for place, name in enumerate(order)}


def describe(seen: Observation, load: Load) -> str:
    """A region in a line: what waits, comes and runs."""
    oldest = f", the oldest for {seen.oldest_seconds:.1f} s" if seen.waiting else ""
    rates = f"{load.arrivals:.1f} come and {load.ends:.1f} end a second"
    each = f", {load.task_seconds:.2f} s each" if load.task_seconds else ""
    hold = f"; {seen.hold}" if seen.hold else ""
    return f"{seen.waiting} wait{oldest}; {rates}{each}{hold}"


def _begin(state: State | None, seen: Observation, bounds: Bounds) -> State:
    """A state that knows nothing yet but the number that runs, and what was decided before."""
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
    kept = math.exp(-passed / MEMORY_SECONDS)
    total = seen.waiting + seen.running + seen.ended
    if seen.ended < load.ended:  # a Redis that lost its counters
        load = structs.replace(load, total=total, ended=seen.ended)
    return Load(
        at=seen.at,
        total=total,
        ended=seen.ended,
        came=load.came * kept + total - load.total,  # less than nothing where tasks were cancelled: they are no load
        left=load.left * kept + seen.ended - load.ended,
        held=load.held * kept + seen.running * passed,
        running=seen.running,
        inside=total - load.ended,
    )


def _need(load: Load, seen: Observation, target_seconds: float, use: float) -> int:
    """Processes that keep up with what comes while ``use`` of their threads are busy, and let nothing wait too long.

    Of n tasks in c threads the last one waits (n - c) x seconds / c. That n counts all that was there since the look
    before makes the need the same whether few processes run or many; else each step would be a reason for the next one.
    """
    steady = load.arrivals * load.task_seconds / use
    last = target_seconds + load.task_seconds  # when the last one is to be done
    backlog = load.inside * load.task_seconds / last * FULL / use
    return max(1, math.ceil(round(max(steady, backlog) / seen.threads, 6)))


def _is_saturated(state: State, seen: Observation) -> bool:
    """Whether all that was asked for runs, for some time, and has no thread left."""
    is_settled = seen.ready >= state.number and seen.at - state.grown_at >= SETTLE_SECONDS
    return is_settled and seen.running >= 0.9 * seen.ready * seen.threads


def _window(
    needs: tuple[tuple[float, int], ...], at: float, need: int, seconds: float
) -> tuple[tuple[float, int], ...]:
    """The window with one more need; its first is its highest."""
    kept = [(when, one) for when, one in needs if one > need and when > at - seconds]
    return (*kept, (at, need))


def _choose(
    state: State,
    seen: Observation,
    load: Load,
    scale: Scale,
    bounds: Bounds,
    wish: Wish | None,
    *,
    high: int,
    low: int,
) -> tuple[int, str]:
    """The number, and why where it is another one."""
    now, most, least = state.number, bounds.max, bounds.min
    if wish is not None:
        number = min(max(wish.number, least), most)
        cut = "" if number == wish.number else f"; {bounds.source} allows {least} to {most}"
        return number, f"nearfetch scale asks for {wish.number}, until {wish.shown_until}{cut}"
    if now > most:
        return most, f"{bounds.source} allows at most {most}"
    if high > now and now < most:
        number = min(max(high, least), most)
        cut = f", {most} are allowed" if high > most else ""
        return (
            number,
            f"{describe(seen, load)}: {high} needed to keep the wait below {scale.target_wait_seconds:g} s{cut}",
        )
    if now < least:
        return least, f"{bounds.source} asks for at least {least}"
    number = max(low, least)
    if number < now and seen.at - state.since >= scale.cooldown_seconds:
        floor = f"; {bounds.source} asks for at least {least}" if least > low else ""
        return number, f"no more than {low} needed for {scale.cooldown_seconds:g} s{floor}; {describe(seen, load)}"
    return now, ""
