"""Runs a task: a flat list of steps that fill one record, and an end that says what went wrong if something did.

    Runner.run → know → begin → Asker.ask → check → encode → conclude → Ending
                                  └─ for each page: Fetcher.fetch → Source.parse

``jobs.task.run`` is the function that jobs name on the wire.
"""

import random
import time
import traceback
from collections.abc import Mapping
from typing import Final

import msgspec

from jobs import result_frame
from jobs.answers.cache import Cache, packed
from jobs.answers.raw import Answers
from jobs.answers.store import AnswerStore
from jobs.contract import PUT_BACK, Result
from jobs.definition.catalog import Catalog
from jobs.definition.model import limits_of
from jobs.errors import Expired, Internal, TaskError
from jobs.fetch.egress import Fetches, passwords_of
from jobs.memory import Budget
from jobs.parse.contract_check import check, encoded, gaps
from jobs.queue.claim import Ending
from jobs.queue.clock import machine_ms
from jobs.queue.retry import Retry, decide
from jobs.queue.script import ROOM_MS
from jobs.queue.shared_fetch import shared_ms
from jobs.queue.turn import NoThread
from jobs.task.asking import Asker
from jobs.task.execution import Execution
from jobs.task.life import Life, bare, ended, replaced_by
from jobs.task.sources import Sources
from regions import logs
from regions.secret import Secret
from regions.settings import Raw, Region, Settings

# A fetch ends this long before the deadline: a task that ends after it counts as expired.
END_MARGIN_SECONDS: Final = 0.2
BACK_SECONDS: Final = (0.5, 1.5)  # until a task is claimed again that found no thread to wait in

log = logs.get("worker")


