"""Short ways to fetch in a test."""

import socket
import time
from collections.abc import Callable

from jobs.fetch.fetcher import Fetcher, Terms
from jobs.page import Page, Request
from tests.service.jobs.fetch.origin import Spoken

OK = b"HTTP/1.1 200 OK\r\n"
FIVE = b"Content-Length: 5\r\n\r\nhello"


def fetch(fetcher: Fetcher, url: str | Request, **options) -> Page:
    request = url if isinstance(url, Request) else get(url)
    defaults = {"deadline": time.monotonic() + 60, "timeout_seconds": 30.0, "max_bytes": 1_000_000}
    return fetcher.fetch(request, Terms(**{**defaults, "cancelled": lambda: False, **options}))


def get(url: str, **options) -> Request:
    return Request(**{"method": "GET", "url": url, **options})


def names_of_loopback(*names: str, asked: list[str] | None = None) -> Callable:
    """A resolver that finds these names on this machine, and nothing else."""

    def resolve(host: str, port: int):
        if asked is not None:
            asked.append(host)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, ("127.0.0.1", port))]

    return resolve


def said(origin, fetcher, answer: bytes, *, hang_up: bool = False, **options):
    """The page of an origin that sends these bytes. It keeps the connection unless it is told to close it."""

    def say(spoken: Spoken) -> None:
        spoken.say(answer)
        if hang_up:
            spoken.hang_up()

    return fetch(fetcher(), origin(say).url, **options)
