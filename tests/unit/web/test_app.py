"""Names by which the gateway answers."""

import pytest

from web.app import host_name


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"), ("LOCALHOST.:8080", "localhost"), ("127.0.0.1:80", "127.0.0.1"), ("[::1]:8080", "::1"),
        ("a@127.0.0.1", ""), ("127.0.0.1/x", ""), ("127.0.0.1:x", ""), ("", ""), ("::1", ""), ("a b", ""),
    ],
)  # fmt: skip
def test_name_in_a_host_header(host, name):
    assert host_name(host) == name
