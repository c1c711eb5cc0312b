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
from tests.promises.driving import Ledger, Poster, compared, slow_nobody, well, window
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


@pytest.mark.timeout(900)
def test_a_region_whose_credentials_are_stolen_slows_and_fails_no_other(stack, hurt):
    """Undisturbed and disturbed windows in turn, under a load that goes on: every attack at once, in each disturbed one."""
    others = [region for region in stack.regions if region != hurt]
    gateway = stack.pid("gateway")
    ledger, stolen = Ledger(stack), Ledger(stack)
    attacks: list[Attack] = []

    def measured() -> tuple[bool, str]:
        calm, disturbed = [], []
        for _ in range(WINDOWS):
            calm.append(window(stack, others))
            with Attack(stack, hurt) as attack:
                for _ in range(3):
                    stolen.post([hurt] * 4, deadline=20.0)
                disturbed.append(window(stack, others))
                until(lambda attack=attack: attack.rounds, "each attack")
                for path in ("/v1/regions", "/v1/sources", "/readyz"):
                    until(lambda one=path: ask(stack.port, "GET", one).status == 200, f"an answer of {path}")
            attacks.append(attack)
        return compared(calm, disturbed)

    window(stack, others)
    before = _resident_bytes(gateway)
    with Poster(ledger, others):
        slow_nobody(measured)
    assert not set().union(*(one.allowed for one in attacks)), "what a region must not do was allowed"
    ledger.check()  # every task of the others, posted before and while
    for request in stolen.promised:
        assert {one["region"] for one in stolen.results(request)} == {hurt}  # readable, whatever they are
    assert sum(one.stolen for one in attacks), "no task was answered by the attacker"
    assert stack.pid("gateway") == gateway
    assert _resident_bytes(gateway) - before < GROWN_BYTES_MAX
    _is_shown(stack, hurt, others)
    junk = names.result(hurt, "junk-*")
    until(lambda: not list(stack.redis("hub").scan_iter(junk, count=10_000)), "what nobody asked for to be deleted")


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _is_shown(stack, hurt: str, others: list[str]) -> None:
    """Its status says what was refused, and the others' say nothing; sources of the others are as they were."""
    expected = {"kind", "result", "status", "claims", "sources", "trail", "frame"}

    def refused() -> set[str]:
        view = told(stack, f"/v1/regions/{hurt}")
        found = set(view.get("refused", ()))
        return found if view.get("status") == "degraded" and expected <= found else set()

    letters = {f"{hurt}:{what}" for what in until(refused, "what was refused to be shown")}
    until(lambda: letters <= {one.decode() for one in stack.redis("hub").hkeys(names.DEAD)}, "a letter of each")
    for region in others:
        path = f"/v1/regions/{region}"
        view = until(lambda one=path: (seen := told(stack, one)).get("status") == "up" and seen, f"{region} to be up")
        assert view["refused"] == {}
        until(lambda one=region: told(stack, f"/v1/sources/{source(one)}").get("health") == "ok", "its source")


def told(stack, path: str) -> dict:
    """What a page says; nothing while it can't, as when the hub was slow for a moment."""
    reply = ask(stack.port, "GET", path)
    return reply.json() if reply.status == 200 else {}


def test_a_region_that_fills_the_hub_as_fast_as_it_can_fails_no_task_of_another(stack, hurt):
    others = [region for region in stack.regions if region != hurt]
    hub = stack.redis("hub")
    limit = hub.config_get("maxmemory")["maxmemory"]
    hub.config_set("maxmemory", int(hub.info("memory")["used_memory"]) + ROOM_BYTES)
    url = configuration.hub_url(stack.data, stack.ports, hurt)
    ledger, ended = Ledger(stack), threading.Event()

    def fill() -> None:
        with connect.open_redis(url, name="attacker", block_seconds=30.0) as client:
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
        path, why = f"/v1/regions/{hurt}", "nobody asked for"
        until(lambda: any(why in one for one in told(stack, path).get("reasons", ())), "the region's status")
    finally:
        hub.config_set("maxmemory", limit)
