"""The Python client against a real gateway; a thread of the test plays the region."""

import contextlib
import threading

import msgspec
import nearfetch_client
import pytest
import requests
from nearfetch_client import Nearfetch, Refused, Request, TaskFailed, Unavailable

from jobs import contract
from regions import names
from scripts.stack.services import free_port
from tests.service.clients.proxy import Proxy
from tests.service.gateway import Region
from tests.service.web.conftest import patient, stack
from tests.waiting import until
from web.hub import keys

__all__ = ["patient", "stack"]

pytestmark = pytest.mark.usefixtures("patient")

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
        try:
            task = contract.decode_task(body)
        except msgspec.ValidationError:  # the cancel of a request that was refused
            return
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
    assert (caught.value.origin, caught.value.error.retryable, caught.value.retry_after) == ("target", True, 7.0)


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


def behind(proxy: Proxy) -> Nearfetch:
    return Nearfetch(f"http://127.0.0.1:{proxy.port}")


@pytest.fixture
def region(stack):
    """To answer when the test wants it."""
    stack.region.purge()
    yield stack.region
    stack.region.purge()


def test_where_a_proxy_holds_streams_back_results_are_polled(stack, region, monkeypatch):
    """The first one is there while others are not; from then on no stream is tried."""
    monkeypatch.setattr(nearfetch_client, "FIRST_SECONDS", 0.3)
    with Proxy(stack.port, holds=True) as proxy:
        client = behind(proxy)
        for streams in (1, 1):
            request = client.submit(*["demo.plain"] * 3)
            tasks = [region.take("nyc") for _ in range(3)]
            region.finish(tasks[0])
            results = request.results()
            found = [next(results)]
            for task in tasks[1:]:
                region.finish(task)
            found += results
            assert found[0].task == tasks[0].task
            assert sorted(one.task for one in found) == sorted(task.task for task in tasks)
            assert (client.streams, sum("/events" in line for line in proxy.lines)) == (False, streams)


def test_a_stream_that_is_quiet_for_longer_than_its_beginning_may_take_is_no_held_one(stack, region, monkeypatch):
    monkeypatch.setattr(nearfetch_client, "FIRST_SECONDS", 6.0)  # its beginning must come within that
    with Proxy(stack.port) as proxy:
        client = behind(proxy)
        request = client.submit("demo.plain", "demo.plain")
        tasks = [region.take("nyc") for _ in range(2)]
        found, reading = [], threading.Thread(target=lambda: found.extend(request.results()))
        reading.start()
        until(lambda: sum("/events" in line for line in proxy.lines) >= 2, "the stream to be asked again")
        for task in tasks:
            region.finish(task)
        reading.join()
        assert sorted(one.task for one in found) == sorted(task.task for task in tasks)
        assert (client.streams, proxy.asked(f"GET /v1/requests/{request.id}?")) == (True, 0)


def test_where_streams_bring_nothing_results_are_polled(client, answering, monkeypatch):
    monkeypatch.setattr(Request, "_stream", breaking)
    assert len(client.submit(*["demo.plain"] * 4).wait()) == 4


def breaking(request: Request):
    """A stream that ends at once."""
    request._breaks += 1
    return iter(())


def test_a_post_whose_answer_is_cut_off_is_sent_again_and_fetches_nothing_twice(stack, answering):
    with Proxy(stack.port, lose=("POST", "GET /v1/sources")) as proxy:
        client = behind(proxy)
        assert client.fetch("demo.plain").ok
        assert (proxy.asked("POST"), len(answering.asked)) == (2, 1)
        assert client.sources()
        assert proxy.asked("GET /v1/sources") == 2


def test_a_post_that_is_refused_with_503_is_sent_again_with_its_key(client, stack, answering, monkeypatch):
    """After as long as the gateway says. Nothing of the first one is left."""
    publish, swallowed = stack.gateway.publisher.publish, []

    def swallow_first(batch):
        if swallowed:
            publish(batch)
        else:
            swallowed.append(batch)  # as a broker that does not confirm

    monkeypatch.setattr(stack.gateway.publisher, "publish", swallow_first)
    request = client.submit("demo.plain")
    assert [one.task for one in request.wait()] == answering.asked
    assert len(answering.asked) == 1


def test_a_503_that_lasts_is_an_error_that_says_when_to_come_back(stack, monkeypatch):
    monkeypatch.setattr(stack.gateway.publisher, "publish", lambda _: None)
    with pytest.raises(Refused) as caught:
        Nearfetch(f"http://127.0.0.1:{stack.port}", timeout=0).submit("demo.plain")
    assert (caught.value.status, caught.value.kind, caught.value.origin) == (503, "unavailable", "")
    assert caught.value.retry_after > 0


def test_refusals_name_every_fault(client):
    with pytest.raises(Refused, match=r"no\.such") as caught:
        client.submit("no.such", ("demo.list", {"colour": "red"}))
    assert (caught.value.status, caught.value.kind) == (422, "invalid")
    assert {where for where, _ in caught.value.errors} >= {"/sources/0", "/sources/1/params/colour"}


def test_without_a_gateway_it_says_so_in_time():
    with pytest.raises(Unavailable, match=r"No gateway answers at .*: \[Errno 111\] Connection refused"):
        Nearfetch(f"http://127.0.0.1:{free_port()}", timeout=0.3).sources()


def test_key_is_sent_as_a_bearer(client, monkeypatch):
    send, seen = requests.Session.send, []

    def noted(self, prepared, **options):
        seen.append(prepared.headers["Authorization"])
        return send(self, prepared, **options)

    monkeypatch.setattr(requests.Session, "send", noted)
    text = keys.text_of(keys.new_id(), keys.new_secret())
    assert Nearfetch(client.url, text).sources()
    assert seen == [f"Bearer {text}"]
