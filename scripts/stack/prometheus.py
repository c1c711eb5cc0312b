"""What Prometheus gets: the parts of a stack of ``scripts/up`` that it scrapes, and the alert rules in scripts/prometheus.

``python -m scripts.stack.prometheus`` prints the rules. There is an alert for each fault (web.hub.faults), under its name. A few
further ones report what no gateway can see, or warn before there is a fault.
"""

import json
import shlex
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from regions.settings import ROOT, Settings
from scripts.stack.configuration import Ports
from scripts.stack.data_folder import DataFolder
from web.hub.faults import KINDS

FILE: Final = "prometheus.yml"
RULES: Final = ROOT / "scripts" / "prometheus" / "alerts.yml"
SCRAPE_SECONDS: Final = 5  # on one machine; scripts/prometheus/prometheus.yml has 15
RUNBOOKS: Final = "docs/operations.md"


class Alert(Struct, frozen=True):
    """An alert that is no fault of web.hub.faults. ``holds``: for how long the expression must hold."""

    name: str
    severity: str
    when: str  # PromQL
    holds: str
    summary: str
    cost: str
    mend: str


# What a gateway says of the same thing at each instance counts once: max by, not sum.
ALERTS: Final = (
    Alert(
        "metrics-away", "ticket", 'up{job=~"nearfetch-(bridge|workers)"} == 0', "1m",
        "{{ $labels.instance }} does not answer scrapes",
        "its figures are missing; gateways still report the faults of its region",
        "start the part there, and set metrics.bridge_port or metrics.workers_port in its region's file",
    ),
    Alert(
        "requests-refused", "page",
        'sum(rate(nearfetch_requests_total{outcome="refused"}[1m])) / sum(rate(nearfetch_requests_total[1m])) > 0.05', "1m",
        "{{ $value | humanizePercentage }} of the requests are refused",
        "these requests are answered 503", "look at /readyz and nearfetch status: a fault of the hub has the reason",
    ),
    Alert(
        "results-failing", "page",
        'sum by (region) (rate(nearfetch_results_total{origin=~"region|internal"}[5m])) / sum by (region) '
        "(rate(nearfetch_results_total[5m])) > 0.05", "2m",
        "{{ $value | humanizePercentage }} of the tasks of {{ $labels.region }} fail by our own fault",
        "these tasks expire or fail", "nearfetch status names the fault; nearfetch where TASK shows where a task was lost",
    ),
    Alert(
        "tasks-slow", "ticket",
        'histogram_quantile(0.95, sum by (region, le) (rate(nearfetch_hop_seconds_bucket{hop="claim"}[5m]))) > 5', "5m",
        "of the tasks of {{ $labels.region }} 5 % wait longer than {{ $value | humanizeDuration }} for a worker",
        "answers are late", "nearfetch scale {{ $labels.region }} says why it has so many processes; raise scale.max",
    ),
    Alert(
        "hub-redis-fills", "ticket", "max(nearfetch_hub_redis_expected_bytes / (nearfetch_hub_redis_max_bytes > 0)) > 0.7", "1m",
        "the hub's Redis, with what open tasks bring, is {{ $value | humanizePercentage }} full",
        "nothing yet; requests are answered 503 from 85 % on",
        "redis-cli CONFIG SET maxmemory 2gb, and the same in its redis.conf; or lower limits.result_ttl_seconds",
    ),
    Alert(
        "region-redis-fills", "ticket",
        "max by (region) (nearfetch_region_redis_used_bytes / (nearfetch_region_redis_max_bytes > 0)) > 0.6", "1m",
        "the Redis of {{ $labels.region }} is {{ $value | humanizePercentage }} full",
        "nothing yet; its tasks wait in RabbitMQ from 70 % on",
        "redis-cli CONFIG SET maxmemory 1gb, and the same in its redis.conf; or start nearfetch workers on one more host",
    ),
    Alert(
        "region-outbox-fills", "ticket", "max by (region) (nearfetch_region_outbox_bytes) > 32e6", "1m",
        "{{ $value | humanize1024 }}B of results wait in {{ $labels.region }} for the hub",
        "answers are late; workers take no tasks from 64 MB on", "nearfetch doctor on the region's host: look at its network to the hub's Redis",
    ),
    Alert(
        "open-files-short", "ticket", 'process_open_fds{job=~"nearfetch-.*"} / process_max_fds{job=~"nearfetch-.*"} > 0.8', "1m",
        "{{ $labels.instance }} has {{ $value | humanizePercentage }} of its open files",
        "nothing yet; new connections wait when none is left", "raise the limit of open files (ulimit -n, LimitNOFILE of systemd)",
    ),
)  # fmt: skip
HOLDS: Final = {"page": "10s", "ticket": "1m"}  # for how long a fault lasts before it is an alert
GATEWAY_AWAY: Final = 'max by (instance) (up{job="nearfetch-gateway"} == 0)'


