"""A whole gateway on a real broker and a real Redis; the test plays the region."""

import gzip
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from backports import zstd

from jobs import contract
from regions import connect
from scripts.stack.services import free_port
from tests import sources
from tests.forked import GATEWAY, Forked
from tests.service.gateway import JSON, LIST, Stack
from tests.waiting import until
from tests.wire import Wire, ask, chunked, events

AT_ONCE_SECONDS = 15.0  # promised is 1; who is waited for by mistake takes longer


def test_request_is_promised_published_and_followed_to_its_end(stack):
    reply = stack.post({"sources": ["demo.plain", LIST], "attrs": {"note": "x"}})
    promised = reply.json()
    assert (reply.status, reply.headers["location"]) == (202, f"/v1/requests/{promised['id']}")
    assert reply.headers["retry-after"] == "1"
    assert (promised["status"], promised["total"], promised["attrs"]) == ("running", 2, {"note": "x"})
    plain, listed = stack.region.take("nyc"), stack.region.take("fra")
    assert (plain.request, plain.source, plain.params) == (promised["id"], "demo.plain", {})
    assert (listed.url, listed.host) == ("https://demo.example/list/poetry?page=1", "https://demo.example:443")
    assert {plain.task, listed.task} == {task["id"] for task in promised["tasks"]}
    path = f"/v1/requests/{promised['id']}"
    with Wire(stack.port) as poll:
        poll.send("GET", f"{path}?after={promised['cursor']}&wait=30")
        stack.region.finish(plain)
        first = poll.reply().json()
        assert [result["region"] for result in first["results"]] == ["nyc"]
        poll.send("GET", f"{path}?after={first['cursor']}&wait=30")
        stack.region.finish(listed)
        second = poll.reply().json()
    assert [result["source"] for result in second["results"]] == ["demo.list"]
    assert (second["done"], second["status"]) == (True, "succeeded")


def test_single_source_with_prefer_wait_is_answered_when_it_is_done(stack):
    with Wire(stack.port) as wire:
        wire.send("POST", "/v1/requests", {**JSON, "Prefer": "wait=20"}, json.dumps({"sources": [LIST]}).encode())
        task = stack.region.take("fra", fast=True)
        assert task.sync is True
        stack.region.finish(task, b'[{"name":"b","price":"1.10"}]')
        reply = wire.reply()
    assert (reply.status, reply.headers["preference-applied"]) == (200, "wait=20")
    found = reply.json()
    assert (found["done"], found["results"][0]["records"]) == (True, [{"name": "b", "price": "1.10"}])


def test_wait_that_runs_out_is_a_202_and_the_result_comes_later(stack):
    reply = stack.post({"sources": ["demo.plain"]}, {**JSON, "Prefer": "wait=0.2"})
    assert reply.status == 202
    assert reply.json()["done"] is False
    stack.region.finish(stack.region.take("nyc", fast=True))
    found = ask(stack.port, "GET", f"{reply.headers['location']}?wait=30").json()
    assert (found["status"], len(found["results"])) == ("succeeded", 1)


def test_prefer_wait_is_not_applied_to_several_sources(stack):
    reply = stack.post({"sources": ["demo.plain", "demo.plain"]}, {**JSON, "Prefer": "wait=20"})
    assert (reply.status, "preference-applied" in reply.headers) == (202, False)
    assert [stack.region.take("nyc").sync, stack.region.take("nyc").sync] == [False, False]


def test_prefer_that_can_not_be_read_is_ignored(stack):
    reply = stack.post({"sources": ["demo.plain"]}, {**JSON, "Prefer": "wait=soon"})
    assert (reply.status, "preference-applied" in reply.headers) == (202, False)
    assert stack.region.take("nyc").sync is False


def records(stack, query: str, *, region: str, error: contract.Error | None = None):
    with Wire(stack.port) as wire:
        wire.send("GET", query)
        task = stack.region.take(region, fast=True)
        stack.region.finish(task, error=error)
        return task, wire.reply()


def test_records_of_one_source(stack):
    task, reply = records(stack, "/v1/sources/demo.list/records?category=poetry&page=2&wait=20", region="fra")
    assert task.params == {"category": "poetry", "page": 2}
    assert (reply.status, reply.headers["vary"], reply.headers["cache-control"]) == (200, "Accept", "max-age=0")
    found = reply.json()
    assert (found["task"], found["source"], found["records"]) == (task.task, "demo.list", [{"name": "a"}])


