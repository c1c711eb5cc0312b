"""The clients: a thread for each request follows it as the plan says, and records what it sees.

    Load.run   posts each request at its time. Accepted: a Reader follows it to its end. Refused: its id is recorded.
    audit      afterwards, reads every accepted request once more, and asks for every refused one

A client behaves as real clients have to: when it can't connect, or a read is answered with 503, it asks again, from
its last cursor.
"""

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from clients.python.nearfetch_client import Event, read_events
from scripts.chaos.history import Cancel, Delivery, History, Promise, Reader, delivery
from scripts.chaos.plan import MOVES, PINNED, Asked, Plan, Post
from scripts.chaos.stack import source
from scripts.site.pages import bench

TIMEOUT_SECONDS: Final = 40.0  # for an answer; longer than any wait
SYNC_SECONDS: Final = 20
AGAIN_SECONDS: Final = 0.2
LATEST_SECONDS: Final = 45.0  # after this long past a deadline, a reader gives up
AUDITORS: Final = 8

GONE: Final = (OSError, http.client.HTTPException, ValueError)


def digest_of(records: object) -> str:
    """A short digest of records."""
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()[:16]


def expected_digest(number: int) -> str:
    """The digest of the records on the page of a number."""
    return digest_of(bench.numbered(str(number)))


def _params(task: Asked) -> dict[str, Any]:
    return {
        "n": task.number,
        "seconds": task.seconds,
        "trouble": "" if task.trouble in (MOVES, PINNED) else task.trouble,
    }


