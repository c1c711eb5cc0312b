"""``nearfetch doctor`` on real servers that are set wrong, one fault after the other, and mended by the command that it names."""

import json
import os
import re
import shlex
import signal
import subprocess
import time

import pytest
from click.testing import CliRunner

from jobs.queue.claim import CLAIM
from regions import names, settings
from scripts.chaos import clocks
from scripts.checks import redis_server
from scripts.checks.clocks import Clocks
from scripts.cli import main
from scripts.stack import dashboard_roles, hub_acl
from scripts.stack.ports import free_port
from tests.service.conftest import RedisInstance
from tests.service.hub_parts import settings as hub_settings
from web.hub.ledger import Ledger
from web.hub.redis import Hub

SECRET = "verysecret"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A region's Redis as ``scripts/up`` starts it. Each test leaves it well."""
    users = {"reader": (SECRET, dashboard_roles.READER_ACL)}
    made = RedisInstance(tmp_path_factory.mktemp("doctor"), "redis", users=users)
    yield made
    made.stop()


def seen(instance, *, kind="strict", url=""):
    known = Clocks()
    found = list(redis_server.redis_seen("Redis of fra", url or instance.url, kind, known, is_hub=False))
    return [*found, *known.findings()]


def bad(findings):
    return [one for one in findings if one.severity in ("wrong", "better")]


def apply(instance, mend: str) -> None:
    """Runs the command that a finding names, as it stands there, up to the sentence behind it."""
    words = shlex.split(mend.partition("; and in its redis.conf")[0])
    assert words[: words.index("-p") + 2] == ["redis-cli", "-h", "127.0.0.1", "-p", str(instance.port)]
    instance.client.execute_command(*words[words.index("CONFIG") :])


def test_a_server_as_up_starts_it_is_well(server):
    found = seen(server)
    assert bad(found) == []
    assert {"connection", "clock", "version", "setting", "limit", "disk", "permission"} <= {one.check for one in found}


@pytest.mark.parametrize(
    ("setting", "value", "severity"),
    [
        ("maxmemory-policy", "allkeys-lru", "wrong"),
        ("appendonly", "no", "wrong"),
        ("appendfsync", "no", "wrong"),
        ("no-appendfsync-on-rewrite", "yes", "wrong"),
        ("maxmemory", "0", "wrong"),
        ("maxmemory", str(10**15), "wrong"),
        ("stream-node-max-bytes", "4096", "better"),
    ],
)
def test_a_setting_that_is_wrong_is_found_and_mended_by_its_command(server, setting, value, severity):
    server.client.config_set(setting, value)
    (found,) = bad(seen(server))
    assert (found.severity, found.check in ("setting", "limit")) == (severity, True)
    assert setting in found.expected
    assert found.cost
    apply(server, found.mend)
    assert bad(seen(server)) == []
    server.client.config_set("maxmemory", "256mb")


def seen_as_hub(instance, url: str = "", records_bytes_max: int = 5_000_000):
    url = url or instance.url
    return list(
        redis_server.redis_seen("hub", url, "strict", Clocks(), is_hub=True, records_bytes_max=records_bytes_max)
    )


