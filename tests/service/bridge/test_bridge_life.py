"""A bridge's start, end and reports, between real servers."""

import itertools
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from bridge import bridge as bridge_module
from bridge import heartbeat
from bridge.watch import Measure
from regions import connect
from regions.settings import Bridges
from scripts.stack.ports import free_port
from scripts.stack.probes import listens
from scripts.stack.services import Running, Service
from scripts.stack.wan_links import Control, Rule, Way
from tests import broker
from tests.service.bridging import (
    InThread,
    Region,
    bridging,
    entries,
    last_status,
    now_ms,
    settings_of,
    start_process,
)
from tests.service.conftest import RedisInstance
from tests.waiting import until

STOPPED, GOES_ON = signal.SIGSTOP, signal.SIGCONT


def test_it_reports_home(region: Region, tmp_path: Path) -> None:
    config = structs.replace(region.settings(), bridges=Bridges(path=str(tmp_path)))
    with bridging(config, region.name) as running:
        until(lambda: last_status(region.hub, region.name).get("state") == "consuming", "a status")
        (file,) = heartbeat.files(tmp_path, region.name)
        beat = until(
            lambda: (now := heartbeat.read(file)) and now.state == "consuming" and now, "its beat to tell, too"
        )
        assert not beat.kept
        region.redis.running.signal(STOPPED)
        until(lambda: last_status(region.hub, region.name).get("state") == "paused", "the change to be told")
        region.redis.running.signal(GOES_ON)
        until(lambda: last_status(region.hub, region.name).get("state") == "consuming", "the change to be told")
        name = running.bridge.name
        connected = connections(region.hub, name), connections(region.redis, name)
    assert all(connected)
    assert heartbeat.files(tmp_path) == []
    for server in (region.hub, region.redis):
        until(lambda server=server: connections(server, name) == [], "an end without open connections")
    entry = entries(region.hub, region.name, "status")[-1]
    status = last_status(region.hub, region.name)
    assert (entry["part"], entry["name"], entry["v"]) == ("bridge", name, "1")
    assert set(status) == {
        "at_ms", "state", "reason", "fault", "ready", "unacked", "offset_ms", "redis_used", "redis_max", "redis_ms", "redis_lost",
        "started_ms",
    }  # fmt: skip
    assert status["redis_lost"] >= 1  # a busy one may have been lost besides
    assert 0 <= status["at_ms"] - status["started_ms"] < 600_000
    assert abs(status["at_ms"] - now_ms()) < 60_000
    assert abs(status["offset_ms"]) < 60_000
    assert status["redis_max"] == 256 * 1024 * 1024


def connections(server: RedisInstance, bridge: str) -> list[str]:
    names = [client["name"] for client in server.client.client_list()]
    return [name for name in names if name.startswith("bridge") and name.endswith(f"@{bridge}")]


def test_it_waits_for_the_hubs_clock_and_keeps_it_when_the_hub_goes(region: Region) -> None:
    tasks = region.tasks(4)
    region.hub.running.signal(STOPPED)
    try:
        with region.bridging() as running:
            until(
                # A fault would be told to the hub alone.
                lambda: (
                    ((one := running.status).state, one.reason, one.fault)
                    == ("starting", "waiting for the hub's clock", "")
                ),
                "it to wait for the hub's clock",
            )
            region.broker.publish(*tasks[:2])
            assert region.jobs() == []
            watch = running.bridge._watch
            tell = watch._tell

            def tell_what_is_wrong(measure: Measure | Exception) -> None:
                if isinstance(measure, Exception) or running.bridge._redis_reason:
                    tell(measure)

            watch._tell = tell_what_is_wrong  # what it begins by is the clock
            region.hub.running.signal(GOES_ON)
            until(lambda: region.consumers() == 2, "both queues to be consumed")
            watch._tell = tell
            region.each_once(tasks[:2])
            region.hub.running.signal(STOPPED)
            region.broker.publish(*tasks[2:])
            region.each_once(tasks)
            region.hub.running.signal(GOES_ON)
    finally:
        region.hub.running.signal(GOES_ON)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_warmly_with_everything_acked(region: Region, tmp_path: Path, number: int) -> None:
    tasks = region.tasks(200)
    process = start_process(region.settings(), region.name, tmp_path)
    try:
        region.broker.publish(*tasks)
        until(lambda: len(region.jobs()) == len(tasks), "the jobs")
        process.send_signal(number)
        assert process.wait(60) == 0, (tmp_path / "bridge.log").read_text()
    finally:
        process.kill()
        process.wait(60)
    assert region.in_queues() == 0
    region.each_once(tasks)


