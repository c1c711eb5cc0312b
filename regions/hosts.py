"""URLs that name several hosts of one service, in either form that people use.

    redis://:secret@one:6379,two:6379/0                  hosts with commas
    redis://:secret@one/0,redis://:secret@two/0          whole URLs with commas

Any other form is refused with an example of the right one, since the client libraries would take it for a different host.
Messages never show a user or a password.
"""

import re
from typing import Final, Literal

Kind = Literal["redis", "amqp"]

EXAMPLES: Final[dict[Kind, str]] = {
    "redis": "redis://:password@one:6379,two:6379/0",
    "amqp": "amqp://user:password@one:5672,two:5672/%2F",
}
# The settings that hold such URLs, by their last two keys.
SETTINGS: Final[dict[tuple[str, ...], Kind]] = {
    ("hub", "redis"): "redis",
    ("hub", "amqp"): "amqp",
    ("redis", "url"): "redis",
}
_NEXT: Final = re.compile(r",\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")
_DATABASE: Final = re.compile(r"/?\d*(\?.*)?")


def split(urls: str, kind: Kind) -> list[str]:
    """One URL for each host, in order. Raises ValueError with what was expected."""
    found = [one for url in _NEXT.split(urls.strip()) for one in _each(url, kind)]
    if kind == "redis" and len({(before, path) for before, _, path in found}) > 1:
        raise _refused(kind, "the same scheme, user, password and database for every host")
    return ["".join(one) for one in found]


def wrong_in(key: tuple[str, ...], value: str) -> str:
    """What is wrong with a setting; empty when it is right or holds no such URL."""
    try:
        if key[-2:] in SETTINGS:
            split(value, SETTINGS[key[-2:]])
    except ValueError as error:
        return str(error)
    return ""


def _each(url: str, kind: Kind) -> list[tuple[str, str, str]]:
    """For each host: the part of the URL before it, the host, and the part after it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in (kind, f"{kind}s"):
        raise _refused(kind, f"{kind}:// or {kind}s:// before the hosts")
    found = re.search("[/?#]", rest)
    authority, path = (rest[: found.start()], rest[found.start() :]) if found else (rest, "")
    user, at, hosts = authority.rpartition("@")
    if "@" in path:
        raise _refused(kind, "a / in a user or a password written as %2F, a ? as %3F and a # as %23")
    if "," in path:
        raise _refused(kind, "all hosts before the path")
    if "," in user and "@" in user:
        raise _refused(kind, "user and password once, before all hosts, and a comma in them written as %2C")
    if kind == "redis" and not _DATABASE.fullmatch(path):
        raise _refused(kind, "the number of a database after the hosts")
    for host in hosts.split(","):
        match = _HOST.fullmatch(host.strip())
        if match is None or not 0 < int(match[2] or 1) < 65_536:
            raise _refused(kind, "HOST or HOST:PORT between commas")
    return [(f"{scheme}://{user}{at}", host.strip(), path) for host in hosts.split(",")]


def _refused(kind: Kind, expected: str) -> ValueError:
    return ValueError(f"expected {expected}, as in {EXAMPLES[kind]}, found a value that is not shown")
