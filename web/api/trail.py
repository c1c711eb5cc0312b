"""Where a task is: every hop with its time and place, every attempt, and its error in full.

    accepted   confirmed   bridged   claimed, then lost, put back, failed or finished, for each attempt   settled   delivered
    gateway    RabbitMQ    region    worker process                                                       hub       how it was read
               cached: the hub had a result that was young enough
                           waited: for its host's turn, for its next attempt
                           joined: it waited for the answer of another task

No hop costs a round trip of its own. A region's hops come home with its result, or with the claims of long tasks, and a
delivery is noted by the script that reads the results.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from jobs import contract
from jobs.contract import LOST, PUT_BACK, Attempt, Trail
from regions import names
from regions.script import send, value
from web.hub import ids, takeover
from web.hub.faults import living
from web.hub.frame import head_reply
from web.hub.region import read_regions
from web.hub.view import MovedView, moved_view

TASK_ID: Final = re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")

_trails: Final = msgspec.json.Decoder(Trail | str)


class Hop(Struct, frozen=True):
    """One hop: the event, its time (hub ms), and its place."""

    hop: str
    at_ms: int
    where: str
    attempt: int | None = None
    note: str = ""


class Whereabouts(Struct, frozen=True, kw_only=True):
    """A task's hops so far. ``result`` is the head of its frame, once it has one."""

    request: str
    task: str
    source: str
    region: str
    status: str
    tenant: str
    created_ms: int
    hops: list[Hop]
    attempts: list[Attempt]
    result: contract.Result | None
    moved: MovedView | None = None
    traceparent: str = ""


def whereabouts(client: redis.Redis, request: str, task: str) -> Whereabouts | None:
    """Where a task is; None if there is no such task. Two round trips."""
    pipeline = client.pipeline(transaction=False)
    pipeline.hgetall(names.ledger(request))
    pipeline.hmget(names.trail(request), task, f"d:{task}")
    pipeline.xrange(names.events(request))
    fields, (trail, delivered), entries = pipeline.execute()
    if fields.get(b"state") != b"accepted":
        return None
    found = next((one for one in msgspec.json.decode(fields[b"tasks"]) if one[0] == task), None)
    if found is None:
        return None
    _, source, region = found
    status, _, asked = fields[b"t:" + task.encode()].decode().partition("|")
    moved = takeover.moved(fields.get(b"m:" + task.encode()))
    first = region
    if moved is not None:
        region = asked.partition("|")[0].partition(",")[0]  # the one that answered, or was asked first
        first = moved.asked[0]
    settled = next(((entry, fields) for entry, fields in entries if fields[b"t"] == task.encode()), None)
    result = _result(client, task, settled[1]) if settled is not None else None
    kept = _trail(trail)
    others = _of_others(client, request, task, moved.asked) if moved is not None and len(moved.asked) > 1 else {}
    if settled is None and first in others:
        kept = others.pop(first)  # it has told more since another region was asked, too
    created_ms, settled_ms = int(fields[b"created"]), _settled_ms(settled[0]) if settled is not None else None
    others = {other: _between(created_ms, one, settled_ms) for other, one in others.items()}
    if isinstance(kept, Trail):
        kept = _between(created_ms, kept, settled_ms)
    attempts = kept.attempts if isinstance(kept, Trail) else []
    hops = _begun(fields, first, is_published=not isinstance(kept, str))
    hops += [
        hop
        for other, one in others.items()
        if other != region or settled is None
        for hop in _in_region(one, other, None)
    ]
    if isinstance(kept, Trail):
        hops += _in_region(kept, region if settled is not None else first, result)
    elif kept is not None:
        hops.append(_cached(kept, fields, result))
    if settled is not None:
        hops.append(_settled(*settled))
    if moved is not None:
        at_ms = moved.at_ms or created_ms
        how = "as well as" if len(moved.asked) > 1 else "instead of"
        hops.insert(1, Hop("moved", at_ms, moved.to, note=f"{how} {moved.home} ({moved.why})"))
    if settled is None:
        hops += _waits_now(client, task, [region] if moved is None else list(moved.asked), created_ms)
    if delivered is not None:
        at, _, how = delivered.decode().partition("|")
        hops.append(Hop("delivered", int(at), how))
    tenant = fields.get(b"tenant", b"").decode()
    foreign = _foreign(client, tenant, (hop.note for hop in hops))
    return Whereabouts(
        request=request,
        task=task,
        source=source,
        region=region,
        status=status,
        tenant=tenant,
        created_ms=created_ms,
        hops=[
            msgspec.structs.replace(
                hop, note=TASK_ID.sub(lambda at: "another task" if at[0] in foreign else at[0], hop.note)
            )
            for hop in sorted(hops, key=lambda hop: hop.at_ms)  # a task may be claimed before its request is accepted
        ],
        attempts=attempts,
        result=result,
        moved=moved_view(moved, fields) if moved is not None else None,
        traceparent=fields.get(b"traceparent", b"").decode(),
    )


