"""One connection to a Redis that never reconnects by itself.

redis-py's clients reconnect in silence, and then what a crash took would look like written, and ``WAITAOF``, which counts the
writes of its own connection, like answered.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
import redis

from regions import connect

Command = tuple[Any, ...]


class Link:
    """A connection of ``client``'s pool, for one thread at a time. Opening raises what ``connect.AWAY`` lists, or the server's error.

    An error of the way closes the link and is raised: then nobody knows which of the commands took effect.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self.is_open = True

    def is_lost(self) -> bool:
        """Whether the other end is known to be gone, while no reply is due; then it is closed."""
        try:
            if self.is_open and self._connection.can_read(timeout=0):
                self.close()
        except connect.AWAY:
            self.close()
        return not self.is_open

    def send(self, commands: Sequence[Command]) -> None:
        """Sends all in one write; ``receive`` reads a reply each."""
        if not self.is_open:
            raise redis.exceptions.ConnectionError("the connection was lost")
        try:
            packed = b"".join(map(hiredis.pack_command, commands))
            self._connection.send_packed_command([packed], check_health=False)
        except connect.AWAY:
            self.close()
            raise

    def receive(self, count: int) -> list[Any]:
        """So many replies, in order; a refused command's reply is its ResponseError."""
        if not self.is_open:
            raise redis.exceptions.ConnectionError("the connection was lost")
        replies: list[Any] = []
        try:
            for _ in range(count):
                try:
                    replies.append(self._connection.read_response())
                except redis.exceptions.ResponseError as refusal:
                    replies.append(refusal)
        except connect.AWAY:
            self.close()
            raise
        if not self._connection.is_connected:  # it left who said that it is a replica (regions.connect)
            self.close()
        return replies

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """Sends all in one write and reads a reply each."""
        self.send(commands)
        return self.receive(len(commands))

    def one(self, *command: Any) -> Any:
        """One command's reply; raises its ResponseError."""
        reply = self.call([command])[0]
        if isinstance(reply, redis.exceptions.ResponseError):
            raise reply
        return reply

    def close(self) -> None:
        """Closes the connection; again is harmless."""
        if self.is_open:
            self.is_open = False
            self._connection.disconnect()
            self._pool.release(self._connection)
