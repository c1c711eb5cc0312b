"""Who reads a stream reads on over its gateway's kill -9: no result is missing, none comes twice.

curl, the EventSource of a browser, and the Python client, each at a gateway of its own, which is killed in the middle and started again
at the same address. Meanwhile another gateway goes on.
"""

import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Protocol

import pytest
from nearfetch_client import Nearfetch

from clients.python.nearfetch_client import read_events
from tests.service.gateway import GatewayProcess
from tests.service.web.conftest import stack
from tests.waiting import until

__all__ = ["stack"]

TASKS = 8
# The page of a client: the browser itself comes back after a broken stream, with the id of the last event.
READS = """path => {
    window.seen = []; window.ends = [];
    const source = new EventSource(path);
    source.addEventListener("result", event => seen.push(JSON.parse(event.data).task));
    source.addEventListener("done", () => ends.push("done"));
    source.onerror = () => { if (source.readyState == EventSource.CLOSED) ends.push("closed") };
}"""


class Reader(Protocol):
    """Reads the results of a request."""

    def seen(self) -> list[str]:
        """The tasks of those that came so far."""

    def is_over(self) -> bool:
        """Whether it had the end."""


class Looping(threading.Thread):
    """A reader that is a function of the gateway's address, the request, and the list for what it sees."""

    def __init__(self, read: Callable[[str, str, list[str]], None], url: str, request: str) -> None:
        super().__init__(daemon=True)
        self._read, self._url, self._request = read, url, request
        self._seen: list[str] = []
        self._failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._read(self._url, self._request, self._seen)
        except BaseException as failure:  # noqa: BLE001 - the test says it
            self._failure = failure

    def seen(self) -> list[str]:
        if self._failure is not None:
            raise self._failure
        return self._seen

    def is_over(self) -> bool:
        return not self.is_alive()


def by_client(url: str, request: str, seen: list[str]) -> None:
    seen.extend(result.task for result in Nearfetch(url).request(request).results())


def by_curl(url: str, request: str, seen: list[str]) -> None:
    """A loop as a shell script has it: again, with the last id that came, until the end came."""
    last, is_done = "0-0", False
    while not is_done:
        command = ["curl", "-sN", "-H", f"Last-Event-ID: {last}", f"{url}/v1/requests/{request}/events"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
            for event in read_events(curl.stdout):
                last, is_done = event.id, event.name == "done"
                if not is_done:
                    seen.append(event.data["task"])
        if not is_done:
            threading.Event().wait(0.1)  # as --retry-delay


class InBrowser:
    """An EventSource in a page of the gateway's."""

    def __init__(self, page, request: str) -> None:
        self.page = page
        page.evaluate(READS, f"/v1/requests/{request}/events")

    def seen(self) -> list[str]:
        return self.page.evaluate("seen")

    def is_over(self) -> bool:
        """It asks once more after the end, and is told that there is nothing more."""
        return self.page.evaluate("ends") == ["done", "closed"]


def over_a_kill(stack, process: GatewayProcess, reader_of: Callable[[str, str], Reader]) -> None:
    """A reader has each result of a request once, whose gateway was killed meanwhile. ``reader_of``: (address, request) → reader."""
    request = stack.post({"sources": ["demo.plain"] * TASKS}).json()["id"]
    tasks = [stack.region.take("nyc") for _ in range(TASKS)]
    reader = reader_of(f"http://127.0.0.1:{process.port}", request)
    for task in tasks[:3]:
        stack.region.finish(task)
    until(lambda: len(reader.seen()) == 3, "the first results", 60)
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()
    for task in tasks[3:5]:  # the other gateway settles them
        stack.region.finish(task)
    with GatewayProcess(stack, port=process.port):
        for task in tasks[5:]:
            stack.region.finish(task)
        until(reader.is_over, "the reader to have the end", 60)
        assert sorted(reader.seen()) == sorted(task.task for task in tasks)


@pytest.fixture(autouse=True)
def _nothing_is_in_the_queues(stack):
    stack.region.purge()


@pytest.mark.parametrize("read", [by_client, by_curl])
def test_a_stream_is_read_on_over_a_kill(stack, read):
    if read is by_curl and shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    with GatewayProcess(stack) as process:
        over_a_kill(stack, process, lambda url, request: Looping(read, url, request))


def test_a_browser_reads_on_over_a_kill_and_stops_after_the_end(stack, browser):
    with GatewayProcess(stack) as process, browser.tab(process.port) as tab:
        tab.expected = ("net::ERR_", "404 (Not Found)")  # a gateway that is gone; no icon of a page that is none
        tab.open("/healthz")
        over_a_kill(stack, process, lambda _, request: InBrowser(tab.page, request))
