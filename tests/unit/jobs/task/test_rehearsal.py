"""The made-up tasks by which a worker process gets ready."""

import msgspec
import pytest

from jobs.task import rehearsal
from jobs.worker import __main__ as worker
from regions import settings
from regions.egress import Egress

SETTINGS = settings.load({})
REGION = SETTINGS.one("fra")


@pytest.mark.parametrize(
    "egress", [{"default": Egress()}, {"default": Egress(), "other": Egress(proxy="http://10.0.0.1:3128")}]
)
def test_each_made_up_task_takes_all_steps_and_asks_nobody(egress):
    region = msgspec.structs.replace(REGION, egress=egress)
    made_up = list(rehearsal.FOLDER.glob("*.toml"))
    assert len(made_up) == len(list(rehearsal.FOLDER.glob("*.http"))) > 1
    assert rehearsal.rehearse(SETTINGS, region) == ["succeeded"] * len(made_up)


def test_a_worker_process_rehearses_before_it_claims(monkeypatch):
    happened = []

    def enter(_argv, life):
        return life(SETTINGS, REGION, lambda _runner: "the loop")

    def rehearse(*given):
        happened.append(rehearsal.rehearse(*given))
        return happened[-1]

    monkeypatch.setattr(worker, "enter", enter)
    monkeypatch.setattr(worker, "rehearse", rehearse)
    monkeypatch.setattr(worker, "run", lambda loop: happened.append(loop) or 0)
    assert worker.main([]) == 0
    assert happened == [["succeeded"] * 2, "the loop"]
