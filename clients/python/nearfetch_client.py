"""A client of a Nearfetch gateway, in one file that needs nothing but ``requests``. Copy it, or ``pip install`` its folder.

    from nearfetch_client import Nearfetch

    client = Nearfetch("http://127.0.0.1:8080")
    print(client.fetch("ecb.rates").records[0])
    for result in client.submit("ecb.rates", ("books.list", {"category": "poetry_23"})).results():
        print(result.source, len(result.records))

Whatever may be sent again is: a post carries an Idempotency-Key, so that nothing is fetched twice by that. A ``Nearfetch`` may be
used by several threads.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import os
import re
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TextIO, TypeAlias

import requests

__all__ = [
    "Event",
    "Nearfetch",
    "NearfetchError",
    "Refused",
    "Request",
    "Result",
    "TaskError",
    "TaskFailed",
    "Unavailable",
    "read_events",
    "verify_webhook",
]
__version__ = "0.1.0"

WAIT_MAX_SECONDS: Final = 25.0  # of one call; proxies cut off what is silent for longer
CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 15.0  # for an answer, beside the time that the gateway may wait
FIRST_SECONDS: Final = 5.0  # a stream's first bytes come at once, unless a proxy holds them back
SILENCE_SECONDS: Final = 20.0  # a stream sends something every 15 s
BACKOFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
BREAKS_MAX: Final = 2  # streams in a row that bring nothing: then it polls
AGAIN: Final = frozenset({409, 429, 502, 503, 504})  # statuses after which the same call may succeed
BAR_WIDTH: Final = 24
BAR_SECONDS: Final = 0.1  # between two drawings

Source: TypeAlias = str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]
Told: TypeAlias = tuple[Mapping[str, Any], str]  # a result's JSON, decoded and as it came

_scan: Final = json.JSONDecoder().raw_decode
_space: Final = re.compile(r"[ \t\r\n]*")


class NearfetchError(Exception):
    """What this module raises."""

    origin: str = ""  # of a task that failed: target, network, parser, policy, region or internal
    retry_after: float | None = None  # seconds


class Unavailable(NearfetchError):
    """No gateway answered in time, or it could not take the call. Nothing was accepted, or the same key would find it again."""


class Refused(NearfetchError):
    """The gateway refused a call. ``kind`` is the last part of the problem's type; ``errors``: (JSON pointer, detail) of each fault."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None) -> None:
        self.status, self.problem, self.retry_after = status, dict(problem), retry_after
        self.kind = str(problem.get("type", "")).rpartition("/")[2]
        self.errors = [(str(one.get("pointer", "")), str(one.get("detail", ""))) for one in problem.get("errors", [])]
        title, detail = f"{status} {problem.get('title') or ''}".strip(), str(problem.get("detail") or "")
        if self.errors and detail == self.errors[0][1]:
            detail = ""  # it is listed below, with its pointer
        told = "".join(f"\n  {where}: {what}" for where, what in self.errors)
        super().__init__(f"{title}: {detail}{told}" if detail else f"{title}{told}")


@dataclass(frozen=True)
class TaskError:
    """Why a task failed. ``origin`` says whose fault it was: target, network, parser, policy, region or internal."""

    type: str
    message: str
    origin: str = ""
    retryable: bool = False
    retry_after: float | None = None
    http_status: int | None = None


class TaskFailed(NearfetchError):
    """A task did not succeed; ``result`` has everything."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.error = result.error or TaskError(result.status, "the task did not succeed")
        self.origin, self.retry_after = self.error.origin, self.error.retry_after
        super().__init__(f"{result.source}: {self.error.type}: {self.error.message}")


@dataclass(frozen=True)
class Result:
    """The result of one task. ``raw`` is its JSON with all members, ``text`` the same as it came, each number as it is spelt there."""

    task: str
    source: str
    region: str
    status: str
    records: list[dict[str, Any]]
    partial: bool
    warnings: list[str]
    error: TaskError | None
    raw: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the task succeeded."""
        return self.status == "succeeded"

    def check(self) -> Result:
        """Itself. Raises ``TaskFailed`` if the task did not succeed."""
        if not self.ok:
            raise TaskFailed(self)
        return self

    def to_pandas(self) -> Any:
        """The records as a pandas DataFrame."""
        import pandas  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415

        return pandas.DataFrame.from_records(self.records)

    def to_polars(self) -> Any:
        """The records as a polars DataFrame."""
        import polars  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

        return polars.DataFrame(self.records, infer_schema_length=None)


