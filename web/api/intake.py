"""Takes requests: ``POST /v1/requests``, and ``GET /v1/sources/{source}/records`` for one source, synchronously.

handler's thread   read, validate, park, Acceptor.submit
accept's thread    503; or 202 if the client does not wait and no task has ended; or a waiter of web.api.wait
waiters' thread    200 with the results, or 202 when the wait ran out: nothing is discarded
tables' thread     200 with records as CSV or NDJSON, a thread of its own since all other answers would wait for a large table
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
from msgspec import structs

from jobs import contract, result_frame
from jobs.errors import Internal
from regions import logs
from web.api import pieces, repeat, rows, submit, views
from web.api.long_poll import Awaited, Wait
from web.api.query import Query, preferred_wait
from web.api.repeat import Repeats
from web.api.wait import Waiters, park
from web.flow.accept import Accepted, Acceptor, Decided, Refused
from web.flow.keyring import Keyring
from web.http import problems, trace
from web.http.answer import Answer
from web.http.exchange import Exchange, Head
from web.http.owner import Owner
from web.http.problems import Problem
from web.http.server import BodyTooLarge, read_body
from web.hub.new_request import Limited, New
from web.hub.redis import HubUnavailable
from web.hub.view import START, View

RECORDS_WAIT_SECONDS: Final = 30.0

log = logs.get("intake")


class Intake:
    """Both ways to make a request. ``base`` is the beginning of all links."""

    def __init__(
        self,
        rules: submit.Rules,
        acceptor: Acceptor,
        waiters: Waiters,
        repeats: Repeats,
        keyring: Keyring,
        base: str,
    ) -> None:
        self.keyring = keyring
        self.rules, self.acceptor, self.waiters, self.repeats, self.base = rules, acceptor, waiters, repeats, base
        self.answer_bytes_max = rules.limits.answer_bytes_max
        self.tables = ThreadPoolExecutor(1, "tables")

    def post(self, exchange: Exchange) -> Answer | None:
        """``POST /v1/requests``: any number of sources. With one source and ``Prefer: wait`` the answer comes at its end."""
        seconds = self.check_head(exchange)
        body = self._body(exchange)
        new = submit.validate(body, self.rules, sync=seconds > 0)
        if key := repeat.check(exchange):
            new = structs.replace(new, repeatable=repeat.repeatable(exchange.owner.tenant, key, body))
        _Arrival(self, exchange, new, seconds if new.sync else 0.0).submit()
        return None

    def check_head(self, head: Head) -> float:
        """Returns for how many seconds a ``POST /v1/requests`` waits. Raises ``Problem`` if it is refused whatever its body is."""
        if not submit.is_json_type(head.header("Content-Type")):
            found = head.header("Content-Type") or "none"
            raise Problem("not-json-type", f"expected application/json, found {found[:60]}")
        charset = submit.charset_of(head.header("Content-Type"))
        if charset not in ("", "utf-8", "us-ascii"):
            raise Problem("not-json-type", f"expected JSON in UTF-8, found charset={charset[:60]}")
        coding = head.header("Content-Encoding")
        if coding.strip().lower() not in ("", "identity"):
            raise Problem("not-json-type", f"expected a body without Content-Encoding, found {coding[:60]}")
        repeat.check(head)
        return min(preferred_wait(head.header("Prefer")), self.rules.limits.wait_max_seconds)

    def records(self, exchange: Exchange, source: str) -> Answer | None:
        """``GET …/records``: one source's result or only its records, as Accept says. If the task failed, a problem document.

        HEAD checks the call and fetches nothing.
        """
        query = Query(exchange, None)
        seconds = query.seconds("wait", RECORDS_WAIT_SECONDS, self.rules.limits.wait_max_seconds)
        new = submit.from_query(source, query.pairs, self.rules, query.faults)
        form = rows.negotiate(exchange.header("Accept"))
        if form is None:
            raise problems.not_acceptable(rows.FORMS, exchange.header("Accept"))
        if exchange.method == "HEAD":  # its method is safe, and its client wants no records
            return Answer(200, b"", [("Content-Type", rows.CONTENT_TYPES[form]), *_caching(new, exchange.owner)])
        _RecordsArrival(self, exchange, new, seconds, form, self._columns(source) if form == rows.CSV else []).submit()
        return None

    def stop(self) -> None:
        """Clients that still wait for a table get none."""
        self.tables.shutdown(wait=False, cancel_futures=True)

    def _columns(self, source: str) -> list[str]:
        """The names of a record's fields in the definition's order, as far as the definition has them."""
        entry = self.rules.catalog.get(source)
        return list(entry.definition.schema()["properties"]) if entry and entry.definition else []

    def _body(self, exchange: Exchange) -> bytes:
        try:
            return read_body(exchange)
        except BodyTooLarge:
            most = self.rules.limits.body_bytes_max
            raise Problem("too-large", f"expected a body of {most} bytes at most, found more") from None


class _Arrival:
    """A posted request from its acceptance to its answer. The exchange is parked, and answered once by one of these methods.

    ``seconds``: how long the client waits for the end of the request, 0 if it does not wait.
    """

    __slots__ = ("_exchange", "_how", "_intake", "_new", "_seconds")

    def __init__(self, intake: Intake, exchange: Exchange, new: New, seconds: float) -> None:
        self._intake, self._exchange, self._seconds = intake, exchange, seconds
        owner, limits = exchange.owner, intake.keyring.limits(exchange.owner.key)
        if refused := [task.source for task in new.tasks if not limits.permits(task.source)]:
            raise Problem(
                "forbidden", f"expected sources that the key may ask ({', '.join(limits.sources)}), found {refused[0]}"
            )
        if seconds:
            intake.keyring.check_room(owner)
        if owner.key:
            new = structs.replace(new, tenant=owner.tenant, key=owner.key, limits=limits)
        if traceparent := trace.read(exchange.header(trace.HEADER)):
            new = structs.replace(new, traceparent=traceparent)
        self._new = new
        self._how: Accepted  # once it is accepted

    def submit(self) -> None:
        """Parks the exchange and hands the request over."""
        _note(self._exchange, self._new)
        self._exchange.park()
        if self._new.sync:
            self._intake.waiters.expect(self._new.id)
        self._intake.acceptor.submit(self._new, self._decided)

    def _decided(self, how: Decided) -> None:
        """The accept's outcome, on any thread; a repeated one on the handler's."""
        try:
            self._tell(how)
        except Exception:
            self._exchange.answer(problems.internal().answer())  # it would wait for ever
            raise

    def _tell(self, how: Decided) -> None:
        if not isinstance(how, Accepted) or how.reused or self._seconds <= 0:
            self._intake.waiters.expect_no_more(self._new.id)
        if isinstance(how, Accepted):
            self._accepted(how)
        elif isinstance(how, Refused):
            self._refused(how)
        elif isinstance(how, Limited):
            self._exchange.answer(problems.limited(how.limit, how.value, how.after_ms / 1000).answer())
        else:
            self._intake.repeats.answer(self._exchange, self._new, self._seconds, how)

    def _refused(self, how: Refused) -> None:
        self._exchange.answer(problems.unavailable(how.reason, self._new.id).answer())

    def _accepted(self, how: Accepted) -> None:
        self._how = how
        if how.reused:
            self._exchange.note(cached=how.reused)
        if self._seconds <= 0 and not how.reused:
            answer = self._promised(None)
            if answer is not None:
                self._exchange.answer(answer)
            return
        awaited = Awaited(
            request=self._new.id,
            seconds=self._seconds,
            until_done=self._new.sync,  # otherwise it waits for nothing: it only reads the results that are there
            total=len(self._new.tasks),
            needs_written=not self._new.sync,  # a 200 is all that its client gets
        )
        waiter = Wait(self._exchange, awaited, self._waited, self._away)
        park(self._intake.waiters, waiter, self._exchange)

    def _away(self, _: HubUnavailable) -> Answer | None:
        """The answer at the end of the wait if the hub can't be asked."""
        return self._promised(None)

    def _waited(self, view: View | None) -> Answer | None:
        """The answer at the end of the wait; None when another thread gives it."""
        if view is not None and view.done and self._new.sync:
            return self._ended(view)
        if view is None or not view.more:
            return self._promised(view)
        base, most = self._intake.base, self._intake.answer_bytes_max
        head = Answer(202, b"", views.accepted_headers(view, base))
        pieces.answer(self._intake.waiters, self._exchange, view, START, base=base, bytes_max=most, head=head)
        return None

    def _promised(self, view: View | None) -> Answer | None:
        """202 if it is known that the request is kept; otherwise the accept's thread answers when it is known."""
        how = self._how
        answer = views.accepted(view or views.first_view(self._new, how.times), self._intake.base)
        if how.kept.is_known and how.kept.reason is None:
            return answer
        self._intake.acceptor.promise(how, functools.partial(self._answer_promise, answer))
        return None

    def _answer_promise(self, answer: Answer, how: Decided) -> None:
        if isinstance(how, Refused):
            self._refused(how)
        else:
            self._exchange.answer(answer)

    def _ended(self, view: View) -> Answer | None:
        """200 with the finished request."""
        return views.finished(view, self._intake.base, self._seconds)


