"""``nearfetch trace``: what it makes of the times of several calls, which come from several clocks."""

import pytest

from scripts.commands.trace import (
    Call,
    Hop,
    Traced,
    averaged,
    clock_offset_ms,
    in_order,
    lines,
    middle,
)

BEGAN_MS = 1_795_929_124_000.0
REQUEST = "01M8JVFC0W2B2JVWWBDF2C1A00"


def at(ms: float) -> str:
    """A time as the gateway writes it: cut to whole ms."""
    whole = int(ms)
    return f"2026-11-29T05:12:{whole // 1000 % 60:02d}.{whole % 1000:03d}Z"


def call(number: int, sent_ms: float, total_ms: float = 8.0) -> Call:
    """A call sent so many ms after a beginning; the page was there 4.25 ms later."""
    task = f"{REQUEST[:-2]}{number:02d}"
    timing = {"fetch_ms": 1.5, "parse_ms": 0.5}
    result = {"status": "succeeded", "fetched_at": at(4000 + sent_ms + 4.25), "timing": timing}
    sent = BEGAN_MS + sent_ms
    return Call(sent, sent + total_ms, REQUEST, task, result)


def trail(sent_ms: float, ahead_ms: float = 0.0) -> list[dict[str, str]]:
    """The hops that the gateway keeps of such a call; the hub's clock is so much ahead."""
    reached = {
        "accepted": 1.0,
        "confirmed": 2.75,
        "bridged": 2.0,
        "claimed": 2.5,
        "finished": 5.0,
        "settled": 6.0,
        "delivered": 7.0,
    }
    return [
        {"hop": name, "at": at(4000 + sent_ms + ahead_ms + after_ms), "where": f"of {name}"}
        for name, after_ms in reached.items()
    ]


def test_the_means_of_calls_are_more_exact_than_their_milliseconds():
    calls = [call(number, number * 10 + number / 20) for number in range(20)]  # at each twentieth of a ms
    trails = {one.task: trail(one.sent_ms - BEGAN_MS) for one in calls}
    found = {hop.hop: hop for hop in averaged(calls, trails, [])}
    expected = {"sent": 0.0, "accepted": 1.0, "confirmed": 2.75, "bridged": 2.0, "claimed": 2.5, "asking": 2.75, "fetched": 4.25, "parsed": 4.75, "finished": 5.0, "settled": 6.0, "delivered": 7.0, "answered": 8.0}  # fmt: skip
    assert {name: found[name].at_ms for name in expected} == pytest.approx(expected, abs=0.06)
    assert found["settled"].took_ms == pytest.approx(1.0, abs=0.06)
    assert (found["settled"].after, found["confirmed"].after) == ("finished", "accepted")
    assert found["fetched"].where == "of claimed"


@pytest.mark.parametrize(("ahead_ms", "least", "most"), [(0.0, 0.0, 0.0), (0.6, 0.0, 0.0), (500.0, 499.0, 501.0), (-30.0, -31.0, -29.0)])  # fmt: skip
def test_another_clock_at_the_hub_is_corrected_by_what_the_calls_show(ahead_ms, least, most):
    """It is let alone as long as nothing contradicts it."""
    calls = [call(number, number * 10 + number / 20) for number in range(20)]
    trails = {one.task: trail(one.sent_ms - BEGAN_MS, ahead_ms) for one in calls}
    assert least <= clock_offset_ms(calls, trails) <= most


def test_a_call_that_something_disturbed_moves_no_mean():
    calls = [call(number, 0.0, total_ms) for number, total_ms in enumerate([8.0, 900.0, 7.0, 9.0])]
    assert [one.total_ms for one in middle(calls)] == [8.0, 9.0]
    assert middle(calls[:1]) == calls[:1]


def test_no_hop_comes_before_the_one_that_it_follows():
    found = in_order(
        {"sent": 0.0, "accepted": 1.0, "bridged": 2.4, "enqueued": 2.1, "claimed": 2.0, "answered": 3.0}, {}
    )
    assert [(hop.hop, hop.at_ms, hop.took_ms) for hop in found] == [
        ("sent", 0.0, 0.0), ("accepted", 1.0, 1.0), ("bridged", 2.0, 1.0), ("enqueued", 2.0, 0.0), ("claimed", 2.0, 0.0),
        ("answered", 3.0, 1.0),
    ]  # fmt: skip


def test_each_hop_has_a_bar_from_the_one_before_it():
    hops = [
        Hop("sent", "here", 0.0, 0.0, ""),
        Hop("accepted", "hub", 1.0, 1.0, "sent"),
        Hop("answered", "here", 4.0, 3.0, "accepted"),
    ]
    head, _, *drawn = lines(Traced("ecb.rates", "fra", REQUEST, 100, 2, 49, {"p50": 4.0, "p95": 5.0, "p99": 6.0}, hops))
    assert (
        head == "ecb.rates  fra  p50 4.00, p95 5.00, p99 6.00 ms of 100 calls, 2 failed; the means of 49 in the middle:"
    )
    assert drawn[0] == "      0.00           sent       here"
    assert drawn[1] == "      1.00     1.00  accepted   hub   " + "#" * 10
    assert drawn[2] == "      4.00     3.00  answered   here  " + " " * 10 + "#" * 30
