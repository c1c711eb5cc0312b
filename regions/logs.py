"""One log line a thing that happened, JSON or readable on a terminal, from structlog and the standard library alike.

    log = logs.get("bridge")
    log.info("consuming", region="fra", prefetch=4000)

Values never hold a secret: a URL goes through ``connect.without_password`` first.
"""

import logging
import sys
from typing import Any

import structlog


def get(part: str) -> Any:
    """A logger that names its part of the system."""
    return structlog.get_logger(part=part)


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
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
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
