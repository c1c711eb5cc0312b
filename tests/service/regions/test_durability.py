"""A Redis that is set so that it can't keep what is promised is refused, every shortfall at once, by all who stand on it."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

from regions import connect, durability, names
from regions.link import Link
from regions.settings import ROOT
from scripts.cli import main
from scripts.stack import hub_acl
from scripts.stack.services import free_port
from tests.forked import COMMAND, Forked
from tests.service import hub_parts
from tests.service.conftest import RedisInstance
from tests.waiting import until
from tests.wire import ask
from web.hub.redis import Hub, HubRefuses

pytestmark = pytest.mark.usefixtures("patient_clients")
BAD = {
    "appendonly": "no",
    "appendfsync": "no",
    "no-appendfsync-on-rewrite": "yes",
    "maxmemory": "0",
    "maxmemory-policy": "allkeys-lru",
}


def spoil(instance: RedisInstance) -> None:
    for setting, value in BAD.items():
        instance.client.config_set(setting, value)


def mend(instance: RedisInstance, shortfalls: list[durability.Shortfall]) -> None:
    """Does what each shortfall says mends it."""
    for one in shortfalls:
        words = one.mend.partition(",")[0].split()
        assert words[:2] == ["CONFIG", "SET"]
        instance.client.execute_command(*words)


def test_every_shortfall_is_found_at_once_and_mended_by_what_it_says(hub_redis):
    assert durability.look(hub_redis.client) == durability.Found([], "everysec", keeps_file=True)
    spoil(hub_redis)
    found = durability.look(hub_redis.client)
    assert {one.setting: one.found for one in found.shortfalls} == BAD
    assert not found.keeps_file
    with pytest.raises(durability.NotDurable) as refused:
        durability.check(hub_redis.client, "it", "strict", "hub.durability")
    assert all(f"{setting}: expected" in str(refused.value) for setting in BAD)
    assert durability.check(hub_redis.client, "it", "relaxed", "hub.durability") == found
    mend(hub_redis, found.shortfalls)
    assert durability.look(hub_redis.client).shortfalls == []


def test_a_cluster_is_refused(hub_redis):
    """Our scripts and transactions write several keys, which would lie on several nodes."""
    configure(hub_redis, "cluster-enabled no", f"cluster-enabled yes\ncluster-port {free_port()}")
    found = durability.look(hub_redis.client).shortfalls
    assert [str(one) for one in found] == ["cluster-enabled: expected no, found yes"]


def configure(instance: RedisInstance, before: str, after: str) -> None:
    """Starts it again with another line in its configuration."""
    instance.running.stop()
    config = instance.running.service.log.with_name("redis.conf")
    lines = [line for line in config.read_text().splitlines() if line != before]
    config.write_text("\n".join([*lines, after, ""]))
    instance.running.start()


def test_what_its_user_may_not_see_falls_short_and_the_rest_is_seen(start_redis):
    instance = start_redis(users={"app": ("secret", "~* &* +@all -config")})
    instance.client.config_set("maxmemory-policy", "allkeys-lru")
    with connect.open_redis(f"redis://app:secret@127.0.0.1:{instance.port}/0", name="app") as client:
        found = durability.look(client)
    told = {one.setting: one.found for one in found.shortfalls}
    assert list(told) == ["appendfsync", "io-threads", "no-appendfsync-on-rewrite", "maxmemory-policy"]
    assert "CONFIG GET is refused" in told["appendfsync"]
    assert "config|get" in told["appendfsync"]
    assert found.keeps_file


def test_a_region_may_not_look_at_the_hubs_settings(start_redis):
    """It has no need to: gateways do. What it asks there says nothing of them."""
    from scripts.stack import hub_acl

    instance = start_redis(users={"region-fra": ("secret", hub_acl.rules("fra"))})
    with (
        connect.open_redis(f"redis://region-fra:secret@127.0.0.1:{instance.port}/0", name="fra") as client,
        pytest.raises(connect.redis.exceptions.NoPermissionError),
    ):
        durability.look(client)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a part by its command; its settings are variables, its log is ``part.log``."""
    started: list[subprocess.Popen] = []

    def begin(*words: str, **settings: str) -> subprocess.Popen:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")}
        with (tmp_path / "part.log").open("ab") as log:
            started.append(
                Forked(
                    ["-m", "scripts.cli", *words],
                    imported=COMMAND,
                    cwd=ROOT,
                    env={**clean, "NEARFETCH__LOG__FORMAT": "json", **settings},
                    stdout=log,
                    stderr=log,
                )
            )
        return started[-1]

    yield begin
    for process in started:
        process.terminate()
        process.wait(60)


