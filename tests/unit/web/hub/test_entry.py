"""What a region appends is taken up to each bound and refused beyond it."""

import json
import time

import msgspec
import pytest

from jobs import contract
from jobs.contract import Attempt, Run, Trail, encode_trail
from web.hub import entry
from web.hub.entry import Claim, ForeignRun, Refused, Report, judge
from web.hub.settlement import Settlement

ENTRY = "1795941015846-0"
ENTRY_MS = 1_795_941_015_846
RESULT = {"k": "result", "v": 1, "q": "R", "t": "T", "s": "succeeded", "f": 5, "b": 700}
STATUS = {"k": "status", "v": 1, "part": "bridge", "name": "h:1"}
RUN = Run(source="a.b", definition="0")
MOST = entry.NUMBER_MAX // 1_000


def judged(fields: dict, *, owns: bool = True, at: str = ENTRY) -> tuple[object, list[Refused]]:
    """What an entry means, and the doubts about parts of it."""
    doubts: list[Refused] = []
    found = {key.encode(): value if isinstance(value, bytes) else str(value).encode() for key, value in fields.items()}
    return judge("fra", at, found, lambda *_: owns, doubts.append), doubts


def is_refused(fields: dict, what: str, *, at: str = ENTRY) -> str:
    """Whether an entry is refused as that; why."""
    with pytest.raises(Refused) as caught:
        judged(fields, at=at)
    assert caught.value.what == what
    return str(caught.value)


def doubted(trail: bytes) -> list[str]:
    """What is doubted of a result with this trail; the result itself always counts."""
    found, doubts = judged({**RESULT, "h": trail})
    assert isinstance(found, Settlement)
    assert (found.run is None, found.trail == b"") == (bool(doubts), [one.what for one in doubts] == ["trail"])
    return [one.what for one in doubts]


def ran(**changes) -> bytes:
    return encode_trail(Trail(5, [], msgspec.structs.replace(RUN, **changes)))


FIGURES = [field.name for field in msgspec.structs.fields(Run) if field.type is int]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(("number", "found"), [(-1, ["run"]), (0, []), (MOST, []), (MOST + 1, ["run"])])
def test_a_figure_of_a_run(name, number, found):
    assert doubted(ran(**{name: number})) == found


@pytest.mark.parametrize("name", ["definition", "error", "origin", "host"])
@pytest.mark.parametrize(("length", "found"), [(328, []), (329, ["run"])])
def test_a_text_of_a_run(name, length, found):
    assert doubted(ran(**{name: "x" * length})) == found


@pytest.mark.parametrize(
    ("gaps", "found"),
    [
        ({f"f{number}": 0 for number in range(1_000)}, []),
        ({f"f{number}": 0 for number in range(1_001)}, ["run"]),
        ({"f" * 200: 1}, []),
        ({"f" * 201: 1}, ["run"]),
        ({"f": 0, "g": entry.NUMBER_MAX}, []),
        ({"f": -1}, ["run"]),
        ({"f": entry.NUMBER_MAX + 1}, ["run"]),
    ],
)
def test_the_gaps_of_a_run(gaps, found):
    assert doubted(ran(gaps=gaps)) == found


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    ("number", "found"),
    [(0, []), (-1, ["trail"]), (entry.YEAR_9999_MS, []), (entry.YEAR_9999_MS + 1, ["trail"])],
)
def test_a_time_of_a_trail(place, number, found):
    """Of two attempts, and of the bridge."""
    bridged, *times = [number if place == at else 5 for at in range(4)]
    attempts = [Attempt(1, times[0], times[1], "w", "", ""), Attempt(2, 5, times[2], "w", "", "")]
    assert doubted(encode_trail(Trail(bridged, attempts, RUN))) == found


@pytest.mark.parametrize("sign", [1, -1])
def test_the_number_of_an_attempt(sign):
    for number, found in ((entry.NUMBER_MAX, []), (entry.NUMBER_MAX + 1, ["trail"])):
        assert doubted(encode_trail(Trail(5, [Attempt(sign * number, 5, 5, "w", "", "")], RUN))) == found


