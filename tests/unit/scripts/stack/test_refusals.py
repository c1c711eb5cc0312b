"""What ``scripts/up`` refuses, and what it says to do about it."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from regions.process import Process
from regions.settings import ROOT
from scripts.stack.data_folder import DataFolder
from scripts.stack.ports import free_port
from tests import forked

UP = ROOT / "scripts" / "up"


def stack(*arguments, **variables):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")} | variables
    words = ["-m", "scripts.stack.up", *map(str, arguments)]
    return forked.run(words, imported=forked.UP, cwd=ROOT, env=environment, text=True, timeout=60)


def test_a_taken_port_is_refused_with_who_has_it_and_a_free_one(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = stack("--data", tmp_path, "--port", port)
    assert done.returncode == 1
    program = Path("/proc/self/comm").read_text().strip()
    assert (
        f"Port {port} is in use by process {os.getpid()} ({program}). Choose another: scripts/up --data {tmp_path} --port "
        in done.stderr
    )


def test_wrong_distances_are_refused_with_all_faults_before_anything_starts(tmp_path):
    done = stack("--data", tmp_path, "--port", free_port(), "--wan=fra=20ms,mars=3,sin=5:loss=1,nyc=20:jitter=11")
    assert done.returncode == 1
    form = "MS[:jitter=MS][:loss=N%][:mbit=N], like 80:jitter=5:loss=0.1%:mbit=100"
    assert done.stderr.splitlines() == [
        f"--wan: fra: expected {form}, found '20ms'",
        f"--wan: expected REGION={form}, each of fra, nyc, sin once at most, found 'mars=3'",
        "--wan: sin: expected loss in percent, like loss=0.1%, found 'loss=1'",
        "--wan: nyc: expected a jitter of at most half the round trip, found '20:jitter=11'",
    ]
    assert not (tmp_path / "run").exists()


def test_a_folder_that_everybody_may_change_is_refused(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    done = stack("--data", tmp_path / "shared", "--port", free_port())
    assert done.returncode == 1
    assert f"can't be used: every user may write to it; run chmod o-w {tmp_path / 'shared'}" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_another_user_prepared_is_refused(tmp_path):
    """What lies in it is believed: commands, settings, secrets."""
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    done = stack("--data", tmp_path / "theirs", "--port", free_port())
    assert done.returncode == 1
    assert "can't be used: it belongs to user 65534, but this process runs as user 0" in done.stderr
    assert list((tmp_path / "theirs").iterdir()) == []


def test_a_second_up_on_the_same_folder_says_where_the_first_one_is(tmp_path):
    data = DataFolder(tmp_path)
    data.open()
    hours = {time.strftime("%H:")}
    running = subprocess.Popen(["/bin/sleep", "600"])
    try:
        Process.of(running.pid).write(data.pid_file("supervisord"))
        data.write("url", "http://127.0.0.1:8080\n")
        done = stack("--data", tmp_path, "--port", free_port())
    finally:
        running.kill()
        running.wait()
    hours.add(time.strftime("%H:"))
    assert done.returncode == 1
    assert any(f"Already running on this data folder since {hour}" in done.stderr for hour in hours)
    assert (
        f"(process {running.pid}): http://127.0.0.1:8080/   scripts/up --data {tmp_path} --stop ends it" in done.stderr
    )


def test_an_up_that_still_starts_holds_the_folder(tmp_path):
    data = DataFolder(tmp_path)
    assert data.lock()
    done = stack("--data", tmp_path, "--port", free_port())
    data.unlock()
    assert done.returncode == 1
    assert f"Already starting on this data folder (process {os.getpid()})" in done.stderr


def test_a_redis_below_the_floor_is_refused_before_anything_starts(tmp_path):
    old = tmp_path / "bin" / "redis-server"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1'\n")
    old.chmod(0o755)
    done = stack("--data", tmp_path / "data", PATH=f"{old.parent}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "Redis 7.0.15 is too old: expected 7.2 or later (package redis-server)." in done.stderr
    assert not (tmp_path / "data").exists()


def test_wrong_settings_are_all_said_at_once(tmp_path):
    done = stack("--data", tmp_path, NEARFETCH__LIMITS__TASKS_MAX="many", NEARFETCH__TYPO="1")
    assert done.returncode == 1
    assert "NEARFETCH__LIMITS__TASKS_MAX" in done.stderr
    assert "NEARFETCH__TYPO" in done.stderr


def test_stopping_what_does_not_run_is_no_error(tmp_path):
    done = stack("--stop", "--data", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"Nothing runs on {tmp_path}.\n")


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_the_help_needs_no_environment_and_installs_nothing(tmp_path, words):
    done = subprocess.run(
        [UP, *words], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert "--detach" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["--prot", "1"], ["--port"], ["--port", "many"], ["--port=123456"], ["--data"], ["fra"]]
)
def test_wrong_usage_ends_with_2_before_anything_is_installed(tmp_path, words):
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([UP, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Usage: scripts/up" in done.stderr
    assert list(tmp_path.iterdir()) == []


def setup(tmp_path, script, **programs):
    """Runs a piece of scripts/setup.sh with some programs replaced by these lines of sh."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, lines in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)
    text = (
        f'set -eu; ROOT="{tmp_path}/checkout"; LOG="{tmp_path}/log"; : >"$LOG"; . "{ROOT}/scripts/setup.sh"; {script}'
    )
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path)}
    return subprocess.run(
        ["/bin/sh", "-c", text], env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


MISSING = "missing_packages() { echo redis-server; }; is_debian() { true; }; setup_packages"


def test_without_root_it_says_which_packages_to_install(tmp_path):
    done = setup(tmp_path, MISSING, id="echo 1000", sudo="echo 'sudo: a password is required' >&2; exit 1")
    assert done.returncode == 1
    assert "Packages are missing (redis-server), and sudo did not let this user install them:" in done.stderr
    assert "sudo: a password is required" in done.stderr
    assert "apt-get install --no-install-recommends redis-server" in done.stderr


def test_elsewhere_than_on_debian_it_says_what_it_needs(tmp_path):
    done = setup(tmp_path, MISSING.replace("is_debian() { true; }", "is_debian() { false; }"))
    assert done.returncode == 1
    assert "did not find: redis-server" in done.stderr
    assert "redis-server 7.2 or later, RabbitMQ 4.0 or later" in done.stderr


def test_what_apt_says_is_shown_when_it_fails(tmp_path):
    apt = 'case "$*" in *update*) ;; *) echo "E: Unable to locate package redis-server"; exit 100 ;; esac'
    done = setup(tmp_path, MISSING, **{"id": "echo 0", "apt-get": apt})
    assert done.returncode == 1
    assert "E: Unable to locate package redis-server" in done.stderr
    assert f"{tmp_path}/log" in done.stderr


def test_a_half_made_environment_is_made_anew_and_a_whole_one_is_kept(tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    (checkout / "scripts" / "setup.sh").touch()
    (checkout / "requirements.txt").write_text("click\n")
    (checkout / ".venv" / "half").mkdir(parents=True)
    python = """case "$1" in
    -c) echo 3.13 ;;
    -m) echo made >> "$HOME/made"; mkdir -p "$3/bin"; printf '#!/bin/sh\\necho "$@" >> "$HOME/installed"\\n' > "$3/bin/python"; chmod +x "$3/bin/python" ;;
    esac"""

    def installed() -> list[str]:
        return [line.split()[1] for line in (tmp_path / "installed").read_text().splitlines()]

    twice = "setup_venv requirements.txt; setup_venv requirements.txt"
    done = setup(tmp_path, twice, python3=python)
    assert done.returncode == 0, done.stderr
    assert not (checkout / ".venv" / "half").exists()
    assert (tmp_path / "made").read_text() == "made\n"
    assert installed() == ["pip", "compileall"]
    (checkout / "requirements.txt").write_text("click==1\n")
    (tmp_path / "bin").rename(tmp_path / "old-bin")
    setup(tmp_path, "setup_venv requirements.txt", python3=python)
    assert (tmp_path / "made").read_text() == "made\n"
    assert installed() == ["pip", "compileall"] * 2


def test_stop_ends_an_up_that_holds_the_folder(tmp_path):
    """An ``up`` in the foreground stops everything itself when it is told."""
    code = (
        "import sys, time; from pathlib import Path; from scripts.stack.data_folder import DataFolder;"
        "data = DataFolder(Path(sys.argv[1])); assert data.lock(); print('held', flush=True); time.sleep(600)"
    )
    holder = forked.Forked(["-c", code, str(tmp_path)], imported=forked.UP, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    done = stack("--stop", "--data", tmp_path)
    assert (done.returncode, done.stdout) == (0, "Stopped.\n")
    assert holder.wait(60) == -signal.SIGTERM
    holder.stdout.close()
