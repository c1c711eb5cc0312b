"""Origins and fetchers of a test, gone when it ends."""

from collections.abc import Callable, Iterator

import pytest

from jobs.fetch.fetcher import Fetcher
from jobs.fetch.guard import parse_allow
from tests.service.jobs.fetch.origin import Origin, Say

LOOPBACK = parse_allow("127.0.0.0/8")


@pytest.fixture
def origin() -> Iterator[Callable[..., Origin]]:
    """Starts origins that send what a function says."""
    started: list[Origin] = []

    def start(say: Say, **options) -> Origin:
        started.append(Origin(say, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def fetcher() -> Iterator[Callable[..., Fetcher]]:
    """Makes fetchers that may connect to loopback, unless a test says otherwise."""
    made: list[Fetcher] = []

    def make(**options) -> Fetcher:
        made.append(Fetcher(**{"allow": LOOPBACK, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()
