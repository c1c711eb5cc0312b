"""Definitions that change under a running stack while tasks flow: taken at once, and no task is lost."""

import threading
import time

import pytest

from tests.stack.driving import Ledger
from tests.waiting import until
from tests.wire import ask

PROMISED_SECONDS = 2.0  # a version that lives for less may be unknown to a process
TAKEN_SECONDS = 30.0  # promised are 2, on a machine that has nothing else to do; the figures are printed
FIRST = """
title = "Changing"
region = "fra"
url = 'https://bench.example/tiny{?seconds}'
[params]
seconds = {}
[rows]
jmes = "rows"
[fields]
id = {type = "int"}
[limits]
concurrency = 1000
"""
CHANGES = {
    "another field": FIRST.replace("[limits]", 'label = {jmes = "name"}\n[limits]'),
    "another required param": FIRST.replace("seconds = {}", "seconds = {}\nplace = {required = true}"),
    "half written": FIRST[: FIRST.index("jmes") + 3],
    "the first again": FIRST,
    "gone": None,
}


class Traffic:
    """Posts three tasks at a time until it is stopped; who was promised what stands in a ledger outside the stack."""

    def __init__(self, stack) -> None:
        self.ledger, self._stack = Ledger(stack), stack
        self.refused = self.busy = 0
        self._is_over = threading.Event()
        self._strange: list[object] = []
        self._thread = threading.Thread(target=self.run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._is_over.set()
        self._thread.join(150)

    def run(self) -> None:
        while not self._is_over.is_set():
            self.run_once()

    def run_once(self) -> None:
        """The pages of some are on their way while the definition changes."""
        tasks = [{"source": "changing", "params": {"seconds": seconds}} for seconds in ("0", "0.4", "1.2")]
        reply = ask(self._stack.port, "POST", "/v1/requests", body={"sources": tasks, "deadline": 60})
        if reply.status == 202:
            self.ledger.note(reply.json())
        elif reply.status == 422:
            self.refused += 1
        elif reply.status == 503:  # a busy machine: nothing was accepted
            self.busy += 1
        else:
            self._strange.append(reply)
        self._is_over.wait(0.05)

    def check(self) -> None:
        """Every accepted task succeeded, once, by its id."""
        assert self._strange == []
        for request in self.ledger.promised:
            self.ledger.collect(request)
        self.ledger.check()


@pytest.fixture
def changing(own):
    """A stack with a folder of the user's own definitions, and one file in it."""
    path = own.sources / "changing.toml"
    path.write_text(FIRST)
    yield own.stack, path
    path.unlink(missing_ok=True)


def shown(stack):
    """(definition, health) of the source in the catalogue; ("", "gone") where it is none."""
    reply = ask(stack.port, "GET", "/v1/sources/changing")
    return (found["definition"], found["health"]) if reply.status == 200 and (found := reply.json()) else ("", "gone")


def used(stack):
    """The hash of the definition that a new task runs by; None where none is taken."""
    reply = ask(stack.port, "GET", "/v1/sources/changing/records?place=x")
    if reply.status != 200:
        reply = ask(stack.port, "GET", "/v1/sources/changing/records")
    return reply.json()["definition"] if reply.status == 200 else None


@pytest.mark.timeout(600)
def test_a_changed_definition_is_used_at_once_and_no_accepted_task_is_lost(changing, capsys):
    """Through a new field, a new required param, a file that is half written, the old one again, and none at all."""
    stack, path = changing
    until(lambda: shown(stack)[1] == "ok", "the region to say what it has", 150)
    took = {}
    with Traffic(stack) as traffic:
        until(lambda: len(traffic.ledger.promised) >= 3, "tasks to flow", 150)
        for change, text in CHANGES.items():
            before, promised = shown(stack)[0], len(traffic.ledger.promised)
            began = time.monotonic()
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
            until(lambda before=before: shown(stack)[0] != before, f"the catalogue to show: {change}", TAKEN_SECONDS)
            new = shown(stack)[0]
            until(lambda new=new: used(stack) == (new or None), f"tasks to use: {change}", TAKEN_SECONDS)
            took[change] = round(time.monotonic() - began, 2)
            health = {"gone": "gone", "half written": "broken"}.get(change, "ok")
            until(lambda new=new, health=health: shown(stack) == (new, health), f"{health} after: {change}", 150)
            until(lambda began=began: time.monotonic() > began + PROMISED_SECONDS, "every process to have had its time")
            if change in ("another field", "the first again"):
                until(lambda promised=promised: len(traffic.ledger.promised) > promised + 3, "more tasks", 150)
    traffic.check()
    assert traffic.refused > 0
    with capsys.disabled():
        print(f"\n  {len(traffic.ledger.delivered)} tasks; seconds until a change was used: {took}")
