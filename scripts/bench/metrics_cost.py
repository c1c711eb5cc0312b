"""What metrics cost: the CPU time of counting a task, and that of a scrape, beside what a task takes in all.

Two equal loads differ by more than a load with metrics and one without. So the counting is measured by itself, with
the objects that count in the parts, and a scrape by the CPU time of a stack that is scraped and does nothing else. Other work on the
machine only adds: of the counting the cheapest repetition counts.
"""

import itertools
import json
import statistics
import time
import timeit
import urllib.request
from collections.abc import Callable, Iterator
from typing import Final

from jobs.contract import Outcome, Run, Timing
from jobs.queue.claim import Ending, Job
from jobs.worker.meter import Meter, Pages
from regions import metrics
from regions.counts import CELLS, Histogram, observe
from scripts.bench import load, usage
from scripts.bench.extra import Extra
from scripts.bench.ours import Ours, alone
from scripts.bench.rows import ROWS
from scripts.bench.run import done
from scripts.terminal import Progress
from web.hub import ids
from web.hub.recent import Recent
from web.hub.settlement import Settlement
from web.hub.tally import Tally

ROW: Final = ROWS["tiny"]
REPEAT, NUMBER = 20, 2_000
BATCH: Final = 10  # tasks that end together, as under a load
LOAD_SECONDS, WARM_SECONDS = 5.0, 1.0
SCRAPES: Final = 50
ANSWER_SECONDS: Final = 10.0
EVERY_SECONDS: Final = 15.0  # between two scrapes, as the shipped config has it


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    numbers = itertools.count(1)
    progress.waiting("metrics: counting")
    counting = {part: _us(count) for part, count in _counts().items()}
    tasks_ms, scrapes_ms, rates = list[float](), list[float](), list[float]()
    with alone(progress) as (ours, pages_port):
        for number in range(rounds):
            progress.waiting(f"metrics: round {number + 1} of {rounds}")
            cpu_ms, rate = _load(ours, pages_port, numbers)
            tasks_ms.append(cpu_ms)
            rates.append(rate)
            scrapes_ms.append(_scrape(ours))
    task_us, scrape_ms, rate = (statistics.median(one) for one in ([1000 * ms for ms in tasks_ms], scrapes_ms, rates))
    us = sum(counting.values())
    scrape_us = 1000 * scrape_ms / (EVERY_SECONDS * rate)
    share = (us + scrape_us) / task_us
    shown = ", ".join(f"{part} {one:.1f}" for part, one in counting.items())
    lines = [
        f"counting a task: {us:.1f} µs ({shown})",
        f"a scrape of all parts: {scrape_ms:.1f} ms, each {EVERY_SECONDS:g} s: {scrape_us:.1f} µs a task at {rate:.0f} tasks a second",
        f"together {share:.1%} of the {task_us:.0f} µs of CPU time that a task with a tiny answer takes in all parts",
    ]
    figures = {
        "counting_us": counting,
        "scrape_ms": scrape_ms,
        "task_us": task_us,
        "tasks_per_second": rate,
        "share": share,
    }
    return Extra("metrics", lines, figures)


def _counts() -> dict[str, Callable[[], object]]:
    """What counts in each part; each call is a task."""
    now_ms = time.time_ns() // 1_000_000
    request = ids.new()
    task = ids.task(request, 0)
    run_of = Run(
        source="bench.tiny",
        definition="9f2c01ab",
        raw_bytes=5_000,
        received_bytes=2_000,
        records_bytes=900,
        wire_bytes=300,
    )
    settlement = Settlement(
        request=request, task=task, region="fra", status="succeeded", finished_ms=now_ms + 5, size_bytes=900, run=run_of
    )
    tally, recent, settled, confirmed = Tally(), Recent(time.monotonic), [settlement] * BATCH, [0] * CELLS
    calls, hops = Histogram(), [(("settle", "fra"), 0.004)] * BATCH

    def gateway() -> None:
        for _ in range(BATCH):
            tally.requests.add("accepted")
            tally.hops.add("accept", "fra", seconds=0.003)
            observe(confirmed, 0, 0.002)
            recent.add("fra", run_of, now_ms + 5, task)
            calls.add("POST /v1/requests", "202", seconds=0.004)
            calls.add("GET /v1/requests/{request}", "200", seconds=0.04)
        tally.ended(settled)
        tally.hops.add_all(hops)

    took, pages = [0] * CELLS, Pages()
    meter = Meter((pages.descriptor, pages.take()))
    timing = Timing(queued_ms=1.0, turn_ms=0.0, fetch_ms=31.0, parse_ms=2.0, total_ms=34.0)
    job = Job(
        task=task, execution="1", attempt=1, data=b"", request=request, source=run_of.source, past=b"", deaths=0, deadline_ms=0,
        bridged_ms=now_ms, claimed_ms=now_ms + 4, offset_ms=3,
    )  # fmt: skip
    outcome = Outcome(
        request=request, task=task, status="succeeded", finished_ms=now_ms, expires_ms=now_ms, frame=b"", run=run_of
    )
    ending = Ending(outcome, "", 5_000, 900, 300, timing=timing)

    def workers() -> None:
        for _ in range(BATCH):
            meter.ended(job, ending)
            meter.shipped(0.003)

    def bridge() -> None:
        for _ in range(BATCH):
            observe(took, 0, 0.004)

    return {"gateway": gateway, "bridge": bridge, "workers": workers}


def _us(count: Callable[[], object]) -> float:
    """The CPU µs a task of what counts ``BATCH`` tasks."""
    number = NUMBER // BATCH
    return min(timeit.repeat(count, number=number, repeat=REPEAT, timer=time.process_time)) * 1e6 / (number * BATCH)


def _load(ours: Ours, pages_port: int, numbers: Iterator[int]) -> tuple[float, float]:
    """Returns (CPU ms a task in all parts, tasks a second)."""
    hops = ours.hops()
    before = usage.cpu_ms(hops)
    window = done(load.many(ours, ROW, numbers, warm_seconds=WARM_SECONDS, seconds=LOAD_SECONDS, pages_port=pages_port))
    ours.settle()
    after = usage.cpu_ms(hops)
    jobs = load.check(ours, ROW, window.finished)
    return sum(after[hop] - before[hop] for hop in hops) / jobs, window.jobs / window.seconds


def _scrape(ours: Ours) -> float:
    """CPU ms of all parts for a scrape of each, without what they take when nobody asks."""
    jobs = json.loads((ours.stack.data.path / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    targets = [target for job in jobs for one in job["static_configs"] for target in one["targets"]]
    hops, seconds = ours.hops(), list[float]()
    used = list[float]()
    for count in (SCRAPES, 0):
        before, began = sum(usage.cpu_ms(hops).values()), time.monotonic()
        for _ in range(count):
            for target in targets:
                with urllib.request.urlopen(f"http://{target}{metrics.PATH}", timeout=ANSWER_SECONDS) as answer:
                    answer.read()
        if not count:
            time.sleep(seconds[0])
        seconds.append(time.monotonic() - began)
        used.append(sum(usage.cpu_ms(hops).values()) - before)
    idle_ms = used[1] * seconds[0] / seconds[1]
    return max(0.0, used[0] - idle_ms) / SCRAPES
