"""Egresses of real worker processes, counted at a site: which is used, how they fail, and that no password is shown."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from regions import names
from regions.egress import Egress
from tests.service.conftest import free_port
from tests.service.jobs.fetch.origin import Origin, Spoken
from tests.service.jobs.fetch.proxies import PASSWORD, WRITTEN, running
from tests.service.region_workers import RegionWorkers, of
from tests.waiting import until

HOST = "http://site.example:80"
SOURCE = """
title = "Rows"
url = 'http://site.example/rows{?n}'
[params]
n = {}
[request]
egress = "EGRESS"
[rows]
css = "li"
[fields]
said = {xpath = "string(.)"}
[limits]
robots = ROBOTS
retries = 0
concurrency = 16
"""


def source(egress: str, robots: str = "false") -> str:
    return SOURCE.replace("EGRESS", egress).replace("ROBOTS", robots)


class Site(Origin):
    """Answers with a greeting, and notes user agent, client address and path of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        super().__init__(self._note)

    def _note(self, spoken: Spoken) -> None:
        path = spoken.target.partition("?")[0].removeprefix("/site")
        self.seen.append((spoken.headers["user-agent"], spoken.connection.getpeername()[0], path))
        if path == "/robots.txt":
            spoken.answer(b"User-agent: *\nDisallow: /nothing\n")
        else:
            spoken.answer(b"<ul><li>hello")


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.stop()


@pytest.fixture
def start(workers, site):
    def start(
        sources: dict[str, str], egress: dict[str, Egress], processes: int = 1, *, pool: bool = False
    ) -> RegionWorkers:
        there = {"allow": f"127.0.0.1:{site.port}", "origins": f"{HOST}={site.url}/site"}
        files = {f"{name}.toml": text for name, text in sources.items()}
        workers.start(files, pool=pool, egress={"default": Egress(), **egress}, processes=processes, **there)
        return workers

    return start


def ask(workers: RegionWorkers, source: str, count: int = 1) -> list[dict]:
    tasks = [of(source, n=str(n)) for n in range(count)]
    there = {"url": "http://site.example/rows", "host": HOST}
    return workers.results(workers.ask([msgspec.structs.replace(one, **there) for one in tasks]))


def told(workers: RegionWorkers) -> dict[str, dict]:
    """The sources as the region last reported them to the hub."""
    said = [fields[b"d"] for _, fields in workers.hub.xrange(names.out_stream("fra")) if fields[b"k"] == b"sources"]
    return json.loads(said[-1]) if said else {}


def test_a_source_goes_out_by_the_way_that_it_names_and_so_does_its_robots_txt(tmp_path, start, site):
    """Each egress has its own connections and its own robots.txt: a host may answer it differently."""
    with running(tmp_path / "proxy", "socks5") as proxy:
        ways = {
            "far": Egress(user_agent="far/1", proxy=proxy.url()),
            "second": Egress(user_agent="second/1", source_address="127.0.0.2"),
        }
        workers = start({name: source(name, "true") for name in ("default", *ways)}, ways)
        for name in ("default", *ways):
            assert [ask(workers, name)[0]["status"] for _ in range(3)] == ["succeeded"] * 3
        assert set(proxy.asked) == {f"CONNECT 127.0.0.1:{site.port}"}
    assert Counter(site.seen) == {
        (agent, address, path): times
        for agent, address in (("nearfetch/0.1", "127.0.0.1"), ("far/1", "127.0.0.1"), ("second/1", "127.0.0.2"))
        for path, times in (("/robots.txt", 1), ("/rows", 3))
    }


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_away_opens_no_hosts_breaker(start, site, scheme):
    """Twice as many failures as would open a breaker; the host stays available on another egress."""
    away = {"far": Egress(proxy=f"{scheme}://{WRITTEN}@127.0.0.1:{free_port()}")}
    workers = start({"far": source("far"), "near": source("default")}, away)
    errors = [one["error"] for one in ask(workers, "far", 20)]
    assert {(one["type"], one["origin"], one["message"]) for one in errors} == {
        ("connection", "region", "the proxy of egress far can't be reached: Connection refused")
    }
    assert {one["attempts"] for one in ask(workers, "far", 2)} == {1}
    assert not workers.client.exists(names.OPEN)
    assert workers.client.hget(names.host(HOST), "fails") is None
    assert ask(workers, "near")[0]["status"] == "succeeded"


def test_a_way_out_that_the_region_does_not_have_is_told_when_the_workers_start(start, workers, site, tmp_path):
    """Before any task runs: with file, line and what was found. After the file is corrected, workers start."""
    start({"lost": source("fra"), "near": source("default")}, {"far": Egress()}, pool=True)
    fault = 'lost.toml:7: request.egress: expected an egress of region fra, found "fra"; did you mean "far"?'
    until(lambda: told(workers).get("lost", {}).get("fault") == fault, "the hub to hear of it")
    assert told(workers)["near"]["fault"] is None
    assert [one["faults"] for one in workers.log if one["event"] == "a definition is broken"][:1] == [fault]
    (failed,) = ask(workers, "lost")
    assert (failed["error"]["type"], failed["error"]["origin"]) == ("unknown_source", "region")
    assert fault in failed["error"]["message"]
    assert site.seen == []
    (tmp_path / "sources" / "lost.toml").write_text(source("far"))
    until(lambda: told(workers)["lost"]["fault"] is None, "the hub to hear that it is mended")
    until(lambda: ask(workers, "lost")[0]["status"] == "succeeded", "the workers to notice it too")


@pytest.mark.parametrize("wrong", [False, True])
def test_nobody_sees_a_proxys_password(tmp_path, start, workers, region_redis, wrong):
    """Not in logs, results, jobs, Redis's files or command lines, whether the password is right or wrong."""
    with running(tmp_path / "proxy") as proxy:
        password = "hunter2%40x" if wrong else WRITTEN.partition(":")[2]
        far = Egress(proxy=proxy.url(f"us%20er:{password}"))
        start({"far": source("far")}, {"far": far}, processes=2, pool=True)
        found = ask(workers, "far", 4)
    assert {one["status"] for one in found} == {"failed" if wrong else "succeeded"}
    hidden = ["hunter2@x", "hunter2%40x"] if wrong else [PASSWORD, WRITTEN.partition(":")[2]]
    places = {"log": (tmp_path / "log").read_bytes(), "results": json.dumps(found).encode()}
    places |= {str(file): file.read_bytes() for file in region_redis.folder.rglob("*.aof*") if file.is_file()}
    places |= {f"process {pid}": Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers.pids().values()}
    assert len(places) >= 5
    assert any(b"request" in text for place, text in places.items() if "aof" in place)
    assert [(place, one) for place, text in places.items() for one in hidden if one.encode() in text] == []