def settled_at(client: redis.Redis, request: str) -> dict[str, int]:
    """When each task of a request was settled (hub ms). One round trip."""
    entries: Any = client.xrange(names.events(request))
    return {fields[b"t"].decode(): _settled_ms(entry) for entry, fields in entries}


def _foreign(client: redis.Redis, tenant: str, notes: Iterable[str]) -> set[str]:
    """The tasks in notes that belong to other tenants, whose answers a task may have got. Their ids must not be shown."""
    found = list({task for note in notes for task in TASK_ID.findall(note)})  # a region may name thousands
    asked = [("HGET", names.ledger(ids.request_of(task)), "tenant") for task in found]
    owners = map(value, send(client, asked, []) if asked else [])
    return {task for task, owner in zip(found, owners, strict=True) if (owner or b"").decode() != tenant}


def _result(client: redis.Redis, task: str, settled: dict[bytes, bytes]) -> contract.Result | None:
    """The head of a task's result; None if it is gone. ``settled``: the entry of the task's end."""
    by = settled[b"r"]
    frame: Any = client.get(names.result(by.decode(), task))
    return None if frame is None else head_reply(frame, task.encode(), by, settled[b"b"])


def _trail(text: bytes | None) -> Trail | str | None:
    """A trail as the hub keeps it; None if there is none, or one that can't be read: a region may have sent anything."""
    try:
        return _trails.decode(text) if text else None
    except (ValueError, RecursionError):
        return None


def _begun(fields: dict[bytes, bytes], region: str, *, is_published: bool) -> list[Hop]:
    hops = [Hop("accepted", int(fields[b"created"]), fields.get(b"by", b"gateway").decode())]
    if b"accepted" in fields and is_published:
        queue = names.fast_queue(region) if fields.get(b"sync") == b"1" else names.work_queue(region)
        hops.append(Hop("confirmed", int(fields[b"accepted"]), f"rabbitmq {queue}"))
    return hops


def _cached(of: str, fields: dict[bytes, bytes], result: contract.Result | None) -> Hop:
    """The hop of a task that got another task's result, which was young enough."""
    age = f", {result.age:.1f} s old" if result is not None else ""
    return Hop("cached", int(fields[b"created"]), names.HUB, note=f"the result of {of}{age}")


def _between(created_ms: int, trail: Trail, settled_ms: int | None) -> Trail:
    """A trail with its times moved to where they must have been: between the request's arrival and the task's end.

    Its attempts come one after the other. A region measures the hub's clock, and each of its processes for itself. On a busy
    machine they are wrong by some ms, and the hops would be shown in another order.
    """

    def put(at_ms: int) -> int:
        at_ms = max(created_ms, at_ms)
        return at_ms if settled_ms is None else min(settled_ms, at_ms)

    attempts, last_ms = [], created_ms
    for one in trail.attempts:
        started_ms = max(last_ms, put(one.started_ms))
        ended_ms = one.ended_ms and max(started_ms, put(one.ended_ms))
        attempts.append(msgspec.structs.replace(one, started_ms=started_ms, ended_ms=ended_ms))
        last_ms = ended_ms or started_ms
    return Trail(trail.bridged_ms and put(trail.bridged_ms), attempts, trail.run)


