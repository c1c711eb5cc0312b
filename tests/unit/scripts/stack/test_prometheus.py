"""What Prometheus and Grafana get: alert rules, a scrape config, a dashboard. promtool of Debian's package judges them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from regions import settings
from regions.metrics import METRICS
from regions.settings import ROOT
from scripts.stack import configuration, prometheus
from scripts.stack.data_folder import DataFolder
from tests.unit.test_docs import table
from web.hub.faults import KINDS

FOLDER = ROOT / "scripts" / "prometheus"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
ALERTS = {one.name: one for one in prometheus.ALERTS}
# Of Prometheus itself and of every process.
FOREIGN = {
    "up", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds",
}  # fmt: skip
TARGET_LABELS = {"job", "instance", "le", "alertname", "alertstate"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def promtool(*words: str, folder: Path | None = None) -> str:
    done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions() -> list[str]:
    """All PromQL of the dashboard, with its variables replaced."""
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [one.replace("$__rate_interval", "1m").replace("$region", ".*") for one in targets]


def test_there_is_an_alert_for_each_fault_and_each_has_one_name() -> None:
    names = re.findall(r"^  - alert: (\S+)$", prometheus.rules(), re.MULTILINE)
    assert sorted(names) == sorted({*KINDS, *ALERTS})
    assert not KINDS.keys() & ALERTS.keys()


def test_every_alert_has_a_runbook_in_the_document_with_what_mends_it() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    runbooks = re.findall(r'^      runbook: "docs/operations\.md#(\S+)"$', prometheus.rules(), re.MULTILINE)
    assert len(runbooks) == len({*KINDS, *ALERTS})
    assert [name for name in runbooks if f'<a id="{name}"></a>' not in text] == []
    general = re.compile(r"\{\{ \$labels\.region \}\}")
    assert table("operations.md", "alert") == {
        f'<a id="{name}"></a>`{name}': [one.severity, one.cost, general.sub("REGION", one.mend)]
        for name, one in ALERTS.items()
    }


@pytest.mark.parametrize("name", sorted({*KINDS, *ALERTS}))
def test_a_rule_and_a_panel_use_only_metrics_and_labels_that_there_are(name: str) -> None:
    rules = re.findall(r"^  - alert: (\S+)\n    expr: (.+)$", prometheus.rules(), re.MULTILINE)
    check(json.loads(dict(rules)[name]))


@pytest.mark.parametrize("number", range(len(expressions())))
def test_a_panel_uses_only_metrics_and_labels_that_there_are(number: int) -> None:
    check(expressions()[number])


def check(expression: str) -> None:
    """Every metric of the expression exists, with the suffix of its type, and so does each label that it names."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    used = re.findall(r"\b(nearfetch_\w+|process_\w+|up)\b", bare)
    assert used, expression
    labels = set()
    for name in used:
        if name in FOREIGN:
            continue
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        metric = METRICS.get(name) if name in METRICS and METRICS[name].kind != "histogram" else METRICS.get(base)
        assert metric is not None, name
        assert (name != base) == (metric.kind == "histogram"), name
        labels |= set(metric.labels)
    matched = {one for group in re.findall(r"\{([^}]*)\}", bare) for one in re.findall(r"(\w+)\s*[=!]~?", group)}
    grouped = {one.strip() for group in re.findall(r"\bby \(([^)]*)\)", bare) for one in group.split(",")}
    assert matched | grouped <= labels | TARGET_LABELS, expression


def test_the_dashboard_is_whole() -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert len(panels) > 25
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
    used = {name for one in expressions() for name in re.findall(r"nearfetch_\w+", one)}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert {name for name, one in METRICS.items() if one.kind == "histogram"} <= shown


@needs_promtool
def test_promtool_finds_nothing_wrong_with_rules_and_config() -> None:
    assert f"{len(KINDS) + len(ALERTS)} rules found" in promtool("check", "rules", str(FOLDER / "alerts.yml"))
    promtool("check", "config", str(FOLDER / "prometheus.yml"))


@needs_promtool
def test_promtool_can_read_every_panel(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(expressions())]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", "panels.yml", folder=tmp_path)


@pytest.mark.parametrize("keys", ["false", "true"])
def test_the_config_of_a_stack_names_each_of_its_parts_by_its_port(tmp_path: Path, keys: str) -> None:
    data = DataFolder(tmp_path)
    data.open()
    data.write("key", "nf_x")
    wanted = settings.load({"NEARFETCH__GATEWAY__KEYS": keys})
    ports = configuration.choose_ports(data, wanted, 18080)
    prometheus.write(data, wanted, ports)
    config = json.loads((tmp_path / prometheus.FILE).read_text())
    found = {one["job_name"]: one["static_configs"][0]["targets"] for one in config["scrape_configs"]}
    assert found["nearfetch-gateway"] == ["127.0.0.1:18080"]
    assert found["nearfetch-bridge"] == [f"127.0.0.1:{ports.bridge_metrics[name]}" for name in wanted.region]
    assert found["nearfetch-workers"] == [f"127.0.0.1:{ports.workers_metrics[name]}" for name in wanted.region]
    assert len({port for targets in found.values() for port in targets}) == 1 + 2 * len(wanted.region)
    has_key = [one["job_name"] for one in config["scrape_configs"] if "authorization" in one]
    assert has_key == (["nearfetch-gateway"] if keys == "true" else [])
    if shutil.which("promtool"):
        promtool("check", "config", str(tmp_path / prometheus.FILE))


