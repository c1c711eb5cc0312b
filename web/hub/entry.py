"""Checks each entry of a region's out stream, and turns it into a type of ours or refuses it.

    judge ── result ──> Settlement          claims ──> Claim          status, sources ──> Report

Anyone who has a region's credentials can append anything. So each field must have its type and be within its bounds, or the
entry is ``Refused``, and only that is kept of it. Nothing here makes a call.
"""

import re
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from jobs import contract
from jobs.errors import Internal
from web.hub.frame import made as frame_made
from web.hub.settlement import Settlement

ENTRY_BYTES_MAX: Final = 2_000_000  # of the JSON of claims and sources
STATUS_BYTES_MAX: Final = 32_000
TRAIL_BYTES_MAX: Final = 16_000  # trails do not count towards a region's room, and 20,000 open tasks may each have one
NUMBER_MAX: Final = 10**15
DIGITS_MAX: Final = 15
ID_MAX: Final = 64
YEAR_9999_MS: Final = 253_402_300_000_000
AHEAD_MS: Final = 60_000  # how far a region's estimate of the hub's clock may be ahead of it
DAY_MS: Final = 86_400_000
NAME: Final = re.compile(rb"[!-~]{1,200}")
PARTS: Final = {b"bridge", b"workers"}
STATUSES: Final = {status.encode(): status for status in contract.FINAL}

Owns = Callable[[str, str], bool]  # (region, source): whether the source runs there, by the gateway's catalogue


class Refused(ValueError):  # noqa: N818
    """An entry or a part of one breaks the rules. ``what`` says which part, by one of ``WHATS``."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


class ForeignRun(Refused):
    """A run of a source that the gateway's catalogue does not have in that region."""

    def __init__(self, source: str) -> None:
        super().__init__("run", f"{source[:100]} is not its own")
        self.source = source


WHATS: Final = ("kind", "version", "result", "trail", "run", "claims", "status", "sources", "frame", "stream")

Count = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
Number = Annotated[int, Meta(ge=-NUMBER_MAX, le=NUMBER_MAX)]
Span = Annotated[float, Meta(ge=0, le=NUMBER_MAX)]
Moment = Annotated[int, Meta(ge=0, le=YEAR_9999_MS)]
Word = Annotated[str, Meta(max_length=200)]
Line = Annotated[str, Meta(max_length=4_000)]
Id = Annotated[str, Meta(pattern=r"^[0-9A-Za-z]{1,64}\Z")]


class _Bridge(Struct):
    """``bridge.report.Status``. A missing field stays missing."""

    at_ms: Moment
    state: Word | UnsetType = UNSET
    reason: Line | UnsetType = UNSET
    fault: Word | UnsetType = UNSET
    ready: Count | UnsetType = UNSET
    unacked: Count | UnsetType = UNSET
    offset_ms: Number | UnsetType = UNSET
    redis_used: Count | UnsetType = UNSET
    redis_max: Count | UnsetType = UNSET
    redis_ms: Span | UnsetType = UNSET
    redis_lost: Count | UnsetType = UNSET
    started_ms: Moment | UnsetType = UNSET


class _Asked(Struct):
    number: Count
    until: Word


class _Decision(Struct):
    at: Word
    was: Count
    number: Count
    reason: Line


class _Scale(Struct):
    """``jobs.pool.scaler.view``."""

    at_ms: Moment
    number: Count
    ready: Count
    needed: Count
    min: Count
    max: Count
    load: Line
    decided_by: Word
    asked: _Asked | None
    decisions: Annotated[list[_Decision], Meta(max_length=100)]
    fault: Line | UnsetType = UNSET


class _Minute(Struct):
    """``contract.Minute``."""

    at: Annotated[float, Meta(ge=0, le=YEAR_9999_MS / 1000)]
    arrived: Count = 0
    ended: Count = 0
    waiting: Count = 0
    oldest_seconds: Span = 0.0
    running: Count = 0
    task_seconds: Span = 0.0
    wanted: Count = 0
    ready: Count = 0


class _Wait(Struct, array_like=True):
    """``jobs.queue.waits.Wait``."""

    task: Id
    since_ms: Moment
    why: Word


