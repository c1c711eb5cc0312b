"""``scripts/up --wan``: a region across an ocean."""

import json

from scripts.stack.wan_links import Control


def test_a_far_region_works_as_a_near_one_and_its_links_count_what_crosses(other):
    said = other.up("--detach", "--port", str(other.port), "--wan", "fra=60:jitter=2").stdout
    assert "  hub to region     fra  60 ms (±2 ms each way)\n" in said
    ports = json.loads((other.data / "kept.json").read_text())["ports"]
    assert f"  The sample site from as far: http://127.0.0.1:{ports['wan fra.site']}/ (fra)\n" in said
    control = Control(ports["wan"])
    before = {of: control.counts(f"fra.{of}") for of in ("rabbitmq", "redis")}
    result = other.get("/v1/sources/ecb.rates/records")
    assert result["status"] == "succeeded"
    assert result["timing"]["total_ms"] >= 30  # the task's way there
    after = {of: control.counts(f"fra.{of}") for of in ("rabbitmq", "redis")}
    assert after["rabbitmq"].back > before["rabbitmq"].back
    assert after["redis"].there - before["redis"].there >= result["bytes"]["wire"]
    control.close()
    assert other.get(f"/v1/tasks/{result['task']}")["status"] == "succeeded"
    assert other.nearfetch("status").returncode == 0
    assert other.nearfetch("where", result["task"]).returncode == 0
    assert other.nearfetch("fetch", "ecb.rates").returncode == 0