def run(tmp_path: Path, tests: list[dict]) -> None:
    """promtool's unit tests of the shipped rules."""
    document = {"rule_files": [str(FOLDER / "alerts.yml")], "evaluation_interval": "5s", "tests": tests}
    (tmp_path / "test.yml").write_text(json.dumps(document))
    promtool("test", "rules", "test.yml", folder=tmp_path)


def fires(name: str, at: str, labels: list[dict[str, str]]) -> dict:
    """That an alert fires at a time with these labels, and at no other place. Annotations are those of the rule."""
    return {"eval_time": at, "alertname": name, "exp_alerts": labels}


def series(metric: str, values: str, /, **labels: str) -> dict[str, str]:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{metric}{{{inside}}}", "values": values}


@needs_promtool
def test_the_alert_of_each_fault_fires_while_any_gateway_tells_it_and_once(tmp_path: Path) -> None:
    """Two gateways tell of the same: one alert. It lasts for a minute, which is 12 samples, and is over after them."""
    place = {"region": "fra", "source": "ecb.rates", "part": "a-part"}
    inputs = [series("up", "1x100", job="nearfetch-gateway", instance="a:1")]
    alerts = []
    for name, kind in KINDS.items():
        told = {"name": name, "severity": kind.severity, **place, "job": "nearfetch-gateway"}
        inputs += [series("nearfetch_fault", "_x6 1x30 stale", **told, instance=one) for one in ("a:1", "b:1")]
        expected = {
            "exp_labels": {"severity": kind.severity, **place},
            "exp_annotations": annotations(name, place),
        }
        alerts += [fires(name, "25s", []), fires(name, "150s", [expected]), fires(name, "190s", [])]
    run(tmp_path, [{"interval": "5s", "input_series": inputs, "alert_rule_test": alerts}])


def annotations(name: str, place: dict[str, str]) -> dict[str, str]:
    """The annotations of a fault's alert there."""
    kind = KINDS[name]
    summary = f"{name}: {place.get('region', '')} {place.get('source', '')} {place.get('part', '')}"
    summary += place.get("instance", "")
    mend = kind.mend.format(**{"region": "", "source": "", **place})
    return {"summary": summary, "cost": kind.cost, "mend": mend, "runbook": f"docs/operations.md#{name}"}


