"""Through real proxies: what they are asked for, what the guard keeps from them, and whose error a failure is."""

import contextlib
import socket
import threading
import time

import pytest

from jobs.errors import BlockedAddress, Cancelled, ConnectionFailed, TimedOut, is_the_hosts
from jobs.fetch.guard import parse_allow
from regions.egress import Egress
from tests.service.jobs.fetch.asking import fetch, get, names_of_loopback
from tests.service.jobs.fetch.origin import Spoken, certificate
from tests.service.jobs.fetch.proxies import PASSWORD, USER, running
from tests.waiting import until

KINDS = ("http", "https", "socks5")


@pytest.fixture(scope="module")
def proxies(tmp_path_factory):
    """A proxy of each kind that wants our password, and the certificate of the https one."""
    folder = tmp_path_factory.mktemp("proxies")
    ca, _ = certificate(folder, "localhost")
    with (
        running(folder / "http", "http") as http,
        running(folder / "https", "https", certificate=(ca, folder / "key.pem")) as https,
        running(folder / "socks", "socks5") as socks,
    ):
        yield {"http": http, "https": https, "socks5": socks, "ca": ca}


@pytest.fixture
def through(proxies, fetcher, tmp_path):
    """Makes fetchers that go through the proxy of a kind; ``ca`` is a file with CAs besides the proxy's."""

    def make(kind: str, *, ca=None, proxy="", **options):
        bundle = tmp_path / "bundle.pem"
        bundle.write_text(proxies["ca"].read_text() + (ca.read_text() if ca else ""))
        url = proxy or proxies[kind].url(host="localhost")
        egress = Egress(
            proxy=url, **{key: options.pop(key) for key in ("proxy_resolves", "source_address") if key in options}
        )
        return fetcher(egress=egress, name="far", ca_file=str(bundle), **options)

    return make


def told(error: BaseException | None) -> str:
    """The texts of an error and its causes."""
    return f"{error} {error!r} {told(error.__cause__ or error.__context__)}" if error is not None else ""


def asked(proxy, since: int, site) -> list[str]:
    """The requests for a site that a proxy logged after the first ``since`` ones, as soon as there are any."""
    return until(lambda: _of(site, proxy.asked[since:]), "the proxy to say what it was asked")


def _of(site, found: list[str]) -> list[str]:
    return [one for one in found if one.endswith(f":{site.port}")]


