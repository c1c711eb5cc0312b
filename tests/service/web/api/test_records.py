"""Records over HTTP in the forms that people use, and what the catalogue says of versions: a real gateway; the test plays the region."""

import csv
import io
import subprocess
import threading
from functools import cache

import click
import msgspec
import pytest

from jobs import contract, result_frame
from regions import names
from regions.settings import ROOT
from scripts.cli import main
from scripts.commands import completion
from tests.forked import COMMAND, Forked
from tests.service.gateway import Stack
from tests.waiting import until
from tests.wire import Wire, ask
from web.api import rows
from web.http.quota import Quota

EXACT = b'[{"price":"1.10","name":"a, \\"b\\""},{"name":"=SUM(A1)","price":null,"more":[1.50,1e400]}]'
ROWS = 100_000


@cache
def large() -> bytes:
    """Nearly the 5 MB that are allowed."""
    return msgspec.json.encode([{"name": f"Number {i} \u00fc", "price": f"{i / 7:.2f}"} for i in range(ROWS)])


def fetched(stack, accept, *, query="/v1/sources/demo.list/records?category=x", records=EXACT, region="fra", **told):
    """The answer of the gateway to one synchronous call, and its task."""
    with Wire(stack.port) as wire:
        wire.send("GET", query, {"Accept": accept} if accept is not None else {})
        task = stack.region.take(region, fast=True)
        stack.region.finish(task, records, **told)
        return task, wire.reply()


def test_csv_is_the_records_with_the_definitions_fields_in_their_order(stack):
    """Numbers as they were spelt, a formula made inert, what the definition does not name behind; headers say the rest."""
    task, reply = fetched(stack, "text/csv", count=2, partial=True, warnings=["page 2 failed"])
    assert reply.status == 200
    assert reply.body.decode() == 'name,price,more\r\n"a, ""b""",1.10,\r\n\'=SUM(A1),,"[1.50,1e400]"\r\n'
    headers = reply.headers
    assert headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert (headers["cache-control"], headers["vary"]) == ("max-age=0", "Accept")
    assert (headers["nearfetch-count"], headers["nearfetch-partial"], headers["nearfetch-warnings"]) == (
        "2",
        "true",
        "1",
    )
    assert headers["link"] == f'</v1/requests/{task.request}>; rel="describedby"'
    whole = ask(stack.port, "GET", headers["link"].split(">")[0].lstrip("<")).json()
    assert whole["results"][0]["warnings"] == ["page 2 failed"]


def test_ndjson_is_the_records_byte_for_byte(stack):
    """One a line; the JSON answer holds the very same."""
    reply = fetched(stack, "application/x-ndjson")[1]
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    lines = reply.body.split(b"\n")
    assert b"[" + b",".join(lines[:-1]) + b"]" == EXACT
    whole = fetched(stack, "application/json")[1]
    assert whole.headers["content-type"] == "application/json"
    assert whole.body.endswith(b'"records":' + EXACT + b"}")


@pytest.mark.parametrize(
    "accept", [None, "*/*", "text/html,application/xhtml+xml,*/*;q=0.8", "text/csv;q=0.5, application/json"]
)
def test_whoever_has_no_wish_gets_json(stack, accept):
    """No Accept at all, curl's, a browser's, and one that prefers it."""
    assert fetched(stack, accept)[1].headers["content-type"] == "application/json"


