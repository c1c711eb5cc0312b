"""Finished requests in MongoDB: one document for each request, which searches find, and one or more for its results.

    requests   {_id: request, created, until, status, sources, regions, tasks, results: [[cursor, bytes, part], …], …}
    results    {_id: "REQUEST/PART", until, results: [{task, source, status, …, frame as its region made it}, …]}

The results are written before the request, so that a request that can be read is whole; every document has an id of its own,
so that writing again is harmless. MongoDB itself drops a document at ``until``. Indexes cost more than documents: there are
only those that searches need, and none for single results.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pymongo
from msgspec import Struct
from pymongo.errors import BulkWriteError, PyMongoError
from ulid import ULID

from jobs import result_frame
from regions import connect, logs, names
from regions.settings import Settings
from web.hub.faults import Found
from web.hub.frame import spliced, traced
from web.hub.redis import HubUnavailable
from web.hub.view import START, MovedView, TaskView, View

READ_SECONDS: Final = 2.0
WRITE_SECONDS: Final = 15.0
AGAIN_SECONDS: Final = 1.0  # after a failure, calls are refused at once for this long
PAGE: Final = 50  # requests in one answer, if its client names no limit
PAGE_MAX: Final = 200
PART_BYTES: Final = 8_000_000  # of frames in one document, which MongoDB limits to 16 MiB; a frame is smaller
DUPLICATE: Final = 11000  # MongoDB's error code for an _id that exists
CLOCKS_APART_MS: Final = 600_000  # how far the clocks of the hub and of the gateway that made an id may differ

Document = dict[str, Any]
Place = tuple[str, int, int]  # a result's cursor, the bytes of its records, and the number of the part that holds it

log = logs.get("history")


class HistoryAway(HubUnavailable):
    """MongoDB does not answer; ``reason`` is for clients."""


class Wanted(Struct, frozen=True):
    """Filters of a search; None matches anything. ``before``: only requests with lower ids, which are earlier."""

    source: str | None = None
    region: str | None = None
    status: str | None = None
    since: datetime | None = None
    before: str | None = None
    limit: int = PAGE
    tenant: str | None = None


class History:
    """A gateway's access to the history. ``is_on`` is false without ``[hub] mongo``; then nothing else may be called."""

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

    def faults(self) -> list[Found]:
        """What is wrong with it, by name."""
        return [Found("history-away", self._away, part="mongo")] if self.is_on and self._away else []

    def close(self) -> None:
        """Closes the connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def ping(self) -> None:
        """Checks that MongoDB answers; raises ``HistoryAway``."""
        with self._asking(READ_SECONDS) as database:
            database.command("ping")

    def put(self, views: Sequence[View]) -> None:
        """Writes finished requests, whose results are frames. Raises ``HistoryAway``; then all may be put again."""
        requests: list[Document] = []
        results: list[Document] = []
        for view in views:
            request, parts = self._documents(view)
            requests.append(request)
            results += parts
        with self._asking(WRITE_SECONDS) as database:
            for collection, documents in ((names.RESULTS_COLLECTION, results), (names.REQUESTS_COLLECTION, requests)):
                if documents:
                    _insert(database[collection], documents)

    def remove(self, requests: Sequence[str]) -> None:
        """Deletes requests. Raises ``HistoryAway``; then all may be removed again."""
        with self._asking(WRITE_SECONDS) as database:
            database[names.REQUESTS_COLLECTION].delete_many({"_id": {"$in": list(requests)}})
            for request in requests:
                after_last = f"{request}{chr(ord('/') + 1)}"
                database[names.RESULTS_COLLECTION].delete_many({"_id": {"$gt": f"{request}/", "$lt": after_last}})

    def read(self, request: str, after: str = START) -> View | None:
        """A request with its results since a cursor, in the form of ``Ledger.read``; None when it is not here."""
        with self._asking(READ_SECONDS) as database:
            found = database[names.REQUESTS_COLLECTION].find_one({"_id": request})
            if found is None:
                return None
            wanted = [one for one in found["results"] if _moment(one[0]) > _moment(after)]
            chosen, more = self._within(wanted)
            ids = [_part_id(request, part) for part in sorted({part for _, _, part in chosen})]
            parts = database[names.RESULTS_COLLECTION].find({"_id": {"$in": ids}})
            kept = {one["cursor"]: one for part in parts for one in part["results"]}
        if any(cursor not in kept for cursor, _, _ in chosen):  # its time is over, or it is being removed
            return None
        results = [
            spliced(bytes(kept[cursor]["frame"]), kept[cursor]["task"], "", records_bytes)
            for cursor, records_bytes, _ in chosen
        ]
        if traceparent := found.get("traceparent"):
            results = [traced(result, traceparent.encode()) for result in results]
        return _view(found, after, chosen, results, more=more)

    def search(self, wanted: Wanted) -> tuple[list[View], str | None]:
        """Returns (requests without results, latest first; the id for ``before`` of the next page, None at the end)."""
        query: Document = {}
        filters = {"sources": wanted.source, "regions": wanted.region, "status": wanted.status, "tenant": wanted.tenant}
        for key, value in filters.items():
            if value is not None:
                query[key] = value
        if wanted.since is not None:
            query["created"] = {"$gte": wanted.since}
            query["_id"] = {"$gte": _first_id(wanted.since)}
        if wanted.before is not None:
            query["_id"] = {**query.get("_id", {}), "$lt": wanted.before}
        with self._asking(READ_SECONDS) as database:
            found = list(database[names.REQUESTS_COLLECTION].find(query).sort("_id", -1).limit(wanted.limit + 1))
        page = found[: wanted.limit]
        views = [_view(one, one["cursor"], [], [], more=False) for one in page]
        return views, page[-1]["_id"] if len(found) > wanted.limit else None

    @contextmanager
    def _asking(self, seconds: float) -> Iterator[Any]:
        """The database, for calls that end within ``seconds``. MongoDB's errors become ``HistoryAway``."""
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
        """Connects and makes the indexes at first use."""
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

    def _documents(self, view: View) -> tuple[Document, list[Document]]:
        """Returns (the document of a request, the documents of its results)."""
        created = _date(view.created_ms)
        until = created + self._keep
        parts: list[Document] = []
        places: list[Place] = []
        room = 0
        for cursor, frame in zip(view.cursors, view.results, strict=True):
            if len(frame) > room:
                parts.append({"_id": _part_id(view.id, len(parts)), "until": until, "results": []})
                room = PART_BYTES
            room -= len(frame)
            head = result_frame.head(frame)
            places.append((cursor, head.bytes.records, len(parts) - 1))
            parts[-1]["results"].append(
                {
                    "cursor": cursor,
                    "task": head.task,
                    "source": head.source,
                    "region": head.region,
                    "status": head.status,
                    "error": head.error.type if head.error else None,
                    "attempts": head.attempts,
                    "count": head.count,
                    "frame": frame,
                }
            )
        request = {
            "_id": view.id,
            "created": created,
            "created_ms": view.created_ms,
            "deadline_ms": view.deadline_ms,
            "expires_ms": view.expires_ms,
            "until": until,
            "status": view.status,
            "total": view.total,
            "completed": view.completed,
            "succeeded": view.succeeded,
            "cancelled": view.cancelled,
            "sources": sorted({task.source for task in view.tasks}),
            "regions": sorted({task.region for task in view.tasks}),
            "tasks": [list(msgspec.to_builtins(task).values()) for task in view.tasks],
            "results": places,
            "attrs": view.attrs.decode(),
            **({"tenant": view.tenant} if view.tenant else {}),
            **({"traceparent": view.traceparent} if view.traceparent else {}),
            "cursor": view.cursor,
        }
        return request, parts

    def _within(self, kept: list[Place]) -> tuple[list[Place], bool]:
        """Returns (the first results whose records fit into one answer, at least one; whether more wait)."""
        size = 0
        for index, (_, records_bytes, _) in enumerate(kept):
            size += records_bytes
            if index and size > self._limit:
                return kept[:index], True
        return kept, False


