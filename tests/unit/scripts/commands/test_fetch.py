"""``nearfetch fetch``, ``status`` and their client against a small server that answers as the gateway does."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from clients.python.nearfetch_client import Nearfetch
from regions.settings import ROOT
from scripts.cli import main
from scripts.commands import fetch as fetch_command
from scripts.stack.gateway_client import GatewayClient, Refused
from scripts.stack.services import free_port

REQUEST = "01JDFQ2V7C0000000000000000"
RESULT_BYTES = {"raw": 4000, "records": 400, "wire": 400, "received": 4000, "spared": 0}


def result(source, region="fra", **fields):
    return {
        "task": f"task of {source}", "source": source, "region": region, "status": "succeeded", "attempts": 1, "records": [{"a": 1}],
        "count": 31, "partial": False, "warnings": [], "timing": {"total_ms": 12.2}, "bytes": {"raw": 1700, "records": 1400, "wire": 1200, "received": 1700, "spared": 0},
        "error": None, **fields,
    }  # fmt: skip


class Gateway:
    """What it answers, and what it was asked."""

    def __init__(self):
        self.results = [result("ecb.rates")]
        self.breaks_after = None  # so many results, then the stream ends without ``done``, once
        self.refusal = None
        self.asked = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                gateway.get(self)

            def do_POST(self):
                gateway.post(self)

            def log_message(self, *arguments):
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def post(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.asked.append(body)
        if self.refusal is not None:
            self.answer(handler, *self.refusal)
            return
        tasks = [
            {"id": one["task"], "source": one["source"], "region": one["region"], "status": "queued"}
            for one in self.results
        ]
        links = {"self": f"/v1/requests/{REQUEST}", "events": f"/v1/requests/{REQUEST}/events"}
        state = {"done": False, "total": len(tasks), "results": [], "cursor": "0-0", "more": False}
        self.answer(handler, 202, {"id": REQUEST, "tasks": tasks, "links": links, **state})

    def get(self, handler):
        path = handler.path
        if path.endswith("/events"):
            self.stream(handler)
        elif path == "/v1/sources/books.list":
            kinds = {"category": "str", "pages": "int", "deep": "bool"}
            self.answer(
                handler, 200, {"id": "books.list", "params": {name: {"type": kind} for name, kind in kinds.items()}}
            )
        else:
            self.answer(handler, 404, {"title": "not found", "status": 404})

    def stream(self, handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        seen = int(handler.headers["Last-Event-ID"].partition("-")[0])
        for number, one in enumerate(self.results[seen:], seen + 1):
            handler.wfile.write(f": still here\n\nevent: result\nid: {number}-0\ndata: {json.dumps(one)}\n\n".encode())
            if number == self.breaks_after:
                self.breaks_after = None
                return
        handler.wfile.write(b'event: done\nid: 9-0.done\ndata: {"done": true}\n\n')

    def answer(self, handler, status, document):
        content = json.dumps(document).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@pytest.fixture
def gateway():
    running = Gateway()
    yield running
    running.stop()


def fetch(gateway, *words):
    return CliRunner().invoke(main, ["fetch", "--url", gateway.url, *words])


def test_each_result_is_a_line_and_the_last_one_says_what_crossed(gateway):
    gateway.results += [result("slow.example", "sin", count=1, bytes=RESULT_BYTES, timing={"total_ms": 3020})]
    done = fetch(gateway, "ecb.rates", "slow.example")
    lines = done.output.splitlines()
    assert done.exit_code == 0
    assert lines[0] == f"request {REQUEST}   2 tasks, 2 regions"
    assert lines[1] == "  fra  ecb.rates      31 records    1.7 kB \u2192   1.2 kB     12 ms"
    assert lines[2] == "  sin  slow.example     1 record    4.0 kB \u2192    400 B    3.02 s"
    assert lines[3].startswith("2 of 2 in ")
    assert lines[3].endswith(
        "5.7 kB fetched, 1.6 kB crossed the sea (3.6 times less).   --json for the records, --curl for the calls"
    )


def test_a_failed_task_is_said_with_its_error_and_ends_with_1(gateway):
    error = {"type": "contract", "message": "expected 1 record at least, found 0"}
    gateway.results = [result("hn.front", "nyc", status="failed", count=0, records=[], error=error)]
    done = fetch(gateway, "hn.front")
    assert done.exit_code == 1
    assert "nyc  hn.front  failed  contract: expected 1 record at least, found 0" in done.output
    assert "0 of 1 in" in done.output


def test_a_param_belongs_to_the_source_before_it_and_has_its_types_json_type(gateway):
    fetch(
        gateway,
        "books.list",
        "category=poetry_23",
        "pages=2",
        "deep=true",
        "ecb.rates",
        "books.list",
        "category=5",
        "pages=many",
    )
    assert gateway.asked[0]["sources"] == [
        {"source": "books.list", "params": {"category": "poetry_23", "pages": 2, "deep": True}},
        "ecb.rates",
        {"source": "books.list", "params": {"category": "5", "pages": "many"}},
    ]


def test_a_stream_that_breaks_is_resumed_without_a_gap_or_a_repeat(gateway):
    gateway.results = [result(f"source.{number}") for number in range(4)]
    gateway.breaks_after = 2
    done = fetch(gateway, "--json", *(f"source.{number}" for number in range(4)))
    assert [json.loads(line)["source"] for line in done.output.splitlines()] == [
        f"source.{number}" for number in range(4)
    ]
    assert done.exit_code == 0


def test_pages_that_were_not_fetched_again_count_as_what_they_had(gateway):
    """A 304 has no page, and its records crossed all the same: the line must not say that more crossed than was fetched."""
    same = {"raw": 0, "records": 1400, "wire": 600, "received": 300, "spared": 5000}
    gateway.results = [result("ecb.rates", bytes=same)]
    lines = fetch(gateway, "ecb.rates").output.splitlines()
    assert lines[1].endswith("31 records    5.0 kB → \x20  600 B     12 ms".replace("\x20", " "))
    assert "; 300 B fetched and 5.0 kB not fetched again, 600 B crossed the sea (8.8 times less)." in lines[2]


def test_the_deadline_is_sent(gateway):
    fetch(gateway, "ecb.rates", "--deadline", "2.5")
    assert gateway.asked == [{"sources": ["ecb.rates"], "deadline": 2.5}]


def test_the_age_that_an_answer_may_have_is_sent_and_the_one_that_it_has_is_shown(gateway):
    nothing = {"raw": 0, "records": 1400, "wire": 0, "received": 0, "spared": 0}
    gateway.results = [
        result("ecb.rates", cached=True, age=12.3, warnings=["w"], bytes=nothing, timing={"total_ms": 0})
    ]
    done = fetch(gateway, "ecb.rates", "--max-age", "60")
    assert gateway.asked == [{"sources": ["ecb.rates"], "max_age": 60.0}]
    assert done.output.splitlines()[1].endswith("   12 s old; w")


def test_curl_shows_the_age_too(gateway):
    done = fetch(gateway, "ecb.rates", "--max-age", "60", "--csv", "--curl")
    assert f"{gateway.url}/v1/sources/ecb.rates/records?max_age=60' " in done.output
    done = fetch(gateway, "ecb.rates", "--max-age", "60", "--curl")
    assert '"max_age": 60' in done.output
    assert gateway.asked == []


def test_curl_shows_the_calls_and_makes_none(gateway):
    done = fetch(gateway, "ecb.rates", "--curl")
    assert f"curl -s {gateway.url}/v1/requests " in done.output
    assert gateway.asked == []


def test_ndjson_is_the_records_alone_and_the_rest_goes_to_stderr(gateway):
    """Of every source that succeeded; what failed is said there too, and ends with 1."""
    error = {"type": "contract", "message": "expected 1 record at least, found 0"}
    gateway.results += [result("hn.front", status="failed", records=[], count=0, error=error)]
    done = fetch(gateway, "ecb.rates", "hn.front", "--ndjson")
    assert (done.exit_code, done.stdout) == (1, '{"a": 1}\n')
    assert "failed  contract: expected 1 record" in done.stderr
    assert "1 of 2 in" in done.stderr


def test_csv_of_several_tasks_has_one_header(gateway):
    """Where the gateway does not tell the source's fields they come as the records have them."""
    gateway.results = [result("ecb.rates"), result("ecb.rates", records=[{"a": 2, "b": None}])]
    done = fetch(gateway, "ecb.rates", "ecb.rates", "--csv")
    assert (done.exit_code, done.stdout_bytes) == (0, b"a,b\r\n1,\r\n2,\r\n")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_csv_is_exact_in_a_file_and_nothing_that_a_terminal_would_obey(gateway, monkeypatch, capfdbinary, is_terminal):
    told = [json.dumps(result("ecb.rates", records=[{"a": "\x1b[2Jtwo\nlines"}]))]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    fetch_command.show_csv(Nearfetch(gateway.url), "ecb.rates", told)
    sent = b'a\n"\\x1b[2Jtwo\nlines"\n' if is_terminal else b'a\r\n"\x1b[2Jtwo\nlines"\r\n'
    assert capfdbinary.readouterr().out == sent


