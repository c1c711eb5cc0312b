"""Result frames: what is written is what is read, bytes are counted exactly, and of what nobody can read nothing is spliced."""

import json
import re
import tracemalloc
from collections import deque

import msgspec
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from jobs import contract, errors, result_frame


def result(**changes):
    return contract.Result(task="t1", source="ecb.rates", region="fra", status="succeeded", **changes)


@given(st.lists(st.dictionaries(st.text(max_size=20), st.text(max_size=200)), max_size=60))
def test_a_spliced_frame_is_the_result_with_its_records(records):
    encoded = msgspec.json.encode(records)
    frame = result_frame.encode(result(count=len(records), url="https://x/\n"), encoded)
    spliced = json.loads(result_frame.splice(frame))
    assert spliced["records"] == records
    assert spliced["bytes"] == {"raw": 0, "records": len(encoded), "wire": len(frame), "received": 0, "spared": 0}
    assert result_frame.head(frame).url == "https://x/\n"


@pytest.mark.parametrize("size", range(60, 140))
def test_wire_bytes_are_exact_where_their_digits_change(size):
    frame = result_frame.encode(result(url="x" * size), b"[]")
    assert result_frame.head(frame).bytes.wire == len(frame)


def test_the_wire_bytes_of_a_frame_that_gets_another_head_are_exact_too():
    told = result(url="x" * 900)
    frame = result_frame.encode(told, b"[]")
    assert told.bytes.wire == len(frame) > 999
    told.url = ""
    again = result_frame.reframe(told, frame)
    assert result_frame.head(again).bytes.wire == len(again) < 999
    assert result_frame.splice(again).endswith(b',"records":[]}')


@pytest.mark.parametrize(("size", "mark"), [(511, b"0"), (512, b"z")])
def test_records_are_packed_from_512_bytes_on(size, mark):
    records = b'["' + b"x" * (size - 4) + b'"]'
    frame = result_frame.encode(result(count=1), records)
    assert frame[:1] == mark
    assert result_frame.splice(frame).endswith(records + b"}")


def test_a_compressor_is_used_again_unless_it_had_to_pack_many_bytes(monkeypatch):
    """One of large records would keep their memory."""
    monkeypatch.setattr(result_frame, "_packers", deque())
    most = b'["' + b"x" * (result_frame.PACKER_BYTES_MAX - 4) + b'"]'
    idle = []
    for records in (b" " + most, most, b" " + most, most):
        frame = result_frame.encode(result(count=1), records)
        assert result_frame.splice(frame).endswith(records + b"}")
        idle.append(list(result_frame._packers))
    one = idle[1]
    assert (len(one), idle) == (1, [[], one, one, one])


def test_a_result_has_every_member_that_clients_were_promised():
    spliced = json.loads(result_frame.splice(result_frame.encode(result(), b"[]")))
    assert list(spliced) == [
        "task", "source", "region", "status", "attempts", "count", "partial", "warnings", "url", "definition", "fetched_at",
        "age", "cached", "stale", "timing", "bytes", "error", "records",
    ]  # fmt: skip
    assert list(spliced["timing"]) == ["queued_ms", "turn_ms", "fetch_ms", "parse_ms", "total_ms"]


@pytest.mark.parametrize("records", [[], [{"a": "x" * 1000, "records": [1]}]])
def test_a_reused_frame_is_another_tasks_result_for_which_nothing_was_done(records):
    """Its records are the very same bytes; what is said of its size is exact."""
    encoded = json.dumps(records, separators=(",", ":")).encode()
    first = result(count=len(records), warnings=['","records":['], attempts=2, fetched_at="2026-11-24T04:14:00.123Z")
    first.timing.fetch_ms, first.bytes.raw = 41.0, 5000
    first.bytes.received, first.bytes.spared = 900, 5
    frame = result_frame.encode(first, encoded)
    reused, size = result_frame.reused(frame, "01OTHER", 12.5)
    assert result_frame.splice(reused).endswith(b',"records":' + encoded + b"}")
    assert size == len(result_frame.splice(reused))
    told = {
        "task": "01OTHER",
        "cached": True,
        "age": 12.5,
        "attempts": 0,
        "bytes": {"raw": 0, "records": len(encoded), "wire": 0, "received": 0, "spared": 0},
    }
    was = {
        **json.loads(result_frame.splice(frame)),
        "timing": dict.fromkeys(("queued_ms", "turn_ms", "fetch_ms", "parse_ms", "total_ms"), 0.0),
    }
    assert json.loads(result_frame.splice(reused)) == {**was, **told}
    assert result_frame.head_of(result_frame.splice(reused)) == result_frame.head(reused)


