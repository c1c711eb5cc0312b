"""Connects to a target: looks its name up, has the addresses judged, and connects to the first that accepts.

    GuardedConnection._new_conn → exchange.route.connect
      Direct      look_up → Guard.filter → connect to exactly those
      Proxied     the same addresses, but a proxy connects (jobs.fetch.proxy)

``source_address`` is the local address of connections; "" leaves it to the system.
"""

import contextlib
import copy
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from urllib3.connection import HTTPConnection

from jobs.errors import ConnectionFailed, TaskError, TimedOut
from jobs.fetch.exchange import WATCH_SECONDS, Exchange, error_text
from jobs.fetch.guard import Guard, Resolve, Target

CONNECT_SECONDS: Final = 10.0  # for one address; the addresses of a name share the rest of the time-out

LOOK_UP_SECONDS: Final = 10.0  # for a name
LOOK_UPS_MAX: Final = 64  # at once in a process
OF_ONE_MAX: Final = 8  # at once below one domain

Options = Sequence[tuple[int, int, int | bytes]]


class Direct:
    """The route straight to a permitted address."""

    def __init__(self, guard: Guard, source_address: str = "") -> None:
        self._guard, self._source = guard, source_address

    def connect(self, exchange: Exchange, connection: HTTPConnection) -> socket.socket:
        """As ``Route`` says."""
        host, port = place_of(connection)
        targets = self._guard.filter(host, port, addresses(exchange, self._guard, host, port))
        targets = from_source(targets, self._source, host)
        fault: OSError | None = None
        for seconds, (family, address) in shared(exchange, targets):
            made = socket.socket(family, socket.SOCK_STREAM)
            try:
                ready(made, exchange, seconds, connection.socket_options or (), self._source)
                made.connect(address)
                made.settimeout(exchange.remaining())
                return made
            except (OSError, TaskError) as error:
                exchange.hold(None)
                made.close()
                if isinstance(error, TaskError):
                    raise
                fault = error
        exchange.check()
        if isinstance(fault, TimeoutError):
            raise TimedOut(f"could not connect to {host} port {port}: no answer") from fault
        raise ConnectionFailed(f"could not connect to {host} port {port}: {error_text(fault)}") from fault


def place_of(connection: HTTPConnection) -> tuple[str, int]:
    """The host (with the trailing dot of a full name) and the port of a connection.

    An interface (RFC 6874: ``fe80::1%25eth0``) is kept for link-local addresses only; with others a connect would fail.
    """
    host = connection._dns_host.strip("[]")  # noqa: SLF001
    address, percent, interface = host.partition("%25")
    if percent and ":" in address:
        host = f"{address}%{interface}" if address.lower().startswith("fe80:") else address
    return host, connection.port


def shared(exchange: Exchange, targets: Sequence[Target]) -> Iterator[tuple[float, Target]]:
    """Each address with its share of the seconds that are left. Raises TaskErrors when the exchange must end."""
    for left, target in zip(range(len(targets), 0, -1), targets, strict=True):
        exchange.check()
        yield min(CONNECT_SECONDS, exchange.remaining() / left), target


def ready(made: socket.socket, exchange: Exchange, seconds: float, options: Options, source: str) -> None:
    """Prepares a new socket for its connect. Raises ConnectionFailed when it can't be bound to ``source``."""
    for option in options:
        made.setsockopt(*option)
    made.settimeout(seconds)
    exchange.hold(made)
    if not source:
        return
    try:
        made.bind((source, 0))
    except OSError as error:
        message = f"expected the egress's source_address to be one of this machine's, found: {error_text(error)}"
        raise ConnectionFailed(message, origin="region") from error


def from_source(targets: list[Target], source: str, host: str) -> list[Target]:
    """The addresses that can be reached from ``source``. Raises ConnectionFailed when there are none."""
    if not source:
        return targets
    version = ipaddress.ip_address(source).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    fitting = [target for target in targets if target[0] == family]
    if not fitting:
        message = f"expected an IPv{version} address of {host}, as the egress's source_address is one, found none"
        raise ConnectionFailed(message, origin="region", retryable=False)
    return fitting


