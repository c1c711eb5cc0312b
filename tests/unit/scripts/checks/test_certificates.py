"""Certificates on real TLS ports: expired, for another name, of a CA that nobody trusts, and one that is well."""

import socket
import ssl
import subprocess
import threading

import pytest

from regions import settings
from scripts.checks import certificates
from scripts.stack.ports import free_port


@pytest.fixture
def served(tmp_path):
    """Serves a certificate for 127.0.0.1 on a port; gives the port and its file."""
    servers = []

    def serve(*options: str, name: str = "IP:127.0.0.1"):
        cert, key = tmp_path / f"cert{len(servers)}.pem", tmp_path / f"key{len(servers)}.pem"
        words = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=test",
        ]
        # What Python 3.13 asks of a certificate that is its own CA.
        words += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
        words += ["-addext", f"subjectAltName={name}", "-keyout", str(key), "-out", str(cert), *options]
        subprocess.run(words, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        listener = socket.create_server(("127.0.0.1", 0))
        servers.append(listener)
        threading.Thread(target=accept, args=(listener, context), daemon=True).start()
        return listener.getsockname()[1], cert

    yield serve
    for listener in servers:
        listener.close()


def accept(listener, context) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        try:
            context.wrap_socket(plain, server_side=True).close()
        except OSError:  # the client did not like it
            plain.close()


def look(url: str):
    """What is found of a region's Redis at a URL, by the settings that name it."""
    found = certificates.of(settings.load({"NEARFETCH__REGION__FRA__REDIS__URL": url}))
    (one,) = [one for one in found if one[0] == "Redis of fra"]
    (finding,) = certificates.seen(*one)
    return finding


def test_a_certificate_that_expired_is_wrong_and_says_since_when(served):
    port, cert = served("-not_before", "20200101000000Z", "-not_after", "20210101000000Z")
    found = look(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}")
    assert (found.severity, found.found) == ("wrong", "it expired 2021-01-01 00:00 UTC")
    assert "renew" in found.mend


def test_one_that_expires_soon_could_be_better_and_one_that_does_not_is_fine(served):
    for days, severity in (("3", "better"), ("400", "fine")):
        port, cert = served("-days", days)
        assert look(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}").severity == severity


def test_another_name_and_an_unknown_ca_are_wrong(served):
    port, cert = served("-days", "400", name="DNS:other.example")
    found = look(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={cert}")
    assert (found.severity, "127.0.0.1" in found.found) == ("wrong", True), "its client checks the name, so it does"
    found = look(f"rediss://127.0.0.1:{port}/0")
    assert (found.severity, found.found) == ("wrong", "self-signed certificate")
    assert look(f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none").severity == "fine", "what its client takes is taken"


def test_every_url_with_tls_is_looked_at():
    environ = {
        "NEARFETCH__HUB__REDIS": "rediss://a.example:1,b.example:2/0", "NEARFETCH__HUB__AMQP": "amqps://u:p@r.example/%2F",
        "NEARFETCH__HUB__MANAGEMENT_URL": "https://u:p@m.example", "NEARFETCH__GATEWAY__PUBLIC_URL": "https://g.example/",
    }  # fmt: skip
    found = certificates.of(settings.load(environ), "https://asked.example:444")
    assert sorted((host, port) for _, host, port, _ in found) == [
        ("a.example", 1), ("asked.example", 444), ("b.example", 2), ("g.example", 443), ("m.example", 443), ("r.example", 5671),
    ]  # fmt: skip


def test_a_port_without_tls_or_without_a_server_shows_no_certificate():
    assert look(f"rediss://127.0.0.1:{free_port()}/0").severity == "unseen"
