"""A history of 10,000 requests, as gateways write it."""

import time

from ulid import ULID

from jobs import contract
from tests.service.web.flow.test_history import Store
from web.flow.history import History
from web.hub import ids
from web.hub.ledger import TaskView, View

REQUESTS = 10_000
BATCH = 1_000


def fill(settings, store: Store) -> list[str]:
    """Returns the ids of the requests, the latest first. Every third one failed; they are a minute apart."""
    history = History(settings)
    now_ms = int(time.time() * 1000) - 60_000
    made = [_view(number, now_ms - number * 60_000) for number in range(REQUESTS)]
    for at in range(0, REQUESTS, BATCH):
        history.put(made[at : at + BATCH])
    history.close()
    assert store.has(made[-1].id)
    return [view.id for view in made]


def _view(number: int, at_ms: int) -> View:
    request = str(ULID.from_timestamp(at_ms / 1000))
    source, region = (("demo.list", "fra"), ("demo.plain", "nyc"))[number % 2]
    status = "failed" if number % 3 == 0 else "succeeded"
    task = TaskView(ids.task(request, 1), source, region, status)
    result = contract.Result(task=task.id, source=source, region=region, status=status, count=1)
    result.timing = contract.Timing(queued_ms=2, fetch_ms=30 + number % 50, parse_ms=2, total_ms=40 + number % 50)
    if status == "failed":
        result.error = contract.Error(type="http_status", message="404", origin="target", http_status=404)
    frame = contract.encode_frame(result, b"[]" if status == "failed" else b'[{"name":"a"}]')
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
