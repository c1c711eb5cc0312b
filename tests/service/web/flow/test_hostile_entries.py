"""Whatever a region appends: it is judged by itself, and no other region's task waits for it."""

import json
import re

import pytest
from backports import zstd

from jobs import contract, result_frame
from jobs.contract import Attempt, Run, Trail, encode_trail
from jobs.definition.catalog import Catalog
from regions import names
from tests import sources
from tests.service.hub_parts import Heard, frame, new_request, send_home, settings
from tests.waiting import until
from web.flow import out_streams, settle
from web.flow.dead import DeadLetters
from web.flow.refusals import Refusals
from web.flow.settle import Settler
from web.hub.entry import Refused
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubFull
from web.hub.runs import learned

pytestmark = pytest.mark.usefixtures("patient_clients")

DEEP = "[" * 15_000 + "]" * 15_000  # Python 3.13 reads 10,000 levels
STATUS = {"k": "status", "v": 1, "part": "bridge", "name": "h:1", "d": '{"at_ms":5,"state":"consuming"}'}


class Parts:
    """A gateway's reader and ledger on a hub; ``home`` is what the region nyc, which is honest, sends home."""

    def __init__(self, found, redis, catalog=None) -> None:
        self.settings, self.client, self.catalog = found, redis.client, catalog
        self.hub = Hub(found)
        self.hub.start()
        self.ledger = Ledger(self.hub.client, found.limits)
        self.settler = Settler(found, self.hub, self.ledger, Heard(), catalog)

    def accepted(self, *regions: str):
        new = new_request(regions)
        times = self.ledger.begin(new)
        assert self.ledger.accept([new.id])[0] == [True]
        return new, times

    def honest(self):
        new, times = self.accepted("nyc")
        send_home(self.client, new, new.tasks[0], times.created_ms + 10)
        return new

    def settles(self, new) -> list[dict]:
        """The results of a request, once it is done."""
        until(lambda: self.settler.run_once() or self.ledger.read(new.id).done, "the request to be done")
        return [json.loads(result) for result in self.ledger.read(new.id).results]

    def refused(self, region: str = "fra") -> dict[str, int]:
        return self.ledger.regions([region])[0].refused

    def is_refused(self, what: str) -> None:
        until(lambda: self.settler.run_once() or what in self.refused(), f"{what} to be counted")

    def is_drained(self, region: str = "fra") -> None:
        stream = names.out_stream(region)
        until(lambda: self.settler.run_once() or not self.client.xlen(stream), "the stream to be empty")

    def say(self, fields: dict, region: str = "fra") -> None:
        self.client.xadd(names.out_stream(region), fields)


@pytest.fixture
def parts(tmp_path, hub_redis, monkeypatch):
    monkeypatch.setattr(settle, "HOUSEKEEPING_SECONDS", 0)
    monkeypatch.setattr(out_streams, "BLOCK_SECONDS", 0.01)
    catalog = Catalog([sources.write(tmp_path / "sources")], "fra")
    catalog.refresh()
    made = Parts(settings(tmp_path, redis=hub_redis.url), hub_redis, catalog)
    yield made
    made.hub.stop()


