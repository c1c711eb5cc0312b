"""The hosts that an address may lead to if params decide that. A definition must name them.

    https://shop.example/{path}          the template has one origin: no need to name hosts
    https://{zone}.shop.example/         implies *.shop.example
    https://{host}/ with an enum         implies those of the enum
    {+url}                               needs hosts = ["shop.example", "*.shop.example:8443"] in the param
                                         or any_host = true for the source, if its region allows that; hosts
                                         then names further ports: "*:8443"

The gateway checks params against the hosts. A worker checks again, since a message may be forged.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import uritemplate

from jobs.definition.reader import Reader, Where
from jobs.origin import PORTS, fixed_origin

if TYPE_CHECKING:
    from jobs.definition.params import Param

ANY: Final = "*"
COMBINATIONS_MAX: Final = 1_000  # of enum values that are tried for the host
SHOWN_MAX: Final = 5  # hosts that a message lists

# The part before the path, in a spelling that every URL parser reads alike: no credentials, no escapes, no backslash.
_AUTHORITY: Final = re.compile(r"(https?)://(\[[0-9a-f:.]++\]|\w[\w.-]*+)(?::(\d{1,5}+))?(?![^/?#])", re.IGNORECASE)
_PATTERN: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|(?:\*\.)?\w(?:[\w.-]*\w)?|\*(?=:))(?::(\d{1,5}))?")
_PIECE: Final = re.compile(r"\{([+#./;?&]?)([^{}]*+)\}|[^{]+")
_SUFFIX: Final = re.compile(
    r"https?://(?:[\w.-]|\{\w+\})*\{\w+\}[\w-]*((?:\.[\w-]+){2,}(?::\d+)?)(?:[/?#]|\{[/?#]|$)", re.IGNORECASE
)


class HostRefused(ValueError):  # noqa: N818 - says what is wrong
    """An address that leads to a host that its definition does not name. ``param`` is the param that led it there, if only one did."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.param = param


def check(url: str, hosts: Sequence[str], led_by: Sequence[str] = ()) -> None:
    """Raises ``HostRefused`` for an address that leads to none of the hosts."""
    place = _place(url)
    if place is not None and any(_fits(place, one) for one in hosts):
        return
    wanted = f"an address of {shown(hosts)}" if ANY not in hosts else f"an http or https address on {_ports(hosts)}"
    raise HostRefused(f"expected {wanted}, found {url[:80]!r}", led_by[0] if len(led_by) == 1 else "")


def _ports(hosts: Sequence[str]) -> str:
    """The ports that are allowed on any host."""
    return f"port {', '.join(['80', '443', *(str(_split(one)[1]) for one in hosts if one.startswith('*:'))])}"


def shown(hosts: Sequence[str]) -> str:
    """Hosts as messages list them."""
    more = f" and {len(hosts) - SHOWN_MAX} more" if len(hosts) > SHOWN_MAX else ""
    return ", ".join(hosts[:SHOWN_MAX]) + more


def leaders(template: str) -> list[str]:
    """The params that decide which host a template leads to; none if it has one origin."""
    if not template or fixed_origin(template):
        return []
    found: list[str] = []
    for piece in _PIECE.finditer(template):
        if piece[2] is None:
            if re.search("[/?#]", re.sub("^[A-Za-z]*://", "", piece[0])):
                break
        elif piece[1] in ("/", "?", "#"):
            break
        else:
            found += uritemplate.variables(piece[0])
    return found


def read_hosts(reader: Reader, raw: Any, where: Where) -> tuple[str, ...]:
    """``hosts`` of a param."""
    hosts = []
    for index, one in enumerate(raw):
        found = _PATTERN.fullmatch(one)
        if found is None or not 0 < int(found[2] or 1) < 65_536:
            message = f'expected a host like "example.org", "*.example.org" or "example.org:8443", found "{one}"'
            reader.fault((*where, index), message)
        else:
            hosts.append(one.lower())
    return tuple(hosts)


def hosts_of(
    reader: Reader, template: str, where: Where, params: Mapping[str, "Param"], *, any_host: bool
) -> tuple[str, ...]:
    """The hosts that a template may lead to; none if it has one origin. A fault if the definition does not name them."""
    led_by = [name for name in leaders(template) if name in params]
    if not led_by:
        return ()
    named = tuple(dict.fromkeys(host for name in led_by for host in params[name].hosts))
    if any_host:
        return (ANY, *named)
    for one in named:
        if one.startswith("*:"):
            reader.fault(("params", led_by[0], "hosts"), f'expected any_host = true beside "{one}"')
    if (suffix := _SUFFIX.match(template)) is not None:
        return (f"*{suffix[1].lower()}",)
    if (listed := _of_enums(template, {name: params[name].enum for name in led_by})) is not None:
        return listed
    if not named:
        at: Where = ("params", led_by[0])
        reader.fault(
            at,
            f'expected hosts, since it decides where {".".join(map(str, where))} leads: hosts = ["example.org", "*.example.org"]; '
            "or any_host = true above the first table, where the region allows it",
        )
    return named


def _of_enums(template: str, enums: Mapping[str, Sequence[Any]]) -> tuple[str, ...] | None:
    """The hosts that enums produce; None if one of the params has no enum."""
    if not all(enums.values()):
        return None
    found: dict[str, None] = {}
    for chosen in itertools.islice(itertools.product(*enums.values()), COMBINATIONS_MAX):
        place = _place(uritemplate.expand(template, dict(zip(enums, map(str, chosen), strict=True))))
        if place is not None:
            host, port = place
            found[host if port in PORTS.values() else f"{host}:{port}"] = None
    return tuple(found)


def _place(url: str) -> tuple[str, int] | None:
    """An address's host and port; None if they are not certain."""
    found = _AUTHORITY.match(url)
    if found is None:
        return None
    port = PORTS[found[1].lower()] if found[3] is None else int(found[3])
    return found[2].lower().rstrip("."), port


def _fits(place: tuple[str, int], pattern: str) -> bool:
    host, port = place
    wanted, wanted_port = (ANY, 0) if pattern == ANY else _split(pattern)
    is_host = wanted == ANY or (host.endswith(wanted[1:]) if wanted.startswith("*.") else host == wanted)
    return is_host and (port == wanted_port if wanted_port else port in PORTS.values())


def _split(pattern: str) -> tuple[str, int]:
    """A pattern's host and port, 0 for none."""
    found = _PATTERN.fullmatch(pattern)
    assert found is not None
    return found[1].lower(), int(found[2] or 0)
