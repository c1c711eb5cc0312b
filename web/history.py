"""Finished requests in MongoDB: one document a request, one a task, found by what was asked and where.

    requests   {_id: request, created, done, until, status, sources, regions, tasks, …}
    tasks      {_id: task, request, order, cursor, result: the frame as its region made it, …}

A request's tasks are written before it, and everything by its own id, so writing again is harmless and what can be read
is whole. ``until`` is when MongoDB itself drops a document.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pymongo
from msgspec import Struct
from pymongo.errors import PyMongoError

from jobs import contract
from regions import connect, logs, names
from regions.settings import Settings
from web.hub import HubUnavailable
from web.ledger import START, TaskView, View

READ_SECONDS: Final = 2.0
WRITE_SECONDS: Final = 15.0
AGAIN_SECONDS: Final = 1.0  # after a failure everybody is refused at once for so long
PAGE: Final = 50  # requests of one answer

Document = dict[str, Any]

log = logs.get("history")


class HistoryAway(HubUnavailable):
    """MongoDB does not answer; ``reason`` is for clients."""


class Wanted(Struct, frozen=True):
    """What to look for; None is anything. ``before``: only requests with lower ids, that is: earlier ones."""

    source: str | None = None
    region: str | None = None
    status: str | None = None
    since: datetime | None = None
    before: str | None = None


class History:
    """The store of a gateway. ``is_on`` is false without ``[hub] mongo``: then nothing else may be called."""

    def __init__(self, settings: Settings) -> None:
        self.is_on = bool(settings.hub.mongo)
        self._url = settings.hub.mongo
        self._keep = timedelta(days=settings.history.retention_days)
        self._limit = settings.limits.answer_bytes_max
        self._client: Any = None
        self._lock = threading.Lock()
        self._away_until = 0.0
        self._away = ""

    @property
    def state(self) -> str:
        """``off``, ``ok``, or why it is away."""
        return "off" if not self.is_on else self._away or "ok"

    def close(self) -> None:
        """Closes the connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def ping(self) -> None:
        """Asks whether it is there; raises ``HistoryAway``."""
        with self._asking(READ_SECONDS) as database:
            database.command("ping")

    def put(self, views: Sequence[View]) -> None:
        """Keeps finished requests, whose results are frames; raises ``HistoryAway``, and then all may be put again."""
        tasks = [document for view in views for document in self._task_documents(view)]
        requests = [self._request_document(view) for view in views]
        with self._asking(WRITE_SECONDS) as database:
            for collection, documents in ((names.TASKS_COLLECTION, tasks), (names.REQUESTS_COLLECTION, requests)):
                writes = [pymongo.ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in documents]
                database[collection].bulk_write(writes, ordered=False)

    def remove(self, requests: Sequence[str]) -> None:
        """Forgets requests; raises ``HistoryAway``, and then all may be removed again."""
        with self._asking(WRITE_SECONDS) as database:
            database[names.REQUESTS_COLLECTION].delete_many({"_id": {"$in": list(requests)}})
            database[names.TASKS_COLLECTION].delete_many({"request": {"$in": list(requests)}})

    def read(self, request: str, after: str = START) -> View | None:
        """A request with its results since a cursor, as ``Ledger.read`` gives it; None when it is not there."""
        with self._asking(READ_SECONDS) as database:
            found = database[names.REQUESTS_COLLECTION].find_one({"_id": request})
            if found is None:
                return None
            kept = list(database[names.TASKS_COLLECTION].find({"request": request}, {"result": False}).sort("order"))
            chosen, more = self._within([one for one in kept if _moment(one["cursor"]) > _moment(after)])
            wanted = {"_id": {"$in": [one["_id"] for one in chosen]}}
            frames = {one["_id"]: one["result"] for one in database[names.TASKS_COLLECTION].find(wanted)}
        results = [contract.splice(bytes(frames[one["_id"]])) for one in chosen]
        return _view(found, after, chosen, results, more=more)

    def search(self, wanted: Wanted) -> tuple[list[View], str | None]:
        """Requests without results, latest first, and the id to go on before; None at the end."""
        query: Document = {}
        for key, value in (("sources", wanted.source), ("regions", wanted.region), ("status", wanted.status)):
            if value is not None:
                query[key] = value
        if wanted.since is not None:
            query["created"] = {"$gte": wanted.since}
        if wanted.before is not None:
            query["_id"] = {"$lt": wanted.before}
        with self._asking(READ_SECONDS) as database:
            found = list(database[names.REQUESTS_COLLECTION].find(query).sort("_id", -1).limit(PAGE + 1))
        page = found[:PAGE]
        views = [_view(one, one["cursor"], [], [], more=False) for one in page]
        return views, page[-1]["_id"] if len(found) > PAGE else None

    @contextmanager
    def _asking(self, seconds: float) -> Iterator[Any]:
        """The database, for calls that end within a time; what MongoDB raises becomes ``HistoryAway``."""
        if time.monotonic() < self._away_until:
            raise HistoryAway(self._away)
        try:
            with pymongo.timeout(seconds):
                yield self._database()
        except PyMongoError as error:
            if not self._away:
                log.warning("history away", error=connect.without_password(str(error)[:300]))
            self._away = "the history does not answer"
            self._away_until = time.monotonic() + AGAIN_SECONDS
            raise HistoryAway(self._away) from error
        if self._away:
            log.info("history reached")
        self._away = ""

    def _database(self) -> Any:
        """Its indexes are made at the first use."""
        with self._lock:
            if self._client is None:
                client = connect.open_mongo(self._url, name="gateway")
                try:
                    _make_indexes(client.get_default_database(names.DATABASE))
                except PyMongoError:
                    client.close()
                    raise
                self._client = client
            return self._client.get_default_database(names.DATABASE)

    def _request_document(self, view: View) -> Document:
        return {
            "_id": view.id,
            "created": _date(view.created_ms),
            "created_ms": view.created_ms,
            "deadline_ms": view.deadline_ms,
            "expires_ms": view.expires_ms,
            "until": _date(view.created_ms) + self._keep,
            "status": view.status,
            "total": view.total,
            "completed": view.completed,
            "succeeded": view.succeeded,
            "cancelled": view.cancelled,
            "sources": sorted({task.source for task in view.tasks}),
            "regions": sorted({task.region for task in view.tasks}),
            "tasks": [[task.id, task.source, task.region, task.status] for task in view.tasks],
            "attrs": view.attrs.decode(),
            "cursor": view.cursor,
        }

    def _task_documents(self, view: View) -> list[Document]:
        by_id = {task.id: task for task in view.tasks}
        documents = []
        for order, (cursor, frame) in enumerate(zip(view.cursors, view.results, strict=True)):
            head = contract.head(frame)
            task = by_id[head.task]
            documents.append(
                {
                    "_id": task.id,
                    "request": view.id,
                    "source": task.source,
                    "region": task.region,
                    "status": task.status,
                    "error": head.error.type if head.error else None,
                    "attempts": head.attempts,
                    "count": head.count,
                    "created": _date(view.created_ms),
                    "until": _date(view.created_ms) + self._keep,
                    "order": order,
                    "cursor": cursor,
                    "bytes": head.bytes.records,
                    "result": frame,
                }
            )
        return documents

    def _within(self, kept: list[Document]) -> tuple[list[Document], bool]:
        """The first ones whose records fit into one answer, one at least, and whether more wait."""
        size = 0
        for index, one in enumerate(kept):
            size += one["bytes"]
            if index and size > self._limit:
                return kept[:index], True
        return kept, False


