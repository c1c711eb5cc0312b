"""Finds the definition that a task runs by, also while definitions change, and compiles it for the task's thread.

1. The current definition, when it takes the task's params.
2. When it is gone, broken, half written, wants other params, or has moved to another region and needs what only that one
   has: the one that the task was accepted with, if this process has seen it.
3. Else the task fails with ``unknown_source``.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from jobs.contract import Task
from jobs.definition.catalog import Catalog, wrong_in
from jobs.definition.model import BadParams, Definition
from jobs.errors import BlockedAddress, UnknownSource
from jobs.fetch.fetcher import shown
from jobs.origin import origin_of, origin_or_none
from jobs.parse.source import Source, address
from regions.faults import Faults
from regions.settings import Region

# At least, between two reads of the files because of tasks with newer definitions: a region may be behind for long.
REFRESH_SECONDS: Final = 0.5

Ready = tuple[Source, dict[str, object]]  # a source, and a task's params converted for it


class Sources:
    """The sources of a worker process, shared by its threads."""

    def __init__(self, catalog: Catalog, region: Region) -> None:
        self._catalog, self._region = catalog, region
        self._here = threading.local()
        self._looked = time.monotonic()
        self.refresh()

    def refresh(self) -> bool:
        """Reads changed definitions. Returns whether there were any."""
        return self._catalog.refresh()

    def definitions(self) -> list[Definition]:
        """The current definitions, of all sources whose definition is good."""
        return [entry.definition for entry in self._catalog.entries() if entry.definition is not None]

    def of(self, task: Task) -> Ready:
        """The source and params of a task.

        Raises UnknownSource when no definition fits, BlockedAddress as check_address.
        """
        try:
            return self._ready(task, self._today(task))
        except UnknownSource:
            former = self._catalog.former(task.source, task.definition)
            if former is None:
                raise
            return self._ready(task, former)

    def _today(self, task: Task) -> Definition:
        """The current definition.

        Reads the files first when the gateway has another one: it may have seen a change earlier.
        """
        entry = self._catalog.get(task.source)
        if (entry is None or entry.definition is None or entry.definition.hash != task.definition) and self._is_due():
            self.refresh()
            entry = self._catalog.get(task.source)
        if entry is None:
            raise UnknownSource(f"expected a source of region {self._region.name}, found no {task.source} here")
        if entry.definition is None:
            raise UnknownSource(f"the definition of {task.source} is broken here: {entry.faults[0]}")
        if entry.region != self._region.name and (faults := wrong_in(self._region, entry.definition)):
            raise UnknownSource(f"{task.source} belongs to region {entry.region} by now: {faults[0]}")
        return entry.definition

    def _is_due(self) -> bool:
        now = time.monotonic()
        is_due = now - self._looked >= REFRESH_SECONDS
        if is_due:
            self._looked = now
        return is_due

    def _ready(self, task: Task, definition: Definition) -> Ready:
        try:
            params = definition.bind(task.params, text=False)
        except BadParams as error:
            is_another = task.definition != definition.hash
            another = f"has definition {definition.hash} here, not {task.definition}, and " if is_another else ""
            raise UnknownSource(f"{definition.id} {another}does not accept these params: {error}") from error
        check_address(task, definition, params)
        return self._compiled(definition), params

    def _compiled(self, definition: Definition) -> Source:
        """The source, compiled for this thread alone: threads that share a compiled selector wait for each other."""
        compiled: dict[str, tuple[str, Source]] = self._here.__dict__.setdefault("compiled", {})
        known, source = compiled.get(definition.id, ("", None))
        if source is None or known != definition.hash:
            try:
                source = Source(definition)
            except Faults as faults:
                raise UnknownSource(f"the definition of {definition.id} is broken here: {faults.faults[0]}") from faults
            compiled[definition.id] = (definition.hash, source)
        return source


def check_address(task: Task, definition: Definition, params: Mapping[str, Any]) -> None:
    """Raises BlockedAddress when a message's address has another origin than the definition makes of its params.

    The fetch goes to the definition's address in any case, so that somebody who can write messages can't lead a source's
    secrets elsewhere. A task that was accepted by another definition may have another address.
    """
    if not task.url or task.definition != definition.hash or not definition.ask.url:
        return
    wanted = definition.ask.fixed_origin() or origin_of(address(definition.ask, params))
    if origin_or_none(task.url) != wanted:
        raise BlockedAddress(f"expected a message for an address of {wanted}, found one for {shown(task.url)}")
