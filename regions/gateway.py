"""The settings of the HTTP side (``[gateway]``)."""

from typing import Annotated

from msgspec import Meta, Struct

from regions.schedule import Count

Port = Annotated[int, Meta(ge=1, le=65535)]
Share = Annotated[float, Meta(gt=0, le=1)]


class Gateway(Struct, frozen=True, forbid_unknown_fields=True):
    """``public_url`` is what links begin with where a proxy stands in front.

    ``receiving_bytes_max`` and ``sending_bytes_max`` bound what is held of requests that are not whole and of answers that
    are not taken; ``address_share`` is the part of each that one address may have.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    public_url: str = ""
    threads: Count = 8
    receiving_bytes_max: Count = 64_000_000
    sending_bytes_max: Count = 256_000_000
    address_share: Share = 0.25
