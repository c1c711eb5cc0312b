"""``python -m tests.stack.stopwatch [FAULT…]``: does faults to a stack of its own, and says after how many seconds each of the six
places names them, and after how many they are gone there. Those of keys have another stack, with keys.

The places: ``/readyz``, ``/v1/regions``, ``nearfetch status``, the console's page of alerts in a browser, ``/metrics``, and the
gateway's log. Ends with 1 where one took longer than 10 s. On a busy machine the figures say little.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from scripts.stack.own_stack import OwnStack
from tests import forked
from tests.browser import CHROMIUM, Tab, running
from tests.stack.faults import CLEARS_SECONDS, Case, headers_of, stack
from tests.stack.rare_faults import ALL, NOT_BY_HAND
from tests.waiting import until
from tests.wire import Reply, ask
from web.hub.faults import KINDS

MOST_SECONDS = 10.0
GIVES_UP_SECONDS = 90.0
PLACES = ("readyz", "regions", "status", "console", "metric", "log")


class Places:
    """Where faults are told. ``tab``: the page of alerts, which renews itself."""

    def __init__(self, stack: OwnStack, tab: Tab) -> None:
        self._stack, self._tab = stack, tab
        self._since = ""  # the timestamp from which lines of the log count

    def names(self, place: str, name: str) -> bool:
        """Whether a place names a fault now."""
        try:
            found: Callable[[str], bool] = getattr(self, f"_{place}")
            return found(name)
        except (OSError, ValueError, KeyError, StopIteration):  # a gateway that starts again answers nothing
            return False

    def forget(self) -> None:
        """What the log says from now on counts."""
        self._since = datetime.now(UTC).isoformat()

    def _readyz(self, name: str) -> bool:
        told = self._get("/readyz").json()
        return name in (*told["faults"], *told["tickets"])

    def _regions(self, name: str) -> bool:
        told = self._get("/v1/regions").json()
        regions = [one["faults"] for one in told.get("regions", ())]
        return name in told["faults"] or any(name in faults for faults in regions)

    def _status(self, name: str) -> bool:
        environment = {**os.environ, "NEARFETCH_URL": self._stack.url, "NEARFETCH_KEY": self._stack.data.key}
        words = ["-m", "scripts.cli", "status"]
        done = forked.run(words, imported=forked.COMMAND, env=environment, text=True, timeout=30)
        return f" {name} " in done.stdout.replace(":", " ")

    def _console(self, name: str) -> bool:
        return bool(
            self._tab.page.evaluate(
                "n => [...document.querySelectorAll('#faults h2')].some(h => h.textContent == n)", name
            )
        )

    def _metric(self, name: str) -> bool:
        return f'nearfetch_fault{{name="{name}"' in self._get("/metrics").body.decode()

    def _get(self, path: str) -> Reply:
        return ask(self._stack.port, "GET", path, headers_of(self._stack))

    def _log(self, name: str) -> bool:
        lines = [line for line in self._log_lines() if f'"fault":"{name}"' in line]
        told = [one for line in lines if (one := json.loads(line))["timestamp"] >= self._since]
        return bool(told) and not told[-1]["event"].startswith("over: ")

    def _log_lines(self) -> list[str]:
        """Those of the file before, too: a long run fills one."""
        file = self._stack.data.path / "log" / "gateway.log"
        files = [one for one in (file.with_name("gateway.log.1"), file) if one.exists()]
        return [line for one in files for line in one.read_text(encoding="utf-8", errors="replace").splitlines()]


def seconds_until(
    places: Places, name: str, began: float, meanwhile: Callable[[], object], *, named: bool
) -> dict[str, float]:
    """After how many seconds each place names a fault, or does not any more; a place that did not in time is left out."""
    started = time.monotonic()
    found: dict[str, float] = {}
    while len(found) < len(PLACES) and time.monotonic() < max(began, started) + GIVES_UP_SECONDS:
        meanwhile()
        for place in PLACES:
            if place not in found and places.names(place, name) == named:
                found[place] = time.monotonic() - began
        time.sleep(0.1)
    return found


def tried(stack: OwnStack, places: Places, case: Case) -> bool:
    """Does one fault and takes it back; whether all places named it, and ceased to, in time."""
    began = time.monotonic()
    places.forget()
    try:
        since = case.do(stack)
        began = since if isinstance(since, float) else began
        told = seconds_until(places, case.alert, began, lambda: case.meanwhile(stack), named=True)
    finally:
        undone = time.monotonic()
        over = case.undo(stack)
    undone = over if isinstance(over, float) else undone
    gone = seconds_until(places, case.alert, undone, lambda: case.meanwhile(stack), named=False)
    until(lambda: ask(stack.port, "GET", "/readyz").status == 200, "the gateway to be ready", CLEARS_SECONDS)
    well = len(told) == len(gone) == len(PLACES)
    well = well and max(told.values()) <= MOST_SECONDS and max(gone.values()) <= MOST_SECONDS + case.lasts_seconds
    shown = "  ".join(f"{place} {told.get(place, -1):.1f}/{gone.get(place, -1):.1f}" for place in PLACES)
    print(f"  {'ok  ' if well else 'LATE'}  {case.alert:<28} {shown}   {case.what}", flush=True)
    return well


def run(wanted: list[str]) -> int:
    """Does each fault that is named, or all. Returns the exit code."""
    for name in (name for name in wanted if name in NOT_BY_HAND):
        print(f"  {name}: not done, {NOT_BY_HAND[name]}", flush=True)
    cases = [case for case in ALL if case.is_told and case.alert in (wanted or KINDS)]
    print("seconds until it is named / is gone; -1.0: not within", GIVES_UP_SECONDS, flush=True)
    by_keys = {has: [case for case in cases if case.has_keys == has] for has in (False, True)}
    return 1 if sum(late(some, has_keys=has) for has, some in by_keys.items()) else 0


def late(cases: list[Case], *, has_keys: bool) -> int:
    """Does faults to one stack. Returns how many of them were told late."""
    if not cases:
        return 0
    made = stack("stopwatch", has_keys=has_keys)
    count = 0
    try:
        made.start()
        with running() as browser, browser.tab(made.port) as tab:
            tab.expected = ("Failed to load resource", "net::", "Load failed", "fetch")  # while a gateway is away
            tab.open("/alerts")
            if has_keys:
                tab.page.fill("#key", made.data.key)
                tab.page.click("button:text('Sign in')")
                tab.page.wait_for_selector("#faults")
            places = Places(made, tab)
            for case in cases:
                count += not tried(made, places, case)
                until(lambda: all_well(made), "all to be well", 2 * CLEARS_SECONDS)
    finally:
        made.stop()
    return count


def all_well(stack: OwnStack) -> bool:
    """Whether nothing is told that a fault before has caused."""
    told = ask(stack.port, "GET", "/v1/faults", headers_of(stack)).json()["faults"]
    return not [one for one in told if one["source"] is None]


if __name__ == "__main__":
    if CHROMIUM is None:
        print("chromium is not installed here")
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
