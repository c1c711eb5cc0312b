"""The start of a stack. Parts start as early as they can, and each is reported when it is ready.

servers ─ the port mapper, then RabbitMQ (the slowest) beside every Redis, the document store and the site
regions ─ dashboards and workers as soon as every Redis is ready, bridges together with the gateway
entry   ─ the gateway once RabbitMQ is ready; it says itself when it is. A region is ready when the gateway sees it ``up``.
          Then the process that calls webhooks
"""

import subprocess
import threading
import time
from typing import Any, Final

from regions import connect
from regions.settings import Settings
from scripts.stack.configuration import Ports, hub_url
from scripts.stack.data_folder import DataFolder
from scripts.stack.gateway_client import GatewayClient, NoGateway, Refused
from scripts.stack.parts import Stack
from scripts.stack.probes import Probe, answers
from scripts.stack.services import Failed
from scripts.stack.supervision import State, Supervisor
from scripts.terminal import Progress
from web.hub import keys
from web.hub.region import REFUSED

READY_SECONDS: Final = 180.0
DEATHS_MAX: Final = 3  # a part that dies this often during the start is given up
SAID: Final = {"bridge": "bridges", "workers": "workers"}  # part → the key of /v1/regions with its reports
POLL_SECONDS: Final = 0.05
# Between two looks at how the parts do: each costs the supervisor as much as a probe costs a part.
LOOK_SECONDS: Final = 0.5


class Ending:
    """Whether the user asked to stop. A plain flag, since a signal handler must not take a lock."""

    requested = False

    def request(self, *_signal: object) -> None:
        """Asks to stop."""
        self.requested = True


