"""Signing in at a gateway with keys: sessions, what they permit, how they end, and that no other site can use them."""

import os
import signal
import time
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from regions import names
from tests.service.conftest import RedisInstance
from tests.service.web.api.test_keys import Keyed
from tests.service.web.console.conftest import Regions
from tests.waiting import freeze, until
from tests.wire import ask
from web.console import signin
from web.hub import keys, sessions

HTML = {"Accept": "text/html,application/xhtml+xml"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
OWN = {"Sec-Fetch-Site": "same-origin"}
POST = ("POST", "/v1/requests")
PLAIN = b'{"sources": ["demo.plain"]}'


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, rabbitmq):
    folder = tmp_path_factory.mktemp("keyed")
    hub = RedisInstance(folder, "hub")
    made = Keyed(folder, rabbitmq, hub)
    made.region.purge()
    yield made
    made.stop()
    hub.stop()


def signed_in(keyed, text: str, **more: str):
    return ask(keyed.port, "POST", "/signin", {**FORM, **OWN}, urlencode({"key": text, **more}).encode())


def session(keyed, text: str) -> dict[str, str]:
    reply = signed_in(keyed, text)
    assert reply.status == 303, reply.body
    return {"Cookie": reply.headers["set-cookie"].partition(";")[0]}


def test_a_page_without_a_session_leads_to_the_form_and_back(keyed):
    for path in ("/", "/requests?status=failed", "/try?source=demo.list&1.category=a%26b"):
        reply = ask(keyed.port, "GET", path, HTML)
        assert reply.status == 303
        where = reply.headers["location"]
        assert where == "/signin" if path == "/" else where.startswith("/signin?next=/")
        page = ask(keyed.port, "GET", where, HTML)
        assert page.status == 200
        text = keyed.key("shop")
        back = signed_in(keyed, text, next=path)
        assert (back.status, back.headers["location"]) == (303, path)


def test_programs_without_a_key_still_get_a_problem_document(keyed):
    for path in ("/", "/v1/requests"):
        reply = ask(keyed.port, "GET", path)
        assert (reply.status, reply.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize(
    "leads_to",
    ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "/a\r\nX: y", "/signout", "", "/é"],
)
def test_the_form_leads_to_no_other_site(keyed, leads_to):
    reply = signed_in(keyed, keyed.key("shop"), next=leads_to)
    assert (reply.status, reply.headers["location"]) == (303, "/")


def test_the_cookie_is_out_of_reach_and_neither_it_nor_the_key_is_in_redis(keyed):
    key, text = keyed.made("shop")
    reply = signed_in(keyed, text)
    name, *flags = reply.headers["set-cookie"].split("; ")
    assert flags == ["Path=/", f"Max-Age={sessions.SECONDS}", "HttpOnly", "SameSite=Strict"]
    token = name.partition("=")[2]
    id_, _, secret = token.partition(".")
    assert (id_, len(secret)) == (key.id, 43)
    [(stored, ends)] = keyed.client.zrange(names.sessions(key.id), 0, -1, withscores=True)
    assert secret.encode() not in stored
    assert text.rpartition("_")[2].encode() not in stored
    assert 0 < ends - time.time() <= sessions.SECONDS
    assert 0 < keyed.client.ttl(names.sessions(key.id)) <= sessions.SECONDS


def test_a_key_has_so_many_sessions_and_its_oldest_ends_for_a_new_one(keyed, monkeypatch):
    """Else a client that signs in all the time would fill the hub."""
    monkeypatch.setattr(sessions, "MAX", 3)
    (key, text), other = keyed.made("shop"), session(keyed, keyed.key("shop"))
    cookies = [session(keyed, text) for _ in range(5)]
    found = [ask(keyed.port, "GET", "/v1/sources", cookie).status for cookie in cookies]
    assert found == [401, 401, 200, 200, 200]
    assert ask(keyed.port, "GET", "/v1/sources", other).status == 200
    assert keyed.client.zcard(names.sessions(key.id)) == 3


def test_a_session_that_is_over_is_none_though_the_hub_still_has_it(keyed):
    key, text = keyed.made("shop")
    cookie = session(keyed, text)
    place = names.sessions(key.id)
    keyed.client.zadd(place, dict.fromkeys(keyed.client.zrange(place, 0, -1), time.time() - 1))
    assert ask(keyed.port, "GET", "/v1/sources", cookie).status == 401
    session(keyed, text)
    assert keyed.client.zcard(place) == 1


@pytest.mark.parametrize("text", ["", "nf_x", "nf_00000000_" + "a" * 32, "<script>", "a" * 5000])
def test_a_wrong_key_is_told_beside_the_field(keyed, text):
    reply = signed_in(keyed, text)
    assert reply.status in (400, 401)
    assert "set-cookie" not in reply.headers
    assert b"<script>" not in reply.body.replace(b'<script type="module" src=', b"")


