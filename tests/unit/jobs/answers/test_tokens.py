"""``[before]``: its values, whether they are kept, and that cookies never are."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from jobs import result_frame
from jobs.answers import tokens
from jobs.answers.tokens import Tokens
from jobs.contract import Task
from jobs.task.execution import Execution
from jobs.task.runner import Runner
from regions import settings

DEFINITION = """
title = "Behind a token"
url = 'http://127.0.0.1:{port}/data'
format = "json"
[params]
user = {{default = "a"}}
[before]
url = 'http://127.0.0.1:{port}/token'
request = {{json = {{user = "{{user}}"}}}}
format = "json"
ttl_seconds = {seconds}
fields = {{token = {{}}}}
[request]
headers = {{X-Token = "{{before.token}}"}}
[rows]
jmes = "rows"
[fields]
token = {{}}
cookie = {{}}
"""


class Api(ThreadingHTTPServer):
    """Gives a new token for each request, and accepts those that it has not revoked."""

    def __init__(self, *, sets_cookies: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sets_cookies = sets_cookies
        self.revokes = False
        self.given = 0
        self.valid: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.given += 1
        token = f"{asked['user']}-token-{self.server.given}"
        if not self.server.revokes:
            self.server.valid.add(token)
        self.answer(200, {"token": token}, {"Set-Cookie": f"s={token}"} if self.server.sets_cookies else {})

    def do_GET(self):
        token = self.headers["X-Token"]
        if token not in self.server.valid:
            self.answer(401, {}, {})
            return
        self.answer(200, {"rows": [{"token": token, "cookie": self.headers.get("Cookie")}]}, {})

    def answer(self, status, value, headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def api(request) -> Iterator[Api]:
    made = Api(**getattr(request, "param", {}))
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def runner(api: Api, tmp_path: Path) -> Iterator[Runner]:
    for seconds in (0, 600):
        text = DEFINITION.format(port=api.server_port, seconds=seconds)
        (tmp_path / f"kept.{seconds}.toml").write_text(text)
    given = {"NEARFETCH__SOURCES__PATH": str(tmp_path), "NEARFETCH__FETCH__ALLOW": f"127.0.0.1:{api.server_port}"}
    found = settings.load(given)
    made = Runner(found, found.one("fra"))
    yield made
    made.close()


def ask(runner: Runner, source: str, **params: str) -> dict[str, object]:
    now = time.time_ns() // 1_000_000
    task = Task(
        task="T1", request="R1", source=source, region="fra", params=params, url="http://127.0.0.1/", accepted_ms=now,
        deadline_ms=now + 60_000, expires_ms=now + 3_600_000,
    )  # fmt: skip
    ended = runner.run(Execution(task))
    return msgspec.json.decode(result_frame.splice(ended.outcome.frame))


def test_each_task_asks_for_its_own_token(runner, api):
    assert [ask(runner, "kept.0")["records"][0]["token"] for _ in range(2)] == ["a-token-1", "a-token-2"]


def test_a_token_is_kept_for_its_time_by_what_was_asked(runner, api):
    assert [ask(runner, "kept.600")["records"][0]["token"] for _ in range(3)] == ["a-token-1"] * 3
    assert ask(runner, "kept.600", user="b")["records"][0]["token"] == "b-token-2"
    assert ask(runner, "kept.600")["records"][0]["token"] == "a-token-1"
    assert api.given == 2


def test_a_kept_token_that_ended_early_is_asked_for_again(runner, api):
    ask(runner, "kept.600")
    api.valid.clear()
    assert ask(runner, "kept.600")["records"][0]["token"] == "a-token-2"
    assert ask(runner, "kept.600")["records"][0]["token"] == "a-token-2"


def test_a_new_token_that_does_not_serve_is_not_asked_for_twice(runner, api):
    ask(runner, "kept.600")
    api.valid.clear()
    api.revokes = True
    assert ask(runner, "kept.600")["error"]["http_status"] == 401
    assert api.given == 2


@pytest.mark.parametrize("api", [{"sets_cookies": True}], indirect=True)
def test_what_came_with_cookies_is_not_kept(runner, api):
    """A session's token is worthless without its cookies, and those end with their task."""
    for number in (1, 2):
        assert ask(runner, "kept.600")["records"] == [{"token": f"a-token-{number}", "cookie": f"s=a-token-{number}"}]


def test_kept_values_end_and_are_few(monkeypatch):
    kept = Tokens()
    kept.keep(("a",), {"t": 1}, -1.0)
    assert kept.get(("a",)) is None
    monkeypatch.setattr(tokens, "KEPT_MAX", 2)
    for name in ("a", "b", "c"):
        kept.keep((name,), {"t": name}, 60.0)
    assert [kept.get((name,)) for name in ("a", "b", "c")] == [None, {"t": "b"}, {"t": "c"}]
    kept.forget(("b",))
    assert kept.get(("b",)) is None
