"""Decides whether a region loses its tasks to its standbys. Without I/O.

    see      a region's reports → what they say about now
    decide   memory + what was seen + the record so far → memory, record
    calm_ms  memory → for how long nothing can become wrong

A region has to report again and again that its bridge consumes, that its workers work, and that no task waits for too long. If one of
these is missing for ``BAD_MS``, it is wrong. The region gets its tasks back after a time without a fault, so that it does not flap.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct, structs

from web.hub.region import parts_of
from web.hub.takeover import Record

BAD_MS: Final = 4_000  # both parts report every 2 s, so two reports are missing
# After a longer gap between two looks, the hub may have been away: all that was said before is void.
GAP_MS: Final = 2_000

DOWN: Final = "down"
IDLE: Final = "consumes nothing"
LATE: Final = "late"


class Seen(Struct, frozen=True, kw_only=True):
    """A region at ``now_ms`` (hub ms): when it last reported each of these, or 0. ``fault`` tells people what is wrong."""

    now_ms: int
    consuming_ms: int = 0  # a bridge consumes
    working_ms: int = 0  # worker processes run, and reach their Redis
    prompt_ms: int = 0  # no task waits longer than its target
    fault: str = ""
    oldest_seconds: float = 0.0
    target_seconds: float = 0.0


class Memory(Struct, frozen=True, kw_only=True):
    """What is kept between two looks, all in hub ms. ``since_ms``: since when it is looked at without a gap."""

    since_ms: int
    now_ms: int
    consuming_ms: int
    working_ms: int
    prompt_ms: int


def see(now_ms: int, reported: Mapping[str, Any], broker: str = "") -> Seen:
    """What the last status of each bridge and pool says. ``broker``: why the region's queues take no messages."""
    consuming = working = prompt = 0
    faults, oldest, target = [broker] if broker else [], 0.0, 0.0
    for part, status in parts_of(reported):
        at_ms = min(int(status.get("at_ms", 0)), now_ms)
        if part.startswith("bridge:"):
            # Paused with jobs that are ready: it has more than it can do, and ``late`` judges that.
            if status.get("state") == "consuming" or (status.get("state") == "paused" and status.get("ready")):
                consuming = max(consuming, at_ms)
            elif now_ms - at_ms <= BAD_MS:
                faults.append(f"its bridge is {status.get('state')}: {status.get('reason')}")
        elif part.startswith("workers:"):
            if status.get("processes") and not status.get("reason"):
                working = max(working, at_ms)
                age, most = status.get("oldest_seconds", 0.0), status.get("target_seconds", 0.0)
                if age <= most:
                    prompt = max(prompt, at_ms)
                elif now_ms - at_ms <= BAD_MS:
                    oldest, target = max(oldest, age), most
            elif now_ms - at_ms <= BAD_MS:
                faults.append(f"its workers wait: {status.get('reason') or 'no process runs'}")
    return Seen(
        now_ms=now_ms,
        consuming_ms=0 if broker else consuming,
        working_ms=working,
        prompt_ms=prompt,
        fault="; ".join(faults),
        oldest_seconds=oldest,
        target_seconds=target,
    )


def decide(memory: Memory | None, seen: Seen, record: Record | None, well_ms: int) -> tuple[Memory, Record | None]:
    """Returns (what to remember, the region's record: None while it keeps its tasks).

    ``record``: the one so far. ``well_ms``: for how long nothing may be wrong before the region gets its tasks back.
    """
    now = seen.now_ms
    if memory is None or not 0 <= now - memory.now_ms <= GAP_MS:
        memory = Memory(since_ms=now, now_ms=now, consuming_ms=now, working_ms=now, prompt_ms=now)
    memory = structs.replace(
        memory,
        now_ms=now,
        consuming_ms=max(memory.consuming_ms, seen.consuming_ms),
        working_ms=max(memory.working_ms, seen.working_ms),
        prompt_ms=max(memory.prompt_ms, seen.prompt_ms),
    )
    why, detail = _wrong(memory, seen)
    if why:
        if record is not None and record.why == why and not record.well_ms:
            return memory, record  # its detail stays, so that it is written once
        since = record.since_ms if record is not None else now
        return memory, Record(why=why, detail=detail, since_ms=since)
    if record is None or now - memory.since_ms < BAD_MS:  # before that, nothing is known of what is wrong
        return memory, record
    well_since = record.well_ms or now
    if now - well_since >= well_ms:
        return memory, None
    return memory, structs.replace(record, well_ms=well_since)


def calm_ms(memory: Memory) -> int:
    """For how many ms from its last look nothing can become wrong with a region, whatever it reports; 0 where something may be now."""
    oldest_ms = min(memory.consuming_ms, memory.working_ms, memory.prompt_ms)
    return max(0, BAD_MS - (memory.now_ms - oldest_ms))


def _wrong(memory: Memory, seen: Seen) -> tuple[str, str]:
    """Returns (what is wrong, in what way); empty for nothing."""
    now = memory.now_ms
    is_idle, is_still = now - memory.consuming_ms > BAD_MS, now - memory.working_ms > BAD_MS
    if is_idle and is_still and not seen.fault:
        return DOWN, f"nothing was heard of it for {_seconds(now, max(memory.consuming_ms, memory.working_ms))}"
    if is_idle:
        return IDLE, seen.fault or f"no bridge is heard of for {_seconds(now, memory.consuming_ms)}"
    if is_still:
        return IDLE, seen.fault or f"no worker is heard of for {_seconds(now, memory.working_ms)}"
    if now - memory.prompt_ms > BAD_MS:
        return LATE, f"the oldest task waits for {seen.oldest_seconds:.1f} s, {seen.target_seconds:g} s are its target"
    return "", ""


def _seconds(now: int, since: int) -> str:
    return f"{(now - since) / 1000:.0f} s"
