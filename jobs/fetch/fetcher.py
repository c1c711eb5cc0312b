"""Fetches a page: each hop guarded, one deadline over all of them, and never more in memory than the caps allow.

    Fetcher.fetch → Watchdog.watching → for each hop:
      _prepare     address, headers, and cookies for this hop's host
      _place       replaces the address when its origin is mapped to another one
      _send        Adapter.ask (jobs.fetch.connection) on the egress's route; once more if a kept connection was reset
      _next        follows a redirect: another host gets no credentials, cookies or body
      terms.admit  waits for that host's turn
    → body.read → Page

requests' Session is not used: it reads and unpacks the whole body of a redirect, takes credentials and proxies from the
environment, and costs twice as much.
"""

import email.utils
import http.client
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn
from urllib.parse import urldefrag, urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.cookies import MockRequest, MockResponse, RequestsCookieJar, get_cookie_header
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict

from jobs.errors import BlockedAddress, ConnectionFailed, HttpStatus, TaskError, TimedOut
from jobs.fetch import body
from jobs.fetch.answer import Headers, Malformed, Response
from jobs.fetch.connection import POOLS_BY_SCHEME, Adapter, tls_context
from jobs.fetch.exchange import Exchange, Route, Watchdog, error_text
from jobs.fetch.guard import SCHEMES, Allowed, Guard, Resolve, system_resolve
from jobs.fetch.proxy import Proxied
from jobs.fetch.route import Direct
from jobs.origin import host_header, is_plain, origin_of, origin_or_none, path_of
from jobs.page import Page, Request
from regions.egress import Egress, proxy_of

REDIRECTS_MAX: Final = 10
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
DISCARD_BYTES_MAX: Final = 16_384  # a redirect's body up to this size is read, so that the connection can be kept
RETRY_AFTER_SECONDS_MAX: Final = 86_400.0
# Headers that another host may see after a redirect. Any other header may carry a secret.
IMPERSONAL: Final = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})
OF_A_BODY: Final = frozenset({"content-type", "content-length", "content-encoding", "transfer-encoding"})

_BROKEN: Final = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)


@dataclass(frozen=True, slots=True)
class _Hop:
    """One request of a fetch. ``cookies`` are the definition's; those of the jar are added."""

    method: str
    url: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    body: bytes | None


@dataclass(slots=True, kw_only=True)
class Terms:
    """The limits of a fetch. ``deadline`` (monotonic) is the task's, ``timeout_seconds`` this fetch's.

    The time-out runs from the first look-up to the last byte of the body. ``max_bytes`` caps the body, both as received
    and as unpacked. ``cancelled`` is called for each piece received, and ten times a second from another thread.

    ``jar`` holds the task's cookies; the fetch adds to them, and to ``received_bytes`` what the answers had on the wire:
    heads, and bodies before they are unpacked, also those of redirects and of a fetch that fails. ``admit`` is called when a redirect leads to another host,
    with the new address and before anything is sent there. It may wait, and it may raise. The time-out does not run while
    ``admit`` waits, or while the process has no memory for more of the body. Without ``follows`` a redirect is the page.
    """

    deadline: float
    timeout_seconds: float
    max_bytes: int
    cancelled: Callable[[], bool]
    jar: RequestsCookieJar | None = None
    admit: Callable[[str], None] | None = None
    follows: bool = True
    received_bytes: int = 0


