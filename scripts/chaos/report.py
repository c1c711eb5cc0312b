"""The output of a run: a line for each fault, a bar on a terminal, the summary, and the same as JSON."""

import re
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, Final, TextIO

from scripts.chaos.history import History, Scaled, Window
from scripts.chaos.plan import Fault, Plan
from scripts.chaos.verdict import VIOLATIONS, Verdict, p99

BAR: Final = 24
SHOWN: Final = 20  # for each kind of violation
SHOWN_LINES: Final = 40  # of the logs
ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{24,}")  # of a request or a task


class Report:
    """Prints to ``out``, with a bar if that is a terminal."""

    def __init__(self, out: TextIO = sys.stdout, *, verbose: bool = True) -> None:
        self._out, self._verbose = out, verbose
        self._is_live = verbose and out.isatty()
        self._has_bar = False
        self._started = time.monotonic()

    def start(self) -> None:
        """Starts the plan's clock."""
        self._started = time.monotonic()

    def say(self, text: str = "") -> None:
        """Prints a line."""
        if self._verbose:
            self._wipe()
            print(text, file=self._out, flush=True)

    def began(self, fault: Fault) -> None:
        """Reports that a fault began."""
        lasts = f"{fault.seconds:.1f} s" if fault.seconds else ""
        self.say(f"  {time.monotonic() - self._started:6.1f}  {fault.kind:<16} {fault.target:<34} {lasts}")

    def ended(self, window: Window) -> None:
        """Reports that a fault ended, if there is something to report."""
        if window.note or window.hits is not None:
            hits = "" if window.hits is None else f"hit {window.hits}  "
            self.say(f"          {window.kind:<16} {window.target:<34} {hits}{window.note}")

    def progress(self, seconds: float, of_seconds: float, promised: int, is_open: int, active: list[str]) -> None:
        """Shows the bar."""
        if not self._is_live:
            return
        filled = min(BAR, int(BAR * seconds / of_seconds))
        bar = "#" * filled + "." * (BAR - filled)
        text = f"  [{bar}] {seconds:4.0f} s  {promised} accepted  {is_open} waiting  {' '.join(active)}"
        self._wipe()
        print(text[:118], end="", file=self._out, flush=True)
        self._has_bar = True

    def _wipe(self) -> None:
        if self._has_bar:
            print("\r\x1b[K", end="", file=self._out)
            self._has_bar = False


def logged(folder: Path, verdict: Verdict) -> list[str]:
    """The first lines of the logs that name a request or a task of a violation, since the logs go with the stack."""
    violations: list[str] = [one for name in VIOLATIONS for one in getattr(verdict, name)]
    ids = {found for one in violations for found in ID.findall(one)}
    lines = []
    for file in sorted(folder.glob("*.log")) if ids else ():
        with file.open(encoding="utf-8", errors="replace") as log:
            lines += [f"{file.stem}: {line.rstrip()}" for line in log if any(found in line for found in ids)]
    return lines[:SHOWN_LINES]


