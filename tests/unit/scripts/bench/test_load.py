"""``nearfetch bench`` believes no answer that it did not look at."""

import asyncio

import pytest

from scripts.bench import load, rows
from scripts.bench.load import Call, Finished, Result, Wrong, check
from scripts.bench.rows import ROWS

PAGE = ROWS["page"]


class Answering:
    """A contender whose answers are what a test says; only looking at them is asked of it."""

    def __init__(self, results: list[Result]) -> None:
        self._results = results

    def tasks(self, accepted: bytes) -> list[str]:
        return accepted.decode().split()

    def results(self, answer: bytes) -> list[Result]:
        return self._results


def result(task: str, number: int, status: str = "succeeded") -> Result:
    return Result(task, status, rows.records("page", number))


def looked_at(results: list[Result], *, times: int = 1) -> int:
    finished = Finished(0.0, [7, 8], b"a b", b"")
    return check(Answering(results), PAGE, [finished] * times)


def test_what_was_asked_for_is_counted():
    assert looked_at([result("b", 8), result("a", 7)]) == 2


@pytest.mark.parametrize(
    ("results", "fault"),
    [
        ([result("a", 7)], "expected the tasks"),
        ([result("a", 7), result("b", 8), result("b", 8)], "expected the tasks"),
        ([result("a", 7), result("c", 8)], "expected the tasks"),
        ([result("a", 8), result("b", 7)], "expected the records of page 7"),
        ([result("a", 7), result("b", 8)._replace(records=[])], "expected the records of page 8"),
        ([result("a", 7), result("b", 8, "failed")], "expected succeeded, found failed"),
    ],
)
def test_anything_else_ends_the_run(results, fault):
    with pytest.raises(Wrong, match=fault):
        looked_at(results)


def test_an_id_that_comes_twice_ends_the_run():
    with pytest.raises(Wrong, match="expected a new id for each task"):
        looked_at([result("a", 7), result("b", 8)], times=2)


@pytest.mark.parametrize("kind", ["tiny", "page"])
def test_a_pages_number_stands_in_each_of_its_records(kind):
    body = next(pieces for path, _, pieces in rows.bodies() if path == rows.PATHS[kind])
    for number in (0, 123_456_789):
        found = rows.hand(kind)(rows.numeral(number).join(body))
        assert found == rows.records(kind, number)
        assert len(found) == {"tiny": 3, "page": 20}[kind]
        assert all(f"{number:09d}" in str(record) for record in found)
    assert not any(one in rows.records(kind, 2) for one in rows.records(kind, 1))


def test_a_request_that_is_never_done_ends_the_run(monkeypatch):
    """Celery loses a result that its Redis has no room for; its clients would ask for ever."""

    class Losing(Answering):
        poll_seconds = 0.01

        def poll(self, accepted: bytes) -> Call:
            return Call("GET", f"/tasks/{accepted.decode()}")

        def done(self, answer: bytes) -> bool:
            return False

    class Asked:
        async def ask(self, call: Call, *expected: int) -> bytes:
            return b'{"done": 5}'

    monkeypatch.setattr(load, "LATEST_SECONDS", 0.05)
    with pytest.raises(Wrong, match=r"expected /tasks/a to be done .*found b'\{\"done\": 5\}'"):
        asyncio.run(load.polled(Losing([]), Asked(), [1], b"a"))
