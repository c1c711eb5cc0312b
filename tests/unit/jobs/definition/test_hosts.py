"""The hosts to which params may lead an address: how a definition names them, and what the gateway refuses."""

import json

import pytest

from jobs.definition import hosts
from jobs.definition.catalog import Catalog
from jobs.definition.hosts import HostRefused
from jobs.definition.read import examine, read
from regions.settings import Limits
from web.api import submit
from web.http.problems import Problem

FIELDS = "[fields]\na = 'b'\n"


def written(tmp_path, text: str):
    path = tmp_path / "led.toml"
    path.write_text(f"title = 'Led'\n{text}{FIELDS}")
    return path


def told(tmp_path, text: str) -> list[str]:
    return [str(fault) for fault in examine(written(tmp_path, text))[1]]


@pytest.mark.parametrize(
    ("url", "params", "named"),
    [
        ("https://a.example/{x}", "x = {}", ()),
        ("https://a.example{?x}", "x = {}", ()),
        ("{+x}", "x = {hosts = ['A.example', '*.b.example', 'c.example:8443', '[2001:DB8::1]:81']}",
         ("a.example", "*.b.example", "c.example:8443", "[2001:db8::1]:81")),
        ("https://{x}/p", "x = {hosts = 'a.example'}", ("a.example",)),
        ("https://{x}.shop.example/{y}", "x = {}\ny = {}", ("*.shop.example",)),
        ("https://api-{x}.eu.shop.example:8443/", "x = {}", ("*.eu.shop.example:8443",)),
        ("https://{x}.example/", "x = {enum = ['a', 'b']}", ("a.example", "b.example")),
        ("https://{x}.{y}:8080/", "x = {enum = ['a']}\ny = {enum = ['example', 'test']}", ("a.example:8080", "a.test:8080")),
        ("https://a.example:{x}/", "x = {type = 'int', enum = [80, 8080]}", ("a.example", "a.example:8080")),
    ],
)  # fmt: skip
def test_a_definition_names_the_hosts_that_params_may_lead_to(tmp_path, url, params, named):
    assert read(written(tmp_path, f"url = '{url}'\n[params]\n{params}\n")).ask.hosts == named


OPEN = "expected hosts, since it decides where url leads: "


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("url = '{+x}'\n[params]\nx = {}\n", f"led.toml:4: params.x: {OPEN}"),
        ("url = 'https://{x}/'\n[params]\nx = {}\n", f"led.toml:4: params.x: {OPEN}"),
        ("url = 'https://a.example{+x}'\n[params]\nx = {}\n", f"led.toml:4: params.x: {OPEN}"),
        ("url = 'https://{x}.com/'\n[params]\nx = {}\n", f"led.toml:4: params.x: {OPEN}"),
        ("url = 'https://a.example:{x}/'\n[params]\nx = {type = 'int'}\n", f"led.toml:4: params.x: {OPEN}"),
        ("url = '{+x}'\n[params]\nx = {hosts = ['*']}\n", 'x.hosts.0: expected a host like "example.org", "*.example.org"'),
        ("url = '{+x}'\n[params]\nx = {hosts = ['*:81']}\n", 'params.x.hosts: expected any_host = true beside "*:81"'),
        ("url = '{+x}'\n[params]\nx = {hosts = ['a.example:0']}\n", 'found "a.example:0"'),
        ("url = '{+x}'\n[params]\nx = {hosts = ['https://a.example']}\n", 'found "https://a.example"'),
        ("url = 'https://a.example/{x}'\n[params]\nx = {hosts = ['a.example']}\n", "expected hosts only in a param that decides"),
        ("any_host = true\nurl = 'https://a.example/'\n", "led.toml:2: any_host: expected it only if a param decides"),
        (
            "any_host = true\nurl = '{+x}'\n[params]\nx = {}\n[request]\nheaders = {X-Key = '{secret.KEY}'}\n",
            "led.toml:2: any_host: expected hosts of x, since {secret.KEY} would go wherever it leads",
        ),
        (
            "url = 'https://a.example/'\n[params]\nx = {}\n[before]\nurl = '{+x}'\n[before.fields]\nt = 'b'\n",
            "led.toml:4: params.x: expected hosts, since it decides where before.url leads",
        ),
    ],
)  # fmt: skip
def test_a_definition_without_hosts_is_at_fault_with_a_hint(tmp_path, text, fault):
    assert any(fault in one for one in told(tmp_path, text))


