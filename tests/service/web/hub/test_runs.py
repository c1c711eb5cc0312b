"""What the hub learns of sources from the runs that come home, on a real Redis: once each, by any number of gateways."""

import json
import re
import signal
from datetime import UTC, datetime, timedelta

import pytest

from jobs.contract import Attempt, Run, Trail, encode_trail
from regions import connect, names
from tests.service.hub_parts import Heard, new_request, send_home, settings
from tests.waiting import Clock, until
from web.flow import out_streams
from web.flow.settle import Settler
from web.hub.ledger import Ledger
from web.hub.redis import Hub
from web.hub.runs import JUDGE_SECONDS, WAIT_SECONDS, Runs, learned
from web.hub.traffic import ALL, DAY_SECONDS, DAYS, read_days, read_today
from web.hub.verdict import KEPT, RUNS_MIN

SOURCE = "ecb.rates"  # of the requests that hub_parts makes


@pytest.fixture
def parts(patient_clients, tmp_path, hub_redis):
    found = settings(tmp_path, redis=hub_redis.url)
    hub = Hub(found)
    hub.start()
    ledger = Ledger(hub.client, found.limits)
    yield found, hub, ledger
    hub.stop()


@pytest.fixture
def clock():
    return Clock()


def gateway(parts, clock) -> Settler:
    """A gateway's settler, which writes what runs showed when the test says so and not once a second."""
    found, hub, ledger = parts
    settler = Settler(found, hub, ledger, Heard())
    settler._runs = Runs(settler._reader, clock)
    settler._housekeeping_at = float("inf")
    return settler


def run(error: str = "", source: str = SOURCE, **fields) -> Run:
    origin = {"": "", "contract": "parser", "timeout": "network"}.get(error, "internal")
    usual = {"rows": 30, "raw_bytes": 54_000, "received_bytes": 12_000, "records_bytes": 3_000, "wire_bytes": 900}
    usual = usual if not error else {"wire_bytes": 300}
    return Run(**{"source": source, "definition": "0a1b2c3d", "error": error, "origin": origin, **usual, **fields})


def trail(one: Run) -> bytes:
    return encode_trail(Trail(5, [Attempt(1, 6, 9, "fra.worker.1", "", "")], one))


def settled(parts, settler, hub_redis, *runs: Run, twice: bool = False) -> None:
    """Tasks whose runs showed this, each ended once."""
    _, _, ledger = parts
    for one in runs:
        new = new_request()
        times = ledger.begin(new)
        assert ledger.accept([new.id])[0] == [True]
        status = "failed" if one.error else "succeeded"
        for _ in range(1 + twice):
            send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10, status=status, trail=trail(one))
        until(lambda new=new: settler.run_once() or ledger.read(new.id).done, "the task to be settled")
    until(lambda: settler.run_once() or not hub_redis.client.xlen(names.out_stream("fra")), "everything to be read")


def events(capsys) -> list[str]:
    """What was logged of sources' health."""
    return re.findall(r"source (degraded|recovered) .*part=health.*", capsys.readouterr().out)


def kept(hub_redis, source: str = SOURCE) -> list[dict]:
    return [json.loads(text) for text in hub_redis.client.lrange(names.runs(source), 0, -1)]


def test_each_task_counts_once_however_often_its_entry_is_read(parts, clock, hub_redis):
    settler = gateway(parts, clock)
    settled(parts, settler, hub_redis, run(), run(rows=29), run("contract"), twice=True)
    settler._runs.flush()
    assert [(one[2], one[5]) for one in kept(hub_redis)] == [("contract", 0), ("", 29), ("", 30)]
    sums = {"runs": 3, "failed": 1, "raw": 108_000, "received": 24_000, "spared": 0, "records": 6_000, "wire": 2_100}
    assert parts[2].regions(["fra"])[0].traffic == {SOURCE: sums}
    assert parts[2].regions(["nyc"])[0].traffic == {}


