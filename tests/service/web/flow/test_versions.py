"""The hub reads what regions of one version before and after its own append, whatever more they say; and nothing else."""

import json

import msgspec
import pytest

from jobs import contract
from regions import names
from tests.service.hub_parts import Heard, new_request, send_home, settings
from tests.waiting import until
from web.flow.settle import Settler
from web.hub.ledger import Ledger
from web.hub.redis import Hub

OLDER, OWN, NEWER = contract.VERSION - 1, contract.VERSION, contract.VERSION + 1


class Half:
    """What reads the out streams, and one accepted request."""

    def __init__(self, tmp_path, hub_redis):
        found = settings(tmp_path, redis=hub_redis.url)
        self.client = hub_redis.client
        self.hub = Hub(found)
        self.hub.start()
        self.ledger = Ledger(self.hub.client, found.limits)
        self.settler = Settler(found, self.hub, self.ledger, Heard())
        self.new = new_request()
        self.times = self.ledger.begin(self.new)
        self.ledger.accept([self.new.id])

    @property
    def task(self):
        return self.new.tasks[0]

    @property
    def status(self) -> str:
        return self.ledger.tasks(self.new.id)[0].status

    def append(self, **fields):
        self.client.xadd(names.out_stream("fra"), fields)

    def read_all(self):
        until(lambda: self.settler.run_once() or not self.client.xlen(names.out_stream("fra")), "everything to be read")


@pytest.fixture
def half(patient_clients, tmp_path, hub_redis):
    one = Half(tmp_path, hub_redis)
    yield one
    one.hub.stop()


@pytest.mark.parametrize("version", [OLDER, OWN, NEWER])
def test_a_result_of_a_version_beside_its_own_ends_its_task_as_it_says(half, version):
    send_home(half.client, half.new, half.task, half.times.created_ms + 10, v=version)
    half.read_all()
    assert half.status == "succeeded"
    assert json.loads(half.ledger.read(half.new.id).results[0])["count"] == 1


@pytest.mark.parametrize("version", [NEWER + 1, NEWER + 2])
def test_a_result_of_another_version_ends_its_task_and_names_what_is_read(half, version):
    send_home(half.client, half.new, half.task, half.times.created_ms + 10, v=version)
    half.read_all()
    error = json.loads(half.ledger.read(half.new.id).results[0])["error"]
    assert error["message"] == f"expected a result of version {OLDER} to {NEWER}, found {version}"


@pytest.mark.parametrize(("version", "status"), [(OLDER, "running"), (NEWER, "running"), (NEWER + 1, "queued")])
def test_claims_of_a_version_beside_its_own_are_shown(half, version, status):
    trail = [1, [[1, 2, 0, "w", "", ""]], None, "what comes later"]
    claim = [[half.new.id, half.task.id, 1, 2, trail, "and after it"]]
    half.append(k="claims", v=version, d=json.dumps(claim), more="of a later version")
    half.read_all()
    assert half.status == status


@pytest.mark.parametrize(("version", "is_kept"), [(OLDER, True), (NEWER, True), (OLDER - 1, False), (NEWER + 1, False)])
def test_what_a_part_says_in_a_version_beside_its_own_is_kept(half, version, is_kept):
    said = {"at_ms": half.times.created_ms, "state": "consuming", "later": {"than": "this"}}
    half.append(k="status", v=version, part="bridge", name="b:1", d=json.dumps(said), more="of a later version")
    half.read_all()
    assert ("bridge:b:1" in half.ledger.regions(["fra"])[0].reported) == is_kept


@pytest.mark.parametrize(("version", "is_read"), [(OLDER, True), (NEWER, True), (OLDER - 1, False), (NEWER + 1, False)])
def test_a_message_of_a_version_beside_its_own_is_read_with_fields_that_nobody_knows(version, is_read):
    task = contract.Task(
        task="T", request="R", source="s", region="fra", accepted_ms=1, deadline_ms=2, expires_ms=3, v=version
    )
    cancel = contract.Cancel(task="T", request="R", deadline_ms=2, v=version)
    for message, decode in ((task, contract.decode_task), (cancel, contract.decode_cancel)):
        body = msgspec.json.encode({**msgspec.to_builtins(message), "later": ["than", "this"]})
        if is_read:
            assert decode(body) == message
        else:
            with pytest.raises(contract.UnknownVersion, match=f"of version {OLDER} to {NEWER}, found {version}"):
                decode(body)
