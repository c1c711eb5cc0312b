"""rq-dashboard over HTTP, as a process of its own, on a real Redis with jobs in every registry."""

import base64
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus
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
from scripts.stack import dashboard, dashboard_roles
from scripts.stack.services import free_port
from tests.forked import Forked
from tests.service.bridging import ROOT, now_ms, task
from tests.service.conftest import RedisInstance
from tests.waiting import until
from tests.wire import ask

PASSWORD = "quiet-heron-41"
PAUSED_SECONDS = 1.2
READER, OPERATOR = "reader-secret", "operator-secret"
OPERATORS = "bold-finch-77"  # the password of the role
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: <b>not a price</b>'
REGISTRIES = ["queued", "started", "finished", "failed", "deferred", "scheduled", "canceled"]
IDS = {name: f"01JOB{name.upper()}" for name in REGISTRIES}

RUN = """
import sys
from regions import connect, logs, settings
from scripts.stack.dashboard import run
connect.TIMEOUT_SECONDS = 10.0  # a Redis that is busy for a moment is none that is away
logs.configure("json")
sys.exit(run(settings.load(), "fra"))
"""


class Served:
    """A dashboard that is up."""

    def __init__(self, port: int, process: subprocess.Popen, region_redis: RedisInstance, reader_url: str) -> None:
        self.port, self.process, self.redis, self.reader_url = port, process, region_redis, reader_url

    def ask(
        self, path: str, method: str = "GET", credentials: str = f"ops:{PASSWORD}", **headers: str
    ) -> tuple[int, str, dict]:
        encoded = base64.b64encode(credentials.encode()).decode()
        own = {"Authorization": f"Basic {encoded}"} if credentials else {}
        reply = ask(self.port, method, path, own | {name.replace("_", "-"): text for name, text in headers.items()})
        return reply.status, reply.body.decode(), reply.headers

    def act(self, path: str, **headers: str) -> tuple[int, dict]:
        """What a button of an operator's page does."""
        sent = headers or {"Sec_Fetch_Site": "same-origin"}
        status, body, _ = self.ask(path, "POST", f"operator:{OPERATORS}", **sent)
        return status, json.loads(body) if body.startswith("{") else {"message": body}


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
    region_redis = RedisInstance(
        folder / "redis",
        "redis",
        users={"dashboard": (READER, dashboard_roles.READER_ACL), "operator": (OPERATOR, dashboard_roles.OPERATOR_ACL)},
    )
    reader_url = f"redis://dashboard:{READER}@127.0.0.1:{region_redis.port}/0"
    fill(region_redis.client)
    port = free_port()
    (folder / "regions").mkdir()
    (folder / "regions" / "fra.toml").write_text(
        f'[redis]\nurl = "{region_redis.url}"\n[dashboard]\nport = {port}\npassword = "{PASSWORD}"\nredis_url = "{reader_url}"\n'
        f'operator_password = "{OPERATORS}"\noperator_redis_url = "{reader_url.replace(READER, OPERATOR).replace("dashboard", "operator")}"\n'
        f'gateway_url = "http://127.0.0.1:{free_port()}"\n'
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
        assert process.wait(60) == 0, (folder / "log").read_text()
        text = (folder / "log").read_text()
        assert "stopped" in text
        assert [secret for secret in (READER, OPERATOR, PASSWORD, OPERATORS) if secret in text] == []
    finally:
        process.kill()
        process.wait(60)
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


def test_a_dashboard_that_was_paused_goes_on(served: Served) -> None:
    """Also where the pause is longer than what its main thread waits for."""
    served.process.send_signal(signal.SIGSTOP)
    paused = time.monotonic()
    until(lambda: time.monotonic() > paused + PAUSED_SECONDS, "the pause to be over")
    served.process.send_signal(signal.SIGCONT)
    assert [served.ask("/0/data/queues.json")[0] for _ in range(20)] == [200] * 20


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
        assert served.ask("/0/data/queues.json")[0] == 200, "the right one takes back what was wrong before"


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


@pytest.mark.parametrize("user", [f"ops:{PASSWORD}", f"operator:{OPERATORS}"])
@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_what_changes_jobs_is_refused(served: Served, method: str, path: str, user: str) -> None:
    """To a reader all of it, and to an operator all but two buttons, which have tests of their own."""
    if user.startswith("operator") and method == "POST" and path.startswith("/job/"):
        return
    before = served.redis.client.dbsize(), served.redis.client.zrange(names.rq_registry("failed", "fra"), 0, -1)
    status, _, headers = served.ask(path, method, user, Sec_Fetch_Site="same-origin")
    assert status == 405
    assert headers["allow"] == "GET, HEAD"
    assert before == (
        served.redis.client.dbsize(),
        served.redis.client.zrange(names.rq_registry("failed", "fra"), 0, -1),
    )


def made(served: Served, job: str, *, to: str = "failed", params: dict | None = None) -> Job:
    """Another job, in a registry or in the queue."""
    client = served.redis.client
    enqueuer = Enqueuer(client, "fra")
    enqueuer.open()
    assert not any(
        enqueuer.write([task("fra", task=job, params=params or {"q": "x"})], offset_ms=0, now_ms=now_ms()).refusals
    )
    enqueuer.close()
    one = Job.fetch(job, connection=client, serializer=JSONSerializer)
    if to == "failed":
        client.lrem(names.rq_queue("fra"), 1, job)
        FailedJobRegistry("fra", connection=client, serializer=JSONSerializer).add(one, 300, exc_string=TRACEBACK)
        one.set_status(JobStatus.FAILED)
    return one


def test_an_operator_deletes_a_job_that_does_not_run(served: Served) -> None:
    for job, to, said in (("01DELFAILED", "failed", "Deleted."), ("01DELQUEUED", "queued", "Its task ends as expired")):
        made(served, job, to=to)
        status, answer = served.act(f"/job/{job}/delete")
        assert (status, answer["status"], said in answer["message"]) == (200, "OK", True)
        assert [key for key in served.redis.client.keys("*") if job.encode() in key] == []
        assert served.redis.client.zscore(names.rq_registry("failed", "fra"), job) is None
        assert job.encode() not in served.redis.client.lrange(names.rq_queue("fra"), 0, -1)
    assert served.act("/job/01DELQUEUED/delete")[0] == 404


def test_a_job_that_runs_is_not_deleted(served: Served) -> None:
    served.redis.client.hset(names.rq_job(IDS["started"]), "status", "started")
    status, answer = served.act(f"/job/{IDS['started']}/delete")
    assert (status, "It runs" in answer["message"]) == (409, True)
    assert served.redis.client.exists(names.rq_job(IDS["started"]))


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"Sec_Fetch_Site": "same-origin"}, True),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "same-site"}, False),
        ({"Sec_Fetch_Site": "none"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"X_Requested_With": "XMLHttpRequest"}, True),
        ({"X_Other": "a form sends no header of its own"}, False),
    ],
)
def test_a_page_of_another_site_can_not_press_a_button(served: Served, headers: dict, passes: bool) -> None:
    """Its browser sends the password along; where the request comes from it can't hide."""
    made(served, "01FORGED")
    status, _ = served.act("/job/01FORGED/delete", **headers)
    assert (status, served.redis.client.exists(names.rq_job("01FORGED"))) == ((200, 0) if passes else (403, 1))
    served.act("/job/01FORGED/delete")


