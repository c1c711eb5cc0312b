"""What tests of the gateway share."""

import pytest

from web.flow.settle import Settler


@pytest.fixture(autouse=True)
def _unstarted_settlers_are_closed(monkeypatch):
    """A settler that a test runs by itself has no thread that would close its connections in the end."""
    made: list[Settler] = []
    init = Settler.__init__

    def noted(self: Settler, *args, **options) -> None:
        made.append(self)
        init(self, *args, **options)

    monkeypatch.setattr(Settler, "__init__", noted)
    yield
    for one in made:
        if one._loop.thread.ident is None:
            one.stop()
