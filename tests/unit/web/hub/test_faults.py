"""Which faults a region's reports show, and how they are told."""

import re
import time

import pytest
from msgspec import structs

from regions.settings import ROOT
from scripts.stack.prometheus import ALERTS
from tests.stack.rare_faults import ALL, NOT_BY_HAND
from web.hub.faults import (
    AHEAD_MS,
    KINDS,
    REFUSED_SHOWN_MS,
    SILENT_MS,
    Book,
    Found,
    Queued,
    is_idle,
    is_late,
    living,
    of_region,
    without_consequences,
)
from web.hub.region import RegionState

NOW = 1_764_416_400_000
BRIDGE = {"at_ms": NOW - 1_000, "state": "consuming", "reason": ""}
POOL = {"at_ms": NOW - 1_000, "processes": 2, "busy": 3}


def state(**said) -> RegionState:
    parts = {key.replace("_", ":", 1): value for key, value in said.items()}
    return RegionState(name="fra", now_ms=NOW, reported=parts, open_tasks=4, oldest_ms=NOW - 2_500, unread=0)


def paused(fault: str, reason: str = "why") -> dict[str, object]:
    return {**BRIDGE, "state": "paused", "reason": reason, "fault": fault}


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"bridge_a": BRIDGE, "workers_a": POOL}, []),
        ({"workers_a": POOL}, ["region-bridge-away"]),
        ({"bridge_a": {**BRIDGE, "at_ms": NOW - SILENT_MS - 1}, "workers_a": POOL}, ["region-bridge-away"]),
        ({"bridge_a": BRIDGE}, ["region-workers-away"]),
        ({"bridge_a": BRIDGE, "workers_a": {**POOL, "processes": 0}}, ["region-workers-away"]),
        ({}, ["region-down"]),
        ({"bridge_a": paused("region-redis-full"), "workers_a": POOL}, ["region-redis-full"]),
        ({"bridge_a": paused("region-redis-full"), "bridge_b": BRIDGE, "workers_a": POOL}, []),
        ({"bridge_a": paused("hub-redis-away"), "workers_a": POOL}, ["region-bridge-paused"]),  # no region's to say
        ({"bridge_a": paused("made up"), "workers_a": POOL}, ["region-bridge-paused"]),
        ({"bridge_a": paused(""), "workers_a": POOL}, ["region-bridge-paused"]),  # an older bridge
        ({"bridge_a": BRIDGE, "workers_a": {**POOL, "reason": "gone"}}, ["region-redis-away"]),
        ({"bridge_a": BRIDGE, "workers_a": {**POOL, "reason": "gone"}, "workers_b": {**POOL, "reason": "gone"}}, ["region-redis-away"]),
        ({"bridge_a": {**BRIDGE, "at_ms": NOW - SILENT_MS}, "workers_a": {**POOL, "at_ms": NOW + AHEAD_MS}}, []),
        ({"bridge_a": BRIDGE, "workers_a": {**POOL, "at_ms": NOW + AHEAD_MS + 1}}, ["region-workers-away"]),
        ({"bridge_a": BRIDGE, "workers_a": {**POOL, "processes": 0}, "workers_b": POOL}, []),
    ],
)  # fmt: skip
def test_a_fault_has_the_name_of_its_cause(said, names):
    assert [one.name for one in of_region(state(**said))] == names


def started(*seconds_ago: float, host: str = "a", **of) -> dict[str, object]:
    """The statuses of bridges that started so long ago on one host; all but the last are gone."""
    return {
        f"bridge_{host}:{number}": {**BRIDGE, "at_ms": NOW - 500, "started_ms": NOW - int(ago * 1000), **of}
        for number, ago in enumerate(seconds_ago)
    }


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (started(50, 30, 5), ["region-bridge-restarts"]),
        (started(60, 30, 5), ["region-bridge-restarts"]),
        (started(70, 30, 5), []),
        (started(-1, 30, 5), []),  # by a clock that is ahead
        ({"bridge_a:1": BRIDGE, **{f"workers_a:{one}": {**POOL, "started_ms": NOW - one} for one in range(3)}}, ["region-workers-restarts"]),
        (started(50, 30) | started(5, host="b"), []),  # three hosts, or two, may start at one time
        (started(), ["region-bridge-away"]),
        ({"bridge_a:1": {**BRIDGE, "redis_ms": 101.0}}, ["region-redis-slow"]),
        ({"bridge_a:1": {**BRIDGE, "redis_ms": 100.0, "redis_lost": 2}}, []),
        ({"bridge_a:1": {**BRIDGE, "redis_lost": 3}}, ["region-redis-restarts"]),
    ],
)  # fmt: skip
def test_what_comes_and_goes_or_is_slow_is_a_fault(said, names):
    assert [one.name for one in of_region(state(**said, **{"workers_a:9": POOL}))] == names


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"died": 3, "death": "fra.worker.1 ended with -9"}, "worker processes die: 3 in a minute, the last one: fra.worker.1 ended with -9"),
        ({"died": 2}, None),
        ({"hung": 1}, "worker processes do not run: 1 of 2"),
        ({"outbox_bytes": 64_000_000, "outbox_max": 64_000_000}, "its results do not reach the hub: 64 MB of them wait"),
        ({"outbox_bytes": 64_000_000}, None),  # an older pool does not say its limit
    ],
)  # fmt: skip
def test_what_is_wrong_with_workers_is_said_reason_first(pool, message):
    found = of_region(state(**{"bridge_a:1": BRIDGE, "workers_a:1": {**POOL, **pool}}))
    assert [one.message for one in found] == ([message] if message else [])


