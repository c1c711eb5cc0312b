"""``nearfetch`` itself: help, wrong settings, and the settings that it shows and checks."""

import json
import os
import subprocess
import tomllib

import pytest
from click.testing import CliRunner

from regions import logs
from regions.settings import ROOT
from scripts import VERSION
from scripts.cli import main
from scripts.commands import config
from scripts.stack.ports import free_port
from scripts.stack.services import Running, redis_server

COMMANDS = [
    "gateway",
    "bridge",
    "bridges",
    "bridges ensure",
    "bridges restart",
    "workers",
    "scale",
    "day",
    "region",
    "region add",
    "region drain",
    "region resume",
    "dashboard",
    "status",
    "fetch",
    "where",
    "doctor",
    "trace",
    "bench",
    "completion",
    "config",
    "config check",
    "config show",
    "source",
    "source list",
    "source new",
    "source try",
    "source sample",
    "source test",
    "source check",
    "source replay",
    "dead",
    "dead list",
    "dead show",
    "dead retry",
    "dead drop",
    "webhooks",
    "webhook",
    "webhook list",
    "webhook resend",
]


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path):
    for variable in [name for name in os.environ if name.startswith("NEARFETCH")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("NEARFETCH_DATA", str(tmp_path))
    # A part begins with its logging; here that would bind the loggers of all later tests to a runner's standard error.
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)


def run(*words):
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_a_help_with_lines_to_copy(command):
    done = run(*command.split(), "--help")
    assert done.exit_code == 0
    assert "Usage: " in done.output
    if not command.startswith("config "):
        assert f"\n  nearfetch {command}".rstrip() in done.output


