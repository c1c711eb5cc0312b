"""A task for which two regions were asked, on a real Redis: the first success stands, and it ends once, whatever else they say."""

import json
from itertools import product

import msgspec
import pytest

from jobs import contract, result_frame
from regions import names
from regions.settings import Limits
from tests.service.hub_parts import new_request
from web.api.trail import document, whereabouts
from web.hub import ids, scripts
from web.hub.frame import made as frame_made
from web.hub.ledger import Ledger
from web.hub.new_request import New, Times
from web.hub.settlement import Settlement
from web.hub.takeover import Moved

ERROR = contract.Error(type="http_status", message="404", origin="target", http_status=404)
LEFT = 5_000  # ms before the deadline, when regions finish


class Parts:
    """A ledger; ``left`` are the cancels that it asked for."""

    def __init__(self, client) -> None:
        self.client = client
        self.ledger = Ledger(client, Limits())
        self.left: list[tuple[str, str]] = []
        self.ledger.left_out = self._cancel

    def _cancel(self, request: str, tasks: list[tuple[str, str]], deadline_ms: int, left_ms: int) -> None:
        assert deadline_ms == self.ledger.read(request).deadline_ms
        assert 0 < left_ms <= 30_000
        self.left += tasks

    def asked(self, *, sync: bool = False) -> tuple[New, Times]:
        """A request of one task, for which fra and nyc were asked."""
        made = new_request(sync=sync)
        request = ids.new()
        task = msgspec.structs.replace(made.tasks[0], id=ids.task(request, 1), may_move=True)
        new = msgspec.structs.replace(made, id=request, tasks=[task])
        times = self.ledger.begin(new)
        self.ledger.accept([new.id])
        [message] = self.ask(new)
        assert (message.region, message.task, message.sync) == ("nyc", task.id, sync)
        assert (message.deadline_ms, message.expires_ms) == (times.deadline_ms, times.expires_ms)
        member = names.due_member(new.id, task.id)
        for region in ("fra", "nyc"):
            assert self.client.zscore(names.open_tasks(region), member) == times.created_ms, region
        return new, times

    def ask(self, new: New, to: str = "nyc", *, queued_only: bool = False, again: bool = False) -> list[contract.Task]:
        moved = Moved(home="fra", to=to, why="down", at_ms=1, asked=("fra", to))
        wanted = [(new.id, new.tasks[0].id, moved)]
        return self.ledger.ask_elsewhere("fra", wanted, queued_only=queued_only, again=again)

    def says(self, new: New, times: Times, region: str, status: str, **changes) -> int:
        """What a region's result does."""
        return self.ledger.settle([self.settlement(new, times, region, status, **changes)])[0]

    def settlement(self, new: New, times: Times, region: str, status: str, **changes) -> Settlement:
        task = new.tasks[0]
        result = contract.Result(task=task.id, source=task.source, region=region, status=status, count=1)
        if status != "succeeded":
            result.error = ERROR
        frame = result_frame.encode(result, b'[{"a":1}]' if status == "succeeded" else b"[]")
        self.client.set(names.result(region, task.id), frame)
        said = {
            "finished_ms": times.deadline_ms - LEFT,
            "size_bytes": len(result_frame.splice(frame)),
            "trail": b"[0,[],null]",
        }
        return Settlement(request=new.id, task=task.id, region=region, status=status, **{**said, **changes})

    def ends(self, new: New, status: str) -> int:
        """As the sweep or a client's cancel ends it."""
        task = new.tasks[0]
        frame = frame_made(task.id, task.source, "fra", status, contract_error(status))
        one = Settlement(
            request=new.id, task=task.id, region="fra", status=status, finished_ms=0, size_bytes=len(frame), frame=frame
        )
        return self.ledger.settle([one])[0]

    def result(self, new: New) -> tuple[str, str]:
        """Returns (the status, the region) of the only result; checks what must be so of every task that has ended."""
        view = self.ledger.read(new.id)
        assert (view.done, view.completed, len(view.results)) == (True, 1, 1)
        found = json.loads(view.results[0])
        assert (view.tasks[0].status, view.tasks[0].region) == (found["status"], found["region"])
        for region in ("fra", "nyc"):
            assert not self.client.zcard(names.open_tasks(region)), region
            assert not self.client.exists(names.result(region, new.tasks[0].id)), region
        assert not self.client.zcard(names.DUE)
        return found["status"], found["region"]


