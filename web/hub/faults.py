"""The faults that a gateway reports: one table of names, costs and what mends them; how a region's reports show them.

    KINDS        name → severity, cost, mend: the alerts, the metric and docs/operations.md have the same names
    of_region    a region's state → its faults
    Book         what is found now → ``Fault``s with the time since when each is there; what began and what ended

Only the cause is reported: while RabbitMQ is away for the gateway, too, no region is blamed for it. Nothing here makes a call.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct

from jobs.contract import rfc3339
from web.hub.region import REFUSED, RegionState

SILENT_MS: Final = 6_000  # bridges and pools report every 2 s: three reports are missing
AHEAD_MS: Final = 120_000  # how far a status may be ahead of the hub's clock; web.hub.entry lets one of a minute in
REFUSED_SHOWN_MS: Final = 600_000  # how long after the last refused entry a region's status shows it
RUNBOOKS: Final = "/runbooks"  # the page of the gateway with a section for each fault

# Such a region may have reported, and the hub did not take it.
SILENT: Final = ("region-down", "region-bridge-away", "region-workers-away")
UNREPORTED_SECONDS: Final = 1.0  # a bridge that consumes no more says so within this time
GONE: Final = "no bridge is alive: RabbitMQ knows no consumer"
SLOW_MS: Final = 100.0  # a Redis that takes longer to answer is slow
RESTARTS, RESTARTS_MS = 3, 60_000  # starts of a part within a minute that are a fault

Severity = Literal["page", "ticket"]


class Kind(Struct, frozen=True):
    """What a fault costs (what clients notice) and what mends it. ``page`` wakes somebody, a ``ticket`` can wait for the day.

    ``part``: what is broken; "" for a gateway, region or source. In it and in ``mend``, ``{region}`` and ``{source}`` are the fault's
    own.
    """

    severity: Severity
    cost: str
    mend: str
    part: str = ""


class Found(NamedTuple):
    """A fault as it was found just now; ``message`` gives the reason first, then figures."""

    name: str
    message: str
    region: str | None = None
    source: str | None = None
    part: str | None = None


class Queued(Struct, frozen=True):
    """A region's two queues as the broker had them ``at`` (monotonic seconds): messages that are ready, and consumers."""

    ready: int = 0
    consumers: int = 0
    at: float = 0.0


class Fault(Struct, frozen=True):
    """A fault with all that the table says of it. ``since``: RFC 3339."""

    name: str
    severity: Severity
    region: str | None
    source: str | None
    part: str | None
    since: str
    message: str
    cost: str
    mend: str
    runbook: str


_NO_REQUESTS: Final = "every new request is answered 503 within a second; polls of accepted ones work"
_WAIT: Final = "its tasks wait, and expire at their deadlines; those of sources with a standby are answered there"

