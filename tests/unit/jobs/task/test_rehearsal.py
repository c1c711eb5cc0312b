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


def test_what_fails_in_a_rehearsal_is_logged_and_stops_no_process(monkeypatch, capfd):
    def broken(*_):
        raise RuntimeError("no rehearsal")

    with monkeypatch.context() as patched:
        patched.setattr(rehearsal.Runner, "run", broken)
        assert rehearsal.rehearse(SETTINGS, REGION) == []
    assert "no rehearsal" in "".join(capfd.readouterr())
    monkeypatch.setattr(rehearsal._Answers, "connect", broken)
    assert set(rehearsal.rehearse(SETTINGS, REGION)) == {"failed"}
    assert "the rehearsal failed" in "".join(capfd.readouterr())


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
