"""What the clients saw and what was done to the stack. Facts only, with times in seconds since the epoch."""

import math
import threading
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct


class Window(Struct, frozen=True):
    """A fault as it happened: its beginning and end, the regions whose tasks it can touch, and its hits (None: not counted).

    A kill ends when the signal was sent, a pause when the process goes on. ``back`` is when its part worked again.
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
    """An accepted task. ``number`` is the ledger's own id for it, which its page and its records contain.

    ``trouble``: the fault in its page, or whether it may move, from the plan (scripts.chaos.plan.Asked).
    """

    task: str
    request: str
    number: int
    region: str
    accepted: float
    deadline: float
    trouble: str = ""


class Cancel(Struct, frozen=True):
    """A client's DELETE: when it was first sent, and when it was answered with 200 (infinite: never)."""

    asked: float
    answered: float = math.inf


class Archived(Struct, frozen=True):
    """A request in the history's list: its state, and the state of each task."""

    request: str
    status: str
    tasks: list[tuple[str, str]]


class Delivery(Struct, frozen=True):
    """A result as one reader got it. ``digest`` is of its records. ``settled`` is the time in its cursor, if it had one."""

    task: str
    request: str
    status: str
    error: str
    digest: str
    attempts: int
    queued_ms: float
    at: float
    settled: float = 0.0
    region: str = ""


def delivery(result: dict[str, Any], request: str, at: float, digest: str, settled: float = 0.0) -> Delivery:
    """A result of the HTTP interface, as the ledger stores it."""
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
        region=result["region"],
    )


@dataclass
class Scaled:
    """The worker processes of a region.

    The changes of a region's number of worker processes: how often it grew, with the reasons, and how often it shrank; the fewest and the
    most processes that claimed at once.
    """

    grew: int = 0
    by_load: int = 0
    by_clock: int = 0
    by_command: int = 0
    shrank: int = 0
    least: int = 0
    most: int = 0


@dataclass
class Reader:
    """One client that followed one request: what it got, in order. ``ended`` is when it was told that there is no more."""

    request: str
    way: str
    got: list[Delivery] = field(default_factory=list)
    ended: float = 0.0
    vanished: int = 0  # answers that there is no such request, after it was accepted


@dataclass
class History:
    """Everything of one run. Its methods may be called from any thread."""

    posted: dict[int, str] = field(default_factory=dict)  # number → region, for every task that was requested
    promises: dict[str, Promise] = field(default_factory=dict)
    refused: dict[str, float] = field(default_factory=dict)  # request → when it was answered with 503
    unanswered: int = 0  # posts whose connection broke, so nothing was promised
    refused_without_id: int = 0
    odd: list[str] = field(default_factory=list)  # answers that no client should ever get
    slowest_answer: float = 0.0  # seconds for a post or its refusal, while the gateway itself was well
    readers: list[Reader] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    audited: dict[str, list[Delivery] | None] = field(default_factory=dict)  # request → its results; None: gone
    came_back: list[str] = field(default_factory=list)  # refused requests that could be read
    fetches: dict[int, int] = field(default_factory=dict)  # number → how often its page was requested
    cancels: dict[str, Cancel] = field(default_factory=dict)  # request → its client's DELETE
    letters: dict[str, bool] = field(default_factory=dict)  # unreadable messages → whether the broker confirmed them
    shown: list[str] = field(default_factory=list)  # those that are dead letters at the end
    archived: list[Archived] = field(default_factory=list)  # the history's list at the end
    scaled: dict[str, Scaled] = field(default_factory=dict)  # region → what its pools decided, with --scale
    lock: threading.Lock = field(default_factory=threading.Lock)

    def promise(self, promises: list[Promise]) -> None:
        """Records accepted tasks."""
        with self.lock:
            self.promises.update((one.task, one) for one in promises)

    def refuse(self, request: str | None, at: float) -> None:
        """Records that a post was answered with 503."""
        with self.lock:
            if request is None:
                self.refused_without_id += 1
            else:
                self.refused[request] = at

    def cancel(self, request: str, cancel: Cancel) -> None:
        """Records that a client cancels its request."""
        with self.lock:
            self.cancels[request] = cancel

    def lose_answer(self) -> None:
        """Records that a post got no answer."""
        with self.lock:
            self.unanswered += 1

    def wonder(self, what: str) -> None:
        """Records something that should not happen."""
        with self.lock:
            self.odd.append(what)

    def read(self, reader: Reader) -> None:
        """Records that a reader begins."""
        with self.lock:
            self.readers.append(reader)

    def took(self, seconds: float) -> None:
        """Records how long a post took."""
        with self.lock:
            self.slowest_answer = max(self.slowest_answer, seconds)
