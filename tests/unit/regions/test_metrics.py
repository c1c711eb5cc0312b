"""What a part counts, and the text that Prometheus reads of it."""

import http.client
import re
import socket
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from regions import metrics
from regions.counts import BUCKETS, CELLS, LABELS_MAX, OTHER, Counter, Histogram, observe
from regions.metrics import METRICS, Endpoint
from scripts.stack.ports import free_port
from tests.waiting import until


def families(samples):
    _, text = metrics.text(samples)
    return {one.name: one for one in text_string_to_metric_families(text.decode())}


def get(port: int, path: str = "/metrics", method: str = "GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path)
    with connection.getresponse() as answer:
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()


def test_a_duration_is_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    counted = Histogram()
    for seconds in (0.0, BUCKETS[0], BUCKETS[0] + 0.0001, BUCKETS[-1] + 1, -5.0):
        counted.add("fetch", "fra", seconds=seconds)
    found = families([("nearfetch_hop_seconds", *one) for one in counted.counts()])["nearfetch_hop_seconds"]
    values = {sample.labels.get("le", sample.name): sample.value for sample in found.samples}
    assert values[str(BUCKETS[0])] == 3  # with one that seems to end before it began: clocks of two machines
    assert values[str(BUCKETS[1])] == 4
    assert values["+Inf"] == values["nearfetch_hop_seconds_count"] == 5
    assert values["nearfetch_hop_seconds_sum"] == pytest.approx(2 * BUCKETS[0] + 0.0001 + BUCKETS[-1] + 1, abs=1e-5)
    assert found.type == "histogram"


def test_nothing_is_lost_when_many_threads_count() -> None:
    counted, timed = Counter(), Histogram()

    def add() -> None:
        for _ in range(5_000):
            counted.add("accepted")
            timed.add("accept", "fra", seconds=0.01)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.counts() == [(("accepted",), 20_000)]
    [(_, cells)] = timed.counts()
    assert sum(cells[:-1]) == 20_000


def test_labels_are_bounded() -> None:
    counted = Counter()
    counted.add_all(((f"s{number}", "fra"), 1) for number in range(LABELS_MAX + 50))
    found = dict(counted.counts())
    assert len(found) == LABELS_MAX + 1
    assert found[OTHER, OTHER] == 50
    timed = Histogram()
    timed.add_all(((f"r{number}", "200"), 0.1) for number in range(LABELS_MAX))
    assert len(timed.counts()) <= LABELS_MAX // CELLS + 1
    assert sum(sum(cells[:-1]) for _, cells in timed.counts()) == LABELS_MAX


def test_every_metric_is_named_after_prometheus_s_rules() -> None:
    for name, one in METRICS.items():
        assert re.fullmatch(r"nearfetch_[a-z]+(_[a-z]+)*", name)
        assert name.endswith("_total") == (one.kind == "counter"), name
        assert one.kind != "histogram" or name.endswith("_seconds"), name
        assert not re.search(r"_(ms|mb|kb|milliseconds|minutes)(_|$)", name), name
        assert all(re.fullmatch(r"[a-z]+", label) for label in one.labels)
        assert "|" not in one.help
        assert "\n" not in one.help


def test_a_metric_that_is_not_listed_can_t_be_exposed() -> None:
    with pytest.raises(KeyError):
        metrics.text([("nearfetch_surprise", (), 1)])
    with pytest.raises(ValueError, match="label"):
        families([("nearfetch_results_total", ("too", "few"), 1)])


def test_the_text_has_the_figures_of_the_process_and_escapes_labels() -> None:
    found = families([("nearfetch_results_total", ('a"b\\c\nd', "fra", "failed", "target"), 2)])
    [sample] = found["nearfetch_results"].samples
    assert sample.labels["source"] == 'a"b\\c\nd'
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_start_time_seconds"} <= set(found)


def test_openmetrics_is_spoken_to_whom_it_is_asked_by() -> None:
    kind, text = metrics.text(
        [("nearfetch_requests_total", ("accepted",), 2)], "application/openmetrics-text; version=1.0.0"
    )
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    kind, _ = metrics.text([], "*/*")
    assert kind.startswith("text/plain; version=0.0.4")


class Served:
    """An endpoint, and how often it was asked."""

    def __init__(self, port: int, asked: str = "1") -> None:
        self.port, self.scrapes = port, 0
        self.endpoint = Endpoint("127.0.0.1", port, self.samples)
        self.asked = asked

    def samples(self):
        self.scrapes += 1
        yield "nearfetch_requests_total", (self.asked,), self.scrapes

    def __enter__(self):
        self.endpoint.start()
        return self

    def __exit__(self, *_):
        self.endpoint.stop()


def is_served(port: int, by: str) -> bool:
    try:
        return f'outcome="{by}"' in get(port)[2]
    except OSError:
        return False


def test_an_endpoint_serves_metrics_and_nothing_else() -> None:
    with Served(free_port()) as served:
        until(lambda: is_served(served.port, "1"), "the endpoint to serve")
        status, kind, text = get(served.port)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert 'nearfetch_requests_total{outcome="1"}' in text
        assert get(served.port, method="HEAD")[::2] == (200, "")
        assert get(served.port, "/other")[0] == 404
        assert get(served.port, method="POST")[0] == 404
    with pytest.raises(OSError):
        get(served.port)
    assert not served.endpoint._thread.is_alive()


def test_an_endpoint_waits_for_a_port_that_another_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RETRY_SECONDS", 0.05)
    port = free_port()
    with Served(port, "old") as old:
        until(lambda: is_served(port, "old"), "the first to serve")
        with Served(port, "new"):
            before = old.scrapes
            until(lambda: is_served(port, "old"), "the first to serve still")
            assert old.scrapes > before
            old.endpoint.stop()
            until(lambda: is_served(port, "new"), "the second to have the port")


def test_a_slow_reader_delays_no_other_scrape() -> None:
    with Served(free_port()) as served:
        until(lambda: is_served(served.port, "1"), "the endpoint to serve")
        silent = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        silent.connect()
        assert get(served.port)[0] == 200
        silent.close()


def test_a_scrape_that_fails_says_so_and_the_next_one_works() -> None:
    broken = [True]

    def samples():
        if broken.pop() if broken else False:
            raise RuntimeError("not now")
        yield "nearfetch_requests_total", ("accepted",), 1

    endpoint = Endpoint("127.0.0.1", port := free_port(), samples)
    endpoint.start()
    try:
        until(lambda: not _refused(port), "the endpoint to serve")
        assert get(port)[0] == 500
        assert get(port)[0] == 200
    finally:
        endpoint.stop()


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_an_endpoint_without_a_port_starts_no_thread() -> None:
    endpoint = Endpoint("127.0.0.1", 0, list)
    endpoint.start()
    assert not endpoint._thread.is_alive()
    endpoint.stop()


def test_a_duration_costs_little() -> None:
    """A bound that only something slow by its nature exceeds: a lock with a wait, a call over a socket."""
    row = [0] * CELLS
    began = time.thread_time()
    for _ in range(20_000):
        observe(row, 0, 0.0123)
    assert (time.thread_time() - began) / 20_000 < 20e-6