@pytest.mark.parametrize(
    ("turn_ms", "found"), [(0, []), (-1, ["trail"]), (entry.NUMBER_MAX, []), (entry.NUMBER_MAX + 1, ["trail"])]
)
def test_how_long_an_attempt_waited_for_its_turn(turn_ms, found):
    attempt = Attempt(1, 5, 5, "w", "", "", turn_ms)
    assert doubted(encode_trail(Trail(5, [attempt], RUN))) == found


def test_the_size_of_a_trail():
    trail = encode_trail(Trail(5, [], RUN))
    most = trail + b" " * (entry.TRAIL_BYTES_MAX - len(trail))
    assert (doubted(most), doubted(most + b" ")) == ([], ["trail"])


def test_a_run_of_a_source_that_the_catalogue_does_not_have_there_is_no_run_yet():
    """The settler asks the ledger."""
    found, (doubt,) = judged({**RESULT, "h": ran()}, owns=False)
    assert (found.run, isinstance(doubt, ForeignRun), doubt.source) == (None, True, "a.b")
    assert (doubt.what, str(doubt)) == ("run", "a.b is not its own")


@pytest.mark.parametrize("version", range(4))
def test_versions_beside_ours_are_read(version):
    is_known = version <= contract.VERSION + 1
    found, _ = judged({**RESULT, "v": version})
    assert (found.status, found.frame != b"") == (("succeeded", False) if is_known else ("failed", True))
    if is_known:
        assert isinstance(judged({**STATUS, "v": version, "d": '{"at_ms": 5}'})[0], Report)
    else:
        assert "version 0 to 2, found 3" in is_refused({**STATUS, "v": version, "d": '{"at_ms": 5}'}, "version")


def test_a_kind_that_is_none():
    assert is_refused({"k": "gossip", "v": 1, "d": "{}"}, "kind").startswith("expected k to be result, claims")


def test_what_an_entry_lacks_and_what_is_none_is_said():
    assert is_refused({"k": "result", "v": 1}, "result") == "it has no field b't'"
    assert is_refused({**RESULT, "f": "soon"}, "result").startswith("expected a whole number")
    assert is_refused({**RESULT, "s": "running"}, "result") == "expected a final status, found b'running'"


@pytest.mark.parametrize("field", ["f", "b"])
def test_the_digits_of_a_number(field):
    assert isinstance(judged({**RESULT, field: "9" * 15})[0], Settlement)
    is_refused({**RESULT, field: "9" * 16}, "result")


@pytest.mark.parametrize("field", ["q", "t"])
def test_the_length_of_an_id(field):
    assert isinstance(judged({**RESULT, field: "x" * 64})[0], Settlement)
    is_refused({**RESULT, field: "x" * 65}, "result")


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({**STATUS, "d": '{"at_ms": 5}'}, entry.STATUS_BYTES_MAX),
        ({"k": "sources", "v": 1, "d": "{}"}, entry.ENTRY_BYTES_MAX),
        ({"k": "claims", "v": 1, "d": "[]"}, entry.ENTRY_BYTES_MAX),
    ],
)
def test_the_size_of_what_is_said(fields, most):
    assert judged({**fields, "d": fields["d"].ljust(most)})[0] is not None
    assert is_refused({**fields, "d": fields["d"].ljust(most + 1)}, fields["k"]).startswith(f"expected {most} bytes")


def test_a_status_is_of_a_part_with_a_name():
    assert isinstance(judged({**STATUS, "name": "n" * 200, "d": '{"at_ms": 5}'})[0], Report)
    for wrong in ({"name": "n" * 201}, {"name": ""}, {"part": "gateway"}):
        is_refused({**STATUS, "d": '{"at_ms": 5}', **wrong}, "status")


@pytest.mark.parametrize(("part", "kept"), [("bridge", {"ready": 2}), ("workers", {"processes": 3})])
def test_a_status_keeps_what_its_part_says_and_nothing_else(part, kept):
    found, _ = judged({**STATUS, "part": part, "d": '{"at_ms": 5, "ready": 2, "processes": 3, "colour": "red"}'})
    assert (found.field, json.loads(found.text)) == (f"{part}:h:1", {"at_ms": 5, **kept})