def contract_error(status: str):
    from jobs.errors import Cancelled, Expired

    return Cancelled("a client") if status == "cancelled" else Expired("no result came by the deadline")


@pytest.fixture
def parts(hub_redis):
    return Parts(hub_redis.client)


@pytest.mark.parametrize("winner", ["fra", "nyc"])
def test_the_first_success_stands_and_the_other_region_gets_a_cancel(parts, winner):
    loser = {"fra": "nyc", "nyc": "fra"}[winner]
    new, times = parts.asked()
    assert parts.says(new, times, winner, "succeeded") == scripts.LAST
    assert parts.left == [(new.tasks[0].id, loser)]
    for status in ("succeeded", "failed", "succeeded"):
        assert parts.says(new, times, loser, status) == scripts.NOTHING
    assert parts.says(new, times, winner, "succeeded") == scripts.NOTHING
    assert parts.result(new) == ("succeeded", winner)
    assert len(parts.left) == 1


@pytest.mark.parametrize("first", ["fra", "nyc"])
@pytest.mark.parametrize("last", ["succeeded", "failed"])
def test_a_failure_waits_for_the_other_region(parts, first, last):
    second = {"fra": "nyc", "nyc": "fra"}[first]
    new, times = parts.asked()
    assert parts.says(new, times, first, "failed") == scripts.OUT
    assert not parts.ledger.read(new.id).done
    assert parts.says(new, times, first, "failed") == scripts.NOTHING  # read again
    assert parts.says(new, times, second, last) == scripts.LAST
    assert parts.result(new) == (last, second)
    assert parts.left == []


@pytest.mark.parametrize("hops", [b"[0,[],null]", b""])
def test_a_region_that_failed_has_the_task_no_more_and_its_hops_are_kept(parts, hops):
    new, times = parts.asked()
    task, trail = new.tasks[0].id, names.trail(new.id)
    assert parts.says(new, times, "fra", "failed", trail=hops) == scripts.OUT
    member = names.due_member(new.id, task).encode()
    assert parts.client.zrange(names.open_tasks("fra"), 0, -1) == []
    assert parts.client.zrange(names.open_tasks("nyc"), 0, -1) == [member]
    assert parts.client.hget(trail, f"{task}|fra") == (hops or None)
    if hops:
        assert parts.client.pexpiretime(trail) == times.expires_ms


def test_what_the_other_region_has_sent_by_the_end_is_deleted(parts):
    new, times = parts.asked()
    parts.settlement(new, times, "nyc", "succeeded")  # it has not been read yet
    assert parts.says(new, times, "fra", "succeeded") == scripts.LAST
    assert not parts.client.exists(names.result("nyc", new.tasks[0].id))


def test_a_failure_is_the_result_if_the_other_region_says_nothing_by_the_deadline(parts):
    new, times = parts.asked()
    assert parts.says(new, times, "fra", "failed") == scripts.OUT
    assert parts.ends(new, "expired") == scripts.LAST
    assert parts.result(new) == ("failed", "fra")
    assert json.loads(parts.ledger.read(new.id).results[0])["error"]["http_status"] == 404


