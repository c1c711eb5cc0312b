"""Obeys the robots.txt (RFC 9309) of hosts whose source asks for that.

    Robots.check → kept, or get → /robots.txt     a fetch like any other, by the request's own egress
                 → BlockedAddress, or nothing     the crawl delay goes to ``delay``

A process reads each robots.txt once an hour. The crawl delay holds for the whole region.
"""

import re
import threading
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from protego import Protego

from jobs.errors import BlockedAddress, HttpStatus, TooLarge
from jobs.origin import origin_of
from jobs.page import Page, Request

KEPT_SECONDS: Final = 3_600.0  # RFC 9309 allows a day
HOSTS_MAX: Final = 1_000
FETCHED_BYTES_MAX: Final = 4_000_000
READ_BYTES_MAX: Final = 512_000  # the rest is ignored, as RFC 9309 (2.5) permits
# Of a robots.txt: one that names thousands of user agents for thousands of rules would fill the memory.
RULES_MAX: Final = 100_000
KEPT_RULES_MAX: Final = 50_000  # of all hosts

_AGENT: Final = re.compile(r"\s*user[\s-]*agent", re.IGNORECASE)
_RULE: Final = re.compile(r"\s*(?:dis)?allow\s*:", re.IGNORECASE)

Get = Callable[[Request], Page]


class Robots:
    """The rules that a worker process has read. Its threads share them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, Protego]] = {}  # by origin and egress
        self._rules = 0  # of all of them
        self._lock = threading.Lock()

    def check(self, request: Request, agent: str, get: Get, delay: Callable[[float], None], granted: float) -> None:
        """Raises BlockedAddress when the host's robots.txt forbids ``agent`` the address, TooLarge, and what ``get`` raises.

        ``delay`` is called with the crawl delay in seconds if the task's turn was ``granted`` (monotonic) before the rules were
        read: such a turn knows nothing of it. Without a robots.txt (any 4xx but 429) all is allowed. When it can't be fetched,
        nothing is, until it can.
        """
        origin = origin_of(request.url)
        until, rules = self._known.get((origin, request.egress), (0.0, None))
        is_new = rules is None or until < time.monotonic()
        count = 0
        if rules is None or is_new:
            rules, count = self._read(origin, request, get)
        if (seconds := rules.crawl_delay(agent)) and (is_new or granted <= until - KEPT_SECONDS):
            delay(seconds)
        # After the delay, so that a thread that uses these rules has a turn with the delay, or an older turn.
        if is_new:
            self._keep((origin, request.egress), rules, count)
        if not rules.can_fetch(request.url, agent):
            host = urlsplit(request.url).hostname
            raise BlockedAddress(f"robots.txt of {host} keeps {agent!r} from this address, and the source honours it")

    def _read(self, origin: str, request: Request, get: Get) -> tuple[Protego, int]:
        """The rules of an origin, and about how many they are."""
        page = get(Request(url=f"{origin}/robots.txt", egress=request.egress))
        if page.status == 429 or page.status >= 500:
            raise HttpStatus(
                f"expected robots.txt of {origin}, found status {page.status}",
                http_status=page.status,
                retryable=True,
            )
        text = page.body[:READ_BYTES_MAX].decode("utf-8", "replace") if 200 <= page.status < 300 else ""
        count = rules_in(text)
        if count > RULES_MAX:
            raise TooLarge(f"expected robots.txt of {origin} with at most {RULES_MAX} rules, found more")
        return Protego.parse(text), count

    def _keep(self, key: tuple[str, str], rules: Protego, count: int) -> None:
        with self._lock:
            if len(self._known) >= HOSTS_MAX or self._rules + count > KEPT_RULES_MAX:
                self._known.clear()
                self._rules = 0
            self._known[key] = time.monotonic() + KEPT_SECONDS, rules
            self._rules += count


def rules_in(text: str) -> int:
    """The number of rules that Protego makes of a robots.txt, or some more: it makes those of a group for each of its user agents."""
    count = agents = 0
    is_over = False  # the next user agent begins another group
    for line in text.splitlines():
        if _AGENT.match(line):
            agents, is_over = 1 if is_over else agents + 1, False
        elif line and not line.isspace():
            count += agents
            is_over = is_over or _RULE.match(line) is not None
    return count