@pytest.mark.parametrize(
    ("setting", "usual", "wanted", "small"),
    [
        ("proto-max-bulk-len", 512 * 2**20, 16_000_000, 5_099_999),
        ("client-query-buffer-limit", 2**30, 32_000_000, 5_099_999),
    ],
)
def test_a_hub_that_takes_writes_of_any_size_could_be_better(server, setting, usual, wanted, small):
    """With the values that Redis comes with; a value too small for a result is wrong. A region's Redis is its own affair."""
    well = {"proto-max-bulk-len": 16_000_000, "client-query-buffer-limit": 32_000_000}
    try:
        for name, of in well.items():
            server.client.config_set(name, of)
        assert bad(seen_as_hub(server)) == []
        server.client.config_set(setting, wanted + 1)
        assert [one.severity for one in bad(seen_as_hub(server))] == ["better"]
        server.client.config_set(setting, usual)
        assert bad(seen(server)) == []
        (found,) = bad(seen_as_hub(server))
        assert (found.severity, found.check, found.found) == ("better", "setting", str(usual))
        assert found.expected == f"{setting} {wanted} at most"
        assert ("536.9 MB" if usual < 2**30 else "1.1 GB") in found.cost
        apply(server, found.mend)
        assert bad(seen_as_hub(server)) == []
        server.client.config_set(setting, small)
        (found,) = bad(seen_as_hub(server))
        assert (found.severity, "outbox" in found.cost) == ("wrong", True)
        apply(server, found.mend)
        assert bad(seen_as_hub(server)) == []
        server.client.config_set(setting, small + 1)
        assert bad(seen_as_hub(server)) == []
        larger = bad(seen_as_hub(server, records_bytes_max=20_000_000))
        assert setting in {one.expected.partition(" ")[0] for one in larger if one.severity == "wrong"}
    finally:
        for name in well:
            server.client.config_set(name, {"proto-max-bulk-len": 512 * 2**20}.get(name, 2**30))


def test_bounds_of_writes_that_are_not_shown_are_unseen(server, monkeypatch):
    """By a user that may not read settings, and by a server that does not tell of them."""
    rights = words_of(hub_acl.rules("fra"))
    server.client.execute_command("ACL", "SETUSER", "region-fra", "on", f">{SECRET}", *rights)
    found = seen_as_hub(server, f"redis://region-fra:{SECRET}@127.0.0.1:{server.port}/0")
    assert [(one.check, one.severity) for one in found] == [("connection", "fine"), ("setting", "unseen")]
    real = redis_server.WRITE_BOUNDS
    monkeypatch.setattr(redis_server, "WRITE_BOUNDS", {f"other-{name}": cost for name, cost in real.items()})
    unseen = [one.note for one in seen_as_hub(server) if one.severity == "unseen"]
    assert unseen == [f"other-{name} is not shown by this server" for name in real]


def test_what_a_relaxed_redis_lacks_could_be_better(server):
    server.client.config_set("appendfsync", "no")
    (found,) = bad(seen(server, kind="relaxed"))
    server.client.config_set("appendfsync", "everysec")
    assert (found.severity, "durability is relaxed" in found.cost) == ("better", True)


def test_memory_that_is_nearly_full_is_found(server):
    server.client.config_set("maxmemory", server.client.info("memory")["used_memory"] + 100_000)
    (found,) = bad(seen(server))
    server.client.config_set("maxmemory", "256mb")
    assert (found.check, found.severity) == ("limit", "wrong")
    assert "70 %" in found.cost


def test_a_right_that_our_user_lacks_is_named(server):
    server.client.acl_setuser(
        "ours",
        enabled=True,
        passwords=[f"+{SECRET}"],
        keys=["*"],
        channels=["*"],
        commands=["+@all", "-waitaof", "-config|set"],
    )
    url = f"redis://ours:{SECRET}@127.0.0.1:{server.port}/0"
    found = bad(seen(server, url=url))
    assert sorted(one.mend for one in found) == [
        "ACL SETUSER ours +config|set, then ACL SAVE",
        "ACL SETUSER ours +waitaof, then ACL SAVE",
    ]
    server.client.execute_command("ACL", "SETUSER", "ours", "+config|set", "+waitaof")
    assert bad(seen(server, url=url)) == []
    (wrong,) = bad(seen(server, url=url.replace(SECRET, "other")))
    assert (wrong.check, wrong.severity) == ("permission", "wrong")


def test_workers_of_another_version_of_the_code_are_found(server):
    """By the scripts that they call all the time; where none runs there is nothing to say."""
    server.client.script_flush()
    assert bad(seen(server)) == []
    server.client.zadd(names.WORKERS, {"fra.worker.1": 1})
    (found,) = bad(seen(server))
    server.client.script_load(CLAIM.text)
    assert bad(seen(server)) == []
    server.client.delete(names.WORKERS)
    assert (found.check, found.severity, "Lua scripts" in found.expected) == ("version", "better", True)


