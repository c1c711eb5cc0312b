"""TCP links with faults: each has a port on the loopback address, in front of a server.

    client ── there ──> port of the link ── there ──> target
           <── back ──                   <── back ──

``python -m scripts.stack.wan --control PORT NAME=PORT:TARGET…`` runs any number of links. ``NAME=PORT:TARGET@80:jitter=5`` is one as
``scripts/up --wan`` makes it (scripts.stack.distance). ``scripts.stack.wan_links`` controls them, with one line of JSON for each
call. A link can delay data in each direction, with jitter, limit the bandwidth, send no more than TCP's window, hold data
(like a network without a route: data arrives when the link heals), drop data, refuse connections, cut them (also silently,
so that neither end is told), and swallow an answer (a certain request arrives, its answer does not).
"""

import asyncio
import contextlib
import json
import math
import random
import signal
import socket
import sys
from collections import deque
from typing import Any, Final, Literal

import click
import msgspec

from scripts.stack import distance
from scripts.stack.wan_links import Counts, Rule, Swallow, Way

HELD_MAX: Final = 4_000_000  # for one direction of a connection, like Linux's buffers; above it the sender waits
PACKET_BYTES: Final = 1_460
WINDOW_MAX: Final = 3_000_000  # of what is not acknowledged yet: half of what Linux's largest receive buffer holds
# asyncio waits up to a millisecond longer; so data is early by half of it as often as late.
EARLY_SECONDS: Final = 0.0005
RETRANSMIT_SECONDS: Final = 0.2  # Linux's least retransmission time-out, less the round trip


class Window:
    """A TCP sender's congestion window in slow start (RFC 5681): twice as much in each round trip, anew after an idle time."""

    def __init__(self) -> None:
        self._bytes = self._flying = 0
        self._unacknowledged: deque[tuple[float, int]] = deque()  # when each is acknowledged, and its bytes
        self._left = 0.0  # when the last data left

    def leaves(self, size: int, at: float, first: int, idle_seconds: float) -> float:
        """When ``size`` bytes can leave, not before ``at``, nor before what left earlier."""
        if not self._bytes or at > self._left + idle_seconds:
            self._bytes, self._flying = first, 0
            self._unacknowledged.clear()
        at = max(at, self._left)
        while self._unacknowledged and (self._unacknowledged[0][0] <= at or self._flying + size > self._bytes):
            acknowledged, got = self._unacknowledged.popleft()
            at = max(at, acknowledged)
            self._flying -= got
            self._bytes = min(WINDOW_MAX, self._bytes + got)
        return at

    def left(self, size: int, at: float, acknowledged: float) -> None:
        """``size`` bytes leave, and are acknowledged then."""
        self._left = at
        self._flying += size
        self._unacknowledged.append((acknowledged, size))


