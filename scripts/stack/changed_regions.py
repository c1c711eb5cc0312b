"""Takes regions that were added or removed into a stack that runs: ``scripts/up`` on its data folder once more.

added    their settings → users at the hub's Redis and at RabbitMQ → parts at the supervisor → start, as at any start
removed  their settings → the gateway has no need of them any more → their parts stop → their users go

The gateway notices the settings' files by itself (web.flow.served). Everything else of the stack goes on, with the settings of
its start. If a step fails, the steps before it are undone.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

import redis
from msgspec import structs

from regions import connect, names, settings
from regions.settings import Settings
from scripts.stack import configuration, parts, summary
from scripts.stack.configuration import Ports
from scripts.stack.data_folder import DataFolder
from scripts.stack.gateway_client import GatewayClient, NoGateway
from scripts.stack.gateway_client import Refused as NotAnswered
from scripts.stack.parts import Stack
from scripts.stack.services import Failed, RabbitMQ, last_lines
from scripts.stack.startup import Ending, NotReady, Startup
from scripts.stack.supervision import GONE, Supervisor
from scripts.terminal import Progress

LEAVE_SECONDS: Final = 60.0  # until the gateway has let go of a region that nothing needs; it looks once a second
POLL_SECONDS: Final = 0.1
IN_THE_WAY: Final = (NoGateway, NotAnswered, NotReady, Failed, redis.exceptions.RedisError, OSError, *GONE)


class CanNot(RuntimeError):  # noqa: N818
    """The regions stay as they were. The message says why."""


class ChangedRegions:
    """The difference between the regions of a stack that runs and those that are ``wanted``."""

    def __init__(self, data: DataFolder, wanted: Settings, environ: Mapping[str, str]) -> None:
        self.data, self.wanted, self.environ = data, wanted, environ
        self.supervisor = Supervisor(data)
        running = {file.stem for file in data.regions.glob("*.toml")}
        self.added = [name for name in wanted.region if running and name not in running]
        self.removed = sorted(running - wanted.region.keys())
        if self:
            before = settings.load({"NEARFETCH_CONFIG": str(data.settings)})
            regions = {name: before.region.get(name, region) for name, region in wanted.region.items()}
            self.wanted = structs.replace(before, region=regions)

    def __bool__(self) -> bool:
        """Whether there is a difference."""
        return bool(self.added or self.removed)

    def take(self, progress: Progress, ended: Ending) -> None:
        """Makes the stack's regions those that are wanted. Raises ``CanNot``."""
        client = GatewayClient(self.data.url, self.data.key)
        try:
            self._check(client)
            states, gateway = self.supervisor.states(), self.data.kept_port("gateway")
            if gateway is None or not states:
                raise CanNot("The supervisor does not answer.")
            if "wan" in states:
                raise CanNot(
                    "The links of --wan are for the regions of the start. Stop this stack, then start it again."
                )
            self._let_go(client)
            ports = configuration.choose_ports(self.data, self.wanted, gateway, new=self.added)
            stack = parts.build(self.data, self.wanted, ports, self.environ, live="site" not in states, new=self.added)
            if self.removed:
                self._remove(stack.broker, ports, self.removed)
                progress.line(f"Removed {', '.join(self.removed)}. What its Redis held stays in {self.data.path}.")
            if self.added:
                self._add(stack, ports, progress, ended)
                sources = client.get("/v1/sources")["sources"]
                progress.line(f"Added {', '.join(self.added)}. Everything else went on.")
                for line in summary.region_lines(self.data, self.wanted, ports, self.added, sources):
                    progress.line(line)
        except IN_THE_WAY as error:
            raise CanNot(str(error)) from error

    def _check(self, client: GatewayClient) -> None:
        """Refuses to remove a region that a source names, or that has open tasks."""
        faults = []
        views = _served(client)
        sources = client.get("/v1/sources")["sources"]
        for name in self.removed:
            users = [one["id"] for one in sources if name == one["region"] or name in one["standby"]]
            count = views.get(name, {}).get("queue", {}).get("open", 0)
            if users:
                faults.append(f"Region {name} can't go: sources name it: {', '.join(users)}.")
            if count:
                faults.append(f"Region {name} can't go: {count} of its tasks are open.")
        if faults:
            raise CanNot(
                "\n".join([*faults, "Its file is gone. Write it again, or give those sources another region first."])
            )

    def _let_go(self, client: GatewayClient) -> None:
        """Takes the removed regions' files away, and waits until the gateway serves them no more. Else the files come back."""
        files = [self.data.regions / f"{name}.toml" for name in self.removed]
        before = {file.name: file.read_text(encoding="utf-8") for file in files}
        for file in files:
            file.unlink()
        deadline = time.monotonic() + LEAVE_SECONDS
        try:
            while left := {name: view for name, view in _served(client).items() if name in self.removed}:
                if time.monotonic() > deadline:
                    why = [reason for view in left.values() for reason in view["reasons"]]
                    raise CanNot(f"The gateway still needs {', '.join(left)}: {'; '.join(why)}")
                time.sleep(POLL_SECONDS)
        except BaseException:
            for name, text in before.items():
                self.data.write(f"regions/{name}", text)
            raise

    def _remove(self, broker: RabbitMQ, ports: Ports, regions: Collection[str]) -> None:
        for name in regions:
            self.supervisor.remove(parts.of_region(name))
            broker.delete_user(names.hub_user(name))
        with self._hub(ports) as hub:
            hub.acl_deluser(*map(names.hub_user, regions))

    def _hub(self, ports: Ports) -> redis.Redis:
        return connect.open_redis(configuration.hub_url(self.data, ports), name="up", connections=1)

    def _add(self, stack: Stack, ports: Ports, progress: Progress, ended: Ending) -> None:
        own = {name: region for region in self.added for name in parts.of_region(region)}
        groups = self.supervisor.groups()  # also of a region that was removed from this stack before
        added = [
            replace(part, group=groups.get(part.name) or f"{part.stage}-{own[part.name]}")
            for part in stack.parts
            if part.name in own
        ]
        stack = replace(stack, parts=[part for part in stack.parts if part.name not in own] + added)
        startup = Startup(self.data, self.supervisor, stack, self.wanted, ports, progress, ended)
        try:
            with self._hub(ports) as hub:
                hub.acl_load()  # the users that the file has by now; connections of others stay
            stack.broker.take_definitions()
            self.supervisor.add(added)
            startup.more(self.added)
        except (NotReady, Failed, redis.exceptions.RedisError, *GONE) as error:
            for name in self.added:
                (self.data.regions / f"{name}.toml").unlink(missing_ok=True)
            self._remove(stack.broker, ports, self.added)
            shown = last_lines(self.data.log / f"{error.part}.log") if isinstance(error, NotReady) else ""
            raise CanNot("\n".join(filter(None, [str(error), shown, "The regions are as they were."]))) from error


def _served(client: GatewayClient) -> dict[str, dict[str, Any]]:
    return {view["name"]: view for view in client.get("/v1/regions")["regions"]}
