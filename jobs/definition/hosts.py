"""Which hosts an address may lead to, where params decide that: a definition names them, or it is refused.

    https://shop.example/{path}          the template has one origin: nothing to name
    https://{zone}.shop.example/         *.shop.example, by itself
    https://{host}/ with an enum         those of the enum, by themselves
    {+url}                               hosts = ["shop.example", "*.shop.example:8443"] of the param
                                         or any_host = true of the source, where its region allows that; hosts then
                                         name further ports: "*:8443"

The gateway holds params against it, and a worker does so again: what a message says is nobody's word.
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
COMBINATIONS_MAX: Final = 1_000  # of enums that make a host
SHOWN_MAX: Final = 5  # hosts that a message names

# What stands before the path, in a spelling that every reader of addresses understands alike: no credentials, no
# escapes, no backslash.
_AUTHORITY: Final = re.compile(r"(https?)://(\[[0-9a-f:.]++\]|\w[\w.-]*+)(?::(\d{1,5}+))?(?![^/?#])", re.IGNORECASE)
_PATTERN: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|(?:\*\.)?\w(?:[\w.-]*\w)?|\*(?=:))(?::(\d{1,5}))?")
_PIECE: Final = re.compile(r"\{([+#./;?&]?)([^{}]*+)\}|[^{]+")
_SUFFIX: Final = re.compile(
    r"https?://(?:[\w.-]|\{\w+\})*\{\w+\}[\w-]*((?:\.[\w-]+){2,}(?::\d+)?)(?:[/?#]|\{[/?#]|$)", re.IGNORECASE
)


class Elsewhere(ValueError):  # noqa: N818 - says what is wrong
    """An address that does not lead where its definition says; ``param`` is what led it there, where that is one."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.param = param


def check(url: str, hosts: Sequence[str], led_by: Sequence[str] = ()) -> None:
    """Raises ``Elsewhere`` for an address that leads to none of the hosts."""
    place = _place(url)
    if place is not None and any(_fits(place, one) for one in hosts):
        return
    wanted = f"an address of {shown(hosts)}" if ANY not in hosts else f"an http or https address on {_ports(hosts)}"
    raise Elsewhere(f"expected {wanted}, found {url[:80]!r}", led_by[0] if len(led_by) == 1 else "")


def _ports(hosts: Sequence[str]) -> str:
    """The ports that any host may be asked on."""
    return f"port {', '.join(['80', '443', *(str(_split(one)[1]) for one in hosts if one.startswith('*:'))])}"


def shown(hosts: Sequence[str]) -> str:
    """Hosts as a message names them."""
    more = f" and {len(hosts) - SHOWN_MAX} more" if len(hosts) > SHOWN_MAX else ""
    return ", ".join(hosts[:SHOWN_MAX]) + more


def leaders(template: str) -> list[str]:
    """The params that decide which host a template leads to; none where it has one origin."""
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
    """The hosts that a template may lead to; none where it has one origin. A fault where nothing names them."""
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
    """The hosts that enums make; None where one of the params has none."""
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
    """An address's host and port; None where they can't be told for sure."""
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