class _Flow:
    """One direction of one connection: a queue of data, each piece with the time at which it is due."""

    def __init__(self, pair: "_Pair", name: Literal["there", "back"]) -> None:
        self.pair, self.name = pair, name
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.is_lost = False
        self._waiting: deque[tuple[float, bytes | None]] = deque()  # None marks the end
        self._bytes, self._last_due = 0, 0.0
        self._can_write = True
        self._timer: asyncio.TimerHandle | None = None
        self._tail = b""
        self._window = Window()

    @property
    def way(self) -> Way:
        """The link's rule for this direction."""
        rule = self.pair.link.rule
        return rule.there if self.name == "there" else rule.back

    def take(self, data: bytes | None) -> None:
        """Queues what the source sent; None when the source has ended."""
        counts, way, now = self.pair.link.counts, self.way, asyncio.get_running_loop().time()
        if data is not None and self.name == "there":
            counts.there += len(data)
            self._scan(data)
        elif data is not None:
            counts.back += len(data)
        is_lost = way.then == "drop" or (self.name == "back" and self.pair.is_swallowed)
        if self.pair.is_silent or (data is not None and is_lost):
            counts.dropped += len(data or b"")
            self.is_lost = True
            return
        if data is not None and way.then == "hold":
            counts.held += len(data)
        if data is None:
            self._waiting.append((self._due(0, way, now), None))
        else:
            step = way.window_bytes or len(data)
            for start in range(0, len(data), step):
                piece = data[start : start + step]
                self._waiting.append((self._due(len(piece), way, now), piece))
            self._bytes += len(data)
        self.flush()

    def _due(self, size: int, way: Way, now: float) -> float:
        """When data that its sender hands over now arrives, after all that it handed over before."""
        link = self.pair.link
        rtt = link.rule.rtt_seconds
        leaves = max(now, self.pair.opens_at)
        if way.window_bytes:
            leaves = self._window.leaves(size, leaves, way.window_bytes, rtt + RETRANSMIT_SECONDS)
        passed = link.passes(self.name, size, way, leaves)
        if way.window_bytes:
            self._window.left(size, leaves, passed + rtt)
        if way.loss and random.random() < 1 - (1 - way.loss) ** math.ceil(size / PACKET_BYTES):
            passed += rtt + RETRANSMIT_SECONDS
            link.counts.stalled += 1
        arrives = passed + max(0.0, way.delay_ms + random.uniform(-1, 1) * way.jitter_ms) / 1000
        self._last_due = max(self._last_due, arrives)
        return self._last_due

    def flush(self) -> None:
        """Passes on the data that is due."""
        loop = asyncio.get_running_loop()
        is_held = self.way.then == "hold" or self.pair.is_silent
        while self._waiting and self.sink is not None and self._can_write and not is_held:
            due, data = self._waiting[0]
            if due - EARLY_SECONDS > loop.time():
                if self._timer is None or self._timer.cancelled() or self._timer.when() <= loop.time():
                    self._timer = loop.call_at(due - EARLY_SECONDS, self._on_time)
                break
            self._waiting.popleft()
            if data is None:
                self.sink.close()
            elif not self.sink.is_closing():
                self._bytes -= len(data)
                self.sink.write(data)
        source = self.source
        if source is not None and not source.is_closing():
            if self._bytes > HELD_MAX:
                source.pause_reading()
            else:
                source.resume_reading()

    def may_write(self, can: bool) -> None:
        """Called when the sink's buffer is full, or has room again."""
        self._can_write = can
        if can:
            self.flush()

    def _on_time(self) -> None:
        self._timer = None
        self.flush()

    def _scan(self, data: bytes) -> None:
        for swallow in self.pair.link.swallows:
            text = self._tail + data
            if swallow.after in text:
                self.pair.link.used(swallow)
                self.pair.swallow(swallow.cut_seconds)
                break
        longest = max((len(one.after) for one in self.pair.link.swallows), default=0)
        self._tail = data[-(longest - 1) :] if longest > 1 else b""


class _End(asyncio.Protocol):
    """One of a pair's two connections: data that arrives goes to the flow ``out``, and the flow ``into`` writes here."""

    def __init__(self, pair: "_Pair", out: _Flow, into: _Flow) -> None:
        self.pair, self.out, self.into = pair, out, into

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.out.source = self.into.sink = transport
        self.pair.came(self, transport)

    def data_received(self, data: bytes) -> None:
        self.out.take(data)

    def eof_received(self) -> bool:
        return self.pair.is_silent  # the end of the connection is lost, too, and not answered

    def connection_lost(self, _error: Exception | None) -> None:
        self.out.source = None
        self.out.take(None)
        self.pair.left()

    def pause_writing(self) -> None:
        self.into.may_write(False)

    def resume_writing(self) -> None:
        self.into.may_write(True)


class _Pair:
    """A client's connection to the link, and the link's connection to the target."""

    def __init__(self, link: "Link") -> None:
        self.link = link
        self.there, self.back = _Flow(self, "there"), _Flow(self, "back")
        self.client = _End(self, self.there, self.back)
        self.target = _End(self, self.back, self.there)
        self.is_swallowed = False
        self.is_silent = False
        self.opens_at = 0.0  # when its first data leaves
        self._open = 0
        self._connecting: asyncio.Task[None] | None = None

    def came(self, end: _End, transport: asyncio.Transport) -> None:
        """Called when a connection is up. After the client's, the one to the target is opened."""
        self._open += 1
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if end is not self.client:
            self.there.flush()
            return
        self.opens_at = asyncio.get_running_loop().time() + self.link.rule.opens_ms / 1000
        self.link.pairs.add(self)
        self.link.counts.accepted += 1
        self.link.counts.open += 1
        if self.link.rule.accepts:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            self.reset()

    def left(self) -> None:
        """Called when one of the two connections has ended."""
        self._open -= 1
        if self._open == 0 and self in self.link.pairs:
            self.link.pairs.discard(self)
            self.link.counts.open -= 1

    def swallow(self, cut_seconds: float) -> None:
        """Drops everything that comes back, and resets the pair after ``cut_seconds``."""
        self.is_swallowed = True
        asyncio.get_running_loop().call_later(cut_seconds, self.reset)

    def silence(self) -> None:
        """Lets nothing pass any more and tells neither end. Data on its way is lost, too."""
        self.is_silent = True

    def healed(self) -> None:
        """Called when the link's rule has changed."""
        rule = self.link.rule
        is_told = self.is_silent and rule == self.link.own
        if (
            is_told
            or (self.there.is_lost and rule.there.then == "pass")
            or (self.back.is_lost and rule.back.then == "pass")
        ):
            self.reset()
        self.there.flush()
        self.back.flush()

    def reset(self) -> None:
        """Resets both connections."""
        for flow in (self.there, self.back):
            if flow.sink is not None and not flow.sink.is_closing():
                sock = flow.sink.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                flow.sink.abort()

    def close(self) -> None:
        """Closes both connections in order."""
        for flow in (self.there, self.back):
            if flow.sink is not None:
                flow.sink.close()

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.target, "127.0.0.1", self.link.target)
        except OSError:
            self.reset()
            return
        if self.client.out.source is None and not self._open - 1:
            self.close()  # the client left without sending anything


