"""Whoever can write a region's messages reads none of its secrets: they go to the origins that a definition names.

Messages come over real AMQP, by a real bridge, to real worker processes; the second site notes all that it is sent.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs import result_frame
from jobs.definition.read import read
from jobs.origin import origin_of, origin_or_none
from jobs.worker.fork_server import needed
from regions import names, settings
from regions.secret import Secret
from tests.service.bridging import Region, task
from tests.service.jobs.fetch.origin import Origin, Spoken
from tests.service.region_workers import RegionWorkers, of
from tests.service.working import REGION, results
from tests.waiting import until

TOKEN, PASSWORD = "t0ken-of-the-region", "pa55-of-the-region"
FIELDS = '[fields]\nsaid = "b"\n[limits]\nretries = 0\n'
GUARDED = """
title = "With everything that gives access"
url = 'HOME/guarded{?page}'
[params]
page = {type = "int", min = 1}
[request]
headers = {X-Key = "{secret.TOKEN}"}
cookies = {session = "{secret.TOKEN}"}
auth = {basic = "me:{secret.PASSWORD}"}
form = {password = "{secret.PASSWORD}"}
[next]
param = "page"
start = 0
max_pages = 1
"""
LOGIN = """
title = "By a token"
url = 'HOME/list'
[before]
url = 'HOME/login'
[before.request]
form = {password = "{secret.PASSWORD}"}
[before.fields]
token = "i"
[request]
headers = {X-Token = "{before.token}"}
"""
LED = """
title = "Where a client says, at home"
url = '{+url}'
[params]
url = {type = "url", hosts = ["HOST"]}
[request]
auth = {bearer = "{secret.TOKEN}"}
"""
CURSOR = """
title = "Where a page says, at home"
url = '{+at}'
[params]
at = {type = "url", hosts = ["HOST"]}
[request]
auth = {bearer = "{secret.TOKEN}"}
[next]
css = "a::attr(href)"
param = "at"
"""
CODED = """
title = "Where its code says"
url = 'HOME/coded'
[request]
auth = {bearer = "{secret.TOKEN}"}
"""
CODE = """
from jobs.page import Page, Request


def next_page(page: Page) -> Request | None:
    return page.request.replace(url="FOREIGN/next") if page.request.number == 1 else None
"""
SOURCES = {"guarded": GUARDED, "login": LOGIN, "led": LED, "cursor": CURSOR, "coded": CODED}


@dataclass
class Attacked:
    """A region, its own site and a foreign one."""

    region: Region
    workers: RegionWorkers
    sources: Path
    home: Origin
    foreign: Origin

    def run(self, source: str, **forged) -> dict:
        """The result of an attacker's message: a genuine one except for ``forged``."""
        self.count += 1
        definition = read(self.sources / f"{source}.toml").hash
        fields = {"params": {}, "url": f"{self.home.url}/{source}", "definition": definition, **forged}
        made = task(
            REGION, self.count, source=source, host=origin_or_none(fields["url"]) or origin_of(self.home.url), **fields
        )
        self.region.broker.publish(made)
        until(lambda: made.task in results(self.workers.hub), f"the result of {source}")
        return json.loads(result_frame.splice(self.workers.hub.get(names.result(REGION, made.task))))

    count = 0

    def sent(self) -> list[str]:
        """All requests that the foreign site got, with headers and bodies."""
        return [repr((one.target, dict(one.headers), one.body)) for one in self.foreign.requests]


@pytest.fixture
def attacked(workers: RegionWorkers, hub_redis, region_redis, rabbitmq, tmp_path) -> Iterator[Attacked]:
    foreign = Origin(lambda spoken: spoken.answer(b"<b>foreign</b><i>foreign-token</i>"))

    def say(spoken: Spoken) -> None:
        if spoken.target == "/away":
            spoken.answer(b"", "307 Temporary Redirect", Location=f"{foreign.url}/redirected")
        else:
            spoken.answer(f"<b>home</b><i>tok3n</i><a href='{foreign.url}/cursor'>more</a>".encode())

    home = Origin(say)
    files = {
        f"{name}.toml": text.replace("HOME", home.url).replace("HOST", home.url.partition("://")[2]) + FIELDS
        for name, text in SOURCES.items()
    }
    files["coded.py"] = CODE.replace("FOREIGN", foreign.url)
    secrets = {"TOKEN": Secret(("*",), TOKEN), "PASSWORD": Secret(("guarded", "login"), PASSWORD)}
    allow = f"127.0.0.1:{home.port},127.0.0.1:{foreign.port}"
    workers.start(files, pool=False, allow=allow, secrets=secrets)
    region = Region(REGION, hub_redis, region_redis, rabbitmq)
    region.broker.declare()
    with region.bridging():
        yield Attacked(region, workers, workers._sources, home, foreign)
    home.stop()
    foreign.stop()


def test_secrets_go_where_the_definition_says(attacked):
    """A genuine task gets the secrets, each in its place."""
    assert attacked.run("guarded", params={"page": 0}, url=f"{attacked.home.url}/guarded?page=0")["error"] is None
    assert attacked.run("login", url=f"{attacked.home.url}/list")["error"] is None
    guarded, login, listed = attacked.home.requests
    assert (guarded.target, guarded.headers["x-key"], guarded.headers["cookie"], guarded.body) == (
        "/guarded?page=0",
        TOKEN,
        f"session={TOKEN}",
        f"password={PASSWORD}".encode(),
    )
    assert guarded.headers["authorization"] == f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}"
    assert (login.body, listed.headers["x-token"]) == (f"password={PASSWORD}".encode(), "tok3n")


