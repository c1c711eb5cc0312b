"""Cached answers in a real worker process: for conditional requests, and to replace failures."""

import email.utils
import time

import msgspec
import pytest

from jobs.contract import rfc3339
from regions import names
from regions.secret import Secret
from tests.service.counting import CountingSite, Rule, site
from tests.service.jobs.queue.test_turn_workers import SLOW, definition
from tests.service.region_workers import RegionWorkers, of
from tests.service.working import out_entries
from tests.waiting import until

__all__ = ["site"]

ONE, TWO = b'{"rows": [{"id": 1}]}', b'{"rows": [{"id": 2}]}'
BROKEN = b'{"rows": []}'
ELSEWHERE = """
import time

from jobs.page import Request


def request(params):
    return Request(url=f"https://slow.example/rows?n={time.time_ns()}")
"""
FIELDS = 'id = {type = "int"}\n'


def day(seconds_ago: float = 0.0) -> str:
    return email.utils.formatdate(time.time() - seconds_ago, usegmt=True)


@pytest.fixture
def start(workers: RegionWorkers, site: CountingSite):
    """Starts one worker process; ``write`` changes its definition."""

    def begin(*, write=lambda text: text, code: str = "", secrets=None, **limits: object) -> RegionWorkers:
        if secrets is None:
            secrets = {}
        files = {"slow.toml": write(definition(SLOW, retries=0, **limits)), **({"slow.py": code} if code else {})}
        workers.start(
            files, pool=False, threads=4, allow=f"127.0.0.1:{site.port}", origins=site.origins(SLOW), secrets=secrets
        )
        return workers

    return begin


def ask(workers: RegionWorkers, **more) -> dict:
    """One task's result."""
    made = msgspec.structs.replace(of("slow"), url=f"https://{SLOW}/rows", host=f"https://{SLOW}:443", **more)
    (found,) = workers.results(workers.ask([made], has_keys=True))
    return found


def run_of(workers: RegionWorkers) -> dict:
    """What the last result at the hub says about its source's health. One that is sent again is none of the last."""
    told: dict[bytes, bytes] = {}
    for entry in out_entries(workers.hub):
        told.setdefault(entry[b"t"], entry[b"h"])
    return msgspec.json.decode([*told.values()][-1])[2]


def conditions(site: CountingSite) -> list[tuple[str, str]]:
    """(If-None-Match, If-Modified-Since) of each fetch."""
    found = [one.headers for one in site.of(SLOW)]
    return [(one.get("If-None-Match", ""), one.get("If-Modified-Since", "")) for one in found]


def test_an_unchanged_page_is_not_sent_again(start, site):
    site.rules[SLOW] = Rule(body=ONE, headers={"ETag": '"a"'})
    workers = start(write=lambda text: text.replace(FIELDS, FIELDS + "name = {}\n"))
    first = ask(workers)
    began = time.monotonic()
    second = ask(workers)
    assert conditions(site) == [("", ""), ('"a"', "")]
    assert first["bytes"]["raw"] == len(ONE)
    assert (second["status"], second["records"], second["count"]) == ("succeeded", first["records"], 1)
    assert (second["bytes"]["raw"], second["bytes"]["records"]) == (0, first["bytes"]["records"])
    assert (second["cached"], second["stale"], second["attempts"]) == (False, False, 1)
    assert 0 <= second["age"] < time.monotonic() - began  # from now on, not from the first
    assert second["fetched_at"] > first["fetched_at"]
    assert (second["url"], second["definition"]) == (first["url"], first["definition"])
    source, _, error, _, _, rows, raw, *_, own, gaps, received, spared = run_of(workers)
    assert (source, error, rows, raw, own, gaps) == ("slow", "", 1, 0, True, {"name": 1})
    assert (received, spared) == (second["bytes"]["received"], second["bytes"]["spared"])


