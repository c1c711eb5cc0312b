"""A pool of worker processes on real Redis: killed, hung, stopped."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from rq import Queue
from rq import Worker as RqWorker

from jobs.pool import child
from jobs.pool import processes as pools
from jobs.pool.report import SOURCES_SECONDS
from jobs.worker import fork_server as fork_servers
from regions import names
from regions.process import may_raise_priority
from regions.settings import ROOT
from tests.forked import Forked
from tests.service.working import REGION, enqueue, out_entries, results, settings_for, task
from tests.waiting import until

# The pool as `run` runs it, with the tests' runner in its workers.
PROGRAM = """
import os, sys, msgspec
from jobs.pool import child, examiner, processes as pool
from jobs.worker import fork_server, stop
from regions import logs
from regions.settings import Settings
from tests import forked
stop.follow_parent()
own = sys.argv.pop(1) == "own"
if nice := sys.argv.pop(1):
    os.setpriority(os.PRIO_PROCESS, 0, int(nice))
if sys.argv[1:] == ["-m", "tests.service.working"]:
    forked.forks(child, examiner, *([] if own else [fork_server]))
logs.configure("json")
settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
sys.exit(pool.run(settings, "fra", (sys.executable, *sys.argv[1:])))
"""

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(region_redis, hub_redis) -> Iterator[Start]:
    """Starts a pool process."""
    started: list[subprocess.Popen] = []

    def begin(
        processes: int = 2,
        threads: int = 4,
        worker: tuple[str, ...] = ("-m", "tests.service.working"),
        *,
        own_fork_server: bool = False,
        nice: int | None = None,
    ) -> subprocess.Popen:
        """With its own fork server the pool starts that as production does, and ``fork_server`` finds it.

        ``nice`` is the pool's nice value, if not that of the tests.
        """
        chosen = settings_for(region_redis.url, hub_redis.url, threads=threads, processes=processes)
        how = "own" if own_fork_server else "forked"
        process = Forked(
            ["-c", PROGRAM, how, "" if nice is None else str(nice), *worker],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        process.stdin.write(msgspec.json.encode(chosen))
        process.stdin.close()
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pids(client) -> dict[str, int]:
    """The workers of the region's queue that RQ knows, and their processes."""
    return {worker.name: worker.pid for worker in RqWorker.all(connection=client) if worker.queue_names() == [REGION]}


def status(hub) -> dict:
    """The pool's latest status."""
    said = out_entries(hub, b"status")
    return json.loads(said[-1][b"d"]) if said else {}


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_pool_runs_its_processes_and_says_so(start, region_redis, hub_redis, tmp_path):
    client, hub = region_redis.client, hub_redis.client
    process = start(processes=2)
    until(lambda: len(pids(client)) == 2, "two workers")
    assert all(name.startswith(f"{REGION}.worker.") for name in pids(client))
    gate = tmp_path / "gate"
    ids = enqueue(client, [task(gate=str(gate)) for _ in range(10)])
    until(
        lambda: (status(hub).get("busy"), status(hub).get("waiting")) == (8, 2), "what runs and what waits to be told"
    )
    said = out_entries(hub, b"status")[-1]
    assert (said[b"part"], said[b"v"]) == (b"workers", b"1")
    assert said[b"name"].endswith(f":{process.pid}".encode())
    assert (status(hub)["processes"], status(hub)["threads"], status(hub)["waiting"]) == (2, 8, 2)
    gate.touch()
    until(lambda: status(hub)["succeeded"] == 10, "ten successes to be reported")
    until(lambda: set(results(hub)) == set(ids), "all results")
    until(lambda: (status(hub)["raw_bytes"], status(hub)["outbox_bytes"]) == (1000, 0), "their bytes to be reported")


def urgent(client) -> list[int]:
    """The process for tasks for which clients wait."""
    workers = RqWorker.all(connection=client)
    return [worker.pid for worker in workers if worker.queue_names() == [names.urgent(REGION)]]


def enqueue_urgent(client, one) -> str:
    """A normal process with a free thread may be quicker."""
    (id_,) = enqueue(client, [one])
    client.hset(names.rq_job(id_), names.JOB_FRONT, 1)
    if client.lrem(names.rq_queue(REGION), 0, id_):
        client.rpush(names.rq_queue(names.urgent(REGION)), id_)
    return id_


