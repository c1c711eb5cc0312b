"""What a gateway does with the tasks of a region that is away: its standbys get them, and pinned tasks stay."""

import itertools
import json
import threading
import time
from datetime import datetime
from typing import Self

import pika
import pytest
import redis

from jobs import contract
from jobs.definition.catalog import Catalog
from regions import connect, names
from scripts.commands import options, region_drain
from tests.service.gateway import GatewayProcess, Stack
from tests.service.hub_parts import settings
from tests.sources import DEMO_LIST, DEMO_PLAIN
from tests.waiting import until
from tests.wire import ask
from web.flow import region_health, takeover
from web.flow.clean import Cleaner
from web.flow.publish import Publisher
from web.flow.takeover import Takeover
from web.hub.ledger import Ledger
from web.hub.redis import Hub
from web.hub.takeover import DRAINED, Record, drained_field, encode

WELL_SECONDS = 3.0
MOVES = "demo.list"  # of fra, with nyc as its standby
PINNED = "demo.pinned"
STAYS = "demo.stays"  # of fra, without a standby
LIST = {"source": MOVES, "params": {"category": "poetry"}}
BRIDGE = {"state": "consuming", "reason": "", "ready": 0}
POOL = {"processes": 2, "oldest_seconds": 0.0, "target_seconds": 2.0}


