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

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import requests

__all__ = ["Nearfetch", "NearfetchError", "Refused", "Request", "Result", "TaskError", "TaskFailed", "Unavailable"]
__version__ = "0.1.0"

WAIT_MAX_SECONDS: Final = 25.0  # of one call; proxies cut off what is silent for longer
CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 40.0  # a stream sends something every 15 s
BACKOFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
BREAKS_MAX: Final = 2  # streams in a row that bring nothing: then it polls
AGAIN: Final = frozenset({409, 429, 502, 503, 504})  # statuses after which the same call may succeed

Source: TypeAlias = str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]


class NearfetchError(Exception):
    """What this module raises."""

    retry_after: float | None = None  # seconds


class Unavailable(NearfetchError):
    """No gateway answered in time, or it could not take the call. Nothing was accepted, or the same key would find it again."""


class Refused(NearfetchError):
    """The gateway refused a call. ``kind`` is the last part of the problem's type; ``errors``: (JSON pointer, detail) of each fault."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None) -> None:
        self.status, self.problem, self.retry_after = status, dict(problem), retry_after
        self.kind = str(problem.get("type", "")).rpartition("/")[2]
        self.errors = [(str(one.get("pointer", "")), str(one.get("detail", ""))) for one in problem.get("errors", [])]
        told = "".join(f"\n  {where}: {detail}" for where, detail in self.errors)
        super().__init__(f"{status} {problem.get('title', '')}: {problem.get('detail', '')}{told}")


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
        self.retry_after = self.error.retry_after
        super().__init__(f"{result.source}: {self.error.type}: {self.error.message}")


@dataclass(frozen=True)
class Result:
    """The result of one task. ``raw`` is its JSON, with all members."""

    task: str
    source: str
    region: str
    status: str
    records: list[dict[str, Any]]
    partial: bool
    warnings: list[str]
    error: TaskError | None
    raw: Mapping[str, Any] = field(repr=False)

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
    ) -> Request:
        """Asks several sources, and returns at once. A source is its id, or (id, params). Raises ``Refused``, ``Unavailable``."""
        return self._submit(sources, max_age, deadline, attrs, wait=False)

    def request(self, request: str) -> Request:
        """A request that was submitted before, by its id."""
        return Request(self, self.call("GET", f"/v1/requests/{request}", params={"after": "0-0"}).json(), [])

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
                    timeout=(CONNECT_SECONDS, seconds + SILENCE_SECONDS),
                )
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                failure: NearfetchError = Unavailable(f"no gateway answers at {self.url}: {error}")
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
            if self._key:
                found.headers["Authorization"] = f"Bearer {self._key}"
        return found

    def _submit(
        self,
        sources: Iterable[Source],
        max_age: float,
        deadline: float | None,
        attrs: Mapping[str, Any] | None,
        *,
        wait: bool,
    ) -> Request:
        body: dict[str, Any] = {"sources": [_asked(one) for one in sources]}
        if max_age:
            body["max_age"] = max_age
        if deadline is not None:
            body["deadline"] = deadline
        if attrs:
            body["attrs"] = attrs
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        seconds = min(WAIT_MAX_SECONDS, deadline or WAIT_MAX_SECONDS) if wait else 0.0
        if seconds:
            headers["Prefer"] = f"wait={seconds:g}"
        told = self.call("POST", "/v1/requests", body=body, headers=headers, seconds=seconds).json()
        return Request(self, told, told["results"])


class Request:
    """A request: its ``id``, and its results as they come."""

    def __init__(self, client: Nearfetch, told: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
        self.id: str = told["id"]
        self.total: int = told["total"]
        self._client, self._first = client, list(results)
        self._cursor: str = told["cursor"] if results else "0-0"
        self._is_done = bool(told["done"]) and len(results) == self.total

    def results(self, *, progress: bool | None = None) -> Iterator[Result]:
        """Each result once, as soon as it is there. Raises ``Refused`` or ``Unavailable``; after that, call it again to go on.

        A result of a task that failed is among them: see ``Result.ok`` and ``Result.check``. ``progress`` shows a bar: by default
        if tqdm is installed, or on a terminal.
        """
        with _Bar(self.total, progress) as bar:
            breaks = 0
            while self._first or not self._is_done:
                while self._first:
                    yield bar.count(_result(self._first.pop(0)))
                if self._is_done:
                    break
                before = self._cursor
                if breaks < BREAKS_MAX:
                    for told in self._stream():
                        yield bar.count(_result(told))
                    breaks = breaks + 1 if self._cursor == before else 0
                else:
                    self._poll()

    def wait(self, *, progress: bool | None = None) -> list[Result]:
        """All results."""
        return list(self.results(progress=progress))

    def cancel(self) -> None:
        """Cancels the tasks that have not ended."""
        self._client.call("DELETE", f"/v1/requests/{self.id}")

    def _poll(self) -> None:
        """Gets the next results by a long poll."""
        params = {"after": self._cursor, "wait": f"{WAIT_MAX_SECONDS:g}"}
        told = self._client.call("GET", f"/v1/requests/{self.id}", params=params, seconds=WAIT_MAX_SECONDS).json()
        self._first += told["results"]
        self._cursor = told["cursor"]
        self._is_done = told["done"] and not told["more"]

    def _stream(self) -> Iterator[Mapping[str, Any]]:
        """The next results from an event stream, until it ends or breaks; the next stream goes on after the last one."""
        path = f"{self._client.url}/v1/requests/{self.id}/events"
        headers = {"Accept": "text/event-stream", "Last-Event-ID": self._cursor}
        try:
            with self._client.session().get(
                path, headers=headers, stream=True, timeout=(CONNECT_SECONDS, SILENCE_SECONDS)
            ) as answer:
                if answer.status_code == requests.codes.no_content:
                    self._is_done = True
                    return
                if not answer.ok:
                    raise Refused(answer.status_code, _problem(answer), _seconds(answer.headers.get("Retry-After")))
                for name, at, data in _events(answer.iter_lines(chunk_size=None)):
                    if name == "done":
                        self._is_done = True
                        return
                    self._cursor = at
                    yield json.loads(data)
        except requests.RequestException:
            time.sleep(BACKOFF_SECONDS[0])  # it broke; the next one goes on after the last result
        except Refused as refused:
            if refused.status not in AGAIN:
                raise
            time.sleep(refused.retry_after or BACKOFF_SECONDS[0])


class _Bar:
    """A progress bar: tqdm's where that is installed, a line on a terminal otherwise."""

    def __init__(self, total: int, wanted: bool | None) -> None:
        self._total, self._done, self._began = total, 0, time.monotonic()
        self._tqdm: Any = None
        self._is_shown = total > 1 and (wanted if wanted is not None else sys.stderr.isatty())
        if total > 1 and wanted is not False:
            try:
                from tqdm.auto import tqdm  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415
            except ImportError:
                return
            is_shown = self._is_shown or "ipykernel" in sys.modules
            self._tqdm, self._is_shown = tqdm(total=total, unit="result", disable=not is_shown), False

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tqdm is not None:
            self._tqdm.close()
        elif self._is_shown:
            print(file=sys.stderr)

    def count(self, result: Result) -> Result:
        """Counts one, and returns it."""
        self._done += 1
        if self._tqdm is not None:
            self._tqdm.update()
        elif self._is_shown:
            took = time.monotonic() - self._began
            print(f"\r{self._done} of {self._total} results, {took:.1f} s", end="", file=sys.stderr, flush=True)
        return result


def _asked(source: Source) -> Any:
    if isinstance(source, str):
        return source
    if isinstance(source, Mapping):
        return dict(source)
    return {"source": source[0], "params": dict(source[1])}


def _result(told: Mapping[str, Any]) -> Result:
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
    )


def _events(lines: Iterable[bytes]) -> Iterator[tuple[str, str, str]]:
    """(name, id, data) of each server-sent event."""
    name, at = "message", ""
    data: list[str] = []
    for line in lines:
        key, _, value = line.decode().partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield name, at, "\n".join(data)
            name, data = "message", []
        elif key == "event":
            name = value
        elif key == "id":
            at = value
        elif key == "data":
            data.append(value)


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
