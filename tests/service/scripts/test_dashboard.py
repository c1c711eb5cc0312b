"""rq-dashboard over HTTP, as a process of its own, on a real Redis with jobs in every registry."""

import base64
import json
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
)
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.worker import SimpleWorker

from bridge.enqueue import Enqueuer
from regions import connect, names
from regions.faults import Faults
from regions.settings import Dashboard, Region, RegionRedis, Settings
from scripts.stack import dashboard
from scripts.stack.services import free_port
from tests.forked import Forked
from tests.service.bridging import ROOT, now_ms, task
from tests.service.conftest import RedisInstance
from tests.waiting import until
from tests.wire import ask

PASSWORD = "quiet-heron-41"
READER = "reader-secret"
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: <b>not a price</b>'
REGISTRIES = ["queued", "started", "finished", "failed", "deferred", "scheduled", "canceled"]
IDS = {name: f"01JOB{name.upper()}" for name in REGISTRIES}

RUN = """
import sys
from regions import logs, settings
from scripts.stack.dashboard import run
logs.configure("json")
sys.exit(run(settings.load(), "fra"))
"""


class Served:
    """A dashboard that is up."""

    def __init__(self, port: int, process: subprocess.Popen, region_redis: RedisInstance, reader_url: str) -> None:
        self.port, self.process, self.redis, self.reader_url = port, process, region_redis, reader_url

    def ask(self, path: str, method: str = "GET", credentials: str = f"ops:{PASSWORD}") -> tuple[int, str, dict]:
        encoded = base64.b64encode(credentials.encode()).decode()
        reply = ask(self.port, method, path, {"Authorization": f"Basic {encoded}"} if credentials else {})
        return reply.status, reply.body.decode(), reply.headers


