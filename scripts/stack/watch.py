"""Reports, in the foreground of ``scripts/up``, which part died and that it was started again."""

from scripts.stack.data_folder import DataFolder
from scripts.stack.supervision import State, Supervisor
from scripts.terminal import Progress


class Watch:
    """Compares the state of the supervisor's parts with the last one."""

    def __init__(self, data: DataFolder, supervisor: Supervisor, progress: Progress) -> None:
        self.data, self.supervisor, self.progress = data, supervisor, progress
        self.last: dict[str, State] = supervisor.states() or {}
        self.quick_ends: dict[str, int] = {}

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
