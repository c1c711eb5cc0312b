"""Ends tasks past their deadline + grace, and requests whose accept a dead gateway left open.

Every gateway sweeps. After its start, and after it regained the hub or the broker, it waits for 15 s, so that results which
were on their way still count. It waits at most 15 s in any 60, so that a flapping link does not stop the sweep.

    OVERDUE   takes a batch, which no other gateway gets for 2 s     then, in a round trip each: read, settle or refuse
              and the next batch, until none is left
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

import redis

from jobs.errors import Expired
from regions import logs, names
from regions.loop import Loop
from regions.settings import Settings
from web.flow.clean import Cleaner
from web.hub import scripts
from web.hub.frame import made as frame_made
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.region import parts_of
from web.hub.settlement import Settlement

EVERY_SECONDS: Final = 0.25
CALM_SECONDS: Final = 2.0  # the same while nothing is due so soon; what is accepted meanwhile is due after its grace
BATCH: Final = 500  # tasks, and as many requests that were not accepted
SHOWN_MAX: Final = 10  # ids in a line of the log
LEASE_MS: Final = 2_000  # longer than a batch takes; after it, another gateway takes what this one did not end
GRACE_SECONDS: Final = 15.0
GRACE_WINDOW_SECONDS: Final = 60.0
FORGET_PART_MS: Final = 3_600_000  # after the last status of a bridge or pool
FORGET_EVERY_SECONDS: Final = 60.0

log = logs.get("sweep")


class Grace:
    """The 15 s without a sweep, which begin at most once in any 60 s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: float | None = None

    def begin(self) -> None:
        """Begins the wait, unless the last one began less than 60 s ago."""
        now = self._clock()
        if self._began is None or now - self._began >= GRACE_WINDOW_SECONDS:
            self._began = now

    @property
    def is_on(self) -> bool:
        """Whether the sweep waits."""
        return self._began is not None and self._clock() - self._began < GRACE_SECONDS


class Sweeper:
    """The sweeping thread of a gateway."""

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        ledger: Ledger,
        cleaner: Cleaner,
        news: Callable[[Iterable[str]], None],
    ) -> None:
        self._hub, self._ledger, self._cleaner, self._news = hub, ledger, cleaner, news
        self._regions = settings.region  # changes while the gateway runs
        self._deadline_max_ms = int(settings.limits.deadline_max_seconds * 1000)
        self.grace = Grace()
        self._calm_seconds = max(EVERY_SECONDS, min(CALM_SECONDS, settings.limits.grace_seconds))
        self._next_seconds = EVERY_SECONDS  # until the next look
        self._forget_at = 0.0
        self._loop = Loop("sweep", self._turn)

    def start(self) -> None:
        """Starts the thread, which first waits out the grace."""
        self.grace.begin()
        self._loop.start(EVERY_SECONDS)

    def stop(self) -> None:
        """Ends the thread."""
        self._loop.stop()

    def _turn(self) -> float:
        self._next_seconds = EVERY_SECONDS
        try:
            if not self.grace.is_on:
                self.run_once()
        except (HubUnavailable, redis.exceptions.RedisError) as error:
            log.debug("sweep skipped", error=str(error))
        except Exception:
            log.exception("sweep failed")
        return self._next_seconds

    def run_once(self) -> int:
        """Ends everything that is overdue, a batch at a time; returns how many tasks it ended."""
        ended, is_more = 0, True
        while is_more and not self._loop.stopping.is_set():
            with self._hub.asking() as client:
                taken = scripts.OVERDUE.call(
                    client, accepting=names.ACCEPTING, due=names.DUE, lease_ms=LEASE_MS, most=BATCH
                )
                now, lapsed, due, next_ms = taken
                self._refuse([request.decode() for request in lapsed], now)
                ended += self._expire(client, [member.decode() for member in due], now)
            is_more = max(len(lapsed), len(due)) == BATCH
            if next_ms < 0 or next_ms > EVERY_SECONDS * 1000:
                self._next_seconds = self._calm_seconds if next_ms < 0 else min(self._calm_seconds, next_ms / 1000)
        if ended:
            log.info("tasks expired", tasks=ended)
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_EVERY_SECONDS
            with self._hub.asking() as client:
                self._forget_parts(client)
        return ended

    def _refuse(self, requests: list[str], now_ms: int) -> None:
        """Refuses requests whose accept a dead gateway left open."""
        if not requests:
            return
        known = self._ledger.asked(requests)
        asked = [
            (request, [(task, region) for task, _, region in tasks or ()])
            for request, tasks in zip(requests, known, strict=True)
        ]
        refused = self._ledger.refuse_all(asked, lapsed_only=True)
        ended = [one for one, is_refused in zip(asked, refused, strict=True) if is_refused and one[1]]
        for request, tasks in ended:
            self._cleaner.cancel(request, tasks, now_ms + self._deadline_max_ms, self._deadline_max_ms)
        if ended:
            shown = [request for request, _ in ended[:SHOWN_MAX]]
            log.info("lapsed accepts refused", requests=len(ended), first=shown)

    def _expire(self, client: redis.Redis, due: list[str], now: int) -> int:
        by_request: dict[str, set[str]] = {}
        for member in due:
            request, task = names.task_of_due(member)
            by_request.setdefault(request, set()).add(task)
        settlements: list[Settlement] = []
        gone: list[str] = []
        for (request, tasks), known in zip(by_request.items(), self._ledger.asked(list(by_request)), strict=True):
            if known is None:
                gone += [names.due_member(request, task) for task in tasks]
                continue
            settlements += [
                self._expired(request, task, source, region, now) for task, source, region in known if task in tasks
            ]
        if gone:
            self._forget(client, gone)
        answers = self._ledger.settle(settlements) if settlements else []
        ended = [one.request for one, answer in zip(settlements, answers, strict=True) if answer]
        if ended:
            self._news(set(ended))
        return len(ended)

    def _expired(self, request: str, task: str, source: str, region: str, now: int) -> Settlement:
        error = Expired("no result came by the deadline")
        frame = frame_made(task, source, region, "expired", error)
        return Settlement(
            request=request,
            task=task,
            region=region,
            status="expired",
            finished_ms=now,
            size_bytes=len(frame),
            frame=frame,
            source=source,
            origin=error.whose,
        )

    def _forget_parts(self, client: redis.Redis) -> None:
        """Deletes the status of bridges and pools that are gone: each has a new name after a start."""
        for state in self._ledger.regions(list(self._regions)):
            long_ago = state.now_ms - FORGET_PART_MS
            gone = [part for part, status in parts_of(state.reported) if status.get("at_ms", state.now_ms) < long_ago]
            if gone:
                client.hdel(names.region_status(state.name), *gone)

    def _forget(self, client: redis.Redis, members: list[str]) -> None:
        """Deletes what still points to tasks whose ledger has expired."""
        pipeline = client.pipeline(transaction=False)
        for key in (names.DUE, *map(names.open_tasks, list(self._regions))):
            pipeline.zrem(key, *members)
        pipeline.execute()
