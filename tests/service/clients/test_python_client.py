"""The Python client against a real gateway; a thread of the test plays the region."""

import contextlib
import re
import signal
import threading

import pytest
import requests
from nearfetch_client import Nearfetch, Refused, Request, TaskFailed, Unavailable

from jobs import contract
from regions import names
from regions.settings import ROOT
from scripts.stack.services import free_port
from tests.service.gateway import GatewayProcess, Region
from tests.service.web.conftest import stack
from web.hub import keys

README = ROOT / "clients" / "python" / "README.md"
__all__ = ["stack"]

BLOCKED = contract.Error(type="blocked", message="a wall", origin="target", retryable=True, retry_after=7.0)


class Answering(threading.Thread):
    """A region that answers each task at once: source demo.plain with a record, demo.list with as many as its page says."""

    def __init__(self, stack) -> None:
        super().__init__()
        self.region = Region(stack.amqp, stack.hub.url)
        self.asked: list[str] = []
        self.is_over = False
        self.start()

    def run(self) -> None:
        while not self.is_over:
            for region in ("nyc", "fra"):
                for fast in (True, False):
                    with contextlib.suppress(AssertionError):
                        self._answer(region, fast=fast)

    def _answer(self, region: str, *, fast: bool) -> None:
        queue = names.fast_queue(region) if fast else names.work_queue(region)
        method, _, body = self.region.channel.basic_get(queue, auto_ack=True)
        if method is None:
            threading.Event().wait(0.005)
            return
        task = contract.decode_task(body)
        self.asked.append(task.task)
        if task.params.get("category") == "wall":
            self.region.finish(task, error=BLOCKED)
        else:
            self.region.finish(task, b'[{"name":"a","price":"1.10"}]')

    def stop(self) -> None:
        self.is_over = True
        self.join()
        self.region.close()


@pytest.fixture
def answering(stack):
    stack.region.purge()
    made = Answering(stack)
    yield made
    made.stop()


@pytest.fixture
def client(stack):
    return Nearfetch(f"http://127.0.0.1:{stack.port}")


def test_fetch_brings_records_as_dicts(client, answering):
    result = client.fetch("demo.list", {"category": "poetry"})
    assert (result.ok, result.source, result.region) == (True, "demo.list", "fra")
    assert result.records == [{"name": "a", "price": "1.10"}]
    assert result.raw["count"] == 1
    assert len(answering.asked) == 1


def test_a_failed_task_is_an_exception_that_says_whose_fault_it_was(client, answering):
    with pytest.raises(TaskFailed, match=r"demo\.list: blocked: a wall") as caught:
        client.fetch("demo.list", {"category": "wall"})
    assert (caught.value.error.origin, caught.value.error.retryable, caught.value.retry_after) == ("target", True, 7.0)


def test_results_come_as_they_end_and_failures_are_among_them(client, answering):
    request = client.submit("demo.plain", ("demo.list", {"category": "wall"}), {"source": "demo.plain"}, attrs={"n": 1})
    found = list(request.results())
    assert sorted(result.status for result in found) == ["failed", "succeeded", "succeeded"]
    assert {result.task for result in found} == set(answering.asked)
    assert list(request.results()) == []
    assert {result.task for result in client.request(request.id).wait()} == set(answering.asked)


def test_results_that_are_left_are_given_by_the_next_call(client, answering):
    request = client.submit(*["demo.plain"] * 5)
    first = next(request.results())
    rest = list(request.results())
    assert len({first.task, *(one.task for one in rest)}) == 5
    assert len(rest) == 4


def test_where_streams_bring_nothing_results_are_polled(client, answering, monkeypatch):
    monkeypatch.setattr(Request, "_stream", lambda _: iter(()))
    assert len(client.submit(*["demo.plain"] * 4).wait()) == 4


def test_refusals_name_every_fault(client):
    with pytest.raises(Refused, match=r"no\.such") as caught:
        client.submit("no.such", ("demo.list", {"colour": "red"}))
    assert (caught.value.status, caught.value.kind) == (422, "invalid")
    assert {where for where, _ in caught.value.errors} >= {"/sources/0", "/sources/1/params/colour"}


def test_a_post_that_got_no_answer_is_sent_again_and_fetches_nothing_twice(client, stack, answering, monkeypatch):
    """The gateway took it; its answer was lost on the way."""
    send, lost = requests.Session.request, []

    def lose_first(self, method, url, **options):
        answer = send(self, method, url, **options)
        if method == "POST" and not lost:
            lost.append(answer.json()["id"])
            raise requests.ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(requests.Session, "request", lose_first)
    request = client.submit("demo.plain")
    assert [request.id] == lost
    assert len(request.wait()) == len(answering.asked) == 1


def test_without_a_gateway_it_says_so_in_time():
    with pytest.raises(Unavailable, match="no gateway answers"):
        Nearfetch(f"http://127.0.0.1:{free_port()}", timeout=0.3).sources()


def test_a_stream_goes_on_over_a_gateways_end(stack, answering):
    """Its gateway is killed in the middle; the next one on the same port brings the rest, each result once."""
    with GatewayProcess(stack) as process:
        client = Nearfetch(f"http://127.0.0.1:{process.port}")
        answering.is_over = True
        answering.join()
        request = client.submit(*["demo.plain"] * 6)
        tasks = [answering.region.take("nyc") for _ in range(6)]
        results = request.results()
        for task in tasks[:3]:
            answering.region.finish(task)
        found = [next(results) for _ in range(3)]
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
        client.url = f"http://127.0.0.1:{stack.port}"
        for task in tasks[3:]:
            answering.region.finish(task)
        found += list(results)
    assert sorted(one.task for one in found) == sorted(task.task for task in tasks)


def test_readme_runs_as_printed(stack, answering, monkeypatch, capsys):
    """With the sources of this test in the place of the shipped ones."""
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    code = code.replace("ecb.rates", "demo.plain").replace("books.list", "demo.list").replace("currency", "name")
    code = code.replace("no_such_category", "wall")
    monkeypatch.setenv("NEARFETCH_URL", f"http://127.0.0.1:{stack.port}")
    exec(compile(code, str(README), "exec"), {})
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if " [info" not in line and " [warn" not in line]
    assert lines[0] == "a"
    assert sorted(lines[1:3]) == ["demo.list succeeded 1", "demo.plain succeeded 1"]
    assert lines[3] == "target blocked"


def test_key_is_sent_as_a_bearer(client, monkeypatch):
    send, seen = requests.Session.send, []

    def noted(self, prepared, **options):
        seen.append(prepared.headers["Authorization"])
        return send(self, prepared, **options)

    monkeypatch.setattr(requests.Session, "send", noted)
    text = keys.text_of(keys.new_id(), keys.new_secret())
    assert Nearfetch(client.url, text).sources()
    assert seen == [f"Bearer {text}"]
