"""What a region puts at the hub that nobody asked for goes, and who goes on with it is kept out; no other region notices."""

import json
import threading

import pytest
import redis
import ulid

from regions import connect, names
from regions.link import Link
from scripts.stack import hub_acl
from tests.service.hub_parts import Heard, frame, new_request, send_home, settings
from tests.waiting import until
from web.flow import holdings
from web.flow.holdings import Holdings
from web.flow.settle import Settler
from web.hub import ids, scripts
from web.hub.ledger import Ledger
from web.hub.redis import Hub, share_of_region

MEGABYTE = b"x" * 1_000_000

pytestmark = pytest.mark.usefixtures("patient_clients")


class Parts:
    """A hub with its regions' users, and what a gateway has that looks after it."""

    def __init__(self, tmp_path, start_redis, **environ) -> None:
        users = {names.hub_user(region): ("word", hub_acl.rules(region)) for region in ("fra", "nyc")}
        self.server = start_redis("hub", users=users, maxmemory="64mb")
        self.client = self.server.client
        found = settings(tmp_path, redis=self.server.url, **environ)
        self.hub = Hub(found)
        self.hub.start()
        self.ledger = Ledger(self.hub.client, found.limits)
        self.settler = Settler(found, self.hub, self.ledger, Heard())
        self.holdings = Holdings(found, self.hub)
        self.fra, self.nyc = (self.region(name) for name in ("fra", "nyc"))

    def region(self, name: str) -> redis.Redis:
        """A client with a region's own credentials."""
        url = self.server.url.replace("redis://", f"redis://{names.hub_user(name)}:word@")
        return connect.open_redis(url, name=name)

    def accepted(self, *regions: str):
        """A request whose tasks have ids as a gateway makes them."""
        made = new_request(regions)
        request = ids.new()
        tasks = [type(task)(**{**_fields(task), "id": ids.task(request, n + 1)}) for n, task in enumerate(made.tasks)]
        new = type(made)(**{**_fields(made), "id": request, "tasks": tasks})
        times = self.ledger.begin(new)
        assert self.ledger.accept([new.id])[0] == [True]
        return new, times

    def looks(self, seconds_between: float = 0.0) -> None:
        """Looks at all keys at least once."""
        self.holdings._look_at = seconds_between
        self.holdings.run_once()
        while self.holdings._cursor != b"0":
            self.holdings.run_once()

    def barred(self, region: str = "fra") -> str:
        return self.ledger.regions([region])[0].barred


def _fields(one) -> dict:
    return {name: getattr(one, name) for name in one.__struct_fields__}


@pytest.fixture
def parts(tmp_path, start_redis):
    made = Parts(tmp_path, start_redis)
    yield made
    made.holdings.stop()
    made.hub.stop()


def test_what_nobody_asked_for_is_deleted_and_what_was_asked_for_stays(parts):
    new, times = parts.accepted("fra", "nyc", "fra")
    own, others, done = new.tasks
    parts.client.set(names.result("fra", own.id), frame(own))
    send_home(parts.client, new, done, times.created_ms + 10)
    until(lambda: parts.settler.run_once() or parts.ledger.read(new.id).completed, "a task to be settled")
    for task in (others.id, done.id, str(ulid.ULID()), "x", "x" * 500, "a:b", "-"):
        parts.fra.set(names.result("fra", task), b"x" * 100)
    parts.looks()
    kept = {key.decode() for key in parts.client.scan_iter("nf:res:*")}
    assert kept == {names.result("fra", own.id), names.result(names.settled("fra"), done.id)}
    send_home(parts.client, new, own, times.created_ms + 10)
    send_home(parts.client, new, others, times.created_ms + 10)
    until(lambda: parts.settler.run_once() or parts.ledger.read(new.id).done, "the rest")
    assert {json.loads(one)["status"] for one in parts.ledger.read(new.id).results} == {"succeeded"}


def test_a_result_that_is_larger_than_any_may_be_is_deleted_though_it_was_asked_for(tmp_path, start_redis):
    parts = Parts(tmp_path, start_redis, NEARFETCH__LIMITS__RECORDS_BYTES_MAX="100000")
    new, _ = parts.accepted("fra")
    parts.fra.set(names.result("fra", new.tasks[0].id), MEGABYTE)
    parts.looks()
    assert not list(parts.client.scan_iter("nf:res:*"))
    parts.hub.stop()


