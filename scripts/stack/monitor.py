"""Watches what a Redis executes (MONITOR), to the microsecond, and notes when requests and tasks pass.

MONITOR shows a server's whole traffic. It slows a busy server down, and needs a user with the right to it.
"""

import re
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import redis

from regions import connect, names

LOOK_SECONDS: Final = 0.02  # between two looks: waking up for each command would disturb what is measured
LATEST_SECONDS: Final = 5.0
CLOCK_ASKED: Final = 20
LINE_BYTES: Final = 500  # of a command, which may have megabytes; what counts stands at its beginning
ID: Final = "([0-9A-Z]{26})"
ANY_ID: Final = "[0-9A-Z]{26}"

# How each hop is seen, by the id of the request or the task: commands of the scripts in web/hub/lua and jobs/queue/lua, of RQ's own
# script, and of jobs/queue/home.py.
HUB: Final = {
    "accepted": f'"HSET" "{names.ledger(ID)}" "state" "accepting"',
    "confirmed": f'"HSET" "{names.ledger(ID)}" "state" "accepted"',
    "shipped": f'"XADD" "{names.out_stream(names.REGION_PATTERN)}" "\\*" "k" "result" .*?"t" "{ID}"',
    "settled": f'"XADD" "{names.events(ANY_ID)}" "\\*" "t" "{ID}"',
    "delivered": f'"HSETNX" "{names.trail(ANY_ID)}" "d:{ID}"',
}
REGION: Final = {
    "enqueued": f'"[LR]PUSH" "{names.rq_queue(names.urgent(names.REGION_PATTERN))}" "{ID}"',
    "claimed": f'"HSET" "{names.rq_job(ID)}" "status" "started"',
    "finished": f'"XADD" "{names.OUTBOX}" .*?"t" "{ID}"',
}


class Monitor:
    """Watches one Redis within the ``with`` block. Raises redis-py's errors, also for a user without the right.

    ``seen``: for each hop and id, when it was last seen, in ms on the server's clock. ``offset_ms``: that clock less this
    machine's (``time.time``).
    """

    def __init__(self, url: str, hops: Mapping[str, str]) -> None:
        self.seen: dict[tuple[str, str], float] = {}
        self.offset_ms = 0.0
        self._client = connect.open_redis(url, name="trace")
        self._hops = [(hop, re.compile(pattern.encode())) for hop, pattern in hops.items()]
        self._monitor: Any = None
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._mark = f"trace-{time.time_ns()}"
        self._is_over = threading.Event()
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self.offset_ms = _offset_ms(self._client)
        self._monitor = self._client.connection_pool.get_connection()
        self._monitor.send_command("MONITOR")
        self._monitor.read_response()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._monitor.disconnect()
        self._client.close()

    def catch_up(self) -> None:
        """Returns when everything that the server has executed so far was looked at. Raises redis-py's errors."""
        self._client.execute_command("ECHO", self._mark)  # type: ignore[no-untyped-call]
        self._thread.join(LATEST_SECONDS)
        if self._error is not None:
            raise self._error
        if self._thread.is_alive():
            raise redis.exceptions.TimeoutError(f"its commands came more than {LATEST_SECONDS:g} s late")

    def _run(self) -> None:
        mark = self._mark.encode()
        while not self._is_over.wait(LOOK_SECONDS):
            try:
                while self._monitor.can_read(0):
                    line = bytes(self._monitor.read_response())
                    if mark in line:
                        return
                    self._note(line[:LINE_BYTES])
            except redis.exceptions.RedisError as error:
                self._error = error
                return

    def _note(self, line: bytes) -> None:
        for hop, pattern in self._hops:
            if found := pattern.search(line):
                self.seen[hop, found[1].decode()] = float(line.partition(b" ")[0]) * 1000
                return


def _offset_ms(client: redis.Redis) -> float:
    """The server's clock less this machine's, by the question that was answered soonest."""
    asked = []
    for _ in range(CLOCK_ASKED):
        sent = time.time()
        seconds, microseconds = client.time()
        answered = time.time()
        asked.append((answered - sent, seconds + microseconds / 1e6 - (sent + answered) / 2))
    return 1000 * min(asked)[1]
