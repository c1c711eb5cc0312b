"""Uses results again that the hub still has, for requests that accept an older one (``max_age``).

    settle   a region's success: nf:latest:{key} says when it finished and where it is        (web.hub.scripts: SETTLE)
    begin    results that may be young enough come back with the times of the new request     (web.hub.scripts: BEGIN)
    here     chooses those that will do, and makes them results of the new tasks
    settle   ends those tasks before anything is published; the others go to the regions      (web.flow.accept)

Tasks that ask the same have the same ``contract.key_of``, as in the regions. A result that was used again is never the
latest success itself, so that each is kept by the time of its own fetch.
"""

from collections.abc import Iterator

import msgspec

from jobs import contract, result_frame
from regions import names
from web.hub.new_request import Begun, Latest, New
from web.hub.settlement import Settlement


def settlements(new: New, begun: Begun, bytes_max: int, copies_max: int = 0) -> list[Settlement]:
    """The ends of tasks for which the hub has a usable result, with at most ``bytes_max`` bytes of JSON in all.

    ``copies_max``: with more bytes at the hub a region's results are not copied; 0 means no limit.
    """
    found, size = [], 0
    for one in _usable(new, begun, copies_max):
        size += one.size_bytes
        if size > bytes_max:
            break
        found.append(one)
    return found


def _usable(new: New, begun: Begun, copies_max: int) -> Iterator[Settlement]:
    for latest in begun.latest:
        try:
            age_seconds = _age_seconds(latest, begun.created_ms)
            if age_seconds is None or age_seconds > new.max_age:
                continue
            region, task = names.result_of(latest.key)
            # A region may have sent anything while its credentials were stolen. What can't be read later is not used again.
            result_frame.splice_checked(latest.frame, task, region, result_frame.head(latest.frame).bytes.records)
            frame, size = result_frame.reused(latest.frame, latest.task.id, age_seconds)
        except (ValueError, RecursionError):  # not a result of this version, or none: the region is asked
            continue
        yield Settlement(
            request=new.id,
            task=latest.task.id,
            region=latest.task.region,
            status="succeeded",
            finished_ms=begun.created_ms,
            size_bytes=size,
            frame=frame,
            source=latest.task.source,
            trail=msgspec.json.encode(task),
            held_max=copies_max,
        )


def _age_seconds(latest: Latest, now_ms: int) -> float | None:
    """How long ago the result was fetched; None if it can't be used again.

    A partial result lacks pages, a stale one stood in for an error, and one of another definition may have other fields.
    """
    head = result_frame.head(latest.frame)
    is_whole = head.status == "succeeded" and not head.partial and not head.stale
    if not is_whole or head.definition != latest.task.definition or head.fetched_at is None:
        return None
    return contract.age_seconds(head.fetched_at, now_ms)
