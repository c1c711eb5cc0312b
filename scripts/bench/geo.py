"""``nearfetch bench geo``: the same pages from across an ocean, fetched from the hub directly and through a region.

    directly    requests at the hub ── TLS ── link ── the site                 then parsed by hand, with lxml
    the region  requests at the hub ── gateway ── links ── bridge, workers ── TLS ── the site      the records come home

The links are those of ``scripts/up --wan``: half a round trip each way, a round trip more for a new connection, and TCP's window,
which begins with 14,600 bytes. They count all that TCP carries, both ways. Both ways are timed until the records are
there. Each call asks a new question, so that no answer is kept or shared, and each answer is compared with the page's records.

Three states of connections are measured. *Busy*: calls follow each other, so that windows are open. *Idle*: nothing was sent for a
second. *New*: the same, and the direct client connects for each call, while the site closes each connection of the region's worker.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import requests
from msgspec import Struct

from regions.settings import PREFIX, ROOT
from scripts.bench import geo_pages, geo_site
from scripts.bench.geo_pages import Made
from scripts.bench.load import Wrong
from scripts.stack import distance
from scripts.stack.distance import Distance
from scripts.stack.own_stack import OwnStack
from scripts.stack.ports import free_port
from scripts.stack.probes import listens
from scripts.stack.services import Running, Service
from scripts.stack.wan_links import Control
from scripts.terminal import Progress

REGION: Final = "fra"
SITE: Final = "site"
BUSY, IDLE, NEW = STATES = ("busy", "idle", "new")
PAUSE_SECONDS: Final = 1.0  # longer than a link's window stays open, at all our distances
WARM_CALLS: Final = 3
QUIET_SECONDS: Final = 1.0  # after the last call, for what follows its answer: claims, acknowledgements
DEADLINE_SECONDS: Final = 60
MINUTE: Final = 60.0


class Plan(Struct, frozen=True):
    """What is measured: at which round trips, which pages, and how many calls, busy and with pauses."""

    rtts_ms: Sequence[float]
    pages: Sequence[str]
    busy_calls: int
    calls: int
    idle_seconds: float


FULL: Final = Plan((20.0, 80.0, 220.0), tuple(geo_pages.made()), busy_calls=11, calls=7, idle_seconds=60.0)
QUICK: Final = Plan((80.0,), tuple(geo_pages.made()), busy_calls=5, calls=3, idle_seconds=20.0)


class Side(Struct, frozen=True):
    """The calls of one side: how long each took, and how many bytes crossed the ocean for a call, both ways."""

    ms: list[float]
    bytes_a_call: float

    @property
    def median_ms(self) -> float:
        """The median of the calls."""
        return statistics.median(self.ms)


class Cell(Struct, frozen=True):
    """A page at a distance, with connections of one of ``STATES``."""

    page: str
    title: str
    rtt_ms: float
    connections: str
    direct: Side
    region: Side

    @property
    def times_quicker(self) -> float:
        """How many times longer the direct way takes."""
        return self.direct.median_ms / self.region.median_ms

    @property
    def times_less(self) -> float:
        """How many times more bytes the direct way sends across the ocean."""
        return self.direct.bytes_a_call / self.region.bytes_a_call


class Measured(Struct, frozen=True):
    """All cells. ``idle_bytes_per_second``: what a region without tasks and the hub send each other."""

    cells: list[Cell]
    idle_bytes_per_second: float

    @property
    def rtts_ms(self) -> list[float]:
        """The distances, the shortest first."""
        return sorted({cell.rtt_ms for cell in self.cells})

    @property
    def middle_rtt_ms(self) -> float:
        """The distance for which there is one figure only."""
        return self.rtts_ms[len(self.rtts_ms) // 2]

    @property
    def pages(self) -> list[str]:
        """The pages, as they were measured."""
        return list(dict.fromkeys(cell.page for cell in self.cells))

    def cell(self, page: str, rtt_ms: float, connections: str) -> Cell | None:
        """The cell, if it was measured."""
        asked = (page, rtt_ms, connections)
        return next((one for one in self.cells if (one.page, one.rtt_ms, one.connections) == asked), None)

    def a_minute(self, cell: Cell) -> tuple[float, float]:
        """The bytes of one call a minute: directly, and through a region that does nothing else."""
        return cell.direct.bytes_a_call, cell.region.bytes_a_call + MINUTE * self.idle_bytes_per_second

    def worth_it(self, cell: Cell) -> float | None:
        """How many calls a minute of a region send as much as without it; None if it never sends less."""
        saved = cell.direct.bytes_a_call - cell.region.bytes_a_call
        return MINUTE * self.idle_bytes_per_second / saved if saved > 0 else None


class Direct:
    """The client at the hub that fetches pages itself, over a link. ``port``: the link's."""

    def __init__(self, port: int, control: Control, certificate: Path) -> None:
        self._port, self._control, self._certificate = port, control, str(certificate)
        self._numbers = itertools.count(1)
        self._kept = self._session()

    def close(self) -> None:
        """Closes the kept connection."""
        self._kept.close()

    def crossed(self) -> int:
        """The bytes that have crossed the ocean so far."""
        return crossed(self._control, SITE)

    def call(self, page: Made, connections: str) -> Callable[[], float]:
        """A call that fetches and parses a page, and returns its seconds. Raises ``Wrong``."""
        read = geo_pages.reader(page)

        def call() -> float:
            url = f"https://127.0.0.1:{self._port}/{_path(connections)}/{page.name}?n={next(self._numbers)}"
            began = time.monotonic()
            session = self._session() if connections == NEW else self._kept
            records = read(session.get(url, timeout=DEADLINE_SECONDS).content)
            took = time.monotonic() - began
            if connections == NEW:
                session.close()
            check(page, records)
            return took

        return call

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env, session.verify = False, self._certificate
        return session


