"""supervisord, driven over its socket: it starts parts again when they die, with backoff, and ends them in order.

    start  →  supervisord  →  scripts.launch DATA NAME  →  the part itself

A start is not readiness, so nothing starts by itself: ``start`` is called part by part, and who called it probes.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Final

from bridge import keeper
from regions.process import Process
from regions.settings import ROOT
from scripts import configuration, processes
from scripts.data_folder import DataFolder
from scripts.parts import STAGES, Part

START_SECONDS: Final = 3  # a part that ends sooner waits before it is tried again: a second more each time
LEFTOVER_SECONDS: Final = (
    5.0  # whoever killed the supervisor did not wait either, and the parts write to its closed pipes
)
SOCKET: Final = "supervisor.sock"
GONE: Final = (OSError, HTTPException, xmlrpc.client.Error)


class NotStarted(RuntimeError):  # noqa: N818
    """The supervisor itself did not start."""


@dataclass(frozen=True)
class State:
    """A part as the supervisor sees it.

    ``pid`` is 0 for none, ``name`` the supervisor's name of the state, ``started`` when it was last started (seconds
    since the epoch, 0 for never), ``exit_code`` of its last end, -1 when a signal ended it.
    """

    pid: int
    name: str
    started: int
    exit_code: int

    @property
    def quick(self) -> bool:
        """Whether it ended so soon after its start that the next try waits."""
        return self.name == "BACKOFF"

    @property
    def how(self) -> str:
        """How it ended last; of a quick end supervisor does not keep the exit code."""
        if self.quick:
            return f"ended within {START_SECONDS} s of its start"
        return "was killed by a signal" if self.exit_code < 0 else f"ended with code {self.exit_code}"


class Supervisor:
    """The supervisor of one data folder."""

    def __init__(self, data: DataFolder) -> None:
        self.data = data
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, parts: Iterable[Part], *, ends_with_us: bool) -> None:
        """Starts supervisord with these parts, none of them running. Raises ``NotStarted``."""
        data = self.data
        stages: dict[str, list[Part]] = {stage: [] for stage in STAGES}
        for part in parts:
            stages[part.stage].append(part)
            self._describe(part.name, part.command, dict(part.environment), str(part.folder), ends_with_us=False)
        data.write("run/supervisord.conf", self._configuration(stages))
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(data.run / "supervisord.conf")]
        self._describe(
            "supervisord", command, configuration.foreign(os.environ), str(data.run), ends_with_us=ends_with_us
        )
        (data.run / SOCKET).unlink(missing_ok=True)
        log = data.log / "supervisord.log"
        with log.open("ab") as opened:
            process = self._process = subprocess.Popen(
                _launch(data, "supervisord"),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=opened,
                stderr=opened,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20.0
        while self.states() is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted("supervisord")
            time.sleep(0.02)

    def start_part(self, part: Part) -> None:
        """Starts a part; does not wait until it is ready."""
        self._call("startProcess", f"{part.stage}:{part.name}", False)

    def stop_part(self, part: Part) -> None:
        """Stops a part and waits until it has ended; it is not started again by itself."""
        self._call("stopProcess", f"{part.stage}:{part.name}", True)

    def states(self) -> dict[str, State] | None:
        """Every part as it is now; None when the supervisor does not answer."""
        try:
            infos = self._call("getAllProcessInfo")
        except GONE:
            return None
        return {
            info["name"]: State(info["pid"], info["statename"], info["start"], info["exitstatus"]) for info in infos
        }

    def stop(self, seconds: float = 120.0) -> int:
        """Ends everything, in order, also what runs without a supervisor; how many processes had to be ended so."""
        self.data.url_file.unlink(missing_ok=True)  # from here on `nearfetch bridges ensure` starts nothing
        keeper.end_kept(self.data.bridges, LEFTOVER_SECONDS)
        supervisor = self.data.supervisor
        if supervisor is not None:
            processes.signal_group(supervisor.pid, signal.SIGTERM)
            processes.signal_group(supervisor.pid, signal.SIGCONT)
            deadline = time.monotonic() + seconds
            while supervisor.alive and time.monotonic() < deadline:
                time.sleep(0.02)
            if supervisor.alive:
                processes.signal_group(supervisor.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        return self.end_leftovers()

    def end_leftovers(self) -> int:
        """Ends what a killed supervisor left behind, a stage at a time; how many processes there were."""
        ended = keeper.end_kept(self.data.bridges, LEFTOVER_SECONDS)
        stage_of = self._stages()
        for stage in reversed(STAGES):
            files = [file for file in self.data.run.glob("*.pid") if stage_of.get(file.stem, STAGES[0]) == stage]
            found = [process for file in files if (process := Process.read(file)) is not None]
            ended += processes.end_groups(found, LEFTOVER_SECONDS)
            for file in files:
                file.unlink(missing_ok=True)
        self.data.url_file.unlink(missing_ok=True)
        return ended

    def _stages(self) -> dict[str, str]:
        """Which stage a part belongs to: the configuration of the last run says."""
        try:
            lines = (self.data.run / "supervisord.conf").read_text(encoding="utf-8").splitlines()
        except OSError:
            return {}
        groups = [line for line in lines if line.startswith("; stage ")]
        return {name: line.split()[2] for line in groups for name in line.split()[3:]}

    def _describe(
        self, name: str, command: list[str], environment: dict[str, str], folder: str, *, ends_with_us: bool
    ) -> None:
        description = {
            "command": command,
            "environment": environment,
            "folder": folder,
            "ends_with_parent": ends_with_us,
            "parent": os.getpid(),
        }
        self.data.write(f"run/{name}.json", json.dumps(description))

    def _configuration(self, stages: dict[str, list[Part]]) -> str:
        sections = [
            f"""[supervisord]
