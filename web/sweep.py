"""Ends what nobody ended: tasks past their deadline + grace, and requests whose accept a dead gateway left open.

Each gateway sweeps for itself. After its start, and after it regained the hub or the broker, it sweeps nothing for 15 s,
so that results which were on their way win; at most 15 s in any 60, so that a flapping link does not stop the sweep.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import redis

from jobs.errors import Expired
from regions import connect, logs, names
from regions.settings import Settings
from web.accept import Cleaner
from web.hub import Hub, HubUnavailable
from web.ledger import Ledger, Settlement
from web.settle import hub_frame

EVERY_SECONDS: Final = 0.25
BATCH: Final = 500
GRACE_SECONDS: Final = 15.0
GRACE_WINDOW_SECONDS: Final = 60.0
FORGET_PART_MS: Final = 3_600_000  # what a bridge or a pool said last, after it is gone
FORGET_EVERY_SECONDS: Final = 60.0

log = logs.get("sweep")


class Grace:
    """The 15 s without a sweep: at most one of them begins in any 60 s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: float | None = None

    def begin(self) -> None:
        """Something was regained. Within 60 s of the last beginning it changes nothing."""
        now = self._clock()
        if self._began is None or now - self._began >= GRACE_WINDOW_SECONDS:
            self._began = now

    @property
    def is_on(self) -> bool:
        """Whether the sweep waits."""
        return self._began is not None and self._clock() - self._began < GRACE_SECONDS


class Sweeper:
    """The sweep of one gateway."""

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        ledger: Ledger,
        cleaner: Cleaner,
        news: Callable[[Iterable[str]], None],
    ) -> None:
        self._hub, self._ledger, self._cleaner, self._news = hub, ledger, cleaner, news
        self._regions = list(settings.region)
        self._deadline_max_ms = int(settings.limits.deadline_max_seconds * 1000)
        self.grace = Grace()
        self._forget_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="sweep", daemon=True)

    def start(self) -> None:
        """Starts the thread, in its grace."""
        self.grace.begin()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        self._thread.join(5)

    def run(self) -> None:
        """Sweeps until it is stopped."""
        while not self._stopping.wait(EVERY_SECONDS):
            try:
                if not self.grace.is_on:
                    self.run_once()
            except (HubUnavailable, redis.exceptions.RedisError) as error:
                log.debug("no sweep", error=str(error))
            except Exception:
                log.exception("sweep failed")

    def run_once(self) -> int:
        """One batch of each kind; returns how many tasks it ended."""
        with self._hub.asking() as client:
            now = connect.redis_now_ms(client)
            lapsed: Any = client.zrangebyscore(names.ACCEPTING, "-inf", now, start=0, num=BATCH)
            due: Any = client.zrangebyscore(names.DUE, "-inf", now, start=0, num=BATCH)
            for request in lapsed:
                self._refuse(request.decode())
            if time.monotonic() >= self._forget_at:
                self._forget_at = time.monotonic() + FORGET_EVERY_SECONDS
                self._forget_parts(client, now)
            return self._expire(client, [member.decode() for member in due], now)

    def _refuse(self, request: str) -> None:
        tasks = [(task.id, task.region) for task in self._ledger.tasks(request) or ()]
        if self._ledger.refuse(request, tasks, lapsed_only=True) and tasks:
            log.info("accept never finished", request=request, tasks=len(tasks))
            self._cleaner.cancel(request, tasks, self._deadline_max_ms)

    def _expire(self, client: redis.Redis, due: list[str], now: int) -> int:
        by_request: dict[str, set[str]] = {}
        for member in due:
            request, _, task = member.partition("/")
            by_request.setdefault(request, set()).add(task)
        settlements: list[Settlement] = []
        for request, tasks in by_request.items():
            known = self._ledger.tasks(request)
            if known is None:
                self._forget(client, request, tasks)
                continue
            settlements += [
                self._expired(request, task.id, task.source, task.region, now) for task in known if task.id in tasks
            ]
        if not settlements:
            return 0
        answers = self._ledger.settle(settlements)
        ended = [one.request for one, answer in zip(settlements, answers, strict=True) if answer]
        if ended:
            log.info("expired", tasks=len(ended))
            self._news(set(ended))
        return len(ended)

    def _expired(self, request: str, task: str, source: str, region: str, now: int) -> Settlement:
        frame = hub_frame(task, source, region, "expired", Expired("no result came by the deadline"))
        return Settlement(
            request=request,
            task=task,
            region=region,
            status="expired",
            finished_ms=now,
            size_bytes=len(frame),
            frame=frame,
        )

    def _forget_parts(self, client: redis.Redis, now: int) -> None:
        """Parts have a new name after each start; the old ones would stay for ever."""
        for state in self._ledger.regions(self._regions):
            gone = [part for part, said in state.said.items() if said.get("at_ms", now) < now - FORGET_PART_MS]
            if gone:
                client.hdel(names.region_status(state.name), *gone)

    def _forget(self, client: redis.Redis, request: str, tasks: Iterable[str]) -> None:
        """The ledger expired: what still points to it goes too."""
        members = [names.due_member(request, task) for task in tasks]
        pipeline = client.pipeline(transaction=False)
        for key in (names.DUE, *map(names.open_tasks, self._regions)):
            pipeline.zrem(key, *members)
        pipeline.execute()