RESULT = {"k": "result", "v": 1, "q": "R", "t": "T", "s": "succeeded", "f": 5, "b": 700, "h": ""}


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("kind", {"x": "y"}),
        ("kind", {"k": "nonsense", "v": 1}),
        ("kind", {"k": b"\xff" * 500, "v": 1}),
        ("version", {**STATUS, "v": 9}),
        ("result", {"k": "result", "v": 1}),
        ("result", {**RESULT, "v": "9" * 40}),
        ("result", {**RESULT, "b": "1e30"}),
        ("result", {**RESULT, "b": "-1"}),
        ("result", {**RESULT, "b": "9" * 30}),
        ("result", {**RESULT, "f": "inf"}),
        ("result", {**RESULT, "f": "1_0"}),
        ("result", {**RESULT, "s": "running"}),
        ("result", {**RESULT, "s": DEEP}),
        ("result", {**RESULT, "t": "T/../x"}),
        ("result", {**RESULT, "q": "R" * 65}),
        ("result", {**RESULT, "q": "\xff"}),
        ("status", {**STATUS, "d": DEEP}),
        ("status", {**STATUS, "d": f'{{"at_ms": 5, "reason": {DEEP}}}'}),
        ("status", {**STATUS, "d": f'{{"at_ms": 5, "x": {DEEP}}}'}),
        ("status", {**STATUS, "d": '{"at_ms": "5"}'}),
        ("status", {**STATUS, "d": '{"at_ms": 1e300}'}),
        ("status", {**STATUS, "d": f'{{"at_ms": {2**62}}}'}),
        ("status", {**STATUS, "d": '{"at_ms": 99999999999999}'}),
        ("status", {**STATUS, "d": "[]"}),
        ("status", {**STATUS, "d": '{"at_ms": 5, "ready": -7}'}),
        ("status", {**STATUS, "part": "workers", "d": '{"at_ms": 5, "succeeded": 1e400}'}),
        ("status", {**STATUS, "part": "workers", "d": '{"at_ms": 5, "scale": {"at_ms": []}}'}),
        ("status", {**STATUS, "part": "sources", "name": ""}),
        ("status", {**STATUS, "name": "n" * 201}),
        ("status", {**STATUS, "name": "\x1b[2J"}),
        ("status", {**STATUS, "d": json.dumps({"at_ms": 5, "reason": "x" * 50_000})}),
        ("sources", {"k": "sources", "v": 1, "d": '{"demo.list": 5}'}),
        ("sources", {"k": "sources", "v": 1, "d": '{"demo.list": {"definition": 5}}'}),
        ("sources", {"k": "sources", "v": 1, "d": DEEP}),
        ("claims", {"k": "claims", "v": 1, "d": "{}"}),
        ("claims", {"k": "claims", "v": 1, "d": "[[5, 6]]"}),
        ("claims", {"k": "claims", "v": 1, "d": '[["R/x", "T"]]'}),
        ("claims", {"k": "claims", "v": 1, "d": DEEP}),
        ("claims", {"k": "claims", "v": 1, "d": f'[["R", "T", 1, 5, null, {DEEP}]]'}),
        ("claims", {"k": "claims", "v": 1, "d": json.dumps([["R", "T", 1, 5, [2**80, []]]])}),
    ],
)
def test_an_entry_that_is_not_as_it_must_be_is_kept_as_an_example_and_the_others_settle(parts, what, fields):
    parts.say(fields)
    assert parts.settles(parts.honest())[0]["status"] == "succeeded"
    parts.is_refused(what)
    parts.is_drained()
    state = parts.ledger.regions(["fra"])[0]
    assert (state.reported, state.refused) == ({}, {what: 1})
    (letter,) = DeadLetters(parts.client).all()
    assert (letter.id, letter.region, letter.kind, letter.deaths) == (f"fra:{what}", "fra", "entry", 1)
    assert len(letter.body) < 20_000


def test_however_many_are_refused_the_letters_are_few_and_say_how_many(parts, monkeypatch):
    monkeypatch.setattr(out_streams, "APART_EVERY_SECONDS", 0.01)  # a few are read at a time
    for number in range(300):
        parts.say({**RESULT, "b": f"-{number}"})
        parts.say({**STATUS, "d": DEEP})
    while parts.client.xlen(names.out_stream("fra")):  # many turns: between two looks of is_drained it would rest
        parts.settler.run_once()
    until(lambda: parts.settler.run_once() or parts.refused() == {"result": 300, "status": 300}, "all to be counted")
    until(
        lambda: {one.id: one.deaths for one in DeadLetters(parts.client).all()}.keys() == {"fra:result", "fra:status"},
        "two",
    )


def hub_ms(client) -> int:
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


def test_a_refused_entry_is_counted_at_its_time_with_its_size_and_the_first_example(hub_redis):
    client, refusals = hub_redis.client, Refusals(hub_redis.client)
    since = hub_ms(client)
    refusals.add("fra", "1-0", {b"k": b"first", b"b": b"x" * 9_000}, Refused("kind", "why"))
    refusals.add("fra", "2-0", {b"k": b"second"}, Refused("kind", "why else"))
    refusals.flush()
    counts = {key.decode(): int(of) for key, of in client.hgetall(names.refused("fra")).items()}
    assert counts.pop("kind") == 2
    assert since <= counts.pop("at") <= hub_ms(client)
    assert counts == {}
    (letter,) = DeadLetters(client).all()
    assert (letter.fault, letter.deaths, letter.body_bytes) == ("why", 2, len("kfirstb") + 9_000)
    assert since <= client.zscore(names.DEAD_AT, letter.id) <= hub_ms(client)


