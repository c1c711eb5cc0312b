r"""The messages between processes: tasks to a region, outcomes back to the hub, and their versions.

A *result frame* is the form in which a result travels and is kept. Only its region encodes it; the hub checks its head, and
splices the bytes of its records.

    b"0" or b"z"  +  head (JSON of a Result without "records")  +  b"\\n"  +  records (a JSON list; zstd with b"z")

Readers accept versions ``VERSION`` - 1 to + 1 and ignore unknown fields. Other versions raise ``UnknownVersion``.
"""

import itertools
import re
from collections import deque
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from backports import zstd
from msgspec import Meta, Struct

from jobs.errors import TaskError

VERSION: Final = 1
ZSTD_LEVEL: Final = 3
# Of records; a compressor of more is not reused, since it keeps all memory that it needed.
PACKER_BYTES_MAX: Final = 262_144
COMPRESS_FROM_BYTES: Final = 512  # smaller frames gain nothing
KEEP_MS: Final = 300_000  # a job's record outlives its deadline by this, so that a redelivery is recognized
HEAD_BYTES_MAX: Final = 100_000  # of a frame at the hub
# Of a record at the hub. Workers let 201 levels and the digits of Python's integers through; its JSON reader takes no more of them.
LEVELS_MAX, DIGITS_MAX = 256, 4_300
PIECE: Final = 4_096  # brackets of a record that are counted at once
MINUTE_SECONDS: Final = 60.0
DAY_MINUTES: Final = 1_440
MINUTES_MAX: Final = 30  # of a region's day in one status
_WINDOW: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}  # 8 MB; level 3 takes 2 MB at most

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
_head_decoder = msgspec.json.Decoder(Result)
_records_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_encoder = msgspec.json.Encoder()
_sorted_encoder = msgspec.json.Encoder(order="deterministic")
_packers: deque[zstd.ZstdCompressor] = deque()  # idle compressors, at most as many as were ever in use at once
_SAMPLED: Final = frozenset("13579bdf")  # the last digit of odd flags
_RECORDS: Final = b',"records":'
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_DIGITS: Final = re.compile(rb"[0-9]+")
_STEP: Final = {ord("["): 1, ord("]"): -1}
_AS_LISTS: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(one for one in range(256) if one not in b"[]{}")


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


def encode_frame(result: Result, records: bytes) -> bytes:
    """The frame of a result and its records' JSON list. Sets ``bytes.records`` and ``bytes.wire``."""
    packed = len(records) >= COMPRESS_FROM_BYTES
    result.bytes.records = len(records)
    return _frame(result, b"z" if packed else b"0", _packed(records) if packed else records)


def _packed(records: bytes) -> bytes:
    """Records as one zstd frame. Reuses an idle compressor: making a new one takes longer than compressing."""
    if len(records) > PACKER_BYTES_MAX:
        return zstd.compress(records, ZSTD_LEVEL)
    try:
        packer = _packers.pop()
    except IndexError:
        packer = zstd.ZstdCompressor(ZSTD_LEVEL)
    made = packer.compress(records, mode=zstd.ZstdCompressor.FLUSH_FRAME)
    _packers.append(packer)
    return made


def reframe(result: Result, frame: bytes) -> bytes:
    """A frame of another result with the records of ``frame``. Sets ``bytes.wire``; the caller sets ``bytes.records``."""
    return _frame(result, frame[:1], frame[frame.index(b"\n") + 1 :])


def _frame(result: Result, mark: bytes, body: bytes) -> bytes:
    result.bytes.wire = 0
    rest = len(_encoder.encode(result)) - 1 + 2 + len(body)  # the head without its "0", mark and newline, the body
    wire = rest + 1
    while rest + len(str(wire)) != wire:
        wire = rest + len(str(wire))
    result.bytes.wire = wire
    return mark + _encoder.encode(result) + b"\n" + body


def failed_frame(result: Result, error: TaskError) -> bytes:
    """The frame of a failed result, without records."""
    result.error = Error.of(error)
    result.count = 0
    return encode_frame(result, b"[]")


def splice(frame: bytes) -> bytes:
    """The JSON of a whole result with its records, from a frame. It decompresses, but decodes nothing."""
    mark, end = frame[:1], frame.index(b"\n")
    body = frame[end + 1 :]
    records = zstd.decompress(body) if mark == b"z" else body
    return frame[1 : end - 1] + _RECORDS + records + b"}"