def is_never_asked(proxy, since: int, site, control, fetcher) -> bool:
    """A proxy logs late. When it has logged a later request, it has logged all before."""
    assert fetch(fetcher, f"http://127.0.0.1:{control.port}/").body == b"x"
    fetcher.close()
    assert asked(proxy, since, control)
    return (site.connections, _of(site, proxy.asked[since:])) == (0, [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_comes_by_its_address_with_the_name_inside(proxies, origin, through, kind):
    """The proxy gets the judged address, the target gets the name, and one connection is kept."""
    site, before = origin(lambda spoken: spoken.answer(spoken.target.encode())), len(proxies[kind].asked)
    one = through(kind, resolve=names_of_loopback("a.example"))
    for path in ("/x?y=1", "/z"):
        assert fetch(one, f"http://a.example:{site.port}{path}").body == path.encode()
    assert [spoken.headers["host"] for spoken in site.requests] == [f"a.example:{site.port}"] * 2
    assert "proxy-authorization" not in site.requests[0].headers
    assert site.connections == 1
    one.close()
    assert asked(proxies[kind], before, site) == [f"CONNECT 127.0.0.1:{site.port}"]


@pytest.mark.parametrize("kind", KINDS)
def test_tls_is_with_the_target_and_verifies_its_name(tmp_path, origin, through, kind):
    ca, context = certificate(tmp_path, "right.example")
    site = origin(lambda spoken: spoken.answer(b"x" * 300_000), context=context)
    one = through(kind, ca=ca, resolve=names_of_loopback("right.example", "wrong.example"))
    for _ in range(2):
        assert len(fetch(one, f"https://right.example:{site.port}/").body) == 300_000
    assert site.connections == 1
    with pytest.raises(ConnectionFailed, match=r"the certificate of wrong\.example was refused") as caught:
        fetch(one, f"https://wrong.example:{site.port}/")
    assert is_the_hosts(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_that_stops_is_cut_off_inside_too(tmp_path, origin, through, kind):
    """By a cancel while nothing arrives, and by the deadline while a body arrives slowly, which is the target's fault."""
    ca, context = certificate(tmp_path, "a.example")
    begun: list[float] = []

    def say(spoken: Spoken) -> None:
        spoken.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nbegin")
        begun.append(time.monotonic())
        for exchange in one._watchdog._watched.values() if spoken.target == "/drip" else ():
            exchange.deadline = begun[-1] + 0.3  # of the body alone: what comes before it is the proxy's
        while spoken.target == "/drip":
            spoken.say(b"x")
            time.sleep(0.02)

    site, one = origin(say, context=context), through(kind, ca=ca, resolve=names_of_loopback("a.example"))
    with pytest.raises(Cancelled):
        fetch(
            one, f"https://a.example:{site.port}/", cancelled=lambda: bool(begun) and time.monotonic() > begun[0] + 0.3
        )
    with pytest.raises(TimedOut) as caught:
        fetch(one, f"https://a.example:{site.port}/drip")
    assert is_the_hosts(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_whose_tls_ends_without_saying_so_is_cut_short_inside_too(tmp_path, origin, through, kind):
    ca, context = certificate(tmp_path, "a.example")

    def say(spoken: Spoken) -> None:
        spoken.say(b"HTTP/1.1 200 OK\r\n\r\nhello")
        spoken.hang_up()

    site, one = origin(say, context=context), through(kind, ca=ca, resolve=names_of_loopback("a.example"))
    with pytest.raises(ConnectionFailed, match="was cut short"):
        fetch(one, f"https://a.example:{site.port}/")


@pytest.mark.parametrize("kind", KINDS)
def test_redirects_and_mapped_origins_go_the_same_way(proxies, origin, through, kind):
    def say(spoken: Spoken) -> None:
        if spoken.target.endswith("/start"):
            spoken.answer(status="302 Found", Location="http://b.example/end")
        else:
            spoken.answer(b"there")

    site, before = origin(say), len(proxies[kind].asked)
    mapped = {f"{origin_}:80": f"{site.url}/mapped" for origin_ in ("http://a.example", "http://b.example")}
    one = through(kind, origins=mapped)
    page = fetch(one, "http://a.example/start")
    assert (page.url, page.body) == ("http://b.example/end", b"there")
    assert [spoken.headers["host"] for spoken in site.requests] == ["a.example", "b.example"]
    one.close()
    assert set(asked(proxies[kind], before, site)) == {f"CONNECT 127.0.0.1:{site.port}"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_address_is_asked_for_when_one_is_away(origin, through, kind):
    site = origin(lambda spoken: spoken.answer(b"x"))
    found = [(socket.AF_INET, ("127.0.0.9", site.port)), (socket.AF_INET, ("127.0.0.1", site.port))]
    assert fetch(through(kind, resolve=lambda host, port: found), f"http://two.example:{site.port}/").body == b"x"


@pytest.mark.parametrize("options", [{}, {"proxy_resolves": True}])
def test_the_proxy_is_connected_to_from_the_egresss_address(proxies, origin, through, options):
    site = origin(lambda spoken: spoken.answer())
    one = through("http", source_address="127.0.0.3", **options)
    fetch(one, site.url)
    one.close()
    until(lambda: " 127.0.0.3:" in proxies["http"].log, "the proxy to say who came")


def test_a_proxy_that_can_not_be_reached_from_there_is_the_regions_error(origin, through):
    with pytest.raises(ConnectionFailed, match="expected an IPv6 address of the proxy of egress far") as caught:
        fetch(through("http", proxy="http://127.0.0.1:9", source_address="::1"), origin(lambda spoken: None).url)
    assert (caught.value.whose, caught.value.is_retryable) == ("region", False)


# The guard


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_a_proxy_is_not_asked_for_a_denied_address(proxies, origin, through, kind, host):
    site, before = origin(lambda spoken: spoken.answer()), len(proxies[kind].asked)
    with pytest.raises(BlockedAddress):
        fetch(through(kind, allow=()), f"http://{host}:{site.port}/")
    control = origin(lambda spoken: spoken.answer(b"x"))
    assert is_never_asked(proxies[kind], before, site, control, through(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_changes_its_address_gains_nothing(origin, through, kind):
    inner = origin(lambda spoken: spoken.answer())
    answers = [[(socket.AF_INET, ("127.0.0.1", inner.port))], [(socket.AF_INET, ("127.0.0.2", inner.port))]]
    one = through(kind, allow=parse_allow("127.0.0.1"), resolve=lambda host, port: answers.pop(0))
    assert fetch(one, get(f"http://rebinding.example:{inner.port}/", headers={"Connection": "close"})).status == 200
    one._adapter.close()
    with pytest.raises(BlockedAddress):
        fetch(one, f"http://rebinding.example:{inner.port}/")
    assert inner.connections == 1


RESOLVING = (
    ("http", {"proxy_resolves": True}),
    ("https", {"proxy_resolves": True}),
    ("socks5", {"proxy_resolves": True}),
)


@pytest.mark.parametrize(("kind", "options"), RESOLVING)
def test_a_proxy_that_looks_names_up_gets_names(tmp_path, proxies, origin, through, kind, options):
    """No name is looked up here. An HTTP proxy is asked for a plain page without CONNECT."""
    ca, context = certificate(tmp_path, "127-0-0-1.test")
    plain, secure = (
        origin(lambda spoken: spoken.answer(b"plain")),
        origin(lambda s: s.answer(b"secure"), context=context),
    )
    before, looked_up = len(proxies[kind].asked), []
    one = through(kind, ca=ca, resolve=names_of_loopback(asked=looked_up), **options)
    assert fetch(one, f"http://127-0-0-1.test:{plain.port}/a").body == b"plain"
    assert fetch(one, f"https://127-0-0-1.test:{secure.port}/").body == b"secure"
    assert plain.requests[0].target == "/a"
    assert "proxy-authorization" not in plain.requests[0].headers
    one.close()
    method = "CONNECT" if kind == "socks5" else "GET"
    expected = {f"{method} 127-0-0-1.test:{plain.port}", f"CONNECT 127-0-0-1.test:{secure.port}"}
    until(lambda: expected <= set(proxies[kind].asked[before:]), f"the proxy to say {expected}")
    assert looked_up == []


def test_socks5h_looks_names_up_at_the_proxy(proxies, origin, through):
    site = origin(lambda spoken: spoken.answer(b"x"))
    one = through("socks5", proxy=proxies["socks5"].url(scheme="socks5h"))
    assert fetch(one, f"http://127-0-0-1.test:{site.port}/").body == b"x"


@pytest.mark.parametrize(("kind", "options"), RESOLVING)
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "127.0.0.1.",
        "0177.0.0.01",
        "[::1]",
        "localhost",
        "a.localhost.",
        "router",
        "metadata.google.internal",
    ],
)
def test_what_a_name_says_by_itself_is_judged_even_then(proxies, origin, through, kind, options, host):
    site, before = origin(lambda spoken: spoken.answer()), len(proxies[kind].asked)
    with pytest.raises((BlockedAddress, ConnectionFailed)):
        fetch(through(kind, allow=(), **options), f"http://{host}:{site.port}/")
    control = origin(lambda spoken: spoken.answer(b"x"))
    assert is_never_asked(proxies[kind], before, site, control, through(kind, **options))


@pytest.mark.parametrize(("kind", "options"), RESOLVING)
def test_an_address_that_is_allowed_is_asked_for_as_it_is(proxies, origin, through, kind, options):
    site, before = origin(lambda spoken: spoken.answer(b"x")), len(proxies[kind].asked)
    one = through(kind, **options)
    assert fetch(one, f"http://127.1:{site.port}/").body == b"x"
    one.close()
    assert asked(proxies[kind], before, site)[0].endswith(f" 127.0.0.1:{site.port}")


# A proxy at fault


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"proxy_resolves": True}])
def test_a_proxy_that_is_away_is_the_regions_error(free_port, origin, through, kind, options):
    site = origin(lambda spoken: spoken.answer())
    one = through(kind, proxy=f"{kind}://{USER}:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{free_port}", **options)
    with pytest.raises(
        ConnectionFailed, match="the proxy of egress far can't be reached: Connection refused"
    ) as caught:
        fetch(one, site.url)
    assert (caught.value.whose, caught.value.is_retryable, is_the_hosts(caught.value)) == ("region", True, False)


def test_a_proxy_whose_name_is_unknown_is_the_regions_error(origin, through):
    with pytest.raises(ConnectionFailed, match="the name of the proxy of egress far could not be resolved") as caught:
        fetch(through("http", proxy="http://nobody.invalid:8080"), origin(lambda spoken: None).url)
    assert caught.value.whose == "region"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"proxy_resolves": True}])
