"""How a region reaches the network: a fetcher for each of its egresses."""

import socket
from collections.abc import Callable
from typing import Any, Protocol

from jobs.fetch.connection import tls_context
from jobs.fetch.exchange import error_text
from jobs.fetch.fetcher import Fetcher, Terms
from jobs.fetch.guard import parse_allow, parse_origins
from jobs.page import Page, Request
from regions.egress import proxy_of
from regions.faults import Fault, Faults
from regions.settings import Region, Settings


class Fetches(Protocol):
    """Answers requests: ``jobs.fetch.fetcher.Fetcher``, or a class that answers from stored answers."""

    def fetch(self, request: Request, terms: Terms, /) -> Page:
        """The page at the end of a request's redirects. Raises TaskError."""

    def close(self) -> None:
        """Closes what it holds open."""


def fetchers_of(settings: Settings, region: Region, *, elsewhere: bool = False) -> dict[str, Fetches]:
    """A fetcher for each egress of a region. Raises ``Faults`` with everything that is wrong with the egresses.

    ``elsewhere``: this is an author's machine, which does not have the addresses of the region's hosts.
    """
    faults: list[Fault] = []
    allow, origins = (
        collected(faults, parse, text)
        for parse, text in ((parse_allow, settings.fetch.allow), (parse_origins, settings.fetch.origins))
    )
    for name, egress in region.egress.items():
        if egress.source_address and not elsewhere and (fault := why_not_from(egress.source_address)):
            message = f'expected an address of this machine, found "{egress.source_address}": {fault}'
            faults.append(Fault(f"{region.name}.toml", None, f"egress.{name}.source_address", message))
    ca_file = settings.fetch.ca_file
    if ca_file:
        try:
            tls_context(ca_file)
        except OSError as error:
            message = f'expected a file with certificates, found "{ca_file}": {error_text(error)}'
            faults.append(Fault("settings", None, "fetch.ca_file", message))
    if faults:
        raise Faults(faults)
    threads = region.workers.threads
    return {
        name: Fetcher(
            allow=allow, origins=origins, egress=egress, name=name, connections=threads, ca_file=ca_file or None
        )
        for name, egress in region.egress.items()
    }


def collected(faults: list[Fault], parse: Callable[[str], Any], text: str) -> Any:
    """The result of ``parse`` for a setting; its faults are added to ``faults``, and then it is None."""
    try:
        return parse(text)
    except Faults as found:
        faults += found.faults
        return None


def why_not_from(address: str) -> str:
    """Why this machine can't connect from an address; "" when it can."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as tried:
            tried.bind((address, 0))
    except OSError as error:
        return error_text(error)
    return ""


def passwords_of(region: Region) -> dict[str, frozenset[str]]:
    """For each egress through a proxy with a password: the forms in which it is sent, which must not be kept."""
    proxies = {name: proxy_of(egress) for name, egress in region.egress.items()}
    return {
        name: frozenset((proxy.password, f"{proxy.user}:{proxy.password}"))
        for name, proxy in proxies.items()
        if proxy is not None and proxy.password
    }
