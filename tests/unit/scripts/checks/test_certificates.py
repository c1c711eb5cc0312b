"""Certificates on real TLS ports: expired, for another name, of a CA that nobody trusts, and one that is well."""

import socket
import ssl
import subprocess
import sys
import threading

import pytest

from regions import connect, settings
from scripts.checks import certificates
from scripts.stack.ports import free_port
from scripts.stack.services import Running, Service


def certificate(folder, *options: str, name: str = "IP:127.0.0.1"):
    """The files of a certificate, which is its own CA, and of its key."""
    number = len(list(folder.glob("cert*.pem")))
    cert, key = folder / f"cert{number}.pem", folder / f"key{number}.pem"
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
    return cert, key


@pytest.fixture
def served(tmp_path):
    """Serves a certificate for 127.0.0.1 on a port; gives the port and its file."""
    servers = []

    def serve(*options: str, name: str = "IP:127.0.0.1"):
        cert, key = certificate(tmp_path, *options, name=name)
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
        "NEARFETCH__HUB__MONGO": "mongodb://u:p@d.example,e.example:5/?tls=true",
    }  # fmt: skip
    found = certificates.of(settings.load(environ), "https://asked.example:444")
    assert sorted((host, port) for _, host, port, _ in found) == [
        ("a.example", 1), ("asked.example", 444), ("b.example", 2), ("d.example", 27017), ("e.example", 5), ("g.example", 443), ("m.example", 443), ("r.example", 5671),
    ]  # fmt: skip


def test_a_port_without_tls_or_without_a_server_shows_no_certificate():
    assert look(f"rediss://127.0.0.1:{free_port()}/0").severity == "unseen"


def of_history(url: str):
    """What is found of the document store at a URL, by the settings that name it."""
    found = certificates.of(settings.load({"NEARFETCH__HUB__MONGO": url}))
    return [finding for one in found if one[0] == "history" for finding in certificates.seen(*one)]


def why_not(url: str) -> str:
    """Why a document store lets no client in, "" if it does."""
    try:
        client = connect.open_mongo(url, name="test")
    except ValueError as error:
        return str(error)
    try:
        client.admin.command("ping")
    except Exception as error:  # noqa: BLE001 - whatever it is, the store was refused, or refused us
        return str(error)
    finally:
        client.close()
    return ""


def store(folder, cert, key, trusted: str, *words: str) -> Running:
    """A document store with TLS, once a client may use it by this URL."""
    port = str(trusted.rpartition(":")[2].partition("/")[0])
    command = [sys.executable, "-m", "secantus", "--host", "127.0.0.1", "--port", port, "--standalone", *words]
    command += ["--storage-path", str(folder / "data"), "--cache-size", "64M"]
    command += ["--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    return Running(Service("store", command, folder / "store.log", lambda: why_not(trusted) or None)).start()


def test_a_document_store_is_judged_as_its_client_would(tmp_path):
    """A real one with TLS, which wants a certificate of its clients, too.

    What doctor calls fine its client takes, and what it calls wrong its client refuses.
    """
    cert, key = certificate(tmp_path, "-days", "3")
    ours, our_key = certificate(tmp_path, "-days", "400")
    both = tmp_path / "both.pem"
    both.write_text(our_key.read_text() + ours.read_text())
    port = free_port()
    client = f"tlsCertificateKeyFile={both}"
    trusted = f"mongodb://127.0.0.1:{port}/?tlsCAFile={cert}&{client}"
    running = store(tmp_path, cert, key, trusted, "--tls-ca-file", str(ours), "--tls-require-client-cert")
    try:
        (found,) = of_history(trusted)
        assert (found.severity, found.where) == ("better", f"127.0.0.1:{port}"), "it expires in three days"
        (found,) = of_history(f"mongodb://127.0.0.1:{port}/?tls=true&{client}")
        assert (found.severity, found.found) == ("wrong", "self-signed certificate")
        assert "tlsCAFile" in found.mend
        assert "self-signed certificate" in why_not(f"mongodb://127.0.0.1:{port}/?tls=true&{client}")
        assert of_history(f"mongodb://127.0.0.1:{port}/?tls=true&tlsInsecure=true&{client}")[0].severity == "better"
        assert of_history(f"mongodb://127.0.0.1:{port}/") == [], "nobody asks it over TLS"
        assert why_not(f"mongodb://127.0.0.1:{port}/?tlsCAFile={cert}"), "it lets in nobody without a certificate"
    finally:
        running.stop()


def test_the_certificate_of_a_client_is_looked_at_in_its_file(tmp_path):
    def found(url: str, variable: str = "NEARFETCH__HUB__MONGO") -> list[tuple[str, str, str]]:
        looked = [certificates.shown_by_client(*one) for one in certificates.own(settings.load({variable: url}))]
        return [(one.what, one.severity, one.found) for some in looked for one in some]

    for days, severity in (("3", "better"), ("400", "fine")):
        cert, key = certificate(tmp_path, "-days", days)
        both = tmp_path / f"both{days}.pem"
        both.write_text(key.read_text() + cert.read_text())
        ((what, how, _),) = found(f"mongodb://h/?tls=true&tlsCertificateKeyFile={both}")
        assert (what, how) == ("client of the history", severity)
        redis_url = f"rediss://h:1/0?ssl_certfile={cert}&ssl_keyfile={key}"
        ((what, how, _),) = found(redis_url, "NEARFETCH__HUB__REDIS")
        assert (what, how) == ("client of the hub's Redis", severity)
    old, _ = certificate(tmp_path, "-not_before", "20200101000000Z", "-not_after", "20210101000000Z")
    ((_, how, why),) = found(f"rediss://h:1/0?ssl_certfile={old}", "NEARFETCH__HUB__REDIS")
    assert (how, why) == ("wrong", "it expired 2021-01-01 00:00 UTC")
    ((_, how, why),) = found("rediss://h:1/0?ssl_certfile=/none.pem", "NEARFETCH__HUB__REDIS")
    assert (how, "No such file" in why) == ("wrong", True)
    assert found("mongodb://h/?tls=true") == []
    assert "not readable" in why_not("mongodb://h/?tlsCertificateKeyFile=/none.pem")


def test_a_document_store_s_certificate_for_another_name_is_wrong_unless_names_do_not_count(served):
    port, cert = served("-days", "400", name="DNS:other.example")
    url = f"mongodb://127.0.0.1:{port}/?tls=true&tlsCAFile={cert}"
    assert [one.severity for one in of_history(url)] == ["wrong"]
    assert [one.severity for one in of_history(f"{url}&tlsAllowInvalidHostnames=true")] == ["fine"]
    assert of_history("mongodb://127.0.0.1:no-port/?tls=true") == [], "the check of the connection says so"
