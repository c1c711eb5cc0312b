"""The settings of the gateway's HTTP side (``[gateway]``)."""

from typing import Annotated

from msgspec import Meta, Struct

from regions.schedule import Count, Seconds

Port = Annotated[int, Meta(ge=1, le=65535)]
# As a browser writes it (RFC 6454): no path, no blank.
Origin = Annotated[str, Meta(pattern=r"^https?://[^/\s?#@]+$")]
Share = Annotated[float, Meta(gt=0, le=1)]


class Gateway(Struct, frozen=True, forbid_unknown_fields=True):
    """The address of the gateway, its limits, and whether it needs keys.

    ``public_url``: the beginning of links when a proxy stands in front of the gateway. ``cors_origins``: the origins of pages that
    may use it. ``keys``: whether calls need an API key.
    ``connections_max`` bounds the clients at one time, including those that wait; the limit of open files may be lower.
    ``receiving_bytes_max`` bounds the memory for requests that have not arrived whole, ``sending_bytes_max`` that for answers
    that clients have not taken yet. One client address may use ``address_share`` of each. ``takeover_well_seconds``:
    for how long nothing may be wrong with a region before it gets its tasks back from standbys.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    public_url: str = ""
    threads: Count = 8
    connections_max: Count = 60_000
    receiving_bytes_max: Count = 64_000_000
    sending_bytes_max: Count = 256_000_000
    address_share: Share = 0.25
    takeover_well_seconds: Seconds = 60.0
    cors_origins: tuple[Origin, ...] = ()
    keys: bool = False
