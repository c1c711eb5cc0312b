"""A run. All contenders are started once; then each is measured in turn, round by round and row by row.

Bench → everything is ready → idle: the cost of each side without load
      → run: rounds, rows: ours, the peer's pools and the bare loops, in the opposite order every other round → fair?
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

from scripts.bench import figures, floor, load, usage
from scripts.bench.figures import Alone, Floor, Load, Measured
from scripts.bench.ours import Ours, page_server
from scripts.bench.peer_stack import Peer, PeerPool, environment
from scripts.bench.rows import Row
from scripts.stack.ports import free_port
from scripts.stack.services import Running
from scripts.terminal import Progress

QUICK: Final = ("threads16", "prefork")  # the peer's pools that can be the best in a row without a delay
LATE: Final = ("threads16", "threads64")  # and in a row with one
IDLE_SECONDS: Final = 2.0
ROUNDS_TO_JUDGE: Final = (
    3  # before judging whether the comparison is fair; other work may have disturbed a single round
)
SLOW_CALLS_SECONDS: Final = 10.0  # limit for the synchronous calls of a row with a delay
BAR: Final = 24


class Plan(Struct, frozen=True):
    """The rows to measure, and how long. ``calls``: the number of synchronous calls in a round."""

    rows: list[Row]
    rounds: int
    seconds: float
    warm_seconds: float
    floor_seconds: float
    calls: int

    @property
    def steps(self) -> int:
        """The number of single measurements."""
        return self.rounds * sum(1 + 2 * (1 + len(pools(row))) for row in self.rows)


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
        self.idle_ms_per_second: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self._step = 0

    def __enter__(self) -> Self:
        python = environment(self._kept, self.progress)
        with self._stack:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nearfetch-bench-peer-")))
            self.pages_port = free_port()
            pages = Running(page_server(self.pages_port, folder)).start()
            self._stack.callback(pages.stop)
            self.peer = Peer(folder, python, self.pages_port)
            self._stack.callback(self.peer.stop)
            self.peer.start(self.progress)
            self.ours = Ours(self.pages_port, self.progress)
            self._stack.callback(self.ours.stop)
            self.ours.start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def idle(self) -> None:
        """Measures each side's CPU time without load. Both sides run at the same time."""
        sides = {"ours": _all(self.ours.hops()), "Celery": _all(self.peer.all_hops())}
        before = usage.cpu_ms(sides)
        time.sleep(IDLE_SECONDS)
        after = usage.cpu_ms(sides)
        self.idle_ms_per_second = {side: (after[side] - before[side]) / IDLE_SECONDS for side in sides}

    def run(self) -> None:
        """Measures all rounds. The figures are in ``rows``."""
        self.idle()
        self.rows = [
            figures.Row(
                row.name,
                row.title,
                row.delay_seconds == 0,
                Measured(),
                {PeerPool(self.peer, pool).name: Measured() for pool in pools(row)},
                [],
            )
            for row in self.plan.rows
        ]
        for number in range(self.plan.rounds):
            for row, found in zip(self.plan.rows, self.rows, strict=True):
                self._round(number, row, found)
                if row.name == "page" and number + 1 >= min(ROUNDS_TO_JUDGE, self.plan.rounds):
                    figures.check_fair(found)

    def _round(self, number: int, row: Row, found: figures.Row) -> None:
        contenders: list[tuple[Any, Measured]] = [(self.ours, found.ours)]
        contenders += [(one, found.peer[one.name]) for one in (PeerPool(self.peer, pool) for pool in pools(row))]
        for contender, measured in contenders if number % 2 == 0 else reversed(contenders):
            self._say(number, f"{row.title}: {contender.name}, load")
            measured.load.append(self._load(contender, row))
            self._say(number, f"{row.title}: {contender.name}, alone")
            measured.alone.append(self._alone(contender, row))
        self._say(number, f"{row.title}: bare loops")
        bare = floor.run(row.kind, self.pages_port, self.plan.floor_seconds)
        found.floor.append(Floor(**bare))

    def _load(self, contender: Any, row: Row) -> Load:
        samples: list[tuple[int, int]] = []
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
