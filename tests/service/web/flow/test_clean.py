"""Taking back what was refused, on a real RabbitMQ and Redis: nothing where nothing was sent, all of the rest, in any crowd."""

import itertools
import signal
import threading
import time

import pytest

from jobs import contract
from regions import durability, names, script
from tests.service.hub_parts import new_request
from tests.service.web.flow.test_accept import delete_queue, drain, half, half_on, own_half
from tests.waiting import freeze, until
from web.flow import clean
from web.flow.accept import Accepted, Refused
from web.hub import ledger
from web.hub.redis import BROKEN

__all__ = ["half", "half_on", "own_half"]

pytestmark = pytest.mark.usefixtures("in_time")

HUB_MS = 1_700_000_000_000  # until when a task may live, by the hub's clock


def state(half, new):
    return half.hub.client.hget(names.ledger(new.id), "state")


def test_refusals_of_an_outage_leave_nothing_to_take_back_but_what_was_sent(half, hub_redis):
    half.submit(new_request())  # the hub knows the script
    hub_redis.running.signal(signal.SIGSTOP)
    try:
        sent, _ = half.submit(new_request())  # it finds out that nobody answers
        assert isinstance(sent, Refused)
        others = [half.submit(new_request(("fra", "nyc")))[0] for _ in range(3_000)]
        assert {type(one) for one in others} == {Refused}
        assert half.acceptor.cleaner.kept == len(sent.new.tasks)
        assert half.acceptor.cleaner.is_refused(sent.new.id)
    finally:
        hub_redis.running.signal(signal.SIGCONT)
    until(lambda: half.acceptor.cleaner.kept == 0, "what was sent to be taken back")
    assert state(half, sent.new) == b"refused"  # the freeze was in the hub, which has it
    assert not any(half.hub.client.exists(names.ledger(one.new.id)) for one in others)


def test_a_refusal_that_the_hub_forgets_is_told_it_again(half, hub_redis, monkeypatch):
    """It was killed before it had written it: of a 503 nothing may be read."""
    new = new_request()
    half.ledger.begin(new)
    half.ledger.accept([new.id])
    size = hub_redis.written()
    looks, has_forgotten = [], threading.Event()

    def file_of(info):
        looks.append(state(half, new))
        assert has_forgotten.wait(60)  # before it tells the hub again
        return durability.File(1, 10, 0, len(looks)) if len(looks) < 3 else durability.File()

    monkeypatch.setattr(ledger.durability, "file_of", file_of)  # an fsync is pending
    half.acceptor.cleaner.add(new)
    until(lambda: looks == [b"refused"], "the hub to be told")
    assert half.acceptor.cleaner.is_refused(new.id)
    hub_redis.forget(size)
    assert state(half, new) == b"accepted"
    has_forgotten.set()
    until(lambda: not half.acceptor.cleaner.is_refused(new.id), "it to be in the file")
    assert (state(half, new), half.acceptor.cleaner.kept) == (b"refused", 0)
    # Its file has grown at the second look, but by what the hub forgot: what it was told since is not in there yet.
    assert len(looks) == 3


def test_a_refusal_that_is_in_the_hubs_file_is_told_no_more_though_an_fsync_is_pending(half, monkeypatch):
    new, looks = new_request(), itertools.count(1)
    half.ledger.begin(new)
    monkeypatch.setattr(ledger.durability, "file_of", lambda _: durability.File(1, 10, 0, next(looks)))
    half.acceptor.cleaner.add(new)
    until(lambda: not half.acceptor.cleaner.is_refused(new.id), "it to be in the file")
    assert next(looks) == 3  # it was told twice


def test_the_last_clean_up_tells_a_hub_that_was_away(half, hub_redis, monkeypatch):
    """Nobody else knows of a refusal whose accept has got through."""
    new, cleaner = new_request(), half.acceptor.cleaner
    monkeypatch.setattr(clean, "FINISH_SECONDS", 60.0)
    monkeypatch.setattr(cleaner._loop, "_end_seconds", 60.0)
    half.ledger.begin(new)
    half.ledger.accept([new.id])
    hub_redis.running.signal(signal.SIGSTOP)
    try:
        cleaner.add(new)
        until(lambda: half.hub.away, "the hub to be away")
        stopping = threading.Thread(target=cleaner.stop)
        stopping.start()
        until(cleaner._loop.stopping.is_set, "it to be asked to stop")
    finally:
        hub_redis.running.signal(signal.SIGCONT)
    stopping.join()
    assert (state(half, new), cleaner.kept) == (b"refused", 0)


