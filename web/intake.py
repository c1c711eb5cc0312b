"""Taking requests: ``POST /v1/requests``, and ``GET /v1/sources/{source}/records`` for one source, synchronously.

handler's thread   read, validate, park, Acceptor.submit
accept's thread    503, or 202 where nobody waits, or a waiter of web.wait
waiters' thread    200 with what came, or 202 when the wait ran out: nothing is discarded
"""

from collections.abc import Callable
from typing import Final

import msgspec

from jobs import contract
from web import problems, submit, views
from web.accept import Accepted, Acceptor, Refused
from web.exchange import Answer, Exchange
from web.ledger import START, New, View
from web.poll import query_of
from web.problems import Problem
from web.server import BodyBroken, BodyTooLarge, read_body
from web.wait import Wait, Waiters, park

RECORDS_WAIT_SECONDS: Final = 30.0


class Intake:
    """The two ways in. ``base`` is what links begin with."""

    def __init__(self, rules: submit.Rules, acceptor: Acceptor, waiters: Waiters, base: str) -> None:
        self._rules, self._acceptor, self._waiters = rules, acceptor, waiters
        self._limits, self._base = rules.limits, base

    def post(self, exchange: Exchange) -> Answer | None:
        """A request for any number of sources; with one and ``Prefer: wait`` its end is waited for."""
        if not submit.is_json_type(exchange.header("Content-Type")):
            found = exchange.header("Content-Type") or "none"
            raise Problem("not-json-type", f"expected application/json, found {found[:60]}")
        wait = submit.prefer_wait(exchange.header("Prefer"))
        seconds = 0.0 if wait is None else views.seconds("Prefer: wait", wait, self._limits.wait_max_seconds)
        new = submit.validate(self._body(exchange), self._rules, sync=seconds > 0)

        def finished(view: View) -> Answer:
            applied = ("Preference-Applied", f"wait={seconds:g}")
            return Answer(
                200, views.request_body(view, self._base), [views.JSON, applied, ("Cache-Control", "no-store")]
            )

        self._submit(exchange, new, seconds if new.sync else 0.0, finished)
        return None

    def records(self, exchange: Exchange, source: str) -> Answer | None:
        """One source's result, or a problem document that carries it."""
        pairs = query_of(exchange)
        wait = dict(pairs).get("wait")
        seconds = RECORDS_WAIT_SECONDS if wait is None else views.seconds("wait", wait, self._limits.wait_max_seconds)
        new = submit.from_query(source, pairs, self._rules)
        self._submit(exchange, new, seconds, _records)
        return None

    def _body(self, exchange: Exchange) -> bytes:
        most = self._limits.body_bytes_max
        try:
            return read_body(exchange, most)
        except BodyTooLarge:
            raise Problem("too-large", f"expected a body of {most} bytes at most, found more") from None
        except BodyBroken as error:
            raise Problem("bad-request", f"the body is not whole: {error}") from error

    def _submit(self, exchange: Exchange, new: New, seconds: float, finished: Callable[[View], Answer]) -> None:
        """Parks the exchange and hands the request over; ``finished`` makes the answer of its end."""
        _note(exchange, new)
        exchange.park()

        def done(how: Accepted | Refused) -> None:
            if isinstance(how, Refused):
                exchange.answer(problems.unavailable(how.reason, new.id).answer())
                return
            promised = views.accepted(views.first_view(new, how.times), self._base)
            if seconds <= 0:
                exchange.answer(promised)
                return

            def render(view: View | None) -> Answer:
                if view is None:
                    return promised
                return finished(view) if view.done else views.accepted(view, self._base)

            waiter = Wait(
                exchange,
                new.id,
                after=START,
                until_done=True,
                seconds=seconds,
                render=render,
                away=lambda _: promised,
                total=len(new.tasks),
            )
            park(self._waiters, waiter, exchange)

        self._acceptor.submit(new, done)


def _records(view: View) -> Answer:
    """The one result of a request that is done."""
    result = view.results[0]
    outcome = msgspec.json.decode(result, type=contract.Result)  # without its records, which stay bytes
    if outcome.error is not None:
        return problems.failed_task(result, msgspec.to_builtins(outcome.error))
    return Answer(200, result, [views.JSON, ("Cache-Control", "max-age=0"), ("Vary", "Accept")])


def _note(exchange: Exchange, new: New) -> None:
    """What the log line says of it."""
    sources = sorted({task.source for task in new.tasks})
    regions = sorted({task.region for task in new.tasks})
    exchange.fields["request"] = new.id
    if len(new.tasks) == 1:
        exchange.fields.update(task=new.tasks[0].id, source=sources[0], region=regions[0])
    else:
        exchange.fields.update(tasks=[task.id for task in new.tasks], sources=sources, regions=regions)
