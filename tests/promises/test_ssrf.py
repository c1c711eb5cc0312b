"""No connection is made to a denied address: however it is spelled, wherever it comes from, whatever the resolver says.

Real worker processes fetch, by themselves and through real proxies; listeners on every address of this machine count who comes. They are shown to count first.
"""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from regions.egress import Egress
from tests.name_server import NameServer
from tests.service.jobs.fetch.origin import Spoken
from tests.service.jobs.fetch.proxies import running
from tests.service.region_workers import RegionWorkers, of

# Spellings of addresses of this machine; PORT is the listener's.
SPELLINGS = r"""
http://127.0.0.1:PORT/ http://127.0.0.2:PORT/ http://127.255.255.254:PORT/ http://127.1:PORT/ http://127.0.1:PORT/
http://2130706433:PORT/ http://2130706434:PORT/ http://0x7f000001:PORT/ http://0X7F000001:PORT/ http://0x7f.0.0.1:PORT/
http://0x7f.1:PORT/ http://0x7f.0x0.0x0.0x1:PORT/ http://0177.0.0.1:PORT/ http://0177.1:PORT/ http://017700000001:PORT/
http://00000177.0.0.01:PORT/ http://127.0.0.01:PORT/ http://127.0x0.00.1:PORT/ http://127.0.0.0x1:PORT/ http://0:PORT/
http://0.0:PORT/ http://0.0.0.0:PORT/ http://0x0:PORT/ http://00:PORT/ http://127.0.0.1.:PORT/ http://127.1.:PORT/
http://localhost:PORT/ http://LOCALHOST:PORT/ http://localhost.:PORT/ http://127-0-0-1.test:PORT/
http://127-0-0-2.test.:PORT/ http://0-0-0-0.test:PORT/ http://[::1]:PORT/ http://[0:0:0:0:0:0:0:1]:PORT/
http://[0000:0000:0000:0000:0000:0000:0000:0001]:PORT/ http://[::0001]:PORT/ http://[::]:PORT/ http://[0::0]:PORT/
http://[::ffff:127.0.0.1]:PORT/ http://[::FFFF:127.0.0.1]:PORT/ http://[::ffff:7f00:1]:PORT/
http://[0:0:0:0:0:ffff:7f00:0002]:PORT/ http://[::ffff:0.0.0.0]:PORT/ http://[::127.0.0.1]:PORT/ http://[::7f00:1]:PORT/
http://[::1%25lo]:PORT/ http://[::ffff:0:127.0.0.1]:PORT/ http://[64:ff9b::127.0.0.1]:PORT/ http://[64:ff9b::7f00:1]:PORT/
http://[64:ff9b:1::7f00:1]:PORT/ http://[2002:7f00:1::]:PORT/ http://[2001:0:7f00:1::]:PORT/
http://user:pass@127.0.0.1:PORT/ http://8.8.8.8@127.0.0.1:PORT/ http://public.test:80@127.0.0.1:PORT/
http://127.0.0.1:PORT#@8.8.8.8/ http://127.0.0.1:PORT?@8.8.8.8/ http://127.0.0.1:PORT\@8.8.8.8/
http://8.8.8.8\@127.0.0.1:PORT/ http://127.0.0.1:0PORT/ http://127%2e0%2e0%2e1:PORT/ http://%31%32%37.0.0.1:PORT/
http://127。0。0。1:PORT/ http://127．0．0．1:PORT/ http://１２７.0.0.1:PORT/ http://①②⑦.⓪.⓪.①:PORT/ http://ⓛocalhost:PORT/
http://loc\u00adalhost:PORT/ HTTP://127.0.0.1:PORT/ hTtP://0x7f.1:PORT/ http:/127.0.0.1:PORT/ http:127.0.0.1:PORT/
http:\\127.0.0.1:PORT/ http:///127.0.0.1:PORT/ //127.0.0.1:PORT/ https://127.0.0.1:PORT/ https://[::1]:PORT/
https://2130706433:PORT/ ftp://127.0.0.1:PORT/ gopher://127.0.0.1:PORT/ file://127.0.0.1:PORT/etc/passwd
""".replace("\\u00ad", "\u00ad").split()  # noqa: RUF001 - a table reads better, and these letters are meant
# Addresses of other machines that nobody listens on here: they can't be counted, only refused.
ELSEWHERE = """
10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.192
192.0.2.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
168.63.129.16 2852039166 0xa9fea9fe 0251.0376.0251.0376 169.254.43518 [fe80::1] [fe80::1%25eth0] [fc00::1] [fd00:ec2::254]
[fec0::1] [ff02::1] [2001:db8::1] [2002:a9fe:a9fe::] [64:ff9b::a9fe:a9fe] [::ffff:169.254.169.254] [::ffff:a9fe:a9fe]
169-254-169-254.test 10-0-0-1.test
""".split()  # noqa: SIM905 - a table reads better

