r"""What crosses a process: tasks to a region, outcomes home, and the versions of both.

A *result frame* is how a result travels and is kept: nobody but its region encodes it, and the hub splices its bytes.

    b"0" or b"z"  +  head (JSON of a Result without "records")  +  b"\\n"  +  records (a JSON list; zstd with b"z")

Readers take version ``VERSION`` - 1 to + 1 and ignore unknown fields; anything else is ``UnknownVersion``.
"""

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
PACKER_BYTES_MAX: Final = 262_144  # of records whose compressor is kept: it keeps as much memory as it needed
COMPRESS_FROM_BYTES: Final = 512  # below it a frame gains nothing
HEAD_BYTES_MAX: Final = 100_000  # of a frame at the hub
_WINDOW: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}  # 8 MB; level 3 takes 2 MB at most

State = Literal["queued", "running", "succeeded", "failed", "expired", "cancelled"]
LOST: Final = "lost"  # stands for an error's type where an attempt's process was lost, not its task
PUT_BACK: Final = "put back"  # the same where no thread could wait for a turn
FINAL: Final = frozenset({"succeeded", "failed", "expired", "cancelled"})


class UnknownVersion(ValueError):  # noqa: N818
    """A message of a version that this process does not read; names both."""

    def __init__(self, what: str, found: object) -> None:
        super().__init__(f"expected a {what} of version {VERSION - 1} to {VERSION + 1}, found {found!r}")


class Task(Struct, frozen=True, kw_only=True):
    """One source of one request, as the gateway publishes it. Times are hub milliseconds since the epoch."""

    v: int = VERSION
    task: str
    request: str
    source: str
    region: str
    params: dict[str, Any] = {}
    url: str = ""  # the first address, expanded by the gateway
    host: str = ""  # scheme, name and port of it: whose turn the task needs
    definition: str = ""  # hash of the definition that the gateway knows
    accepted_ms: int
    deadline_ms: int
    expires_ms: int
    max_age: float = 0.0
    sync: bool = False


class Cancel(Struct, frozen=True, kw_only=True):
    """A control message: this task is no longer wanted."""

    v: int = VERSION
    task: str
    request: str
    deadline_ms: int


class Timing(Struct, kw_only=True):
    """Where a task's time went, in milliseconds; ``total_ms`` from the accept to the end of the parse."""

    queued_ms: float = 0.0
    turn_ms: float = 0.0
    fetch_ms: float = 0.0
    parse_ms: float = 0.0
    total_ms: float = 0.0


Size = Annotated[int, Meta(ge=0, le=10**15)]


class Bytes(Struct, kw_only=True):
    """``raw``: decoded bodies; ``records``: their JSON; ``wire``: the whole frame that went home."""

    raw: Size = 0
    records: Size = 0
    wire: Size = 0


class Error(Struct, kw_only=True):
    """Why a task failed."""

    type: str
    message: str
    origin: str
    retryable: bool = False
    retry_after: float | None = None
    http_status: int | None = None

    @classmethod
    def of(cls, error: TaskError) -> "Error":
        """The public form of an error of the tree."""
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
    attempts: int = 1
    count: int = 0
    partial: bool = False
    warnings: list[str] = []
    url: str = ""
    definition: str = ""
    fetched_at: str | None = None
    age: float = 0.0
    cached: bool = False
    stale: bool = False
    timing: Timing = msgspec.field(default_factory=Timing)
    bytes: Bytes = msgspec.field(default_factory=Bytes)
    error: Error | None = None


class Attempt(Struct, array_like=True, frozen=True):
    """One execution of a task. ``ended_ms`` is 0 while it runs.

    ``error``: the type of what it failed with, ``LOST`` when its process was, ``PUT_BACK`` when it had to wait, "" for none and for the last one, whose
    error is the result's. ``message`` without an error says whose answer it took.
    """

    attempt: int
    started_ms: int
    ended_ms: int
    worker: str
    error: str
    message: str


class Run(Struct, array_like=True, frozen=True, kw_only=True):
    """What an execution showed of its source, for its health and its traffic (web.hub.runs). Clients do not see it.

    ``error`` and ``origin`` as in ``Error``, "" for a success, and said also where an older answer stands in for it;
    ``host``: whose it was, told only where it was the network's.
    ``own``: it asked the source itself; else it gives what another run brought, and only its bytes count.
    ``busy_ms``: fetching and parsing. ``gaps``: how many records lack a field, for each field that some lack.
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


class Trail(Struct, array_like=True, frozen=True):
    """Where a task was in its region: when it was bridged, every attempt, and what the last one showed. Times are hub ms."""

    bridged_ms: int
    attempts: list[Attempt]
    run: Run | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """How a task ended in its region: what the outbox keeps and the out stream says. Times are hub ms.

    ``trail`` is a ``Trail`` as JSON, empty where nobody ran the task; ``run`` becomes a part of it.
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
_packers: deque[zstd.ZstdCompressor] = deque()  # idle ones; as many as ever packed at once
_RECORDS: Final = b',"records":'


