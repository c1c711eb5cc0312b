"""API keys: their text, what the hub keeps of them, what they permit."""

import pytest

from web.hub import keys
from web.hub.keys import Key, KeyLimits


def key(**changes) -> Key:
    told = {
        "id": "3k9f0a2b",
        "name": "orders",
        "tenant": "shop",
        "scopes": ("read",),
        "digest": keys.digest_of("s"),
        "created_ms": 1,
    }
    return Key(**{**told, **changes})


def test_text_of_a_key_is_read_back():
    made, secret = keys.new_id(), keys.new_secret()
    assert keys.parts_of(keys.text_of(made, secret)) == (made, secret)
    assert len({keys.new_secret() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "text", ["", "nf_", "nf_3k9f0a2b_short", "x" * 44, "nf_3K9F0A2B_" + "a" * 32, "nf_3k9f0a2b_" + "a" * 33]
)
def test_what_is_no_key(text):
    assert keys.parts_of(text) is None


def test_a_secret_fits_its_own_key_alone():
    assert key().fits("s")
    assert not key().fits("S")
    assert "s" not in key().digest or len(key().digest) == 64


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("read",), {"read"}),
        (("submit",), {"submit"}),
        (("admin",), {"read", "admin"}),
        (("read", "submit"), {"read", "submit"}),
    ],
)
def test_scopes(scopes, may):
    assert {scope for scope in keys.SCOPES if key(scopes=scopes).may(scope)} == may


def test_a_key_expires_at_its_time_and_never_without_one():
    assert not key().is_expired(10**15)
    assert not key(expires_ms=100).is_expired(99)
    assert key(expires_ms=100).is_expired(100)


def test_sources_by_patterns():
    assert KeyLimits().permits("any.source")
    assert KeyLimits(sources=("ecb.*", "hn.front")).permits("ecb.rates")
    assert not KeyLimits(sources=("ecb.*", "hn.front")).permits("hn.front.page")
