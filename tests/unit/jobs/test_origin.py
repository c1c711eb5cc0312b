"""Origins: what turns, credentials and mappings go by."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests.models import PreparedRequest

from jobs.origin import fixed_origin, is_plain, is_reserved, origin_of, path_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://a.example/x", "https://a.example:443"),
        ("https://A.example:443/x?y", "https://a.example:443"),
        ("HTTP://A.example:8080", "http://a.example:8080"),
        ("http://u:p@a.example./", "http://a.example:80"),
        ("http://[::1]/", "http://[::1]:80"),
        ("http://[2001:DB8::1]:81/", "http://[2001:db8::1]:81"),
        ("https://a.example:0/", "https://a.example:0"),
        ("https://a.example:/", "https://a.example:443"),
    ],
)
def test_an_origin_is_scheme_name_and_port(url, origin):
    """However it is spelt: one host has one turn and one mapping."""
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url", ["", "a/b", "ftp://a.example/", "ftp://a.example:21/", "https://", "http://a:99999/", "http://a:x/"]
)
def test_what_is_no_http_address_has_none(url):
    """It is refused, not guessed."""
    with pytest.raises(ValueError, match=r"."):
        origin_of(url)


@pytest.mark.parametrize(
    ("template", "origin"),
    [
        ("https://a.example/{x}", "https://a.example:443"),
        ("HTTPS://A.example{?x}", "https://a.example:443"),
        ("http://a.example:81{/x}", "http://a.example:81"),
        ("https://a.example", "https://a.example:443"),
        ("https://{x}.example/", ""),
        ("https://a.example{x}/", ""),
        ("https://a.example:{port}/", ""),
        ("{+url}", ""),
    ],
)
def test_the_origin_of_a_template_is_known_where_no_param_decides_it(template, origin):
    """A host's turns go by all sources that are sure to ask it."""
    assert fixed_origin(template) == origin


@given(st.from_regex(r"https?://[a-z0-9.-]{1,9}(:[0-9]{1,4})?/[A-Za-z0-9._~!$&'()*+,;=:/?#%@-]{0,20}", fullmatch=True))
@example("https://a.example/b/../c")
@example("https://a.example/b/.")
@example("https://a.example/b?c/../d")
@example("https://a.example/b?")
@example("https://a.example//b")
@example("https://a.example:080/")
@example("https://a.example/%7E")
@example("https://a.example/b#c")
@example("https://a.example/b c")
@example("https://a.example/é")
@example("https://a.example/b\n")
@example("https://u@a.example/")
@example("https://A.example/")
@example("https://a.example.:80/")
def test_a_plain_address_is_one_that_requests_sends_as_it_is(url):
    """And its origin is that of all others."""
    if not is_plain(url):
        return
    prepared = PreparedRequest()
    prepared.prepare_url(url, None)
    assert prepared.url == url
    parts = urlsplit(url)
    assert (
        origin_of(url) == f"{parts.scheme}://{parts.hostname}:{parts.port or {'http': 80, 'https': 443}[parts.scheme]}"
    )


@given(st.from_regex(r"https?://(u@)?[a-zA-Z0-9.]{1,9}(:[0-9]{1,4})?([/?#][A-Za-z0-9._~/?#%-]{0,20})?", fullmatch=True))
@example("https://a.example")
@example("https://a.example?q")
@example("https://a.example//b?c")
@example("https://a.example/b?")
@example("https://a.example/b#c")
def test_the_path_is_what_requests_asks_for(url):
    """Whether the address had to be taken apart for it or not."""
    prepared = PreparedRequest()
    prepared.url = url
    assert path_of(url) == prepared.path_url


def test_most_addresses_are_plain():
    assert is_plain("https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml")
    assert is_plain("http://127.0.0.1:8099/books.toscrape.com/catalogue/category/books/poetry_23/index.html?page=2")


@pytest.mark.parametrize(
    ("origin", "found"),
    [
        ("https://slow.example:443", True), ("https://example:443", True), ("http://www.example.org:80", True),
        ("http://a.test:80", True), ("http://localhost:8099", True), ("http://127.0.0.1:8099", True), ("http://[::1]:80", True),
        ("https://books.toscrape.com:443", False), ("https://anexample.org:443", False), ("https://example.org.uk:443", False),
        ("http://10.0.0.1:80", False), ("", False),
    ],
)  # fmt: skip
def test_names_for_examples_and_loopback_addresses_are_nobodys(origin, found):
    assert is_reserved(origin) is found