class Reporting:
    """Regions whose parts report, until they are left out; ``has`` says which sources a region runs."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._ended = stack, threading.Event()
        self.alive: set[str] = {"fra", "nyc", "sin"}
        self.late: set[str] = set()  # those whose oldest task waits for too long
        self._client = connect.open_redis(
            stack.hub.url, name="test-reporting", block_seconds=30.0
        )  # a busy hub ends it not
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)
        self._client.close()

    def _run(self) -> None:
        while not self._ended.wait(0.3):
            now = connect.redis_now_ms(self._client)
            for region in sorted(self.alive):
                pool = {**POOL, "oldest_seconds": 9.0} if region in self.late else POOL
                for part, said in (("bridge", BRIDGE), ("workers", pool)):
                    text = json.dumps({**said, "at_ms": now})
                    fields = {"k": "status", "v": 1, "part": part, "name": "h:1", "d": text}
                    self._client.xadd(names.out_stream(region), fields)

    def has(self, region: str, *sources: str, **more: str) -> None:
        """``more``: what else the region says of them, such as ``lacks``."""
        catalog = self._stack.gateway.catalog
        found = {one: {"definition": catalog.get(one).definition.hash, "fault": None, **more} for one in sources}
        self._stack.region.say_sources(region, found)


@pytest.fixture
def stack(tmp_path, rabbitmq, hub_redis):
    folder = tmp_path / "sources"
    folder.mkdir()
    for source, text in ((PINNED, "pinned = true"), (STAYS, "")):
        described = DEMO_PLAIN.replace('region = "nyc"', f'region = "fra"\n{text}')
        (folder / f"{source}.toml").write_text(described)
    well = {"NEARFETCH__GATEWAY__TAKEOVER_WELL_SECONDS": str(WELL_SECONDS)}
    one = Stack(tmp_path, rabbitmq, hub_redis, **well)
    one.region.purge()
    yield one
    one.region.purge()
    one.stop()


@pytest.fixture
def regions(stack):
    with Reporting(stack) as made:
        made.has("fra", MOVES, PINNED, STAYS)
        made.has("nyc", MOVES)
        until(lambda: not taken(stack) and not source(stack)["standby_faults"], "nyc to be ready")
        yield made


def taken(stack, region: str = "fra", port: int = 0) -> dict | None:
    return ask(port or stack.port, "GET", f"/v1/regions/{region}").json()["takeover"]


def source(stack, name: str = MOVES) -> dict:
    return ask(stack.port, "GET", f"/v1/sources/{name}").json()


def posted(stack, *sources) -> dict:
    reply = stack.post({"sources": list(sources), "deadline": 120})
    assert reply.status == 202, reply
    return reply.json()


def loses(stack, regions, region: str = "fra") -> None:
    regions.alive.discard(region)
    path = f"/v1/regions/{region}"
    until(lambda: ask(stack.port, "GET", path).json().get("takeover"), f"{region} to lose its tasks")


def test_what_a_region_loses_and_gets_again_is_written_at_the_hub_for_all_gateways(stack, regions):
    assert stack.hub.client.hgetall(names.TAKEOVER) == {}
    loses(stack, regions)
    assert stack.hub.client.hkeys(names.TAKEOVER) == [b"fra"]
    regions.alive.add("fra")
    until(lambda: not taken(stack), "fra to get its tasks again")
    assert stack.hub.client.hgetall(names.TAKEOVER) == {}


def test_new_tasks_of_a_silent_region_go_to_the_standby_and_say_why(stack, regions):
    loses(stack, regions)
    answer = posted(stack, LIST)
    [task] = answer["tasks"]
    assert task["region"] == "nyc"
    assert (task["moved"]["from"], task["moved"]["to"]) == ("fra", "nyc")
    assert task["moved"]["why"].startswith("down: nothing was heard of it")
    taken_by_nyc = stack.region.take("nyc")
    assert (taken_by_nyc.task, taken_by_nyc.region) == (task["id"], "nyc")
    stack.region.finish(taken_by_nyc)
    done = ask(stack.port, "GET", f"/v1/requests/{answer['id']}?wait=60").json()
    assert (done["status"], done["results"][0]["region"]) == ("succeeded", "nyc")
    assert done["tasks"] == [{**task, "status": "succeeded"}]
    where = ask(stack.port, "GET", f"/v1/tasks/{task['id']}").json()
    assert (where["region"], where["moved"]) == ("nyc", task["moved"])
    [hop] = [hop for hop in where["hops"] if hop["hop"] == "moved"]
    assert hop["note"].startswith("instead of fra (down")


def test_a_synchronous_call_is_answered_by_the_standby(stack, regions):
    loses(stack, regions)
    answers = []
    path = f"/v1/sources/{MOVES}/records?category=poetry&wait=60"
    calling = threading.Thread(target=lambda: answers.append(ask(stack.port, "GET", path)))
    calling.start()
    stack.region.finish(stack.region.take("nyc", fast=True))
    calling.join(60)
    assert (answers[0].status, answers[0].json()["region"]) == (200, "nyc")


@pytest.mark.parametrize("name", [PINNED, STAYS])
def test_tasks_that_may_not_move_stay_with_their_cancels(stack, regions, name):
    """Also while the standby would be well: their messages are in their own region's queues, and nowhere else."""
    regions.has("nyc", MOVES, PINNED, STAYS)
    loses(stack, regions)
    answer = posted(stack, name)
    [task] = answer["tasks"]
    assert (task["region"], "moved" in task) == ("fra", False)
    assert ask(stack.port, "DELETE", f"/v1/requests/{answer['id']}").json()["status"] == "cancelled"
    assert stack.region.take("fra").task == task["id"]
    channel = stack.region.channel
    cancel = until(lambda: channel.basic_get(names.fast_queue("fra"), auto_ack=True)[2], "the cancel in fra")
    assert contract.decode_cancel(cancel).task == task["id"]
    assert stack.region.is_empty("nyc")
    assert stack.region.is_empty("sin")
    why = {PINNED: "it is pinned", STAYS: "it has no standby"}[name]
    assert ask(stack.port, "GET", "/v1/regions/fra").json()["not_movable"][name] == why


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"lacks": "expected a secret of region nyc for this source, found TOKEN"}, "found TOKEN"),
        ({"fault": "demo.list.toml:4: url: expected a text"}, "expected a text"),
        ({"definition": "0ther"}, "it has definition 0ther, the gateway has"),
        (None, "it does not have the source"),
    ],
)
def test_a_standby_that_is_not_ready_says_so_beforehand_and_gets_nothing(stack, regions, said, why):
    regions.has("nyc", *([] if said is None else [MOVES]), **(said or {}))
    until(lambda: why in source(stack)["standby_faults"].get("nyc", ""), "the reason in the catalogue")
    assert why in ask(stack.port, "GET", "/v1/regions/fra").json()["not_movable"][MOVES]
    loses(stack, regions)
    assert posted(stack, LIST)["tasks"][0]["region"] == "fra"


