"""How far the regions of a stack are from its hub: what ``scripts/up --wan`` says, and the links that make it so.

    bridge            ── REGION.rabbitmq ──> RabbitMQ
    bridge, workers   ── REGION.redis ─────> the central Redis
    fetches at the hub ── REGION.site ─────> the sample site

``80:jitter=5:loss=0.1%:mbit=100`` is a round trip of 80 ms; data takes up to 5 ms more or less each way; of 1,000 packets one is
lost; and all connections of a link together carry 100 Mbit/s each way.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from scripts.stack.wan_links import Rule, Way

RTT_MS: Final = {"fra": 20.0, "nyc": 80.0, "sin": 220.0}
OTHER_RTT_MS: Final = 80.0
FORM: Final = "MS[:jitter=MS][:loss=N%][:mbit=N], like 80:jitter=5:loss=0.1%:mbit=100"
RTT_MAX_MS: Final = 400.0  # a server that takes 500 counts as away
MAX: Final = {"rtt": RTT_MAX_MS, "jitter": 100.0, "loss": 10.0, "mbit": 10_000.0}
FIRST_WINDOW_BYTES: Final = 14_600  # ten packets (RFC 6928)
RABBITMQ, REDIS, SITE = "rabbitmq", "redis", "site"


class Distance(Struct, frozen=True):
    """A region's distance from the hub. ``loss``: percent of packets; ``mbit`` 0 means no limit."""

    rtt_ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0
    mbit: float = 0.0

    @property
    def rule(self) -> Rule:
        """What a link of this distance does."""
        way = Way(
            delay_ms=self.rtt_ms / 2,
            jitter_ms=self.jitter_ms,
            bytes_per_second=self.mbit * 125_000,
            loss=self.loss / 100,
            window_bytes=FIRST_WINDOW_BYTES,
        )
        return Rule(there=way, back=way, opens_ms=self.rtt_ms)

    @property
    def spelled(self) -> str:
        """As ``read`` takes it."""
        more = {"jitter": f"{self.jitter_ms:g}", "loss": f"{self.loss:g}%", "mbit": f"{self.mbit:g}"}
        given = {"jitter": self.jitter_ms, "loss": self.loss, "mbit": self.mbit}
        return ":".join([f"{self.rtt_ms:g}", *(f"{key}={more[key]}" for key, value in given.items() if value)])

    @property
    def shown(self) -> str:
        """For people."""
        more = [f"±{self.jitter_ms:g} ms each way"] * bool(self.jitter_ms)
        more += [f"{self.loss:g} % lost"] * bool(self.loss) + [f"{self.mbit:g} Mbit/s"] * bool(self.mbit)
        return f"{self.rtt_ms:g} ms" + (f" ({', '.join(more)})" if more else "")


class Wan(Struct, frozen=True):
    """The links of a stack: the port of each by its name, the port of ``wan_links.Control``, and each region's distance."""

    control: int
    ports: Mapping[str, int]
    regions: Mapping[str, Distance]


def link(region: str, server: str) -> str:
    """The name of the link between a region and a server of the hub."""
    return f"{region}.{server}"


def read(text: str) -> Distance:
    """The distance that a text says. Raises ValueError with what was expected and what was found."""
    first, *rest = text.split(":")
    found = {"rtt": _number("rtt", first, text)}
    for part in rest:
        key, _, value = part.partition("=")
        if key not in ("jitter", "loss", "mbit") or key in found:
            raise ValueError(f"expected {FORM}, found {part!r} in {text!r}")
        if key == "loss" and not value.endswith("%"):
            raise ValueError(f"expected loss in percent, like loss=0.1%, found {part!r}")
        found[key] = _number(key, value.removesuffix("%") if key == "loss" else value, text)
    distance = Distance(found["rtt"], found.get("jitter", 0.0), found.get("loss", 0.0), found.get("mbit", 0.0))
    if distance.jitter_ms > distance.rtt_ms / 2:
        raise ValueError(f"expected a jitter of at most half the round trip, found {text!r}")
    return distance


def _number(key: str, word: str, text: str) -> float:
    is_plain = word.replace(".", "", 1).isascii() and word.replace(".", "", 1).isdigit()
    if not is_plain:
        raise ValueError(f"expected {FORM}, found {text!r}")
    if not float(word) <= MAX[key] or (key == "mbit" and not float(word)):
        least = "more than 0" if key == "mbit" else "0"
        raise ValueError(f"expected {key} from {least} to {MAX[key]:g}, found {word}")
    return float(word)


def parse(text: str, regions: Sequence[str]) -> dict[str, Distance]:
    """The distance of every region from a text like ``fra=20,sin=220:jitter=5``. Those that it does not name have their default.

    Raises ValueError with all faults, a line each.
    """
    found, faults = {}, []
    for part in filter(None, (part.strip() for part in text.split(","))):
        region, equals, far = part.partition("=")
        if not equals or region not in regions or region in found:
            faults.append(f"--wan: expected REGION={FORM}, each of {', '.join(regions)} once at most, found {part!r}")
            continue
        try:
            found[region] = read(far)
        except ValueError as error:
            faults.append(f"--wan: {region}: {error}")
    if faults:
        raise ValueError("\n".join(faults))
    return {region: found.get(region) or Distance(RTT_MS.get(region, OTHER_RTT_MS)) for region in regions}


def words(wan: Wan, targets: Mapping[str, int]) -> Iterable[str]:
    """The links as arguments of scripts.stack.wan. ``targets``: the port of each server of the hub."""
    for name, port in wan.ports.items():
        region, _, server = name.rpartition(".")
        yield f"{name}={port}:{targets[server]}@{wan.regions[region].spelled}"
