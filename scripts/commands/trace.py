"""``nearfetch trace``: synchronous calls of one source, one after another, and the time that each hop of them takes.

call      the calls, on one connection; sent and answered are times of this machine
hops      of each call: what the gateway keeps of its task (``/v1/tasks``), its result's timing, and what monitors saw
averaged  the calls in the middle, by their total: the mean of each hop, and the hop after which it comes
say       a line for each hop, with a bar from the hop before it

The gateway keeps whole milliseconds. The mean of many calls is more exact, since their beginnings are spread over a millisecond. A
monitor of the hub's Redis and of the region's shows microseconds and more hops.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Final

import click
import msgspec
import redis
from msgspec import Struct
from ulid import ULID

from regions.printable import printable
from regions.settings import Settings
from scripts.bench.figures import percentile
from scripts.commands.fetch import asked_for, typed
from scripts.stack.gateway_client import GatewayClient, NoGateway
from scripts.stack.monitor import HUB, REGION, Monitor
from scripts.terminal import say, say_json

WAIT_SECONDS: Final = 30
WARM_CALLS: Final = 3  # before several calls; they connect, and read the source's definition
MIDDLE: Final = 0.5  # the share of the calls that the means are made of
WIDTH: Final = 40
HINT: Final = (
    "All but the first and the last time are whole ms. --calls 100 shows means, --monitor microseconds and more hops."
)
HALF_MS: Final = 0.5  # a time in whole ms was cut off, by half a ms in the mean

SENT, ANSWERED, HERE = "sent", "answered", "this machine"
# Each hop, and the hop after which it comes. Confirming goes on beside the way through the region.
AFTER: Final = {
    SENT: "",
    "checked": SENT,
    "accepted": "checked",
    "confirmed": "accepted",
    "bridged": "accepted",
    "enqueued": "bridged",
    "claimed": "enqueued",
    "asking": "claimed",
    "fetched": "asking",
    "parsed": "fetched",
    "finished": "parsed",
    "shipped": "finished",
    "settled": "shipped",
    "delivered": "settled",
    ANSWERED: "delivered",
}


class Call(Struct, frozen=True):
    """A call that succeeded: its times here (ms since 1970), its request's and task's ids, and its result without records."""

    sent_ms: float
    answered_ms: float
    request: str
    task: str
    result: dict[str, Any]

    @property
    def total_ms(self) -> float:
        """From the first byte sent to the last one received."""
        return self.answered_ms - self.sent_ms


class Hop(Struct, frozen=True):
    """A hop: when it was reached, in ms since the call was sent, and how long after the hop before it."""

    hop: str
    where: str
    at_ms: float
    took_ms: float
    after: str


class Traced(Struct, frozen=True):
    """The calls that were made, and the hops of those in the middle. ``total_ms`` has p50, p95 and p99 of all good ones."""

    source: str
    region: str
    task: str  # of the last good call
    calls: int
    failed: int
    averaged: int
    total_ms: dict[str, float]
    hops: list[Hop]


def run(client: GatewayClient, words: Sequence[str], settings: Settings | None, *, calls: int, as_json: bool) -> int:
    """Returns 0 when all calls succeeded, else 1. ``settings``: those of the servers to monitor, None for no monitors.

    Raises ``Refused``, ``NoGateway`` and click's ``UsageError``.
    """
    asked = asked_for(words)
    if len(asked) != 1:
        raise click.UsageError("expected one source, since a synchronous call has one task")
    source, params = asked[0]
    described = client.get(f"/v1/sources/{source}")
    region, body = described["region"], {"sources": [typed(described, source, params)]}
    if calls > 1:
        list(_made(client, body, WARM_CALLS))
    try:
        with ExitStack() as stack:
            monitors = [stack.enter_context(one) for one in _monitors(settings, region)]
            made = list(_made(client, body, calls))
            for one in monitors:
                one.catch_up()
    except redis.exceptions.RedisError as error:
        raise NoGateway(f"No monitor: {error}") from error
    good = [call for call in made if call.result["status"] == "succeeded"]
    if not good:
        wrong = made[0].result["error"]
        say(printable(f"{source}: {wrong['type']} ({wrong['origin']}): {wrong['message']}"), err=True)
        return 1
    chosen = middle(good)
    trails = {call.task: client.get(f"/v1/tasks/{call.task}")["hops"] for call in chosen}
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    total_ms = {name: percentile([call.total_ms for call in good], share) for name, share in shares.items()}
    failed = len(made) - len(good)
    found = Traced(
        source, region, good[-1].task, calls, failed, len(chosen), total_ms, averaged(chosen, trails, monitors)
    )
    if as_json:
        say_json(msgspec.to_builtins(found))
    else:
        for line in lines(found):
            say(printable(line))
        if not monitors:
            say(HINT)
    return 1 if failed else 0


def _monitors(settings: Settings | None, region: str) -> list[Monitor]:
    if settings is None:
        return []
    if region not in settings.region:
        raise NoGateway(f"No monitor: the settings have no region {region}; --data names those of a scripts/up.")
    return [Monitor(settings.hub.redis, HUB), Monitor(settings.region[region].redis.url, REGION)]


def _made(client: GatewayClient, body: dict[str, Any], calls: int) -> Iterator[Call]:
    """Makes the calls. Raises ``Refused`` when the gateway does not answer with a finished request."""
    for sent, answered, answer in client.posts("/v1/requests", body, calls, {"Prefer": f"wait={WAIT_SECONDS}"}):
        if not answer["done"]:
            raise NoGateway(f"No answer within {WAIT_SECONDS} s; request {answer['id']} goes on")
        result = {key: value for key, value in answer["results"][0].items() if key != "records"}
        yield Call(1000 * sent, 1000 * answered, answer["id"], result["task"], result)


def middle(calls: Sequence[Call]) -> list[Call]:
    """The half of the calls whose totals lie in the middle: a call that something else disturbed would move the means."""
    ordered = sorted(calls, key=lambda call: call.total_ms)
    left_out = int(len(ordered) * (1 - MIDDLE) / 2)
    return ordered[left_out : len(ordered) - left_out]


def averaged(
    calls: Sequence[Call], trails: Mapping[str, Sequence[Mapping[str, Any]]], monitors: Sequence[Monitor]
) -> list[Hop]:
    """The mean of each hop that most calls have, in order. ``trails``: the hops of each task, as ``/v1/tasks`` has them."""
    hub_ms = monitors[0].offset_ms if monitors else clock_offset_ms(calls, trails)
    times: dict[str, list[float]] = {}
    places = {SENT: HERE, ANSWERED: HERE, "checked": "gateway", "shipped": "hub", "enqueued": "redis of the region"}
    for call in calls:
        kept = {hop["hop"]: hop for hop in trails[call.task]}  # the last attempt's
        places |= {name: hop["where"] for name, hop in kept.items()}
        worker = kept.get("claimed", {}).get("where", "")
        places |= dict.fromkeys(("asking", "fetched", "parsed"), worker)
        for name, at_ms in reached(call, kept, monitors, hub_ms).items():
            times.setdefault(name, []).append(at_ms - call.sent_ms)
    means = {
        name: statistics.fmean(times[name]) for name in AFTER if name in times and len(times[name]) > len(calls) / 2
    }
    return in_order(means, places)


def reached(
    call: Call, kept: Mapping[str, Mapping[str, Any]], monitors: Sequence[Monitor], hub_ms: float
) -> dict[str, float]:
    """When a call reached each hop, in ms on this machine's clock. ``hub_ms``: the hub's clock less this one."""
    found = {name: _ms(hop["at"]) + HALF_MS - hub_ms for name, hop in kept.items() if name in AFTER}
    found |= {SENT: call.sent_ms, ANSWERED: call.answered_ms}
    found["checked"] = ULID.from_str(call.request).milliseconds + HALF_MS - hub_ms
    if "claimed" in kept and call.result["fetched_at"] is not None:
        timing = call.result["timing"]
        found["fetched"] = _ms(call.result["fetched_at"]) + HALF_MS - hub_ms
        found["asking"] = found["fetched"] - timing["fetch_ms"]
        found["parsed"] = found["fetched"] + timing["parse_ms"]
    for monitor in monitors:
        for name in AFTER:
            seen = monitor.seen.get((name, call.task)) or monitor.seen.get((name, call.request))
            if seen is not None:
                found[name] = seen - monitor.offset_ms
    return found


def clock_offset_ms(calls: Sequence[Call], trails: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """The hub's clock less this machine's, by the calls: 0 if that is possible, else the middle of what is.

    A call is sent before it is accepted, and answered after it was delivered.
    """
    most, least = float("inf"), float("-inf")
    for call in calls:
        at = {hop["hop"]: _ms(hop["at"]) for hop in trails[call.task]}
        most = min(most, at["accepted"] + 2 * HALF_MS - call.sent_ms)
        least = max(least, at[max(at, key=at.__getitem__)] - call.answered_ms)
    return 0.0 if least <= 0 <= most else (least + most) / 2


def in_order(means: Mapping[str, float], places: Mapping[str, str]) -> list[Hop]:
    """The hops. None comes before the hop that it follows: times from different clocks are exact to a part of a ms only."""
    at = dict(means)
    before = {name: _before(name, at) for name in at}
    for name in reversed(AFTER):  # what is known less exactly (when a bridge had it, when a page was there) gives way
        if name in at and before[name]:
            at[before[name]] = min(at[before[name]], at[name])
    for name in AFTER:
        if name in at and before[name]:
            at[name] = max(at[name], at[before[name]])
    return [
        Hop(
            name, places.get(name, ""), round(at[name], 3), round(at[name] - at.get(before[name], 0.0), 3), before[name]
        )
        for name in AFTER
        if name in at
    ]


def _before(name: str, known: Mapping[str, float]) -> str:
    """The known hop after which one comes; "" for the first."""
    found = AFTER[name]
    while found and found not in known:
        found = AFTER[found]
    return found


def lines(found: Traced) -> Iterator[str]:
    """A head, and a line for each hop with a bar from the hop before it."""
    head = f"{found.source}  {found.region}  "
    if found.calls == 1:
        yield f"{head}{found.total_ms['p50']:.2f} ms   task {found.task}"
    else:
        shares = ", ".join(f"{name} {ms:.2f}" for name, ms in found.total_ms.items())
        yield f"{head}{shares} ms of {found.calls} calls, {found.failed} failed; the means of {found.averaged} in the middle:"
    whole = max(found.hops[-1].at_ms, 0.001)
    width = max(len(hop.where) for hop in found.hops)
    yield f"  {'at ms':>8} {'took':>8}  {'hop':<10} {'where':<{width}}"
    for hop in found.hops:
        begin, end = (round(WIDTH * at_ms / whole) for at_ms in (hop.at_ms - hop.took_ms, hop.at_ms))
        bar = " " * min(begin, WIDTH - 1) + "#" * max(end - begin, 1) if hop.after else ""
        took = f"{hop.took_ms:.2f}" if hop.after else ""
        yield f"  {hop.at_ms:>8.2f} {took:>8}  {hop.hop:<10} {hop.where:<{width}}  {bar}".rstrip()


def _ms(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000
