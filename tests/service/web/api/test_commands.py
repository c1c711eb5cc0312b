"""Commands that ask a real gateway: what they show of its sources and of its faults."""

import json

from regions.settings import ROOT
from scripts.commands import doctor
from scripts.stack.gateway_client import GatewayClient
from tests import forked
from tests.waiting import until


def nearfetch(*words: str):
    """A process of its own: the gateway logs in this one."""
    return forked.run(["-m", "scripts.cli", *words], imported=forked.COMMAND, cwd=ROOT, text=True, timeout=120)


def test_sources_are_listed_with_the_health_that_the_gateway_gives(stack):
    url = f"http://127.0.0.1:{stack.port}"
    done = nearfetch("source", "list", "demo.list", "--url", url)
    assert done.returncode == 0
    assert done.stdout.split()[:2] == ["demo.list", "fra"]
    assert f"1 source of the gateway {url}" in done.stderr
    shown = json.loads(nearfetch("source", "list", "--url", url, "--json").stdout)
    assert shown["gateway"] == url
    assert all(one["health"] for one in shown["sources"])


def test_the_gateways_faults_are_findings_with_their_own_words(stack):
    """No region reports here: the gateway says so, with what it costs and what mends it."""
    gateway = GatewayClient(f"http://127.0.0.1:{stack.port}")

    def down():
        return {one.what: one for one in doctor.of_gateway(gateway) if one.where == "region-down"}

    found = until(lambda: down() if len(down()) == 3 else {}, "the gateway to tell that its regions are down")
    assert set(found) == {"fra", "nyc", "sin"}
    assert (found["fra"].check, found["fra"].severity) == ("fault", "wrong")
    assert found["fra"].cost
    assert found["fra"].mend
