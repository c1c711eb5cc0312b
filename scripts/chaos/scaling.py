"""``chaos --scale``: the number of each region's worker processes changes by load, clock and command during the faults.

environ, add_rules   the regions' [scale]: few threads for each process, a short cooldown, and rules in the first region
Scaling              an operator that runs ``nearfetch scale``, and a count of the processes that claim, during the run
  └ seen             what the pools decided, from their logs
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from regions import names, settings
from regions.settings import ROOT
from scripts.chaos import plan
from scripts.chaos.faults import AWAY
from scripts.chaos.history import History, Scaled
from scripts.chaos.stack import ChaosStack
from scripts.stack import configuration

THREADS: Final = 16  # in each process
COOLDOWN_SECONDS: Final = 8.0
TARGET_WAIT_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 60.0  # of the operator, while the region's Redis is away
LOOK_SECONDS: Final = 1.0
RULES: Final = """
[[scale.schedule]]
cron = "*/2 * * * *"
min = 2
[[scale.schedule]]
cron = "1-59/2 * * * *"
"""


def environ() -> dict[str, str]:
    """The settings of a stack whose shipped regions scale between one and three processes."""
    wanted = {
        "WORKERS__THREADS": THREADS, "SCALE__MIN": 1, "SCALE__MAX": plan.SCALE_MAX,
        "SCALE__TARGET_WAIT_SECONDS": TARGET_WAIT_SECONDS, "SCALE__COOLDOWN_SECONDS": COOLDOWN_SECONDS,
    }  # fmt: skip
    regions = [file.stem.upper() for file in (ROOT / "regions").glob("*.toml")]
    return {
        f"{settings.PREFIX}REGION__{region}__{key}": str(value) for region in regions for key, value in wanted.items()
    }


def add_rules(stack: ChaosStack) -> None:
    """Adds rules by which the first region's minimum is two in every other minute."""
    file = stack.data.regions / f"{stack.regions[0]}.toml"
    stack.data.write(f"regions/{file.name}", file.read_text(encoding="utf-8") + RULES)


class Scaling:
    """An operator and an observer, each in a thread."""

    def __init__(self, stack: ChaosStack, history: History, wanted: list[plan.Scaling]) -> None:
        self._stack, self._history, self._wanted = stack, history, wanted
        self._counts: dict[str, list[int]] = {region: [] for region in stack.regions}
        self._environ = configuration.environment(stack.data, stack.environ)

    def start(self, started: float, stopping: threading.Event) -> None:
        """Starts both. They run until ``stopping``; ``started`` is a monotonic time."""
        for run in (self._operate, self._look):
            threading.Thread(target=run, args=(started, stopping), daemon=True).start()

    def seen(self) -> dict[str, Scaled]:
        """The changes in each region."""
        log = self._stack.data.log
        return {region: count(log, region, counts) for region, counts in self._counts.items()}

    def _operate(self, started: float, stopping: threading.Event) -> None:
        for one in self._wanted:
            if stopping.wait(max(0.0, started + one.at - time.monotonic())):
                return
            threading.Thread(target=self._ask, args=(one, stopping), daemon=True).start()

    def _ask(self, one: plan.Scaling, stopping: threading.Event) -> None:
        command: Any = [sys.executable, "-m", "scripts.cli", "scale", one.region, one.number]
        end = time.monotonic() + PATIENCE_SECONDS
        while not stopping.is_set():
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return
            if time.monotonic() > end:
                self._history.wonder(f"nearfetch scale {one.region} {one.number}: {done.stderr[-300:]}")
                return
            stopping.wait(LOOK_SECONDS)

    def _look(self, _started: float, stopping: threading.Event) -> None:
        while not stopping.wait(LOOK_SECONDS):
            for region, counts in self._counts.items():
                with contextlib.suppress(*AWAY):
                    found: Any = self._stack.redis(f"redis-{region}").zrange(names.WORKERS, 0, -1)
                    counts.append(sum(b".alone." not in name for name in found))


def count(log: Path, region: str, counts: list[int]) -> Scaled:
    """A region's decisions, from its pools' logs in a folder. The first number of a pool does not count as growth.

    ``counts``: how many processes claimed, at each look.
    """
    one = Scaled(least=min(counts, default=0), most=max(counts, default=0))
    for was, number, reason in _decisions(log, region):
        one.shrank += number < was
        if 0 < was < number:
            one.grew += 1
            one.by_command += reason.startswith("nearfetch scale")
            one.by_clock += reason.startswith("the rule")
            one.by_load += "needed to keep" in reason
    return one


def _decisions(log: Path, region: str) -> Iterator[tuple[int, int, str]]:
    """(was, number, reason) of each decision."""
    for file in log.glob(f"workers-{region}.log*"):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if '"scaled"' in line:
                with contextlib.suppress(ValueError):
                    decision = json.loads(line)
                    yield decision["was"], decision["number"], decision["reason"]
