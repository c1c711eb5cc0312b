"""Bounds what each region holds in the hub's Redis, by measuring it there instead of believing the region.

    Holdings, a thread of each gateway; of those below the first, one does all
        each second   subtracts the bytes of settled results that have expired (SETTLE adds them)
                      looks at the stream and the clients of each region
                      lets regions write again that were barred for long enough
        in between    scans all keys once, some at a time, and deletes results that no task waits for

A region is barred for a minute when one of these exceeds its bound: results that no task waits for, its stream, or the memory
of its clients' commands. Its Redis user is then turned off and its clients are disconnected; its own results wait in its
outbox. To bar regions, the gateways' user needs ``+acl|getuser +acl|setuser +client|kill +client|list``. Without these
rights, unwanted results are still deleted.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis

from jobs import result_frame
from regions import connect, logs, names
from regions.loop import Loop
from regions.script import send, value
from regions.settings import Settings
from web.hub import scripts
from web.hub.redis import Hub
from web.hub.view import mapping

EVERY_SECONDS: Final = 1.0  # all but the scan of keys
PAUSE_SECONDS: Final = 0.25  # between two shares of the scan
HASTY_SECONDS: Final = 0.005  # the same while the hub fills up
HASTY_FROM: Final = 0.5  # share of maxmemory that must be used for haste
HASTY_GROWTH: Final = 0.02  # share of maxmemory by which use must have grown since a scan found next to nothing
KEYS_AT_ONCE: Final = 1_000  # take the hub's Redis 0.7 ms: haste costs an eighth of its time, and so must end
LEASE_MS: Final = 5_000
BAR_MS: Final = 60_000
WINDOW_SECONDS: Final = 60.0
SURPLUS_SHARE: Final = 0.25  # of a region's room: this much unwanted data within a minute bars it
CLIENTS_SHARE: Final = 0.5  # of maxclients: if there are more, they are counted by region
CLIENTS_BYTES_SHARE: Final = 0.1  # the same for clients' buffers, of maxmemory
# Buffers with which no region is barred, however low maxmemory is: it may have been lowered.
CLIENTS_BYTES_MIN: Final = 4_000_000
STREAMS_FROM_SECONDS: Final = 30.0  # after the start, so that streams are read before they are cut
AHEAD_MS: Final = 86_400_000  # ids this far ahead of the clock were forged, so that the stream takes no more entries

ANY_RESULT: Final = names.result("*", "*")
# A Lua pattern of unsettled results. Settled ones are of "REGION+", and those of "hub" are left out by name.
OF_A_REGION: Final = f"^{names.result('([a-z][a-z0-9-]*)', '(.+)')}$"

log = logs.get("holdings")


class Holdings:
    """One gateway's part in it."""

    def __init__(self, settings: Settings, hub: Hub) -> None:
        self._hub = hub
        self._regions = settings.region  # changes while the gateway runs
        self._frame_max = settings.limits.records_bytes_max + result_frame.HEAD_BYTES_MAX
        self._client: redis.Redis = connect.open_redis(settings.hub.redis, name="gateway-holdings", connections=1)
        self._me = f"{socket.gethostname()}:{os.getpid()}"
        self._cursor = b"0"
        self._surplus: dict[str, deque[tuple[float, int]]] = {}  # by region: when (monotonic), unwanted bytes
        self._limit = self._used = 0  # bytes of the hub
        self._round_used = 0  # when this scan began
        self._clean_used = 0  # when the last scan began that found next to nothing, or the least use since
        self._round_surplus = 0  # unwanted bytes that this scan has found
        self._look_at = 0.0
        self._streams_from = time.monotonic() + STREAMS_FROM_SECONDS
        self._is_mine = self._is_filling = False
        self._has_scanned = False  # all keys since the last look
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
            else:
                pause = EVERY_SECONDS
        except redis.exceptions.RedisError as error:
            log.debug("regions' data not checked", error=str(error))
            pause = EVERY_SECONDS
        except Exception:
            log.exception("checking what regions hold failed")
            pause = EVERY_SECONDS
        if self._is_filling:
            return pause + HASTY_SECONDS
        return pause + (max(0.0, self._look_at - time.monotonic()) if self._has_scanned else PAUSE_SECONDS)

    def run_once(self) -> None:
        """Scans some keys unless all have been scanned, and once a second does everything else."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + EVERY_SECONDS
            hold = scripts.HOLD.command(lease=names.HOLDINGS, who=self._me, lease_ms=LEASE_MS)
            forget = scripts.FORGET.command(held=map(names.held, list(self._regions)))
            regions = list(self._regions)
            look = _look_commands(regions)
            # The gateway that did everything at the last look mostly does so at this one: then it is one round trip.
            asked = [hold, forget, ("HGETALL", names.BARRED), *(look if self._is_mine else [])]
            is_mine, forgot, barred, *seen = send(self._client, asked, [scripts.HOLD, scripts.FORGET])
            value(forgot)
            self._is_mine, self._is_filling, self._has_scanned = bool(value(is_mine)), False, False
            if self._is_mine:
                self._keep_out(mapping(value(barred)))
                *streams, info = seen or send(self._client, look, [])
                self._look_at_streams(regions, streams)
                self._look_at_clients(connect.info(value(info)))
        if self._is_mine and (self._is_filling or not self._has_scanned):
            self._look_at_keys()
        self._has_scanned = self._has_scanned or not self._is_mine or self._cursor == b"0"

    def _look_at_keys(self) -> None:
        if self._cursor == b"0":
            self._round_used, self._round_surplus = self._used, 0
        self._cursor, *found = scripts.SURPLUS.call(
            self._client,
            cursor=self._cursor,
            count=KEYS_AT_ONCE,
            results=ANY_RESULT,
            of_a_region=OF_A_REGION,
            ledger=names.ledger(""),
            bytes_max=self._frame_max,
        )
        for region, size in zip(found[::2], found[1::2], strict=True):
            self._round_surplus += int(size)
            self._note(region.decode(), int(size))
        if self._cursor == b"0" and self._round_surplus <= HASTY_GROWTH * self._limit:
            self._clean_used, self._is_filling = self._round_used, False

    def _note(self, region: str, size: int) -> None:
        """Counts unwanted bytes of a region that were deleted, and bars it when they are too many."""
        seen, now = self._surplus.setdefault(region, deque()), time.monotonic()
        seen.append((now, size))
        while seen[0][0] < now - WINDOW_SECONDS:
            seen.popleft()
        total, most = sum(of for _, of in seen), SURPLUS_SHARE * self._hub.region_bytes_max
        if 0 < most < total:
            seen.clear()
            self._bar(region, f"it sent {total:,} bytes of results within a minute that nobody asked for")

    def _look_at_streams(self, regions: Sequence[str], replies: Sequence[Any]) -> None:
        *answers, (seconds, _) = map(_or_none, replies)
        for index, region in enumerate(regions):
            size, info = answers[2 * index], answers[2 * index + 1]
            if size is None or info is None:  # none yet, or not a stream, which the settler repairs
                continue
            stream = dict(zip(info[::2], info[1::2], strict=True))
            last_ms = int(stream[b"last-generated-id"].partition(b"-")[0])
            most = self._hub.region_bytes_max
            if 0 < most < size and time.monotonic() >= self._streams_from:
                length = stream[b"length"] * most // (2 * size)
                send(self._client, [("XTRIM", names.out_stream(region), "MAXLEN", "~", length)], [])
                self._bar(region, f"its stream was {size:,} bytes long")
            elif last_ms > int(seconds) * 1000 + AHEAD_MS and stream[b"length"] == 0:
                send(self._client, [("UNLINK", names.out_stream(region))], [])
                log.warning("a stream whose ids were far ahead begins anew", region=region)

    def _look_at_clients(self, info: Mapping[str, str]) -> None:
        limit = self._limit = int(info["maxmemory"])
        self._used = int(info["used_memory"])
        self._clean_used = min(self._clean_used, self._used)
        is_much = 0 < HASTY_FROM * limit < self._used
        self._is_filling = is_much and self._used - self._clean_used > HASTY_GROWTH * limit
        many, much = CLIENTS_SHARE * int(info["maxclients"]), CLIENTS_BYTES_SHARE * limit
        if int(info["connected_clients"]) <= many and not 0 < much < int(info["mem_clients_normal"]):
            return
        held: dict[str, list[int]] = {}
        try:
            for one in self._client.client_list():
                of = held.setdefault(one["user"], [0, 0])
                of[0] += 1
                of[1] += int(one["tot-mem"])
        except redis.exceptions.NoPermissionError as error:
            self._may_not(error)
        for region in list(self._regions):
            count, size = held.get(names.hub_user(region), (0, 0))
            if count > many / 2 or (limit and size > max(much / 2, CLIENTS_BYTES_MIN)):
                self._bar(region, f"it had {count} connections, which held {size:,} bytes")

    def _bar(self, region: str, why: str) -> None:
        log.error("a region may not write to the hub for a while", region=region, seconds=BAR_MS / 1000, reason=why)
        scripts.BAR.call(self._client, barred=names.BARRED, region=region, for_ms=BAR_MS, why=why)
        self._set_user(region, "off")

    def _keep_out(self, barred: dict[bytes, bytes]) -> None:
        """Lets regions in again whose minute is over. Bars the others once more, since a restarted server forgets it."""
        now_ms = connect.redis_now_ms(self._client) if barred else 0
        for region, until in barred.items():
            if int(until.partition(b" ")[0]) > now_ms:
                self._set_user(region.decode(), "off")
            else:
                self._set_user(region.decode(), "on")
                self._client.hdel(names.BARRED, region)
                log.info("a region may write to the hub again", region=region.decode())

    def _set_user(self, region: str, how: str) -> None:
        """Turns a region's user on or off; a user that does not exist is not made."""
        user = names.hub_user(region)
        try:
            if value(send(self._client, [("ACL", "GETUSER", user)], [])[0]) is None:
                return
            value(send(self._client, [("ACL", "SETUSER", user, how)], [])[0])
            if how == "off":
                value(send(self._client, [("CLIENT", "KILL", "USER", user)], [])[0])
        except redis.exceptions.NoPermissionError as error:
            self._may_not(error)

    def _may_not(self, error: Exception) -> None:
        if self._may_bar:
            log.warning("this gateway can't keep a region out of the hub", error=str(error))
        self._may_bar = False


def _look_commands(regions: Sequence[str]) -> list[tuple[Any, ...]]:
    """What is asked of the regions' streams, the time, and the clients."""
    streams = map(names.out_stream, regions)
    of_streams = [
        command for stream in streams for command in (("MEMORY", "USAGE", stream), ("XINFO", "STREAM", stream))
    ]
    return [*of_streams, ("TIME",), ("INFO", "clients", "memory")]


def _or_none(reply: Any) -> Any:
    """None for an error reply."""
    return None if isinstance(reply, Exception) else reply