# By alert: series that make it fire, its labels then, and the text of its summary; and series of a stack that is well.
FIGURES = {
    "metrics-away": (
        [("up", "0x60", {"job": "nearfetch-bridge", "instance": "b:1"})],
        {"job": "nearfetch-bridge", "instance": "b:1"},
        "b:1 does not answer scrapes",
        [("up", "1x60", {"job": "nearfetch-bridge", "instance": "b:1"}), ("up", "0x60", {"job": "other", "instance": "o:1"})],
    ),
    "requests-refused": (
        [("nearfetch_requests_total", "0+9x60", {"outcome": "accepted"}), ("nearfetch_requests_total", "0+1x60", {"outcome": "refused"})],
        {},
        "10% of the requests are refused",
        [("nearfetch_requests_total", "0+99x60", {"outcome": "accepted"}), ("nearfetch_requests_total", "0+1x60", {"outcome": "refused"})],
    ),
    "results-failing": (
        [
            ("nearfetch_results_total", "0+8x90", {"region": "fra", "status": "succeeded", "origin": ""}),
            ("nearfetch_results_total", "0+2x90", {"region": "fra", "status": "expired", "origin": "internal"}),
            ("nearfetch_results_total", "0+8x90", {"region": "nyc", "status": "succeeded", "origin": ""}),
        ],
        {"region": "fra"},
        "20% of the tasks of fra fail by our own fault",
        [
            ("nearfetch_results_total", "0+5x90", {"region": "fra", "status": "succeeded", "origin": ""}),
            ("nearfetch_results_total", "0+5x90", {"region": "fra", "status": "failed", "origin": "target"}),
        ],
    ),
    "tasks-slow": (
        [
            ("nearfetch_hop_seconds_bucket", "0+0x150", {"hop": "claim", "region": "fra", "le": "5.0"}),
            ("nearfetch_hop_seconds_bucket", "0+5x150", {"hop": "claim", "region": "fra", "le": "10.0"}),
            ("nearfetch_hop_seconds_bucket", "0+5x150", {"hop": "claim", "region": "fra", "le": "+Inf"}),
        ],
        {"region": "fra"},
        "of the tasks of fra 5 % wait longer than 9.75s for a worker",
        [
            ("nearfetch_hop_seconds_bucket", "0+5x150", {"hop": "claim", "region": "fra", "le": "0.01"}),
            ("nearfetch_hop_seconds_bucket", "0+5x150", {"hop": "claim", "region": "fra", "le": "+Inf"}),
            ("nearfetch_hop_seconds_bucket", "0+0x150", {"hop": "fetch", "region": "fra", "le": "5.0"}),
            ("nearfetch_hop_seconds_bucket", "0+5x150", {"hop": "fetch", "region": "fra", "le": "+Inf"}),
        ],
    ),
    "hub-redis-fills": (
        [("nearfetch_hub_redis_expected_bytes", "75x60", {"instance": "a:1"}), ("nearfetch_hub_redis_max_bytes", "100x60", {"instance": "a:1"})],
        {},
        "the hub's Redis, with what open tasks bring, is 75% full",
        [
            ("nearfetch_hub_redis_expected_bytes", "60x60", {"instance": "a:1"}), ("nearfetch_hub_redis_max_bytes", "100x60", {"instance": "a:1"}),
            ("nearfetch_hub_redis_expected_bytes", "60x60", {"instance": "b:1"}), ("nearfetch_hub_redis_max_bytes", "0x60", {"instance": "b:1"}),
        ],
    ),
    "region-redis-fills": (
        [("nearfetch_region_redis_used_bytes", "65x60", {"region": "fra", "instance": "a:1"}), ("nearfetch_region_redis_max_bytes", "100x60", {"region": "fra", "instance": "a:1"})],
        {"region": "fra"},
        "the Redis of fra is 65% full",
        [("nearfetch_region_redis_used_bytes", "50x60", {"region": "fra", "instance": "a:1"}), ("nearfetch_region_redis_max_bytes", "100x60", {"region": "fra", "instance": "a:1"})],
    ),
    "region-outbox-fills": (
        [("nearfetch_region_outbox_bytes", "40e6x60", {"region": "sin", "instance": "a:1"}), ("nearfetch_region_outbox_bytes", "40e6x60", {"region": "sin", "instance": "b:1"})],
        {"region": "sin"},
        "38.15MiB of results wait in sin for the hub",
        [("nearfetch_region_outbox_bytes", "20e6x60", {"region": "sin", "instance": "a:1"}), ("nearfetch_region_outbox_bytes", "20e6x60", {"region": "sin", "instance": "b:1"})],
    ),
    "open-files-short": (
        [("process_open_fds", "900x60", {"job": "nearfetch-gateway", "instance": "a:1"}), ("process_max_fds", "1000x60", {"job": "nearfetch-gateway", "instance": "a:1"})],
        {"job": "nearfetch-gateway", "instance": "a:1"},
        "a:1 has 90% of its open files",
        [("process_open_fds", "900x60", {"job": "other", "instance": "a:1"}), ("process_max_fds", "1000x60", {"job": "other", "instance": "a:1"})],
    ),
}  # fmt: skip


@needs_promtool
@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_on_figures_fires_when_they_are_bad_and_not_before(name: str, tmp_path: Path) -> None:
    bad, labels, summary, good = FIGURES[name]
    rule = ALERTS[name]
    region = labels.get("region", "")
    expected = {
        "exp_labels": {"severity": rule.severity, **labels},
        "exp_annotations": {
            "summary": summary,
            "cost": rule.cost,
            "mend": rule.mend.replace("{{ $labels.region }}", region),
            "runbook": f"docs/operations.md#{name}",
        },
    }
    late = {"tasks-slow": "12m", "results-failing": "7m"}.get(name, "4m")
    tests = [
        {
            "name": "bad",
            "interval": "5s",
            "input_series": [series(metric, values, **given) for metric, values, given in bad],
            "alert_rule_test": [fires(name, "20s", []), fires(name, late, [expected])],
        },
        {
            "name": "good",
            "interval": "5s",
            "input_series": [series(metric, values, **given) for metric, values, given in good],
            "alert_rule_test": [fires(name, late, [])],
        },
    ]
    run(tmp_path, tests)


@needs_promtool
def test_a_gateway_that_can_t_be_scraped_is_away(tmp_path: Path) -> None:
    place = {"instance": "a:1"}
    expected = {
        "exp_labels": {"severity": "page", **place},
        "exp_annotations": annotations("gateway-away", place),
    }
    up = [
        series("up", "1x6 0x12 1x20", job="nearfetch-gateway", instance="a:1"),
        series("up", "1x60", job="nearfetch-gateway", instance="b:1"),
    ]
    alerts = [
        fires("gateway-away", "20s", []),
        fires("gateway-away", "60s", [expected]),
        fires("gateway-away", "120s", []),
    ]
    run(tmp_path, [{"interval": "5s", "input_series": up, "alert_rule_test": alerts}])
