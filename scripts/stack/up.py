"""``scripts/up``, once Python and the packages are installed: runs everything on this machine, from one data folder.

main → up: versions, lock, leftovers, ports → parts.build → Supervisor.start
           (on a stack that runs: versions → ChangedRegions.take, if regions were added or removed)
         → Startup.run: servers → regions → gateway → /readyz and /v1/regions say ``up`` → the table
         → stay (in the foreground): Watch → Supervisor.stop
     → stop (--stop): Supervisor.stop
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from msgspec import structs

from regions import connect, settings
from regions.faults import Faults
from regions.process import Process
from regions.settings import Settings
from scripts.stack import configuration, distance, parts, processes, summary
from scripts.stack.changed_regions import CanNot, ChangedRegions
from scripts.stack.data_folder import DataFolder
from scripts.stack.distance import Distance
from scripts.stack.ports import port_is_free
from scripts.stack.services import RABBITMQ_BIN, Failed, path_with_sbin
from scripts.stack.startup import Ending, NotReady, Startup
from scripts.stack.supervision import NotStarted, Supervisor
from scripts.stack.watch import Watch, signals
from scripts.terminal import Progress

GATEWAY_PORT: Final = 8080
FIRST_SECONDS: Final = 2.0  # when installing took longer, the table says how fast the next start will be


class Refused(RuntimeError):  # noqa: N818
    """Nothing was started. The message says why, and what to do."""


def main(arguments: list[str]) -> int:
    """Starts or stops a stack; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/up", add_help=False)  # scripts/up itself prints the help
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int)
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--stop", action="store_true")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--keys", action="store_true")
    parser.add_argument("--wan", nargs="?", const="")
    options = parser.parse_args(arguments)
    data = DataFolder(options.data)
    if options.stop:
        return stop(data)
    ended = Ending()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended.request)
    try:
        return up(
            data, options.port, ended, detach=options.detach, live=options.live, keys=options.keys, wan=options.wan
        )
    except (Refused, Faults) as refused:
        print(refused, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"The data folder {data.path} can't be used: {error}. Choose another: scripts/up --data DIR",
            file=sys.stderr,
        )
        return 1
    finally:
        data.unlock()


