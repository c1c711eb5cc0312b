"""Which tasks' answers are kept, how completely, and that no secret is; through real sockets on this machine."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec
import pytest

from jobs import result_frame
from jobs.answers import raw
from jobs.answers.raw import Kept
from jobs.answers.store import AnswerStore, stored
from jobs.task.execution import Execution
from jobs.task.runner import Runner
from regions import settings
from scripts.site.behave import Rule
from scripts.site.site import Site, origins
from tests.service.jobs.fetch.origin import Origin, Spoken
from tests.site import _well_behaved, site
from tests.unit.jobs.task.test_runner import BIG_CATEGORY, BOOKS, TINY, make_task
from tests.waiting import until

__all__ = ["_well_behaved", "site"]

EMPTY = Kept(task=make_task("a"), region="fra", attempt=1, definition="", kept_ms=0, result=b"", answers=[])
SECRET = "s3cret/of+mine"
TOKEN = "Csrf-9aF3/77"
SMALL = """
title = "Small"
url = '{+base}/'
[params]
base = {required = true}
[rows]
css = "li"
[fields]
said = {xpath = "string(.)"}
[limits]
max_bytes = 2_000_000
"""
LOGIN = """
title = "Behind a login"
url = '{+base}/list'
[params]
base = {required = true}
[before]
url = '{+base}/login'
[before.request]
form = {password = "{secret.PASSWORD}"}
[before.fields]
token = {css = "input::attr(value)", re = '^[A-Za-z]+-[0-9A-Za-z]+/[0-9]+$'}
[request]
auth = {basic = "user:{secret.PASSWORD}"}
headers = {X-Token = "{before.token}"}
[rows]
css = "li"
[fields]
said = {xpath = "string(.)"}
"""


def led_to(base: str, text: str = LOGIN) -> str:
    """The definition, with a param that may lead to this one host."""
    return text.replace("base = {", f'base = {{hosts = ["{urlsplit(base).netloc}"], ')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where answers are kept."""
    return tmp_path / "raw"


@pytest.fixture
def more() -> dict[str, str]:
    """Additional settings, for fixtures that come before ``run``."""
    return {}


@pytest.fixture
def run(site: Site, tmp_path: Path, folder: Path, more: dict[str, str]) -> Iterator[Callable[..., dict]]:
    """Runs a source and gives its result; keywords are params."""
    sources = tmp_path / "sources"
    sources.mkdir()
    texts = {"books": BOOKS.replace("MAX", "10"), "tiny": TINY, "login": LOGIN, "small": SMALL}
    for name, text in texts.items():
        (sources / f"{name}.toml").write_text(text)
    given = {
        "NEARFETCH__SOURCES__PATH": str(sources),
        "NEARFETCH__FETCH__ALLOW": "127.0.0.0/8",
        "NEARFETCH__FETCH__ORIGINS": origins(site.port),
        "NEARFETCH__REGION__FRA__RAW__PATH": str(folder),
        **more,
    }
    found = settings.load(given)
    store = AnswerStore(found.one("fra").raw)
    store.start()
    runner = Runner(found, found.one("fra"), secrets={"PASSWORD": SECRET, "OTHER": "rows"}, store=store)

    def go(source: str, *, cancelled: Callable[[], bool] = lambda: False, **params) -> dict:
        if "base" in params:
            (sources / f"{source}.toml").write_text(led_to(params["base"], texts[source]))
            runner.refresh()
        end = runner.run(Execution(make_task(source, **params), attempt=2, cancelled=cancelled))
        until(lambda: not store._waiting, "the writing")
        return json.loads(result_frame.splice(end.outcome.frame))

    yield go
    runner.close()
    store.close()


def bend(site: Site, prefix: str = "/bench.example/", **rule) -> None:
    site.behaviour.add(Rule(prefix=prefix, **rule))


def only(folder: Path) -> Kept:
    """The only kept file."""
    files = until(lambda: folder.exists() and list(folder.glob("*.raw")), "a file")
    assert len(files) == 1
    return raw.read(files[0].read_bytes())


def test_a_failure_is_kept_with_what_was_answered(run, site, folder):
    """Status, headers and body as received, and the error that they caused."""
    bend(site, status=503, body='{"error": "later"}', headers={"Retry-After": "7", "Set-Cookie": "sid=77"})
    run("tiny")
    kept = only(folder)
    (answer,) = kept.answers
    headers = {name.lower(): value for name, value in answer.headers}
    assert (kept.task.source, kept.region, kept.attempt, len(kept.definition)) == ("tiny", "fra", 2, 8)
    assert (answer.method, answer.url, answer.status) == ("GET", "https://bench.example/tiny", 503)
    assert (headers["retry-after"], headers["set-cookie"]) == ("7", "removed")
    assert (answer.unpacked(), answer.note, answer.error) == (b'{"error": "later"}', "", None)
    assert kept.unpacked_result()["error"]["type"] == "http_status"
    assert kept.task.url == "https://first.example/x", "credentials are not kept"