def test_a_dead_letter_of_one_region_waits_for_the_other_and_counts_at_the_deadline(parts):
    new, times = parts.asked()
    task = new.tasks[0]
    frame = frame_made(task.id, task.source, "fra", "failed", contract_error("expired"))
    assert parts.says(new, times, "fra", "failed", frame=frame, size_bytes=len(frame)) == scripts.OUT
    assert parts.ends(new, "expired") == scripts.LAST
    assert parts.result(new) == ("failed", "fra")


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_what_the_hub_ends_waits_for_nobody(parts, status):
    new, times = parts.asked()
    assert parts.ends(new, status) == scripts.LAST
    assert parts.result(new)[0] == status
    assert parts.says(new, times, "nyc", "succeeded") == scripts.NOTHING
    assert parts.result(new)[0] == status


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_a_region_that_dropped_the_task_leaves_it_to_the_other_one(parts, status):
    """A region whose work was moved away says that it was cancelled, which no client wanted."""
    new, times = parts.asked()
    assert parts.says(new, times, "fra", status) == scripts.OUT
    assert parts.ends(new, "expired") == scripts.LAST
    assert parts.result(new)[0] == "expired"


@pytest.mark.parametrize("first", ["late", "without a frame"])
def test_a_success_that_does_not_count_waits_for_the_other_region(parts, first):
    new, times = parts.asked()
    changes = {"finished_ms": times.deadline_ms + 1} if first == "late" else {"size_bytes": 0}
    if first != "late":
        changes["size_bytes"] = -result_frame.HEAD_BYTES_MAX
    assert parts.says(new, times, "fra", "succeeded", **changes) == scripts.OUT
    assert parts.says(new, times, "nyc", "succeeded") == scripts.LAST
    assert parts.result(new) == ("succeeded", "nyc")


@pytest.mark.parametrize("order", [("fra", "nyc"), ("nyc", "fra")])
@pytest.mark.parametrize("how", list(product(["succeeded", "failed"], repeat=2)))
def test_all_that_both_say_in_one_write_ends_it_once(parts, order, how):
    """Each entry twice, as after a gateway's death."""
    new, times = parts.asked()
    said = list(zip(order, how, strict=True))
    settlements = [parts.settlement(new, times, region, status) for region, status in said]
    answers = parts.ledger.settle([one for one in settlements for _ in range(2)])
    assert sum(answer in scripts.ENDED for answer in answers) == 1
    successes = [one for one in said if one[1] == "succeeded"]
    region, status = successes[0] if successes else said[-1]
    assert parts.result(new) == (status, region)


def test_a_region_that_was_never_asked_changes_nothing(parts):
    new, times = parts.asked()
    assert parts.says(new, times, "sin", "succeeded") == scripts.NOTHING
    assert not parts.ledger.read(new.id).done
    assert parts.client.exists(names.result("sin", new.tasks[0].id)), "left for web.flow.holdings, which counts it"
    parts.client.delete(names.result("sin", new.tasks[0].id))
    assert parts.says(new, times, "nyc", "succeeded") == scripts.LAST
    assert parts.result(new) == ("succeeded", "nyc")


def test_either_region_shows_it_as_running_with_hops_of_its_own(parts):
    new, _ = parts.asked()
    task = new.tasks[0].id
    parts.ledger.mark_running("nyc", [(new.id, task, b"[1,[],null]")])
    parts.ledger.mark_running("fra", [(new.id, task, b"[2,[],null]")])
    parts.ledger.mark_running("sin", [(new.id, task, b"[3,[],null]")])
    assert parts.ledger.tasks(new.id)[0].status == "running"
    assert parts.client.hgetall(names.trail(new.id)) == {
        names.trail_field(task, "nyc").encode(): b"[1,[],null]",
        names.trail_field(task, "fra").encode(): b"[2,[],null]",
    }


def test_another_region_is_asked_once_and_for_what_was_accepted_and_is_open(parts):
    new, times = parts.asked()
    assert parts.ask(new) == []
    assert [one.region for one in parts.ask(new, again=True)] == ["nyc"]  # its message may not have been sent
    assert parts.ask(new, "sin") == parts.ask(new, "sin", again=True) == []
    parts.says(new, times, "nyc", "succeeded")
    assert parts.ask(new, again=True) == []
    opened = msgspec.structs.replace(new, id=ids.new())
    parts.ledger.begin(opened)
    assert parts.ask(opened) == [], "its accept may be refused"


