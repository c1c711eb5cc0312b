"""The waiting half of a gateway on a real Redis: polls, waiters and streams, without a broker and without sources."""

import threading
from pathlib import Path

import pytest

from regions import connect
from tests.service import hub_parts
from tests.waiting import until
from web.api import views
from web.api.long_poll import Awaited, Wait
from web.api.poll import Poller
from web.api.recall import Recall
from web.api.wait import Waiters, park
from web.app import App
from web.flow.clean import Cleaner
from web.flow.history import History
from web.flow.listen import Listener
from web.flow.publish import Publisher
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.server import Server
from web.hub.ledger import Ledger
from web.hub.new_request import New, Times
from web.hub.redis import Hub


class WaitingGateway:
    """``add`` makes an accepted request, ``settle`` ends a task of it as a region's result would."""

    def __init__(self, tmp_path: Path, redis_url: str, *, listens: bool = True, **environ: str) -> None:
        settings = hub_parts.settings(tmp_path, redis=redis_url, **environ)
        limits = settings.limits
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connect, "TIMEOUT_SECONDS", 10.0)  # a hub that is busy for a moment is none that is away
            self.hub = Hub(settings)
        self.ledger = Ledger(self.hub.client, limits)
        self.waiters = Waiters(self.hub, self.ledger)
        self.hub.regained.append(self.waiters.all)
        self.listener = Listener(settings, self.waiters.news, self.waiters.all) if listens else None
        poller = Poller(
            self.hub,
            self.ledger,
            self.waiters,
            Cleaner(self.hub, self.ledger, Publisher(settings)),
            Recall(History(settings), self.ledger, "", limits.result_ttl_seconds),
            "",
            lambda _: None,
            wait_max_seconds=limits.wait_max_seconds,
        )
        app = App(
            [
                ("GET", "/v1/requests/<request>", poller.get),
                ("GET", "/v1/requests/<request>/events", poller.events),
                ("DELETE", "/v1/requests/<request>", poller.delete),
                ("GET", "/call/<request>", self._call),
                ("GET", "/healthz", lambda _: Answer(200, b'{"status":"ok"}', [views.JSON])),
                ("GET", "/broken", lambda _: 1 / 0),
            ],
            {"127.0.0.1"},
        )
        self.server = Server("127.0.0.1", 0, app, 8, app.body_bytes_max)
        self.server.prepare()
        self.port = self.server.bind_addr[1]
        self.serving = threading.Thread(target=self.server.serve)
        self.server.outlet.start()
        self.hub.start()
        self.waiters.start()
        if self.listener is not None:
            self.listener.start()
        self.serving.start()

    def stop(self) -> None:
        self.server.outlet.is_closing = True
        self.waiters.close()
        self.server.stop()
        self.serving.join()
        self.waiters.stop()
        if self.listener is not None:
            self.listener.stop()
        self.hub.stop()
        self.server.outlet.stop()

    def add(self, tasks: int = 1) -> tuple[New, Times]:
        new = hub_parts.new_request(("fra",) * tasks)
        times = self.ledger.begin(new)
        assert self.ledger.accept([new.id])[0] == [True]
        return new, times

    def settle(self, new: New, index: int, records: bytes = b'[{"a":1}]', *, status: str = "succeeded") -> str:
        return hub_parts.settle(self.ledger, self.hub.client, new, index, records, status=status)

    def _call(self, exchange: Exchange, request: str) -> None:
        """Waits as a synchronous call does after its accept."""
        exchange.park()
        awaited = Awaited(request=request, seconds=60, until_done=True, total=1, needs_written=False)
        wait = Wait(exchange, awaited, lambda _: Answer(200, b"called"), lambda _: Answer(503))
        park(self.waiters, wait, exchange)

    def has_waiters(self, count: int) -> None:
        until(lambda: len(self.waiters) == count, f"{count} waiters")
