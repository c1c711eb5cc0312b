"""The ledger of requests on the hub: begin, accept or refuse, settle, and read since a cursor.

    begin ─ accepting ─┬─ accept ─ accepted ── settle each task ── done
                       └─ refuse ─ refused     (it can't be read)

Tasks end only here (``settle``). A request's stream is the truth about its results; its entry ids are the cursor. Records are
never decoded: they are spliced into JSON as bytes.
"""

import os
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

import msgspec
import redis

from jobs import contract, result_frame
from regions import connect, durability, logs, names
from regions.script import Script, send, value
from regions.settings import Limits
from web.hub import scripts, takeover, webhooks
from web.hub.new_request import NO_TIMES, Begun, Latest, Limited, New, Repeated, message_of
from web.hub.region import RegionState, read_regions
from web.hub.settlement import Settlement
from web.hub.takeover import Moved
from web.hub.tally import Tally
from web.hub.view import START, TaskView, Unreadable, View, read_view, task_views
from web.hub.webhooks import WebhookView

ACCEPT_LEASE_MS: Final = 10_000
SETTLE_MAX: Final = 100  # tasks in one script, so that it does not hold the hub for long
REPEATABLE_MS: Final = 86_400_000  # how long an Idempotency-Key is remembered; longer if results are kept longer
TAKEN_BACK_MS: Final = scripts.TAKEN_BACK_MS
REHEARSED: Final = "0" * 26  # an id that no request has
PIECE_BYTES: Final = 262_144  # of results read at once for a client
# Of results in one round trip. The hub answers nobody while it reads them, and all are in memory together.
TOGETHER_BYTES: Final = 8_000_000
UNBOUNDED: Final = 2**53
CLAIMS_MAX: Final = 500  # marked by one script
THIS_GATEWAY: Final = f"{socket.gethostname()}:{os.getpid()}"

log = logs.get("ledger")

_asked: Final = msgspec.json.Decoder(list[tuple[str, str, str]])


