"""Debian's Prometheus on a stack, with the config that ``scripts/up`` wrote for it and the shipped rules."""

import json
import shutil
import urllib.parse
from pathlib import Path
from typing import Any, Self

from regions.metrics import METRICS
from scripts.stack.ports import free_port
from scripts.stack.probes import answers
from scripts.stack.services import Running, Service
from tests.waiting import until
from tests.wire import ask

MISSING = shutil.which("prometheus") is None
WHY = "prometheus is not installed (Debian: prometheus)"
SECONDS = 120.0
# What Prometheus makes of each scrape and each rule, and what every process tells.
OF_PROMETHEUS = ("up", "scrape_", "ALERTS", "process_")


class Prometheus:
    """Scrapes every second. ``data``: the stack's data folder; ``folder``: where its own files go."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.port = free_port()
        config = json.loads((data / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(json.dumps(config))
        command = [
            "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip
        service = Service("prometheus", command, folder / "prometheus.log", answers(self.port, "/-/ready"))
        self._running = Running(service)

    def __enter__(self) -> Self:
        self._running.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.stop()

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer of its HTTP API."""
        text = f"?{urllib.parse.urlencode(query)}" if query else ""
        reply = ask(self.port, "GET", f"/api/v1/{path}{text}")
        assert reply.status == 200, reply.body
        return reply.json()["data"]

    def health(self) -> dict[tuple[str, str], str]:
        """By job and address of each target: ``up``, ``down`` or ``unknown``."""
        found = self.get("targets", state="active")["activeTargets"]
        return {(one["labels"]["job"], one["labels"]["instance"]): one["health"] for one in found}

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now: ``metric`` and ``value`` of each."""
        return self.get("query", query=expression)["result"]

    def value(self, expression: str) -> float | None:
        """The only sample's value; None if there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self, alert: str, **labels: str) -> bool:
        """Whether an alert fires with these labels."""
        return any(
            one["state"] == "firing" and {"alertname": alert, **labels}.items() <= one["labels"].items()
            for one in self.get("alerts")["alerts"]
        )

    def all_firing(self) -> set[str]:
        """The names of all alerts that fire."""
        return {one["labels"]["alertname"] for one in self.get("alerts")["alerts"] if one["state"] == "firing"}

    def wait_for_targets(self) -> None:
        """Until each target was scraped."""
        until(lambda: set(self.health().values()) == {"up"}, "every target to be up", SECONDS)

    def unknown(self) -> set[str]:
        """Names of series that are none of ours, nor of every process, nor of Prometheus itself."""
        known = set()
        for name, one in METRICS.items():
            known |= {f"{name}{part}" for part in ("_bucket", "_sum", "_count")} if one.kind == "histogram" else {name}
        return {
            name
            for name in self.get("label/__name__/values")
            if name not in known and not name.startswith(OF_PROMETHEUS)
        }
