"""The last good answer to a question, kept by its region: to ask only whether it changed, and to stand in for a failure.

    Runner ── known ──> nf:cache:{key}           before a fetch, where the source's pages say what they are (ETag, Last-Modified),
       │                                         where max_age lets an older answer do, and after a failure (stale_seconds)
       └─ note ── jobs.queue.finish.conclude ──> the same: records as they travel, and what is needed to ask again

RFC 9110 (8.8, 13.1) for conditional requests, RFC 9111 (4.3) for what a 304 means, RFC 5861 (4) for what stands in. An
answer is used only by the definition that made it. The oldest go where there is no room.
"""

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from jobs import contract, memory
from jobs.contract import Result, Task
from jobs.definition.model import Definition
from jobs.errors import RateLimited, TaskError, is_the_hosts
from jobs.page import Page, Request
from regions import logs, names
from regions.script import send, value

FRAME_BYTES_MAX: Final = 2_000_000  # of an answer that is kept
TAG_CHARS_MAX: Final = 1_000
# With one of these the definition asks for something of its own.
CONDITIONS: Final = frozenset(
    {"if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "range", "if-range"}
)

_TAG: Final = re.compile(r'(?:W/)?"[^"\x00-\x20\x7f]*"')

log = logs.get("cache")


class Meta(Struct, array_like=True, frozen=True, kw_only=True):
    """What is known of an answer beside its frame. ``asked`` and ``url``: the address before and after redirects.

    ``fetched_ms`` is on the hub's clock. Without ``etag`` and ``modified`` nobody can ask whether it changed. ``gaps`` as in
    ``contract.Run``.
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
    """An answer that is kept: its result's frame, and what belongs to it."""

    meta: Meta
    frame: bytes

    def asking(self, request: Request) -> Request:
        """The request that wants an answer only if it is another one."""
        conditions = {"If-None-Match": self.meta.etag, "If-Modified-Since": self.meta.modified}
        return replace(
            request, headers={**request.headers, **{name: text for name, text in conditions.items() if text}}
        )

    def fill(self, result: Result, now_ms: int) -> None:
        """Makes it a result's answer, ``now_ms`` on the hub's clock; its warnings are the caller's to add to."""
        known = contract.head(self.frame)
        result.count, result.url, result.definition = known.count, self.meta.url, self.meta.definition
        result.bytes.records = known.bytes.records
        result.fetched_at = contract.rfc3339(self.meta.fetched_ms)
        result.age = max(0.0, (now_ms - self.meta.fetched_ms) / 1000)

    def warnings(self) -> list[str]:
        """Those of its result."""
        return contract.head(self.frame).warnings


_meta_decoder: Final = msgspec.json.Decoder(Meta)
_encoder: Final = msgspec.json.Encoder()


class Cache:
    """A worker process's way to what its region keeps, shared by its threads. Without a client nothing is kept."""

    def __init__(self, client: redis.Redis | None = None) -> None:
        self._client = client
        self._validated: set[str] = (
            set()
        )  # definitions whose pages came with something to ask by: only they cost a look

    def young(self, task: Task, definition: Definition, now_ms: int) -> Cached | None:
        """An answer that is as young as the task lets it be; one look, only for a task that lets it be older than 0."""
        if not task.max_age:
            return None
        found = self._known(task, definition)
        return found if found is not None and now_ms - found.meta.fetched_ms <= task.max_age * 1000 else None

    def to_ask_by(self, task: Task, definition: Definition, request: Request) -> Cached | None:
        """The answer of which the target can be asked whether it changed; one look, for sources whose pages allow it."""
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
        """What is to be kept of a task's first page, if its answer is; None where it is not."""
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
    """What the finish keeps beside a success's frame; empty where it is not to be kept.

    Only a whole answer is, and of several pages only one that stands in for failures: nobody can ask by all of them.
    """
    if meta is None or result.partial or result.bytes.wire > FRAME_BYTES_MAX:
        return b""
    if pages > 1:
        meta = msgspec.structs.replace(meta, etag="", modified="")
    return _encoder.encode(msgspec.structs.replace(meta, gaps=gaps))


def renewed(meta: Meta, page: Page, fetched_ms: int) -> Meta:
    """After a 304, which may bring new validators (RFC 9111, 4.3.4)."""
    etag, modified = validators(page)
    return msgspec.structs.replace(
        meta, etag=etag or meta.etag, modified=modified or meta.modified, fetched_ms=fetched_ms
    )


def validators(page: Page) -> tuple[str, str]:
    """(ETag, Last-Modified) of a page that may be asked for by them, "" for none.

    Last-Modified counts where it is a second older than the answer at least: what changed within that second would have the
    same (RFC 9110, 8.8.2.2).
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
    """Whether a request may get a condition: a plain GET of a first page, to which 304 means nothing else."""
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