def test_the_form_says_to_readers_of_screens_where_the_fault_is(keyed):
    plain, wrong = ask(keyed.port, "GET", "/signin", HTML).body, signed_in(keyed, "nf_x").body
    for part, of in (
        (b'aria-invalid="true"', wrong),
        (b'aria-describedby="key-error key-hint"', wrong),
        (b'role="alert"', wrong),
        (b'aria-describedby="key-hint"', plain),
    ):
        assert [part in plain, part in wrong] == [of is plain, of is wrong], part
    for part in (b" required", b" autofocus", b'type="password"'):
        assert part in plain


def test_only_the_form_signs_in(keyed):
    body = urlencode({"key": keyed.key("shop")}).encode()
    for told in ({**OWN, "Content-Type": "text/plain"}, OWN):
        reply = ask(keyed.port, "POST", "/signin", told, body)
        assert (reply.status, "set-cookie" in reply.headers) == (400, False)


def test_a_gateway_that_has_not_read_its_keys_says_of_none_that_it_is_wrong(keyed, monkeypatch):
    keyring, text = keyed.gateway.keyring, keyed.key("shop")
    monkeypatch.setattr(keyring, "refresh", lambda: None)

    def refused():
        keyring._is_read = False  # as at its start, while the hub is away
        return signed_in(keyed, text)

    try:
        reply = until(lambda: one if (one := refused()).status != 303 else None, "the refusal")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    finally:
        keyring._is_read = True


def test_a_key_that_may_not_read_gets_no_session(keyed):
    reply = signed_in(keyed, keyed.key("shop", "submit"))
    assert (reply.status, "set-cookie" in reply.headers) == (401, False)
    assert b"scope read" in reply.body


def test_a_session_is_its_keys_tenant_and_has_its_scopes(keyed):
    reads, bank = session(keyed, keyed.key("shop", "read")), session(keyed, keyed.key("bank"))
    other = ask(keyed.port, *POST, {**bank, **OWN, "Content-Type": "application/json"}, PLAIN)
    assert other.status == 202
    id_ = other.json()["id"]
    assert ask(keyed.port, "GET", f"/v1/requests/{id_}", bank).status == 200
    assert ask(keyed.port, "GET", f"/requests/{id_}", {**HTML, **bank}).status == 200
    for path in (f"/v1/requests/{id_}", f"/requests/{id_}", f"/requests/{id_}/{id_}.csv"):
        assert ask(keyed.port, "GET", path, {**HTML, **reads}).status == 404, path
    assert id_.encode() not in ask(keyed.port, "GET", "/requests", {**HTML, **reads}).body
    assert id_.encode() in ask(keyed.port, "GET", "/requests", {**HTML, **bank}).body
    refused = ask(keyed.port, *POST, {**reads, **OWN, "Content-Type": "application/json"}, PLAIN)
    assert refused.status == 403


@pytest.mark.parametrize(
    "by",
    [
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
        {"Origin": "http://127.0.0.1.evil.example"}, {}, {"Origin": "http://127.0.0.1:1"},
    ],
)  # fmt: skip
def test_no_other_page_makes_or_ends_anything_by_a_session(keyed, by):
    cookie = session(keyed, keyed.key("shop"))
    post = ask(keyed.port, *POST, {**cookie, **by, "Content-Type": "application/json"}, PLAIN)
    assert (post.status, post.json()["title"]) == (403, "Another site's page may not ask for this")
    assert ask(keyed.port, "GET", "/v1/sources/demo.plain/records?wait=0", {**cookie, **by}).status == 403
    assert ask(keyed.port, "DELETE", "/v1/requests/01J00000000000000000000000", {**cookie, **by}).status == 403
    assert ask(keyed.port, "POST", "/signout", {**cookie, **by, **HTML}).status == 403
    assert ask(keyed.port, "GET", "/v1/sources", cookie).status == 200, "the session goes on"
    assert ask(keyed.port, "POST", "/signin", {**FORM, **by}, b"key=x").status == 403


def test_a_page_of_the_gateway_itself_may(keyed):
    cookie = session(keyed, keyed.key("shop"))
    told = {**cookie, "Content-Type": "application/json"}
    for by in (OWN, {"Origin": f"http://127.0.0.1:{keyed.port}", "Host": f"127.0.0.1:{keyed.port}"}):
        assert ask(keyed.port, *POST, {**told, **by}, PLAIN).status == 202


def test_signing_out_ends_the_session(keyed):
    cookie = session(keyed, keyed.key("shop"))
    reply = ask(keyed.port, "POST", "/signout", {**cookie, **OWN})
    assert (reply.status, reply.headers["location"]) == (303, "/signin")
    assert "Max-Age=0" in reply.headers["set-cookie"]
    assert ask(keyed.port, "GET", "/v1/sources", cookie).status == 401