def test_counts_that_a_full_hub_refuses_are_written_with_the_next(hub_redis):
    client, refusals = hub_redis.client, Refusals(hub_redis.client)
    refusals.add("fra", "1-0", {b"k": b"first"}, Refused("kind", "why"))
    refusals.add("nyc", "1-0", {b"k": b"first"}, Refused("result", "why"))
    client.config_set("maxmemory", 1)
    refusals.flush()
    assert not client.exists(names.refused("fra"), names.DEAD)
    client.config_set("maxmemory", 256_000_000)
    refusals.add("fra", "2-0", {b"k": b"second"}, Refused("kind", "why else"))
    refusals.flush()
    assert client.hget(names.refused("fra"), "kind") == b"2"
    assert client.hget(names.refused("nyc"), "result") == b"1"
    assert [letter.fault for letter in DeadLetters(client).all()] == ["why", "why"]


def test_of_refused_entries_of_a_region_the_log_has_a_line_a_minute(hub_redis, capfd, monkeypatch):
    refusals, now = Refusals(hub_redis.client), [1_000.0]
    monkeypatch.setattr("web.flow.refusals.time.monotonic", lambda: now[0])
    for region, what, at in (
        ("fra", "kind", 1_000.0), ("fra", "result", 1_059.0), ("nyc", "kind", 1_059.0), ("fra", "status", 1_060.0),
        ("fra", "claims", 1_119.0),
    ):  # fmt: skip
        now[0] = at
        refusals.add(region, "1-0", {b"k": b"x"}, Refused(what, "why"))
    said = re.findall("entry refused .* region=(.*) what=(.*) why=", capfd.readouterr().out)
    assert said == [("fra", "kind"), ("nyc", "kind"), ("fra", "status")]


@pytest.mark.parametrize(
    "trail",
    [
        DEEP.encode(),
        b"[0,[],null," + DEEP.encode() + b"]",
        b"5",
        b"x" * 70_000,
        b"[-5,[]]",
        b'[0,[[1,-9e99,0,"w","",""]]]',
    ],
)
def test_a_trail_that_can_not_be_read_costs_its_result_nothing(parts, trail):
    new, times = parts.accepted("fra")
    send_home(parts.client, new, new.tasks[0], times.created_ms + 10, trail=trail)
    assert parts.settles(new)[0]["status"] == "succeeded"
    parts.is_refused("trail")
    assert not parts.client.exists(names.trail(new.id))


@pytest.mark.parametrize(
    "run",
    [
        Run(source="demo.list", definition="0", rows=-1),
        Run(source="demo.list", definition="0", raw_bytes=2**62),
        Run(source="demo.list", definition="0", received_bytes=2**62),
        Run(source="demo.list", definition="0", spared_bytes=-1),
        Run(source="demo.list", definition="0", gaps={"f": -5}),
        Run(source="demo.list", definition="0", error="x" * 5_000),
        Run(source="demo.plain", definition="0"),
        Run(source="no.such", definition="0"),
    ],
)
def test_a_run_counts_for_the_regions_own_sources_and_within_its_bounds(parts, run):
    """Else a region could have another one's source judged degraded, or sums that no number holds."""
    new, times = parts.accepted("fra")
    trail = encode_trail(Trail(5, [Attempt(1, 6, 9, "fra.worker.1", "", "")], run))
    send_home(parts.client, new, new.tasks[0], times.created_ms + 10, trail=trail)
    assert parts.settles(new)[0]["status"] == "succeeded"
    parts.is_refused("run")
    assert learned(parts.client) == {}
    assert parts.ledger.regions(["fra"])[0].traffic == {}


def ran(source: str) -> bytes:
    """The trail of a task that ran."""
    return encode_trail(Trail(5, [Attempt(1, 6, 9, "fra.worker.1", "", "")], Run(source=source, definition="0")))


@pytest.mark.parametrize("region", ["", "nyc"])
def test_the_last_runs_of_a_source_that_was_deleted_or_moved_are_no_fault_of_its_region(parts, tmp_path, region):
    """Its tasks still ran there, by the hub's own word. They say nothing about what the source is now."""
    file = tmp_path / "sources" / "ecb.rates.toml"
    file.write_text(sources.DEMO_PLAIN.replace("nyc", "fra"))
    assert parts.catalog.refresh()
    new, times = parts.accepted("fra", "fra")
    file.write_text(sources.DEMO_PLAIN.replace("nyc", region)) if region else file.unlink()
    assert parts.catalog.refresh()
    for task in (*new.tasks, new.tasks[0]):  # the first one is read again
        send_home(parts.client, new, task, times.created_ms + 10, trail=ran("ecb.rates"))
    assert [one["status"] for one in parts.settles(new)] == ["succeeded", "succeeded"]
    parts.is_drained()
    parts.settler.run_once()
    assert parts.refused() == {}
    assert parts.client.hlen(names.trail(new.id)) == 2
    assert (learned(parts.client), parts.ledger.regions(["fra"])[0].traffic) == ({}, {})


