"""One connection to a Redis that never reconnects by itself.

redis-py's clients reconnect silently. After a crash of the server, writes that it lost would then look safe, and
``WAITAOF``, which counts only the writes of its own connection, would succeed.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
import redis

from regions import connect

Command = tuple[Any, ...]


class Link:
    """A connection from ``client``'s pool, for one thread at a time.

    Opening it raises what ``connect.AWAY`` lists, or the server's error. A connection error closes the link and is raised.
    It is then unknown which of the commands took effect.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self.is_open = True

    def is_lost(self) -> bool:
        """Whether the server is known to be gone, in which case the link is closed. Call it only while no reply is due."""
        try:
            if self.is_open and self._connection.can_read(timeout=0):
                self.close()
        except connect.AWAY:
            self.close()
        return not self.is_open

    def fileno(self) -> int:
        """The descriptor of its socket, to wait for a reply; -1 when it is closed."""
        connection_socket = self._connection._sock  # noqa: SLF001 - redis-py has no public way
        return connection_socket.fileno() if self.is_open and connection_socket is not None else -1

    def has_reply(self) -> bool:
        """Whether ``receive`` finds something at once: a reply, a part of one, or the end of the connection."""
        try:
            return bool(not self.is_open or self._connection.can_read(timeout=0))
        except connect.AWAY:
            return True

    def send(self, commands: Sequence[Command]) -> None:
        """Sends all commands in one write; ``receive`` reads one reply for each."""
        if not self.is_open:
            raise redis.exceptions.ConnectionError("the connection was lost")
        try:
            packed = b"".join(map(hiredis.pack_command, commands))
            self._connection.send_packed_command([packed], check_health=False)
        except connect.AWAY:
            self.close()
            raise

    def receive(self, count: int) -> list[Any]:
        """Reads this many replies, in order. The reply to a refused command is its ResponseError."""
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
        if not self._connection.is_connected:  # the server turned out to be a replica, and regions.connect disconnected
            self.close()
        return replies

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """Sends all commands in one write and reads their replies."""
        self.send(commands)
        return self.receive(len(commands))

    def one(self, *command: Any) -> Any:
        """The reply to one command. Raises its ResponseError."""
        reply = self.call([command])[0]
        if isinstance(reply, redis.exceptions.ResponseError):
            raise reply
        return reply

    def close(self) -> None:
        """Closes the connection; calling it again is harmless."""
        if self.is_open:
            self.is_open = False
            self._connection.disconnect()
            self._pool.release(self._connection)
