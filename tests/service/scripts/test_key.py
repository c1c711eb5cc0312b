"""``nearfetch key`` on a real Redis: what it shows once, what the hub keeps, how keys end."""

import json

import pytest
from click.testing import CliRunner
from msgspec import structs

from scripts.cli import main
from web.hub import keys


@pytest.fixture
def run(hub_redis, monkeypatch, tmp_path):
    """Runs the command with this hub; its exit code, output and what it said besides."""
    monkeypatch.setenv("NEARFETCH__HUB__REDIS", hub_redis.url)
    monkeypatch.setenv("NEARFETCH_CONFIG", str(tmp_path / "none.toml"))
    (tmp_path / "none.toml").write_text("")

    def call(*words: str):
        return CliRunner().invoke(main, ["key", *words])

    return call


def test_a_key_is_shown_once_and_the_hub_has_its_digest_alone(run, hub_redis):
    done = run(
        "create", "order service", "--tenant", "shop", "--source", "ecb.*", "--open-tasks", "50", "--expires", "90d"
    )
    assert done.exit_code == 0, done.output
    key_id, secret = keys.parts_of(done.stdout.strip())
    assert "shown once" in done.stderr
    made = keys.read(hub_redis.client)[key_id]
    assert made.fits(secret)
    assert (made.name, made.tenant, made.scopes) == ("order service", "shop", ("read", "submit"))
    assert made.limits == keys.KeyLimits(open_tasks=50, sources=("ecb.*",))
    assert made.expires_ms - made.created_ms == 90 * 86_400_000
    assert secret.encode() not in b"".join(hub_redis.client.hvals("nf:keys"))
    listed = run("list")
    assert secret not in listed.output
    assert all(part in listed.stdout for part in (key_id, "shop", "order service", "sources=ecb.*", "open_tasks=50"))
    assert "=0" not in listed.stdout  # no limit
    [one] = json.loads(run("list", "--json").stdout)
    assert (one["id"], one["limits"]["open_tasks"]) == (key_id, 50)


def test_a_key_may_have_so_many_open_tasks_unless_it_is_said(run, hub_redis):
    """So that no tenant's bulk can stand before others' without a bound; 0 says that it may."""
    for words, most in (((), keys.OPEN_TASKS), (("--open-tasks", "0"), 0), (("--open-tasks", "7"), 7)):
        key_id, _ = keys.parts_of(run("create", "a", "--tenant", "shop", *words).stdout.strip())
        assert keys.read(hub_redis.client)[key_id].limits.open_tasks == most
    assert f"{keys.OPEN_TASKS} by default" in " ".join(run("create", "--help").output.split())


def test_rotate_gives_a_new_key_and_lets_the_old_one_end(run, hub_redis):
    old, _ = keys.parts_of(run("create", "a", "--tenant", "shop", "--scope", "admin").stdout.strip())
    done = run("rotate", old, "--overlap", "1h")
    new, secret = keys.parts_of(done.stdout.strip())
    found = keys.read(hub_redis.client)
    assert (found[new].name, found[new].tenant, found[new].scopes, found[new].expires_ms) == (
        "a",
        "shop",
        ("admin",),
        0,
    )
    assert found[new].fits(secret)
    assert 3_500_000 < found[old].expires_ms - found[new].created_ms <= 3_600_000
    assert old in done.stderr


def test_a_rotated_key_gets_the_life_of_the_old_one_anew(run, hub_redis):
    """Or the new one would expire with the old one, and nothing were mended."""
    old, _ = keys.parts_of(run("create", "a", "--tenant", "shop", "--expires", "90d").stdout.strip())
    long_ago = structs.replace(keys.read(hub_redis.client)[old], created_ms=1_000, expires_ms=90 * 86_400_000 + 1_000)
    keys.write(hub_redis.client, [long_ago])
    new, _ = keys.parts_of(run("rotate", old).stdout.strip())
    made = keys.read(hub_redis.client)[new]
    assert made.expires_ms - made.created_ms == 90 * 86_400_000
    assert made.created_ms > long_ago.created_ms


def test_revoke_ends_keys_and_knows_a_near_id(run, hub_redis):
    key_id, secret = keys.parts_of(run("create", "a", "--tenant", "shop").stdout.strip())
    wrong = run("revoke", key_id, f"{key_id[:-1]}?")
    assert (wrong.exit_code, key_id in wrong.stderr) == (1, True)
    assert key_id in keys.read(hub_redis.client)  # none of them, since one was wrong
    whole = run("revoke", keys.text_of(key_id, secret))
    assert (whole.exit_code, secret in whole.output) == (1, False)
    assert run("revoke", key_id).exit_code == 0
    assert key_id not in keys.read(hub_redis.client)


@pytest.mark.parametrize(
    "words",
    [
        ("a", "--tenant", "Shop!"), ("a/b", "--tenant", "shop"), ("a", "--tenant", "shop", "--expires", "soon"), ("a",),
        ("a", "--tenant", "shop", "--scope", "write"), ("a", "--tenant", "shop", "--open-tasks", "-1"),
    ],
)  # fmt: skip
def test_wrong_words_make_no_key(run, hub_redis, words):
    done = run("create", *words)
    assert done.exit_code == 2, done.output
    assert keys.read(hub_redis.client) == {}


def test_without_a_hub_it_says_so(run, monkeypatch):
    monkeypatch.setenv("NEARFETCH__HUB__REDIS", "redis://:secret@127.0.0.1:1/0")
    done = run("list")
    assert (done.exit_code, "does not answer" in done.stderr, "secret" in done.output) == (3, True, False)