def test_a_standby_that_is_away_itself_gets_nothing(stack, regions):
    loses(stack, regions, "nyc")
    loses(stack, regions)
    assert posted(stack, LIST)["tasks"][0]["region"] == "fra"


def test_a_region_gets_its_tasks_again_when_it_was_well_for_long_enough(stack, regions):
    loses(stack, regions)
    regions.alive.add("fra")
    well_since = until(lambda: (taken(stack) or {}).get("well_since"), "nothing to be wrong")
    region = posted(stack, LIST)["tasks"][0]["region"]
    assert region == "nyc" or not taken(stack)  # a machine that was busy for so long
    until(lambda: not taken(stack), "its tasks to come back")
    well_seconds = connect.redis_now_ms(stack.hub.client) / 1000 - datetime.fromisoformat(well_since).timestamp()
    assert well_seconds >= WELL_SECONDS
    assert posted(stack, LIST)["tasks"][0]["region"] == "fra"


def test_another_gateway_knows_it_too_and_decides_when_the_first_is_gone(stack, regions):
    with GatewayProcess(stack) as other:
        loses(stack, regions)
        until(lambda: taken(stack, port=other.port), "the other gateway to know")
        reply = ask(
            other.port,
            "POST",
            "/v1/requests",
            {"Content-Type": "application/json"},
            json.dumps({"sources": [LIST]}).encode(),
        )
        assert reply.json()["tasks"][0]["region"] == "nyc"
        stack.gateway.takeover.stop()
        stack.hub.client.delete(names.TAKEOVER_TURN)
        regions.alive.add("fra")
        until(lambda: not taken(stack, port=other.port), "the other gateway to decide")


def result_of(stack, answer: dict) -> dict:
    """The only result of a request, once it is done."""
    done = ask(stack.port, "GET", f"/v1/requests/{answer['id']}?wait=60").json()
    assert (done["done"], len(done["results"])) == (True, 1)
    return done["results"][0]


def test_tasks_that_wait_already_are_asked_of_the_standby_too(stack, regions):
    """Those with a standby; of both the first success stands, and the other region gets a cancel and may say what it likes."""
    moving, pinned, staying = (posted(stack, one) for one in (LIST, PINNED, STAYS))
    in_fra = {one.source: one for one in (stack.region.take("fra") for _ in range(3))}
    loses(stack, regions)
    in_nyc = stack.region.take("nyc")
    assert (in_nyc.task, in_nyc.region) == (in_fra[MOVES].task, "nyc")
    same = (
        "request",
        "source",
        "params",
        "url",
        "host",
        "definition",
        "accepted_ms",
        "deadline_ms",
        "expires_ms",
        "sync",
    )
    assert [getattr(in_nyc, one) for one in same] == [getattr(in_fra[MOVES], one) for one in same]
    assert stack.region.is_empty("nyc")
    stack.region.finish(in_nyc)
    assert result_of(stack, moving)["region"] == "nyc"
    channel = stack.region.channel
    cancel = until(lambda: channel.basic_get(names.fast_queue("fra"), auto_ack=True)[2], "the cancel in fra")
    assert contract.decode_cancel(cancel).task == in_nyc.task
    where = ask(stack.port, "GET", f"/v1/tasks/{in_nyc.task}").json()
    assert (where["region"], where["moved"]["asked"]) == ("nyc", ["fra", "nyc"])
    assert [hop["where"] for hop in where["hops"] if hop["hop"] in ("confirmed", "moved")] == ["rabbitmq q.fra", "nyc"]
    for task in in_fra.values():  # fra is back, and has done it all
        stack.region.finish(task)
    for answer in (pinned, staying):
        assert result_of(stack, answer)["region"] == "fra"
    assert result_of(stack, moving)["region"] == "nyc"
    until(lambda: not stack.hub.client.xlen(names.out_stream("fra")), "all that fra said to be read")
    assert not stack.hub.client.exists(names.result("fra", in_nyc.task))
    view = ask(stack.port, "GET", "/v1/regions/fra").json()
    assert (view["refused"], view["queue"]["open"]) == ({}, 0)
    assert ask(stack.port, "GET", "/v1/regions/nyc").json()["queue"]["open"] == 0


