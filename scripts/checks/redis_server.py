"""What one Redis shows: connection, version, settings, rights of our user, and its room in memory and on the disk."""

import ipaddress
import shlex
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import redis

from jobs import result_frame
from jobs.queue.claim import CLAIM
from regions import connect, durability, hosts, names
from regions.script import send, value
from regions.settings import Region, Settings
from scripts.checks.clocks import Clocks
from scripts.checks.finding import Finding
from scripts.stack.services import hub_write_bytes
from scripts.terminal import size
from web.hub.scripts import REFUSE, SETTLE

# What a setting that falls short costs, by its name.
COSTS: Final = {
    "appendonly": "a restart forgets what a 202 promised; a part refuses to start",
    "appendfsync": "nobody knows when a write is on the disk; a part refuses to start",
    "io-threads": "it answers before it writes, and forgets the write when it is killed; a part refuses to start",
    "no-appendfsync-on-rewrite": "writes are not synced for as long as a rewrite of its file lasts; a part refuses to start",
    "maxmemory": "the kernel kills it when memory is short, instead of refusing clients; a part refuses to start",
    "maxmemory-policy": "it drops keys that were promised, when its memory is full; a part refuses to start",
    "cluster-enabled": "scripts write keys of several nodes, and are refused; a part refuses to start",
}
# Settings that save work or memory: (setting, value, whether the hub, whether regions, what it costs without).
BETTER: Final = (
    ("stream-node-max-bytes", "512", True, True, "a request takes 3.6 kB more memory, and so does a failed job"),
    ("hash-max-listpack-value", "2048", True, True, "a region's Redis works a tenth more for each task"),
    ("rdbcompression", "no", True, True, "a rewrite of its file compresses again what is compressed"),
)
# Settings of the hub's Redis that bound what a region can write at once, and what it costs if they are larger than they need be.
WRITE_BOUNDS: Final = {
    "proto-max-bulk-len": "a region that is hostile can write a value of {size}, which a gateway reads whole",
    "client-query-buffer-limit": "each connection of a region that is hostile can take {size} of its memory",
}
AWAY_COSTS: Final = {
    True: "every call but the catalogue is answered 503; regions keep their results",
    False: "its tasks wait in RabbitMQ, and expire at their deadlines",
}
ROOM: Final = 0.85  # of maxmemory; above it gateways answer 503, and from 90 % on bridges take nothing
CLIENTS: Final = 0.8  # of maxclients
DISK_WRONG, DISK_BETTER = 200_000_000, 1_000_000_000  # bytes that are free
# What our own user calls, beside reads and writes: of gateways at the hub's Redis, of bridges and workers at their region's.
RIGHTS: Final[dict[bool, tuple[tuple[str, ...], ...]]] = {
    True: (
        ("INFO",), ("CONFIG", "GET", "maxmemory"), ("TIME",), ("WAITAOF", "1", "0", "0"), ("EVALSHA", SETTLE.sha, "0"), ("SCRIPT", "LOAD", "return 1"),
        ("HSET", names.ledger("REQUEST"), "k", "v"), ("XREADGROUP", "GROUP", names.GATEWAYS, "x", "STREAMS", names.out_stream("x"), ">"),
        ("XGROUP", "CREATE", names.out_stream("x"), names.GATEWAYS, "0"), ("PUBLISH", names.WAKE, "x"), ("SUBSCRIBE", names.WAKE),
        ("SCAN", "0"), ("CLIENT", "LIST"), ("CLIENT", "KILL", "USER", "x"), ("ACL", "GETUSER", "x"), ("ACL", "SETUSER", "x"),
    ),
    False: (
        ("INFO",), ("CONFIG", "GET", "maxmemory"), ("CONFIG", "SET", "appendfsync", "everysec"), ("TIME",), ("WAITAOF", "1", "0", "0"),
        ("EVALSHA", CLAIM.sha, "0"), ("SCRIPT", "LOAD", "return 1"), ("HSET", names.rq_job("TASK"), "k", "v"), ("XADD", names.OUTBOX, "*", "k", "v"),
        ("BLMOVE", names.rq_queue("x"), names.rq_queue("x"), "LEFT", "LEFT", "1"), ("PUBLISH", "rq:pubsub:x", "x"), ("SUBSCRIBE", "rq:pubsub:x"),
    ),
}  # fmt: skip


