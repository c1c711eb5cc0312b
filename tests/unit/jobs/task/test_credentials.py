"""Over a whole task, a source's credentials and cookies go only to the host that they are for."""

from collections.abc import Iterator

import pytest

from jobs import result_frame
from jobs.task.execution import Execution
from jobs.task.runner import Runner
from regions import settings
from tests.service.jobs.fetch.origin import Origin, Spoken
from tests.unit.jobs.task.test_runner import make_task

SOURCE = """
title = "Two hosts"
url = 'http://127.0.0.1:FIRST/'
[request]
headers = {Authorization = "Bearer {secret.TOKEN}", X-Api-Key = "{before.key}"}
cookies = {own = "first"}
[before]
url = 'http://localhost:SECOND/before'
[before.request]
headers = {X-Login = "{secret.LOGIN}"}
cookies = {own = "second"}
[before.fields]
key = "b"
[fields]
text = "i"
[next]
css = "a::attr(href)"
max_pages = 3
"""


@pytest.fixture
def hosts() -> Iterator[dict[str, Origin]]:
    """Two hosts: ``first``, whose page leads to ``second`` and from there back; each sets a cookie."""

    def say(name: str, spoken: Spoken) -> None:
        to = {
            "first": {"/": f"http://localhost:{made['second'].port}/page"},
            "second": {"/page": f"http://127.0.0.1:{made['first'].port}/last"},
        }[name].get(spoken.target, "")
        page = f"<b>k3y</b><i>{name}</i>" + (f"<a href='{to}'>more</a>" if to else "")
        spoken.answer(page.encode(), Content_Type="text/html", Set_Cookie=f"of_{name}=1; Path=/")

    made = {
        "first": Origin(lambda spoken: say("first", spoken)),
        "second": Origin(lambda spoken: say("second", spoken)),
    }
    yield made
    for one in made.values():
        one.stop()


@pytest.fixture
def runner(tmp_path, hosts) -> Iterator[Runner]:
    text = SOURCE.replace("FIRST", str(hosts["first"].port)).replace("SECOND", str(hosts["second"].port))
    (tmp_path / "two.toml").write_text(text)
    allow = ",".join(f"{host}:{one.port}" for one in hosts.values() for host in ("127.0.0.1", "[::1]"))
    bound = {f"NEARFETCH__REGION__FRA__SECRETS__{name}__SOURCES": "two" for name in ("TOKEN", "LOGIN")}
    secrets = {"NEARFETCH__SECRET__TOKEN": "t0ken", "NEARFETCH__SECRET__LOGIN": "l0gin", **bound}
    found = settings.load({"NEARFETCH__SOURCES__PATH": str(tmp_path), "NEARFETCH__FETCH__ALLOW": allow, **secrets})
    made = Runner(found, found.one("fra"))
    yield made
    made.close()


def test_before_and_further_pages_hand_nothing_to_another_host(runner, hosts):
    ended = runner.run(Execution(make_task("two")))
    assert result_frame.head(ended.outcome.frame).error is None
    first, last = (spoken.headers for spoken in hosts["first"].requests)
    before, page = (spoken.headers for spoken in hosts["second"].requests)
    plain = {"host", "user-agent", "accept", "accept-encoding"}
    assert set(before) == plain | {"x-login", "cookie"}
    assert (before["x-login"], before["cookie"]) == ("l0gin", "own=second")
    assert set(first) == plain | {"authorization", "x-api-key", "cookie"}
    assert (first["authorization"], first["x-api-key"], first["cookie"]) == ("Bearer t0ken", "k3y", "own=first")
    assert set(page) == plain | {"cookie"}
    assert page["cookie"] == "of_second=1"
    assert set(last) == plain | {"cookie"}
    assert last["cookie"] == "of_first=1"