def test_a_client_that_cancels_is_heard_in_both_regions(stack, regions):
    answer = posted(stack, LIST)
    stack.region.take("fra")
    loses(stack, regions)
    task = stack.region.take("nyc")
    assert ask(stack.port, "DELETE", f"/v1/requests/{answer['id']}").json()["status"] == "cancelled"
    channel = stack.region.channel
    for region in ("fra", "nyc"):
        cancel = until(
            lambda one=region: channel.basic_get(names.fast_queue(one), auto_ack=True)[2], f"{region}'s cancel"
        )
        assert contract.decode_cancel(cancel).task == task.task


def test_many_waiting_tasks_are_asked_each_once(stack, regions, monkeypatch):
    monkeypatch.setattr(takeover, "SOME", 7)
    monkeypatch.setattr(takeover, "WALK_SECONDS", 0.1)
    tasks = {
        task["id"] for _ in range(3) for task in posted(stack, *[LIST] * 20, PINNED)["tasks"] if task["source"] == MOVES
    }
    loses(stack, regions)
    assert {stack.region.take("nyc").task for _ in tasks} == tasks
    assert stack.region.is_empty("nyc")


def test_what_another_gateway_noted_and_may_not_have_sent_is_sent_again(stack, regions):
    """A gateway died between its note and its message: the next one that decides can't know."""
    answer = posted(stack, LIST)
    loses(stack, regions)
    first = stack.region.take("nyc")
    with GatewayProcess(stack):
        stack.gateway.takeover.stop()
        stack.hub.client.delete(names.TAKEOVER_TURN)
        again = stack.region.take("nyc")
    assert (again.task, again.deadline_ms) == (first.task, first.deadline_ms)
    stack.region.finish(again)
    stack.region.finish(first)
    assert result_of(stack, answer)["region"] == "nyc"


def test_a_note_whose_answer_is_lost_is_read_again(stack, regions):
    """It took effect, and nothing was sent; the walk begins anew, and sends what is noted."""
    lost = []
    real = stack.gateway.ledger.ask_elsewhere

    def lose(*args, **options):
        found = real(*args, **options)
        if not lost and found:
            lost.append(found)
            raise redis.exceptions.TimeoutError("lost")
        return found

    stack.gateway.ledger.ask_elsewhere = lose
    answer = posted(stack, LIST)
    loses(stack, regions)
    assert stack.region.take("nyc").task == answer["tasks"][0]["id"]
    assert len(lost) == 1


def test_a_standby_that_was_asked_late_is_no_hostile_region(stack, regions):
    """Its result comes when fra's has settled: it is deleted and not counted, as that of a region that was never asked is."""
    answer = posted(stack, LIST)
    in_fra = stack.region.take("fra")
    loses(stack, regions)
    task = stack.region.take("nyc")
    stack.region.finish(in_fra)
    assert result_of(stack, answer)["region"] == "fra"
    found = []
    stack.gateway.holdings._note = lambda region, size: found.append(region)
    for region in ("nyc", "sin"):
        stack.hub.client.set(names.result(region, task.task), b"x" * 1000)
    until(
        lambda: not stack.hub.client.exists(names.result("nyc", task.task), names.result("sin", task.task)),
        "both to go",
    )
    until(lambda: found, "what went to be counted")  # the gateway learns of it a moment later
    assert found == ["sin"]


class Draining:
    """``nearfetch region drain fra`` in a thread; ``code`` when it has ended."""

    def __init__(self, stack, wait_seconds: float = 100.0) -> None:
        self.codes: list[int] = []
        self._thread = threading.Thread(
            target=lambda: self.codes.append(region_drain.drain(stack.settings, "fra", wait_seconds, as_json=False))
        )
        self._thread.start()

    @property
    def code(self) -> int:
        self._thread.join(120)
        return self.codes[0]