@pytest.mark.usefixtures("patient_clients")
def test_a_gateway_that_has_just_started_is_of_this_version(hub_redis, tmp_path):
    """It has ended no task yet, and swept nothing."""
    found = hub_settings(tmp_path, redis=hub_redis.url)
    hub_redis.client.script_flush()
    hub_redis.client.sadd(names.REGIONS, "fra")
    common = {"what": "hub's Redis", "where": hub_redis.url}
    (wrong,) = redis_server._scripts(hub_redis.client, common, is_hub=True)
    assert wrong.check == "version"
    hub = Hub(found)
    hub.rehearse = Ledger(hub.client, found.limits).rehearse
    hub.start()
    assert list(redis_server._scripts(hub_redis.client, common, is_hub=True)) == []
    hub.stop()


@pytest.mark.skipif(not clocks.CAN_STEP, reason="clocks can be stepped on x86-64 alone")
def test_a_clock_that_is_off_is_found(server):
    pid = server._running.process.pid
    try:
        for seconds, severity, shown in ((5, "better", 5.0), (-90, "wrong", 90.0), (0, "fine", 0.0)):
            clocks.step(pid, seconds)
            (found,) = [one for one in seen(server) if (one.check, one.what) == ("clock", "Redis of fra")]
            said = found.found or found.note
            assert found.severity == severity
            assert float(said.split()[0]) == pytest.approx(shown, abs=4.0)
            assert not seconds or ("behind" in said) == (seconds < 0)
    finally:
        clocks.step(pid, 0)


