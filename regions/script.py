"""Lua scripts, called by their hashes, and how commands are sent to a Redis: several in one write, refusals as replies.

redis-py's own scripts cost a round trip more in a pipeline, which asks SCRIPT EXISTS before each.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any

import hiredis
import redis

from regions.link import Link

Argument = str | bytes | int | float


class Script:
    """A Lua script, shebang line included."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Iterable[Argument] = ()) -> tuple[Any, ...]:
        """The command that calls it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def call(self, client: redis.Redis, keys: Sequence[str], arguments: Iterable[Argument] = ()) -> Any:
        """Its answer; raises a refusal, and ``connect.AWAY``'s."""
        return value(send(client, [self.command(keys, arguments)], [self])[0])


def send(client: redis.Redis | Link, commands: Sequence[tuple[Any, ...]], scripts: Sequence[Script]) -> list[Any]:
    """Sends commands in one write, without MULTI, and returns their replies; a refusal is a reply too, not raised.

    ``scripts`` are those that the commands call; a Redis that does not know them (it was restarted) is taught them, and
    what it refused is sent again. Raises ``connect.AWAY``'s; nothing is then known of the commands.
    """
    replies = _exchange(client, commands)
    unknown = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
    if unknown:
        for reply in _exchange(client, [("SCRIPT", "LOAD", script.text) for script in scripts]):
            value(reply)
        for i, reply in zip(unknown, _exchange(client, [commands[i] for i in unknown]), strict=True):
            replies[i] = reply
    return replies


def _exchange(client: redis.Redis | Link, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    if isinstance(client, Link):
        return client.call(commands)
    packed = b"".join(map(hiredis.pack_command, commands))
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command([packed], check_health=False)  # type: ignore[no-untyped-call]
        return [_reply(connection) for _ in commands]
    except BaseException:
        # An answer may still come: it must not meet the next question.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.release(connection)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error


def value(reply: Any) -> Any:
    """A reply, or the refusal that it is, raised."""
    if isinstance(reply, Exception):
        raise reply
    return reply