class Nearfetch:
    """A gateway. ``url`` and ``key`` are by default those of ``NEARFETCH_URL`` and ``NEARFETCH_KEY``.

    ``timeout`` bounds each call with everything that is tried again, in seconds.
    """

    def __init__(self, url: str = "", key: str = "", *, timeout: float = 60.0) -> None:
        self.url = (url or os.environ.get("NEARFETCH_URL", "") or "http://127.0.0.1:8080").rstrip("/")
        self.timeout = timeout
        self._key = key or os.environ.get("NEARFETCH_KEY", "")
        self._local = threading.local()
        self.streams: bool | None = None  # whether event streams come through at once; None before the first one

    def fetch(
        self,
        source: str,
        params: Mapping[str, Any] | None = None,
        *,
        max_age: float = 0.0,
        deadline: float | None = None,
    ) -> Result:
        """Asks one source and waits for its records. Raises ``TaskFailed``, ``Refused``, ``Unavailable``.

        ``max_age``: how many seconds old an answer may be.
        """
        request = self._submit([(source, params or {})], max_age, deadline, None, wait=True)
        return next(request.results()).check()

    def submit(
        self,
        *sources: Source,
        max_age: float = 0.0,
        deadline: float | None = None,
        attrs: Mapping[str, Any] | None = None,
        webhook: tuple[str, str] | None = None,
    ) -> Request:
        """Asks several sources, and returns at once. A source is its id, or (id, params). Raises ``Refused``, ``Unavailable``.

        ``webhook``: (address, secret); it is told when the request has ended, see ``verify_webhook``.
        """
        return self._submit(sources, max_age, deadline, attrs, wait=False, webhook=webhook)

    def request(self, request: str) -> Request:
        """A request that was submitted before, by its id. Raises ``Refused``, ``Unavailable``."""
        return Request(self, self.call("GET", f"/v1/requests/{request}", params={"after": "0-0"}))

    def sources(self) -> list[dict[str, Any]]:
        """The catalogue."""
        found: list[dict[str, Any]] = self.call("GET", "/v1/sources").json()["sources"]
        return found

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 0.0,
    ) -> requests.Response:
        """A call, sent again until it is answered or ``timeout`` is over. ``seconds``: how long the gateway may wait before it answers.

        Raises ``Refused`` for an answer that will not change, else ``Unavailable``. A POST must carry an Idempotency-Key.
        """
        until, tries = time.monotonic() + self.timeout + seconds, 0
        while True:
            pause = BACKOFF_SECONDS[min(tries, len(BACKOFF_SECONDS) - 1)]
            tries += 1
            try:
                answer = self.session().request(
                    method,
                    self.url + path,
                    params=params,
                    data=None if body is None else json.dumps(body).encode(),
                    headers={**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})},
                    timeout=(CONNECT_SECONDS, seconds + ANSWER_SECONDS),
                )
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                failure: NearfetchError = Unavailable(f"No gateway answers at {self.url}: {_reason(error)}")
            else:
                if answer.ok:
                    return answer
                after = _seconds(answer.headers.get("Retry-After"))
                refused = Refused(answer.status_code, _problem(answer), after)
                if answer.status_code not in AGAIN:
                    raise refused
                failure, pause = refused, after if after is not None else pause
            if time.monotonic() + pause >= until:
                raise failure
            time.sleep(pause)

    def session(self) -> requests.Session:
        """The connections of the calling thread."""
        found: requests.Session | None = getattr(self._local, "session", None)
        if found is None:
            found = self._local.session = requests.Session()
            found.headers["User-Agent"] = f"nearfetch-client/{__version__}"
            found.trust_env = not _is_own_machine(self.url)  # proxies of the environment
            if self._key:
                found.auth = self._sign  # a header would give way to what ~/.netrc has for this host
        return found

    def _sign(self, call: requests.PreparedRequest) -> requests.PreparedRequest:
        call.headers["Authorization"] = f"Bearer {self._key}"
        return call

    def _submit(
        self,
        sources: Iterable[Source],
        max_age: float,
        deadline: float | None,
        attrs: Mapping[str, Any] | None,
        *,
        wait: bool,
        webhook: tuple[str, str] | None = None,
    ) -> Request:
        body: dict[str, Any] = {"sources": [_asked(one) for one in sources]}
        if max_age:
            body["max_age"] = max_age
        if deadline is not None:
            body["deadline"] = deadline
        if attrs:
            body["attrs"] = attrs
        if webhook is not None:
            body["webhook"] = {"url": webhook[0], "secret": webhook[1]}
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        seconds = min(WAIT_MAX_SECONDS, deadline or WAIT_MAX_SECONDS) if wait else 0.0
        if seconds:
            headers["Prefer"] = f"wait={seconds:g}"
        return Request(self, self.call("POST", "/v1/requests", body=body, headers=headers, seconds=seconds))


