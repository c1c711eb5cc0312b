"""A real cron daemon for one crontab: with folders of its own where the kernel lets us, else one file in /etc/cron.d."""

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from scripts.stack.services import SBIN, Guard
from tests.promises.driving import cannot_be_tried

# What the daemon reads and writes is hidden from it, and it from the machine: its jobs, its pid file.
PRIVATE = """
    mount -t tmpfs none /run && mount -t tmpfs none /var/spool/cron && mkdir /var/spool/cron/crontabs || exit 1
    mount -t tmpfs none /etc/cron.d && mount --bind /dev/null /etc/crontab || exit 1
    install -m 644 "$1" /etc/cron.d/nearfetch && exec cron -f
"""
SHARED = """
    install -m 644 "$1" "$2" && exec cron -f
"""
PROBE = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /etc/cron.d"]


class Daemon:
    """Runs a crontab from the next minute on; ``how`` says in which way."""

    def __init__(self, crontab: Path) -> None:
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:{SBIN}"}
        if shutil.which("cron", path=environment["PATH"]) is None:
            cannot_be_tried("no cron daemon on this machine: scripts/test installs it where it may")
        self._root = [] if os.getuid() == 0 else ["sudo", "-n"]
        if self._root and not _works(self._root, ["true"], environment):
            cannot_be_tried("a cron daemon needs root, or sudo without a password")
        file = f"/etc/cron.d/nearfetch-test-{secrets.token_hex(4)}"
        words = ["sh", "-c", SHARED, "cron", str(crontab), file]
        self.how = f"by {file}"
        if _works(self._root, PROBE, environment):
            words = ["unshare", "--mount", "sh", "-c", PRIVATE, "cron", str(crontab)]
            self.how = "in folders of its own"
        self._process = subprocess.Popen(
            [*self._root, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env=environment,
        )  # fmt: skip
        self._end = [*self._root, "sh", "-c", 'rm -f "$1"; kill -- "-$2"', "end", file, str(self._process.pid)]
        self._guard = Guard(self._end)

    def stop(self) -> None:
        """Ends it, where it is ours; another daemon of this machine, which read our file, loses that."""
        subprocess.run(self._end, check=False, capture_output=True)
        self._process.wait(60)
        self._guard.dismiss()


def _works(root: list[str], command: list[str], environment: dict[str, str]) -> bool:
    try:
        return subprocess.run([*root, *command], check=False, capture_output=True, env=environment).returncode == 0
    except OSError:
        return False