class Runner:
    """Runs tasks for all threads of a worker process, which share its connections and definitions.

    Raises ``Faults`` when the settings for fetching are wrong.
    """

    def __init__(
        self,
        settings: Settings,
        region: Region,
        *,
        fetchers: Mapping[str, Fetches] | None = None,
        secrets: Mapping[str, str] | None = None,
        store: AnswerStore | None = None,
        cache: Cache | None = None,
        sources: Sources | None = None,
    ) -> None:
        """``fetchers`` (by egress) and ``secrets`` (by name, for every source) replace those of the region, ``sources`` all sources.

        ``store`` keeps raw answers for operators, ``cache`` the region's good answers for later tasks. Without one,
        nothing is kept there.
        """
        if secrets is not None:
            bound = {name: Secret(("*",), value) for name, value in secrets.items()}
            region = msgspec.structs.replace(region, secrets=bound)
        self._records_bytes_max = settings.limits.records_bytes_max
        self._region = region.name
        if sources is None:
            catalog = Catalog(settings.source_folders, settings.first_region, {region.name: region})
            sources = Sources(catalog, region)
        self._sources = sources
        self._secrets_of = region.secrets_of
        self._passwords = passwords_of(region)
        self._store = AnswerStore(Raw()) if store is None else store
        self._budget = Budget(region.workers.memory_mb * 1_000_000, region.workers.threads)
        self._cache = Cache() if cache is None else cache
        self._asker = Asker(settings, region, self._cache, fetchers)

    def refresh(self) -> bool:
        """Reads changed definitions; cheap when there are none. Returns whether something changed.

        Call it at least every 2 s.
        """
        return self._sources.refresh()

    def limits(self) -> Mapping[str, str]:
        """What sources and hosts allow, as ``jobs.definition.model.limits_of``."""
        return limits_of(self._sources.definitions())

    def close(self) -> None:
        """Closes kept connections."""
        self._asker.close()

    def run(self, execution: Execution) -> Ending:
        """One attempt at a task. Never raises: what goes wrong is part of how it ended."""
        deadline = time.monotonic() + (execution.task.deadline_ms - machine_ms() - execution.offset_ms) / 1000
        with self._budget.share(deadline, execution.cancelled):
            life, end = self.lived(execution)
            return self._conclude(life, end, execution.failures)

    def lived(self, execution: Execution) -> tuple[Life, Ending]:
        """All steps but the last one: keeps no answers, decides on no retry.

        The record has all that the steps found, also the rows of a task that failed.
        """
        task = execution.task
        result = Result(
            task=task.task,
            source=task.source,
            region=self._region,
            status="failed",
            attempts=execution.attempt,
            definition=task.definition,
            url=bare(task.url),
        )
        result.timing.queued_ms = round(execution.queued_ms, 1)
        answers = Answers(self._secrets_of(task.source), self._passwords, is_wanted=self._store.is_open)
        life = Life(
            task,
            execution.offset_ms,
            execution.cancelled,
            result,
            answers,
            execution.turn,
            refusal=execution.refusal,
        )
        failure, shown = self._live(life)
        if failure is None:
            end = ended(life, "succeeded", life.frame, "")
            end.meta, end.answered_ms = packed(life.meta, life.pages, result, life.gaps), life.answered_ms
            return life, end
        life.failure = failure
        return life, ended(life, "failed", lambda found: result_frame.failed(found, failure), shown)

    def _live(self, life: Life) -> tuple[TaskError | None, str]:
        """Takes the steps. Returns what went wrong, if something did, and its traceback as text.

        The error's own traceback goes: it would keep the page, and itself, until the garbage collector comes.
        """
        try:
            for step in (self._know, self._begin, self._asker.ask, self._check, self._encode):
                step(life)
        except TaskError as error:
            shown = "".join(traceback.format_exception(error, chain=False))
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None), shown
        except BaseException as error:  # noqa: BLE001 - an author's code may raise anything; the task has to end
            shown = "".join(traceback.format_exception(error))
            return Internal(f"a fault of Nearfetch or of the source's own code: {type(error).__name__}: {error}"), shown
        return None, ""

    def _know(self, life: Life) -> None:
        """Finds the source's definition in this region, and binds the task's params to it."""
        life.source, life.params = self._sources.of(life.task)
        life.definition = life.source.definition
        life.retries, life.stale_seconds = life.definition.limits.retries, life.definition.limits.stale_seconds
        life.result.definition = life.definition.hash

    def _begin(self, life: Life) -> None:
        """Raises when the task has no turn or its deadline has passed. Fetches end a little before the deadline."""
        if life.refusal is not None:
            raise life.refusal
        left = (life.task.deadline_ms - life.hub_ms()) / 1000
        if left <= 0:
            raise Expired(f"the deadline passed {-left:.1f} s before the task began")
        life.deadline = time.monotonic() + left - min(END_MARGIN_SECONDS, left / 5)

    def _check(self, life: Life) -> None:
        """Checks the rows by the source's contract, and counts missing fields. An older answer was checked before."""
        if life.cached is not None:
            return
        check(life.definition, life.rows, bad_required=life.bad_required, empty=life.is_empty, absent=life.is_absent)
        life.gaps = gaps(life.definition, life.rows)

    def _encode(self, life: Life) -> None:
        """Encodes the records as they travel."""
        if life.cached is not None:
            return
        life.records = encoded(life.rows, self._records_bytes_max)
        life.result.count = len(life.rows)

    def _conclude(self, life: Life, end: Ending, failures: int) -> Ending:
        """Keeps raw answers, ends the turn, and decides between a retry, an older answer and the end as it is."""
        if life.answers:
            self._keep(life, end)
        if life.refusal is None:
            life.turn.ended(life.failure)
        end.retry, end.shared_ms = follow_up(life, failures, end.outcome.finished_ms)
        if life.failure is None or end.retry is not None or not life.stale_seconds:
            return end
        cached = self._cache.stale(life.task, life.definition, life.failure, life.hub_ms())
        return end if cached is None else replaced_by(life, cached, end)

    def _keep(self, life: Life, end: Ending) -> None:
        """Stores the raw answers of a failed or partial task, and of a successful one now and then."""
        task, result = life.task, life.result
        is_sample = result.status == "succeeded" and not result.partial
        if (is_sample and not self._store.takes_sample(task.source)) or life.cancelled():
            return
        try:
            data = life.answers.packed(
                life.definition,
                msgspec.structs.replace(task, url=bare(task.url)),
                region=self._region,
                attempt=result.attempts,
                now_ms=end.outcome.finished_ms,
                result=result_frame.splice(end.outcome.frame),
            )
            self._store.put(task.source, task.task, result.attempts, data, is_sample=is_sample)
        except Exception as error:  # noqa: BLE001 - a fault in keeping raw answers must not change how a task ends
            log.warning(
                "can't keep the answers of a task",
                task=task.task,
                error=f"{type(error).__name__}: {error}",
                **task.traced,
            )


def follow_up(life: Life, failures: int, finished_ms: int) -> tuple[Retry | None, int]:
    """The retry of a task that has ended, if there is one, and for how long others share its answer.

    The latter in ms, as ``jobs.queue.shared_fetch.shared_ms``. ``finished_ms`` is on the hub's clock.
    """
    failure = life.failure
    if isinstance(failure, NoThread):
        return Retry(random.uniform(*BACK_SECONDS), PUT_BACK, str(failure)), -1
    if life.refusal is not None:
        return None, ROOM_MS
    left_seconds = (life.task.deadline_ms - finished_ms) / 1000
    shared = shared_ms(failure, left_seconds, failures=failures, retries=life.retries)
    if failure is None:
        return None, shared
    return decide(failure, failures=failures, retries=life.retries, left_seconds=left_seconds), shared
