"""Results that regions sent, as the hub shows them: whatever a frame holds, one whole result of its task comes of it."""

import json
import re

import pytest
from backports import zstd
from hypothesis import given

from jobs import contract, result_frame
from jobs.errors import Expired
from tests.unit.web.heads import TASK, frames, head
from web.api import rows
from web.http.problems import Problem
from web.hub import frame

RECORDS = b'[{"a":1},{"a":2}]'
BY = b"fra+"


def parsed(text: bytes) -> dict:
    """JSON as the strictest client reads it."""

    def once(pairs):
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    return json.loads(text.decode(), object_pairs_hook=once)


def shown(raw: bytes) -> dict:
    return parsed(frame.spliced_reply(raw, TASK.encode(), BY, b"1000"))


def is_unreadable(found: dict) -> bool:
    error = found["error"]
    return error is not None and error["message"] == "the region sent a result that can't be read"


@pytest.mark.parametrize(
    "told",
    [
        head()[:-1] + ',"records":[3]}',
        '{"records":[3],' + head()[1:],
        head(error={"type": "x", "message": "m", "origin": "o", "records": [3]}),
        head(more={"a": 1, "records": [3]}),
        head(source="demo.list", count=77),
        head()[:-1] + ',"task":"' + TASK + '"}',
        f" {head()}",
        f"{head()} ",
        f"{head()}\r\t",
        head(traceparent="x"),
    ],
    ids=["records", "first", "nested", "deeper", "count", "twice", "before", "behind", "more behind", "trace"],
)
def test_an_odd_head_is_written_anew_so_that_it_changes_nothing_around_it(told):
    raw = b"0" + told.encode() + b"\n" + RECORDS
    found = shown(raw)
    assert not is_unreadable(found)
    assert list(found) == [*contract.Result.__struct_fields__, "records"]
    assert (found["task"], found["records"], found["count"]) == (TASK, [{"a": 1}, {"a": 2}], 2)
    spliced = frame.spliced_reply(raw, TASK.encode(), BY, b"1000")
    assert result_frame.head_of(spliced).task == TASK
    traced = parsed(frame.traced(spliced, b"00-x"))
    assert traced.pop("traceparent") == "00-x"
    assert traced == found


@pytest.mark.parametrize(
    "told",
    [
        head(error={"type": "x", "message": "m", "origin": "o", "http_status": 10**400}),
        head(age=1e200),
        head(timing={"fetch_ms": -1e308}),
        head(count=-1),
        head(warnings="x"),
        head(task="01OTHER"),
        head(region="nyc"),
        head(source="x" * result_frame.HEAD_BYTES_MAX),
        '{"x":' + "[" * 20_000 + "]" * 20_000 + "}",
        "",
    ],
)
def test_a_head_that_can_not_be_is_said_to_be_unreadable_also_where_a_task_is_and_in_the_history(told):
    raw = b"0" + told.encode() + b"\n" + RECORDS
    assert is_unreadable(shown(raw))
    assert frame.head_reply(raw, TASK.encode(), BY, b"1000").error is not None
    kept = frame.whole(raw, TASK.encode(), BY, b"1000")
    assert is_unreadable(parsed(frame.spliced(kept, TASK, "fra", 100)))


def test_of_a_frame_in_the_history_no_more_is_unpacked_than_was_counted_when_it_was_settled():
    """By its own word a frame of 5 kB has 10 GB of records; the history unpacks as many as the frame's head says."""
    bomb = b"z" + head(bytes={"records": 10**10}).encode() + b"\n" + zstd.compress(b"[" + b" " * 50_000_000 + b"]")
    kept = frame.whole(bomb, TASK.encode(), BY, b"5000")
    assert result_frame.head(kept).bytes.records <= 5_000
    assert is_unreadable(parsed(frame.spliced(kept, TASK, "", result_frame.head(kept).bytes.records)))
    honest = b"0" + head(bytes={"records": len(RECORDS)}).encode() + b"\n" + RECORDS
    assert frame.whole(honest, TASK.encode(), BY, str(len(RECORDS)).encode()) == honest