KINDS: Final[Mapping[str, Kind]] = {
    # The hub
    "hub-redis-away": Kind(
        "page", "every call but the catalogue is answered 503 within a second; regions keep their results",
        "start the hub's Redis again, with its files: systemctl start redis-server", "redis-hub",
    ),
    "hub-redis-full": Kind(
        "page", _NO_REQUESTS, "redis-cli CONFIG SET maxmemory 2gb, and the same in its redis.conf; or lower limits.result_ttl_seconds", "redis-hub"
    ),
    "hub-redis-refuses-writes": Kind(
        "page", _NO_REQUESTS, "free its disk (redis-cli CONFIG GET dir, df -h); if it is a replica, name the master in hub.redis, or redis-cli REPLICAOF NO ONE", "redis-hub"
    ),
    "hub-redis-denied": Kind(
        "page", _NO_REQUESTS, "nearfetch doctor has the command that gives the gateways' user the right that the message names", "redis-hub"
    ),
    "hub-redis-not-durable": Kind(
        "page", _NO_REQUESTS, "nearfetch config check names the settings of the hub's Redis and the command that sets them", "redis-hub"
    ),
    "hub-redis-slow": Kind(
        "page", "every call takes longer, and some are answered 503",
        "redis-cli SLOWLOG GET and INFO commandstats show what it does; look at its host's processor and disk", "redis-hub",
    ),
    "hub-redis-restarts": Kind(
        "page", "calls are answered 503 each time", "journalctl -u redis-server at its host: the last lines say why it ends", "redis-hub"
    ),
    "rabbitmq-away": Kind("page", _NO_REQUESTS, "start RabbitMQ again, with its files: systemctl start rabbitmq-server", "rabbitmq"),
    "rabbitmq-restarts": Kind(
        "page", "requests are answered 503 each time", "journalctl -u rabbitmq-server at its host: the last lines say why it ends", "rabbitmq"
    ),
    "rabbitmq-blocked": Kind(
        "page", _NO_REQUESTS, "rabbitmq-diagnostics alarms says of what it has too little: free memory or disk of its host", "rabbitmq"
    ),
    "rabbitmq-slow": Kind(
        "page", "requests take longer, and some are answered 503", "rabbitmq-diagnostics observer shows what it does; look at its host's processor and disk", "rabbitmq"
    ),
    "history-away": Kind(
        "ticket", "GET /v1/requests is 503, and requests are gone when their results expire, if it lasts that long",
        "start MongoDB again, with its files: systemctl start mongod", "mongo",
    ),
    "gateway-away": Kind(
        "page", "its clients' connections are refused", "start nearfetch gateway there again; its log says why it ended"
    ),
    "gateway-restarts": Kind(
        "page", "clients that wait at it are disconnected each time", "read the gateway's log: its last lines say why it ends; nearfetch doctor there says what it lacks"
    ),
    "gateway-connections-full": Kind(
        "page", "new connections wait, and calls are answered 503",
        "raise gateway.connections_max and the limit of open files (ulimit -n, LimitNOFILE), or find the client that opens so many: ss -tn",
    ),
    "gateway-clean-up-full": Kind(
        "page", _NO_REQUESTS, "nearfetch doctor says what is wrong with the hub's Redis and RabbitMQ: what was refused is taken back when both answer"
    ),
    "dead-letters": Kind(
        "ticket", "their tasks have failed", "nearfetch dead list says why; then nearfetch dead retry or drop", "rabbitmq"
    ),
    "webhooks-away": Kind(
        "page", "nobody is told that requests have ended; what is due waits for two days", "start nearfetch webhooks at the hub", "webhooks"
    ),
    "region-files-wrong": Kind(
        "ticket", "new and changed regions are not taken", "correct the file that the message names; nearfetch config check"
    ),
    "key-expires": Kind(
        "ticket", "the calls of its client are 401 from then on", "nearfetch key rotate ID makes a new one"
    ),
    # A region
    "region-down": Kind(
        "page", _WAIT, "nearfetch bridges ensure {region} and nearfetch workers {region} on its hosts; or look at its network to the hub"
    ),
    "region-bridge-away": Kind(
        "page", _WAIT, "nearfetch bridges ensure {region}; the bridge's log says why it ended", "bridge-{region}"
    ),
    "region-bridge-restarts": Kind(
        "page", "its tasks start later", "read the log of the region's bridge: its last lines say why it ends; nearfetch doctor there says what it lacks", "bridge-{region}"
    ),
    "region-bridge-idle": Kind(
        "page", _WAIT, "nearfetch bridges restart {region}", "bridge-{region}"
    ),
    "region-bridge-paused": Kind("page", _WAIT, "the message has the bridge's own reason; nearfetch doctor on its host says more", "bridge-{region}"),
    "region-rabbitmq-away": Kind(
        "page", _WAIT, "nearfetch doctor on the region's host: look at its network to RabbitMQ, and at its user's password there", "bridge-{region}"
    ),
    "region-queue-away": Kind(
        "page", "requests for the region are answered 503", "rabbitmq-diagnostics check_if_node_is_quorum_critical; start the missing nodes", "rabbitmq"
    ),
    "region-queue-full": Kind(
        "page", "requests for the region are answered 503", "nearfetch scale {region} 4 asks for more workers; or raise the queue's max-length (nearfetch config check prints the policy)", "rabbitmq"
    ),
    "region-workers-away": Kind(
        "page", _WAIT, "start nearfetch workers {region}; its log says why it ended", "workers-{region}"
    ),
    "region-workers-hang": Kind(
        "ticket", "their tasks wait until the pool has replaced them", "nothing: the pool kills them after 10 s; the log names their tasks", "workers-{region}"
    ),
    "region-workers-restarts": Kind(
        "page", "tasks are run again, and those that kill their process end as poison",
        "read the log of the region's workers; nearfetch source replay shows what its sites answered", "workers-{region}",
    ),
    "region-redis-away": Kind("page", _WAIT, "start the region's Redis again, with its files: systemctl start redis-server", "redis-{region}"),
    "region-redis-full": Kind(
        "page", _WAIT, "redis-cli CONFIG SET maxmemory 1gb, and the same in its redis.conf", "redis-{region}"
    ),
    "region-redis-refuses-writes": Kind(
        "page", _WAIT, "free its disk (redis-cli CONFIG GET dir, df -h); if it is a replica, name the master in redis.url, or redis-cli REPLICAOF NO ONE", "redis-{region}"
    ),
    "region-redis-not-durable": Kind(
        "page", _WAIT, "nearfetch config check names the settings of the region's Redis and the command that sets them", "redis-{region}"
    ),
    "region-redis-slow": Kind(
        "ticket", "its tasks take longer", "redis-cli SLOWLOG GET shows what it does; look at its host's processor and disk", "redis-{region}"
    ),
    "region-redis-restarts": Kind(
        "page", "its tasks start later", "journalctl -u redis-server at its host: the last lines say why it ends", "redis-{region}"
    ),
    "region-backlog": Kind(
        "ticket", "new tasks of the region wait behind many others", "nearfetch scale {region} says why it has so many processes; raise scale.max, or start workers on one more host", "workers-{region}"
    ),
    "region-late": Kind(
        "ticket", "its tasks start late, and may expire", "nearfetch scale {region} says why it has so many processes; raise scale.max", "workers-{region}"
    ),
    "region-outbox-full": Kind(
        "page", "its workers take no tasks", "nearfetch doctor on the region's host: look at its network to the hub's Redis, and at its user's rights there", "workers-{region}"
    ),
    "region-taken-over": Kind(
        "ticket", "its sources with a standby are answered there, the others late or not at all", "mend what the message names; the region gets its tasks back by itself"
    ),
    "region-barred": Kind(
        "page", _WAIT, "nearfetch dead list has what it wrote; docs/operations.md, A region that you do not trust, says what to do"
    ),
    "region-entries-refused": Kind(
        "ticket", "what was refused is lost: a result's task expires", "nearfetch dead list has an example of each kind; nearfetch dead drop ends this, or ten minutes without another one"
    ),
    "region-scale-wrong": Kind(
        "ticket", "the previous number of processes applies", "correct [scale] in the region's file, as the message says", "workers-{region}"
    ),
    "region-file-gone": Kind(
        "ticket", "none", "put the file back, or move the sources that the message names"
    ),
    # A source
    "source-broken": Kind(
        "page", "its tasks end as unknown_source", "correct the definition: nearfetch source check"
    ),
    "source-failing": Kind(
        "ticket", "its tasks fail at once, while its host is left alone", "nothing: its host is asked again by itself"
    ),
    "source-degraded": Kind(
        "ticket", "its tasks may fail, or its records lack fields or rows", "nearfetch source replay --source {source} shows what the site answers now"
    ),
    "source-differs": Kind(
        "ticket", "answers depend on which definition made them", "deploy the same definition to the gateways and the region"
    ),
    "standby-not-ready": Kind(
        "ticket", "its tasks expire if its region can't answer", "give the standby what the message names"
    ),
}  # fmt: skip


