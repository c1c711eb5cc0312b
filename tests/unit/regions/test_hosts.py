"""URLs of several hosts: both ways that people write are understood, what is neither is refused, and nothing secret is shown."""

import pytest

from regions import connect, hosts


@pytest.mark.parametrize(
    ("kind", "urls", "each"),
    [
        ("redis", "redis://one", ["redis://one"]),
        ("redis", "redis://:p%2Cw@one:1,two:2/3", ["redis://:p%2Cw@one:1/3", "redis://:p%2Cw@two:2/3"]),
        ("redis", "redis://:a@one/0, redis://:a@two/0", ["redis://:a@one/0", "redis://:a@two/0"]),
        ("redis", "rediss://u:p,w@one, two:2/0?ssl_cert_reqs=none", [
            "rediss://u:p,w@one/0?ssl_cert_reqs=none", "rediss://u:p,w@two:2/0?ssl_cert_reqs=none",
        ]),
        ("redis", "redis://u:p@ss@[::1]:1,10.0.0.1/0", ["redis://u:p@ss@[::1]:1/0", "redis://u:p@ss@10.0.0.1/0"]),
        ("amqp", "amqps://u:p@one,two:2,three/%2F?heartbeat=5", [
            "amqps://u:p@one/%2F?heartbeat=5", "amqps://u:p@two:2/%2F?heartbeat=5", "amqps://u:p@three/%2F?heartbeat=5",
        ]),
        ("amqp", "amqp://a:1/%2F,amqps://b:2/x", ["amqp://a:1/%2F", "amqps://b:2/x"]),
    ],
)  # fmt: skip
def test_a_list_in_either_way_is_a_url_for_each_host(kind, urls, each):
    assert hosts.split(urls, kind) == each


@pytest.mark.parametrize(
    ("kind", "urls", "expected"),
    [
        ("redis", "", "redis:// or rediss://"),
        ("redis", "one:6379/0", "redis:// or rediss://"),
        ("redis", "http://one/0", "redis:// or rediss://"),
        ("redis", "unix:///run/redis.sock", "redis:// or rediss://"),
        ("amqp", "redis://one/0", "amqp:// or amqps://"),
        ("amqp", "amqps://u:secret@one/%2F,two/%2F", "all hosts before the path"),
        ("redis", "redis://:secret@one:1/0,two:2/0", "all hosts before the path"),
        ("redis", "redis://:secret@one,:secret@two/0", "user and password once"),
        ("redis", "redis://:sec/ret@one/0", "a / in a user or a password written as %2F"),
        ("redis", "redis://:secret@/0", "HOST or HOST:PORT"),
        ("redis", "redis://:secret@one,,two/0", "HOST or HOST:PORT"),
        ("redis", "redis://:secret@one:0/0", "HOST or HOST:PORT"),
        ("redis", "redis://:secret@one:65536/0", "HOST or HOST:PORT"),
        ("redis", "redis://:secret@one:1:2/0", "HOST or HOST:PORT"),
        ("redis", "redis://:secret@one/first", "the number of a database"),
        ("redis", "redis://:secret@one/0/1", "the number of a database"),
        ("redis", "redis://:secret@one/0,redis://:other@two/0", "the same scheme, user, password and database"),
        ("redis", "redis://one/0,rediss://two/0", "the same scheme, user, password and database"),
    ],
)
def test_what_is_no_list_of_hosts_is_refused_with_an_example_and_without_secrets(kind, urls, expected):
    with pytest.raises(ValueError, match=r"expected .* as in") as caught:
        hosts.split(urls, kind)
    assert expected in str(caught.value)
    assert "secret" not in str(caught.value)
    assert hosts.split(hosts.EXAMPLES[kind], kind)


def test_each_broker_of_a_list_has_the_credentials_and_tls_of_its_url():
    found = connect.amqp_parameters("amqps://who:pw@one,two:7/%2F", name="test")
    assert [(one.host, one.port, one.virtual_host, one.credentials.username) for one in found] == [
        ("one", 5671, "/", "who"), ("two", 7, "/", "who"),
    ]  # fmt: skip
    assert all(one.ssl_options is not None for one in found)
