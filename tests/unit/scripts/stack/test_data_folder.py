"""The data folder and the settings that are generated into it."""

import os
import re
import socket
import stat
import subprocess
import sys
import tomllib
from itertools import islice

import pytest
import redis

from regions import connect, names, settings
from regions.secret import Secret
from scripts import terminal
from scripts.stack import configuration, distance, hub_acl, parts
from scripts.stack.data_folder import DataFolder
from scripts.stack.ports import BLOCK, free_block, free_port, port_is_free
from scripts.stack.services import RabbitMQ, Running, redis_server


@pytest.fixture
def data(tmp_path):
    folder = DataFolder(tmp_path / "data")
    folder.open()
    return folder


def test_ports_and_secrets_are_kept_from_run_to_run(data):
    chosen = data.port("hub", free_port()), data.secret("hub"), data.password("dashboard fra")
    again = DataFolder(data.path)
    again.open()
    assert (again.port("hub", free_port()), again.secret("hub"), again.password("dashboard fra")) == chosen
    assert stat.S_IMODE((data.path / "kept.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.path.stat().st_mode) == 0o700


def test_a_port_that_is_taken_moves_to_a_free_one_and_no_two_parts_share_one(data):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        moved = data.port("hub", taken)
        assert moved != taken
        assert port_is_free(moved)
        assert data.port("broker", moved) != moved


def test_one_up_at_a_time_holds_a_folder(data):
    assert data.lock()
    other = DataFolder(data.path)
    assert not other.lock()
    assert other.holder.pid == os.getpid()
    data.unlock()
    assert other.lock()
    other.unlock()


def test_a_supervisor_is_only_who_the_pid_file_means(data):
    assert data.supervisor is None
    data.pid_file("supervisord").write_text(f"{os.getpid()} 1\n")  # our pid, another's start
    assert data.supervisor is None


def generate(data, environ, *, live=False, wan=None):
    wanted = settings.load(environ)
    far = None if wan is None else distance.parse(wan, list(wanted.region))
    ports = configuration.choose_ports(data, wanted, 18080, far, live=live)
    broker = RabbitMQ(data.path / "rabbitmq", 1, password="secret", regions=dict.fromkeys(wanted.region, "word"))
    configuration.write(data, wanted, ports, broker, live=live)
    return wanted, ports


def test_the_generated_settings_load_and_lead_to_the_private_servers(data):
    _, ports = generate(data, {})
    loaded = settings.load(configuration.environment(data, {}))
    assert list(loaded.region) == ["fra", "nyc", "sin"]
    assert loaded.gateway.port == 18080
    assert loaded.hub.redis == f"redis://default:{data.secret('hub')}@127.0.0.1:{ports.hub}/0"
    for name, region in loaded.region.items():
        assert region.redis.url.endswith(f"@127.0.0.1:{ports.redis[name]}/0")
        assert region.dashboard.port == ports.dashboard[name]
        assert region.dashboard.password == data.password(f"dashboard {name}")
    for file in (data.settings, *data.regions.glob("*.toml"), data.run / "hub-fra.url"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_region_sees_the_hub_as_its_own_user_and_no_secret_is_in_a_variable(data):
    generate(data, {})
    environ = configuration.environment(data, {"NEARFETCH__SECRET__TOKEN": "t", "PATH": "/bin"}, "fra")
    assert settings.load(environ).hub.redis.startswith("redis://region-fra:")
    assert "NEARFETCH__SECRET__TOKEN" not in environ
    assert data.secret("hub fra") not in " ".join(environ.values())


def test_no_part_gets_settings_of_the_user_in_variables_and_only_workers_the_secrets_that_their_region_binds(data):
    """What starts a part is written to a file beside its pid; the settings of all parts hold no secret."""
    environ = {
        "NEARFETCH__REGION__FRA__EGRESS__DEFAULT__PROXY": "http://u:geheim@proxy.example:1",
        "NEARFETCH__SECRET__TOKEN": "wort",
        "NEARFETCH__SECRET__OTHER": "ohne",
        "NEARFETCH__REGION__FRA__SECRETS__TOKEN__SOURCES": "line.*, reel.tracking",
        "NEARFETCH__REGION__SIN__SECRETS__TOKEN__SOURCES": "line.*",
        "NEARFETCH__REGION__SIN__SECRETS__TOKEN__VALUE": "singapurs",
        "PATH": os.environ["PATH"],
    }
    wanted, ports = generate(data, environ)
    assert wanted.one("fra").egress["default"].proxy.endswith("proxy.example:1")
    built = parts.build(data, wanted, ports, environ, live=False).parts
    seen = {part.name: "\n".join(part.environment.values()) for part in built}
    assert {"redis-fra", "workers-fra", "gateway", "epmd", "rabbitmq"} <= set(seen)
    assert [name for name, text in seen.items() if "geheim" in text] == []
    assert {name for name, text in seen.items() if "wort" in text} == {"workers-fra"}
    assert {name for name, text in seen.items() if "singapurs" in text} == {"workers-sin"}
    assert [name for name, text in seen.items() if "ohne" in text] == []
    written = "".join(file.read_text() for file in (data.settings, *data.regions.glob("*.toml")))
    assert "wort" not in written
    assert "singapurs" not in written
    workers = next(part for part in built if part.name == "workers-fra")
    loaded = settings.load(workers.environment).one("fra")
    assert loaded.secrets == {"TOKEN": Secret(("line.*", "reel.tracking"), "wort")}
    assert (loaded.secrets_of("line.tracking"), loaded.secrets_of("books.list")) == ({"TOKEN": "wort"}, {})


def test_the_users_own_settings_are_passed_on(data, tmp_path):
    regions, sources = tmp_path / "my-regions", tmp_path / "my sources"
    regions.mkdir()
    sources.mkdir()
    (regions / "ber.toml").write_text(
        'title = "Berlin \\"B\\""\n[scale]\nmin = 1\n[[scale.schedule]]\ncron = "0 6 * * 1-5"\nmin = 2\n'
        '[egress.default]\nuser_agent = "mine \u00d7 1"\n[egress.far]\nproxy = "http://u:p%40@proxy.example:1"\n'
    )
    environ = {
        "NEARFETCH__REGIONS__PATH": str(regions),
        "NEARFETCH__SOURCES__PATH": str(sources),
        "NEARFETCH__FETCH__ALLOW": "10.0.0.0/8",
        "NEARFETCH__FETCH__ORIGINS": "https://news.ycombinator.com=http://127.0.0.1:1",
        "NEARFETCH__LIMITS__TASKS_MAX": "7",
        "NEARFETCH__REGION__BER__WORKERS__THREADS": "3",
    }
    wanted, ports = generate(data, environ)
    loaded = settings.load(configuration.environment(data, environ))
    berlin = loaded.region["ber"]
    assert list(loaded.region) == ["ber"]
    assert (berlin.title, berlin.scale, berlin.egress) == (
        'Berlin "B"',
        wanted.region["ber"].scale,
        wanted.region["ber"].egress,
    )
    assert (berlin.workers.threads, loaded.limits.tasks_max) == (3, 7)
    assert loaded.sources.folders == [sources]
    assert loaded.fetch.allow == f"10.0.0.0/8,127.0.0.1:{ports.site}"
    origins = dict(part.split("=") for part in loaded.fetch.origins.split(","))
    assert origins["https://news.ycombinator.com"] == "http://127.0.0.1:1"
    assert origins["https://www.ecb.europa.eu"].startswith(f"http://127.0.0.1:{ports.site}/")


def test_live_allows_and_maps_nothing(data):
    generate(data, {}, live=True)
    fetch = settings.load(configuration.environment(data, {})).fetch
    assert (fetch.allow, fetch.origins) == ("", "")


def test_a_region_that_was_taken_away_is_gone(data, tmp_path):
    generate(data, {})
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "fra.toml").write_text("")
    generate(data, {"NEARFETCH__REGIONS__PATH": str(tmp_path / "one")})
    assert [file.name for file in data.regions.iterdir()] == ["fra.toml"]


def test_toml_says_what_it_was_given():
    given = {
        "a": 'x"\\\n\t\x7f\u00fc',
        "n": {"b": True, "c": 1.5, "d": {"e-f g": 2}},
        "l": [{"m": 1}, {"m": 2, "o": {"p": "q"}}],
        "s": ["t"],
    }
    assert tomllib.loads(configuration.to_toml(given)) == given
    assert tomllib.loads(configuration.to_toml({"none": None, "empty": []})) == {}


def test_a_region_may_only_append_its_own_results_and_news(tmp_path):
    port = free_port()
    users = {names.hub_user("fra"): ("word", hub_acl.rules("fra"))}
    running = Running(redis_server("hub", tmp_path, port, password="full", users=users)).start()
    region = connect.open_redis(f"redis://region-fra:word@127.0.0.1:{port}/0", name="region")
    try:
        pipe = region.pipeline()
        pipe.set(names.result("fra", "t1"), b"frame", nx=True)
        pipe.xadd(names.out_stream("fra"), {"k": "result"})
        assert pipe.execute()[0] is True
        assert connect.redis_now_ms(region) > 0
        for refused in (
            lambda: region.get(names.result("fra", "t1")),
            lambda: region.set(names.result("nyc", "t1"), b"x"),
            lambda: region.xadd(names.out_stream("nyc"), {"k": "v"}),
            lambda: region.delete(names.result("fra", "t1")),
            lambda: region.publish(names.WAKE, "r"),
            region.keys,
            lambda: region.config_get("*"),
            lambda: region.set(names.out_stream("fra"), b"x"),
            lambda: region.xadd(names.result("fra", "t1"), {"k": "v"}),
            lambda: region.set(names.result("fra", "t1"), b"x", get=True),
            lambda: region.set(names.result(names.settled("fra"), "t1"), b"x"),
            lambda: region.client_pause(1),
            lambda: region.client_kill_filter(_type="normal"),
            lambda: region.client_no_evict("on"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                refused()
        with connect.open_redis(f"redis://:full@127.0.0.1:{port}/0", name="check") as client:
            assert hub_acl.shortfalls(client, "fra") == []
    finally:
        region.close()
        running.stop()


def test_what_a_user_of_a_region_may_do_besides_is_named_with_what_mends_it(tmp_path):
    port = free_port()
    wide = "resetkeys resetchannels ~nf:res:fra:* ~nf:out:fra -@all +@connection +set +xadd +time +multi +exec"
    running = Running(redis_server("hub", tmp_path, port, users={names.hub_user("fra"): ("word", wide)})).start()
    try:
        with connect.open_redis(f"redis://127.0.0.1:{port}/0", name="check") as client:
            found = {one.setting: one for one in hub_acl.shortfalls(client, "fra")}
            assert {"region-fra: SET nf:out:fra x", "region-fra: CLIENT PAUSE 1"} < set(found)
            mend = next(iter(found.values())).mend
            client.execute_command(*_words(mend.partition(", then")[0]))
            assert hub_acl.shortfalls(client, "fra") == []
            with pytest.raises(redis.exceptions.ResponseError, match="not found"):
                hub_acl.shortfalls(client, "nyc")
    finally:
        running.stop()


def _words(command: str) -> list[str]:
    """A command's words; a selector is one."""
    return re.findall(r"\([^)]*\)|\S+", command)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1700, "1.7 kB"), (109_800, "109.8 kB"), (999_960, "1.0 MB"), (26_000_000, "26.0 MB")],
)
def test_sizes(count, text):
    assert terminal.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.012, "12 ms"), (3.02, "3.02 s"), (72.4, "72 s")])
