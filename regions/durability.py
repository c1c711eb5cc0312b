"""What a Redis must be set to so that it keeps what it was told, and how far it has written that: read from the server.

A promise is about processes, machines and networks that die: an append-only file that is written at least once a second,
and memory that is refused and never evicted. Who reads the settings needs ``CONFIG GET`` and ``INFO``: of the hub's Redis
the gateways' user, of a region's its bridges' and workers'. A region's user at the hub may do neither.
"""

from collections.abc import Callable, Mapping
from typing import Final

import redis
from msgspec import Struct

from regions.settings import Durability

AT_LEAST: Final = ("everysec", "always")
POWER_LOSS: Final = "a power loss may take its last second; appendfsync always keeps it, at its cost"


class Shortfall(Struct, frozen=True):
    """One setting that does not keep a promise, and what mends it."""

    setting: str
    expected: str
    found: str
    mend: str

    def __str__(self) -> str:
        return f"{self.setting}: expected {self.expected}, found {self.found}"


class Found(Struct, frozen=True):
    """``fsync``: ``appendfsync``, empty when it can't be seen; ``keeps_file``: the file is synced by itself."""

    shortfalls: list[Shortfall]
    fsync: str
    keeps_file: bool


class NotDurable(RuntimeError):  # noqa: N818
    """A Redis that can't keep what it is to promise; ``reason`` is what clients and the hub are told of it."""

    def __init__(self, what: str, shortfalls: list[Shortfall], relax: str) -> None:
        self.reason = f"{what} can't keep what is promised: {'; '.join(map(str, shortfalls))}"
        mends = "; ".join(one.mend for one in shortfalls)
        super().__init__(f'{self.reason}. Mend it ({mends}), or say {relax} = "relaxed"')


Rule = tuple[str, str, str, Callable[[str], bool]]  # setting, expected, what mends it, whether a value will do

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
        said: dict[str, str] = client.config_get(*(setting for setting, *_ in RULES))  # type: ignore[assignment]
        values |= said
    except redis.exceptions.ResponseError as error:
        refusal = str(error)
    return Found(
        shortfalls(values, refusal),
        fsync=values.get("appendfsync", ""),
        keeps_file=values["appendonly"] == "yes" and values.get("appendfsync", AT_LEAST[0]) in AT_LEAST,
    )


def shortfalls(values: Mapping[str, str], refusal: str = "") -> list[Shortfall]:
    """What of the settings falls short, in the order of ``RULES``; what can't be seen falls short too.

    ``refusal``: what the server says to who asks for the settings that are missing.
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
    """What was found. Raises ``NotDurable`` where it falls short and ``kind`` is strict, else like ``look``.

    ``what``: how the server is named; ``relax``: the setting that says ``relaxed``.
    """
    found = look(client)
    if found.shortfalls and kind == "strict":
        raise NotDurable(what, found.shortfalls, relax)
    return found


# With ``appendfsync everysec`` Redis answers before its write(2) while a background fsync is pending, for up to 2 s
# (flushAppendOnlyFile in aof.c): what it then holds in memory alone is lost when it is killed.
LOOK: Final = ("INFO", "persistence")
_FILE: Final = tuple(
    b"\naof_%b:" % name for name in (b"pending_bio_fsync", b"buffer_length", b"base_size", b"current_size")
)


class File(Struct, frozen=True):
    """How far a Redis has written its append-only file, by one INFO, in bytes. All 0 where it has none."""

    pending_fsyncs: int = 0
    buffer_bytes: int = 0  # done, and not written
    base_bytes: int = 0  # of the latest rewrite
    size_bytes: int = 0

    def has(self, then: "File | None") -> bool:
        """Whether all that was done before an earlier look at the same process is written, when this look's reply is there.

        ``then`` None: all that was done before this look. Redis writes what it has done before it replies, unless an
        fsync is pending; it writes all of it at once, and only a rewrite changes the size otherwise.
        """
        if not self.pending_fsyncs or not self.buffer_bytes:
            return True
        return then is not None and self.base_bytes == then.base_bytes and self.size_bytes > then.size_bytes


def file_of(info: bytes) -> File:
    """What ``LOOK`` answers. Each accept reads it: a pattern took 15 µs."""
    return File(*(_number(info, name) for name in _FILE))


def _number(info: bytes, name: bytes) -> int:
    at = info.find(name)
    return int(info[at + len(name) : info.index(b"\r", at)]) if at >= 0 else 0
