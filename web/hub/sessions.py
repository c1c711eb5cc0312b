"""Sessions of the console: a browser's cookie in place of an API key.

    nf:session:DIGEST    the id of the key that it was made with; it expires

The cookie is random and stands here as a digest only, so that whoever reads the hub's Redis can't use it. Each use looks the key up
again: with a revoked or expired key its sessions end.
"""

import hashlib
import re
import secrets
from typing import Any, Final

import redis

from regions import names

SECONDS: Final = 12 * 3600  # a working day
TOKEN_BYTES: Final = 32
TOKEN: Final = re.compile(r"[\w-]{43}", re.ASCII)  # of so many bytes


def begin(client: redis.Redis, key: str) -> str:
    """A new session of a key: what its cookie holds. Raises what redis-py raises."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    client.set(_name(token), key, ex=SECONDS)
    return token


def key_of(client: redis.Redis, token: str) -> str | None:
    """The id of the key of a session; None if there is no such session. Raises what redis-py raises."""
    if not TOKEN.fullmatch(token):
        return None
    found: Any = client.get(_name(token))
    return found.decode() if found is not None else None


def end(client: redis.Redis, token: str) -> None:
    """Ends a session. Raises what redis-py raises."""
    if TOKEN.fullmatch(token):
        client.delete(_name(token))


def _name(token: str) -> str:
    return names.session(hashlib.sha256(token.encode()).hexdigest())