def test_a_result_may_be_as_large_as_any_and_not_one_byte_larger(parts):
    new, _ = parts.accepted("fra")
    key = names.result("fra", new.tasks[0].id)
    parts.fra.set(key, b"x" * 500)
    size = parts.client.memory_usage(key)

    def looks(bytes_max: int) -> list:
        return scripts.SURPLUS.call(
            parts.client,
            cursor=0,
            count=1_000,
            results=holdings.ANY_RESULT,
            of_a_region=holdings.OF_A_REGION,
            ledger=names.ledger(""),
            bytes_max=bytes_max,
        )

    assert looks(size) == [b"0"]
    assert parts.client.exists(key)
    assert looks(size - 1) == [b"0", b"fra", size]
    assert not parts.client.exists(key)


def test_a_region_that_fills_the_hub_is_kept_out_and_comes_back(parts, monkeypatch):
    """64 MB; a region writes until it is refused. The others write all the while, or again within moments."""
    monkeypatch.setattr(holdings, "BAR_MS", 2_000)
    refusals = []

    def fill() -> None:
        try:
            for number in range(10_000):
                try:
                    parts.fra.set(names.result("fra", f"{number}"), MEGABYTE)
                except redis.exceptions.OutOfMemoryError:
                    continue
        except redis.exceptions.RedisError as error:
            refusals.append(error)

    filler = threading.Thread(target=fill)
    filler.start()
    until(lambda: parts.looks() or parts.barred(), "the region to be barred")
    filler.join(60)
    assert isinstance(refusals[0], connect.AWAY)  # it was cut off
    with pytest.raises(redis.exceptions.RedisError):
        parts.region("fra").time()
    assert "nobody asked for" in parts.barred()
    assert not parts.barred("nyc")
    until(lambda: parts.looks() or parts.client.info("memory")["used_memory"] < 20_000_000, "room again")
    new, times = parts.accepted("nyc")
    send_home(parts.nyc, new, new.tasks[0], times.created_ms + 10)
    until(lambda: parts.settler.run_once() or parts.ledger.read(new.id).done, "another region's task")
    until(lambda: parts.looks() or not parts.barred(), "the region to be let in")
    assert connect.redis_now_ms(parts.region("fra")) > 0
    assert connect.redis_now_ms(parts.nyc) > 0


def test_a_hub_that_is_full_already_is_emptied(parts):
    parts.client.config_set("maxmemory", 0)
    for number in range(30):
        parts.fra.set(names.result("fra", f"{number}"), MEGABYTE)
    parts.client.config_set("maxmemory", 16_000_000)
    parts.hub.run_once()
    until(lambda: parts.looks() or not list(parts.client.scan_iter("nf:res:*")), "the keys to go")
    assert parts.barred()


@pytest.mark.parametrize("gateway", ["that was there", "that begins"])
def test_results_that_are_there_settle_while_the_hub_is_over_a_limit_that_was_lowered(parts, gateway):
    """A region's room is a share of that limit; that of a hub which is full is full for all, and fails nothing that came."""
    if gateway == "that was there":
        parts.hub.run_once()
    new, times = parts.accepted("nyc")
    send_home(parts.nyc, new, new.tasks[0], times.created_ms + 10)
    parts.client.config_set("maxmemory", 100)
    parts.hub.run_once()
    until(lambda: parts.settler.run_once() or parts.ledger.read(new.id).done, "the request to be done")
    assert {json.loads(one)["status"] for one in parts.ledger.read(new.id).results} == {"succeeded"}


def test_a_stream_without_end_ends(parts, monkeypatch):
    for _ in range(30):
        parts.fra.xadd(names.out_stream("fra"), {"k": MEGABYTE})
    parts.looks()
    assert not parts.barred()  # it may have come while no gateway read: then it is results that are waited for
    assert parts.client.xlen(names.out_stream("fra")) == 30
    monkeypatch.setattr(parts.holdings, "_streams_from", 0.0)
    parts.looks()
    assert "its stream was" in parts.barred()
    assert parts.client.memory_usage(names.out_stream("fra")) <= share_of_region(3) * 64 * 1024 * 1024
    assert not parts.barred("nyc")


