r"""A result frame: the form in which a result travels and is kept.

Only its region encodes it. The hub checks its head, and splices the bytes of its records.

    b"0" or b"z"  +  head (JSON of a Result without "records")  +  b"\n"  +  records (a JSON list; zstd with b"z")
"""

import itertools
import re
from collections import deque
from typing import Final

import msgspec
from backports import zstd

from jobs.contract import Bytes, Error, Result, Timing
from jobs.errors import TaskError

ZSTD_LEVEL: Final = 3
# Of records; a compressor of more is not reused, since it keeps all memory that it needed.
PACKER_BYTES_MAX: Final = 262_144
COMPRESS_FROM_BYTES: Final = 512  # smaller frames gain nothing
HEAD_BYTES_MAX: Final = 100_000  # of a frame at the hub
# Of a record at the hub. Workers let 201 levels and the digits of Python's integers through; its JSON reader takes no more of them.
LEVELS_MAX, DIGITS_MAX = 256, 4_300
PIECE: Final = 4_096  # brackets of a record that are counted at once
_WINDOW: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}  # 8 MB; level 3 takes 2 MB at most

_encoder = msgspec.json.Encoder()
_head_decoder = msgspec.json.Decoder(Result)
_records_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_packers: deque[zstd.ZstdCompressor] = deque()  # idle compressors, at most as many as were ever in use at once
_RECORDS: Final = b',"records":'
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_DIGITS: Final = re.compile(rb"[0-9]+")
_STEP: Final = {ord("["): 1, ord("]"): -1}
_AS_LISTS: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(one for one in range(256) if one not in b"[]{}")


def encode(result: Result, records: bytes) -> bytes:
    """The frame of a result and its records' JSON list. Sets ``bytes.records`` and ``bytes.wire``."""
    packed = len(records) >= COMPRESS_FROM_BYTES
    result.bytes.records = len(records)
    return _framed(result, b"z" if packed else b"0", _packed(records) if packed else records)


def failed(result: Result, error: TaskError) -> bytes:
    """The frame of a failed result, without records."""
    result.error = Error.of(error)
    result.count = 0
    return encode(result, b"[]")


def reframe(result: Result, frame: bytes) -> bytes:
    """A frame of another result with the records of ``frame``. Sets ``bytes.wire``; the caller sets ``bytes.records``."""
    return _framed(result, frame[:1], frame[frame.index(b"\n") + 1 :])


def _framed(result: Result, mark: bytes, body: bytes) -> bytes:
    result.bytes.wire = 0
    rest = len(_encoder.encode(result)) - 1 + 2 + len(body)  # the head without its "0", mark and newline, the body
    wire = rest + 1
    while rest + len(str(wire)) != wire:
        wire = rest + len(str(wire))
    result.bytes.wire = wire
    return mark + _encoder.encode(result) + b"\n" + body


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


def head(frame: bytes) -> Result:
    """The result in a frame, without its records."""
    return _head_decoder.decode(frame[1 : frame.index(b"\n")])


def reused(frame: bytes, task: str, age_seconds: float) -> tuple[bytes, int]:
    """A frame as the result of another task, which used this answer; and the size of its JSON."""
    result = head(frame)
    result.task, result.cached, result.age, result.attempts = task, True, age_seconds, 0
    result.timing, result.bytes = Timing(), Bytes(records=result.bytes.records)
    encoded = _encoder.encode(result)
    return frame[:1] + encoded + frame[frame.index(b"\n") :], len(encoded) + len(_RECORDS) + result.bytes.records


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


def head_of(spliced: bytes) -> Result:
    """The result in a whole result's JSON, without decoding its records. ``spliced``: as ``splice_checked`` makes it."""
    return _head_decoder.decode(spliced[: spliced.index(_RECORDS + b"[")] + b"}")


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
