"""One log line for each event, as JSON or as text for a terminal, from structlog and the standard library alike.

    log = logs.get("bridge")
    log.info("consuming", region="fra", prefetch=4000)

Values never hold a secret: URLs go through ``connect.without_password`` first.
"""

import atexit
import contextlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO

import msgspec

# structlog imports rich where it is installed, for tracebacks that nobody here asks for. That is an eighth of a process's start.
_is_without_rich = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
import structlog  # noqa: E402

if _is_without_rich:
    del sys.modules["rich"]

from regions.printable import printable, printable_json  # noqa: E402

GATHER_SECONDS: Final = 0.2
REPEATED_SECONDS: Final = 60.0  # between two lines about one cause
CAUSES_MAX: Final = 200
CHANGES_AT_ONCE: Final = 4  # lines about one state within a minute; then it must have settled
SETTLED_SECONDS: Final = 3.0
LINES_MAX: Final = 200  # of one flush; the others follow with the next
# Waiting lines; when nothing collects them, the thread that logs the next one writes them itself.
GATHER_MAX: Final = 1_000


class _Unbroken:
    """A stream whose reader may be gone: lines are then dropped, and the process goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text, or drops it."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes if it can."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Gathering(structlog.WriteLogger):
    """Collects lines for up to ``GATHER_SECONDS`` and writes them together.

    Warnings and errors are written at once, and whatever waits is written at exit.
    Each write wakes the process that reads the log, which costs a busy gateway more than the line itself.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: deque[str] = deque()
        self._some = threading.Event()
        atexit.register(self._write_all)
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def info(self, message: str) -> None:
        """Adds a line that can wait."""
        self._waiting.append(message)
        if len(self._waiting) >= GATHER_MAX:
            self._write_all()
        elif not self._some.is_set():
            self._some.set()

    debug = info

    def msg(self, message: str) -> None:
        """Writes a line that can't wait, after the waiting ones."""
        self._waiting.append(message)
        self._write_all()

    warning = error = critical = exception = msg

    def _run(self) -> None:
        while self._some.wait():
            time.sleep(GATHER_SECONDS)
            self._some.clear()
            self._write_all()

    def _write_all(self) -> None:
        with self._lock:
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if lines:
                self._write("\n".join([*lines, ""]))
                self._flush()


def get(part: str) -> Any:
    """A logger whose lines name this part of the system."""
    return structlog.get_logger(part=part)


class _Told(msgspec.Struct):
    """A cause that was told: what its next line says, when it is due (monotonic seconds), and how often it came since."""

    tell: Callable[..., None]
    event: str
    fields: dict[str, Any]
    due: float
    count: int = 0


class Once:
    """Logs a cause once. Repetitions are counted, and ``flush`` logs their number once a minute: "…; repeated 37 times".

    Any thread may call it.
    """

    def __init__(self, seconds: float = REPEATED_SECONDS, most: int = CAUSES_MAX) -> None:
        """``most`` causes are known at a time; further ones, which clients can make in any number, are logged as one."""
        self._seconds, self._most = seconds, most
        self._told: dict[str, _Told] = {}
        self._lock = threading.Lock()

    def tell(self, cause: str, tell: Callable[..., None], event: str, /, **fields: Any) -> None:
        """Logs ``event`` by ``tell``, such as ``log.warning``, unless this cause was told within the last minute."""
        now = time.monotonic()
        with self._lock:
            if cause not in self._told and len(self._told) >= self._most:
                cause = ""
            told = self._told.get(cause)
            if told is not None:
                told.count += 1
                told.tell, told.event, told.fields = tell, event, fields
                return
            self._told[cause] = _Told(tell, event, fields, now + self._seconds)
        tell(event, **fields)

    def flush(self, *, is_end: bool = False) -> None:
        """Tells how often causes came again since they were told, a minute ago. Call it every few seconds.

        ``is_end``: tells it of all causes now.
        """
        now, due = time.monotonic(), []
        with self._lock:
            for cause, told in list(self._told.items()):
                if told.due > now and not is_end:
                    continue
                if told.count:
                    due.append(_Told(told.tell, told.event, told.fields, now, told.count))
                    told.due, told.count = now + self._seconds, 0
                else:
                    del self._told[cause]
        for told in due:
            told.tell(f"{told.event}; repeated {told.count} time{'' if told.count == 1 else 's'}", **told.fields)


