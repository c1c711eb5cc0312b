"""Python processes for tests, forked from one that has imported what they need: a start costs a tenth of the usual.

    with Forked(["-m", "jobs.worker", "fra", "w1"], stdin=subprocess.PIPE) as process:   # like subprocess.Popen([sys.executable, …])

A forked process is a process of its own, with its own standard streams, environment and working folder, and a child of the
server that it was forked from. Its memory holds all that the server imported: what looks at that is started by ``subprocess``.
The server ends with the tests' process, and kills what it forked then.
Where several processes of tests make one run, one server forks for all of them (``share``).
"""

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
# What the tests' processes are, and what they import first; there is a server for each, where a run has none for all.
WORKER = ("jobs.worker.__main__", "jobs.task.runner", "jobs.answers.cache", "jobs.pool.processes")
# With what the commands import when they are called.
COMMAND = GATEWAY = BRIDGE = (
    "scripts.cli", "web.gateway", "bridge.ensure", "bridge.bridge", "scripts.commands.config", "scripts.commands.scale", "scripts.commands.status",
    "scripts.commands.where", "scripts.commands.fetch", "scripts.commands.trace", "scripts.commands.day",
)  # fmt: skip
AUTHORING = ("scripts.cli", "scripts.commands.source_try", "scripts.commands.source_samples")
UP = ("scripts.stack.up", "tests.supervisord")
EXAMINER = ("jobs.pool.examiner", "jobs.parse.examine")
STORE = ("tests.document_store",)
STACK = (*COMMAND, *WORKER, *EXAMINER, *STORE, "scripts.stack.wan", "scripts.site.site", "supervisor.supervisord")
ALL = tuple(dict.fromkeys((*STACK, *AUTHORING, *UP)))
SHARED = "TEST_FORKS"  # in the environment of a run: where its server listens, and what that has imported
MESSAGE_BYTES, DESCRIPTORS_MAX = 200_000, 32
STOPS = (signal.SIGTERM, signal.SIGINT)
ROOM = 16_000  # bytes for the environment of what is forked, in /proc
FIRST_FREE = 200  # received descriptors are moved there, so that none has a number that another one is to have


class Forked(subprocess.Popen):
    """``words`` are those after ``python``: ``-m MODULE …`` or ``-c CODE …``. Keywords are those of ``subprocess.Popen``.

    ``imported``: the modules that its server imports.
    """

    def __init__(self, words: list[str], *, imported: tuple[str, ...] = WORKER, **options) -> None:
        self._server = _server(imported)
        super().__init__(words, **options)

    def _execute_child(
        self, words, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        to_read, to_write, out_read, out_write, err_read, err_write, restore_signals, gid, gids, uid, umask,
        start_new_session, process_group,
    ) -> None:  # fmt: skip
        """As ``subprocess`` has it, by the server."""
        streams = [own if own != -1 else inherited for own, inherited in ((to_read, 0), (out_write, 1), (err_write, 2))]
        asked = {
            "words": list(map(str, words)),
            "folder": os.fspath(cwd or Path.cwd()),
            "environ": dict(os.environ if env is None else env),
            "session": start_new_session,
            "numbers": [0, 1, 2, *pass_fds],
        }
        sys.audit("subprocess.Popen", sys.executable, [sys.executable, *words], cwd, env)
        self._control = self._server.fork(asked, [*streams, *pass_fds])
        said = self._control.recv(MESSAGE_BYTES)
        if not said:
            self._control.close()
            raise RuntimeError("the server that forks ended: what it imports can't be imported, see above")
        self.pid = int(said)
        self._child_created = True
        self._close_pipe_fds(to_read, to_write, out_read, out_write, err_read, err_write)

    def _internal_poll(self, *_, **__) -> int | None:
        return self._ended(0)

    def _wait(self, timeout: float | None) -> int:
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _ended(self, seconds: float | None) -> int | None:
        """The exit code, once it has ended; waits so long."""
        if self.returncode is None and _is_readable(self._control, seconds):
            with self._waitpid_lock:
                if self.returncode is None:
                    said = self._control.recv(MESSAGE_BYTES)
                    self._control.close()  # only now its pid may be given out again
                    self.returncode = int(said) if said else -signal.SIGKILL  # the server is gone, and what it forked
        return self.returncode


