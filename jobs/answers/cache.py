"""A region keeps the last good answer to each question: for conditional requests, and to replace a failure.

    Asker, Runner ── young, to_ask_by, stale ──> nf:cache:{key}
       │    before a fetch, when max_age permits an older answer or the page had an ETag or a Last-Modified; after a failure
       └─ note ── conclude.lua ──> nf:cache:{key}
            the records as they travel, and what a condition needs

RFC 9110 (8.8, 13.1) defines conditional requests, RFC 9111 (4.3) what a 304 means, RFC 5861 (4) stale answers. An answer
is used only with the definition that made it. When there is no room, the oldest answers go.
"""

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from jobs import contract, memory, result_frame
from jobs.contract import Result, Task
from jobs.definition.model import Definition
from jobs.errors import RateLimited, TaskError, is_the_hosts
from jobs.page import Page, Request
from regions import logs, names
from regions.script import send, value

FRAME_BYTES_MAX: Final = 2_000_000  # of an answer that is kept
TAG_CHARS_MAX: Final = 1_000
# A definition that sends one of these makes a conditional request of its own.
CONDITIONS: Final = frozenset(
    {"if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "range", "if-range"}
)

_TAG: Final = re.compile(r'(?:W/)?"[^"\x00-\x20\x7f]*"')

log = logs.get("cache")


class Meta(Struct, array_like=True, frozen=True, kw_only=True):
    """What is kept of an answer beside its frame. ``asked`` and ``url`` are the address before and after redirects.

    ``fetched_ms`` is on the hub's clock. Without ``etag`` and ``modified`` no conditional request is possible. ``gaps`` as
    in ``contract.Run``.
    """

    definition: str
    asked: str
    url: str
    etag: str
    modified: str
    fetched_ms: int
    gaps: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Cached:
    """A kept answer: the frame of its result, and its metadata."""

    meta: Meta
    frame: bytes

    def asking(self, request: Request) -> Request:
        """The conditional request: it gets a page only if the page has changed."""
        conditions = {"If-None-Match": self.meta.etag, "If-Modified-Since": self.meta.modified}
        return replace(
            request, headers={**request.headers, **{name: text for name, text in conditions.items() if text}}
        )

    def fill(self, result: Result, now_ms: int) -> None:
        """Fills a result with this answer. ``now_ms`` is on the hub's clock. The caller adds the warnings."""
        known = result_frame.head(self.frame)
        result.count, result.url, result.definition = known.count, self.meta.url, self.meta.definition
        result.bytes.records, result.bytes.spared = known.bytes.records, known.bytes.page
        result.fetched_at = contract.rfc3339(self.meta.fetched_ms)
        result.age = max(0.0, (now_ms - self.meta.fetched_ms) / 1000)

    def warnings(self) -> list[str]:
        """The warnings of its result."""
        return result_frame.head(self.frame).warnings


_meta_decoder: Final = msgspec.json.Decoder(Meta)
_encoder: Final = msgspec.json.Encoder()


class Cache:
    """A worker process's access to its region's answers. The threads share it. Without a client nothing is kept."""

    def __init__(self, client: redis.Redis | None = None) -> None:
        self._client = client
        self._validated: set[str] = set()  # definitions whose pages had an ETag or a date; only these are looked up

    def young(self, task: Task, definition: Definition, now_ms: int) -> Cached | None:
        """An answer that is young enough for the task. One look-up, and only for tasks with a ``max_age``."""
        if not task.max_age:
            return None
        found = self._known(task, definition)
        return found if found is not None and now_ms - found.meta.fetched_ms <= task.max_age * 1000 else None

    def to_ask_by(self, task: Task, definition: Definition, request: Request) -> Cached | None:
        """The answer for a conditional request. One look-up, and only for sources whose pages permit such requests."""
        if definition.hash not in self._validated or not _may_ask(definition, request):
            return None
        found = self._known(task, definition)
        has_condition = found is not None and (found.meta.etag or found.meta.modified)
        return found if found is not None and has_condition and found.meta.asked == request.url else None

    def stale(self, task: Task, definition: Definition, error: TaskError, now_ms: int) -> Cached | None:
        """An answer no older than ``stale_seconds`` that may replace a failure.

        Only failures that say that the host is not well are replaced. A broken contract, an unreadable page or a 404 is an
        answer by itself.
        """
        seconds = definition.limits.stale_seconds
        if not seconds or not (is_the_hosts(error) or isinstance(error, RateLimited)):
            return None
        found = self._known(task, definition)
        return found if found is not None and now_ms - found.meta.fetched_ms <= seconds * 1000 else None

    def note(self, definition: Definition, page: Page, fetched_ms: int) -> Meta | None:
        """What to keep of a task's first page beside its answer; None if the answer is not to be kept."""
        etag, modified = validators(page) if _may_ask(definition, page.request) else ("", "")
        if etag or modified:
            self._validated.add(definition.hash)
        elif not definition.limits.stale_seconds:
            return None
        return Meta(
            definition=definition.hash,
            asked=page.request.url,
            url=page.url,
            etag=etag,
            modified=modified,
            fetched_ms=fetched_ms,
        )

    def _known(self, task: Task, definition: Definition) -> Cached | None:
        if self._client is None:
            return None
        look = ("HMGET", names.cache(contract.key_of(task)), "meta", "frame")
        try:
            meta, frame = value(send(self._client, [look], [])[0])
        except redis.exceptions.RedisError as error:
            log.info("can't look for an older answer", source=task.source, error=str(error))
            return None
        if meta is None or frame is None:
            return None
        try:
            found = Cached(_meta_decoder.decode(meta), frame)
        except msgspec.DecodeError:  # of another version
            return None
        is_its_own = found.meta.definition == definition.hash
        return found if is_its_own and memory.reserve_now(len(frame)) else None


def packed(meta: Meta | None, pages: int, result: Result, gaps: dict[str, int]) -> bytes:
    """What the finish script keeps beside a success's frame; empty if the answer is not to be kept.

    Only complete answers are kept. One of several pages can replace a failure, but it can't be asked for by a condition.
    """
    if meta is None or result.partial or result.bytes.wire > FRAME_BYTES_MAX:
        return b""
    if pages > 1:
        meta = msgspec.structs.replace(meta, etag="", modified="")
    return _encoder.encode(msgspec.structs.replace(meta, gaps=gaps))


def renewed(meta: Meta, page: Page, fetched_ms: int) -> Meta:
    """The metadata after a 304, which may bring new validators (RFC 9111, 4.3.4)."""
    etag, modified = validators(page)
    return msgspec.structs.replace(
        meta, etag=etag or meta.etag, modified=modified or meta.modified, fetched_ms=fetched_ms
    )


def validators(page: Page) -> tuple[str, str]:
    """The (ETag, Last-Modified) of a page that can be used in a condition, "" for none.

    Last-Modified counts only if it is at least a second older than the answer: a change within that second would have the
    same date (RFC 9110, 8.8.2.2).
    """
    if page.status not in (200, 304) or page.header("vary").strip() == "*" or _says_no_store(page):
        return "", ""
    etag, modified = page.header("etag").strip(), page.header("last-modified").strip()
    if not _TAG.fullmatch(etag) or len(etag) > TAG_CHARS_MAX:
        etag = ""
    try:
        sent, changed = map(email.utils.parsedate_to_datetime, (page.header("date"), modified))
        is_strong = (sent - changed).total_seconds() >= 1
    except (ValueError, TypeError, OverflowError):
        is_strong = False
    return etag, modified if is_strong else ""


def _may_ask(definition: Definition, request: Request) -> bool:
    """Whether a request may get a condition: a plain GET of a first page, for which 304 has no other meaning."""
    return (
        request.method == "GET"
        and request.body is None
        and request.number == 1
        and definition.before is None
        and 304 not in definition.contract.absent
        and not _has_condition(request.headers)
    )


def _has_condition(headers: Mapping[str, Any]) -> bool:
    return any(name.lower() in CONDITIONS for name in headers)


def _says_no_store(page: Page) -> bool:
    return "no-store" in [word.strip().lower() for word in page.header("cache-control").split(",")]
