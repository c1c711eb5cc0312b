"""When a region loses its tasks to standbys, and when it gets them again: hours of reports in a table, without a server."""

import itertools

import pytest

from web.flow.region_health import BAD_MS, GAP_MS, Memory, Seen, calm_ms, decide, see
from web.hub.takeover import Record

START_MS = 1_000_000
TURN_MS = 500
REPORT_MS = 2_000
WELL_MS = 60_000
BRIDGE = {"state": "consuming", "reason": "", "ready": 0}
POOL = {"processes": 2, "reason": "", "oldest_seconds": 0.1, "target_seconds": 2.0}
ALIVE = {"bridge:a": BRIDGE, "workers:a": POOL}


class Region:
    """A region whose parts report every 2 s, and the gateway that looks at it twice a second, and learns nothing while it need not look."""

    def __init__(self, well_ms: int = WELL_MS) -> None:
        self.now_ms, self._reported, self._well_ms = START_MS, {}, well_ms
        self.memory: Memory | None = None
        self.calm_until_ms = 0
        self.record: Record | None = None
        self.changes: list[tuple[float, str]] = []  # (seconds since the start, why)

    def goes_on(self, seconds: float, parts: dict, broker: str = "") -> str:
        """``parts`` report meanwhile, the first time at once. Returns why the region has no tasks at the end, or ""."""
        begin_ms = self.now_ms
        while self.now_ms < begin_ms + seconds * 1000:
            if (self.now_ms - begin_ms) % REPORT_MS == 0:
                self._reported.update({part: {**said, "at_ms": self.now_ms} for part, said in parts.items()})
            was = self.record
            seen = see(self.now_ms, self._reported, broker)
            self.memory, self.record = decide(self.memory, seen, was, self._well_ms)
            assert was is not None or self.record is None or self.now_ms > self.calm_until_ms
            self.calm_until_ms = max(self.calm_until_ms, self.now_ms + calm_ms(self.memory))
            if (was and was.why) != (self.record and self.record.why):
                self.changes.append(((self.now_ms - START_MS) / 1000, self.record.why if self.record else ""))
            self.now_ms += TURN_MS
        return self.record.why if self.record else ""

    def is_not_looked_at(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


def test_a_source_may_have_the_name_of_what_parts_report():
    """The list of sources stands beside the parts; ``at_ms`` as an id ended every look at every region."""
    sources = {name: {"definition": "0a1b2c3d", "fault": None} for name in ("at_ms", "state", "processes")}
    reported = {part: {**said, "at_ms": START_MS} for part, said in ALIVE.items()}
    assert see(START_MS, {**reported, "sources": sources}) == see(START_MS, reported)


@pytest.mark.parametrize(
    ("parts", "why", "detail"),
    [
        ({}, "down", "nothing was heard of it for 5 s"),
        ({"workers:a": POOL}, "consumes nothing", "no bridge is heard of for 5 s"),
        ({"bridge:a": BRIDGE}, "consumes nothing", "no worker is heard of for 5 s"),
        ({"workers:a": POOL, "bridge:a": {**BRIDGE, "state": "starting", "reason": "RabbitMQ is away"}}, "consumes nothing",
         "its bridge is starting: RabbitMQ is away"),
        ({"bridge:a": BRIDGE, "workers:a": {**POOL, "reason": "its Redis is away"}}, "consumes nothing",
         "its workers wait: its Redis is away"),
        ({"bridge:a": BRIDGE, "workers:a": {**POOL, "processes": 0}}, "consumes nothing", "its workers wait: no process runs"),
        ({"bridge:a": BRIDGE, "workers:a": {**POOL, "oldest_seconds": 9.5}}, "late",
         "the oldest task waits for 9.5 s, 2 s are its target"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_seen_within_five_seconds_and_named(parts, why, detail):
    region = Region()
    assert region.goes_on(30, ALIVE) == ""
    fault_at = (region.now_ms - START_MS) / 1000
    assert region.goes_on(6, parts) == why
    assert region.changes[0][0] - fault_at <= 5.0
    assert region.record.detail.replace("4 s", "5 s") == detail


def test_queues_that_take_no_messages_are_named_by_the_broker():
    region = Region()
    region.goes_on(30, ALIVE)
    assert region.goes_on(6, ALIVE, broker="the broker does not confirm for fra") == "consumes nothing"
    assert region.record.detail == "the broker does not confirm for fra"


@pytest.mark.parametrize(
    "parts",
    [
        ALIVE,
        {
            "bridge:a": {**BRIDGE, "state": "paused", "reason": "20000 jobs are ready", "ready": 20_000},
            "workers:a": POOL,
        },
        {"bridge:a": {**BRIDGE, "state": "paused", "reason": "stopping"}, "bridge:b": BRIDGE, "workers:a": POOL},
        {"bridge:a": BRIDGE, "workers:a": {"processes": 2}},  # of a version that does not say how long tasks wait
    ],
)
def test_a_region_that_works_keeps_its_tasks(parts):
    assert Region().goes_on(300, parts) == ""


def test_a_restart_of_the_bridge_or_a_pause_of_a_report_is_no_reason():
    region = Region()
    region.goes_on(30, ALIVE)
    assert region.goes_on(1, {"workers:a": POOL}) == ""
    assert region.goes_on(1, {"workers:a": POOL, "bridge:b": {**BRIDGE, "state": "starting"}}) == ""
    assert region.goes_on(30, {"workers:a": POOL, "bridge:b": BRIDGE}) == ""


def test_it_gets_its_tasks_again_when_it_was_well_for_a_minute():
    region = Region()
    region.goes_on(30, ALIVE)
    region.goes_on(20, {})
    since = region.record.since_ms
    healed_at = (region.now_ms - START_MS) / 1000
    assert region.goes_on(59, ALIVE) == "down"
    assert region.record.since_ms == since
    assert region.record.well_ms
    assert region.goes_on(3, ALIVE) == ""
    assert 60 <= region.changes[-1][0] - healed_at <= 61


def test_a_region_that_comes_and_goes_does_not_flap():
    """Ten seconds away, fifty back, for an hour: one loss, since it is never well for a minute."""
    region = Region()
    region.goes_on(30, ALIVE)
    for _ in range(60):
        region.goes_on(10, {})
        region.goes_on(50, ALIVE)
    assert [why for _, why in region.changes] == ["down"]


def test_what_is_wrong_may_change_and_the_loss_goes_on():
    region = Region()
    region.goes_on(30, ALIVE)
    region.goes_on(10, {})
    since = region.record.since_ms
    assert region.goes_on(10, {"bridge:a": BRIDGE, "workers:a": {**POOL, "oldest_seconds": 60.0}}) == "late"
    assert region.record.since_ms == since


def test_a_gateway_that_could_not_look_for_a_while_blames_nobody_for_that():
    """The hub was away, so no region could say anything: all get the time for two reports."""
    region = Region()
    region.goes_on(30, ALIVE)
    region.is_not_looked_at(120)
    assert region.goes_on(3, {}) == ""
    assert region.goes_on(30, ALIVE) == ""
    assert region.changes == []


def test_gateways_that_take_turns_at_deciding_do_not_give_a_dead_region_its_tasks():
    """Each of them knows nothing at first, so nothing looks wrong to it."""
    region = Region(well_ms=3_000)
    region.goes_on(30, ALIVE)
    region.goes_on(20, {})
    for _ in itertools.repeat(None, 30):
        region.memory = None
        assert region.goes_on(3.5, {}) == "down"
        assert region.record.well_ms == 0


def test_a_report_of_a_time_to_come_counts_as_of_now():
    reported = {part: {**said, "at_ms": START_MS + 60_000} for part, said in ALIVE.items()}
    seen = see(START_MS, reported)
    assert (seen.consuming_ms, seen.working_ms, seen.prompt_ms) == (START_MS,) * 3


def test_a_record_is_written_once_while_the_same_is_wrong():
    region = Region()
    region.goes_on(30, ALIVE)
    region.goes_on(BAD_MS / 1000 + 1, {})
    record = region.record
    region.goes_on(30, {})
    assert region.record is record


def test_nothing_is_said_by_a_region_that_never_reported():
    assert see(START_MS, {}) == Seen(now_ms=START_MS)


@pytest.mark.parametrize("state", ["starting", "stopping"])
def test_jobs_that_are_ready_say_nothing_of_a_bridge_that_neither_consumes_nor_pauses(state):
    seen = see(START_MS, {"bridge:a": {**BRIDGE, "state": state, "ready": 9, "at_ms": START_MS}})
    assert seen.consuming_ms == 0
    assert seen.fault.startswith(f"its bridge is {state}")


@pytest.mark.parametrize(
    ("part", "status", "told"),
    [
        ("bridge:a", {**BRIDGE, "state": "starting"}, lambda seen: seen.fault),
        ("workers:a", {**POOL, "processes": 0}, lambda seen: seen.fault),
        ("workers:a", {**POOL, "oldest_seconds": 9.5}, lambda seen: seen.oldest_seconds),
    ],
)
@pytest.mark.parametrize(("age_ms", "is_told"), [(BAD_MS, True), (BAD_MS + 1, False)])
def test_what_is_wrong_is_told_for_as_long_as_two_reports_may_be_missing(part, status, told, age_ms, is_told):
    assert bool(told(see(START_MS, {part: {**status, "at_ms": START_MS - age_ms}}))) == is_told


@pytest.mark.parametrize(("gap_ms", "is_void"), [(-1, True), (0, False), (GAP_MS, False), (GAP_MS + 1, True)])
def test_what_was_seen_is_void_after_a_gap_and_when_the_hubs_clock_went_back(gap_ms, is_void):
    before = START_MS - 3_000
    memory = Memory(since_ms=before, now_ms=START_MS, consuming_ms=before, working_ms=before, prompt_ms=before)
    after, _ = decide(memory, Seen(now_ms=START_MS + gap_ms), None, WELL_MS)
    assert after.since_ms == (START_MS + gap_ms if is_void else before)
    assert after.consuming_ms == after.since_ms


def test_no_bridge_consumes_from_queues_that_take_no_messages():
    reported = {part: {**said, "at_ms": START_MS} for part, said in ALIVE.items()}
    seen = see(START_MS, reported, "the broker does not confirm for fra")
    assert (seen.consuming_ms, seen.working_ms) == (0, START_MS)


@pytest.mark.parametrize(("known_ms", "well_ms"), [(BAD_MS - 1, 0), (BAD_MS, START_MS)])
def test_a_region_is_well_from_the_moment_at_which_something_wrong_would_be_known(known_ms, well_ms):
    since = START_MS - known_ms
    memory = Memory(since_ms=since, now_ms=START_MS, consuming_ms=START_MS, working_ms=START_MS, prompt_ms=START_MS)
    _, record = decide(memory, Seen(now_ms=START_MS), Record(why="down", detail="", since_ms=1), WELL_MS)
    assert record.well_ms == well_ms


@pytest.mark.parametrize(("well_for_ms", "is_back"), [(WELL_MS - 1, False), (WELL_MS, True)])
def test_it_has_its_tasks_again_at_the_end_of_that_time_and_not_before(well_for_ms, is_back):
    memory = Memory(since_ms=1, now_ms=START_MS, consuming_ms=START_MS, working_ms=START_MS, prompt_ms=START_MS)
    lost = Record(why="down", detail="", since_ms=1, well_ms=START_MS - well_for_ms)
    _, record = decide(memory, Seen(now_ms=START_MS), lost, WELL_MS)
    assert (record is None) == is_back
