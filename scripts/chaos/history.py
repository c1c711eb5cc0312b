"""What the clients saw and what was done to the stack: facts only, with times in seconds since the epoch."""

import math
import threading
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct


class Window(Struct, frozen=True):
    """A fault as it was: when it began and ended, whose tasks it can touch, and how often it hit (None: not counted).

    A kill ends when it is sent, a stop when the process goes on. ``back``: when its part worked again.
    """

    kind: str
    target: str
    began: float
    ended: float
    regions: frozenset[str]
    hits: int | None = None
    back: float = 0.0
    note: str = ""


class Promise(Struct, frozen=True):
    """An accepted task. ``number`` is the ledger's own name of it, which its page and its records carry.

    ``trouble``: what the plan put into its page (scripts.chaos.plan.Asked).
    """

    task: str
    request: str
    number: int
    region: str
    accepted: float
    deadline: float
    trouble: str = ""


class Cancel(Struct, frozen=True):
    """A client's DELETE: when it was first sent, and when it was answered 200 (infinite: never)."""

    asked: float
    answered: float = math.inf


class Archived(Struct, frozen=True):
    """A request as the history lists it: its state, and each task's."""

    request: str
    status: str
    tasks: list[tuple[str, str]]


class Delivery(Struct, frozen=True):
    """A result as one reader got it. ``digest`` is of its records. ``settled``: its cursor, where it had one of its own."""

    task: str
    request: str
    status: str
    error: str
    digest: str
    attempts: int
    queued_ms: float
    at: float
    settled: float = 0.0


def delivery(result: dict[str, Any], request: str, at: float, digest: str, settled: float = 0.0) -> Delivery:
    """A result of the HTTP interface as the ledger keeps it."""
    return Delivery(
        task=result["task"],
        request=request,
        status=result["status"],
        error=(result["error"] or {}).get("type", ""),
        digest=digest,
        attempts=result["attempts"],
        queued_ms=result["timing"]["queued_ms"],
        at=at,
        settled=settled,
    )


@dataclass
class Scaled:
    """A region's worker processes: how often their number grew, and why, how often it shrank; how many claimed at a time."""

    grew: int = 0
    by_load: int = 0
    by_clock: int = 0
    by_command: int = 0
    shrank: int = 0
    least: int = 0
    most: int = 0


@dataclass
class Reader:
    """One client that followed one request to its end: what it got, in order; ``ended`` when it was told that it is all."""

    request: str
    way: str
    got: list[Delivery] = field(default_factory=list)
    ended: float = 0.0
    vanished: int = 0  # answers that there is no such request, after it had been accepted


@dataclass
class History:
    """Everything of one run. Its methods may be called from any thread."""

    posted: dict[int, str] = field(default_factory=dict)  # number → region, of every task that was asked for
    promises: dict[str, Promise] = field(default_factory=dict)
    refused: dict[str, float] = field(default_factory=dict)  # request → when it was answered 503
    unanswered: int = 0  # posts whose connection broke: nothing was promised
    refused_without_id: int = 0
    odd: list[str] = field(default_factory=list)  # answers that no client should ever get
    slowest_answer: float = 0.0  # of a post or a refusal, while the gateway itself was well
    readers: list[Reader] = field(default_factory=list)
    is_doubled: bool = False  # a reader got something twice
    windows: list[Window] = field(default_factory=list)
    audited: dict[str, list[Delivery] | None] = field(
        default_factory=dict
    )  # request → all of it at the end; None: gone
    came_back: list[str] = field(default_factory=list)  # refused requests that were readable
    fetches: dict[int, int] = field(default_factory=dict)  # number → how often its page was asked for
    cancels: dict[str, Cancel] = field(default_factory=dict)  # request → its client's DELETE
    letters: dict[str, bool] = field(default_factory=dict)  # unreadable messages → whether the broker confirmed them
    shown: list[str] = field(default_factory=list)  # those that are dead letters at the end
    archived: list[Archived] = field(default_factory=list)  # what the history lists at the end
    scaled: dict[str, Scaled] = field(default_factory=dict)  # region → what its pools decided, with --scale
    lock: threading.Lock = field(default_factory=threading.Lock)

    def promise(self, promises: list[Promise]) -> None:
        """Tasks were accepted."""
        with self.lock:
            self.promises.update((one.task, one) for one in promises)

    def refuse(self, request: str | None, at: float) -> None:
        """A post was answered 503."""
        with self.lock:
            if request is None:
                self.refused_without_id += 1
            else:
                self.refused[request] = at

    def cancel(self, request: str, cancel: Cancel) -> None:
        """A client cancels its request."""
        with self.lock:
            self.cancels[request] = cancel

    def lose_answer(self) -> None:
        """A post got no answer."""
        with self.lock:
            self.unanswered += 1

    def wonder(self, what: str) -> None:
        """Something that should not be."""
        with self.lock:
            self.odd.append(what)

    def read(self, reader: Reader) -> None:
        """A reader begins."""
        with self.lock:
            self.readers.append(reader)

    def took(self, seconds: float) -> None:
        """How long a post took."""
        with self.lock:
            self.slowest_answer = max(self.slowest_answer, seconds)
