"""The supervisor with small parts: restarts, the order of the end, and what is left when the supervisor is killed."""

import os
import queue
import signal
import socket
import threading
import xmlrpc.client
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from regions import settings
from regions.process import Process
from scripts.stack import supervision
from scripts.stack.data_folder import DataFolder
from scripts.stack.parts import Part, Stack
from scripts.stack.probes import always
from scripts.stack.startup import DEATHS_MAX, Ending, NotReady, Startup
from scripts.stack.supervision import Supervisor
from scripts.stack.watch import LOOK_SECONDS, Watch, signals
from scripts.terminal import Progress
from tests.waiting import until

# Says when it was told to end, and then takes a moment: who is told next must wait for it.
SAYS_END = """
    trap 'echo "$NAME told" >> "$ORDER"; sleep 0.2; echo "$NAME ended" >> "$ORDER"; exit 0' TERM
    echo "$NAME ready" >> "$ORDER"
    while :; do sleep 0.05; done
"""


@pytest.fixture
def data(tmp_path):
    """A folder whose name is long, has a space and a percent sign: all three are special somewhere on the way."""
    folder = DataFolder(tmp_path / ("100 % " + "long" * 30))
    folder.open()
    return folder


@pytest.fixture
def supervisor(data):
    supervisor = Supervisor(data)
    yield supervisor
    supervisor.stop()


def part(data, name, stage, script=SAYS_END):
    environment = {"PATH": os.environ["PATH"], "NAME": name, "ORDER": str(data.path / "order")}
    return Part(name, stage, ["/bin/sh", "-c", script], environment, always)


def start(supervisor, *parts):
    supervisor.start(parts, ends_with_us=True)
    for one in parts:
        supervisor.start_part(one)


def startup_of(data, supervisor):
    return Startup(data, supervisor, Stack([], None), settings.load({}), None, Progress(), Ending())


def pid(supervisor, name):
    return (supervisor.states() or {})[name].pid


def running(data, *names):
    until(lambda: all([name, "ready"] in told(data) for name in names), "the parts")


def told(data):
    order = data.path / "order"
    return [line.split() for line in order.read_text().splitlines()] if order.exists() else []


def test_a_stage_ends_as_a_whole_before_the_next_one_is_told(data, supervisor):
    names = {
        "rabbitmq": "servers",
        "hub": "servers",
        "bridge-fra": "regions",
        "workers-fra": "regions",
        "gateway": "entry",
    }
    start(supervisor, *(part(data, name, stage) for name, stage in names.items()))
    running(data, *names)
    pids = {name: pid(supervisor, name) for name in names}
    supervisor.stop()
    order = told(data)
    for earlier, later in (
        ("gateway", "bridge-fra"),
        ("gateway", "workers-fra"),
        ("bridge-fra", "hub"),
        ("workers-fra", "rabbitmq"),
    ):
        assert order.index([earlier, "ended"]) < order.index([later, "told"])
    assert [Process.of(each) for each in pids.values()] == [None] * 5
    assert data.supervisor is None
    assert list(data.run.glob("*.pid")) == []


@pytest.mark.parametrize("how", ["stop_part", "remove"])
def test_a_part_may_take_longer_to_end_than_an_answer_of_the_supervisor(data, supervisor, monkeypatch, how):
    """Workers end their jobs first. Who gave up waiting would leave a stopped part that nobody starts again."""
    ends_when_let = SAYS_END.replace("sleep 0.2", 'until [ -e "$ORDER.end" ]; do sleep 0.05; done')
    slow = part(data, "hub", "servers", ends_when_let)
    start(supervisor, slow)
    running(data, "hub")
    monkeypatch.setattr(supervision, "CALL_SECONDS", 1.0)
    began, stop = (
        supervisor.states()["hub"].pid,
        {"stop_part": lambda: supervisor.stop_part(slow), "remove": lambda: supervisor.remove(["hub"])},
    )
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop[how])
        until(lambda: ["hub", "told"] in told(data), "it to be told")
        with pytest.raises(TimeoutError):
            stopping.result(supervision.CALL_SECONDS + 0.5)
        (data.path / "order.end").touch()
        stopping.result(60)
    assert Process.of(began) is None


@pytest.mark.parametrize("how", ["stop_part", "remove"])
def test_a_part_that_has_just_ended_by_itself_is_stopped_and_is_not_started_again(data, supervisor, monkeypatch, how):
    """supervisord refuses to stop it, and would start it again within a second."""
    # A signal to a process that supervisord has just forked is lost, so its end may need the time that it has.
    bridge = replace(part(data, "bridge-fra", "regions"), stop_seconds=1)
    start(supervisor, bridge)
    until(lambda: supervisor.states()["bridge-fra"].name == "RUNNING", "the part to count as running")
    asked, call = [], supervisor._call

    def ends_before_it_is_stopped(method, *arguments):
        """The moment between its end and its new start is too short to be met by chance."""
        asked.append(method)
        if method == "stopProcess" and asked.count(method) == 1:
            os.kill(pid(supervisor, "bridge-fra"), signal.SIGKILL)
            raise xmlrpc.client.Fault(supervision.NOT_RUNNING, "NOT_RUNNING: regions:bridge-fra")
        return call(method, *arguments)

    monkeypatch.setattr(supervisor, "_call", ends_before_it_is_stopped)
    {"stop_part": lambda: supervisor.stop_part(bridge), "remove": lambda: supervisor.remove(["bridge-fra"])}[how]()
    assert supervisor.states()["bridge-fra"].name == "STOPPED"


