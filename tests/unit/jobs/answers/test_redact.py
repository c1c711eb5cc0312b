"""Secrets in every form in which a page may repeat them, and their replacements."""

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.answers.redact import Redaction, shape

SECRET = "p&ss/w0rd é"
SPELLINGS = {
    "plain": SECRET.encode(),
    "latin-1": SECRET.encode("latin-1"),
    "address": quote(SECRET, safe="").encode(),
    "address, lower case": quote(SECRET, safe="").replace("%2F", "%2f").replace("%C3%A9", "%c3%a9").encode(),
    "path": quote(SECRET).encode(),
    "form": quote_plus(SECRET).encode(),
    "html": html.escape(SECRET).encode(),
    "json": json.dumps(SECRET)[1:-1].encode(),
    "json, slashes escaped": json.dumps(SECRET)[1:-1].replace("/", "\\/").encode(),
    "base64": base64.b64encode(SECRET.encode()),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_secret_is_found_in_every_spelling(spelling):
    """Only the secret is removed from a page."""
    found = Redaction([SECRET]).bytes(b"<p>you sent " + spelling + b", thanks</p>")
    assert b", thanks</p>" in found
    assert found.startswith(b"<p>you sent ")
    assert spelling not in found
    assert b"removed" in found or base64.b64encode(b"removed") in found


@given(st.text(min_size=1, max_size=30), st.binary(max_size=50), st.binary(max_size=50))
def test_no_secret_is_left_whatever_it_is(secret, before, after):
    """Also when the text around it looks like a part of it."""
    data = before + secret.encode() + after
    found = Redaction([secret]).bytes(data)
    if secret.encode() not in b"1removed" + before + after + b"1removed":
        assert found != data


def test_json_stays_json_where_a_secret_is_a_number():
    """A number becomes another number of as many digits."""
    assert json.loads(Redaction(["90210"]).bytes(b'{"zip": 90210}')) == {"zip": 11111}


def test_a_token_keeps_its_shape_in_every_spelling():
    """The selector and the pattern that found a token also find its replacement."""
    redaction = Redaction([], ["dEad/b33f="])
    assert (
        redaction.bytes(b'value="dEad/b33f=" href="?t=dEad%2Fb33f%3D"')
        == b'value="aAaa/a11a=" href="?t=aAaa%2Fa11a%3D"'
    )
    assert shape("Ünit 7-b") == "Aaaa 1-a"


def test_a_short_value_of_before_is_no_token():
    """ "en" or "7" stands everywhere and lets nobody in."""
    redaction = Redaction([], ["en", "7", ""])
    assert not redaction
    assert redaction.bytes(b"seven 7") == b"seven 7"


def test_the_longer_secret_goes_first():
    """When one secret contains another one, no rest of it stays."""
    assert Redaction(["abc", "abcdef"]).bytes(b"abcdef abc") == b"removed removed"


def test_headers_that_let_somebody_in_stay_by_name_only():
    """The other headers lose only the secrets in them."""
    headers = {
        "Content-Type": "text/html",
        "Set-Cookie": "sid=1",
        "Authentication-Info": "nextnonce=1",
        "X-CSRF-Token": "1",
        "WWW-Authenticate": "Bearer realm=api",
        "X-Echo": "s3cret!",
    }
    assert dict(Redaction(["s3cret!"]).headers(headers)) == {
        **dict.fromkeys(headers, "removed"),
        "Content-Type": "text/html",
        "WWW-Authenticate": "Bearer realm=api",
    }
