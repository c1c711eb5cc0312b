"""What ``nearfetch doctor`` finds on a machine: packages, limits, disks, the lines for cron; and how its checks run beside each other."""

import threading
import time
from types import SimpleNamespace

import pytest

from regions import settings
from regions.settings import ROOT
from scripts.checks import host, redis_server
from scripts.checks.finding import Check, Finding, Secrets, beside

CRONTAB = (ROOT / "scripts" / "cron" / "nearfetch.crontab").read_text()


def of(findings, severity):
    return [one for one in findings if one.severity == severity]


def test_a_package_of_another_version_and_one_that_is_missing_are_found(tmp_path):
    wanted = (ROOT / "requirements.txt").read_text()
    assert of(host.versions(), "wrong") == of(host.versions(), "better") == []
    file = tmp_path / "requirements.txt"
    file.write_text(wanted.replace("rq==3.0.0", "rq==3.0.1") + "no-such-package==1.0\n")
    found = list(host.versions(file))
    (other,), (missing,) = of(found, "better"), of(found, "wrong")
    assert (other.expected, other.found) == ("rq 3.0.1", "3.0.0")
    assert (missing.expected, missing.found) == ("no-such-package 1.0", "none")
    assert missing.mend.endswith(f"bin/pip install -r {file}; then restart the parts")


def made(tmp_path, text, name="nearfetch"):
    folder = tmp_path / "cron.d"
    folder.mkdir(exist_ok=True)
    config, program = tmp_path / "nearfetch.toml", ROOT / "scripts" / "nearfetch"
    config.touch()
    text = text.replace("/opt/nearfetch/scripts/nearfetch", str(program))
    file = folder / name
    file.write_text(text.replace("/etc/nearfetch/nearfetch.toml", str(config)))
    file.chmod(0o644)
    return folder


@pytest.fixture
def with_bridges(monkeypatch, tmp_path):
    monkeypatch.setattr(host.os, "access", host.os.access)
    return settings.load({"NEARFETCH__BRIDGES__PATH": str(tmp_path)})


def test_the_shipped_crontab_is_fine_once_its_paths_are(tmp_path, with_bridges, monkeypatch):
    folder = made(tmp_path, CRONTAB)
    file = folder / "nearfetch"
    found = [
        one for one in host.cron(with_bridges, folder) if "owner" not in one.found
    ]  # whoever runs the test may be no root
    assert [one.severity for one in found if one.severity != "fine"] == []
    file.chmod(0o666)
    (wrong,) = of(host.cron(with_bridges, folder), "wrong")
    assert "mode 666: cron leaves it out" in wrong.found


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        (CRONTAB.replace("bridges ensure", "bridges restart"), "nearfetch", "none (a user's crontab is not looked at)"),
        (CRONTAB, "nearfetch.cron", "nearfetch.cron, which cron leaves out"),
        (CRONTAB.rstrip("\n"), "nearfetch", "none: cron leaves the file out"),
        (CRONTAB.replace("NEARFETCH=/opt", "NEARFETCH=/no"), "nearfetch", "/no/nearfetch/scripts/nearfetch"),
        (CRONTAB.replace("CONFIG=/etc", "CONFIG=/no"), "nearfetch", "/no/nearfetch/nearfetch.toml"),
        (
            "# * * * * *  nearfetch  $NEARFETCH bridges ensure\n",
            "nearfetch",
            "none (a user's crontab is not looked at)",
        ),
    ],
)
def test_lines_that_cron_does_not_run_are_found(tmp_path, with_bridges, text, name, found):
    findings = list(host.cron(with_bridges, made(tmp_path, text, name)))
    assert found in [one.found for one in findings]
    assert all(one.mend for one in findings if one.severity != "fine")