def test_tasks_for_which_clients_wait_have_a_process_of_their_own(start, region_redis, hub_redis, tmp_path):
    """It runs them also while all threads of the others are busy. A killed one is replaced."""
    client, hub, mark = region_redis.client, hub_redis.client, tmp_path / "marks"
    mark.mkdir()
    start(processes=1, threads=4)
    (pid,) = until(lambda: urgent(client), "the process")
    gate = tmp_path / "gate"
    ids = enqueue(client, [task(gate=str(gate), mark=str(mark)) for _ in range(8)])
    until(lambda: len(list(mark.iterdir())) == 4, "no idle thread")
    until(lambda: client.get(names.URGENT_LEASE), "its claim")
    first = enqueue_urgent(client, task(mark=str(mark)))
    until(lambda: results(hub) == [first], "its result")
    assert [one.name.split(".")[2] for one in mark.iterdir() if one.name.startswith(first)] == [str(pid)]
    os.kill(pid, signal.SIGKILL)
    (again,) = until(lambda: [one for one in urgent(client) if one != pid], "another process")
    until(lambda: client.get(names.URGENT_LEASE), "its claim")
    second = enqueue_urgent(client, task(mark=str(mark)))
    until(lambda: second in results(hub), "the next result")
    assert [one.name.split(".")[2] for one in mark.iterdir() if one.name.startswith(second)] == [str(again)]
    gate.touch()
    # The first one's result may come twice: another process sends what the killed one did not take out of the outbox.
    until(lambda: set(results(hub)) == {first, second, *ids}, "all results")


def test_while_the_process_for_urgent_tasks_hangs_the_others_run_them(start, region_redis, hub_redis):
    client, hub = region_redis.client, hub_redis.client
    start(processes=1)
    (pid,) = until(lambda: urgent(client), "the process")
    until(lambda: client.get(names.URGENT_LEASE), "its claim")
    os.kill(pid, signal.SIGSTOP)
    id_ = enqueue_urgent(client, task())
    until(lambda: results(hub) == [id_], "the result")
    os.kill(pid, signal.SIGCONT)


def nice_values(pid: int) -> set[int]:
    """Of all threads of a process."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended
            found.add(os.getpriority(os.PRIO_PROCESS, int(thread.name)))
    return found


def test_processes_for_other_tasks_give_way_while_clients_wait(start, region_redis, tmp_path):
    client, gate = region_redis.client, tmp_path / "gate"
    pool = start(processes=2, nice=0 if may_raise_priority() else None)
    until(lambda: len(pids(client)) == 2 and client.get(names.URGENT_LEASE), "all three")
    own = os.getpriority(os.PRIO_PROCESS, pool.pid)  # not 0 where an operator, or who runs the tests, chose it
    others = lambda: set().union(*map(nice_values, pids(client).values()))  # noqa: E731
    assert others() == {own}
    bulk = enqueue(client, [task(gate=str(gate)) for _ in range(8)])
    until(lambda: not client.llen(names.rq_queue(REGION)), "no idle thread")
    enqueue_urgent(client, task())
    until(lambda: others() == {own or pools.NICE}, "the others to give way")
    assert set().union(*map(nice_values, urgent(client))) == {own}
    client.delete(names.URGENT_SEEN)
    back = own if own or may_raise_priority() else pools.NICE
    until(lambda: others() == {back}, "the others to be as before")
    gate.touch()
    until(lambda: client.zcard(names.rq_registry("finished", REGION)) == len(bulk) + 1, "all to end")


def test_each_process_is_kept_on_one_processor(start, region_redis):
    start(processes=2)
    until(lambda: len(pids(region_redis.client)) == 2, "both to register")
    assert [len(os.sched_getaffinity(pid)) for pid in pids(region_redis.client).values()] == [1, 1]


def test_a_pool_reports_its_sources(start, region_redis, hub_redis):
    start(processes=1)
    said = until(lambda: out_entries(hub_redis.client, b"sources"), "its sources")
    for source in json.loads(said[0][b"d"]).values():
        assert {"definition", "fault"} <= set(source) <= {"definition", "fault", "lacks"}


def test_a_changed_source_is_told_more_than_once(workers, tmp_path):
    """A gateway that reads the file a moment later would leave out what it does not know to be the region's."""
    text = 'title = "Plain"\nurl = "https://plain.example/"\nregion = "fra"\n[fields]\nname = "b"\n'

    def told() -> list[str]:
        found = (json.loads(fields[b"d"]) for fields in out_entries(workers.hub, b"sources"))
        return [one["plain"]["definition"] for one in found if "plain" in one]

    workers.start({"plain.toml": text})
    first = until(told, "the source to be told")[0]
    (tmp_path / "sources" / "plain.toml").write_text(text.replace("Plain", "Changed"))
    until(lambda: len([one for one in told() if one != first]) >= 3, "the change to be told", SOURCES_SECONDS - 10)


