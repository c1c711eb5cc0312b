"""The faults that a run does to the stack, and the requests that it posts. The seed alone decides, before anything starts.

    make(seed, …) → Plan: faults (in rounds, with peace between them) and posts, both by seconds since the start

The faults of a round overlap. The peace after it is longer than the 30 s within which everything has to work again.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import Struct, structs

from scripts.chaos.points import POINTS, links

PEACE_SECONDS: Final = 35.0
ROUND_SECONDS: Final = 60.0
WARM_SECONDS: Final = 3.0  # of load before the first fault
SHORT_SECONDS: Final = 150.0  # a shorter run is one round, and its deadlines lie after its last fault
HEAD_SECONDS: Final = 5.0  # in a short run, for the faults that must hit something
AT_ONCE: Final = 5  # faults in each round
ALONE: Final = "kill-worker"
CLEAR_SECONDS: Final = 5.0  # between a round's last fault and a worker that dies alone
MEAN_TASKS: Final = 8  # in each request
BURST_TASKS: Final = 30  # slow tasks, so that a worker runs enough of them when it is killed
BURST_SECONDS: Final = 3.0
BURSTS_AFTER: Final = (0.0, 4.0, 8.0)  # seconds; more than one burst, since a gateway may refuse some
AT_LEAST_SECONDS: Final = 2.5  # time for a task besides its page's, so that peace is always enough for the deadline
HURRIED: Final = 0.2  # share of the small requests whose deadline is too short to oblige anybody
SMALL_TASKS: Final = 4  # at most
CANCEL_TASKS: Final = 2  # in each request that its client cancels
TASKS_A_CANCEL: Final = 250  # one such request for this many tasks of the load
CANCELS_MIN: Final = 8  # at least, since a gateway may refuse some
CANCEL_SECONDS: Final = 3.0  # at most, after the accept; the pages of such a request take longer
TASKS_A_LETTER: Final = 100  # one unreadable message for this many tasks of the load
LETTERS_MAX: Final = 500  # a hub keeps the latest thousand dead letters

# With --scale, the load comes in waves. Each has more slow tasks than one process can do in time.
WAVE_SECONDS: Final = 30.0
LONG_WAVE_SECONDS: Final = 6.0
WAVE_TASKS: Final = 40  # in each region
WAVE_PAGE_SECONDS: Final = 2.0
SCALE_MAX: Final = 3  # processes in a region
ASK_AFTER, AUTO_AFTER = 12.0, 20.0  # seconds after a wave's beginning

Way = Literal["poll", "wait", "events", "sync", "records"]
FOLLOWED: Final[tuple[Way, ...]] = ("poll", "wait", "events")
WAYS: Final[tuple[Way, ...]] = (*FOLLOWED, "sync", "records")
OF_WAYS: Final = (30, 30, 30, 6, 4)  # their relative frequencies

Trouble = Literal["", "once", "http_status", "parse", "contract", "timeout", "moves", "pinned"]
TROUBLES: Final[tuple[Trouble, ...]] = ("", "once", "http_status", "parse", "contract")
OF_TROUBLES: Final = {"once": 0.015, "http_status": 0.005, "parse": 0.005, "contract": 0.005}  # shares of the tasks

STUCK: Final[Trouble] = "timeout"  # a computation without an end; a fault of its own, and on none of the load's pages
# No troubles of pages: whether another region may answer while this one is lost. On none of the load's other pages, either.
MOVES: Final[Trouble] = "moves"
PINNED: Final[Trouble] = "pinned"
LOST_AT: Final = (-1.0, 1.0, 6.0, 12.0)  # seconds from the loss of a region, when its tasks come
LOST_TASKS: Final = 3  # of each of the two
LOST_PAGE_SECONDS: Final = 0.5
ENDS: Final = frozenset({*TROUBLES[2:], STUCK})  # troubles that are also the type of error with which the task ends

Form = Literal["garbage", "version", "kind", "stranger", "cancel"]
FORMS: Final[tuple[Form, ...]] = ("garbage", "version", "kind", "stranger", "cancel")


class Kind(Struct, frozen=True):
    """A kind of fault: its possible targets, and its duration in seconds (0, 0: it ends when it is done)."""

    targets: Callable[[Sequence[str]], list[str]]
    seconds: tuple[float, float] = (0.0, 0.0)
    must_hit: bool = False  # it counts only if it hit something


class Fault(Struct, frozen=True):
    """One fault: seconds since the start, its kind, and the part, link or point that it affects."""

    at: float
    kind: str
    target: str
    seconds: float


class Asked(Struct, frozen=True, array_like=True):
    """One task: its number, its region, how long its page takes, and the trouble with that page.

    ``trouble``: with "once" the page fails at its first request and is right afterwards. Any other trouble is the type of
    error with which the task must end ("timeout" for a computation without an end); but with "moves" a standby may answer, and
    with "pinned" none may.
    """

    number: int
    region: str
    seconds: float
    trouble: Trouble = ""


class Post(Struct, frozen=True):
    """One request, the way in which its client follows it, and how long after its accept the client cancels it, if at all."""

    at: float
    way: Way
    deadline: float
    tasks: list[Asked]
    cancel_after: float | None = None


class Scaling(Struct, frozen=True):
    """An operator asks for a number of worker processes in a region, or withdraws that with "auto"."""

    at: float
    region: str
    number: str


class Letter(Struct, frozen=True):
    """An unreadable message for a region. It must become a dead letter."""

    at: float
    name: str
    region: str
    form: Form


@dataclass(frozen=True)
class Plan:
    """Everything that a run does."""

    seed: int
    seconds: float
    faults: list[Fault]
    posts: list[Post]
    letters: list[Letter]
    scalings: list[Scaling]

    @property
    def digest(self) -> str:
        """A digest by which equal plans are recognised."""
        return hashlib.sha256(msgspec.json.encode((self.faults, self.posts, self.letters, self.scalings))).hexdigest()[
            :12
        ]


def _each(part: str) -> Callable[[Sequence[str]], list[str]]:
    return lambda regions: [f"{part}-{region}" for region in regions]


def _one(part: str) -> Callable[[Sequence[str]], list[str]]:
    return lambda _: [part]


def _links(regions: Sequence[str]) -> list[str]:
    return [link.name for link in links(regions)]


def _points(regions: Sequence[str]) -> list[str]:
    return [f"{point.name} {link.name}" for point in POINTS if not point.needs for link in point.links(regions)]


STUCK_DEADLINE: Final = 8.0
STUCK_SECONDS: Final = STUCK_DEADLINE + 4.0  # after its post; the task is given up 3 s after its deadline
PAUSE: Final = (1.0, 8.0)
LOST: Final = (8.0, 20.0)
KINDS: Final[dict[str, Kind]] = {
    "kill-worker": Kind(_each("workers"), must_hit=True),
    "kill-bridge": Kind(_each("bridge"), must_hit=True),
    "kill-gateway": Kind(_one("gateway")),
    "kill-rabbitmq": Kind(_one("rabbitmq")),
    "kill-redis": Kind(_each("redis")),
    "kill-hub": Kind(_one("hub")),
    "kill-slow-hub": Kind(_one("hub")),
    "kill-store": Kind(_one("store")),
    "pause-worker": Kind(_each("workers"), PAUSE),
    "pause-bridge": Kind(_each("bridge"), PAUSE),
    "pause-gateway": Kind(_one("gateway"), PAUSE),
    "pause-rabbitmq": Kind(_one("rabbitmq"), PAUSE),
    "pause-redis": Kind(_each("redis"), PAUSE),
    "pause-hub": Kind(_one("hub"), PAUSE),
    "pause-store": Kind(_one("store"), PAUSE),
    "restart-bridge": Kind(_each("bridge")),
    "restart-workers": Kind(_each("workers")),
    "restart-gateway": Kind(_one("gateway")),
    "cut": Kind(_links),
    "silence": Kind(_links),
    "stuck": Kind(_each("workers"), (STUCK_SECONDS, STUCK_SECONDS)),
    "step-clock": Kind(_each("redis"), (2.0, 10.0)),
    "hostile-clients": Kind(_one("clients"), PAUSE),
    "hostile-region": Kind(_each("credentials")),
    "pause-fork-server": Kind(_each("workers"), PAUSE),
    "delay": Kind(_links, (3.0, 10.0)),
    "black-hole": Kind(_links, PAUSE),
    "half-open": Kind(_links, PAUSE),
    "swallow": Kind(_points, (6.0, 6.0)),
    "alarm": Kind(_one("rabbitmq"), (2.0, 8.0)),
    "lose-region": Kind(_each("region"), LOST),
    "full-redis": Kind(_each("redis"), PAUSE),
    "full-hub": Kind(_one("hub"), PAUSE),
}


def kinds_of(words: Sequence[str]) -> list[str]:
    """The kinds that these words name, completely or by their beginning ("kill"). Raises ValueError."""
    found = []
    for word in words:
        named = [kind for kind in KINDS if kind == word or kind.startswith(f"{word}-")]
        if not named:
            raise ValueError(f"expected kinds of faults ({', '.join(KINDS)}), found {word!r}")
        found += named
    return list(dict.fromkeys(found)) or list(KINDS)


def regions_of(fault: Fault, regions: Sequence[str]) -> set[str]:
    """The regions whose tasks a fault can touch: one region, or all.

    Faults of the document store, and attackers, touch no tasks.
    """
    if fault.target.endswith("store") or fault.kind.startswith("hostile-"):
        return set()
    found = {region for region in regions for word in fault.target.split() if f"-{region}" in word}
    return found or set(regions)


def make(
    seed: int, *, tasks: int, seconds: float, regions: Sequence[str], kinds: Sequence[str], scaled: bool = False
) -> Plan:
    """The plan of a seed. ``scaled``: the load comes in waves, and an operator asks for other numbers of processes."""
    draw = random.Random(seed)
    faults = _faults(draw, seconds, regions, kinds)
    waves = [WARM_SECONDS + n * WAVE_SECONDS for n in range(int(seconds // WAVE_SECONDS) or 1)] if scaled else []
    posts = _posts(draw, tasks, seconds, regions, faults, waves)
    letters = _letters(draw, seed, tasks, seconds, regions)
    return Plan(seed, seconds, faults, posts, letters, _scalings(waves, regions))


def _faults(draw: random.Random, seconds: float, regions: Sequence[str], kinds: Sequence[str]) -> list[Fault]:
    """Each kind at least once, then all kinds again in another order, so that none is rare.

    A short run begins with the faults that must hit something, before others can interfere with the posts that they hit. In a
    long run, a worker also dies in the peace after every other round. Only there nothing else delays its tasks, so it shows
    how soon they begin again.
    """
    is_short = seconds < SHORT_SECONDS
    rounds = 1 if is_short else int(seconds // ROUND_SECONDS)
    stormy = seconds - WARM_SECONDS - 5.0 if is_short else ROUND_SECONDS - PEACE_SECONDS
    each = len(kinds) if is_short else max(AT_ONCE, -(-len(kinds) // rounds))
    deck: list[str] = []
    found = []
    for number in range(rounds):
        start = WARM_SECONDS + number * ROUND_SECONDS
        starts = sorted(draw.uniform(0, stormy * 0.7) for _ in range(each))
        if is_short:
            first = sum(KINDS[kind].must_hit for kind in kinds)
            others = each - first
            starts = [stormy * 0.95 * index / each for index in range(first)]
            head = max(HEAD_SECONDS, starts[-1]) if starts and others else 0.0
            starts += [head + (stormy * 0.95 - head) * index / others for index in range(others)]
        for at in starts:
            if not deck:
                deck = draw.sample(list(kinds), len(kinds))
                if is_short:
                    deck.sort(key=lambda kind: KINDS[kind].must_hit)
            found.append(_fault(draw, start + at, deck.pop(), regions, stormy if is_short else stormy - at))
        if not is_short and number % 2 and ALONE in kinds:
            found.append(_fault(draw, start + stormy + CLEAR_SECONDS, ALONE, regions, 0.0))
    return found


def _fault(draw: random.Random, at: float, name: str, regions: Sequence[str], longest: float) -> Fault:
    kind = KINDS[name]
    low, high = kind.seconds
    lasts = draw.uniform(low, max(low, min(high, longest)))
    return Fault(round(at, 2), name, draw.choice(kind.targets(regions)), round(lasts, 2))


def _posts(
    draw: random.Random,
    tasks: int,
    seconds: float,
    regions: Sequence[str],
    faults: Sequence[Fault],
    waves: Sequence[float],
) -> list[Post]:
    own, found = _bursts(faults), []
    own += _stuck(faults, _count(own))
    own += _lost(faults, _count(own))
    own += _cancelled(draw, _count(own), tasks, seconds, regions)
    own += _waves(waves, regions, _count(own))
    number = _count(own)
    while number < tasks:
        way = draw.choices(WAYS, OF_WAYS)[0]
        count = 1 if way in ("sync", "records") else min(draw.randint(1, 2 * MEAN_TASKS), tasks - number)
        is_hurried = draw.random() < HURRIED and count <= SMALL_TASKS
        deadline = draw.uniform(3, 20) if is_hurried else draw.uniform(200, 290)
        asked = [_asked(draw, number + index, regions) for index in range(count)]
        deadline = max(deadline, max(one.seconds for one in asked) + AT_LEAST_SECONDS)
        at = draw.choice(waves) + draw.uniform(0, LONG_WAVE_SECONDS) if waves else draw.uniform(0, seconds - 2)
        found.append(Post(round(at, 2), way, round(deadline, 1), asked))
        number += count
    return sorted([*own, *_troubled(draw, found)], key=lambda post: post.at)


def _count(posts: Sequence[Post]) -> int:
    return sum(len(post.tasks) for post in posts)


def _waves(waves: Sequence[float], regions: Sequence[str], number: int) -> list[Post]:
    """More tasks than one process of a region can do in time."""
    found = []
    for at in waves:
        for region in regions:
            asked = [Asked(number + index, region, WAVE_PAGE_SECONDS) for index in range(WAVE_TASKS)]
            found.append(Post(at, "events", 240.0, asked))
            number += WAVE_TASKS
    return found


def _scalings(waves: Sequence[float], regions: Sequence[str]) -> list[Scaling]:
    """In every other wave each region gets its maximum, and is then left to itself again."""
    found = []
    for number, at in enumerate(waves):
        for index, region in enumerate(regions):
            if (number + index) % 2 == 0:
                found += [Scaling(at + ASK_AFTER, region, str(SCALE_MAX)), Scaling(at + AUTO_AFTER, region, "auto")]
    return sorted(found, key=lambda one: one.at)


def _cancelled(draw: random.Random, number: int, tasks: int, seconds: float, regions: Sequence[str]) -> list[Post]:
    """Requests that their clients cancel while their pages are in the making; ``number`` is that of the first task."""
    found = []
    for _ in range(max(CANCELS_MIN, tasks // TASKS_A_CANCEL)):
        asked = [Asked(number + index, draw.choice(regions), CANCEL_SECONDS) for index in range(CANCEL_TASKS)]
        at, after = draw.uniform(0, seconds - 2), draw.uniform(0, CANCEL_SECONDS)
        found.append(Post(round(at, 2), draw.choice(FOLLOWED), 240.0, asked, round(after, 2)))
        number += CANCEL_TASKS
    return found


def _troubled(draw: random.Random, posts: list[Post]) -> list[Post]:
    """Gives troubles to some of the pages, each kind to at least one."""
    whole = [task.number for post in posts for task in post.tasks]
    draw.shuffle(whole)
    troubles: dict[int, Trouble] = {}
    for trouble in TROUBLES[1:]:
        for _ in range(min(len(whole), max(1, round(OF_TROUBLES[trouble] * len(whole))))):
            troubles[whole.pop()] = trouble
    return [
        structs.replace(
            post,
            tasks=[structs.replace(one, trouble=troubles.get(one.number, one.trouble)) for one in post.tasks],
        )
        for post in posts
    ]


def _letters(draw: random.Random, seed: int, tasks: int, seconds: float, regions: Sequence[str]) -> list[Letter]:
    """Letters, at least one of each form."""
    count = min(LETTERS_MAX, max(len(FORMS), tasks // TASKS_A_LETTER))
    found = [
        Letter(
            round(draw.uniform(0, seconds - 2), 2), f"letter-{seed}-{n}", draw.choice(regions), FORMS[n % len(FORMS)]
        )
        for n in range(count)
    ]
    return sorted(found, key=lambda letter: letter.at)


def _bursts(faults: Sequence[Fault]) -> list[Post]:
    """The tasks that the kills of workers and bridges are meant to hit."""
    found: list[Post] = []
    number = 0
    for fault in faults:
        region = fault.target.partition("-")[2]
        for after in BURSTS_AFTER if KINDS[fault.kind].must_hit else ():
            slow = BURST_SECONDS if fault.kind == "kill-worker" else 0.0
            asked = [Asked(number + index, region, slow) for index in range(BURST_TASKS)]
            found.append(Post(round(fault.at + after, 2), "wait", 240.0, asked))
            number += BURST_TASKS
    return found


def _stuck(faults: Sequence[Fault], number: int) -> list[Post]:
    """The posts of computations without an end; ``number`` is that of the first task."""
    wanted = [fault for fault in faults if fault.kind == "stuck"]
    return [
        Post(fault.at, "wait", STUCK_DEADLINE, [Asked(number + index, fault.target.partition("-")[2], 0.0, STUCK)])
        for index, fault in enumerate(wanted)
    ]


def _lost(faults: Sequence[Fault], number: int) -> list[Post]:
    """The tasks of regions that are lost, before and meanwhile: those that a standby may answer, and those that none may."""
    found = []
    for fault in faults:
        for after in LOST_AT if fault.kind == "lose-region" else ():
            region = fault.target.partition("-")[2]
            asked = [
                Asked(number + index, region, LOST_PAGE_SECONDS, PINNED if index % 2 else MOVES)
                for index in range(2 * LOST_TASKS)
            ]
            found.append(Post(max(0.0, round(fault.at + after, 2)), "events", 240.0, asked))
            number += 2 * LOST_TASKS
    return found


def _asked(draw: random.Random, number: int, regions: Sequence[str]) -> Asked:
    """A task; most pages are quick, and some are in the making when a fault comes."""
    seconds = draw.choices((0.0, round(draw.uniform(0.1, 1.0), 2), round(draw.uniform(1.0, 4.0), 2)), (60, 25, 15))[0]
    return Asked(number, draw.choice(regions), seconds)
