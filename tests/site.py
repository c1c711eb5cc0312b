"""The sample site: a fixture for a module, in which each test finds it well-behaved, and how a running one is made to misbehave."""

from collections.abc import Iterator

import pytest

from scripts.site.site import Site
from tests.wire import ask


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    started = Site().start()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _well_behaved(site: Site) -> Iterator[None]:
    yield
    site.behaviour.reset()


def behave(port: int, **rule) -> None:
    """Makes a running site misbehave; without a rule it is well again."""
    reply = ask(port, "POST", "/_site/behave", body=rule) if rule else ask(port, "DELETE", "/_site/behave")
    assert reply.status < 300, reply