class ThroughRegion:
    """The client at the hub that asks the gateway for records."""

    def __init__(self, stack: OwnStack) -> None:
        assert stack.ports.wan is not None
        self._control, self._gateway = Control(stack.ports.wan.control), stack.url
        self._session = requests.Session()
        self._session.trust_env = False
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Closes its connections."""
        self._session.close()
        self._control.close()

    def crossed(self) -> int:
        """The bytes that have crossed the ocean so far, those that have nothing to do with its calls, too."""
        return sum(
            crossed(self._control, distance.link(REGION, server)) for server in (distance.RABBITMQ, distance.REDIS)
        )

    def call(self, page: Made, connections: str) -> Callable[[], float]:
        """A synchronous call for the records of a page, which returns its seconds. Raises ``Wrong``."""

        def call() -> float:
            params: dict[str, Any] = {"connection": _path(connections), "n": next(self._numbers)}
            if page.source == geo_pages.LISTING:
                params["page"] = page.name
            body = {"sources": [{"source": page.source, "params": params}], "deadline": DEADLINE_SECONDS}
            began = time.monotonic()
            url, headers = f"{self._gateway}/v1/requests", {"Prefer": "wait=60"}
            answer = self._session.post(url, json=body, headers=headers, timeout=2 * DEADLINE_SECONDS).json()
            took = time.monotonic() - began
            result = (answer.get("results") or [{"status": answer}])[0]
            if result["status"] != "succeeded":
                raise Wrong(f"{page.title}: expected succeeded, found {result}")
            check(page, result["records"])
            return took

        return call


def _path(connections: str) -> str:
    """How the site's path says whether it keeps the connection."""
    return "new" if connections == NEW else "kept"


def crossed(control: Control, link: str) -> int:
    """The bytes that a link has carried so far, both ways."""
    counts = control.counts(link)
    return counts.there + counts.back


def check(page: Made, records: list[dict[str, Any]]) -> None:
    """Raises ``Wrong`` unless these are the page's records."""
    if records != page.records:
        raise Wrong(f"{page.title}: expected its {len(page.records)} records, found {records[:1]}…")


