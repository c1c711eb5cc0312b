"""Made-up tasks before a process's first real one, so that this does not take longer than later ones.

What runs for the first time is slow: a forked process copies each page of memory that it touches, and patterns are compiled on first
use. These tasks take the steps of real ones. Their pages stand beside this file (``rehearsal``): nothing is fetched or kept.
"""

from pathlib import Path
from typing import Final

from jobs.contract import Task
from jobs.definition.catalog import Catalog
from jobs.fetch.fetcher import Terms
from jobs.page import Page, Request
from jobs.queue.clock import machine_ms
from jobs.task.execution import Execution
from jobs.task.runner import Runner
from jobs.task.sources import Sources
from regions import logs
from regions.settings import Region, Settings

FOLDER: Final = Path(__file__).with_name("rehearsal")  # each NAME.toml has its page, NAME.html or NAME.json
CONTENT_TYPES: Final = {"html": "text/html; charset=utf-8", "json": "application/json"}
DEADLINE_MS: Final = 30_000

log = logs.get("worker")


class _Pages:
    """Answers requests by the pages of the folder."""

    def fetch(self, request: Request, terms: Terms, /) -> Page:
        path = FOLDER / request.url.rpartition("/")[2]
        body = path.read_bytes()
        terms.received_bytes += len(body)
        return Page(request, request.url, 200, {"content-type": CONTENT_TYPES[path.suffix[1:]]}, body, request.params)

    def close(self) -> None:
        """Does nothing: nothing is open."""


def rehearse(settings: Settings, region: Region) -> list[str]:
    """Runs a task for each definition of the folder, which takes a few ms in all; returns how each ended."""
    catalog = Catalog([FOLDER], region.name)
    runner = Runner(settings, region, fetchers=dict.fromkeys(region.egress, _Pages()), sources=Sources(catalog, region))
    ended = []
    for entry in catalog.entries():
        assert entry.definition is not None
        now_ms = machine_ms()
        task = Task(
            task=f"rehearsal-{entry.id}",
            request="rehearsal",
            source=entry.id,
            region=region.name,
            definition=entry.definition.hash,
            accepted_ms=now_ms,
            deadline_ms=now_ms + DEADLINE_MS,
            expires_ms=now_ms + DEADLINE_MS,
        )
        ended.append(runner.run(Execution(task)).outcome.status)
    runner.close()
    return ended