def test_a_stream_whose_last_id_is_used_up_begins_anew(parts):
    parts.fra.xadd(names.out_stream("fra"), {"x": "y"}, id=f"{2**64 - 1}-{2**64 - 1}")
    with pytest.raises(redis.exceptions.ResponseError):
        parts.fra.xadd(names.out_stream("fra"), {"x": "y"})
    until(lambda: parts.settler.run_once() or not parts.client.xlen(names.out_stream("fra")), "the entry to be refused")
    until(lambda: parts.looks() or not parts.client.exists(names.out_stream("fra")), "the stream to go")
    new, times = parts.accepted("fra")
    send_home(parts.fra, new, new.tasks[0], times.created_ms + 10)
    until(lambda: parts.settler.run_once() or parts.ledger.read(new.id).done, "its next task")
    until(lambda: parts.settler.run_once() or not parts.client.xlen(names.out_stream("fra")), "the stream to be read")
    parts.looks()
    assert parts.client.exists(names.out_stream("fra")), "whose ids are as they should be, stays"


def test_a_region_with_very_many_connections_loses_them(parts):
    parts.client.config_set("maxclients", 60)
    clients = [parts.region("fra") for _ in range(40)]
    for one in clients:
        one.time()
    parts.nyc.time()
    parts.looks()
    assert "connections" in parts.barred()
    assert not parts.barred("nyc")
    assert parts.client.info("clients")["connected_clients"] < 20


@pytest.mark.parametrize("maxmemory", ["64mb", "0"])
def test_a_region_may_have_many_connections_while_the_hub_has_enough_left(parts, maxmemory):
    parts.client.config_set("maxclients", 60)
    parts.client.config_set("maxmemory", maxmemory)
    clients = [parts.region("fra") for _ in range(20)]
    for one in clients:
        one.time()
    until(lambda: parts.client.info("memory")["mem_clients_normal"] > 10_000, "the hub to have counted its clients")
    parts.looks()
    assert not parts.barred()


def test_what_nobody_asked_for_adds_up_for_a_minute(parts, monkeypatch):
    size = int(0.6 * holdings.SURPLUS_SHARE * parts.hub.region_bytes_max)
    monkeypatch.setattr(holdings, "WINDOW_SECONDS", 0.0)
    for _ in range(3):
        parts.holdings._note("fra", size)
    assert not parts.barred()
    monkeypatch.setattr(holdings, "WINDOW_SECONDS", 600.0)
    parts.holdings._note("fra", size)
    assert parts.barred()


def test_a_region_without_a_user_of_its_own_is_let_in_when_its_time_is_over(parts):
    """Its hub has been set up anew meanwhile, or by hand."""
    parts.client.hset(names.BARRED, "sin", "1 it sent too much")
    assert parts.barred("sin")
    parts.looks()
    assert not parts.barred("sin")


def test_a_region_whose_clients_hold_much_memory_loses_them(parts):
    clients = [parts.region("fra") for _ in range(3)]
    for one in clients:
        link = Link(one)
        link._connection._sock.sendall(b"*2\r\n$4\r\nECHO\r\n$4000000\r\n" + b"x" * 3_000_000)
    until(lambda: parts.client.info("memory")["mem_clients_normal"] > 8_000_000, "the hub to hold half commands")
    parts.nyc.time()
    parts.looks()
    assert "which held" in parts.barred()
    assert not parts.barred("nyc")


def test_a_region_whose_clients_hold_half_of_what_all_may_hold_loses_them(parts):
    """Of 64 MB all clients may hold a tenth, and of it fra has 5 MB and nyc 2."""
    for region, size in ((parts.fra, 5_000_000), (parts.nyc, 2_000_000)):
        region.time()
        Link(region)._connection._sock.sendall(b"*2\r\n$4\r\nECHO\r\n$%d\r\n" % size + b"x" * (size - 10_000))
    until(lambda: parts.client.info("memory")["mem_clients_normal"] > 6_800_000, "the hub to hold half commands")
    parts.looks()
    assert "which held" in parts.barred()
    assert not parts.barred("nyc")