def test_an_unchanged_page_counts_as_what_was_not_sent_however_often(start, site):
    """What crosses to the hub is about as much as after a fetch: counted without the page, more would cross than was fetched."""
    page = ONE + b" " * 5_000
    site.rules[SLOW] = Rule(body=page, headers={"ETag": '"a"'})
    workers = start()
    fetched, *same = [ask(workers)["bytes"] for _ in range(4)]
    assert fetched["spared"] == 0
    assert len(page) < fetched["received"] < len(page) + 500
    for one in same:
        assert one["spared"] == fetched["received"]
        assert 0 < one["received"] < 500, "the head of the 304"
        assert one["wire"] < one["spared"]


def test_a_changed_page_is_read_and_its_own_tag_is_asked_by(start, site):
    site.rules[SLOW] = Rule(body=ONE, headers={"ETag": '"a"'})
    workers = start()
    ask(workers)
    site.rules[SLOW] = Rule(body=TWO, headers={"ETag": 'W/"b"'})
    assert [ask(workers)["records"] for _ in range(2)] == [[{"id": 2}]] * 2
    assert conditions(site) == [("", ""), ('"a"', ""), ('W/"b"', "")]


@pytest.mark.parametrize(("seconds_ago", "is_asked_by"), [(60.0, True), (-600.0, False)])
def test_last_modified_counts_where_it_is_older_than_the_answer(start, site, seconds_ago, is_asked_by):
    changed = day(seconds_ago)
    site.rules[SLOW] = Rule(body=ONE, headers={"Last-Modified": changed})
    workers = start()
    assert [ask(workers)["bytes"]["raw"] == 0 for _ in range(2)] == [False, is_asked_by]
    assert conditions(site)[1] == ("", changed if is_asked_by else "")


@pytest.mark.parametrize(
    ("headers", "write"),
    [
        ({"ETag": '"a"', "Cache-Control": "private, no-store"}, lambda text: text),
        ({"ETag": '"a"', "Vary": "*"}, lambda text: text),
        ({"ETag": "a"}, lambda text: text),
        ({"ETag": '"a"'}, lambda text: text + "[request]\nheaders = {Range = 'bytes=0-'}\n"),
        ({"ETag": '"a"'}, lambda text: text + "[contract]\nabsent = [304]\n"),
        ({"ETag": '"a"'}, lambda text: text + f"[before]\nurl = 'https://{SLOW}/b'\nformat = 'json'\n[before.fields]\nt = {{jmes = 'rows[0].id'}}\n"),
    ],
    ids=["no-store", "vary", "no-tag", "own-condition", "304-is-absent", "before"],
)  # fmt: skip
def test_what_is_not_asked_by_a_condition(start, site, headers, write):
    site.rules[SLOW] = Rule(body=ONE, headers=headers)
    workers = start(write=write)
    assert [ask(workers)["status"] for _ in range(2)] == ["succeeded"] * 2
    assert set(conditions(site)) == {("", "")}
    assert workers.client.keys("nf:cache*") == []


def test_an_answer_of_several_pages_is_asked_for_whole(start, site):
    more = b'{"rows": [{"id": 1}], "next": "https://%b/more"}' % SLOW.encode()
    site.rules[f"{SLOW}/rows"] = Rule(body=more, headers={"ETag": '"a"'})
    site.rules[f"{SLOW}/more"] = Rule(body=TWO, headers={"ETag": '"a"'})
    workers = start()
    assert [ask(workers)["count"] for _ in range(2)] == [2, 2]
    assert set(conditions(site)) == {("", "")}


def test_a_changed_definition_does_not_use_what_another_one_read(start, site, tmp_path):
    site.rules[SLOW] = Rule(body=ONE, headers={"ETag": '"a"'})
    workers = start()
    ask(workers)
    path = tmp_path / "sources" / "slow.toml"
    path.write_text(path.read_text().replace(FIELDS, FIELDS + 'twice = {jmes = "id"}\n'))
    until(lambda: ask(workers, max_age=60.0)["records"] == [{"id": 1, "twice": 1}], "the new definition to be used")