@pytest.mark.parametrize("credentials", ["", "someone:hunter2"])
def test_a_proxy_that_wants_other_credentials_is_the_regions_error(
    proxies, origin, through, kind, options, credentials
):
    site = origin(lambda spoken: spoken.answer())
    url = proxies[kind].url(credentials, host="localhost")
    with pytest.raises(ConnectionFailed, match="the proxy of egress far does not take its user and password") as caught:
        fetch(through(kind, proxy=url, **options), site.url)
    assert (caught.value.whose, caught.value.is_retryable, is_the_hosts(caught.value)) == ("region", False, False)
    assert "hunter2" not in told(caught.value)
    assert site.connections == 0


def test_of_whole_addresses_a_squids_own_error_is_the_regions_and_any_other_the_targets(origin, through):
    """The headers are Squid 6.13's. Other proxies' own answers look like a target's."""
    squid = origin(lambda spoken: spoken.answer(b"no", "503 Service Unavailable", X_Squid_Error="ERR_CONNECT_FAIL 111"))
    one = through("http", proxy=f"http://127.0.0.1:{squid.port}", proxy_resolves=True)
    with pytest.raises(ConnectionFailed, match=r"far does not connect to a\.example port 80: 503 Service") as caught:
        fetch(one, "http://a.example/x")
    assert (caught.value.whose, caught.value.is_retryable, is_the_hosts(caught.value)) == ("region", True, False)
    assert squid.requests[0].target == "http://a.example/x"
    other = origin(lambda spoken: spoken.answer(b"no", "503 Service Unavailable"))
    one = through("http", proxy=f"http://127.0.0.1:{other.port}", proxy_resolves=True)
    assert fetch(one, "http://a.example/x").status == 503