def test_a_killed_process_is_replaced_and_its_jobs_run_again_at_once(start, region_redis, hub_redis, tmp_path):
    client, hub = region_redis.client, hub_redis.client
    start(processes=2, threads=8)
    until(lambda: len(pids(client)) == 2, "two workers")
    gate, mark = tmp_path / "gate", tmp_path / "marks"
    mark.mkdir()
    ids = enqueue(client, [task(gate=str(gate), mark=str(mark)) for _ in range(16)])
    until(lambda: len(list(mark.iterdir())) == 16, "16 running jobs")
    name, pid = next(iter(pids(client).items()))
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(list(mark.iterdir())) == 24, "eight second attempts")
    until(lambda: len(found := pids(client)) == 2 and name not in found, "two workers, the killed one gone")
    until(lambda: status(hub).get("lost") == 1, "its death to be told")
    assert (status(hub)["died"], status(hub)["death"]) == (1, f"{name} ended with -9")
    gate.touch()
    until(lambda: len(results(hub)) == 16, "the results")
    assert sorted(results(hub)) == sorted(ids)


def test_a_process_whose_loop_hangs_is_told_killed_and_replaced(start, region_redis, hub_redis):
    client = region_redis.client
    start(processes=1)
    until(lambda: len(pids(client)) == 1, "a worker")
    name, pid = next(iter(pids(client).items()))
    os.kill(pid, signal.SIGSTOP)
    until(lambda: status(hub_redis.client).get("hung") == 1, "it to be told that one hangs")
    assert not is_gone(pid)
    until(lambda: is_gone(pid), "its death", child.SILENT_SECONDS + 60)
    until(lambda: pids(client) and name not in pids(client), "another worker")


def test_a_warm_stop_drains_and_leaves_nothing_running(start, region_redis, hub_redis, tmp_path):
    client, hub = region_redis.client, hub_redis.client
    process = start(processes=2)
    until(lambda: len(pids(client)) == 2, "two workers")
    children = list(pids(client).values())
    gate, mark = tmp_path / "gate", tmp_path / "marks"
    mark.mkdir()
    ids = enqueue(client, [task(gate=str(gate), mark=str(mark)) for _ in range(10)])
    until(lambda: len(list(mark.iterdir())) == 8, "eight running jobs")
    process.terminate()
    gate.touch()
    assert process.wait(60) == 0
    assert all(map(is_gone, children))
    assert pids(client) == {}
    assert len(results(hub)) + Queue(REGION, connection=client).count == len(ids)
    assert client.zcard(names.rq_registry("wip", REGION)) == client.xlen(names.OUTBOX) == 0
    assert status(hub)["processes"] == 0


def test_a_second_signal_gives_everything_back(start, region_redis, hub_redis, tmp_path):
    client = region_redis.client
    process = start(processes=2)
    until(lambda: len(pids(client)) == 2, "two workers")
    mark = tmp_path / "marks"
    mark.mkdir()
    ids = enqueue(client, [task(gate=str(tmp_path / "never"), mark=str(mark)) for _ in range(10)])
    until(lambda: len(list(mark.iterdir())) == 8, "eight running jobs")
    until(lambda: process.send_signal(signal.SIGTERM) or process.poll() is not None, "its end", 25)
    assert process.wait() == 0
    assert sorted(Queue(REGION, connection=client).get_job_ids()) == sorted(ids)
    assert results(hub_redis.client) == []


def test_children_end_when_their_pool_is_killed(start, region_redis):
    client = region_redis.client
    process = start(processes=2)
    until(lambda: len(pids(client)) == 2, "two workers")
    children = list(pids(client).values())
    process.kill()
    process.wait()
    until(lambda: all(map(is_gone, children)), "their end")
    until(lambda: pids(client) == {}, "their leave")


