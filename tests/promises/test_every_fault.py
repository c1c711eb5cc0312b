"""Its first row: an accepted task reaches exactly one terminal state, whatever dies.

Each kind of fault once, by ``nearfetch chaos``; ``CHAOS_SEED=N`` takes them in another order. The promise's 10,000 tasks are a
command, for each of three seeds:

    scripts/nearfetch chaos --seed N --tasks 10000 --minutes 10
"""

import json
import os
import subprocess

import pytest

from regions.settings import ROOT
from scripts.chaos.plan import KINDS

NEARFETCH = ROOT / "scripts" / "nearfetch"
SEED = os.environ.get("CHAOS_SEED") or "9113"
SECONDS = 540.0


@pytest.mark.timeout(SECONDS)
def test_every_kind_of_fault_once_loses_doubles_and_changes_nothing():
    words = ["chaos", "--seed", SEED, "--tasks", "500", "--minutes", "0.7", "--json"]
    done = subprocess.run([NEARFETCH, *words], capture_output=True, text=True, timeout=SECONDS - 20, check=False)
    assert done.stdout, f"seed {SEED}: {done.stderr}"
    found = json.loads(done.stdout)
    print(f"seed {found['seed']}, plan {found['plan']}: {found['tasks']}, recovery {found['recovery_seconds']}")
    faults = [one for one in found["faults"] if not one.endswith("were obliged to succeed")]
    assert faults == [], f"seed {SEED}: {done.stdout}"
    assert done.returncode == bool(found["faults"])
    # Here the faults follow each other closely, and on a busy machine each lasts longer: the long runs ask for 90 %.
    assert found["tasks"]["obliged"] > found["tasks"]["accepted"] / 2
    assert {window["kind"] for window in found["windows"]} == set(KINDS)
    assert found["tasks"]["accepted"] > len(KINDS)  # each met some; a busy machine is asked less