def test_what_runs_is_left_where_only_the_queue_is_moved(parts):
    request = ids.new()
    made = new_request()
    task = msgspec.structs.replace(made.tasks[0], id=ids.task(request, 1), may_move=True)
    new = msgspec.structs.replace(made, id=request, tasks=[task])
    parts.ledger.begin(new)
    parts.ledger.accept([new.id])
    parts.ledger.mark_running("fra", [(new.id, task.id, b"")])
    assert parts.ask(new, queued_only=True) == []
    assert [one.task for one in parts.ask(new)] == [task.id]


def test_a_task_that_may_not_move_is_never_asked_elsewhere(parts):
    """Nothing that could ask another region is kept of it."""
    new = new_request()
    parts.ledger.begin(new)
    parts.ledger.accept([new.id])
    assert not parts.client.exists(names.ask(new.id))
    assert parts.ask(new) == []
    assert parts.client.hget(names.ledger(new.id), f"t:{new.tasks[0].id}") == b"queued|fra"


def test_a_refusal_forgets_it_in_both_regions(parts):
    new, _ = parts.asked()
    assert parts.ledger.refuse(new.id, [(new.tasks[0].id, "fra")])
    assert not parts.client.zcard(names.open_tasks("fra"))
    assert not parts.client.zcard(names.open_tasks("nyc"))


@pytest.mark.parametrize("end", ["fra", "nyc", "cancelled", "expired"])
def test_the_ledger_knows_both_regions_before_and_after_the_end_and_no_other(parts, end):
    """By that it tells a region that ran a source which was deleted since from one that speaks of another's."""
    new, times = parts.asked()
    (task,) = new.tasks

    def were_asked() -> list[bool]:
        return parts.ledger.were_asked([(new.id, task.id, task.source, region) for region in ("fra", "nyc", "sin")])

    assert were_asked() == [True, True, False]
    if end in ("fra", "nyc"):
        parts.says(new, times, {"fra": "nyc", "nyc": "fra"}[end], "failed")
        assert were_asked() == [True, True, False]
        parts.says(new, times, end, "succeeded")
    else:
        parts.ends(new, end)
    assert parts.result(new)[0] == ("succeeded" if end in ("fra", "nyc") else end)
    assert were_asked() == [True, True, False]
    others = [
        (ids.new(), task.id, task.source),
        (new.id, ids.task(new.id, 2), task.source),
        (new.id, task.id, "another"),
    ]
    assert parts.ledger.were_asked([(*one, "fra") for one in others]) == [False, False, False]
    assert parts.ledger.were_asked([]) == []


@pytest.mark.parametrize("wrong_ms", [-40, 40])
def test_hops_of_both_regions_lie_between_those_of_the_hub(parts, wrong_ms):
    """However far off their clocks are."""
    new, times = parts.asked()
    task = new.tasks[0].id
    for region in ("nyc", "fra"):
        at_ms = times.created_ms + wrong_ms
        ran = contract.Trail(at_ms, [contract.Attempt(1, at_ms + 1, 0, f"{region}.worker.1", "", "")])
        parts.ledger.mark_running(region, [(new.id, task, contract.encode_trail(ran))])
    parts.says(new, times, "nyc", "succeeded", trail=contract.encode_trail(ran))
    found = document(whereabouts(parts.client, new.id, task))["hops"]
    names_of = [hop["hop"] for hop in found if hop["hop"] not in ("confirmed", "moved")]
    # Which region's come first depends on whether the hub's own time has passed theirs by then.
    by_region = ["accepted", "bridged", "claimed", "bridged", "claimed", "settled"]
    by_time = ["accepted", "bridged", "bridged", "claimed", "claimed", "settled"]
    assert names_of in (by_region, by_time)