def test_a_run_is_refused_where_the_hub_asked_another_region_for_that_task(parts):
    """Though the catalogue knows neither of them as the source's."""
    new, times = parts.accepted("nyc", "fra")
    of_nyc, own = new.tasks
    parts.say({**RESULT, "q": new.id, "t": of_nyc.id, "f": times.created_ms + 10, "h": ran("ecb.rates")})
    parts.say({**RESULT, "q": "0" * 26, "t": own.id, "f": times.created_ms + 10, "h": ran("ecb.rates")})
    until(lambda: parts.settler.run_once() or parts.refused() == {"run": 2}, "both to be refused")
    (letter,) = DeadLetters(parts.client).all()
    assert (letter.id, letter.fault) == ("fra:run", "ecb.rates is not its own")


def test_what_a_region_says_of_others_sources_is_left_out(parts):
    said = {source: {"definition": "x", "fault": "broken"} for source in ("demo.list", "demo.plain", "no.such")}
    parts.say({"k": "sources", "v": 1, "d": json.dumps(said)})
    until(lambda: parts.settler.run_once() or parts.ledger.regions(["fra"])[0].reported, "what it said")
    assert set(parts.ledger.regions(["fra"])[0].reported["sources"]) == {"demo.list"}


def test_names_of_parts_without_end_end(parts, monkeypatch):
    monkeypatch.setattr(settle, "PARTS_MAX", 5)
    for number in range(50):
        parts.say({**STATUS, "name": f"h:{number}"})
    parts.is_refused("status")
    parts.is_drained()
    assert len(parts.ledger.regions(["fra"])[0].reported) == 5
    monkeypatch.setattr(settle, "PART_LIVES_SECONDS", 0.0)  # those are silent for long
    parts.say({**STATUS, "name": "h:next"})
    parts.is_drained()
    assert len(parts.ledger.regions(["fra"])[0].reported) == 6


def reported(parts, region: str = "fra") -> dict[str, int]:
    """The bytes that the hub keeps of each part of a region."""
    return {key.decode(): len(text) for key, text in parts.client.hgetall(names.region_status(region)).items()}


def test_reports_of_a_region_are_bounded_in_bytes(parts):
    """Every gateway decodes all of them once or twice a second."""
    status = json.dumps({"at_ms": 5, "waits": [["T", 5, "x" * 190]] * 100})
    for number in range(100):
        parts.say({**STATUS, "part": "workers", "name": f"h:{number}", "d": status})
    parts.say(
        {**STATUS, "part": "workers", "name": "h:0", "d": '{"at_ms":6}'}
    )  # it gives the room of its last one back
    parts.say({"k": "sources", "v": 1, "d": json.dumps({"demo.list": {"definition": "0a1b2c3d"}})})
    parts.say(STATUS, "nyc")
    assert parts.settles(parts.honest())[0]["status"] == "succeeded"
    parts.is_refused("status")
    parts.is_drained()
    parts.is_drained("nyc")
    kept = reported(parts)
    assert settle.PARTS_BYTES_MAX - 2 * len(status) < sum(kept.values()) < settle.PARTS_BYTES_MAX
    assert {"workers:h:0", "workers:h:1", "sources"} <= kept.keys()
    assert kept["workers:h:0"] < 20
    assert reported(parts, "nyc").keys() == {"bridge:h:1"}
    (letter,) = DeadLetters(parts.client).all()
    assert letter.fault == "expected 200 bridges and pools and 1000000 bytes of their reports at most, found more"


def test_a_part_has_room_up_to_the_bounds_themselves_and_its_last_report_makes_room():
    of, most = {"a": (0.0, 400), "b": (0.0, 600)}, settle.PARTS_BYTES_MAX
    assert [settle._has_room(of, "c", size) for size in (most - 1_000, most - 999)] == [True, False]
    assert [settle._has_room(of, "a", size) for size in (most - 600, most - 599)] == [True, False]
    many = {f"h:{number}": (0.0, 1) for number in range(settle.PARTS_MAX)}
    assert [settle._has_room(many, part, 1) for part in ("h:0", "h:new")] == [True, False]


