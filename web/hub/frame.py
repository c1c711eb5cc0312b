"""Result frames at the hub: it makes some itself, and reads those of regions with care.

A region's frame can hold anything. If it can't be read, or is not the result of its task, the hub shows a failed result
instead, so that it neither breaks an answer nor shows the result of another task.
"""

import time
from typing import Final

from jobs import contract, result_frame
from jobs.errors import Internal, TaskError
from regions import logs, names

LOG_SECONDS: Final = 60.0  # between two log lines about one region

log = logs.get("frame")
_logged_at: Final[dict[str, float]] = {}  # by region, monotonic


def made(task: str, source: str, region: str, status: str, error: TaskError) -> bytes:
    """A failed result that the hub makes for a task without a result of its region."""
    result = contract.Result(task=task, source=source, region=region, status=status, attempts=0)
    return result_frame.failed(result, error)


def spliced(frame: bytes, task: str, region: str, size_bytes: int) -> bytes:
    """The JSON of a result. ``region``: the one it must be of, "" for any; ``size_bytes``: its stated size."""
    try:
        return result_frame.splice_checked(frame, task, region, size_bytes + result_frame.HEAD_BYTES_MAX)
    except ValueError as error:
        return result_frame.splice(_unreadable(task, region, error))


def spliced_reply(frame: bytes, task: bytes, by: bytes, size_bytes: bytes) -> bytes:
    """``spliced`` with the arguments as ``web.hub.scripts.READ`` returns them."""
    return spliced(frame, task.decode(), _region(by), int(size_bytes))


def traced(result: bytes, traceparent: bytes) -> bytes:
    """A result's JSON with the traceparent of its request."""
    return b'{"traceparent":"%b",%b' % (traceparent, result[1:])


def head_reply(frame: bytes, task: bytes, by: bytes, size_bytes: bytes) -> contract.Result:
    """The head of a result as ``spliced_reply`` tells it, so that it says of every frame what a poll says."""
    return result_frame.head_of(spliced_reply(frame, task, by, size_bytes))


def whole(frame: bytes, task: bytes, by: bytes, size_bytes: bytes) -> bytes:
    """The frame as it came, for the history, which reads its head, and unpacks as many bytes of records as that says."""
    try:
        result_frame.check_head(frame, task.decode(), _region(by), int(size_bytes))
    except ValueError as error:
        return _unreadable(task.decode(), _region(by), error)
    return frame


def _region(by: bytes) -> str:
    region = by.decode()
    return "" if region == names.HUB else names.region_of_settled(region)


def _unreadable(task: str, region: str, error: Exception) -> bytes:
    now = time.monotonic()
    if now - _logged_at.get(region, float("-inf")) >= LOG_SECONDS:  # every reader of every poll comes here
        _logged_at[region] = now
        log.error("result not readable", task=task, region=region, error=str(error)[:500])
    return made(task, "", region, "failed", Internal("the region sent a result that can't be read"))