def test_the_last_clean_up_neither_waits_for_ever_nor_asks_without_a_pause(half, hub_redis, monkeypatch):
    monkeypatch.setattr(clean, "FINISH_SECONDS", 0.3)
    cleaner = half.acceptor.cleaner
    hub_redis.running.signal(signal.SIGSTOP)
    try:
        cleaner.add(new_request())
        until(lambda: half.hub.away, "the hub to be away")  # from now on each question is refused at once
        began, tries = time.monotonic(), times_of(monkeypatch, half.hub, "asking")
        cleaner.stop()
        until(lambda: not cleaner._loop.thread.is_alive(), "it to end")
        assert len(tries) <= (time.monotonic() - began) / clean.FINISH_AGAIN_SECONDS + 3
    finally:
        hub_redis.running.signal(signal.SIGCONT)
    assert cleaner.kept == 1


def test_the_last_clean_up_does_not_wait_for_ever_for_the_hubs_disk(patient, half, monkeypatch):
    monkeypatch.setattr(clean, "FINISH_SECONDS", 0.0)
    monkeypatch.setattr(ledger.durability, "file_of", lambda _: durability.File(1, 10, 0, 1))
    new, cleaner = new_request(), half.acceptor.cleaner
    half.ledger.begin(new)
    cleaner.add(new)
    cleaner._loop.ask_to_stop()
    until(lambda: cleaner.stop() or not cleaner._loop.thread.is_alive(), "its end")
    assert state(half, new) == b"refused"


def test_the_last_clean_up_tells_a_hub_that_answers_all_of_them_however_long_that_takes(
    patient, half, monkeypatch, capfd
):
    monkeypatch.setattr(clean, "FINISH_SECONDS", 0.0)
    monkeypatch.setattr(ledger.durability, "file_of", lambda _: durability.File())  # no fsync is pending
    monkeypatch.setattr(clean, "REFUSALS_AT_ONCE", 1)
    cleaner, wanted = clean.Cleaner(half.hub, half.ledger, half.publisher), [new_request() for _ in range(3)]
    for new in wanted:
        half.ledger.begin(new)
        cleaner.add(new)
    cleaner._finish()
    assert ({state(half, new) for new in wanted}, cleaner.kept) == ({b"refused"}, 0)
    assert "the hub was not told" not in capfd.readouterr().out


def test_a_cleaner_that_has_nothing_to_do_ends_when_it_is_stopped(half):
    cleaner = half.acceptor.cleaner
    cleaner.stop()
    until(lambda: not cleaner._loop.thread.is_alive(), "it to end")


def test_what_is_left_goes_on_at_once(patient, half, monkeypatch):
    monkeypatch.setattr(clean, "REFUSALS_AT_ONCE", 1)
    monkeypatch.setattr(ledger.durability, "file_of", lambda _: durability.File())  # no fsync is pending
    cleaner, wanted = clean.Cleaner(half.hub, half.ledger, half.publisher), [new_request() for _ in range(3)]
    for new in wanted:
        half.ledger.begin(new)
        cleaner.add(new)
    for left in (2, 1, 0):
        assert cleaner._turn() == 0.0
        assert cleaner.kept == left


def test_what_is_due_is_done_at_its_time_and_not_later(half, monkeypatch):
    now, cleaner = [100.0], clean.Cleaner(half.hub, half.ledger, half.publisher)

    def wait(seconds):
        assert seconds > 0, "it is due"
        now[0] += seconds

    cleaner.add(new_request())
    cleaner._refuse_at = 102.5
    monkeypatch.setattr(cleaner._changed, "wait", wait)
    monkeypatch.setattr(clean.time, "monotonic", lambda: now[0])
    assert cleaner._wait()
    assert now == [102.5]


def test_a_cancel_is_tried_until_the_last_deadline_of_its_tasks(half):
    cleaner, before = clean.Cleaner(half.hub, half.ledger, half.publisher), time.monotonic()
    cleaner.cancel("R", [("a", "fra")], HUB_MS, 1_900)
    assert before + 1.9 <= cleaner._lanes["fra"].waiting[0].give_up <= time.monotonic() + 1.9


