"""A run. All contenders are started once; then each is measured in turn, round by round and row by row.

Bench → everything is ready → idle: the cost of each side without load
      → run: rounds, rows: ours, the peer's pools and the bare loops, in the opposite order every other round → fair?
                     rows with a full load: synchronous calls idle and beside it, ours and the peer's
      → a whole ``up`` in place of our stack: rounds of synchronous calls, ours and the peer's
"""

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from msgspec import Struct

from scripts.bench import figures, floor, interactive, load, usage
from scripts.bench.figures import Alone, Beside, Floor, Interactive, Load, Measured
from scripts.bench.interactive import Full
from scripts.bench.ours import Ours, page_server
from scripts.bench.peer_stack import Peer, PeerPool, environment
from scripts.bench.rows import Row
from scripts.stack.ports import free_port
from scripts.stack.services import Running
from scripts.terminal import Progress

QUICK: Final = ("threads16", "prefork")  # the peer's pools that can be the best in a row without a delay
LATE: Final = ("threads16", "threads64")  # and in a row with one
# The peer's pool for calls beside a load: a pool of their own, so that they wait for no other task.
CALLED: Final = "prefork"
IDLE_SECONDS: Final = 3.0
# Before judging whether the comparison is fair; other work may have disturbed a single round.
ROUNDS_TO_JUDGE: Final = 3
SLOW_CALLS_SECONDS: Final = 10.0  # limit for the synchronous calls of a row with a delay
BAR: Final = 24


class Plan(Struct, frozen=True):
    """The rows to measure, and how long. ``calls``: the number of synchronous calls in a round.

    ``whole``: the pages that are called in a whole ``up``. ``interactive_rounds``: the rounds that measure the rows with a full
    load, which take long. ``peer``: Celery takes part.
    """

    rows: list[Row]
    interactive: list[Full]
    whole: list[Row]
    rounds: int
    interactive_rounds: int
    seconds: float
    warm_seconds: float
    floor_seconds: float
    full_seconds: float
    full_warm_seconds: float
    calls: int
    peer: bool = True

    @property
    def steps(self) -> int:
        """The number of single measurements."""
        compared = self.rounds * sum(1 + 2 * (1 + self.peer * len(pools(row))) for row in self.rows)
        full = self.interactive_rounds * len(self.interactive) * (1 + self.peer)
        return compared + full + self.rounds * sum(1 + self.peer * len(pools(row)) for row in self.whole)

    @property
    def is_whole(self) -> bool:
        """Only a whole ``up`` is measured."""
        return not self.rows and not self.interactive


def pools(row: Row) -> tuple[str, ...]:
    """The peer's pools that take part in a row."""
    return LATE if row.delay_seconds else QUICK