def of_region(state: RegionState, queued: Queued | None = None) -> list[Found]:
    """The faults that a region's own reports show, the gravest first.

    ``queued``: the region's queues as the broker has them, None while that is not known.
    """
    bridges, pools = living(state, "bridge"), living(state, "workers")
    faults = _of_bridges(bridges, queued) + _of_workers(pools)
    if not bridges and not pools:
        faults = [("region-down", "no bridge and no worker is alive: nothing is heard of the region")]
    faults += _of_redis(bridges)
    faults += [("region-bridge-restarts", f"its bridge {how}") for how in _restarts(state, "bridge")]
    faults += [("region-workers-restarts", f"its workers' pool {how}") for how in _restarts(state, "workers")]
    if state.barred:
        faults.append(("region-barred", f"it may not write to the hub for a while: {state.barred}"))
    if state.refused and state.now_ms - state.refused_ms <= REFUSED_SHOWN_MS:
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(state.refused.items()))
        faults.append(
            ("region-entries-refused", f"{REFUSED} ({what} in all); nearfetch dead list shows the latest of each")
        )
    told = dict.fromkeys(faults)  # two parts may say the same
    return [Found(name, message, region=state.name) for name, message in told]


def _of_bridges(bridges: list[dict[str, Any]], queued: Queued | None) -> list[tuple[str, str]]:
    if not bridges:
        return [("region-bridge-away", "no bridge is alive")]
    consuming = [bridge for bridge in bridges if bridge.get("state") == "consuming"]
    if not consuming:
        first = bridges[0]
        name = str(first.get("fault", ""))
        name = name if name in KINDS and name.startswith("region-") else "region-bridge-paused"
        return [(name, f"its bridge is {first.get('state')}: {first.get('reason')}")]
    return [("region-bridge-away", GONE)] if are_gone(consuming, queued) else []


