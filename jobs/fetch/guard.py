"""Judges the addresses that a fetch may connect to: public ones, and those that ``NEARFETCH__FETCH__ALLOW`` lists.

The guard judges the address of each new connection of each hop, not its name:

    route.connect → resolve → Guard.filter: judges each address → connect to exactly those, or have a proxy do so
                  → Guard.named: when the proxy looks names up itself, only the name can be judged

Public addresses are those that IANA's special-purpose registries call globally reachable unicast, except this machine's own.
An address that carries another one (IPv4-mapped, NAT64) is judged by that one. 6to4 and Teredo are tunnels, which the
registries do not call reachable.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from jobs.errors import BlockedAddress
from jobs.origin import origin_of
from regions.faults import Fault, Faults

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Target = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]
Resolve = Callable[[str, int], list[Target]]

SCHEMES: Final = ("http", "https")

# IANA's IPv4 special-purpose registry where "globally reachable" is not true, multicast, and class E. Then an address of
# cloud platforms: 168.63.129.16 is a public number, but the host's own platform answers on it.
DENIED_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    )
)  # fmt: skip
GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")  # the only unicast range in use
DENIED_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# Names for this machine or its network, wherever they are looked up (RFC 6761, 6762, 8375, ICANN's "internal").
LOCAL_NAMES: Final = ("localhost", "localdomain", "local", "internal", "home.arpa")
_NAME: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.?", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?:\d+|0x[0-9a-f]*)\.?", re.IGNORECASE)  # a last label that makes a host an IPv4 address
_ORIGIN: Final = re.compile(r"https?://[^/?#@\s]+")


def is_public(address: Address) -> bool:
    """Whether an address is globally reachable unicast, and so is the one that it carries."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in DENIED_V4)
    if address in MAPPED or address in NAT64:
        return is_public(_carried(address))
    return address in GLOBAL_V6 and not any(address in network for network in DENIED_V6)


def is_own(address: Address) -> bool:
    """Whether an address is this machine's own, also a public one: services that listen there may trust local clients.

    For a packet to itself, a machine chooses that same address as the source. The kernel tells so without sending anything.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return bool(ipaddress.ip_address(probe.getsockname()[0]) == address)
    except OSError:
        return False  # no route to it


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    """The IPv4 address in the last 32 bits."""
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Addresses that are permitted besides public ones. ``port`` None is any port."""

    network: Network
    port: int | None = None

    def covers(self, address: Address, port: int) -> bool:
        """Whether this entry permits an address and port."""
        return address.version == self.network.version and address in self.network and self.port in (None, port)


def parse_allow(text: str, key: str = "fetch.allow") -> list[Allowed]:
    """Parses a list like ``127.0.0.1:8099, 10.0.0.0/8, [::1]:80, ::1``. Raises ``Faults`` with each wrong entry of the setting."""
    allowed: list[Allowed] = []
    faults: list[Fault] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            allowed.append(_entry(part))
        except ValueError:
            message = f'expected an address, address:port or network like 10.0.0.0/8, found "{part}"'
            faults.append(Fault("settings", None, key, message))
    if faults:
        raise Faults(faults)
    return allowed


def _entry(part: str) -> Allowed:
    """One entry of the list. Raises ValueError."""
    host, colon, port = part.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if colon and (bracketed or ":" not in host):
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError(part)
        return Allowed(ipaddress.ip_network(host.strip("[]") if bracketed else host), int(port))
    return Allowed(ipaddress.ip_network(part.strip("[]") if part.startswith("[") else part))


def parse_origins(text: str) -> dict[str, str]:
    """Parses ``https://www.example.org=http://127.0.0.1:8099/www.example.org,…`` into {origin: where to connect}.

    Raises ``Faults`` with each entry that is not an address without a path, ``=``, and an address.
    """
    origins: dict[str, str] = {}
    faults: list[Fault] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        origin, equals, target = part.partition("=")
        target = target.rstrip("/")
        try:
            if not (equals and _ORIGIN.fullmatch(origin.rstrip("/")) and _ORIGIN.match(target)):
                raise ValueError(part)
            origins[origin_of(origin)] = target
        except ValueError:
            message = f'expected ORIGIN=ADDRESS like https://www.example.org=http://127.0.0.1:8099, found "{part}"'
            faults.append(Fault("settings", None, "fetch.origins", message))
    if faults:
        raise Faults(faults)
    return origins


def system_resolve(host: str, port: int) -> list[Target]:
    """The system's addresses for a name, in its order.

    Raises ``socket.gaierror``, or UnicodeError for an invalid name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found if family in (socket.AF_INET, socket.AF_INET6)]  # type: ignore[misc]


class Guard:
    """Judges addresses. ``resolve`` looks names up; tests bring their own."""

    def __init__(self, allow: Iterable[Allowed] = (), resolve: Resolve = system_resolve) -> None:
        self._allow = tuple(allow)
        self.resolve = resolve

    def permits(self, text: str, port: int) -> bool:
        """Whether a fetch may connect to an address, given as text with or without a zone."""
        try:
            address: Address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address in MAPPED:
            address = _carried(address)
        if any(entry.covers(address, port) for entry in self._allow):
            return True
        return is_public(address) and not is_own(address)

    def filter(self, host: str, port: int, targets: list[Target]) -> list[Target]:
        """Those of a name's addresses that are permitted. Raises BlockedAddress when there is none."""
        permitted = [target for target in targets if self.permits(str(target[1][0]), port)]
        if not permitted:
            found = ", ".join(sorted({str(target[1][0]) for target in targets})) or "no address"
            shown = found if found == host.strip("[]") else f"{host} ({found})"
            raise BlockedAddress(f"expected a public address, found {shown}, port {port}")
        return permitted

    def named(self, host: str, port: int) -> list[str]:
        """What a proxy that looks names up itself may be asked for: permitted addresses, and names that are not local.

        The proxy has to judge where such a name leads. Raises BlockedAddress.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            bare = host.lower().rstrip(".")
            is_local = any(f".{bare}".endswith(f".{local}") for local in LOCAL_NAMES)
            if is_local or not _NAME.fullmatch(host) or _NUMBER.fullmatch(bare.rpartition(".")[2]):
                raise BlockedAddress(f"expected a public address or name, found {host}, port {port}") from None
            return [host]
        targets: list[Target] = [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]
        return [str(address[0]) for _, address in self.filter(host, port, targets)]
