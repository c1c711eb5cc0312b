"""Checks of this machine and this checkout: versions, limits of the kernel, free disks, and the lines for cron."""

import os
import platform
import re
import resource
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from regions.process import may_raise_priority
from regions.settings import ROOT, Region, Settings
from scripts.checks.finding import Finding
from scripts.checks.redis_server import disk, is_here
from scripts.terminal import counted
from web.http.server import BACKLOG, RESERVED_FILES

PYTHON_FLOOR: Final = (3, 11)
WORKER_FILES: Final = 512  # a worker process of 64 threads: sockets to sites, to two Redis, files
CRON: Final = Path("/etc/cron.d")
PROC: Final = Path("/proc")
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$")
_ENSURE: Final = re.compile(r"^[^#]*\bbridges\s+ensure\b")
_NAMES: Final = re.compile(r"[A-Za-z0-9_-]+")  # of files that cron reads, by run-parts(8)


def versions(requirements: Path = ROOT / "requirements.txt") -> Iterator[Finding]:
    """Python, and the packages of this process against those that the checkout names."""
    here = f"{platform.node()}, {sys.prefix}"
    common: dict[str, Any] = {"check": "version", "what": "Python", "where": here}
    if sys.version_info[:2] < PYTHON_FLOOR:
        yield Finding(
            severity="wrong",
            expected="Python 3.11 or later",
            found=platform.python_version(),
            cost="parts do not start",
            mend="make the virtual environment with a later Python",
            **common,
        )
    else:
        yield Finding(severity="fine", note=f"Python {platform.python_version()}", **common)
    common["what"] = "packages"
    pip = shlex.quote(f"{sys.prefix}/bin/pip")
    lines = requirements.read_text(encoding="utf-8").splitlines()
    wanted = [(pinned[1], pinned[2]) for line in lines if (pinned := _PINNED.match(line.strip()))]
    differing = [(name, version, there) for name, version in wanted if (there := _installed(name)) != version]
    for name, version, there in differing:
        yield Finding(
            severity="wrong" if there == "none" else "better",
            expected=f"{name} {version}",
            found=there,
            cost="a part may not start, or behave as nobody has tried",
            mend=f"{pip} install -r {shlex.quote(str(requirements))}; then restart the parts",
            **common,
        )
    if not differing:
        yield Finding(severity="fine", note=f"{counted(len(wanted), 'package')} as in {requirements.name}", **common)


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def limits(settings: Settings, *, has_gateway: bool, has_redis: bool, has_workers: bool) -> Iterator[Finding]:
    """Limits of this process, which its parts would have, too, and of the kernel."""
    common: dict[str, Any] = {"check": "limit", "what": "this host", "where": platform.node()}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = settings.gateway.connections_max + RESERVED_FILES if has_gateway else WORKER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        cost = (
            f"a gateway that is started like this command holds {max(hard - RESERVED_FILES, hard // 2):,} clients, of {settings.gateway.connections_max:,}"
            if has_gateway
            else "workers can't connect to as many sites as they have threads"
        )
        severity: Any = "better" if has_gateway and hard > WORKER_FILES else "wrong"
        yield Finding(
            severity=severity,
            expected=f"{wanted:,} open files",
            found=f"{hard:,}",
            cost=cost,
            mend=f"LimitNOFILE={wanted} in the unit of systemd, or a line in /etc/security/limits.conf",
            **common,
        )
    else:
        yield Finding(severity="fine", note="open files: enough", **common)
    backlog = _number(PROC / "sys/net/core/somaxconn")
    if has_gateway and backlog is not None and backlog < BACKLOG:
        yield Finding(
            severity="better",
            expected=f"net.core.somaxconn {BACKLOG}",
            found=str(backlog),
            cost="clients that connect at the same moment wait a second",
            mend=f"sysctl -w net.core.somaxconn={BACKLOG}, and a line in /etc/sysctl.d",
            **common,
        )
    overcommit = _number(PROC / "sys/vm/overcommit_memory")
    if has_redis and overcommit is not None and overcommit != 1:
        yield Finding(
            severity="better",
            expected="vm.overcommit_memory 1",
            found=str(overcommit),
            cost="a Redis here may fail to rewrite its file when memory is short",
            mend="sysctl -w vm.overcommit_memory=1, and a line in /etc/sysctl.d",
            **common,
        )
    if has_workers and not os.getpriority(os.PRIO_PROCESS, 0) and not may_raise_priority():
        yield Finding(
            severity="better",
            expected="the right to get back the nice value 0 (RLIMIT_NICE 20)",
            found="none",
            cost="after the first synchronous call, worker processes keep the nice value 15 until they are replaced; bulk costs about a tenth more CPU",
            mend="LimitNICE=+0 in the unit of systemd, or a line for nice in /etc/security/limits.conf",
            **common,
        )


