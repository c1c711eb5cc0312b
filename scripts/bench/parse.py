"""How much longer a definition takes to parse a page than code written by hand, and how much memory it needs.

python -m scripts.bench.parse                    a table: medians of CPU time, the ratio, the peak of memory
python -m scripts.bench.parse --rounds 50 --json
python -m scripts.bench.parse --check            ends with 1 when a ratio is above 1.3 or a peak above 8

Rounds are interleaved (ours, by hand, by hand, ours), so that other work on the machine affects both. The ratio is the
median of the rounds' ratios. The peak is measured while a fresh process parses the page once: its highest resident memory
minus that before, as a multiple of the page's size. The page itself counts.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from jobs.definition.read import read
from jobs.page import Page
from jobs.parse.source import Source
from scripts import terminal
from scripts.bench.pages import URL, Case, cases

RATIO_MAX: Final = 1.3
PEAK_MAX: Final = 8.0
# JSON is shown without a limit, since the standard library parses directly into the wanted values.
LIMITED: Final = ("html", "xml")
WARM_BYTES: Final = 2_000


@click.command()
@click.option("--rounds", default=15, show_default=True, help="How many times each parser parses each page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--check", is_flag=True, help="End with 1 when a figure is above its limit.")
@click.option("--memory-of", hidden=True, help="In a process of its own: the peak of one case.")
def main(rounds: int, as_json: bool, check: bool, memory_of: str | None) -> None:
    """Measures parsing: CPU time beside code written by hand, and the peak of memory."""
    if memory_of is not None:
        print(_peak(next(case for case in cases() if case.name == memory_of)))
        return
    progress = terminal.Progress()
    found = []
    for case in cases():
        if not as_json:
            progress.waiting(f"{case.name}, {rounds} rounds")
        found.append(_measured(case, rounds))
        if not as_json:
            progress.line(_line(found[-1]))
    if as_json:
        print(json.dumps(found, indent=1))
    limited = [one for one in found if one["name"].startswith(LIMITED)]
    if check and any(one["ratio"] > RATIO_MAX or one["peak"] > PEAK_MAX for one in limited):
        sys.exit(1)


def _line(one: dict[str, Any]) -> str:
    times = f"{terminal.duration(one['seconds'])} (by hand {terminal.duration(one['by_hand_seconds'])})"
    return f"{one['name']:<11} {one['rows']:>6} rows  {times:<28} {one['ratio']:.2f} times   peak {one['peak']:.1f} times the page"


def _measured(case: Case, rounds: int) -> dict[str, Any]:
    ours = reader(case)
    assert ours(case.body) == case.hand(case.body), f"{case.name}: both must give the same rows"
    mine, hands = [], []
    for _ in range(rounds):
        first, second, third, last = (_seconds(one, case.body) for one in (ours, case.hand, case.hand, ours))
        mine.append(first + last)
        hands.append(second + third)
    ratios = [one / other for one, other in zip(mine, hands, strict=True)]
    command = [sys.executable, "-m", "scripts.bench.parse", "--memory-of", case.name]
    peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "name": case.name,
        "bytes": len(case.body),
        "rows": len(ours(case.body)),
        "seconds": statistics.median(mine) / 2,
        "by_hand_seconds": statistics.median(hands) / 2,
        "ratio": statistics.median(ratios),
        "peak": peak,
    }


def _seconds(run: Callable[[bytes], Any], body: bytes) -> float:
    began = time.process_time()
    run(body)
    return time.process_time() - began


def reader(case: Case) -> Callable[[bytes], list[dict[str, Any]]]:
    """A parser made from the case's definition."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.parse.toml"
        file.write_text(case.definition, encoding="utf-8")
        source = Source(read(file))
    request = source.first({}, {})
    return lambda body: source.parse(Page(request, URL, 200, {}, body)).rows


def _peak(case: Case) -> float:
    run = reader(case)
    small = (
        case.body[:WARM_BYTES].rpartition(b"<li")[0] or b"<catalogue/>" if b"<" in case.body[:1] else b'{"data": {}}'
    )
    run(small)  # what is loaded on first use does not belong to a page
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM counts from here
    before = _status("VmRSS")
    rows = run(case.body)
    assert rows
    return (_status("VmHWM") - before + len(case.body)) / len(case.body)


def _status(name: str) -> int:
    """The value of a line in /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"expected {name} in /proc/self/status")


if __name__ == "__main__":
    main(prog_name="python -m scripts.bench.parse")