def test_a_part_that_is_killed_is_started_again_and_it_is_said(data, supervisor, capsys):
    start(supervisor, part(data, "bridge-fra", "regions"))
    running(data, "bridge-fra")
    until(lambda: supervisor.states()["bridge-fra"].name == "RUNNING", "the part to count as running")
    watch = Watch(data, supervisor, Progress())
    first = pid(supervisor, "bridge-fra")
    os.kill(first, signal.SIGKILL)

    def second():
        assert watch.run_once()
        found = pid(supervisor, "bridge-fra")
        return found not in (0, first) and found

    again = until(second, "a second process")
    watch.run_once()
    said = capsys.readouterr().out
    assert f"(process {first})" in said
    assert f"started again as process {again}" in said
    assert str(data.log / "bridge-fra.log") in said


def test_the_supervisor_is_asked_only_when_a_process_ended_or_somebody_says_so(data, supervisor, capsys):
    names = ("hub", "gateway")
    start(supervisor, *(part(data, name, "servers") for name in names))
    running(data, *names)
    until(lambda: all(state.name == "RUNNING" for state in supervisor.states().values()), "the parts")
    watch, ending = Watch(data, supervisor, Progress()), Ending()
    told, tells = socket.socketpair()
    looks: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def look():
        while not ending.requested:
            watch.wait(told)
            looks.put(watch.run_once())

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    for name in names:
        before = pid(supervisor, name)
        with pytest.raises(queue.Empty):  # some looks may follow the last end
            [looks.get(timeout=3 * LOOK_SECONDS) for _ in range(10)]
        os.kill(before, signal.SIGKILL)
        until(lambda before=before, name=name: pid(supervisor, name) not in (0, before), "another process")
        until(lambda name=name: watch.last[name].pid == pid(supervisor, name), "the watch to have seen it")
    ending.request()
    tells.send(b".")
    looking.join(60)
    assert not looking.is_alive()
    told.recv(1)
    os.kill(data.supervisor.pid, signal.SIGKILL)
    watch.wait(told)
    until(lambda: not watch.run_once(), "its end to be seen")
    told.close()
    tells.close()
    assert capsys.readouterr().out.count("started again") == len(names)


def test_a_signal_is_told():
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    with signals() as told:
        os.kill(os.getpid(), signal.SIGUSR1)
        told.settimeout(30)
        assert told.recv(1) == bytes([signal.SIGUSR1])
    signal.signal(signal.SIGUSR1, before)


def test_a_part_that_keeps_dying_is_tried_with_growing_pauses_and_they_are_said(data, supervisor, capsys):
    start(supervisor, part(data, "hub", "servers", "exit 3"))
    watch = Watch(data, supervisor, Progress())
    watch.last = {}

    def looked():
        watch.run_once()
        said.append(capsys.readouterr().out)
        return "the next try is in 2 s" in "".join(said)

    said = []
    until(looked, "the second pause")
    assert "hub" in "".join(said)


def test_a_killed_supervisor_is_seen_and_what_it_left_is_ended_in_order(data, supervisor):
    names = {"hub": "servers", "workers-fra": "regions", "gateway": "entry"}
    start(supervisor, *(part(data, name, stage) for name, stage in names.items()))
    running(data, *names)
    until(lambda: len(list(data.run.glob("*.pid"))) == 4, "the pid files")
    pids = [pid(supervisor, name) for name in names]
    os.kill(data.supervisor.pid, signal.SIGKILL)
    until(lambda: data.supervisor is None, "the supervisor's end")
    assert None not in [Process.of(each) for each in pids]
    assert not Watch(data, supervisor, Progress()).run_once()
    assert supervisor.stop() >= 3
    assert [Process.of(each) for each in pids] == [None] * 3
    order = told(data)
    assert order.index(["gateway", "ended"]) < order.index(["workers-fra", "told"])
    assert order.index(["workers-fra", "ended"]) < order.index(["hub", "told"])


def test_a_part_of_another_process_with_the_same_pid_is_left_alone(data, supervisor):
    data.pid_file("hub").write_text(f"{os.getpid()} 1\n")
    assert Supervisor(data).end_leftovers() == 0


def test_a_part_that_does_not_start_is_named_after_a_few_tries(data, supervisor):
    dying = part(data, "workers-fra", "regions", "echo why it died >&2; exit 1")
    start(supervisor, dying)
    startup = startup_of(data, supervisor)
    with pytest.raises(NotReady, match=f"workers-fra does not start: .* {DEATHS_MAX} times") as raised:
        startup.wait("workers-fra", lambda: "not there")
    assert raised.value.part == "workers-fra"
    assert "why it died" in (data.log / "workers-fra.log").read_text()


def test_who_is_told_to_stop_while_it_starts_stops(data, supervisor):
    start(supervisor, part(data, "hub", "servers"))
    startup = startup_of(data, supervisor)
    startup.ended.request(signal.SIGINT, None)
    with pytest.raises(NotReady, match="Stopped before everything was ready"):
        startup.wait("hub", lambda: "not there")