def test_an_own_page_of_an_older_browser_may(served: Served) -> None:
    made(served, "01OLDER")
    assert served.act("/job/01OLDER/delete", Host="dash.example:9181", Origin="http://dash.example:9181")[0] == 200


def test_what_can_not_be_asked_again_says_why(served: Served) -> None:
    """Each stays where it is: a gateway that is away, a job that has not ended, params that were cut, no such job."""
    made(served, "01AGAIN")
    status, answer = served.act("/job/01AGAIN/requeue")
    assert (status, "No gateway answers at" in answer["message"]) == (503, True)
    assert served.redis.client.zscore(names.rq_registry("failed", "fra"), "01AGAIN")
    status, answer = served.act(f"/job/{IDS['queued']}/requeue")
    assert (status, "is queued: it has not ended" in answer["message"]) == (409, True)
    made(served, "01LONG", params={"q": "x" * 2000})
    status, answer = served.act("/job/01LONG/requeue")
    assert (status, "too long to be kept" in answer["message"]) == (409, True)
    assert served.act("/job/01NONE/requeue")[0] == 404
    for job in ("01AGAIN", "01LONG"):
        served.act(f"/job/{job}/delete")


def test_buttons_are_shown_to_whom_they_serve(served: Served) -> None:
    """What nobody may do is hidden from all."""
    of_reader = served.ask("/0/view/jobs")[1]
    of_operator = served.ask("/0/view/jobs", credentials=f"operator:{OPERATORS}")[1]
    hidden = [page.partition("<style>")[2].partition("</style>")[0] for page in (of_reader, of_operator)]
    assert ["requeue-job-btn" in style for style in hidden] == [True, False]
    assert ["delete-job-btn" in style for style in hidden] == [True, False]
    assert all("#empty-btn" in style and "#requeue-all-btn" in style for style in hidden)


