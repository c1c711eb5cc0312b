"""What a gateway counts of the tasks that it ended."""

import time

from jobs.contract import Run
from web.hub import ids
from web.hub.settlement import Settlement
from web.hub.tally import Tally


def settlement(status: str = "succeeded", run: Run | None = None, **changes) -> Settlement:
    request = ids.new()
    known = {"request": request, "task": ids.task(request, 1), "region": "fra", "finished_ms": 1, "size_bytes": 2}
    return Settlement(**{**known, "status": status, "run": run, **changes})


def counted(tally: Tally, name: str) -> dict:
    return {labels: number for one, labels, number in tally.samples() if one == name}


def test_results_count_by_source_region_status_and_whose_fault_it_was() -> None:
    tally = Tally()
    good = Run(source="ecb.rates", definition="d", raw_bytes=100, received_bytes=40, wire_bytes=7)
    tally.ended([settlement(run=good), settlement(run=good)])
    tally.ended([settlement("failed", Run(source="ecb.rates", definition="d", error="http_status", origin="target"))])
    tally.ended([settlement("expired", source="hn.front", origin="internal"), settlement("cancelled")])
    assert counted(tally, "nearfetch_results_total") == {
        ("ecb.rates", "fra", "succeeded", ""): 2,
        ("ecb.rates", "fra", "failed", "target"): 1,
        ("hn.front", "fra", "expired", "internal"): 1,
        ("", "fra", "cancelled", ""): 1,
    }
    assert counted(tally, "nearfetch_source_bytes_total") == {
        ("ecb.rates", "fra", "raw"): 200,
        ("ecb.rates", "fra", "received"): 80,
        ("ecb.rates", "fra", "home"): 14,
    }


def test_a_failure_in_whose_place_an_older_answer_came_is_a_success() -> None:
    tally = Tally()
    tally.ended([settlement(run=Run(source="s", definition="d", error="timeout", origin="network"))])
    assert counted(tally, "nearfetch_results_total") == {("s", "fra", "succeeded", ""): 1}


def test_a_task_took_the_time_since_its_id_was_made() -> None:
    tally = Tally()
    tally.ended([settlement(), settlement(task="no id of ours")])
    cells = counted(tally, "nearfetch_task_seconds")["fra", "succeeded"]
    assert sum(cells[:-1]) == 2
    assert cells[-1] / 1e6 < 60


def test_an_id_says_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    request = ids.new()
    assert before <= ids.made_ms(request) <= time.time_ns() // 1_000_000
    assert ids.made_ms(ids.task(request, 700)) == ids.made_ms(request)
