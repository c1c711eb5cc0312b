"""A history of 2,000 requests, as gateways write it."""

import time

from pymongo.errors import PyMongoError
from ulid import ULID

from jobs import contract, result_frame
from regions import names
from tests.service.web.flow.test_history import Store
from tests.waiting import until
from web.flow.history import History, HistoryAway
from web.flow.history import _insert as _insert_again
from web.hub import ids
from web.hub.view import TaskView, View

REQUESTS = 2_000
BATCH = 500
WHOLE = 10  # requests whose results are there, too


def fill(settings, store: Store) -> list[str]:
    """Returns the ids of the requests, the latest first. Every third one failed; they are a minute apart. The first ones have results."""
    history = History(settings)
    now_ms = int(time.time() * 1000) - 60_000
    made = [_view(number, now_ms - number * 60_000) for number in range(REQUESTS)]
    try:
        until(lambda: _put(history, made[:WHOLE]), "the store to take requests")
        documents = [history._documents(view)[0] for view in made[WHOLE:]]
    finally:
        history.close()
    for at in range(0, len(documents), BATCH):
        until(lambda at=at: _insert(store, documents[at : at + BATCH]), "the store to take more requests")
    return [view.id for view in made]


def _put(history: History, made: list[View]) -> bool:
    """A busy machine's store may need more time than a gateway gives it. Writing again is harmless."""
    try:
        history.put(made)
    except HistoryAway:
        return False
    return True


def _insert(store: Store, documents: list[dict]) -> bool:
    try:
        _insert_again(store.database[names.REQUESTS_COLLECTION], documents)
    except PyMongoError:
        return False
    return True


def _view(number: int, at_ms: int) -> View:
    request = str(ULID.from_timestamp(at_ms / 1000))
    source, region = (("demo.list", "fra"), ("demo.plain", "nyc"))[number % 2]
    status = "failed" if number % 3 == 0 else "succeeded"
    task = TaskView(ids.task(request, 1), source, region, status)
    result = contract.Result(task=task.id, source=source, region=region, status=status, count=1)
    result.timing = contract.Timing(queued_ms=2, fetch_ms=30 + number % 50, parse_ms=2, total_ms=40 + number % 50)
    if status == "failed":
        result.error = contract.Error(type="http_status", message="404", origin="target", http_status=404)
    frame = result_frame.encode(result, b"[]" if status == "failed" else b'[{"name":"a"}]')
    return View(
        id=request,
        created_ms=at_ms,
        deadline_ms=at_ms + 30_000,
        expires_ms=at_ms + 3_600_000,
        total=1,
        completed=1,
        succeeded=int(status == "succeeded"),
        cancelled=0,
        tasks=[task],
        attrs=b"{}",
        results=[frame],
        cursors=[f"{at_ms}-0"],
        cursor=f"{at_ms}-0",
        more=False,
    )