def test_a_region_that_tells_much_is_read_apart_and_the_others_are_not(parts, monkeypatch):
    """Though each report is in order, and only the last ones are kept: to judge them took half of the time for all regions."""
    status = json.dumps({"at_ms": 5, "waits": [["T", 5, "x" * 190]] * 100})
    monkeypatch.setattr(out_streams, "TOLD_BYTES_MAX", 4 * len(status))
    monkeypatch.setattr(out_streams, "TOLD_SECONDS", 3_600.0)
    for _ in range(4):
        parts.say({**STATUS, "part": "workers", "d": status})
    parts.say({**STATUS, "d": '{"at_ms":5}'}, "nyc")
    parts.is_drained("nyc")
    parts.is_drained()
    assert not parts.settler._streams._apart
    parts.say({**STATUS, "part": "workers", "d": status})
    parts.say({"k": "claims", "v": 1, "d": f"[{' ' * 30_000}]"})
    parts.is_drained()
    assert parts.settler._streams._apart.keys() == {"fra"}
    assert parts.settles(parts.honest())[0]["status"] == "succeeded"
    monkeypatch.setattr(out_streams, "TOLD_SECONDS", 0.0)  # what it told is long ago
    parts.settler._streams._apart["fra"] = 0.0
    parts.say({**STATUS, "part": "workers", "d": status})
    parts.is_drained()
    until(lambda: parts.settler.run_once() or not parts.settler._streams._apart, "it to be read with the others again")


def test_a_region_whose_trails_are_all_long_is_read_apart(parts, monkeypatch):
    """Usual ones do not count, however many results it sends."""
    monkeypatch.setattr(out_streams, "TOLD_BYTES_MAX", 30_000)
    monkeypatch.setattr(out_streams, "TOLD_SECONDS", 3_600.0)
    usual = encode_trail(Trail(5, [Attempt(1, 6, 9, "fra.worker.1", "timeout", "x" * 300)] * 10))
    usual += b" " * (out_streams.TRAIL_USUAL - len(usual))
    long = encode_trail(Trail(5, [Attempt(1, 6, 9, "fra.worker.1", "", "")] * 300))
    for trail, is_apart in ((usual, False), (long, True)):
        for _ in range(10):
            parts.say({**RESULT, "h": trail})
        parts.is_drained()
        assert ("fra" in parts.settler._streams._apart) == is_apart


def test_claims_of_what_was_not_asked_of_it_change_nothing(parts):
    new, _ = parts.accepted("nyc", "fra")
    claims = [[new.id, task.id, 1, 5] for task in new.tasks] + [["0" * 26, new.tasks[0].id, 1, 5]]
    parts.say({"k": "claims", "v": 1, "d": json.dumps(claims)})
    until(lambda: parts.settler.run_once() or parts.ledger.tasks(new.id)[1].status == "running", "its own")
    assert parts.ledger.tasks(new.id)[0].status == "queued"
    assert parts.client.exists(names.ledger("0" * 26), names.trail("0" * 26)) == 0


def test_a_region_ends_no_task_of_another_one_and_none_that_does_not_exist(parts):
    new, times = parts.accepted("nyc")
    for task in (new.tasks[0].id, "0" * 26):
        parts.client.set(names.result("fra", task), b"x")
        parts.say({**RESULT, "q": new.id, "t": task, "f": times.created_ms})
        parts.say({**RESULT, "q": "0" * 26, "t": task, "f": times.created_ms})
    parts.is_drained()
    assert not parts.ledger.read(new.id).completed
    assert parts.client.zcard(names.DUE) == 1
    assert not list(parts.client.scan_iter("nf:res:*"))  # what nobody asked for is gone
    send_home(parts.client, new, new.tasks[0], times.created_ms + 10)
    assert parts.settles(new)[0]["status"] == "succeeded"