def _in_region(trail: Trail, region: str, result: contract.Result | None) -> list[Hop]:
    # A bridge and a worker process know the hub's clock a little differently, but no task is claimed before it is bridged.
    bridged_ms = min([trail.bridged_ms, *(one.started_ms for one in trail.attempts[:1])])
    hops = [Hop("bridged", bridged_ms, region)] if trail.bridged_ms else []
    last: Sequence[Attempt] = trail.attempts[-1:]
    before: Attempt | None = None
    for one in trail.attempts:
        hops += _waits(before, one, region, bridged_ms)
        before = one
        hops.append(Hop("claimed", one.started_ms, one.worker, one.attempt, "" if one.error else one.message))
        if one.error:
            is_ours = one.error in (LOST, PUT_BACK)
            how = one.error if is_ours else "failed"
            note = one.message if is_ours else f"{one.error}: {one.message}"
            hops.append(Hop(how, one.ended_ms, one.worker, one.attempt, note))
        elif one.ended_ms and one in last and result is not None:
            count = f"{result.count} record{'' if result.count == 1 else 's'}"
            note = f"{result.error.type}: {result.error.message}" if result.error else count
            hops.append(Hop("failed" if result.error else "finished", one.ended_ms, one.worker, one.attempt, note))
    return hops


def _waits(before: Attempt | None, one: Attempt, region: str, bridged_ms: int) -> list[Hop]:
    """What an attempt waited for until it began: its time after a failure, its host's turn, or the answer of another task."""
    hops = []
    since = before.ended_ms if before is not None else bridged_ms
    turn_since = max(since, one.started_ms - one.turn_ms)
    if before is not None and before.error not in ("", LOST) and turn_since > since:
        why = "to be claimed again" if before.error == PUT_BACK else f"to be tried again after {before.error}"
        hops.append(Hop("waited", since, region, note=f"{why}: {_seconds(turn_since - since)}"))
    if one.turn_ms and one.started_ms > turn_since:
        hops.append(
            Hop("waited", turn_since, region, note=f"for its host's turn: {_seconds(one.started_ms - turn_since)}")
        )
    if one.message and not one.error and one.started_ms > since:
        note = f"it waited for another task that asks the same: {_seconds(one.started_ms - since)}"
        hops.append(Hop("joined", since, region, note=note))
    return hops


def _waits_now(client: redis.Redis, task: str, regions: Sequence[str], created_ms: int) -> list[Hop]:
    """What a task waits for in each region, by what their pools reported last."""
    hops = {}
    for state in read_regions(client, regions, has_traffic=False):
        for pool in living(state, "workers"):
            for one, since_ms, why in pool.get("waits", ()):
                if one == task:
                    note = f"{why}: {_seconds(state.now_ms - since_ms)} so far"
                    hops[state.name] = Hop("waited", max(created_ms, since_ms), state.name, note=note)
    return list(hops.values())


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.3f} s"


def _of_others(client: redis.Redis, request: str, task: str, regions: Sequence[str]) -> dict[str, Trail]:
    """The hops that each of several regions has reported of a task since all of them were asked."""
    found: Any = client.hmget(names.trail(request), [names.trail_field(task, region) for region in regions])
    trails = {region: _trail(text) for region, text in zip(regions, found, strict=True)}
    return {region: one for region, one in trails.items() if isinstance(one, Trail)}


def _settled(entry: bytes, fields: dict[bytes, bytes]) -> Hop:
    status, by = fields[b"s"].decode(), fields[b"r"].decode()
    return Hop("settled", _settled_ms(entry), names.HUB, note=status if by == names.HUB else "")


def _settled_ms(entry: bytes) -> int:
    return int(entry.partition(b"-")[0])


def document(found: Whereabouts) -> dict[str, Any]:
    """The JSON of ``GET /v1/requests/{id}/tasks/{task}``."""
    hops = []
    for hop in found.hops:
        one: dict[str, Any] = {
            "hop": hop.hop,
            "at": contract.rfc3339(hop.at_ms),
            "after_ms": hop.at_ms - found.created_ms,
            "where": hop.where,
        }
        if hop.attempt is not None:
            one["attempt"] = hop.attempt
        if hop.note:
            one["note"] = hop.note
        hops.append(one)
    return {
        "id": found.task,
        "request": found.request,
        "source": found.source,
        "region": found.region,
        "status": found.status,
        "hops": hops,
        "attempts": [_attempt(one) for one in found.attempts],
        "error": found.result.error if found.result else None,
        "moved": found.moved,
        **({"traceparent": found.traceparent} if found.traceparent else {}),
    }


def _attempt(one: Attempt) -> dict[str, Any]:
    return {
        "attempt": one.attempt,
        "worker": one.worker,
        "started_at": contract.rfc3339(one.started_ms),
        "ended_at": contract.rfc3339(one.ended_ms) if one.ended_ms else None,
        "error": {"type": one.error, "message": one.message} if one.error else None,
    }