@pytest.mark.parametrize(
    ("kind", "text", "whose"),
    [
        ("http", r"the proxy of egress far does not connect to a\.example port \d+: 502 Bad Gateway", "region"),
        ("https", r"the proxy of egress far does not connect to a\.example port \d+: 502 Bad Gateway", "region"),
        ("socks5", r"could not connect to a\.example port \d+: Connection refused", "network"),
    ],
)
def test_a_target_that_refuses_is_its_own_error_only_where_the_proxy_tells(free_port, through, kind, text, whose):
    """A 502 may be the proxy's own fault. A SOCKS reply says that the target's machine refused."""
    with pytest.raises(ConnectionFailed, match=text) as caught:
        fetch(through(kind, resolve=names_of_loopback("a.example")), f"http://a.example:{free_port}/")
    assert (caught.value.whose, caught.value.is_retryable) == (whose, True)
    assert is_the_hosts(caught.value) == (whose == "network")


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_says_nothing_ends_at_the_time_out_or_a_cancel(origin, through, kind):
    site = origin(lambda spoken: spoken.answer())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{kind}://{USER}:x@127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TimedOut, match="the proxy of egress far") as caught:
            fetch(through(kind, proxy=url), site.url, timeout_seconds=2.0)
        assert (caught.value.whose, is_the_hosts(caught.value)) == ("region", False)
        cancel_at = time.monotonic() + 0.2
        with pytest.raises(Cancelled):
            fetch(through(kind, proxy=url), site.url, cancelled=lambda: time.monotonic() > cancel_at)


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("answer", [b"", b"\x05", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nX-", b"\r\n\r\n"])
def test_what_is_no_proxy_is_the_regions_error(origin, through, kind, answer):
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def accept() -> None:
            peer, _ = plain.accept()
            with peer, contextlib.suppress(OSError):
                peer.recv(65536)
                peer.sendall(answer)

        threading.Thread(target=accept, daemon=True).start()
        with pytest.raises(ConnectionFailed, match="the proxy of egress far") as caught:
            fetch(through(kind, proxy=f"{kind}://127.0.0.1:{plain.getsockname()[1]}"), "http://127.0.0.1:9/")
    assert (caught.value.whose, is_the_hosts(caught.value)) == ("region", False)


def test_a_proxy_with_another_certificate_is_not_told_the_password(proxies, origin, through):
    url, before = proxies["https"].url(), len(proxies["https"].asked)  # 127.0.0.1, which its certificate does not name
    site, control = origin(lambda spoken: None), origin(lambda spoken: spoken.answer(b"x"))
    with pytest.raises(ConnectionFailed, match="the certificate of the proxy of egress far was refused") as caught:
        fetch(through("https", proxy=url), site.url)
    assert (caught.value.whose, caught.value.is_retryable) == ("region", False)
    assert is_never_asked(proxies["https"], before, site, control, through("https"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_way_that_the_proxy_closed_is_made_once_more(origin, through, kind):
    def say(spoken: Spoken) -> None:
        if spoken.number == 1 and len(site.requests) == 2:
            spoken.hang_up()
        else:
            spoken.answer(b"x")

    site, one = origin(say), through(kind)
    fetch(one, site.url)
    assert fetch(one, site.url).body == b"x"
    assert [spoken.number for spoken in site.requests] == [1, 1, 2]


def test_no_message_or_traceback_shows_a_password(proxies, origin, through):
    one = through("http", proxy="http://someone:hunter2@127.0.0.1:9")
    with pytest.raises(ConnectionFailed) as caught:
        fetch(one, origin(lambda spoken: None).url)
    assert "hunter2" not in told(caught.value)
    assert "hunter2" not in repr(one._route._proxy)


@pytest.fixture
def free_port():
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