def run(
    words: list[str], *, check: bool = False, timeout: float | None = None, **options
) -> subprocess.CompletedProcess:
    """Like ``subprocess.run([sys.executable, *words], capture_output=True, …)``."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with Forked(words, **{**streams, **options}) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()  # as ``subprocess.run``: the end of ``with`` waits for it
            raise
    done = subprocess.CompletedProcess(words, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def _is_readable(one: socket.socket, seconds: float | None) -> bool:
    poll = select.poll()  # select can't look at high numbers
    try:
        poll.register(one, select.POLLIN)
    except ValueError:  # another thread has read it, and closed it
        return True
    return bool(poll.poll(None if seconds is None else max(0, seconds) * 1000))


def forks(*modules: ModuleType) -> None:
    """In a process without threads yet: what these modules start by ``subprocess`` is forked from it as it is now.

    These processes are children of one that ends with the caller, so who follows its parent follows the caller.
    """
    server = _copied()

    class Own(Forked):
        def __init__(self, command: Sequence[str], **options) -> None:
            assert command[0] == sys.executable
            self._server = server
            subprocess.Popen.__init__(self, _without_options(command[1:]), **options)

    for module in modules:
        module.subprocess = starting(Own)


def python(imported: tuple[str, ...]) -> SimpleNamespace:
    """``subprocess`` for a module that starts Python by ``Popen([sys.executable, …])``: the process is forked instead."""
    return starting(lambda command, **options: Forked(_without_options(command[1:]), imported=imported, **options))


def _without_options(words: Sequence[str]) -> list[str]:
    """What follows -P: where modules are found is known."""
    return list(words[1:] if words[0] == "-P" else words)


def starting(popen: Callable[..., subprocess.Popen]) -> SimpleNamespace:
    """``subprocess`` with another ``Popen``."""
    return SimpleNamespace(**vars(subprocess) | {"Popen": popen})


class _Server:
    """The process that forks, as the tests' process sees it: at the other end of ``channel``."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel, self._lock = channel, threading.Lock()

    def fork(self, asked: dict[str, object], descriptors: list[int]) -> socket.socket:
        """A socket that says the new process's pid, and its exit code when it has ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            socket.send_fds(self._channel, [json.dumps(asked).encode()], [theirs.fileno(), *descriptors])
        return ours


@functools.cache
def _server(imported: tuple[str, ...]) -> _Server:
    address, *known = os.environ.get(SHARED, "").split() or [""]
    return _shared(address) if {*imported} <= {*known} else _started(imported)


@functools.cache
def _shared(address: str) -> _Server:
    """The run's. It kills what it forked for this process when that has ended."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(f"\0{address}")
    atexit.register(channel.close)
    return _Server(channel)


def _copied() -> _Server:
    """A copy of this very process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        serve(theirs.detach(), (), kills=False)
        sys.exit()
    theirs.close()
    return _Server(ours)


def _started(imported: tuple[str, ...], listener: socket.socket | None = None) -> _Server:
    """One that ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    numbers = [theirs.fileno(), *([listener.fileno()] if listener else ())]
    code = f"from tests import forked; forked.serve({numbers[0]}, {imported!r}, listener={numbers[1:]})"
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "TEST_ROOM": " " * ROOM, "OPENBLAS_NUM_THREADS": "1"},  # who forks has no threads
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return _Server(ours)


def share(imported: tuple[str, ...] = ALL) -> dict[str, str]:
    """The environment for processes of tests that share a server, which ends with this process."""
    address = f"nearfetch-forks-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{address}")
        listener.listen()
        _started(imported, listener)
    return {SHARED: " ".join((address, *imported))}