class NotReady(RuntimeError):  # noqa: N818
    """A part did not start, or was not ready in time; ``part`` names its log."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


class Startup:
    """One start: which parts run, which are ready, and how often each died."""

    def __init__(
        self,
        data: DataFolder,
        supervisor: Supervisor,
        stack: Stack,
        wanted: Settings,
        ports: Ports,
        progress: Progress,
        ended: Ending,
    ) -> None:
        self.data, self.supervisor, self.stack, self.progress, self.ended = data, supervisor, stack, progress, ended
        self.wanted, self.ports = wanted, ports
        self.parts = {part.name: part for part in stack.parts}
        self.began = time.monotonic()
        self.starts: dict[str, set[int]] = {}
        self._looked = float("-inf")

    def run(self) -> None:
        """Starts everything. Raises ``NotReady``."""
        regions = list(self.wanted.region)
        redis = ["hub", *(f"redis-{name}" for name in regions)]
        self.start("epmd", *redis, *self._there("wan"))
        self.wait("epmd", self.parts["epmd"].not_ready)
        self.start("rabbitmq", "store", *self._there("site"))
        for name in redis:
            self.wait(name, self.parts[name].not_ready)
        self.done(f"central Redis, {len(regions)} regions' Redis")
        if self.wanted.gateway.keys:
            self._make_key()
        if "wan" in self.parts:  # the regions' parts reach the hub through them only
            self.wait("wan", self.parts["wan"].not_ready)
            self.done("links between hub and regions")
        self.start(*(f"workers-{name}" for name in regions), *self._there(*(f"dashboard-{name}" for name in regions)))
        self.wait("rabbitmq", self.parts["rabbitmq"].not_ready)
        self.start("gateway", *(f"bridge-{name}" for name in regions))
        self.done(f"{'RabbitMQ':<19} 127.0.0.1:{self.ports.broker}")
        if "site" in self.parts:
            self.wait("site", self.parts["site"].not_ready)
            self.done(f"{'sample site':<19} 127.0.0.1:{self.ports.site}")
        self.wait("store", self.parts["store"].not_ready)
        self.done(f"{'document store':<19} 127.0.0.1:{self.ports.store}")
        self.wait("gateway", self.parts["gateway"].not_ready)
        self.regions(regions)
        # The queues are declared by now, since the bridges consume.
        keeping = threading.Thread(target=self._keep_queues)
        keeping.start()
        self.wait("gateway", answers(self.ports.gateway, "/readyz"))
        self.start(*self._there("webhooks"))  # its start must not delay the gateway's
        for name in self._there("webhooks"):
            self.wait(name, self.parts[name].not_ready)
        keeping.join()
        self.done(f"{'gateway':<19} 127.0.0.1:{self.ports.gateway}")

    def more(self, names: list[str]) -> None:
        """Starts the parts of regions that were added to a stack that runs. Raises ``NotReady``."""
        redis = [f"redis-{name}" for name in names]
        self.start(*redis)
        for name in redis:
            self.wait(name, self.parts[name].not_ready)
        for kind in ("workers", "dashboard", "bridge"):
            self.start(*self._there(*(f"{kind}-{name}" for name in names)))
        self.regions(names)
        self._keep_queues()

    def regions(self, names: list[str]) -> None:
        """Waits until the gateway sees every region up and its dashboard answers. Reports each region as it gets ready."""
        left = list(names)
        while left:
            views = self._views()
            reasons = {name: self._away(name, views.get(name)) for name in left}
            for name, reason in reasons.items():
                if not reason:
                    region = self.wanted.region[name]
                    workers = f"{region.scale.min} \u00d7 {region.workers.threads} workers"
                    parts = ["Redis", "bridge", workers, *("dashboard" for _ in self._there(f"dashboard-{name}"))]
                    self.done(f"{name}  {', '.join(parts)}")
                    left.remove(name)
            if left:
                self._beat(f"{reasons[left[0]].split()[0].rstrip(':')}-{left[0]}", f"{left[0]}: {reasons[left[0]]}")

    def _away(self, name: str, view: dict[str, Any] | None) -> str:
        """What a region still lacks, beginning with the part's name. Reports from before this start are ignored."""
        if view is None:
            return "bridge: the gateway does not know the region yet"
        lived = time.monotonic() - self.began
        fresh = {part: [one for one in view[key] if one["age_seconds"] < lived] for part, key in SAID.items()}
        for part, said in fresh.items():
            if not said:
                return f"{part} has not reported anything yet"
        # Entries may have been refused before this start.
        away = [reason for reason in view["reasons"] if not reason.startswith(REFUSED)]
        if away or not any(bridge["state"] == "consuming" for bridge in fresh["bridge"]):
            return f"bridge: {', '.join(away) or fresh['bridge'][0]['reason']}"
        (reason,) = [self.parts[part].not_ready() for part in self._there(f"dashboard-{name}")] or [None]
        return f"dashboard: {reason}" if reason else ""

    def _make_key(self) -> None:
        """Makes a key for the commands on this machine, unless the folder has one that the hub knows."""
        with connect.open_redis(hub_url(self.data, self.ports), name="up", connections=1) as client:
            parts = keys.parts_of(self.data.key)
            if parts is None or parts[0] not in keys.read(client):
                secret = keys.new_secret()
                key = keys.Key(
                    id=keys.new_id(),
                    name="scripts-up",
                    tenant="local",
                    scopes=keys.SCOPES,
                    digest=keys.digest_of(secret),
                    created_ms=connect.redis_now_ms(client),
                )
                keys.write(client, [key])
                self.data.write("key", f"{keys.text_of(key.id, secret)}\n")

    def _there(self, *names: str) -> list[str]:
        """Those of these parts that this stack has: not each has a site, or dashboards."""
        return [name for name in names if name in self.parts]

    def start(self, *names: str) -> None:
        """Starts these parts."""
        for name in names:
            self.supervisor.start_part(self.parts[name])

    def done(self, text: str) -> None:
        """Reports that something is ready."""
        self.progress.done(text, time.monotonic() - self.began)

    def wait(self, name: str, not_ready: Probe) -> None:
        """Waits until a part's probe says that it is ready."""
        while (reason := not_ready()) is not None:
            self._beat(name, f"{name}: {reason}")

    def _keep_queues(self) -> None:
        try:
            self.stack.broker.keep_queues()
        except (Failed, OSError, subprocess.TimeoutExpired) as error:
            self.progress.line(f"  --  RabbitMQ has not written its queues to disk yet: {error}")

    def _beat(self, name: str, reason: str) -> None:
        """Between two probes: raises ``NotReady`` on a request to stop, a part that keeps dying, or a time-out; then waits."""
        if self.ended.requested:
            raise NotReady(name, "Stopped before everything was ready.")
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            for part, state in (self.supervisor.states() or {}).items():
                self._look(part, state)
        if time.monotonic() - self.began > READY_SECONDS:
            raise NotReady(name, f"{name} is not ready after {READY_SECONDS:.0f} s: {reason}")
        self.progress.waiting(f"starting {name}   {time.monotonic() - self.began:.0f} s")
        time.sleep(POLL_SECONDS)

    def _look(self, part: str, state: State) -> None:
        seen = self.starts.setdefault(part, set())
        if state.started:
            seen.add(state.started)
        deaths = len(seen) - bool(state.pid)
        if deaths >= DEATHS_MAX:
            raise NotReady(part, f"{part} does not start: it {state.how}, {deaths} times.")

    def _views(self) -> dict[str, dict[str, Any]]:
        """The regions as the gateway sees them; none while it does not answer."""
        try:
            answer = GatewayClient(f"http://127.0.0.1:{self.ports.gateway}", self.data.key).get("/v1/regions")
        except (NoGateway, Refused):
            return {}
        return {region["name"]: region for region in answer["regions"]}
