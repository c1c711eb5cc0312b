"""The settings that a Redis needs so that it keeps its data, and how far it has written its append-only file.

Our promises cover the death of processes, machines and networks. For that a Redis must sync an append-only file at least
once a second, and must refuse writes when its memory is full instead of evicting keys. Checking this needs the commands
``CONFIG GET`` and ``INFO``. The gateways' user may call them on the hub's Redis, the user of bridges and workers on the
region's Redis. A region's user on the hub's Redis may call neither.
"""

from collections.abc import Callable, Mapping
from typing import Final

import redis
from msgspec import Struct

from regions.settings import Durability

AT_LEAST: Final = ("everysec", "always")
POWER_LOSS: Final = "a power loss may cost it its last second; appendfsync always prevents that, but is slower"


class Shortfall(Struct, frozen=True):
    """One setting that breaks a promise, and how to fix it."""

    setting: str
    expected: str
    found: str
    mend: str

    def __str__(self) -> str:
        return f"{self.setting}: expected {self.expected}, found {self.found}"


class Found(Struct, frozen=True):
    """``fsync``: the value of ``appendfsync``, empty when unreadable; ``keeps_file``: the server syncs its file by itself."""

    shortfalls: list[Shortfall]
    fsync: str
    keeps_file: bool


class NotDurable(RuntimeError):  # noqa: N818
    """A Redis is set so that it can't keep our promises. ``reason`` is the part that clients and the hub are told."""

    def __init__(self, what: str, shortfalls: list[Shortfall], relax: str) -> None:
        self.reason = f"{what} can't keep what is promised: {'; '.join(map(str, shortfalls))}"
        mends = "; ".join(one.mend for one in shortfalls)
        super().__init__(f'{self.reason}. Fix it ({mends}), or set {relax} = "relaxed"')


# Setting, expected value, how to fix it, whether a value is good enough.
Rule = tuple[str, str, str, Callable[[str], bool]]

RULES: Final[list[Rule]] = [
    ("appendonly", "yes", "CONFIG SET appendonly yes", lambda value: value == "yes"),
    ("appendfsync", "everysec or always", "CONFIG SET appendfsync everysec", lambda value: value in AT_LEAST),
    ("io-threads", "1", "start it with io-threads 1", lambda value: value == "1"),
    ("no-appendfsync-on-rewrite", "no", "CONFIG SET no-appendfsync-on-rewrite no", lambda value: value == "no"),
    ("maxmemory", "a limit", "CONFIG SET maxmemory 2gb, or what the machine has", lambda value: int(value) > 0),
    (
        "maxmemory-policy",
        "noeviction",
        "CONFIG SET maxmemory-policy noeviction",
        lambda value: value == "noeviction",
    ),
    ("cluster-enabled", "no", "start it without cluster-enabled", lambda value: value == "no"),
]


def look(client: redis.Redis) -> Found:
    """Reads a server's settings. Raises what ``connect.AWAY`` lists, or the server's error."""
    shown = client.info("memory", "persistence", "cluster")
    values = {
        "appendonly": "yes" if shown["aof_enabled"] else "no",
        "maxmemory": str(shown["maxmemory"]),
        "maxmemory-policy": str(shown["maxmemory_policy"]),
        "cluster-enabled": "yes" if shown.get("cluster_enabled") else "no",
    }
    refusal = ""
    try:
        configured: dict[str, str] = client.config_get(*(setting for setting, *_ in RULES))  # type: ignore[assignment]
        values |= configured
    except redis.exceptions.ResponseError as error:
        refusal = str(error)
    return Found(
        shortfalls(values, refusal),
        fsync=values.get("appendfsync", ""),
        keeps_file=values["appendonly"] == "yes" and values.get("appendfsync", AT_LEAST[0]) in AT_LEAST,
    )


def shortfalls(values: Mapping[str, str], refusal: str = "") -> list[Shortfall]:
    """The settings that fall short, in the order of ``RULES``. A setting that can't be read falls short, too.

    ``refusal``: the server's error when it refused to show the missing settings.
    """
    found = []
    for setting, expected, mend, is_kept in RULES:
        value = values.get(setting)
        if value is None:
            reason = f"nothing: CONFIG GET is refused: {refusal}"
            found.append(Shortfall(setting, expected, reason, "give its user +config|get"))
        elif not is_kept(value):
            found.append(Shortfall(setting, expected, value, mend))
    return found


def check(client: redis.Redis, what: str, kind: Durability, relax: str) -> Found:
    """The settings found. Raises ``NotDurable`` when they fall short and ``kind`` is strict; otherwise raises like ``look``.

    ``what`` names the server in messages; ``relax`` is the setting that accepts ``relaxed``.
    """
    found = look(client)
    if found.shortfalls and kind == "strict":
        raise NotDurable(what, found.shortfalls, relax)
    return found


# With ``appendfsync everysec`` Redis answers before its write(2) while a background fsync is pending, for up to 2 s
# (flushAppendOnlyFile in aof.c). If it is killed then, the commands that it holds only in memory are lost.
LOOK: Final = ("INFO", "persistence")
_FILE: Final = tuple(
    b"\naof_%b:" % name for name in (b"pending_bio_fsync", b"buffer_length", b"base_size", b"current_size")
)


class File(Struct, frozen=True):
    """How far a Redis has written its append-only file, from one INFO, in bytes. All 0 when it has no such file."""

    pending_fsyncs: int = 0
    buffer_bytes: int = 0  # commands that were executed but not yet written
    base_bytes: int = 0  # after the latest rewrite
    size_bytes: int = 0

    def has(self, then: "File | None") -> bool:
        """Whether everything executed before an earlier look at the same process had been written when this look's reply came.

        ``then`` is the earlier look; None asks about everything executed before this one. Redis writes what it has executed
        before it replies, unless an fsync is pending. It always writes all of it at once, and otherwise only a rewrite
        changes the file's size.
        """
        if not self.pending_fsyncs or not self.buffer_bytes:
            return True
        return then is not None and self.base_bytes == then.base_bytes and self.size_bytes > then.size_bytes


def file_of(info: bytes) -> File:
    """Parses the reply to ``LOOK``. Every accept does this, so it avoids regular expressions, which took 15 µs."""
    return File(*(_number(info, name) for name in _FILE))


def _number(info: bytes, name: bytes) -> int:
    at = info.find(name)
    return int(info[at + len(name) : info.index(b"\r", at)]) if at >= 0 else 0
