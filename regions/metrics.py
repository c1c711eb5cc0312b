"""The metrics that Prometheus reads: their names, and the text that a part answers.

    METRICS        every metric of every part: no other is ever exposed; docs/reference.md has the same table
    text           samples, as a part reads them from its counts and its state → the text, with the process's own CPU and memory
    Endpoint       serves it where a part has no HTTP of its own: bridges and pools of workers

Each part exposes what it did itself, as counters and histograms, so that sums over all instances count nothing twice; and what it
knows, as gauges. Several gateways have the same gauge of a region or server: take its maximum, not the sum.
"""

import os
import select
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from msgspec import Struct
from prometheus_client import ProcessCollector
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family

from regions import logs
from regions.counts import BUCKETS, Labels

Kind = Literal["counter", "gauge", "histogram"]
Part = Literal["gateway", "bridge", "workers"]
# The name of a metric, its label values in order, and a number; of a histogram the cells (regions.counts).
Sample = tuple[str, Labels, float | Sequence[int]]

PATH: Final = "/metrics"
RETRY_SECONDS: Final = 2.0  # for a port that another process has: while bridges overlap, both want the same
READ_SECONDS: Final = 5.0  # for the head of a scrape

log = logs.get("metrics")


class Metric(Struct, frozen=True):
    """A metric. Durations are in seconds, sizes in bytes; a counter's name ends with ``_total``. ``parts``: who exposes it."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    parts: tuple[Part, ...]
    help: str


def _of(part: Part | tuple[Part, ...], kind: Kind, name: str, labels: str, text: str) -> Metric:
    parts = part if isinstance(part, tuple) else (part,)
    return Metric(f"nearfetch_{name}", kind, tuple(labels.split()), parts, text)


METRICS: Final[dict[str, Metric]] = {
    one.name: one
    for one in (
        # Every part
        _of(
            ("gateway", "bridge", "workers"), "histogram", "hop_seconds", "hop region",
            "How long a hop of a task took: accept, publish, settle and answer at gateways, bridge at bridges, claim, turn, fetch, parse "
            "and ship at workers",
        ),
        # What a gateway did
        _of(
            "gateway", "histogram", "http_request_seconds", "route code",
            "How long a call took, from its arrival to the end of its answer; waits that the client asked for count",
        ),
        _of(
            "gateway", "counter", "requests_total", "outcome",
            "Requests, by what became of them: accepted, repeated (an Idempotency-Key came before), limited (by a key), refused (503)",
        ),
        _of(
            "gateway", "counter", "results_total", "source region status origin",
            "Tasks that this gateway ended. origin: whose fault it was if the task did not succeed. source is empty if it is not known",
        ),
        _of("gateway", "histogram", "task_seconds", "region status", "How long a task took from its request's arrival to its end"),
        _of(
            "gateway", "counter", "source_bytes_total", "source region bytes",
            "Bytes behind ended tasks: raw (decoded pages), received (as they came to the region), spared (of pages that were not fetched "
            "again), records (JSON), home (sent to the hub)",
        ),
        _of("gateway", "counter", "entries_refused_total", "region kind", "Entries of a region that break the rules"),
        # What a gateway has now
        _of("gateway", "gauge", "waiting_clients", "", "Clients that wait for results, event streams included"),
        _of("gateway", "gauge", "connections", "", "Connections of clients"),
        _of("gateway", "gauge", "connections_max", "", "As many as there may be"),
        _of("gateway", "gauge", "held_bytes", "direction", "Bytes held for clients: receiving, sending"),
        _of("gateway", "gauge", "clean_up_tasks", "", "Tasks of refused requests that are still to be taken back"),
        _of("gateway", "gauge", "hub_redis_up", "", "1 while the hub's Redis answers this gateway and takes its writes"),
        _of("gateway", "gauge", "hub_redis_used_bytes", "", "Memory of the hub's Redis"),
        _of("gateway", "gauge", "hub_redis_expected_bytes", "", "The same with what open tasks may bring: above 85 % of the maximum requests are refused"),
        _of("gateway", "gauge", "hub_redis_max_bytes", "", "Its maxmemory; 0 for no limit"),
        _of("gateway", "gauge", "rabbitmq_up", "", "1 while RabbitMQ confirms what this gateway publishes"),
        _of("gateway", "gauge", "rabbitmq_unconfirmed_messages", "region", "Messages of this gateway that RabbitMQ has not confirmed"),
        _of("gateway", "gauge", "history_up", "", "1 while the history takes requests; absent without one"),
        # What a gateway knows, as every other one does
        _of("gateway", "gauge", "fault", "name severity region source part", "1 while the fault lasts; the names are those of the runbooks"),
        _of("gateway", "gauge", "dead_letters", "", "Dead letters that wait for an operator"),
        _of("gateway", "gauge", "region_up", "region", "1 if the region is up, 0.5 if it is degraded, 0 if it is down"),
        _of("gateway", "gauge", "region_open_tasks", "region", "Tasks of the region that have not ended"),
        _of("gateway", "gauge", "region_oldest_task_seconds", "region", "Age of the oldest of them; 0 if there is none"),
        _of("gateway", "gauge", "region_unread_entries", "region", "Entries of the region's out stream that no gateway has read"),
        _of("gateway", "gauge", "region_held_bytes", "region", "Bytes of its settled results at the hub"),
        _of("gateway", "gauge", "region_held_max_bytes", "region", "As many as it may have; 0 for no limit"),
        _of("gateway", "gauge", "region_bridges", "region state", "Bridges that report, by their state: consuming, paused, starting"),
        _of("gateway", "gauge", "region_pools", "region", "Pools of workers that report"),
        _of("gateway", "gauge", "region_processes", "region", "Worker processes that they say they have"),
        _of("gateway", "gauge", "region_threads", "region", "Threads of these"),
        _of("gateway", "gauge", "region_running_tasks", "region", "Tasks that run in them"),
        _of("gateway", "gauge", "region_waiting_jobs", "region", "Jobs in RQ's queues"),
        _of("gateway", "gauge", "region_outbox_bytes", "region", "Results that wait in the region for the hub; workers stop claiming at 64 MB"),
        _of("gateway", "gauge", "region_redis_used_bytes", "region", "Memory of the region's Redis"),
        _of("gateway", "gauge", "region_redis_max_bytes", "region", "Its maxmemory; 0 for no limit. Bulk tasks stay in RabbitMQ from 70 %, all from 90 %"),
        _of("gateway", "gauge", "region_scale_processes", "region bound", "Processes by the autoscaler: wanted, needed, min, max"),
        _of("gateway", "gauge", "region_taken_over", "region", "1 while standbys get the region's new tasks"),
        _of("gateway", "gauge", "region_barred", "region", "1 while the region may not write to the hub"),
        _of("gateway", "gauge", "source_health", "source region health", "1: the health that the source has (ok, degraded, failing, broken, unknown)"),
        # Bridges
        _of(
            "bridge", "counter", "bridge_messages_total", "region lane outcome",
            "Messages that were received, acked, given_back to RabbitMQ, or rejected (nobody can read them). lane: now, work",
        ),
        _of("bridge", "counter", "bridge_late_messages_total", "region", "Tasks that came after their deadline, and made no job"),
        _of("bridge", "histogram", "bridge_durable_seconds", "region", "How long a batch waited until the region's Redis has it in its file; then the bridge acks"),
        _of("bridge", "gauge", "bridge_consuming", "region", "1 while it consumes"),
        _of("bridge", "gauge", "bridge_unacked_messages", "region lane", "Messages that it holds"),
        _of("bridge", "gauge", "bridge_queue_messages", "region lane", "Messages that wait in the region's queue at RabbitMQ"),
        _of("bridge", "gauge", "bridge_ready_jobs", "region", "Jobs in RQ's queue; bulk tasks stay in RabbitMQ above bridge.ready_max"),
        _of("bridge", "gauge", "bridge_redis_used_bytes", "region", "Memory of the region's Redis"),
        _of("bridge", "gauge", "bridge_redis_max_bytes", "region", "Its maxmemory; 0 for no limit"),
        _of("bridge", "gauge", "bridge_clock_offset_seconds", "region", "The hub's clock less that of the region's Redis"),
        # Workers: all processes of a pool together
        _of("workers", "counter", "attempts_total", "region outcome", "Attempts that ended, by what came of them: succeeded, or the type of the error"),
        _of("workers", "counter", "retries_total", "region", "Attempts after which the task waits for another one"),
        _of("workers", "counter", "attempt_bytes_total", "region bytes", "Bytes of all attempts: raw (decoded pages), home (sent to the hub)"),
        _of("workers", "counter", "worker_starts_total", "region kind", "Worker processes that the pool started: normal, urgent, alone (for a suspect)"),
        _of("workers", "counter", "worker_deaths_total", "region how", "Worker processes that ended unasked: crashed, hung, too_large, stuck"),
        _of("workers", "gauge", "worker_processes", "region", "Worker processes that run"),
        _of("workers", "gauge", "worker_share", "region", "As many as the autoscaler gives to this pool"),
        _of("workers", "gauge", "worker_threads", "region", "Threads of the running processes"),
        _of("workers", "gauge", "worker_busy_threads", "region", "Those that run a task"),
        _of("workers", "gauge", "worker_memory_bytes", "region", "Memory of the worker processes together, with their children"),
        _of("workers", "gauge", "waiting_jobs", "region", "Jobs in RQ's queues; the same at all pools of the region"),
        _of("workers", "gauge", "oldest_job_seconds", "region", "How long the oldest of them waits; the same at all pools"),
        _of("workers", "gauge", "waiting_turns", "region", "Tasks that wait for a host's turn, for a retry, or for a shared fetch; the same at all pools"),
        _of("workers", "gauge", "outbox_bytes", "region", "Results that wait for the hub; the same at all pools"),
        _of("workers", "gauge", "open_breakers", "region", "Hosts that are left alone after failures; the same at all pools"),
    )
}  # fmt: skip


class _Families:
    """What a registry asks: the samples of a part as families of Prometheus's client."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        """The families, each with all its samples."""
        families: dict[str, Any] = {}
        for name, labels, number in self._samples:
            metric = METRICS[name]
            if len(labels) != len(metric.labels):
                raise ValueError(f"expected the labels {metric.labels} for {name}, found {labels}")
            family = families.get(name)
            if family is None:
                family = families[name] = _FAMILIES[metric.kind](name, metric.help, labels=metric.labels)
            if metric.kind == "histogram":
                family.add_metric(labels, *_buckets(number))
            else:
                family.add_metric(labels, number)
        yield from families.values()