def test_runs_are_written_while_the_gateway_goes_on(parts, clock, hub_redis, monkeypatch):
    monkeypatch.setattr(out_streams, "BLOCK_SECONDS", 0.01)
    settler = gateway(parts, clock)
    settled(parts, settler, hub_redis, run())
    assert kept(hub_redis) == []
    settler._housekeeping_at = 0.0
    settler.run_once()
    assert len(kept(hub_redis)) == 1


def test_a_verdict_is_one_whoever_reads_and_its_change_is_told_once(parts, clock, hub_redis, capsys):
    one, other = gateway(parts, clock), gateway(parts, clock)
    settled(parts, one, hub_redis, *[run()] * 20)
    settled(parts, other, hub_redis, *[run()] * 20)
    for settler in (one, other):
        settler._runs.flush()
    before = learned(hub_redis.client)[SOURCE]
    assert (before.verdict.health, before.verdict.runs, before.verdict.before) == ("ok", 20, 20)
    for settler in (one, other):
        settled(parts, settler, hub_redis, *[run(rows=3)] * 10)
    clock.now += JUDGE_SECONDS
    for settler in (one, other, one, other):
        settler._runs.flush()
    found = learned(hub_redis.client)[SOURCE]
    assert (found.verdict.health, found.verdict.reasons) == ("degraded", ["3 records a run, 30 before"])
    assert found.since_ms >= before.since_ms
    clock.now += JUDGE_SECONDS
    settled(parts, one, hub_redis, *[run()] * 11)
    one._runs.flush()
    assert learned(hub_redis.client)[SOURCE].verdict.health == "ok"
    assert events(capsys) == ["degraded", "recovered"]


def test_two_gateways_that_judge_at_the_same_time_write_once(parts, clock, hub_redis, capsys):
    """The later one sees that somebody wrote meanwhile, and looks again with its next flush."""
    one, other = Runs(hub_redis.client, clock), Runs(hub_redis.client, clock)
    for _ in range(20):
        one.add("fra", run("contract"), 1)
    judge, seen = other._judge, []

    def late(due, answers, now_ms):
        if not seen:
            seen.append(1)
            one.flush()
        judge(due, answers, now_ms)

    other._judge = late
    for _ in range(20):
        other.add("fra", run("contract"), 1)
    other.flush()
    assert other._unjudged == {SOURCE}
    other.flush()
    assert other._unjudged == set()
    assert learned(hub_redis.client)[SOURCE].verdict.health == "degraded"
    assert events(capsys) == ["degraded"]


def test_no_more_runs_are_kept_than_are_compared(parts, clock, hub_redis):
    runs = Runs(hub_redis.client, clock)
    for number in range(2 * KEPT):
        runs.add("fra", run(rows=number), 1)
        if number % 50 == 0:
            runs.flush()
    runs.flush()
    assert [one[5] for one in kept(hub_redis)] == list(range(2 * KEPT - 1, KEPT - 1, -1))
    assert 0 < hub_redis.client.ttl(names.runs(SOURCE)) <= 30 * 86_400


def test_what_is_ours_and_what_another_run_brought_count_for_bytes_alone(parts, clock, hub_redis):
    runs = Runs(hub_redis.client, clock)
    for one in (run("internal"), run("expired"), run(own=False)):
        runs.add("fra", one, 1)
    runs.flush()
    assert kept(hub_redis) == []
    assert learned(hub_redis.client) == {}
    assert parts[2].regions(["fra"])[0].traffic[SOURCE]["wire"] == 1_500