def test_the_version_is_the_one_that_up_shows():
    assert run("--version").output == f"nearfetch, version {VERSION}\n"
    text = (ROOT / "scripts" / "up").read_text(encoding="utf-8")
    sed = text[text.index("sed -n '") + len("sed -n '") :].split("'")[0]
    done = subprocess.run(
        ["sed", "-n", sed, ROOT / "scripts" / "__init__.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{VERSION}\n"


def test_a_row_of_the_benchmark_that_is_none_is_refused_with_the_known_ones_before_anything_starts():
    done = run("bench", "--rows", "tiny,huge")
    assert done.exit_code == 2
    assert "expected rows (tiny, page, page-100ms, page-1s, interactive, interactive-tiny, " in done.output
    assert "), found 'huge'" in done.output


@pytest.mark.parametrize("part", ["bridge", "workers", "dashboard"])
def test_an_unknown_region_is_refused_with_the_nearest_one(part):
    done = run(part, "frq")
    assert done.exit_code == 2
    assert 'expected a known region, found "frq"; did you mean "fra"?' in done.output


@pytest.mark.parametrize("words", [["gateway"], ["bridge", "fra"], ["config", "check"], ["config", "show"]])
def test_every_wrong_setting_is_said_before_anything_starts(monkeypatch, words):
    monkeypatch.setenv("NEARFETCH__GATEWAY__PORT", "many")
    monkeypatch.setenv("NEARFETCH__LIMITS__WAIT", "1")
    done = run(*words)
    assert done.exit_code == 2
    assert "NEARFETCH__GATEWAY__PORT" in done.output
    assert "NEARFETCH__LIMITS__WAIT" in done.output


@pytest.fixture
def secrets_everywhere(monkeypatch):
    monkeypatch.setenv("NEARFETCH__HUB__REDIS", "redis://user:geheim@127.0.0.1:1/0,redis://user:geheim@127.0.0.1:2/0")
    monkeypatch.setenv("NEARFETCH__HUB__AMQP", "amqp://user:geheim@127.0.0.1:1/%2F")
    monkeypatch.setenv("NEARFETCH__HUB__MONGO", "mongodb://user:geheim@127.0.0.1:1/")
    monkeypatch.setenv("NEARFETCH__REGION__FRA__DASHBOARD__PASSWORD", "geheim")
    monkeypatch.setenv("NEARFETCH__REGION__FRA__SECRETS__TOKEN__SOURCES", "line.*")
    monkeypatch.setenv("NEARFETCH__SECRET__TOKEN", "geheim")
    monkeypatch.setenv("NEARFETCH__REGION__FRA__DASHBOARD__REDIS_URL", "redis://dashboard:geheim@127.0.0.1:1/0")
    monkeypatch.setenv("NEARFETCH__REGION__FRA__REDIS__URL", "redis://:geheim@127.0.0.1:1/0")
    monkeypatch.setenv("NEARFETCH__REGION__FRA__EGRESS__DEFAULT__PROXY", "http://user:geh,geheim@127.0.0.1:1/")


def test_the_settings_in_force_are_shown_without_a_secret(secrets_everywhere):
    shown = run("config", "show")
    as_json = run("config", "show", "--json")
    assert "geh" not in shown.output + as_json.output
    values = json.loads(as_json.output)
    assert values["hub"]["redis"] == "redis://127.0.0.1:1/0,redis://127.0.0.1:2/0"
    assert values["region"]["fra"]["dashboard"]["password"] == config.HIDDEN
    assert values["region"]["fra"]["egress"]["default"]["proxy"] == "http://127.0.0.1:1/"
    assert values["region"]["fra"]["secrets"] == {"TOKEN": {"sources": ["line.*"], "value": config.HIDDEN}}
    del values["region"]["fra"]["scale"]["schedule"]  # TOML has no empty list of tables
    assert tomllib.loads(shown.output)["region"]["fra"] == values["region"]["fra"]


def test_every_server_is_asked_and_every_fault_is_said(monkeypatch, tmp_path, secrets_everywhere):
    port = free_port()
    running = Running(redis_server("nyc", tmp_path / "nyc", port)).start()
    monkeypatch.setenv("NEARFETCH__REGION__NYC__REDIS__URL", f"redis://127.0.0.1:{port}/0")
    try:
        done, as_json = run("config", "check"), run("config", "check", "--json")
    finally:
        running.stop()
    assert (done.exit_code, as_json.exit_code) == (1, 1)
    assert "geheim" not in done.output + as_json.output
    faults = {server["what"]: server["fault"] for server in json.loads(as_json.output)["servers"]}
    assert faults.pop("standby fra") is None  # of line.tracking
    assert list(faults) == ["central Redis", "RabbitMQ", "history", "Redis of fra", "Redis of nyc", "Redis of sin"]
    assert faults["Redis of nyc"] is None
    assert all(fault for what, fault in faults.items() if what != "Redis of nyc")
    assert "rabbitmqctl set_policy -p / nearfetch" in done.output
    possible = json.loads(as_json.output)["connections_possible"]
    assert config.clients(possible, 60_000) in done.output


def test_config_check_says_when_fewer_clients_are_possible_than_the_settings_want():
    assert config.clients(60_000, 60_000).endswith("a gateway here 60,000 clients at the same time")
    assert config.clients(19_744, 60_000).endswith(
        " 19,744 clients at the same time, of 60,000 (gateway.connections_max)"
    )


def test_a_standby_that_lacks_what_a_source_needs_is_a_fault_of_the_settings(monkeypatch, tmp_path):
    """Before it is needed, and without a secret's value."""
    text = 'title = "Mine"\nurl = "https://a.example/"\nregion = "fra"\nstandby = ["nyc", "oslo"]\n'
    headers = '[request]\nheaders = {A = "{secret.KEY}"}\n[fields]\na = "b"\n'
    (tmp_path / "mine.toml").write_text(text + headers)
    monkeypatch.setenv("NEARFETCH__SOURCES__PATH", str(tmp_path))
    monkeypatch.setenv("NEARFETCH__REGION__FRA__SECRETS__KEY__SOURCES", "mine")
    servers = json.loads(run("config", "check", "--json").output)["servers"]
    found = {one["what"]: one["fault"] for one in servers if one["where"] == "mine"}
    assert "expected a secret of region nyc for this source, found KEY" in found["standby nyc"]
    assert found["standby oslo"] == "this region is not set up"


def test_the_command_is_found_by_a_link_and_from_another_folder(tmp_path):
    """Without an environment it says what makes one; this checkout's may be missing where tests run by another Python."""
    checkout, link = tmp_path / "checkout", tmp_path / "bin" / "nearfetch"
    (checkout / "scripts").mkdir(parents=True)
    link.parent.mkdir()
    (checkout / "scripts" / "nearfetch").write_bytes((ROOT / "scripts" / "nearfetch").read_bytes())
    (checkout / "scripts" / "nearfetch").chmod(0o755)
    link.symlink_to(checkout / "scripts" / "nearfetch")
    done = subprocess.run([link, "status"], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"There is no virtual environment in {checkout} yet. scripts/up makes it" in done.stderr
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$PYTHONPATH $PWD $*"\n')
    python.chmod(0o755)
    done = subprocess.run(
        [link, "fetch", "a b"], cwd="/usr", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{checkout} /usr -P -m scripts.cli fetch a b\n"