def measure(plan: Plan, progress: Progress) -> Measured:
    """Measures everything. Raises ``Failed``, ``NotReady``, ``NotStarted`` and ``Wrong``."""
    cells: list[Cell] = []
    idle: list[float] = []
    for rtt_ms in plan.rtts_ms:
        progress.waiting(f"{rtt_ms:g} ms: a stack starts")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearfetch-bench-geo-")))
            site = stack.enter_context(far_site(folder, rtt_ms))
            direct = Direct(site.link, site.control, site.certificate)
            stack.callback(direct.close)
            region = stack.enter_context(_region(site, rtt_ms, progress))
            progress.waiting(f"{rtt_ms:g} ms: what an idle region sends, {plan.idle_seconds:g} s")
            time.sleep(QUIET_SECONDS)
            before = region.crossed()
            time.sleep(plan.idle_seconds)
            idle.append((region.crossed() - before) / plan.idle_seconds)
            for page, connections in itertools.product(map(geo_pages.made().__getitem__, plan.pages), STATES):
                progress.waiting(f"{rtt_ms:g} ms: {page.title}, {connections} connections")
                count, pause = (plan.busy_calls, 0.0) if connections == BUSY else (plan.calls, PAUSE_SECONDS)
                sides = (
                    _side(direct.call(page, connections), direct.crossed, count, pause, 0.0),
                    _side(region.call(page, connections), region.crossed, count, pause, idle[-1]),
                )
                cells.append(Cell(page.name, page.title, rtt_ms, connections, *sides))
    return Measured(cells, statistics.median(idle))


def _side(call: Callable[[], float], counted: Callable[[], int], count: int, pause: float, idle: float) -> Side:
    """Makes calls. ``idle``: bytes a second that would have crossed without them, which are not theirs."""
    for _ in range(WARM_CALLS):
        call()
    time.sleep(QUIET_SECONDS)
    before, began = counted(), time.monotonic()
    opening = 0 if pause else 1
    for _ in range(opening):
        call()  # opens the windows again, which that second has closed
    took = []
    for _ in range(count):
        time.sleep(pause)
        took.append(call() * 1000)
    time.sleep(QUIET_SECONDS)
    own = counted() - before - idle * (time.monotonic() - began)
    return Side(took, max(own, 1.0) / (opening + count))


class FarSite(Struct, frozen=True):
    """The running site: its own port, the port of the link before it, what drives the link, and the certificate to trust."""

    port: int
    link: int
    control: Control
    certificate: Path


@contextmanager
def far_site(folder: Path, rtt_ms: float) -> Iterator[FarSite]:
    """The site, and a link before it. Files are written into ``folder``. Raises ``Failed``."""
    certificate, key = geo_site.certificate(folder)
    port, link, control = (free_port() for _ in range(3))
    site = ["scripts.bench.geo_site", str(port), str(certificate), str(key)]
    wan = ["scripts.stack.wan", "--control", str(control), f"{SITE}={link}:{port}@{Distance(rtt_ms).spelled}"]
    with ExitStack() as stack:
        for name, words, listening in (("site", site, port), ("link", wan, control)):
            command = [sys.executable, "-m", *words]
            service = Service(name, command, folder / f"{name}.log", listens(listening), {"PYTHONPATH": str(ROOT)})
            stack.callback(Running(service).start().stop)
        found = FarSite(port, link, Control(control), certificate)
        stack.callback(found.control.close)
        yield found


@contextmanager
def _region(site: FarSite, rtt_ms: float, progress: Progress) -> Iterator[ThroughRegion]:
    """A stack with one region at this distance, beside the site."""
    environ = {
        f"{PREFIX}FETCH__ALLOW": f"127.0.0.1:{site.port}",
        f"{PREFIX}FETCH__ORIGINS": f"{geo_pages.ORIGIN}=https://127.0.0.1:{site.port}",
        f"{PREFIX}FETCH__CA_FILE": str(site.certificate),
    }
    regions, wan = [ROOT / "regions" / f"{REGION}.toml"], f"{REGION}={Distance(rtt_ms).spelled}"
    stack = OwnStack("geo", environ, progress, live=True, regions=regions, wan=wan)
    try:
        for source, text in geo_pages.definitions(REGION).items():
            (stack.sources / f"{source}.toml").write_text(text, encoding="utf-8")
        stack.start()
        with closing(ThroughRegion(stack)) as client:
            yield client
    finally:
        stack.stop()
