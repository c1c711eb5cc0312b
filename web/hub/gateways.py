"""The gateways of this hub, by what each reports every second or two: which of them is lost, and which starts again and again.

nf:gateways   NAME: a Gateway. A gateway that stops removes its own; a lost one's stays for a while
"""

import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from regions import names
from regions.script import send, value
from regions.settings import Settings
from web.hub.faults import RESTARTS, RESTARTS_MS, Found

LOST_MS: Final = 6_000  # a gateway that has said nothing for this long is lost
FORGET_MS: Final = 600_000
STARTS_MAX: Final = 10


class Gateway(Struct, frozen=True):
    """When it last spoke, and when its last processes started (hub ms), the latest last."""

    at_ms: int
    starts_ms: tuple[int, ...] = ()


_gateway: Final = msgspec.json.Decoder(Gateway)


def name_of(settings: Settings) -> str:
    """A gateway's name among the gateways of its hub, the same after a start: HOST:PORT."""
    return f"{socket.gethostname()}:{settings.gateway.port}"


class Presence:
    """One gateway's own entry, and its look at the others. ``name``: as ``name_of`` makes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._starts: tuple[int, ...] = ()

    def say(self, client: redis.Redis, asked: Sequence[tuple[Any, ...]] = ()) -> tuple[list[Found], list[Any]]:
        """Says that this gateway lives. Returns (what is wrong with gateways, the replies to what is asked in the same write).

        Raises what redis-py raises.
        """
        commands: list[tuple[Any, ...]] = [("TIME",), ("HGETALL", names.GATEWAY_LIST), *asked]
        (seconds, micros), flat, *replies = map(value, send(client, commands, []))
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        found = _known(dict(zip(flat[::2], flat[1::2], strict=True)))
        if not self._starts:
            before = found[self.name].starts_ms if self.name in found else ()
            self._starts = (*before, now_ms)[-STARTS_MAX:]
        found[self.name] = Gateway(now_ms, self._starts)
        commands = [("HSET", names.GATEWAY_LIST, self.name, msgspec.json.encode(found[self.name]))]
        if gone := [name for name, one in found.items() if now_ms - one.at_ms > FORGET_MS]:
            commands.append(("HDEL", names.GATEWAY_LIST, *gone))
        send(client, commands, [])  # a full Redis refuses the first one, which only makes this gateway look lost
        return faults_of(found, now_ms), replies

    def leave(self, client: redis.Redis) -> None:
        """Removes its entry. Raises what redis-py raises."""
        client.hdel(names.GATEWAY_LIST, self.name)


def faults_of(gateways: Mapping[str, Gateway], now_ms: int) -> list[Found]:
    """What is wrong with these gateways."""
    found = []
    for name, one in sorted(gateways.items()):
        silent_ms = now_ms - one.at_ms
        if LOST_MS < silent_ms <= FORGET_MS:
            found.append(
                Found("gateway-away", f"a gateway was lost: {name} says nothing any more", part=f"gateway {name}")
            )
        # A gateway that stops when it is asked to removes its starts. So each start that is left, but the first, is a restart.
        restarts = sum(now_ms - at_ms <= RESTARTS_MS for at_ms in one.starts_ms[1:])
        if restarts >= RESTARTS:
            message = f"a gateway starts again and again: it was restarted {restarts} times in a minute on {name}"
            found.append(Found("gateway-restarts", message, part=f"gateway {name}"))
    return found


def _known(fields: Mapping[bytes, bytes]) -> dict[str, Gateway]:
    found = {}
    for name, text in fields.items():
        try:
            found[name.decode()] = _gateway.decode(text)
        except (ValueError, RecursionError):
            continue
    return found
