"""A validated request that is about to be written, and what the script that writes it may answer."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from jobs import contract
from web.hub.keys import NO_LIMITS, KeyLimits
from web.hub.takeover import Moved
from web.hub.webhooks import Webhook


class NewTask(Struct, frozen=True, kw_only=True):
    """A validated task of a new request, with its address and its region.

    ``moved``: why that is not its source's region. ``may_move``: another region may be asked for it later.
    """

    id: str
    source: str
    region: str
    params: dict[str, Any]
    url: str
    host: str
    definition: str
    moved: Moved | None = None
    may_move: bool = False


class New(Struct, frozen=True, kw_only=True):
    """A validated new request. ``deadline_ms`` is a duration; ``attrs`` is the client's JSON as it came."""

    id: str
    tasks: list[NewTask]
    deadline_ms: int
    attrs: bytes = b"{}"
    max_age: float = 0.0
    sync: bool = False
    repeatable: "Repeatable | None" = None
    tenant: str = ""
    key: str = ""
    limits: KeyLimits = NO_LIMITS
    traceparent: str = ""
    webhook: Webhook | None = None


class Limited(Struct, frozen=True):
    """A request that would exceed a limit of its key; nothing was written. ``after_ms``: when to ask again."""

    limit: str
    value: str
    after_ms: int


class Repeatable(Struct, frozen=True):
    """A client's Idempotency-Key, as the hub knows it, and a digest of the body that came with it."""

    key: str
    digest: str


class Repeated(Struct, frozen=True):
    """The request that the same Idempotency-Key made before; nothing was written for a second one."""

    request: str
    digest: str


class Times(Struct, frozen=True):
    """Hub milliseconds since the epoch, fixed at the accept."""

    created_ms: int
    deadline_ms: int
    expires_ms: int


NO_TIMES: Final = Times(0, 0, 0)


def message_of(new: New, task: NewTask, times: Times) -> contract.Task:
    """The message that asks a region for a task."""
    return contract.Task(
        task=task.id,
        request=new.id,
        source=task.source,
        region=task.region,
        params=task.params,
        url=task.url,
        host=task.host,
        definition=task.definition,
        accepted_ms=times.created_ms,
        deadline_ms=times.deadline_ms,
        expires_ms=times.expires_ms,
        max_age=new.max_age,
        sync=new.sync,
        traceparent=new.traceparent or msgspec.UNSET,
    )


class Latest(Struct, frozen=True):
    """The latest success of a task that asked the same. ``web.hub.reuse`` decides whether it can be used again."""

    task: NewTask
    key: str
    frame: bytes


class Begun(Times, frozen=True):
    """The times of a request that was written, and older results for it if it accepts them (``max_age``)."""

    latest: list[Latest] = []
