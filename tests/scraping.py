"""Scrapes ``/metrics`` as Prometheus does, and reads single numbers of it."""

import time

from prometheus_client.parser import text_string_to_metric_families

from regions.metrics import METRICS
from tests.wire import ask


class Scrape:
    """What one scrape brought. Each of our series is one that is listed."""

    def __init__(self, port: int, headers: dict[str, str] | None = None) -> None:
        began = time.monotonic()
        reply = ask(port, "GET", "/metrics", headers or {})
        self.seconds = time.monotonic() - began
        assert reply.status == 200, (reply.status, reply.body)
        families = list(text_string_to_metric_families(reply.body.decode()))
        names = [f"{one.name}_total" if one.type == "counter" else one.name for one in families]
        assert [name for name in names if name not in METRICS and not name.startswith("process_")] == []
        assert len(names) == len(set(names))
        self._samples = [sample for one in families for sample in one.samples]

    def get(self, metric: str, /, **labels: str) -> float | None:
        """The sum of the samples of this name and these labels; None if there are none. Names are given without their prefix."""
        found = [
            one.value
            for one in self._samples
            if one.name == f"nearfetch_{metric}" and labels.items() <= one.labels.items()
        ]
        return sum(found) if found else None

    def hops(self) -> dict[str, float]:
        """How many durations of each hop were counted."""
        found: dict[str, float] = {}
        for one in self._samples:
            if one.name == "nearfetch_hop_seconds_count" and one.value:
                found[one.labels["hop"]] = found.get(one.labels["hop"], 0) + one.value
        return found