logfile = ../log/supervisord.log
logfile_maxbytes = 2MB
logfile_backups = 1
pidfile = supervisord.own
childlogdir = .
silent = true
umask = 077

; the socket stands in this folder, reached as the working folder: a socket's path has 107 bytes at most
[unix_http_server]
file = /proc/self/cwd/{SOCKET}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
        ]
        for number, (stage, parts) in enumerate(stages.items()):
            if parts:
                listed = ",".join(part.name for part in parts)
                # The highest priority is stopped first, and a group as a whole before the next one.
                sections.append(
                    f"; stage {stage} {listed.replace(',', ' ')}\n[group:{stage}]\nprograms = {listed}\npriority = {number + 1}\n"
                )
            sections += [self._program(part) for part in parts]
        return "\n".join(sections)

    def _program(self, part: Part) -> str:
        return f"""[program:{part.name}]
command = {_escaped(shlex.join(_launch(self.data, part.name)))}
directory = {_escaped(str(ROOT))}
autostart = false
autorestart = true
startsecs = {START_SECONDS}
startretries = 1000000000
stopsignal = TERM
stopwaitsecs = {part.stop_seconds}
stopasgroup = true
killasgroup = true
redirect_stderr = true
stdout_logfile = ../log/{part.name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 2
"""

    def _call(self, method: str, *arguments: Any) -> Any:
        folder = os.open(self.data.run, os.O_PATH | os.O_DIRECTORY)
        transport = _SocketTransport(f"/proc/self/fd/{folder}/{SOCKET}")
        try:
            proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport, allow_none=True)
            return getattr(proxy.supervisor, method)(*arguments)
        finally:
            transport.close()
            os.close(folder)


class _SocketConnection(HTTPConnection):
    """HTTP over a Unix socket, with a time-out that supervisor's own transport lacks."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10.0)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class _SocketTransport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> HTTPConnection:
        self._connection = (host, _SocketConnection(self.path))
        return self._connection[1]


def _launch(data: DataFolder, name: str) -> list[str]:
    return [sys.executable, "-S", "-m", "scripts.launch", str(data.path), name]


def _escaped(text: str) -> str:
    """A value of supervisord's configuration: a percent sign begins an expansion there."""
    return text.replace("%", "%%")
