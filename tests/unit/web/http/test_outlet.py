"""When a gateway returns memory to the system: after much was held for clients, and not for each answer."""

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from web.http import outlet
from web.http.answer import Answer
from web.http.outlet import TRIM_BYTES, TRIM_SECONDS, Outlet
from web.http.quota import Quota


@pytest.fixture
def held(monkeypatch):
    """An outlet without its thread, its two quotas, and how often it has returned memory."""
    trims = []
    monkeypatch.setattr(outlet.memory, "trim", lambda: trims.append(1))
    quotas = Quota(10 * TRIM_BYTES, 1.0), Quota(10 * TRIM_BYTES, 1.0)
    one = Outlet(*quotas)
    yield one, *quotas, trims
    one._epoll.close()
    os.close(one._wake)


def passed(quota: Quota, size: int) -> None:
    assert quota.take("a", size) == ""
    quota.give_back("a", size)


def test_memory_is_returned_after_much_was_held_and_once_in_a_while(held):
    one, sending, _, trims = held
    began = one._trimmed
    passed(sending, TRIM_BYTES)
    one._trim(began + TRIM_SECONDS - 0.1)
    assert len(trims) == 0
    one._trim(began + TRIM_SECONDS)
    assert len(trims) == 1
    passed(sending, TRIM_BYTES)
    one._trim(began + 2 * TRIM_SECONDS - 0.1)
    assert len(trims) == 1
    one._trim(began + 2 * TRIM_SECONDS)
    assert len(trims) == 2
    one._trim(began + 100)
    assert len(trims) == 2  # nothing was held since


def test_small_answers_return_none_however_many_there_are(held):
    one, sending, receiving, trims = held
    for quota in (sending, receiving):
        for _ in range(50):
            passed(quota, TRIM_BYTES - 1)
    one._trim(one._trimmed + 100)
    assert trims == []


def test_what_is_still_held_is_returned_once_it_is_not(held):
    one, _, receiving, trims = held
    assert receiving.take("a", TRIM_BYTES) == ""
    for turn in (1, 2):
        one._trim(one._trimmed + TRIM_SECONDS)
        assert len(trims) == turn
    receiving.give_back("a", TRIM_BYTES)
    for _ in range(3):
        one._trim(one._trimmed + TRIM_SECONDS)
    assert len(trims) == 3


@pytest.mark.parametrize(("is_gone", "given"), [(True, []), (False, ["gzip"])])
def test_an_answer_is_not_coded_for_a_client_that_has_hung_up(held, is_gone, given):
    """Those of clients that ask and go would wait in memory for one another's coding, and nobody counted them any more."""
    codings: list[str] = []
    exchange = SimpleNamespace(
        is_gone=is_gone, give=lambda answer: codings.append(dict(answer.headers)["Content-Encoding"])
    )
    held[0].code(cast("Any", exchange), Answer(200, b"x" * 10_000), "gzip")
    held[0]._coders.shutdown()
    assert codings == given
