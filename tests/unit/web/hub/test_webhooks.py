"""Which webhooks a request may name, and what is shown of one."""

import base64

import pytest

from web.hub import webhooks
from web.hub.new_request import New
from web.hub.webhooks import Webhook

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/hook", "https://shop.example:8443/a?token=1", "http://127.0.0.1:9000/", "http://localhost/x", "http://[::1]:1/",
        "https://1.2.3.4/", "https://xn--bcher-kva.example/%C3%BC",
    ],
)  # fmt: skip
def test_addresses_that_may_be_called(url):
    assert webhooks.wrong_url(url, plain_http=False) is None


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("http://shop.example/", "found http"), ("http://127.0.0.1.shop.example/", "found http"), ("http://localhost@shop.example/", "found http"),
        ("https://shop.example/" + "a" * 2_028, "2048 characters"),
        *[(url, "an https address in ASCII (percent-encode the rest) without user and fragment") for url in (
            "ftp://shop.example/", "https:///x", "shop.example/hook", "https://u:p@shop.example/", "https://shop.example/#a", "",
            "https://shop.example/a b", "https://shop.example/ü", "https://ü.example/", "https://shop.example/\r\nX: y",
            "https://shop.example/\n", "https://shop.example:99999/", "https://shop.example:0/", "https://shop.example/%zz",
        )],
    ],
)  # fmt: skip
def test_other_addresses_are_refused(url, wrong):
    assert wrong in webhooks.wrong_url(url, plain_http=False)


def test_plain_http_is_a_setting():
    assert webhooks.wrong_url("http://shop.example/", plain_http=True) is None


@pytest.mark.parametrize("size", [24, 25, 26, 32, 64])
def test_secrets_have_24_to_64_bytes(size):
    text = base64.b64encode(b"k" * size).decode()
    assert webhooks.is_secret(f"whsec_{text}")
    assert webhooks.is_secret(f"whsec_{text.rstrip('=')}")
    assert not webhooks.is_secret(text)


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_" + "!" * 40, "whsec_" + base64.b64encode(b"k" * 23).decode(), "whsec_" + base64.b64encode(b"k" * 65).decode(), f"{SECRET} "])  # fmt: skip
def test_other_texts_are_no_secret(text):
    assert not webhooks.is_secret(text)


def test_neither_a_webhook_nor_its_request_shows_the_secret():
    webhook = Webhook("https://shop.example/hook?token=abc", SECRET)
    new = New(id="x", tasks=[], deadline_ms=0, webhook=webhook)
    assert SECRET not in f"{webhook} {webhook!r} {new!r}"
    assert "abc" not in f"{new!r}"
    assert webhooks.shown(webhook.url) == "https://shop.example/hook?…"