@pytest.mark.parametrize("is_acked", [True, False])
def test_a_stop_lasts_until_all_is_acked_and_only_so_long(region: Region, monkeypatch, is_acked: bool) -> None:
    monkeypatch.setattr(bridge_module, "STOP_SECONDS", 600.0 if is_acked else 0.1)
    tasks, client = region.tasks(10), region.redis.client
    with region.bridging() as running:
        running.wait_for("consuming")
        client.config_set("appendfsync", "no")
        region.broker.publish(*tasks)
        region.each_once(tasks)
        until(lambda: running.status.unacked == len(tasks), "all to be held")
        running.bridge.stop()
        running.wait_for("paused", "stopping")
        if is_acked:
            assert running.thread.is_alive()
            client.config_set("appendfsync", "always")
    until(lambda: region.in_queues() == (0 if is_acked else len(tasks)), "the rest to be back")


@dataclass
class First:
    """The first broker in a list of hosts, behind a link that can be cut."""

    url: str
    host: broker.VirtualHost
    control: Control

    def die(self) -> None:
        self.control.rule("first", Rule(accepts=False))
        self.control.cut("first")


@pytest.fixture
def first_broker(tmp_path: Path) -> Iterator[First]:
    host, port, control = broker.VirtualHost(broker.node(), "first"), free_port(), free_port()
    words = [sys.executable, "-m", "scripts.stack.wan", "--control", str(control), f"first={port}:{host.port}"]
    proxy = Running(Service("proxy", words, tmp_path / "proxy.log", listens(control))).start()
    made = First(host.url.replace(f":{host.port}/", f":{port}/"), host, Control(control))
    yield made
    made.control.close()
    proxy.kill()
    host.delete()


def test_a_bridge_with_two_brokers_goes_on_with_the_second_when_the_first_dies(
    hub_redis, region_redis, rabbitmq, first_broker
) -> None:
    first, second = (Region("two", hub_redis, region_redis, one) for one in (first_broker.host, rabbitmq))
    first.broker.declare()
    second.broker.declare()
    config = first.settings()
    config = structs.replace(config, hub=structs.replace(config.hub, amqp=f"{first_broker.url},{rabbitmq.url}"))
    tasks = first.tasks(20)
    with bridging(config, "two") as running:
        running.wait_for("consuming")
        first.broker.publish(*tasks[:10])
        first.each_once(tasks[:10])
        until(lambda: running.status.unacked == 0, "every message to be acked")
        first_broker.die()
        second.broker.publish(*tasks[10:])
        second.each_once(tasks)
        running.wait_for("consuming")
        second.all_acked(running)


def test_after_each_connection_it_begins_anew_with_the_first_broker_and_a_short_pause(
    region: Region, monkeypatch
) -> None:
    pauses: list[tuple[threading.Thread, int]] = []

    def backoff_seconds(failures: int) -> float:
        pauses.append((threading.current_thread(), failures))
        return 0.02

    monkeypatch.setattr(connect, "backoff_seconds", backoff_seconds)
    with bridging(msgspec_replace(region.settings(), f"amqp://127.0.0.1:1/,{region.rabbitmq.url}"), region.name) as one:
        one.wait_for("consuming")
        lost = one.bridge._connection
        one.bridge._ioloop.add_callback_threadsafe(lost.close)
        until(lambda: one.bridge._connection is not lost, "the next try")
        one.wait_for("consuming")
        told = [failures for thread, failures in pauses if thread is one.thread]
        # The first one refuses, so each count begins with 1; 0 is a connection that was lost. The second one may be late.
        assert all(later in (0, before + 1) for before, later in itertools.pairwise([0, *told])), told
        assert 0 in told[1:-1], told