def test_csv_of_nothing_that_succeeded_is_nothing(gateway):
    """No header that looks like an empty table."""
    gateway.results = [result("ecb.rates", status="expired", records=[], error=None)]
    done = fetch(gateway, "ecb.rates", "--csv")
    assert (done.exit_code, done.stdout) == (1, "")


@pytest.mark.parametrize(("form", "accept"), [("--csv", "text/csv"), ("--ndjson", "application/x-ndjson")])
def test_curl_shows_the_call_that_answers_with_records_alone(gateway, form, accept):
    """One a source, params in the query."""
    done = fetch(gateway, "books.list", "category=a&b c", form, "--curl")
    assert done.output == (
        f"curl -sf '{gateway.url}/v1/sources/books.list/records?category=a%26b+c' -H 'Accept: {accept}'\n"
    )
    assert gateway.asked == []


def test_json_is_each_result_as_it_came(gateway):
    """Byte for byte: a number keeps its spelling."""
    gateway.results = [result("ecb.rates", records=[{"rate": 1.0, "name": "\u00fc"}])]
    done = fetch(gateway, "ecb.rates", "--json")
    assert done.output == json.dumps(gateway.results[0]) + "\n"


@pytest.mark.parametrize(
    "words",
    [["ecb.rates", "hn.front", "--csv"], ["ecb.rates", "--csv", "--json"], ["ecb.rates", "--ndjson", "--csv"], ["ecb.rates", "--csv", "--curl", "--deadline", "3"]],
)  # fmt: skip
def test_forms_that_do_not_go_together_end_with_2(gateway, words):
    """And nothing is asked."""
    done = fetch(gateway, *words)
    assert (done.exit_code, gateway.asked) == (2, [])
    assert "Error: " in done.output