def up(
    data: DataFolder,
    wanted_port: int | None,
    ended: Ending,
    *,
    detach: bool,
    live: bool,
    keys: bool = False,
    wan: str | None = None,
) -> int:
    """Starts everything. Unless detached, stays until ``ended``. ``wan``: how far the regions are, as scripts.stack.distance reads it."""
    if ":" in str(data.path):
        raise Refused(
            f"Expected a data folder without a colon in its path, found {data.path}. Choose another: scripts/up --data DIR"
        )
    began = time.monotonic()
    # scripts/up became this process, so this is the time of the installation.
    before = time.time() - Process.own().started_at
    progress = Progress()
    check_versions()
    wanted = settings.load({key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH__HUB__")})
    if keys:
        wanted = structs.replace(wanted, gateway=structs.replace(wanted.gateway, keys=True))
    distances = None if wan is None else far(wan, list(wanted.region))
    if data.supervisor is not None and data.url and change(data, wanted, progress, ended):
        return 0
    take(data)
    supervisor = Supervisor(data)
    left = supervisor.end_leftovers()
    if left:
        progress.line(f"  --  ended {left} processes that a killed supervisor had left behind")
    data.open()
    ports = configuration.choose_ports(data, wanted, gateway_port(data, wanted_port), distances, live=live)
    stack = parts.build(data, wanted, ports, os.environ, live=live)
    startup = Startup(data, supervisor, stack, wanted, ports, progress, ended)
    try:
        supervisor.start(stack.parts, ends_with_us=not detach)
        startup.run()
    except (NotReady, NotStarted, Failed) as failed:
        supervisor.stop()
        if ended.requested:
            progress.line("Stopped.")
            return 130
        raise Refused(summary.failure(data, failed)) from failed
    data.write("url", f"http://127.0.0.1:{ports.gateway}\n")
    took = time.monotonic() - began
    summary.show(progress, data, wanted, ports, took + before, took if before > FIRST_SECONDS else None, live=live)
    if detach:
        progress.line(f"Everything runs in the background.   {summary.command(data)} --stop ends it")
        return 0
    return stay(data, supervisor, progress, ended)


def stay(data: DataFolder, supervisor: Supervisor, progress: Progress, ended: Ending) -> int:
    """Reports parts that die and start again, until a signal comes; then stops everything."""
    watch = Watch(data, supervisor, progress)  # created before the next line, so that no death after it is missed
    progress.line("Ctrl-C stops everything.")
    with signals() as told:  # before the flag is looked at, so that none is missed
        while not ended.requested:
            watch.wait(told)
            if not watch.run_once():
                left = supervisor.end_leftovers()
                if left:
                    progress.event(f"The supervisor was killed. Ended the {left} processes that it left behind.")
                    return 1
                progress.event("The supervisor ended, and everything else with it.")
                return 0
    progress.line()
    progress.waiting("stopping: gateway, regions, servers")
    supervisor.stop()
    progress.line("Stopped.")
    return 0


def stop(data: DataFolder) -> int:
    """Ends everything that belongs to a data folder."""
    holder = None if data.lock() else data.holder
    if holder is not None:  # an ``up`` in the foreground, or one that is starting, stops everything itself
        for number in (signal.SIGTERM, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder.pid, number)
        deadline = time.monotonic() + 120.0
        while holder.alive and time.monotonic() < deadline:
            time.sleep(0.02)
    running = data.supervisor is not None
    ended = Supervisor(data).stop()
    data.unlock()
    if running or holder is not None:
        print("Stopped.")
    elif ended:
        print(f"Stopped: ended {ended} processes that a killed supervisor had left behind.")
    else:
        print(f"Nothing runs on {data.path}.")
    return 0


def far(wan: str, regions: list[str]) -> dict[str, Distance]:
    """How far each region is from the hub. Raises ``Refused``."""
    try:
        return distance.parse(wan, regions)
    except ValueError as error:
        raise Refused(str(error)) from error


def change(data: DataFolder, wanted: Settings, progress: Progress, ended: Ending) -> bool:
    """Takes regions that were added or removed into a stack that runs; False if there are none. Raises ``Refused``."""
    with data.changing() as is_ours:
        if not is_ours:
            raise Refused("Another scripts/up changes the regions of this stack now.")
        data.open()
        changed = ChangedRegions(data, wanted, os.environ)
        if changed:
            try:
                changed.take(progress, ended)
            except CanNot as reason:
                raise Refused(str(reason)) from reason
        return bool(changed)


def take(data: DataFolder) -> None:
    """Locks the data folder. Raises ``Refused`` when something runs on it."""
    locked = data.lock()
    running = data.supervisor
    if running is not None:
        since = time.strftime("%H:%M", time.localtime(running.started_at))
        raise Refused(
            f"Already running on this data folder since {since} (process {running.pid}): "
            f"{f'{data.url}/' if data.url else 'still starting'}   {summary.command(data)} --stop ends it"
        )
    if not locked:
        holder = data.holder
        who = f"process {holder.pid}" if holder else "another process"
        raise Refused(f"Already starting on this data folder ({who}).   {summary.command(data)} --stop ends it")


def gateway_port(data: DataFolder, wanted: int | None) -> int:
    """The gateway's port: the wanted one, else the kept one, else 8080. Raises ``Refused`` when it is taken."""
    port = wanted or data.kept_port("gateway") or GATEWAY_PORT
    if not 0 < port < 65536:
        raise Refused(f"Expected a port from 1 to 65535, found {port}.")
    if port_is_free(port):
        return port
    other = next((free for free in range(port + 100, 65536, 100) if port_is_free(free)), 8180)
    raise Refused(
        f"Port {port} is in use by {processes.listener(port)}. Choose another: {summary.command(data)} --port {other}"
    )


def check_versions() -> None:
    """Refuses servers that are too old, before anything is started. Raises ``Refused``."""
    found = {
        "Redis": (redis_version(), connect.REDIS_FLOOR, "redis-server"),
        "RabbitMQ": (rabbitmq_version(), connect.RABBITMQ_FLOOR, "rabbitmq-server"),
    }
    faults = [
        f"{name} {version} is too old: expected {'.'.join(map(str, floor))} or later (package {package})."
        for name, (version, floor, package) in found.items()
        if tuple(int(part) for part in version.split(".")[:2]) < floor
    ]
    if faults:
        raise Refused("\n".join([*faults, "Install a newer one (Debian 13 has both), then run this again."]))


def redis_version() -> str:
    """The version of redis-server."""
    environment = {**os.environ, "PATH": path_with_sbin()}
    try:
        done = subprocess.run(
            ["redis-server", "--version"], env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise Refused(
            f"redis-server can't be run: {error}. Install the package redis-server, then run this again."
        ) from error
    match = re.search(r"v=([0-9.]+)", done.stdout)
    if match is None:
        raise Refused(f"redis-server --version expected v=NUMBER, found {done.stdout.strip() or done.stderr.strip()!r}")
    return match[1]


def rabbitmq_version() -> str:
    """The version of rabbitmq-server, from its folder's name; the program itself would take a second."""
    names = [folder.name for folder in (RABBITMQ_BIN.parent / "lib").glob("rabbitmq_server-*")]
    versions = [match[1] for name in names if (match := re.fullmatch(r"rabbitmq_server-([0-9.]+)\S*", name))]
    if not versions:
        raise Refused(
            f"No RabbitMQ below {RABBITMQ_BIN.parent}. Install the package rabbitmq-server, then run this again."
        )
    return versions[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
