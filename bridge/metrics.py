"""``/metrics`` of a bridge. Its loop adds to plain integers; a scrape reads them from another thread."""

from collections.abc import Iterator
from typing import Any

from bridge.durable import Durable
from bridge.lane import OUTCOMES, Lane
from bridge.report import Report
from regions.counts import CELLS, observe
from regions.metrics import Sample


class Metrics:
    """The figures of a bridge. Only ``samples`` may be called from other threads than the bridge's loop."""

    def __init__(
        self,
        region: str,
        fast: Lane,
        work: Lane,
        durable: Durable[Any],
        report: Report,
    ) -> None:
        self._region, self._lanes = region, {"now": fast, "work": work}
        self._durable, self._report = durable, report
        self._took = [0] * CELLS  # from accept to enqueued
        self._late = 0

    def enqueued(self, seconds: float) -> None:
        """A task was enqueued this long after its request was accepted."""
        observe(self._took, 0, seconds)

    def late(self, messages: int) -> None:
        """Counts messages that came after their deadline and made no job."""
        self._late += messages

    def samples(self) -> Iterator[Sample]:
        """All figures. The number of messages at the broker is the answer to the bridge's last question."""
        region, status = (self._region,), self._report.status
        yield "nearfetch_hop_seconds", ("bridge", self._region), tuple(self._took)
        yield "nearfetch_bridge_durable_seconds", region, tuple(self._durable.took)
        yield "nearfetch_bridge_late_messages_total", region, self._late
        for name, lane in self._lanes.items():
            place = (self._region, name)
            for outcome, count in zip(OUTCOMES, tuple(lane.counts), strict=True):
                yield "nearfetch_bridge_messages_total", (*place, outcome), count
            inbox = lane.inbox
            yield "nearfetch_bridge_unacked_messages", place, len(inbox.held) if inbox is not None else 0
            if lane.waiting is not None:
                yield "nearfetch_bridge_queue_messages", place, lane.waiting
        yield "nearfetch_bridge_consuming", region, int(status.state == "consuming")
        yield "nearfetch_bridge_ready_jobs", region, status.ready
        yield "nearfetch_bridge_redis_used_bytes", region, status.redis_used
        yield "nearfetch_bridge_redis_max_bytes", region, status.redis_max
        if (clock := self._report.clock) is not None:
            yield "nearfetch_bridge_clock_offset_seconds", region, clock.offset_ms / 1000