def test_a_304_that_nobody_asked_for_is_an_error(start, site):
    site.rules[SLOW] = Rule(status=304, body=b"")
    found = ask(start())
    assert (found["status"], found["error"]["type"], found["error"]["http_status"]) == ("failed", "http_status", 304)


def test_an_answer_that_another_redirect_leads_to_is_asked_for_again(start, site):
    """Its ETag may be the same by chance, but it is another page's."""
    site.rules[f"{SLOW}/rows"] = Rule(status=302, body=b"", headers={"Location": f"https://{SLOW}/one"})
    site.rules[f"{SLOW}/one"] = Rule(body=ONE, headers={"ETag": '"1"'})
    site.rules[f"{SLOW}/two"] = Rule(body=TWO, headers={"ETag": '"1"'})
    workers = start()
    assert [ask(workers)["bytes"]["raw"] for _ in range(2)] == [len(ONE), 0]
    site.rules[f"{SLOW}/rows"] = Rule(status=302, body=b"", headers={"Location": f"https://{SLOW}/two"})
    found = ask(workers)
    assert (found["records"], found["url"]) == ([{"id": 2}], f"https://{SLOW}/two")


def test_a_question_that_is_asked_elsewhere_today_is_asked_for_whole(start, site):
    site.rules[SLOW] = Rule(body=ONE, headers={"ETag": '"a"'})
    workers = start(code=ELSEWHERE)
    assert [ask(workers)["bytes"]["raw"] for _ in range(2)] == [len(ONE)] * 2
    assert set(conditions(site)) == {("", "")}


def test_an_answer_that_is_young_enough_is_given_without_a_fetch(start, site):
    site.rules[SLOW] = Rule(body=ONE, headers={"ETag": '"a"'})
    workers = start()
    first = ask(workers)
    found = ask(workers, max_age=60.0)
    assert (found["records"], found["fetched_at"]) == ([{"id": 1}], first["fetched_at"])
    assert (found["cached"], found["stale"], found["bytes"]["raw"]) == (True, False, 0)
    assert (found["bytes"]["received"], found["bytes"]["spared"] > len(ONE)) == (0, True)
    assert 0 < found["age"] < 60
    assert len(site.of(SLOW)) == 1
    assert run_of(workers)[11] is False  # no run of its source
    assert ask(workers, max_age=0.001)["cached"] is False
    assert len(site.of(SLOW)) == 2


@pytest.mark.parametrize("pages", [1, 2])
def test_an_older_answer_stands_in_for_a_failure_of_its_host(start, site, pages):
    following = b', "next": "https://%b/more"' % SLOW.encode() if pages == 2 else b""
    site.rules[f"{SLOW}/rows"] = Rule(body=b'{"rows": [{"id": 1}]%b}' % following)
    site.rules[f"{SLOW}/more"] = Rule(body=TWO)
    workers = start(stale_seconds=60)
    first = ask(workers)
    site.rules[f"{SLOW}/rows"] = Rule(status=503, body=b"")
    found = ask(workers)
    assert (found["status"], found["error"], found["records"]) == ("succeeded", None, first["records"])
    assert (found["stale"], found["cached"], found["fetched_at"]) == (True, True, first["fetched_at"])
    assert found["warnings"] == ["http_status: expected a page, found status 503; an older answer replaces it"]
    assert 0 < found["age"] < 60
    _, _, error, *_, received, spared = run_of(workers)
    assert error == "http_status"  # of its source it showed a failure
    assert (received, spared) == (found["bytes"]["received"], first["bytes"]["received"]), (
        "its pages count as what they had"
    )
    assert len(ask(workers)["warnings"]) == 1