def test_a_revoked_key_ends_its_sessions(keyed):
    key, text = keyed.made("shop")
    cookie = session(keyed, text)
    assert ask(keyed.port, "GET", "/", {**HTML, **cookie}).status == 200
    keys.delete(keyed.client, key.id)
    assert not keyed.client.exists(names.sessions(key.id))
    until(lambda: ask(keyed.port, "GET", "/", {**HTML, **cookie}).status == 303, "the session to end")
    assert ask(keyed.port, "GET", "/v1/sources", cookie).status == 401


def test_a_session_still_sees_what_is_wrong_while_the_hub_is_away(keyed, monkeypatch):
    """One that the hub has confirmed a moment ago, and it may only read."""
    alerts, cookie, unused = (
        "/alerts",
        session(keyed, text := keyed.key("ops", "read", "submit", "admin")),
        session(keyed, text),
    )
    ended = session(keyed, text)
    for one in (cookie, ended):
        assert ask(keyed.port, "GET", alerts, {**HTML, **one}).status == 200
    ask(keyed.port, "POST", "/signout", {**ended, **OWN})
    group = keyed.hub.running.process.pid
    freeze(group)
    try:
        until(
            lambda: "<h2>hub-redis-away</h2>" in ask(keyed.port, "GET", alerts, {**HTML, **cookie}).body.decode(), "it"
        )
        for one in (unused, ended):
            assert ask(keyed.port, "GET", alerts, {**HTML, **one}).status == 503
        assert ask(keyed.port, *POST, {**cookie, **OWN, "Content-Type": "application/json"}, PLAIN).status == 503
        monkeypatch.setattr(signin, "CONFIRMED_SECONDS", 0.0)
        assert ask(keyed.port, "GET", alerts, {**HTML, **cookie}).status == 503
    finally:
        os.killpg(group, signal.SIGCONT)
    until(lambda: ask(keyed.port, "GET", "/readyz").status == 200, "the hub to be back")


@pytest.mark.parametrize(
    "value", ["", "x", "a" * 43, "a" * 8 + "." + "b" * 43, '"' + "a" * 43 + '"', "a" * 5000, "ä" * 20]
)
def test_a_cookie_that_is_none_is_no_session(keyed, value):
    name = f"nearfetch-{keyed.port}"
    assert ask(keyed.port, "GET", "/v1/sources", {"Cookie": f"a=b; {name}={value}; c"}).status == 401


def test_a_key_counts_more_than_a_session(keyed):
    cookie = session(keyed, keyed.key("shop"))
    assert ask(keyed.port, "GET", "/v1/sources", {**cookie, "Authorization": "Bearer nf_x"}).status == 401


def test_an_open_gateway_has_no_form(stack):
    for method in ("GET", "POST"):
        reply = ask(stack.port, method, "/signin", {**HTML, **FORM, **OWN})
        assert (reply.status, reply.headers["location"]) == (303, "/")


def test_a_person_signs_in_asks_a_source_and_signs_out(keyed, browser):
    regions = Regions(keyed)
    text = keyed.key("shop")
    try:
        with browser.tab(keyed.port) as tab:
            tab.expected = ("401",)
            tab.open("/try?source=demo.list&1.category=poetry")
            tab.is_accessible()
            tab.page.get_by_label("API key").fill("nf_wrong")
            tab.press("Enter")
            expect(tab.page.get_by_role("alert")).to_contain_text("expected a key")
            tab.is_accessible()
            tab.page.get_by_label("API key").fill(text)
            tab.press("Enter")
            tab.page.wait_for_url("**/try?source=demo.list&1.category=poetry")
            tab.page.get_by_role("button", name="Run", exact=True).click()
            expect(tab.page.locator(".result .badge").first).to_have_text("succeeded")
            assert text not in tab.page.content()
            assert tab.page.evaluate("() => document.cookie") == ""
            assert "NEARFETCH_KEY" in tab.page.inner_text("#codes")
            tab.page.get_by_role("button", name="Sign out").click()
            tab.page.wait_for_url("**/signin")
            tab.page.go_back()
            expect(tab.page.get_by_label("API key")).to_be_visible()
    finally:
        regions.stop()


def test_a_link_from_elsewhere_leads_on_with_the_session(keyed, browser):
    """The strict cookie does not come along; the page of the form may use it."""
    with browser.tab(keyed.port) as tab:
        tab.open("/signin")
        tab.page.get_by_label("API key").fill(keyed.key("shop"))
        tab.press("Enter")
        tab.page.wait_for_url(f"{tab.origin}/")
        tab.page.goto("about:blank")
        tab.page.set_content(f'<a href="{tab.origin}/requests">there</a>')
        tab.page.get_by_role("link").click()
        tab.page.wait_for_url("**/requests")
        expect(tab.page.locator("h1")).to_have_text("Requests")