def _insert(collection: Any, documents: Sequence[Document]) -> None:
    """Inserts documents, and replaces those whose ids exist. Replacing all of them would cost three times as much."""
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        faults = error.details["writeErrors"]
        if error.details["writeConcernErrors"] or any(fault["code"] != DUPLICATE for fault in faults):
            raise
        again = [documents[fault["index"]] for fault in faults]
        collection.bulk_write(
            [pymongo.ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in again], ordered=False
        )


def _part_id(request: str, part: int) -> str:
    return f"{request}/{part}"


def _make_indexes(database: Any) -> None:
    requests, results = database[names.REQUESTS_COLLECTION], database[names.RESULTS_COLLECTION]
    for key in ("sources", "regions", "status", "tenant"):
        requests.create_index([(key, pymongo.ASCENDING), ("_id", pymongo.DESCENDING)])
    for collection in (requests, results):
        collection.create_index("until", expireAfterSeconds=0)


def _view(found: Document, after: str, chosen: Sequence[Place], results: list[bytes], *, more: bool) -> View:
    return View(
        id=found["_id"],
        created_ms=found["created_ms"],
        deadline_ms=found["deadline_ms"],
        expires_ms=found["expires_ms"],
        total=found["total"],
        completed=found["completed"],
        succeeded=found["succeeded"],
        cancelled=found["cancelled"],
        tasks=[_task(*task) for task in found["tasks"]],
        attrs=found["attrs"].encode(),
        tenant=found.get("tenant", ""),
        traceparent=found.get("traceparent", ""),
        results=results,
        cursors=[cursor for cursor, _, _ in chosen],
        cursor=chosen[-1][0] if chosen else after,
        more=more,
    )


def _task(task: str, source: str, region: str, status: str, moved: dict[str, str] | None = None) -> TaskView:
    return TaskView(task, source, region, status, msgspec.convert(moved, MovedView) if moved else None)


def _first_id(since: datetime) -> str:
    """An id below those of all requests since then: ids begin with their time, and are indexed."""
    since_ms = max(0, int(since.timestamp() * 1000) - CLOCKS_APART_MS)
    return str(ULID.from_int(since_ms << 80))


def _moment(cursor: str) -> tuple[int, int]:
    ms, _, number = cursor.partition("-")
    return int(ms), int(number)


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