@pytest.fixture
def attacked_home() -> Iterator[Origin]:
    made = Origin(lambda spoken: spoken.answer(b"<b>home</b>"))
    yield made
    made.stop()


FORGED: dict[str, Callable[[Attacked], dict]] = {
    "another address": lambda to: to.run("guarded", url=f"{to.foreign.url}/guarded"),
    "another host of the same name": lambda to: to.run("guarded", url=f"http://localhost:{to.home.port}/guarded"),
    "with credentials in it": lambda to: to.run("guarded", url=f"{to.home.url}@127.0.0.1:{to.foreign.port}/guarded"),
    "what is no address": lambda to: to.run("guarded", url="http://"),
    "behind a login": lambda to: to.run("login", url=f"{to.foreign.url}/list"),
    "by the param that leads it": lambda to: to.run(
        "led", params={"url": f"{to.foreign.url}/x"}, url=f"{to.foreign.url}/x"
    ),
    "by the param alone": lambda to: to.run("led", params={"url": f"{to.foreign.url}/x"}, url=""),
    "by a param that readers take apart otherwise": lambda to: to.run(
        "led", params={"url": f"http://127.0.0.1:{to.foreign.port}\\@127.0.0.1:{to.home.port}/"}, url=""
    ),
}


@pytest.mark.parametrize("way", FORGED)
def test_a_message_that_leads_elsewhere_fails_and_sends_nothing(attacked, way):
    result = FORGED[way](attacked)
    assert (result["error"]["type"], result["error"]["origin"]) == ("blocked_address", "policy")
    assert "expected" in result["error"]["message"]
    assert "found" in result["error"]["message"]
    assert (attacked.foreign.connections, attacked.home.connections) == (0, 0)
    assert TOKEN not in repr(result)


def test_params_that_the_definition_does_not_take_are_refused(attacked):
    result = attacked.run("guarded", params={"page": -7})
    assert result["error"]["type"] == "unknown_source"
    assert "does not accept these params: page: expected a value from 1, found -7" in result["error"]["message"]
    assert attacked.home.connections == 0


def test_another_definitions_hash_gives_no_other_address(attacked):
    """Then the address may differ for a good reason: it is neither checked nor fetched."""
    result = attacked.run("guarded", url=f"{attacked.foreign.url}/guarded", definition="00000000")
    assert result["error"] is None
    assert [one.target for one in attacked.home.requests] == ["/guarded?page=0"]
    assert attacked.foreign.connections == 0


def test_a_page_leads_no_secret_elsewhere(attacked):
    """Not by a redirect, nor by a value that becomes the next page's param, nor through the source's own code."""
    redirected = attacked.run("led", params={"url": f"{attacked.home.url}/away"}, url="")
    assert redirected["records"] == [{"said": "foreign"}]
    cursor = attacked.run("cursor", params={"at": f"{attacked.home.url}/cursor"}, url="")
    assert cursor["error"]["type"] == "blocked_address"
    assert f"expected an address of 127.0.0.1:{attacked.home.port}, found" in cursor["error"]["message"]
    coded = attacked.run("coded", url=f"{attacked.home.url}/coded")
    assert [one["said"] for one in coded["records"]] == ["home", "foreign"]
    sent = attacked.sent()
    assert [one.target for one in attacked.foreign.requests] == ["/redirected", "/next"]
    assert [one for one in sent if TOKEN in one or PASSWORD in one] == []


SEEN = """
import os
from collections.abc import Iterator
from pathlib import Path

from jobs.page import Page


def parse(page: Page) -> Iterator[dict[str, object]]:
    yield {"said": sorted(os.environ), "begun_with": Path("/proc/self/environ").read_bytes().decode()}
"""


def test_a_worker_process_has_no_secret_and_no_setting_in_its_environment(workers, monkeypatch, attacked_home):
    """Its initial environment has none either: an author's code can read that, too."""
    monkeypatch.setenv("NEARFETCH__SECRET__TOKEN", TOKEN)
    monkeypatch.setenv("NEARFETCH__HUB__AMQP", "amqp://admin:secret@127.0.0.1/")
    text = f"title = 'Seen'\nurl = '{attacked_home.url}/'\n"
    workers.start({"seen.toml": text, "seen.py": SEEN}, allow=f"127.0.0.1:{attacked_home.port}")
    (result,) = workers.results(workers.ask([of("seen")]))
    (row,) = result["records"]
    assert [name for name in row["said"] if name.startswith("NEARFETCH")] == []
    assert "NEARFETCH" not in row["begun_with"]


def test_a_worker_process_is_told_its_own_regions_settings_and_no_more():
    theirs = settings.Region(name="nyc", redis=settings.RegionRedis(url="redis://:theirs@127.0.0.1:1/0"))
    mine = settings.Region(
        name="fra",
        redis=settings.RegionRedis(url="redis://:mine@127.0.0.1:1/0"),
        secrets={"TOKEN": Secret(("a",), "t")},
        dashboard=settings.Dashboard(password="looking"),
    )
    hub = settings.Hub(
        redis="redis://:home@127.0.0.1:1/0", amqp="amqp://u:post@127.0.0.1/", mongo="mongodb://u:past@127.0.0.1/"
    )
    told = needed(settings.Settings(hub=hub, region={"nyc": theirs, "fra": mine}), mine)
    assert (told.first_region, told.one("fra").secrets_of("a"), told.hub.redis) == ("nyc", {"TOKEN": "t"}, hub.redis)
    shown = repr(told)
    assert [word for word in ("theirs", "looking", "post", "past") if word in shown] == []
