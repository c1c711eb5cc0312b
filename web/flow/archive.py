"""Moves finished requests from the hub's Redis to the history.

settle ── the last task of a request: nf:archive ── run_once: lease, read, put, forget

A request leaves ``nf:archive`` only after MongoDB has it. If a gateway leases a request and does not finish it, any other
gateway takes it after the lease. So each request is put at least once, through outages of both servers, until its results
expire at the hub. A request that was refused after all is removed again: its accept had got through, although its client
was answered 503.
"""

import time
from collections.abc import Collection, Sequence
from typing import Final

import redis
from msgspec import structs

from regions import durability, logs, names
from regions.loop import Loop
from regions.script import send, value
from web.flow.history import History, HistoryAway
from web.flow.kept import is_written
from web.hub import scripts
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.view import START, View

EVERY_SECONDS: Final = 0.5
CALM_SECONDS: Final = 2.0  # the same after a look that found nothing
LEASE_MS: Final = 30_000  # longer than one batch can take
AGAIN_MS: Final = 1_000  # until a request that is not accepted yet is looked at again
BATCH: Final = 200
PING_SECONDS: Final = 3.0
READ_AT_ONCE: Final = 20  # requests whose results are in memory together, until their mean size is known
READ_BYTES: Final = 8_000_000  # of results read at once, since the hub answers nobody while it reads them

log = logs.get("history")


class Archiver:
    """The archiving thread of a gateway. Without a history it does nothing."""

    def __init__(self, hub: Hub, ledger: Ledger, history: History) -> None:
        self._hub, self._ledger, self._history = hub, ledger, history
        self._at_once = READ_AT_ONCE
        self._asked = 0.0  # when MongoDB was last asked something
        self._loop = Loop("archive", self._turn)

    def start(self) -> None:
        """Starts the thread."""
        if self._history.is_on:
            self._loop.start(EVERY_SECONDS)

    def stop(self) -> None:
        """Ends the thread after the batch at hand."""
        self._loop.stop()
        self._history.close()

    def _turn(self) -> float:
        """Archives all finished requests; each failure in a row makes the next turn later."""
        try:
            taken = self.run_once()
            while taken == BATCH and not self._loop.stopping.is_set():
                taken = self.run_once()
        except (HubUnavailable, redis.exceptions.RedisError) as error:
            log.debug("not archived", error=str(error))
        except Exception:
            log.exception("archiving failed")
        else:
            self._loop.failures = 0
            return EVERY_SECONDS if taken else CALM_SECONDS
        return self._loop.backoff_seconds()

    def run_once(self) -> int:
        """Archives one batch; returns how many requests it took."""
        with self._hub.asking() as client:
            command = scripts.LEASE.command(archive=names.ARCHIVE, lease_ms=LEASE_MS, most=BATCH)
            leased, info = send(client, [command, durability.LOOK], [scripts.LEASE])
        requests = [request.decode() for request in value(leased)]
        if requests and not is_written(self._hub, durability.file_of(value(info)), self._loop.stopping):
            self._give_back(requests)
            return 0
        if requests:
            self._asked = time.monotonic()
        elif time.monotonic() - self._asked >= PING_SECONDS:
            self._history.ping()  # so that an outage is known before a client asks
            self._asked = time.monotonic()
        left = requests
        while left:
            share = left[: self._at_once]
            try:
                self._archive(share)
            except HistoryAway:
                self._give_back(left)
                raise
            except (HubUnavailable, redis.exceptions.RedisError):
                raise
            except Exception:
                if len(share) > 1:  # one of them is at fault, and must not keep back the others
                    self._at_once = 1
                    continue
                log.exception("a request can't be archived", request=share[0])  # it comes again after the lease
            left = left[len(share) :]
        return len(requests)

    def _archive(self, requests: list[str]) -> None:
        with self._hub.asking():
            places = [(one, START) for one in requests]
            views, _ = self._ledger.read_many(places, READ_BYTES // len(requests), spliced=False)
            there = [view for view in views if isinstance(view, View)]
            put = {view.id for view in there}
            others = [request for request in requests if request not in put]
            states = dict(zip(others, self._ledger.states(others), strict=True))
        refused = [request for request, state in states.items() if state == "refused"]
        # Their gateway was paused before the accept, and their tasks ended meanwhile. They will soon be accepted or refused.
        # Those that could not be read to their end are looked at again, too.
        undecided = {request for request, state in states.items() if state in ("accepting", "accepted")}
        for request, state in states.items():
            if state is None:
                log.warning("expired before it was archived", request=request)
        if there:
            mean_bytes = sum(len(frame) for view in there for frame in view.results) / len(there)
            self._at_once = max(1, min(BATCH, int(READ_BYTES / (mean_bytes + 1))))
            undecided |= self._put(there)
        if refused:
            self._history.remove(refused)
        if undecided:
            self._give_back(undecided, AGAIN_MS)
        put -= undecided
        decided = [request for request in requests if request not in undecided]
        archived = [scripts.Archived(request, int(request in put), names.ledger(request)) for request in decided]
        with self._hub.asking() as client:
            scripts.ARCHIVED.call(client, archive=names.ARCHIVE, listed=names.LISTED, requests=archived)

    def _put(self, views: Sequence[View]) -> set[str]:
        """Writes requests to the history; returns the ids of those that could not be read to their end."""
        whole: list[View] = []
        size, unread = 0, set()
        for view in views:
            found = self._whole(view) if view.more else view
            if found is None:
                unread.add(view.id)
                continue
            whole.append(found)
            size += sum(map(len, found.results))
            if size > READ_BYTES:
                self._history.put(whole)
                whole, size = [], 0
        if whole:
            self._history.put(whole)
        return unread

    def _whole(self, view: View) -> View | None:
        """A request with all its results, of which the first were read. It reads a piece at a time; None if it is gone."""
        results, cursors = list(view.results), list(view.cursors)
        while view.more:
            with self._hub.asking():
                [found], _ = self._ledger.read_many([(view.id, view.cursor)], READ_BYTES, spliced=False)
            if not isinstance(found, View):
                return None
            view = found
            results += view.results
            cursors += view.cursors
        return structs.replace(view, results=results, cursors=cursors)

    def _give_back(self, requests: Collection[str], wait_ms: int = 0) -> None:
        with self._hub.asking() as client:
            client.zadd(names.ARCHIVE, dict.fromkeys(requests, self._ledger.now_ms() + wait_ms), xx=True)