def test_what_is_wrong_with_workers_of_several_hosts_is_added():
    two = {f"workers_{host}:1": {**POOL, "hung": 1, "died": 2, "death": host} for host in "ab"}
    found = of_region(state(**{"bridge_a:1": BRIDGE, **two}))
    assert [one.message for one in found] == [
        "worker processes do not run: 2 of 4", "worker processes die: 4 in a minute, the last one: a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ({"barred": "it fills the hub"}, ["region-barred"]),
        ({"refused": {"b": 2, "a": 1}, "refused_ms": NOW - REFUSED_SHOWN_MS}, ["region-entries-refused"]),
        ({"refused": {"b": 2, "a": 1}, "refused_ms": NOW - REFUSED_SHOWN_MS - 1}, []),
        ({"refused": {}, "refused_ms": NOW}, []),  # an operator has dropped the examples
    ],
)
def test_what_the_hub_refuses_of_a_region_is_told_for_a_time(told, names):
    said = structs.replace(state(**{"bridge_a:1": BRIDGE, "workers_a:1": POOL}), **told)
    found = of_region(said)
    assert [one.name for one in found] == names
    assert all(
        part in found[0].message
        for part in ("1 a, 2 b" if "refused" in told and names else "", told.get("barred", ""))
        if found
    )


def test_a_bridge_without_a_consumer_is_gone_though_it_has_just_said_that_it_consumes():
    said, now = state(**{"bridge_a:1": BRIDGE, "workers_a:1": POOL}), time.monotonic()
    assert of_region(said, Queued(consumers=2, at=now)) == []
    (one,) = of_region(said, Queued(consumers=0, at=now + 0.5))
    assert one.name == "region-bridge-away"
    assert of_region(said, Queued(consumers=0, at=now - 0.5)) == []  # the broker was asked before
    later = {**BRIDGE, "at_ms": NOW}  # one of the two has come meanwhile
    assert (
        of_region(state(**{"bridge_a:1": BRIDGE, "bridge_b:1": later, "workers_a:1": POOL}), Queued(at=now + 0.5)) == []
    )


def test_a_moment_is_told_apart_from_what_lasts():
    late = state(**{"bridge_a:1": BRIDGE, "workers_a:1": {**POOL, "oldest_seconds": 3.0, "target_seconds": 2.0}})
    assert of_region(late) == []
    assert is_late(late) == "its oldest task waits for 3.0 s, 2 s are its target"
    for age, target in ((2.0, 2.0), (3.0, 0.0)):
        pool = {**POOL, "oldest_seconds": age, "target_seconds": target}
        assert is_late(state(**{"workers_a:1": pool})) == ""
    assert is_late(state(**{"workers_a:1": {**POOL, "oldest_seconds": 0.6, "target_seconds": 0.5}}))
    queued = Queued(ready=7, consumers=2)
    assert is_idle(late, queued) == "its bridge gets nothing: 7 messages are ready in RabbitMQ"
    busy = state(**{"bridge_a:1": {**BRIDGE, "unacked": 5}})
    assert (is_idle(busy, queued), is_idle(late, Queued(consumers=2)), is_idle(late, None)) == ("", "", "")


def test_the_age_of_a_report_is_told_in_tenths_of_a_second():
    (bridge,) = living(state(**{"bridge_a:1": {**BRIDGE, "at_ms": NOW - 1_234}}), "bridge")
    assert bridge["age_seconds"] == 1.2


