"""Origins: scheme, name and port of an address. Limits, credentials and address mappings belong to an origin."""

import functools
import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

PORTS: Final = {"http": 80, "https": 443}
KNOWN_LENGTH_MAX: Final = 300  # longer than any DNS name
# RFC 2606 and RFC 6761: nobody has these names, nor those that end with one of them.
RESERVED: Final = ("example", "test", "invalid", "localhost", "example.com", "example.net", "example.org")

_FIXED: Final = re.compile(r"(https?://[^/?#{}]+)(?:[/?#]|\{[/?#]|$)", re.IGNORECASE)

# An address that needs no rewriting: lower-case name, no credentials, escapes, dot segments or fragment.
_BEFORE_PATH: Final = r"(https?)://([a-z0-9][a-z0-9.-]*+(?<![.-]))(?::([1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
_PLAIN_ORIGIN: Final = re.compile(_BEFORE_PATH)
_PLAIN: Final = re.compile(
    rf"{_BEFORE_PATH}"
    r"(?![^?]*/\.)/[A-Za-z0-9._~!$&'()*+,;=:/-]*(?:\?[A-Za-z0-9._~!$&'()*+,;=:/?-]+)?"
)


def is_plain(url: str) -> bool:
    """Whether an address is sent exactly as it is written, so that it need not be parsed. Most are."""
    return _PLAIN.fullmatch(url) is not None


def origin_of(url: str) -> str:
    """The origin, like ``https://www.example.org:443``. Raises ValueError if the address is not http or https."""
    slash = _slash(url)
    if 0 < slash <= KNOWN_LENGTH_MAX and (known := _plain_origin(url[:slash])):
        return known
    parts = urlsplit(url)
    name = (parts.hostname or "").rstrip(".")
    port = PORTS.get(parts.scheme) if parts.port is None else parts.port
    if not name or port is None or parts.scheme not in PORTS:
        raise ValueError(f"expected an http or https address, found {url[:80]!r}")
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}"


def origin_or_none(url: str) -> str:
    """The origin, "" if the address is not http or https."""
    try:
        return origin_of(url)
    except ValueError:
        return ""


def path_of(url: str) -> str:
    """Path and query of an address, like requests' ``path_url``."""
    if is_plain(url):
        return url[_slash(url) :]
    parts = urlsplit(url)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


@functools.lru_cache(maxsize=4096)
def host_header(origin: str) -> str:
    """The Host header for an origin (RFC 9110, 7.2), without the scheme's default port and without an interface."""
    scheme, _, place = origin.partition("://")
    name, bracket, port = place.rpartition("]")
    return f"{name.partition('%')[0] if bracket else name}{bracket}{port}".removesuffix(f":{PORTS[scheme]}")


def _slash(url: str) -> int:
    """The place of the slash that begins the path of an ordinary address; -1 for none."""
    return url.find("/", len("https://"))


@functools.lru_cache(maxsize=4096)
def _plain_origin(before_path: str) -> str:
    """The origin of an address without a path, if it is sent as it is written; otherwise "". Parsed once per host."""
    plain = _PLAIN_ORIGIN.fullmatch(before_path)
    if plain is None:
        return ""
    scheme, name, given = plain.groups()
    return f"{scheme}://{name}:{given or PORTS[scheme]}"


def fixed_origin(template: str) -> str:
    """The origin that all addresses of an RFC 6570 template share; "" if params decide it, or if it is no origin."""
    found = _FIXED.match(template)
    return origin_or_none(found[1]) if found else ""


def is_reserved(origin: str) -> bool:
    """Whether an origin is nobody's: its name is reserved for examples and tests, or it is a loopback address."""
    host = urlsplit(origin).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in RESERVED or host.endswith(tuple(f".{name}" for name in RESERVED))
