"""A gateway with a history for the pages of the console; a thread of the test plays its regions."""

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from jobs import contract
from regions import names
from tests.service.conftest import RedisInstance
from tests.service.gateway import Region, Stack
from tests.service.web.flow.test_history import Store
from web.flow import history

SOURCES = 200
ROWS = 25  # of a list of one kind, for axe to look at
WALL = contract.Error(
    type="blocked", message="a wall <b>instead</b> of the page", origin="target", retryable=True, retry_after=7.0
)
# What strangers' pages may hold: markup, marks that change the direction, words without an end, what a table can't foresee.
HOSTILE = [
    {
        "name": "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>",
        "price": "1.10",
        "link": "javascript:window.pwned = 3",
    },
    {"name": "left \u202e right \u2066 none \x1b[31m", "price": "x" * 3000, "link": "https://example.org/a?b=<c>"},
    {
        "name": "=HYPERLINK(1)",
        "price": None,
        "more": {"deep": ["<b>", 12345678901234567890, 1.10]},
        "__proto__": "p",
        "constructor": 1e400,
    },
]
HOSTILE_JSON = json.dumps(HOSTILE, ensure_ascii=False).replace("Infinity", "1e400").replace("1.1]", "1.10]").encode()

SOURCE = """
title  = "Generated source {number} <i>&amp;</i>"
url    = 'https://many.example/{number}'
region = "{region}"
[rows]
css = "li"
[fields]
name = "b"
"""


class Regions(threading.Thread):
    """Regions that answer each task at once, as its params say: ``hostile``, ``wall``, ``big``; ``slow`` when the test says so."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.region = Region(stack.amqp, stack.hub.url)
        self.go_on = threading.Event()
        self.is_over = False
        self._slow: list[contract.Task] = []
        self.start()

    def run(self) -> None:
        while not self.is_over:
            took = [self._take(region, fast=fast) for region in ("fra", "nyc", "sin") for fast in (True, False)]
            if self.go_on.is_set():
                while self._slow:
                    self._finish(self._slow.pop(), b'[{"name":"late"}]')
            if not any(took):
                threading.Event().wait(0.05)  # each look asks the broker six times

    def _take(self, region: str, *, fast: bool) -> bool:
        queue = names.fast_queue(region) if fast else names.work_queue(region)
        method, properties, body = self.region.channel.basic_get(queue, auto_ack=True)
        if method is None or properties.type != "task":
            return method is not None
        task = contract.decode_task(body)
        what = task.params.get("category")
        if what == "slow":
            self._slow.append(task)
        elif what == "wall":
            self.region.finish(task, error=WALL, attempts=2)
        elif what == "hostile":
            self._finish(task, HOSTILE_JSON, count=len(HOSTILE), warnings=["a <b>warning</b> \u202e"])
        elif what == "big":
            self._finish(
                task, json.dumps([{"name": f"row {row}", "price": str(row)} for row in range(500)]).encode(), count=500
            )
        else:
            self._finish(task, b'[{"name":"a","price":"1.10"},{"name":"b","price":null}]', count=2)
        return True

    def _finish(self, task: contract.Task, records: bytes, **told) -> None:
        timing = contract.Timing(queued_ms=3.1, turn_ms=12.0, fetch_ms=41.0, parse_ms=2.2, total_ms=60.4)
        size = contract.Bytes(raw=54_492, records=len(records), wire=890, received=9_000)
        self.region.finish(task, records, timing=timing, bytes=size, url="https://demo.example/list/poetry", **told)

    def stop(self) -> None:
        self.is_over = True
        self.join()
        self.region.close()


def shorten(tab) -> None:
    """Leaves the first ones of long lists: axe looks at each, and the others are of the same kinds."""
    tab.page.evaluate(
        f"() => document.querySelectorAll('tbody, ul').forEach(list => [...list.children].slice({ROWS}).forEach(one => one.remove()))"
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Store]:
    made = Store(tmp_path_factory.mktemp("store"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def stack(tmp_path_factory, rabbitmq, store) -> Iterator[Stack]:
    """A gateway with a history and 200 sources, besides those of tests.sources."""
    folder = tmp_path_factory.mktemp("stack")
    more = folder / "more"
    more.mkdir()
    for number in range(SOURCES):
        text = SOURCE.format(number=number, region=("fra", "nyc", "sin")[number % 3])
        (more / f"many.source-{number:03d}.toml").write_text(text, encoding="utf-8")
    hub = RedisInstance(folder, "hub")
    path = f"{folder / 'sources'}:{more}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "READ_SECONDS", 30.0)
        environ = {"NEARFETCH__HUB__MONGO": store.url, "NEARFETCH__SOURCES__PATH": path}
        made = Stack(folder, rabbitmq, hub, **environ)
        made.region.purge()
        yield made
        made.stop()
    hub.stop()


@pytest.fixture
def regions(stack) -> Iterator[Regions]:
    made = Regions(stack)
    yield made
    with contextlib.suppress(Exception):
        made.go_on.set()
    made.stop()
