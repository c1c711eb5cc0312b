"""Drives supervisord over its socket. It restarts parts that die, with backoff, and ends all parts in order.

    start  →  supervisord  →  scripts.stack.launch DATA NAME  →  the part itself

A part that has started is not ready yet. So supervisord starts nothing by itself: the caller of ``start_part`` probes the
part and decides what to start next.
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

from bridge import ensure
from regions.process import Process
from regions.settings import ROOT
from scripts.stack import configuration, processes
from scripts.stack.data_folder import DataFolder
from scripts.stack.parts import STAGES, Part

START_SECONDS: Final = 3  # a part that ends sooner is retried after a wait, one second longer each time
LEFTOVER_SECONDS: Final = 5.0  # the parts have lost their supervisor and write to closed pipes, so they get less time
CALL_SECONDS: Final = 10.0  # for an answer of supervisord
BEGIN_SECONDS: Final = 90.0  # until supervisord answers, on a machine that may have much else to do
STOP_LOOK_SECONDS: Final = 0.05
# supervisord's states (its documentation, "Process States"). A part that is EXITED is started again.
STOPPABLE: Final = ("STARTING", "RUNNING", "BACKOFF")
MAY_RUN: Final = (*STOPPABLE, "STOPPING", "EXITED")
NOT_RUNNING: Final = 70  # the code of its answer to a stop of a process that has just ended
SOCKET: Final = "supervisor.sock"
CONFIGURATION: Final = "supervisord.conf"
GONE: Final = (OSError, HTTPException, xmlrpc.client.Error)


class NotStarted(RuntimeError):  # noqa: N818
    """The supervisor itself did not start."""


@dataclass(frozen=True)
class State:
    """The state of a part, as the supervisor sees it.

    ``pid``: 0 while there is no process. ``name``: supervisor's name of the state. ``started``: the last start, in seconds
    since the epoch; 0 for never. ``exit_code``: of the last process; -1 when a signal ended it.
    """

    pid: int
    name: str
    started: int
    exit_code: int

    @property
    def quick(self) -> bool:
        """Whether it ended so soon after its start that the next try has to wait."""
        return self.name == "BACKOFF"

    @property
    def how(self) -> str:
        """How it ended last. supervisor does not keep the exit code of a quick end."""
        if self.quick:
            return f"ended within {START_SECONDS} s of its start"
        return "was killed by a signal" if self.exit_code < 0 else f"ended with code {self.exit_code}"


class Supervisor:
    """The supervisor of one data folder."""

    def __init__(self, data: DataFolder) -> None:
        self.data = data
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, parts: Iterable[Part], *, ends_with_us: bool) -> None:
        """Starts supervisord with these parts, without starting the parts. Raises ``NotStarted``."""
        data = self.data
        stages: dict[str, list[Part]] = {stage: [] for stage in STAGES}
        for part in parts:
            stages[part.stage].append(part)
            self._describe(part.name, part.command, dict(part.environment), str(part.folder), ends_with_us=False)
        data.write(f"run/{CONFIGURATION}", self._configuration(stages))
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(data.run / CONFIGURATION)]
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
        deadline = time.monotonic() + BEGIN_SECONDS
        while self.states() is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted("supervisord")
            time.sleep(0.02)

    def start_part(self, part: Part) -> None:
        """Starts a part. Does not wait until it is ready."""
        self._call("startProcess", part.known_as, False)

    def stop_part(self, part: Part) -> None:
        """Stops a part and waits until it has ended. supervisord does not restart it."""
        self._stop(part.known_as)

    def add(self, parts: Iterable[Part]) -> None:
        """Makes more parts known to the running supervisord, without starting them.

        Each has a ``group`` that supervisord does not know yet, or is known from before.
        """
        file = self.data.run / CONFIGURATION
        known = self.groups()
        groups: dict[str, list[Part]] = {}
        for part in parts:
            self._describe(part.name, part.command, dict(part.environment), str(part.folder), ends_with_us=False)
            if part.name not in known:
                groups.setdefault(part.group, []).append(part)
        sections = [section for group, of in groups.items() for section in self._group(group, of)]
        self.data.write(f"run/{CONFIGURATION}", "\n".join([file.read_text(encoding="utf-8"), *sections]))
        self._call("reloadConfig")
        for group in groups:
            self._call("addProcessGroup", group)

    def remove(self, names: Iterable[str]) -> None:
        """Stops parts, one after the other. supervisord does not start them again."""
        groups = self.groups()
        for name in names:
            if name in groups:
                self._stop(f"{groups[name]}:{name}")
            self.data.pid_file(name).unlink(missing_ok=True)

    def groups(self) -> dict[str, str]:
        """The supervisor's group of each part."""
        return {info["name"]: info["group"] for info in self._call("getAllProcessInfo")}

    def states(self) -> dict[str, State] | None:
        """The current state of each part; None when the supervisor does not answer."""
        try:
            infos = self._call("getAllProcessInfo")
        except GONE:
            return None
        return {
            info["name"]: State(info["pid"], info["statename"], info["start"], info["exitstatus"]) for info in infos
        }

    def stop(self, seconds: float = 120.0) -> int:
        """Ends everything in order, including processes without a supervisor.

        Returns how many processes had to be ended without the supervisor.
        """
        self.data.url_file.unlink(missing_ok=True)  # from here on `nearfetch bridges ensure` starts nothing
        ensure.end_kept(self.data.bridges, LEFTOVER_SECONDS)
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
        """Ends, one stage at a time, what a killed supervisor left behind. Returns the number of processes."""
        ended = ensure.end_kept(self.data.bridges, LEFTOVER_SECONDS)
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
        """The stage of each part, from the configuration of the last run."""
        try:
            lines = (self.data.run / CONFIGURATION).read_text(encoding="utf-8").splitlines()
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

; the socket is in this folder and reached through the working folder, since its path may have 107 bytes at most
[unix_http_server]
file = /proc/self/cwd/{SOCKET}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
        ]
        for stage, parts in stages.items():
            sections += self._group(stage, parts) if parts else []
        return "\n".join(sections)

    def _group(self, group: str, parts: list[Part]) -> list[str]:
        stage, listed = parts[0].stage, ",".join(part.name for part in parts)
        # supervisord stops the highest priority first, and a whole group before the next.
        head = f"; stage {stage} {listed.replace(',', ' ')}\n[group:{group}]\nprograms = {listed}\npriority = {STAGES.index(stage) + 1}\n"
        return [head, *(self._program(part) for part in parts)]

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

    def _stop(self, known_as: str) -> None:
        """Stops a process, and waits for longer than one call may take: a part has up to 40 s before supervisord kills it.

        supervisord refuses to stop a process that has just ended by itself, and starts it again within a second.
        So this asks until the process is stopped for good.
        """
        while (state := self._call("getProcessInfo", known_as)["statename"]) in MAY_RUN:
            if state in STOPPABLE:
                try:
                    self._call("stopProcess", known_as, False)
                except xmlrpc.client.Fault as fault:
                    if fault.faultCode != NOT_RUNNING:
                        raise
            time.sleep(STOP_LOOK_SECONDS)

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
    """HTTP over a Unix socket, with the time-out that supervisor's own transport lacks."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CALL_SECONDS)
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
    return [sys.executable, "-S", "-m", "scripts.stack.launch", str(data.path), name]


def _escaped(text: str) -> str:
    """A value for supervisord's configuration, in which a percent sign begins an expansion."""
    return text.replace("%", "%%")