def splice_checked(frame: bytes, task: str, region: str, bytes_max: int) -> bytes:
    """Like ``splice``, for a frame that is not trusted. Raises ValueError unless it has this task's result and valid JSON.

    ``region`` is the region that the result must name, "" for any; ``bytes_max`` limits the records. The head is written anew
    with the real number of records. Otherwise a blank behind it, a member twice or a second list of records would make
    something else of the whole answer, which has other results, too.
    """
    try:
        result, end = _stated(frame, task, region)
        records = frame[end + 1 :]
        if frame[:1] == b"z":
            engine = zstd.ZstdDecompressor(options=_WINDOW)
            records = engine.decompress(records, max_length=bytes_max + 1)
            if len(records) > bytes_max or not engine.eof or engine.unused_data:
                raise ValueError(f"expected {bytes_max} bytes of records at most, packed as one")
        if records[:1] != b"[":  # ``head_of`` finds them by it
            raise ValueError(f"expected a list of records, found {records[:60]!r}")
        rows = _records_decoder.decode(records)
        str(records, "utf-8")
        _check_values(records, rows)
        result.count = len(rows)
    except (zstd.ZstdError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return _encoder.encode(result)[:-1] + _RECORDS + records + b"}"


def _check_values(records: bytes, rows: list[msgspec.Raw]) -> None:
    """Raises ValueError for records that are JSON, and that common readers can't parse: these would lose the whole answer."""
    for row in [row for row in map(bytes, rows) if len(row) > 2 * LEVELS_MAX]:
        if row.count(b"[") + row.count(b"{") > LEVELS_MAX and _is_deep(row):
            raise ValueError(f"expected records of {LEVELS_MAX} levels at most")
    if _has_long_number(records) and _has_long_number(_TEXT.sub(b'""', records)):
        raise ValueError(f"expected numbers of {DIGITS_MAX} digits at most")


def _is_deep(text: bytes) -> bool:
    """Whether a JSON value has more than ``LEVELS_MAX`` levels. Other threads run between the pieces."""
    brackets = _TEXT.sub(b"", text).translate(_AS_LISTS, _NO_BRACKETS).replace(b"[]", b"")
    levels = [1]  # the innermost ones have just gone
    for at in range(0, len(brackets), PIECE):
        steps = map(_STEP.__getitem__, brackets[at : at + PIECE])
        levels = list(itertools.accumulate(steps, initial=levels[-1]))
        if max(levels) > LEVELS_MAX:
            return True
    return False


def _has_long_number(text: bytes) -> bool:
    """Whether more than ``DIGITS_MAX`` digits follow each other: then one of them stands at one of these places."""
    for at in range(DIGITS_MAX, len(text), DIGITS_MAX):
        after = _DIGITS.match(text, at)
        if after is not None:
            before = text[at - DIGITS_MAX : at]
            if len(before) - len(before.rstrip(b"0123456789")) + after.end() - at > DIGITS_MAX:
                return True
    return False


def check_head(frame: bytes, task: str, region: str, bytes_max: int) -> None:
    """Raises ValueError unless a frame has the head of this task's result, with ``bytes_max`` bytes of records at most by its own word."""
    try:
        size = _stated(frame, task, region)[0].bytes.records
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if size > bytes_max:
        raise ValueError(f"expected {bytes_max} bytes of records at most, found {size}")


def _stated(frame: bytes, task: str, region: str) -> tuple[Result, int]:
    """Returns (the result in a frame that is not trusted, where its head ends). Raises ValueError or RecursionError."""
    end = frame.find(b"\n", 0, HEAD_BYTES_MAX)
    if end < 0 or frame[:1] not in (b"0", b"z"):
        raise ValueError("expected a result frame")
    stated = _head_decoder.decode(frame[1:end])
    if stated.task != task or (region and stated.region != region):
        raise ValueError(f"expected the result of {task}, found {stated.task[:60]!r} of {stated.region[:60]!r}")
    return stated, end


def reused(frame: bytes, task: str, age_seconds: float) -> tuple[bytes, int]:
    """A frame as the result of another task, which used this answer; and the size of its JSON."""
    result = head(frame)
    result.task, result.cached, result.age, result.attempts = task, True, age_seconds, 0
    result.timing, result.bytes = Timing(), Bytes(records=result.bytes.records)
    encoded = _encoder.encode(result)
    return frame[:1] + encoded + frame[frame.index(b"\n") :], len(encoded) + len(_RECORDS) + result.bytes.records


def head(frame: bytes) -> Result:
    """The result in a frame, without its records."""
    return msgspec.json.decode(frame[1 : frame.index(b"\n")], type=Result)


def age_seconds(fetched_at: str | None, now_ms: int) -> float:
    """The age of an answer; 0.0 if none came."""
    if fetched_at is None:
        return 0.0
    return max(0.0, round(now_ms / 1000 - datetime.fromisoformat(fetched_at).timestamp(), 3))


def head_of(spliced: bytes) -> Result:
    """The result in a whole result's JSON, without decoding its records. ``spliced``: as ``splice_checked`` makes it."""
    return _head_decoder.decode(spliced[: spliced.index(_RECORDS + b"[")] + b"}")


def rq_time(seconds: float) -> str:
    """Seconds since the epoch as RQ writes times (``rq.utils.utcformat``)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def rfc3339(ms: int) -> str:
    """Milliseconds since the epoch as ``2026-11-24T04:14:00.123Z``."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC).isoformat()[:19]}.{ms % 1000:03d}Z"