def verify_webhook(headers: Mapping[str, str], body: bytes, secret: str, *, tolerance: float = 300.0) -> dict[str, Any]:
    """The message of a webhook, as a receiver got it: {"type": "request.done", "timestamp", "data": the request without results}.

    Raises ``ValueError`` if this secret did not sign it, or not within the last ``tolerance`` seconds. ``body``: its bytes, unchanged. A message may
    come twice: the header ``webhook-id`` tells.
    """
    found = {name.lower(): value for name, value in headers.items()}
    message, timestamp = found.get("webhook-id", ""), found.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > tolerance:
        raise ValueError(f"expected a webhook-timestamp of the last {tolerance:g} s, found {timestamp[:20]!r}")
    key = base64.b64decode(secret.removeprefix("whsec_") + "==")
    signed = hmac.new(key, f"{message}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(signed)
    signatures = found.get("webhook-signature", "").encode().split()
    if not any(hmac.compare_digest(one, expected) for one in signatures):
        raise ValueError("expected a webhook-signature by this secret, found none")
    told: dict[str, Any] = json.loads(body)
    return told


class Request:
    """A request: its ``id``, its ``tasks`` (``id``, ``source`` and ``region`` of each), and its results as they come."""

    def __init__(self, client: Nearfetch, answer: requests.Response) -> None:
        told, results = _request(answer)
        self.id: str = told["id"]
        self.total: int = told["total"]
        self.tasks: list[Mapping[str, Any]] = told["tasks"]
        self._client, self._first, self._breaks = client, results, 0
        self._cursor: str = told["cursor"] if results else "0-0"
        self._is_done = bool(told["done"]) and len(results) == self.total

    def results(self, *, progress: bool | None = None) -> Iterator[Result]:
        """Each result once, as soon as it is there. Raises ``Refused`` or ``Unavailable``; after that, call it again to go on.

        A result of a task that failed is among them: see ``Result.ok`` and ``Result.check``. ``progress`` shows a bar; by default
        on a terminal and in a notebook.
        """
        with _Bar(self.total, progress) as bar:
            while self._first or not self._is_done:
                while self._first:
                    yield bar.count(_result(*self._first.pop(0)))
                if self._is_done:
                    break
                if self._client.streams is not False and self._breaks < BREAKS_MAX:
                    for told in self._stream():
                        self._breaks = 0
                        yield bar.count(_result(*told))
                else:
                    self._poll()

    def wait(self, *, progress: bool | None = None) -> list[Result]:
        """All results."""
        return list(self.results(progress=progress))

    def cancel(self) -> None:
        """Cancels the tasks that have not ended."""
        self._client.call("DELETE", f"/v1/requests/{self.id}")

    def _poll(self) -> None:
        """Gets the next results by a long poll; after it a stream is tried again, unless a proxy holds streams back."""
        params = {"after": self._cursor, "wait": f"{WAIT_MAX_SECONDS:g}"}
        answer = self._client.call("GET", f"/v1/requests/{self.id}", params=params, seconds=WAIT_MAX_SECONDS)
        told, self._first = _request(answer)
        self._cursor, self._breaks = told["cursor"], BREAKS_MAX - 1
        self._is_done = told["done"] and not told["more"]

    def _stream(self) -> Iterator[Told]:
        """The next results from an event stream, until it ends or breaks; the next stream goes on after the last one."""
        client = self._client
        bound = SILENCE_SECONDS if client.streams else FIRST_SECONDS
        heard, is_silent = time.monotonic(), True
        self._breaks += 1
        try:
            with client.session().get(
                f"{client.url}/v1/requests/{self.id}/events",
                headers={"Accept": "text/event-stream", "Last-Event-ID": self._cursor},
                stream=True,
                timeout=(CONNECT_SECONDS, bound),
            ) as answer:
                if answer.status_code == requests.codes.no_content:
                    self._is_done = True
                    return
                if not answer.ok:
                    raise Refused(answer.status_code, _problem(answer), _seconds(answer.headers.get("Retry-After")))

                def lines() -> Iterator[bytes]:
                    nonlocal heard, is_silent
                    for line in answer.iter_lines(chunk_size=None):
                        heard, is_silent, client.streams = time.monotonic(), False, True
                        yield line

                for event in read_events(lines()):
                    if event.name == "done":
                        self._is_done = True
                        return
                    self._cursor = event.id
                    yield event.data, event.text
        except requests.RequestException:
            if time.monotonic() - heard < bound:
                time.sleep(BACKOFF_SECONDS[0])  # it broke
            elif is_silent or bound == SILENCE_SECONDS:
                client.streams = False  # nothing comes through, so that results are polled
            else:
                self._breaks = 0  # it was quiet for a while, as streams are
        except Refused as refused:
            if refused.status not in AGAIN:
                raise
            time.sleep(refused.retry_after or BACKOFF_SECONDS[0])


class _Bar:
    """A progress bar on a terminal (standard error) or in a notebook."""

    def __init__(self, total: int, wanted: bool | None) -> None:
        self._total, self._done, self._began, self._drawn = total, 0, time.monotonic(), 0.0
        is_notebook = "ipykernel" in sys.modules
        self._out: TextIO = sys.stdout if is_notebook else sys.stderr
        self._is_shown = total > 1 and (wanted if wanted is not None else is_notebook or self._out.isatty())

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown and self._done:
            print(file=self._out, flush=True)

    def count(self, result: Result) -> Result:
        """Counts one, and returns it."""
        self._done += 1
        now = time.monotonic()
        if self._is_shown and (self._done == self._total or now - self._drawn >= BAR_SECONDS):
            self._drawn = now
            bar = "#" * (BAR_WIDTH * self._done // self._total)
            took = f"{now - self._began:.1f} s"
            print(f"\r[{bar:.<{BAR_WIDTH}}] {self._done} of {self._total}, {took}", end="", file=self._out, flush=True)
        return result


def _asked(source: Source) -> Any:
    if isinstance(source, str):
        return source
    if isinstance(source, Mapping):
        return dict(source)
    return {"source": source[0], "params": dict(source[1])}


def _result(told: Mapping[str, Any], text: str) -> Result:
    error = told.get("error")
    return Result(
        task=told["task"],
        source=told["source"],
        region=told["region"],
        status=told["status"],
        records=told.get("records") or [],
        partial=bool(told.get("partial")),
        warnings=list(told.get("warnings") or []),
        error=None
        if error is None
        else TaskError(**{key: error[key] for key in TaskError.__dataclass_fields__ if key in error}),
        raw=told,
        text=text,
    )


def _request(answer: requests.Response) -> tuple[dict[str, Any], list[Told]]:
    """A request without its results, and these. Raises ``NearfetchError`` if the answer is none."""
    try:
        told, results = _split(answer.content.decode())
        told["id"], told["total"], told["tasks"], told["cursor"], told["done"], told["more"]
    except (ValueError, KeyError, TypeError) as error:
        raise NearfetchError(f"expected a request from {answer.url}, found {answer.content[:100]!r}") from error
    return told, results


def _split(text: str) -> tuple[dict[str, Any], list[Told]]:
    """A request's JSON without its results, and each of those with its text. Raises ValueError."""
    members: dict[str, Any] = {}
    results: list[Told] = []
    at = _after(text, 0, "{")
    while not text.startswith("}", at):
        key, at = _scan(text, at)
        at = _after(text, at, ":")
        if key == "results":
            at = _after(text, at, "[")
            while not text.startswith("]", at):
                told, end = _scan(text, at)
                results.append((told, text[at:end]))
                at = _after(text, end, ",", or_before="]")
            at = _after(text, at, "]")
        else:
            members[key], at = _scan(text, at)
        at = _after(text, at, ",", or_before="}")
    return members, results


def _after(text: str, at: int, mark: str, *, or_before: str = "") -> int:
    """Where the next token begins after a mark, or before another one, spaces left out. Raises ValueError if neither is there."""
    at = _space.match(text, at).end()  # type: ignore[union-attr]  # it always matches
    if or_before and text.startswith(or_before, at):
        return at
    if not text.startswith(mark, at):
        raise ValueError(f"expected {mark} at character {at}, found {text[at : at + 20]!r}")
    return _space.match(text, at + 1).end()  # type: ignore[union-attr]


@dataclass(frozen=True)
class Event:
    """A server-sent event: its name, its id, and its data as it came."""

    name: str
    id: str
    text: str

    @property
    def data(self) -> Any:
        """The data, decoded."""
        return json.loads(self.text)


def read_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """The events of a stream's lines, without comments, as the WHATWG's HTML standard reads them (9.2.6)."""
    name, at = "message", ""
    data: list[str] = []
    for raw in lines:
        line = raw.decode().rstrip("\r\n")
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(name, at, "\n".join(data))
            name, data = "message", []
        elif key == "event":
            name = value
        elif key == "id":
            at = value
        elif key == "data":
            data.append(value)


def _reason(error: BaseException) -> str:
    """What happened in the end, without the names of pools and classes around it."""
    inner: BaseException | None = error
    while inner is not None:
        error = inner
        inner = next((one for one in (getattr(error, "reason", None), *error.args) if isinstance(one, Exception)), None)
    return str(error).rpartition(": ")[2] or type(error).__name__


def _is_own_machine(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _problem(answer: requests.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"title": answer.reason, "detail": answer.text[:200]}


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
