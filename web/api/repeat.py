"""Posts with an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07): the second one gets the answer of the first.

begin (web.hub.ledger) ─ the key is new ─ accepted: it is remembered; refused: it is free again
                       └ Repeated ─┬─ another body: 422
                                   ├─ the first one is not accepted yet: 409
                                   └─ accepted: its 202, or, for one that waits, its result
"""

import re
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import Final

from msgspec import structs

from web.api import views
from web.api.long_poll import Awaited, Wait
from web.api.recall import Recall
from web.api.wait import Waiters, park
from web.flow.clean import Cleaner
from web.http import problems
from web.http.answer import Answer
from web.http.exchange import Exchange, Head
from web.http.problems import Problem
from web.hub.ledger import Ledger
from web.hub.new_request import New, Repeatable, Repeated
from web.hub.redis import Hub, HubUnavailable
from web.hub.view import START, View

HEADER: Final = "Idempotency-Key"
KEY: Final = re.compile(r'"([\x20-\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})', re.ASCII)
REPLAYED: Final = ("Idempotency-Replayed", "true")


def check(head: Head) -> str:
    """The key of a post, "" if there is none. Raises ``Problem`` (400) if it can't be one."""
    text = head.header(HEADER)
    found = KEY.fullmatch(text)
    if text and found is None:
        raise Problem("bad-request", f"{HEADER}: expected 1 to 255 printable characters, found {text[:60]!r}")
    return (found[1] or found[2]) if found else ""


def repeatable(tenant: str, key: str, body: bytes) -> Repeatable:
    """What the hub remembers of a tenant's key and the body that came with it."""
    return Repeatable(
        blake2b(f"{tenant} {key}".encode(), digest_size=16).hexdigest(), blake2b(body, digest_size=16).hexdigest()
    )


class Repeats:
    """Answers posts whose key has made a request before. ``base`` is the beginning of all links."""

    def __init__(self, hub: Hub, ledger: Ledger, waiters: Waiters, cleaner: Cleaner, recall: Recall, base: str) -> None:
        self._hub, self._ledger, self._waiters, self._cleaner = hub, ledger, waiters, cleaner
        self._recall, self._base = recall, base

    def answer(self, exchange: Exchange, new: New, seconds: float, found: Repeated) -> None:
        """Answers the parked exchange of ``new``, which waits for ``seconds``; may be called on the handler's thread alone."""
        exchange.note(repeats=found.request)
        try:
            answer = self._answer(exchange, new, seconds, found)
        except Problem as problem:
            answer = problem.answer()
        except HubUnavailable as error:
            answer = problems.unavailable(error.reason).answer()
        if answer is not None:
            exchange.answer(answer)

    def _answer(self, exchange: Exchange, new: New, seconds: float, found: Repeated) -> Answer | None:
        if new.repeatable is None or new.repeatable.digest != found.digest:
            raise Problem("key-reused", f"expected the body that came with this {HEADER} before, found another one")
        with self._hub.asking():
            is_true = self._ledger.may_repeat(found.request)
            view = self._ledger.read(found.request) if is_true else None
        if is_true is False or self._cleaner.is_refused(found.request):
            raise Problem(
                "in-flight",
                f"request {found.request}, which came with this {HEADER}, is being accepted; ask again",
                headers=[("Retry-After", "1")],
            )
        if view is None:  # it has left Redis
            return self._recall.instead(exchange, found.request, partial(self._ended, seconds))
        if not new.sync:
            return _replayed(views.accepted(_as_promised(view), self._base))
        awaited = Awaited(request=found.request, seconds=seconds, until_done=True, total=view.total)
        waiter = Wait(exchange, awaited, partial(self._waited, exchange, found.request, seconds), _away)
        park(self._waiters, waiter, exchange)
        return None

    def _waited(self, exchange: Exchange, request: str, seconds: float, view: View | None) -> Answer | None:
        """The answer for a client that waits, at the end of the request or of its time."""
        if view is None:
            return self._recall.instead(exchange, request, partial(self._ended, seconds))
        return self._ended(seconds, view) if view.done else _replayed(views.accepted(_as_promised(view), self._base))

    def _ended(self, seconds: float, view: View) -> Answer:
        if not seconds or view.total != 1:
            return _replayed(views.accepted(_as_promised(view), self._base))
        return _replayed(views.finished(view, self._base, seconds))


def _as_promised(view: View) -> View:
    """The request as its 202 showed it: no task had ended."""
    tasks = [structs.replace(task, status="queued") for task in view.tasks]
    return structs.replace(
        view,
        completed=0,
        succeeded=0,
        cancelled=0,
        tasks=tasks,
        results=[],
        cursors=[],
        cursor=START,
        more=False,
        last="",
        made={},
        webhook=None if view.webhook is None else views.pending(view.webhook.url),
    )


def _replayed(answer: Answer) -> Answer:
    return replace(answer, headers=[*answer.headers, REPLAYED])


def _away(error: HubUnavailable) -> Answer:
    return problems.unavailable(error.reason).answer()