DIRECT = """
title = "An address that a client gives"
url = '{+url}'
any_host = true
[params]
url = {required = true, hosts = PORTS}
[fields]
text = "body"
[contract]
min_rows = 0
[limits]
retries = 0
timeout_seconds = 10
concurrency = 1000
"""
NEXT = DIRECT + '[next]\ncss = "a.next::attr(href)"\nmax_pages = 3\n'
BEFORE = DIRECT.replace("'{+url}'", "'OUTER/plain'") + "[before]\nurl = '{+url}'\n[before.fields]\ntoken = \"body\"\n"
GOOD, BAD = "127.0.0.1", "127.0.0.2"
WAYS = ("direct", "redirect", "next", "before")


def attacker(name: str, times: int) -> list[str]:
    """What the name server of an attacker says of names below ``.test``; of all others it knows nothing.

    127-0-0-2.test       always that address
    rebinding-N.test     127.0.0.1 at the first look-up, 127.0.0.2 from then on
    mixed.test           127.0.0.2, then 127.0.0.1
    """
    if not name.endswith(".test"):
        return []
    if name.startswith("rebinding-"):
        return [GOOD if times == 1 else BAD]
    return [BAD, GOOD] if name == "mixed.test" else [name.removesuffix(".test").replace("-", ".")]


@pytest.fixture(autouse=True)
def name_server(monkeypatch) -> Iterator[NameServer]:
    """A real one, which all workers ask."""
    made = NameServer(attacker)
    monkeypatch.setenv("NAME_SERVER", str(made.port))
    yield made
    made.stop()


class Listeners:
    """Every address of this machine, at one port: each connection is counted and answered."""

    def __init__(self) -> None:
        self.connections: Counter[str] = Counter()
        self._open: list[socket.socket] = []
        four = self._listen(socket.AF_INET, "0.0.0.0", 0)
        self.port: int = four.getsockname()[1]
        if socket.has_ipv6:
            self._listen(socket.AF_INET6, "::", self.port)

    def _listen(self, family: socket.AddressFamily, host: str, port: int) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(256)
        self._open.append(made)
        threading.Thread(target=self._accept, args=(made,), daemon=True).start()
        return made

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                self.connections[connection.getsockname()[0]] += 1
                connection.settimeout(5)
                try:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret")
                except OSError:
                    continue  # it is counted

    @property
    def count(self) -> int:
        """All connections."""
        return sum(self.connections.values())

    def stop(self) -> None:
        for one in self._open:
            one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def inner() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.stop()


def outer_site(spoken: Spoken) -> None:
    """What may be fetched: pages that lead to wherever their query says."""
    parts = urlsplit(spoken.target)
    to = parse_qs(parts.query).get("to", [""])[0]
    if parts.path == "/redirect":
        spoken.answer(b"moved", "302 Found", Location=to.encode("utf-8").decode("latin-1"))
    elif parts.path == "/next":
        link = to.replace("&", "&amp;").replace('"', "&quot;")
        spoken.answer(f'<meta charset="utf-8"><body>first<a class="next" href="{link}">'.encode())
    else:
        spoken.answer(b"<body>outer</body>")


@pytest.fixture
def proxy(request, tmp_path) -> Iterator[Egress]:
    """A way out through a real proxy on this machine, which may connect to anything; "" is none."""
    if not request.param:
        yield Egress()
        return
    scheme, _, resolves = request.param.partition(" ")
    with running(tmp_path / "proxy", scheme) as made:
        yield Egress(proxy=made.url(), proxy_resolves=bool(resolves))


through = pytest.mark.parametrize("proxy", ["", "http", "socks5"], indirect=True)
through_all = pytest.mark.parametrize(
    "proxy", ["", "http", "socks5", "http resolves", "socks5 resolves"], indirect=True
)


def start(workers: RegionWorkers, outer: str, allow: str, egress: Egress, inner: int = 1) -> None:
    """Sources that a client may lead anywhere, to these sites' ports too: only the guard is in the way."""
    ports = f'["*:{inner}", "*:{urlsplit(outer).port}"]'
    texts = {"direct": DIRECT, "next": NEXT, "before": BEFORE.replace("OUTER", outer)}
    definitions = {f"{name}.toml": text.replace("PORTS", ports) for name, text in texts.items()}
    workers.start(
        definitions,
        allow=allow,
        egress={"default": egress},
        any_host=True,
        worker=("-m", "tests.promises.attacked_worker"),
    )


