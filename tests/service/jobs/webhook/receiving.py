"""A receiver of webhooks: a real HTTP server that keeps what it gets, and answers as it is told."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="


class Got:
    """One call: its headers, and its body as bytes."""

    def __init__(self, headers: dict[str, str], body: bytes) -> None:
        self.headers, self.body = headers, body
        self.id = headers["webhook-id"]
        self.message = Webhook(SECRET).verify(body, headers)  # raises where it is not signed by the standard


class Receiver:
    """``answers``: what it does with each call in turn, the last one for all that follow: a status, or a function of the handler."""

    def __init__(self, *answers, port: int = 0, host: str = "127.0.0.1") -> None:
        self.answers = list(answers) or [204]
        self.got: list[Got] = []
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                return  # a sender that was killed

        self.server = Server((host, port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=hidden"

    def ids(self) -> list[str]:
        return [one.id for one in self.got]

    def _take(self, handler) -> None:
        body = handler.rfile.read(size := int(handler.headers.get("Content-Length", 0)))
        if len(body) < size:
            return  # its sender was killed in between
        with self._lock:
            try:
                assert handler.command == "POST"
                self.got.append(Got(dict(handler.headers), body))
            except Exception as error:  # noqa: BLE001 - shown by the test
                self.wrong.append(repr(error))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer(handler)
            return
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Deaf:
    """A port on which nobody is to connect; counts who did."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.connected = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._socket.accept()[0].close()
                self.connected += 1

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
