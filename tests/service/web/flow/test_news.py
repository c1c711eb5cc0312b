"""Who waits is told, by this gateway's settler or by another one."""

import time
from queue import SimpleQueue

import msgspec
import pytest

from regions import names
from tests.service.hub_parts import accepted, frame, new_request, send_home
from tests.waiting import until
from web.api.wait import PIECES_AT_ONCE, Waiters
from web.flow.listen import Listener
from web.flow.settle import Settler
from web.http.owner import EVERYBODY
from web.hub import scripts
from web.hub.ledger import Ledger
from web.hub.new_request import New, Repeatable, Times
from web.hub.settlement import Settlement


def test_news_of_another_gateway_are_heard_and_a_gap_re_reads(parts, hub_redis):
    found, _, ledger, settler, _ = parts
    heard, gaps = [], []
    listener = Listener(found, heard.extend, lambda: gaps.append(1))
    listener.start()
    until(lambda: gaps, "the subscription")
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or heard, "the news")
    assert set(heard) == {new.id}
    hub_redis.client.client_kill_filter(_type="pubsub")
    until(lambda: len(gaps) >= 2, "the subscription again")
    listener.stop()


class Reader:
    """A waiter that says when it was read."""

    owner = EVERYBODY
    waits_for_end = True
    needs_written = False

    def __init__(self, request: str, *, is_bulk: bool = False) -> None:
        self.is_bulk = is_bulk
        self.request, self.timer, self.whys = request, time.monotonic() + 60, SimpleQueue()

    def cursor(self) -> str:
        return "0-0"

    def is_behind(self) -> bool:
        return False

    def take(self, view, why) -> str:
        self.whys.put((why, view is not None and view.done))
        return "wait"


def test_who_waits_for_news_comes_before_who_reads_large_answers(parts):
    """Each of their pieces is 262 kB: behind those of hundreds, an answer that was there waited for a second."""
    _, hub, ledger, _, _ = parts
    waiters = Waiters(hub, ledger)
    bulk, quick = [Reader(accepted(ledger)[0].id, is_bulk=True) for _ in range(40)], Reader(accepted(ledger)[0].id)
    for reader in (*bulk, quick):
        waiters.register(reader)
    waiters.run_once()
    assert quick.whys.get_nowait() == ("news", False)
    assert sum(not reader.whys.empty() for reader in bulk) == PIECES_AT_ONCE
    for _ in range(len(bulk) // PIECES_AT_ONCE - 1):  # and all of those are read in turn
        waiters.run_once()
    assert all(reader.whys.qsize() == 1 for reader in bulk)


def test_who_was_expected_reads_only_what_happened_meanwhile(parts):
    """A post that waits needs no first read: nobody knew of it before. News that overtake its accept are not lost."""
    _, hub, ledger, _, _ = parts
    waiters = Waiters(hub, ledger)
    waiters.start()

    def end(new: New, _: Times) -> None:
        (task,) = new.tasks
        ended = Settlement(
            request=new.id, task=task.id, region="fra", status="failed", finished_ms=1, size_bytes=9, frame=frame(task)
        )
        assert ledger.settle([ended]) == [scripts.LAST]

    early, late, missed = (accepted(ledger) for _ in range(3))
    for new, _ in (early, late, missed):
        waiters.expect(new.id)
    end(*early)
    waiters.news([early[0].id])
    first, second, third = (Reader(new.id) for new, _ in (early, late, missed))
    waiters.register(first)
    waiters.register(second)
    assert first.whys.get(timeout=60) == ("news", True)
    end(*late)
    waiters.news([late[0].id])
    assert second.whys.get(timeout=60) == ("news", True)  # the first that it reads
    end(*missed)
    waiters.all()
    waiters.register(third)
    assert third.whys.get(timeout=60) == ("news", True)
    waiters.stop()


class CountingLedger(Ledger):
    """Counts the reads for waiters."""

    reads = 0

    def read_many(self, *args, **kwargs):
        self.reads += 1
        return super().read_many(*args, **kwargs)


@pytest.mark.parametrize("is_early", [False, True], ids=["it waits already", "its accept is not confirmed yet"])
def test_who_waits_for_one_result_gets_it_in_the_round_trip_that_settles_it(parts, hub_redis, is_early):
    found, hub, _, _, _ = parts
    ledger = CountingLedger(hub.client, found.limits)
    waiters = Waiters(hub, ledger)
    settler = Settler(found, hub, ledger, waiters)
    new, times = accepted(ledger, sync=True)
    reader = Reader(new.id)
    waiters.expect(new.id)
    if not is_early:
        waiters.register(reader)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(
        lambda: settler.run_once() or (ledger.states([new.id]) and hub.client.exists(names.events(new.id))), "its end"
    )
    if is_early:
        waiters.register(reader)
    assert reader.whys.get_nowait() == ("news", True)  # without a turn of the waiters' own thread
    assert ledger.reads == 0
    trail = hub.client.hgetall(names.trail(new.id))
    assert trail[b"d:" + new.tasks[0].id.encode()].endswith(b"|wait")  # it is noted when its client was told


def test_only_news_that_nobody_here_reads_at_once_are_published(parts, hub_redis):
    found, hub, ledger, _, _ = parts
    waiters = Waiters(hub, ledger)
    settler = Settler(found, hub, ledger, waiters)
    heard, gaps = [], []
    listener = Listener(found, heard.extend, lambda: gaps.append(1))
    listener.start()
    until(lambda: gaps, "the subscription")
    repeatable = msgspec.structs.replace(new_request(sync=True), repeatable=Repeatable("key", "digest"))
    found = [(new, ledger.begin(new)) for new in (new_request(sync=True), repeatable, new_request(sync=True))]
    assert all(ledger.accept([new.id for new, _ in found])[0])
    readers = [Reader(new.id) for new, _ in found[:2]]
    for reader in readers:
        waiters.register(reader)
    for new, times in found:
        send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or len(heard) == 2, "the news")
    assert heard == [found[1][0].id, found[2][0].id]  # the first of them may be waited for at another gateway, too
    assert [reader.whys.get(timeout=60) for reader in readers] == [("news", True)] * 2
    listener.stop()


