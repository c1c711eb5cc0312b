"""A region's egresses: where a proxy's URL comes from, all that can be wrong with it, and that no password is shown."""

import msgspec
import pytest

from jobs.fetch.connection import tls_context
from jobs.fetch.egress import fetchers_of, passwords_of
from regions import settings
from regions.egress import Egress, Proxy, proxy_of, without_credentials
from regions.faults import Faults
from regions.settings import Region
from tests.service.jobs.fetch.origin import certificate


@pytest.fixture
def load(tmp_path):
    """Loads settings with one region's file and variables."""

    def load(text="", **variables):
        (tmp_path / "regions").mkdir(exist_ok=True)
        (tmp_path / "regions" / "fra.toml").write_text(text)
        prefix = "NEARFETCH__REGION__FRA__EGRESS__"
        environ = {f"{prefix}{key.upper()}": value for key, value in variables.items()}
        return settings.load({"NEARFETCH__REGIONS__PATH": str(tmp_path / "regions"), **environ})

    return load


def faults(load, text, **variables):
    with pytest.raises(Faults) as caught:
        load(text, **variables)
    return [str(fault) for fault in caught.value.faults]


def test_a_proxy_comes_from_the_file_the_environment_or_a_file_of_its_own(load, tmp_path):
    (tmp_path / "proxy").write_text("socks5://u:p@proxy.example:1080\n")
    text = f'[egress.eu]\nproxy = "http://u:p@proxy.example:1"\n[egress.us]\nproxy_file = "{tmp_path}/proxy"\n'
    found = load(text, eu__proxy_resolves="true", default__proxy_file=str(tmp_path / "proxy")).one("fra").egress
    assert {name: one.proxy for name, one in found.items()} == {
        "default": "socks5://u:p@proxy.example:1080",
        "eu": "http://u:p@proxy.example:1",
        "us": "socks5://u:p@proxy.example:1080",
    }
    assert found["eu"].proxy_resolves
    assert load(text, eu__proxy="https://other.example:2").one("fra").egress["eu"].proxy == "https://other.example:2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.example:3128", Proxy("http", "proxy.example", 3128, "", "", False)),
        ("https://u:p@[2001:db8::1]:443/", Proxy("https", "2001:db8::1", 443, "u", "p", False)),
        ("socks5://us%20er:p%40%3A%2F@h:1", Proxy("socks5", "h", 1, "us er", "p@:/", False)),
        ("socks5h://h:1", Proxy("socks5", "h", 1, "", "", True)),
        ("http://u:a,b@c@h:1", Proxy("http", "h", 1, "u", "a,b@c", False)),
        ("http://u@h:1", Proxy("http", "h", 1, "u", "", False)),
    ],
)
def test_what_a_proxys_url_says(url, expected):
    assert proxy_of(Egress(proxy=url)) == expected
    assert proxy_of(Egress(proxy=url, proxy_resolves=True)).resolves
    assert "user" not in repr(expected)
    assert "password" not in repr(expected)
    assert without_credentials(url).endswith((":1", ":3128", ":443/"))
    assert "@" not in without_credentials(url)


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "proxy.example:3128",
        "u:hunter2@h:1",
        "ftp://u:hunter2@h:1",
        "socks4://u:hunter2@h:1",
        "http://u:hunter2@h",
        "http://u:hunter2@h:0",
        "http://u:hunter2@h:99999",
        "http://u:hunter2@:1",
        "http://u:hun/ter2@h:1",
        "http://u:12/hunter2@h:1",
        "http://u:1?hunter2@h:1",
        "http://u:1#hunter2@h:1",
        "http://u:hunter2@h:1/path",
        "http://u:hunter2@[::1:1",
        "http://:hunter2@h:1",
        "socks5://hunter2@h:1",
        f"socks5://u:hunter2{'x' * 128}@h:1",
    ],
)
def test_what_is_no_proxy_is_refused_and_not_shown(load, url):
    (told,) = faults(load, f'title = "F"\n[egress.eu]\nproxy = "{url}"\n')
    assert told.startswith("fra.toml:3: egress.eu.proxy: expected http, https, socks5 or socks5h://HOST:PORT")
    assert "hunter2" not in told
    assert "ter2" not in told
    (told,) = faults(load, "", default__proxy=url)
    assert "egress.default.proxy" in told
    assert "hunter2" not in told


