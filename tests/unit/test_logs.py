"""Logs: one line a thing, from structlog and the standard library alike, and never a reason to end."""

import json
import os
import subprocess
import sys

from regions.settings import ROOT

PROGRAM = """
import logging
from regions import logs
logs.configure("json", "info")
logs.get("bridge").info("consuming", region="fra", name="Zürich")
logging.getLogger("somebody").warning("said %s", "this")
logs.get("bridge").debug("not shown")
"""


def test_both_ways_of_logging_come_out_as_json_lines():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert (first["part"], first["event"], first["region"], first["name"]) == ("bridge", "consuming", "fra", "Zürich")
    assert (second["logger"], second["event"], second["level"]) == ("somebody", "said this", "warning")


def test_a_reader_that_is_gone_ends_nobody():
    program = f"{PROGRAM}\nprint('went on')"
    read, write = os.pipe()
    with os.fdopen(write, "wb") as stderr:
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
        )
    assert done.stdout == "went on\n"
