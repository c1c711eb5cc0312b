"""The answers of a whole stack, in every way that a client can wait for them, and when a part is away."""

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ulid

from tests.stack.driving import Ledger, ask

FIVE = [
    "ecb.rates",
    "quakes.day",
    "hn.front",
    {"source": "books.list", "params": {"category": "poetry_23"}},
    "slow.example",
]
CLIENTS = 200
SOON = 10.0  # seconds: what goes to a region by mistake is waited for 30


def test_polls_with_after_bring_the_fast_ones_before_the_slow_one(stack):
    ledger = Ledger(stack)
    request = ledger.post(FIVE)
    ledger.collect(request)
    ledger.check()
    assert ledger.delivered[-1]["source"] == "slow.example"
    assert {result["region"] for result in ledger.delivered} == {"fra", "nyc", "sin"}
    fetched = [result["bytes"] for result in ledger.delivered if result["bytes"]["raw"]]  # an unchanged page is not
    assert sum(size["raw"] for size in fetched) >= 3 * sum(size["records"] for size in fetched)


def events(stack, request: str, last_event_id: str = "", stop_after: int = 0):
    """(event, id, data) of a stream until its end, or until so many came."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    connection.request("GET", f"/v1/requests/{request}/events", headers=headers)
    response = connection.getresponse()
    assert response.getheader("Content-Type").startswith("text/event-stream")
    found, fields = [], {}
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if not line and "event" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
            fields = {}
            if stop_after and len(found) == stop_after:
                break
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
    connection.close()
    return found


def test_an_event_stream_brings_each_result_once_and_resumes_where_it_broke(stack):
    ledger = Ledger(stack)
    request = ledger.post(FIVE)
    first = events(stack, request, stop_after=2)
    rest = events(stack, request, first[-1][1])
    names = [name for name, _, _ in first + rest]
    assert names == ["result"] * 5 + ["done"]
    ledger.delivered = [data for name, _, data in first + rest if name == "result"]
    ledger.check()
    assert rest[-1][2]["done"] is True
    assert "results" not in rest[-1][2]


def test_a_synchronous_request_answers_with_its_records(stack):
    status, headers, answer = ask(stack, "POST", "/v1/requests", {"sources": ["ecb.rates"]}, {"Prefer": "wait=10"})
    assert (status, headers["Preference-Applied"]) == (200, "wait=10")
    assert answer["done"] is True
    assert answer["results"][0]["count"] == len(answer["results"][0]["records"]) > 20


def test_a_source_slower_than_the_wait_is_a_202_and_comes_later(stack):
    status, headers, answer = ask(stack, "POST", "/v1/requests", {"sources": ["slow.example"]}, {"Prefer": "wait=1"})
    assert status == 202
    assert "Preference-Applied" not in headers
    status, _, later = ask(stack, "GET", f"{headers['Location']}?wait=30")
    assert (status, later["status"]) == (200, "succeeded")
    assert later["id"] == answer["id"]


def test_an_answer_that_may_be_a_little_old_is_not_fetched_again(stack, inside):
    """The same records, also by the command line; where it was says whose result it is."""
    query = "/v1/sources/books.list/records?category=travel_2"
    first = ask(stack, "GET", query)[2]
    pages = "/books.toscrape.com/catalogue/category/books/travel_2/index.html"
    fetches = inside.fetches(pages)
    assert fetches > 0
    status, headers, second = ask(stack, "GET", f"{query}&max_age=600")
    assert (status, second["cached"], headers["Age"]) == (200, True, str(int(second["age"])))
    assert (second["records"], second["fetched_at"]) == (first["records"], first["fetched_at"])
    words = ("books.list", "category=travel_2", "--max-age", "600")
    third = json.loads(stack.nearfetch("fetch", *words, "--json", "--url", stack.url).stdout)
    assert (third["cached"], third["records"]) == (True, first["records"])
    assert third["age"] >= second["age"]
    assert " s old" in (shown := stack.nearfetch("fetch", *words, "--url", stack.url).stdout) or " ms old" in shown
    assert f"the result of {first['task']}" in stack.nearfetch("where", third["task"], "--url", stack.url).stdout
    assert inside.fetches(pages) == fetches


def test_what_200_clients_ask_at_once_is_fetched_once(stack, inside):
    """``slow.example`` takes longer than all of them to ask, whoever they are."""
    inside.behave(prefix="/slow.example/", delay_seconds=4)
    page = "/slow.example/"
    before = inside.fetches(page)
    ready = threading.Barrier(CLIENTS)

    def one(_):
        ready.wait()
        return ask(stack, "GET", "/v1/sources/slow.example/records?wait=60")

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(one, range(CLIENTS)))
    assert {status for status, _, _ in answers} == {200}
    found = [answer for _, _, answer in answers]
    assert len({result["task"] for result in found}) == CLIENTS
    assert {result["fetched_at"] for result in found} == {found[0]["fetched_at"]}
    assert {(result["cached"], result["stale"], result["count"]) for result in found} == {(False, False, 3)}
    assert inside.fetches(page) == before + 1
    (asked,) = [result["task"] for result in found if result["attempts"]]
    told = next(result["task"] for result in found if not result["attempts"])
    hops = ask(stack, "GET", f"/v1/tasks/{told}")[2]["hops"]
    assert f"its answer is that of {asked}, which asked the same" in [hop.get("note") for hop in hops]


def test_a_source_that_fails_says_whose_fault_it_is(stack, inside):
    inside.behave(prefix="/www.ecb.europa.eu/", status=503)
    status, _, problem = ask(stack, "GET", "/v1/sources/ecb.rates/records")
    assert status == 502
    error = problem["result"]["error"]
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
    status, headers, problem = ask(stack, method, path, body)
    assert time.monotonic() - started < SOON
    assert (status, problem["status"]) == (expected, expected)
    assert headers["Content-Type"] == "application/problem+json"


def test_what_is_no_json_is_a_400(stack):
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    connection.request("POST", "/v1/requests", "{", {"Content-Type": "application/json"})
    assert connection.getresponse().status == 400
    connection.close()


def test_the_dashboard_shows_finished_and_failed_jobs_that_can_be_read(stack, inside):
    inside.behave(prefix="/earthquake.usgs.gov/", status=404, times=1)
    ledger = Ledger(stack)
    request = ledger.post(["quakes.day"])
    ledger.collect(request)
    failed = ledger.delivered[0]
    assert failed["status"] == "failed"
    finished = Ledger(stack)
    finished.collect(finished.post(["hn.front"]))
    pages = (
        dashboard(inside, "nyc", "/0/view/jobs/nyc/failed/8/asc/1"),
        dashboard(inside, "nyc", "/0/data/jobs/nyc/failed/50/asc/1.json"),
    )
    assert {status for status, _ in pages} == {200}
    shown = {job["id"]: job for job in json.loads(pages[1][1])["jobs"]}
    assert f"quakes.day {{}}  request {request}" in shown[failed["task"]]["description"]
    status, text = dashboard(inside, "nyc", f"/0/data/job/{failed['task']}.json")
    assert status == 200
    assert "404" in text
    status, text = dashboard(inside, "nyc", "/0/data/jobs/nyc/finished/50/asc/1.json")
    assert finished.delivered[0]["task"] in text


def dashboard(inside, region: str, path: str):
    """(status, text) of a page of a region's rq-dashboard."""
    import base64

    credentials = base64.b64encode(f"ops:{inside.secrets[f'dashboard {region}']}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", inside.ports[f"dashboard {region}"], timeout=30)
    connection.request("GET", path, headers={"Authorization": f"Basic {credentials}"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text
