"""The site of ``bench geo``, on the loopback address: ``python -m scripts.bench.geo_site PORT CERTIFICATE KEY``.

It speaks TLS, sends packed pages with gzip, as sites do, and heads as long as theirs.

    GET /kept/PAGE?n=NUMBER   a page (scripts.bench.geo_pages); the connection stays open
    GET /new/PAGE?n=NUMBER    the same, and the connection is closed, so that the next fetch needs a new one
    GET /_held                {"held": 0, "served": all pages so far}
"""

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Final

from scripts.bench import geo_pages
from scripts.bench.page_server import Pages, serve
from scripts.stack.services import Failed

# What a shop behind a CDN sends with a page.
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 29 Nov 2026 04:14:00 GMT\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
    b"Cache-Control: private, max-age=0, must-revalidate\r\nVary: Accept-Encoding, Cookie\r\nServer: edge\r\n"
    b"Strict-Transport-Security: max-age=31536000; includeSubDomains\r\nX-Content-Type-Options: nosniff\r\n"
    b"Content-Security-Policy: default-src 'self' https:; img-src 'self' data: https:; frame-ancestors 'self'\r\n"
    b'X-Request-Id: 6f1c2d7e-0b9a-4c55-9a53-2f60c8d1e7aa\r\nAlt-Svc: h3=":443"; ma=86400\r\n%b\r\n'
)


class GeoPages(Pages):
    """The pages of this site. ``body`` is called for each request."""

    def __init__(self) -> None:
        super().__init__()
        self._answers: dict[bytes, list[bytes]] = {}
        for page in geo_pages.made().values():
            packed = b"Content-Encoding: gzip\r\n" if page.is_packed else b""
            for connection, more in (("kept", packed), ("new", packed + b"Connection: close\r\n")):
                head = HEAD % (page.content_type.encode(), len(page.sent), more)
                self._answers[f"/{connection}/{page.name}".encode()] = [head, page.sent]

    def body(self, path: bytes, number: int) -> list[bytes]:
        """Head and body of a page; 404 when there is none."""
        del number
        found = self._answers.get(path)
        if found is None:
            return [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
        self.served += 1
        return found


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for the loopback address, and its key. Raises ``Failed``."""
    made, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example,IP:127.0.0.1"]
    try:
        subprocess.run([*command, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(f"openssl can't make a certificate: {error}") from error
    return made, key


if __name__ == "__main__":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    asyncio.run(serve(int(sys.argv[1]), GeoPages(), context))
