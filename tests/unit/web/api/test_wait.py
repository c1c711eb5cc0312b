"""How a parked client is registered."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from web.api.wait import park


@pytest.mark.parametrize(
    ("written", "backlog", "reads_again"), [(0, False, 0), (262_144, True, 0), (262_144, False, 1)]
)
def test_what_a_client_took_before_it_was_watched_is_followed_by_the_rest(written, backlog, reads_again):
    """Its first part was read and sent on another thread meanwhile. The rest came with a comment, up to 15 s later."""
    read: list[object] = []
    exchange = SimpleNamespace(written_bytes=0, backlog=False, watch=lambda *_: None)

    def register(_waiter: object, *, reads_first: bool) -> None:
        assert reads_first
        exchange.written_bytes, exchange.backlog = written, backlog

    park(
        cast("Any", SimpleNamespace(register=register, again=read.append)), cast("Any", "waiter"), cast("Any", exchange)
    )
    assert len(read) == reads_again