def test_of_successes_only_one_is_kept_for_a_while(run, folder):
    """A sample, with its records."""
    for _ in range(5):
        run("tiny")
    kept = only(folder)
    assert kept.unpacked_result()["records"][2] == {"id": 3, "name": "row 3"}
    assert json.loads(kept.answers[0].unpacked())["rows"][2]["value"] == 4.5
    (file,) = stored(settings.Raw(path=str(folder)))
    assert file.is_sample


def test_a_failure_without_an_answer_leaves_nothing(run, folder):
    """Nobody answered, so there is nothing to keep."""
    run("login", base="http://127.0.0.1:1")
    run("nobody")
    run("tiny")
    assert only(folder).task.source == "tiny"


def test_a_cancelled_task_leaves_nothing(run, site, folder):
    """Nobody asks why a cancelled task ended, even if its first page was answered."""
    before = site.fetches.since(0)[0]
    result = run("books", category=BIG_CATEGORY, cancelled=lambda: site.fetches.since(0)[0] - before >= 2)
    assert result["error"]["type"] == "cancelled"
    run("tiny")
    assert only(folder).task.source == "tiny"


def test_all_pages_of_a_partial_success_are_kept(run, site, folder):
    """A failed page counts as a failure, whatever came before it."""
    run("books", category=BIG_CATEGORY)
    first = only(folder)
    assert [answer.status for answer in first.answers] == [200] * 5
    bend(site, f"/books.toscrape.com/catalogue/category/books/{BIG_CATEGORY}/page-3", status=500)
    assert run("books", category=BIG_CATEGORY)["partial"]
    (kept,) = (raw.read(file.read_bytes()) for file in folder.glob("*.failed.raw"))
    assert [answer.status for answer in kept.answers] == [200, 200, 500]
    assert all(answer.unpacked().startswith(b"<!DOCTYPE html>") for answer in first.answers + kept.answers[:2])


def test_a_task_of_many_pages_keeps_no_more_than_it_may(run, folder, monkeypatch):
    """Later answers are kept without their body, with a note."""
    monkeypatch.setattr(raw, "TASK_BYTES_MAX", 10_000)
    run("books", category=BIG_CATEGORY)
    answers = only(folder).answers
    assert len(answers) == 5
    assert sum(len(answer.body) for answer in answers) <= 10_000
    assert answers[0].unpacked()
    assert (answers[-1].body, answers[-1].note) == (b"", "left out: the task's answers pass 10000 bytes")


def test_what_came_of_a_body_that_was_cut_short_is_kept(run, site, folder):
    """With the error beside it."""
    bend(site, cut=20)
    run("tiny")
    (answer,) = only(folder).answers
    assert answer.error is not None
    assert (answer.error.type, answer.unpacked()) == ("connection", b'{"rows": [{"id": 1, ')
    assert answer.note


def test_a_body_that_can_not_be_unpacked_is_kept_as_it_was_received(run, site, folder):
    """It may not be gzip at all, which only its bytes show."""
    bend(site, body="<h1>no gzip</h1>", headers={"Content-Encoding": "gzip"})
    run("tiny")
    (answer,) = only(folder).answers
    assert answer.error is not None
    assert (answer.error.type, answer.unpacked()) == ("decode", b"<h1>no gzip</h1>")


def test_redirects_that_lead_nowhere_are_kept(run, site, folder):
    """The last answer, with its note."""
    bend(site, status=302, headers={"X-Why": "nowhere"})
    run("tiny")
    (answer,) = only(folder).answers
    assert answer.status == 302
    assert ("x-why", "nowhere") in [(name.lower(), value) for name, value in answer.headers]


def everything(folder: Path) -> bytes:
    """All kept bytes, packed and unpacked."""
    found = b""
    for file in folder.iterdir():
        kept = raw.read(file.read_bytes())
        found += file.read_bytes() + json.dumps(kept.unpacked_result(), ensure_ascii=False).encode()
        for answer in kept.answers:
            found += answer.unpacked() + repr((answer.headers, answer.url, answer.final_url, answer.error)).encode()
    return found


