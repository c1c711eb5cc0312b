"""How a region goes out: a fetcher for each of its egresses."""

import ipaddress
from collections.abc import Callable
from typing import Any, Protocol

from requests.cookies import RequestsCookieJar

from jobs.fetch import Fetcher
from jobs.guard import parse_allow, parse_origins
from jobs.page import Page, Request
from regions.faults import Fault, Faults
from regions.settings import Region, Settings


class Fetches(Protocol):
    """What answers requests: ``jobs.fetch.Fetcher``, or answers that were kept."""

    def fetch(
        self,
        request: Request,
        *,
        deadline: float,
        timeout_seconds: float,
        max_bytes: int,
        cancelled: Callable[[], bool],
        jar: RequestsCookieJar | None = None,
    ) -> Page:
        """The page at the end of a request's redirects; raises TaskError."""

    def close(self) -> None:
        """Lets go of what it holds."""


def fetchers_of(settings: Settings, region: Region) -> dict[str, Fetches]:
    """A fetcher for each way out of a region; raises ``Faults`` with all that is wrong with them."""
    faults: list[Fault] = []
    allow, origins = (
        collected(faults, parse, text)
        for parse, text in ((parse_allow, settings.fetch.allow), (parse_origins, settings.fetch.origins))
    )
    for name, egress in region.egress.items():
        where = f"egress.{name}"
        if egress.proxy:
            message = "expected none (fetches through a proxy are not supported), found one"
            faults.append(Fault(f"{region.name}.toml", None, f"{where}.proxy", message))
        if egress.source_address and not is_address(egress.source_address):
            message = f'expected an address of this machine, found "{egress.source_address}"'
            faults.append(Fault(f"{region.name}.toml", None, f"{where}.source_address", message))
    if faults:
        raise Faults(faults)
    return {
        name: Fetcher(
            allow=allow,
            origins=origins,
            user_agent=egress.user_agent,
            source_address=egress.source_address,
            connections=region.workers.threads,
        )
        for name, egress in region.egress.items()
    }


def collected(faults: list[Fault], parse: Callable[[str], Any], text: str) -> Any:
    """What ``parse`` makes of a setting; its faults are added to the others."""
    try:
        return parse(text)
    except Faults as found:
        faults += found.faults
        return None


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