class NotingLedger(Ledger):
    """Notes what was settled together."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.settled = []

    def settle_and_read(self, settlements, asked):
        self.settled.append([one.request for one in settlements])
        return super().settle_and_read(settlements, asked)


def test_of_what_was_read_together_a_result_comes_first_for_which_a_client_waits(parts, hub_redis):
    found, hub, _, _, _ = parts
    ledger = NotingLedger(hub.client, found.limits)
    waiters = Waiters(hub, ledger)
    settler = Settler(found, hub, ledger, waiters)
    others, (waited_for, times) = [accepted(ledger) for _ in range(5)], accepted(ledger, sync=True)
    waiters.register(Reader(waited_for.id))
    for new in (*(one for one, _ in others), waited_for):
        send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or len(ledger.settled) == 2, "both")
    assert ledger.settled == [[waited_for.id], [one.id for one, _ in others]]


class LosingLedger(Ledger):
    """Loses the answer to its first settlement."""

    is_well = False

    def settle_and_read(self, *arguments):
        answer = super().settle_and_read(*arguments)
        if not self.is_well:
            self.is_well = True
            raise RuntimeError("no answer")
        return answer


def test_who_waits_for_a_result_gets_it_although_the_answer_to_its_settlement_was_lost(parts, hub_redis):
    found, hub, _, _, _ = parts
    ledger = LosingLedger(hub.client, found.limits)
    waiters = Waiters(hub, ledger)
    settler = Settler(found, hub, ledger, waiters)
    new, times = accepted(ledger, sync=True)
    reader = Reader(new.id)
    waiters.register(reader)
    settler.start()
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    assert reader.whys.get(timeout=60) == ("news", True)
    settler.stop()


def test_a_result_that_overtakes_its_accept_is_read_after_it(parts, hub_redis):
    """The view of a request that may yet be refused is nobody's answer."""
    found, hub, _, _, _ = parts
    ledger = CountingLedger(hub.client, found.limits)
    waiters = Waiters(hub, ledger)
    settler = Settler(found, hub, ledger, waiters)
    new = new_request(sync=True)
    times = ledger.begin(new)
    waiters.expect(new.id)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or hub.client.exists(names.events(new.id)), "its end")
    assert ledger.accept([new.id])[0] == [True]
    reader = Reader(new.id)
    waiters.register(reader)
    waiters.run_once()
    assert reader.whys.get_nowait() == ("news", True)
    assert ledger.reads == 1


def test_a_client_that_reads_on_from_a_cursor_is_shown_nothing_before_it_is_written(parts, hub_redis):
    found, hub, _, _, _ = parts
    ledger = CountingLedger(hub.client, found.limits)
    waiters = Waiters(hub, ledger)
    settler = Settler(found, hub, ledger, waiters)
    new, times = accepted(ledger)
    reader = Reader(new.id)
    reader.needs_written = True
    waiters.register(reader)
    waiters.run_once()
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or hub.client.exists(names.events(new.id)), "its end")
    assert waiters.wanted([new.id]) == []
    waiters.run_once()
    assert ledger.reads == 2
