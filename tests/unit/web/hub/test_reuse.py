"""Which of the results that the hub still has end a request's tasks."""

import msgspec
import pytest
from backports import zstd

from jobs import contract, result_frame
from web.hub import reuse
from web.hub.new_request import Begun, Latest, New, NewTask

NOW_MS = 1_795_569_186_525
BYTES_MAX = 1_000_000


def task(number: int) -> NewTask:
    return NewTask(
        id=f"T{number}", source="demo.list", region="fra", params={}, url="u", host="h", definition="0a1b2c3d"
    )


def kept(number: int, *, ago_ms: int = 5_000) -> Latest:
    result = contract.Result(
        task=f"OLD{number}", source="demo.list", region="fra", status="succeeded", definition="0a1b2c3d",
        fetched_at=contract.rfc3339(NOW_MS - ago_ms),
    )  # fmt: skip
    return Latest(task(number), f"nf:res:fra:OLD{number}", result_frame.encode(result, b"[]"))


def found(*there: Latest, max_age: float = 60.0, bytes_max: int = BYTES_MAX):
    new = New(id="R", tasks=[one.task for one in there], deadline_ms=1, max_age=max_age)
    return reuse.settlements(new, Begun(NOW_MS, NOW_MS + 1, NOW_MS + 2, list(there)), bytes_max)


def test_a_result_that_will_do_ends_its_task_as_its_region_would():
    (one,) = found(kept(1))
    assert (one.request, one.task, one.region, one.status, one.finished_ms) == ("R", "T1", "fra", "succeeded", NOW_MS)
    assert msgspec.json.decode(one.trail) == "OLD1"
    assert result_frame.head(one.frame).age == 5.0


def test_more_than_a_request_may_have_is_left_to_the_regions():
    """They end it as too large, as without any result."""
    (one,) = found(kept(1))
    size = one.size_bytes
    assert [len(found(kept(1), kept(2), bytes_max=limit)) for limit in (size - 1, 2 * size - 1, 2 * size)] == [0, 1, 2]


@pytest.mark.parametrize("frame", [b"", b"0", b"0{}\n[]", b"0[1]\n[]", b"0{\n[]"])
def test_what_is_no_frame_is_none(frame):
    """And stands in no other one's way."""
    assert [one.task for one in found(msgspec.structs.replace(kept(1), frame=frame), kept(2))] == ["T2"]


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"task":"OLD1"', b'"task":"OLD2"'),
        (b'"region":"fra"', b'"region":"nyc"'),
        (b"\n[]", b'\n[{"a":]'),
        (b'"warnings":[]', b'"warnings":["%b"]' % (b"x" * result_frame.HEAD_BYTES_MAX)),
    ],
)
def test_what_could_not_be_read_is_not_used_again(was, becomes):
    """Its region is asked: its credentials may have been stolen when that came."""
    frame = kept(1).frame.replace(was, becomes)
    assert frame != kept(1).frame
    assert [one.task for one in found(msgspec.structs.replace(kept(1), frame=frame), kept(2))] == ["T2"]
    settled = msgspec.structs.replace(kept(1), key="nf:res:fra+:OLD1")
    assert len(found(settled)) == 1


def test_what_unpacks_to_more_than_it_says_is_not_used_again():
    head = kept(1).frame.partition(b"\n")[0][1:]
    bomb = b"z" + head + b"\n" + zstd.compress(b"[" + b" " * 50_000_000 + b"]")
    assert found(msgspec.structs.replace(kept(1), frame=bomb)) == []


def test_a_time_that_is_none_is_none():
    frame = kept(1).frame.replace(b"2026-", b"soon-")
    assert found(msgspec.structs.replace(kept(1), frame=frame)) == []


def test_a_region_whose_clock_is_ahead_has_results_of_now():
    (one,) = found(kept(1, ago_ms=-3_000), max_age=0.5)
    assert result_frame.head(one.frame).age == 0.0
