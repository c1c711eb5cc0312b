"""Sessions of the console: a browser's cookie in place of an API key.

    nf:sessions:KEY    digests of the sessions that were begun with a key, each by the time of its end

The cookie is the key's id and a random text, which stands here as a digest only, so that whoever reads the hub's Redis can't use it.
Each use looks the key up again: with a revoked or expired key its sessions end. A key has ``MAX`` sessions: a client that signs in
again and again ends its own oldest ones, and does not fill the hub.
"""

import hashlib
import re
import secrets
import time
from typing import Any, Final

import redis

from regions import names
from regions.script import send, value
from web.hub import keys

SECONDS: Final = 12 * 3600  # a working day
MAX: Final = 1_000
TOKEN_BYTES: Final = 32
# 43 characters are TOKEN_BYTES in base64.
TOKEN: Final = re.compile(rf"([0-9a-z]{{{keys.ID_CHARACTERS}}})\.([\w-]{{43}})", re.ASCII)


def begin(client: redis.Redis, key: str) -> str:
    """A new session of a key: what its cookie holds. Raises what redis-py raises."""
    secret, now, place = secrets.token_urlsafe(TOKEN_BYTES), time.time(), names.sessions(key)
    commands: list[tuple[Any, ...]] = [
        ("ZREMRANGEBYSCORE", place, "-inf", now),
        ("ZADD", place, now + SECONDS, _digest(secret)),
        ("ZREMRANGEBYRANK", place, 0, -MAX - 1),
        ("EXPIRE", place, SECONDS),
    ]
    for reply in send(client, commands, []):
        value(reply)
    return f"{key}.{secret}"


def key_of(client: redis.Redis, token: str) -> str | None:
    """The id of the key of a session; None if there is no such session. Raises what redis-py raises."""
    found = TOKEN.fullmatch(token)
    if found is None:
        return None
    ends: Any = client.zscore(names.sessions(found[1]), _digest(found[2]))
    return found[1] if ends is not None and ends > time.time() else None


def end(client: redis.Redis, token: str) -> None:
    """Ends a session. Raises what redis-py raises."""
    if found := TOKEN.fullmatch(token):
        client.zrem(names.sessions(found[1]), _digest(found[2]))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
