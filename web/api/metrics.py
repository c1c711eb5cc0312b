"""``/metrics`` of a gateway: what it did itself, and what it knows of its servers, regions and sources."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from regions import metrics
from regions.metrics import Sample
from web.api.faults import Faults
from web.api.overview import Overview
from web.api.wait import Waiters
from web.flow.clean import Cleaner
from web.flow.dead import DeadLetters
from web.flow.history import History
from web.flow.publish import Publisher
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.problems import Problem
from web.http.server import Server
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.region import RegionState

UP: Final = {"up": 1.0, "degraded": 0.5, "down": 0.0}


class Metrics:
    """Answers scrapes. Nothing is kept for them but counts."""

    def __init__(
        self,
        hub: Hub,
        ledger: Ledger,
        publisher: Publisher,
        cleaner: Cleaner,
        history: History,
        waiters: Waiters,
        overview: Overview,
        faults: Faults,
    ) -> None:
        self._hub, self._ledger, self._publisher, self._cleaner = hub, ledger, publisher, cleaner
        self._history, self._waiters, self._overview, self._faults = history, waiters, overview, faults
        self._dead = DeadLetters(hub.client)
        self.server: Server | None = None  # once there is one

    def answer(self, exchange: Exchange) -> Answer:
        """``GET /metrics``. With keys, only for an admin: the figures are those of all tenants."""
        if not exchange.owner.sees_all:
            raise Problem("forbidden", "expected a key with the scope admin")
        kind, text = metrics.text(self.samples(), exchange.header("Accept"))
        return Answer(200, text, [("Content-Type", kind), ("Cache-Control", "no-store")])

    def samples(self) -> Iterator[Sample]:
        """What it did, what it has, what it knows."""
        yield from self._ledger.tally.samples()
        yield from self._publisher.samples()
        yield from self._own()
        yield from self._servers()
        regions, sources = self._overview.known()
        for state, view in regions:
            yield from self._region(state, view)
        for fault in self._faults.now:
            place = (fault.region or "", fault.source or "", fault.part or "")
            yield "nearfetch_fault", (fault.name, fault.severity, *place), 1
        for view in sources:
            yield "nearfetch_source_health", (view["id"], view["region"], view["health"]), 1

    def _own(self) -> Iterator[Sample]:
        yield "nearfetch_waiting_clients", (), len(self._waiters)
        yield "nearfetch_clean_up_tasks", (), self._cleaner.kept
        server = self.server
        if server is None:
            return
        for labels, cells in server.outlet.calls.counts():
            yield "nearfetch_http_request_seconds", labels, cells
        yield "nearfetch_connections", (), len(server.connections)
        yield "nearfetch_connections_max", (), server.connections_max
        for direction, quota in (("receiving", server.receiving), ("sending", server.outlet.quota)):
            yield "nearfetch_held_bytes", (direction,), quota.held

    def _servers(self) -> Iterator[Sample]:
        used, expected, limit = self._hub.memory
        yield "nearfetch_hub_redis_up", (), int(self._hub.state is None)
        if used:  # else it was never reached
            yield "nearfetch_hub_redis_used_bytes", (), used
            yield "nearfetch_hub_redis_expected_bytes", (), expected
            yield "nearfetch_hub_redis_max_bytes", (), limit
        with contextlib.suppress(HubUnavailable), self._hub.asking():
            yield "nearfetch_dead_letters", (), self._dead.count()
        if self._history.is_on:
            yield "nearfetch_history_up", (), int(self._history.state == "ok")

    def _region(self, state: RegionState, view: Mapping[str, Any]) -> Iterator[Sample]:
        region = (state.name,)
        queue, bridges, pools = view["queue"], view["bridges"], view["workers"]

        def one(name: str, number: float) -> Sample:
            return f"nearfetch_region_{name}", region, number

        yield one("up", UP[view["status"]])
        yield one("open_tasks", queue["open"])
        yield one("oldest_task_seconds", queue["oldest_seconds"] or 0)
        yield one("unread_entries", queue["unread"])
        yield one("held_bytes", state.held_bytes)
        yield one("held_max_bytes", self._hub.region_bytes_max)
        yield one("taken_over", int(bool(view["takeover"])))
        yield one("barred", int(bool(state.barred)))
        yield one("pools", len(pools))
        yield one("processes", sum(pool.get("processes", 0) for pool in pools))
        yield one("threads", sum(pool.get("threads", 0) for pool in pools))
        yield one("running_tasks", queue["running"])
        for name, key in (("waiting_jobs", "waiting"), ("outbox_bytes", "outbox_bytes")):  # of the region, at each pool
            if pools:
                yield one(name, max(pool.get(key, 0) for pool in pools))
        for name, key in (("redis_used_bytes", "redis_used"), ("redis_max_bytes", "redis_max")):
            if bridges:
                yield one(name, max(bridge.get(key, 0) for bridge in bridges))
        for word in ("consuming", "paused", "starting"):
            count = sum(bridge.get("state") == word for bridge in bridges)
            yield "nearfetch_region_bridges", (state.name, word), count
        if (scale := view["scale"]) is not None:
            for bound, key in (("wanted", "number"), ("needed", "needed"), ("min", "min"), ("max", "max")):
                yield "nearfetch_region_scale_processes", (state.name, bound), scale[key]
