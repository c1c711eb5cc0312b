"""The floor: bare loops, one in each process, that only fetch and parse.

    python -m scripts.bench.floor KIND PORT SECONDS FIRST

They use the cheapest correct way of requests (a prepared request through the adapter, a kept connection, a body read with a
limit) and lxml by hand. Prints {"seconds", "jobs", "cpu_ms"} as JSON. The records of all pages are checked after the
measurement.
"""

import json
import subprocess
import sys
import time
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter

from regions.settings import ROOT
from scripts.bench import rows

PROCESSES: Final = 2
MOST_BYTES: Final = 20_000_000
WARM_JOBS: Final = 20
STRIDE: Final = 10_000_000  # between the first numbers of two processes


def loop(kind: str, port: int, seconds: float, first: int) -> dict[str, float]:
    """Runs one bare loop. Raises ValueError when a page has the wrong records."""
    adapter, read = HTTPAdapter(), rows.hand(kind)
    template = requests.Request("GET", f"http://127.0.0.1:{port}{rows.PATHS[kind]}").prepare()
    base = template.url
    found: list[list[dict[str, Any]]] = []
    began, cpu = time.monotonic(), time.process_time()
    number = first
    while time.monotonic() - began < seconds or number - first <= WARM_JOBS:
        if number - first == WARM_JOBS:
            began, cpu = time.monotonic(), time.process_time()
        asked = template.copy()
        asked.url = f"{base}?n={number}"
        response = adapter.send(asked, stream=True, timeout=10)
        body = response.raw.read(MOST_BYTES + 1)
        response.raw.release_conn()
        if response.status_code != 200 or len(body) > MOST_BYTES:
            raise ValueError(f"page {number}: expected 200, found {response.status_code}, {len(body)} bytes")
        found.append(read(body))
        number += 1
    ended, cpu_seconds = time.monotonic(), time.process_time() - cpu
    adapter.close()
    for offset, records in enumerate(found):
        if records != rows.records(kind, first + offset):
            raise ValueError(f"expected the records of page {first + offset}, found {records[:1]}")
    return {"seconds": ended - began, "jobs": len(found) - WARM_JOBS, "cpu_ms": 1000 * cpu_seconds}


def run(kind: str, port: int, seconds: float) -> dict[str, float]:
    """Runs all loops side by side: {"jobs_per_second", "cpu_ms_per_job"}. Raises CalledProcessError."""
    loops = [
        subprocess.Popen(
            [sys.executable, "-m", "scripts.bench.floor", kind, str(port), str(seconds), str(one * STRIDE)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        for one in range(PROCESSES)
    ]
    answers = [process.communicate()[0] for process in loops]
    for process in loops:
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    reports = [json.loads(answer) for answer in answers]
    return {
        "jobs_per_second": sum(one["jobs"] / one["seconds"] for one in reports),
        "cpu_ms_per_job": sum(one["cpu_ms"] for one in reports) / sum(one["jobs"] for one in reports),
    }


if __name__ == "__main__":
    print(json.dumps(loop(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
