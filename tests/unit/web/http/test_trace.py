"""``traceparent``: what W3C Trace Context permits is read, everything else is ignored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import contract
from web.http import trace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize("flags", ["00", "01", "ff"])
def test_version_0_goes_on_as_it_came(flags):
    text = f"00-{TRACE}-{PARENT}-{flags}"
    assert trace.read(text) == text
    assert contract.trace_of(text) == {"trace_id": TRACE}
    assert contract.is_sampled(text) is (flags != "00")


@pytest.mark.parametrize("more", ["", "-what-is-not-known", "-"])
def test_later_version_is_read_as_far_as_it_is_known(more):
    assert trace.read(f"cc-{TRACE}-{PARENT}-03{more}") == GOOD


@pytest.mark.parametrize(
    "text",
    [
        "", GOOD.upper(), f"{GOOD}-more", f"{GOOD} ", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01", f"00-{TRACE}-{PARENT}", f"0-{TRACE}-{PARENT}-01", f"{GOOD}, {GOOD}", f"cc-{TRACE}-{PARENT}-01x",
        f"00-{TRACE[:-1]}g-{PARENT}-01", f"00-{TRACE[:-1]}\\u0664-{PARENT}-01",
    ],
)  # fmt: skip
def test_what_is_invalid_is_ignored(text):
    assert trace.read(text) == ""


@given(st.text(max_size=70))
def test_any_text_is_read_or_ignored(text):
    found = trace.read(text)
    assert found == "" or len(found) == len(GOOD)


def test_a_task_without_a_trace_is_as_long_as_before_and_one_with_any_text_breaks_nothing():
    task = contract.Task(task="t", request="r", source="s", region="fra", accepted_ms=1, deadline_ms=2, expires_ms=3)
    body = contract.encode(task)
    assert b"traceparent" not in body
    assert (task.traced, task.is_sampled) == ({}, False)
    traced = contract.decode_task(body[:-1] + b',"traceparent":"%b"}' % GOOD.encode())
    assert (traced.traced, traced.is_sampled) == ({"trace_id": TRACE}, True)
    empty = contract.decode_task(body[:-1] + b',"traceparent":""}')
    assert empty.is_sampled is False
