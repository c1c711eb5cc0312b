"""Drives a stack over HTTP as clients do, and keeps a ledger outside of it: which ids were promised, what came for them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import redis

from regions import connect, names
from regions.process import stat
from tests import ledger, site
from tests.stack.conftest import Stack
from tests.waiting import until
from tests.wire import ask

DEADLINE_SECONDS = 120.0  # a worker process that is started anew on a busy machine has the least of it


def is_up(stack: Stack) -> bool:
    """Whether the gateway is ready and every region is up, as ``nearfetch status`` asks, which costs half a second of CPU."""
    try:
        replies = ask(stack.port, "GET", "/readyz"), ask(stack.port, "GET", "/v1/regions")
    except ledger.GONE:
        return False
    is_ready = all(reply.status == 200 for reply in replies)
    return is_ready and all(region["status"] == "up" for region in replies[1].json()["regions"])


def is_up_by_status(stack: Stack) -> bool:
    """The same, once it is so, by ``nearfetch status``."""
    return is_up(stack) and stack.nearfetch("status", check=False).returncode == 0


@dataclass
class Ledger(ledger.Ledger):
    """The ledger of a stack that is well. ``delivered``: results, in order."""

    delivered: list[dict] = field(default_factory=list)

    def post(self, sources: list, *, deadline: float = DEADLINE_SECONDS, **options) -> str:
        """Posts a request until it is accepted, as a client does: a busy broker confirms too late now and then. Its id."""
        return until(lambda: self.send(sources, deadline=deadline, **options), "a post to be accepted")

    def collect(self, request: str, seconds: float = 150.0) -> None:
        """Reads the results of a request until it is done."""
        self.delivered += self.results(request, seconds)

    def check(self) -> None:
        """Every promised task succeeded, once, and nothing else came."""
        try:
            ledger.judge(self.delivered, set().union(*self.promised.values()))
        except AssertionError as error:
            bad = [one["task"] for one in self.delivered if one["status"] != "succeeded"]
            for task in bad:
                error.add_note(f"{task}: {ask(self.stack.port, 'GET', f'/v1/tasks/{task}').json()}")
            raise


def in_order(results: list[dict]) -> None:
    """Whoever ended half a second before another came before it; each is a task of one request."""
    ended = [result["timing"]["total_ms"] for result in results]
    late = [ended[at] for at in range(1, len(ended)) if ended[at] + 500 < max(ended[:at])]
    assert not late, [(result["source"], result["timing"]["total_ms"]) for result in results]


def ancestors(pid: int) -> Iterator[int]:
    """The processes from which a process descends, the nearest first; none when it has ended."""
    while pid > 1 and (fields := stat(pid)) is not None:
        pid = int(fields[1])
        yield pid


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
        self.clients.append(connect.open_redis(url, name="test", block_seconds=30.0))  # a busy one is waited for
        return self.clients[-1]

    def executions(self, region: str) -> dict[int, int]:
        """How many tasks each worker process of a region runs, by its pid.

        Redis knows one that died for a while; its pid may be another process's by now.
        """
        client, pool = self.redis(region), self.stack.pids()[f"workers-{region}"]
        found = {}
        for key in client.smembers(names.RQ_WORKERS):
            worker = names.worker_of(key.decode())
            pid = client.hget(key, "pid")
            if pid is not None and pool in ancestors(int(pid)):
                found[int(pid)] = client.scard(names.rq_worker_executions(worker))
        return found

    def behave(self, **rule) -> None:
        """Makes the sample site slow or failing; without a rule it is well again."""
        site.behave(self.ports["site"], **rule)

    def fetches(self, path: str) -> int:
        """How often a page of the sample site was fetched: ``/host/path?query``."""
        return ask(self.ports["site"], "GET", "/_site/fetches").json()["fetches"].get(path, 0)

    def close(self) -> None:
        """Closes the clients."""
        for client in self.clients:
            client.close()