def logged(tmp_path, word: str) -> str:
    """The first line of the log that holds a word; empty when none does."""
    lines = (tmp_path / "part.log").read_text().splitlines()
    return next((line for line in lines if word in line), "")


def test_a_gateway_does_not_start_on_a_hub_that_would_lose_its_promises(hub_redis, start, tmp_path):
    spoil(hub_redis)
    process = start("gateway", NEARFETCH__HUB__REDIS=hub_redis.url, NEARFETCH__GATEWAY__PORT=str(free_port()))
    assert process.wait(60) == 1
    told = logged(tmp_path, "the gateway can't start")
    assert all(f"{setting}: expected" in told for setting in BAD)
    assert 'hub.durability = \\"relaxed\\"' in told


def test_a_relaxed_gateway_starts_and_says_what_may_be_lost(hub_redis, start, tmp_path):
    spoil(hub_redis)
    port = free_port()
    start(
        "gateway",
        NEARFETCH__HUB__REDIS=hub_redis.url,
        NEARFETCH__HUB__DURABILITY="relaxed",
        NEARFETCH__GATEWAY__PORT=str(port),
    )
    until(lambda: logged(tmp_path, "serving"), "the gateway", 60)
    assert sum("redis not durable" in line for line in (tmp_path / "part.log").read_text().splitlines()) == len(BAD)
    assert "hub's Redis" not in ask(port, "GET", "/readyz").json()["detail"]  # there is no broker


def test_a_hub_that_comes_back_with_other_settings_takes_no_requests_until_they_are_mended(tmp_path, hub_redis):
    hub_redis.running.stop()
    hub = Hub(hub_parts.settings(tmp_path, redis=hub_redis.url))
    hub.start()
    try:
        assert "does not answer" in hub.state
        hub_redis.running.start()
        spoil(hub_redis)
        # It may look between two of the settings, and looks again.
        until(lambda: all(f"{setting}: expected" in (hub.state or "") for setting in BAD), "all settings to be seen")
        assert "can't keep what is promised" in hub.state
        with pytest.raises(HubRefuses):
            hub.check()
        with hub.asking() as client:  # what was accepted before is still settled and read
            client.ping()
        mend(hub_redis, durability.look(hub_redis.client).shortfalls)
        until(lambda: hub.state is None, "the hub to be ready")
        hub_redis.client.config_set("appendonly", "no")  # while it runs
        until(lambda: "appendonly: expected yes, found no" in (hub.state or ""), "the change to be seen")
    finally:
        hub.stop()


def test_workers_do_not_start_on_a_redis_that_would_lose_their_jobs(hub_redis, region_redis, start, tmp_path):
    spoil(region_redis)
    urls = {"NEARFETCH__HUB__REDIS": hub_redis.url, "NEARFETCH__REGION__FRA__REDIS__URL": region_redis.url}
    process = start("workers", "fra", **urls)
    assert process.wait(60) == 1
    told = logged(tmp_path, "can't start")
    assert all(f"{setting}: expected" in told for setting in BAD)
    start("workers", "fra", **urls, NEARFETCH__REGION__FRA__REDIS__DURABILITY="relaxed")
    until(lambda: logged(tmp_path, "started a worker"), "a relaxed pool", 60)
    assert logged(tmp_path, "redis not durable")


