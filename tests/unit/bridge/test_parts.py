"""The parts of a bridge without I/O: tags of an ack, readable messages, when a lane closes, clocks."""

import msgspec
import pika
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pika.exceptions import AMQPConnectionError, AMQPHeartbeatTimeout, IncompatibleProtocolError, StreamLostError

from bridge import bridge, message, report
from bridge.lane import Held
from bridge.watch import FULL, NOT_DURABLE, Levels, Measure, refused
from jobs import contract, result_frame
from web.hub.faults import KINDS


def held(*tags: int) -> Held:
    one = Held()
    for tag in tags:
        one.add(tag)
    return one


def test_a_batch_is_settled_by_one_multiple() -> None:
    tags = held(1, 2, 3, 4)
    assert tags.settle([1, 2, 3]) == [(3, True)]
    assert len(tags) == 1


def test_multiple_never_reaches_over_what_stays() -> None:
    assert held(1, 2, 3, 4, 5).settle([1, 2, 4, 5]) == [(2, True), (4, False), (5, False)]


def test_a_tag_that_was_settled_before_is_not_settled_again() -> None:
    tags = held(1, 2, 3)
    tags.settle([2])
    assert tags.settle([1, 2, 3]) == [(3, True)]
    assert tags.settle([1, 2, 3]) == []


@given(st.integers(1, 30), st.lists(st.sets(st.integers(1, 30)), max_size=6))
def test_a_broker_that_is_told_so_settles_exactly_those(count: int, rounds: list[set[int]]) -> None:
    """The broker's rule: "multiple" settles all up to the tag; settling an unknown tag closes the channel."""
    tags, broker = held(*range(1, count + 1)), set(range(1, count + 1))
    for wanted in rounds:
        going = broker & wanted
        for tag, multiple in tags.settle(sorted(wanted)):
            assert tag in broker
            broker -= {one for one in broker if one <= tag} if multiple else {tag}
        assert not broker & going
        assert len(broker) == len(tags)


def properties(kind: str | None = "task", task: str | None = "01TASK", request: str | None = "01REQUEST"):
    return pika.BasicProperties(type=kind, message_id=task, correlation_id=request)


def a_task(**changes) -> contract.Task:
    fields = {"task": "01TASK", "request": "01REQUEST", "source": "s", "region": "fra"}
    return contract.Task(**{**fields, "accepted_ms": 1, "deadline_ms": 2, "expires_ms": 3, **changes})


def test_tasks_and_cancels_are_read() -> None:
    cancel = contract.Cancel(task="01TASK", request="01REQUEST", deadline_ms=5)
    assert message.read("fra", properties(), contract.encode(a_task())) == a_task()
    assert message.read("fra", properties("cancel"), contract.encode(cancel)) == cancel


def test_neighbouring_versions_and_unknown_fields_are_read() -> None:
    body = msgspec.json.decode(contract.encode(a_task()))
    for version in (contract.VERSION - 1, contract.VERSION + 1):
        assert message.read("fra", properties(), msgspec.json.encode({**body, "v": version, "new": [1]}))


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("task", b"\xff\xfe", "task:"),
        ("task", b"", "task:"),
        ("task", b"[" * 100_000, "task:"),
        ("task", b'{"more": ' + b"[" * 100_000, "task: expected JSON, found it nested too deeply"),
        ("cancel", b'{"more": ' + b"[" * 100_000, "cancel: expected JSON, found it nested too deeply"),
        ("task", b'{"v": 1}', "task"),
        ("task", contract.encode(a_task(v=7)), "version 0 to 2, found 7"),
        ("task", contract.encode(a_task(region="nyc")), 'found one for "nyc"'),
        ("task", contract.encode(a_task(task="a:b")), 'found "a:b"'),
        ("task", contract.encode(a_task()).replace(b'"deadline_ms":2', b'"deadline_ms":"2"'), "deadline_ms"),
        *[
            ("task", contract.encode(a_task(**{field: odd})), field)
            for field in ("accepted_ms", "deadline_ms", "expires_ms")
            for odd in (-1, 10**16, 10**400)
        ],
        ("task", contract.encode(a_task(max_age=1e306)), "max_age"),
        ("cancel", contract.encode(contract.Cancel(task="a", request="b", deadline_ms=10**16)), "deadline_ms"),
        ("cancel", contract.encode(contract.Cancel(v=9, task="a", request="b", deadline_ms=1)), "found 9"),
        (None, contract.encode(a_task()), 'found ""'),
        ("mail", contract.encode(a_task()), 'found "mail"'),
        ("mail", b"\xff", 'expected a message of type "task" or "cancel", found "mail"'),
    ],
)
def test_what_cannot_be_read_says_what_was_found(kind: str | None, body: bytes, said: str) -> None:
    with pytest.raises(message.Unreadable, match=said):
        message.read("fra", properties(kind), body)