class _RecordsArrival(_Arrival):
    """One source, asked for synchronously; ``form`` is one of ``rows.FORMS``, ``columns`` are those of CSV."""

    __slots__ = ("_columns", "_form")

    def __init__(
        self, intake: Intake, exchange: Exchange, new: New, seconds: float, form: str, columns: Sequence[str]
    ) -> None:
        super().__init__(intake, exchange, new, seconds)
        self._form, self._columns = form, columns

    def _ended(self, view: View) -> Answer | None:
        """200 with the result, or a problem document. None for CSV and NDJSON, which the tables' thread makes."""
        result = view.results[0]
        head = result_frame.head_of(result)
        error = head.error
        if view.status != "succeeded" and error is None:  # a region may send anything
            error = contract.Error.of(Internal("the region did not say why the task failed"))
        if error is not None:  # also of a success whose result can't be read
            return problems.failed_task(result, msgspec.to_builtins(error))
        headers = _caching(self._new, self._exchange.owner)
        if self._new.max_age:  # otherwise it was fetched just now
            headers.append(("Age", str(int(head.age))))
        if self._form == rows.JSON:
            return Answer(200, result, [views.JSON, *headers])
        if over := self._exchange.borrow(len(result)):
            return problems.crowded(over).answer()
        link = ("Link", f'<{views.link(self._intake.base, view.id)}>; rel="describedby"')
        self._intake.tables.submit(_answer_table, self._exchange, self._form, self._columns, result, [*headers, link])
        return None


