"""How a region reaches the sources: its ``[egress.NAME]`` tables, the proxies that they name, and a check of both.

A proxy's URL may hold a password, so messages never show the URL.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from msgspec import Struct

SCHEMES: Final = ("http", "https", "socks5", "socks5h")
# For user and password each: RFC 1929 permits 255, but PySocks encodes the length as UTF-8.
SOCKS_BYTES_MAX: Final = 127


class Egress(Struct, frozen=True, forbid_unknown_fields=True):
    """One way out. ``proxy``: ``SCHEME://USER:PASSWORD@HOST:PORT``; ``proxy_resolves``: the proxy looks up host names."""

    user_agent: str = "nearfetch/0.1"
    proxy: str = ""
    proxy_resolves: bool = False
    source_address: str = ""


@dataclass(frozen=True, slots=True)
class Proxy:
    """``scheme`` is http, https or socks5; ``resolves``: the proxy is given host names instead of addresses."""

    scheme: str
    host: str
    port: int
    user: str = field(repr=False)
    password: str = field(repr=False)
    resolves: bool


def proxy_of(egress: Egress) -> Proxy | None:
    """The proxy of a way out, or None. Raises ValueError, whose message does not show the URL."""
    if not egress.proxy:
        return None
    parts = urlsplit(egress.proxy)
    if parts.scheme not in SCHEMES or not parts.hostname or not parts.port:
        raise ValueError("expected a scheme, a host and a port")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("expected nothing after the port")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    is_socks = parts.scheme.startswith("socks")
    if password and not user:
        raise ValueError("expected a user before the password")
    if is_socks and (bool(user) != bool(password) or max(map(_size, (user, password))) > SOCKS_BYTES_MAX):
        raise ValueError("expected a user and a password that fit into SOCKS")
    return Proxy(
        scheme="socks5" if is_socks else parts.scheme,
        host=parts.hostname,
        port=parts.port,
        user=user,
        password=password,
        resolves=egress.proxy_resolves or parts.scheme == "socks5h",
    )


def without_credentials(proxy: str) -> str:
    """A proxy's URL without user and password, for people."""
    scheme, separator, rest = proxy.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _size(text: str) -> int:
    return len(text.encode())


def wrong_in_egress(egress: Egress) -> Iterator[tuple[str, str]]:
    """Each wrong key of a table, with a message."""
    try:
        proxy_of(egress)
    except ValueError:
        message = (
            "expected http, https, socks5 or socks5h://HOST:PORT, with USER:PASSWORD@ before HOST if it needs them "
            f"(percent-encoded; SOCKS needs both, each of at most {SOCKS_BYTES_MAX} bytes), found a value that is not shown"
        )
        yield "proxy", message
    if egress.proxy_resolves and not egress.proxy:
        yield "proxy_resolves", "expected a proxy beside it, found none"
    if egress.source_address:
        try:
            ipaddress.ip_address(egress.source_address)
        except ValueError:
            yield "source_address", f'expected an address of this machine, found "{egress.source_address}"'
