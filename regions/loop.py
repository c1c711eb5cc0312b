"""A thread that repeats one turn of work until it is stopped."""

import os
import threading
from collections.abc import Callable
from typing import Final

from regions import connect, logs

END_SECONDS: Final = 5.0  # how long a stop waits for the turn at hand


class Loop:
    """Calls ``turn`` again and again in a thread of its own. An exception of ``turn`` ends the thread.

    ``turn`` returns how many seconds to wait before the next one; ``wake`` and a stop end the wait at once. ``last`` is
    called once after the last turn, on the same thread.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], float],
        *,
        last: Callable[[], None] | None = None,
        end_seconds: float = END_SECONDS,
    ) -> None:
        self.stopping = threading.Event()
        self._woken = threading.Event()
        self.failures = 0  # in a row; whoever calls ``backoff_seconds`` sets it to 0 after a success
        self._turn, self._last, self._end_seconds = turn, last, end_seconds
        self._wait_seconds = 0.0
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, wait_seconds: float = 0.0) -> None:
        """Starts the thread; its first turn begins after ``wait_seconds``."""
        self._wait_seconds = wait_seconds
        self.thread.start()

    def stop(self) -> None:
        """Ends the thread after the turn at hand."""
        self.ask_to_stop()
        self.join()

    def ask_to_stop(self) -> None:
        """Has the thread end after the turn at hand; does not wait for that."""
        self.stopping.set()
        self._woken.set()

    def wake(self) -> None:
        """Begins the next turn now, or directly after the turn at hand."""
        self._woken.set()

    def join(self) -> None:
        """Waits for the end of the thread, ``end_seconds`` at most; a thread that never started has ended."""
        if self.thread.is_alive():
            self.thread.join(self._end_seconds)

    def backoff_seconds(self) -> float:
        """Counts one more failure; returns how long to wait after that many in a row."""
        self.failures += 1
        return connect.backoff_seconds(self.failures)

    def _run(self) -> None:
        seconds = self._wait_seconds
        while True:
            if seconds:
                self._woken.wait(min(seconds, threading.TIMEOUT_MAX))
                self._woken.clear()
            if self.stopping.is_set():
                break
            seconds = self._turn()
        if self._last is not None:
            self._last()


def end_with_thread(args: threading.ExceptHookArgs) -> None:
    """For ``threading.excepthook``: ends the process after a thread failed, since without that thread it would only look alive."""
    thread = args.thread.name if args.thread else "unknown"
    logs.get("process").error("a thread failed, the process ends", thread=thread, exc_info=args.exc_value)
    os._exit(os.EX_SOFTWARE)