class Client:
    """One client's connection to the gateway."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """(status, JSON). Raises what ``GONE`` lists when there is no complete answer."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            content = None if body is None else json.dumps(body)
            self._connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
            response = self._connection.getresponse()
            text = response.read()
        except GONE:
            self.close()
            raise
        return response.status, json.loads(text) if text else None

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def events(self, path: str, after: str) -> Iterator[Event]:
        """The events of a stream until it ends. Raises what ``GONE`` lists, and LookupError for 404 and 410."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", path, headers={"Last-Event-ID": after} if after else {})
            response = connection.getresponse()
            if response.status in (404, 410):
                raise LookupError(response.status)
            if response.status != 200:
                raise ConnectionError(f"the stream answers {response.status}")
            yield from read_events(response)
        finally:
            connection.close()


class Load:
    """Makes the posts of a plan at their times. ``open`` counts the clients that still wait."""

    def __init__(self, plan: Plan, history: History, port: int, is_well: Callable[[], bool]) -> None:
        """``is_well``: whether the gateway itself is neither stopped nor killed now. Then it has to answer at once."""
        self._plan, self._history, self._port, self._is_well = plan, history, port, is_well
        self._threads: list[threading.Thread] = []
        self.open = 0
        self._lock = threading.Lock()

    def run(self, started: float, stopping: threading.Event) -> None:
        """Posts until the plan is done; ``started`` is a monotonic time."""
        for post in self._plan.posts:
            if stopping.wait(max(0.0, started + post.at - time.monotonic())):
                return
            thread = threading.Thread(target=self._guarded, args=(post,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, stopping: threading.Event) -> None:
        """Waits until every client has finished."""
        for thread in self._threads:
            while thread.is_alive() and not stopping.is_set():
                thread.join(0.2)

    def _guarded(self, post: Post) -> None:
        with self._lock:
            self.open += 1
        client = Client(self._port)
        try:
            _Following(self._history, client, post, self._is_well).run()
        except Exception as error:  # noqa: BLE001 - a client that fails is a finding, and does not end the run
            self._history.wonder(f"a client broke: {type(error).__name__}: {error}")
        finally:
            client.close()
            with self._lock:
                self.open -= 1


class _Following:
    """One client with one request."""

    def __init__(self, history: History, client: Client, post: Post, is_well: Callable[[], bool]) -> None:
        self.history, self.client, self.post, self.is_well = history, client, post, is_well
        self.reader = Reader("", post.way)
        self.give_up = 0.0

    def run(self) -> None:
        with self.history.lock:
            self.history.posted.update((task.number, task.region) for task in self.post.tasks)
        asked, was_well = time.time(), self.is_well()
        try:
            status, answer = self._post()
        except GONE:
            self.history.lose_answer()
            return
        if was_well and self.is_well() and self.post.way not in ("sync", "records"):
            self.history.took(time.time() - asked)
        if status == 503 and "result" not in answer:
            self.history.refuse(answer.get("request"), time.time())
        elif self.post.way == "records" and status != 202:
            self._take_records(asked, status, answer)
        elif status in (200, 202):
            self._promise(answer)
            self._follow(answer)
        else:
            self.history.wonder(f"a post was answered {status}: {json.dumps(answer)[:300]}")

    def _post(self) -> tuple[int, Any]:
        post = self.post
        if post.way == "records":
            task = post.tasks[0]
            query = urlencode({**_params(task), "wait": SYNC_SECONDS})
            return self.client.ask("GET", f"/v1/sources/{source(task.region)}/records?{query}")
        sources = [{"source": source(task.region, task.trouble), "params": _params(task)} for task in post.tasks]
        headers = {"Prefer": f"wait={SYNC_SECONDS}"} if post.way == "sync" else {}
        return self.client.ask("POST", "/v1/requests", {"sources": sources, "deadline": post.deadline}, headers)

    def _promise(self, answer: dict[str, Any]) -> None:
        accepted = datetime.fromisoformat(answer["created_at"]).timestamp()
        seconds = 30.0 if self.post.way == "records" else self.post.deadline
        self.reader.request, self.give_up = answer["id"], accepted + seconds + LATEST_SECONDS
        pairs = zip(answer["tasks"], self.post.tasks, strict=True)
        self.history.promise(
            [
                Promise(task["id"], answer["id"], one.number, one.region, accepted, accepted + seconds, one.trouble)
                for task, one in pairs
            ]
        )

    def _take_records(self, asked: float, status: int, answer: dict[str, Any]) -> None:
        """Records a synchronous answer of one source. It does not show the request's id, so the task is recorded alone."""
        result = answer if status == 200 else answer.get("result")
        if result is None:
            self.history.wonder(f"records were answered {status}: {json.dumps(answer)[:300]}")
            return
        task = self.post.tasks[0]
        found = self._delivery(result, "", time.time())
        self.history.promise([Promise(found.task, "", task.number, task.region, asked, asked + 30.0, task.trouble)])
        with self.history.lock:
            self.history.audited[f"records of {found.task}"] = [found]

    def _follow(self, answer: dict[str, Any]) -> None:
        """Reads until the end, in the way that the plan says."""
        self.history.read(self.reader)
        if self.post.cancel_after is not None:
            threading.Thread(target=self._cancel, daemon=True).start()
        self._take(answer)
        if self.post.way == "events":
            self._stream()
        else:
            self._poll("" if self.post.way == "poll" else "&wait=10", answer)

    def _poll(self, wait: str, answer: dict[str, Any]) -> None:
        cursor, is_over = answer["cursor"], answer["done"] and not answer["more"]
        while not is_over and time.time() < self.give_up:
            try:
                status, answer = self.client.ask("GET", f"/v1/requests/{self.reader.request}?after={cursor}{wait}")
            except GONE:
                status = 0
            if status == 200:
                self._take(answer)
                cursor, is_over = answer["cursor"], answer["done"] and not answer["more"]
            elif status in (404, 410):
                self.reader.vanished += 1
            elif status not in (0, 503):
                self.history.wonder(f"a poll was answered {status}: {json.dumps(answer)[:300]}")
            if not is_over and (status != 200 or not wait):
                time.sleep(AGAIN_SECONDS)
        self.reader.ended = time.time() if is_over else 0.0

    def _cancel(self) -> None:
        """Sends DELETE until it is answered. All tasks that have not ended by then end with it."""
        time.sleep(self.post.cancel_after or 0.0)
        request, client, asked = self.reader.request, Client(self.client.port), time.time()
        self.history.cancel(request, Cancel(asked))
        while time.time() < self.give_up:
            try:
                status, answer = client.ask("DELETE", f"/v1/requests/{request}")
            except GONE:
                status = 0
            if status == 200:
                self.history.cancel(request, Cancel(asked, time.time()))
                if not answer["done"]:
                    self.history.wonder(f"{request} was cancelled and is not done: {json.dumps(answer)[:300]}")
                break
            if status not in (0, 503):
                self.history.wonder(f"a cancel was answered {status}: {json.dumps(answer)[:300]}")
            time.sleep(AGAIN_SECONDS)
        client.close()

    def _stream(self) -> None:
        after = ""
        while not self.reader.ended and time.time() < self.give_up:
            try:
                for event in self.client.events(f"/v1/requests/{self.reader.request}/events", after):
                    after = event.id or after
                    if event.name == "result":
                        self._got(self._delivery(event.data, self.reader.request, time.time(), after))
                    elif event.name == "done":
                        self.reader.ended = time.time()
            except LookupError:
                self.reader.vanished += 1
            except GONE:
                pass
            if not self.reader.ended:
                time.sleep(AGAIN_SECONDS)

    def _take(self, answer: dict[str, Any]) -> None:
        now = time.time()
        if self.post.way != "events":  # a stream starts at the beginning, and repeats what the 202 had
            for one in answer["results"]:
                self._got(self._delivery(one, answer["id"], now))
        if answer["done"] and not answer["more"] and self.post.way != "events":
            self.reader.ended = now

    def _got(self, one: Delivery) -> None:
        self.reader.got.append(one)

    def _delivery(self, result: dict[str, Any], request: str, at: float, cursor: str = "") -> Delivery:
        settled = int(cursor.partition("-")[0]) / 1000 if cursor else at
        return delivery(result, request, at, digest_of(result["records"]), settled)