@pytest.mark.parametrize("url", [
    "https://a.example/", "HTTP://A.EXAMPLE", "http://a.example.?q", "https://a.example:443/x", "http://a.example:443#f",
    "https://x.b.example/", "https://x.y.b.example/", "https://c.example:8443/",
])  # fmt: skip
def test_an_address_of_a_named_host_is_accepted(url):
    hosts.check(url, ("a.example", "*.b.example", "c.example:8443"))


@pytest.mark.parametrize("url", [
    "https://evil.example/", "https://a.example.evil.example/", "https://xa.example/", "https://b.example/", "https://xb.example/",
    "https://a.example:8443/", "https://c.example/", "https://a.example@evil.example/", "https://evil.example\\.b.example/",
    "https://evil.example\\@a.example/", "https://evil.example#.b.example/", "https://evil.example?.b.example/", "//a.example/",
    "https:/a.example/", "https:a.example", "ftp://a.example/", "https://a.example:99999/", "https://a.example:/", "https:///a.example/",
    "https://evil.example%2f.b.example/", "https://evil.example%00.b.example/", "https://a.example :80/", "https://[::1]/", "",
    "https://evil.example\uff0f.b.example/", "https://evil.example\t.b.example/", "https://user@a.example/", " https://a.example/",
])  # fmt: skip
def test_an_address_of_any_other_host_or_port_is_refused(url):
    """Even if URL parsers disagree about its host."""
    with pytest.raises(HostRefused, match=r"expected an address of a\.example, \*\.b\.example, c\.example:8443, found"):
        hosts.check(url, ("a.example", "*.b.example", "c.example:8443"))


def test_any_host_has_the_usual_ports_and_those_that_are_named(tmp_path):
    text = "any_host = true\nurl = '{+x}'\n[params]\nx = {hosts = ['*:8443']}\n"
    asked = read(written(tmp_path, text)).ask
    for url in ("https://a.example/", "http://b.example:8443/"):
        assert asked.expand({"x": url}) == url
    with pytest.raises(HostRefused, match="expected an http or https address on port 80, 443, 8443, found"):
        asked.expand({"x": "http://a.example:22/"})


def test_a_param_can_not_undo_an_origin_that_looks_fixed(tmp_path):
    asked = read(written(tmp_path, "url = 'https://a.example{?q}{x}'\n[params]\nq = {}\nx = {}\n")).ask
    assert asked.expand({"q": "1"}) == "https://a.example?q=1"
    with pytest.raises(HostRefused, match=r"expected an address of https://a\.example:443"):
        asked.expand({"x": ".evil.example"})


def test_the_gateway_refuses_a_param_that_leads_elsewhere(tmp_path):
    written(tmp_path, "url = '{+x}'\n[params]\nx = {type = 'url', hosts = ['a.example']}\n")
    catalog = Catalog([tmp_path], "fra")
    catalog.refresh()
    rules = submit.Rules(catalog, Limits(), frozenset({"fra"}))
    body = {"sources": [{"source": "led", "params": {"x": "https://evil.example/"}}]}
    with pytest.raises(Problem) as caught:
        submit.validate(json.dumps(body).encode(), rules, sync=False)
    assert caught.value.kind == "invalid"
    assert caught.value.errors == [
        ("/sources/0/params/x", "expected an address of a.example, found 'https://evil.example/'")
    ]
    with pytest.raises(Problem) as caught:
        submit.from_query("led", [("x", "http://a.example:22/")], rules)
    assert [pointer for pointer, _ in caught.value.errors] == ["/x"]