@pytest.mark.parametrize("kind", ["SET", "LPUSH", "HSET", "XADD"])
def test_a_result_that_is_none_fails_its_own_task(parts, kind):
    new, times = parts.accepted("fra", "nyc")
    key = names.result("fra", new.tasks[0].id)
    {
        "SET": lambda: parts.client.set(key, b""),
        "LPUSH": lambda: parts.client.lpush(key, "x"),
        "HSET": lambda: parts.client.hset(key, "x", "y"),
        "XADD": lambda: parts.client.xadd(key, {"x": "y"}),
    }[kind]()
    parts.say({**RESULT, "q": new.id, "t": new.tasks[0].id, "f": times.created_ms + 10})
    send_home(parts.client, new, new.tasks[1], times.created_ms + 10)
    results = {one["task"]: one for one in parts.settles(new)}
    bad, good = (results[task.id] for task in new.tasks)
    assert (bad["status"], bad["error"]["type"], bad["source"]) == ("failed", "internal", "ecb.rates")
    assert good["status"] == "succeeded"
    parts.is_refused("frame")


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_what_a_region_says_of_a_results_size_takes_no_room_from_others_of_its_request(parts, status):
    new, times = parts.accepted("fra", "nyc")
    parts.client.set(names.result("fra", new.tasks[0].id), frame(new.tasks[0]))
    parts.say({**RESULT, "q": new.id, "t": new.tasks[0].id, "f": times.created_ms + 10, "s": status, "b": 10**12})
    parts.is_drained()
    send_home(parts.client, new, new.tasks[1], times.created_ms + 10)
    results = {one["task"]: one for one in parts.settles(new)}
    bad, good = (results[task.id] for task in new.tasks)
    assert (bad["error"]["type"], good["status"]) == ("too_large", "succeeded")
    assert parts.hub.mean_result_bytes("nyc") < 3_000


@pytest.mark.parametrize(("more", "error"), [(0, None), (1, "too_large")])
def test_a_result_has_room_for_its_head_beside_its_records(parts, more, error):
    new, times = parts.accepted("fra")
    parts.client.set(names.result("fra", new.tasks[0].id), frame(new.tasks[0]))
    size = parts.settings.limits.records_bytes_max + result_frame.HEAD_BYTES_MAX + more
    parts.say({**RESULT, "q": new.id, "t": new.tasks[0].id, "f": times.created_ms + 10, "b": size})
    (result,) = parts.settles(new)
    assert (result.get("error") or {}).get("type") == error


def test_results_that_are_large_by_a_regions_word_keep_no_task_of_another_out(parts):
    """The hub's room is counted by what each region's results were, and by no more than it may hold."""
    parts.client.config_set("maxmemory", "64mb")
    for _ in range(500):
        parts.hub.observe("fra", 5_000_000)
    parts.accepted(*["fra"] * 100)
    parts.hub.run_once()
    parts.hub.admit(["nyc"] * 100, 100)
    with pytest.raises(HubFull):
        parts.hub.admit(["fra"] * 100, 100)


def sent(parts, made: bytes, *, b: int | None = None):
    """The result of a task of fra that sent this frame, read beside one of nyc in the same request."""
    new, times = parts.accepted("fra", "nyc")
    task = new.tasks[0]
    parts.client.set(names.result("fra", task.id), made.replace(b"TASK", task.id.encode()))
    parts.say({**RESULT, "q": new.id, "t": task.id, "f": times.created_ms + 10, "b": len(made) if b is None else b})
    send_home(parts.client, new, new.tasks[1], times.created_ms + 10)
    results = parts.settles(new)
    (bad,) = [one for one in results if one["task"] == task.id and one["region"] == "fra"]
    (good,) = [one for one in results if one["task"] == new.tasks[1].id]
    assert good["status"] == "succeeded"
    assert len(results) == 2
    return bad


def head(**changes) -> bytes:
    told = contract.Result(task="TASK", source="ecb.rates", region="fra", status="succeeded", count=1)
    return json.dumps({**json.loads(result_frame.encode(told, b"[]").partition(b"\n")[0][1:]), **changes}).encode()


BOMB = zstd.compress(b"[" + b" " * 50_000_000 + b"]")


