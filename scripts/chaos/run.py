"""One run: a stack, a load, the plan's faults, then the comparison.

run → stack.start → Load, Injector and Postman at the same time, by the plan's clock → Load.wait
    → audit, archive, letters, fetches → compare
"""

import http.client
import json
import threading
import time
from typing import Final

from scripts.chaos import archive, faults, letters, load
from scripts.chaos.history import History
from scripts.chaos.ledger import compare
from scripts.chaos.plan import Fault, Plan
from scripts.chaos.report import Report
from scripts.chaos.scaling import Scaling
from scripts.chaos.stack import ChaosStack
from scripts.chaos.verdict import Verdict

WELL_SECONDS: Final = 60.0
NUMBERED: Final = "/bench.example/numbered?n="


class Injector:
    """Does the faults of a plan at their times, each in a thread, since they overlap."""

    def __init__(self, stack: ChaosStack, history: History, report: Report) -> None:
        self._stack, self._history, self._report = stack, history, report
        self._lock = threading.Lock()
        self._active: list[Fault] = []
        self._threads: list[threading.Thread] = []

    def run(self, found: list[Fault], started: float, stopping: threading.Event) -> None:
        """Begins every fault at its time; ``started`` is a monotonic time."""
        for fault in found:
            if stopping.wait(max(0.0, started + fault.at - time.monotonic())):
                return
            thread = threading.Thread(target=self._inject, args=(fault,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self) -> None:
        """Waits until every fault is undone."""
        for thread in self._threads:
            thread.join()

    @property
    def active(self) -> list[Fault]:
        """The faults in progress."""
        with self._lock:
            return list(self._active)

    def gateway_is_well(self) -> bool:
        """Whether the gateway itself can answer. Then it has to, within a second, whatever else is away."""
        return not any(fault.target == "gateway" for fault in self.active)

    def _inject(self, fault: Fault) -> None:
        with self._lock:
            self._active.append(fault)
        self._report.began(fault)
        try:
            window = faults.inject(self._stack, fault)
        finally:
            with self._lock:
                self._active.remove(fault)
        with self._history.lock:
            self._history.windows.append(window)
        self._report.ended(window)


def run(stack: ChaosStack, plan: Plan, report: Report) -> tuple[History, Verdict]:
    """Runs a plan on a stack that is ready, and compares."""
    history = History()
    injector = Injector(stack, history, report)
    clients = load.Load(plan, history, stack.ports.gateway, injector.gateway_is_well)
    stopping = threading.Event()
    started = time.monotonic()
    hurting = threading.Thread(target=injector.run, args=(plan.faults, started, stopping), daemon=True)
    hurting.start()
    watching = threading.Thread(
        target=_watch, args=(history, clients, injector, report, plan, started, stopping), daemon=True
    )
    watching.start()
    postman = letters.Postman(stack, history)
    posting = threading.Thread(target=postman.run, args=(plan.letters, started, stopping), daemon=True)
    posting.start()
    scaling = Scaling(stack, history, plan.scalings) if plan.scalings else None
    if scaling:
        scaling.start(started, stopping)
    try:
        clients.run(started, stopping)
        clients.wait(stopping)
        hurting.join()
        injector.wait()
        posting.join()
        postman.wait()
        _wait_until_ready(stack)
    finally:
        stopping.set()
        watching.join()
    report.say("every client has finished; reading everything once more")
    load.audit(history, stack.ports.gateway)
    history.archived = archive.read(history, stack.ports.gateway)
    history.shown = letters.shown(stack, history)
    history.fetches = fetches(stack)
    if scaling:
        history.scaled = scaling.seen()
    return history, compare(history, load.expected_digest)


def _watch(
    history: History,
    clients: load.Load,
    injector: Injector,
    report: Report,
    plan: Plan,
    started: float,
    stopping: threading.Event,
) -> None:
    while not stopping.wait(0.2):
        report.progress(
            time.monotonic() - started,
            plan.seconds,
            len(history.promises),
            clients.open,
            [fault.kind for fault in injector.active],
        )


def _wait_until_ready(stack: ChaosStack) -> None:
    """Waits until the gateway accepts requests again. Raises TimeoutError when it does not."""
    deadline = time.monotonic() + WELL_SECONDS
    while True:
        try:
            status, answer = load.Client(stack.ports.gateway).ask("GET", "/readyz")
        except load.GONE as error:
            status, answer = 0, str(error)
        if status == 200:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the gateway is not ready {WELL_SECONDS:.0f} s after the last fault: {answer}")
        time.sleep(0.2)


def fetches(stack: ChaosStack) -> dict[int, int]:
    """How often the page of each number was requested, by the site's count."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.ports.site, timeout=30)
    connection.request("GET", "/_site/fetches?since=0")
    found = json.loads(connection.getresponse().read())["fetches"]
    connection.close()
    counts: dict[int, int] = {}
    for address, count in found.items():
        if address.startswith(NUMBERED):
            number = int(address.removeprefix(NUMBERED).partition("&")[0])
            counts[number] = counts.get(number, 0) + count
    return counts