@pytest.mark.parametrize(
    "words", [["category=poetry_23"], ["books.list", "=x"], ["books.list", "pages=1", "pages=2"], []]
)
def test_wrong_words_end_with_2_and_are_named(gateway, words):
    done = fetch(gateway, *words)
    assert done.exit_code == 2
    assert gateway.asked == []
    assert "Error: " in done.output


def test_what_the_gateway_refuses_is_said_in_full_and_ends_with_2(gateway):
    errors = [{"pointer": "/sources/0", "detail": 'there is no source "ecb.rate"; did you mean "ecb.rates"?'}]
    gateway.refusal = (422, {"title": "Invalid request", "status": 422, "errors": errors})
    done = fetch(gateway, "ecb.rate")
    assert done.exit_code == 2
    assert done.output == f"422 Invalid request\n  /sources/0: {errors[0]['detail']}\n"


def test_a_refusal_says_each_thing_once():
    described = [
        str(
            Refused(
                422,
                {"title": "Not valid", "detail": "no source x", "errors": [{"pointer": "/a", "detail": "no source x"}]},
            )
        ),
        str(
            Refused(422, {"title": "Not valid", "detail": "2 things", "errors": [{"pointer": "/a", "detail": "b"}] * 2})
        ),
        str(Refused(503, {"title": "Not accepted", "detail": "the broker is away"})),
        str(Refused(502, {})),
    ]
    assert described == [
        "422 Not valid\n  /a: no source x",
        "422 Not valid: 2 things\n  /a: b\n  /a: b",
        "503 Not accepted: the broker is away",
        "502",
    ]


def test_a_gateway_that_takes_nothing_now_ends_with_1(gateway):
    gateway.refusal = (503, {"title": "Unavailable", "detail": "the broker did not confirm"})
    done = fetch(gateway, "ecb.rates")
    assert (done.exit_code, done.output) == (1, "503 Unavailable: the broker did not confirm\n")


def test_no_gateway_ends_with_3_and_says_where_it_was_looked_for():
    url = f"http://127.0.0.1:{free_port()}"
    done = CliRunner().invoke(main, ["fetch", "--url", url, "ecb.rates"])
    assert done.exit_code == 3
    assert f"No gateway answers at {url}" in done.output


def test_the_gateway_is_the_options_then_the_variables_then_the_running_ups(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARFETCH_DATA", str(tmp_path))
    monkeypatch.delenv("NEARFETCH_URL", raising=False)
    done = CliRunner().invoke(main, ["status"])
    assert (done.exit_code, f"nothing runs on {tmp_path}" in done.output) == (3, True)
    (tmp_path / "url").write_text("http://127.0.0.1:1111\n")
    assert GatewayClient.found("", None).url == "http://127.0.0.1:1111"
    monkeypatch.setenv("NEARFETCH_URL", "http://127.0.0.1:2222/")
    assert GatewayClient.found("", None).url == "http://127.0.0.1:2222"
    assert GatewayClient.found("", tmp_path).url == "http://127.0.0.1:1111"
    assert GatewayClient.found("http://127.0.0.1:3333", tmp_path).url == "http://127.0.0.1:3333"


def test_a_number_stays_exact_only_where_its_type_is_a_number():
    assert fetch_command.as_type("007", "str") == "007"
    assert fetch_command.as_type("1.5", "number") == 1.5
    assert fetch_command.as_type("null", "int") == "null"


def test_no_colours_and_a_quick_start_when_piped(gateway):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "scripts.cli", "fetch", "--url", gateway.url, "ecb.rates"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    code = "import sys; import scripts.cli; print(sorted({'requests', 'pika', 'redis', 'rich', 'lxml', 'flask'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"
