"""``nearfetch chaos`` as a command: what it leaves behind, and what it refuses. A run of it: promises/test_every_fault."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from regions.settings import ROOT
from tests.waiting import until

NEARFETCH = ROOT / "scripts" / "nearfetch"


def processes_of(folder: str) -> list[str]:
    """Every process that has to do with a folder, the guards that will end them not counted."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes()
            text = arguments + (entry / "environ").read_bytes() + bytes((entry / "cwd").readlink())
        except OSError:
            continue
        if folder.encode() in text and b"guard" not in arguments.split(b"\0"):
            found.append(arguments.replace(b"\0", b" ").decode())
    return found


def test_a_chaos_that_is_killed_leaves_no_process_and_no_file():
    command = [sys.executable, "-u", "-m", "scripts.cli", "chaos", "--tasks", "100", "--minutes", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        folder = next(found[1] for line in process.stdout if (found := re.match(r"stack: (\S+)", line)))
        until(lambda: any("redis-server" in one for one in processes_of(folder)), "its first servers")
        process.send_signal(signal.SIGKILL)
    until(lambda: not Path(folder).exists(), "its folder to go", 150.0)
    until(lambda: processes_of(folder) == [], "its processes to end")


def test_a_kind_of_fault_that_is_none_is_refused_with_the_known_ones():
    done = subprocess.run([NEARFETCH, "chaos", "--faults", "burn"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(r"expected kinds of faults \(kill-worker, .*found 'burn'", " ".join(done.stderr.split()))
