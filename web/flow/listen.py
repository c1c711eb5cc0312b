"""Hears which requests have news, whichever gateway settled them. That is a hint; the request's stream is the truth."""

from collections.abc import Callable, Iterable
from typing import Final

import redis

from regions import connect, logs, names
from regions.loop import Loop
from regions.settings import Settings

BLOCK_SECONDS: Final = 1.0

log = logs.get("listen")


class Listener:
    """The gateway's subscription. ``missed`` is called after every gap, so that all waiters read again."""

    def __init__(self, settings: Settings, news: Callable[[Iterable[str]], None], missed: Callable[[], None]) -> None:
        self._client: redis.Redis = connect.open_redis(
            settings.hub.redis, name="gateway-listen", block_seconds=BLOCK_SECONDS, connections=2
        )
        self._news, self._missed = news, missed
        self._loop = Loop("listen", self._turn, end_seconds=BLOCK_SECONDS + 5)

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread and closes the connection."""
        self._loop.stop()
        self._client.close()

    def _turn(self) -> float:
        try:
            self.run_once()
        except redis.exceptions.RedisError as error:
            log.debug("subscription lost", error=str(error))
        except Exception:
            log.exception("listening failed")
        return self._loop.backoff_seconds()

    def run_once(self) -> None:
        """Subscribes, and listens until the subscription is lost."""
        with connect.Subscription(self._client) as subscription:
            subscription.subscribe(names.WAKE)
            while not self._loop.stopping.is_set():
                message = subscription.get_message(timeout=BLOCK_SECONDS)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    self._loop.failures = 0
                    self._missed()
                elif message["type"] == "message":
                    self._news((message["data"].decode(),))