@pytest.mark.parametrize(
    ("files", "somaxconn", "overcommit", "expected"),
    [
        (100_000, 4096, 1, []),
        (20_000, 4096, 1, [("better", "60,256 open files")]),
        (400, 4096, 1, [("wrong", "60,256 open files")]),
        (100_000, 128, 1, [("better", "net.core.somaxconn 2048")]),
        (100_000, 4096, 0, [("better", "vm.overcommit_memory 1")]),
    ],
)
def test_limits_of_the_machine_that_are_too_low_are_found(
    monkeypatch, tmp_path, files, somaxconn, overcommit, expected
):
    for name, value in (("sys/net/core/somaxconn", somaxconn), ("sys/vm/overcommit_memory", overcommit)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(host, "PROC", tmp_path)
    monkeypatch.setattr(host.resource, "getrlimit", lambda _: (1024, files))
    found = list(host.limits(settings.load({}), has_gateway=True, has_redis=True, has_workers=False))
    assert [(one.severity, one.expected) for one in found if one.severity != "fine"] == expected
    assert next(host.limits(settings.load({}), has_gateway=False, has_redis=False, has_workers=False)).severity == (
        "fine" if files > 512 else "wrong"
    )


@pytest.mark.parametrize(
    ("nice", "may", "is_told"), [(0, False, True), (0, True, False), (5, False, False)]
)  # with a nice value of its own a pool never changes those of its processes
def test_workers_that_could_not_get_their_nice_value_back_are_told(monkeypatch, nice, may, is_told):
    monkeypatch.setattr(host.os, "getpriority", lambda *_: nice)
    monkeypatch.setattr(host, "may_raise_priority", lambda: may)
    for has_workers in (True, False):
        found = list(host.limits(settings.load({}), has_gateway=False, has_redis=False, has_workers=has_workers))
        assert any("RLIMIT_NICE" in one.expected for one in found) == (is_told and has_workers)


def test_a_disk_that_is_nearly_full_is_found_and_told_once(monkeypatch, tmp_path):
    environ = {
        "NEARFETCH__BRIDGES__PATH": str(tmp_path / "run"),
        "NEARFETCH__REGION__FRA__RAW__PATH": str(tmp_path / "raw" / "deep"),
    }
    own = settings.load(environ)
    free = [5_000_000_000]
    monkeypatch.setattr(redis_server.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    for bytes_, severity in ((5_000_000_000, "fine"), (700_000_000, "better"), (100_000_000, "wrong")):
        free[0] = bytes_
        (found,) = host.disks(own, [own.one("fra")], None)
        assert (found.severity, found.where) == (severity, str(tmp_path)), (
            "one file system, by the folder that is there"
        )


def test_a_host_without_a_folder_for_its_bridges_is_told():
    (found,) = host.cron(settings.load({}))
    assert (found.severity, found.expected) == ("better", "bridges.path")


def test_a_check_that_hangs_holds_no_other_and_is_told_when_its_time_is_over():
    ever, seen = threading.Event(), []
    fine = Finding(check="x", what="x", severity="fine")
    hanging = [
        Check("connection", f"hanging {n}", lambda: ever.wait() or [], seconds=0.3, cost="much") for n in range(40)
    ]
    quick = [Check("connection", f"quick {n}", lambda: [fine], seconds=60.0) for n in range(5)]
    began = time.monotonic()
    try:
        for check, findings in beside([*hanging, *quick], seen.append):
            assert [one.severity for one in findings] == ["fine" if "quick" in check.what else "wrong"]
            if "hanging" in check.what:
                assert (findings[0].found, findings[0].cost) == ("none", "much")
    finally:
        ever.set()
    assert time.monotonic() - began < 30
    assert len(seen[0]) == 45
    assert "hanging 0" in [check.what for check in seen[0]]


def test_a_check_that_fails_is_a_finding_and_not_the_end():
    def fails():
        raise TypeError("a fault of ours")

    ((_, (found,)),) = beside([Check("clock", "hub", fails)], lambda _: None)
    assert (found.severity, found.found) == ("wrong", "the check itself failed: TypeError: a fault of ours")


def test_no_secret_of_the_settings_passes():
    environ = {
        "NEARFETCH__HUB__REDIS": "redis://:s3cr%2Ft@127.0.0.1/0", "NEARFETCH__HUB__MONGO": "mongodb://u:documents@127.0.0.1/",
        "NEARFETCH__REGION__FRA__DASHBOARD__PASSWORD": "quiet-heron", "NEARFETCH__REGION__FRA__EGRESS__DEFAULT__PROXY": "http://u:proxied@p.example:1",
    }  # fmt: skip
    secrets = Secrets(settings.load(environ), "nfk_key")
    text = "s3cr%2Ft s3cr/t documents quiet-heron proxied nfk_key fra"
    hidden = secrets.hide(Finding(check="x", what="x", severity="wrong", found=text, mend=text))
    assert hidden.found == hidden.mend == f"{'(hidden) ' * 6}fra"
