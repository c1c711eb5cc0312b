"""The answers of a whole stack, in every way that a client can wait for them, and when a part is away."""

import itertools
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
import ulid

from regions.settings import ROOT
from tests.stack.driving import Ledger, in_order
from tests.waiting import until
from tests.wire import Reply, ask, events

FIVE = [
    "ecb.rates",
    "quakes.day",
    "hn.front",
    {"source": "books.list", "params": {"category": "poetry_23"}},
    "slow.example",
]
README = ROOT / "clients" / "python" / "README.md"
CLIENTS, TRIES = 200, 5
EARLY_SECONDS = 2.0  # before a page was there somebody asked for it, and his task was in its region
SOON = 20.0  # seconds: what goes to a region by mistake is waited for 30


@pytest.fixture(scope="module")
def stack(forked_stack):
    return forked_stack


def test_polls_with_after_bring_the_fast_ones_before_the_slow_one(stack):
    ledger = Ledger(stack)
    request = ledger.post(FIVE)
    ledger.collect(request)
    ledger.check()
    in_order(ledger.delivered)  # on a busy machine any of them may be slow
    assert ledger.delivered[0]["source"] != "slow.example"
    assert {result["region"] for result in ledger.delivered} == {"fra", "nyc", "sin"}
    fetched = [result["bytes"] for result in ledger.delivered if result["bytes"]["raw"]]  # an unchanged page is not
    assert sum(size["raw"] for size in fetched) >= 3 * sum(size["records"] for size in fetched)


def test_the_python_clients_readme_runs_as_printed(stack, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    monkeypatch.setenv("NEARFETCH_URL", stack.url)
    exec(compile(code, str(README), "exec"), {})
    first, *results, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("USD", "target http_status")
    assert sorted(results) == ["books.list succeeded 20", "ecb.rates succeeded 31"]


def test_an_event_stream_brings_each_result_once_and_resumes_where_it_broke(stack):
    ledger = Ledger(stack)
    request = ledger.post(FIVE)
    path = f"/v1/requests/{request}/events"
    first = list(itertools.islice(events(stack.port, path), 2))
    rest = list(events(stack.port, path, first[-1].id))
    assert [event.name for event in first + rest] == ["result"] * 5 + ["done"]
    ledger.delivered = [event.data for event in first + rest if event.name == "result"]
    ledger.check()
    assert rest[-1].data["done"] is True
    assert "results" not in rest[-1].data


def test_a_synchronous_request_answers_with_its_records(stack):
    reply = posted(stack, {"Prefer": "wait=50"}, "ecb.rates")
    assert (reply.status, reply.headers["preference-applied"]) == (200, "wait=50")
    answer = reply.json()
    assert answer["done"] is True
    assert answer["results"][0]["count"] == len(answer["results"][0]["records"]) > 20


def test_a_clients_trace_stands_in_the_log_of_every_part_that_had_the_task(stack):
    trace = "5bf92f3577b34da6a3ce929d0e0e4736"
    head = {"Prefer": "wait=50", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    result = posted(stack, head, "quakes.day").json()["results"][0]
    assert result["traceparent"] == head["traceparent"]
    for part in ("gateway", "bridge-nyc", "workers-nyc"):
        lines = until(
            lambda part=part: [
                line
                for line in stack.log(part).rpartition("\n")[0].splitlines()
                if trace in line and result["task"] in line
            ],
            f"{part} to log it",
        )
        # A busy machine may have refused a post with it before.
        told = [task for line in lines if (task := json.loads(line).get("task"))]
        assert told.count(result["task"]) == 1, told


def test_a_source_slower_than_the_wait_is_a_202_and_comes_later(stack):
    reply = posted(stack, {"Prefer": "wait=1"}, "slow.example")
    assert reply.status == 202
    assert "preference-applied" not in reply.headers
    later = ask(stack.port, "GET", f"{reply.headers['location']}?wait=50")
    assert (later.status, later.json()["status"]) == (200, "succeeded")
    assert later.json()["id"] == reply.json()["id"]


def test_an_answer_that_may_be_a_little_old_is_not_fetched_again(stack, inside):
    """The same records, also by the command line; where it was says whose result it is."""
    query = "/v1/sources/books.list/records?category=travel_2"
    first = stack.get(query)
    pages = "/books.toscrape.com/catalogue/category/books/travel_2/index.html"
    fetches = inside.fetches(pages)
    assert fetches > 0
    reply = ask(stack.port, "GET", f"{query}&max_age=600")
    second = reply.json()
    assert (reply.status, second["cached"], reply.headers["age"]) == (200, True, str(int(second["age"])))
    assert (second["records"], second["fetched_at"]) == (first["records"], first["fetched_at"])
    words = ("books.list", "category=travel_2", "--max-age", "600")
    third = json.loads(stack.nearfetch("fetch", *words, "--json", "--url", stack.url).stdout)
    assert (third["cached"], third["records"]) == (True, first["records"])
    assert third["age"] >= second["age"]
    assert " s old" in (shown := stack.nearfetch("fetch", *words, "--url", stack.url).stdout) or " ms old" in shown
    assert f"the result of {first['task']}" in stack.nearfetch("where", third["task"], "--url", stack.url).stdout
    assert inside.fetches(pages) == fetches


def test_what_200_clients_ask_at_once_is_fetched_once(stack, inside):
    """``slow.example`` takes longer than all of them to ask, whoever they are; on a busy machine they try again, also where it refuses some."""
    page = "/slow.example/"
    inside.behave(prefix=page, delay_seconds=4)
    found, fetches = [], 0
    for _ in range(TRIES):
        before = inside.fetches(page)
        answers = asked_at_once(stack)
        statuses = {answer.status for answer in answers}
        if statuses == {200, 503}:  # a busy broker confirms too late now and then
            continue
        assert statuses == {200}
        found, fetches = [answer.json() for answer in answers], inside.fetches(page) - before
        first = min(datetime.fromisoformat(result["fetched_at"]).timestamp() for result in found)
        if max(ulid.ULID.from_str(result["task"]).timestamp for result in found) < first - EARLY_SECONDS:
            break
    assert len({result["task"] for result in found}) == CLIENTS
    assert {result["fetched_at"] for result in found} == {found[0]["fetched_at"]}
    assert {(result["cached"], result["stale"], result["count"]) for result in found} == {(False, False, 3)}
    assert fetches == 1
    (asked,) = [result["task"] for result in found if result["attempts"]]
    told = next(result["task"] for result in found if not result["attempts"])
    hops = stack.get(f"/v1/tasks/{told}")["hops"]
    assert f"its answer is that of {asked}, which asked the same" in [hop.get("note") for hop in hops]


def posted(stack, headers: dict[str, str], source: str):
    """The answer to a post of one source, once it was not refused: a busy broker confirms too late now and then."""
    body = {"sources": [source]}
    return until(
        lambda: (found := ask(stack.port, "POST", "/v1/requests", headers, body)).status != 503 and found, source
    )


def asked_at_once(stack) -> list[Reply]:
    """The answers to clients that ask when all of them are there."""
    ready = threading.Barrier(CLIENTS)

    def one(_):
        ready.wait()
        return ask(stack.port, "GET", "/v1/sources/slow.example/records?wait=60", timeout_seconds=90)

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(one, range(CLIENTS)))


def test_a_source_that_fails_says_whose_fault_it_is(stack, inside):
    inside.behave(prefix="/www.ecb.europa.eu/", status=503)
    path = "/v1/sources/ecb.rates/records"
    reply = until(lambda: (found := ask(stack.port, "GET", path)).status != 503 and found, "an answer")
    assert reply.status == 502
    error = reply.json()["result"]["error"]
    assert (error["type"], error["origin"], error["http_status"]) == ("http_status", "target", 503)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/requests", {"sources": ["no.such"]}, 422),
        ("POST", "/v1/requests", {"sources": [{"source": "books.list", "params": {"category": 5, "x": 1}}]}, 422),
        ("POST", "/v1/requests", {"sources": ["ecb.rates"] * 101}, 422),
        ("POST", "/v1/requests", {"sources": ["ecb.rates"], "deadline": 301}, 422),
        ("GET", "/v1/sources/no.such/records", None, 404),
        ("GET", "/v1/requests/01M87NM5A96R7ZKD2ZVZPK23MZ", None, 404),
        ("GET", "/v1/requests/nonsense", None, 404),
        ("PUT", "/v1/requests", {}, 405),
    ],
)
def test_what_is_wrong_is_a_problem_document_at_once(stack, method, path, body, expected):
    path = path.replace("01M87NM5A96R7ZKD2ZVZPK23MZ", str(ulid.ULID()))
    started = time.monotonic()
    reply = ask(stack.port, method, path, body=body)
    assert time.monotonic() - started < SOON
    assert (reply.status, reply.json()["status"]) == (expected, expected)
    assert reply.headers["content-type"] == "application/problem+json"


