"""One log line a thing that happened, JSON or readable on a terminal, from structlog and the standard library alike.

    log = logs.get("bridge")
    log.info("consuming", region="fra", prefetch=4000)

Values never hold a secret: a URL goes through ``connect.without_password`` first.
"""

import contextlib
import logging
import sys
from typing import Any, TextIO

import msgspec
import structlog


class _Unbroken:
    """A stream whose reader may be gone: then there is nobody to tell, and no reason to end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes, or does not."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or does not."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def get(part: str) -> Any:
    """A logger that names its part of the system."""
    return structlog.get_logger(part=part)


def _json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def configure(log_format: str = "auto", level: str = "info") -> None:
    """Sets up this process's logging on standard error; ``auto`` is readable text on a terminal, else JSON."""
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if as_text
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # Which writes a line in one piece: the standard library's lines come between, under a lock of their own.
        logger_factory=structlog.WriteLoggerFactory(_Unbroken(sys.stderr)),  # type: ignore[arg-type]
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