@pytest.mark.parametrize(
    ("kind", "status"), [("timeout", 504), ("rate_limited", 429), ("internal", 503), ("parse", 502)]
)
def test_records_of_a_task_that_failed(stack, kind, status):
    error = contract.Error(type=kind, message="so it was", origin="target", retry_after=3.0)
    task, reply = records(stack, "/v1/sources/demo.plain/records", region="nyc", error=error)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert reply.json()["result"]["task"] == task.task
    assert reply.headers["retry-after"] == "3"


def test_records_whose_wait_ran_out_are_a_202_with_the_request(stack):
    reply = ask(stack.port, "GET", "/v1/sources/demo.plain/records?wait=0.1")
    task = stack.region.take("nyc", fast=True)
    assert (reply.status, reply.headers["location"]) == (202, f"/v1/requests/{task.request}")


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "kind"),
    [
        ("POST", "/v1/requests", JSON, b"{", 400, "not-json"),
        ("POST", "/v1/requests", JSON, b"", 400, "not-json"),
        ("POST", "/v1/requests?wait=5", JSON, b'{"sources": ["demo.plain"]}', 400, "bad-request"),
        ("POST", "/v1/requests", {**JSON, "Content-Encoding": "gzip"}, b"{}", 415, "not-json-type"),
        ("POST", "/v1/requests", {"Content-Type": "application/json; charset=utf-16"}, b"{}", 415, "not-json-type"),
        ("GET", "/v1/sources?q=x", {}, b"", 400, "bad-request"),
        ("GET", "/healthz?x", {}, b"", 400, "bad-request"),
        ("DELETE", "/v1/requests/01JDFQ2V7C0000000000000000?now=1", {}, b"", 400, "bad-request"),
        ("OPTIONS", "/v1/requests", {"Origin": "https://pages.example"}, b"", 405, "method-not-allowed"),
        ("POST", "/v1/requests", {"Content-Type": "text/plain"}, b"{}", 415, "not-json-type"),
        ("POST", "/v1/requests", {}, b"{}", 415, "not-json-type"),
        ("POST", "/v1/requests", JSON, b'{"sources": ["no.such"]}', 422, "invalid"),
        ("POST", "/v1/requests", JSON, b'{"sources": ["demo.broken"]}', 422, "invalid"),
        ("POST", "/v1/requests", JSON, b'{"sources": ["demo.plain"], "why": 1}', 422, "invalid"),
        ("POST", "/v1/requests", JSON, b'{"sources": ["%b"]}' % (b"x" * 1_000_000), 413, "too-large"),
        ("GET", "/v1/sources/no.such", {}, b"", 404, "not-found"),
        ("GET", "/v1/sources/no.such/records", {}, b"", 404, "not-found"),
        ("GET", "/v1/sources/demo.list/records", {}, b"", 422, "invalid"),
        ("GET", "/v1/sources/demo.plain/records?max_age=soon", {}, b"", 422, "invalid"),
        ("GET", "/v1/sources/demo.plain/records?wait=soon", {}, b"", 400, "bad-request"),
        ("GET", "/v1/sources/demo.list/records?category=%ff", {}, b"", 400, "bad-request"),
        ("GET", "/v1/regions/no", {}, b"", 404, "not-found"),
        ("GET", "/v2", {}, b"", 404, "not-found"),
        ("GET", "/%ff", {}, b"", 400, "bad-request"),
        ("PUT", "/v1/requests", {}, b"", 405, "method-not-allowed"),
        ("DELETE", "/healthz", {}, b"", 405, "method-not-allowed"),
        ("GET", "/healthz", {}, b"x", 413, "too-large"),
        ("DELETE", "/v1/requests/01JDFQ2V7C0000000000000000", JSON, b"{}", 413, "too-large"),
        ("POST", "/v1/request", JSON, b"{}", 404, "not-found"),
        ("PUT", "/v1/requests", JSON, b"{}", 405, "method-not-allowed"),
        ("GET", "/v1/sources/demo.plain/records", {"Sec-Fetch-Site": "cross-site"}, b"", 403, "cross-site"),
        ("POST", "/v1/requests", {**JSON, "Sec-Fetch-Site": "cross-site"}, b"{}", 403, "cross-site"),
        ("DELETE", "/v1/requests/01JDFQ2V7C0000000000000000", {"Sec-Fetch-Site": "cross-site"}, b"", 403, "cross-site"),
        ("GET", "/healthz", {"Host": ""}, b"", 421, "wrong-host"),
        ("GET", "/healthz", {"Host": "evil.example"}, b"", 421, "wrong-host"),
        ("GET", "/healthz", {"Host": "127.0.0.1.evil.example:80"}, b"", 421, "wrong-host"),
        ("GET", "/healthz", {"Host": ":"}, b"", 421, "wrong-host"),
        ("GET", "/healthz", {"Host": "127.0.0.1::"}, b"", 400, "protocol"),
        ("GET", "/healthz", {"Host": "a b"}, b"", 400, "protocol"),
        ("GET", "http://a@127.0.0.1/healthz", {}, b"", 400, "protocol"),
    ],
)
def test_refusals_are_problem_documents(stack, method, path, headers, body, status, kind):
    reply = ask(stack.port, method, path, headers, body)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert (reply.json()["type"], reply.json()["status"]) == (f"/problems/{kind}", status)
    assert reply.json()["title"]
    assert reply.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind"),
    [
        ("POST", "/v1/requests", {**JSON, "Host": "evil.example"}, 421, "wrong-host"),
        ("POST", "/v1/requests", {**JSON, "Sec-Fetch-Site": "cross-site"}, 403, "cross-site"),
        ("POST", "/v1/requests", {"Content-Type": "text/plain"}, 415, "not-json-type"),
        ("POST", "/v1/requests", {}, 415, "not-json-type"),
        ("POST", "/v1/requests", {**JSON, "Content-Encoding": "gzip"}, 415, "not-json-type"),
        ("POST", "/v1/requests", {**JSON, "Content-Length": "1000001"}, 413, "too-large"),
        ("POST", "/v1/sources", JSON, 405, "method-not-allowed"),
        ("GET", "/healthz", {}, 413, "too-large"),
    ],
)
@pytest.mark.parametrize(
    "framing", [{"Content-Length": "2"}, {"Transfer-Encoding": "chunked"}], ids=["length", "chunks"]
)
def test_body_of_a_refused_head_is_not_asked_for(stack, method, path, headers, status, kind, framing):
    """A client that waits for "100 Continue" gets the refusal in its place, and need not send the body."""
    own = {} if "Content-Length" in headers else framing
    with Wire(stack.port) as wire:
        wire.send(method, path, {"Expect": "100-continue", **own, **headers})
        reply = wire.reply()
        assert (reply.status, reply.json()["type"]) == (status, f"/problems/{kind}")
        assert wire.is_closed()


