"""Checks of TLS: until when the certificate of a server is valid, and whether it is for that name and from a CA that we trust.

``own`` checks until when the certificates are valid that our own clients show.
"""

import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from regions import connect, hosts
from regions.settings import Settings
from scripts.checks.finding import Finding

SECONDS: Final = 4.0
SOON_DAYS: Final = 21
COST: Final = "its clients refuse to connect"
REFUSED: Final = "the server refuses our connections"
PORTS: Final = {"rediss": 6379, "amqps": 5671, "https": 443}

Context = Callable[[], ssl.SSLContext]


def of(settings: Settings, *more: str) -> list[tuple[str, str, int, Context]]:
    """Every server that is asked over TLS: what it is, its host and port, and how its client checks it. ``more``: other URLs."""
    redises = {
        "hub's Redis": settings.hub.redis,
        **{f"Redis of {name}": one.redis.url for name, one in settings.region.items()},
    }
    found: list[tuple[str, str, int, Context]] = []
    for what, url in redises.items():
        for one in hosts.split(url, "redis"):
            found += _tls(what, one, "rediss", _of_redis(one))
    for parameters in connect.amqp_parameters(settings.hub.amqp, name="check"):
        options = parameters.ssl_options
        if options is not None:
            context: ssl.SSLContext = options.context
            found.append(("RabbitMQ", parameters.host, parameters.port, lambda context=context: context))  # type: ignore[misc]
    found += _of_mongo(settings.hub.mongo)
    pages = {
        "gateway's public address": settings.gateway.public_url,
        "RabbitMQ's management": settings.hub.management_url,
    }
    pages |= {f"dashboard of {name}": one.dashboard.url for name, one in settings.region.items()}
    pages |= {f"gateway {urlsplit(url).hostname}": url for url in more}
    for what, url in pages.items():
        found += _tls(what, url, "https", ssl.create_default_context)
    return list(dict.fromkeys(found))


def _tls(what: str, url: str, scheme: str, context: Context) -> list[tuple[str, str, int, Context]]:
    parts = urlsplit(url)
    if parts.scheme != scheme or not parts.hostname:
        return []
    return [(what, parts.hostname, parts.port or PORTS[scheme], context)]


def _of_redis(url: str) -> Context:
    """As redis-py's URL says: ``ssl_ca_certs``, ``ssl_cert_reqs``, ``ssl_check_hostname``."""
    query = parse_qs(urlsplit(url).query)

    def made() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=query.get("ssl_ca_certs", [None])[0])
        if (
            query.get("ssl_check_hostname", ["true"])[0].lower() in ("false", "0", "no")
            or query.get("ssl_cert_reqs", [""])[0] == "none"
        ):
            context.check_hostname = False
        if query.get("ssl_cert_reqs", [""])[0] == "none":
            context.verify_mode = ssl.CERT_NONE
        return context

    return made


def own(settings: Settings) -> list[tuple[str, str]]:
    """The certificates that our clients show to servers: of what, and the file."""
    found = []
    redises = {
        "hub's Redis": settings.hub.redis,
        **{f"Redis of {name}": of.redis.url for name, of in settings.region.items()},
    }
    for what, url in redises.items():
        for one in hosts.split(url, "redis"):
            found += [(what, file) for file in parse_qs(urlsplit(one).query).get("ssl_certfile", [])]
    if file := _mongo(settings.hub.mongo)["options"].get("tlsCertificateKeyFile"):
        found.append(("history", str(file)))
    return [(f"client of the {what}", file) for what, file in dict.fromkeys(found)]


def shown_by_client(what: str, file: str) -> Iterator[Finding]:
    """The end of a certificate in a file: its first one, as OpenSSL takes it."""
    common: dict[str, Any] = {"check": "certificate", "what": what, "where": file}
    try:
        begin, end, text = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", Path(file).read_text("ascii")
        ends = not_after(ssl.PEM_cert_to_DER_cert(text[text.index(begin) : text.index(end) + len(end)]))
    except (OSError, ValueError) as error:
        expected = "a file with a certificate in PEM"
        yield Finding(
            severity="wrong",
            expected=expected,
            found=str(error),
            cost=REFUSED,
            mend=f"put the certificate into {file}",
            **common,
        )
        return
    yield _until(ends, REFUSED, f"renew the certificate in {file}, and restart the part", **common)


def _mongo(url: str) -> dict[str, Any]:
    """What a MongoDB URL says: ``nodelist`` and ``options``. Hosts of ``mongodb+srv`` are asked of DNS; nothing if that fails."""
    nothing: dict[str, Any] = {"nodelist": [], "options": {}}
    if not url:
        return nothing
    import pymongo.errors  # noqa: PLC0415 - slow to import
    from pymongo.uri_parser import parse_uri  # noqa: PLC0415

    try:
        return dict(parse_uri(url, connect_timeout=SECONDS))
    except (pymongo.errors.PyMongoError, ValueError, OSError):  # the check of the connection says what is wrong
        return nothing


