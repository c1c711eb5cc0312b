"""Taking requests: ``POST /v1/requests``, and ``GET /v1/sources/{source}/records`` for one source, synchronously.

handler's thread   read, validate, park, Acceptor.submit
accept's thread    503, or 202 where nobody waits and nothing has ended, or a waiter of web.api.wait
waiters' thread    200 with what came, or 202 when the wait ran out: nothing is discarded
tables' thread     200 with records as CSV or NDJSON: everybody else would wait while one of them is made
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from jobs import contract
from regions import logs
from web.api import pieces, rows, submit, views
from web.api.wait import Wait, Waiters, park
from web.flow.accept import Accepted, Acceptor, Refused
from web.http import problems
from web.http.exchange import Answer, Exchange
from web.http.problems import Problem
from web.http.server import BodyTooLarge, read_body
from web.hub.ledger import START, New, View

RECORDS_WAIT_SECONDS: Final = 30.0

log = logs.get("intake")


class Intake:
    """The two ways in. ``base`` is what links begin with."""

    def __init__(self, rules: submit.Rules, acceptor: Acceptor, waiters: Waiters, base: str) -> None:
        self._rules, self._acceptor, self._waiters = rules, acceptor, waiters
        self._limits, self._base = rules.limits, base
        self._tables = ThreadPoolExecutor(1, "tables")

    def post(self, exchange: Exchange) -> Answer | None:
        """A request for any number of sources; with one and ``Prefer: wait`` its end is waited for."""
        views.refuse_other_sites(exchange)
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
        """One source's result or only its records, as Accept says, or a problem document that carries the result."""
        views.refuse_other_sites(exchange)
        pairs = views.query_of(exchange)
        wait = dict(pairs).get("wait")
        seconds = RECORDS_WAIT_SECONDS if wait is None else views.seconds("wait", wait, self._limits.wait_max_seconds)
        new = submit.from_query(source, pairs, self._rules)
        form = rows.negotiate(exchange.header("Accept"))
        if form is None:
            raise problems.not_acceptable(rows.FORMS, exchange.header("Accept"))
        columns = self._columns(source) if form == rows.CSV else []
        headers = [("Cache-Control", f"max-age={int(new.max_age)}"), ("Vary", "Accept")]

        def finished(view: View) -> Answer | None:
            result = view.results[0]
            if view.status != "succeeded":
                error = msgspec.json.decode(result, type=contract.Result).error
                return problems.failed_task(result, msgspec.to_builtins(error))
            if new.max_age:  # else it is of now
                headers.append(("Age", str(int(contract.head_of(result).age))))
            if form == rows.JSON:
                return Answer(200, result, [views.JSON, *headers])
            link = ("Link", f'<{views.link(self._base, view.id)}>; rel="describedby"')
            self._tables.submit(_answer_table, exchange, form, columns, result, [*headers, link])
            return None

        self._submit(exchange, new, seconds, finished)
        return None

    def stop(self) -> None:
        """Whoever still waits for a table gets none."""
        self._tables.shutdown(wait=False, cancel_futures=True)

    def _columns(self, source: str) -> list[str]:
        """The names of a record's fields in the definition's order, as far as it tells them."""
        entry = self._rules.catalog.get(source)
        return list(entry.definition.schema()["properties"]) if entry and entry.definition else []

    def _body(self, exchange: Exchange) -> bytes:
        try:
            return read_body(exchange)
        except BodyTooLarge:
            most = self._limits.body_bytes_max
            raise Problem("too-large", f"expected a body of {most} bytes at most, found more") from None

    def _submit(self, exchange: Exchange, new: New, seconds: float, finished: Callable[[View], Answer | None]) -> None:
        """Parks the exchange and hands the request over; ``finished`` answers its end, or gives the answer."""
        _note(exchange, new)
        exchange.park()

        def done(how: Accepted | Refused) -> None:
            if isinstance(how, Refused) or how.reused or seconds <= 0:
                self._waiters.expect_no_more(new.id)
            if isinstance(how, Refused):
                exchange.answer(problems.unavailable(how.reason, new.id).answer())
                return
            if how.reused:
                exchange.fields["cached"] = how.reused

            def promised(view: View | None) -> Answer | None:
                """202 where it is true already; else the accept's thread answers as soon as that is known."""
                answer = views.accepted(view or views.first_view(new, how.times), self._base)
                if how.kept.is_known and how.kept.reason is None:
                    return answer
                self._acceptor.promise(how, functools.partial(_answer_end, exchange, answer))
                return None

            if seconds <= 0 and not how.reused:
                answer = promised(None)
                if answer is not None:
                    exchange.answer(answer)
                return

            def render(view: View | None) -> Answer | None:
                if view is not None and view.done and new.sync:
                    return finished(view)
                if view is None or not view.more:
                    return promised(view)
                head, most = Answer(202, b"", views.accepted_headers(view, self._base)), self._limits.answer_bytes_max
                pieces.answer(self._waiters, exchange, view, START, base=self._base, bytes_max=most, head=head)
                return None

            waiter = Wait(
                exchange,
                new.id,
                after=START,
                until_done=new.sync,  # else for nothing: what has ended already is there
                seconds=seconds,
                render=render,
                away=lambda _: promised(None),
                total=len(new.tasks),
            )
            park(self._waiters, waiter, exchange)

        if new.sync:
            self._waiters.expect(new.id)
        self._acceptor.submit(new, done)


def _answer_end(exchange: Exchange, promised: Answer, how: Accepted | Refused) -> None:
    exchange.answer(problems.unavailable(how.reason, how.new.id).answer() if isinstance(how, Refused) else promised)


def _answer_table(
    exchange: Exchange, form: str, columns: Sequence[str], result: bytes, headers: Sequence[tuple[str, str]]
) -> None:
    """Answers with a result's records alone, and says in headers what else whoever uses them has to know."""
    try:
        outcome, records = msgspec.json.decode(result, type=contract.Result), rows.records_of(result)
        body = rows.csv(records, columns) if form == rows.CSV else rows.ndjson(records)
        told = [
            ("Content-Type", rows.CONTENT_TYPES[form]),
            ("Nearfetch-Count", str(outcome.count)),
            ("Nearfetch-Partial", "true" if outcome.partial else "false"),
            ("Nearfetch-Warnings", str(len(outcome.warnings))),
        ]
        answer = Answer(200, body, [*told, *headers])
    except Exception:
        log.exception("making a table failed", request=exchange.fields.get("request"), form=form)
        answer = problems.internal().answer()
    exchange.answer(answer)


def _note(exchange: Exchange, new: New) -> None:
    """What the log line says of it."""
    sources = sorted({task.source for task in new.tasks})
    regions = sorted({task.region for task in new.tasks})
    exchange.fields["request"] = new.id
    if len(new.tasks) == 1:
        exchange.fields.update(task=new.tasks[0].id, source=sources[0], region=regions[0])
    else:
        exchange.fields.update(tasks=[task.id for task in new.tasks], sources=sources, regions=regions)
