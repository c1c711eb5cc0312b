"""A task's life: from a task to its frame, whatever the target does, through real sockets on this machine."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import jobs.task
from jobs import contract, result_frame
from jobs.contract import Result, Task
from jobs.errors import RateLimited
from jobs.parse.source import Source
from jobs.queue.claim import Ending
from jobs.queue.script import ROOM_MS
from jobs.task.execution import Execution
from jobs.task.life import shortened
from jobs.task.runner import Runner
from regions import names, settings
from regions.faults import Faults
from scripts.site.behave import Rule
from scripts.site.pages import books
from scripts.site.site import Site, origins
from tests.site import _well_behaved, site

__all__ = ["_well_behaved", "site"]

BOOKS = """
title = "Books"
url = 'https://books.toscrape.com/catalogue/category/books/{category}/index.html'
[params]
category = {required = true, example = "poetry_23"}
[rows]
css = "article.product_pod"
[fields]
title = "h3 a::attr(title)"
link = {css = "h3 a::attr(href)", type = "url"}
price = {css = ".price_color", type = "decimal"}
[next]
css = "li.next a::attr(href)"
max_pages = MAX
[contract]
required = ["title", "price"]
unique = ["link"]
absent = [404]
"""
TINY = """
title = "Tiny"
url = 'https://bench.example/tiny{?seconds}'
[params]
seconds = {}
[rows]
jmes = "rows"
[fields]
id = {type = "int"}
name = {}
[limits]
timeout_seconds = 5
"""
BIG = next(number for number in range(2, 52) if books.size(number) == 85)
BIG_CATEGORY = f"{books.CATEGORIES[BIG - 2].lower()}_{BIG}"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder of definitions."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "books.toml").write_text(BOOKS.replace("MAX", "10"))
    (folder / "tiny.toml").write_text(TINY)
    return folder


@pytest.fixture
def runner(site: Site, sources: Path) -> Iterator[Callable[..., Runner]]:
    """Makes runners of region fra; keywords are variables of the environment."""
    made: list[Runner] = []

    def make(**environ: str) -> Runner:
        fetch = {"FETCH__ALLOW": f"127.0.0.1:{site.port}", "FETCH__ORIGINS": origins(site.port)}
        given = {
            f"NEARFETCH__{key}": value for key, value in {"SOURCES__PATH": str(sources), **fetch, **environ}.items()
        }
        found = settings.load(given)
        made.append(Runner(found, found.one("fra")))
        return made[-1]

    yield make
    for one in made:
        one.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def make_task(source: str, seconds: float = 60.0, **params: Any) -> Task:
    now = now_ms()
    return Task(
        task="T1",
        request="R1",
        source=source,
        region="fra",
        params=params,
        url="https://user:pass@first.example/x",
        accepted_ms=now - 100,
        deadline_ms=now + int(seconds * 1000),
        expires_ms=now + 3_600_000,
    )


def run(
    runner: Runner,
    source: str,
    *,
    seconds: float = 60.0,
    failures: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
    **params: Any,
):
    wanted = make_task(source, seconds, **params)
    return opened(runner.run(Execution(wanted, attempt=2, failures=failures, queued_ms=3.14, cancelled=cancelled)))


def opened(ended: Ending) -> tuple[Result, list[dict[str, Any]], Ending]:
    """A result, its records, and how it ended, after checking that they agree."""
    result = result_frame.head(ended.outcome.frame)
    records = msgspec.json.decode(result_frame.splice(ended.outcome.frame))["records"]
    assert ended.outcome.status == result.status
    assert result.count == len(records)
    assert (ended.raw_bytes, ended.records_bytes) == (result.bytes.raw, result.bytes.records)
    assert ended.wire_bytes == result.bytes.wire == len(ended.outcome.frame)
    assert (result.error is None) == (result.status == "succeeded") == (ended.traceback == "")
    shown = ended.outcome.run
    assert (shown.source, shown.definition, shown.partial) == (result.source, result.definition, result.partial)
    assert (shown.error, shown.origin) == ((result.error.type, result.error.origin) if result.error else ("", ""))
    assert (shown.rows, shown.raw_bytes, shown.wire_bytes) == (result.count, result.bytes.raw, result.bytes.wire)
    assert (shown.received_bytes, shown.spared_bytes) == (result.bytes.received, result.bytes.spared)
    return result, records, ended


def test_a_task_becomes_a_frame_of_its_records(runner):
    result, records, ended = run(runner(), "tiny")
    assert records == [{"id": number, "name": f"row {number}"} for number in (1, 2, 3)]
    assert (result.task, result.source, result.region, result.attempts) == ("T1", "tiny", "fra", 2)
    assert result.url == "https://bench.example/tiny"
    assert (ended.outcome.request, ended.outcome.task) == ("R1", "T1")
    assert result.bytes.raw > result.bytes.records
    assert result.bytes.raw < result.bytes.received < result.bytes.raw + 500, "the head came, too"
    assert len(result.definition) == 8
    assert result.timing.queued_ms == 3.1
    assert result.timing.total_ms > 90 + result.timing.fetch_ms  # two clocks, in whole milliseconds
    assert abs(now_ms() - ended.outcome.finished_ms) < 60_000


def test_a_run_shows_which_fields_some_records_lack(runner, site):
    one = runner()
    assert run(one, "tiny")[2].outcome.run.gaps == {}
    bend(site, body='{"rows": [{"id": 1, "name": "a"}, {"id": 2}, {"id": 3, "name": ""}, {"id": 0, "name": "b"}]}')
    assert run(one, "tiny")[2].outcome.run.gaps == {"name": 2}


def test_a_run_that_failed_on_the_way_names_its_host(runner, site):
    bend(site, cut=20)
    wanted = msgspec.structs.replace(make_task("tiny"), host="https://bench.example:443")
    ended = runner().run(Execution(wanted))
    assert (ended.outcome.run.origin, ended.outcome.run.host) == ("network", wanted.host)
    bend(site, status=404)
    ended = runner().run(Execution(wanted))
    assert (ended.outcome.run.origin, ended.outcome.run.host) == ("target", "")


def test_times_are_the_hubs(runner):
    ahead = 7_200_000
    wanted = msgspec.structs.replace(make_task("tiny"), deadline_ms=now_ms() + ahead + 60_000)
    ended = runner().run(Execution(wanted, offset_ms=ahead))
    result, _, _ = opened(ended)
    assert ended.outcome.finished_ms > now_ms() + ahead - 60_000
    assert (result.fetched_at or "") > contract.rfc3339(now_ms() + ahead - 60_000)


def test_all_pages_are_followed(runner, site):
    before = site.fetches.since(0)[0]
    result, records, _ = run(runner(), "books", category=BIG_CATEGORY)
    assert (len(records), len({record["link"] for record in records})) == (85, 85)
    assert all(record["link"].startswith("https://books.toscrape.com/catalogue/") for record in records)
    assert site.fetches.since(before)[0] - before == 5
    assert result.url == f"https://books.toscrape.com/catalogue/category/books/{BIG_CATEGORY}/index.html"
    assert not result.partial


def test_no_more_pages_are_followed_than_the_source_says(runner, sources):
    (sources / "books.toml").write_text(BOOKS.replace("MAX", "2"))
    result, records, _ = run(runner(), "books", category=BIG_CATEGORY)
    assert (len(records), result.partial) == (40, False)
    assert result.warnings == ["page 2 is the last that max_pages allows; there is a further one"]


def test_a_later_page_that_fails_leaves_what_came_before(runner, site):
    folder = f"/books.toscrape.com/catalogue/category/books/{BIG_CATEGORY}/"
    site.behaviour.add(msgspec.convert({"prefix": folder + "page-3", "status": 500}, type=Rule))
    result, records, _ = run(runner(), "books", category=BIG_CATEGORY)
    assert (result.status, result.partial, len(records)) == ("succeeded", True, 40)
    assert result.warnings == ["page 3 failed: http_status: expected a page, found status 500"]


LEFT_OUT = "page 3 repeats page 1: it is left out, and no further one is asked for"
CUT = 'the page after page 1 is not asked for: expected one value, found "{"page":2}"'


@pytest.mark.parametrize(
    ("following", "last", "ids", "told", "partial"),
    [
        ('param = "page"', '"?page=2"', [1, 2], LEFT_OUT, False),
        ('param = "page"', "null", [1, 2], LEFT_OUT, False),
        ('jmes = "next"', '"?page=2"', [1, 2], LEFT_OUT, False),
        ('jmes = "next"', "null", [1, 2, 1], "page 3 repeats the records of page 1", False),
        ('jmes = "next.none"', '"?page=2"', [1], "", False),
        ('jmes = "{page: `2`}"', "null", [1], CUT, True),
    ],
)
def test_pages_that_come_again_or_can_not_be_asked_for(runner, site, sources, following, last, ids, told, partial):
    text = TINY.replace("{?seconds}", "{?page}").replace("seconds = {}", 'page = {type = "int"}')
    (sources / "paged.toml").write_text(f"{text}[next]\n{following}")
    first = '{"rows": [{"id": 1}], "next": "?page=2"}'
    bend(site, body=first.replace('"?page=2"', last))
    bend(site, body='{"rows": [{"id": 2}], "next": "?page=3"}', times=1)
    bend(site, body=first, times=1)
    result, records, _ = run(runner(), "paged")
    assert [record["id"] for record in records] == ids
    assert (result.warnings, result.partial) == ([told] if told else [], partial)


def bend(site: Site, **rule: Any) -> None:
    site.behaviour.add(msgspec.convert({"prefix": "/bench.example/", **rule}, type=Rule))


def failure(result: Result) -> contract.Error:
    assert result.error is not None
    return result.error


@pytest.mark.parametrize(
    ("status", "kind", "origin", "retryable"),
    [
        (404, "http_status", "target", False),
        (403, "http_status", "target", False),
        (500, "http_status", "target", True),
        (503, "http_status", "target", True),
        (408, "http_status", "target", True),
        (429, "rate_limited", "target", True),
    ],
)
def test_a_status_that_is_no_page_is_data_of_the_failure(runner, site, status, kind, origin, retryable):
    bend(site, status=status, headers={"Retry-After": "7"})
    result, _, ended = run(runner(), "tiny")
    error = failure(result)
    assert (error.type, error.origin, error.retryable) == (kind, origin, retryable)
    assert (error.http_status, error.retry_after) == (status, 7.0)
    assert result.bytes.received > result.bytes.raw > 0
    assert "Error" not in error.message
    assert f"jobs.errors.{'RateLimited' if status == 429 else 'HttpStatus'}: {error.message}" in ended.traceback


def test_a_failure_that_may_pass_is_tried_again_as_often_as_the_source_says(runner, site, sources):
    bend(site, status=503, headers={"Retry-After": "7"})
    one = runner()
    _, _, ended = run(one, "tiny")
    assert ended.retry is not None
    assert 7 <= ended.retry.wait_seconds <= 8
    assert (ended.retry.error, ended.retry.message) == ("http_status", "expected a page, found status 503")
    assert run(one, "tiny", seconds=7.5)[2].retry is None, "it would not fit before the deadline"
    assert run(one, "tiny", failures=2)[2].retry is None
    (sources / "tiny.toml").write_text(f"{TINY}retries = 3\n")
    one.refresh()
    assert run(one, "tiny", failures=2)[2].retry is not None
    bend(site, status=404)
    assert run(one, "tiny")[2].retry is None
    site.behaviour.reset()
    assert run(one, "tiny")[2].retry is None


def test_a_status_that_means_nothing_is_there_is_a_success_without_records(runner):
    result, records, _ = run(runner(), "books", category="nothing_99")
    assert (result.status, records) == ("succeeded", [])


def test_records_that_break_the_contract_fail(runner, site):
    bend(site, body='{"rows": []}')
    assert failure(run(runner(), "tiny")[0]).type == "contract"


def test_a_page_that_is_none_of_its_format_fails(runner, site):
    bend(site, body="<p>no JSON")
    assert failure(run(runner(), "tiny")[0]).type == "parse"


def test_a_body_that_is_cut_short_fails(runner, site):
    bend(site, cut=20)
    error = failure(run(runner(), "tiny")[0])
    assert (error.type, error.origin, error.retryable) == ("connection", "network", True)


def test_an_inner_address_is_refused(runner):
    result, _, _ = run(runner(FETCH__ALLOW=""), "tiny")
    assert (failure(result).type, failure(result).origin) == ("blocked_address", "policy")
    assert result.url == "https://first.example/x", "credentials are not shown"


def test_more_bytes_of_records_than_allowed_fail(runner):
    error = failure(run(runner(LIMITS__RECORDS_BYTES_MAX="50"), "tiny")[0])
    assert error.type == "too_large"
    assert error.message.startswith("expected at most 50 bytes of records, found ")


def test_a_source_that_the_region_does_not_have_is_unknown(runner):
    error = failure(run(runner(), "nobody")[0])
    assert (error.type, error.origin) == ("unknown_source", "region")


def test_a_source_that_is_broken_here_is_unknown_and_says_why(runner, sources):
    (sources / "tiny.toml").write_text('titel = "x"\n')
    error = failure(run(runner(), "tiny")[0])
    assert error.type == "unknown_source"
    assert "tiny.toml" in error.message


def test_a_changed_definition_is_taken_after_a_refresh(runner, sources):
    one = runner()
    first, _, _ = run(one, "tiny")
    (sources / "tiny.toml").write_text(TINY.replace("name = {}", 'label = {jmes = "name"}'))
    one.refresh()
    second, records, _ = run(one, "tiny")
    assert records[0] == {"id": 1, "label": "row 1"}
    assert second.definition != first.definition


def test_nothing_begins_past_the_deadline(runner, site):
    before = site.fetches.since(0)[0]
    assert failure(run(runner(), "tiny", seconds=-1)[0]).type == "expired"
    assert site.fetches.since(0)[0] == before


def test_a_task_without_a_turn_in_time_fetches_nothing_and_is_not_tried_again(runner, site):
    """Others with the same question share the failure only if their deadline is hardly later."""
    refusal = RateLimited("expected a turn of first.example before the deadline", retry_after=5.0, origin="region")
    before = site.fetches.since(0)[0]
    ended = runner().run(Execution(make_task("tiny"), refusal=refusal))
    assert failure(opened(ended)[0]).type == "rate_limited"
    assert (ended.retry, ended.shared_ms) == (None, ROOM_MS)
    assert site.fetches.since(0)[0] == before


def test_a_fetch_ends_before_the_deadline_so_that_its_error_counts(runner):
    wanted = msgspec.structs.replace(make_task("tiny", 1.5), params={"seconds": "30"})
    ended = runner().run(Execution(wanted))
    assert failure(opened(ended)[0]).type == "timeout"
    assert ended.outcome.finished_ms >= wanted.deadline_ms - 400


def test_a_cancelled_task_ends(runner, site):
    before = site.fetches.since(0)[0]
    wanted = msgspec.structs.replace(make_task("tiny"), params={"seconds": "30"})
    ended = runner().run(Execution(wanted, cancelled=lambda: site.fetches.since(0)[0] > before))
    assert failure(opened(ended)[0]).type == "cancelled"


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), MemoryError(), RecursionError("deep"), SystemExit(3)])
def test_whatever_is_unexpected_is_internal_and_keeps_its_traceback(runner, monkeypatch, error):
    def parse(self: Source, page: object) -> object:
        raise error

    monkeypatch.setattr(Source, "parse", parse)
    result, _, ended = run(runner(), "tiny")
    assert (failure(result).type, failure(result).origin) == ("internal", "internal")
    assert type(error).__name__ in failure(result).message
    assert "Traceback" in ended.traceback
    assert "in parse" in ended.traceback


def test_warnings_are_at_most_ten_with_counts():
    assert shortened(["a", "b", "a"]) == ["a (2 times)", "b"]
    many = shortened([f"w{number}" for number in range(15)] + ["w14"])
    assert len(many) == 10
    assert many[-1] == "and 7 more warnings"


def test_every_fault_of_the_settings_of_fetching_is_named(runner):
    with pytest.raises(Faults) as caught:
        runner(FETCH__ALLOW="x", FETCH__ORIGINS="y")
    assert [fault.key for fault in caught.value.faults] == ["fetch.allow", "fetch.origins"]


def test_the_function_that_jobs_name_is_here_and_refuses_a_stock_worker():
    module, _, name = names.JOB_FUNCTION.rpartition(".")
    assert (module, name) == ("jobs.task", "run")
    with pytest.raises(RuntimeError, match="expected a worker of Nearfetch"):
        jobs.task.run({"source": "tiny", "request": "R1"}, 0)