def test_a_broker_that_hangs_is_told_by_its_name_before_a_heartbeat_is_missed(
    hub_redis, region_redis, first_broker, monkeypatch
) -> None:
    monkeypatch.setattr(connect, "HEARTBEAT_SECONDS", 600)
    region = Region("hangs", hub_redis, region_redis, first_broker.host)
    region.broker.declare()
    config = region.settings()
    config = structs.replace(config, hub=structs.replace(config.hub, amqp=first_broker.url))
    with bridging(config, "hangs") as running:
        running.wait_for("consuming")
        first_broker.control.rule("first", Rule(back=Way(then="hold")))
        running.wait_for("starting", "RabbitMQ is away: it does not answer")
        until(lambda: last_status(hub_redis, "hangs").get("fault") == "region-rabbitmq-away", "the hub to be told")
        first_broker.control.rule("first", Rule())
        running.wait_for("consuming")


def test_a_consumer_that_the_broker_forgot_is_replaced(region: Region) -> None:
    """It said "consuming" and got nothing. The lane does not hear that the broker ended its consumer."""
    tasks = region.tasks(5)
    with region.bridging() as running:
        running.wait_for("consuming")
        lane = running.bridge.work
        forget = lambda: lane.inbox.channel.basic_cancel(lane._consumer)  # noqa: E731
        running.bridge._ioloop.add_callback_threadsafe(forget)
        until(lambda: region.consumers() == 1, "the broker to forget it")
        running.wait_for("consuming")
        region.broker.publish(*tasks)
        region.each_once(tasks)
        region.all_acked(running)


def test_it_stops_though_everything_is_away(hub_redis, region_redis, rabbitmq, monkeypatch) -> None:
    """Its threads end first: they use what it closes. One of them goes on until the bridge waits for it."""
    watch, is_waited_for = bridge_module.Watch.run, threading.Event()

    def ends_late(one: bridge_module.Watch) -> None:
        thread = threading.current_thread()
        thread.join = lambda join=thread.join: is_waited_for.set() or join()
        watch(one)
        is_waited_for.wait()

    monkeypatch.setattr(bridge_module.Watch, "run", ends_late)
    settings = settings_of(hub_redis, region_redis, rabbitmq, "fra")
    for one in (hub_redis, region_redis):
        one.running.signal(STOPPED)
    try:
        with bridging(msgspec_replace(settings, "amqp://127.0.0.1:1/"), "fra") as running:
            running.wait_for("starting", "RabbitMQ is away: Connection refused")
        assert not any(thread.is_alive() for thread in running.bridge._threads)
    finally:
        is_waited_for.set()
        for one in (hub_redis, region_redis):
            one.running.signal(GOES_ON)
    assert running.code == 0


def msgspec_replace(settings, amqp: str):
    return msgspec.structs.replace(settings, hub=msgspec.structs.replace(settings.hub, amqp=amqp))


def test_what_pika_says_of_a_lost_broker_is_not_in_the_log(region: Region, tmp_path: Path) -> None:
    """It says it in six lines, and each time that it is tried again."""
    process = start_process(msgspec_replace(region.settings(), "amqp://127.0.0.1:1/"), region.name, tmp_path)
    try:
        log = tmp_path / "bridge.log"
        until(lambda: "RabbitMQ is away: Connection refused" in log.read_text(), "the reason")
    finally:
        process.terminate()
        process.wait(60)
    lines = [msgspec.json.decode(line) for line in log.read_text().splitlines()]
    assert {line.get("part") for line in lines} == {"bridge"}, lines


def test_a_redis_below_its_floor_is_refused(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "REDIS_FLOOR", (99, 0))
    with region.bridging() as running:
        running.thread.join(60)
        assert running.code == 1


