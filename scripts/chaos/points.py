"""Every link between two parts, and every call on it that may succeed and yet look failed to its caller.

This list is the only one: chaos draws from it, and tests/promises/test_ambiguous_success.py hits each call in it. Bytes of
its request identify a call: a script's hash, a Redis command, an AMQP method. The proxy lets the request through and
swallows the answer.
"""

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct
from rq.scripts import UNIQUE_ENQUEUE_SCRIPT

from bridge.durable import FENCE
from jobs.pool.scaler import DECIDE, LEAVE, LOOK
from jobs.queue.breaker import FAILED, RECOVERED, SLOW
from jobs.queue.claim import CLAIM, DUE, FINISH, GIVE_BACK, RETRY
from jobs.queue.home import DELIVERED
from jobs.queue.outbox import ORPHANS
from jobs.queue.reaper import REAP, TRIM
from jobs.queue.turn import LIMIT
from jobs.worker.worker import REGISTER
from regions import names
from regions.script import Script
from web.hub import scripts


class Link(Struct, frozen=True):
    """A part's own connection to a server."""

    part: str
    server: str

    @property
    def name(self) -> str:
        """The link's name, like ``bridge-fra>hub``."""
        return f"{self.part}>{self.server}"


def links(regions: Sequence[str]) -> list[Link]:
    """All links of a stack."""
    found = [Link("gateway", "hub"), Link("gateway", "rabbitmq"), Link("gateway", "store")]
    for region in regions:
        found += [Link(f"bridge-{region}", server) for server in ("rabbitmq", "hub", f"redis-{region}")]
        found += [Link(f"workers-{region}", server) for server in ("hub", f"redis-{region}")]
    return found


Need = Literal[
    "", "a slow page", "a failed fetch", "a host that wants a pause", "a cancel", "a refusal", "an unreadable message",
    "a killed worker", "a lost claim", "a stop of the workers", "a cut",
]  # fmt: skip


class Point(Struct, frozen=True):
    """One call: its name, the part that makes it, the kind of server, and bytes that only its request contains.

    ``needs``: what has to happen first, if a task that simply succeeds does not make this call.
    """

    name: str
    part: str
    server: str
    request: bytes
    needs: Need = ""

    def links(self, regions: Sequence[str]) -> list[Link]:
        """The links on which it is made."""
        return [
            link
            for link in links(regions)
            if link.part.split("-")[0] == self.part and link.server.split("-")[0] == self.server
        ]


def _call(script: Script) -> bytes:
    """The bytes on the wire that call a script by its hash."""
    return b"EVALSHA\r\n$40\r\n" + script.sha.encode()


def _method(class_id: int, method_id: int) -> bytes:
    """The first bytes of an AMQP method frame's payload."""
    return class_id.to_bytes(2, "big") + method_id.to_bytes(2, "big")


def _insert(collection: str) -> bytes:
    """The first bytes of an insert into a MongoDB collection (BSON: a string, and its length with the zero at its end)."""
    return b"\x02insert\0" + (len(collection) + 1).to_bytes(4, "little") + collection.encode() + b"\0"


PUBLISH: Final = _method(60, 40)
ACK: Final = _method(60, 80)

POINTS: Final[tuple[Point, ...]] = (
    Point("begin", "gateway", "hub", _call(scripts.BEGIN)),
    Point("publish", "gateway", "rabbitmq", PUBLISH + b"\0\0" + bytes([len(names.TASKS_EXCHANGE)])),
    Point("accept", "gateway", "hub", _call(scripts.ACCEPT)),
    Point("read news", "gateway", "hub", b"XREADGROUP"),
    Point("settle", "gateway", "hub", _call(scripts.SETTLE)),
    Point("acknowledge news", "gateway", "hub", b"XACK"),
    Point("read a request", "gateway", "hub", _call(scripts.READ)),
    Point("enqueue", "bridge", "redis", _call(Script(UNIQUE_ENQUEUE_SCRIPT))),
    Point("fence", "bridge", "redis", _call(FENCE)),
    Point("wait for the file", "bridge", "redis", b"WAITAOF"),
    Point("ack", "bridge", "rabbitmq", ACK),
    Point("report", "bridge", "hub", b"XADD"),
    Point("claim", "workers", "redis", _call(CLAIM)),
    Point("finish", "workers", "redis", _call(FINISH)),
    Point("ship", "workers", "hub", b"nf:res:"),
    Point("wait for the hub's file", "workers", "hub", b"WAITAOF"),
    Point("clear the outbox", "workers", "redis", _call(DELIVERED)),
    Point("look for left results", "workers", "redis", _call(ORPHANS)),
    Point("archive", "gateway", "hub", _call(scripts.LEASE)),
    Point("keep results", "gateway", "store", _insert(names.RESULTS_COLLECTION)),
    Point("keep a request", "gateway", "store", _insert(names.REQUESTS_COLLECTION)),
    Point("read for the archive", "gateway", "hub", _call(scripts.READ_ONLY)),
    Point("note as archived", "gateway", "hub", _call(scripts.ARCHIVED)),
    Point("judge a source", "gateway", "hub", _call(scripts.JUDGE)),
    Point("take what is overdue", "gateway", "hub", _call(scripts.OVERDUE)),
    Point("look after what regions hold", "gateway", "hub", _call(scripts.HOLD)),
    Point("forget what has expired", "gateway", "hub", _call(scripts.FORGET)),
    Point("look for what nobody asked for", "gateway", "hub", _call(scripts.SURPLUS)),
    Point("look for what is due", "workers", "redis", _call(DUE)),
    Point("trim", "workers", "redis", _call(TRIM)),
    Point("look at the load", "workers", "redis", _call(LOOK)),
    Point("decide the scale", "workers", "redis", _call(DECIDE)),
    Point("show as running", "gateway", "hub", _call(scripts.RUNNING), "a slow page"),
    Point("try again later", "workers", "redis", _call(RETRY), "a failed fetch"),
    Point("count a failure", "workers", "redis", _call(FAILED), "a failed fetch"),
    Point("forget a failure", "workers", "redis", _call(RECOVERED), "a failed fetch"),
    Point("leave a host alone", "workers", "redis", _call(SLOW), "a host that wants a pause"),
    Point("reap", "workers", "redis", _call(REAP), "a killed worker"),
    Point("register", "workers", "redis", _call(REGISTER), "a killed worker"),
    Point("say the limits", "workers", "redis", _call(LIMIT), "a killed worker"),
    Point("give back", "workers", "redis", _call(GIVE_BACK), "a lost claim"),
    Point("leave the pools", "workers", "redis", _call(LEAVE), "a stop of the workers"),
    Point("find the streams", "gateway", "hub", _call(scripts.GROUPS), "a cut"),
    Point("keep a dead letter", "gateway", "hub", _call(scripts.KEEP_DEAD), "an unreadable message"),
    Point("mark a cancel", "bridge", "redis", names.cancel_mark("").encode(), "a cancel"),
    Point("refuse", "gateway", "hub", _call(scripts.REFUSE), "a refusal"),
)