def test_body_of_a_head_that_is_not_refused_is_asked_for(stack):
    body = b'{"sources": ["demo.plain"]}'
    with Wire(stack.port) as wire:
        head = {**JSON, "Prefer": "wait=0", "Content-Length": str(len(body)), "Expect": "100-continue"}
        wire.send("POST", "/v1/requests", head)
        assert wire.head()[0] == 100
        wire.socket.sendall(body)
        assert wire.reply().status == 202
    stack.region.purge()


def test_head_of_records_checks_the_call_and_fetches_nothing(stack):
    with Wire(stack.port) as wire:
        wire.send("HEAD", "/v1/sources/demo.list/records?category=x&max_age=60", {"Accept": "text/csv"})
        status, headers = wire.head()
        assert (status, headers["cache-control"], headers["content-type"]) == (
            200, "max-age=60", "text/csv; charset=utf-8; header=present",
        )  # fmt: skip
        assert "content-length" not in headers  # that of the records is not known
        wire.send("HEAD", "/v1/sources/demo.list/records?category=x&page=one")
        assert wire.head()[0] == 422
    assert stack.region.is_empty("fra")


def test_an_address_as_target_is_taken_and_its_host_counts(stack):
    for host, status in (("127.0.0.1", 200), ("evil.example", 421)):
        assert ask(stack.port, "GET", f"http://{host}/healthz", {"Host": "localhost"}).status == status
    assert ask(stack.port, "GET", "http://localhost", {"Host": "evil.example"}).status == 200


