"""Packs the raw answers that a task got, without secrets, so that operators can see why it ended as it did.

    Asker: Answers.add for each page, Answers.broke for each failed fetch
    Runner: at the end, for a failure or a sample of successes
              └─ Answers.packed → jobs.answers.store → a file in the region's folder → read

The last body is packed only at the end, so that a task whose answers are not kept pays nothing for it. Before a further
page, the one before it is packed.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec
from backports import zstd
from msgspec import Struct

from jobs import memory
from jobs.answers.redact import Redaction
from jobs.contract import Error, Task
from jobs.definition.model import Definition
from jobs.errors import TaskError
from jobs.page import Page
from jobs.text import values

VERSION: Final = 1
TASK_BYTES_MAX: Final = 8_000_000  # of a task's packed bodies; further bodies are left out
PACKED: Final = 3  # times a body's size that packing needs: two copies without secrets, and the packed one
NO_PASSWORDS: Final[Mapping[str, Collection[str]]] = {}

_encoder: Final = msgspec.msgpack.Encoder()


class Answer(Struct, frozen=True, kw_only=True):
    """One answer. ``url`` was asked for, ``final_url`` answered. ``body`` is the body, compressed with zstd.

    ``error`` says why the answer could not be received or unpacked; then ``body`` is what was received of it.
    ``note`` says why the body is incomplete, "" if it is complete.
    """

    method: str
    url: str
    final_url: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    error: Error | None = None
    note: str = ""

    def unpacked(self) -> bytes:
        """The body."""
        return zstd.decompress(self.body) if self.body else b""


class Kept(Struct, frozen=True, kw_only=True):
    """One execution of a task: its requests, their answers and the result, which is JSON compressed with zstd."""

    v: int = VERSION
    task: Task
    region: str
    attempt: int
    definition: str
    kept_ms: int
    result: bytes
    answers: list[Answer]

    def unpacked_result(self) -> dict[str, Any]:
        """The result with its records, as clients got it."""
        found: dict[str, Any] = msgspec.json.decode(zstd.decompress(self.result))
        return found


class Answers:
    """The answers of a running task so far. If ``is_wanted`` is false, it keeps none."""

    def __init__(
        self, secrets: Mapping[str, str], passwords: Mapping[str, Collection[str]] = NO_PASSWORDS, *, is_wanted: bool
    ) -> None:
        """``secrets`` are the region's, by name. Those that the definition names are removed from the answers.

        ``passwords`` are those of proxies, by egress: a proxy may pass its credentials on, and a page may show them.
        """
        self._secrets, self._passwords, self._is_wanted = secrets, passwords, is_wanted
        self._last: tuple[Page, TaskError | None] | None = None
        self._packed: list[Answer] = []
        self._bytes = 0
        self._hidden: set[str] = set()
        self._tokens: set[str] = set()

    def __bool__(self) -> bool:
        """Whether there is any answer."""
        return self._last is not None or bool(self._packed)

    @property
    def held_bytes(self) -> int:
        """How much of the process's memory the answers take."""
        return self._bytes + (len(self._last[0].body) if self._last is not None else 0)

    def add(self, definition: Definition, page: Page, error: TaskError | None = None) -> None:
        """Adds an answer: a complete one or, with an ``error``, what was received of it."""
        if not self._is_wanted:
            return
        if self._last is not None:
            self._pack(definition)
        # A copy: the page itself holds its parsed tree, which must not outlive the parse.
        bare = Page(page.request, page.url, page.status, page.headers, page.body)
        self._last = bare, error

    def broke(self, definition: Definition, error: TaskError) -> None:
        """Adds what the error of a failed fetch has of its answer, if anything."""
        if isinstance(error.page, Page):
            self.add(definition, error.page, error)

    def hide(self, found: Iterable[Any]) -> None:
        """Has the values of ``[before]`` removed from all answers."""
        self._tokens |= {values.shown(value) for value in found if value is not None}

    def packed(
        self, definition: Definition, task: Task, *, region: str, attempt: int, now_ms: int, result: bytes
    ) -> bytes:
        """The content of a file with all answers. ``result`` is the result's JSON. Drops the last body."""
        if self._last is not None:
            self._pack(definition)
        redaction = self._redaction(definition)
        kept = Kept(
            task=task,
            region=region,
            attempt=attempt,
            definition=definition.hash,
            kept_ms=now_ms,
            result=zstd.compress(redaction.bytes(result), 3),
            answers=self._packed,
        )
        return _encoder.encode(kept)

    def _redaction(self, definition: Definition) -> Redaction:
        asked = [definition.ask, *([definition.before.ask] if definition.before is not None else [])]
        named = {self._secrets[name] for one in asked for name in one.secrets() if name in self._secrets}
        return Redaction(named | self._hidden, self._tokens)

    def _pack(self, definition: Definition) -> None:
        assert self._last is not None
        page, error = self._last
        self._last = None
        self._hidden |= {
            value.partition(" ")[2] or value
            for name, value in page.request.headers.items()
            if name.lower() in ("authorization", "proxy-authorization")
        }
        self._hidden |= set(self._passwords.get(page.request.egress, ()))
        redaction = self._redaction(definition)
        body, note = page.body, ""
        if error is not None:
            note = f"the first {len(body)} bytes that were received"
        is_coded = error is not None and page.header("content-encoding").lower() not in ("", "identity")
        if body and redaction and (is_coded or definition.archive):
            body, note = b"", "left out: secrets can't be found in a packed body"
        if not memory.reserve_now(len(body) * PACKED):
            body, note = b"", "left out: the process had no memory to pack it"
        packed = zstd.compress(redaction.bytes(body), 3) if body else b""
        if self._bytes + len(packed) > TASK_BYTES_MAX:
            packed, note = b"", f"left out: the task's answers pass {TASK_BYTES_MAX} bytes"
        self._bytes += len(packed)
        self._packed.append(
            Answer(
                method=page.request.method,
                url=redaction.text(page.request.url),
                final_url=redaction.text(page.url),
                status=page.status,
                headers=redaction.headers(page.headers),
                body=packed,
                error=_without_secrets(error, redaction) if error is not None else None,
                note=note,
            )
        )


def _without_secrets(error: TaskError, redaction: Redaction) -> Error:
    found = Error.of(error)
    found.message = redaction.text(found.message)
    return found


_decoder: Final = msgspec.msgpack.Decoder(Kept)


def read(data: bytes) -> Kept:
    """Decodes the content of a file. Raises ValueError when it is none of ours."""
    kept = _decoder.decode(data)
    if kept.v != VERSION:
        raise ValueError(f"expected kept answers of version {VERSION}, found {kept.v}")
    return kept
