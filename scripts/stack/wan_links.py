"""The rules that a link of ``scripts.stack.wan`` obeys, and ``Control``, which sets them."""

import json
import socket
import threading
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

CONTROL_SECONDS: Final = 60.0  # for an answer of the proxy, on a machine that may have much else to do


class Way(Struct, frozen=True, forbid_unknown_fields=True):
    """One direction of a link.

    ``bytes_per_second`` limits all connections of the link together; 0 means no limit. ``loss`` is the share of packets that
    are lost: such a packet and all behind it on its connection come one retransmission time-out later. ``window_bytes`` is
    what a new or idle connection sends before the first acknowledgement (TCP's slow start); 0 means no window.

    ``then``: "pass"; "hold" keeps all data until the direction passes again; "drop" loses all data. When a direction that
    dropped data passes again, the connection is reset, since a stream must not have holes.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_second: float = 0.0
    loss: float = 0.0
    window_bytes: int = 0
    then: Literal["pass", "hold", "drop"] = "pass"


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """The behaviour of a link. Without ``accepts``, new connections are reset.

    The first data of a new connection leaves ``opens_ms`` after it was accepted, since a connection to the link itself opens
    without a delay.
    """

    there: Way = Way()
    back: Way = Way()
    accepts: bool = True
    opens_ms: float = 0.0

    @property
    def rtt_seconds(self) -> float:
        """How long data and its acknowledgement take."""
        return (self.there.delay_ms + self.back.delay_ms) / 1000


class Swallow(Struct, frozen=True, forbid_unknown_fields=True):
    """Lets the request that contains ``after`` arrive, but loses everything that comes back.

    The connection is reset ``cut_seconds`` later. This happens ``times`` times.
    """

    after: bytes
    times: int = 1
    cut_seconds: float = 1.0


class Counts(Struct):
    """The counts of a link: connections, bytes each way, losses that stalled a connection, and swallowed answers.

    Bytes are what TCP carries, TLS included, without the heads of packets.
    """

    open: int = 0
    accepted: int = 0
    there: int = 0
    back: int = 0
    held: int = 0
    dropped: int = 0
    swallowed: int = 0
    stalled: int = 0


class Control:
    """Drives the links of a running proxy. Every call returns the link's counts. Raises ValueError and OSError."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._lock = threading.Lock()

    def rule(self, link: str, rule: Rule) -> Counts:
        """Sets the link's rule."""
        return self._call({"do": "rule", "link": link, "rule": msgspec.to_builtins(rule)})

    def heal(self, link: str) -> Counts:
        """Lets everything pass from now on, from as far as the link was at its start."""
        return self._call({"do": "heal", "link": link})

    def cut(self, link: str, how: Literal["reset", "close", "silence"] = "reset") -> Counts:
        """Ends all connections of the link.

        With "silence" neither end is told, as when a router between them has lost its memory: all data is lost, and the end of a
        connection, too. New connections pass. ``heal`` resets the connections whose ends still wait.
        """
        return self._call({"do": "cut", "link": link, "how": how})

    def swallow(self, link: str, after: bytes, *, times: int = 1, cut_seconds: float = 1.0) -> Counts:
        """Lets the next request that contains ``after`` arrive, but not its answer."""
        swallow = msgspec.to_builtins(Swallow(after, times, cut_seconds))
        return self._call({"do": "swallow", "link": link, "swallow": swallow})

    def counts(self, link: str) -> Counts:
        """The link's counts so far."""
        return self._call({"do": "counts", "link": link})

    def close(self) -> None:
        """Closes the control connection."""
        self._buffer = b""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _call(self, call: dict[str, Any]) -> Counts:
        with self._lock:
            try:
                line = self._answer(json.dumps(call).encode() + b"\n")
            except OSError:
                self.close()  # an answer that comes late is none of the next call
                raise
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return msgspec.convert(answer, Counts)

    def _answer(self, call: bytes) -> bytes:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), CONTROL_SECONDS)
        self._socket.sendall(call)
        while b"\n" not in self._buffer:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the proxy ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line