class _Workers(Struct):
    """``jobs.pool.report.Reporter.status``. Its ``minutes`` are kept apart."""

    at_ms: Moment
    processes: Count | UnsetType = UNSET
    threads: Count | UnsetType = UNSET
    reason: Line | UnsetType = UNSET
    busy: Count | UnsetType = UNSET
    scheduled: Count | UnsetType = UNSET
    waiting: Count | UnsetType = UNSET
    outbox_bytes: Number | UnsetType = UNSET
    succeeded: Count | UnsetType = UNSET
    failed: Count | UnsetType = UNSET
    raw_bytes: Count | UnsetType = UNSET
    records_bytes: Count | UnsetType = UNSET
    wire_bytes: Count | UnsetType = UNSET
    oldest_seconds: Span | UnsetType = UNSET
    target_seconds: Span | UnsetType = UNSET
    share: Count | UnsetType = UNSET
    started_ms: Moment | UnsetType = UNSET
    lost: Count | UnsetType = UNSET
    died: Count | UnsetType = UNSET
    death: Line | UnsetType = UNSET
    hung: Count | UnsetType = UNSET
    outbox_max: Count | UnsetType = UNSET
    waits: Annotated[list[_Wait], Meta(max_length=100)] | UnsetType = UNSET
    scale: _Scale | UnsetType = UNSET
    minutes: Annotated[list[_Minute], Meta(max_length=contract.MINUTES_MAX)] | UnsetType = UNSET


class _Source(Struct):
    """``jobs.pool.report.Reporter.sources``."""

    definition: Word
    fault: Line | None = None
    trouble: Line | UnsetType = UNSET
    lacks: Line | UnsetType = UNSET


class _Claim(Struct, array_like=True):
    """``jobs.queue.outbox.Started``."""

    request: Id
    task: Id
    attempt: Count = 0
    started_ms: Moment = 0
    trail: contract.Trail | None = None


class Claim(Struct, frozen=True):
    """A running task, and its trail as JSON, empty if there is none."""

    request: str
    task: str
    trail: bytes


class Report(Struct, frozen=True):
    """The status of a bridge or pool, or a region's list of sources: a field of the region's hash, and its JSON.

    ``minutes``: those of the region's day that came with it, by the minute of the day (UTC), each as JSON.
    """

    field: str
    text: bytes
    minutes: dict[int, bytes] = {}


_bridge: Final = msgspec.json.Decoder(_Bridge)
_workers: Final = msgspec.json.Decoder(_Workers)
_sources: Final = msgspec.json.Decoder(dict[Annotated[str, Meta(max_length=100)], _Source])
_claims: Final = msgspec.json.Decoder(Annotated[list[_Claim], Meta(max_length=2_000)])
_trails: Final = msgspec.json.Decoder(contract.Trail)
_encoder: Final = msgspec.json.Encoder()

Fields = dict[bytes, bytes]
Doubt = Callable[[Refused], None]  # called with the fault of a part of an entry whose rest counts


def judge(region: str, entry: str, fields: Fields, owns: Owns, doubt: Doubt) -> Settlement | Report | list[Claim]:
    """The meaning of an entry. Raises ``Refused``, and nothing else, whatever the entry holds."""
    try:
        return _judge(region, entry, fields, owns, doubt)
    except Refused:
        raise
    except (KeyError, ValueError, TypeError, RecursionError, OverflowError) as error:
        kind = fields.get(b"k", b"").decode("ascii", "replace")
        raise Refused(kind if kind in WHATS else "kind", _why(error)) from error


def _why(error: Exception) -> str:
    return f"it has no field {error}" if isinstance(error, KeyError) else str(error)


def _judge(region: str, entry: str, fields: Fields, owns: Owns, doubt: Doubt) -> Settlement | Report | list[Claim]:
    kind, version = fields[b"k"], number(fields[b"v"])
    is_known = contract.VERSION - 1 <= version <= contract.VERSION + 1
    if kind == b"result":
        return _result(region, fields, owns, doubt, None if is_known else version)
    if kind not in (b"claims", b"status", b"sources"):
        raise Refused("kind", f"expected k to be result, claims, status or sources, found {kind[:60]!r}")
    if not is_known:
        raise Refused("version", str(contract.UnknownVersion(kind.decode(), version)))
    text = fields[b"d"]
    limit = STATUS_BYTES_MAX if kind == b"status" else ENTRY_BYTES_MAX
    if len(text) > limit:
        raise Refused(kind.decode(), f"expected {limit} bytes at most, found {len(text)}")
    if kind == b"claims":
        return [_claim(one) for one in _claims.decode(text)]
    if kind == b"status":
        return _status(entry, fields, text)
    return Report(
        "sources",
        _encoder.encode({source: one for source, one in _sources.decode(text).items() if owns(region, source)}),
    )


def number(text: bytes) -> int:
    """A whole number from 0 of at most ``DIGITS_MAX`` digits; raises ValueError."""
    if not text.isdigit() or len(text) > DIGITS_MAX:
        raise ValueError(f"expected a whole number of {DIGITS_MAX} digits at most, found {text[:60]!r}")
    return int(text)


