"""Region Redis crash: no ack leaves before its append-only file has the batch.

``kill -9`` alone loses nothing, since the page cache survives; so the file is cut back to what was known to be in it, as
after the loss of a machine: without what was enqueued and not acked, without claims, without ends and the outbox.
"""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from regions import connect, names
from scripts.stack.wan_links import Rule
from tests.promises.driving import Ledger, losing
from tests.waiting import freeze, until

TASKS = 40


def append_only_file(stack, region: str):
    folder = stack.data.path / f"redis-{region}" / "appendonlydir"
    return max(folder.glob("*.incr.aof"), key=lambda file: file.stat().st_mtime)


@pytest.fixture
def client(stack):
    """Of the region's Redis, whose workers claim nothing, so that what is lost was only enqueued."""
    found = connect.open_redis(stack.server_url(f"redis-{stack.regions[0]}"), name="test", block_seconds=10.0)
    found.set(names.RQ_SUSPENDED, 1)
    yield found
    found.delete(names.RQ_SUSPENDED)
    found.close()


@pytest.fixture
def out_of_reach(stack, client) -> str:
    """The link from the region's workers to the hub, which is away, so that every end of a task stays in the outbox."""
    link = f"workers-{stack.regions[0]}>hub"
    until(lambda: client.xlen(names.OUTBOX) == 0, "the hub to have what was before in its file")
    stack.control.rule(link, Rule(accepts=False))
    stack.control.cut(link)
    return link


def known(stack, client, region: str) -> tuple[Path, int]:
    """A region's append-only file, and how long it is with all that was written so far."""
    assert client.execute_command("WAITAOF", 1, 0, 9000)[0] == 1
    file = append_only_file(stack, region)
    return file, file.stat().st_size


def lose(stack, client, region: str, file: Path, size: int) -> None:
    """Its Redis dies as with its machine, and comes back with so much of its file."""
    group = stack.pid(f"redis-{region}")
    freeze(group)  # it writes no more
    with file.open("r+b") as opened:
        opened.truncate(size)
    os.killpg(group, signal.SIGKILL)
    until(lambda: _answers(client), "its Redis to be back")


def enqueued(stack, client, ledger: Ledger, region: str, **options) -> tuple[list[str], Path, int]:
    """Jobs of a region that claims nothing, whose messages were acked; its file, and how long it is with them."""
    request = ledger.must_post([region] * TASKS, **options)
    jobs = [names.rq_job(task) for task in ledger.promised[request]]
    until(lambda: client.exists(*jobs) == TASKS, "the jobs")
    until(lambda: stack.held(region) == 0, "every message to be acked")
    return jobs, *known(stack, client, region)


def test_what_was_enqueued_and_not_known_to_be_on_disk_comes_again_after_a_crash_that_loses_it(stack, client):
    region = stack.regions[0]
    link = f"bridge-{region}>redis-{region}"
    file, size = known(stack, client, region)
    is_lost = losing(stack, link)
    stack.control.swallow(link, b"WAITAOF", times=9, cut_seconds=1.5)  # asked, and not answered
    ledger = Ledger(stack)
    request = ledger.must_post([region] * TASKS)
    jobs = [names.rq_job(task) for task in ledger.promised[request]]
    until(lambda: client.exists(*jobs) == TASKS, "the jobs")
    until(is_lost, "the bridge to wait for the file")
    lose(stack, client, region, file, size)
    stack.control.heal(link)
    print(f"{client.exists(*jobs)} of {TASKS} jobs were left")
    client.delete(names.RQ_SUSPENDED)
    ledger.check()


def test_claims_that_a_crash_loses_are_made_again_and_each_task_ends_once(stack, client, out_of_reach):
    """Those who run them go on, and may not end what is no longer theirs."""
    region = stack.regions[0]
    ledger = Ledger(stack)
    jobs, file, size = enqueued(stack, client, ledger, region, seconds=2.0)
    client.delete(names.RQ_SUSPENDED)
    until(lambda: client.llen(names.rq_queue(region)) == 0, "all of them to be claimed")
    lose(stack, client, region, file, size)
    assert client.llen(names.rq_queue(region)) == TASKS, "the claims are not lost"
    client.delete(names.RQ_SUSPENDED)
    until(lambda: not client.llen(names.rq_queue(region)) and not sum(stack.executions(region).values()), "all ends")
    ended = Counter(names.rq_job(fields[b"t"].decode()) for _, fields in client.xrange(names.OUTBOX))
    assert ended == dict.fromkeys(jobs, 1), "a task did not end once"
    stack.control.heal(out_of_reach)
    ledger.check(fetches=2)


def test_ends_that_a_crash_loses_with_their_outbox_are_made_again_and_told_once(stack, client, out_of_reach):
    region = stack.regions[0]
    ledger = Ledger(stack)
    _, file, size = enqueued(stack, client, ledger, region)
    client.delete(names.RQ_SUSPENDED)
    until(lambda: client.xlen(names.OUTBOX) == TASKS, "all results in the outbox")
    lose(stack, client, region, file, size)
    assert (client.xlen(names.OUTBOX), client.llen(names.rq_queue(region))) == (0, TASKS), "the ends are not lost"
    client.delete(names.RQ_SUSPENDED)
    stack.control.heal(out_of_reach)
    ledger.check(fetches=2)


def _answers(client) -> bool:
    try:
        return bool(client.ping())
    except Exception:  # noqa: BLE001 - it is killed, starting, or loading
        return False