def _of_mongo(url: str) -> list[tuple[str, str, int, Context]]:
    """The history's servers, if they are asked over TLS."""
    parsed = _mongo(url)
    options = parsed["options"]
    is_any = options.get("tlsAllowInvalidCertificates", False)

    def made() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=options.get("tlsCAFile"))
        if file := options.get("tlsCertificateKeyFile"):
            context.load_cert_chain(file, password=options.get("tlsCertificateKeyFilePassword"))
        if is_any or options.get("tlsAllowInvalidHostnames", False):
            context.check_hostname = False
        if is_any:
            context.verify_mode = ssl.CERT_NONE
        return context

    is_tls = options.get("tls", any(key in options for key in ("tlsCAFile", "tlsCertificateKeyFile", "tlsCRLFile")))
    return [("history", host, port, made) for host, port in parsed["nodelist"] if port] if is_tls else []


def seen(what: str, host: str, port: int, context: Context) -> Iterator[Finding]:
    """A server's certificate: its end, and what its client would say of it."""
    common: dict[str, Any] = {"check": "certificate", "what": what, "where": f"{host}:{port}"}
    try:
        ends = _ends(host, port)
    except (OSError, ValueError) as error:
        yield Finding(severity="unseen", note=f"no certificate is shown: {error}", **common)
        return
    at_end = _until(ends, COST, f"renew the certificate of {host}, and have the server read it again", **common)
    if at_end.severity == "wrong":
        yield at_end
        return
    try:
        with (
            socket.create_connection((host, port), SECONDS) as plain,
            context().wrap_socket(plain, server_hostname=host),
        ):
            pass
    except ssl.SSLCertVerificationError as error:
        yield Finding(
            severity="wrong",
            expected=f"a certificate for {host} from a CA that is trusted here",
            found=error.verify_message,
            cost=COST,
            mend="have the certificate made for the name in the URL, or trust its CA (update-ca-certificates; ssl_ca_certs in a Redis's URL, tlsCAFile in MongoDB's)",
            **common,
        )
        return
    except ssl.SSLError as error:
        # It wants one of the client.
        if "CERTIFICATE_REQUIRED" not in str(error) and "HANDSHAKE_FAILURE" not in str(error):
            yield Finding(
                severity="wrong",
                expected="TLS",
                found=str(error),
                cost=COST,
                mend="correct the server's TLS settings",
                **common,
            )
            return
    except OSError as error:
        yield Finding(severity="unseen", note=str(error), **common)
        return
    yield at_end


def _until(ends: dt.datetime, cost: str, mend: str, **common: Any) -> Finding:
    """What there is to say of a certificate that ends then."""
    left, shown = ends - dt.datetime.now(dt.UTC), f"{ends:%Y-%m-%d %H:%M} UTC"
    if left.total_seconds() <= 0:
        expected = "a certificate that is valid"
        return Finding(severity="wrong", expected=expected, found=f"it expired {shown}", cost=cost, mend=mend, **common)
    if left.days < SOON_DAYS:
        expected = f"a certificate that is valid for {SOON_DAYS} days more"
        cost = f"from then on {cost}"
        return Finding(
            severity="better", expected=expected, found=f"it expires {shown}", cost=cost, mend=mend, **common
        )
    return Finding(severity="fine", note=f"valid until {shown}", **common)


def _ends(host: str, port: int) -> dt.datetime:
    """When the certificate that a server shows expires. It is read without being checked, since OpenSSL decodes only what it trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name = None if _is_address(host) else host
    with (
        socket.create_connection((host, port), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=name) as wrapped,
    ):
        shown = wrapped.getpeercert(binary_form=True)
    if not shown:
        raise ValueError("it shows none")
    return not_after(shown)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def not_after(certificate: bytes) -> dt.datetime:
    """``notAfter`` of a certificate in DER (RFC 5280, 4.1). Raises ValueError."""
    _, signed, _ = _element(_element(certificate)[1])
    tag, _, rest = _element(signed)
    if tag == 0xA0:  # it was the version, which may be left out; the serial number follows
        _, _, rest = _element(rest)
    for _ in ("signature algorithm", "issuer"):
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, after = _element(validity)
    tag, text, _ = _element(after)
    form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"  # UTCTime, GeneralizedTime
    found = dt.datetime.strptime(text.decode("ascii"), form)  # noqa: DTZ007 - the next line gives it its zone
    return found.replace(tzinfo=dt.UTC)


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The tag and the content of the first element, and what follows it (X.690, 8.1). Raises ValueError."""
    if len(data) < 2:
        raise ValueError("expected a certificate, found fewer bytes")
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(data[2 : 2 + count]), 2 + count
    if len(data) < start + length:
        raise ValueError("expected a certificate, found fewer bytes")
    return tag, data[start : start + length], data[start + length :]
