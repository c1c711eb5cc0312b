"""The data folder of one ``scripts/up``: what is kept from run to run, and which processes run on it.

DATA/kept.json        ports and secrets, chosen once (mode 600)
DATA/lock             held by an ``up`` while it starts, and as long as it runs in the foreground
DATA/changing         held by an ``up`` that adds or removes regions of a stack that runs
DATA/url              the gateway's address while it runs; scripts/nearfetch reads it
DATA/nearfetch.toml, DATA/regions/   generated settings
DATA/prometheus.yml   what Prometheus is to scrape
DATA/run/             for each part a pid file and a description; the supervisor's files
DATA/log/             a log for each part
DATA/bridges/         heartbeats of bridges, and logs of those that `nearfetch bridges ensure` started
DATA/raw/REGION/      raw answers that a region's workers kept
DATA/rabbitmq/, DATA/hub/, DATA/redis-REGION/   the servers' own data
"""

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regions.process import Process
from scripts.stack.ports import free_port, port_is_free

ADJECTIVES = (
    "amber", "bold", "brisk", "calm", "clear", "deep", "early", "fair", "fond", "glad", "keen", "kind", "late", "light", "mild", "neat",
    "pale", "plain", "prime", "quick", "quiet", "rapid", "round", "sharp", "shy", "slow", "soft", "still", "sunny", "tall", "warm",
)  # fmt: skip
BIRDS = (
    "bunting", "crane", "curlew", "dipper", "dove", "eider", "finch", "gannet", "grebe", "gull", "heron", "ibis", "jay", "kestrel",
    "kite", "lark", "linnet", "merlin", "osprey", "owl", "petrel", "plover", "quail", "raven", "robin", "rook", "snipe", "swan", "wren",
)  # fmt: skip


LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # without those that are taken for others


class DataFolder:
    """Paths, kept ports and secrets, and the lock of one data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run, self.log, self.bridges = path / "run", path / "log", path / "bridges"
        self.settings, self.regions = path / "nearfetch.toml", path / "regions"
        self.url_file = path / "url"
        self._lock: int | None = None
        self._kept: dict[str, dict[str, Any]] = {"ports": {}, "secrets": {}}

    def open(self) -> None:
        """Makes the folders and reads what was kept."""
        for folder in (self.path, self.run, self.log, self.regions):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._kept |= json.loads((self.path / "kept.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._keep()

    def lock(self) -> bool:
        """Locks the folder for this process; False when another ``up`` holds the lock."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_owner()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        me = Process.own()
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{me}\n".encode())
        self._lock = descriptor
        return True

    def _check_owner(self) -> None:
        """Raises PermissionError when the folder belongs to another user, or every user may write to it.

        Files in it are trusted and run.
        """
        found = self.path.stat()
        if found.st_uid != os.geteuid():
            raise PermissionError(f"it belongs to user {found.st_uid}, but this process runs as user {os.geteuid()}")
        if found.st_mode & stat.S_IWOTH:
            raise PermissionError(f"every user may write to it; run chmod o-w {self.path}")

    @contextmanager
    def changing(self) -> Iterator[bool]:
        """Locks the stack that runs against other changes; False when another ``up`` changes it."""
        self._check_owner()
        with (self.path / "changing").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def unlock(self) -> None:
        """Releases the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def holder(self) -> Process | None:
        """The ``up`` that holds the lock, if it is alive."""
        found = Process.read(self.path / "lock")
        return found if found is not None and found.alive else None

    def pid_file(self, part: str) -> Path:
        """The file with a part's pid and start time."""
        return self.run / f"{part}.pid"

    @property
    def supervisor(self) -> Process | None:
        """The supervisor of this folder, if it is alive."""
        found = Process.read(self.pid_file("supervisord"))
        return found if found is not None and found.alive else None

    @property
    def url(self) -> str:
        """The gateway's address; empty when nothing runs."""
        try:
            return self.url_file.read_text(encoding="ascii").strip()
        except OSError:
            return ""

    @property
    def key(self) -> str:
        """The API key that ``scripts/up --keys`` made; empty without one."""
        try:
            return (self.path / "key").read_text(encoding="ascii").strip()
        except OSError:
            return ""

    def kept_port(self, name: str) -> int | None:
        """The port that was kept for this part."""
        return self._kept["ports"].get(name)

    def keep_port(self, name: str, port: int) -> None:
        """Keeps a part's port."""
        self._kept["ports"][name] = port
        self._keep()

    def port(self, name: str, preferred: int) -> int:
        """A part's port: the kept one if it is free, else the preferred one if it is free, else any free one. It is then kept."""
        others = {port for other, port in self._kept["ports"].items() if other != name}
        for port in (self.kept_port(name), preferred):
            if port is not None and port not in others and port_is_free(port):
                break
        else:
            port = free_port()
            while port in others:
                port = free_port()
        self.keep_port(name, port)
        return port

    def secret(self, name: str) -> str:
        """A secret for programs, made once."""
        return self._secret(name, secrets.token_urlsafe(24))

    def password(self, name: str) -> str:
        """A secret that people type, like ``quiet-heron-k7f2mq3x``, with 50 bits, made once."""
        rest = "".join(secrets.choice(LETTERS) for _ in range(8))
        return self._secret(name, f"{secrets.choice(ADJECTIVES)}-{secrets.choice(BIRDS)}-{rest}")

    def _secret(self, name: str, fresh: str) -> str:
        if name not in self._kept["secrets"]:
            self._kept["secrets"][name] = fresh
            self._keep()
        return str(self._kept["secrets"][name])

    def _keep(self) -> None:
        self.write("kept.json", json.dumps(self._kept, indent=1))

    def write(self, name: str, text: str) -> Path:
        """Writes a file below the folder that only its owner can read. Readers see the old or the new file, never half of one."""
        file = self.path / name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
            opened.write(text)
        new.replace(file)
        return file


def default_path() -> Path:
    """``NEARFETCH_DATA``, else ``nearfetch`` in the user's data folder."""
    given = os.environ.get("NEARFETCH_DATA")
    if given:
        return Path(given).expanduser().absolute()
    share = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(share) / "nearfetch"
