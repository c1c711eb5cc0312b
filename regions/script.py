"""Lua scripts, called by their hashes, and how commands are sent: several in one write, with refusals as replies.

In a pipeline, redis-py's own scripts cost one more round trip, since it asks SCRIPT EXISTS first.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any

import hiredis
import redis

from regions.link import Link

Argument = str | bytes | int | float


class Script:
    """A Lua script, including its shebang line."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Iterable[Argument] = ()) -> tuple[Any, ...]:
        """The command that calls the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def call(self, client: redis.Redis, keys: Sequence[str], arguments: Iterable[Argument] = ()) -> Any:
        """Calls the script and returns its reply. Raises the server's refusal, and what ``connect.AWAY`` lists."""
        return value(send(client, [self.command(keys, arguments)], [self])[0])


def send(client: redis.Redis | Link, commands: Sequence[tuple[Any, ...]], scripts: Sequence[Script]) -> list[Any]:
    """Sends commands in one write, without MULTI, and returns their replies. A refusal is returned as a reply, not raised.

    ``scripts`` are the scripts that the commands call. A Redis that does not know them, since it was restarted, is sent
    the scripts, and then the refused commands again. Raises what ``connect.AWAY`` lists; it is then unknown which of the
    commands took effect.
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
        # The reply may still arrive, and must not be taken for the reply to the next command.
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
    """The reply. Raises it if it is a refusal."""
    if isinstance(reply, Exception):
        raise reply
    return reply
