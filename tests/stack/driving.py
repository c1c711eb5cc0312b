"""Drives a stack over HTTP as clients do, and keeps a ledger outside of it: which ids were promised, what came for them."""

import http.client
import json
import time
from dataclasses import dataclass, field

import redis

from regions import connect, names
from tests.stack.conftest import Stack


def ask(stack: Stack, method: str, path: str, body: object = None, headers: dict[str, str] | None = None):
    """One call: (status, headers, JSON), and never an exception for what the gateway says."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=90)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        text = response.read()
        return response.status, dict(response.getheaders()), json.loads(text) if text else None
    finally:
        connection.close()


def is_up(stack: Stack) -> bool:
    """Whether the gateway is ready and every region is up, as ``nearfetch status`` asks, which costs half a second of CPU."""
    try:
        ready, (status, _, found) = ask(stack, "GET", "/readyz")[0], ask(stack, "GET", "/v1/regions")
    except (OSError, http.client.HTTPException):
        return False
    return (ready, status) == (200, 200) and all(region["status"] == "up" for region in found["regions"])


def is_up_by_status(stack: Stack) -> bool:
    """The same, once it is so, by ``nearfetch status``."""
    return is_up(stack) and stack.nearfetch("status", check=False).returncode == 0


@dataclass
class Ledger:
    """Promised tasks by request, and every result that was delivered, in order."""

    stack: Stack
    promised: dict[str, set[str]] = field(default_factory=dict)
    delivered: list[dict] = field(default_factory=list)

    def post(self, sources: list, **options) -> str:
        """Posts a request that must be accepted; its id."""
        status, _, answer = ask(self.stack, "POST", "/v1/requests", {"sources": sources, **options})
        assert status == 202, answer
        self.promised[answer["id"]] = {task["id"] for task in answer["tasks"]}
        return answer["id"]

    def collect(self, request: str, seconds: float = 150.0) -> None:
        """Polls with ``after`` until the request is done and everything of it was delivered."""
        deadline = time.monotonic() + seconds
        cursor, is_over = "0-0", False
        while not is_over:
            assert time.monotonic() < deadline, f"request {request} is not done after {seconds:g} s"
            status, _, answer = ask(self.stack, "GET", f"/v1/requests/{request}?after={cursor}&wait=10")
            assert status == 200, answer
            self.delivered += answer["results"]
            cursor, is_over = answer["cursor"], answer["done"] and not answer["more"]

    def check(self) -> None:
        """Every promised task succeeded, once, and nothing else came."""
        ids = [result["task"] for result in self.delivered]
        promised = set().union(*self.promised.values())
        assert set(ids) == promised, f"lost {promised - set(ids)}, unexpected {set(ids) - promised}"
        assert len(ids) == len(set(ids)), "doubled"
        bad = {result["task"]: result["error"] for result in self.delivered if result["status"] != "succeeded"}
        assert not bad, bad


class Inside:
    """The stack's own servers, for tests that hurt them."""

    def __init__(self, stack: Stack) -> None:
        kept = json.loads((stack.data / "kept.json").read_text())
        self.ports, self.secrets = kept["ports"], kept["secrets"]
        self.stack = stack
        self.clients: list[redis.Redis] = []

    def redis(self, name: str) -> redis.Redis:
        """A client of ``hub`` or of a region's Redis."""
        key = "hub" if name == "hub" else f"redis {name}"
        url = f"redis://:{self.secrets[key]}@127.0.0.1:{self.ports[key]}/0"
        self.clients.append(connect.open_redis(url, name="test"))
        return self.clients[-1]

    def executions(self, region: str) -> dict[int, int]:
        """How many tasks each worker process of a region runs, by its pid."""
        client = self.redis(region)
        found = {}
        for key in client.smembers(names.RQ_WORKERS):
            worker = key.decode().removeprefix(names.rq_worker(""))
            pid = client.hget(key, "pid")
            if pid is not None:
                found[int(pid)] = client.scard(names.rq_worker_executions(worker))
        return found

    def behave(self, **rule) -> None:
        """Makes the sample site slow or failing."""
        self._site("POST", rule)

    def well(self) -> None:
        """Makes the sample site well again."""
        self._site("DELETE", None)

    def fetches(self, path: str) -> int:
        """How often a page of the sample site was fetched: ``/host/path?query``."""
        return self._site("GET", None, "fetches")["fetches"].get(path, 0)

    def close(self) -> None:
        """Closes the clients."""
        for client in self.clients:
            client.close()

    def _site(self, method: str, body: object, what: str = "behave"):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["site"], timeout=10)
        connection.request(method, f"/_site/{what}", None if body is None else json.dumps(body))
        response = connection.getresponse()
        text = response.read()
        connection.close()
        assert response.status < 300, text
        return json.loads(text)
