"""DESIGN section 8, its first row: an accepted task reaches exactly one terminal state, whatever dies.

Each kind of fault once, by ``nearfetch chaos``; the long runs of it are done by hand.
"""

import json
import os
import subprocess

import pytest

from regions.settings import ROOT
from scripts.chaos.plan import KINDS

NEARFETCH = ROOT / "scripts" / "nearfetch"
SEED = os.environ.get("CHAOS_SEED", "1")  # another seed, another order of faults
SECONDS = 540.0


@pytest.mark.timeout(SECONDS)
def test_every_kind_of_fault_once_loses_doubles_and_changes_nothing():
    words = ["chaos", "--seed", SEED, "--tasks", "500", "--minutes", "0.6", "--json"]
    done = subprocess.run([NEARFETCH, *words], capture_output=True, text=True, timeout=SECONDS - 20, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    print(f"seed {found['seed']}, plan {found['plan']}: {found['tasks']}, recovery {found['recovery_seconds']}")
    assert found["faults"] == [], done.stdout
    assert done.returncode == 0
    assert {window["kind"] for window in found["windows"]} == set(KINDS)
    assert found["tasks"]["accepted"] > 100
