"""``nearfetch bridges`` beside the supervisor of a whole stack: it sees its bridges, and the supervisor comes first."""

import json
import os
import signal

from tests.stack.driving import Ledger
from tests.waiting import until

REGIONS = ("fra", "nyc", "sin")
# A supervisor starts a bridge again within five seconds, for which the commands wait; on a busy machine it may take longer.
PATIENT = (
    "-c",
    "from bridge import ensure; ensure.SUPERVISOR_SECONDS = 100.0; from scripts.cli import main; main(prog_name='nearfetch')",
)


def ensured(stack, **how):
    """What ``ensure`` did in each region, and the bridge that lives there."""
    done = stack.nearfetch("bridges", "ensure", "--data", str(stack.data), "--json", **how)
    return {one["region"]: (one["did"], one["pid"]) for one in json.loads(done.stdout)["regions"]}


def bridges(stack):
    """Of each region the one bridge that the supervisor runs."""
    pids = stack.pids()
    return {region: pids[f"bridge-{region}"] for region in REGIONS}


def beating(stack, region):
    """The pids of a region's bridges that left a heartbeat."""
    return [
        int(file.name.split(".")[1].partition("-")[0]) for file in (stack.data / "bridges").glob(f"{region}.*.beat")
    ]


def test_the_supervisors_bridges_are_seen_and_none_is_put_beside_them(stack):
    running = bridges(stack)
    assert ensured(stack) == {region: ([], pid) for region, pid in running.items()}
    assert stack.nearfetch("bridges", "ensure", "--data", str(stack.data)).stdout == ""


def test_a_killed_bridge_is_the_supervisors_to_start_again(stack):
    first = bridges(stack)["nyc"]
    os.kill(first, signal.SIGKILL)
    did, pid = ensured(stack, program=PATIENT)["nyc"]
    second = until(lambda: (found := stack.pids()["bridge-nyc"]) not in (first, 0) and found, "the next")
    assert (did, pid) == ([], second)
    assert beating(stack, "nyc") in ([second], [first, second], [second, first])


def test_a_rolling_restart_under_traffic_loses_and_doubles_nothing(stack):
    before = bridges(stack)
    ledger = Ledger(stack)
    for _ in range(5):
        ledger.post(["ecb.rates", "quakes.day", "slow.example"] * 10, deadline=250)
    lines = stack.nearfetch("bridges", "restart", "--data", str(stack.data), program=PATIENT).stdout.splitlines()
    for _ in range(5):
        ledger.post(["ecb.rates", "quakes.day", "slow.example"] * 10, deadline=250)
    after = bridges(stack)
    assert not set(before.values()) & set(after.values())
    for region in REGIONS:
        assert any(line.startswith(f"{region}: process {before[region]} drained and ended in") for line in lines), lines
        assert any(line.startswith(f"{region}: process {after[region]} consumes after") for line in lines), lines
    for request in ledger.promised:
        ledger.collect(request)
    ledger.check()