def ask(workers: RegionWorkers, outer: str, urls: list[str], way: str) -> list[dict]:
    """Fetches addresses in one way; the results."""
    by = {"redirect": f"{outer}/redirect?to=", "next": f"{outer}/next?to="}.get(way, "")
    asked = [by + quote(url, safe="") if by else url for url in urls]
    return fetch(workers, "direct" if way == "redirect" else way, asked)


def fetch(workers: RegionWorkers, source: str, urls: list[str]) -> list[dict]:
    """The results of a source for addresses, each of them succeeded or failed."""
    return workers.results(workers.ask([of(source, deadline_seconds=240, url=url) for url in urls]), 240)


def told(result: dict) -> str:
    """The type of what went wrong, also on a later page; "" for nothing."""
    if result["error"]:
        return result["error"]["type"]
    return next((one.split(": ")[1] for one in result["warnings"] if one.startswith("page ")), "")


def test_there_are_enough_spellings():
    assert len(set(SPELLINGS)) == len(SPELLINGS) >= 60


@pytest.mark.timeout(600)
@pytest.mark.parametrize("proxy", ["", "http"], indirect=True)
def test_without_the_guard_the_listeners_count(workers, origin, inner, proxy):
    """The control: with everything allowed, most spellings do lead to this machine, in every way."""
    outer = origin(outer_site).url
    start(workers, outer, allow="0.0.0.0/0,::/0", egress=proxy, inner=inner.port)
    urls = [url.replace("PORT", str(inner.port)) for url in SPELLINGS]
    for way in WAYS:
        before = inner.count
        ask(workers, outer, urls, way)
        # What a client gives in an odd spelling is refused before the guard sees it; what a page gives is not.
        least = 30 if way in ("direct", "before") else 40
        assert inner.count - before >= least, f"{way}: {inner.count - before} of {len(urls)} came"


@pytest.mark.timeout(600)
@through_all
def test_no_spelling_redirect_or_further_page_connects_to_a_denied_address(workers, origin, inner, proxy):
    """Neither do we, nor does a proxy for us. Where one that looks names up is led by a name, it has to judge itself."""
    outer = origin(outer_site)
    start(workers, outer.url, allow=f"127.0.0.1:{outer.port}", egress=proxy, inner=inner.port)
    urls = [url.replace("PORT", str(inner.port)) for url in SPELLINGS]
    urls += [f"http://{host}/" for host in ELSEWHERE]
    if proxy.proxy_resolves:
        urls = [url for url in urls if ".test" not in url or "@" in url]
    for way in WAYS:
        found = ask(workers, outer.url, urls, way)
        types = Counter(map(told, found))
        print(way, dict(types))
        assert inner.count == 0, f"{way}: {inner.connections}"
        assert "secret" not in repr([one["records"] for one in found])
        # What is no address of a page for one reason or another is never fetched; the rest is refused for what it is.
        assert set(types) <= {"blocked_address", "connection", "parse", "http_status", ""}
        assert types["blocked_address"] >= len(urls) * 3 // 4
        refused = [one["error"] for one in found if one["error"] and one["error"]["type"] == "blocked_address"]
        assert {one["origin"] for one in refused} <= {"policy"}
    assert outer.connections > 0


@pytest.mark.timeout(600)
@through
def test_a_name_server_that_changes_its_answer_gains_nothing(workers, origin, proxy, name_server):
    """The first look-up is permitted and answered; the second names a denied address, which gets no connection."""
    outer = origin(lambda spoken: spoken.answer(b"<body>outer<a class=next href=/again>", Connection="close"))
    with socket.create_server((BAD, outer.port)) as denied:
        start(workers, outer.url, allow=f"{GOOD}:{outer.port}", egress=proxy)
        rebinding = [f"http://rebinding-{number}.test:{outer.port}/" for number in range(20)]
        first = fetch(workers, "next", rebinding)
        assert [(one["count"], told(one)) for one in first] == [(1, "blocked_address")] * 20
        again = fetch(workers, "direct", rebinding)
        assert {told(one) for one in again} == {"blocked_address"}
        assert min(name_server.asked[f"rebinding-{number}.test"] for number in range(20)) >= 2
        mixed = fetch(workers, "direct", [f"http://mixed.test:{outer.port}/"] * 5)
        assert [one["status"] for one in mixed] == ["succeeded"] * 5
        denied.setblocking(False)
        with pytest.raises(BlockingIOError):
            denied.accept()
    assert outer.connections == 25