def addresses(exchange: Exchange, guard: Guard, host: str, port: int) -> list[Target]:
    """A target's addresses. Raises ConnectionFailed when its name has none."""
    try:
        return look_up(exchange, guard.resolve, host, port)
    except (OSError, UnicodeError) as error:
        raise ConnectionFailed(f"the name {host} could not be resolved: {error_text(error)}") from error


def look_up(exchange: Exchange, resolve: Resolve, host: str, port: int) -> list[Target]:
    """A name's addresses. Raises what ``resolve`` raises, and TaskErrors when it takes too long."""
    with contextlib.suppress(ValueError):
        version = ipaddress.ip_address(host).version
        return [(socket.AF_INET, (host, port))] if version == 4 else resolve(host, port)
    return _look_ups.addresses(exchange, resolve, host, port)


class _LookUp:
    """A look-up under way, for all threads that want that name."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.found: list[Target] | Exception = []


class LookUps:
    """The look-ups of a process. The system's look-up has no time-out, so each has a thread, which may be left behind.

    There are at most ``LOOK_UPS_MAX`` at once, so that a silent name server can't take all threads, and ``OF_ONE_MAX``
    below one domain, whose own name server may be the silent one. Threads that want the same name share a look-up.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[Resolve, str, int], _LookUp] = {}
        self._changed = threading.Condition()

    def addresses(self, exchange: Exchange, resolve: Resolve, host: str, port: int) -> list[Target]:
        """As ``look_up``."""
        key = (resolve, host.rstrip(".").lower(), port)
        end = time.monotonic() + LOOK_UP_SECONDS
        running = self._started(key, exchange, end)
        while not running.over.wait(min(exchange.remaining(), WATCH_SECONDS)):
            _check(exchange, end, f"the name {host} could not be looked up: no name server answers", None)
        if isinstance(running.found, Exception):
            raise copy.copy(running.found)  # other threads raise it, too
        return running.found

    def _started(self, key: tuple[Resolve, str, int], exchange: Exchange, end: float) -> _LookUp:
        """The look-up of this name, started when there is room for it."""
        with self._changed:
            while True:
                if (running := self._running.get(key)) is not None:
                    return running
                domain = _domain(key[1])
                same = sum(_domain(name) == domain for _, name, _ in self._running)
                if len(self._running) < LOOK_UPS_MAX and same < OF_ONE_MAX:
                    break
                waiting = f"{same} look-ups below {domain}" if same >= OF_ONE_MAX else f"{len(self._running)} look-ups"
                message = (
                    f"the name {key[1]} could not be looked up: {waiting} wait for a name server that does not answer"
                )
                _check(exchange, end, message, "region")
                self._changed.wait(min(exchange.remaining(), WATCH_SECONDS))
            running = _LookUp()
            threading.Thread(target=self._run, args=(key, running), name="look-up", daemon=True).start()
            self._running[key] = running  # only now that it runs: one without a thread must not take a place
        return running

    def _run(self, key: tuple[Resolve, str, int], running: _LookUp) -> None:
        resolve, host, port = key
        try:
            running.found = resolve(host, port)
        except Exception as error:  # noqa: BLE001 - a page chooses the name: its task fails, not this thread and its process
            running.found = error
        finally:
            with self._changed:
                del self._running[key]
                self._changed.notify_all()
            running.over.set()


_look_ups: Final = LookUps()


def _domain(host: str) -> str:
    """The last two labels of a name."""
    return ".".join(host.split(".")[-2:])


def _check(exchange: Exchange, end: float, message: str, origin: str | None) -> None:
    """Raises TimedOut with the message when the time for a look-up is over, Cancelled when the task was cancelled."""
    try:
        exchange.check()
    except TimedOut as error:
        raise TimedOut(message, origin=origin or error.whose) from error
    if time.monotonic() >= end:
        raise TimedOut(message, origin=origin)