def test_durations(seconds, text):
    assert terminal.duration(seconds) == text


@pytest.mark.parametrize(
    ("machine", "limit", "given"),
    [
        (16_000_000_000, "max", parts.HUB_BYTES_MAX),
        (4_000_000_000, "max", 1_000_000_000),
        (500_000_000, "max", parts.HUB_BYTES_MIN),
        (16_000_000_000, "2000000000", 500_000_000),
        (4_000_000_000, None, 1_000_000_000),
    ],
)
def test_the_hubs_redis_gets_a_quarter_of_the_memory_within_limits(tmp_path, monkeypatch, machine, limit, given):
    """A container's limit counts, where there is one: the kernel would end what passes it."""
    path = tmp_path / "memory.max"
    if limit is not None:
        path.write_text(limit + "\n")
    monkeypatch.setattr(parts, "CGROUP_LIMIT", path)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4000, "SC_PHYS_PAGES": machine // 4000}.__getitem__)
    assert parts.hub_bytes() == given


def test_two_processes_do_not_get_the_same_block_of_ports(monkeypatch):
    """Until its servers listen, nothing else says that a block is taken."""
    first, second = islice(
        (port for port in iter(free_port, None) if port % BLOCK), 2
    )  # no block that this process holds
    program = f"""
import random, sys
from scripts.stack import ports
random.randrange = lambda *_: {first}
print(ports.free_block(1), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=settings.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == f"{first}\n"
        offered = iter([first, second])
        monkeypatch.setattr("random.randrange", lambda *_: next(offered))
        assert free_block(1) == second
        other.stdin.close()


def test_far_regions_reach_the_hub_through_their_links_and_the_hub_itself_does_not(data):
    _, ports = generate(data, {}, wan="fra=30")
    assert list(ports.wan.ports) == [
        f"{region}.{of}" for region in ("fra", "nyc", "sin") for of in ("rabbitmq", "redis", "site")
    ]
    for region in ("fra", "nyc", "sin"):
        hub = settings.load(configuration.environment(data, {}, region)).hub
        assert hub.redis.endswith(f"@127.0.0.1:{ports.wan.ports[f'{region}.redis']}/0")
        assert f"@127.0.0.1:{ports.wan.ports[f'{region}.rabbitmq']}/" in hub.amqp
    at_the_hub = settings.load(configuration.environment(data, {})).hub
    assert at_the_hub.redis.endswith(f":{ports.hub}/0")
    generate(data, {})
    near = settings.load(configuration.environment(data, {}, "fra")).hub
    assert near.redis.endswith(f":{ports.hub}/0")


def test_there_is_no_link_to_a_sample_site_that_is_not_there(data):
    assert "fra.site" not in generate(data, {}, live=True, wan="")[1].wan.ports
