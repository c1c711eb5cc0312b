"""Calls of Lua scripts by their hashes, and how commands are sent: several in one write, with refusals as replies.

In a pipeline, redis-py's own scripts cost one more round trip, since it asks SCRIPT EXISTS first.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha1
from operator import itemgetter
from typing import Any, Self

import hiredis
import redis
from msgspec.structs import astuple

from regions.link import Link
from regions.lua_files import Lua


class Script:
    """A Lua script. One that is given as text alone, with its shebang line, has only its hash."""

    _suffix: tuple[Any, ...] = ()  # what ends each call

    def __init__(self, lua: Lua | str, keys: Mapping[str, str] | None = None) -> None:
        """``keys``: those of all its calls, which then name only the arguments. Raises TypeError for others than its own."""
        self.lua = Lua(lua) if isinstance(lua, str) else lua
        self.text = self.lua.text.encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()
        if keys is not None and keys.keys() != set(self.lua.keys):
            raise TypeError(f"expected {', '.join(self.lua.keys)} for a script, found {', '.join(keys)}")
        known = () if keys is None else tuple(keys[name] for name in self.lua.keys)
        self._begin: tuple[Any, ...] = ("EVALSHA", self.sha, len(self.lua.keys), *known)
        args = (*self.lua.args, self.lua.many) if self.lua.many else self.lua.args
        self._names = args if known else (*self.lua.keys, *args)
        # itemgetter is quicker, but gives no tuple for one name.
        self._pick = itemgetter(*self._names) if len(self._names) > 1 else self._pick_one

    def _pick_one(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(given[name] for name in self._names)

    def on(self, **keys: str) -> Self:
        """The same script for keys that stay."""
        return type(self)(self.lua, keys)

    def command(self, **given: Any) -> tuple[Any, ...]:
        """The command that calls the script, with its keys and arguments by name. Raises TypeError for other names."""
        try:
            found = self._pick(given)
        except KeyError:
            found = None
        if found is None or len(found) != len(given):
            raise TypeError(f"expected {', '.join(self._names)} for a script, found {', '.join(given)}")
        if not self.lua.many:
            return (*self._begin, *found, *self._suffix)
        if not self.lua.has_rows:
            return (*self._begin, *found[:-1], *found[-1], *self._suffix)
        command = [*self._begin, *found[:-1]]
        for row in found[-1]:
            command += astuple(row)
        return (*command, *self._suffix)

    def call(self, client: redis.Redis, /, **given: Any) -> Any:
        """Calls the script and returns its reply. Raises the server's refusal, and what ``connect.AWAY`` lists."""
        return value(send(client, [self.command(**given)], [self])[0])


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
