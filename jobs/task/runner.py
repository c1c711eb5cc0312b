"""A task's life in a worker: a flat list of steps over one record, and whatever goes wrong becomes a part of its end.

    Runner.run → know → begin → ask → check → encode → Ended
                              └─ for each page: Fetcher.fetch → Source.parse

The function that jobs name on the wire is ``jobs.task.run``.
"""

import random
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec
from requests.cookies import RequestsCookieJar

from jobs import memory
from jobs.answers.cache import Cache, Cached, packed, renewed
from jobs.answers.raw import Answers
from jobs.answers.store import AnswerStore
from jobs.answers.tokens import Tokens, key_of
from jobs.contract import PUT_BACK, Result, Task, failed_frame, rfc3339, splice
from jobs.definition.catalog import Catalog
from jobs.errors import (
    Cancelled,
    Expired,
    Internal,
    TaskError,
    UnknownSource,
)
from jobs.fetch.egress import Fetches, fetchers_of, passwords_of
from jobs.fetch.fetcher import Terms, retry_after
from jobs.fetch.robots import FETCHED_BYTES_MAX, Robots
from jobs.memory import Budget
from jobs.origin import origin_or_none
from jobs.page import Page, Request
from jobs.parse.contract_check import check, encoded, gaps
from jobs.parse.source import Parsed
from jobs.queue.clock import machine_ms
from jobs.queue.flight import shared_ms
from jobs.queue.retry import Retry, decide
from jobs.queue.script import ROOM_MS
from jobs.queue.turn import Free, NoThread, Turns, limits_of
from jobs.task.life import Ended, Life, bare, ended, stood_in
from jobs.task.sources import Sources
from regions import logs
from regions.secret import Secret
from regions.settings import Raw, Region, Settings

END_MARGIN_SECONDS: Final = 0.2  # a fetch ends so long before the deadline, since what ends after it is expired
BACK_SECONDS: Final = (0.5, 1.5)  # until a task is claimed again for which no thread could wait
SLOWED: Final = (429, 503)  # statuses whose Retry-After is everybody's

log = logs.get("worker")