class Ledger:
    """Reads and changes the ledger. Raises what redis-py raises; ``Hub.asking`` translates it."""

    def __init__(
        self, client: redis.Redis, limits: Limits, *, archives: bool = False, webhook_retry_seconds: float = 86_400.0
    ) -> None:
        """``archives``: notes finished requests for ``web.flow.archive``. A webhook is called for ``webhook_retry_seconds``."""
        self._client, self._limits, self._archives = client, limits, archives
        self._webhook_ms = int(webhook_retry_seconds * 1000) + names.WEBHOOK_KEPT_MS
        self.request_bytes_max, self.answer_bytes_max = limits.request_bytes_max, limits.answer_bytes_max
        self.tally = Tally()  # what this gateway has done
        # Called with tasks that have ended while other regions were asked, too: (request, (task, region) of those, their
        # deadline in hub ms, ms left).
        self.left_out: Callable[[str, list[tuple[str, str]], int, int], None] = lambda *_: None

    def begin(self, new: New) -> Begun | Repeated | Limited:
        """Writes a request as ``accepting``, and reads older results if it accepts them. A full Redis refuses this."""
        limits, repeatable = self._limits, new.repeatable
        tasks = msgspec.json.encode([(task.id, task.source, task.region) for task in new.tasks])
        created, *answer = scripts.BEGIN.call(
            self._client,
            ledger=names.ledger(new.id),
            due=names.DUE,
            accepting=names.ACCEPTING,
            asks=names.ask(new.id),
            repeated=names.idempotency(repeatable.key) if repeatable else "",
            request=new.id,
            lease_ms=ACCEPT_LEASE_MS,
            deadline_ms=new.deadline_ms,
            ttl_ms=int(limits.result_ttl_seconds * 1000),
            grace_ms=int(limits.grace_seconds * 1000),
            tasks_json=tasks,
            attrs_json=new.attrs,
            gateway=THIS_GATEWAY,
            is_fast=int(new.sync),
            max_age_ms=int(new.max_age * 1000),
            answer_bytes_max=min(limits.answer_bytes_max, limits.request_bytes_max),
            digest=repeatable.digest if repeatable else "",
            repeatable_ms=REPEATABLE_MS,
            used=names.used(new.key) if new.key else "",
            listed=names.LISTED,
            tenant=new.tenant,
            rate_max=new.limits.requests_per_second,
            open_max=new.limits.open_tasks,
            bytes_max=new.limits.bytes_kept,
            traceparent=new.traceparent,
            webhook=names.webhook(new.id) if new.webhook else "",
            webhook_url=new.webhook.url if new.webhook else "",
            webhook_secret=new.webhook.secret if new.webhook else "",
            webhook_ms=self._webhook_ms,
            tasks=[
                scripts.Begun(
                    task.id,
                    task.region,
                    names.open_tasks(task.region),
                    names.latest(contract.key_of(task)),
                    takeover.encode(task.moved) if task.moved is not None else b"",
                    contract.encode(message_of(new, task, NO_TIMES)) if task.may_move else b"",
                )
                for task in new.tasks
            ],
        )
        if created < 0:
            limit, most, after_ms = answer
            return Limited(limit.decode(), most.decode(), after_ms)
        if not created:
            return Repeated(*(part.decode() for part in answer))
        deadline, expires, *found = answer
        latest = [
            Latest(new.tasks[number], key.decode(), frame)
            for number, key, frame in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        return Begun(created, deadline, expires, latest)

    def accept(self, requests: Sequence[str], by_ms: Sequence[int] | None = None) -> tuple[list[bool], durability.File]:
        """Returns (for each request whether it is ``accepted`` now, which needs a live lease; the hub's file after that).

        ``by_ms``: before when each has to be accepted (hub ms); None for no such time.
        """
        commands = list(map(_accept, requests, by_ms if by_ms is not None else [UNBOUNDED] * len(requests)))
        *answers, info = send(self._client, [*commands, durability.LOOK], [scripts.ACCEPT])
        return [value(answer) == 1 for answer in answers], durability.file_of(value(info))

    def accepted(self, requests: Sequence[str]) -> tuple[list[bool], durability.File]:
        """Returns (for each request whether it is ``accepted``, which a killed Redis may have forgotten; the hub's file after that)."""
        commands = [("HGET", names.ledger(request), "state") for request in requests]
        *answers, info = send(self._client, [*commands, durability.LOOK], [])
        return [value(answer) == b"accepted" for answer in answers], durability.file_of(value(info))

    def may_repeat(self, request: str) -> bool | None:
        """Whether a request's 202 is true; None if the request is unknown.

        Another gateway may have answered 503 to a request that is accepted, and be about to take it back. So its accept must be
        some time ago.
        """
        fields = ("HMGET", names.ledger(request), "state", "accepted", "by")
        found, now, info = map(value, send(self._client, [fields, ("TIME",), durability.LOOK], []))
        state, accepted_ms, by = found
        if state is None:
            return None
        if state != b"accepted" or not durability.file_of(info).has(None):
            return False
        age_ms = int(now[0]) * 1000 + int(now[1]) // 1000 - int(accepted_ms)
        return age_ms > TAKEN_BACK_MS or by.decode() == THIS_GATEWAY

    def rehearse(self) -> None:
        """Begins, accepts and refuses a request without tasks. Raises Redis's error if the gateway lacks a right."""
        new = New(id=REHEARSED, tasks=[], deadline_ms=0)
        self.begin(new)
        commands = [_accept(new.id, UNBOUNDED), _refuse(new.id, [])]
        for answer in send(self._client, commands, [scripts.ACCEPT, scripts.REFUSE]):
            value(answer)

    def refuse(self, request: str, tasks: Sequence[tuple[str, str]], *, lapsed_only: bool = False) -> bool:
        """Refuses a request as a whole, whatever its tasks' states. ``tasks``: (id, region) of each."""
        return self.refuse_all([(request, tasks)], lapsed_only=lapsed_only)[0]

    def refuse_all(
        self, refused: Sequence[tuple[str, Sequence[tuple[str, str]]]], *, lapsed_only: bool = False
    ) -> list[bool]:
        """Refuses several requests, each with its tasks, in one round trip; returns whether each is refused now."""
        commands = [
            _refuse(request, tasks, lapsed_only=lapsed_only, archives=self._archives) for request, tasks in refused
        ]
        return [value(answer) == 1 for answer in send(self._client, commands, [scripts.REFUSE])]

    def take_back(
        self, refused: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    ) -> tuple[list[bytes | None], durability.File]:
        """Refuses several requests. Returns (the state that each had, None if it was unknown; the hub's file after that)."""
        commands: list[tuple[Any, ...]] = []
        for request, tasks in refused:
            commands += [
                ("HGET", names.ledger(request), "state"),
                _refuse(request, tasks, archives=self._archives),
            ]
        *answers, info = send(self._client, [*commands, durability.LOOK], [scripts.REFUSE])
        for answer in answers:
            value(answer)
        return answers[::2], durability.file_of(value(info))

    def settle(self, settlements: Sequence[Settlement]) -> list[int]:
        """Ends tasks, each once, in one round trip. For each it returns one of SETTLE's answers (``web.hub.scripts``)."""
        return self.settle_and_read(settlements, [])[0]

    def settle_and_read(
        self, settlements: Sequence[Settlement], asked: Collection[str]
    ) -> tuple[list[int], dict[str, View]]:
        """As ``settle``, and reads requests in the same round trip, as ``read`` does for clients that wait.

        Their news are not published: the caller tells these clients, and nobody else knows of a request before its answer, except
        by an Idempotency-Key.
        Returns the answers, and those of the asked requests whose results could be read together.
        """
        by_request: dict[str, list[int]] = {}
        for number, one in enumerate(settlements):
            by_request.setdefault(one.request, []).append(number)
        parts = [of[at : at + SETTLE_MAX] for of in by_request.values() for at in range(0, len(of), SETTLE_MAX)]
        commands = [self._settle([settlements[number] for number in part], asked) for part in parts]
        answers = [scripts.NOTHING] * len(settlements)
        limit, places = min(PIECE_BYTES, self.answer_bytes_max), [(request, START) for request in asked]
        commands += self._reads(scripts.READ, places, limit, "wait")
        replies = send(self._client, commands, [scripts.SETTLE, scripts.READ])
        for part, reply in zip(parts, replies, strict=False):
            if _is_its_own(reply):
                # Only these are not settled; the other requests are.
                log.error(
                    "tasks of a request could not be settled", request=settlements[part[0]].request, error=str(reply)
                )
                continue
            for number, answer in zip(part, value(reply), strict=True):
                answers[number] = answer if isinstance(answer, int) else self._left(settlements[number], answer)
        self.tally.ended(one for one, answer in zip(settlements, answers, strict=True) if answer in scripts.ENDED)
        # What can't be read here is read again for its waiter, and its error logged there.
        found = [reply for reply in zip(places, replies[len(parts) :], strict=True) if isinstance(reply[1], list)]
        views = [read_view(request, after, reply) for (request, after), reply in found]
        return answers, {view.id: view for view in views if view is not None and view.results}

    def _left(self, one: Settlement, answer: bytes) -> int:
        """SETTLE's answer for a task that other regions were asked for, too; they are told to drop it."""
        code, deadline_ms, left_ms, regions = answer.decode().split(" ")
        others = [(one.task, region) for region in regions.split(",")]
        self.left_out(one.request, others, int(deadline_ms), int(left_ms))
        return int(code)

    def ask_elsewhere(
        self, region: str, wanted: Sequence[tuple[str, str, Moved]], *, queued_only: bool, again: bool
    ) -> list[contract.Task]:
        """Notes that other regions are asked, too, for tasks of a region. Returns what asks them.

        ``wanted``: (request, task, how it moves) of each; those that have ended or may not move are left out. ``again``: also
        returns what was noted before.
        """
        rows = [
            scripts.Elsewhere(
                task,
                request,
                moved.to,
                takeover.encode(moved),
                names.ledger(request),
                names.ask(request),
                names.open_tasks(moved.to),
            )
            for request, task, moved in wanted
        ]
        found = scripts.ASK.call(
            self._client, region=region, is_queued_only=int(queued_only), is_again=int(again), tasks=rows
        )
        messages = []
        for (_, _, moved), one in zip(wanted, found, strict=True):
            if one is not None:
                body, created, deadline, expires = one
                messages.append(
                    msgspec.structs.replace(
                        contract.decode_task(body),
                        region=moved.to,
                        accepted_ms=int(created),
                        deadline_ms=int(deadline),
                        expires_ms=int(expires),
                    )
                )
        return messages

    def _settle(self, tasks: Sequence[Settlement], told: Collection[str]) -> tuple[Any, ...]:
        request = tasks[0].request
        return scripts.SETTLE.command(
            ledger=names.ledger(request),
            events=names.events(request),
            due=names.DUE,
            archive=names.ARCHIVE,
            trail=names.trail(request),
            listed=names.LISTED,
            request=request,
            request_bytes_max=self._limits.request_bytes_max,
            archives=int(self._archives),
            head_bytes_max=result_frame.HEAD_BYTES_MAX,
            is_told=int(request in told),
            tasks=map(_settled, tasks),
        )

    def mark_running(self, region: str, claims: Iterable[tuple[str, str, bytes]]) -> None:
        """Marks tasks as running that were queued. ``claims``: (request, task, trail) of each."""
        marks = list(claims)
        commands = []
        for at in range(0, len(marks), CLAIMS_MAX):
            tasks = [
                scripts.Running(task, trail, names.ledger(request), names.trail(request))
                for request, task, trail in marks[at : at + CLAIMS_MAX]
            ]
            commands.append(scripts.RUNNING.command(region=region, tasks=tasks))
        for reply in send(self._client, commands, [scripts.RUNNING]) if commands else ():
            value(reply)

    def listed(self, tenant: str | None) -> list[str]:
        """The members of ``names.LISTED`` of a tenant, None for all; the latest first, by their ids.

        There are about as many as open requests. Some may be accepting, or gone: ``read_many`` has no view of these.
        """
        if tenant is None:
            members: Any = self._client.zrange(names.LISTED, 0, -1)
        else:
            first, end = names.listed_member(tenant, ""), f"{tenant}0"  # "0" follows "/"
            members = self._client.zrangebylex(names.LISTED, f"[{first}", f"({end}")
        return sorted((member.decode() for member in members), key=names.request_of_listed, reverse=True)

    def unlist(self, members: Sequence[str]) -> None:
        """Takes requests off the list that have left Redis without being archived."""
        self._client.zrem(names.LISTED, *members)

    def states(self, requests: Sequence[str]) -> list[str | None]:
        """For each request ``accepting``, ``accepted`` or ``refused``; None if it is unknown."""
        commands = [("HGET", names.ledger(request), "state") for request in requests]
        replies = map(value, send(self._client, commands, []) if commands else [])
        return [None if reply is None else reply.decode() for reply in replies]

    def completed(self, requests: Sequence[str]) -> list[int | None]:
        """For each request how many of its tasks have ended; None if it is unknown, expired or not accepted (yet)."""
        commands = [("HMGET", names.ledger(request), "state", "completed") for request in requests]
        found: list[int | None] = []
        for reply in send(self._client, commands, []):
            state, completed = (b"", b"") if _is_its_own(reply) else value(reply)
            found.append(int(completed) if state == b"accepted" else None)
        return found

    def tasks(self, request: str) -> list[TaskView] | None:
        """A request's tasks, whatever its state; None if it is unknown."""
        fields: Any = self._client.hgetall(names.ledger(request))
        return task_views(fields) if fields else None

    def asked(self, requests: Sequence[str]) -> list[list[tuple[str, str, str]] | None]:
        """(task, source, region) of all tasks of each request, whatever its state; None for an unknown one. One round trip."""
        commands = [("HGET", names.ledger(request), "tasks") for request in requests]
        replies = map(value, send(self._client, commands, []) if commands else [])
        return [None if reply is None else _asked.decode(reply) for reply in replies]

    def were_asked(self, runs: Sequence[tuple[str, str, str, str]]) -> list[bool]:
        """For each (request, task, source, region): whether that region was asked for that task of that source. One round trip.

        That holds for every region that was asked, also after the task's end (``asked.lua``), until the request expires.
        """
        commands = [("HMGET", names.ledger(request), "tasks", f"t:{task}") for request, task, _, _ in runs]
        found = []
        for (_, task, source, region), reply in zip(
            runs, send(self._client, commands, []) if commands else [], strict=True
        ):
            tasks, said = value(reply)
            known = said is not None and any(one[:2] == (task, source) for one in _asked.decode(tasks))
            found.append(known and region in said.decode().replace("|", ",").split(",")[1:])
        return found

    def read(self, request: str, after: str = START, bytes_max: int | None = None, *, how: str = "") -> View | None:
        """A request with its results since a cursor; None if it is unknown, expired, or not accepted (yet).

        ``how``: the way in which a client reads them, noted at the first read of each result; "" notes nothing.
        """
        view = self.read_many([(request, after)], bytes_max, how=how)[0][0]
        if isinstance(view, Unreadable):
            raise view
        return view

    def read_many(
        self,
        asked: Sequence[tuple[str, str]],
        bytes_max: int | None = None,
        *,
        how: str = "",
        spliced: bool = True,
        looks: bool = False,
    ) -> tuple[list[View | Unreadable | None], durability.File]:
        """Reads several (request, cursor) in one round trip. Returns (the views; the hub's file after that, if ``looks``).

        Of each request at most ``bytes_max`` bytes of results are read (``PIECE_BYTES`` by default); ``more`` says that others
        wait. A result that is larger is read if its share of ``TOGETHER_BYTES`` permits it, or if one request alone is asked.
        Otherwise the view has ``more`` and no results. ``how`` as in ``read``; a Redis that takes no writes is read without a
        note. Without ``spliced``, results are the frames as they came, for the history. A hub that is killed forgets what its
        file did not hold. A request that can't be read is ``Unreadable``, and the others are read.
        """
        limit = min(PIECE_BYTES, self.answer_bytes_max) if bytes_max is None else bytes_max
        replies = self._read(asked, limit, how, looks=looks)
        if how and any(isinstance(one, redis.exceptions.ResponseError) and not _is_its_own(one) for one in replies):
            replies = self._read(asked, limit, "", looks=looks)
        file = durability.file_of(value(replies.pop())) if looks else durability.File()
        views: list[View | Unreadable | None] = []
        for (request, after), reply in zip(asked, replies, strict=True):
            if _is_its_own(reply):
                log.error("a request could not be read", request=request, error=str(reply))
                views.append(Unreadable(str(reply)))
                continue
            views.append(read_view(request, after, value(reply), spliced=spliced))
        return views, file

    def _read(self, asked: Sequence[tuple[str, str]], limit: int, how: str, *, looks: bool) -> list[Any]:
        script = scripts.READ if how else scripts.READ_ONLY
        commands = self._reads(script, asked, limit, how)
        if looks:
            commands.append(durability.LOOK)
        return send(self._client, commands, [script])

    def _reads(self, script: Script, asked: Sequence[tuple[str, str]], limit: int, how: str) -> list[tuple[Any, ...]]:
        result_format = names.result("%s", "%s")
        first_max = max(limit, TOGETHER_BYTES // len(asked)) if len(asked) > 1 else UNBOUNDED
        return [
            script.command(
                ledger=names.ledger(one),
                events=names.events(one),
                trail=names.trail(one),
                after=after,
                bytes_max=limit,
                first_max=first_max,
                result_format=result_format,
                how=how,
            )
            for one, after in asked
        ]

    def webhook(self, request: str) -> WebhookView | None:
        """How far a request's webhook is, also after the request has left Redis; None if the hub has none, or none any more."""
        return webhooks.read(self._client, request)

    def have_results(self, places: Sequence[tuple[str, str]]) -> tuple[list[bool], durability.File]:
        """Returns (for each (request, cursor) whether that result is there, which a killed Redis may have lost; the hub's file then)."""
        commands: list[tuple[Any, ...]] = [
            ("XRANGE", names.events(request), cursor, cursor) for request, cursor in places
        ]
        *answers, info = send(self._client, [*commands, durability.LOOK], [])
        return [not _is_its_own(answer) and bool(value(answer)) for answer in answers], durability.file_of(value(info))

    def regions(self, regions: Sequence[str], *, has_traffic: bool = True) -> list[RegionState]:
        """The state of each region, in one round trip."""
        return read_regions(self._client, regions, has_traffic=has_traffic)

    def now_ms(self) -> int:
        """The hub's clock."""
        return connect.redis_now_ms(self._client)


def _accept(request: str, by_ms: int) -> tuple[Any, ...]:
    return scripts.ACCEPT.command(ledger=names.ledger(request), accepting=names.ACCEPTING, request=request, by_ms=by_ms)


def _refuse(
    request: str, tasks: Sequence[tuple[str, str]], *, lapsed_only: bool = False, archives: bool = False
) -> tuple[Any, ...]:
    return scripts.REFUSE.command(
        ledger=names.ledger(request),
        due=names.DUE,
        accepting=names.ACCEPTING,
        events=names.events(request),
        archive=names.ARCHIVE,
        listed=names.LISTED,
        request=request,
        lapsed_only=int(lapsed_only),
        archives=int(archives),
        tasks=[scripts.Refused(task, names.open_tasks(region)) for task, region in tasks],
    )


def _settled(one: Settlement) -> scripts.Settled:
    kept = names.settled(one.region)
    return scripts.Settled(
        id=one.task,
        region=one.region,
        status=one.status,
        finished_ms=one.finished_ms,
        size_bytes=one.size_bytes,
        frame=one.frame,
        from_region=names.HUB if one.frame else kept,
        trail=one.trail,
        is_latest=int(one.is_latest),
        held_max=one.held_max,
        open=names.open_tasks(one.region),
        own=names.result(names.HUB, one.task),
        came=names.result(one.region, one.task),
        kept=names.result(kept, one.task),
        held=names.held(one.region),
    )


def _is_its_own(reply: Any) -> bool:
    """Whether a script failed because of its data, not of a missing right or the server's state. redis-py cuts "ERR" off."""
    code = getattr(reply, "status_code", None)
    is_error = isinstance(reply, Exception) and (code == "ERR" or str(reply).startswith("WRONGTYPE"))
    return is_error and not connect.is_denied(reply)
