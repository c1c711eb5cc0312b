"""How far regions are: what can be said of them, and what a link does with it."""

import pytest

from scripts.stack import distance
from scripts.stack.distance import Distance, Wan
from scripts.stack.wan import Window, parse

REGIONS = ("fra", "nyc", "sin", "gru")


def test_regions_that_are_not_named_have_a_default():
    assert [far.rtt_ms for far in distance.parse("", REGIONS).values()] == [20.0, 80.0, 220.0, 80.0]
    found = distance.parse("fra=0, sin=200.5:mbit=100:loss=0.1%:jitter=5", REGIONS)
    assert found["fra"] == Distance(0.0)
    assert found["nyc"] == Distance(80.0)
    assert found["sin"] == Distance(200.5, 5.0, 0.1, 100.0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "''"), ("-1", "'-1'"), ("1e2", "'1e2'"), ("nan", "'nan'"), ("20:", "'' in '20:'"), ("20:rtt=3", "'rtt=3'"),
        ("20:jitter", "'20:jitter'"), ("20:jitter=1:jitter=2", "'jitter=2'"), ("401", "401"), ("20:loss=11%", "11"), ("20:mbit=0", "0"),
    ],
)  # fmt: skip
def test_what_is_no_distance_is_refused(text, found):
    with pytest.raises(ValueError, match=rf"expected .*, found {found}"):
        distance.read(text)


def test_a_distance_is_read_as_it_is_spelled():
    for text in ("20", "80:jitter=5", "220.5:loss=0.1%:mbit=100"):
        assert distance.read(text).spelled == text


def test_a_link_delays_half_a_round_trip_each_way():
    links = parse(
        tuple(
            distance.words(
                Wan(1, {"fra.redis": 10, "sin.rabbitmq": 11}, distance.parse("fra=30,sin=90:mbit=8:loss=1%", REGIONS)),
                {"redis": 6379, "rabbitmq": 5672},
            )
        )
    )
    assert {name: (link.port, link.target) for name, link in links.items()} == {
        "fra.redis": (10, 6379), "sin.rabbitmq": (11, 5672),
    }  # fmt: skip
    near, far = links["fra.redis"].rule, links["sin.rabbitmq"].rule
    assert (near.there.delay_ms, near.back.delay_ms, near.opens_ms, near.there.bytes_per_second) == (
        15.0,
        15.0,
        30.0,
        0.0,
    )
    assert (far.rtt_seconds, far.there.bytes_per_second, far.back.loss) == (0.09, 1_000_000.0, 0.01)


def send(window: Window, count: int, at: float) -> list[float]:
    """When each of ``count`` windows' worth of data leaves that is there at ``at``, with a round trip of one second."""
    leaves = []
    for _ in range(count):
        leaves.append(window.leaves(10, at, 10, 2.0))
        window.left(10, leaves[-1], leaves[-1] + 1.0)
    return leaves


def test_the_window_doubles_in_each_round_trip_and_begins_anew_after_an_idle_time():
    window = Window()
    assert send(window, 15, 5.0) == [5.0] + [6.0] * 2 + [7.0] * 4 + [8.0] * 8
    assert send(window, 3, 9.5) == [9.5] * 3
    assert send(window, 3, 20.0) == [20.0, 21.0, 21.0]
