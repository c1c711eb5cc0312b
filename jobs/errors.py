"""The errors of a task, as clients see them. Each leaf of the tree is one public ``type``.

    TaskError
     ├ target    http_status  too_large  blocked  rate_limited
     ├ network   timeout  connection
     ├ policy    blocked_address  cancelled
     ├ parser    decode  parse  contract
     ├ region    unknown_source  region_unavailable  poison
     └ internal  internal  expired

``origin`` says whose fault it is by default. Code that knows better passes another one.
"""

from typing import ClassVar, Final, NamedTuple

from regions.printable import printable

ORIGINS: Final = ("target", "network", "parser", "policy", "region", "internal")


class TaskError(Exception):
    """Ends a task as failed. ``retry_after`` is in seconds; ``http_status`` is the target's.

    ``is_retryable`` and ``whose`` are what this error has for its class's ``retryable`` and ``origin``.
    ``page`` is the ``jobs.page.Page`` as far as it arrived, if the answer could not be read to its end.
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
        super().__init__(printable(message))  # it may quote a page
        self.http_status = http_status
        self.retry_after = retry_after
        self.is_retryable = type(self).retryable if retryable is None else retryable
        self.whose = type(self).origin if origin is None else origin
        self.page: object = None


class TimedOut(TaskError):  # noqa: N818 - named after the type
    """No answer within the fetch's time-out."""

    type, origin, retryable = "timeout", "network", True


class ConnectionFailed(TaskError):  # noqa: N818
    """The name look-up, the connection or TLS failed, or the body was cut short."""

    type, origin, retryable = "connection", "network", True


class HttpStatus(TaskError):  # noqa: N818
    """The target answered with a status other than 2xx, or redirected too often."""

    type, origin = "http_status", "target"


class TooLarge(TaskError):  # noqa: N818
    """The answer or its records exceed their limit."""

    type, origin = "too_large", "target"


class Blocked(TaskError):  # noqa: N818
    """A wall (a block page, a CAPTCHA) came instead of the page."""

    type, origin = "blocked", "target"


class BlockedAddress(TaskError):  # noqa: N818
    """The guard refused an address or a scheme."""

    type, origin = "blocked_address", "policy"


class RateLimited(TaskError):  # noqa: N818
    """The target asks to wait, or a limit that the region keeps for it does."""

    type, origin, retryable = "rate_limited", "target", True


class DecodeFailed(TaskError):  # noqa: N818
    """The answer can't be decompressed, or no charset fits it."""

    type, origin = "decode", "parser"


class ParseFailed(TaskError):  # noqa: N818
    """The document can't be parsed, or an expression of the definition failed on it."""

    type, origin = "parse", "parser"


class ContractBroken(TaskError):  # noqa: N818
    """The records break the source's contract."""

    type, origin = "contract", "parser"


class Expired(TaskError):  # noqa: N818
    """The deadline passed."""

    type, origin = "expired", "internal"


class Cancelled(TaskError):  # noqa: N818
    """A client cancelled the task."""

    type, origin = "cancelled", "policy"


class Poison(TaskError):  # noqa: N818
    """The task crashed its process several times."""

    type, origin = "poison", "region"


class UnknownSource(TaskError):  # noqa: N818
    """The region lacks this source, or its definition is broken."""

    type, origin = "unknown_source", "region"


class RegionUnavailable(TaskError):  # noqa: N818
    """The region could not be reached."""

    type, origin, retryable = "region_unavailable", "region", True


class Internal(TaskError):  # noqa: N818
    """A fault in Nearfetch itself."""


class Backoff(NamedTuple):
    """The wait before a retry: its ceiling starts at ``first_seconds`` and doubles with each retry up to ``max_seconds``."""

    first_seconds: float
    max_seconds: float


# Errors that a region retries if they are retryable. docs/reference.md has the same table.
RETRIED: Final[dict[str, Backoff]] = {
    "timeout": Backoff(0.5, 10.0),
    "connection": Backoff(0.5, 10.0),
    "http_status": Backoff(1.0, 30.0),
    "rate_limited": Backoff(2.0, 60.0),
}


def is_passing(status: int) -> bool:
    """Whether the target may soon answer with another status than this one."""
    return status in (408, 425) or status >= 500


def is_the_hosts(error: TaskError) -> bool:
    """Whether an error shows a problem of the host, and not of its page, its source or this region."""
    if error.whose not in ("network", "target"):
        return False
    if isinstance(error, HttpStatus):
        return error.http_status is not None and is_passing(error.http_status)
    return isinstance(error, TimedOut | ConnectionFailed | RateLimited | Blocked)


BY_TYPE: Final[dict[str, type[TaskError]]] = {
    kind.type: kind
    for kind in (
        TimedOut, ConnectionFailed, HttpStatus, TooLarge, Blocked, BlockedAddress, RateLimited, DecodeFailed, ParseFailed,
        ContractBroken, Expired, Cancelled, Poison, UnknownSource, RegionUnavailable, Internal,
    )
}  # fmt: skip
TYPES: Final[tuple[str, ...]] = tuple(BY_TYPE)