def serve(descriptor: int, imported: tuple[str, ...], *, listener: Sequence[int] = (), kills: bool = True) -> None:
    """The server's life. It returns when the tests' process has ended, and in a forked process when its program has.

    ``listener``: the descriptor at which further processes of tests come, if they do. ``kills``: what still runs at its end.
    """
    sys.path[0] = str(ROOT)
    for module in imported:
        importlib.import_module(module)
    keep_shared()
    handlers = {number: signal.getsignal(number) for number in STOPS}
    if not kills:  # it is in its caller's group, whose signals are for those that it forked
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
    first, *listening = (socket.socket(fileno=number) for number in (descriptor, *listener))
    channels = [first]
    running: dict[int, tuple[int, socket.socket]] = {}  # pidfd → pid, and the socket that tells of it
    told: dict[socket.socket, int] = {}  # whose exit code is told, and not read yet
    while True:
        interested = {control: pid for pid, control in running.values()}
        ready, _, _ = select.select([*listening, *channels, *running, *interested, *told], [], [])
        for one in ready:
            if one in listening:
                channels.append(one.accept()[0])
            elif one in channels:
                message, descriptors, _, _ = socket.recv_fds(one, MESSAGE_BYTES, DESCRIPTORS_MAX)
                if not message and one is not first:
                    channels.remove(one)
                    one.close()
                    continue
                if not message:
                    for pid in interested.values() if kills else ():
                        _kill(pid)
                    return
                # What arrives before it has handlers of its own must not be lost.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
                pid = os.fork()
                if not pid:
                    for number, handler in handlers.items():
                        signal.signal(number, handler)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                if not pid:
                    for other in (*listening, *channels, *interested, *told):
                        other.close()
                    for handle in running:
                        os.close(handle)
                    _be(json.loads(message), descriptors)
                    return
                control = socket.socket(fileno=descriptors[0])
                for other in descriptors[1:]:
                    os.close(other)
                running[os.pidfd_open(pid)] = pid, control
            elif one in running:
                pid, control = running.pop(one)
                ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                os.close(one)
                with contextlib.suppress(OSError):
                    control.send(str(ended.si_status * (1 if ended.si_code == os.CLD_EXITED else -1)).encode())
                told[control] = pid
            elif one in told:
                os.waitpid(told.pop(one), 0)
                one.close()
            elif kills:  # nobody is interested in it any more
                _kill(interested[one])


def keep_shared() -> None:
    """What this process has now stays shared with those that it forks: the collector does not write to it."""
    gc.collect()
    gc.freeze()


def shown_as(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Makes these the process's command line and its environment, which they are in /proc as well.

    There is as much room for them as in the memory in which its own ones came. What is cut off is cut at the end.
    """
    os.environ.clear()  # nothing of the process points to that memory any more
    os.environ.update(environ)
    places = [int(one) for one in Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:49]]
    for begin, end, shown in (
        (*places[:2], words),
        (*places[2:], (f"{name}={value}" for name, value in environ.items())),
    ):
        text = "\0".join(shown).encode()[: end - begin - 1]
        ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


def _kill(pid: int) -> None:
    """Kills a process, and its group where it has one of its own."""
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)


def _be(asked: dict, descriptors: list[int]) -> None:
    """In the forked process: its streams, its folder, its environment, its program."""
    if asked["session"]:
        os.setsid()
    # Only now, since who knows the pid may signal its group.
    with contextlib.suppress(OSError):  # the tests have ended
        os.write(descriptors[0], str(os.getpid()).encode())
    moved = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for one in descriptors[1:]]
    for one in descriptors:
        os.close(one)
    for one, number in zip(moved, asked["numbers"], strict=True):
        os.dup2(one, number)
        os.close(one)
    os.chdir(asked["folder"])
    shown_as([sys.executable, *asked["words"]], asked["environ"])
    how, what, *words = asked["words"]
    sys.argv[:] = [how, *words]  # of a module, runpy makes it the file's name
    if how == "-m":
        warnings.filterwarnings("ignore", message=".* found in sys.modules", category=RuntimeWarning)
        runpy._run_module_as_main(what)
    else:
        exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)