def test_a_limit_that_was_lowered_bars_nobody(parts):
    """By a limit below what is used any client would hold too much: a region was kept out for a minute."""
    for region in (parts.fra, parts.nyc):
        region.time()
    until(lambda: parts.client.info("memory")["mem_clients_normal"] > 10_000, "the hub to have counted its clients")
    parts.client.config_set("maxmemory", 100_000)
    parts.looks()
    assert not parts.barred("fra")
    assert not parts.barred("nyc")


def test_a_region_whose_bar_had_no_answer_is_kept_out_by_the_next_look_and_let_in(parts):
    """Its gateway did not come to turn the user off; or the server was restarted meanwhile, and the user is on again."""
    scripts.BAR.call(parts.client, barred=names.BARRED, region="fra", for_ms=60_000, why="it sent too much")
    assert connect.redis_now_ms(parts.fra) > 0
    parts.looks()
    assert parts.barred() == "it sent too much"
    with pytest.raises(redis.exceptions.RedisError):
        parts.region("fra").time()
    assert connect.redis_now_ms(parts.nyc) > 0
    parts.client.hset(names.BARRED, "fra", "1 it sent too much")  # its time is over
    parts.looks()
    assert (parts.barred(), connect.redis_now_ms(parts.region("fra")) > 0) == ("", True)


def test_a_gateway_that_may_not_keep_a_region_out_deletes_all_the_same(tmp_path, start_redis, capfd):
    parts = Parts(tmp_path, start_redis)
    parts.client.execute_command(
        "ACL", "SETUSER", "gateway", "on", ">word", "~*", "&*", "+@all", "-@admin", "-acl", "-client|kill"
    )
    url = parts.server.url.replace("redis://", "redis://gateway:word@")
    parts.holdings._client = connect.open_redis(url, name="narrow", connections=1)
    for number in range(20):
        parts.fra.set(names.result("fra", f"{number}"), MEGABYTE)
    until(lambda: parts.looks() or not list(parts.client.scan_iter("nf:res:*")), "the keys to go")
    assert connect.redis_now_ms(parts.region("fra")) > 0
    assert "nobody asked for" in parts.barred()
    parts.looks()
    assert capfd.readouterr().out.count("this gateway can't keep a region out of the hub") == 1
    parts.holdings.stop()
    parts.hub.stop()


def test_past_its_room_a_regions_own_results_fail_and_no_others(tmp_path, start_redis):
    parts = Parts(tmp_path, start_redis, NEARFETCH__LIMITS__REGION_BYTES_MAX="2000")
    (own, times), (others, _) = parts.accepted(*["fra"] * 20), parts.accepted(*["nyc"] * 2)
    for new in (own, others):
        for task in new.tasks:
            send_home(parts.client, new, task, times.created_ms + 10)
        until(lambda new=new: parts.settler.run_once() or parts.ledger.read(new.id).done, "the request to be done")
    results = [json.loads(one) for one in parts.ledger.read(own.id).results]
    failed = [one["error"] for one in results if one["status"] == "failed"]
    assert 0 < len(failed) < 20
    said = "the region's room at the hub is used up"
    assert {(one["type"], one["message"]) for one in failed} == {("internal", said)}
    assert {json.loads(one)["status"] for one in parts.ledger.read(others.id).results} == {"succeeded"}
    held = sum(parts.client.strlen(key) for key in parts.client.scan_iter(names.result(names.settled("fra"), "*")))
    assert held == parts.ledger.regions(["fra"])[0].held_bytes <= 2000
    parts.holdings.stop()
    parts.hub.stop()


def test_what_settled_results_hold_is_forgotten_when_they_have_expired(parts):
    new, times = parts.accepted("fra", "fra")
    for task in new.tasks:
        send_home(parts.client, new, task, times.created_ms + 10)
    until(lambda: parts.settler.run_once() or parts.ledger.read(new.id).done, "the request to be done")
    held = names.held("fra")
    size = sum(parts.client.strlen(key) for key in parts.client.scan_iter("nf:res:*"))
    (minute,) = set(parts.client.hkeys(held)) - {b"all"}
    assert times.expires_ms // 60_000 < int(minute)
    assert (int(parts.client.hget(held, "all")), int(parts.client.hget(held, minute))) == (size, size)
    parts.looks()
    assert int(parts.client.hget(held, "all")) == size
    parts.client.hset(held, "1", 100)
    parts.client.hincrby(held, "all", 100)
    parts.looks()
    assert {int(one) for one in parts.client.hvals(held)} == {size}


