"""Whether the gateway is alive (``/healthz``), and whether it can take requests (``/readyz``)."""

import msgspec

from web.api.views import JSON
from web.flow.clean import Cleaner
from web.flow.history import History
from web.flow.publish import Publisher
from web.http import problems
from web.http.exchange import Answer
from web.hub.redis import Hub


class Health:
    """Answers from what is already known: neither probe asks another server."""

    def __init__(self, hub: Hub, publisher: Publisher, cleaner: Cleaner, history: History) -> None:
        self._hub, self._publisher, self._cleaner, self._history = hub, publisher, cleaner, history

    def live(self) -> Answer:
        """200 while the process serves."""
        return Answer(200, b'{"status":"ok"}', [JSON, ("Cache-Control", "no-store")])

    def ready(self) -> Answer:
        """200 when requests can be taken, also without the history; otherwise 503 with every reason."""
        reasons = [reason for reason in (self._hub.state, self._publisher.unavailable, self._cleaner.full) if reason]
        if reasons:
            raise problems.unavailable("; ".join(reasons))
        body = msgspec.json.encode({"status": "ready", "history": self._history.state})
        return Answer(200, body, [JSON, ("Cache-Control", "no-store")])