class Link:
    """One port in front of one target."""

    def __init__(self, port: int, target: int, rule: Rule | None = None) -> None:
        self.port, self.target = port, target
        self.own = self.rule = rule or Rule()
        self.swallows: list[Swallow] = []
        self.counts = Counts()
        self.pairs: set[_Pair] = set()
        self._free_at = {"there": 0.0, "back": 0.0}  # when a limited bandwidth has passed all that came so far

    async def start(self) -> asyncio.Server:
        """Starts to listen."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Pair(self).client, "127.0.0.1", self.port, backlog=512)

    def passes(self, name: str, size: int, way: Way, leaves: float) -> float:
        """When the last of ``size`` bytes has left. All connections share the bandwidth of a direction."""
        if not way.bytes_per_second:
            return leaves
        self._free_at[name] = max(leaves, self._free_at[name]) + size / way.bytes_per_second
        return self._free_at[name]

    def used(self, swallow: Swallow) -> None:
        """Counts a swallow that was used, and removes it after its last time."""
        self.counts.swallowed += 1
        self.swallows.remove(swallow)
        if swallow.times > 1:
            self.swallows.append(msgspec.structs.replace(swallow, times=swallow.times - 1))

    def do(self, call: dict[str, Any]) -> None:
        """Carries out one call of ``Control``. Raises ValueError for an unknown call."""
        match call:
            case {"do": "rule", "rule": rule}:
                self.rule = msgspec.convert(rule, Rule)
                for pair in list(self.pairs):
                    pair.healed()
            case {"do": "cut", "how": "reset"}:
                for pair in list(self.pairs):
                    pair.reset()
            case {"do": "cut", "how": "close"}:
                for pair in list(self.pairs):
                    pair.close()
            case {"do": "cut", "how": "silence"}:
                for pair in self.pairs:
                    pair.silence()
            case {"do": "swallow", "swallow": swallow}:
                self.swallows.append(msgspec.convert(swallow, Swallow))
            case {"do": "heal"}:
                self.swallows.clear()
                self.rule = self.own
                for pair in list(self.pairs):
                    pair.healed()
            case {"do": "counts"}:
                return
            case _:
                raise ValueError(f"expected a call of scripts.stack.wan, found {json.dumps(call)[:200]}")


async def _answer(links: dict[str, Link], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serves one connection of a ``Control``: reads a line, answers with a line."""
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            try:
                call = json.loads(line)
                link = links[call["link"]]
                link.do(call)
                answer = msgspec.json.encode(link.counts)
            except (ValueError, KeyError, msgspec.ValidationError) as error:
                answer = msgspec.json.encode({"error": f"{type(error).__name__}: {error}"})
            writer.write(answer + b"\n")
            await writer.drain()
    writer.close()


async def serve(control: int, links: dict[str, Link]) -> None:
    """Runs the links until SIGTERM or SIGINT."""
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    for link in links.values():
        await link.start()
    await asyncio.start_server(lambda reader, writer: _answer(links, reader, writer), "127.0.0.1", control)
    await over.wait()


def parse(words: tuple[str, ...]) -> dict[str, Link]:
    """Links from words like ``NAME=PORT:TARGET`` and ``NAME=PORT:TARGET@DISTANCE``. Raises ValueError."""
    links = {}
    for word in words:
        address, _, far = word.partition("@")
        name, _, ports = address.rpartition("=")
        port, _, target = ports.partition(":")
        if not name or not port.isdigit() or not target.isdigit():
            raise ValueError(f"expected NAME=PORT:TARGET, found {word!r}")
        links[name] = Link(int(port), int(target), distance.read(far).rule if far else None)
    return links


@click.command()
@click.option("--control", type=click.IntRange(1, 65535), required=True, help="The port for Control.")
@click.argument("links", nargs=-1, required=True, metavar="NAME=PORT:TARGET[@DISTANCE]...")
def main(control: int, links: tuple[str, ...]) -> None:
    """Runs links between ports of this machine until it is stopped."""
    try:
        parsed = parse(links)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        asyncio.run(serve(control, parsed))
    except OSError as error:
        sys.exit(f"can't listen: {error}")


if __name__ == "__main__":
    main()