@pytest.mark.parametrize(
    "made",
    [
        b"z" + head() + b"\n" + BOMB,
        b"z" + head() + b"\n" + zstd.compress(b"[1]") + zstd.compress(b"[2]"),
        b"z" + head() + b"\n" + zstd.compress(b"[1]")[:-2],
        b"z" + head() + b"\n[1]",
        b"0" + head() + b'\n[1],"error":null},{"task":"forged","records":[]',
        b"0" + head() + b"\n[" + DEEP.encode() + b"]",
        b"0" + head() + b'\n["\xff"]',
        b"0" + head() + b"\n{}",
        b"0" + head(task="another") + b"\n[]",
        b"0" + head(region="nyc") + b"\n[]",
        b"0" + head(status=5) + b"\n[]",
        b"0" + head(bytes={"raw": -5, "records": 10**30, "wire": 0}) + b"\n[]",
        b"0" + DEEP.encode() + b"\n[]",
        b"0" + head(url="x" * 200_000) + b"\n[]",
        b"0{}\n[]",
        b"0\n",
        b"no frame",
        b"\n",
    ],
    ids=range(18),
)  # fmt: skip
def test_a_frame_that_can_not_be_read_is_a_failure_and_no_other_result_of_the_answer_is_touched(parts, made):
    bad = sent(parts, made)
    assert (bad["status"], bad["error"]["type"], bad["records"]) == ("failed", "internal", [])


def test_a_frame_may_unpack_to_what_was_said_of_it_and_no_more(parts):
    records = json.dumps([{"text": "x" * 200_000}]).encode()
    made = b"z" + head() + b"\n" + zstd.compress(records)
    assert sent(parts, made, b=len(records) + 600)["status"] == "succeeded"
    assert sent(parts, made, b=len(made))["status"] == "failed"


def test_a_frame_is_no_larger_than_what_was_said_of_it(parts):
    made = b"0" + head() + b"\n" + json.dumps(["x" * 300_000]).encode()
    assert sent(parts, made, b=700)["error"]["type"] == "internal"
    parts.is_refused("frame")


def test_a_result_that_was_settled_is_the_hubs_and_expires_when_its_request_does(parts):
    """Its region wrote it without an end, and writes it again: neither counts."""
    new, times = parts.accepted("fra")
    task = new.tasks[0]
    parts.client.set(names.result("fra", task.id), frame(task))
    parts.say({**RESULT, "q": new.id, "t": task.id, "f": times.created_ms + 10})
    (found,) = parts.settles(new)
    assert not parts.client.exists(names.result("fra", task.id))
    parts.client.set(names.result("fra", task.id), b"changed")
    parts.say({**RESULT, "q": new.id, "t": task.id, "f": times.created_ms + 10})
    parts.is_drained()
    assert [json.loads(one) for one in parts.ledger.read(new.id).results] == [found]
    assert [key.decode() for key in parts.client.scan_iter("nf:res:*")] == [names.result(names.settled("fra"), task.id)]
    assert parts.client.pexpiretime(names.result(names.settled("fra"), task.id)) == times.expires_ms


@pytest.mark.parametrize("when", ["before the gateway starts", "while it reads"])
def test_a_stream_that_is_none_stops_no_other_and_is_one_again(parts, when):
    stream = names.out_stream("fra")
    if when == "while it reads":
        parts.settles(parts.honest())
        parts.client.delete(stream)
    parts.client.set(stream, "x")
    assert parts.settles(parts.honest())[0]["status"] == "succeeded"
    parts.is_refused("stream")
    new, times = parts.accepted("fra")
    send_home(parts.client, new, new.tasks[0], times.created_ms + 10)
    assert parts.settles(new)[0]["status"] == "succeeded"
    parts.client.delete(stream)  # and again, while it is read apart
    parts.client.set(stream, "x")
    assert parts.settles(parts.honest())[0]["status"] == "succeeded"


def test_a_stream_without_its_group_gets_it_again(parts):
    parts.settles(parts.honest())
    parts.client.xgroup_destroy(names.out_stream("fra"), names.GATEWAYS)
    assert parts.settles(parts.honest())[0]["status"] == "succeeded"
    new, times = parts.accepted("fra")
    send_home(parts.client, new, new.tasks[0], times.created_ms + 10)
    assert parts.settles(new)[0]["status"] == "succeeded"


@pytest.mark.parametrize("when", ["at its start", "when it comes back"])
def test_a_full_hub_is_drained_by_a_gateway_that_begins_to_read(parts, when):
    """XGROUP CREATE is refused there, and nothing but what is read and deleted makes room."""
    if when == "when it comes back":
        parts.settles(parts.honest())
        parts.settler._streams._has_groups = False
    new = parts.honest()
    parts.client.config_set("maxmemory", 1)
    try:
        assert parts.settles(new)[0]["status"] == "succeeded"
        parts.is_drained("nyc")
    finally:
        parts.client.config_set("maxmemory", 0)