def test_an_operator_drains_a_region_and_brings_it_back(stack, regions, capsys):
    """What waits moves and gets a cancel, what runs finishes, what stays is answered, and no deadline changes."""
    queued, running = posted(stack, *[LIST] * 3), posted(stack, LIST)
    pinned = posted(stack, PINNED)
    in_fra = {one.task: one for one in (stack.region.take("fra") for _ in range(5))}
    [runs] = [task["id"] for task in running["tasks"]]
    claims = json.dumps([[running["id"], runs, 1, 5]])
    stack.region.redis.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": claims})
    until(lambda: ask(stack.port, "GET", f"/v1/tasks/{runs}").json()["status"] == "running", "the claim")
    draining = Draining(stack)
    moved = [stack.region.take("nyc") for _ in range(3)]
    assert {one.task for one in moved} == {task["id"] for task in queued["tasks"]}
    assert all(one.deadline_ms == in_fra[one.task].deadline_ms for one in moved)
    channel = stack.region.channel
    cancelled = set()
    for _ in moved:
        body = until(lambda: channel.basic_get(names.fast_queue("fra"), auto_ack=True)[2], "a cancel in fra")
        cancelled.add(contract.decode_cancel(body).task)
    assert cancelled == {one.task for one in moved}
    assert posted(stack, LIST)["tasks"][0]["moved"]["why"] == "drained"
    assert not draining.codes  # one runs
    stack.region.finish(in_fra[runs])
    assert draining.code == 0
    said = capsys.readouterr().out
    assert f"{PINNED} stays in fra, which answers it as long as it lives: it is pinned" in said
    assert "0 wait, 0 run, 3 asked of standbys, 1 stay" in said
    for one in moved:
        stack.region.finish(one)
    stack.region.finish(in_fra[pinned["tasks"][0]["id"]])
    done = [ask(stack.port, "GET", f"/v1/requests/{one['id']}?wait=60").json() for one in (queued, running, pinned)]
    assert [sorted(result["region"] for result in one["results"]) for one in done] == [["nyc"] * 3, ["fra"], ["fra"]]
    assert region_drain.resume(stack.settings, "fra") == 0
    until(lambda: not taken(stack), "fra to be drained no more")
    assert posted(stack, LIST)["tasks"][0]["region"] == "fra"


def test_a_drain_says_what_is_left_and_goes_on_when_the_command_ends(stack, regions, capsys):
    running = posted(stack, LIST)
    stack.region.take("fra")
    claims = json.dumps([[running["id"], running["tasks"][0]["id"], 1, 5]])
    stack.region.redis.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": claims})
    until(
        lambda: ask(stack.port, "GET", f"/v1/requests/{running['id']}").json()["tasks"][0]["status"] == "running", "it"
    )
    assert Draining(stack, 3.0).code == region_drain.SOME_LEFT
    assert "1 task left; it stays drained" in capsys.readouterr().err
    assert taken(stack)["why"] == "drained"


def test_a_drain_without_a_gateway_says_so(stack, regions, capsys, monkeypatch):
    monkeypatch.setattr(region_drain, "NO_GATEWAY_SECONDS", 0.2)
    stack.gateway.takeover.stop()
    stack.hub.client.delete(names.TAKEOVER_TURN)
    posted(stack, LIST)
    assert Draining(stack).code == options.NO_SERVER
    assert "no gateway moves tasks" in capsys.readouterr().err


@pytest.mark.parametrize("dead", ["fra", "nyc"])
def test_a_dead_letter_of_one_of_two_regions_leaves_the_task_to_the_other(stack, regions, dead):
    answer = posted(stack, LIST)
    in_fra = stack.region.take("fra")
    loses(stack, regions)
    asked = {"fra": in_fra, "nyc": stack.region.take("nyc")}
    gone = asked.pop(dead)
    deaths = [{"queue": names.work_queue(dead), "reason": "rejected", "count": 1}]
    properties = pika.BasicProperties(
        type="task", message_id=gone.task, correlation_id=gone.request, headers={"x-death": deaths}
    )
    stack.gateway.dead.bury(properties, contract.encode(gone))
    assert not ask(stack.port, "GET", f"/v1/requests/{answer['id']}").json()["done"]
    [(left, task)] = asked.items()
    stack.region.finish(task)
    assert result_of(stack, answer)["region"] == left