def test_a_fault_is_told_since_it_began_and_ends_when_it_is_gone():
    book, fault = Book(), Found("region-redis-away", "its Redis is away: x", region="fra")
    began, ended = book.see(NOW, [fault])
    assert [(one.name, one.region, one.since, one.severity) for one in began] == [
        ("region-redis-away", "fra", "2025-11-29T11:40:00.000Z", "page")
    ]
    assert not ended
    assert book.see(NOW + 5_000, [fault._replace(message="its Redis is away: y")]) == ([], [])
    (one,) = book.faults
    assert (one.since, one.message) == ("2025-11-29T11:40:00.000Z", "its Redis is away: y")
    began, ended = book.see(NOW + 9_000, [])
    assert not began
    assert [fault.name for fault in ended] == ["region-redis-away"]
    assert book.faults == ()


def test_what_wakes_somebody_comes_first_then_the_oldest():
    book = Book()
    book.see(NOW, [Found("dead-letters", "3")])
    book.see(NOW + 1, [Found("dead-letters", "3"), Found("history-away", "x"), Found("region-down", "x", region="sin")])
    assert [one.name for one in book.faults] == ["region-down", "dead-letters", "history-away"]


def test_a_region_is_not_blamed_for_a_broker_that_is_away_for_the_gateway_too():
    found = [Found("rabbitmq-away", "x"), *(Found("region-rabbitmq-away", "x", region=one) for one in ("fra", "nyc"))]
    book = Book()
    book.see(NOW, found)
    assert [one.name for one in book.faults] == ["rabbitmq-away"]
    book.see(NOW, found[1:])
    assert [one.name for one in book.faults] == ["region-rabbitmq-away"] * 2


def test_a_region_that_is_kept_out_is_not_blamed_for_saying_nothing():
    silent = [Found("region-down", "x", region=one) for one in ("fra", "nyc")]
    told = without_consequences([Found("region-barred", "it fills the hub", region="fra"), *silent])
    assert [(one.name, one.region) for one in told] == [("region-barred", "fra"), ("region-down", "nyc")]


def test_every_name_that_the_parts_say_is_one():
    texts = [
        path.read_text(encoding="utf-8") for room in ("bridge", "web", "jobs") for path in (ROOT / room).rglob("*.py")
    ]
    beginnings = "|".join(sorted({name.partition("-")[0] for name in KINDS}))
    said = {name for text in texts for name in re.findall(rf'"((?:{beginnings})-[a-z]+(?:-[a-z]+)*)"', text)}
    names = {name for name in said if name.startswith(("region-", "hub-redis-", "rabbitmq-"))}
    assert len(names) > 15
    assert names - {*KINDS, f"region-{'REGION'}", "region-dead"} == set()


def test_what_mends_a_fault_fills_in_whose_it_is():
    book = Book()
    book.see(NOW, [Found("source-degraded", "x", region="fra", source="ecb.rates")])
    assert "--source ecb.rates" in book.faults[0].mend
    assert book.faults[0].runbook == "/runbooks#source-degraded"


def test_faults_of_one_moment_come_in_the_order_of_their_regions():
    book = Book()
    book.see(NOW, [Found("region-down", "x", region=region) for region in ("nyc", "fra")])
    assert [one.region for one in book.faults] == ["fra", "nyc"]


@pytest.mark.parametrize("name", KINDS)
def test_words_of_a_fault_are_filled_in_and_empty_where_there_are_none(name):
    told = {"region": "fra", "source": "ecb.rates", "part": "workers a"}
    for said in (told, {}):
        book = Book()
        book.see(NOW, [Found(name, "x", **said)])
        (fault,) = book.faults
        words = {word: said.get(word, "") for word in ("region", "source")}
        assert fault.mend == KINDS[name].mend.format(**words)
        assert (fault.part or "") == (said.get("part") or KINDS[name].part.format(**words))


def test_every_kind_is_whole():
    assert all(kind.severity in ("page", "ticket") and kind.cost and kind.mend for kind in KINDS.values())


def test_what_wakes_somebody_names_a_command():
    commands = r"\b(nearfetch|redis-cli|systemctl|journalctl|rabbitmq-diagnostics) [\w-]+|\bulimit -n\b"
    assert [
        name for name, kind in KINDS.items() if kind.severity == "page" and not re.search(commands, kind.mend)
    ] == []


def test_each_fault_of_the_table_is_done_by_hand_or_can_not_be():
    """``python -m tests.stack.stopwatch`` does them to a real stack."""
    done = {case.alert for case in ALL if case.is_told}
    assert done - {one.name for one in ALERTS} | set(NOT_BY_HAND) == set(KINDS)
    assert not done & set(NOT_BY_HAND)