def test_ids_are_read_in_any_case(stack):
    promised = stack.post({"sources": ["demo.plain"]}).json()
    task = promised["tasks"][0]["id"]
    for path in (f"requests/{promised['id']}", f"requests/{promised['id']}/tasks/{task}", f"tasks/{task}"):
        prefix, _, rest = path.partition("/")
        assert ask(stack.port, "GET", f"/v1/{prefix}/{rest.lower()}".replace("/TASKS/", "/tasks/")).status == 200
    stack.region.purge()


def test_clients_own_id_of_a_call_comes_back_and_is_logged(stack, capsys):
    for path, status in (("/healthz", 200), ("/v2", 404)):
        reply = ask(stack.port, "GET", path, {"X-Request-Id": "order-17"})
        assert (reply.status, reply.headers["x-request-id"]) == (status, "order-17")
    until(lambda: "order-17" in capsys.readouterr().out, "the log line")
    for text in ("a b", "x" * 129, "\xff"):
        assert "x-request-id" not in ask(stack.port, "GET", "/healthz", {"X-Request-Id": text}).headers


TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def test_trace_of_a_client_goes_to_the_region_and_comes_back(stack, capsys):
    promised = stack.post({"sources": ["demo.plain", LIST, LIST]}, {**JSON, "traceparent": TRACE}).json()
    tasks = [stack.region.take(region) for region in ("nyc", "fra", "fra")]
    assert {(task.traceparent, task.is_sampled) for task in tasks} == {(TRACE, True)}
    stack.region.finish(tasks[0])
    error = contract.Error(type="timeout", message="too late", origin="network")
    stack.region.finish(tasks[1], error=error)
    path = f"/v1/requests/{promised['id']}"
    until(lambda: ask(stack.port, "GET", path).json()["completed"] == 2, "two results")
    ask(stack.port, "DELETE", path)  # the hub makes the third
    found = ask(stack.port, "GET", path).json()
    assert {one["status"] for one in found["results"]} == {"succeeded", "failed", "cancelled"}
    told = [promised, found, *found["results"], ask(stack.port, "GET", f"{path}/tasks/{tasks[0].task}").json()]
    told += [event.data for event in events(stack.port, f"{path}/events")]
    assert len(told) == 10
    assert {one["traceparent"] for one in told} == {TRACE}
    lines = until(lambda: [line for line in capsys.readouterr().out.splitlines() if TRACE_ID in line], "the log line")
    assert promised["id"] in lines[0]


def test_trace_of_a_synchronous_call_comes_back_with_its_result(stack):
    with Wire(stack.port) as wire:
        wire.send("GET", "/v1/sources/demo.plain/records", {"traceparent": TRACE})
        stack.region.finish(stack.region.take("nyc", fast=True))
        assert wire.reply().json()["traceparent"] == TRACE


def test_result_that_is_used_again_has_the_trace_of_the_call_that_uses_it(own_stack):
    stack = own_stack
    stack.post({"sources": ["demo.plain"]}, {**JSON, "traceparent": TRACE})
    task = stack.region.take("nyc")
    now = contract.rfc3339(connect.redis_now_ms(stack.region.redis))
    stack.region.finish(task, fetched_at=now, definition=task.definition)
    until(lambda: ask(stack.port, "GET", f"/v1/requests/{task.request}").json()["done"], "the result")
    other = TRACE.replace("4bf9", "5bf9")
    for headers, traceparent in (({"traceparent": other}, other), ({}, None)):
        again = stack.post({"sources": ["demo.plain"], "max_age": 600}, {**JSON, **headers}).json()
        assert again["results"][0]["cached"] is True
        assert again["results"][0].get("traceparent") == again.get("traceparent") == traceparent


@pytest.mark.parametrize("traceparent", ["", TRACE.upper(), TRACE.replace("00-", "ff-", 1), "x"])
def test_trace_that_is_invalid_is_ignored(stack, traceparent):
    promised = stack.post({"sources": ["demo.plain"]}, {**JSON, "traceparent": traceparent}).json()
    assert "traceparent" not in promised
    assert stack.region.take("nyc").traced == {}


