"""Unreadable messages, which the plan publishes. Each must become a dead letter, once.

Postman   publishes each at its time, and again until the broker confirms it
shown     the hub's dead letters at the end; it waits for them, since a broker that was hurt may deliver them late
"""

import contextlib
import threading
import time
from typing import Final

import pika
import redis

from jobs import contract
from regions import connect, names
from scripts.chaos.history import History
from scripts.chaos.plan import Form, Letter
from scripts.chaos.stack import ChaosStack
from web.flow.dead import DeadLetters

AGAIN_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 60.0  # for the broker to confirm one
SHOWN_SECONDS: Final = 200.0  # RabbitMQ repeats a dead-lettering that was not confirmed within three minutes
LOOK_SECONDS: Final = 0.5
STRANGER: Final = contract.Task(
    task="a", request="b", source="c", region="elsewhere", accepted_ms=0, deadline_ms=0, expires_ms=0
)


def body(form: Form) -> tuple[str, bytes]:
    """(type, body) of a message that no bridge can read."""
    match form:
        case "garbage":
            return "task", b"\xff\x00 no JSON"
        case "version":
            return "task", b'{"v": %d}' % (contract.VERSION + 9)
        case "kind":
            return "nonsense", b"{}"
        case "stranger":
            return "task", contract.encode(STRANGER)
        case "cancel":
            return "cancel", b"[]"


class Postman:
    """Publishes each letter at its time, in a thread for each."""

    def __init__(self, stack: ChaosStack, history: History) -> None:
        self._url, self._history = stack.server_url("rabbitmq"), history
        self._threads: list[threading.Thread] = []

    def run(self, letters: list[Letter], started: float, stopping: threading.Event) -> None:
        """Publishes until the plan is done; ``started`` is a monotonic time."""
        for letter in letters:
            if stopping.wait(max(0.0, started + letter.at - time.monotonic())):
                return
            thread = threading.Thread(target=self._publish, args=(letter, stopping), daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self) -> None:
        """Waits until each letter is published, or given up."""
        for thread in self._threads:
            thread.join()

    def _publish(self, letter: Letter, stopping: threading.Event) -> None:
        with self._history.lock:
            self._history.letters[letter.name] = False
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end and not stopping.is_set():
            with contextlib.suppress(*connect.BROKER_AWAY):
                self._send(letter)
                with self._history.lock:
                    self._history.letters[letter.name] = True
                return
            stopping.wait(AGAIN_SECONDS)

    def _send(self, letter: Letter) -> None:
        connection = pika.BlockingConnection(connect.amqp_parameters(self._url, name="chaos")[0])
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            kind, text = body(letter.form)
            properties = pika.BasicProperties(
                type=kind, message_id=letter.name, correlation_id=f"of-{letter.name}", delivery_mode=2
            )
            key = names.routing_key(letter.region, fast=False)
            channel.basic_publish(names.TASKS_EXCHANGE, key, text, properties, mandatory=True)
        finally:
            with contextlib.suppress(*connect.BROKER_AWAY):
                connection.close()


def shown(stack: ChaosStack, history: History) -> list[str]:
    """The message ids of all dead letters, once every confirmed one is there or time is up."""
    letters = DeadLetters(stack.redis("hub"))
    end = time.monotonic() + SHOWN_SECONDS
    found: list[str] = []
    while time.monotonic() < end:
        with contextlib.suppress(redis.exceptions.RedisError):
            # An entry is a region's, and no message.
            found = [letter.task for letter in letters.all() if letter.kind != "entry"]
        if {name for name, is_confirmed in history.letters.items() if is_confirmed} <= set(found):
            break
        time.sleep(LOOK_SECONDS)
    return found