def test_a_pool_whose_redis_hangs_goes_on_saying_that_it_lives(start, region_redis, hub_redis):
    """Otherwise the hub would report it as dead, and operators would look in the wrong place."""
    start()
    until(lambda: status(hub_redis.client).get("processes") == 2, "the pool")
    region_redis.running.signal(signal.SIGSTOP)
    try:
        frozen_at = until(lambda: says_away(hub_redis.client), "the pool to say what is away")["at_ms"]
        later = until(
            lambda: (found := says_away(hub_redis.client)).get("at_ms", 0) > frozen_at and found, "its next word"
        )
        assert later["processes"] == 2
    finally:
        region_redis.running.signal(signal.SIGCONT)
    until(lambda: status(hub_redis.client)["reason"] == "", "the pool to see its Redis again")


def says_away(hub) -> dict:
    said = status(hub)
    return said if said.get("reason", "").startswith("its Redis is away") else {}


def test_a_pool_waits_for_its_redis(start, region_redis, hub_redis):
    region_redis.running.kill()
    process = start(processes=1)
    region_redis.running.start()
    until(lambda: len(pids(region_redis.client)) == 1, "a worker")
    process.terminate()
    assert process.wait(60) == 0


def test_a_pool_that_waits_for_its_redis_can_be_stopped(start, region_redis, tmp_path):
    region_redis.running.kill()
    process = start(processes=1)
    until(lambda: process.send_signal(signal.SIGTERM) or process.poll() is not None, "its end")
    assert process.wait() in (0, -signal.SIGTERM)  # the latter: before it listened


def test_a_redis_below_the_floor_is_refused(start, region_redis, hub_redis, monkeypatch, caplog):
    monkeypatch.setattr("regions.connect.REDIS_FLOOR", (99, 0))
    settings = settings_for(region_redis.url, hub_redis.url)
    assert pools.Pool(settings, settings.one(REGION), child.WORKER).run() == 1


def test_settings_that_a_worker_refuses_end_the_pool(start):
    assert start(worker=("-c", "raise SystemExit(78)")).wait(60) == 1


def test_a_worker_that_dies_at_once_is_started_again_later_and_later(start, hub_redis, tmp_path):
    starts = tmp_path / "starts"
    start(processes=1, worker=("-c", f"open({str(starts)!r}, 'a').write('x'); raise SystemExit(1)"))
    until(lambda: starts.exists() and len(starts.read_text()) >= 3, "three starts")


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if stat and int(stat.rpartition(")")[2].split()[1]) == pid:
            found.append(int(entry.name))
    return found


def fork_server(process) -> int:
    """The pool's fork server; it may have been replaced a moment ago."""

    def found() -> list[int]:
        return [pid for pid in children(process.pid) if "--fork-server" in _words(pid)]

    return until(found, "a fork server")[0]


