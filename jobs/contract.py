"""The messages between processes, and their versions.

    gateway ── Task, Cancel ──> region ── Outcome, with a Trail and the frame of a Result (jobs.result_frame) ──> hub

Readers accept versions ``VERSION`` - 1 to + 1 and ignore unknown fields. Other versions raise ``UnknownVersion``.
"""

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from msgspec import Meta, Struct

from jobs.errors import TaskError

VERSION: Final = 1
KEEP_MS: Final = 300_000  # a job's record outlives its deadline by this, so that a redelivery is recognized
MINUTE_SECONDS: Final = 60.0
DAY_MINUTES: Final = 1_440
MINUTES_MAX: Final = 30  # of a region's day in one status

State = Literal["queued", "running", "succeeded", "failed", "expired", "cancelled"]
LOST: Final = "lost"  # in place of an error's type: the attempt's process died, and the task went on
PUT_BACK: Final = "put back"  # likewise: the task went back to the queue, since no thread was free to wait for its turn
FINAL: Final = frozenset({"succeeded", "failed", "expired", "cancelled"})


class UnknownVersion(ValueError):  # noqa: N818
    """A message of a version that this process does not read. The message names both."""

    def __init__(self, what: str, found: object) -> None:
        super().__init__(f"expected a {what} of version {VERSION - 1} to {VERSION + 1}, found {found!r}")


# Longer ones would pass what Redis and floats can count to, and end the process that reads them.
Ms = Annotated[int, Meta(ge=0, le=10**15)]
Age = Annotated[float, Meta(ge=0, le=10**12)]


class Task(Struct, frozen=True, kw_only=True):
    """One source of one request, as the gateway publishes it. Times are milliseconds since the epoch on the hub's clock."""

    v: int = VERSION
    task: str
    request: str
    source: str
    region: str
    params: dict[str, Any] = {}
    url: str = ""  # the first address, expanded by the gateway
    host: str = ""  # its origin, whose turn the task needs
    definition: str = ""  # the hash of the definition at the gateway
    accepted_ms: Ms
    deadline_ms: Ms
    expires_ms: Ms
    max_age: Age = 0.0
    sync: bool = False
    traceparent: str | msgspec.UnsetType = msgspec.UNSET  # as its client sent it (W3C Trace Context)

    @property
    def traced(self) -> dict[str, str]:
        """What log lines about the task say of its trace: its id, if the client has one."""
        return {} if self.traceparent is msgspec.UNSET else trace_of(self.traceparent)

    @property
    def is_sampled(self) -> bool:
        """Whether its client records the trace, so that each step of the task gets a log line."""
        return self.traceparent is not msgspec.UNSET and is_sampled(self.traceparent)


class Cancel(Struct, frozen=True, kw_only=True):
    """A control message that cancels a task."""

    v: int = VERSION
    task: str
    request: str
    deadline_ms: Ms


Span = Annotated[float, Meta(ge=-(10**15), le=10**15)]
Size = Annotated[int, Meta(ge=0, le=10**15)]


class Timing(Struct, kw_only=True):
    """How long the parts of a task took. ``total_ms`` runs from its acceptance to the end of parsing."""

    queued_ms: Span = 0.0
    turn_ms: Span = 0.0
    fetch_ms: Span = 0.0
    parse_ms: Span = 0.0
    total_ms: Span = 0.0


class Bytes(Struct, kw_only=True):
    """``raw``: decoded bodies; ``records``: JSON of the records; ``wire``: the frame that was sent to the hub.

    ``received``: the answers as they came to the region, heads and packed bodies. ``spared``: what the pages had when they
    were fetched, if they were not fetched again: they had not changed (304), or an earlier or a shared answer was used.
    """

    raw: Size = 0
    records: Size = 0
    wire: Size = 0
    received: Size = 0
    spared: Size = 0

    @property
    def page(self) -> int:
        """What the pages behind the records had on the wire when they were fetched. A 304 itself is left out."""
        return max(self.received, self.spared)


class Error(Struct, kw_only=True):
    """Why a task failed."""

    type: str
    message: str
    origin: str
    retryable: bool = False
    retry_after: Span | None = None
    http_status: Size | None = None

    @classmethod
    def of(cls, error: TaskError) -> "Error":
        """The public form of a ``TaskError``."""
        return cls(
            type=type(error).type,
            message=str(error),
            origin=error.whose,
            retryable=error.is_retryable,
            retry_after=error.retry_after,
            http_status=error.http_status,
        )


class Result(Struct, kw_only=True):
    """A result without its records, which travel beside it as bytes."""

    task: str
    source: str
    region: str
    status: str
    attempts: Size = 1
    count: Size = 0
    partial: bool = False
    warnings: list[str] = []
    url: str = ""
    definition: str = ""
    fetched_at: str | None = None
    age: Span = 0.0
    cached: bool = False
    stale: bool = False
    timing: Timing = msgspec.field(default_factory=Timing)
    bytes: Bytes = msgspec.field(default_factory=Bytes)
    error: Error | None = None