def test_what_is_no_json_is_a_400(stack):
    assert ask(stack.port, "POST", "/v1/requests", {"Content-Type": "application/json"}, b"{").status == 400


def test_the_dashboard_shows_finished_and_failed_jobs_that_can_be_read(stack, inside):
    inside.behave(prefix="/earthquake.usgs.gov/", status=404)  # also for posts that a busy machine refuses
    ledger = Ledger(stack)
    request = ledger.post(["quakes.day"])
    ledger.collect(request)
    inside.behave()
    failed = ledger.delivered[0]
    assert failed["status"] == "failed"
    finished = Ledger(stack)
    finished.collect(finished.post(["hn.front"]))
    pages = (
        dashboard(inside, "nyc", "/0/view/jobs/nyc/failed/8/dsc/1"),
        dashboard(inside, "nyc", "/0/data/jobs/nyc/failed/50/dsc/1.json"),
    )
    assert {status for status, _ in pages} == {200}
    shown = {job["id"]: job for job in json.loads(pages[1][1])["jobs"]}
    assert f"quakes.day {{}}  request {request}" in shown[failed["task"]]["description"]
    status, text = dashboard(inside, "nyc", f"/0/data/job/{failed['task']}.json")
    assert status == 200
    assert "404" in text
    status, text = dashboard(inside, "nyc", "/0/data/jobs/nyc/finished/50/dsc/1.json")
    assert finished.delivered[0]["task"] in text


def dashboard(inside, region: str, path: str):
    """(status, text) of a page of a region's rq-dashboard."""
    import base64

    credentials = base64.b64encode(f"ops:{inside.secrets[f'dashboard {region}']}".encode()).decode()
    reply = ask(inside.ports[f"dashboard {region}"], "GET", path, {"Authorization": f"Basic {credentials}"})
    return reply.status, reply.body.decode()
