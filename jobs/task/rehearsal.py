"""Made-up tasks before a process's first real one, so that this does not take longer than later ones.

What runs for the first time is slow: a forked process copies each page of memory that it touches, and patterns are compiled on first
use. These tasks take the steps of real ones. Their pages stand beside this file (``rehearsal``), and are read from a socket of this
process: nobody is asked, and nothing is kept.
"""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from urllib3.connection import HTTPConnection

from jobs.contract import Task
from jobs.definition.ask import DEFAULT_EGRESS
from jobs.definition.catalog import Catalog
from jobs.fetch.exchange import Exchange
from jobs.fetch.fetcher import Fetcher
from jobs.queue.clock import machine_ms
from jobs.task.execution import Execution
from jobs.task.runner import Runner
from jobs.task.sources import Sources
from regions import logs
from regions.settings import Region, Settings

# NAME.toml asks the host NAME.rehearsal.invalid, whose answer is NAME.http.
FOLDER: Final = Path(__file__).with_name("rehearsal")
DEADLINE_MS: Final = 30_000

log = logs.get("worker")


class _Answers:
    """A route (``jobs.fetch.exchange.Route``) to the answers of the folder."""

    def __init__(self) -> None:
        self._far_ends: list[socket.socket] = []

    def connect(self, exchange: Exchange, connection: HTTPConnection) -> socket.socket:
        """A socket from which a host's answer can be read at once."""
        near, far = socket.socketpair()
        self._far_ends.append(far)
        exchange.hold(near)
        head, _, body = (
            (FOLDER / connection.host.partition(".")[0]).with_suffix(".http").read_bytes().partition(b"\n\n")
        )
        far.sendall(head.replace(b"\n", b"\r\n") + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return near

    def close(self) -> None:
        """Closes the far ends."""
        for far in self._far_ends:
            far.close()


def rehearse(settings: Settings, region: Region) -> list[str]:
    """Runs a task for each definition of the folder, which takes some ms in all; returns how each ended.

    If that fails, it is logged, and the process goes on: only its first task takes longer.
    """
    ended: list[str] = []
    answers = _Answers()
    try:
        catalog = Catalog([FOLDER], region.name)
        fetchers = {DEFAULT_EGRESS: Fetcher(route=answers)}
        runner = Runner(settings, region, fetchers=fetchers, sources=Sources(catalog, region))
        with contextlib.closing(runner):
            ended += [runner.run(Execution(task)).outcome.status for task in _tasks(catalog, region)]
    except Exception:
        log.exception("the rehearsal failed")
    finally:
        answers.close()
    if ended and set(ended) != {"succeeded"}:
        log.warning("the rehearsal failed", ended=ended)
    return ended


def _tasks(catalog: Catalog, region: Region) -> Iterator[Task]:
    for entry in catalog.entries():
        assert entry.definition is not None
        now_ms = machine_ms()
        yield Task(
            task=f"rehearsal-{entry.id}",
            request="rehearsal",
            source=entry.id,
            region=region.name,
            definition=entry.definition.hash,
            accepted_ms=now_ms,
            deadline_ms=now_ms + DEADLINE_MS,
            expires_ms=now_ms + DEADLINE_MS,
        )