def fill(client: redis.Redis) -> None:
    """A job in each registry, as the bridge and the workers leave them."""
    enqueuer = Enqueuer(client, "fra")
    enqueuer.open()
    tasks = [task("fra", task=job, params={"q": f"<i>{name}</i>"}) for name, job in IDS.items()]
    assert not any(enqueuer.write(tasks, offset_ms=0, now_ms=now_ms()).refusals)
    enqueuer.close()
    jobs = {name: Job.fetch(job, connection=client, serializer=JSONSerializer) for name, job in IDS.items()}
    for name, job in jobs.items():
        if name != "queued":
            client.lrem(names.rq_queue("fra"), 1, job.id)
    options = {"connection": client, "serializer": JSONSerializer}
    worker = SimpleWorker([Queue("fra", **options)], name="fra.worker.1", **options)
    worker.register_birth()
    with client.pipeline() as pipe:
        FinishedJobRegistry("fra", **options).add(jobs["finished"], 300, pipeline=pipe)
        FailedJobRegistry("fra", **options).add(jobs["failed"], 300, pipeline=pipe, exc_string=TRACEBACK)
        Result.create_failure(jobs["failed"], 300, exc_string=TRACEBACK, pipeline=pipe)
        DeferredJobRegistry("fra", **options).add(jobs["deferred"], pipeline=pipe)
        CanceledJobRegistry("fra", **options).add(jobs["canceled"], pipeline=pipe)
        Execution.create(jobs["started"], 300, pipe, worker_name=worker.name)
        pipe.execute()
    ScheduledJobRegistry("fra", **options).schedule(jobs["scheduled"], datetime.now(UTC) + timedelta(seconds=60))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("dashboard")
    region_redis = RedisInstance(folder / "redis", "redis", users={"dashboard": (READER, dashboard.DASHBOARD_ACL)})
    reader_url = f"redis://dashboard:{READER}@127.0.0.1:{region_redis.port}/0"
    fill(region_redis.client)
    port = free_port()
    (folder / "regions").mkdir()
    (folder / "regions" / "fra.toml").write_text(
        f'[redis]\nurl = "{region_redis.url}"\n[dashboard]\nport = {port}\npassword = "{PASSWORD}"\nredis_url = "{reader_url}"\n'
    )
    environment = {"PATH": "/usr/bin:/bin", "NEARFETCH__REGIONS__PATH": str(folder / "regions")}
    with (folder / "log").open("wb") as log:
        process = Forked(
            ["-c", RUN], imported=("scripts.stack.dashboard",), cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    one = Served(port, process, region_redis, reader_url)
    try:
        until(lambda: "serving" in (folder / "log").read_text(), f"the dashboard: {(folder / 'log').read_text()}")
        yield one
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (folder / "log").read_text()
        text = (folder / "log").read_text()
        assert "stopped" in text
        assert READER not in text
        assert PASSWORD not in text
    finally:
        process.kill()
        process.wait(10)
        region_redis.stop()


@pytest.mark.parametrize("view", ["", "0/view", "0/view/queues", "0/view/workers", "0/view/jobs"])
def test_overviews_are_served_and_show_no_secret(served: Served, view: str) -> None:
    status, page, headers = served.ask(f"/{view}")
    if status == 308:  # one page has several addresses
        status, page, _ = served.ask(urlsplit(headers["location"]).path)
    assert status == 200
    assert "fra: RQ dashboard" in page
    assert READER not in page
    assert PASSWORD not in page


def test_counts_of_every_registry_are_there(served: Served) -> None:
    status, body, _ = served.ask("/0/data/queues.json")
    queue, *others = sorted(json.loads(body)["queues"], key=lambda one: one["name"])
    counts = {key: value for key, value in queue.items() if key.endswith("count")}
    assert status == 200
    assert (queue["name"], [one["name"] for one in others]) == ("fra", ["fra.urgent"])
    assert len(counts) == len(REGISTRIES)
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("registry", REGISTRIES)
def test_jobs_of_a_registry_can_be_read(served: Served, registry: str) -> None:
    page_status, _, _ = served.ask(f"/0/view/jobs/fra/{registry}/8/asc/1")
    status, body, _ = served.ask(f"/0/data/jobs/fra/{registry}/8/asc/1.json")
    assert (page_status, status) == (200, 200)
    (job,) = json.loads(body)["jobs"]
    assert job["id"] == IDS[registry]
    assert job["description"] == f'ecb.rates {{"q":"<i>{registry}</i>"}}  request 01REQUEST'


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_job_has_a_page_of_its_own(served: Served, registry: str) -> None:
    page_status, page, _ = served.ask(f"/0/view/job/{IDS[registry]}")
    status, body, _ = served.ask(f"/0/data/job/{IDS[registry]}.json")
    assert (page_status, status) == (200, 200)
    assert json.loads(body)["description"].startswith("ecb.rates")
    assert "<%=" not in page, "what clients and pages say would be written out as HTML"


def test_a_failed_job_shows_its_traceback(served: Served) -> None:
    _, body, _ = served.ask(f"/0/data/job/{IDS['failed']}.json")
    assert json.loads(body)["exc_info"] == TRACEBACK


def test_workers_show_what_they_run(served: Served) -> None:
    status, body, _ = served.ask("/0/data/workers.json")
    (worker,) = json.loads(body)["workers"]
    assert status == 200
    assert worker["current_job"]["job_id"] == IDS["started"]
    assert worker["current_job"]["call_string"].startswith("jobs.task.run(")


def test_workers_are_served_after_one_died(served: Served) -> None:
    client = served.redis.client
    client.sadd(names.RQ_WORKERS, "rq:worker:dead", "rq:worker:stale")
    client.hset("rq:worker:stale", mapping={"birth": "2026-11-24T04:14:00.000000Z", "queues": "fra"})
    client.sadd("rq:worker:stale:executions", "01JOBGONE:01EXECUTION")
    status, body, _ = served.ask("/0/data/workers.json")
    client.srem(names.RQ_WORKERS, "rq:worker:stale")
    client.delete("rq:worker:stale", "rq:worker:stale:executions")
    assert status == 200, body


def test_nobody_sees_anything_without_the_password(served: Served) -> None:
    for credentials in ("", "ops:wrong", f"other:{PASSWORD}", "ops:", "öps:wörd"):
        for path in ("/", "/0/data/queues.json", "/static/js/jquery-3.5.1.min.js", "/nothing"):
            status, page, headers = served.ask(path, credentials=credentials)
            assert status == 401
            assert headers["www-authenticate"].startswith("Basic ")
            assert "fra" not in page


CHANGES = [
    ("POST", f"/job/{IDS['failed']}/delete"),
    ("POST", f"/job/{IDS['failed']}/requeue"),
    ("POST", "/requeue/fra"),
    ("GET", "/requeue/fra"),
    ("HEAD", "/requeue/fra"),
    ("POST", "/queue/fra/failed/empty"),
    ("POST", "/queue/fra/queued/empty"),
    ("POST", "/queue/fra/compact"),
    ("DELETE", f"/job/{IDS['failed']}"),
    ("PUT", "/0/view"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_what_changes_jobs_is_refused(served: Served, method: str, path: str) -> None:
    before = served.redis.client.dbsize(), served.redis.client.zrange(names.rq_registry("failed", "fra"), 0, -1)
    status, _, headers = served.ask(path, method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"
    assert before == (
        served.redis.client.dbsize(),
        served.redis.client.zrange(names.rq_registry("failed", "fra"), 0, -1),
    )


def test_unknown_jobs_and_other_redis_are_not_found(served: Served) -> None:
    for path in ("/0/view/job/01NONE", "/0/data/job/01NONE.json", "/1/view/queues", "/7/data/workers.json"):
        assert served.ask(path)[0] == 404, path


@pytest.mark.parametrize(
    "command",
    [
        ("DEL", "rq:job:01JOBFAILED"),
        ("LPUSH", "rq:queue:fra", "x"),
        ("HSET", "rq:job:01JOBFAILED", "status", "queued"),
        ("ZADD", "rq:failed:fra", 1, "x"),
        ("SREM", "rq:queues", "rq:queue:fra"),
        ("EVAL", "return 1", 0),
        ("FLUSHALL",),
        ("CONFIG", "GET", "maxmemory"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("CLIENT", "PAUSE", 1),
        ("GET", "nf:outbox:bytes"),
        ("XRANGE", "nf:outbox", "-", "+"),
        ("ACL", "LIST"),
    ],
)
def test_its_redis_user_can_only_read_what_is_rqs(served: Served, command: tuple) -> None:
    client = connect.open_redis(served.reader_url, name="test")
    try:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("missing", "line"), [("password", "dashboard.password"), ("redis_url", "dashboard.redis_url")]
)
def test_it_does_not_start_unprotected(missing: str, line: str) -> None:
    given = {"password": PASSWORD, "redis_url": "redis://127.0.0.1:1/0"}
    region = Region(name="fra", redis=RegionRedis(), dashboard=Dashboard(**{**given, missing: ""}))
    with pytest.raises(Faults) as refused:
        dashboard.run(Settings(region={"fra": region}), "fra")
    assert line in str(refused.value)


def test_a_redis_that_is_away_is_said_and_not_waited_for(tmp_path: Path) -> None:
    region = Region(name="fra", dashboard=Dashboard(password=PASSWORD, redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    client = connect.open_redis(region.dashboard.redis_url, name="test")
    pages = dashboard.application(client, region).test_client()
    for path in ("/0/data/queues.json", "/0/view/workers", "/0/view/jobs"):
        answer = pages.get(path, auth=("ops", PASSWORD))
        assert answer.status_code == 503
        assert "Redis does not answer" in answer.text
    client.close()