class Attempt(Struct, array_like=True, frozen=True):
    """One execution of a task. ``ended_ms`` is 0 while it runs.

    ``error`` is an error's type, ``LOST`` if its process died, or ``PUT_BACK`` if it had to wait. It is "" for no error, and for
    the last attempt, whose error is the result's. A ``message`` without an error names the task whose answer it used.
    ``turn_ms``: how long it had waited for its host's turn before.
    """

    attempt: int
    started_ms: int
    ended_ms: int
    worker: str
    error: str
    message: str
    turn_ms: int = 0


class Run(Struct, array_like=True, frozen=True, kw_only=True):
    """What an execution showed about its source, for the source's health and traffic (web.hub.runs). Clients do not see it.

    ``error`` and ``origin`` are those of ``Error``, "" for a success; they are set even if an older answer replaces the failure.
    ``host`` is set for errors of the network only.
    ``own``: it asked the source itself. Otherwise it uses another execution's answer, and only its bytes count.
    ``busy_ms``: fetching and parsing. ``gaps``: how many records lack a field, for each field that some lack.
    The bytes are those of ``Bytes``; a region of an earlier version does not send the last two.
    """

    source: str
    definition: str
    error: str = ""
    origin: str = ""
    host: str = ""
    rows: int = 0
    raw_bytes: int = 0
    records_bytes: int = 0
    wire_bytes: int = 0
    busy_ms: int = 0
    partial: bool = False
    own: bool = True
    gaps: dict[str, int] = {}
    received_bytes: int = 0
    spared_bytes: int = 0


class Minute(Struct, frozen=True):
    """One minute of a region's day, from ``at`` (seconds since the epoch). ``arrived`` and ``ended`` are sums, the others highest values.

    ``task_seconds`` is how long a task held its thread on average. ``wanted`` and ``ready`` count processes.
    """

    at: float
    arrived: int = 0
    ended: int = 0
    waiting: int = 0
    oldest_seconds: float = 0.0
    running: int = 0
    task_seconds: float = 0.0
    wanted: int = 0
    ready: int = 0


class Trail(Struct, array_like=True, frozen=True):
    """A task's way through its region: when it was bridged, all attempts, and what the last one showed. Times are hub ms."""

    bridged_ms: int
    attempts: list[Attempt]
    run: Run | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """How a task ended in its region, as the outbox and the out stream have it. Times are hub ms.

    ``trail`` is a ``Trail`` as JSON, empty if no worker ran the task. ``run`` becomes a part of it.
    """

    request: str
    task: str
    status: str
    finished_ms: int
    expires_ms: int
    frame: bytes
    trail: bytes = b""
    run: Run | None = None


class _Versioned(Struct, frozen=True):
    v: int


_task_decoder = msgspec.json.Decoder(Task)
_cancel_decoder = msgspec.json.Decoder(Cancel)
_version_decoder = msgspec.json.Decoder(_Versioned)
_encoder = msgspec.json.Encoder()
_sorted_encoder = msgspec.json.Encoder(order="deterministic")
_SAMPLED: Final = frozenset("13579bdf")  # the last digit of odd flags


def trace_of(traceparent: str) -> dict[str, str]:
    """The fields of a log line that name a trace. ``traceparent``: as ``web.http.trace`` reads it."""
    return {"trace_id": traceparent[3:35]}


def is_sampled(traceparent: str) -> bool:
    """Whether the client records this trace: the lowest bit of the flags (W3C Trace Context, 3.2.2.5)."""
    return traceparent[-1:] in _SAMPLED


def _check_version(what: str, body: bytes) -> None:
    found = _version_decoder.decode(body).v
    if not VERSION - 1 <= found <= VERSION + 1:
        raise UnknownVersion(what, found)


def encode(message: Task | Cancel) -> bytes:
    """A message's body."""
    return _encoder.encode(message)


def decode_task(body: bytes) -> Task:
    """A task from a message's body. Raises ValueError (``msgspec.DecodeError`` or ``UnknownVersion``)."""
    _check_version("task", body)
    return _task_decoder.decode(body)


def decode_cancel(body: bytes) -> Cancel:
    """A cancel from a message's body. Raises ValueError like ``decode_task``."""
    _check_version("cancel", body)
    return _cancel_decoder.decode(body)


class Asks(Protocol):
    """The parts of a task that decide what it asks."""

    @property
    def source(self) -> str:
        """The source's id."""

    @property
    def definition(self) -> str:
        """The definition's hash."""

    @property
    def params(self) -> dict[str, Any]:
        """The params, bound by the definition."""


def key_of(task: Asks) -> str:
    """A hash (32 hex digits) of source, definition and params. Tasks that ask the same have the same key."""
    asked = _sorted_encoder.encode([task.source, task.definition, task.params])
    return blake2b(asked, digest_size=16).hexdigest()


def encode_trail(trail: Trail) -> bytes:
    """A trail's JSON."""
    return _encoder.encode(trail)


def age_seconds(fetched_at: str | None, now_ms: int) -> float:
    """The age of an answer; 0.0 if none came."""
    if fetched_at is None:
        return 0.0
    return max(0.0, round(now_ms / 1000 - datetime.fromisoformat(fetched_at).timestamp(), 3))


def rq_time(seconds: float) -> str:
    """Seconds since the epoch as RQ writes times (``rq.utils.utcformat``)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def rfc3339(ms: int) -> str:
    """Milliseconds since the epoch as ``2026-11-24T04:14:00.123Z``."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC).isoformat()[:19]}.{ms % 1000:03d}Z"