def test_an_outage_of_the_regions_own_network_degrades_nothing(parts, clock, hub_redis):
    """All its hosts fail; a host that fails alone is another matter."""
    runs = Runs(hub_redis.client, clock)
    for number in range(40):
        for source in ("a", "b", "c"):
            runs.add("fra", run("timeout", source, host=f"https://{source}:443"), number * 100)
            runs.add("nyc", run("" if source != "c" else "timeout", f"{source}.ny", host="https://c:443"), number * 100)
    runs.flush()
    assert kept(hub_redis, "c.ny") == [], "before it is known what happened to others nothing is said"
    clock.now += WAIT_SECONDS
    runs.flush()
    found = learned(hub_redis.client)
    assert {source: one.verdict.health for source, one in found.items()} == {
        "a.ny": "ok",
        "b.ny": "ok",
        "c.ny": "degraded",
    }
    assert found["c.ny"].verdict.reasons == ["0 of the last 20 runs succeeded, the others failed: 20 timeout"]


def test_a_trail_that_says_something_else_costs_no_result(parts, clock, hub_redis):
    """An older region says nothing of runs, a newer one more; and what is no trail at all is passed over."""
    _, _, ledger = parts
    settler = gateway(parts, clock)
    longer = json.dumps([*json.loads(trail(run())), {"more": 1}]).encode()
    longer_run = json.dumps([5, [], [*json.loads(trail(run()))[2], "more"]]).encode()
    for text in (b"[5,[]]", b"[5,[],null]", longer, longer_run, b"", b"[5", b'[5,[],{"rows":"x"}]', b'[5,[],["a"]]'):
        new = new_request()
        times = ledger.begin(new)
        ledger.accept([new.id])
        send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10, trail=text)
        until(lambda new=new: settler.run_once() or ledger.read(new.id).done, f"the task with {text} to be settled")
        assert ledger.read(new.id).status == "succeeded"
    settler._runs.flush()
    assert len(kept(hub_redis)) == 2


def test_a_hub_without_room_settles_and_is_told_later_what_runs_showed(parts, clock, hub_redis):
    settler = gateway(parts, clock)
    settled(parts, settler, hub_redis, run())
    hub_redis.client.config_set("maxmemory", 1)
    settler._runs.flush()
    assert kept(hub_redis) == []
    hub_redis.client.config_set("maxmemory", 0)
    settled(parts, settler, hub_redis, run(rows=7), run("contract"))
    settler._runs.flush()
    settler._runs.flush()
    assert [one[5] for one in kept(hub_redis)] == [0, 7, 30]
    sums = {"runs": 3, "failed": 1, "raw": 108_000, "received": 24_000, "spared": 0, "records": 6_000, "wire": 2_100}
    assert parts[2].regions(["fra"])[0].traffic == {SOURCE: sums}


def test_what_may_have_arrived_is_not_written_again(parts, clock, hub_redis):
    """The hub took it, and its answer was lost: more of the same would be twice as many runs."""
    client = connect.open_redis(hub_redis.url, name="test", block_seconds=30.0)
    client.ping()
    runs = Runs(client, clock)
    runs.add("fra", run(), 1)
    hub_redis.running.signal(signal.SIGSTOP)
    runs.flush()
    hub_redis.running.signal(signal.SIGCONT)
    until(lambda: len(kept(hub_redis)) == 1, "what was sent to arrive")
    runs.flush()
    assert len(kept(hub_redis)) == 1
    assert parts[2].regions(["fra"])[0].traffic[SOURCE]["runs"] == 1


def test_what_lies_there_from_another_version_is_passed_over(parts, clock, hub_redis):
    hub_redis.client.lpush(names.runs(SOURCE), b"{}", b"nonsense")
    hub_redis.client.hset(names.HEALTH, mapping={SOURCE: b"nonsense", "other": b"[]"})
    hub_redis.client.hset(names.traffic("fra"), mapping={"more:x": 5, "raw:x": 7})
    assert learned(hub_redis.client) == {}
    runs = Runs(hub_redis.client, clock)
    for _ in range(20):
        runs.add("fra", run("contract"), 1)
    runs.flush()
    assert learned(hub_redis.client)[SOURCE].verdict.health == "degraded"
    assert parts[2].regions(["fra"])[0].traffic["x"]["raw"] == 7


