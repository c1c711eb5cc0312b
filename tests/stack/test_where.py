"""Where a task is: every hop of it, through a retry, a killed process and a cancel."""

import os
import signal

import pytest

from tests.stack.driving import Ledger
from tests.waiting import until
from tests.wire import ask


@pytest.fixture(scope="module")
def stack(forked_stack):
    return forked_stack


def whereabouts(stack, task: str) -> dict:
    return stack.get(f"/v1/tasks/{task}")


def after(stack, task: str, hop: str) -> dict:
    """Where a task is once it has passed a hop; who was answered may know so sooner."""
    return until(lambda: (found := whereabouts(stack, task))["hops"][-1]["hop"] == hop and found, f"{task} to be {hop}")


def hops(found: dict) -> list[str]:
    """Their names in order, without when it was confirmed: the region may be quicker."""
    times = [hop["after_ms"] for hop in found["hops"]]
    assert times == sorted(times), found["hops"]
    names = [hop["hop"] for hop in found["hops"]]
    names.remove("confirmed")
    return names


def test_a_task_that_went_well_shows_every_hop(stack):
    ledger = Ledger(stack)
    request = ledger.post(["ecb.rates"])
    ledger.collect(request)
    (task,) = ledger.promised[request]
    found = after(stack, task, "delivered")
    assert hops(found) == ["accepted", "bridged", "claimed", "finished", "settled", "delivered"]
    places = {hop["hop"]: hop["where"] for hop in found["hops"]}
    assert (places["confirmed"], places["bridged"]) == ("rabbitmq q.fra", "fra")
    assert places["claimed"].startswith("fra.worker.")
    assert (found["id"], found["request"], found["status"], found["error"]) == (task, request, "succeeded", None)
    assert stack.get(f"/v1/requests/{request}/tasks/{task}") == found
    shown = stack.nearfetch("where", task, "--url", stack.url).stdout
    assert "rabbitmq q.fra" in shown
    assert "31 records" in shown


def test_a_running_task_and_its_lost_and_failed_attempts_are_shown(stack, inside):
    """Its first process is killed, its second attempt is answered 503, the third one succeeds."""
    ledger = Ledger(stack)
    inside.behave(prefix="/slow.example/", times=1, status=503)
    inside.behave(prefix="/slow.example/", times=1, delay_seconds=20)
    request = ledger.post(["slow.example"], deadline=120)
    (task,) = ledger.promised[request]
    found = until(
        lambda: (one := whereabouts(stack, task))["status"] == "running" and one["attempts"] and one, "it to run"
    )
    assert hops(found) == ["accepted", "bridged", "claimed"]
    (first,) = found["attempts"]
    assert first["ended_at"] is None
    pid = until(lambda: next((pid for pid, count in inside.executions("sin").items() if count), None), "its process")
    os.kill(pid, signal.SIGKILL)
    ledger.collect(request)
    ledger.check()
    found = after(stack, task, "delivered")
    assert [attempt["error"] and attempt["error"]["type"] for attempt in found["attempts"]] == [
        "lost", "http_status", None,
    ]  # fmt: skip
    assert hops(found) == [
        "accepted", "bridged", "claimed", "lost", "claimed", "failed", "waited", "claimed", "finished", "settled",
        "delivered",
    ]  # fmt: skip
    (waited,) = [hop["note"] for hop in found["hops"] if hop["hop"] == "waited"]
    assert waited.startswith("to be tried again after http_status: ")
    shown = stack.nearfetch("where", request, "--url", stack.url).stdout
    assert shown.startswith(f"request {request}  succeeded, 1 of 1 task ended")
    assert waited in shown


def test_a_cancelled_task_says_so(stack, inside):
    inside.behave(prefix="/slow.example/", delay_seconds=20)
    ledger = Ledger(stack)
    request = ledger.post(["slow.example"])
    (task,) = ledger.promised[request]
    path = f"/v1/requests/{request}"
    until(lambda: ask(stack.port, "DELETE", path).json()["status"] == "cancelled", "the cancel")
    found = whereabouts(stack, task)
    assert (found["status"], found["error"]["type"]) == ("cancelled", "cancelled")
    assert hops(found)[-1] == "settled"
    until(lambda: not sum(inside.executions("sin").values()), "the worker to let go of it")


def test_a_task_that_nobody_knows_any_more_is_gone(stack):
    assert ask(stack.port, "GET", "/v1/tasks/01M87RTYV9Y5XD88GQ9E7T7S17").status == 410
    assert ask(stack.port, "GET", "/v1/tasks/soon").status == 404
    done = stack.nearfetch("where", "01M87RTYV9Y5XD88GQ9E7T7S17", "--url", stack.url, check=False)
    assert (done.returncode, "there is no task 01M87RTYV9Y5XD88GQ9E7T7S17" in done.stderr) == (1, True)