def region_of(settings: Settings) -> str:
    """The region whose own user the settings have at the hub: this host is that region's. Empty at the hub."""
    user = str(redis.connection.parse_url(hosts.split(settings.hub.redis, "redis")[0]).get("username") or "")  # type: ignore[no-untyped-call]
    return next((name for name in settings.region if user == names.hub_user(name)), "")


def command(url: str) -> str:
    """redis-cli for a server, without its password, which it asks for."""
    one = redis.connection.parse_url(hosts.split(url, "redis")[0])  # type: ignore[no-untyped-call]
    words = ["redis-cli", "-h", str(one.get("host", "127.0.0.1")), "-p", str(one.get("port", 6379))]
    words += ["--tls"] if url.startswith("rediss:") else []
    words += ["--user", str(one["username"])] if one.get("username") else []
    return shlex.join([*words, *(["--askpass"] if one.get("password") else [])])


def is_here(url: str, kind: hosts.Kind) -> bool:
    """Whether a server runs on this machine, by its address."""
    host = _host(hosts.split(url, kind)[0])
    try:
        found = {one[4][0] for one in socket.getaddrinfo(host, None)}
        own = {one[4][0] for one in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return False
    return any(ipaddress.ip_address(str(one).partition("%")[0]).is_loopback or one in own for one in found)


def _host(url: str) -> str:
    authority = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return authority.rpartition(":")[0].strip("[]") if authority.rpartition(":")[2].isdigit() else authority.strip("[]")


def redis_seen(
    what: str, url: str, kind: str, clocks: Clocks, *, is_hub: bool, records_bytes_max: int = 0
) -> Iterator[Finding]:
    """All that one Redis shows; its clock goes into ``clocks``. ``kind``: its ``durability``.

    ``records_bytes_max``: of ``[limits]``, for the hub's. A region's user at the hub's Redis sees its clock alone.
    """
    where, cli = connect.without_password(url), command(url)
    common = {"what": what, "where": where}
    try:
        with connect.open_redis(url, name="check", connections=1) as client:
            client.ping()
            yield from _timed(client, common, clocks)
            yield from _looked(client, common, cli, kind, is_hub=is_hub, is_near=is_here(url, "redis"))
            if is_hub:
                yield from _write_bounds(client, common, cli, records_bytes_max)
    except redis.exceptions.NoPermissionError as error:
        yield Finding(check="setting", severity="unseen", note=f"not shown to this user: {error}", **common)
    except redis.exceptions.AuthenticationError as error:
        yield Finding(
            check="permission",
            severity="wrong",
            expected="its user and password to be taken",
            found=str(error),
            cost=AWAY_COSTS[is_hub],
            mend="correct the URL in the settings, or the user: ACL SETUSER",
            **common,
        )
    except (*connect.AWAY, redis.exceptions.RedisError, ValueError) as error:
        yield Finding(
            check="connection",
            severity="wrong",
            expected="an answer",
            found=str(error),
            cost=AWAY_COSTS[is_hub],
            mend="start it again, with its files; or correct its address in the settings",
            **common,
        )


def _timed(client: redis.Redis, common: dict[str, str], clocks: Clocks) -> Iterator[Finding]:
    """That it answers, and how far its host's clock is from this one's. The round trip is the error."""
    asked = time.time()
    there_ms = connect.redis_now_ms(client)
    answered = time.time()
    took_ms = (answered - asked) * 1000
    clocks.note(common["what"], common["where"], there_ms - (asked + answered) * 500, took_ms / 2 + 1)
    yield Finding(check="connection", severity="fine", note=f"answers in {took_ms:.1f} ms", **common)


def _looked(
    client: redis.Redis, common: dict[str, str], cli: str, kind: str, *, is_hub: bool, is_near: bool
) -> Iterator[Finding]:
    try:
        connect.check_redis(client, "it")
    except connect.TooOld as error:
        yield Finding(
            check="version", severity="wrong", found=str(error), cost="scripts are refused", mend="upgrade it", **common
        )
        return
    shown: Any = client.info()
    yield Finding(check="version", severity="fine", note=f"Redis {shown['redis_version']}", **common)
    found = durability.look(client)
    for fall in found.shortfalls:
        mend, _, remark = fall.mend.partition(", ")
        if mend.startswith("CONFIG"):
            mend = f"{cli} {mend}; and in its redis.conf"
        mend = f"{mend} ({remark})" if remark else mend
        if kind == "relaxed":
            yield Finding(
                check="setting",
                severity="better",
                expected=f"{fall.setting} {fall.expected}",
                found=fall.found,
                cost=f"{COSTS[fall.setting].rpartition(';')[0]} (durability is relaxed)",
                mend=mend,
                **common,
            )
        else:
            yield Finding(
                check="setting",
                severity="wrong",
                expected=f"{fall.setting} {fall.expected}",
                found=fall.found,
                cost=COSTS[fall.setting],
                mend=mend,
                **common,
            )
    if not found.shortfalls:
        yield Finding(
            check="setting",
            severity="fine",
            note=durability.POWER_LOSS if is_hub and found.fsync == "everysec" else "keeps what is promised",
            **common,
        )
    configured: Any = client.config_get(*(name for name, *_ in BETTER), "dir", "maxclients")
    for name, wanted, hub, region, cost in BETTER:
        if (hub if is_hub else region) and configured.get(name, wanted) != wanted:
            yield Finding(
                check="setting",
                severity="better",
                expected=f"{name} {wanted}",
                found=configured[name],
                cost=cost,
                mend=f"{cli} CONFIG SET {name} {wanted}; and in its redis.conf",
                **common,
            )
    yield from _health(shown, common, cli)
    yield from _room(shown, configured, common, cli, is_hub=is_hub)
    memory = int(shown.get("total_system_memory") or 0)
    if memory and int(shown["maxmemory"]) > memory:
        yield Finding(
            check="limit",
            severity="wrong",
            expected=f"maxmemory below the {size(memory)} of its host",
            found=size(int(shown["maxmemory"])),
            cost=COSTS["maxmemory"].partition(";")[0],
            mend=f"{cli} CONFIG SET maxmemory {memory // 2}; and in its redis.conf",
            **common,
        )
    if is_near:
        yield from _disk(shown, configured, common)
    yield from _rights(client, common, is_hub=is_hub)
    yield from _scripts(client, common, is_hub=is_hub)


def _write_bounds(client: redis.Redis, common: dict[str, str], cli: str, records_bytes_max: int) -> Iterator[Finding]:
    """Whether a region can send writes to the hub that are far larger than a result, or none of the size of one."""
    value_max, least = hub_write_bytes(records_bytes_max), records_bytes_max + result_frame.HEAD_BYTES_MAX
    configured: Any = client.config_get(*WRITE_BOUNDS)
    for (name, cost), wanted in zip(WRITE_BOUNDS.items(), (value_max, 2 * value_max), strict=True):
        mend = f"{cli} CONFIG SET {name} {wanted}; and in its redis.conf"
        if name not in configured:
            yield Finding(check="setting", severity="unseen", note=f"{name} is not shown by this server", **common)
        elif int(configured[name]) < least:
            yield Finding(
                check="setting",
                severity="wrong",
                expected=f"{name} {least} at least, for a result of limits.records_bytes_max",
                found=configured[name],
                cost="a larger result is refused with its connection, and others wait behind it in the region's outbox",
                mend=mend,
                **common,
            )
        elif int(configured[name]) > wanted:
            yield Finding(
                check="setting",
                severity="better",
                expected=f"{name} {wanted} at most",
                found=configured[name],
                cost=cost.format(size=size(int(configured[name]))),
                mend=mend,
                **common,
            )


def _health(shown: dict[str, Any], common: dict[str, str], cli: str) -> Iterator[Finding]:
    for name in ("aof_last_write_status", "aof_last_bgrewrite_status"):
        if shown.get(name, "ok") != "ok":
            yield Finding(
                check="disk",
                severity="wrong",
                expected=f"{name} ok",
                found=str(shown[name]),
                cost="it refuses writes until its file can be written",
                mend=f"free its disk; then {cli} BGREWRITEAOF",
                **common,
            )
    if shown.get("role") != "master":
        yield Finding(
            check="setting",
            severity="wrong",
            expected="a master",
            found=f"a {shown.get('role')}",
            cost="it takes no writes",
            mend="name the master first in the settings",
            **common,
        )


def _room(
    shown: dict[str, Any], configured: dict[str, Any], common: dict[str, str], cli: str, *, is_hub: bool
) -> Iterator[Finding]:
    used, most = int(shown["used_memory"]), int(shown["maxmemory"])
    clients, clients_most = int(shown["connected_clients"]), int(configured.get("maxclients") or 10_000)
    if most and used > ROOM * most:
        cost = (
            "new requests are answered 503 from 85 % on"
            if is_hub
            else "its bridge takes no bulk tasks from 70 % on, and nothing from 90 % on"
        )
        mend = f"{cli} CONFIG SET maxmemory {2 * most}; and in its redis.conf"
        yield Finding(
            check="limit",
            severity="wrong",
            expected=f"less than {ROOM:.0%} of maxmemory in use",
            found=f"{size(used)} of {size(most)}",
            cost=cost,
            mend=mend,
            **common,
        )
    elif most:
        yield Finding(check="limit", severity="fine", note=f"{size(used)} of {size(most)} in use", **common)
    if clients > CLIENTS * clients_most:
        yield Finding(
            check="limit",
            severity="wrong",
            expected=f"less than {CLIENTS:.0%} of maxclients connected",
            found=f"{clients} of {clients_most}",
            cost="further parts are refused",
            mend=f"{cli} CONFIG SET maxclients {2 * clients_most}; and in its redis.conf",
            **common,
        )


def _disk(shown: dict[str, Any], configured: dict[str, Any], common: dict[str, str]) -> Iterator[Finding]:
    """The free space of its folder, if that is on this machine. A rewrite of its file needs as much again as its data."""
    folder = Path(str(configured.get("dir") or ""))
    if not configured.get("dir") or not folder.is_dir():
        return
    needed = int(shown.get("used_memory", 0)) + int(shown.get("aof_current_size", 0))
    yield disk(
        folder,
        common["what"],
        needed,
        "it refuses writes when its disk is full: its clients get 503, or their tasks wait",
    )


def disk(folder: Path, what: str, needed: int, cost: str) -> Finding:
    """The free space of a folder's file system. ``needed``: bytes that its part may soon write."""
    free = shutil.disk_usage(folder).free
    least = max(DISK_WRONG, needed)
    severity: Any = "wrong" if free < least else "better" if free < max(DISK_BETTER, 2 * needed) else "fine"
    if severity == "fine":
        return Finding(check="disk", what=what, where=str(folder), severity="fine", note=f"{size(free)} free")
    expected = f"{size(least if severity == 'wrong' else max(DISK_BETTER, 2 * needed))} free"
    return Finding(
        check="disk",
        what=what,
        where=str(folder),
        severity=severity,
        expected=expected,
        found=size(free),
        cost=cost,
        mend=f"free space on the file system of {folder}, or move it to a larger one: df -h {shlex.quote(str(folder))}",
    )


def _rights(client: redis.Redis, common: dict[str, str], *, is_hub: bool) -> Iterator[Finding]:
    """Whether our own user may call what our parts call."""
    try:
        user = value(send(client, [("ACL", "WHOAMI")], [])[0]).decode()
        replies = send(client, [("ACL", "DRYRUN", user, *one) for one in RIGHTS[is_hub]], [])
        value(next((one for one in replies if isinstance(one, Exception)), None))
    except redis.exceptions.ResponseError as error:
        yield Finding(check="permission", severity="unseen", note=f"rights of our user: {error}", **common)
        return
    lacking = [
        " ".join(one[:2] if one[0] in ("CONFIG", "CLIENT", "ACL", "SCRIPT", "XGROUP") else one[:1]).lower()
        for one, reply in zip(RIGHTS[is_hub], replies, strict=True)
        if reply != b"OK"
    ]
    if not lacking:
        yield Finding(check="permission", severity="fine", note=f"user {user} may do what our parts do", **common)
    for one in lacking:
        right = f"+{one.replace(' ', '|')}"
        yield Finding(
            check="permission",
            severity="wrong",
            expected=f"user {user} to be allowed {one}",
            found="it is refused",
            cost="what needs it fails: 503 at the hub, tasks that wait in a region",
            mend=f"ACL SETUSER {user} {right}, then ACL SAVE",
            **common,
        )


def _scripts(client: redis.Redis, common: dict[str, str], *, is_hub: bool) -> Iterator[Finding]:
    """Whether the parts that run call the scripts of this checkout: a Redis knows those that it was sent.

    Gateways call one when they reach the hub, and workers all the time.
    """
    script, runs = (REFUSE, names.REGIONS) if is_hub else (CLAIM, names.WORKERS)
    try:
        known, running = send(client, [("SCRIPT", "EXISTS", script.sha), ("EXISTS", runs)], [])
        if not value(running) or value(known)[0]:
            return
    except redis.exceptions.ResponseError:
        return
    yield Finding(
        check="version",
        severity="better",
        expected="parts with the Lua scripts of this checkout",
        found="parts with others, or none that has run one since this Redis started",
        cost="parts of two versions work side by side",
        mend="the same checkout on all hosts, then restart their parts: docs/operations.md, Upgrade",
        **common,
    )


def dashboard_users(region: Region) -> Iterator[Finding]:
    """Whether the user of a region's dashboard can only read, and whether its operator's can delete jobs."""
    one = region.dashboard
    if one.redis_url:
        yield from _dashboard_user(region, one.redis_url, may_write=False)
    if one.operator_redis_url:
        yield from _dashboard_user(region, one.operator_redis_url, may_write=True)


def _dashboard_user(region: Region, url: str, *, may_write: bool) -> Iterator[Finding]:
    common = {"what": f"dashboard of {region.name}", "where": connect.without_password(url)}
    mend = "set the rights of its users again: docs/reference.md, rq-dashboard"
    nothing = "an operator can't delete jobs there" if may_write else "it shows nothing"
    try:
        with connect.open_redis(url, name="check", connections=1) as client:
            reads, writes = send(
                client, [("SMEMBERS", names.RQ_QUEUES), ("DEL", "rq:nearfetch-may-this-user-write")], []
            )
    except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError) as error:
        yield Finding(
            check="permission",
            severity="wrong",
            expected="its user to be let in",
            found=str(error),
            cost=nothing,
            mend=mend,
            **common,
        )
        return
    except (*connect.AWAY, ValueError) as error:  # the Redis itself is looked at beside this
        yield Finding(check="permission", severity="unseen", note=str(error), **common)
        return
    refused = reads if isinstance(reads, Exception) else writes if may_write and isinstance(writes, Exception) else None
    if refused is not None:
        yield Finding(
            check="permission",
            severity="wrong",
            expected="a user that may delete jobs" if may_write else "a user that may read RQ's keys",
            found=str(refused),
            cost=nothing,
            mend=mend,
            **common,
        )
    elif not may_write and not isinstance(writes, Exception):
        yield Finding(
            check="permission",
            severity="better",
            expected="a user that may not write",
            found="it may",
            cost="nothing but the dashboard's own process protects the jobs",
            mend=mend,
            **common,
        )
    else:
        yield Finding(
            check="permission",
            severity="fine",
            note="its user can do what it must" if may_write else "its user can only read",
            **common,
        )