def test_who_guesses_has_to_wait_even_with_the_right_password(monkeypatch) -> None:
    """For a minute at first, then twice as long each time; a right one in time forgets it all."""
    now = [1000.0]
    monkeypatch.setattr(dashboard_roles.time, "monotonic", lambda: now[0])
    region = Region(name="fra", dashboard=Dashboard(password=PASSWORD, redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    client = connect.open_redis(region.dashboard.redis_url, name="test")
    pages = dashboard.application(client, region).test_client()

    def status(password: str) -> int:
        return pages.get("/0/view/nothing", auth=("ops", password)).status_code

    assert [status("wrong") for _ in range(9)] == [401] * 9
    assert status(PASSWORD) == 404
    assert [status("wrong") for _ in range(10)] == [401] * 9 + [429]
    assert status(PASSWORD) == 429
    assert pages.get("/").status_code == 429
    now[0] += 61
    assert status("wrong") == 429, "two minutes now"
    now[0] += 61
    assert status(PASSWORD) == 429
    now[0] += 61
    assert status(PASSWORD) == 404
    assert status("wrong") == 401
    client.close()


@pytest.mark.parametrize(
    ("address", "is_locked"),
    [("2001:db8:1:2:ffff::9", True), ("2001:db8:1:3::1", False), ("::ffff:10.0.0.1", False), ("10.0.0.1", False)],
)
def test_who_guesses_from_one_network_has_to_wait_at_each_of_its_addresses(address, is_locked) -> None:
    """Every client of IPv6 has a /64: with a new address for each guess it could guess for ever."""
    region = Region(name="fra", dashboard=Dashboard(password=PASSWORD, redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    pages = dashboard.application(connect.open_redis(region.dashboard.redis_url, name="test"), region).test_client()

    def status(at: str, password: str) -> int:
        own = {"REMOTE_ADDR": at}
        return pages.get("/0/view/nothing", auth=("ops", password), environ_base=own).status_code

    assert [status(f"2001:db8:1:2::{guess + 1:x}", "wrong") for guess in range(10)] == [401] * 9 + [429]
    assert status(address, PASSWORD) == (429 if is_locked else 404)


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
    client = connect.open_redis(served.reader_url, name="test", block_seconds=30.0)
    try:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"password": ""}, "dashboard.password"),
        ({"redis_url": ""}, "dashboard.redis_url"),
        ({"operator_redis_url": ""}, "dashboard.operator_password"),
        ({"operator_password": ""}, "dashboard.operator_password"),
        ({"operator_user": "ops"}, "dashboard.operator_user"),
    ],
)
def test_it_does_not_start_unprotected(changed: dict[str, str], line: str) -> None:
    url = "redis://127.0.0.1:1/0"
    given = {"password": PASSWORD, "redis_url": url, "operator_password": OPERATORS, "operator_redis_url": url}
    region = Region(name="fra", redis=RegionRedis(), dashboard=Dashboard(**{**given, **changed}))
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
