"""The peer, a system that one would write instead: Bottle + cheroot in front of Celery, on RabbitMQ and Redis.

It runs in a virtual environment of its own (scripts/bench/requirements.txt): ``python -m scripts.bench.peer`` is its web
server, ``python -m celery -A scripts.bench.peer worker`` a worker. It is tuned to be fast and to lose nothing: late acks,
quorum queues, confirmed publishes, JSON, no events, no mingle or gossip, one MGET for each poll, and results passed on
undecoded. Settings: https://docs.celeryq.dev/en/stable/userguide/configuration.html

    POST /requests        {"queue", "tasks": [{"kind", "n", "seconds"}]} → 202 {"id", "tasks": [ids]}
    GET  /requests/ID     {"done", "results": [Celery's own, as they are in Redis]}
    POST /alone           {"queue", "tasks": [one]} → 200, like a poll that has all results
"""

import json
import os
import threading
import uuid
from pathlib import Path
from typing import Any, Final

import bottle
import requests
from celery import Celery, signals
from celery.result import AsyncResult
from cheroot import wsgi
from kombu import Queue

from scripts.bench import rows

# Its environment variables.
AMQP, REDIS, PAGES, PORT, READY = "PEER_AMQP", "PEER_REDIS", "PEER_PAGES", "PEER_PORT", "PEER_READY"
QUEUES: Final = ("threads16", "threads64", "prefork")
WEB_THREADS: Final = 48
ALONE_SECONDS: Final = 60

app = Celery("peer", broker=os.environ.get(AMQP), backend=os.environ.get(REDIS))
app.conf.update(
    task_queues=[Queue(name, routing_key=name, queue_arguments={"x-queue-type": "quorum"}) for name in QUEUES],
    task_default_exchange="peer",
    worker_detect_quorum_queues=True,  # a prefetch for each consumer: quorum queues have no global one
    broker_transport_options={"confirm_publish": True},
    broker_pool_limit=WEB_THREADS,
    broker_heartbeat=10,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    result_expires=3600,
    redis_max_connections=4 * WEB_THREADS,
)
_own = threading.local()


@app.task(name="page")  # type: ignore[untyped-decorator]
def page(kind: str, number: int, seconds: float) -> list[dict[str, Any]]:
    """Fetches and parses a page. Each thread has a session and compiled XPaths of its own."""
    if not hasattr(_own, "session"):
        _own.session, _own.hands = requests.Session(), {}
        _own.session.trust_env = False  # looking up proxies and netrc costs a third of a fetch
    if kind not in _own.hands:
        _own.hands[kind] = rows.hand(kind)
    address = f"http://127.0.0.1:{os.environ[PAGES]}{rows.PATHS[kind]}?n={number}&seconds={seconds}"
    response = _own.session.get(address, timeout=60)
    response.raise_for_status()
    records: list[dict[str, Any]] = _own.hands[kind](response.content)
    return records


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _say_ready(**_: Any) -> None:
    Path(os.environ[READY]).touch()


def submit(asked: dict[str, Any]) -> list[str]:
    """Publishes the tasks, each confirmed. Their ids contain the request's id and the number of its tasks."""
    request, tasks = uuid.uuid4().hex, asked["tasks"]
    found = [f"{request}-{len(tasks)}-{index}" for index in range(len(tasks))]
    for task, one in zip(found, tasks, strict=True):
        page.apply_async((one["kind"], one["n"], one["seconds"]), task_id=task, queue=asked["queue"])
    return found


def answer(tasks: list[str]) -> bytes:
    """The results of these tasks in Redis, by one MGET, undecoded."""
    kept = [value for value in app.backend.client.mget([app.backend.get_key_for_task(task) for task in tasks]) if value]
    bottle.response.content_type = "application/json"
    done = b"true" if len(kept) == len(tasks) else b"false"
    return b'{"done":%b,"results":[%b]}' % (done, b",".join(kept))


def post() -> bytes:
    """Accepts a request."""
    tasks = submit(json.load(bottle.request.body))
    bottle.response.status = 202
    bottle.response.content_type = "application/json"
    return json.dumps({"id": tasks[0].rpartition("-")[0], "tasks": tasks}).encode()


def poll(request: str) -> bytes:
    """The results of a request so far."""
    count = int(request.partition("-")[2])
    return answer([f"{request}-{index}" for index in range(count)])


def alone() -> bytes:
    """Runs one task and waits for it with Celery's own method."""
    tasks = submit(json.load(bottle.request.body))
    AsyncResult(tasks[0], app=app).get(timeout=ALONE_SECONDS)
    return answer(tasks)


def main() -> None:
    """Runs the web server."""
    routes = bottle.Bottle()
    routes.post("/requests", callback=post)
    routes.get("/requests/<request>", callback=poll)
    routes.post("/alone", callback=alone)
    server = wsgi.Server(("127.0.0.1", int(os.environ[PORT])), routes, numthreads=WEB_THREADS, request_queue_size=1024)
    server.keep_alive_conn_limit = 1024  # the default is 10; every client here keeps its connection
    server.start()


if __name__ == "__main__":
    main()
