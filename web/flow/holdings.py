"""What regions hold at the hub: measured there, not believed. What nobody asked for goes; who goes on with it is kept out.

    Holdings, a thread of each gateway, of which one acts at a time
        each second   bytes of settled results that have expired by now are forgotten (SETTLE counts them)
                      streams and clients of each region are looked at
                      regions that were barred for long enough may write again
        in between    all keys are looked through, some at a time: a result that nobody waits for is deleted

A region is barred when what it put here that nobody asked for, its stream, or what its clients have sent and Redis has not
done passes its bounds: its user is turned off and its clients are ended, for a minute. Its own tasks wait in its outbox. The
user of the gateways needs the right to do so (``+acl|getuser +acl|setuser +client|kill +client|list``); without it, what nobody
asked for is deleted all the same.
"""

import os
import socket
import time
from collections import deque
from typing import Any, Final

import redis

from jobs import contract
from regions import connect, logs, names
from regions.loop import Loop
from regions.script import Argument, send, value
from regions.settings import Settings
from web.hub import scripts
from web.hub.redis import Hub

EVERY_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.25  # between two looks at keys
HASTY_SECONDS: Final = 0.005  # the same, where the hub fills
HASTY_FROM: Final = 0.5  # of maxmemory
HASTY_GROWTH: Final = 0.02  # of maxmemory, since all was looked through and nothing was wrong
KEYS_AT_ONCE: Final = 1_000  # 0.7 ms of the hub's Redis: haste takes an eighth of it, and so must end
LEASE_MS: Final = 5_000
BAR_MS: Final = 60_000
WINDOW_SECONDS: Final = 60.0
SURPLUS_SHARE: Final = 0.25  # of a region's room: so much that nobody asked for within a minute bars it
CLIENTS_SHARE: Final = 0.5  # of the clients that there may be: from here on it is looked whose they are
CLIENTS_BYTES_SHARE: Final = 0.1  # the same of maxmemory, by what clients have sent and wait for
STREAMS_FROM_SECONDS: Final = 30.0  # after the start: what came while no gateway read is read first, and not cut
AHEAD_MS: Final = 86_400_000  # a stream's ids that are so far ahead of the clock were made to end it

ANY_RESULT: Final = names.result("*", "*")
OF_A_REGION: Final = (
    f"^{names.result('([a-z][a-z0-9-]*)', '(.+)')}$"  # a pattern of Lua; neither "hub" is one nor what is settled
)

log = logs.get("holdings")