def test_a_disk_with_no_room_is_found(tmp_path):
    """A file system of its own, with less room than a rewrite of the file may need."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(small)], capture_output=True, check=False
    ).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        instance = RedisInstance(small, "redis")
        try:
            (found,) = bad(seen(instance))
        finally:
            instance.stop()
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert (found.check, found.severity, found.where) == ("disk", "wrong", str(small))
    assert "refuses writes" in found.cost


def test_a_dashboards_user_that_may_write_or_not_read_is_found(server):
    def looked():
        url = f"redis://reader:{SECRET}@127.0.0.1:{server.port}/0"
        both = settings.Dashboard(password="x", redis_url=url, operator_password="y", operator_redis_url=url)
        return [one.severity for one in redis_server.dashboard_users(settings.Region(name="fra", dashboard=both))]

    def rights(*rules):
        server.client.execute_command("ACL", "SETUSER", "reader", *rules)

    assert looked() == ["fine", "wrong"], "as an operator's it may do too little"
    rights("+@write")
    assert looked() == ["better", "fine"]
    rights("-@all")
    assert looked() == ["wrong", "wrong"]
    rights("clearselectors", *words_of(dashboard_roles.OPERATOR_ACL))
    assert looked() == ["better", "fine"]
    rights("clearselectors", *words_of(dashboard_roles.READER_ACL))
    assert looked() == ["fine", "wrong"]
    rights(f"<{SECRET}", ">other")
    assert looked() == ["wrong", "wrong"]
    rights("<other", f">{SECRET}")


def words_of(rules: str) -> list[str]:
    """The words of ACL rules, a selector in one."""
    return re.findall(r"\([^)]*\)|\S+", rules)


@pytest.fixture
def environ(monkeypatch, tmp_path, server):
    """The settings of a hub with one region, and nothing of whoever runs the tests."""
    for variable in [name for name in os.environ if name.startswith("NEARFETCH")]:
        monkeypatch.delenv(variable)
    (tmp_path / "regions").mkdir()
    (tmp_path / "regions" / "fra.toml").write_text(f'[redis]\nurl = "{server.url}"\n')
    (tmp_path / "regions" / "nyc.toml").write_text(f'[redis]\nurl = "rediss://127.0.0.1:{free_port()}/0"\n')
    (tmp_path / "regions" / "sin.toml").write_text(f'[redis]\nurl = "{server.url}"\n')
    for name, value in {
        "NEARFETCH_DATA": str(tmp_path / "none"), "NEARFETCH__REGIONS__PATH": str(tmp_path / "regions"),
        "NEARFETCH__HUB__AMQP": f"amqp://x:{SECRET}@127.0.0.1:{free_port()}/%2F", "NEARFETCH__GATEWAY__PORT": str(free_port()),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return monkeypatch


def doctored(*words):
    done = CliRunner().invoke(main, ["doctor", *words])
    assert SECRET not in done.output
    return done


def test_everything_is_looked_at_and_what_is_away_is_told_with_the_rest(environ, server, hub_redis):
    environ.setenv("NEARFETCH__HUB__REDIS", hub_redis.url)
    hub_redis.client.execute_command(
        "ACL",
        "SETUSER",
        "region-fra",
        "on",
        f">{SECRET}",
        *words_of(hub_acl.rules("fra")),
        "+keys",
    )
    done = doctored("--json")
    shown = json.loads(done.stdout)
    assert done.exit_code == 1
    wrong = {(one["check"], one["what"]): one for one in shown["findings"] if one["severity"] == "wrong"}
    assert {
        ("connection", "RabbitMQ"),
        ("connection", "gateway"),
        ("connection", "Redis of nyc"),
        ("permission", "hub's user of fra"),
    } <= set(wrong)
    assert wrong["permission", "hub's user of fra"]["expected"] == "region-fra: KEYS *: refused"
    assert wrong["permission", "hub's user of fra"]["mend"].startswith("ACL SETUSER region-fra resetkeys")
    assert not any(what in ("hub's Redis", "Redis of fra") for _, what in wrong)
    fine = {one["check"] for one in shown["findings"] if one["severity"] == "fine"}
    assert {"connection", "clock", "version", "setting", "permission", "definition"} <= fine
    assert shown["wrong"] == len(wrong)
    assert all(one["cost"] and one["mend"] for one in wrong.values())
    text = doctored().stdout
    hub_redis.client.execute_command("ACL", "DELUSER", "region-fra")
    assert "   mend   start nearfetch gateway; its log says why it ended" in text
    assert f"{shown['wrong']} wrong" in text


def test_a_server_that_hangs_holds_no_other_check(environ, server, tmp_path, hub_redis):
    environ.setenv("NEARFETCH__HUB__REDIS", hub_redis.url)
    process = server._running.process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        found = json.loads(doctored("--json").stdout)["findings"]
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert [one["found"] for one in found if one["what"] == "Redis of fra"] == ["Timeout reading from socket"]
    assert [one["severity"] for one in found if (one["check"], one["what"]) == ("connection", "hub's Redis")] == [
        "fine"
    ]
    assert time.monotonic() - began < 60


def test_a_region_is_looked_at_from_its_own_host(environ, server, hub_redis):
    """Its user at the hub sees the clock alone, and the other region's servers are not its own."""
    hub_redis.client.execute_command(
        "ACL",
        "SETUSER",
        "region-fra",
        "on",
        f">{SECRET}",
        *words_of(hub_acl.rules("fra")),
    )
    environ.setenv("NEARFETCH__HUB__REDIS", f"redis://{names.hub_user('fra')}:{SECRET}@127.0.0.1:{hub_redis.port}/0")
    shown = json.loads(doctored("--json").stdout)
    hub_redis.client.execute_command("ACL", "DELUSER", "region-fra")
    parts = {one["what"] for one in shown["findings"]}
    assert shown["region"] == "fra"
    assert {"hub's Redis", "Redis of fra", "RabbitMQ", "bridges"} <= parts
    assert parts & {"Redis of nyc", "gateway", "history"} == set()
    of_hub = {one["check"]: one["severity"] for one in shown["findings"] if one["what"] == "hub's Redis"}
    assert of_hub == {"connection": "fine", "clock": "fine", "setting": "unseen"}


def test_a_setting_that_is_wrong_ends_with_2(environ):
    environ.setenv("NEARFETCH__LIMITS__TASKS_MAX", "0")
    done = doctored()
    assert done.exit_code == 2
    assert "NEARFETCH__LIMITS__TASKS_MAX" in done.output
