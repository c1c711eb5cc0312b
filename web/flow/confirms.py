"""Messages that are published, and the confirms that they wait for."""

import itertools
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from pika.channel import Channel

from jobs import contract
from regions import frames, names
from regions.counts import observe

SILENT_SECONDS: Final = 0.9  # a region whose queues owe a confirm for longer gets no messages until they give it
REFUSED: Final = "the broker refused the message: its queue is full or it can't store it"


class Message(Struct, frozen=True):
    """One message to ``x.tasks``; ``kind`` is AMQP's type, task or cancel."""

    routing_key: str
    body: bytes
    message_id: str
    correlation_id: str
    kind: str


def message(task: contract.Task) -> Message:
    """The message that asks a task's region for it."""
    key = names.routing_key(task.region, fast=task.sync)
    return Message(key, contract.encode(task), task.task, task.request, "task")


class Batch:
    """Messages that succeed or fail together. Once they are sent, only the publisher's thread touches it."""

    def __init__(self, messages: list[Message], done: Callable[[str | None], None]) -> None:
        self.messages, self._done = messages, done
        self.unconfirmed = len(messages)
        self._is_ended = False

    def end(self, reason: str | None) -> None:
        """Calls ``done`` with the outcome, at the first call only."""
        if not self._is_ended:
            self._is_ended = True
            self._done(reason)


End = tuple[Batch, str | None]  # a batch that has ended, and the reason that its ``done`` gets


class Lane:
    """One region's channel and its unconfirmed messages. Used with the publisher's lock held."""

    def __init__(self, channel: Channel, took: list[int]) -> None:
        """``took``: the histogram of the times until confirms (regions.counts)."""
        self.channel, self._took = channel, took
        # By delivery tag: batch, message id, when it was sent.
        self.unconfirmed: dict[int, tuple[Batch, str, float]] = {}
        self.since = 0.0  # when the oldest unconfirmed message was sent
        self.confirmed_at = 0.0
        self._tag = 0
        self._returned: set[str] = set()

    @property
    def is_silent(self) -> bool:
        """Whether a confirm within an accept's budget can't be expected."""
        return bool(self.unconfirmed) and time.monotonic() - self.since > SILENT_SECONDS

    def expect(self, batch: Batch, message: Message) -> None:
        """Awaits the confirm of a message. The caller sends the messages now, in the order of the calls."""
        self._tag += 1
        now = time.monotonic()
        if not self.unconfirmed:
            self.since = now
        self.unconfirmed[self._tag] = (batch, message.message_id, now)

    def frames(self, message: Message, frame_max: int) -> bytes:
        """The frames of one message."""
        return frames.published(
            self.channel.channel_number,
            names.TASKS_EXCHANGE,
            message.routing_key,
            message.body,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            kind=message.kind,
            frame_max=frame_max,
        )

    def returned(self, message_id: str) -> None:
        """Notes a message that no queue took. Its return comes before its ack."""
        self._returned.add(message_id)

    def confirmed(self, tag: int, *, is_ack: bool, is_multiple: bool) -> list[End]:
        """The broker's ack or nack of one message, or of all up to it. Returns the batches that end by it."""
        self.confirmed_at = time.monotonic()
        # Tags ascend, so those that a multiple confirm covers stand first.
        tags = list(itertools.takewhile(lambda one: one <= tag, self.unconfirmed)) if is_multiple else [tag]
        ends: list[End] = []
        for one in tags:
            batch, message_id, sent = self.unconfirmed.pop(one)
            batch.unconfirmed -= 1
            observe(self._took, 0, self.confirmed_at - sent)
            if message_id in self._returned:
                self._returned.discard(message_id)
                ends.append((batch, "the broker has no queue for the region"))
            elif not is_ack:
                ends.append((batch, REFUSED))
            elif batch.unconfirmed == 0:
                ends.append((batch, None))
        self.since = next((sent for _, _, sent in self.unconfirmed.values()), self.since)
        return ends
