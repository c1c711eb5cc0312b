"""An origin for the fetcher's tests. It sends the bytes that a test wants, over plain sockets or TLS."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

Say = Callable[["Spoken"], None]


class Spoken:
    """One request that arrived, and the socket to answer on."""

    def __init__(self, connection: socket.socket, number: int, head: bytes) -> None:
        self.connection = connection
        self.number = number  # of the connection, from 1
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = lines[0].split(" ")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.body = b""

    def say(self, data: bytes) -> None:
        self.connection.sendall(data)

    def answer(self, body: bytes = b"", status: str = "200 OK", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.say("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)


class Origin:
    """Listens on loopback, and calls ``say`` for each request until the connection is closed."""

    def __init__(self, say: Say, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Spoken] = []
        self.connections = 0
        self._say, self._context = say, context
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """May be called twice."""
        if self._listener.fileno() != -1:
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            stream = connection.makefile("rb")
            while head := self._head(stream):
                spoken = Spoken(connection, number, head)
                spoken.body = stream.read(int(spoken.headers.get("content-length", 0)))
                self.requests.append(spoken)
                self._say(spoken)
        except (OSError, ValueError):
            return  # the fetcher went away, or the test is over

    def _head(self, stream) -> bytes:
        head = b""
        while line := stream.readline():
            if line == b"\r\n":
                return head.removesuffix(b"\r\n")
            head += line
        return b""


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for a name, and a context that serves it."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context