@pytest.mark.parametrize("rule", [Rule(status=404, body=b""), Rule(body=BROKEN), Rule(body=b"<html>")])
def test_nothing_stands_in_for_an_answer_that_says_something(start, site, rule):
    site.rules[SLOW] = Rule(body=ONE)
    workers = start(stale_seconds=60)
    ask(workers)
    site.rules[SLOW] = rule
    assert ask(workers)["status"] == "failed"


def test_nothing_stands_in_that_is_too_old_or_where_nothing_was_said(start, site):
    site.rules[SLOW] = Rule(body=ONE, headers={"ETag": '"a"'})
    workers = start(stale_seconds=0.001)
    ask(workers)
    site.rules[SLOW] = Rule(status=503, body=b"")
    assert ask(workers)["status"] == "failed"


def test_an_older_answer_stands_in_while_the_host_is_left_alone(start, site):
    site.rules[SLOW] = Rule(body=ONE)
    workers = start(stale_seconds=600)
    first = ask(workers)
    site.rules[SLOW] = Rule(status=503, body=b"", headers={"Retry-After": "300"})
    assert ask(workers)["stale"]
    before = len(site.of(SLOW))
    found = ask(workers)
    assert (found["status"], found["stale"], found["records"], found["attempts"]) == (
        "succeeded", True, first["records"], 0,
    )  # fmt: skip
    assert found["warnings"][0].startswith("rate_limited: ")
    assert len(site.of(SLOW)) == before


def test_a_failure_is_tried_again_before_anything_stands_in(start, site):
    site.rules[SLOW] = Rule(body=ONE)
    workers = start(write=lambda text: text.replace("retries = 0", "retries = 1"), stale_seconds=60)
    ask(workers)
    site.rules[SLOW] = Rule(status=503, body=b"")
    found = ask(workers)
    assert (found["stale"], found["attempts"]) == (True, 2)


def test_no_secret_is_kept(start, site):
    site.rules[SLOW] = Rule(body=ONE, headers={"ETag": '"a"'})
    workers = start(
        write=lambda text: text + "[request]\nheaders = {X-Key = '{secret.KEY}'}\nauth = {bearer = '{secret.KEY}'}\n",
        secrets={"KEY": Secret(("slow",), "a-secret-of-the-region")},
    )
    assert [ask(workers)["status"] for _ in range(2)] == ["succeeded"] * 2
    assert [one.headers["X-Key"] for one in site.of(SLOW)] == ["a-secret-of-the-region"] * 2
    (key,) = workers.client.zrange(names.CACHED, 0, -1)
    kept = workers.client.hgetall(names.cache(key.decode()))
    assert b"secret-of" not in kept[b"meta"] + kept[b"frame"]
    assert msgspec.json.decode(kept[b"meta"])[1:5] == [f"https://{SLOW}/rows", f"https://{SLOW}/rows", '"a"', ""]


def test_who_asks_the_origin_gets_no_older_answer_of_one_who_takes_it(start, site):
    """All are claimed together: the first answers from the cache, the others have the same question."""
    site.rules[SLOW] = Rule(body=ONE, headers={"ETag": '"a"'})
    workers = start()
    ask(workers)
    site.rules[SLOW] = Rule(body=TWO, headers={"ETag": '"b"'})
    made = [
        msgspec.structs.replace(of("slow"), url=f"https://{SLOW}/rows", host=f"https://{SLOW}:443", max_age=max_age)
        for max_age in (86_400.0, 0.0, 0.0, 86_400.0)
    ]
    before = time.time()
    found = workers.results(workers.ask(made, has_keys=True))
    assert [one["records"] for one in found[:3]] == [[{"id": 1}], [{"id": 2}], [{"id": 2}]]
    assert [one["cached"] for one in found[:3]] == [True, False, False]
    assert {one["fetched_at"] > rfc3339(int(before * 1000)) for one in found[1:3]} == {True}
    assert len(site.of(SLOW)) == 2
