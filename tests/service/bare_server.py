"""The server alone, with an app that parks on demand."""

import threading
from collections.abc import Callable

from tests.waiting import until
from web.http.exchange import Exchange
from web.http.server import DEFAULT_BOUNDS, EXCHANGE, BodyTooLarge, Bounds, Server, read_body

BIG = bytes(range(256)) * 80_000  # 20 MB: more than any socket's buffers


class Site:
    """A server with an app that parks on demand, and what it saw."""

    def __init__(self, threads: int = 8, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self.parked: list[Exchange] = []
        self.gone: list[Exchange] = []
        self.seen: list[str] = []
        self.go_on = threading.Event()
        self.on_request: Callable[[Exchange], object] = lambda _: None
        self.server = Server("127.0.0.1", 0, self.app, threads, self.body_bytes_max, bounds)
        self.server.prepare()
        self.server.outlet.start()
        self.port = self.server.bind_addr[1]
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()

    @staticmethod
    def body_bytes_max(_: str, path: str) -> int:
        return {"/body": 1_000_000, "/park/body": 1_000_000, "/ignores": 1_000}.get(path, 0)

    def stop(self) -> None:
        self.server.stop()
        self.thread.join()
        self.server.outlet.stop()

    def forget(self, exchange: Exchange) -> None:
        self.gone.append(exchange)

    def again(self, exchange: Exchange) -> None:
        """Its backlog was taken."""

    def app(self, environ, start_response):
        exchange = environ[EXCHANGE]
        path = environ["PATH_INFO"]
        self.seen.append(path)
        self.on_request(exchange)
        if path.startswith("/park"):
            exchange.park()
            exchange.watch(self, exchange)
            self.parked.append(exchange)
            if path == "/park/body":
                read_body(exchange)
            if path == "/park/hold":
                assert self.go_on.wait(60)
            return []
        status, body = "200 OK", path.encode()
        if path == "/big":
            body = BIG
        elif path == "/body":
            try:
                body = read_body(exchange)
            except BodyTooLarge:
                status, body = "413 ", b"too large"
        start_response(status, [("Content-Type", "text/plain")])
        return [body]

    def waits(self, count: int = 1) -> list[Exchange]:
        until(lambda: len(self.parked) >= count, f"{count} parked requests")
        return self.parked
