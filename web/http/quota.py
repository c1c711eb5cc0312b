"""Bounds the bytes that a gateway holds for its clients, in all and for each address, whatever the clients do."""

import ipaddress
import threading
from typing import Final, Literal

FREE_BYTES: Final = 16_384  # of each connection, without quota: small requests and answers always have room

Over = Literal["", "address", "gateway"]  # whose share is used up; "" if there is room


def network_of(address: str) -> str:
    """Whose share an address uses: an IPv4 address itself, or the /64 network of an IPv6 one, since every client has a /64."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.IPv6Network((found, 64), strict=False))


class Quota:
    """Counts the bytes that are held for clients. Every method may be called from any thread."""

    def __init__(self, bytes_max: int, address_share: float) -> None:
        """``address_share``: the share, up to 1, that one address may have."""
        self._bytes_max, self._address_bytes_max = bytes_max, int(bytes_max * address_share)
        self._lock = threading.Lock()
        self._by_address: dict[str, int] = {}
        self.held = 0
        self.peak = 0  # the most that was held since ``begin_peak``

    def take(self, address: str, size: int) -> Over:
        """Takes ``size`` bytes, or none if that exceeds a share; returns whose."""
        with self._lock:
            mine = self._by_address.get(address, 0) + size
            if self.held + size > self._bytes_max:
                return "gateway"
            if mine > self._address_bytes_max:
                return "address"
            self._by_address[address] = mine
            self.held += size
            self.peak = max(self.peak, self.held)
            return ""

    def begin_peak(self) -> None:
        """Begins a new peak, with what is held now."""
        with self._lock:
            self.peak = self.held

    def give_back(self, address: str, size: int) -> None:
        """Gives bytes back that were taken."""
        with self._lock:
            left = self._by_address.get(address, 0) - size
            if left > 0:
                self._by_address[address] = left
            else:
                self._by_address.pop(address, None)
            self.held -= size
