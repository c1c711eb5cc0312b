"""Counts the entries of regions that were refused, and keeps examples of them among the dead letters.

    Settler ── add ──> Refusals ── flush: once a second, if there are new ones
        nf:refused:{region}   how many entries, by what was wrong, and when the last one came
        nf:dead               the first example in each second, as the letter REGION:WHAT (nearfetch dead show)

A region has one letter for each kind of fault, however many entries it sends. The region's status shows the counts.
"""

import time
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from regions import logs, names
from regions.script import send
from web.flow.dead import BODY_MAX, DeadLetter
from web.hub.entry import Refused

KEPT_SECONDS: Final = 7 * 86_400
FIELD_MAX: Final = 1_000  # characters that are kept of a field
FIELDS_MAX: Final = 16
LOG_SECONDS: Final = 60.0  # between two log lines about one region

log = logs.get("settle")


class _Seen(Struct):
    """Entries of one kind that were refused since the last flush; the texts are of the first one."""

    count: int
    entry: str
    why: str
    body: str
    body_bytes: int


class Refusals:
    """Refused entries of one gateway that are not written yet. For one thread."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._new: dict[tuple[str, str], _Seen] = {}
        self._logged_at: dict[str, float] = {}  # by region, monotonic

    def add(self, region: str, entry: str, fields: dict[bytes, bytes], refused: Refused) -> None:
        """Counts one more refused entry."""
        seen = self._new.get((region, refused.what))
        if seen is not None:
            seen.count += 1
            return
        body = {_text(name): _text(of) for name, of in list(fields.items())[:FIELDS_MAX]}
        size = sum(len(name) + len(of) for name, of in fields.items())
        kept = msgspec.json.encode(body).decode()[:BODY_MAX]
        self._new[region, refused.what] = _Seen(1, entry, str(refused)[:FIELD_MAX], kept, size)
        if time.monotonic() - self._logged_at.get(region, float("-inf")) >= LOG_SECONDS:
            self._logged_at[region] = time.monotonic()
            log.error("entry refused", region=region, what=refused.what, why=str(refused)[:FIELD_MAX], entry=entry)

    def flush(self) -> None:
        """Writes the new counts; those that a full Redis refuses are written with the next. Raises ``connect.AWAY``'s errors."""
        if not self._new:
            return
        new, self._new = self._new, {}
        seconds, micros = self._client.time()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        counts: list[tuple[Any, ...]] = []
        for (region, what), seen in new.items():
            key = names.refused(region)
            counts += [("HINCRBY", key, what, seen.count), ("HSET", key, "at", now_ms), ("EXPIRE", key, KEPT_SECONDS)]
        replies = send(self._client, counts, [])
        letters: list[tuple[Any, ...]] = []
        for ((region, what), seen), total in zip(new.items(), replies[::3], strict=True):
            if isinstance(total, Exception):
                self._new.setdefault((region, what), seen)
                continue
            letter = DeadLetter(
                id=f"{region}:{what}", kind="entry", region=region, queue=names.out_stream(region), reason=f"refused: {what}",
                fault=seen.why, deaths=int(total), body_bytes=seen.body_bytes, body=seen.body,
            )  # fmt: skip
            letters.append(("HSET", names.DEAD, letter.id, msgspec.json.encode(letter)))
            letters.append(("ZADD", names.DEAD_AT, now_ms, letter.id))
        for reply in send(self._client, letters, []) if letters else ():
            if isinstance(reply, Exception):
                log.warning("an example of refused entries was not stored", error=str(reply))


def _text(of: bytes) -> str:
    return of[:FIELD_MAX].decode("utf-8", "replace")