class Fetcher:
    """Fetches for all threads of a process, which share its kept connections.

    ``origins`` maps an origin to the address to connect to instead ({"https://www.example.org":
    "http://127.0.0.1:8099/www.example.org"}). All else stays the original's, the Host header, too. ``connections`` is how
    many are kept for a host. ``egress`` says how to reach the network; ``name`` is its name.
    """

    def __init__(
        self,
        *,
        allow: Sequence[Allowed] = (),
        origins: Mapping[str, str] | None = None,
        egress: Egress = Egress(),  # noqa: B008 - frozen
        name: str = "default",
        connections: int = 64,
        ca_file: str | None = None,
        resolve: Resolve = system_resolve,
        route: Route | None = None,
    ) -> None:
        """``route`` leads to targets instead of the egress's own."""
        guard, context, proxy = Guard(allow, resolve), tls_context(ca_file), proxy_of(egress)
        self._route = route or Direct(guard, egress.source_address)
        pools = POOLS_BY_SCHEME
        if proxy is not None and route is None:
            self._route = proxied = Proxied(proxy, name, guard, context, egress.source_address)
            pools = proxied.pools
        self._origins = dict(origins or {})
        self._headers = {"User-Agent": egress.user_agent, "Accept": "*/*", "Accept-Encoding": body.ACCEPTED}
        self._adapter = Adapter(connections=connections, context=context, pools=pools)
        self._watchdog = Watchdog()

    def close(self) -> None:
        """Ends the watchdog, then closes the kept connections."""
        self._watchdog.stop()
        self._adapter.close()

    def fetch(self, request: Request, terms: Terms, /) -> Page:
        """The page at the end of a request's redirects, whatever its status.

        Raises TimedOut, Cancelled, ConnectionFailed, BlockedAddress, TooLarge and DecodeFailed, HttpStatus only for a
        redirect that can't be followed, and what ``terms.admit`` raises.
        """
        jar = RequestsCookieJar() if terms.jar is None else terms.jar
        end = min(terms.deadline, time.monotonic() + terms.timeout_seconds)
        exchange = Exchange(self._route, end, terms.cancelled, terms.deadline)
        headers = {**self._headers, **request.headers} if request.headers else self._headers
        hop = _Hop(request.method, request.url, headers, request.cookies, request.body)
        for _ in range(REDIRECTS_MAX + 1):
            with self._watchdog.watching(exchange):
                exchange.check()
                prepared = self._prepare(hop, jar)
                answer = self._send(prepared, exchange)
                try:
                    _keep_cookies(jar, answer, prepared)
                    if answer.status not in REDIRECTS or not terms.follows:
                        return self._page(request, prepared, answer, exchange, terms.max_bytes)
                    try:
                        hop = _next(hop, prepared, answer)
                    except HttpStatus as error:
                        error.page = _seen(request, prepared, answer)
                        raise
                    _discard(answer)
                finally:
                    terms.received_bytes += answer.received_bytes
            if terms.admit is not None and origin_or_none(hop.url) != origin_or_none(prepared.url or ""):
                with exchange.paused():
                    terms.admit(hop.url)
        message = f"expected at most {REDIRECTS_MAX} redirects, found one more, to {shown(hop.url)}"
        endless = HttpStatus(message, http_status=answer.status)
        endless.page = _seen(request, prepared, answer)
        raise endless

    def _prepare(self, hop: _Hop, jar: RequestsCookieJar) -> PreparedRequest:
        """The request of a hop, at its own address."""
        prepared = PreparedRequest()
        prepared.method = hop.method.upper()
        try:
            if is_plain(hop.url):
                prepared.url = hop.url  # requests would not change it
            else:
                prepared.prepare_url(_checked(hop.url), None)
                if "/." in (prepared.url or ""):  # requests may have unquoted dots (RFC 3986, 5.2.4)
                    prepared.prepare_url(prepared.url or "", None)
            host = host_header(origin_of(prepared.url or ""))
            if hop.headers is self._headers:  # the usual case; our own headers need no check
                prepared.headers = {"Host": host, **self._headers}  # type: ignore[assignment]
            else:
                prepared.prepare_headers({"Host": host, **hop.headers})
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, UnicodeError) as error:
            raise BlockedAddress(f"expected an address of a page, found {shown(hop.url)}: {error}") from error
        except requests.exceptions.InvalidHeader as error:
            raise ConnectionFailed("expected headers without line breaks", origin="policy", retryable=False) from error
        cookies = [f"{name}={value}" for name, value in hop.cookies.items()]
        if len(jar):
            cookies += filter(None, [get_cookie_header(jar, prepared)])  # type: ignore[no-untyped-call]
        if cookies:
            prepared.headers["Cookie"] = "; ".join(cookies)
        prepared.body = hop.body
        if hop.body is not None or prepared.method in ("POST", "PUT", "PATCH"):
            prepared.headers["Content-Length"] = str(len(hop.body or b""))
        return prepared

    def _place(self, prepared: PreparedRequest) -> PreparedRequest:
        """The same request at the address to which its origin is mapped."""
        url = prepared.url or ""
        place = self._origins.get(origin_of(url)) if self._origins else None
        if place is None:
            return prepared
        placed = PreparedRequest()
        placed.method, placed.body, placed.headers = prepared.method, prepared.body, prepared.headers
        placed.url = place + path_of(url)
        return placed

    def _send(self, prepared: PreparedRequest, exchange: Exchange) -> Response:
        placed = self._place(prepared)
        for again in (False, True):
            exchange.is_fresh, exchange.wants_fresh = False, again
            try:
                return self._adapter.ask(placed)
            except requests.exceptions.InvalidHeader as error:
                raise ConnectionFailed(str(error), origin="policy", retryable=False) from error
            except _BROKEN as error:
                exchange.check()
                may_repeat = prepared.method in ("GET", "HEAD") and not exchange.is_fresh and not again
                if not (may_repeat and isinstance(_innermost(error), ConnectionError)):
                    _fail(error, urlsplit(prepared.url or "").hostname or "")
        raise AssertionError("unreachable: the second time always returns or raises")

    def _page(
        self, request: Request, prepared: PreparedRequest, answer: Response, exchange: Exchange, max_bytes: int
    ) -> Page:
        received: list[bytes] = []
        try:
            try:
                content = body.read(answer, exchange, max_bytes, received)
            except _BROKEN as error:
                exchange.check()
                _fail(error, urlsplit(prepared.url or "").hostname or "", http_status=answer.status)
        except TaskError as error:
            error.http_status = error.http_status or answer.status
            error.page = _seen(request, prepared, answer, b"".join(received))
            raise
        finally:
            answer.give_up()  # does nothing when the body was read to its end
        return _seen(request, prepared, answer, content)