def test_one_gateway_looks_at_a_time(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(holdings, "LEASE_MS", 600_000)
    other = Holdings(settings(tmp_path, redis=parts.server.url), parts.hub)
    other._me = "another"
    parts.looks()
    parts.fra.set(names.result("fra", "x"), b"x")
    other.run_once()
    assert parts.client.exists(names.result("fra", "x"))
    assert not other._is_filling, "it has nothing to haste for"
    parts.client.delete(names.HOLDINGS)  # as if its gateway were gone for longer than its lease
    other._look_at = 0.0
    other.run_once()
    assert not parts.client.exists(names.result("fra", "x"))
    other.stop()


@pytest.mark.parametrize(("regions", "share"), [(1, 0.85), (3, 0.425), (16, 0.1)])
def test_a_region_may_hold_twice_an_equal_share(regions, share):
    assert share_of_region(regions) == pytest.approx(share)


def test_haste_ends_where_nothing_is_wrong_and_begins_when_the_hub_fills(parts):
    """It takes an eighth of the hub's Redis, and a hub may be more than half full for ever."""

    def is_hasty() -> bool:
        parts.looks()
        return parts.holdings._is_filling

    parts.client.config_set("appendfsync", "no")  # what waits for an fsync takes memory
    for number in range(38):
        parts.client.set(f"other:{number}", MEGABYTE)
    assert not is_hasty()
    assert not is_hasty()
    for number in range(5):
        parts.fra.set(names.result("fra", f"NOBODY{number}"), MEGABYTE)
    assert is_hasty()
    assert not is_hasty()
    parts.holdings._look_at_clients(parts.client.info())
    assert not parts.holdings._is_filling  # nothing has grown since
    parts.client.set("little", MEGABYTE[:600_000])
    parts.holdings._look_at_clients(parts.client.info())
    assert not parts.holdings._is_filling  # a hundredth is nothing
    for number in range(5):
        parts.client.set(f"more:{number}", MEGABYTE)
    parts.holdings._look_at_clients(parts.client.info())
    assert parts.holdings._is_filling
    parts.fra.set(names.result("fra", "NOBODY"), b"x" * 100)  # next to nothing
    assert not is_hasty()


def test_all_keys_are_scanned_once_between_two_looks_and_again_after_the_next(parts, monkeypatch):
    monkeypatch.setattr(holdings, "EVERY_SECONDS", 600.0)
    parts.client.mset({f"other:{number}": "x" for number in range(3 * holdings.KEYS_AT_ONCE)})
    counted = parts.client.info
    scans = lambda: counted("commandstats").get("cmdstat_scan", {}).get("calls", 0)  # noqa: E731
    pauses = [parts.holdings._turn() for _ in range(20)]
    once = scans()
    assert 3 <= once < 10
    assert pauses[0] == holdings.PAUSE_SECONDS  # the scan goes on
    assert min(pauses[10:]) > 0  # until the next look
    parts.fra.set(names.result("fra", "NOBODY"), b"x")
    parts.looks()
    assert not parts.client.exists(names.result("fra", "NOBODY"))
    assert scans() > once


def test_a_hub_that_is_away_is_not_looked_at_without_a_pause(parts):
    parts.looks()
    parts.server.running.kill()
    until(lambda: parts.hub.away, "the outage to be seen")
    parts.holdings._look_at, parts.holdings._has_scanned = 0.0, True
    assert parts.holdings._turn() >= holdings.EVERY_SECONDS


def test_bytes_that_can_not_be_counted_are_a_look_that_failed_and_is_made_again(parts):
    parts.client.set(names.held("fra"), "no hash")
    with pytest.raises(redis.exceptions.ResponseError):
        parts.looks()
    parts.holdings._look_at = 0.0
    assert parts.holdings._turn() >= holdings.EVERY_SECONDS
    parts.client.delete(names.held("fra"))
    parts.looks()


def test_a_gateway_that_stops_leaves_no_connection_behind(parts):
    def is_connected() -> bool:
        return "gateway-holdings" in str(parts.client.client_list())

    parts.looks()
    assert is_connected()
    parts.holdings.stop()
    until(lambda: not is_connected(), "it to go")