def are_gone(bridges: Iterable[Mapping[str, Any]], queued: Queued | None) -> bool:
    """Whether the broker saw no consumer after the last report of each of these bridges, which report a change at once."""
    if queued is None or queued.consumers:
        return False
    looked = time.monotonic() - queued.at
    return all(bridge["age_seconds"] - looked > UNREPORTED_SECONDS for bridge in bridges)


def _of_workers(pools: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    if not any(pool.get("processes") for pool in pools):
        found.append(("region-workers-away", "no worker is alive"))
    waiting = sorted({str(pool["reason"]) for pool in pools if pool.get("reason")})
    found += [("region-redis-away", f"its workers wait: {reason}") for reason in waiting]
    if hung := sum(pool.get("hung", 0) for pool in pools):
        of = sum(pool.get("processes", 0) for pool in pools)
        found.append(("region-workers-hang", f"worker processes do not run: {hung} of {of}"))
    if (died := sum(pool.get("died", 0) for pool in pools)) >= RESTARTS:
        last = next((pool["death"] for pool in pools if pool.get("death")), "")
        found.append(("region-workers-restarts", f"worker processes die: {died} in a minute, the last one: {last}"))
    full = [pool for pool in pools if 0 < pool.get("outbox_max", 0) <= pool.get("outbox_bytes", 0)]
    if full:
        mb = full[0]["outbox_bytes"] / 1e6
        found.append(("region-outbox-full", f"its results do not reach the hub: {mb:.0f} MB of them wait"))
    return found


def _of_redis(bridges: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    slow, lost = (max((bridge.get(of, 0) for bridge in bridges), default=0) for of in ("redis_ms", "redis_lost"))
    if slow > SLOW_MS:
        found.append(("region-redis-slow", f"its Redis is slow: it answers after {slow:.0f} ms"))
    if lost >= RESTARTS:
        found.append(("region-redis-restarts", f"its Redis comes and goes: it was lost {lost} times in a minute"))
    return found


def _restarts(state: RegionState, kind: str) -> list[str]:
    """Says of each host where the bridge or the pool started again and again: each process has its own name, HOST:PID."""
    starts: dict[str, int] = {}
    for key, status in state.reported.items():
        part, _, name = key.partition(":")
        if part == kind and 0 <= state.now_ms - status.get("started_ms", 0) <= RESTARTS_MS:
            host = name.rpartition(":")[0]
            starts[host] = starts.get(host, 0) + 1
    return [f"started {count} times in a minute on {host}" for host, count in starts.items() if count >= RESTARTS]


def is_late(state: RegionState) -> str:
    """Why a region is late just now, "" if it is not. It is a fault only if it lasts."""
    for pool in living(state, "workers"):
        age, most = pool.get("oldest_seconds", 0.0), pool.get("target_seconds", 0.0)
        if age > most > 0:
            return f"its oldest task waits for {age:.1f} s, {most:g} s are its target"
    return ""


def is_idle(state: RegionState, queued: Queued | None) -> str:
    """Why its bridges seem to get nothing just now, "" if they do not. It is a fault only if it lasts."""
    consuming = [bridge for bridge in living(state, "bridge") if bridge.get("state") == "consuming"]
    if queued is None or not queued.ready or not consuming or any(bridge.get("unacked") for bridge in consuming):
        return ""
    return f"its bridge gets nothing: {queued.ready} messages are ready in RabbitMQ"


def living(state: RegionState, kind: str) -> list[dict[str, Any]]:
    """The last status of each living bridge (``bridge``) or pool (``workers``), with its name and the age of the status."""
    return [
        {"name": key.partition(":")[2], "age_seconds": round((state.now_ms - status["at_ms"]) / 1000, 1), **status}
        for key, status in sorted(state.reported.items())
        if key.startswith(f"{kind}:") and -AHEAD_MS <= state.now_ms - status["at_ms"] <= SILENT_MS
    ]


class Book:
    """The faults that fire now. Only one thread may call it."""

    def __init__(self) -> None:
        self._kept: dict[Found, tuple[int, Fault]] = {}  # by what was found, without its message: since when (ms)
        self.faults: tuple[Fault, ...] = ()

    def see(self, now_ms: int, found: Iterable[Found]) -> tuple[list[Fault], list[Fault]]:
        """Takes what is found now. Returns (the faults that are new, those that are over)."""
        before, after = self._kept, dict[Found, tuple[int, Fault]]()
        for one in without_consequences(found):
            key = one._replace(message="")
            since_ms, _ = before.get(key, (now_ms, None))
            after.setdefault(key, (since_ms, _fault(one, since_ms)))
        self._kept = after
        faults = [fault for _, fault in after.values()]
        self.faults = tuple(
            sorted(faults, key=lambda one: (one.severity != "page", one.since, one.name, one.region or ""))
        )
        ended = [fault for key, (_, fault) in before.items() if key not in after]
        return [fault for key, (_, fault) in after.items() if key not in before], ended


def without_consequences(found: Iterable[Found]) -> list[Found]:
    """Without the faults of regions that another one of these explains."""
    faults = list(found)
    is_broker_away = any(one.name == "rabbitmq-away" for one in faults)
    barred = {one.region for one in faults if one.name == "region-barred"}
    return [
        one
        for one in faults
        if not (is_broker_away and one.name == "region-rabbitmq-away")
        and not (one.region in barred and one.name in SILENT)  # what it reports is not let in
    ]


def _fault(one: Found, since_ms: int) -> Fault:
    kind = KINDS[one.name]
    words = {"region": one.region or "", "source": one.source or ""}
    part = one.part or kind.part.format(**words)
    return Fault(
        name=one.name,
        severity=kind.severity,
        region=one.region,
        source=one.source,
        part=part or None,
        since=rfc3339(since_ms),
        message=one.message,
        cost=kind.cost,
        mend=kind.mend.format(**words),
        runbook=f"{RUNBOOKS}#{one.name}",
    )
