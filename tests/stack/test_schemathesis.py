"""schemathesis makes calls of the OpenAPI document, permitted and others, and holds the answers of a live gateway against it."""

import os
import re
import subprocess
import sys

import pytest

from regions.settings import ROOT
from tests import interface

LIMIT_SECONDS = 500.0  # it makes some 500 calls; the machine may have much else to do
CONFIG = ROOT / "tests" / "stack" / "schemathesis.toml"
ENVIRONMENT = {"NO_COLOR": "1", "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.stack.schemathesis_hooks"}
# All checks but one: DELETE cancels, and the request stays, with the results that it has.
CHECKS = ("--checks", "all", "--exclude-checks", "use_after_free")


@pytest.mark.timeout(LIMIT_SECONDS + 20)
def test_no_call_gets_an_answer_that_the_document_does_not_have(stack, tmp_path):
    call = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(CONFIG),
        "run",
        f"{stack.url}/openapi.json",
        *CHECKS,
    ]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(
        call, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS, env=environment
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    # Each path has what its calls share; /openapi.json itself is not tested.
    calls = sum(len(item) - 1 for item in interface.document()["paths"].values()) - 1
    assert re.search(rf"^\s*Tested: {calls}$", done.stdout, re.MULTILINE), done.stdout[-5_000:]
    made = re.search(r"^\s*([\d,]+) generated", done.stdout, re.MULTILINE)
    assert int(made[1].replace(",", "")) > 300, done.stdout[-5_000:]
