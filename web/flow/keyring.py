"""The API keys that a gateway knows: read from the hub each second, so that a revoked key stops within two.

While the hub is away the last keys count; without the hub no call gets anything of a tenant anyway. Clients that wait with a key that has
ended get their answers: ``ended`` gets a test of keys each second.

Gateways tell each other by the same round trip how many clients wait with a key that has a limit of them. So a wait costs the hub
nothing, and a limit holds for all gateways together, except for clients that came or went within the last two seconds.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from jobs.contract import rfc3339
from regions import logs
from regions.loop import Loop
from web.http import problems
from web.http.owner import Owner
from web.http.problems import Problem
from web.hub import keys
from web.hub.faults import Found
from web.hub.keys import NO_LIMITS, Board, Key, KeyLimits, Scope
from web.hub.redis import Hub, HubUnavailable

EVERY_SECONDS: Final = 1.0
SOON_MS: Final = 3 * 86_400_000  # how long before its end a key is reported, at most
SOON_SHARE: Final = 1 / 3  # of its life: one that lives for an hour is not reported from its beginning
CHALLENGE: Final = ("WWW-Authenticate", 'Bearer realm="nearfetch"')

log = logs.get("keys")


class Keyring:
    """Says to which tenant and key a call belongs. Used by all threads.

    ``waiting`` has, of each part of the gateway that lets clients wait, how many wait with each key; the parts change them.
    """

    def __init__(self, hub: Hub, gateway: str) -> None:
        """``gateway``: its name among the others."""
        self._hub, self._board = hub, Board(gateway)
        self._keys: dict[str, Key] = {}
        self._is_read = False
        self._refreshing = threading.Lock()
        self.ended: list[Callable[[Callable[[str], bool]], None]] = []
        self.waiting: list[Mapping[str, int]] = []
        self._elsewhere: Counter[str] = Counter()
        self._loop = Loop("keys", self._turn, last=self._leave)

    def start(self) -> None:
        """Reads the keys, then starts the thread."""
        self.refresh()
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._loop.stop()

    def refresh(self) -> None:
        """Reads the keys and how many clients wait at other gateways, and says how many wait here, unless the hub is away."""
        with self._refreshing:  # of two at once, the one that asked first could put its older keys over the newer ones
            try:
                with self._hub.asking() as client:
                    found, self._elsewhere = self._board.look(client, self._waiting_here())
            except HubUnavailable:
                return
            if not self._is_read or found.keys() != self._keys.keys():
                log.info("keys read", keys=len(found))
            self._keys, self._is_read = found, True

    def faults(self) -> list[Found]:
        """The keys that expire soon and have no successor: a key of the same name and tenant that ends later."""
        now_ms, found = time.time() * 1000, list(self._keys.values())
        last: dict[tuple[str, str], float] = {}
        for key in found:
            ends = key.expires_ms or float("inf")
            last[key.tenant, key.name] = max(ends, last.get((key.tenant, key.name), 0.0))
        return [
            Found(
                "key-expires",
                f"the key {key.id} expires at {rfc3339(key.expires_ms)}: {key.name!r} of {key.tenant!r}",
                part=f"key {key.id}",
            )
            for key in found
            if now_ms < key.expires_ms < now_ms + _soon_ms(key) and key.expires_ms == last[key.tenant, key.name]
        ]

    def limits(self, key: str) -> KeyLimits:
        """What a key may use; no limits for one that has just been revoked, or for an open gateway."""
        found = self._keys.get(key)
        return found.limits if found is not None else NO_LIMITS

    def check_room(self, owner: Owner) -> None:
        """Raises ``Problem`` (429) if as many clients wait with this key as may, here and elsewhere."""
        most = self.limits(owner.key).waiters
        if most and self._elsewhere[owner.key] + sum(of.get(owner.key, 0) for of in self.waiting) >= most:
            raise problems.limited("waiters", str(most), 1)

    def has(self, key: str) -> bool:
        """Whether the key with this id is neither revoked nor expired."""
        found = self._keys.get(key)
        return found is not None and not found.is_expired(time.time() * 1000)

    def owner(self, authorization: str, scope: Scope) -> Owner:
        """The owner of a call with this Authorization header. Raises ``Problem``: 401, 403 without the scope, 503 if no keys could be read."""
        return _owner(self._key(authorization), scope)

    def owner_by_id(self, key: str, scope: Scope) -> Owner:
        """As ``owner``, for the id of a key whose secret was checked before: 401 if the key was revoked or has expired."""
        if not self._is_read:
            raise _unread()
        found = self._keys.get(key)
        if found is None or found.is_expired(time.time() * 1000):
            raise _unauthorized("expected a session whose key is valid, found none: sign in again")
        return _owner(found, scope)

    def _key(self, authorization: str) -> Key:
        scheme, _, text = authorization.partition(" ")
        if not authorization:
            raise _unauthorized("expected Authorization: Bearer and a key, found no Authorization")
        if scheme.lower() != "bearer":
            raise _unauthorized("expected Authorization: Bearer and a key, found another scheme")
        if not self._is_read:
            raise _unread()
        parts = keys.parts_of(text.strip())
        key = self._keys.get(parts[0]) if parts else None
        if parts is None or key is None or not key.fits(parts[1]):
            raise _unauthorized(
                "expected a key that nearfetch key create has made and nobody has revoked, found another text"
            )
        if key.is_expired(time.time() * 1000):
            raise _unauthorized(f"the key {key.id} has expired")
        return key

    def _waiting_here(self) -> Counter[str]:
        """How many clients wait here with each key that has a limit of them."""
        found: Counter[str] = Counter()
        known = self._keys
        for of in self.waiting:
            found.update(
                {key: count for key, count in dict(of).items() if count and key in known and known[key].limits.waiters}
            )
        return found

    def _leave(self) -> None:
        with contextlib.suppress(HubUnavailable), self._hub.asking() as client:
            self._board.leave(client)

    def _turn(self) -> float:
        try:
            self.refresh()
            for tell in self.ended:
                tell(self.has)
        except Exception:
            log.exception("reading the keys failed")
        return EVERY_SECONDS


def _soon_ms(key: Key) -> float:
    return min(SOON_MS, SOON_SHARE * (key.expires_ms - key.created_ms))


def _owner(key: Key, scope: Scope) -> Owner:
    if not key.may(scope):
        raise Problem("forbidden", f"expected a key with the scope {scope}, found one with {', '.join(key.scopes)}")
    return Owner(key.tenant, key.id, key.may("admin"))


def _unread() -> Problem:
    return Problem("unavailable", "the hub's Redis has not told the keys yet", headers=[("Retry-After", "1")])


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers=[CHALLENGE])