@pytest.mark.parametrize("accept", ["text/html", "text/csv;q=0", "application/xml, image/*"])
def test_a_form_that_can_not_be_given_is_406_and_nothing_is_queued(stack, accept):
    """The problem names what there is and what was found."""
    reply = ask(stack.port, "GET", "/v1/sources/demo.list/records?category=x", {"Accept": accept})
    assert (reply.status, reply.headers["content-type"]) == (406, "application/problem+json")
    assert reply.json()["type"] == "/problems/not-acceptable"
    assert reply.json()["detail"] == f"expected one of application/json, text/csv, application/x-ndjson, found {accept}"
    assert reply.headers["vary"] == "Accept"
    assert stack.region.is_empty("fra")


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson"])
def test_a_failed_task_is_a_problem_document_in_every_form(stack, accept):
    """With the target's fault and the whole result, never an empty table."""
    error = contract.Error(type="timeout", message="no answer within 10 s", origin="target")
    task, reply = fetched(stack, accept, error=error)
    assert (reply.status, reply.headers["content-type"]) == (504, "application/problem+json")
    assert reply.json()["result"]["task"] == task.task


def test_a_csv_that_is_not_there_in_time_is_a_202_with_the_request(stack):
    """And its result is had later in full."""
    reply = ask(stack.port, "GET", "/v1/sources/demo.plain/records?wait=0.2", {"Accept": "text/csv"})
    assert (reply.status, reply.headers["content-type"]) == (202, "application/json")
    stack.region.finish(stack.region.take("nyc", fast=True), EXACT)
    assert (
        ask(stack.port, "GET", f"{reply.headers['location']}?wait=30").json()["results"][0]["records"][0]["price"]
        == "1.10"
    )


def test_no_records_are_a_header_in_csv_and_nothing_in_ndjson(stack):
    """Both are 200: there is nothing, and the source says so."""
    assert fetched(stack, "text/csv", records=b"[]", count=0)[1].body == b"name,price\r\n"
    reply = fetched(stack, "application/x-ndjson", records=b"[]", count=0)[1]
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")


def test_nobody_waits_while_a_large_table_is_made(stack, monkeypatch):
    """While one of 5 MB is being made others are answered, whoever waits too; then it comes whole."""
    made, gate = rows.csv, threading.Event()

    def held(*arguments):
        assert gate.wait(60)
        return made(*arguments)

    monkeypatch.setattr(rows, "csv", held)
    with Wire(stack.port) as wire:
        wire.send("GET", "/v1/sources/demo.list/records?category=x&wait=60", {"Accept": "text/csv"})
        stack.region.finish(stack.region.take("fra", fast=True), large(), count=ROWS)
        until(lambda: [one for one in threading.enumerate() if one.name.startswith("tables")], "a table to be begun")
        assert fetched(stack, "application/json")[1].status == 200
        assert ask(stack.port, "GET", "/healthz").status == 200
        gate.set()
        reply = wire.reply()
    table = list(csv.reader(io.StringIO(reply.body.decode(), newline="")))
    assert (reply.status, len(table)) == (200, ROWS + 1)
    assert table[-1] == [f"Number {ROWS - 1} \u00fc", f"{(ROWS - 1) / 7:.2f}"]


def test_a_client_that_hangs_up_before_its_table_is_made_hurts_nobody(stack):
    """The next ones are answered."""
    with Wire(stack.port) as wire:
        wire.send("GET", "/v1/sources/demo.list/records?category=x", {"Accept": "text/csv"})
        task = stack.region.take("fra", fast=True)
    stack.region.finish(task, large())
    assert fetched(stack, "text/csv")[1].status == 200


def test_a_gateway_that_stops_leaves_no_thread_of_tables(tmp_path, rabbitmq, hub_redis):
    """It ends although a table was made."""
    stack = Stack(tmp_path, rabbitmq, hub_redis)
    assert fetched(stack, "text/csv")[1].status == 200
    assert [thread for thread in threading.enumerate() if thread.name.startswith("tables")]
    others = {thread for thread in threading.enumerate() if thread.name.startswith("tables")}
    stack.stop()
    until(lambda: len([thread for thread in others if thread.is_alive()]) < len(others), "its thread to end")


