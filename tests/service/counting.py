"""A site that counts: when each fetch began and ended, and how many ran at once. Who hangs up is no longer counted."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

BODY = b'{"rows": [{"id": 1}], "next": "%b"}'


@dataclass
class Fetch:
    """One fetch: of which host, its path, params and headers, and when it came and was over (monotonic seconds)."""

    host: str
    path: str
    params: dict[str, str]
    began: float
    over: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Rule:
    """What a host answers instead of its rows. A header may be made when it is answered."""

    status: int = 200
    headers: dict[str, str | Callable[[], str]] = field(default_factory=dict)
    body: bytes | None = None
    times: int = 1_000_000


class CountingSite:
    """``/HOST/…?seconds=S`` answers after S seconds; ``&pages=N`` has N more pages. ``rules`` bend a host, by its prefix.

    S may be ``gate``: until ``gate`` is set.
    Who has what a rule's ETag or Last-Modified says is answered 304.
    """

    def __init__(self) -> None:
        self.fetches: list[Fetch] = []
        self.rules: dict[str, Rule] = {}
        self._lock = threading.Lock()
        self._open: dict[str, list[socket.socket]] = {}
        self.peaks: dict[str, int] = {}
        self.gate = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 512
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that was killed is nothing to talk about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()

    def origins(self, *hosts: str) -> str:
        """Sends fetches of https hosts here."""
        return ",".join(f"https://{host}=http://127.0.0.1:{self.port}/{host}" for host in hosts)

    def of(self, host: str, path: str = "") -> list[Fetch]:
        """The fetches of a host (of one path), in the order in which they came."""
        with self._lock:
            return [one for one in self.fetches if one.host == host and path in ("", one.path)]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Counts one fetch, and answers it."""
        parts = urlsplit(handler.path)
        host, _, path = parts.path.removeprefix("/").partition("/")
        params = {key: values[0] for key, values in parse_qs(parts.query).items()}
        fetch = Fetch(host, f"/{path}", params, time.monotonic(), headers=dict(handler.headers.items()))
        with self._lock:
            self.fetches.append(fetch)
            there = self._open.setdefault(host, [])
            there.append(handler.connection)
            # Its thread may not have seen yet that who was killed hung up.
            self.peaks[host] = max(self.peaks.get(host, 0), len(there) - len(select.select(there, [], [], 0)[0]))
            rule = self.rules.get(f"{host}{fetch.path}") or self.rules.get(host) or Rule()
            rule.times -= 1
            if rule.times < 0:
                rule = Rule()
        seconds, hung_up = params.get("seconds", "0"), []
        while seconds == "gate" and not hung_up and not self.gate.is_set():
            hung_up, _, _ = select.select([handler.connection], [], [], 0.02)
        if seconds != "gate":
            hung_up, _, _ = select.select([handler.connection], [], [], float(seconds))
        with self._lock:
            there.remove(handler.connection)
            fetch.over = time.monotonic()
        if hung_up:
            handler.close_connection = True
            return
        pages = int(params.get("pages", 0))
        following = f"https://{host}/{path}?pages={pages - 1}".encode() if pages else b""
        body = BODY % following if rule.body is None else rule.body
        is_unchanged = rule.status == 200 and _is_unchanged(rule.headers, fetch.headers)
        body = b"" if is_unchanged else body
        handler.send_response(304 if is_unchanged else rule.status)
        for name, text in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **rule.headers,
        }.items():
            handler.send_header(name, text() if callable(text) else text)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def site() -> Iterator[CountingSite]:
    """A site of a test, for whoever imports this."""
    started = CountingSite()
    yield started
    started.stop()


def _is_unchanged(has: dict[str, str], asked: dict[str, str]) -> bool:
    """Whether the client has the page (RFC 9110, 13.2.2: by the tag where it names one)."""
    if "If-None-Match" in asked:
        return has.get("ETag") == asked["If-None-Match"]
    return "Last-Modified" in has and has["Last-Modified"] == asked.get("If-Modified-Since")