class _State(msgspec.Struct):
    """A state that began or ended: what its line says, when it changed, and how often it began since the last line."""

    tell: Callable[..., None]
    event: str
    fields: dict[str, Any]
    is_over: bool
    changed_at: float  # monotonic seconds
    began: int = 0
    is_told: bool = False
    lines_at: deque[float] = msgspec.field(default_factory=deque)


class Changes:
    """Logs what begins and what ends. Every change is new, and has its line at the next ``flush``.

    A state that comes and goes is counted instead: after ``CHANGES_AT_ONCE`` lines within a minute the next one waits until the
    state has lasted for ``SETTLED_SECONDS``, or the minute is over. It says how often the state began since: "…; it began 7 times".
    For one thread.
    """

    def __init__(self, settled_seconds: float = SETTLED_SECONDS, minute_seconds: float = REPEATED_SECONDS) -> None:
        self._settled_seconds, self._minute_seconds = settled_seconds, minute_seconds
        self._states: dict[str, _State] = {}

    def began(self, name: str, tell: Callable[..., None], event: str, /, **fields: Any) -> None:
        """Notes that a state began; ``tell``, such as ``log.warning``, logs it."""
        self._change(name, tell, event, fields, is_over=False)

    def ended(self, name: str, tell: Callable[..., None], event: str, /, **fields: Any) -> None:
        """Notes that it is over."""
        self._change(name, tell, event, fields, is_over=True)

    def _change(
        self, name: str, tell: Callable[..., None], event: str, fields: dict[str, Any], *, is_over: bool
    ) -> None:
        now = time.monotonic()
        one = self._states.setdefault(name, _State(tell, event, fields, is_over, now))
        one.tell, one.event, one.fields, one.is_over, one.changed_at = tell, event, fields, is_over, now
        one.began += not is_over
        one.is_told = False

    def flush(self, *, is_end: bool = False) -> None:
        """Writes the lines that are due; all that wait with ``is_end``. Call it every second or two."""
        now, lines = time.monotonic(), 0
        for name, one in list(self._states.items()):
            while one.lines_at and one.lines_at[0] <= now - self._minute_seconds:
                one.lines_at.popleft()
            is_due = len(one.lines_at) < CHANGES_AT_ONCE or now - one.changed_at >= self._settled_seconds
            if one.is_told and one.is_over and not one.lines_at:
                del self._states[name]
            elif not one.is_told and (is_end or (is_due and lines < LINES_MAX)):
                often = one.began > (0 if one.is_over else 1)  # an end's own beginning has a line
                times = f"; it began {one.began} time{'' if one.began == 1 else 's'}" if often else ""
                one.tell(f"{one.event}{times}", **one.fields)
                one.lines_at.append(now)
                one.is_told, one.began = True, 0
                lines += 1


def _json(event: Any, **_: Any) -> str:
    return printable_json(msgspec.json.encode(event, enc_hook=repr).decode())


def _printable(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escapes what a terminal would obey, since the values may be a site's or a client's text."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "\n".join(map(printable, value.split("\n"))) if key == "exception" else printable(value)
    return event


def configure(log_format: str = "auto", level: str = "info", *, gathers: bool = False) -> None:
    """Sets up this process's logging on standard error. ``auto`` means text on a terminal, else JSON.

    ``gathers``: lines below a warning may wait up to ``GATHER_SECONDS`` for others; they are lost when the process is killed.
    """
    stream: Any = _Unbroken(sys.stderr)
    gathering = _Gathering(stream) if gathers else None
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if as_text:
        shared.append(_printable)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if as_text
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # It writes a line in one piece, because lines of the standard library come in between, under a lock of their own.
        logger_factory=structlog.WriteLoggerFactory(stream) if gathering is None else lambda *_: gathering,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:1], structlog.stdlib.add_logger_name, *shared[1:]],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(getattr(logging, level.upper()))
    for chatty in ("pika", "rq", "werkzeug", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
