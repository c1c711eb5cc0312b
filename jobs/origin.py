"""An origin: scheme, name and port of an address. A host's turns, its credentials and its mapping go by it."""

import re
from typing import Final
from urllib.parse import urlsplit

PORTS: Final = {"http": 80, "https": 443}

_FIXED: Final = re.compile(r"(https?://[^/?#{}]+)(?:[/?#]|\{[/?#]|$)", re.IGNORECASE)


# An address that nothing rewrites: a name in lower case, no credentials, escapes, dot segments and fragment.
_PLAIN: Final = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::([1-9][0-9]{0,3}))?"
    r"(?![^?]*/\.)/[A-Za-z0-9._~!$&'()*+,;=:/-]*(?:\?[A-Za-z0-9._~!$&'()*+,;=:/?-]+)?"
)


def is_plain(url: str) -> bool:
    """Whether an address is written as it is sent, so that nobody has to take it apart; most are."""
    return _PLAIN.fullmatch(url) is not None


def origin_of(url: str) -> str:
    """``https://www.example.org:443``, always with the port. Raises ValueError for what is no http or https address."""
    if (plain := _PLAIN.fullmatch(url)) is not None:
        scheme, name, given = plain.groups()
        return f"{scheme}://{name}:{given or PORTS[scheme]}"
    parts = urlsplit(url)
    name = (parts.hostname or "").rstrip(".")
    port = PORTS.get(parts.scheme) if parts.port is None else parts.port
    if not name or port is None or parts.scheme not in PORTS:
        raise ValueError(f"expected an http or https address, found {url[:80]!r}")
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}"


def fixed_origin(template: str) -> str:
    """The origin that every address of an RFC 6570 template has; "" where params decide it."""
    found = _FIXED.match(template)
    return origin_of(found[1]) if found else ""