def audit(history: History, port: int) -> None:
    """Reads every accepted request completely once more, and asks for every refused one."""
    requests = {promise.request for promise in history.promises.values() if promise.request}

    def read(request: str) -> None:
        found: list[Delivery] | None = []
        for attempt in range(5):
            client = Client(port)
            try:
                found = [
                    delivery(
                        data, request, time.time(), digest_of(data["records"]), int(cursor.partition("-")[0]) / 1000
                    )
                    for event, cursor, data in _until_quiet(client, request)
                    if event == "result"
                ]
                break
            except LookupError:
                found = None
                break
            except GONE as error:
                if attempt == 4:
                    history.wonder(f"{request} can't be read at the end: {error}")
                time.sleep(1.0)
        with history.lock:
            history.audited[request] = found

    def look(request: str) -> None:
        status, end = 503, time.time() + LATEST_SECONDS
        # A request that Redis does not have is looked up in the history, which may be away.
        while status == 503 and time.time() < end:
            status, _ = Client(port).ask("GET", f"/v1/requests/{request}")
        if status != 404:
            with history.lock:
                history.came_back.append(request)

    with ThreadPoolExecutor(AUDITORS) as pool:
        list(pool.map(read, requests))
        list(pool.map(look, history.refused))


def _until_quiet(client: Client, request: str) -> Iterator[tuple[str, str, Any]]:
    """The stream of a request up to its end. For an unfinished request, what a poll shows."""
    status, answer = client.ask("GET", f"/v1/requests/{request}?after=0-0")
    client.close()
    if status in (404, 410):
        raise LookupError(status)
    if status != 200:
        raise ConnectionError(f"answered {status}")
    if answer["done"]:
        for event in client.events(f"/v1/requests/{request}/events", ""):
            yield event.name, event.id, event.data
        return
    for result in answer["results"]:
        yield "result", answer["cursor"], result