_FAMILIES: Final[dict[Kind, Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
_BOUNDS: Final = (*map(str, BUCKETS), "+Inf")


def _buckets(cells: Any) -> tuple[list[tuple[str, int]], float]:
    """A histogram's buckets as Prometheus counts them, each with those below it; and the sum in seconds."""
    total, found = 0, []
    for bound, count in zip(_BOUNDS, cells[:-1], strict=True):
        total += count
        found.append((bound, total))
    return found, cells[-1] / 1e6


class _Process:
    """CPU time, memory, open files and the start of this process, as every Prometheus client tells them."""

    def __init__(self) -> None:
        self._collector = ProcessCollector(registry=None)

    def collect(self) -> Iterable[Family]:
        """The families."""
        return self._collector.collect()


_process: Final = _Process()


def text(samples: Iterable[Sample], accept: str = "") -> tuple[str, bytes]:
    """Returns (the Content-Type, the text). ``accept``: the scrape's Accept header."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in (_Families(samples), _process):
        registry.register(collector)
    encoder, content_type = choose_encoder(accept)
    return content_type, encoder(registry)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each scrape: a slow reader delays no other."""

    daemon_threads = True

    def server_bind(self) -> None:
        """As HTTPServer's, without looking its own name up, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = READ_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Logs nothing: a scrape is no event."""


class Endpoint:
    """Serves ``/metrics`` in a thread of its own, for parts without HTTP."""

    def __init__(self, host: str, port: int, samples: Callable[[], Iterable[Sample]]) -> None:
        """``samples`` is called for each scrape, on the scrape's thread. With port 0 nothing is served."""
        self._host, self._port, self._samples = host, port, samples
        self._stopping = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self.run, name="metrics", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        if self._port:
            self._thread.start()

    def stop(self) -> None:
        """Ends it. Scrapes at hand are not waited for."""
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join(RETRY_SECONDS)

    def run(self) -> None:
        """Serves as soon as the port is free: while one part replaces another, both want the same one."""
        is_told = False
        while not self._stopping.is_set():
            try:
                server = make_server(self._host, self._port, self._answer, _server_of(self._host), _Handler)
            except OSError as error:
                if not is_told:
                    log.info("metrics are not served yet", address=f"{self._host}:{self._port}", reason=str(error))
                is_told = True
                self._stopping.wait(RETRY_SECONDS)
                continue
            log.info("serving metrics", url=f"http://{self._host}:{self._port}{PATH}")
            with server:
                self._serve(server)

    def _serve(self, server: WSGIServer) -> None:
        """Serves until it is stopped; it wakes for scrapes only."""
        poll, server.timeout = select.poll(), 0
        for descriptor in (server.fileno(), self._wake):
            poll.register(descriptor, select.POLLIN)
        while not self._stopping.is_set():
            poll.poll()
            server.handle_request()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] != PATH or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there is only GET /metrics\n"]
        try:
            kind, body = text(self._samples(), environ.get("HTTP_ACCEPT", ""))
        except Exception:
            log.exception("a scrape failed")
            start("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"the log says why\n"]
        start("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body] if environ["REQUEST_METHOD"] == "GET" else []


def _server_of(host: str) -> type[WSGIServer]:
    """The server's class for this address's family."""
    family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    return type("_ServerOfFamily", (_Server,), {"address_family": family})
