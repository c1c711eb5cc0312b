"""DESIGN section 8, region Redis crash: no ack leaves before its append-only file has the batch.

``kill -9`` alone loses nothing, since the page cache survives; so the file is cut back to what was known to be in it, as
after the loss of a machine.
"""

import signal

import pytest

from regions import connect, names
from tests.promises.driving import Ledger
from tests.waiting import until

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


def test_what_was_enqueued_and_not_known_to_be_on_disk_comes_again_after_a_crash_that_loses_it(stack, client):
    region = stack.regions[0]
    link = f"bridge-{region}>redis-{region}"
    assert client.execute_command("WAITAOF", 1, 0, 9000)[0] == 1
    file = append_only_file(stack, region)
    known = file.stat().st_size
    stack.control.swallow(link, b"WAITAOF", times=9, cut_seconds=1.5)  # asked, and not answered
    ledger = Ledger(stack)
    request = ledger.must_post([region] * TASKS)
    jobs = [names.rq_job(task) for task in ledger.promised[request]]
    until(lambda: client.exists(*jobs) == TASKS, "the jobs")
    until(lambda: stack.control.counts(link).swallowed, "the bridge to wait for the file")
    stack.signal(f"redis-{region}", signal.SIGSTOP)
    with file.open("r+b") as opened:
        opened.truncate(known)
    stack.signal(f"redis-{region}", signal.SIGKILL)
    stack.control.heal(link)
    until(lambda: _answers(client), "its Redis to be back")
    print(f"{client.exists(*jobs)} of {TASKS} jobs were left")
    client.delete(names.RQ_SUSPENDED)
    ledger.check()


def _answers(client) -> bool:
    try:
        return bool(client.ping())
    except Exception:  # noqa: BLE001 - it is killed, starting, or loading
        return False
