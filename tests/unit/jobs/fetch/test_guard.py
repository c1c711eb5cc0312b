"""The guard: which addresses are public, which the settings permit, and faults of the settings."""

import ipaddress
import socket
import subprocess
import sys

import pytest

from jobs.errors import BlockedAddress
from jobs.fetch.guard import Allowed, Guard, is_public, parse_allow, parse_origins
from regions.faults import Faults
from regions.settings import ROOT

DENIED = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.0.1
169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1
198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 168.63.129.16
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:168.63.129.16
::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::8.8.8.8 100::1 100:0:0:1::1 2001::1
2001:0:7f00:1:: 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:808:808::1 3fff::1 3fff:fff::1
5f00::1 fc00::1 fd00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1 4000::1 1fff::1
""".split()  # noqa: SIM905 - a table reads better

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 192.0.1.1 198.17.0.1
198.20.0.1 168.63.129.15 223.255.255.255 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2001:200::1 2001:4860:4860::8888 2606:4700::1
2a00:1450::1 ::ffff:168.63.129.17
""".split()  # noqa: SIM905 - a table reads better


@pytest.mark.parametrize("text", DENIED)
def test_an_address_that_is_not_globally_reachable_unicast_is_refused(text: str):
    assert not is_public(ipaddress.ip_address(text))
    assert not Guard().permits(text, 80)


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_let_through(text: str):
    assert Guard().permits(text, 443)


OWN = """
import fcntl, socket, struct
from jobs.fetch.guard import Guard, parse_allow
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
lo = struct.pack("16sH14x", b"lo", 1)
flags = struct.unpack("16sH14x", fcntl.ioctl(control, 0x8913, lo))[1]
fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))  # up
given = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton("9.9.9.9"))
fcntl.ioctl(control, 0x8916, given)  # which is this machine's from now on
control6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
fcntl.ioctl(control6, 0x8916, struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, "2a00:1450::7"), 128, 1))
while int(next(line.split()[4] for line in open("/proc/net/if_inet6") if line.startswith("2a00")), 16) & 0x40:
    pass  # the kernel has not yet made sure that nobody else has it
print(Guard().permits("9.9.9.9", 80), Guard().permits("::ffff:9.9.9.9", 80), Guard().permits("8.8.8.8", 80),
      Guard(parse_allow("9.9.9.9:80")).permits("9.9.9.9", 80), Guard().permits("2a00:1450::7", 80))
"""


def test_a_public_address_of_this_machine_is_refused_unless_it_is_allowed():
    """In a network namespace of its own, if this machine permits one."""
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", OWN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip(f"no network of one's own here: {done.stderr.strip()}")
    assert done.stdout == "False False True True False\n", done.stderr


def test_text_that_is_no_address_is_refused():
    assert not Guard().permits("example.org", 80)


def test_of_a_name_with_mixed_addresses_only_the_permitted_ones_are_left():
    public = (socket.AF_INET, ("8.8.8.8", 80))
    inner = (socket.AF_INET, ("10.0.0.1", 80))
    assert Guard().filter("mixed.example", 80, [inner, public]) == [public]


def test_a_refusal_names_host_address_and_port():
    with pytest.raises(
        BlockedAddress, match=r"expected a public address, found inner\.example \(10\.0\.0\.1\), port 81"
    ):
        Guard().filter("inner.example", 81, [(socket.AF_INET, ("10.0.0.1", 81))])
    with pytest.raises(BlockedAddress, match=r"found ::1, port 81$"):
        Guard().filter("[::1]", 81, [(socket.AF_INET6, ("::1", 81, 0, 0))])
    with pytest.raises(BlockedAddress, match=r"found nothing\.example \(no address\), port 81$"):
        Guard().filter("nothing.example", 81, [])


@pytest.mark.parametrize(
    "name", ["example.org", "Example.ORG.", "my-internal.example.org", "xlocal.example", "8.8.8.8"]
)
def test_a_proxy_may_be_asked_for_public_names(name):
    assert Guard().named(name, 443) == [name]


@pytest.mark.parametrize(
    "name",
    ["localhost", "LOCALHOST.", "a.localhost", "printer.local", "x.internal", "nas.home.arpa.", "single", "example.0x1f",
     "example.1", "a b.example", "127.1", "0x7f.0.0.1", "10.0.0.1", "::1"],
)  # fmt: skip
def test_a_proxy_is_not_asked_for_what_a_name_says_is_near(name):
    with pytest.raises(BlockedAddress, match="found"):
        Guard().named(name, 443)


def test_an_allowed_port_lets_no_other_port_through():
    guard = Guard(parse_allow("127.0.0.1:8099"))
    assert guard.permits("127.0.0.1", 8099)
    assert guard.permits("::ffff:127.0.0.1", 8099)
    assert not guard.permits("127.0.0.1", 8098)
    assert not guard.permits("127.0.0.2", 8099)


def test_networks_addresses_and_ipv6_can_be_allowed():
    allowed = parse_allow("127.0.0.0/8, 10.1.2.3 ,[::1]:80,::1,fd00::/8,[fd01::1]")
    assert allowed[0] == Allowed(ipaddress.ip_network("127.0.0.0/8"))
    assert [entry.port for entry in allowed] == [None, None, 80, None, None, None]
    guard = Guard(allowed)
    assert all(guard.permits(text, 9) for text in ("127.9.9.9", "10.1.2.3", "::1", "fd99::1"))
    assert not guard.permits("10.1.2.4", 9)


def test_the_first_and_the_last_port_can_be_allowed():
    assert [entry.port for entry in parse_allow("127.0.0.1:1,127.0.0.1:65535")] == [1, 65535]


def test_nothing_is_allowed_by_an_empty_setting():
    assert parse_allow("") == parse_allow(" , ") == []


def test_every_bad_entry_of_the_allow_list_is_named():
    with pytest.raises(Faults) as caught:
        parse_allow("localhost:8099,127.0.0.1:0,127.0.0.1:70000,10.0.0.1/8,1.2.3.4,127.0.0.1:65536,127.0.0.1:\uff11")
    assert len(caught.value.faults) == 6
    assert 'found "localhost:8099"' in str(caught.value.faults[0])
    assert caught.value.faults[0].key == "fetch.allow"


def test_origins_map_an_origin_to_where_we_connect():
    text = "https://www.example.org=http://127.0.0.1:8099/www.example.org, http://A.example:81/=http://127.0.0.1:8099/a"
    assert parse_origins(text) == {
        "https://www.example.org:443": "http://127.0.0.1:8099/www.example.org",
        "http://a.example:81": "http://127.0.0.1:8099/a",
    }


def test_every_bad_entry_of_the_origins_is_named():
    with pytest.raises(Faults) as caught:
        parse_origins(
            "https://a.example,ftp://b.example=http://127.0.0.1,https://c.example/path=http://127.0.0.1,https://d.example=x,https://e.example:99999=http://127.0.0.1"
        )
    assert len(caught.value.faults) == 5
