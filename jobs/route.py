"""How a connection gets to its target: a name's addresses, judged, and a socket to the first that takes it.

    GuardedConnection._new_conn → exchange.route.connect
      Direct      look_up → Guard.filter → connected, to exactly those
      Proxied     the same addresses, asked of a proxy (jobs.proxy)

``source_address`` is what connections come from; "" leaves it to the system.
"""

import contextlib
import ipaddress
import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from urllib3.connection import HTTPConnection

from jobs.errors import ConnectionFailed, TaskError, TimedOut
from jobs.exchange import WATCH_SECONDS, Exchange, said
from jobs.guard import Guard, Resolve, Target

CONNECT_SECONDS: Final = 10.0  # for one address; all addresses of a name share what is left of the time-out

Options = Sequence[tuple[int, int, int | bytes]]


class Direct:
    """Straight to a permitted address."""

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
        raise ConnectionFailed(f"could not connect to {host} port {port}: {said(fault)}") from fault


def place_of(connection: HTTPConnection) -> tuple[str, int]:
    """The host, with the dot of a full name, and the port of a connection.

    An interface (RFC 6874: ``fe80::1%25eth0``) says something with an address of its link only, and fails with another.
    """
    host = connection._dns_host.strip("[]")  # noqa: SLF001
    address, percent, interface = host.partition("%25")
    if percent and ":" in address:
        host = f"{address}%{interface}" if address.lower().startswith("fe80:") else address
    return host, connection.port


def shared(exchange: Exchange, targets: Sequence[Target]) -> Iterator[tuple[float, Target]]:
    """Each address with its seconds of what is left; raises TaskErrors where the exchange has to end."""
    for left, target in zip(range(len(targets), 0, -1), targets, strict=True):
        exchange.check()
        yield min(CONNECT_SECONDS, exchange.remaining() / left), target


def ready(made: socket.socket, exchange: Exchange, seconds: float, options: Options, source: str) -> None:
    """Makes a new socket one that may connect; raises ConnectionFailed where it can't come from ``source``."""
    for option in options:
        made.setsockopt(*option)
    made.settimeout(seconds)
    exchange.hold(made)
    if not source:
        return
    try:
        made.bind((source, 0))
    except OSError as error:
        message = f"expected the egress's source_address to be one of this machine's, found: {said(error)}"
        raise ConnectionFailed(message, origin="region") from error


def from_source(targets: list[Target], source: str, host: str) -> list[Target]:
    """Those addresses that a connection from ``source`` can go to; raises ConnectionFailed where there are none."""
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
    """A target's addresses; raises ConnectionFailed where its name has none."""
    try:
        return look_up(exchange, guard.resolve, host, port)
    except (OSError, UnicodeError) as error:
        raise ConnectionFailed(f"the name {host} could not be resolved: {said(error)}") from error


def look_up(exchange: Exchange, resolve: Resolve, host: str, port: int) -> list[Target]:
    """A name's addresses; the system's look-up has no time-out, so it runs beside and is left behind when late.

    Raises what ``resolve`` does.
    """
    with contextlib.suppress(ValueError):
        version = ipaddress.ip_address(host).version
        return [(socket.AF_INET, (host, port))] if version == 4 else resolve(host, port)
    answers: queue.SimpleQueue[list[Target] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve(host, port))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    while True:
        exchange.check()
        with contextlib.suppress(queue.Empty):
            answer = answers.get(timeout=min(exchange.remaining(), WATCH_SECONDS))
            break
    if isinstance(answer, Exception):
        raise answer
    return answer
