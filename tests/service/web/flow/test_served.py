"""Regions come and go while a gateway runs. The test plays the regions."""

import contextlib
import json
from pathlib import Path

import pika
import pytest

from regions import names
from tests.service.gateway import GatewayProcess
from tests.sources import DEMO_PLAIN
from tests.waiting import until
from tests.wire import ask

NEW = "ams"
FILE = 'title = "Amsterdam"\n'


class Gateway:
    """A gateway's process with regions and sources of its own, beside the one of ``stack``, which has neither."""

    def __init__(self, stack, folder: Path) -> None:
        self.stack, self.regions, self.sources = stack, folder / "own-regions", folder / "own-sources"
        for made in (self.regions, self.sources):
            made.mkdir()
        self.file, self.source = self.regions / f"{NEW}.toml", self.sources / "demo.new.toml"
        for region in ("fra", "nyc", "sin"):
            (self.regions / f"{region}.toml").write_text(f'title = "{region}"\n', encoding="utf-8")
        (self.sources / "demo.plain.toml").write_text(DEMO_PLAIN, encoding="utf-8")
        self.process: GatewayProcess | None = None

    def start(self) -> None:
        paths = {"NEARFETCH__REGIONS__PATH": str(self.regions), "NEARFETCH__SOURCES__PATH": str(self.sources)}
        self.process = GatewayProcess(self.stack, **paths).__enter__()

    def end(self) -> None:
        if self.process is not None:
            self.process.__exit__()

    def write_source(self, region: str = NEW) -> None:
        self.source.write_text(DEMO_PLAIN.replace('"nyc"', f'"{region}"'), encoding="utf-8")

    def post(self, source: str = "demo.new", **options):
        return ask(self.process.port, "POST", "/v1/requests", body={"sources": [source], "deadline": 120, **options})

    def accepted(self, source: str = "demo.new") -> str:
        """The id of a request that is accepted as soon as it may be."""
        return until(
            lambda: (reply := self.post(source)).status == 202 and reply.json()["id"], f"{source} to be accepted"
        )

    def request(self, request: str) -> dict:
        return ask(self.process.port, "GET", f"/v1/requests/{request}").json()

    def succeeds(self, request: str) -> None:
        until(lambda: self.request(request)["status"] == "succeeded", f"{request} to succeed")

    def seen(self) -> dict[str, dict]:
        return {one["name"]: one for one in ask(self.process.port, "GET", "/v1/regions").json()["regions"]}

    def said(self, message: str) -> list[dict]:
        lines = [json.loads(line) for line in self.process.said().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == message]


@pytest.fixture
def gateway(stack, tmp_path):
    made = Gateway(stack, tmp_path)
    made.start()
    yield made
    made.end()
    stack.hub.client.delete(names.REGIONS, names.open_tasks(NEW), names.out_stream(NEW))
    for queue in (names.work_queue(NEW), names.fast_queue(NEW)):
        stack.region.channel.queue_delete(queue)


def test_a_region_takes_tasks_and_sends_results_soon_after_its_file_came(gateway):
    gateway.write_source()
    until(lambda: "not set up here" in gateway.post().body.decode(), "the source to be known, its region not to be")
    gateway.file.write_text(FILE, encoding="utf-8")
    request = gateway.accepted()
    gateway.stack.region.finish(gateway.stack.region.take(NEW))
    gateway.succeeds(request)
    assert gateway.seen()[NEW]["title"] == "Amsterdam"


def test_a_region_without_a_file_is_served_until_no_source_names_it_and_no_task_is_open(gateway):
    gateway.write_source()
    gateway.file.write_text(FILE, encoding="utf-8")
    first, second = gateway.accepted(), gateway.accepted()
    gateway.file.unlink()
    told = until(lambda: [one for one in gateway.seen()[NEW]["reasons"] if "its file is gone" in one], "it to be told")
    assert told == ["its file is gone, and it is served because sources name it (demo.new), 2 of its tasks are open"]
    gateway.stack.region.finish(gateway.stack.region.take(NEW))
    gateway.succeeds(first)
    gateway.source.unlink()
    until(lambda: "1 of its tasks are open" in str(gateway.seen()[NEW]["reasons"]), "the open task to be the reason")
    assert "sources name it" not in str(gateway.seen()[NEW]["reasons"])
    gateway.stack.region.finish(gateway.stack.region.take(NEW))
    gateway.succeeds(second)
    until(lambda: NEW not in gateway.seen(), "the region to be gone")
    assert len(gateway.said("a region's file is gone, it is served until nothing needs it")) == 1


def test_a_gateway_that_starts_without_a_regions_file_still_reads_its_results(gateway):
    gateway.write_source()
    gateway.file.write_text(FILE, encoding="utf-8")
    request = gateway.accepted()
    gateway.end()
    gateway.file.unlink()
    gateway.source.unlink()
    gateway.start()
    until(lambda: NEW in gateway.seen(), "the region with an open task to be served")
    gateway.stack.region.finish(gateway.stack.region.take(NEW))
    gateway.succeeds(request)
    until(lambda: NEW not in gateway.seen(), "the region to be gone")


def test_a_wrong_file_of_a_region_changes_nothing_until_it_is_mended(gateway):
    gateway.write_source()
    gateway.file.write_text("title = 5\n", encoding="utf-8")
    told = until(lambda: gateway.said("the regions stay as they are: their files are wrong"), "the fault to be told")
    assert "ams.toml" in told[0]["faults"]
    gateway.accepted("demo.plain")
    gateway.stack.region.finish(gateway.stack.region.take("nyc"))
    gateway.file.write_text(FILE, encoding="utf-8")
    request = gateway.accepted()
    gateway.stack.region.finish(gateway.stack.region.take(NEW))
    gateway.succeeds(request)
    assert len(gateway.said("the regions stay as they are: their files are wrong")) == 1
    assert gateway.seen().keys() == {"fra", "nyc", "sin", NEW}
    assert not gateway.said("a region's file is gone, it is served until nothing needs it")
    assert not gateway.said("a region is not served any more")


def classic_queue(broker):
    """A channel on which the new region's queue was made, unless a gateway of the test before has just declared it once more."""
    channel = broker.channel()
    channel.queue_delete(names.work_queue(NEW))
    try:
        channel.queue_declare(names.work_queue(NEW), durable=True)
    except pika.exceptions.ChannelClosedByBroker:
        return None
    return channel


def test_a_region_whose_queues_the_broker_refuses_leaves_the_others_as_they_are(gateway):
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(gateway.stack.amqp))) as broker:
        channel = until(lambda: classic_queue(broker), "a queue that is no quorum queue")
        gateway.write_source()
        gateway.file.write_text(FILE, encoding="utf-8")
        until(lambda: gateway.said("a region's queues can't be declared"), "the refusal to be told")
        request = gateway.accepted("demo.plain")
        gateway.stack.region.finish(gateway.stack.region.take("nyc"))
        gateway.succeeds(request)
        assert gateway.post().status == 422
        channel.queue_delete(names.work_queue(NEW))
    gateway.accepted()
    gateway.stack.region.finish(gateway.stack.region.take(NEW))
    assert len(gateway.said("a region's queues can't be declared")) == 1
    assert not gateway.said("broker away")
