"""Look-ups at a real name server that is silent: how many wait, the messages, and which fetches go on."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from jobs.errors import TaskError, TimedOut
from jobs.fetch import route
from jobs.fetch.guard import Target, parse_allow, system_resolve
from tests.name_server import NameServer, asking
from tests.service.jobs.fetch.asking import fetch
from tests.waiting import until

Resolve = Callable[[str, int], list[Target]]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """While it is not set, the name server does not answer."""
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
def server(gate) -> Iterator[NameServer]:
    def answer(name: str, times: int) -> list[str] | None:
        if name.startswith("held"):
            gate.wait(60)
        return None if name.startswith("silent") else ["127.0.0.1"]

    made = NameServer(answer)
    yield made
    made.stop()


@pytest.fixture
def resolve(server) -> Resolve:
    """The system's look-up at this server, which waits for a silent one for longer than any fetch here takes."""

    def look_up(host: str, port: int) -> list[Target]:
        asking(server.port, seconds=10)
        return system_resolve(host, port)

    return look_up


def look_ups() -> int:
    return sum(thread.name == "look-up" for thread in threading.enumerate())


def errors_of(fetcher, resolve: Resolve, hosts: list[str], seconds: float) -> list[TaskError | None]:
    """The outcomes of simultaneous fetches, each on a thread of its own."""
    one = fetcher(resolve=resolve, allow=parse_allow("127.0.0.1"))
    found: list[TaskError | None] = [None] * len(hosts)

    def run(number: int) -> None:
        try:
            fetch(one, f"http://{hosts[number]}:1/", timeout_seconds=seconds)
        except TaskError as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(hosts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_a_silent_name_server_of_one_domain_holds_a_few_look_ups_and_nobody_else(fetcher, resolve):
    hosts = [f"silent{number}.slow.example" for number in range(40)]
    found = errors_of(fetcher, resolve, hosts, 2.0)
    assert {type(error) for error in found} == {TimedOut}
    assert look_ups() == route.OF_ONE_MAX
    texts = [str(error) for error in found]
    assert sum("could not be looked up: no name server answers" in text for text in texts) == route.OF_ONE_MAX
    told = "8 look-ups below slow.example wait for a name server that does not answer"
    assert sum(told in text for text in texts) == len(hosts) - route.OF_ONE_MAX
    assert {error.whose for error in found if told in str(error)} == {"region"}
    (other,) = errors_of(fetcher, resolve, ["www.quick.example"], 60)
    assert "could not connect to www.quick.example port 1" in str(other), "its name was looked up"
    until(lambda: look_ups() == 0, "the system to give up")


def test_all_silent_name_servers_together_hold_so_many_look_ups(fetcher, resolve):
    hosts = [f"silent.n{number}.example" for number in range(route.LOOK_UPS_MAX + 20)]
    hosts = [host.replace(".example", f"-{number}.example") for number, host in enumerate(hosts)]
    found = errors_of(fetcher, resolve, hosts, 2.0)
    assert look_ups() == route.LOOK_UPS_MAX
    assert sum("64 look-ups wait for a name server" in str(error) for error in found) == 20
    until(lambda: look_ups() == 0, "the system to give up")


def test_who_wants_a_name_that_is_looked_up_waits_for_that(fetcher, resolve, server, gate):
    asked: Counter[int] = Counter()  # once before the look-up, then while it is waited for

    def cancelled() -> bool:
        asked[threading.get_ident()] += 1
        return False

    one = fetcher(resolve=resolve, allow=parse_allow("127.0.0.1"))
    errors: list[str] = []

    def run() -> None:
        try:
            fetch(one, "http://held.shop.example:1/", timeout_seconds=60, cancelled=cancelled)
        except TaskError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    until(lambda: all(asked[thread.ident] > 1 for thread in threads), "all to wait")
    gate.set()
    for thread in threads:
        thread.join(60)
    assert server.asked["held.shop.example"] == 1
    assert ["could not connect to held.shop.example port 1" in text for text in errors] == [True] * 10