def test_a_late_region_and_its_standby_work_towards_each_other(stack, regions, monkeypatch):
    """The standby begins with the newest tasks, since the region goes on with the oldest; what runs stays where it is."""
    monkeypatch.setattr(takeover, "SOME", 3)
    posts = [posted(stack, LIST) for _ in range(8)]
    tasks = [one["tasks"][0]["id"] for one in posts]
    claims = json.dumps([[posts[0]["id"], tasks[0], 1, 5]])
    stack.region.redis.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": claims})
    until(lambda: ask(stack.port, "GET", f"/v1/tasks/{tasks[0]}").json()["status"] == "running", "the claim")
    regions.late.add("fra")
    until(lambda: taken(stack), "fra to lose its tasks")
    assert taken(stack)["why"] == "late"
    assert [stack.region.take("nyc").task for _ in tasks[1:]] == tasks[:0:-1]
    assert stack.region.is_empty("nyc")


def test_a_standby_that_a_source_names_no_more_answers_what_it_was_asked_and_is_not_blamed(stack, regions):
    answer = posted(stack, LIST)
    stack.region.take("fra")
    loses(stack, regions)
    task = stack.region.take("nyc")
    file = stack.folder / "sources" / f"{MOVES}.toml"
    file.write_text(file.read_text().replace('standby = ["nyc"]\n', ""))
    until(lambda: source(stack)["standby"] == [], "the changed definition")
    stack.region.finish(task, run=contract.Run(source=MOVES, definition=task.definition))
    assert result_of(stack, answer)["region"] == "nyc"
    until(lambda: not stack.hub.client.xlen(names.out_stream("nyc")), "all that nyc said to be read")
    assert ask(stack.port, "GET", "/v1/regions/nyc").json()["refused"] == {}


def test_a_broker_that_takes_nothing_is_asked_again_in_a_while_and_gets_each_task(stack, regions, monkeypatch):
    real, tried = stack.gateway.publisher.publish, []

    def refuse(batch) -> None:
        if len(tried) < 3 and any(message.routing_key == "nyc" for message in batch.messages):
            tried.append(time.monotonic())
            batch.end("the broker is away")
        else:
            real(batch)

    answer = posted(stack, LIST)
    monkeypatch.setattr(stack.gateway.publisher, "publish", refuse)
    loses(stack, regions)
    assert stack.region.take("nyc").task == answer["tasks"][0]["id"]
    assert all(later - one >= takeover.AGAIN_SECONDS for one, later in itertools.pairwise(tried))
    assert stack.region.is_empty("nyc")


@pytest.mark.usefixtures("patient_clients")
def test_the_next_look_is_no_sooner_than_something_may_be_to_be_done(tmp_path, hub_redis, monkeypatch):
    monkeypatch.setattr(takeover, "LEASE_MS", 600_000)
    monkeypatch.setattr(region_health, "BAD_MS", 600_000)
    found, client = settings(tmp_path, redis=hub_redis.url), hub_redis.client
    hub, publisher = Hub(found), Publisher(found)
    hub.run_once()
    ledger, catalog = Ledger(hub.client, found.limits), Catalog([tmp_path], "fra")
    one, other = (Takeover(found, hub, ledger, catalog, publisher, Cleaner(hub, ledger, publisher)) for _ in range(2))
    other._me = "another gateway"
    assert one._turn() == takeover.CALM_SECONDS
    (tmp_path / f"{MOVES}.toml").write_text(DEMO_LIST)
    catalog.refresh()
    assert one._turn() == takeover.HEALTHY_SECONDS  # nothing was heard of the regions, and some seconds have to pass
    assert other._turn() == takeover.EVERY_SECONDS  # it may have to decide as soon as the other one is gone
    client.hset(names.TAKEOVER, drained_field("fra"), encode(Record(why=DRAINED, since_ms=1)))
    assert one._turn() == takeover.EVERY_SECONDS  # no standby is ready
    ready = {MOVES: {"definition": catalog.get(MOVES).definition.hash, "fault": None}}
    client.hset(names.region_status("nyc"), "sources", json.dumps(ready))
    client.zadd(names.open_tasks("fra"), {"R/1": 1, "R/2": 2, "R/3": 3})
    monkeypatch.setattr(takeover, "SOME", 2)
    one._walks["fra"].due = 0.0
    assert one._turn() == takeover.SOON_SECONDS  # the third one is left
    assert one._turn() == takeover.EVERY_SECONDS
    hub.client.close()
