"""Whether the gateway is alive (``/healthz``), and whether it can take requests (``/readyz``)."""

from collections.abc import Callable, Iterable

import msgspec

from web.api.views import JSON
from web.flow.clean import Cleaner
from web.flow.history import History
from web.flow.publish import Publisher
from web.http import problems
from web.http.answer import Answer
from web.hub.faults import Fault
from web.hub.redis import Hub


class Health:
    """Answers from what is already known: neither probe asks another server."""

    def __init__(
        self, hub: Hub, publisher: Publisher, cleaner: Cleaner, history: History, faults: Callable[[], Iterable[Fault]]
    ) -> None:
        self._hub, self._publisher, self._cleaner, self._history = hub, publisher, cleaner, history
        self._faults = faults

    def live(self) -> Answer:
        """200 while the process serves."""
        return Answer(200, b'{"status":"ok"}', [JSON, ("Cache-Control", "no-store")])

    def ready(self) -> Answer:
        """200 when requests can be taken, also without the history; otherwise 503 with every reason.

        Either has the names of the faults that should wake somebody (``faults``) and of those that can wait
        (``tickets``), but no more about them, since the caller may have no key.
        """
        now = self._faults()
        faults, tickets = (sorted({fault.name for fault in now if fault.severity == how}) for how in ("page", "ticket"))
        reasons = [reason for reason in (self._hub.state, self._publisher.state, self._cleaner.full) if reason]
        if reasons:
            raise problems.unavailable("; ".join(reasons), faults=faults, tickets=tickets)
        told = {"status": "ready", "history": self._history.state, "faults": faults, "tickets": tickets}
        body = msgspec.json.encode(told)
        return Answer(200, body, [JSON, ("Cache-Control", "no-store")])