def disks(settings: Settings, regions: Iterable[Region], data: Path | None) -> Iterator[Finding]:
    """The free space of our parts' folders on this machine. Folders of servers are checked together with the servers."""
    folders: dict[Path, tuple[str, int]] = {}
    if data is not None:
        folders[data] = ("data folder", 0)
    for region in regions:
        if region.raw.path:
            folders[Path(region.raw.path)] = (
                f"raw answers of {region.name}",
                0 if data is not None else region.raw.bytes_max,
            )
    if settings.bridges.folder is not None:
        folders[settings.bridges.folder] = ("bridges' folder", 0)
    seen = set()
    for folder, (what, needed) in folders.items():
        there = next((one for one in (folder, *folder.parents) if one.is_dir()), None)
        if there is None or (device := there.stat().st_dev) in seen:
            continue
        seen.add(device)
        yield disk(there, what, needed, "parts write no logs, heartbeats and raw answers, and servers refuse writes")


def cron(settings: Settings, folder: Path = CRON) -> Iterator[Finding]:
    """Whether cron looks after this host's bridges, by the files of /etc/cron.d. A user's own crontab can't be seen."""
    common: dict[str, Any] = {"check": "cron", "what": "bridges", "where": str(folder)}
    copy = f"cp {ROOT}/scripts/cron/nearfetch.crontab /etc/cron.d/nearfetch, and set the user and the paths in it: docs/operations.md, Run bridges from cron"
    cost = "a bridge that hangs is not noticed: its region takes no tasks until somebody looks"
    if not settings.bridges.path:
        yield Finding(
            severity="better",
            expected="bridges.path",
            found="none",
            cost=cost,
            mend='[bridges] path = "/run/nearfetch" in the settings; then the lines for cron',
            **common,
        )
        return
    try:
        files = [
            (file, file.read_text(encoding="utf-8", errors="replace"))
            for file in sorted(folder.iterdir())
            if file.is_file()
        ]
    except OSError as error:
        yield Finding(severity="unseen", note=f"the lines for cron: {error}", **common)
        return
    ours = [(file, text) for file, text in files if any(_ENSURE.match(line) for line in text.splitlines())]
    if not ours:
        yield Finding(
            severity="better",
            expected="a line with nearfetch bridges ensure",
            found="none (a user's crontab is not looked at)",
            cost=cost,
            mend=copy,
            **common,
        )
    for file, text in ours:
        found = list(_wrong_in_crontab(file, text))
        common["where"] = str(file)
        for expected, shown, mend in found:
            yield Finding(severity="wrong", expected=expected, found=shown, cost=cost, mend=mend, **common)
        if not found:
            yield Finding(severity="fine", note="cron looks after them", **common)


def _wrong_in_crontab(file: Path, text: str) -> Iterator[tuple[str, str, str]]:
    """Why cron(8) would not run a file's lines, or they could do nothing: expected, found, mend."""
    here = shlex.quote(str(file))
    if not _NAMES.fullmatch(file.name):
        yield (
            "a name of letters, digits, _ and -",
            f"{file.name}, which cron leaves out",
            f"mv {here} {shlex.quote(str(file.with_name('nearfetch')))}",
        )
    status = file.stat()
    if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield (
            "a file of root that nobody else may write",
            f"owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}: cron leaves it out",
            f"chown root {here}; chmod 644 {here}",
        )
    if not text.endswith("\n"):
        yield "an end of line behind the last line", "none: cron leaves the file out", f"echo >> {here}"
    for name in ("NEARFETCH", "NEARFETCH_CONFIG"):
        named = re.search(rf"^{name}=(.+)$", text, re.MULTILINE)
        path = Path(named[1].strip().strip("\"'")) if named else None
        if path is not None and not (os.access(path, os.X_OK) if name == "NEARFETCH" else path.is_file()):
            yield f"{name} to name a file that is there", str(path), f"correct {name} in {here}"


def has_server(settings: Settings, regions: Iterable[Region]) -> bool:
    """Whether a Redis of the settings runs on this machine."""
    return any(is_here(url, "redis") for url in (settings.hub.redis, *(region.redis.url for region in regions)))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
