"""How a webhook is signed, and when it is called again."""

import base64
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from jobs.webhook import call
from jobs.webhook.call import Caller
from jobs.webhook.queue import Job
from regions import settings
from regions.faults import Faults

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def job() -> Job:
    return Job("01J", "n", "", "https://shop.example/hook", SECRET, zlib.compress(b"{}"), 1)


@given(st.binary(min_size=24, max_size=64), st.text("msg_01JABC", min_size=1), st.integers(1, 4_000_000_000), st.text())
def test_signatures_are_those_of_the_reference_library(key, message, timestamp, text):
    secret = f"whsec_{base64.b64encode(key).decode()}"
    body = text.encode("utf-8", "replace")
    expected = Webhook(secret).sign(message, datetime.fromtimestamp(timestamp, UTC), body.decode())
    assert call.signature(secret, message, timestamp, body) == expected
    assert call.signature(secret.rstrip("="), message, timestamp, body) == expected


def test_by_default_a_call_is_tried_for_a_day_and_not_often():
    caller = Caller(settings.load({}), None)
    waits = [caller._wait(attempt) for attempt in range(1, 40)]
    assert 4 <= waits[0] <= 6
    assert all(11_520 <= wait <= 17_280 for wait in waits[7:])
    tried, passed = 0, 0.0
    while passed <= 86_400:
        passed += waits[tried]
        tried += 1
    assert 10 <= tried <= 15


def test_waits_differ_so_that_receivers_are_not_called_by_all_at_once():
    caller = Caller(settings.load({}), None)
    assert len({round(caller._wait(3), 3) for _ in range(20)}) > 10


def test_wrong_settings_are_refused_with_their_names():
    found = settings.load({"NEARFETCH__WEBHOOKS__ALLOW": "nowhere", "NEARFETCH__WEBHOOKS__PROXY": "gopher://x"})
    with pytest.raises(Faults) as faults:
        call.fetcher_of(found)
    assert {fault.key for fault in faults.value.faults} == {"webhooks.allow", "webhooks.proxy"}


def test_the_job_of_a_webhook_shows_neither_secret_nor_address():
    assert SECRET not in repr(job())
    assert "shop" not in repr(job())