def _check_version(what: str, body: bytes) -> None:
    found = _version_decoder.decode(body).v
    if not VERSION - 1 <= found <= VERSION + 1:
        raise UnknownVersion(what, found)


def encode(message: Task | Cancel) -> bytes:
    """A message's body."""
    return _encoder.encode(message)


def decode_task(body: bytes) -> Task:
    """A task from a message's body; raises ValueError (``msgspec.DecodeError`` or ``UnknownVersion``)."""
    _check_version("task", body)
    return _task_decoder.decode(body)


def decode_cancel(body: bytes) -> Cancel:
    """A cancel from a message's body; raises ValueError like ``decode_task``."""
    _check_version("cancel", body)
    return _cancel_decoder.decode(body)


class Asks(Protocol):
    """What makes two tasks ask the same."""

    @property
    def source(self) -> str:
        """Its id."""

    @property
    def definition(self) -> str:
        """Its hash."""

    @property
    def params(self) -> dict[str, Any]:
        """As the definition takes them."""


def key_of(task: Asks) -> str:
    """What a task asks, as 32 hex digits: source, definition and params. Tasks that ask the same have the same."""
    asked = _sorted_encoder.encode([task.source, task.definition, task.params])
    return blake2b(asked, digest_size=16).hexdigest()


def encode_trail(trail: Trail) -> bytes:
    """A trail as it travels."""
    return _encoder.encode(trail)


def encode_frame(result: Result, records: bytes) -> bytes:
    """A result frame of a result and its records' JSON list; fills in ``bytes.records`` and ``bytes.wire``."""
    packed = len(records) >= COMPRESS_FROM_BYTES
    result.bytes.records = len(records)
    return _frame(result, b"z" if packed else b"0", _packed(records) if packed else records)


def _packed(records: bytes) -> bytes:
    """Records as one frame of zstd, by a compressor that was used before where one is free: a new one costs more than its work."""
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
    """A frame of another result with the records of ``frame``, whose size the caller knows; fills in ``bytes.wire``."""
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
    """A result frame without records that says why."""
    result.error = Error.of(error)
    result.count = 0
    return encode_frame(result, b"[]")


def splice(frame: bytes) -> bytes:
    """The JSON of a whole result, records included, from a frame: no decoding, only decompression."""
    mark, end = frame[:1], frame.index(b"\n")
    body = frame[end + 1 :]
    records = zstd.decompress(body) if mark == b"z" else body
    return frame[1 : end - 1] + _RECORDS + records + b"}"


def splice_checked(frame: bytes, task: str, region: str, bytes_max: int) -> bytes:
    """The same of a frame that anybody may have made: whole JSON of this task's result, or ValueError.

    ``region``: whose it must say to be, "" where that does not matter; ``bytes_max``: of the records.
    """
    end = frame.find(b"\n", 0, HEAD_BYTES_MAX)
    if end < 0 or frame[:1] not in (b"0", b"z"):
        raise ValueError("expected a result frame")
    try:
        told = _head_decoder.decode(frame[1:end])
        if told.task != task or (region and told.region != region):
            raise ValueError(f"expected the result of {task}, found {told.task[:60]!r} of {told.region[:60]!r}")
        records = frame[end + 1 :]
        if frame[:1] == b"z":
            engine = zstd.ZstdDecompressor(options=_WINDOW)
            records = engine.decompress(records, max_length=bytes_max + 1)
            if len(records) > bytes_max or not engine.eof or engine.unused_data:
                raise ValueError(f"expected {bytes_max} bytes of records at most, packed as one")
        _records_decoder.decode(records)
        str(records, "utf-8")
        str(frame[1:end], "utf-8")
    except (zstd.ZstdError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return frame[1 : end - 1] + _RECORDS + records + b"}"


def reused(frame: bytes, task: str, age_seconds: float) -> tuple[bytes, int]:
    """A frame as the result of another task, for which nothing was done; and the bytes of its JSON."""
    result = head(frame)
    result.task, result.cached, result.age, result.attempts = task, True, age_seconds, 0
    result.timing, result.bytes = Timing(), Bytes(records=result.bytes.records)
    told = _encoder.encode(result)
    return frame[:1] + told + frame[frame.index(b"\n") :], len(told) + len(_RECORDS) + result.bytes.records


def head(frame: bytes) -> Result:
    """A frame's result without its records."""
    return msgspec.json.decode(frame[1 : frame.index(b"\n")], type=Result)


def age_seconds(fetched_at: str | None, now_ms: int) -> float:
    """How old an answer of that time is; 0.0 where none came."""
    if fetched_at is None:
        return 0.0
    return max(0.0, round(now_ms / 1000 - datetime.fromisoformat(fetched_at).timestamp(), 3))


def head_of(spliced: bytes) -> Result:
    """The same of a whole result's JSON, without a look at its records: nothing else is a list of that name."""
    return msgspec.json.decode(spliced[: spliced.index(_RECORDS + b"[")] + b"}", type=Result)


def rfc3339(ms: int) -> str:
    """Milliseconds since the epoch as ``2026-11-24T04:14:00.123Z``."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC).isoformat()[:19]}.{ms % 1000:03d}Z"