def test_pages_of_an_allowed_origin_may_ask(tmp_path, rabbitmq, hub_redis):
    stack = Stack(tmp_path, rabbitmq, hub_redis, NEARFETCH__GATEWAY__CORS_ORIGINS="https://app.example")
    try:
        page = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
        reply = ask(stack.port, "OPTIONS", "/v1/requests", {**page, "Access-Control-Request-Method": "POST"})
        assert reply.status == 204
        assert "POST" in reply.headers["access-control-allow-methods"]
        reply = stack.post({"sources": ["demo.plain"]}, {**JSON, **page})
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (202, "https://app.example")
        assert reply.headers["vary"] == "Origin"
        assert stack.region.take("nyc").request == reply.json()["id"]
        evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        assert "access-control-allow-origin" not in ask(stack.port, "GET", "/healthz", evil).headers
        assert stack.post({"sources": ["demo.plain"]}, {**JSON, **evil}).status == 403
    finally:
        stack.stop()


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_large_answers_are_coded_as_the_client_accepts(stack, coding):
    plain, found = (ask(stack.port, "GET", "/v1/sources", {"Accept-Encoding": one}) for one in ("identity", coding))
    assert ("content-encoding" in plain.headers, found.headers["content-encoding"]) == (False, coding)
    assert plain.headers["vary"] == found.headers["vary"] == "Accept-Encoding"
    read = gzip.decompress if coding == "gzip" else zstd.decompress
    assert json.loads(read(found.body)) == plain.json()


def test_405_says_what_is_allowed(stack):
    assert ask(stack.port, "PUT", "/v1/requests").headers["allow"] == "GET, HEAD, POST"
    assert ask(stack.port, "POST", "/v1/sources").headers["allow"] == "GET, HEAD"


def test_chunked_body_past_the_limit_is_a_413(stack):
    with Wire(stack.port) as wire:
        wire.send("POST", "/v1/requests", {**JSON, "Transfer-Encoding": "chunked"}, chunked(*[b" " * 100_000] * 11))
        reply = wire.reply()
        assert (reply.status, reply.json()["type"]) == (413, "/problems/too-large")


