"""What every page of a whole stack says while one of its servers hangs or has no room: what is away, by its name."""

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.stack.services import RabbitMQ
from tests.stack.driving import Ledger, is_up_by_status
from tests.waiting import Not, freeze, until
from tests.wire import ask

SECONDS = 150.0  # a broker that hangs is noticed by its missed heartbeats


@pytest.fixture(scope="module")
def stack(forked_stack):
    return forked_stack


@contextlib.contextmanager
def hanging(stack, part: str) -> Iterator[None]:
    """One of its servers hangs; afterwards all is well, or the test is at fault."""
    group = os.getpgid(stack.pids()[part])
    freeze(group)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)
        until(lambda: is_up_by_status(stack), f"all to be well after {part}", SECONDS)


def said(stack, path: str, status: int) -> Callable[[], dict | None]:
    """What a path answers, once it does with this status."""

    def get() -> dict | None:
        reply = ask(stack.port, "GET", path)
        return reply.json() if reply.status == status else None

    return get


def status_says(stack, words: str) -> str:
    """What ``nearfetch status`` prints once it says that, with its exit code for what is away."""

    def run() -> str:
        done = stack.nearfetch("status", check=False)
        return done.stdout if done.returncode == 1 and words in done.stdout else ""

    return until(run, f"status to say {words}", SECONDS)


def region_says(stack, region: str, words: str) -> dict:
    """The view of a region once one of its reasons says that."""

    def get() -> dict | None:
        reply = ask(stack.port, "GET", f"/v1/regions/{region}")
        return view if reply.status == 200 and words in " ".join((view := reply.json())["reasons"]) else None

    return until(get, f"{region} to say {words}", SECONDS)


def is_told(stack, name: str) -> None:
    """A fault is at ``/v1/faults``, ``/readyz``, ``/v1/regions``, ``/metrics``, in the console and in the log, by its name.

    The page of alerts links every runbook; what fires stands in its own list.
    """
    fault = until(
        lambda: next((one for one in stack.get("/v1/faults")["faults"] if one["name"] == name), None), name, SECONDS
    )
    until(lambda: f'"fault":"{name}"' in stack.log("gateway"), f"{name} in the log", SECONDS)
    until(lambda: f'nearfetch_fault{{name="{name}"' in ask(stack.port, "GET", "/metrics").body.decode(), "the metric")
    member = "faults" if fault["severity"] == "page" else "tickets"
    until(lambda: name in ask(stack.port, "GET", "/readyz").json()[member], f"{name} at /readyz", SECONDS)
    until(lambda: name in named_at_regions(stack, fault["region"]), f"{name} at /v1/regions", SECONDS)
    until(lambda: f"<h2>{name}</h2>" in ask(stack.port, "GET", "/alerts").body.decode(), f"{name} at /alerts", SECONDS)


def named_at_regions(stack, region: str | None) -> list[str]:
    """The faults that ``/v1/regions`` names: those of a region, or those that are no region's."""
    answer = ask(stack.port, "GET", "/v1/regions").json()
    if region is None:
        return answer["faults"]
    return next((one["faults"] for one in answer.get("regions", ()) if one["name"] == region), [])


def test_a_hub_that_hangs_is_named_and_the_catalogue_is_still_there(stack):
    with hanging(stack, "hub"):
        problem = until(said(stack, "/readyz", 503), "the gateway to see it", SECONDS)
        assert "the hub's Redis does not answer" in problem["detail"]
        is_told(stack, "hub-redis-away")
        assert ask(stack.port, "GET", "/v1/regions").status == 503
        assert ask(stack.port, "GET", "/healthz").status == 200
        text = status_says(stack, "not ready")
        assert "the hub's Redis does not answer" in text
        assert re.search(r"regions: unknown .*does not answer", text)
        assert "source" in text
        told = json.loads(stack.nearfetch("status", "--json", check=False).stdout)
        assert (told["regions"], bool(told["regions_fault"]), bool(told["sources"])) == ([], True, True)


def of_region(stack, region: str) -> tuple[str, set[str]]:
    """A region's status, and the faults that are its own. On a busy machine its Redis may be slow besides."""
    view = stack.get(f"/v1/regions/{region}")
    return view["status"], {name for name in view["faults"] if name.startswith("region-")} - {"region-redis-slow"}


def is_named_alone(stack, region: str, fault: str) -> bool | Not:
    """Whether a region is degraded by this fault and by no other of its own."""
    found = of_region(stack, region)
    return found == ("degraded", {fault}) or Not(found)


