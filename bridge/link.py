"""One connection to a Redis that never reconnects by itself, and knows the process that it is connected to.

redis-py's clients reconnect in silence, and then a batch that a crash took would look like written.
"""

from collections.abc import Sequence
from typing import Any

import redis

from regions import connect

Command = tuple[Any, ...]


class Link:
    """A connection of ``client``'s pool, for one thread. Opening raises what ``connect.AWAY`` lists, or the server's error."""

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self.is_open = True
        try:
            fields = dict(line.split(b":", 1) for line in self.one("INFO", "server").splitlines() if b":" in line)
        except redis.exceptions.ResponseError:
            self.close()
            raise
        self.run_id = fields[b"run_id"].decode()  # a Redis gets a new one whenever it starts

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """Sends all in one write and reads a reply each; a refused command's reply is its ResponseError.

        An error of the way closes the link and is raised: then nobody knows which of the commands took effect.
        """
        if not self.is_open:
            raise redis.exceptions.ConnectionError("the connection was lost")
        replies: list[Any] = []
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    replies.append(self._connection.read_response())
                except redis.exceptions.ResponseError as refusal:
                    replies.append(refusal)
        except connect.AWAY:
            self.close()
            raise
        return replies

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
