"""How a task gets its pages: each is fetched when its host has a turn for it, then parsed, until there is no next one.

Asker.ask → a young enough answer of the cache, or
_first    [before]: a token from this process's memory, or a fetch
_page     for each page: _parsed → _fetch → _obey (robots.txt) → _get (turn, Fetcher.fetch) → Source.parse
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from requests.cookies import RequestsCookieJar

from jobs import memory
from jobs.answers.cache import Cache, Cached, renewed
from jobs.answers.tokens import Tokens, key_of
from jobs.contract import rfc3339
from jobs.errors import Cancelled, TaskError, UnknownSource
from jobs.fetch.egress import Fetches, fetchers_of
from jobs.fetch.fetcher import Terms, retry_after
from jobs.fetch.robots import FETCHED_BYTES_MAX, Robots
from jobs.origin import origin_or_none
from jobs.page import Page, Request
from jobs.parse.source import Parsed
from jobs.queue.turn import NoThread
from jobs.task.life import Life
from regions.settings import Region, Settings

SLOWED: Final = (429, 503)  # statuses whose Retry-After is for all tasks of the host


class Asker:
    """Fetches and parses the pages of tasks, for all threads of a process.

    Raises ``Faults`` for wrong fetch settings.
    """

    def __init__(
        self, settings: Settings, region: Region, cache: Cache, fetchers: Mapping[str, Fetches] | None
    ) -> None:
        """``fetchers`` (by egress) replace those of the region; they need no robots.txt."""
        self._region, self._cache = region.name, cache
        self._secrets_of = region.secrets_of
        self._fetchers = fetchers_of(settings, region) if fetchers is None else fetchers
        self._robots = Robots() if fetchers is None else None  # stored answers have none
        self._agents = {name: egress.user_agent for name, egress in region.egress.items()}
        self._tokens = Tokens()

    def close(self) -> None:
        """Closes kept connections."""
        for fetcher in self._fetchers.values():
            fetcher.close()

    def ask(self, life: Life) -> None:
        """Gets all pages, or an older answer where the task accepts one.

        When a page after the first fails, the pages before it are the result, with a warning.
        """
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
                if not life.pages and life.has_kept_token:  # the token may have expired early
                    request = self._first(life, jar, is_fresh=True)
                    continue
                if not life.pages:
                    raise
                life.result.partial = True
                life.warnings.append(f"page {life.pages + 1} failed: {type(error).type}: {error}")
                return

    def _first(self, life: Life, jar: RequestsCookieJar, *, is_fresh: bool = False) -> Request:
        """The first request, after the one of ``[before]``, whose cookies are then in ``jar``."""
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
        """The page of a request. With a ``cached`` answer, a 304 when the page has not changed since."""
        self._obey(life, request)
        try:
            get = partial(self._get, life, jar=jar, max_bytes=life.definition.limits.max_bytes)
            page = get(request if cached is None else cached.asking(request))
            if cached is not None and page.status == 304 and page.url == cached.meta.url:
                return page
            if cached is not None:  # a 304 after another redirect is about a page that the cache does not have
                page = replace(page, request=request) if page.status != 304 else get(request)
        except TaskError as error:
            life.answers.broke(life.definition, error)
            raise
        life.answers.add(life.definition, page)
        return page

    def _obey(self, life: Life, request: Request) -> None:
        """Raises BlockedAddress when the source honours robots.txt and the host's forbids the address."""
        if not life.definition.limits.robots or self._robots is None:
            return
        agent = next((text for name, text in request.headers.items() if name.lower() == "user-agent"), "")
        agent = agent or self._agents.get(request.egress, "")
        ask = partial(self._get, life, jar=None, max_bytes=FETCHED_BYTES_MAX)
        self._robots.check(request, agent, ask, partial(life.turn.delay, request.url), life.turn.granted)

    def _admit(self, life: Life, request: Request, is_page: bool, url: str) -> None:
        """A redirect leads to another host: obeys its robots.txt, and takes a turn there instead of the former one."""
        if not origin_or_none(url):
            return  # the fetch reports what is wrong with the address
        began = time.perf_counter()
        try:
            if is_page:
                self._obey(life, replace(request, url=url))
            life.turn.take(url, life.task.source, deadline=life.deadline, cancelled=life.cancelled)
        finally:
            # A fetch of robots.txt counts by itself.
            life.result.timing.fetch_ms -= (time.perf_counter() - began) * 1000

    def _get(self, life: Life, request: Request, *, jar: RequestsCookieJar | None, max_bytes: int) -> Page:
        """Waits for a turn, then fetches once."""
        life.turn.take(request.url, life.task.source, deadline=life.deadline, cancelled=life.cancelled)
        terms = Terms(
            deadline=life.deadline,
            timeout_seconds=life.definition.limits.timeout_seconds,
            max_bytes=max_bytes,
            cancelled=life.cancelled,
            jar=jar,
            admit=partial(self._admit, life, request, jar is not None),
        )
        began = time.perf_counter()
        try:
            page = self._fetcher(request).fetch(request, terms)
        finally:
            life.result.timing.fetch_ms += (time.perf_counter() - began) * 1000
            life.result.bytes.received += terms.received_bytes
        if page.status in SLOWED and (seconds := retry_after(page.headers)):
            life.turn.slow(page.url, seconds)
        life.result.bytes.raw += len(page.body)
        return page

    def _page(self, life: Life, request: Request, jar: RequestsCookieJar) -> Request | None:
        """Fetches and parses one page. Returns the request of the next one, None at the end."""
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
        """Gives back the memory of the last page, except for what is kept of it."""
        memory.keep(life.rows_bytes + life.answers.held_bytes)

    def _fetcher(self, request: Request) -> Fetches:
        if request.egress not in self._fetchers:
            raise UnknownSource(f"expected an egress of region {self._region}, found none named {request.egress}")
        return self._fetchers[request.egress]
