"""An origin: scheme, name and port of an address. A host's turns, its credentials and its mapping go by it."""

import functools
import re
from typing import Final
from urllib.parse import urlsplit

PORTS: Final = {"http": 80, "https": 443}
KNOWN_LENGTH_MAX: Final = 300  # what is longer is no name of DNS

_FIXED: Final = re.compile(r"(https?://[^/?#{}]+)(?:[/?#]|\{[/?#]|$)", re.IGNORECASE)

# An address that nothing rewrites: a name in lower case, no credentials, escapes, dot segments and fragment.
_BEFORE_PATH: Final = r"(https?)://([a-z0-9][a-z0-9.-]*+(?<![.-]))(?::([1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
_PLAIN_ORIGIN: Final = re.compile(_BEFORE_PATH)
_PLAIN: Final = re.compile(
    rf"{_BEFORE_PATH}"
    r"(?![^?]*/\.)/[A-Za-z0-9._~!$&'()*+,;=:/-]*(?:\?[A-Za-z0-9._~!$&'()*+,;=:/?-]+)?"
)


def is_plain(url: str) -> bool:
    """Whether an address is written as it is sent, so that nobody has to take it apart; most are."""
    return _PLAIN.fullmatch(url) is not None


def origin_of(url: str) -> str:
    """``https://www.example.org:443``, always with the port. Raises ValueError for what is no http or https address."""
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
    """The same; "" for what is no http or https address."""
    try:
        return origin_of(url)
    except ValueError:
        return ""


def path_of(url: str) -> str:
    """What the host is asked for, path and query, as requests' ``path_url``."""
    if is_plain(url):
        return url[_slash(url) :]
    parts = urlsplit(url)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


@functools.lru_cache(maxsize=4096)
def host_header(origin: str) -> str:
    """The Host of a request to an origin (RFC 9110, 7.2): without its scheme's own port, and without an interface."""
    scheme, _, place = origin.partition("://")
    name, bracket, port = place.rpartition("]")
    return f"{name.partition('%')[0] if bracket else name}{bracket}{port}".removesuffix(f":{PORTS[scheme]}")


def _slash(url: str) -> int:
    """Where the path of an ordinary address begins; -1 where it has none."""
    return url.find("/", len("https://"))


@functools.lru_cache(maxsize=4096)
def _plain_origin(before_path: str) -> str:
    """The origin of what is written as it is sent, taken apart once a host; "" for anything else."""
    plain = _PLAIN_ORIGIN.fullmatch(before_path)
    if plain is None:
        return ""
    scheme, name, given = plain.groups()
    return f"{scheme}://{name}:{given or PORTS[scheme]}"


def fixed_origin(template: str) -> str:
    """The origin that every address of an RFC 6570 template has; "" where params decide it."""
    found = _FIXED.match(template)
    return origin_of(found[1]) if found else ""