def test_a_gateway_that_stops_writes_what_it_has(parts, hub_redis):
    settler = Settler(*parts, Heard())
    settler.start()
    _, _, ledger = parts
    new = new_request()
    times = ledger.begin(new)
    ledger.accept([new.id])
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10, trail=trail(run()))
    until(lambda: ledger.read(new.id).done, "the task to be settled")
    settler.stop()
    assert len(kept(hub_redis)) == 1


def test_bytes_are_summed_by_source_region_and_day(parts, clock, hub_redis):
    """A day is the hub's. Another gateway adds to the same sums, and so does one that starts later."""
    has_time = lambda: connect.redis_now_ms(hub_redis.client) % 86_400_000 < 86_370_000  # noqa: E731
    until(has_time, "the next day, if this one is about to end")
    one, other = Runs(hub_redis.client, clock), Runs(hub_redis.client, clock)
    same = run(raw_bytes=0, received_bytes=300, spared_bytes=12_000)
    for runs, found in ((one, run()), (one, same), (other, run("contract")), (other, run(source="more"))):
        runs.add("fra", found, 1)
    for runs in (one, other):
        runs.flush()
    now_ms = connect.redis_now_ms(hub_redis.client)
    sums = {
        "runs": 3,
        "failed": 1,
        "raw": 54_000,
        "received": 12_300,
        "spared": 12_000,
        "records": 6_000,
        "wire": 2_100,
    }
    asked = [("fra", SOURCE), ("fra", ALL), ("nyc", ALL)]
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    found = read_days(hub_redis.client, now_ms, asked)
    assert found["fra", SOURCE] == {today.isoformat(): sums}
    assert found["fra", ALL][today.isoformat()]["wire"] == 3_000
    assert found["nyc", ALL] == {}
    assert read_today(hub_redis.client, now_ms, ["fra", "nyc"])["fra"].keys() == {SOURCE, "more"}
    clock.now += DAY_SECONDS
    one.add("fra", run(), 1)
    one.flush()
    tomorrow = (today + timedelta(days=1)).isoformat()
    found = read_days(hub_redis.client, now_ms + DAY_SECONDS * 1000, asked)
    assert [(day, of["runs"]) for day, of in found["fra", SOURCE].items()] == [(tomorrow, 1), (today.isoformat(), 3)]
    assert parts[2].regions(["fra"])[0].traffic[SOURCE]["runs"] == 4, "since ever"


def test_days_are_forgotten_and_nothing_else_grows(parts, clock, hub_redis):
    runs = Runs(hub_redis.client, clock)
    runs.add("fra", run(), 1)
    runs.flush()
    (key,) = hub_redis.client.keys(names.traffic_of_day("fra", "*"))
    assert (DAYS + 1) * DAY_SECONDS - 60 <= hub_redis.client.ttl(key) <= (DAYS + 1) * DAY_SECONDS
    assert hub_redis.client.ttl(names.traffic("fra")) == -1
    later_ms = connect.redis_now_ms(hub_redis.client) + DAYS * DAY_SECONDS * 1000
    assert read_days(hub_redis.client, later_ms, [("fra", ALL)])["fra", ALL] == {}, "not shown any more, either"


def test_the_ratio_of_a_source_is_judged_and_told_once(parts, clock, hub_redis, capsys):
    runs = Runs(hub_redis.client, clock)
    for number in range(2 * RUNS_MIN):
        runs.add("fra", run(received_bytes=700), 1)
        if number >= RUNS_MIN:
            clock.now += JUDGE_SECONDS
            runs.flush()
    verdict = learned(hub_redis.client)[SOURCE].verdict
    assert (verdict.health, verdict.notes) == (
        "ok",
        ["more goes home than its pages have: they are 0.78 times that, so its region saves nothing"],
    )
    assert capsys.readouterr().out.count("source saves nothing") == 1
