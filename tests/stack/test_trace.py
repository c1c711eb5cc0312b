"""``nearfetch trace`` on a whole stack: every hop of real calls, in order, with times that fit into the calls."""

import json

import pytest

KEPT = ["sent", "checked", "accepted", "confirmed", "bridged", "claimed", "asking", "fetched", "parsed", "finished", "settled", "delivered", "answered"]  # fmt: skip
SEEN = [*KEPT[:5], "enqueued", *KEPT[5:10], "shipped", *KEPT[10:]]


@pytest.mark.parametrize(("words", "hops"), [([], KEPT), (["--monitor"], SEEN)])
def test_every_hop_of_calls_is_shown_in_order(stack, words, hops):
    done = stack.succeeds("trace", "ecb.rates", "--calls", "4", "--json", "--data", str(stack.data), *words)
    found = json.loads(done.stdout)
    assert [hop["hop"] for hop in found["hops"]] == hops
    assert (found["source"], found["region"], found["calls"], found["failed"], found["averaged"]) == (
        "ecb.rates", "fra", 4, 0, 2,
    )  # fmt: skip
    at = {hop["hop"]: hop["at_ms"] for hop in found["hops"]}
    assert all(at[hop["after"]] <= hop["at_ms"] for hop in found["hops"] if hop["after"])
    assert 0 < at["accepted"] <= at["claimed"] <= at["finished"] <= at["settled"] <= at["answered"]
    places = {hop["hop"]: hop["where"] for hop in found["hops"]}
    assert places["claimed"].startswith(
        ("fra.urgent.", "fra.worker.")
    )  # who has no time for what is urgent leaves it to others
    assert places["confirmed"] == "rabbitmq q.fra.now"


def test_a_call_is_drawn_and_a_failed_one_said(stack, inside):
    done = stack.succeeds("trace", "books.list", "category=poetry_23", "--data", str(stack.data))
    assert done.stdout.startswith("books.list  fra  ")
    assert "  settled    hub" in done.stdout
    assert done.stdout.rstrip().endswith("--monitor microseconds and more hops.")
    inside.behave(prefix="/slow.example/", status=404)
    failed = stack.nearfetch("trace", "slow.example", "--data", str(stack.data), check=False)
    assert (failed.returncode, "slow.example: http_status (target)" in failed.stderr) == (1, True)
    unknown = stack.nearfetch("trace", "nothing.at.all", "--data", str(stack.data), check=False)
    assert unknown.returncode == 2