def test_workers_that_wait_for_their_redis_look_at_it_when_it_comes(hub_redis, region_redis, start, tmp_path):
    region_redis.running.stop()
    urls = {"NEARFETCH__HUB__REDIS": hub_redis.url, "NEARFETCH__REGION__FRA__REDIS__URL": region_redis.url}
    process = start("workers", "fra", **urls)
    until(lambda: logged(tmp_path, "waiting for the region's Redis"), "the pool to wait", 60)
    configure(region_redis, "appendonly yes", "appendonly no")
    assert process.wait(60) == 1
    assert "appendonly: expected yes, found no" in logged(tmp_path, "can't start")


def test_config_check_says_every_shortfall_and_how_it_is_mended(monkeypatch, hub_redis, region_redis):
    for variable in [key for key in os.environ if key.startswith("NEARFETCH")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("NEARFETCH__HUB__REDIS", hub_redis.url)
    for region in ("FRA", "NYC", "SIN"):
        monkeypatch.setenv(f"NEARFETCH__REGION__{region}__REDIS__URL", region_redis.url)
    monkeypatch.setenv("NEARFETCH__REGION__NYC__REDIS__DURABILITY", "relaxed")
    spoil(region_redis)
    as_json, shown = (CliRunner().invoke(main, ["config", "check", *words]) for words in (["--json"], []))
    servers = {one["what"]: one for one in json.loads(as_json.output)["servers"]}
    assert servers["central Redis"]["shortfalls"] == []
    assert {one["setting"] for one in servers["Redis of fra"]["shortfalls"]} == set(BAD)
    assert servers["Redis of nyc"]["relaxed"]
    assert durability.POWER_LOSS in shown.output
    assert "fix it: CONFIG SET appendonly yes" in shown.output
    assert as_json.exit_code == shown.exit_code == 1


@pytest.mark.parametrize(
    ("now", "then", "is_written"),
    [
        ((0, 9, 0, 5), None, True),  # no fsync is pending: it writes before it replies
        ((1, 0, 0, 5), None, True),  # nothing is unwritten
        ((1, 9, 0, 5), None, False),
        ((1, 9, 0, 5), (1, 9, 0, 5), False),
        ((2, 1, 0, 5), (1, 9, 0, 5), False),
        ((1, 9, 0, 6), (1, 9, 0, 5), True),  # it has written since, and it always writes all of it
        ((1, 9, 3, 6), (1, 9, 0, 5), False),  # or has it a new base? then the size says nothing
        ((0, 9, 3, 6), (1, 9, 0, 5), True),
    ],
)
def test_a_file_has_what_was_done_before_where_nothing_is_postponed_or_it_grew(now, then, is_written):
    assert durability.File(*now).has(durability.File(*then) if then else None) == is_written


def test_how_far_a_file_is_written_is_read_from_a_real_server(start_redis):
    instance = start_redis()
    instance.client.set("key", "value")
    link = Link(instance.client)
    found = durability.file_of(link.one(*durability.LOOK))
    link.close()
    assert found.size_bytes > 0
    assert (found.pending_fsyncs, found.has(None)) in ((0, True), (1, found.buffer_bytes == 0))
    instance.client.config_set("appendonly", "no")
    link = Link(instance.client)
    assert durability.file_of(link.one(*durability.LOOK)).has(None)
    link.close()


def test_config_check_on_a_regions_host_takes_the_hub_for_well(monkeypatch, start_redis, region_redis):
    """A region's user may read nothing of the hub's settings: that is no fault of the hub."""
    user = names.hub_user("fra")
    hub = start_redis("hub", users={user: ("word", hub_acl.rules("fra"))})
    monkeypatch.setenv("NEARFETCH__HUB__REDIS", hub.url.replace("redis://", f"redis://{user}:word@"))
    monkeypatch.setenv("NEARFETCH__REGION__FRA__REDIS__URL", region_redis.url)
    servers = json.loads(CliRunner().invoke(main, ["config", "check", "--json"]).stdout)["servers"]
    faults = {one["what"]: one["fault"] for one in servers}
    assert (faults["central Redis"], faults["Redis of fra"]) == (None, None)
