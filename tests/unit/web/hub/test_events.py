"""What happens to a region between two looks is noted, once."""

from web.hub.events import Happened, of_faults
from web.hub.faults import Book, Found
from web.hub.region import RegionState
from web.hub.takeover import DRAINED, Record

NOW = 1_764_416_400_000
POOL = {"at_ms": NOW, "processes": 2, "lost": 4, "death": "fra.worker.1 ended with -9", "started_ms": NOW - 900_000}
BRIDGE = {"at_ms": NOW, "state": "consuming", "started_ms": NOW - 2_000}


def fra(**said) -> dict[str, RegionState]:
    parts = {key.replace("_", ":", 1): of for key, of in said.items()}
    return {"fra": RegionState(name="fra", now_ms=NOW, reported=parts, open_tasks=0, oldest_ms=None, unread=0)}


def seen(happened: Happened, states, records=None) -> list[tuple[str, str]]:
    return [(event.kind, event.message) for region, event in happened.see(states, records or {}) if region == "fra"]


def test_a_lost_worker_and_a_part_that_starts_are_noted_once():
    happened = Happened()
    assert seen(happened, fra(workers_a=POOL)) == []  # what was before the first look is not known
    assert seen(happened, fra(workers_a={**POOL, "lost": 6})) == [
        ("lost-worker", "lost 2 of its worker processes: fra.worker.1 ended with -9")
    ]
    assert seen(happened, fra(workers_a={**POOL, "lost": 6})) == []
    assert seen(happened, fra(workers_a={**POOL, "lost": 6}, bridge_a=BRIDGE)) == [("restarted", "a bridge started: a")]
    old = {**BRIDGE, "started_ms": NOW - 61_000}  # its reports were read again: it is no news
    assert seen(happened, fra(workers_a={**POOL, "lost": 6}, bridge_a=BRIDGE, bridge_b=old)) == []


def test_a_drain_and_its_end_are_noted():
    happened, record = Happened(), {"fra": Record(why=DRAINED, since_ms=NOW)}
    assert seen(happened, fra(), record) == []
    assert [kind for kind, _ in seen(happened, fra())] == ["resumed"]
    assert [kind for kind, _ in seen(happened, fra(), record)] == ["drained"]


def test_a_region_that_gets_its_tasks_again_is_back():
    happened, record = Happened(), {"fra": Record(why="down", since_ms=NOW)}
    assert seen(happened, fra(), record) == []
    assert seen(happened, fra(), {"fra": Record(why="down", since_ms=NOW, well_ms=NOW)}) == []
    assert seen(happened, fra()) == [("back", "it gets its new tasks again")]
    assert seen(happened, fra()) == []


def test_a_fault_is_an_event_when_it_begins_and_when_it_ends():
    book, fault = Book(), Found("region-redis-away", "its Redis is away", region="fra")
    other = Found("hub-redis-full", "full")
    (began,) = of_faults(NOW, *book.see(NOW, [fault, other]))
    assert (began[0], began[1].kind, began[1].message) == ("fra", "paused", "its Redis is away")
    (ended,) = of_faults(NOW, *book.see(NOW, [other]))
    assert (ended[1].kind, ended[1].message) == ("resumed", "over: its Redis is away")
