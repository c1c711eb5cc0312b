"""Regions come and go while a gateway runs. The test plays the regions."""

import contextlib
import json
from pathlib import Path

import pika
import pytest
from msgspec import structs

from jobs.definition.catalog import Catalog
from regions import connect, names
from regions.faults import Fault, Faults
from regions.settings import Region
from tests.service.gateway import GatewayProcess
from tests.service.hub_parts import settings
from tests.sources import DEMO_LIST, DEMO_PLAIN
from tests.waiting import until
from tests.wire import ask
from web.flow import served
from web.flow.served import SHOWN_MAX, Served
from web.hub.redis import Hub

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
        whole = self.process.said().rpartition("\n")[0].splitlines()
        lines = [json.loads(line) for line in whole if line.startswith("{")]
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


class Alone:
    """``Served`` on a hub, looked with by the test. ``files``: what the regions' files say; ``fault``: that they are wrong."""

    def __init__(self, tmp_path, hub_redis) -> None:
        found = settings(tmp_path, redis=hub_redis.url)
        self.client, self.regions, self.files = hub_redis.client, found.region, dict(found.region)
        self.fault, self.reads, self.has_broker = "", 0, True
        self.hub = Hub(found)
        self.hub.run_once()
        self.sources = tmp_path / "own-sources"
        self.sources.mkdir()
        self.catalog = Catalog([self.sources], "fra")
        self._settings, self._queues = found, set(found.region)
        self.served = Served(found, self.hub, self.catalog, self, self._reload)

    def _reload(self):
        self.reads += 1
        if self.fault:
            raise Faults([Fault("ams.toml", 1, "title", self.fault)])
        return structs.replace(self._settings, region=dict(self.files))

    def serves(self, region: str) -> bool:
        """As a publisher says it."""
        return region in self._queues

    def declare(self, region: str) -> None:
        if self.has_broker:
            self._queues.add(region)

    def write_sources(self, *sources: str, text: str = DEMO_PLAIN) -> None:
        for source in sources:
            (self.sources / f"{source}.toml").write_text(text, encoding="utf-8")
        self.catalog.refresh()

    def looks(self) -> dict[str, str]:
        """Looks once; returns what is wrong then, by region or by the fault's name."""
        self.served.look()
        return {one.region or one.name: one.message for one in self.served.faults()}


@pytest.fixture
def alone(patient_clients, tmp_path, hub_redis, monkeypatch):
    for name in ("NOTE_SECONDS", "AGAIN_SECONDS"):
        monkeypatch.setattr(served, name, 600.0)
    made = Alone(tmp_path, hub_redis)
    yield made
    made.hub.client.close()


def test_the_hub_hears_of_the_files_now_and_then_and_of_a_new_one_before_its_region_gets_a_task(alone, capfd):
    alone.looks()
    assert set(alone.client.zrange(names.REGIONS, 0, -1)) == {b"fra", b"nyc", b"sin"}
    alone.client.delete(names.REGIONS)
    alone.looks()
    assert not alone.client.exists(names.REGIONS), "it was said a moment ago"
    alone.files[NEW] = Region(name=NEW, title="Amsterdam")
    alone.has_broker = False
    alone.looks()
    assert NEW not in alone.regions
    assert alone.client.zscore(names.REGIONS, NEW) is not None
    assert "a new region is the first one" not in capfd.readouterr().out
    alone.has_broker = True
    alone.looks()
    assert alone.regions[NEW].title == "Amsterdam"
    alone.files = {"aaa": Region(name="aaa", title="First"), **alone.files}
    for _ in range(2):
        alone.looks()
    assert capfd.readouterr().out.count("a new region is the first one") == 1


def test_wrong_files_are_named_and_read_again_in_a_while(alone):
    alone.fault = "expected a text"
    for _ in range(3):
        assert "expected a text" in alone.looks()["region-files-wrong"]
    assert alone.reads == 1
    alone.fault, alone.served._files_at = "", 0.0
    assert alone.looks() == {}


def test_a_file_that_changes_or_comes_back_counts(alone):
    alone.files["nyc"] = Region(name="nyc", title="New York")
    alone.looks()
    assert alone.regions["nyc"].title == "New York"
    alone.write_sources("demo.list", text=DEMO_LIST)
    alone.write_sources("demo.other", text=DEMO_PLAIN.replace("nyc", "fra"))
    del alone.files["nyc"]
    told = "its file is gone, and it is served because sources name it (demo.list)"  # as their standby
    assert alone.looks() == {"nyc": told}
    alone.files["nyc"] = Region(name="nyc", title="New York")
    assert alone.looks() == {}


def test_the_sources_for_which_a_region_without_a_file_is_served_are_named_as_far_as_they_are_few(alone):
    del alone.files["nyc"]
    some = [f"demo.s{number}" for number in range(SHOWN_MAX)]
    alone.write_sources(*some)
    assert alone.looks()["nyc"].endswith(f"({', '.join(some)})")
    alone.write_sources("demo.t1", "demo.t2")
    assert alone.looks()["nyc"].endswith(f"({', '.join(some)} and 2 more)")


def test_a_region_that_another_gateway_had_a_file_of_is_served_while_its_tasks_are_open(alone):
    alone.client.zadd(names.REGIONS, {NEW: connect.redis_now_ms(alone.client), "gone": 1})
    alone.looks()
    assert NEW not in alone.regions
    assert alone.client.zscore(names.REGIONS, "gone") is None, "a note that is older than any task"
    for region in (NEW, "fra"):
        alone.client.zadd(names.open_tasks(region), {"R/T": 1})
    assert alone.looks() == {NEW: "its file is gone, and it is served because 1 of its tasks are open"}
    alone.client.delete(names.open_tasks(NEW))
    alone.looks()
    assert NEW in alone.regions, "a task may come from a gateway that has not looked yet"
    assert alone.looks() == {}
    assert NEW not in alone.regions
