"""API keys: their text, what the hub keeps of them, what they permit, and what a gateway makes of those that it knows."""

import time

import msgspec
import pytest

from web.flow.keyring import SOON_MS, Keyring
from web.http.problems import Problem
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


def test_the_key_that_a_call_names_is_known_also_if_it_is_wrong():
    assert keys.claimed(f"Bearer {keys.text_of('3k9f0a2b', 'a' * 32)}") == "3k9f0a2b"
    assert keys.claimed("Bearer nonsense") == keys.claimed("") == ""


def test_a_key_is_kept_without_what_it_does_not_limit():
    kept = msgspec.json.decode(msgspec.json.encode(key(limits=KeyLimits(waiters=1))))
    assert (kept["limits"], "expires_ms" in kept) == ({"waiters": 1}, False)
    kept["limits"]["a_day"] = 5
    with pytest.raises(msgspec.ValidationError, match="a_day"):  # a limit that is not known here is not passed over
        keys._key.decode(msgspec.json.encode(kept))


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


def keyring(*known: Key) -> Keyring:
    """One that has read these keys; no hub."""
    made = Keyring(None, "a:1")
    made._keys, made._is_read = {one.id: one for one in known}, True
    return made


def test_a_gateway_that_has_not_read_its_keys_denies_nobodys_key():
    unread = Keyring(None, "a:1")
    for ask in (
        lambda: unread.owner("Bearer nf_3k9f0a2b_" + "a" * 32, "read"),
        lambda: unread.owner_by_id("3k9f0a2b", "read"),
    ):
        with pytest.raises(Problem) as refused:
            ask()
        assert (refused.value.kind, dict(refused.value.headers)) == ("unavailable", {"Retry-After": "1"})
    with pytest.raises(Problem) as refused:
        unread.owner("", "read")
    assert refused.value.kind == "unauthorized"


def test_a_key_ends_when_it_is_revoked_or_expires():
    now_ms = int(time.time() * 1000)
    ring = keyring(key(id="valid", expires_ms=now_ms + 60_000), key(id="over", expires_ms=now_ms - 1), key(id="ever"))
    assert {one: ring.has(one) for one in ("valid", "over", "ever", "none")} == {
        "valid": True, "over": False, "ever": True, "none": False,
    }  # fmt: skip
    assert ring.owner_by_id("valid", "read").tenant == "shop"
    for one in ("over", "none"):
        with pytest.raises(Problem) as refused:
            ring.owner_by_id(one, "read")
        assert refused.value.kind == "unauthorized"


def test_a_key_that_expires_soon_is_told_unless_a_later_one_has_its_name():
    now_ms = int(time.time() * 1000)
    day = 86_400_000
    soon = key(id="soon", expires_ms=now_ms + 2 * day)
    later = key(id="later", expires_ms=now_ms + 9 * day)

    def told(*known: Key) -> list[str | None]:
        found = keyring(*known).faults()
        assert {one.name for one in found} <= {"key-expires"}
        return [one.part for one in found]

    assert 3 * day == SOON_MS
    for left_ms, found in ((20_000, []), (9_000, ["key hour"])):
        assert told(key(id="hour", created_ms=now_ms - 30_000 + left_ms, expires_ms=now_ms + left_ms)) == found
    assert told(later, key(id="ever"), key(id="over", name="old", expires_ms=now_ms - 1)) == []
    assert told(soon) == told(soon, key(id="over", expires_ms=now_ms - 1)) == ["key soon"]
    assert told(soon, key(id="sooner", expires_ms=now_ms + day)) == ["key soon"]
    for other in (later, key(id="ever")):
        assert told(soon, other) == told(other, soon) == []
    for other in (key(id="other", tenant="bank"), key(id="other", name="bills")):
        assert told(soon, other) == ["key soon"]


SECRET = "a" * 32


def bearer(id_: str = "3k9f0a2b", secret: str = SECRET) -> str:
    return f"Bearer {keys.text_of(id_, secret)}"


@pytest.mark.parametrize(
    ("authorization", "scope", "kind", "said"),
    [
        ("", "read", "unauthorized", "found no Authorization"),
        ("Basic eDp5", "read", "unauthorized", "found another scheme"),
        ("Bearer nonsense", "read", "unauthorized", "found another text"),
        (bearer("3k9f0a2c"), "read", "unauthorized", "found another text"),
        (bearer(secret="b" * 32), "read", "unauthorized", "found another text"),
        (bearer("expired0"), "read", "unauthorized", "the key expired0 has expired"),
        (bearer(), "submit", "forbidden", "expected a key with the scope submit, found one with read"),
    ],
)
def test_why_a_call_has_no_owner_is_said(authorization, scope, kind, said):
    mine = key(digest=keys.digest_of(SECRET))
    ring = keyring(mine, key(id="expired0", digest=mine.digest, expires_ms=int(time.time() * 1000) - 1))
    with pytest.raises(Problem) as refused:
        ring.owner(authorization, scope)
    assert (refused.value.kind, said in refused.value.detail) == (kind, True)
    assert ("WWW-Authenticate" in dict(refused.value.headers)) == (kind == "unauthorized")


def test_the_owner_of_a_call_is_its_keys_tenant():
    later_ms = int(time.time() * 1000) + 600_000
    mine = key(digest=keys.digest_of(SECRET), expires_ms=later_ms)
    admin = key(id="admin000", tenant="bank", scopes=("admin",), digest=mine.digest)
    ring = keyring(mine, admin)
    found = [ring.owner(one, "read") for one in (bearer(), bearer().replace("Bearer", "BEARER"), bearer("admin000"))]
    assert [(one.tenant, one.key, one.sees_all) for one in found] == [
        ("shop", "3k9f0a2b", False), ("shop", "3k9f0a2b", False), ("bank", "admin000", True),
    ]  # fmt: skip


def test_as_many_clients_wait_with_a_key_as_may_here_and_elsewhere():
    limited = key(limits=KeyLimits(waiters=3))
    ring = keyring(limited, key(id="free"))
    here, there = {"3k9f0a2b": 1, "free": 9, "gone": 2}, {"3k9f0a2b": 0}
    ring.waiting += [here, there]
    mine, free = (ring.owner_by_id(one, "read") for one in ("3k9f0a2b", "free"))
    ring.check_room(mine)
    assert ring._waiting_here() == {"3k9f0a2b": 1}, "of others nobody needs to know"
    there["3k9f0a2b"] = 2
    with pytest.raises(Problem) as refused:
        ring.check_room(mine)
    assert (refused.value.kind, ring._waiting_here()) == ("limit", {"3k9f0a2b": 3})
    ring.check_room(free)
    there["3k9f0a2b"] = 0
    ring._elsewhere["3k9f0a2b"] = 1
    ring.check_room(mine)
    ring._elsewhere["3k9f0a2b"] = 2
    with pytest.raises(Problem):
        ring.check_room(mine)