def test_what_a_pool_says_of_jobs_that_wait_is_kept_up_to_its_number_and_length():
    def said(count: int, *wait: object) -> dict:
        return {**STATUS, "part": "workers", "d": json.dumps({"at_ms": 5, "waits": [wait] * count})}

    found, _ = judged(said(100, "T", 5, "for the turn of h"))
    assert json.loads(found.text)["waits"] == [["T", 5, "for the turn of h"]] * 100
    for wrong in (said(101, "T", 5, "x"), said(1, "T", -1, "x"), said(1, "T" * 65, 5, "x"), said(1, "T", 5)):
        is_refused(wrong, "status")


def test_a_status_is_not_of_the_future():
    """By the time of its entry, which the hub gives, and by ours, since a region may choose an entry's id."""
    for at_ms in (ENTRY_MS, ENTRY_MS + entry.AHEAD_MS):
        assert isinstance(judged({**STATUS, "d": json.dumps({"at_ms": at_ms})})[0], Report)
    is_refused({**STATUS, "d": json.dumps({"at_ms": ENTRY_MS + entry.AHEAD_MS + 1})}, "status")
    now_ms = int(time.time() * 1000)
    soon, late = now_ms + entry.DAY_MS - 60_000, now_ms + entry.DAY_MS + 60_000
    assert isinstance(judged({**STATUS, "d": json.dumps({"at_ms": soon})}, at=f"{soon}-0")[0], Report)
    is_refused({**STATUS, "d": json.dumps({"at_ms": late})}, "status", at=f"{late}-0")


def test_claims_are_as_many_as_a_process_may_have_and_a_trail_too_large_is_left_out():
    def said(count: int, trail: object = None) -> dict:
        claims = [["R", f"T{number}", 1, 5, trail] for number in range(count)]
        return {"k": "claims", "v": 1, "d": json.dumps(claims, separators=(",", ":"))}

    found, doubts = judged(said(2_000))
    assert (len(found), found[0], doubts) == (2_000, Claim("R", "T0", b""), [])
    is_refused(said(2_001), "claims")
    (short,), _ = judged(said(1, [5, [[1, 5, 0, "w", "", ""]]]))
    assert msgspec.json.decode(short.trail, type=Trail).attempts == [Attempt(1, 5, 0, "w", "", "")]
    room = entry.TRAIL_BYTES_MAX - len(short.trail)
    (most,), _ = judged(said(1, [5, [[1, 5, 0, "w" * (1 + room), "", ""]]]))
    assert len(most.trail) == entry.TRAIL_BYTES_MAX
    (more,), _ = judged(said(1, [5, [[1, 5, 0, "w" * (2 + room), "", ""]]]))
    assert more.trail == b""
    is_refused(said(1, [-5, []]), "claims")


def day(*minutes: dict) -> dict:
    status = {"at_ms": 5, "processes": 2, "minutes": list(minutes)}
    return {"k": "status", "v": 1, "part": "workers", "name": "h:1", "d": json.dumps(status)}


def test_minutes_of_a_day_are_kept_apart_by_the_minute_of_the_day():
    found, _ = judged(day({"at": 1_795_780_800.0, "arrived": 7}, {"at": 1_795_780_860.0}))
    assert isinstance(found, Report)
    assert "minutes" not in json.loads(found.text)
    assert {place: json.loads(text)["arrived"] for place, text in found.minutes.items()} == {720: 7, 721: 0}


def test_all_minutes_that_a_region_can_invent_are_no_more_than_a_day_has():
    made = [{"at": 60.0 * number * 977} for number in range(contract.MINUTES_MAX)]
    found, _ = judged(day(*made))
    assert isinstance(found, Report)
    assert all(0 <= place < contract.DAY_MINUTES for place in found.minutes)


@pytest.mark.parametrize(
    "minute",
    [{}, {"at": -1}, {"at": 1e15}, {"at": 5, "arrived": -1}, {"at": 5, "ready": entry.NUMBER_MAX + 1}, {"at": 5, "oldest_seconds": "1"}],
)  # fmt: skip
def test_a_minute_out_of_bounds_is_refused(minute):
    is_refused(day(minute), "status")


def test_more_minutes_than_a_status_has_are_refused():
    is_refused(day(*[{"at": 5}] * (contract.MINUTES_MAX + 1)), "status")