def test_a_result_that_the_hub_makes_says_that_nobody_tried():
    found = parsed(result_frame.splice(frame.made(TASK, "ecb.rates", "fra", "expired", Expired("no result came"))))
    assert (found["task"], found["source"], found["region"], found["status"]) == (TASK, "ecb.rates", "fra", "expired")
    assert (found["attempts"], found["count"], found["error"]["message"]) == (0, 0, "no result came")


def nested(levels: int) -> bytes:
    """A record with so many levels."""
    return b'{"a":' + b"[" * (levels - 1) + b'"]}"' + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    ("records", "is_read"),
    [
        (b"[" + nested(result_frame.LEVELS_MAX) + b"]", True),
        (b"[" + nested(result_frame.LEVELS_MAX + 1) + b"]", False),
        (b'[1,{"b":"]]]]' + b"[{" * 500 + b'\\\\\\""},' + nested(result_frame.LEVELS_MAX) + b"]", True),
        (b'[{"b":"' + b"]" * 500 + b'","c":' + nested(result_frame.LEVELS_MAX) + b"}]", False),
        (b'[{"a":[' + b"[]," * 2_000 + nested(result_frame.LEVELS_MAX - 2) + b"]}]", True),
        (b'[{"a":[' + b"[]," * 2_000 + nested(result_frame.LEVELS_MAX - 1) + b"]}]", False),
        (b"[" + b",".join([b'{"a":[{"b":[]}]}'] * 1_000) + b"]", True),
        (b"[" + b"1" * result_frame.DIGITS_MAX + b"]", True),
        (b"[" + b"1" * (result_frame.DIGITS_MAX + 1) + b"]", False),
        (b'[{"a":0.' + b"1" * (result_frame.DIGITS_MAX + 1) + b"}]", False),
        (b'[{"a":"\\"' + b"1" * 9_000 + b'"}]', True),
        (b'[{"a":"' + b"1" * 9_000 + b'"},' + b"2" * 9_000 + b"]", False),
    ],
)
def test_records_that_common_readers_can_not_parse_are_unreadable(records, is_read):
    """Python's own reader refuses a whole answer with 1,000 levels, or with an integer of 4,301 digits."""
    raw = b"0" + head().encode() + b"\n" + records
    found = parsed(frame.spliced_reply(raw, TASK.encode(), BY, str(len(records)).encode()))
    assert is_unreadable(found) == (not is_read)
    assert is_unreadable(found) or found["records"] == json.loads(records)


def test_of_unreadable_results_of_a_region_the_log_has_a_line_a_minute(capfd, monkeypatch):
    """However often they are polled."""
    now = [1_000.0]
    monkeypatch.setattr("web.hub.frame.time.monotonic", lambda: now[0])
    monkeypatch.setattr(frame, "_logged_at", {})
    for at, region in ((1_000.0, "fra"), (1_000.0, "nyc"), (1_059.9, "fra"), (1_060.0, "fra"), (1_060.0, "nyc")):
        now[0] = at
        for _ in range(3):
            frame.spliced(b"0{}\n[]", TASK, region, 100)
    said = re.findall("result not readable .* region=(\\w+)", capfd.readouterr().out)
    assert said == ["fra", "nyc", "fra", "nyc"]


@given(frames())
def test_of_any_frame_comes_one_result_of_its_task_in_every_form(raw):
    spliced = frame.spliced_reply(raw, TASK.encode(), BY, b"1000")
    found = parsed(spliced)
    assert (found["task"], found["region"]) == (TASK, "fra")
    assert list(found)[-1] == "records"
    assert found["count"] == len(found["records"])
    told = result_frame.head_of(spliced)
    assert told == frame.head_reply(raw, TASK.encode(), BY, b"1000")
    assert (told.task, told.count) == (TASK, found["count"])
    records = rows.records_of(spliced)
    assert rows.ndjson(records).count(b"\n") == found["count"]
    if all(isinstance(one, dict) for one in found["records"]):
        assert (rows.csv(records) == b"") == (not any(found["records"]))
    else:
        with pytest.raises(Problem, match="objects"):
            rows.csv(records)
    kept = frame.whole(raw, TASK.encode(), BY, b"1000")
    size = result_frame.head(kept).bytes.records
    assert size <= 1_000
    assert parsed(frame.spliced(kept, TASK, "", size))["task"] == TASK
