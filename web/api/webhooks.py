"""A tenant's webhooks: the list of those whose requests have ended, and one that is to be called again."""

from typing import Any, Final

import msgspec

from web.api import views
from web.api.query import Query
from web.api.recall import Recall
from web.flow.clean import Cleaner
from web.flow.history import PAGE, PAGE_MAX
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.problems import Problem
from web.hub import webhooks
from web.hub.redis import Hub

ENDED: Final = tuple(state for state in webhooks.STATES if state != "pending")
HEADERS: Final = [views.JSON, ("Cache-Control", "no-store")]


class WebhookCalls:
    """``GET /v1/webhooks`` and ``POST /v1/requests/{id}/webhook``. No answer has a secret."""

    def __init__(self, hub: Hub, cleaner: Cleaner, recall: Recall, retry_seconds: float) -> None:
        """``retry_seconds``: for how long a webhook is called."""
        self._hub, self._cleaner, self._recall, self._retry_seconds = hub, cleaner, recall, retry_seconds

    def search(self, exchange: Exchange) -> Answer:
        """The webhooks of requests that have ended, the latest end first."""
        query = Query(exchange, ("state", "cursor", "limit"))
        state, after, limit = query.text("state"), query.cursor("cursor"), query.number("limit", PAGE, PAGE_MAX)
        if state is not None and state not in ENDED:
            query.fault("state", f"one of {', '.join(ENDED)}")
        query.check()
        owner = exchange.owner
        tenant = None if owner.sees_all else owner.tenant
        with self._hub.asking() as client:
            found, cursor = webhooks.page(client, limit, tenant=tenant, state=state, after=after)
        body = msgspec.json.encode({"webhooks": [_document(one) for one in found], "cursor": cursor})
        return Answer(200, body, HEADERS)

    def resend(self, exchange: Exchange, request: str) -> Answer:
        """Has a request's webhook called again, also one that was delivered; one that is due or pending is called anyway."""
        exchange.request = request = request[:60].upper()
        if not views.ID_PATTERN.fullmatch(request) or self._cleaner.is_refused(request):
            raise self._recall.missing(request)
        with self._hub.asking() as client:
            tenant = webhooks.tenant_of(client, request)
            if tenant is not None and exchange.owner.may_see(tenant):
                webhooks.resend(client, request, self._retry_seconds)
                view = webhooks.read(client, request)
                if view is not None:
                    return Answer(200, msgspec.json.encode(view), HEADERS)
        kind = self._recall.missing(request).kind
        raise Problem(kind, f"there is no webhook of a request {request}, or it has been forgotten")


def _document(one: webhooks.Listed) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(one.webhook)
    return {"request": one.request, "ended_at": one.ended_at, **found}
