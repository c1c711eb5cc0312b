"""schemathesis makes calls of the OpenAPI document, permitted and others, and holds the answers of a live gateway against it."""

import os
import re
import subprocess
import sys

import pytest

from regions.settings import ROOT

SECONDS = 12  # of calls; its start and its report take three more
LIMIT_SECONDS = 240.0  # on a machine that has much else to do
ENVIRONMENT = {"NO_COLOR": "1", "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.stack.schemathesis_hooks"}
CONFIG = ROOT / "tests" / "stack" / "schemathesis.toml"


@pytest.mark.timeout(LIMIT_SECONDS)
def test_no_call_gets_an_answer_that_the_document_does_not_have(stack, tmp_path):
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{stack.url}/openapi.json", "--checks", "all",
        "--max-time", str(SECONDS),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS, env={**os.environ, **ENVIRONMENT}
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    made = re.search(r"(\d[\d,]*) generated", done.stdout)
    assert made is not None, done.stdout[-5_000:]
    assert int(made[1].replace(",", "")) > 200