def test_a_refusal_by_a_full_hub_leaves_nothing_to_take_back(half, hub_redis):
    hub_redis.client.config_set("maxmemory", 1)
    until(lambda: isinstance(half.submit(new_request())[0], Refused), "the hub to refuse")
    for _ in range(50):
        answer, _ = half.submit(new_request())
        assert isinstance(answer, Refused)
    assert half.acceptor.cleaner.kept == 0
    hub_redis.client.config_set("maxmemory", "256mb")


def test_many_refusals_are_told_in_few_round_trips_while_new_ones_come(half, hub_redis, monkeypatch):
    """What has to be tried again is, by the clock: others that come all the time do not keep it waiting."""
    cleaner = half.acceptor.cleaner
    waiting = [new_request() for _ in range(1_000)]
    for new in waiting:
        half.ledger.begin(new)
    hub_redis.running.signal(signal.SIGSTOP)
    half.submit(new_request())
    for new in waiting:
        cleaner.add(new)
    real, calls = script._exchange, []

    def counting(client, commands):
        calls.append(len(commands))
        return real(client, commands)

    monkeypatch.setattr(script, "_exchange", counting)
    hub_redis.running.signal(signal.SIGCONT)
    until(lambda: half.hub.state is None, "the hub")

    def steady():
        cleaner.add(new_request())
        return all(not cleaner.is_refused(new.id) for new in waiting)

    until(steady, "what had waited to be taken back, while new ones came")
    assert {state(half, new) for new in waiting} == {b"refused"}
    assert sum(one >= 100 for one in calls) >= 4  # requests in a round trip
    until(lambda: cleaner.kept == 0, "the rest")


def test_a_cancel_does_not_wait_behind_refusals(half, rabbitmq, hub_redis):
    cleaner = half.acceptor.cleaner
    hub_redis.running.signal(signal.SIGSTOP)
    try:
        half.submit(new_request())
        for _ in range(1_000):
            cleaner.add(new_request())
        new = new_request()
        cleaner.cancel(new.id, [(task.id, task.region) for task in new.tasks], HUB_MS, new.deadline_ms)
        found = until(lambda: drain(rabbitmq, "q.fra.now"), "the cancel, while the hub is frozen")
        cancel = contract.decode_cancel(found[0][1])
        assert cancel.task == new.tasks[0].id
        assert cancel.deadline_ms > HUB_MS  # its mark lives for longer than the task
    finally:
        hub_redis.running.signal(signal.SIGCONT)
    until(lambda: cleaner.kept == 0, "the rest")


def test_a_silent_region_does_not_keep_the_cancels_of_others(own_half, own_rabbitmq, monkeypatch):
    monkeypatch.setattr(clean, "CANCELS_AT_ONCE", 1)
    cleaner = own_half.acceptor.cleaner
    member = 'whereis(list_to_atom("%2F_q.sin.now"))'
    own_rabbitmq.evaluate(f"sys:suspend({member}).")
    try:
        for _ in range(3):
            cleaner.cancel("R", [("S", "sin")], HUB_MS, 30_000)
        cleaner.cancel("R", [("F", "fra")], HUB_MS, 30_000)
        found = until(lambda: drain(own_rabbitmq, "q.fra.now"), "the cancel of another region")
        assert contract.decode_cancel(found[0][1]).task == "F"
        assert cleaner.kept >= 3
        assert cleaner._lanes["sin"].unconfirmed == 1
    finally:
        own_rabbitmq.evaluate(f"sys:resume({member}).")
    until(lambda: cleaner.kept == 0, "those of the silent one", 60)


def test_what_is_to_be_taken_back_is_bounded_by_refusing_to_begin(own_half, own_rabbitmq, monkeypatch):
    monkeypatch.setattr(clean, "KEPT_MAX", 4)
    freeze(own_rabbitmq.running.process.pid)
    try:
        until(lambda: isinstance(own_half.submit(new_request())[0], Refused), "a refusal")
        until(lambda: own_half.acceptor.cleaner.kept == 1, "the hub to be told, and not the region")
        own_half.acceptor.cleaner.cancel("R", [("a", "fra"), ("b", "fra"), ("c", "fra")], HUB_MS, 60_000)
        assert own_half.acceptor.cleaner.kept == 4
        answer, _ = own_half.submit(new_request(("fra",)))
        assert answer.reason == "too many refused and cancelled tasks wait for their clean-up"
        assert [one.name for one in own_half.acceptor.cleaner.faults()] == ["gateway-clean-up-full"]
        own_half.acceptor.cleaner.cancel("R", [("d", "fra")], HUB_MS, 60_000)
        assert own_half.acceptor.cleaner.kept == 4
    finally:
        own_rabbitmq.running.signal(signal.SIGCONT)
    until(lambda: own_half.acceptor.cleaner.kept == 0, "all to be taken back", 60)
    assert own_half.acceptor.cleaner.faults() == []
    until(lambda: isinstance(own_half.submit(new_request())[0], Accepted), "requests to be taken again", 60)


