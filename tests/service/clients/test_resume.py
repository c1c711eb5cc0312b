"""Who reads a stream reads on over its gateway's kill -9: no result is missing, none comes twice.

curl, the EventSource of a browser, and the Python client, each at a gateway of its own, which is killed in the middle and started again
at the same address. Meanwhile another gateway goes on.
"""

import itertools
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest
from nearfetch_client import Nearfetch

from clients.python.nearfetch_client import read_events
from tests.service.gateway import GatewayProcess
from tests.service.web.conftest import stack
from tests.waiting import until

__all__ = ["stack"]

TASKS = 8
PAGE = b"""<!DOCTYPE html><meta charset="utf-8"><script>
const told = (path, text) => fetch(path, {method: "POST", body: text})
const source = new EventSource(new URLSearchParams(location.search).get("events"))
source.addEventListener("result", event => told("/result", JSON.parse(event.data).task))
source.addEventListener("done", () => told("/done", ""))
source.onerror = () => { if (source.readyState == EventSource.CLOSED) told("/closed", "") }
</script>"""


class Reader(threading.Thread):
    """Reads the results of a request at a gateway. ``seen``: the tasks of those that came; ``failure``: why it gave up."""

    def __init__(self, read: Callable[[list[str]], None]) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.failure: BaseException | None = None
        self._read = read
        self.start()

    def run(self) -> None:
        try:
            self._read(self.seen)
        except BaseException as failure:  # noqa: BLE001 - the test says it
            self.failure = failure


class Page:
    """A page with an EventSource, the server that it is on, and what it tells that."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(PAGE)

            def do_POST(self) -> None:
                told.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def page() -> Iterator[Page]:
    with Page() as made:
        yield made


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Opens an address in a browser without a window, with a new profile."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium on this machine")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--no-first-run", "--no-proxy-server", f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0",
    ]  # fmt: skip
    with ExitStack() as opened:

        def browse(url: str) -> None:
            log = opened.enter_context((tmp_path / "chromium.log").open("wb"))
            process = subprocess.Popen([program, *flags, url], stdout=log, stderr=log, start_new_session=True)
            opened.callback(process.wait)
            opened.callback(process.kill)

        yield browse


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


def over_a_kill(
    stack, process: GatewayProcess, read: Callable[[str, str, list[str]], None], **environ: str
) -> list[str]:
    """The tasks of a request, in the order in which they ended: a reader has each once, and its gateway was killed meanwhile."""
    url = f"http://127.0.0.1:{process.port}"
    request = stack.post({"sources": ["demo.plain"] * TASKS}).json()["id"]
    tasks = [stack.region.take("nyc") for _ in range(TASKS)]
    reader = Reader(lambda seen: read(url, request, seen))
    for task in tasks[:3]:
        stack.region.finish(task)
    until(lambda: len(reader.seen) == 3 or reader.failure, "the first results", 60)
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()
    for task in tasks[3:5]:  # the other gateway settles them
        stack.region.finish(task)
    with GatewayProcess(stack, port=process.port, **environ):
        for task in tasks[5:]:
            stack.region.finish(task)
        until(lambda: not reader.is_alive(), "the reader to have the end", 60)
        reader.join()
    assert reader.failure is None
    assert sorted(reader.seen) == sorted(task.task for task in tasks)
    return reader.seen


@pytest.fixture(autouse=True)
def _nothing_is_in_the_queues(stack):
    stack.region.purge()


@pytest.mark.parametrize("read", [by_client, by_curl])
def test_a_stream_is_read_on_over_a_kill(stack, read):
    if read is by_curl and shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    with GatewayProcess(stack) as process:
        over_a_kill(stack, process, read)


def test_a_browser_reads_on_over_a_kill_and_stops_after_the_end(stack, page, chromium):
    """By itself, as an EventSource does. Its page belongs to an origin that the gateway permits."""
    allowed = {"NEARFETCH__GATEWAY__CORS_ORIGINS": page.origin}

    def read(url: str, request: str, seen: list[str]) -> None:
        chromium(f"{page.origin}/?events={url}/v1/requests/{request}/events")
        for number in itertools.count():
            path, text = until(lambda at=number: page.told[at : at + 1], "the page to tell more", 90)[0]
            if path == "/result":
                seen.append(text)
            elif path == "/closed":
                break
        assert page.told[-2:] == [("/done", ""), ("/closed", "")]

    with GatewayProcess(stack, **allowed) as process:
        over_a_kill(stack, process, read, **allowed)
    assert json.dumps(page.told).count("/done") == 1