class Holdings:
    """What one gateway sees of it. ``client`` is for its thread alone."""

    def __init__(self, settings: Settings, hub: Hub) -> None:
        self._hub = hub
        self._regions = list(settings.region)
        self._frame_max = settings.limits.records_bytes_max + contract.HEAD_BYTES_MAX
        self._client: redis.Redis = connect.open_redis(settings.hub.redis, name="gateway-holdings", connections=1)
        self._me = f"{socket.gethostname()}:{os.getpid()}"
        self._cursor = b"0"
        self._surplus: dict[str, deque[tuple[float, int]]] = {}  # of each region: when (monotonic), bytes
        self._limit = self._used = 0  # bytes of the hub
        self._round_used = 0  # when this round of keys began
        self._clean_used = 0  # when the last round began that found next to nothing, or what was least since
        self._round_surplus = 0  # bytes
        self._look_at = 0.0
        self._streams_from = time.monotonic() + STREAMS_FROM_SECONDS
        self._is_mine = self._is_filling = False
        self._may_bar = True
        self._loop = Loop("holdings", self._turn)

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start(PAUSE_SECONDS)

    def stop(self) -> None:
        """Ends the thread."""
        self._loop.stop()
        self._client.close()

    def _turn(self) -> float:
        pause = 0.0
        try:
            if self._hub.away is None:
                self.run_once()
        except redis.exceptions.RedisError as error:
            log.debug("not looked at", error=str(error))
            pause = EVERY_SECONDS
        except Exception:
            log.exception("looking after what regions hold failed")
            pause = EVERY_SECONDS
        return pause + (HASTY_SECONDS if self._is_filling else PAUSE_SECONDS)

    def run_once(self) -> None:
        """Looks at some keys, and each second at all else."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + EVERY_SECONDS
            self._is_mine = bool(scripts.HOLD.call(self._client, [names.HOLDINGS], [self._me, LEASE_MS]))
            self._is_filling = False
            if self._is_mine:
                scripts.FORGET.call(self._client, list(map(names.held, self._regions)))
                self._keep_out()
                self._look_at_streams()
                self._look_at_clients()
        if self._is_mine:
            self._look_at_keys()

    def _look_at_keys(self) -> None:
        if self._cursor == b"0":
            self._round_used, self._round_surplus = self._used, 0
        arguments: list[Argument] = [
            self._cursor,
            KEYS_AT_ONCE,
            ANY_RESULT,
            OF_A_REGION,
            names.ledger(""),
            names.HUB,
            self._frame_max,
        ]
        self._cursor, *found = scripts.SURPLUS.call(self._client, [], arguments)
        for region, size in zip(found[::2], found[1::2], strict=True):
            self._round_surplus += int(size)
            self._note(region.decode(), int(size))
        if self._cursor == b"0" and self._round_surplus <= HASTY_GROWTH * self._limit:
            self._clean_used, self._is_filling = self._round_used, False

    def _note(self, region: str, size: int) -> None:
        """So many bytes that nobody asked for were deleted."""
        seen, now = self._surplus.setdefault(region, deque()), time.monotonic()
        seen.append((now, size))
        while seen[0][0] < now - WINDOW_SECONDS:
            seen.popleft()
        total, most = sum(of for _, of in seen), SURPLUS_SHARE * self._hub.region_bytes_max
        if 0 < most < total:
            seen.clear()
            self._bar(region, f"it sent {total:,} bytes of results within a minute that nobody asked for")

    def _look_at_streams(self) -> None:
        commands: list[tuple[Any, ...]] = []
        for region in self._regions:
            commands.append(("MEMORY", "USAGE", names.out_stream(region)))
            commands.append(("XINFO", "STREAM", names.out_stream(region)))
        *answers, (seconds, _) = map(_or_none, send(self._client, [*commands, ("TIME",)], []))
        for index, region in enumerate(self._regions):
            size, told = answers[2 * index], answers[2 * index + 1]
            if size is None or told is None:  # none yet, or no stream: that is for who reads it
                continue
            said = dict(zip(told[::2], told[1::2], strict=True))
            last_ms = int(said[b"last-generated-id"].partition(b"-")[0])
            most = self._hub.region_bytes_max
            if 0 < most < size and time.monotonic() >= self._streams_from:
                length = said[b"length"] * most // (2 * size)
                send(self._client, [("XTRIM", names.out_stream(region), "MAXLEN", "~", length)], [])
                self._bar(region, f"its stream was {size:,} bytes long")
            elif last_ms > int(seconds) * 1000 + AHEAD_MS and said[b"length"] == 0:
                send(self._client, [("UNLINK", names.out_stream(region))], [])
                log.warning("a stream whose ids were far ahead begins anew", region=region)

    def _look_at_clients(self) -> None:
        told: dict[str, Any] = self._client.info("clients", "memory")
        limit = self._limit = int(told["maxmemory"])
        self._used = int(told["used_memory"])
        self._clean_used = min(self._clean_used, self._used)
        is_much = 0 < HASTY_FROM * limit < self._used
        self._is_filling = is_much and self._used - self._clean_used > HASTY_GROWTH * limit
        many, much = CLIENTS_SHARE * int(told["maxclients"]), CLIENTS_BYTES_SHARE * limit
        if int(told["connected_clients"]) <= many and not 0 < much < int(told["mem_clients_normal"]):
            return
        held: dict[str, list[int]] = {}
        try:
            for one in self._client.client_list():
                of = held.setdefault(one["user"], [0, 0])
                of[0] += 1
                of[1] += int(one["tot-mem"])
        except redis.exceptions.NoPermissionError as error:
            self._may_not(error)
        for region in self._regions:
            count, size = held.get(names.hub_user(region), (0, 0))
            if count > many / 2 or 0 < much / 2 < size:
                self._bar(region, f"it had {count} connections, which held {size:,} bytes")

    def _bar(self, region: str, why: str) -> None:
        log.error("a region may not write to the hub for a while", region=region, seconds=BAR_MS / 1000, reason=why)
        scripts.BAR.call(self._client, [names.BARRED], [region, BAR_MS, why])
        self._set_user(region, "off")

    def _keep_out(self) -> None:
        """Lets those in again whose time is over, and keeps the others out, also where the server was restarted meanwhile."""
        barred: Any = self._client.hgetall(names.BARRED)
        now_ms = connect.redis_now_ms(self._client) if barred else 0
        for region, said in barred.items():
            if int(said.partition(b" ")[0]) > now_ms:
                self._set_user(region.decode(), "off")
            elif self._set_user(region.decode(), "on"):
                self._client.hdel(names.BARRED, region)
                log.info("a region may write to the hub again", region=region.decode())

    def _set_user(self, region: str, how: str) -> bool:
        """Turns a region's user on or off; one that is not there is not made."""
        user = names.hub_user(region)
        try:
            if value(send(self._client, [("ACL", "GETUSER", user)], [])[0]) is None:
                return True
            value(send(self._client, [("ACL", "SETUSER", user, how)], [])[0])
            if how == "off":
                value(send(self._client, [("CLIENT", "KILL", "USER", user)], [])[0])
        except redis.exceptions.NoPermissionError as error:
            self._may_not(error)
        return True

    def _may_not(self, error: Exception) -> None:
        if self._may_bar:
            log.warning("this gateway can't keep a region out of the hub", error=str(error))
        self._may_bar = False


def _or_none(reply: Any) -> Any:
    """A refusal is no answer; who is away is raised by who asked."""
    return None if isinstance(reply, Exception) else reply
