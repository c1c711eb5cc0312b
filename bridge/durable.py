"""Tells when a batch of jobs is in the append-only file, off the ioloop.

    ioloop   epoch → write the batch → submit(epoch, receipt)
    here     fence → WAITAOF 1 0 → settle(receipts, None)

WAITAOF counts the writes of its own connection, so a fence is written on it after the batch. That the batch went to the
same Redis process is known from the epoch: this link was open before the batch was written and still is. After a crash
in between, the fence would succeed on the next process, whose file has lost the batch.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import redis

from bridge.link import Link
from regions import connect, logs, names

BLOCK_SECONDS: Final = 2.0  # of one WAITAOF; with everysec it answers after about one
RETRY_SECONDS: Final = 0.25

# A full Redis must still let what it has taken be acked.
_FENCE: Final = "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], ARGV[1])"

Receipt = TypeVar("Receipt")


class Durable(Generic[Receipt]):
    """``settle`` is called in this thread with receipts in order, and None or why they are not known to be durable."""

    def __init__(
        self, client: redis.Redis, name: str, settle: Callable[[list[Receipt], Exception | None], None]
    ) -> None:
        self._client, self._name, self._settle = client, name, settle
        self._log = logs.get("bridge")
        self._link: Link | None = None
        self._wake = threading.Condition()
        self._waiting: list[tuple[int, Receipt]] = []
        self._stopping = False
        self._epochs = 0
        self.epoch = 0  # of the open link; 0: none is

    def submit(self, epoch: int, receipt: Receipt) -> None:
        """Hands over a written batch; ``epoch`` is what ``self.epoch`` was before it was written."""
        with self._wake:
            self._waiting.append((epoch, receipt))
            self._wake.notify()

    def stop(self) -> None:
        """Ends ``run`` after what it is at."""
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
        """Waits a moment for batches and settles those that came; one fence covers them all."""
        with self._wake:
            if not self._waiting and not self._stopping:
                self._wake.wait(RETRY_SECONDS)
            batches, self._waiting = self._waiting, []
        if not batches:
            self._see_that_it_lives()
            return
        alive = self.epoch if self._link is not None else -1  # 0 is nobody's
        good = [receipt for epoch, receipt in batches if epoch == alive]
        lost = [receipt for epoch, receipt in batches if epoch != alive]
        if lost:
            self._settle(lost, redis.exceptions.ConnectionError("its Redis went away after the write"))
        if good:
            self._settle(good, self._fence())

    def _fence(self) -> Exception | None:
        """Waits until all that was written before is in the file; None, or why that is not known."""
        assert self._link is not None
        began = time.monotonic()
        said = False
        try:
            self._link.one("EVAL", _FENCE, 1, names.FENCE, self._name)
            while int(self._link.one("WAITAOF", 1, 0, int(BLOCK_SECONDS * 1000))[0]) < 1:
                if self._stopping:
                    return redis.exceptions.TimeoutError("stopped before the append-only file was written")
                if not said:
                    said = True
                    self._log.warning("append-only file is slow; acks wait", seconds=round(time.monotonic() - began, 1))
        except (*connect.AWAY, redis.exceptions.ResponseError) as error:
            self._lose(error)
            return error
        return None

    def _open(self) -> None:
        try:
            self._link = Link(self._client)
        except (*connect.AWAY, redis.exceptions.ResponseError) as error:
            self._log.debug("no connection for fences", reason=str(error))
            with self._wake:
                self._wake.wait_for(lambda: self._stopping, RETRY_SECONDS)
            return
        self._epochs += 1
        self.epoch = self._epochs

    def _see_that_it_lives(self) -> None:
        """An idle link that its Redis closed is found here and not by the next batch."""
        if self._link is None:
            return
        try:
            self._link.one("PING")
        except (*connect.AWAY, redis.exceptions.ResponseError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._log.debug("fences lost their connection", reason=str(error))
        self.epoch = 0
        if self._link is not None:
            self._link.close()
            self._link = None
