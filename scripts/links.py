"""What a link of ``scripts.proxy`` can be told to do, and who tells it."""

import json
import socket
import threading
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

CONTROL_SECONDS: Final = 5.0


class Way(Struct, frozen=True, forbid_unknown_fields=True):
    """One direction of a link. ``bytes_per_second`` 0 is no limit.

    ``then``: "pass"; "hold" keeps everything until it passes again; "drop" loses it, and resets the connection when it
    passes again, since a stream with a hole is none.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_second: float = 0.0
    then: Literal["pass", "hold", "drop"] = "pass"


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """What a link does. Without ``accepts`` new connections are reset."""

    there: Way = Way()
    back: Way = Way()
    accepts: bool = True


class Swallow(Struct, frozen=True, forbid_unknown_fields=True):
    """The request that holds ``after`` arrives, nothing comes back any more; the connection is reset ``cut_seconds`` later."""

    after: bytes
    times: int = 1
    cut_seconds: float = 1.0


class Counts(Struct):
    """What a link did: connections, bytes, and requests whose answers were swallowed."""

    open: int = 0
    accepted: int = 0
    there: int = 0
    back: int = 0
    held: int = 0
    dropped: int = 0
    swallowed: int = 0


class Control:
    """Drives the links of a running proxy. Every call answers with the link's counts; raises ValueError, OSError."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._lock = threading.Lock()

    def rule(self, link: str, rule: Rule) -> Counts:
        """From now on the link does this."""
        return self._call({"do": "rule", "link": link, "rule": msgspec.to_builtins(rule)})

    def heal(self, link: str) -> Counts:
        """From now on the link only passes."""
        self._call({"do": "forget", "link": link})
        return self.rule(link, Rule())

    def cut(self, link: str, how: Literal["reset", "close", "silence"] = "reset") -> Counts:
        """Ends all connections of the link.

        "silence": neither end is told, as when a machine between them has lost its memory: what either sends is lost, also
        its good-bye. New connections pass. ``heal`` tells whoever still waits.
        """
        return self._call({"do": "cut", "link": link, "how": how})

    def swallow(self, link: str, after: bytes, *, times: int = 1, cut_seconds: float = 1.0) -> Counts:
        """The next request that holds ``after`` arrives, but not its answer."""
        swallow = msgspec.to_builtins(Swallow(after, times, cut_seconds))
        return self._call({"do": "swallow", "link": link, "swallow": swallow})

    def counts(self, link: str) -> Counts:
        """What the link did so far."""
        return self._call({"do": "counts", "link": link})

    def close(self) -> None:
        """Ends the control's own connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _call(self, call: dict[str, Any]) -> Counts:
        with self._lock:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), CONTROL_SECONDS)
            self._socket.sendall(json.dumps(call).encode() + b"\n")
            while b"\n" not in self._buffer:
                data = self._socket.recv(65536)
                if not data:
                    raise ConnectionError("the proxy ended")
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return msgspec.convert(answer, Counts)
