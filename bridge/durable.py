"""Finds out, off the ioloop, when a batch of jobs is in the append-only file.

    ioloop         write the batch → submit(run id of the Redis process that took it, receipt)
    this thread    fence → WAITAOF 1 0 → settle(receipts, None)

WAITAOF covers the writes of its own connection, so after the batch a fence is written on it. The run id guards against a
crash in between: the fence would succeed on the new process, whose file may have lost the batch.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import redis

from bridge.link import Link
from regions import connect, logs, names
from regions.counts import CELLS, observe
from regions.lua_files import Folder
from regions.script import Script, send, value

BLOCK_SECONDS: Final = 2.0  # limit of one WAITAOF; with everysec it answers after about one second
IDLE_SECONDS: Final = 4.0  # between two looks at an idle link; with the time-out, less than 10 s

FENCE: Final = Script(Folder(Path(__file__).with_name("lua")).read("fence"), {"fence": names.FENCE})

Receipt = TypeVar("Receipt")


class Durable(Generic[Receipt]):
    """Calls ``settle`` in its own thread, with the receipts in order, and with None or the reason why they may not be durable."""

    def __init__(
        self, client: redis.Redis, name: str, settle: Callable[[list[Receipt], Exception | None], None]
    ) -> None:
        self._client, self._name, self._settle = client, name, settle
        self._log = logs.get("bridge")
        self._link: Link | None = None
        self._failures = 0
        self.waits = True  # False when a relaxed region's Redis keeps no file: then a written batch counts as durable
        self._wake = threading.Condition()
        self._waiting: list[tuple[str, Receipt]] = []
        self._is_doubted = False
        self._stopping = False
        self.took = [0] * CELLS  # how long batches waited for the file (regions.counts)

    @property
    def is_open(self) -> bool:
        """Whether a fence can be written now."""
        return self._link is not None

    def submit(self, run_id: str, receipt: Receipt) -> None:
        """Hands over a batch. ``run_id`` is the Redis process that took it."""
        with self._wake:
            self._waiting.append((run_id, receipt))
            self._wake.notify()

    def doubt(self) -> None:
        """The Redis did not answer on another connection: the idle link is looked at now."""
        with self._wake:
            self._is_doubted = True
            self._wake.notify()

    def stop(self) -> None:
        """Ends ``run`` after its current step."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def run(self) -> None:
        """Settles until stopped."""
        while not self._stopping:
            if self._link is None:
                self._open()
            self.run_once()
        if self._link is not None:
            self._link.close()

    def run_once(self) -> None:
        """Waits a moment for batches and settles those that arrived, all with one fence.

        Without a link it does not wait: ``_open`` has, and the bridge pauses until there is one.
        """
        with self._wake:
            if self._link is not None:
                self._wake.wait_for(lambda: self._waiting or self._is_doubted or self._stopping, IDLE_SECONDS)
            batches, self._waiting, self._is_doubted = self._waiting, [], False
        if not batches:
            self._see_that_it_lives()
            return
        alive = self._link.run_id if self._link is not None else ""
        good = [receipt for run_id, receipt in batches if run_id == alive]
        lost = [receipt for run_id, receipt in batches if run_id != alive]
        if lost:
            self._settle(lost, redis.exceptions.ConnectionError("its Redis went away after the write"))
            self._see_that_it_lives()  # perhaps this link has the old process, and would keep it while batches come
        if good:
            self._settle(good, self._fence())

    def _fence(self) -> Exception | None:
        """Waits until all earlier writes are in the file. Returns None, or why that is not known."""
        assert self._link is not None
        began = time.monotonic()
        is_logged = False
        try:
            value(send(self._link, [FENCE.command(name=self._name)], [FENCE])[0])
            while self.waits and int(self._link.one("WAITAOF", 1, 0, int(BLOCK_SECONDS * 1000))[0]) < 1:
                if self._stopping:
                    return redis.exceptions.TimeoutError("stopped before the append-only file was written")
                if not is_logged:
                    is_logged = True
                    self._log.warning("append-only file is slow; acks wait", seconds=round(time.monotonic() - began, 1))
        except (*connect.AWAY, redis.exceptions.ResponseError) as error:
            self._lose(error)
            return error
        observe(self.took, 0, time.monotonic() - began)
        return None

    def _open(self) -> None:
        try:
            self._link = Link(self._client)
        except (*connect.AWAY, redis.exceptions.ResponseError) as error:
            self._log.debug("no connection for fences", reason=str(error))
            self._failures += 1
            with self._wake:
                self._wake.wait_for(lambda: self._stopping, connect.backoff_seconds(self._failures))
            return
        self._failures = 0

    def _see_that_it_lives(self) -> None:
        """Finds out that an idle link was closed, before the next batch does."""
        if self._link is None:
            return
        try:
            self._link.one("PING")
        except (*connect.AWAY, redis.exceptions.ResponseError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._log.debug("fences lost their connection", reason=str(error))
        if self._link is not None:
            self._link.close()
            self._link = None
