"""Results that the hub still has, for requests that take one of some age (``max_age``).

    settle   a region's success: nf:latest:{key} says when it finished and where it is      (web.hub.scripts: SETTLE)
    begin    what may be young enough comes back with the new request's times, in one call   (web.hub.scripts: BEGIN)
    here     which of it will do, made the new task's own
    settle   ends those tasks, before anything is published; the rest goes to the regions    (web.flow.accept)

What two tasks have in common that ask the same is ``contract.key_of``, as in the regions. What the hub made of another result counts for none: the first
one's own time says how long it is kept.
"""

from collections.abc import Iterator

import msgspec

from jobs import contract
from web.hub.ledger import Begun, Kept, New, Settlement


def settlements(new: New, begun: Begun, bytes_max: int) -> list[Settlement]:
    """How the tasks end for which the hub has a result that will do, with ``bytes_max`` of JSON in all at most."""
    found, size = [], 0
    for one in _usable(new, begun):
        size += one.size_bytes
        if size > bytes_max:
            break
        found.append(one)
    return found


def _usable(new: New, begun: Begun) -> Iterator[Settlement]:
    for kept in begun.kept:
        try:
            age_seconds = _age_seconds(kept, begun.created_ms)
            if age_seconds is None or age_seconds > new.max_age:
                continue
            frame, size = contract.reused(kept.frame, kept.task.id, age_seconds)
        except ValueError:  # nothing that a region of today would send: it is asked
            continue
        yield Settlement(
            request=new.id,
            task=kept.task.id,
            region=kept.task.region,
            status="succeeded",
            finished_ms=begun.created_ms,
            size_bytes=size,
            frame=frame,
            trail=msgspec.json.encode(kept.key.rpartition(":")[2]),
        )


def _age_seconds(kept: Kept, now_ms: int) -> float | None:
    """How long ago it was fetched; None where it does not answer for another task.

    A partial one lacks pages, a stale one stood in for an error, and what another definition parsed may have other fields.
    """
    head = contract.head(kept.frame)
    is_whole = head.status == "succeeded" and not head.partial and not head.stale
    if not is_whole or head.definition != kept.task.definition or head.fetched_at is None:
        return None
    return contract.age_seconds(head.fetched_at, now_ms)