def test_image_on_another_sites_page_makes_no_task(stack):
    """And what the browser's user asks for does: by the address bar, or from the gateway's own page."""
    path = "/v1/sources/demo.plain/records?wait=0"
    assert ask(stack.port, "GET", path, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status == 403
    assert stack.region.is_empty("nyc")
    for site in ("none", "same-origin"):
        assert ask(stack.port, "GET", path, {"Sec-Fetch-Site": site}).status == 202
    stack.region.purge()


def test_nothing_is_queued_of_a_request_that_is_refused(stack):
    assert stack.post({"sources": ["demo.plain", "no.such", LIST]}).status == 422
    assert stack.region.is_empty("nyc")
    assert stack.region.is_empty("fra")


def test_names_of_this_machine_are_answered(stack):
    known = ("localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.0.0.1:", "[::1]:8080", "[::1]:", socket.gethostname())
    for host in known:  # a port may be empty (RFC 3986, 3.2.3)
        assert ask(stack.port, "GET", "/healthz", {"Host": host}).status == 200


def test_catalogue(stack):
    found = {source["id"]: source for source in ask(stack.port, "GET", "/v1/sources").json()["sources"]}
    listed = found["demo.list"]
    assert (listed["title"], listed["region"], listed["standby"]) == ("A list", "fra", ["nyc"])
    assert listed["params"]["category"] == {
        "type": "str", "required": True, "default": None, "example": "poetry", "pattern": "[a-z_0-9]+",
    }  # fmt: skip
    assert listed["params"]["page"]["default"] == 1
    assert listed["health"] == "unknown"
    assert found["demo.broken"]["health"] == "broken"
    one = ask(stack.port, "GET", "/v1/sources/demo.list").json()
    assert set(one["schema"]["properties"]) == {"name", "price"}
    assert len(one["definition"]) == 8
    broken = ask(stack.port, "GET", "/v1/sources/demo.broken").json()
    assert "ccs" in " ".join(broken["faults"])


def test_new_definition_is_noticed(stack):
    folder = stack.folder / "sources"
    (folder / "demo.late.toml").write_text(sources.DEMO_PLAIN, encoding="utf-8")
    until(lambda: ask(stack.port, "GET", "/v1/sources/demo.late").status == 200, "the new source")
    (folder / "demo.late.toml").unlink()
    until(lambda: ask(stack.port, "GET", "/v1/sources/demo.late").status == 404, "it to be gone")


def test_region_is_up_when_its_parts_say_so_lately(stack):
    assert ask(stack.port, "GET", "/v1/regions/sin").json()["status"] == "down"
    now = connect.redis_now_ms(stack.region.redis) + 50_000  # ahead, so that it stays young
    bridge = {"state": "consuming", "reason": "", "ready": 3, "unacked": 1, "offset_ms": 0}
    stack.region.say("sin", "bridge", "h:1", at_ms=now, **bridge)
    until(lambda: ask(stack.port, "GET", "/v1/regions/sin").json()["status"] == "degraded", "a bridge alone")
    workers = {
        "processes": 2, "threads": 128, "busy": 4, "waiting": 3, "succeeded": 10, "failed": 1, "raw_bytes": 5000,
        "records_bytes": 900, "wire_bytes": 400, "outbox_bytes": 0,
    }  # fmt: skip
    stack.region.say("sin", "workers", "h:2", at_ms=now, **workers)
    found = until(
        lambda: (found := ask(stack.port, "GET", "/v1/regions/sin").json())["status"] == "up" and found, "both"
    )
    assert (found["queue"]["ready"], found["queue"]["running"]) == (3, 4)
    assert found["throughput"] == {"succeeded": 10, "failed": 1, "per_second": None, "p95_ms": None}
    listed = ask(stack.port, "GET", "/v1/regions").json()["regions"]
    assert [region["name"] for region in listed] == ["fra", "nyc", "sin"]


def test_one_log_line_a_request_without_values_of_the_query(stack, capsys):
    task, _ = records(stack, "/v1/sources/demo.list/records?category=hidden_word&wait=20", region="fra")
    lines = until(lambda: [line for line in capsys.readouterr().out.splitlines() if task.request in line], "the line")
    assert len(lines) == 1
    for part in ("/v1/sources/demo.list/records", task.task, "demo.list", "fra", "200"):
        assert part in lines[0]
    assert "hidden_word" not in lines[0]


def test_sigterm_answers_whoever_waits_and_ends_within_5_seconds(own_stack):
    """The process as it is run: started, asked for something, told to stop."""
    port = free_port()
    environ = {
        **os.environ,
        **own_stack.environ,
        "NEARFETCH__GATEWAY__PORT": str(port),
        "NEARFETCH__REGIONS__PATH": str(own_stack.folder / "regions"),
        "NEARFETCH__HUB__REDIS": own_stack.hub.url,
        "NEARFETCH__HUB__AMQP": own_stack.amqp,
    }
    code = "import sys; from regions import logs, settings; logs.configure('json'); from web import gateway; "
    process = Forked(
        ["-c", f"{code}sys.exit(gateway.run(settings.load()))"], imported=GATEWAY, env=environ, stderr=subprocess.PIPE
    )
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr))
    reader.start()
    try:
        until(lambda: any(b"serving" in line for line in lines), "the gateway to serve")
        until(lambda: ask(port, "GET", "/readyz").status == 200, "the gateway to be ready")
        promised = ask(port, "POST", "/v1/requests", JSON, b'{"sources": ["demo.plain"]}').json()
        with Wire(port) as poll, Wire(port) as stream:
            poll.send("GET", f"/v1/requests/{promised['id']}?wait=60")
            stream.send("GET", f"/v1/requests/{promised['id']}/events")
            stream.head()
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            assert poll.reply().json()["done"] is False
            assert list(stream.events()) == []
        assert process.wait(60) == 0
        assert time.monotonic() - started < 5 + AT_ONCE_SECONDS
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
    said = [json.loads(line) for line in lines]
    requests = [line for line in said if line["event"] == "request"]
    assert {(line["method"], line["status"]) for line in requests} >= {("POST", 202), ("GET", 200)}
    assert all("ms" in line for line in requests)