def test_a_cancel_is_given_up_when_its_tasks_are_past_their_deadline(own_half, own_rabbitmq):
    own_rabbitmq.running.kill()
    try:
        until(lambda: own_half.publisher.unavailable, "the broker to be away")
        own_half.acceptor.cleaner.cancel("R", [("a", "fra")], HUB_MS, 2_000)
        assert own_half.acceptor.cleaner.kept == 1
        until(lambda: own_half.acceptor.cleaner.kept == 0, "it to be given up")
    finally:
        own_rabbitmq.running.start()
    until(lambda: own_half.publisher.unavailable is None, "the broker", 60)
    assert drain(own_rabbitmq, "q.fra.now") == []


def test_a_hub_whose_keys_are_of_another_kind_is_a_refusal_that_is_taken_back_when_they_are_right(half, hub_redis):
    """Somebody's SET: the script fails in its middle, with the ledger written."""
    half.submit(new_request())
    client = hub_redis.client
    client.rename(names.DUE, "kept")
    client.set(names.DUE, "x")
    answer, _ = half.submit(new_request())
    assert answer.reason == BROKEN
    assert state(half, answer.new) in (b"accepting", b"refused")
    assert half.acceptor.cleaner.is_refused(answer.new.id)
    client.rename("kept", names.DUE)
    until(lambda: half.acceptor.cleaner.kept == 0, "it to be taken back")
    assert state(half, answer.new) == b"refused"
    until(lambda: isinstance(half.submit(new_request())[0], Accepted), "a request to be accepted")


def test_as_many_cancels_as_there_are_go_out_a_share_at_a_time(half, rabbitmq, monkeypatch):
    monkeypatch.setattr(clean, "CANCELS_AT_ONCE", 2)
    for number in range(9):
        half.acceptor.cleaner.cancel("R", [(f"T{number}", "fra")], HUB_MS, 60_000)
    until(lambda: half.acceptor.cleaner.kept == 0, "all to be confirmed")
    told = [contract.decode_cancel(body).task for _, body in drain(rabbitmq, "q.fra.now")]
    assert sorted(told) == [f"T{number}" for number in range(9)]


def test_a_cancel_that_the_broker_took_and_did_not_confirm_is_sent_again(own_half, own_rabbitmq):
    freeze(own_rabbitmq.running.process.pid)
    own_half.acceptor.cleaner.cancel("R", [("T", "fra")], HUB_MS, 120_000)
    lane = own_half.acceptor.cleaner._lanes["fra"]
    until(lambda: lane.unconfirmed == 1, "the cancel to be handed over")
    own_rabbitmq.running.kill()
    until(lambda: lane.unconfirmed == 0, "the connection to be lost")
    own_rabbitmq.running.start()
    until(lambda: own_half.acceptor.cleaner.kept == 0, "the broker to have it", 60)
    assert "T" in {contract.decode_cancel(body).task for _, body in drain(own_rabbitmq, "q.fra.now")}


def times_of(monkeypatch, owner, name):
    """When the cleaner's thread called something, in monotonic seconds, as it goes on to call it."""
    real, times = getattr(owner, name), []

    def noting(*arguments, **options):
        if threading.current_thread().name == "accept-clean":
            times.append(time.monotonic())
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, noting)
    return times


def are_a_second_apart(times):
    return min(later - before for before, later in itertools.pairwise(times)) >= clean.AGAIN_SECONDS