def _words(pid: int) -> list[str]:
    """The command line of a process, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


@pytest.fixture
def suspected(start, region_redis, tmp_path):
    """A pool whose only worker was killed with three tasks; they run again, alone, until ``gate`` exists."""
    client = region_redis.client
    process = start(processes=1, own_fork_server=True)
    until(lambda: len(pids(client)) == 1, "a worker")
    gate, mark = tmp_path / "gate", tmp_path / "marks"
    mark.mkdir()
    ids = enqueue(client, [task(gate=str(gate), mark=str(mark), deadline_seconds=600) for _ in range(3)])
    until(lambda: len(list(mark.iterdir())) == 3, "three running jobs")
    os.kill(next(iter(pids(client).values())), signal.SIGKILL)
    until(lambda: client.zcard(names.ALONE) == 3 and len(list(mark.iterdir())) == 6, "three that run alone")
    return process, ids, gate


def test_suspects_run_each_in_a_process_of_its_own_that_ends_with_them(suspected, region_redis, hub_redis):
    process, ids, gate = suspected
    lone = set(children(fork_server(process))) - set(urgent(region_redis.client))
    assert len(lone) >= 3
    gate.touch()
    until(lambda: sorted(results(hub_redis.client)) == sorted(ids), "the results")
    until(lambda: region_redis.client.zcard(names.ALONE) == 0, "their leave")
    until(lambda: all(map(is_gone, lone)), "their end")


def test_who_runs_a_suspect_and_stays_silent_does_not_hold_it(suspected, region_redis, hub_redis):
    process, ids, gate = suspected
    for pid in children(fork_server(process)):
        os.kill(pid, signal.SIGSTOP)
    gate.touch()
    until(lambda: sorted(results(hub_redis.client)) == sorted(ids), "the results, by other processes", 60)


def test_a_killed_fork_server_loses_nothing(suspected, region_redis, hub_redis):
    process, ids, gate = suspected
    first = fork_server(process)
    os.kill(first, signal.SIGKILL)
    until(lambda: is_gone(first), "its end")
    gate.touch()
    until(lambda: set(results(hub_redis.client)) == set(ids), "the results", 60)
    assert region_redis.client.hget(names.COUNTERS, "succeeded") == b"3"


def test_a_fork_server_that_is_stopped_is_killed_and_replaced_and_suspects_go_on(suspected, region_redis, hub_redis):
    """Also one whose process is stopped, too: nobody reports its death."""
    process, ids, gate = suspected
    client, first = region_redis.client, fork_server(process)
    lone = [worker.pid for worker in RqWorker.all(connection=client) if worker.get_current_executions()]
    os.kill(first, signal.SIGSTOP)
    os.kill(lone[0], signal.SIGSTOP)
    until(lambda: is_gone(first), "its end", fork_servers.SILENT_SECONDS + 60)
    gate.touch()
    until(lambda: set(results(hub_redis.client)) == set(ids), "the results", 60)
    until(lambda: all(map(is_gone, lone)), "the end of those who ran alone")  # they might take the next one, too
    later = task(gate=str(gate.with_name("later")), mark=str(gate.with_name("marks")))
    enqueue(client, [later])
    (begun,) = until(lambda: list(gate.with_name("marks").glob(f"{later.task}*")), "another running job")
    runs = int(begun.name.rpartition(".")[2])
    os.kill(runs, signal.SIGKILL)
    until(lambda: is_gone(runs), "its death")
    gate.with_name("later").touch()
    until(lambda: set(results(hub_redis.client)) == {*ids, later.task}, "the result of another suspect", 60)
    assert fork_server(process) != first
    assert client.hget(names.COUNTERS, "succeeded") == b"4"


def test_a_pool_whose_fork_server_is_stopped_can_be_stopped(suspected, region_redis, hub_redis):
    process, ids, gate = suspected
    first = fork_server(process)
    everybody = [first, *children(first)]
    os.kill(first, signal.SIGSTOP)
    process.terminate()
    gate.touch()
    assert process.wait(60) == 0
    until(lambda: all(map(is_gone, everybody)), "their end")
    assert sorted(results(hub_redis.client)) == sorted(ids)


def test_a_stop_ends_those_who_run_alone_too(suspected, region_redis, hub_redis):
    process, ids, gate = suspected
    everybody = [fork_server(process), *children(fork_server(process))]
    process.terminate()
    gate.touch()
    assert process.wait(60) == 0
    assert all(map(is_gone, everybody))
    assert sorted(results(hub_redis.client)) == sorted(ids)
    assert region_redis.client.zcard(names.ALONE) == 0


def test_those_who_run_alone_end_when_their_pool_is_killed(suspected, region_redis, hub_redis):
    process, ids, gate = suspected
    everybody = [fork_server(process), *children(fork_server(process))]
    process.kill()
    process.wait()
    gate.touch()
    until(lambda: all(map(is_gone, everybody)), "their end")
    assert sorted(results(hub_redis.client)) == sorted(ids)


def test_a_suspect_that_is_stuck_past_its_deadline_takes_its_process_with_it(start, region_redis, tmp_path):
    client = region_redis.client
    start(processes=1)
    until(lambda: len(pids(client)) == 1, "a worker")
    mark = tmp_path / "marks"
    mark.mkdir()
    (id_,) = enqueue(client, [task(seconds=1000, mark=str(mark), deadline_seconds=25)])
    until(lambda: len(list(mark.iterdir())) == 1, "a running job")
    os.kill(next(iter(pids(client).values())), signal.SIGKILL)
    until(lambda: len(list(mark.iterdir())) == 2, "its second attempt")
    until(lambda: client.hget(names.rq_job(id_), "status") == b"failed", "its end", 90)
    assert client.hget(names.rq_job(id_), names.JOB_DEATHS) == b"1"
    until(lambda: client.zcard(names.ALONE) == 0, "the end of its process")
