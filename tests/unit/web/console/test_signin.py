"""The cookie of a session, by the gateway's public address; which page may use it; and forms that can't be read."""

from urllib.parse import parse_qsl

import pytest

from regions.settings import load
from web.console.signin import SignIn
from web.http.problems import Problem


class Head:
    """The head of a call."""

    is_http11 = True

    def __init__(self, **fields: str) -> None:
        self._fields = {name.replace("_", "-"): value for name, value in fields.items()}

    def header(self, name: str) -> str:
        return self._fields.get(name, "")


def sign_in(public_url: str = "") -> SignIn:
    return SignIn(load({"NEARFETCH__GATEWAY__KEYS": "true", "NEARFETCH__GATEWAY__PUBLIC_URL": public_url}), None, None)


def test_behind_tls_the_cookie_is_sent_over_tls_alone_and_to_that_host():
    made = sign_in("https://data.example.org/")
    name, flags = made._cookie("x", 60)
    assert name == "Set-Cookie"
    assert flags == "__Host-nearfetch=x; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
    assert made.token(Head(Cookie="nearfetch=no; __Host-nearfetch=yes; nearfetch-8080=no")) == "yes"


def test_gateways_of_one_machine_do_not_take_each_others_cookies():
    assert sign_in()._cookie("x", 60)[1].startswith("nearfetch-8080=x; ")
    assert "Secure" not in sign_in()._cookie("x", 60)[1]
    assert sign_in("http://data.example.org").cookie == "nearfetch", "several gateways may be behind that address"


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({"Sec_Fetch_Site": "same-origin", "Origin": "https://evil.example"}, True),  # a browser says it, not a page
        ({"Sec_Fetch_Site": "none"}, True), ({"Sec_Fetch_Site": "same-site"}, False), ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Origin": "https://data.example.org", "Host": "10.0.0.5:8080"}, True),  # a proxy that does not pass the Host on
        ({"Origin": "http://10.0.0.5:8080", "Host": "10.0.0.5:8080"}, True), ({"Origin": "http://10.0.0.5:9", "Host": "10.0.0.5:8080"}, False),
        ({"Origin": "null", "Host": "null"}, False), ({"Origin": "null", "Host": ""}, False), ({"Host": ""}, False), ({}, False),
        ({"Origin": "http://[", "Host": "10.0.0.5:8080"}, False), ({"Origin": "https://[::1", "Host": "[::1]"}, False),
    ],
)  # fmt: skip
def test_only_a_page_of_the_gateway_itself_may_use_a_session_to_change_something(fields, may):
    made = sign_in("https://data.example.org")
    if may:
        made.check_own_page(Head(**fields))
    else:
        with pytest.raises(Problem):
            made.check_own_page(Head(**fields))


class Call(Head):
    """A call of a page of the gateway."""

    def __init__(self, query: str = "", body: bytes = b"", **fields: str) -> None:
        super().__init__(Sec_Fetch_Site="same-origin", **fields)
        self.method, self._query, self.body = "POST" if body else "GET", query, body

    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self._query, keep_blank_values=True, errors="strict", max_num_fields=200)


@pytest.mark.parametrize("query", ["next=%ff", "&".join(["next=/"] * 201), "other=1", "next=/&next=/requests"])
def test_an_address_of_the_form_that_can_not_be_read_is_refused(query):
    with pytest.raises(Problem) as refused:
        sign_in().page(Call(query))
    assert refused.value.kind == "bad-request"


@pytest.mark.parametrize("body", [b"&".join([b"a=b"] * 11), b"key=\xff" + b"&" * 3_000])
def test_a_form_with_more_fields_than_it_has_is_refused(body):
    with pytest.raises(Problem) as refused:
        sign_in().sign_in(Call(body=body, Content_Type="application/x-www-form-urlencoded"))
    assert refused.value.kind == "bad-request"