class Runner:
    """Runs tasks for all threads of a worker process, which share its connections and definitions.

    Raises ``Faults`` where the settings of fetching are wrong.
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
    ) -> None:
        """``fetchers`` (by egress) and ``secrets`` (by name, for every source) stand in for those of the region.

        ``store``: where answers are kept to look at; ``cache``: the region's good ones, to be used again. Without them
        none are.
        """
        if secrets is not None:
            bound = {name: Secret(("*",), value) for name, value in secrets.items()}
            region = msgspec.structs.replace(region, secrets=bound)
        self._records_bytes_max = settings.limits.records_bytes_max
        self._region = region.name
        catalog = Catalog(settings.source_folders, settings.first_region, {region.name: region})
        self._sources = Sources(catalog, region.name)
        self._secrets_of = region.secrets_of
        self._fetchers = fetchers_of(settings, region) if fetchers is None else fetchers
        self._robots = Robots() if fetchers is None else None  # answers that were kept have none
        self._passwords = passwords_of(region)
        self._agents = {name: egress.user_agent for name, egress in region.egress.items()}
        self._store = AnswerStore(Raw()) if store is None else store
        self._budget = Budget(region.workers.memory_mb * 1_000_000, region.workers.threads)
        self._tokens = Tokens()
        self._cache = Cache() if cache is None else cache

    def refresh(self) -> bool:
        """Reads changed definitions, cheap when there are none; whether something changed. Call it every 2 s or less."""
        return self._sources.refresh()

    def limits(self) -> Mapping[str, str]:
        """What sources and hosts allow, as ``jobs.queue.turn.limits_of``."""
        return limits_of(self._sources.definitions())

    def close(self) -> None:
        """Closes kept connections."""
        for fetcher in self._fetchers.values():
            fetcher.close()

    def run(
        self,
        task: Task,
        *,
        offset_ms: int,
        attempt: int,
        failures: int,
        queued_ms: float,
        cancelled: Callable[[], bool],
        turn: Turns | None = None,
        refusal: TaskError | None = None,
    ) -> Ended:
        """One attempt at a task; never raises. ``offset_ms`` is the hub's clock less this machine's (jobs.queue.clock).

        ``attempt`` counts from 1, ``failures`` of those before it failed. ``cancelled`` is asked often, from another
        thread too. Without a ``turn`` it waits for nobody's. With a ``refusal`` there is no turn for it: it asks nobody,
        and that is how it fails.
        """
        deadline = time.monotonic() + (task.deadline_ms - machine_ms() - offset_ms) / 1000
        with self._budget.share(deadline, cancelled):
            life, end = self.lived(
                task, offset_ms=offset_ms, attempt=attempt, queued_ms=queued_ms, cancelled=cancelled, turn=turn, refusal=refusal
            )  # fmt: skip
            if life.answers:
                self._keep(life, end)
            if refusal is None:
                life.turn.ended(life.failure)
            if isinstance(life.failure, NoThread):
                end.retry = Retry(random.uniform(*BACK_SECONDS), PUT_BACK, str(life.failure))
                return end
            left_seconds = (task.deadline_ms - end.outcome.finished_ms) / 1000
            end.shared_ms = shared_ms(life.failure, left_seconds, failures=failures, retries=life.retries)
            if refusal is not None:
                end.shared_ms = ROOM_MS
            elif life.failure is not None:
                end.retry = decide(life.failure, failures=failures, retries=life.retries, left_seconds=left_seconds)
            if life.failure is not None and end.retry is None:
                cached = self._cache.stale(task, getattr(life, "definition", None), life.failure, life.hub_ms())
                return end if cached is None else stood_in(life, cached, end)
            return end

    def lived(
        self,
        task: Task,
        *,
        offset_ms: int,
        attempt: int,
        queued_ms: float,
        cancelled: Callable[[], bool],
        turn: Turns | None = None,
        refusal: TaskError | None = None,
    ) -> tuple[Life, Ended]:
        """As ``run``, with all that the steps found: also the rows of a task that failed. Keeps no answers."""
        result = Result(
            task=task.task,
            source=task.source,
            region=self._region,
            status="failed",
            attempts=attempt,
            definition=task.definition,
            url=bare(task.url),
        )
        result.timing.queued_ms = round(queued_ms, 1)
        answers = Answers(self._secrets_of(task.source), self._passwords, is_wanted=self._store.is_open)
        life = Life(task, offset_ms, cancelled, result, answers, turn or Free(), refusal=refusal)
        failure, shown = self._live(life)
        if failure is None:
            end = ended(life, "succeeded", life.frame, "")
            end.meta, end.answered_ms = packed(life.meta, life.pages, result, life.gaps), life.answered_ms
            return life, end
        life.failure = failure
        return life, ended(life, "failed", lambda found: failed_frame(found, failure), shown)

    def _live(self, life: Life) -> tuple[TaskError | None, str]:
        """Takes the steps; what went wrong, if something did, and its traceback as text.

        The error's own traceback would keep the page, and itself, until a collector comes.
        """
        try:
            for step in (self._know, self._begin, self._ask, self._check, self._encode):
                step(life)
        except TaskError as error:
            shown = "".join(traceback.format_exception(error, chain=False))
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None), shown
        except BaseException as error:  # noqa: BLE001 - an author's code may raise anything; the task has to end
            shown = "".join(traceback.format_exception(error))
            return Internal(f"a fault of ours or of the source's own code: {type(error).__name__}: {error}"), shown
        return None, ""

    def _keep(self, life: Life, end: Ended) -> None:
        """Puts the answers of a failure aside, also of a partial one, and those of a success now and then."""
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
                result=splice(end.outcome.frame),
            )
            self._store.put(task.source, task.task, result.attempts, data, is_sample=is_sample)
        except Exception as error:  # noqa: BLE001 - what is only kept to look at must not change how a task ends
            log.warning("can't keep the answers of a task", task=task.task, error=f"{type(error).__name__}: {error}")

    def _know(self, life: Life) -> None:
        """The source as this region has it, and the task's params as it takes them."""
        life.source, life.params = self._sources.of(life.task)
        life.definition = life.source.definition
        life.retries = life.definition.limits.retries
        life.result.definition = life.definition.hash

    def _begin(self, life: Life) -> None:
        """The deadline: nothing begins past it, and a fetch ends a little before it. Nor without a turn."""
        if life.refusal is not None:
            raise life.refusal
        left = (life.task.deadline_ms - life.hub_ms()) / 1000
        if left <= 0:
            raise Expired(f"the deadline passed {-left:.1f} s before it began")
        life.deadline = time.monotonic() + left - min(END_MARGIN_SECONDS, left / 5)

    def _ask(self, life: Life) -> None:
        """Every page; one that fails after the first leaves what came before, with a warning. Or an older answer that will do."""
        if (cached := self._cache.young(life.task, life.definition, life.hub_ms())) is not None:
            life.answer(cached)
            return
        jar = RequestsCookieJar()
        request: Request | None = self._first(life, jar)
        while request is not None:
            try:
                request = self._page(life, request, jar)
            except (Cancelled, NoThread):
                raise
            except TaskError as error:
                if not life.pages and life.has_kept_token:  # which may have ended before its time
                    request = self._first(life, jar, is_fresh=True)
                    continue
                if not life.pages:
                    raise
                life.result.partial = True
                life.warnings.append(f"page {life.pages + 1} failed: {type(error).type}: {error}")
                return

    def _first(self, life: Life, jar: RequestsCookieJar, *, is_fresh: bool = False) -> Request:
        """The first request, after what has to be asked before it; its cookies are in ``jar`` then."""
        secrets = self._secrets_of(life.definition.id)
        before, asked = life.definition.before, life.source.before(life.params, secrets)
        values = None
        life.has_kept_token = False
        if before is not None and asked is not None:
            key = key_of(life.definition, asked)
            if is_fresh:
                self._tokens.forget(key)
            values = self._tokens.get(key)
            life.has_kept_token = values is not None
            if values is None:
                values = life.source.before_values(self._fetch(life, asked, jar))
                if before.ttl_seconds and not len(jar):
                    self._tokens.keep(key, values, before.ttl_seconds)
        life.answers.hide((values or {}).values())
        self._keep_memory(life)
        return life.source.first(life.params, secrets, values)

    def _fetch(self, life: Life, request: Request, jar: RequestsCookieJar, cached: Cached | None = None) -> Page:
        """An answer; of an address that has a ``cached`` one 304 where it has no other."""
        self._obey(life, request)
        try:
            get = partial(self._get, life, jar=jar, max_bytes=life.definition.limits.max_bytes)
            page = get(request if cached is None else cached.asking(request))
            if cached is not None and page.status == 304 and page.url == cached.meta.url:
                return page
            if cached is not None:  # another redirect has led to a page that nobody has
                page = replace(page, request=request) if page.status != 304 else get(request)
        except TaskError as error:
            life.answers.broke(life.definition, error)
            raise
        life.answers.add(life.definition, page)
        return page

    def _obey(self, life: Life, request: Request) -> None:
        """The robots.txt of an address's host, where the source honours it."""
        if not life.definition.limits.robots or self._robots is None:
            return
        agent = next((text for name, text in request.headers.items() if name.lower() == "user-agent"), "")
        agent = agent or self._agents.get(request.egress, "")
        ask = partial(self._get, life, jar=None, max_bytes=FETCHED_BYTES_MAX)
        self._robots.check(request, agent, ask, partial(life.turn.delay, request.url))

    def _admit(self, life: Life, request: Request, is_page: bool, url: str) -> None:
        """A redirect leads to another host: its robots.txt, and its turn instead of the one before."""
        if not origin_or_none(url):
            return  # the fetch says what is wrong with it
        began = time.perf_counter()
        try:
            if is_page:
                self._obey(life, replace(request, url=url))
            life.turn.take(url, life.task.source, deadline=life.deadline, cancelled=life.cancelled)
        finally:
            life.result.timing.fetch_ms -= (time.perf_counter() - began) * 1000  # robots.txt counts by itself

    def _get(self, life: Life, request: Request, *, jar: RequestsCookieJar | None, max_bytes: int) -> Page:
        """One fetch when its turn has come."""
        life.turn.take(request.url, life.task.source, deadline=life.deadline, cancelled=life.cancelled)
        began = time.perf_counter()
        try:
            page = self._fetcher(request).fetch(
                request,
                Terms(
                    deadline=life.deadline,
                    timeout_seconds=life.definition.limits.timeout_seconds,
                    max_bytes=max_bytes,
                    cancelled=life.cancelled,
                    jar=jar,
                    admit=partial(self._admit, life, request, jar is not None),
                ),
            )
        finally:
            life.result.timing.fetch_ms += (time.perf_counter() - began) * 1000
        if page.status in SLOWED and (seconds := retry_after(page.headers)):
            life.turn.slow(page.url, seconds)
        life.result.bytes.raw += len(page.body)
        return page

    def _page(self, life: Life, request: Request, jar: RequestsCookieJar) -> Request | None:
        """Fetches and parses one page; the request of the next one, None at the end."""
        following = life.take(self._parsed(life, request, jar))
        self._keep_memory(life)
        return following

    def _parsed(self, life: Life, request: Request, jar: RequestsCookieJar) -> Parsed:
        cached = self._cache.to_ask_by(life.task, life.definition, request)
        page = self._fetch(life, request, jar, cached)
        now_ms = life.hub_ms()
        if cached is not None and page.status == 304:
            life.meta = renewed(cached.meta, page, now_ms)
            life.answer(Cached(life.meta, cached.frame), is_asked=True)
            return Parsed()
        if not life.pages:
            life.result.url, life.result.fetched_at, life.answered_ms = page.url, rfc3339(now_ms), now_ms
            life.meta = self._cache.note(life.definition, page, now_ms)
        began = time.perf_counter()
        try:
            return life.source.parse(page)
        except TaskError as error:
            if error.http_status and error.retry_after is None:
                error.retry_after = retry_after(page.headers)
            raise
        finally:
            life.result.timing.parse_ms += (time.perf_counter() - began) * 1000

    def _keep_memory(self, life: Life) -> None:
        """Gives back what the last page took: it is gone, but for what is kept of it."""
        memory.keep(life.rows_bytes + life.answers.held_bytes)

    def _fetcher(self, request: Request) -> Fetches:
        if request.egress not in self._fetchers:
            raise UnknownSource(f"expected an egress of region {self._region}, found none named {request.egress}")
        return self._fetchers[request.egress]

    def _check(self, life: Life) -> None:
        """The source's contract, and which fields some records lack. An older answer has kept it."""
        if life.cached is not None:
            return
        check(life.definition, life.rows, bad_required=life.bad_required, empty=life.is_empty, absent=life.is_absent)
        life.gaps = gaps(life.definition, life.rows)

    def _encode(self, life: Life) -> None:
        """The records as they travel."""
        if life.cached is not None:
            return
        life.records = encoded(life.rows, self._records_bytes_max)
        life.result.count = len(life.rows)
