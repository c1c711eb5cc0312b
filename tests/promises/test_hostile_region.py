"""Hostile region: its credentials do all they can, and the others' tasks neither fail nor slow down."""

import os
import threading
from pathlib import Path

import pytest
import redis

from regions import connect, names
from scripts.chaos.stack import source
from scripts.stack import configuration
from tests.promises.attacking import JUNK_BYTES, Attack
from tests.promises.driving import Ledger, Poster, compared, well, window
from tests.waiting import until
from tests.wire import ask

WINDOWS = 5
ROOM_BYTES = 96_000_000  # of the hub's Redis, which a region tries to fill
GROWN_BYTES_MAX = 150_000_000  # of a gateway


@pytest.fixture
def hurt(stack):
    """A region whose tasks are the attacker's: its own bridge takes none. Afterwards it is as it was."""
    region = stack.regions[0]
    stack.stop_part(f"bridge-{region}")
    yield region
    stack.start_part(f"bridge-{region}")
    stack.redis("hub").hset(names.BARRED, region, "0 over")
    until(lambda: not stack.redis("hub").hexists(names.BARRED, region), "the region to be let in")
    well(stack)


@pytest.mark.timeout(400)
def test_a_region_whose_credentials_are_stolen_slows_and_fails_no_other(stack, hurt):
    """Undisturbed and disturbed windows in turn, under a load that goes on: every attack at once, in each disturbed one."""
    others = [region for region in stack.regions if region != hurt]
    gateway = stack.pid("gateway")
    ledger, stolen = Ledger(stack), Ledger(stack)
    calm, disturbed, attacks = [], [], []
    window(stack, others)
    before = _resident_bytes(gateway)
    with Poster(ledger, others):
        for _ in range(WINDOWS):
            calm.append(window(stack, others))
            with Attack(stack, hurt) as attack:
                for _ in range(3):
                    stolen.post([hurt] * 4, deadline=20.0)
                disturbed.append(window(stack, others))
                until(lambda attack=attack: attack.rounds, "each attack")
                for path in ("/v1/regions", "/v1/sources", "/readyz"):
                    assert ask(stack.port, "GET", path).status == 200
            attacks.append(attack)
    assert not set().union(*(one.allowed for one in attacks)), "what a region must not do was allowed"
    ledger.check()  # every task of the others, posted before and while
    for request in stolen.promised:
        assert {one["region"] for one in stolen.results(request)} == {hurt}  # readable, whatever they are
    assert sum(one.stolen for one in attacks), "no task was answered by the attacker"
    assert stack.pid("gateway") == gateway
    assert _resident_bytes(gateway) - before < GROWN_BYTES_MAX
    _is_shown(stack, hurt, others)
    is_noise, said = compared(calm, disturbed)
    print(said)
    assert is_noise, f"the others are slower: {said}"
    junk = names.result(hurt, "junk-*")
    until(lambda: not list(stack.redis("hub").scan_iter(junk, count=10_000)), "what nobody asked for to be deleted")


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _is_shown(stack, hurt: str, others: list[str]) -> None:
    """Its status says what was refused, and the others' say nothing; sources of the others are as they were."""
    view = ask(stack.port, "GET", f"/v1/regions/{hurt}").json()
    assert view["status"] == "degraded"
    assert {"kind", "result", "status", "claims", "sources", "trail", "frame"} <= set(view["refused"])
    letters = {one.decode() for one in stack.redis("hub").hkeys(names.DEAD)}
    assert {f"{hurt}:{what}" for what in view["refused"]} <= letters
    for region in others:
        view = ask(stack.port, "GET", f"/v1/regions/{region}").json()
        assert (view["status"], view["refused"]) == ("up", {})
        assert ask(stack.port, "GET", f"/v1/sources/{source(region)}").json()["health"] == "ok"


def test_a_region_that_fills_the_hub_as_fast_as_it_can_fails_no_task_of_another(stack, hurt):
    others = [region for region in stack.regions if region != hurt]
    hub = stack.redis("hub")
    limit = hub.config_get("maxmemory")["maxmemory"]
    hub.config_set("maxmemory", int(hub.info("memory")["used_memory"]) + ROOM_BYTES)
    url = configuration.hub_url(stack.data, stack.ports, hurt)
    ledger, ended = Ledger(stack), threading.Event()

    def fill() -> None:
        with connect.open_redis(url, name="attacker") as client:
            for number in range(5_000):
                try:
                    client.set(names.result(hurt, f"junk-{number}"), b"x" * JUNK_BYTES)
                except redis.exceptions.OutOfMemoryError:
                    continue
                except redis.exceptions.RedisError:
                    break
        ended.set()

    try:
        with Poster(ledger, others):
            until(lambda: len(ledger.promised) > 5, "the load")
            threading.Thread(target=fill, daemon=True).start()
            until(ended.is_set, "the region to be kept out")
            posted = len(ledger.promised)
            until(lambda: len(ledger.promised) > posted + 20, "posts to be taken again")
        ledger.check()
        reasons = ask(stack.port, "GET", f"/v1/regions/{hurt}").json()["reasons"]
        assert any("nobody asked for" in reason for reason in reasons)
    finally:
        hub.config_set("maxmemory", limit)
