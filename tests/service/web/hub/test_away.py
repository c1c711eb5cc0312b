"""When the hub's Redis counts as away: after a silence that is too long, however long an answer takes to arrive."""

import os
import signal
import subprocess
import sys
import time

import pytest

from regions import connect
from regions.settings import ROOT
from scripts.stack.ports import free_port
from scripts.stack.probes import listens
from scripts.stack.services import Running, Service
from scripts.stack.wan_links import Control, Rule, Way
from tests.service.hub_parts import accepted, settings, settle
from tests.waiting import until
from web.hub import redis
from web.hub.ledger import Ledger
from web.hub.redis import SHORT_OF_FILES, Hub, HubAway

SECONDS = 2.0  # of the time-out here: more than a busy machine takes for an answer
LARGE = 3_000_000


@pytest.fixture
def hub(tmp_path, hub_redis, monkeypatch):
    monkeypatch.setattr(connect, "TIMEOUT_SECONDS", SECONDS)
    made = Hub(settings(tmp_path, redis=hub_redis.url))
    made.start()
    yield made
    made.stop()


@pytest.mark.usefixtures("patient_clients")
def test_the_connection_of_the_first_accept_is_open_when_the_hub_is_known(tmp_path, hub_redis):
    """It is the one on which an accept was tried, so that no client waits for it to be opened."""
    made = Hub(settings(tmp_path, redis=hub_redis.url))
    made.rehearse = made.client.ping
    made.start()
    try:
        assert [one["name"] for one in hub_redis.client.client_list()].count("gateway") == 1
    finally:
        made.stop()


def test_a_hub_that_is_silent_for_less_than_the_time_out_is_not_away(hub, hub_redis):
    lost, marked = [], hub.lost
    hub.lost = lambda error: lost.append(error) or marked(error)
    began = time.monotonic()
    hub_redis.client.execute_command("CLIENT", "PAUSE", 500, "ALL")
    with hub.asking() as client:
        assert client.ping()
    assert time.monotonic() - began > 0.4  # it was silent
    assert (lost, hub.away, hub.state) == ([], None, None)


def test_a_hub_that_is_silent_for_longer_is_away_for_all_until_it_answers_again(hub, hub_redis):
    regained = []
    hub.regained.append(lambda: regained.append(time.monotonic()))
    hub_redis.running.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(HubAway), hub.asking() as client:
            client.ping()
        assert time.monotonic() - began > SECONDS - 0.2 or hub.away  # the probe may have noticed it first
        calls = []
        with pytest.raises(HubAway), hub.asking() as client:
            calls.append(client)
        with pytest.raises(HubAway):
            hub.check()
        assert calls == []  # later calls are refused without asking
        assert regained == []
    finally:
        hub_redis.running.signal(signal.SIGCONT)
    until(lambda: hub.away is None, "the hub")
    assert len(regained) == 1
    with hub.asking() as client:
        assert client.ping()


def test_a_large_result_may_arrive_for_longer_than_the_time_out(tmp_path, hub_redis, monkeypatch):
    """Only silence counts: each part that arrives shows that the hub is there."""
    monkeypatch.setattr(connect, "TIMEOUT_SECONDS", SECONDS)
    port, control_port = free_port(), free_port()
    words = [sys.executable, "-m", "scripts.stack.wan", "--control", str(control_port), f"hub={port}:{hub_redis.port}"]
    proxy = Running(Service("proxy", words, tmp_path / "proxy.log", listens(control_port))).start()
    control = Control(control_port)
    hub = Hub(settings(tmp_path, redis=f"redis://127.0.0.1:{port}/0"))
    try:
        hub.start()
        ledger = Ledger(hub.client, settings(tmp_path).limits)
        new, _ = accepted(ledger)
        settle(ledger, hub_redis.client, new, 0, b'["%b"]' % os.urandom(LARGE).hex().encode())
        control.rule("hub", Rule(back=Way(bytes_per_second=LARGE / SECONDS / 1.5)))
        began = time.monotonic()
        with hub.asking():
            view = ledger.read(new.id)
        assert time.monotonic() - began > SECONDS
        assert len(view.results[0]) > LARGE
        until(lambda: hub.away is None, "the hub to be there: its probe may be late on a busy machine")
    finally:
        hub.stop()
        control.close()
        proxy.stop()


SHORT = """
import contextlib, os, resource, sys
from pathlib import Path
from tests.service.hub_parts import settings
from web.hub.redis import SHORT_OF_FILES, Hub, HubAway

hub = Hub(settings(Path(sys.argv[1]), redis=sys.argv[2]))
hub.run_once()
assert hub.faults() == [], hub.faults()
hub.client.connection_pool.disconnect()
most = max(int(one) for one in os.listdir("/proc/self/fd")) + 1
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
while True:  # until none is free below that
    try:
        os.dup(0)
    except OSError:
        break
for _ in range(3):
    try:
        with hub.asking() as client:
            client.ping()
    except HubAway:
        pass
    names = [one.name for one in hub.faults()]
    hub._away = None  # as if it had answered in between
assert names == ["gateway-connections-full"], names
with contextlib.suppress(HubAway), hub.asking() as client:
    client.ping()
print([(one.name, one.message) for one in hub.faults()])
"""


def test_a_gateway_that_may_open_no_more_files_blames_itself_and_not_the_hub(tmp_path, hub_redis):
    done = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path), hub_redis.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str([("gateway-connections-full", SHORT_OF_FILES)]), done.stdout


@pytest.mark.usefixtures("patient_clients")
def test_a_hub_that_was_lost_is_asked_again_at_once(tmp_path, hub_redis, monkeypatch):
    """While all was calm the probe slept on: calls were refused for up to a second, though only an old connection was broken."""
    monkeypatch.setattr(redis, "CALM_SECONDS", 3_600.0)
    monkeypatch.setattr(redis, "PROBE_SECONDS", 3_600.0)
    hub = Hub(settings(tmp_path, redis=hub_redis.url))
    hub.start()
    try:
        assert hub.away is None
        hub.lost(ConnectionError("an old connection"))
        until(lambda: hub.away is None, "the hub to be asked")
    finally:
        hub.stop()
