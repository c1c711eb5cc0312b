"""Reports, in the foreground of ``scripts/up``, which part died and that it was started again.

The supervisor is asked when a process has ended, which the kernel tells: each question costs it some 4 ms.
"""

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from scripts.stack.data_folder import DataFolder
from scripts.stack.supervision import State, Supervisor
from scripts.terminal import Progress

LOOK_SECONDS: Final = 0.2  # between two looks, while a part has no process
LONGEST_SECONDS: Final = 60  # the same while all is well: another ``up`` may have added parts


class Watch:
    """Compares the state of the supervisor's parts with the last one."""

    def __init__(self, data: DataFolder, supervisor: Supervisor, progress: Progress) -> None:
        self.data, self.supervisor, self.progress = data, supervisor, progress
        self.last: dict[str, State] = supervisor.states() or {}
        self.quick_ends: dict[str, int] = {}

    def wait(self, told: socket.socket) -> None:
        """Waits until something can be new: a process of a part or the supervisor has ended, or ``told`` can be read."""
        supervisor = self.data.supervisor
        pids = [state.pid for state in self.last.values() if state.name != "STOPPED"]  # of a region that was removed
        if supervisor is not None and all(pids):
            with ExitStack() as opened, suppress(ProcessLookupError):
                ends = select.poll()
                ends.register(told, select.POLLIN)
                for pid in (*pids, supervisor.pid):
                    process = os.pidfd_open(pid)
                    opened.callback(os.close, process)
                    ends.register(process, select.POLLIN)
                ends.poll(LONGEST_SECONDS * 1000)
        select.select([told], [], [], LOOK_SECONDS)  # the supervisor has to notice an end, too

    def run_once(self) -> bool:
        """Reports what happened since the last look; False when the supervisor has gone."""
        states = self.supervisor.states()
        if states is None:
            return self.data.supervisor is not None
        for name, state in states.items():
            before = self.last.get(name)
            if before is not None and (state.started, bool(state.pid)) != (before.started, bool(before.pid)):
                self._say(name, before, state)
        self.last = states
        return True

    def _say(self, name: str, before: State, state: State) -> None:
        log = f"   Log: {self.data.log / f'{name}.log'}"
        if state.pid and before.pid:
            self.progress.event(f"{name} (process {before.pid}) died, started again as process {state.pid}.{log}")
        elif state.pid:
            self.progress.event(f"{name} started again as process {state.pid}.")
        else:
            self.quick_ends[name] = self.quick_ends.get(name, 0) + 1 if state.quick else 0
            wait = self.quick_ends[name]  # supervisor waits one second longer each time
            again = f"the next try is in {wait} s" if wait else "it is started again"
            who = f"{name} (process {before.pid})" if before.pid else name
            self.progress.event(f"{who} {state.how}; {again}.{log}")


@contextmanager
def signals() -> Iterator[socket.socket]:
    """A socket that can be read once this process, whose main thread calls this, got a signal that it handles."""
    told, tells = socket.socketpair()
    with told, tells:
        tells.setblocking(False)
        before = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
        try:
            yield told
        finally:
            signal.set_wakeup_fd(before)