def summary(plan: Plan, history: History, verdict: Verdict, log_lines: list[str]) -> list[str]:
    """The lines at the end. ``log_lines``: what the logs say of violations."""
    share = 100 * verdict.obliged / verdict.promised if verdict.promised else 0.0
    exempt = verdict.promised - verdict.obliged
    refused = len(history.refused) + history.refused_without_id
    lines = [
        "",
        f"seed {plan.seed}   plan {plan.digest}   {len(history.windows)} faults   {len(plan.posts)} requests posted",
        f"tasks       {verdict.promised} accepted, {verdict.obliged} obliged to succeed ({share:.1f} %), {exempt} exempt",
        f"ended       {_counts(verdict.statuses)}",
        f"planned     {_counts(verdict.planned) or 'none'}; {len(history.cancels)} requests cancelled",
        f"refused     {refused} requests; {history.unanswered} posts without an answer",
        f"slowest     {history.slowest_answer:.2f} s for the answer to a post, while the gateway itself was well",
        f"fetched     {sum(history.fetches.values())} pages; {verdict.refetches} tasks more than once, by a fault or a takeover",
        f"moved       {verdict.moved} tasks were answered by a standby",
        f"history     {verdict.archived} requests; {verdict.letters} of {len(history.letters)} unreadable messages are dead letters",
        *(f"scale       {_scaled(name, one)}" for name, one in history.scaled.items()),
        "            " + "   ".join(f"{len(getattr(verdict, name))} {name}" for name in VIOLATIONS),
    ]
    lines += [f"took        {seconds:.1f} s from accept to end: {who}" for seconds, who in verdict.slowest]
    lines += [f"told        {seconds:.1f} s after its end: {who}" for seconds, who in verdict.told_late]
    if verdict.left:
        lines.append(f"left        {len(verdict.left)} refused requests that a dying gateway could not take back")
    if verdict.excused:
        lines.append(f"excused     {_counts(verdict.excused)}")
    if verdict.second_starts:
        slow = p99(verdict.second_starts)
        lines.append(f"second starts after a worker's death: {len(verdict.second_starts)}, p99 {slow:.1f} s")
    lines.append("recovery, seconds from a fault's end to the next success of something asked for after it:")
    for kind in sorted(verdict.recovery):
        found = verdict.recovery[kind]
        lines.append(f"  {kind:<16} {len(found):>3}   median {median(found):5.2f}   worst {max(found):5.2f}")
    for name in VIOLATIONS:
        found_ones: list[str] = getattr(verdict, name)
        lines += [f"{name}: {one}" for one in found_ones[:SHOWN]]
        if len(found_ones) > SHOWN:
            lines.append(f"{name}: … and {len(found_ones) - SHOWN} more")
    lines += [f"log         {one}" for one in log_lines]
    lines.append("FAILED: " + "; ".join(verdict.faults) if verdict.faults else "passed")
    return lines


def as_json(plan: Plan, history: History, verdict: Verdict, log_lines: list[str]) -> dict[str, Any]:
    """The summary, for programs."""
    return {
        "seed": plan.seed,
        "plan": plan.digest,
        "passed": not verdict.faults,
        "faults": verdict.faults,
        "tasks": {"accepted": verdict.promised, "obliged": verdict.obliged, "statuses": verdict.statuses},
        "planned": verdict.planned,
        "cancelled_requests": len(history.cancels),
        "dead_letters": {"published": len(history.letters), "shown": verdict.letters},
        "archived": verdict.archived,
        "scale": {name: vars(one) for name, one in history.scaled.items()},
        "refused": {"with_id": len(history.refused), "without_id": history.refused_without_id},
        "unanswered": history.unanswered,
        "slowest_answer_seconds": round(history.slowest_answer, 3),
        "excused": verdict.excused,
        "refetches": verdict.refetches,
        "moved": verdict.moved,
        "left": verdict.left,
        "slowest_seconds": verdict.slowest,
        "told_late_seconds": verdict.told_late,
        "second_start_seconds": {"count": len(verdict.second_starts), "p99": p99(verdict.second_starts)},
        "recovery_seconds": {
            kind: {"count": len(found), "median": median(found), "worst": max(found)}
            for kind, found in sorted(verdict.recovery.items())
        },
        "windows": [
            {
                "kind": window.kind, "target": window.target, "began": window.began, "ended": window.ended,
                "hits": window.hits, "note": window.note,
            }
            for window in sorted(history.windows, key=lambda one: one.began)
        ],
        **{name: getattr(verdict, name) for name in VIOLATIONS},
        "log": log_lines,
    }  # fmt: skip


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items(), key=lambda one: -one[1]))


def _scaled(name: str, one: Scaled) -> str:
    why = f"by load {one.by_load}, clock {one.by_clock}, command {one.by_command}"
    return f"{name} grew {one.grew} times ({why}) and shrank {one.shrank} times; {one.least} to {one.most} processes"
