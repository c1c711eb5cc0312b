"""How many bytes may be held at once, in all and for one address: what bounds a gateway's memory whatever its clients do."""

import threading
from typing import Final, Literal

FREE_BYTES: Final = 16_384  # of a connection: small requests and answers never ask, and go on when all is taken

Over = Literal["", "address", "gateway"]  # whose part is used up; "" for nobody's


class Quota:
    """Bytes that are held for clients. Every method may be called from any thread."""

    def __init__(self, bytes_max: int, address_share: float) -> None:
        """``address_share``: the part, up to 1, that one address may have."""
        self._bytes_max, self._address_bytes_max = bytes_max, int(bytes_max * address_share)
        self._lock = threading.Lock()
        self._by_address: dict[str, int] = {}
        self.held = 0

    def take(self, address: str, size: int) -> Over:
        """Takes so many bytes, or none where somebody's part would be passed."""
        with self._lock:
            mine = self._by_address.get(address, 0) + size
            if self.held + size > self._bytes_max:
                return "gateway"
            if mine > self._address_bytes_max:
                return "address"
            self._by_address[address] = mine
            self.held += size
            return ""

    def give_back(self, address: str, size: int) -> None:
        """Gives back what was taken."""
        with self._lock:
            left = self._by_address.get(address, 0) - size
            if left > 0:
                self._by_address[address] = left
            else:
                self._by_address.pop(address, None)
            self.held -= size