def _seen(request: Request, prepared: PreparedRequest, answer: Response, content: bytes = b"") -> Page:
    """The page of an answer, with as much of its body as arrived."""
    url = urldefrag(prepared.url or "").url
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for name, value in answer.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Page(request, url, answer.status, headers, content, request.params)


def _keep_cookies(jar: RequestsCookieJar, answer: Response, prepared: PreparedRequest) -> None:
    """Adds each cookie by itself: when ``http.cookiejar`` can't read one, it drops all of the same call."""
    for line in answer.headers.get_all("set-cookie"):
        jar.extract_cookies(MockResponse(Headers([("Set-Cookie", line)])), MockRequest(prepared))  # type: ignore[arg-type]


def _checked(url: str) -> str:
    """An address without credentials and fragment. Raises BlockedAddress unless its scheme is http or https."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname)
        _ = parts.port
    except ValueError as error:
        raise BlockedAddress(f"expected an address of a page, found {shown(url)}: {error}") from error
    if parts.scheme.lower() not in SCHEMES or not has_host:
        raise BlockedAddress(f"expected an http or https address, found {shown(url)}")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def shown(url: str) -> str:
    """An address as messages may show it: without credentials and query, and cut to 200 characters."""
    before, at, after = url.partition("?")[0].rpartition("@")
    bare = before.partition("://")[0] + "://" + after if at and "://" in before else after
    return f'"{bare[:200]}"'


def _next(hop: _Hop, prepared: PreparedRequest, answer: Response) -> _Hop:
    """The hop to which a redirect leads. Raises HttpStatus when it can't be followed."""
    status = answer.status
    try:
        location = answer.headers.get("location", "").encode("latin-1").decode("utf-8")
    except UnicodeError:
        location = answer.headers.get("location")
    if not location:
        answer.give_up()
        raise HttpStatus(f"redirected ({status}) without a Location", http_status=status)
    try:
        url = urljoin(prepared.url or "", location.strip())
    except ValueError as error:
        answer.give_up()
        raise HttpStatus(f"redirected ({status}) to an invalid address", http_status=status) from error
    following = replace(hop, url=url)
    if (status == 303 and hop.method != "HEAD") or (status in (301, 302) and hop.method == "POST"):
        headers = {name: value for name, value in hop.headers.items() if name.lower() not in OF_A_BODY}
        following = replace(following, method="GET", body=None, headers=headers)
    if _may_see_credentials(prepared.url or "", url):
        return following
    if following.body is not None:
        answer.give_up()
        raise HttpStatus(f"redirected ({status}) with its body to another host, {shown(url)}", http_status=status)
    headers = {name: value for name, value in following.headers.items() if name.lower() in IMPERSONAL}
    return replace(following, headers=headers, cookies={})


def _may_see_credentials(url: str, following: str) -> bool:
    """Whether a redirect stays with the origin, or only changes from http to https on the usual ports."""
    try:
        before, after = origin_of(url), origin_of(following)
    except ValueError:
        return False
    return after == before or (before.endswith(":80") and after == f"https{before[4:-3]}:443")


def _discard(answer: Response) -> None:
    """Reads a short body to its end, so that the connection can be kept. Closes the connection otherwise."""
    try:
        if answer.length is not None and answer.length <= DISCARD_BYTES_MAX:
            while answer.piece(body.PIECE_BYTES):
                pass
    except _BROKEN:
        pass  # nobody wants this body; a broken connection is just not kept
    answer.give_up()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and the errors that it wraps: requests and urllib3 put them in ``reason``, the arguments or the cause."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        inside = [getattr(at, "reason", None), *reversed(at.args), at.__cause__]
        at = next((one for one in inside if isinstance(one, BaseException) and id(one) not in seen), None)


def _innermost(error: BaseException) -> BaseException:
    return list(_causes(error))[-1]


def _fail(error: BaseException, host: str, http_status: int | None = None) -> NoReturn:
    """Raises the TaskError for a broken exchange."""
    causes = list(_causes(error))
    inner = causes[-1]
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        message = next(c.verify_message for c in causes if isinstance(c, ssl.SSLCertVerificationError))
        raise ConnectionFailed(f"the certificate of {host} was refused: {message}", retryable=False) from error
    if any(isinstance(cause, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError) for cause in causes):
        raise TimedOut(f"{host} stopped answering", http_status=http_status) from error
    if any(isinstance(cause, http.client.IncompleteRead | urllib3.exceptions.IncompleteRead) for cause in causes):
        raise ConnectionFailed(f"the body from {host} was cut short", http_status=http_status) from error
    if isinstance(error, Malformed):
        raise ConnectionFailed(f"{host} broke the protocol: {error}", http_status=http_status) from error
    if isinstance(inner, ssl.SSLError):
        raise ConnectionFailed(f"TLS with {host} failed: {inner.reason or inner}", http_status=http_status) from error
    raise ConnectionFailed(f"the connection to {host} broke: {error_text(inner)}", http_status=http_status) from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date. None when it says nothing usable."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_SECONDS_MAX)
    try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX)