def test_cancels_that_the_broker_does_not_take_are_tried_again_a_second_later(own_half, own_rabbitmq, monkeypatch):
    own_rabbitmq.running.kill()
    try:
        until(lambda: own_half.publisher.unavailable, "the broker to be away")
        times = times_of(monkeypatch, own_half.publisher, "publish")
        turns = times_of(monkeypatch, own_half.acceptor.cleaner, "run_once")
        own_half.acceptor.cleaner.cancel("R", [("a", "fra")], HUB_MS, 120_000)
        until(lambda: len(times) >= 3, "three tries")
        assert are_a_second_apart(times[:3])
        assert len(turns) < 20, "it waits for their time, and does not look again and again"
    finally:
        own_rabbitmq.running.start()
    until(lambda: own_half.acceptor.cleaner.kept == 0, "the broker to have it", 60)


@pytest.mark.parametrize("why", ["away", "broken", "not written yet"])
def test_refusals_that_the_hub_does_not_have_are_told_again_a_second_later(half, hub_redis, monkeypatch, why):
    half.submit(new_request())  # the hub knows the scripts
    new = new_request()
    half.ledger.begin(new)
    times = times_of(monkeypatch, half.hub, "asking")
    if why == "away":
        hub_redis.running.signal(signal.SIGSTOP)
    elif why == "broken":
        hub_redis.client.rename(names.ledger(new.id), "kept")
        hub_redis.client.set(names.ledger(new.id), "x")
    else:
        monkeypatch.setattr(ledger.durability, "file_of", lambda info: durability.File(1, 10, 0, 1))
    try:
        half.acceptor.cleaner.add(new)
        until(lambda: len(times) >= 3, "three tries")
        assert are_a_second_apart(times[:3])
        assert half.acceptor.cleaner.is_refused(new.id)
    finally:
        hub_redis.running.signal(signal.SIGCONT)
        monkeypatch.undo()
        if why == "broken":
            hub_redis.client.rename("kept", names.ledger(new.id))
    until(lambda: half.acceptor.cleaner.kept == 0, "it to be taken back")
    assert state(half, new) == b"refused"


def test_a_cleaner_that_stops_tries_once_more_what_waits_for_its_time(half_on, hub_redis, rabbitmq, monkeypatch):
    half = half_on(rabbitmq)
    try:
        monkeypatch.setattr(clean, "AGAIN_SECONDS", 600.0)
        cleaner, wanted = half.acceptor.cleaner, [new_request() for _ in range(2)]
        for new in wanted:
            half.ledger.begin(new)
            hub_redis.client.rename(names.ledger(new.id), f"kept:{new.id}")
            hub_redis.client.set(names.ledger(new.id), "x")
        times = times_of(monkeypatch, half.hub, "asking")
        cleaner.add(wanted[0])
        until(lambda: times and cleaner._refuse_at > time.monotonic() + 500, "it to wait for its time")
        cleaner.cancel("R", [("a", "fra")], HUB_MS, 600_000)
        until(lambda: cleaner.kept == 1, "the cancel to be confirmed")
        delete_queue(rabbitmq, "q.nyc.now")
        cleaner.cancel("R", [("b", "nyc")], HUB_MS, 600_000)
        until(lambda: cleaner._lanes["nyc"].again_at > time.monotonic() + 500, "the other cancel to wait for its time")
        until(lambda: isinstance(half.submit(new_request(("nyc",), sync=True))[0], Accepted), "the queue")
        cleaner.add(wanted[1])
        for new in wanted:
            hub_redis.client.rename(f"kept:{new.id}", names.ledger(new.id))
    finally:
        half.stop()
    states = [hub_redis.client.hget(names.ledger(new.id), "state") for new in wanted]
    assert states == [b"refused", b"refused"]
    assert [contract.decode_cancel(body).task for _, body in drain(rabbitmq, "q.fra.now")] == ["a"]
    assert "b" in {properties.message_id for properties, _ in drain(rabbitmq, "q.nyc.now")}


def test_refusals_that_wait_for_the_hubs_file_keep_no_others_from_being_told(half, monkeypatch):
    monkeypatch.setattr(clean, "REFUSALS_AT_ONCE", 2)
    monkeypatch.setattr(ledger.durability, "file_of", lambda _: durability.File(1, 10, 0, 1))
    wanted = [new_request() for _ in range(5)]
    for new in wanted:
        half.ledger.begin(new)
        half.acceptor.cleaner.add(new)
    until(lambda: {state(half, new) for new in wanted} == {b"refused"}, "all of them to be told")
    monkeypatch.undo()
    until(lambda: half.acceptor.cleaner.kept == 0, "them to be written")