def parrot(spoken: Spoken) -> None:
    """An origin that repeats the whole request in headers and body."""
    credentials = spoken.headers.get("authorization", "")
    if spoken.target == "/login":
        body = f'<input value="{TOKEN}"><p>{spoken.body.decode()}</p>'
    else:
        decoded = base64.b64decode(credentials.partition(" ")[2]).decode()
        body = f"<li>{credentials}</li><li>{decoded}</li><li>{spoken.headers['x-token']}</li><li>rows</li>"
    echo = {
        "X_Echo": f"{credentials} {spoken.headers.get('x-token', '')}",
        "X_Session": "sess-90210-77",
        "Content_Type": "text/html",
    }
    spoken.answer(body.encode(), status="200 OK", **echo)


@pytest.fixture
def origin() -> Iterator[Callable[..., Origin]]:
    started: list[Origin] = []

    def start(say: Callable[[Spoken], None]) -> Origin:
        started.append(Origin(say))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_no_secret_is_kept_though_the_origin_repeats_all_of_them(run, origin, folder):
    """Not in headers, bodies or records, plain or in base64. Other sources' secrets stay."""
    result = run("login", base=origin(parrot).url)
    assert SECRET in json.dumps(result["records"]), "it was there to be found"
    kept = only(folder)
    assert len(kept.answers) == 2
    found = everything(folder)
    basic = base64.b64encode(f"user:{SECRET}".encode())
    for hidden in (SECRET.encode(), TOKEN.encode(), basic, b"s3cret%2Fof%2Bmine", b"sess-90210-77"):
        assert hidden not in found, hidden
    assert b"<li>rows</li>" in found
    assert b"Aaaa-1aA1/11" in found, "the token's shape"
    assert kept.unpacked_result()["records"][1] == {"said": "user:removed"}


@pytest.fixture
def leaky_proxy(origin, more) -> Origin:
    """A proxy that passes its credentials on, to a target that repeats them."""

    def say(spoken: Spoken) -> None:
        told = spoken.headers["proxy-authorization"]
        decoded = base64.b64decode(told.partition(" ")[2]).decode()
        spoken.answer(f"<li>{told}</li><li>{decoded}</li><li>{spoken.target}</li>".encode(), X_Echo=told)

    made = origin(say)
    way_out = "NEARFETCH__REGION__FRA__EGRESS__DEFAULT__PROXY"
    more |= {way_out: f"http://user:{quote(SECRET, safe='')}@127.0.0.1:{made.port}", f"{way_out}_RESOLVES": "true"}
    return made


def test_no_password_of_a_proxy_is_kept_though_it_hands_it_on(leaky_proxy, run, folder):
    result = run("small", base="http://first.example")
    assert SECRET in json.dumps(result["records"]), "it was there to be found"
    found = everything(folder)
    for hidden in (SECRET.encode(), base64.b64encode(f"user:{SECRET}".encode()), quote(SECRET, safe="").encode()):
        assert hidden not in found, hidden
    assert b"http://first.example/" in found


def test_of_a_body_past_its_limit_the_beginning_is_kept(run, origin, folder):
    """The begin is kept, not the rest. A body whose announced length is too large is not read at all."""

    def long(spoken: Spoken) -> None:
        length = "Content-Length: 3000000\r\n" if spoken.number == 1 else ""
        spoken.say(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode() + b"x" * 3_000_000)

    base = origin(long).url
    assert run("small", base=base)["error"]["type"] == "too_large"
    assert only(folder).answers[0].unpacked() == b""
    assert run("small", base=base)["error"]["type"] == "too_large"
    (answer,) = only(folder).answers
    assert 1_000_000 <= len(answer.unpacked()) <= 1_100_000
    assert answer.note == f"the first {len(answer.unpacked())} bytes that were received"


def test_a_packed_body_is_not_kept_where_secrets_could_hide_in_it(run, origin, folder):
    """A body that can't be unpacked can't be searched for secrets."""

    def broken(spoken: Spoken) -> None:
        if spoken.target == "/login":
            parrot(spoken)
        else:
            packed = gzip.compress(f"{SECRET} ".encode() * 100 + spoken.headers["x-token"].encode())
            spoken.answer(packed[:-12], Content_Encoding="gzip")

    result = run("login", base=origin(broken).url)
    assert result["error"]["type"] in ("connection", "decode")
    last = only(folder).answers[-1]
    assert (last.unpacked(), last.note) == (b"", "left out: secrets can't be found in a packed body")


def test_what_is_none_of_our_files_is_refused():
    """With what was expected."""
    with pytest.raises(ValueError, match="truncated"):
        raw.read(b"\x81")
    with pytest.raises(ValueError, match="expected kept answers of version 1, found 2"):
        raw.read(msgspec.msgpack.encode(msgspec.structs.replace(EMPTY, v=2)))