def write(data: DataFolder, wanted: Settings, ports: Ports) -> None:
    """Writes the file for a stack: ``prometheus --config.file DATA/prometheus.yml`` scrapes it."""
    gateway: dict[str, Any] = {"job_name": "nearfetch-gateway", "static_configs": [_targets([ports.gateway])]}
    if wanted.gateway.keys:
        gateway["authorization"] = {"credentials_file": str(data.path.absolute() / "key")}
    others = [
        {"job_name": f"nearfetch-{part}", "static_configs": [_targets(list(of.values()))]}
        for part, of in (("bridge", ports.bridge_metrics), ("workers", ports.workers_metrics))
    ]
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [gateway, *others],
    }
    data.write(FILE, json.dumps(config, indent=1) + "\n")  # JSON is YAML


def command(data: DataFolder) -> str:
    """The command that starts Prometheus on a stack; by itself it would keep its data in the working folder."""
    config, kept = (shlex.quote(str(data.path / name)) for name in (FILE, "prometheus"))
    return f"prometheus --config.file {config} --storage.tsdb.path {kept}"


def _targets(ports: list[int]) -> dict[str, list[str]]:
    return {"targets": [f"127.0.0.1:{port}" for port in ports]}


def rules() -> str:
    """The alert rules, as scripts/prometheus/alerts.yml has them."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Made by python -m scripts.stack.prometheus. An alert's runbook is the anchor of its name in docs/operations.md."
    yield "groups:"
    yield "- name: nearfetch faults"
    yield "  rules:"
    for name, kind in KINDS.items():
        when = f'max by (region, source, part) (nearfetch_fault{{name="{name}"}} == 1)'
        if name == "gateway-away":
            when = f"{when} or {GATEWAY_AWAY}"
        place = "{{ $labels.region }} {{ $labels.source }} {{ $labels.part }}{{ $labels.instance }}"
        words = {one: f"{{{{ $labels.{one} }}}}" for one in ("region", "source")}
        yield from _rule(
            name, kind.severity, when, HOLDS[kind.severity], f"{name}: {place}", kind.cost, kind.mend.format(**words)
        )
    yield "- name: nearfetch figures"
    yield "  rules:"
    for one in ALERTS:
        yield from _rule(one.name, one.severity, one.when, one.holds, one.summary, one.cost, one.mend)


def _rule(name: str, severity: str, when: str, holds: str, summary: str, cost: str, mend: str) -> Iterator[str]:
    yield f"  - alert: {name}"
    yield f"    expr: {json.dumps(when)}"
    yield f"    for: {holds}"
    yield f"    labels: {{severity: {severity}}}"
    yield "    annotations:"
    for key, text in (("summary", summary), ("cost", cost), ("mend", mend), ("runbook", f"{RUNBOOKS}#{name}")):
        yield f"      {key}: {json.dumps(text)}"


if __name__ == "__main__":
    print(rules(), end="")
