"""What ``scripts/up`` says in the foreground: which part died, and that it is started again."""

from scripts.data_folder import DataFolder
from scripts.supervision import START_SECONDS, State, Supervisor
from scripts.terminal import Progress, duration


class Watch:
    """Compares the supervisor's parts with what they were."""

    def __init__(self, data: DataFolder, supervisor: Supervisor, progress: Progress) -> None:
        self.data, self.supervisor, self.progress = data, supervisor, progress
        self.last: dict[str, State] = supervisor.states() or {}
        self.quick_ends: dict[str, int] = {}

    def run_once(self) -> bool:
        """Says what happened since the last look; False when the supervisor has gone."""
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
        how = "was killed by a signal" if state.exit_code < 0 else f"ended with code {state.exit_code}"
        ended = f"{name} (process {before.pid}) {how}" if before.pid else f"{name} {how}"
        if state.pid:
            again = f"started again as process {state.pid}"
            self.progress.event(f"{ended}, {again}." if before.pid else f"{name} {again}.")
            return
        quick = state.name == "BACKOFF"
        self.quick_ends[name] = self.quick_ends.get(name, 0) + 1 if quick else 0
        next_try = (
            f"within {START_SECONDS} s of its start; the next try is in {duration(float(self.quick_ends[name]))}"
            if quick
            else "it is started again"
        )
        self.progress.event(f"{ended}{' ' if quick else ', '}{next_try}.   Log: {self.data.log / f'{name}.log'}")
