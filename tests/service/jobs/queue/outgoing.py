"""Results in a region's outbox, for tests of their way home."""

import math
import time

from jobs.contract import Outcome
from jobs.queue.home import Shipment
from jobs.queue.outbox import Leftovers, Shipper
from regions import names


def outcome(number: int, *, size: int = 10, expires_in: float = 60.0) -> Outcome:
    now = int(time.time() * 1000)
    return Outcome(
        request=f"R{number}", task=f"T{number}", status="succeeded", finished_ms=now,
        expires_ms=now + int(expires_in * 1000), frame=b"x" * size,
    )  # fmt: skip


def stored(client, one: Outcome, *, age_seconds: float = 0.0, since: float | None = None) -> Shipment:
    """Puts an outcome into the outbox, as long ago as told."""
    seconds, micros = client.time()
    at = int(seconds * 1000 + micros // 1000 - age_seconds * 1000)
    entry = client.xadd(
        names.OUTBOX,
        {"q": one.request, "t": one.task, "s": one.status, "f": one.finished_ms, "x": one.expires_ms, "b": 610,
         "r": one.frame},
        id=f"{at}-*",
    )  # fmt: skip
    client.incrby(names.OUTBOX_BYTES, len(one.frame))
    return Shipment(entry.decode(), one, 610, time.monotonic() if since is None else since)


def ship(shipper: Shipper) -> None:
    """Until nothing is to be sent any more, and all is answered."""
    while shipper._flying or shipper._leaves_at() != math.inf:
        assert shipper.run_once()


def connections(hub) -> list[str]:
    """The connections of worker processes at the hub."""
    return sorted(one["id"] for one in hub.client.client_list() if one["name"] == "w1")


def left(region) -> tuple[int, int]:
    """(entries, bytes) of the outbox."""
    return region.client.xlen(names.OUTBOX), int(region.client.get(names.OUTBOX_BYTES) or 0)


def shipped(leftovers: Leftovers) -> int:
    """How many replies it took until it had none to wait for."""
    replies = 0
    while leftovers.run_once():
        replies += 1
    return replies