def test_everything_that_is_wrong_is_told_at_once_and_no_text_in_the_wrong_place_is_shown(load):
    text = """
[egress]
proxy = "http://u:hunter2@h:1"
list = ["http://u:hunter2@h:1"]
[egress.eu]
proxy = ["http://u:hunter2@h:1"]
source_address = "here"
[egress.us]
proxy_resolves = true
proxi = "http://u:hunter2@h:1"
"""
    told = faults(load, text)
    assert sorted(told) == [
        'fra.toml:10: egress.us.proxi: unknown key; did you mean "proxy"?',
        "fra.toml:3: egress.proxy: expected a table, found a str",
        "fra.toml:4: egress.list: expected a table, found a list",
        "fra.toml:6: egress.eu.proxy: expected `str`, got `array`, found a value that is not shown",
        'fra.toml:7: egress.eu.source_address: expected an address of this machine, found "here"',
        "fra.toml:9: egress.us.proxy_resolves: expected a proxy beside it, found none",
    ]
    assert "hunter2" not in "\n".join(faults(load, 'egress = "http://u:hunter2@h:1"\n'))


def test_a_variable_for_a_way_out_that_is_not_there_is_refused(load):
    (told,) = faults(load, "", eu__proxy="http://u:hunter2@h:1")
    assert told.startswith("environment: NEARFETCH__REGION__FRA__EGRESS__EU__PROXY: expected the name of a setting")
    assert "hunter2" not in told


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_an_address_of_another_machine_is_refused_when_the_workers_start(address):
    region = Region(name="fra", egress={"default": Egress(), "other": Egress(source_address=address)})
    with pytest.raises(Faults) as caught:
        fetchers_of(settings.Settings(), region)
    (fault,) = caught.value.faults
    assert str(fault).startswith(
        f'fra.toml: egress.other.source_address: expected an address of this machine, found "{address}": '
    )
    for one in fetchers_of(settings.Settings(), region, elsewhere=True).values():  # on an author's machine
        one.close()


def test_what_must_not_be_kept_is_each_form_in_which_it_is_sent():
    egress = {
        "none": Egress(),
        "open": Egress(proxy="http://h:1"),
        "eu": Egress(proxy="http://us%20er:p%40ss@h:1"),
    }
    assert passwords_of(Region(egress=egress)) == {"eu": {"p@ss", "us er:p@ss"}}


def test_settings_of_a_way_out_travel_to_the_workers_whole():
    """A pool hands them to its processes as JSON."""
    region = Region(name="fra", egress={"default": Egress(proxy="http://h:1", proxy_resolves=True)})
    assert msgspec.json.decode(msgspec.json.encode(region), type=Region) == region


def test_a_file_of_cas_is_read_at_start_and_refused_by_its_key(load, tmp_path):
    """Its CAs are trusted besides the usual ones."""
    found = load()
    usual = len(tls_context().get_ca_certs())
    (tmp_path / "none.pem").write_text("no certificate")
    for name in ("none.pem", "missing.pem"):
        fetch = msgspec.structs.replace(found.fetch, ca_file=str(tmp_path / name))
        with pytest.raises(Faults) as caught:
            fetchers_of(msgspec.structs.replace(found, fetch=fetch), found.one("fra"))
        assert [fault.key for fault in caught.value.faults] == ["fetch.ca_file"]
        assert name in str(caught.value.faults[0])
    made, _ = certificate(tmp_path, "intranet.example")
    assert len(tls_context(str(made)).get_ca_certs()) == usual + 1