def _caching(new: New, owner: Owner) -> list[tuple[str, str]]:
    """How long caches may keep records, and what else they depend on. Records behind a key are not for caches that clients share."""
    private = "private, " if owner.key else ""
    return [("Cache-Control", f"{private}max-age={int(new.max_age)}"), ("Vary", "Accept")]


def _answer_table(
    exchange: Exchange, form: str, columns: Sequence[str], result: bytes, headers: Sequence[tuple[str, str]]
) -> None:
    """Answers with only the records of a result; headers carry what else a reader has to know."""
    if exchange.is_gone:
        exchange.give_back(len(result))
        return
    try:
        outcome, records = result_frame.head_of(result), rows.records_of(result)
        body = rows.csv(records, columns) if form == rows.CSV else rows.ndjson(records)
        described = [
            ("Content-Type", rows.CONTENT_TYPES[form]),
            ("Nearfetch-Count", str(outcome.count)),
            ("Nearfetch-Partial", "true" if outcome.partial else "false"),
            ("Nearfetch-Warnings", str(len(outcome.warnings))),
        ]
        answer = Answer(200, body, [*described, *headers])
    except Problem as problem:
        answer = problem.answer()
    except Exception:
        log.exception("making a table failed", request=exchange.request, form=form)
        answer = problems.internal().answer()
    exchange.give_back(len(result))
    exchange.answer(answer)


def _note(exchange: Exchange, new: New) -> None:
    """Puts the request's ids, sources and regions into the log line."""
    sources = sorted({task.source for task in new.tasks})
    regions = sorted({task.region for task in new.tasks})
    exchange.request = new.id
    if len(new.tasks) == 1:
        exchange.note(asked=1, task=new.tasks[0].id, source=sources[0], region=regions[0])
    else:
        exchange.note(asked=len(new.tasks), tasks=[task.id for task in new.tasks], sources=sources, regions=regions)