def test_a_failed_frame_says_why_and_whose_fault_it_was():
    error = errors.RateLimited("later", http_status=429, retry_after=30.0)
    spliced = json.loads(result_frame.splice(result_frame.failed(result(count=5), error)))
    assert spliced["error"] == {
        "type": "rate_limited", "message": "later", "origin": "target", "retryable": True, "retry_after": 30.0, "http_status": 429,
    }  # fmt: skip
    assert (spliced["records"], spliced["count"]) == ([], 0)


def test_what_unpacks_to_more_than_was_said_is_not_unpacked_further():
    """50 MB of blanks are 5 kB packed: a gateway that reads such a frame at each poll takes no more memory for it."""
    told = contract.Result(task="T", source="ecb.rates", region="fra", status="succeeded")
    head = result_frame.encode(told, b"[]").partition(b"\n")[0][1:]
    bomb = b"z" + head + b"\n" + zstd.compress(b"[" + b" " * 50_000_000 + b"]")
    assert len(bomb) < 10_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="100000 bytes"):
        result_frame.splice_checked(bomb, "T", "fra", 100_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_whole_frame_is_told_as_it_came():
    told = contract.Result(task="T", source="ecb.rates", region="fra", status="succeeded", url="https://é.example/")
    for records in (b"[]", b'[{"a":"\xc3\xa9"}]', b"[" + b",".join([b'{"n":1}'] * 2_000) + b"]"):
        told.count = records.count(b"{")
        frame = result_frame.encode(told, records)
        for region in ("fra", ""):
            assert result_frame.splice_checked(frame, "T", region, len(records)) == result_frame.splice(frame)
    with pytest.raises(ValueError, match=f"expected {len(records) - 1} bytes of records at most"):
        result_frame.splice_checked(frame, "T", "fra", len(records) - 1)


def unfinished(records: bytes) -> bytes:
    """All of some records, packed, without the end of the packing."""
    return zstd.ZstdCompressor().compress(records, mode=zstd.ZstdCompressor.FLUSH_BLOCK)


@pytest.mark.parametrize(
    "body",
    [
        b"z%b" % unfinished(b"[1]"),
        b"z%b" % (zstd.compress(b"[1]") + b"x"),
        b"z%b" % (zstd.compress(b"[1]") * 2),
        b'0["\xff"]',
    ],
    ids=["unfinished", "more behind", "two", "no text"],
)
def test_records_that_are_not_packed_as_one_are_refused(body):
    head = result_frame.encode(result(), b"[]").partition(b"\n")[0][1:]
    frame = body[:1] + head + b"\n" + body[1:]
    with pytest.raises(ValueError):
        result_frame.splice_checked(frame, "t1", "fra", 100)


def test_records_that_were_packed_piece_by_piece_may_have_all_bytes_that_they_may():
    """Their packing ends with an empty piece, which has to be read, too."""
    head = result_frame.encode(result(), b"[]").partition(b"\n")[0][1:]
    packer = zstd.ZstdCompressor()
    packed = packer.compress(b"[1]", mode=zstd.ZstdCompressor.FLUSH_BLOCK) + packer.flush(
        zstd.ZstdCompressor.FLUSH_FRAME
    )
    frame = b"z" + head + b"\n" + packed
    assert result_frame.splice_checked(frame, "t1", "fra", 3).endswith(b',"records":[1]}')
    with pytest.raises(ValueError, match="expected 2 bytes"):
        result_frame.splice_checked(frame, "t1", "fra", 2)


@pytest.mark.parametrize("end", [b"", b"x", b"\r"])
def test_a_head_without_an_end_is_none(end):
    frame = result_frame.encode(result(), b"[]").partition(b"\n")[0] + end
    with pytest.raises(ValueError, match="expected a result frame"):
        result_frame.check_head(frame, "t1", "fra", 100)
    with pytest.raises(ValueError, match="expected a result frame"):
        result_frame.splice_checked(frame, "t1", "fra", 100)


def levels(value) -> int:
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(levels, value.values() if isinstance(value, dict) else value), default=0)


TEXTS = st.text(st.sampled_from('[]{}"\\a'), max_size=6)
VALUES = st.recursive(
    st.one_of(st.integers(), TEXTS), lambda of: st.lists(of, max_size=4) | st.dictionaries(TEXTS, of, max_size=4)
)


@given(VALUES, st.integers(1, 6))
def test_levels_of_a_value_are_counted_whatever_its_texts_have(value, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_frame, "LEVELS_MAX", most)
        patch.setattr(result_frame, "PIECE", 3)
        assert result_frame._is_deep(json.dumps([value]).encode()) == (levels([value]) > most)


@given(st.text(st.sampled_from("0123456789,x"), max_size=20).map(str.encode), st.integers(1, 5))
def test_a_long_number_is_found_wherever_it_stands(text, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_frame, "DIGITS_MAX", most)
        assert result_frame._has_long_number(text) == bool(re.search(rb"[0-9]{%d}" % (most + 1), text))
