"""Its first row: an accepted task reaches exactly one terminal state, whatever dies.

Here every part is killed or restarted once, by ``nearfetch chaos``; each other kind of fault has a test of its own beside this one.
``CHAOS_FAULTS=all`` takes each kind once, ``CHAOS_SEED=N`` another order. The promise's 10,000 tasks under all of them are a command, for
each of three seeds:

    scripts/nearfetch chaos --seed N --tasks 10000 --minutes 10
"""

import json
import os
import subprocess

import pytest

from regions.settings import ROOT
from scripts.chaos.plan import KINDS, kinds_of
from tests import forked

SEED = os.environ.get("CHAOS_SEED") or "9113"
# No other test pauses what workers are forked from.
FAULTS = os.environ.get("CHAOS_FAULTS") or "kill,restart,pause-fork-server"
IS_ALL = FAULTS == "all"
FORKING = "from tests import supervisord; supervisord.command()"  # in the suite all that is Python is forked
SECONDS = 540.0
# What a busy machine may show, but not in each run: a kill that came when nobody ran anything, a process that started late, a task that
# ended late.
OF_SPEED, TRIES = ("hit anything", "s at most", " late"), 5


def chaos(words: list[str]) -> subprocess.CompletedProcess[str]:
    options = {"cwd": ROOT, "text": True, "timeout": SECONDS - 20}
    if IS_ALL:
        return subprocess.run(
            [ROOT / "scripts" / "nearfetch", "chaos", *words], capture_output=True, check=False, **options
        )
    return forked.run(["-c", FORKING, "chaos", *words], imported=forked.STACK, **options)


@pytest.mark.timeout(TRIES * SECONDS)
def test_what_is_killed_or_restarted_loses_doubles_and_changes_nothing():
    load = (
        ["--tasks", "500", "--minutes", "0.7"] if IS_ALL else ["--tasks", "300", "--minutes", "0.5", "--faults", FAULTS]
    )
    in_each: set[str] | None = None
    for _ in range(TRIES):
        done = chaos(["--seed", SEED, *load, "--json"])
        assert done.stdout, f"seed {SEED}: {done.stderr}"
        found = json.loads(done.stdout)
        print(f"seed {found['seed']}, plan {found['plan']}: {found['tasks']}, recovery {found['recovery_seconds']}")
        faults = [one for one in found["faults"] if not one.endswith("were obliged to succeed")]
        assert all(one.endswith(OF_SPEED) for one in faults), f"seed {SEED}: {done.stdout}"
        known = {one.lstrip("0123456789") if one.endswith(" late") else one.partition(":")[0] for one in faults}
        in_each = known if in_each is None else in_each & known
        if not in_each:
            break
    assert not in_each, f"seed {SEED}: {done.stdout}"
    assert done.returncode == bool(found["faults"])
    kinds = KINDS if IS_ALL else kinds_of(FAULTS.split(","))
    # Here the faults follow each other closely, and on a busy machine each lasts longer: the long runs ask for 90 %.
    assert found["tasks"]["obliged"] > found["tasks"]["accepted"] / 5
    assert {window["kind"] for window in found["windows"]} == set(kinds)
    assert found["tasks"]["accepted"] > len(kinds)  # each met some; a busy machine is asked less
