"""API keys, which the hub keeps: who may call a gateway, for which tenant, and how much.

    nf:keys       ID: a Key as JSON
    nf:waiting    GATEWAY: its Waiting as JSON, while clients wait there whose key has a limit of them

A key's text is ``nf_ID_SECRET``. The hub has a digest of the secret alone: the secret has 190 random bits, so that a fast digest
can't be guessed back (OWASP asks for slow ones where people choose the secret).
"""

import fnmatch
import hashlib
import hmac
import re
import secrets
import string
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
import redis
from msgspec import Meta, Struct

from regions import names
from regions.script import send, value

Scope = Literal["read", "submit", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
NAME: Final = r"^[\w.@ -]{1,64}$"
TENANT: Final = r"^[a-z0-9][a-z0-9_-]{0,31}$"
# Of a key that is made without this limit: no more of its tasks can stand before another tenant's.
OPEN_TASKS: Final = 1_000
ID_CHARACTERS, SECRET_CHARACTERS = 8, 32
TOLD_MS: Final = 5_000  # for how long the waiting clients of a gateway count after its last word
TEXT: Final = re.compile(rf"nf_([0-9a-z]{{{ID_CHARACTERS}}})_([0-9A-Za-z]{{{SECRET_CHARACTERS}}})")

_SMALL: Final = string.digits + string.ascii_lowercase
_ALL: Final = string.digits + string.ascii_letters

Count = Annotated[int, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0)]


class KeyLimits(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a key may use; 0 means no limit. ``bytes_kept`` are those of results at the hub; ``sources``: patterns like ``ecb.*``."""

    requests_per_second: Rate = 0.0
    open_tasks: Count = 0
    bytes_kept: Count = 0
    waiters: Count = 0
    sources: tuple[str, ...] = ()

    def permits(self, source: str) -> bool:
        """Whether the key may ask a source."""
        return not self.sources or any(fnmatch.fnmatchcase(source, pattern) for pattern in self.sources)


NO_LIMITS: Final = KeyLimits()


class Key(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as the hub keeps it. ``digest`` is SHA-256 of its secret, in hex; ``expires_ms`` is 0 for a key that does not expire."""

    id: str
    name: Annotated[str, Meta(pattern=NAME)]
    tenant: Annotated[str, Meta(pattern=TENANT)]
    scopes: tuple[Scope, ...]
    digest: str
    created_ms: int
    expires_ms: int = 0
    limits: KeyLimits = NO_LIMITS

    def may(self, scope: Scope) -> bool:
        """Whether it has a scope. ``admin`` includes ``read``, but not ``submit``."""
        return scope in self.scopes or (scope == "read" and "admin" in self.scopes)

    def fits(self, secret: str) -> bool:
        """Whether a secret is this key's, in a time that says nothing of how much of it is right."""
        return hmac.compare_digest(self.digest, digest_of(secret))

    def is_expired(self, now_ms: float) -> bool:
        """Whether its time is over."""
        return 0 < self.expires_ms <= now_ms


_key: Final = msgspec.json.Decoder(Key)


def digest_of(secret: str) -> str:
    """What the hub keeps of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_id() -> str:
    """The id of a new key, which is no secret."""
    return "".join(secrets.choice(_SMALL) for _ in range(ID_CHARACTERS))


def new_secret() -> str:
    """The secret of a new key."""
    return "".join(secrets.choice(_ALL) for _ in range(SECRET_CHARACTERS))


def text_of(key: str, secret: str) -> str:
    """A key as its client sends it."""
    return f"nf_{key}_{secret}"


def parts_of(text: str) -> tuple[str, str] | None:
    """Returns (id, secret) of a key's text; None if it is none."""
    found = TEXT.fullmatch(text)
    return (found[1], found[2]) if found else None


def claimed(authorization: str) -> str:
    """The id of the key in an Authorization header, also if the key is wrong; "" if there is none."""
    found = parts_of(authorization.partition(" ")[2].strip())
    return found[0] if found else ""


def read(client: redis.Redis) -> dict[str, Key]:
    """All keys by id. One that can't be read does not count. Raises what redis-py raises."""
    fields: dict[bytes, bytes] = client.hgetall(names.KEYS)  # type: ignore[assignment]
    return _known(fields)


class Waiting(Struct, frozen=True):
    """How many clients wait at a gateway with each key, when it said so (hub ms)."""

    at_ms: int
    clients: dict[str, int]


class Board:
    """Where the gateways of a hub tell each other how many clients wait with each key, as often as they read the keys."""

    def __init__(self, gateway: str) -> None:
        """``gateway``: its name, see ``gateways.name_of``."""
        self._gateway = gateway
        self._ahead_ms: float | None = None  # what the hub's clock is ahead of this process's
        self._has_told = False
        self._silent: list[bytes] = []  # gateways that have said nothing for long

    def look(self, client: redis.Redis, here: Mapping[str, int]) -> tuple[dict[str, Key], Counter[str]]:
        """Says how many clients wait here with each key; returns (all keys by id, how many wait elsewhere). Raises redis-py's errors."""
        commands: list[tuple[Any, ...]] = [("TIME",), ("HGETALL", names.KEYS), ("HGETALL", names.WAITING)]
        if here and self._ahead_ms is not None:
            told = Waiting(round(time.monotonic() * 1000 + self._ahead_ms), dict(here))
            commands.append(("HSET", names.WAITING, self._gateway, msgspec.json.encode(told)))
        gone = [*self._silent, *([self._gateway] if self._has_told and not here else [])]
        if gone:
            commands.append(("HDEL", names.WAITING, *gone))
        # What is said may be refused by a full Redis: then others count less, and the keys are read all the same.
        (seconds, micros), found, waiting = map(value, send(client, commands, [])[:3])
        self._has_told = bool(here)
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        self._ahead_ms = now_ms - time.monotonic() * 1000
        return _known(dict(zip(found[::2], found[1::2], strict=True))), self._elsewhere(waiting, now_ms)

    def leave(self, client: redis.Redis) -> None:
        """Says that nobody waits here. Raises what redis-py raises."""
        if self._has_told:
            client.hdel(names.WAITING, self._gateway)

    def _elsewhere(self, flat: list[bytes], now_ms: int) -> Counter[str]:
        found: Counter[str] = Counter()
        self._silent = []
        for gateway, text in zip(flat[::2], flat[1::2], strict=True):
            if gateway == self._gateway.encode():
                continue
            try:
                told = _waiting.decode(text)
            except (ValueError, RecursionError):
                self._silent.append(gateway)
                continue
            if now_ms - told.at_ms > TOLD_MS:
                self._silent.append(gateway)
            else:
                found.update(told.clients)
        return found


_waiting: Final = msgspec.json.Decoder(Waiting)


def _known(fields: Mapping[bytes, bytes]) -> dict[str, Key]:
    found: dict[str, Key] = {}
    for field, text in fields.items():
        try:
            key = _key.decode(text)
        except (ValueError, RecursionError):
            continue
        if key.id.encode() == field:
            found[key.id] = key
    return found


def write(client: redis.Redis, keys: Iterable[Key]) -> None:
    """Adds keys, or replaces them."""
    client.hset(names.KEYS, mapping={key.id: msgspec.json.encode(key) for key in keys})


def delete(client: redis.Redis, key: str) -> bool:
    """Deletes a key, its sessions and its counts. Returns whether there was such a key."""
    client.delete(names.used(key), names.sessions(key))
    return bool(client.hdel(names.KEYS, key))