def test_the_command_line_gives_one_csv_of_several_tasks_and_says_the_rest_on_stderr(stack):
    """By the real gateway: columns in the definition's order, and numbers as they were spelt."""
    words = ["fetch", "--csv", "demo.list", "category=a", "demo.list", "category=b"]
    command = Forked(
        ["-m", "scripts.cli", *words, "--url", f"http://127.0.0.1:{stack.port}"],
        imported=COMMAND, cwd=ROOT, text=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(2):
        stack.region.finish(stack.region.take("fra"), EXACT)
    out, err = command.communicate(timeout=60)
    assert command.returncode == 0
    row = '"a, ""b""",1.10,\r\n\'=SUM(A1),,"[1.50,1e400]"\r\n'
    assert out.decode() == f"name,price,more\r\n{row}{row}"
    assert "2 of 2 in" in err.decode()


def test_the_gateways_sources_are_completed_before_the_shipped_ones(stack, monkeypatch):
    """Also where the command line runs elsewhere than the gateway and has no definition of these."""
    monkeypatch.setattr("scripts.commands.completion.GATEWAY_SECONDS", 20.0)
    for line, offered in (("demo.l", "demo.list"), ("demo.list ca", "category="), ("demo.list page=", "page=1")):
        *before, incomplete = line.split()
        context = click.Context(main, info_name="fetch")
        context.params = {"words": before, "url": f"http://127.0.0.1:{stack.port}"}
        assert [item.value for item in completion.words(context, main.params[0], incomplete)] == [offered]


def test_a_region_with_another_version_than_the_gateways_degrades_its_source_until_it_has_the_same(stack):
    """The catalogue names both hashes; a changed file of the gateway's shows with its new hash."""

    def shown():
        return ask(stack.port, "GET", "/v1/sources/demo.list").json()

    own = shown()["definition"]
    said = {"demo.list": {"definition": "0ldone", "fault": None}}
    stack.region.say_sources("fra", said)
    until(lambda: shown()["health"] == "degraded", "the source to be degraded")
    assert shown()["reasons"] == [f"fra has definition 0ldone, the gateway has {own} for fra"]
    assert shown()["regions"] == {"fra": said["demo.list"]}
    listed = {one["id"]: one for one in ask(stack.port, "GET", "/v1/sources").json()["sources"]}
    assert listed["demo.list"]["health"] == "degraded"
    stack.region.say_sources("fra", {"demo.list": {"definition": own, "fault": None}})
    until(lambda: shown()["health"] == "ok", "the source to be well")
    path = stack.folder / "sources" / "demo.list.toml"
    before = path.read_text()
    replace(path, before.replace('"A list"', '"Another list"'))
    until(lambda: shown()["definition"] != own, "the new hash")
    until(lambda: shown()["health"] == "degraded", "the region to be behind")
    replace(path, before)
    until(lambda: (shown()["definition"], shown()["health"]) == (own, "ok"), "the old one again")


def replace(path, text):
    """Writes a file as editors and deploys do: another one takes its place."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_csv_that_would_be_nearly_empty_is_406(stack, monkeypatch):
    """The records can be had in another form, and the call's connection goes on."""
    monkeypatch.setattr(rows, "CELLS_MAX", 5)
    reply = fetched(stack, "text/csv", records=b'[{"a":1},{"b":2}]')[1]
    assert (reply.status, reply.json()["type"]) == (406, "/problems/not-acceptable")
    assert reply.json()["detail"] == (
        "expected a CSV of 5 cells at most, found 2 records with 4 fields: accept application/json"
    )
    assert fetched(stack, "application/x-ndjson", records=b'[{"a":1},{"b":2}]')[1].body == b'{"a":1}\n{"b":2}\n'


@pytest.mark.parametrize("records", [b"[1,2]", b"[[]]", b'[{"a":1},null]'])
def test_records_that_are_no_objects_are_406_as_csv(stack, records):
    """A region may send any list; the other forms have it as it is."""
    reply = fetched(stack, "text/csv", records=records)[1]
    assert (reply.status, reply.json()["type"]) == (406, "/problems/not-acceptable")
    assert "expected records that are objects" in reply.json()["detail"]
    assert fetched(stack, "application/x-ndjson", records=records)[1].status == 200


@pytest.mark.parametrize("accept", ["application/json", "text/csv", "application/x-ndjson"])
def test_a_success_that_can_not_be_read_is_a_problem_and_no_empty_table(stack, accept):
    task, reply = fetched(stack, accept, records=b'[{"a":')
    assert (reply.status, reply.json()["type"]) == (503, "/problems/task/internal")
    assert reply.json()["detail"] == "the region sent a result that can't be read"
    assert reply.json()["result"]["task"] == task.task


def test_a_failure_without_a_reason_is_a_problem(stack):
    with Wire(stack.port) as wire:
        wire.send("GET", "/v1/sources/demo.plain/records")
        task = stack.region.take("nyc", fast=True)
        result = contract.Result(task=task.task, source=task.source, region="nyc", status="failed")
        frame = result_frame.encode(result, b"[]")
        stack.region.redis.set(names.result("nyc", task.task), frame, pxat=task.expires_ms)
        ended = {
            "k": "result",
            "v": 1,
            "q": task.request,
            "t": task.task,
            "s": "failed",
            "f": task.accepted_ms + 1,
            "b": 900,
        }
        stack.region.redis.xadd(names.out_stream("nyc"), ended)
        reply = wire.reply()
    assert (reply.status, reply.json()["type"]) == (503, "/problems/task/internal")
    assert reply.json()["detail"] == "the region did not say why the task failed"


def has_sent_all(stack) -> None:
    """What an answer before holds is given back to the quota that it was taken from."""
    until(lambda: not stack.gateway.server.outlet.quota.held, "the answers before to be sent")


def test_results_that_wait_for_their_table_have_as_much_room_as_answers_have(stack, monkeypatch):
    """Each takes up to 5 MB, and one thread makes one table after the other. They took all memory, whatever the quota."""
    quota, gate = Quota(1_500_000, 1.0), threading.Event()
    has_sent_all(stack)
    monkeypatch.setattr(stack.gateway.server.outlet, "quota", quota)
    stack.gateway.intake.tables.submit(gate.wait, 60)
    path, csv = "/v1/sources/demo.list/records?category=x&wait=60", {"Accept": "text/csv"}
    records = b'[{"name":"%b"}]' % (b"x" * 1_000_000)
    try:
        with Wire(stack.port) as first, Wire(stack.port) as second:
            for wire in (first, second):
                wire.send("GET", path, csv)
                stack.region.finish(stack.region.take("fra", fast=True), records)
                until(lambda: quota.held > 0, "a table to wait")
            reply = second.reply()
            assert (reply.status, reply.json()["type"]) == (503, "/problems/unavailable")
            gate.set()
            assert (first.reply().status, fetched(stack, "text/csv")[1].status) == (200, 200)
    finally:
        gate.set()
    until(lambda: not quota.held, "all room to be given back")


def test_no_table_is_made_for_a_client_that_has_hung_up(stack, monkeypatch):
    quota, gate, made = Quota(10_000_000, 1.0), threading.Event(), []
    has_sent_all(stack)
    monkeypatch.setattr(stack.gateway.server.outlet, "quota", quota)
    monkeypatch.setattr(rows, "csv", lambda *arguments: made.append(arguments) or b"")
    stack.gateway.intake.tables.submit(gate.wait, 60)
    try:
        with Wire(stack.port) as wire:
            wire.send("GET", "/v1/sources/demo.list/records?category=x&wait=60", {"Accept": "text/csv"})
            stack.region.finish(stack.region.take("fra", fast=True), b'["%b"]' % (b"x" * 100_000))
            until(lambda: quota.held > 0, "its table to wait")
        until(lambda: not stack.gateway.server.outlet.open, "the gateway to notice")
    finally:
        gate.set()
    until(lambda: not quota.held, "its room to be given back")
    assert made == []
