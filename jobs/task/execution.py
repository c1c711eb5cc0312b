"""The data of one execution of a task that a runner needs."""

from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.contract import Task
from jobs.errors import TaskError
from jobs.queue.turn import Free, Turns


def never() -> bool:
    """For an execution that nobody cancels."""
    return False


@dataclass(slots=True)
class Execution:
    """One attempt at a task. ``offset_ms`` is the hub's clock less this machine's (``jobs.queue.clock.machine_ms``).

    ``attempt`` counts from 1; ``failures`` of the attempts before it failed. ``queued_ms`` is how long the task waited in
    queues. ``cancelled`` is called often, from other threads too. ``turn`` makes it wait for its hosts. With a ``refusal``
    no host has a turn for it in time: nothing is fetched, and the attempt fails with that error.
    """

    task: Task
    offset_ms: int = 0
    attempt: int = 1
    failures: int = 0
    queued_ms: float = 0.0
    cancelled: Callable[[], bool] = never
    turn: Turns = field(default_factory=Free)
    refusal: TaskError | None = None