def test_a_bridge_that_is_stopped_while_it_connects_ends_well(region: Region) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = region.settings()
        hub = msgspec.structs.replace(config.hub, amqp=f"amqp://127.0.0.1:{silent.getsockname()[1]}/")
        running = InThread(msgspec.structs.replace(config, hub=hub), region.name)
        connection, _ = silent.accept()
        with connection:
            running.stop()
    assert running.code == 0


def test_a_broker_below_its_floor_is_refused(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "RABBITMQ_FLOOR", (99, 0))
    with region.bridging() as running:
        running.thread.join(60)
        assert running.code == 1


def test_a_thread_that_dies_ends_the_bridge(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that thread it would hold its messages for ever."""

    def die(_self) -> None:
        raise LookupError("a fault of ours")

    monkeypatch.setattr(bridge_module.Durable, "run_once", die)
    with region.bridging() as running:
        running.thread.join(60)
        assert running.code == 1


def test_a_bridge_is_told_of_the_first_clock_and_of_a_stop_however_seldom_it_looks(region: Region, monkeypatch) -> None:
    monkeypatch.setattr(bridge_module, "EVERY_SECONDS", 600.0)
    monkeypatch.setattr(bridge_module, "STOP_SECONDS", 600.0)
    with region.bridging() as running:
        running.wait_for("consuming")
        until(lambda: running.bridge._watch.is_calm, "it to have nothing to do")
        tasks = region.tasks(3)
        region.broker.publish(*tasks)
        region.each_once(tasks)
        until(lambda: not running.bridge._watch.is_calm, "its looks to be frequent while jobs wait")
        running.stop()


def test_a_redis_that_restarts_is_counted_though_no_look_met_it_away(region: Region) -> None:
    with region.bridging() as running:
        for restarts in (1, 2):
            running.wait_for("consuming")
            region.redis.running.kill()
            region.redis.running.start()
            until(lambda: running.status.redis_lost >= restarts, "the restart to be counted")  # noqa: B023


def test_what_a_bridge_waits_for_at_its_start_is_no_warning_and_what_stops_it_later_is_one(
    region: Region, capfd
) -> None:
    def lines(said: str) -> list[str]:
        log.append(capfd.readouterr().out)
        return [line for line in "".join(log).splitlines() if said in line]

    log: list[str] = []
    region.redis.running.stop()
    with region.bridging() as running:
        running.wait_for("starting", "its Redis is away")  # without it the clocks can't be compared either
        first = until(lambda: lines("its Redis is away"), "the line")
        region.redis.running.start()
        running.wait_for("consuming")
        until(lambda: lines("consuming"), "the line")
        log.clear()
        region.redis.running.stop()
        later = until(lambda: lines("its Redis is away"), "the line")
        region.redis.running.start()
        running.wait_for("consuming")
        log.clear()
    assert not any("warning" in line or "fault" in line for line in first)
    assert "warning" in later[0]
    assert "region-redis-away" in later[0]
    assert running.status.reason == "stopping"
    assert running.status.fault == ""
    assert not any("warning" in line for line in lines("stopping"))


def test_a_state_is_told_once(region: Region) -> None:
    told, looked = [], threading.Event()
    with region.bridging() as running:
        running.wait_for("consuming")
        bridge = running.bridge

        def look() -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(bridge, "_tell_state", told.append)
                for _ in range(3):
                    bridge._refresh()
            looked.set()

        bridge._ioloop.add_callback_threadsafe(look)
        assert looked.wait(60)
    assert len(told) <= 1


def test_a_signal_handler_never_waits_for_a_loop_that_stands_still(region: Region) -> None:
    with region.bridging() as running:
        running.wait_for("consuming")
        goes_on = threading.Event()
        running.bridge._ioloop.add_callback_threadsafe(lambda: goes_on.wait(120))
        waking = threading.Thread(target=lambda: [running.bridge._wake() for _ in range(5_000)], daemon=True)
        waking.start()
        waking.join(60)
        assert not waking.is_alive()
        goes_on.set()
