"""The program that the supervisor starts for each part: ``python -m scripts.stack.launch DATA NAME`` becomes the part.

1. It ends the processes that the part's last run left behind. A killed wrapper leaves its broker running and a killed pool
   its workers, and supervisor sees only the process that it started.
2. It writes its own pid and start time. ``scripts/up --stop`` finds the part by them even after the supervisor was killed.
3. It becomes the program that ``DATA/run/NAME.json`` describes:
   {"command": [...], "environment": {...}, "folder": "...", "ends_with_parent": bool}.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from regions.process import Process
from scripts.stack import processes

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LEFTOVER_SECONDS = 5.0


def main(data: str, name: str) -> None:
    """Becomes the part; does not return."""
    run = Path(data) / "run"
    part = json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
    pid_file = run / f"{name}.pid"
    previous = Process.read(pid_file)
    if previous is not None and previous.pid != os.getpid():
        processes.end_groups([previous], LEFTOVER_SECONDS)
    mine = Process.own()
    mine.write(pid_file)
    if part["ends_with_parent"]:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != part["parent"]:
            sys.exit(1)  # the parent ended before prctl
    os.chdir(part["folder"])
    os.execvpe(part["command"][0], part["command"], part["environment"])  # noqa: S606 - deliberately without a shell


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