class Bench:
    """All contenders, which run within the ``with`` block.

    Raises ``Failed``, ``NotReady``, ``NotStarted``, ``Wrong``, ``Unfair``.
    """

    def __init__(self, plan: Plan, progress: Progress, kept: Path) -> None:
        """``kept``: the folder of the peer's virtual environment."""
        self.plan, self.progress, self._kept = plan, progress, kept
        self.rows: list[figures.Row] = []
        self.interactive = [Interactive(row.name, row.title) for row in plan.interactive]
        self.whole: list[figures.Row] = []
        self.peer: Peer | None = None
        self.idle_ms_per_second: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self._step = 0

    def __enter__(self) -> Self:
        with self._stack:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nearfetch-bench-peer-")))
            self.pages_port = free_port()
            pages = Running(page_server(self.pages_port, folder)).start()
            self._stack.callback(pages.stop)
            if self.plan.peer:
                self.peer = Peer(folder, environment(self._kept, self.progress), self.pages_port)
                self._stack.callback(self.peer.stop)
                self.peer.start(self.progress)
            self.ours = Ours(self.pages_port, self.progress, whole=self.plan.is_whole)
            self._stack.callback(self._stop_ours)
            self.ours.start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _stop_ours(self) -> None:
        self.ours.stop()  # the stack that is there by then

    def idle(self, name: str) -> None:
        """Measures each side's CPU time without load; ``name`` is ours. Both sides run at the same time.

        The quieter of two windows counts: the part that starts last still works in the first one.
        """
        sides = {name: _all(self.ours.hops())}
        if self.peer:
            sides["Celery"] = _all(self.peer.all_hops())
        windows = []
        for _ in range(2):
            before = usage.cpu_ms(sides)
            time.sleep(IDLE_SECONDS)
            after = usage.cpu_ms(sides)
            windows.append({side: (after[side] - before[side]) / IDLE_SECONDS for side in sides})
        self.idle_ms_per_second |= {side: min(window[side] for window in windows) for side in sides}

    def run(self) -> None:
        """Measures all rounds. The figures are in ``rows``."""
        self.rows, self.whole = ([self._row(row) for row in rows] for rows in (self.plan.rows, self.plan.whole))
        if not self.plan.is_whole:
            self.idle(self.ours.name)
        for number in range(self.plan.rounds):
            for row, found in zip(self.plan.rows, self.rows, strict=True):
                self._round(number, row, found)
                if self.peer and row.name == "page" and number + 1 >= min(ROUNDS_TO_JUDGE, self.plan.rounds):
                    figures.check_fair(found)
            if number < self.plan.interactive_rounds:
                for full, seen in zip(self.plan.interactive, self.interactive, strict=True):
                    self._interactive(number, full, seen)
        if self.plan.whole:
            self._whole_up()

    def _row(self, row: Row) -> figures.Row:
        peer = {pool.name: Measured() for pool in self._pools(*pools(row))}
        return figures.Row(row.name, row.title, row.delay_seconds == 0, Measured(), peer, [])

    def _whole_up(self) -> None:
        """Measures synchronous calls in a whole ``up``, which takes the place of our stack of one region."""
        if not self.plan.is_whole:
            self.ours.stop()
            self.ours = Ours(self.pages_port, self.progress, whole=True)
            self.ours.start()
        for number in range(self.plan.rounds):
            for row, found in zip(self.plan.whole, self.whole, strict=True):
                for contender, measured in self._in_turn(number, row, found):
                    self._say(number, f"three regions, {row.title}: {contender.name}, alone")
                    measured.alone.append(self._alone(contender, row))
        self.idle("ours, three regions")

    def _in_turn(self, number: int, row: Row, found: figures.Row) -> list[tuple[Any, Measured]]:
        """Ours and the peer's pools, in the opposite order every other round."""
        contenders: list[tuple[Any, Measured]] = [(self.ours, found.ours)]
        contenders += [(one, found.peer[one.name]) for one in self._pools(*pools(row))]
        return contenders if number % 2 == 0 else contenders[::-1]

    def _pools(self, *names: str) -> list[PeerPool]:
        return [PeerPool(self.peer, name) for name in names] if self.peer else []

    def _round(self, number: int, row: Row, found: figures.Row) -> None:
        for contender, measured in self._in_turn(number, row, found):
            self._say(number, f"{row.title}: {contender.name}, load")
            measured.load.append(self._load(contender, row))
            self._say(number, f"{row.title}: {contender.name}, alone")
            measured.alone.append(self._alone(contender, row))
        self._say(number, f"{row.title}: bare loops")
        bare = floor.run(row.kind, self.pages_port, self.plan.floor_seconds)
        found.floor.append(Floor(**bare))

    def _interactive(self, number: int, row: Full, found: Interactive) -> None:
        contenders: list[tuple[Any, Any, list[Beside]]] = [(self.ours, self.ours, found.ours)]
        if self.peer:
            bulk, caller = self._pools("threads64" if row.delay_seconds else "threads16", CALLED)
            contenders.append((bulk, caller, found.peer))
        for bulk, caller, measured in contenders if number % 2 == 0 else reversed(contenders):
            self._say(number, f"beside a full load, {row.title}: {bulk.name}")
            measured.append(self._beside(bulk, caller, row))

    def _beside(self, bulk: Any, caller: Any, row: Full) -> Beside:
        idle = self._alone(caller, row.call)
        seen = done(
            interactive.beside(
                bulk,
                caller,
                row,
                self._numbers,
                warm_seconds=self.plan.full_warm_seconds + 2 * row.delay_seconds,
                seconds=self.plan.full_seconds,
                pages_port=self.pages_port,
            )
        )
        bulk.settle()
        seen.check(bulk, caller, row)
        return Beside(idle, Alone.of(seen.took), len(seen.took), seen.refused, seen.jobs_per_second)

    def _load(self, contender: Any, row: Row) -> Load:
        samples: list[tuple[int, int]] = []
        if contender is self.ours:
            self.ours.wait_for_bulk_alone()
        hops = contender.hops()

        def sample(held: int) -> None:
            samples.append((held, usage.memory_bytes(usage.members(contender.workers()))))

        before, clients_before = usage.cpu_ms(hops), usage.own_cpu_ms()
        window = done(
            load.many(
                contender,
                row,
                self._numbers,
                warm_seconds=self.plan.warm_seconds + 2 * row.delay_seconds,
                seconds=self.plan.seconds,
                pages_port=self.pages_port,
                sample=sample if row.delay_seconds else None,
            )
        )
        clients_ms = usage.own_cpu_ms() - clients_before
        contender.settle()  # later work belongs to the jobs' cost, and would disturb the next contender
        after = usage.cpu_ms(hops)
        jobs = load.check(contender, row, window.finished)
        used = {hop: (after[hop] - before[hop]) / jobs for hop in hops}
        held = statistics.mean(one[0] for one in samples) if samples else None
        memory = max(one[1] for one in samples) if samples else None
        return Load(window.jobs / window.seconds, used, clients_ms / jobs, memory, held)

    def _alone(self, contender: Any, row: Row) -> Alone:
        calls = self.plan.calls
        if row.delay_seconds:
            calls = min(calls, max(4, int(SLOW_CALLS_SECONDS / row.delay_seconds)))
        took, finished = done(load.alone(contender, row, self._numbers, calls=calls))
        load.check(contender, row, finished)
        contender.settle()
        return Alone.of(took)

    def _say(self, number: int, text: str) -> None:
        filled = BAR * self._step // self.plan.steps
        bar = "#" * filled + "." * (BAR - filled)
        self.progress.waiting(f"[{bar}] round {number + 1} of {self.plan.rounds}  {text}")
        self._step += 1


def _all(hops: dict[str, list[int]]) -> list[int]:
    return [leader for leaders in hops.values() for leader in leaders]


def done(asking: Coroutine[Any, Any, Any]) -> Any:
    """What the coroutine returns. Of several errors the first is raised."""
    try:
        return asyncio.run(asking)
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