def _make_indexes(database: Any) -> None:
    requests, tasks = database[names.REQUESTS_COLLECTION], database[names.TASKS_COLLECTION]
    for key in ("sources", "regions", "status"):
        requests.create_index([(key, pymongo.ASCENDING), ("_id", pymongo.DESCENDING)])
    requests.create_index([("created", pymongo.DESCENDING)])
    tasks.create_index([("request", pymongo.ASCENDING), ("order", pymongo.ASCENDING)])
    for collection in (requests, tasks):
        collection.create_index("until", expireAfterSeconds=0)


def _view(found: Document, after: str, chosen: list[Document], results: list[bytes], *, more: bool) -> View:
    return View(
        id=found["_id"],
        created_ms=found["created_ms"],
        deadline_ms=found["deadline_ms"],
        expires_ms=found["expires_ms"],
        total=found["total"],
        completed=found["completed"],
        succeeded=found["succeeded"],
        cancelled=found["cancelled"],
        tasks=[TaskView(*task) for task in found["tasks"]],
        attrs=found["attrs"].encode(),
        results=results,
        cursors=[one["cursor"] for one in chosen],
        cursor=chosen[-1]["cursor"] if chosen else after,
        more=more,
    )


def _moment(cursor: str) -> tuple[int, int]:
    ms, _, number = cursor.partition("-")
    return int(ms), int(number)


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
