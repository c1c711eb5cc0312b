"""A stack's supervisord for tests: it forks its Python parts instead of starting Python for each, and is as it is else.

It has imported what they need, so that a part's start costs a tenth of the usual, and so does one of a pool's worker processes.
A part is a process of its own, in its own group, with the arguments, environment, folder and streams that ``launch`` gives it.
Servers that are no Python become themselves, as ever. supervisord itself is forked, too.
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Final, NoReturn

from regions.process import Process, _command, stat
from scripts.stack import launch, processes, supervision
from scripts.stack.parts import Part
from scripts.stack.supervision import Supervisor
from tests import forked

LAUNCHED: Final = "from tests import supervisord; supervisord.launched()"
OF: Final = "TESTS_STACK"  # in the environment of all that belong to a stack: its folder
FORKED: Final = ("scripts.cli", "scripts.site", "scripts.stack.wan", "secantus")


class ForkingSupervisor(Supervisor):
    """A supervisor whose supervisord is this one, forked from the server of the tests."""

    def start(self, parts: Iterable[Part], *, ends_with_us: bool) -> None:
        usual = supervision.subprocess
        if usual is subprocess:
            supervision.subprocess = launching(forked.python(forked.STACK))
        try:
            super().start(parts, ends_with_us=ends_with_us)
        finally:
            supervision.subprocess = usual

    def _describe(self, name: str, command: list[str], environment: dict[str, str], folder: str, **options) -> None:
        if name == "supervisord":
            environment = {**environment, OF: str(self.data.path)}
        super()._describe(name, command, environment, folder, **options)


def launching(forking: SimpleNamespace) -> SimpleNamespace:
    """``subprocess`` for scripts.stack.supervision, which starts ``launch`` for its supervisord: it is forked instead."""
    return forked.starting(
        lambda command, **options: forking.Popen([sys.executable, "-c", LAUNCHED, *command[4:]], **options)
    )


def forks_supervisord() -> None:
    """In a process without threads yet, which is to start a stack: its supervisord is forked from it, and ends or stays as a user's."""
    forked.forks(supervision)
    supervision.subprocess = launching(supervision.subprocess)


def launched() -> NoReturn:
    """``python -m scripts.stack.launch DATA supervisord`` in a process that was forked."""
    data, name = sys.argv[1:]
    launch.os = _Os(json.loads((Path(data) / "run" / f"{name}.json").read_text())["parent"])
    leave(lambda: launch.main(data, name))


def main() -> None:
    """Runs supervisord with its own arguments."""
    from supervisor import options, supervisord

    for module in forked.STACK:
        importlib.import_module(module)
    options.ServerOptions.execve = lambda _, filename, argv, environ: become(filename, argv, environ)
    forked.keep_shared()
    supervisord.main()


def up() -> NoReturn:
    """``scripts/up``, whose stack has this supervisord."""
    from scripts.stack import changed_regions, up

    forks_supervisord()
    for module in (changed_regions, up):
        module.Supervisor = ForkingSupervisor
    sys.exit(up.main(sys.argv[1:]))


def command() -> NoReturn:
    """``nearfetch``, whose stacks have this supervisord."""
    from scripts import cli
    from scripts.chaos.stack import ChaosStack
    from scripts.stack import own_stack

    forks_supervisord()
    own_stack.Supervisor = ForkingSupervisor
    ChaosStack.fork_server = fork_server
    sys.exit(cli.main())


def fork_server(stack, region: str) -> int:
    """``ChaosStack.fork_server`` where a pool's processes are no children of its own: of its group, the one with that word that none such forked."""
    pool = Process.of(stack.pid(f"workers-{region}"))
    found = {pid: stat(pid) for pid in (processes.group(pool) if pool else ()) if b"--fork-server" in _command(pid)}
    return next((pid for pid, fields in found.items() if fields and int(fields[1]) not in found), 0)


def become(filename: str, argv: list[str], environ: Mapping[str, str]) -> None:
    """In a process that supervisord has just forked, which is to become the program: a part, by ``launch``."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if argv[1:-2] != ["-S", "-m", "scripts.stack.launch"]:
        os.execve(filename, argv, environ)
    os.environ.clear()
    os.environ.update(environ)
    launch.os = _Os()
    leave(lambda: launch.main(*argv[-2:]))


class _Os:
    """``os`` as ``launch`` sees it: a Python part is run by this process.

    ``parent``: who started it, of which it is no child but follows its end.
    """

    def __init__(self, parent: int = 0) -> None:
        self._parent = parent

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def getppid(self) -> int:
        return self._parent

    def execvpe(self, file: str, command: list[str], environ: Mapping[str, str]) -> None:
        if file == sys.executable and command[1:3] == ["-m", "supervisor.supervisord"]:
            forked.shown_as(command, environ)
            sys.argv[:] = command[2:]
            main()
        elif file == sys.executable and command[1] == "-m" and command[2] in FORKED:
            run(command[2:], environ)
        else:
            os.execvpe(file, command, environ)


def run(words: list[str], environ: Mapping[str, str]) -> None:
    """Runs a module as ``python -m`` does, with its arguments."""
    forked.shown_as([sys.executable, "-m", *words], environ)
    if words[:2] == ["scripts.cli", "workers"]:
        from jobs.pool import child, examiner
        from jobs.worker import fork_server

        forked.forks(child, fork_server, examiner)
    sys.argv[:] = ["-m", *words[1:]]
    runpy._run_module_as_main(words[0])


def leave(program) -> NoReturn:
    """Runs a program, and ends the process as Python ends, without what this process inherited."""
    code = 0
    try:
        program()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