def _id(text: bytes) -> str:
    if not text.isalnum() or len(text) > ID_MAX:
        raise ValueError(f"expected an id, found {text[:60]!r}")
    return text.decode("ascii")


def _result(region: str, fields: Fields, owns: Owns, doubt: Doubt, bad_version: int | None) -> Settlement:
    task, frame, trail, run = _id(fields[b"t"]), b"", fields.get(b"h", b""), None
    status = STATUSES.get(fields[b"s"], "")
    if bad_version is not None:  # not ignored: the task ends, and its error names both versions
        error = Internal(str(contract.UnknownVersion("result", bad_version)))
        status, frame, trail = "failed", frame_made(task, "", region, "failed", error), b""
    elif not status:
        raise Refused("result", f"expected a final status, found {fields[b's'][:60]!r}")
    if trail:
        try:
            run = _run(region, trail, owns, doubt)
        except (Refused, ValueError, RecursionError) as error:  # a bad trail must not cost the result
            trail = b""
            doubt(Refused("trail", str(error)))
    return Settlement(
        request=_id(fields[b"q"]),
        task=task,
        region=region,
        status=status,
        finished_ms=number(fields[b"f"]),
        size_bytes=number(fields[b"b"]),
        frame=frame,
        trail=trail,
        run=run,
    )


def _run(region: str, text: bytes, owns: Owns, doubt: Doubt) -> contract.Run | None:
    """The run of a trail; None if it has none, or one that is out of bounds or of another region's source."""
    trail = _checked(text)
    run = trail.run
    if run is None:
        return None
    if why := _wrong(run):
        doubt(Refused("run", why))
        return None
    if not owns(region, run.source):
        doubt(ForeignRun(run.source))
        return None
    return run


def _checked(text: bytes) -> contract.Trail:
    if len(text) > TRAIL_BYTES_MAX:
        raise Refused("trail", f"expected {TRAIL_BYTES_MAX} bytes at most, found {len(text)}")
    trail = _trails.decode(text)
    if not _has_good_times(trail):
        raise Refused("trail", "expected times from 1970 to 9999")
    return trail


def _has_good_times(trail: contract.Trail) -> bool:
    return 0 <= trail.bridged_ms <= YEAR_9999_MS and all(
        0 <= one.started_ms <= YEAR_9999_MS
        and 0 <= one.ended_ms <= YEAR_9999_MS
        and abs(one.attempt) <= NUMBER_MAX
        and 0 <= one.turn_ms <= NUMBER_MAX
        for one in trail.attempts
    )


def _wrong(run: contract.Run) -> str:
    """Which part of a run is out of its bounds; empty if none is."""
    for name in ("rows", "raw_bytes", "records_bytes", "wire_bytes", "busy_ms", "received_bytes", "spared_bytes"):
        if not 0 <= getattr(run, name) <= NUMBER_MAX // 1_000:  # so that sums of them fit
            return f"expected {name} from 0 to {NUMBER_MAX // 1_000}"
    if max(map(len, (run.definition, run.error, run.origin, run.host))) > 2 * ID_MAX + 200:
        return "expected short texts"
    if len(run.gaps) > 1_000 or any(
        len(field) > 200 or not 0 <= lack <= NUMBER_MAX for field, lack in run.gaps.items()
    ):
        return "expected gaps of a few fields"
    return ""


def _claim(one: _Claim) -> Claim:
    if one.trail is None:
        return Claim(one.request, one.task, b"")
    if not _has_good_times(one.trail):
        raise Refused("claims", "expected times from 1970 to 9999")
    text = contract.encode_trail(one.trail)
    return Claim(one.request, one.task, text if len(text) <= TRAIL_BYTES_MAX else b"")


def _status(entry: str, fields: Fields, text: bytes) -> Report:
    part, name = fields[b"part"], fields[b"name"]
    if part not in PARTS or NAME.fullmatch(name) is None:
        raise Refused("status", f"expected a bridge or workers with a name, found {part[:60]!r} {name[:60]!r}")
    status: Any = (_bridge if part == b"bridge" else _workers).decode(text)
    entry_ms = int(entry.partition("-")[0])
    if status.at_ms > entry_ms + AHEAD_MS or entry_ms > time.time() * 1000 + DAY_MS:
        raise Refused("status", f"expected a time that is not in the future, found {status.at_ms}")
    minutes: dict[int, bytes] = {}
    if part == b"workers" and status.minutes:
        minutes = {int(one.at // 60) % contract.DAY_MINUTES: _encoder.encode(one) for one in status.minutes}
        status.minutes = UNSET
    return Report(f"{part.decode()}:{name.decode()}", _encoder.encode(status), minutes)