def test_an_unreadable_task_fails_by_the_ids_of_its_message() -> None:
    outcome = message.failed("fra", properties(), "expected JSON", now_ms=1000, ttl_ms=50)
    assert outcome is not None
    assert (outcome.task, outcome.request, outcome.status) == ("01TASK", "01REQUEST", "failed")
    assert (outcome.finished_ms, outcome.expires_ms) == (1000, 1050)
    assert result_frame.head(outcome.frame).attempts == 0
    error = result_frame.head(outcome.frame).error
    assert error is not None
    assert (error.type, error.origin) == ("internal", "internal")
    assert "expected JSON" in error.message


@pytest.mark.parametrize("ids", [("cancel", "a", "b"), ("task", None, "b"), ("task", "a", None), ("task", "a:*", "b")])
def test_nobody_is_told_where_nobody_waits(ids: tuple) -> None:
    assert message.failed("fra", properties(*ids), "x", now_ms=0, ttl_ms=1) is None


def test_the_work_lane_closes_at_its_mark_and_opens_well_below() -> None:
    levels = Levels(100)
    seen = []
    for ready in (99, 100, 99, 80, 79, 99):
        levels.see(Measure(ready=ready))
        seen.append(bool(levels.work_reason))
    assert seen == [False, True, True, True, False, False]
    assert not levels.fast_reason


def test_memory_closes_the_work_lane_first_and_the_fast_lane_last() -> None:
    levels = Levels(100)
    seen = []
    for used in (69, 70, 89, 90, 85, 84, 65, 64):
        levels.see(Measure(used=used, limit=100))
        seen.append((bool(levels.work_reason), bool(levels.fast_reason)))
    closed_both, closed_work = (True, True), (True, False)
    assert seen == [
        (False, False),
        closed_work,
        closed_work,
        closed_both,
        closed_both,
        closed_work,
        closed_work,
        (False, False),
    ]


def test_a_redis_without_a_limit_of_memory_is_never_full() -> None:
    levels = Levels(100)
    levels.see(Measure(used=10**12, limit=0))
    assert not levels.work_reason
    assert not levels.fast_reason


def test_a_closed_lane_names_its_fault():
    """Gateways report it by that name, and operators find what mends it."""
    levels = Levels(10)
    levels.see(Measure(ready=10))
    assert levels.work_reason == ("10 jobs are ready", "region-backlog")
    levels.see(Measure(used=95, limit=100))
    assert {levels.work_reason.fault, levels.fast_reason.fault} == {"region-redis-full"}
    for error in ("OOM command not allowed", redis.exceptions.OutOfMemoryError("command not allowed")):
        assert refused(error) == FULL == "region-redis-full"
    assert refused("MISCONF") == "region-redis-refuses-writes"
    assert {"region-backlog", "region-redis-full", "region-redis-refuses-writes", NOT_DURABLE} <= KINDS.keys()


def test_a_clock_is_read_half_a_round_trip_after_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    trips = iter([0.08, 0.08, 2.0, 0.08, 0.08])  # one is late on its way back

    def ask() -> int:
        trip = next(trips)
        answer = round((now[0] + 0.04) * 1000) + 5000
        now[0] += trip
        return answer

    assert report.less_monotonic_ms(ask) == pytest.approx(5000, abs=1)


def test_a_known_clock_is_asked_once_and_after_a_step_as_often_as_an_unknown_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report.time, "monotonic", lambda: 100.0)
    ahead, asked = [5000], list[int]()

    def ask() -> int:
        asked.append(ahead[0])
        return 100_000 + ahead[0]

    known = report.less_monotonic_ms(ask)
    asked.clear()
    assert report.less_monotonic_ms(ask, known + 2) == 5000 + 2 * (1 - report.WEIGHT)
    assert len(asked) == 1
    ahead[0] += 20
    asked.clear()
    assert report.less_monotonic_ms(ask, known) == 5020
    assert len(asked) == report.SAMPLES


def test_the_reason_of_a_lost_broker_is_the_innermost_one() -> None:
    inside = ConnectionRefusedError(111, "Connection refused")
    assert bridge.innermost(AMQPConnectionError(AMQPConnectionError(inside))) == "Connection refused"
    wrapped = "StreamLostError: (\"Stream connection lost: ConnectionResetError(104, 'Connection reset by peer')\",)"
    assert bridge.innermost(IncompatibleProtocolError(wrapped)) == "Connection reset by peer"
    assert bridge.innermost(AMQPHeartbeatTimeout("too many missed heartbeats")) == "too many missed heartbeats"
    assert bridge.innermost(StreamLostError()) == "StreamLostError"
    assert bridge.innermost("text") == "text"
    refused = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."
    assert bridge.innermost(f"ConnectionClosedByBroker: (403) '{refused}'") == refused
    assert bridge.innermost("(320, 'CONNECTION_FORCED - somebody')") == "CONNECTION_FORCED - somebody"
    vhost = "NOT_ALLOWED - access to vhost 'x' refused"
    assert bridge.innermost(f'(530, "{vhost}")') == vhost
