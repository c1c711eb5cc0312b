"""Hears which requests have news, whichever gateway settled them. A hint only: the request's stream is the truth."""

import threading
from collections.abc import Callable, Iterable
from typing import Final

import redis

from regions import connect, logs, names
from regions.settings import Settings

BLOCK_SECONDS: Final = 1.0

log = logs.get("listen")


class Listener:
    """One subscription of a gateway. ``missed`` is called after every gap: every waiter re-reads."""

    def __init__(self, settings: Settings, news: Callable[[Iterable[str]], None], missed: Callable[[], None]) -> None:
        self._client: redis.Redis = connect.open_redis(
            settings.hub.redis, name="gateway-listen", block_seconds=BLOCK_SECONDS, connections=2
        )
        self._news, self._missed = news, missed
        self._failures = 0  # in a row
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="listen", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes the connection."""
        self._stopping.set()
        self._thread.join(BLOCK_SECONDS + 5)
        self._client.close()

    def run(self) -> None:
        """Subscribes again after every loss, until it is stopped."""
        while not self._stopping.is_set():
            try:
                self.run_once()
            except redis.exceptions.RedisError as error:
                log.debug("subscription lost", error=str(error))
            except Exception:
                log.exception("listening failed")
            self._failures += 1
            self._stopping.wait(connect.backoff_seconds(self._failures))

    def run_once(self) -> None:
        """One subscription, from its start to its loss."""
        with connect.Subscription(self._client) as subscription:
            subscription.subscribe(names.WAKE)
            while not self._stopping.is_set():
                message = subscription.get_message(timeout=BLOCK_SECONDS)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    self._failures = 0
                    self._missed()
                elif message["type"] == "message":
                    self._news((message["data"].decode(),))
