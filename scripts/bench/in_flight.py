"""The memory that a region needs for 400 fetches in flight, from sources that answer after a second.

Two processes have more threads than with ``up``'s settings, since these threads wait and do not compute.
"""

import itertools
import statistics
from typing import Final

from regions.settings import PREFIX
from scripts.bench import load, usage
from scripts.bench.extra import Extra
from scripts.bench.ours import REGION, alone
from scripts.bench.rows import ROWS
from scripts.bench.run import done
from scripts.terminal import Progress, size

THREADS: Final = 220
PROCESSES: Final = 2
CLIENTS: Final = 80  # with six sources in each request
SECONDS: Final = 10.0
SETTINGS: Final = {
    f"{PREFIX}REGION__FRA__WORKERS__THREADS": str(THREADS),
    f"{PREFIX}REGION__FRA__SCALE__MIN": str(PROCESSES),
    f"{PREFIX}REGION__FRA__SCALE__MAX": str(PROCESSES),
}


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    row = ROWS["page-1s"]
    numbers = itertools.count(1)
    held: list[int] = []
    workers: list[int] = []
    region: list[int] = []
    rates: list[float] = []
    with alone(progress, SETTINGS) as (ours, pages_port):
        parts = (f"workers-{REGION}", f"bridge-{REGION}", f"redis-{REGION}")

        def sample(found: int) -> None:
            held.append(found)
            workers.append(usage.memory_bytes(usage.members(ours.leaders(parts[0]))))
            region.append(workers[-1] + usage.memory_bytes(usage.members(ours.leaders(*parts[1:]))))

        for number in range(rounds):
            progress.waiting(f"400 in flight, round {number + 1} of {rounds}")
            window = done(
                load.many(
                    ours,
                    row,
                    numbers,
                    warm_seconds=4.0,
                    seconds=SECONDS,
                    pages_port=pages_port,
                    sample=sample,
                    clients=CLIENTS,
                )
            )
            load.check(ours, row, window.finished)
            rates.append(window.jobs / window.seconds)
    return Extra(
        "fetches in flight in a region, sources of 1 s",
        [
            f"{statistics.median(held):.0f} in flight ({min(held)} to {max(held)}), {statistics.median(rates):.0f} jobs/s",
            f"{size(max(workers))} at most in {PROCESSES} worker processes of {THREADS} threads and their pool",
            f"{size(max(region))} with the bridge and the region's Redis",
        ],
        {"in_flight": held, "workers_bytes": workers, "region_bytes": region, "jobs_per_second": rates},
    )
