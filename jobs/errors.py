"""What can go wrong with a task, as a client sees it: one tree, each leaf one public ``type``.

    TaskError
     ├ target    http_status  too_large  blocked  rate_limited
     ├ network   timeout  connection
     ├ policy    blocked_address  cancelled
     ├ parser    decode  parse  contract
     ├ region    unknown_source  region_unavailable  poison
     └ internal  internal  expired

``origin`` says whose fault it was by default; a place that knows better passes another one.
"""

from typing import ClassVar, Final, NamedTuple

from regions.printable import printable

ORIGINS: Final = ("target", "network", "parser", "policy", "region", "internal")


class TaskError(Exception):
    """Ends a task as failed. ``retry_after`` is in seconds, ``http_status`` the target's own.

    ``page`` is the ``jobs.page.Page`` as far as it came, where an answer could not be read to its end.
    """

    type: ClassVar[str] = "internal"
    origin: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        origin: str | None = None,
    ) -> None:
        super().__init__(printable(message))  # it may repeat what a page said
        self.http_status = http_status
        self.retry_after = retry_after
        self.is_retryable = type(self).retryable if retryable is None else retryable
        self.whose = type(self).origin if origin is None else origin
        self.page: object = None


class TimedOut(TaskError):  # noqa: N818 - named after the type
    """No answer within the fetch's time-out."""

    type, origin, retryable = "timeout", "network", True


class ConnectionFailed(TaskError):  # noqa: N818
    """Name look-up, connect, TLS, or a body that was cut short."""

    type, origin, retryable = "connection", "network", True


class HttpStatus(TaskError):  # noqa: N818
    """The target answered with a status that is no page, or redirected too often."""

    type, origin = "http_status", "target"


class TooLarge(TaskError):  # noqa: N818
    """The answer, or the records made of it, passed their limit."""

    type, origin = "too_large", "target"


class Blocked(TaskError):  # noqa: N818
    """A wall instead of the page."""

    type, origin = "blocked", "target"


class BlockedAddress(TaskError):  # noqa: N818
    """The guard refused an address or a scheme."""

    type, origin = "blocked_address", "policy"


class RateLimited(TaskError):  # noqa: N818
    """The target, or a limit that we keep for it, says: later."""

    type, origin, retryable = "rate_limited", "target", True


class DecodeFailed(TaskError):  # noqa: N818
    """What came can't be decompressed or is no text in any charset that it could be."""

    type, origin = "decode", "parser"


class ParseFailed(TaskError):  # noqa: N818
    """The document can't be parsed, or a definition's expression failed on it."""

    type, origin = "parse", "parser"


class ContractBroken(TaskError):  # noqa: N818
    """The records break what the source promises."""

    type, origin = "contract", "parser"


class Expired(TaskError):  # noqa: N818
    """The deadline passed."""

    type, origin = "expired", "internal"


class Cancelled(TaskError):  # noqa: N818
    """Somebody asked for it to be stopped."""

    type, origin = "cancelled", "policy"


class Poison(TaskError):  # noqa: N818
    """The task took its process with it, again and again."""

    type, origin = "poison", "region"


class UnknownSource(TaskError):  # noqa: N818
    """The region does not have this source, or has it broken."""

    type, origin = "unknown_source", "region"


class RegionUnavailable(TaskError):  # noqa: N818
    """The region could not be asked."""

    type, origin, retryable = "region_unavailable", "region", True


class Internal(TaskError):  # noqa: N818
    """A fault of ours."""


class Backoff(NamedTuple):
    """Seconds: the ceiling of the wait before the first retry doubles with each one up to ``max_seconds``."""

    first_seconds: float
    max_seconds: float


# What a region tries again, where the error says that it is retryable. docs/reference.md has the same table.
RETRIED: Final[dict[str, Backoff]] = {
    "timeout": Backoff(0.5, 10.0),
    "connection": Backoff(0.5, 10.0),
    "http_status": Backoff(1.0, 30.0),
    "rate_limited": Backoff(2.0, 60.0),
}


def is_passing(status: int) -> bool:
    """Whether a target that answers with this status may answer otherwise in a moment."""
    return status in (408, 425) or status >= 500


def is_the_hosts(error: TaskError) -> bool:
    """Whether an error says that its host is not well, rather than its page, its source or this region."""
    if error.whose not in ("network", "target"):
        return False
    if isinstance(error, HttpStatus):
        return error.http_status is not None and is_passing(error.http_status)
    return isinstance(error, TimedOut | ConnectionFailed | RateLimited | Blocked)


KINDS: Final[dict[str, type[TaskError]]] = {
    kind.type: kind
    for kind in (
        TimedOut, ConnectionFailed, HttpStatus, TooLarge, Blocked, BlockedAddress, RateLimited, DecodeFailed, ParseFailed,
        ContractBroken, Expired, Cancelled, Poison, UnknownSource, RegionUnavailable, Internal,
    )
}  # fmt: skip
TYPES: Final[tuple[str, ...]] = tuple(KINDS)