def test_a_broker_that_hangs_is_named_by_the_gateway_and_by_every_region(stack):
    with hanging(stack, "rabbitmq"):
        assert ask(stack.port, "POST", "/v1/requests", body={"sources": ["ecb.rates"]}).status == 503
        problem = until(said(stack, "/readyz", 503), "the gateway to see it", SECONDS)
        assert "the broker" in problem["detail"]
        is_told(stack, "rabbitmq-away")
        for region in ("fra", "nyc", "sin"):
            region_says(stack, region, "RabbitMQ is away")
            until(lambda one=region: is_named_alone(stack, one, "region-rabbitmq-away"), region, SECONDS)
        assert not [one for one in stack.get("/v1/faults")["faults"] if one["name"] == "region-rabbitmq-away"]
        text = status_says(stack, "RabbitMQ is away")
        assert "the broker" in text


def test_a_broker_without_room_on_its_disk_is_named_and_what_it_has_goes_on(stack, inside):
    broker = RabbitMQ(
        Path(stack.data) / "rabbitmq", inside.ports["broker"], password=inside.secrets["rabbitmq"]
    )  # its own ports and cookie are kept there
    ledger = Ledger(stack)
    before = ledger.post(["slow.example"])
    try:
        broker.evaluate('rabbit_disk_monitor:set_disk_free_limit("1000000GB").')

        def refused() -> dict | None:
            reply = ask(stack.port, "POST", "/v1/requests", body={"sources": ["ecb.rates"]})
            if reply.status == 202:
                ledger.note(reply.json())
            return reply.json() if reply.status == 503 else None

        problem = until(refused, "a post to be refused", SECONDS)
        assert "takes no messages: low on disk" in problem["detail"]
        until(lambda: "low on disk" in (said(stack, "/readyz", 503)() or {}).get("detail", ""), "/readyz", SECONDS)
        is_told(stack, "rabbitmq-blocked")
        assert "low on disk" in status_says(stack, "not ready")
        ledger.collect(before)  # bridges consume all the same
        until(lambda: of_region(stack, "fra")[0] == "up", "fra to be up", SECONDS)
    finally:
        broker.evaluate('rabbit_disk_monitor:set_disk_free_limit("50MB").')
    until(said(stack, "/readyz", 200), "the alarm to end", SECONDS)
    for request in set(ledger.promised) - {before}:
        ledger.collect(request)
    ledger.collect(ledger.post(["ecb.rates"]))
    ledger.check()


def test_a_regions_redis_that_hangs_is_named_and_nobody_calls_its_workers_dead(stack):
    """The others go on; its own tasks wait for it."""
    ledger = Ledger(stack)
    with hanging(stack, "redis-fra"):
        view = region_says(stack, "fra", "its bridge is paused: its Redis is away")
        assert view["status"] == "degraded"
        is_told(stack, "region-redis-away")
        waits = region_says(stack, "fra", "its workers wait: its Redis is away")
        assert waits["workers"][0]["processes"] >= 2
        assert not any("no worker" in reason for reason in waits["reasons"])
        until(said(stack, "/readyz", 200), "the gateway to be ready", SECONDS)
        until(lambda: of_region(stack, "nyc")[0] == "up", "nyc to be up", SECONDS)
        text = status_says(stack, "its Redis is away")
        assert re.search(r"^  fra .*degraded", text, re.MULTILINE)
        ledger.collect(ledger.post(["quakes.day"]))
        waiting = ledger.post(["ecb.rates"], deadline=200)
    ledger.collect(waiting)
    ledger.check()


def test_a_history_that_hangs_is_named_before_anybody_asks_it_and_requests_go_on(stack):
    ledger = Ledger(stack)
    with hanging(stack, "store"):
        until(
            lambda: ask(stack.port, "GET", "/readyz").json().get("history") not in ("ok", "off"),
            "it to be named",
            SECONDS,
        )
        until(said(stack, "/readyz", 200), "the gateway to be ready", SECONDS)
        is_told(stack, "history-away")
        assert "history: the history does not answer" in status_says(stack, "history:")
        assert ask(stack.port, "GET", "/v1/requests").status == 503
        request = ledger.post(["ecb.rates"])
        ledger.collect(request)
    ledger.check()
    until(
        lambda: request in [one["id"] for one in ask(stack.port, "GET", "/v1/requests").json().get("requests", ())],
        "its archive",
        SECONDS,
    )
